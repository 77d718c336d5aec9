//! Consumers whose reference is not renamed, since nobody knows where the new one would go on, or who has it.

use std::fs;

use super::{Bench, Kind, offsets, refusal};
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, streams};

impl Bench {
    /// Renames to `d`, which is refused: nothing of the old reference has changed.
    #[track_caller]
    fn is_not_renamed(&self, says: &str) {
        let file = self.home.path(format!("state/c@{}.json", self.stream));
        let before = fs::read_to_string(&file).unwrap();
        let told = refusal(&offsets(&self.home, &["rename", "c", "d"], None), 69);
        assert!(told.contains(says) && told.contains("Nothing was renamed"), "{told}");
        assert_eq!(fs::read_to_string(&file).unwrap(), before);
        assert!(!self.home.path(format!("state/d@{}.json", self.stream)).exists());
    }

    /// The stream is deleted, and another one has its name.
    async fn create_again(&self) {
        streams::delete(self.broker, &self.stream).await;
        streams::create_named(self.broker, &self.stream, &[]).await;
    }
}

/// By `on_offset_lost` it would go on anywhere, and `start` would leave out all that is there.
async fn one_that_lost_its_position() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let lost = "on_offset_lost = \"first\"";
    let bench = Bench::by(broker, &broker.uri(), Kind::Stdout, lost).await?;
    bench.publish(0..20).await;
    bench.run_to_the_end().await;
    // Another program has the wanted name.
    streams::store_offset(broker, &bench.stream, "d", 5).await;
    bench.is_not_renamed("the broker holds offset 5 for reference \"d\"");
    // With another history, the broker knows nothing of it.
    bench.create_again().await;
    let path = bench.home.path("rillway.toml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("start = \"first\"", "start = \"next\"")).unwrap();
    bench.publish(0..5).await;
    bench.is_not_renamed("where it goes on is not known now");
    Ok(())
}

#[tokio::test]
async fn one_that_lost_its_position_is_not_renamed() {
    or_skip!(one_that_lost_its_position().await);
}

/// By its numbers alone, the other stream could be the same one.
async fn one_of_a_former_stream() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let bench = Bench::new(broker, Kind::Sqlite).await?;
    bench.publish(0..20).await;
    bench.run_to_the_end().await;
    bench.create_again().await;
    for first in [0, 10, 20, 30] {
        bench.publish(first..first + 10).await;
    }
    bench.is_not_renamed("it would halt");
    Ok(())
}

#[tokio::test]
async fn one_of_a_former_stream_is_not_renamed() {
    or_skip!(one_of_a_former_stream().await);
}
