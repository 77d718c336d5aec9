//! The `stdout` sink, into a file that is appended to.

use std::io::{Read, Seek, SeekFrom, Write};

use async_trait::async_trait;
use rillway::faults::Point;

use crate::common::daemon::Home;
use crate::common::load::number;
use crate::common::skip::or_skip;
use crate::torture::kills::killed;
use crate::torture::oracle::{Landed, Oracle};

pub(super) struct Lines;

#[async_trait]
impl Oracle for Lines {
    fn name(&self) -> &'static str {
        "stdout"
    }

    fn sink(&self, _stream: &str) -> String {
        "{ type = \"stdout\" }".to_owned()
    }

    async fn landed(&mut self, home: &Home, _stream: &str) -> Landed {
        let text =
            String::from_utf8_lossy(&std::fs::read(home.path("stdout")).unwrap()).into_owned();
        let mut landed = Landed::default();
        for line in text.lines() {
            match serde_json::from_str::<serde_json::Value>(line) {
                Ok(line) => landed.records.push((line["offset"].as_u64().unwrap(), number(&line))),
                Err(_) => landed.torn += 1,
            }
        }
        landed
    }

    fn may_repeat(&self) -> bool {
        true
    }

    /// A printed line counts at once.
    fn points(&self) -> &'static [Point] {
        &[Point::Received, Point::Committed, Point::OffsetStored]
    }

    /// A killed daemon's last line may be torn. A reader of lines starts a new line with each new writer;
    /// so does this.
    async fn after_kill(&mut self, home: &Home, _stream: &str) -> u64 {
        let path = home.path("stdout");
        let mut file = std::fs::File::options().read(true).append(true).open(path).unwrap();
        let mut last = [b'\n'];
        if file.metadata().unwrap().len() > 0 {
            file.seek(SeekFrom::End(-1)).unwrap();
            file.read_exact(&mut last).unwrap();
        }
        let torn = last != [b'\n'];
        if torn {
            file.write_all(b"\n").unwrap();
        }
        u64::from(torn)
    }
}

#[tokio::test]
async fn kills() {
    or_skip!(killed(Lines).await);
}
