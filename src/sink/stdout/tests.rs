use super::*;
use crate::sink::conformance::{self, Medium, STREAM, batch};
use crate::sink::write_whole;
use std::io::Read;

/// A target that keeps what is written, and may fail.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    bytes: Vec<u8>,
    /// This many more bytes are accepted; then one error.
    fails_after: Option<usize>,
    /// True if the reader takes a while for each piece.
    trickles: bool,
}

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut inner = self.0.lock().unwrap();
        if inner.trickles {
            // The slowness is part of the test; this is the sink's own thread.
            std::thread::sleep(Duration::from_millis(60));
        }
        let n = match &mut inner.fails_after {
            Some(0) => {
                inner.fails_after = None;
                return Err(rustix::io::Errno::NOSPC.into());
            }
            Some(left) => {
                let n = bytes.len().min(*left);
                *left -= n;
                n
            }
            None => bytes.len(),
        };
        inner.bytes.extend_from_slice(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Kept {
    fn lines(&self) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().bytes.clone()).unwrap();
        text.lines().map(str::to_owned).collect()
    }
}

fn options() -> StdoutOptions {
    StdoutOptions { format: Format::Ndjson }
}

fn offset_of(line: &str) -> Option<u64> {
    serde_json::from_str::<serde_json::Value>(line).ok()?.get("offset")?.as_u64()
}

#[async_trait]
impl Medium for Kept {
    async fn open(&mut self) -> Result<Box<dyn Sink>, SinkError> {
        let target = Box::new(self.clone());
        Ok(Box::new(StdoutSink::to(target, options(), STREAM.into()).await?))
    }

    async fn visible(&mut self) -> Option<Vec<u64>> {
        Some(self.lines().iter().map(|line| offset_of(line).unwrap()).collect())
    }

    async fn trickle(&mut self, on: bool) -> bool {
        self.0.lock().unwrap().trickles = on;
        true
    }
}

#[tokio::test]
async fn conforms() {
    let told = conformance::all(Kept::default).await.unwrap();
    for question in ["tells_of_durable_parts_in_order", "winds_up_what_it_has_begun"] {
        assert!(told.asked().contains(&question), "{told:?}");
    }
}

#[tokio::test]
async fn a_torn_line_stays_alone_and_the_batch_comes_again() {
    // Wherever the failure happens, every line except at most one can be read, and none is missing.
    for fails_after in (0..400).step_by(7) {
        let mut kept = Kept::default();
        kept.0.lock().unwrap().fails_after = Some(fails_after);
        let mut sink = kept.open().await.unwrap();
        let batch = Arc::new(batch(0..5));
        match write_whole(&mut *sink, &batch).await {
            Err(SinkError::Transient { what, .. }) => {
                assert!(what.contains("No space left"), "{what}");
                write_whole(&mut *sink, &batch).await.unwrap();
            }
            other => assert_eq!(other.unwrap(), Durability::Durable),
        }
        let lines = kept.lines();
        let readable: Vec<u64> = lines.iter().filter_map(|line| offset_of(line)).collect();
        assert!(lines.len() - readable.len() <= 1, "failed after {fails_after}: {lines:?}");
        // A line that was printed completely is not written again.
        assert_eq!(readable, [0, 1, 2, 3, 4], "failed after {fails_after}: {lines:?}");
    }
}

#[tokio::test]
async fn a_reader_that_ended_is_fatal() {
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    let mut sink = StdoutSink::to(Box::new(writer), options(), STREAM.into()).await.unwrap();
    match sink.write(&Arc::new(batch(0..5))).await {
        Err(SinkError::Fatal(what)) => assert!(what.contains("standard output"), "{what}"),
        other => panic!("came back as {other:?}"),
    }
}

#[tokio::test]
async fn a_full_device_is_tried_again() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut sink = StdoutSink::to(Box::new(full), options(), STREAM.into()).await.unwrap();
    for _ in 0..3 {
        match sink.write(&Arc::new(batch(0..5))).await {
            Err(SinkError::Transient { what, .. }) => assert!(what.contains("No space"), "{what}"),
            other => panic!("came back as {other:?}"),
        }
    }
}

/// While nobody reads, the runtime and other tasks continue, and the runtime can be dropped.
#[test]
fn a_reader_that_does_not_read_blocks_nobody_else() {
    let (mut reader, writer) = io::pipe().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let mut sink = StdoutSink::to(Box::new(writer), options(), STREAM.into()).await.unwrap();
        let large = Arc::new(batch(0..5_000)); // More than a pipe holds.
        let mut writing = sink.write(&large);
        assert!(!conformance::is_ready(&mut writing));
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
        assert!(!conformance::is_ready(&mut writing), "nobody read, and yet it was written");
        drop(writing);
        sink.close().await.unwrap();
    });
    drop(runtime);
    // The thread is still at it: its lines come out whole, once there is a reader.
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    let offsets: Vec<Option<u64>> = text.lines().map(offset_of).collect();
    assert_eq!(offsets, (0..5_000).map(Some).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_consumers_never_mix_their_lines() {
    let (mut reader, writer) = io::pipe().unwrap();
    let other = writer.try_clone().unwrap();
    let collect = std::thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text
    });
    let write = |target: io::PipeWriter| async move {
        let mut sink = StdoutSink::to(Box::new(target), options(), STREAM.into()).await.unwrap();
        for n in 0..20 {
            let batch = Arc::new(batch(n * 1_000..(n + 1) * 1_000));
            write_whole(&mut sink, &batch).await.unwrap();
        }
        sink.close().await.unwrap();
    };
    let (one, two) = tokio::join!(tokio::spawn(write(writer)), tokio::spawn(write(other)));
    one.unwrap();
    two.unwrap();
    let text = collect.join().unwrap();
    assert_eq!(text.lines().filter_map(offset_of).count(), 40_000);
    assert_eq!(text.lines().count(), 40_000);
}
