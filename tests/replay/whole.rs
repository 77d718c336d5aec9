//! All partitions of a super stream in one command.

use super::*;
use crate::common::next_millisecond;
use crate::common::skip::or_skip;

/// Messages of each partition before, within and behind the hour.
const PARTS: [[u64; 3]; 3] = [[100, 200, 50], [30, 150, 70], [10, 0, 20]];

struct Hours {
    broker: &'static Broker,
    name: String,
    partitions: Vec<String>,
    range: [String; 4],
}

impl Hours {
    async fn publish(label: &str) -> Result<Hours, Unavailable> {
        let broker = Broker::shared(Version::V4_3).await?;
        let (name, partitions) = streams::create_super(broker, label, PARTS.len()).await;
        let mut times = Vec::new();
        for hour in 0..3 {
            times.push(format!("time:{}", next_millisecond().await));
            for (partition, counts) in partitions.iter().zip(PARTS) {
                let begins: u64 = counts[..hour].iter().sum();
                streams::publish(broker, partition, (begins..begins + counts[hour]).map(body))
                    .await;
            }
        }
        let [_, from, to] = &times[..] else { panic!("{times:?}") };
        let range = ["--from".to_owned(), from.clone(), "--to".to_owned(), to.clone()];
        Ok(Hours { broker, name, partitions, range })
    }

    fn home(&self, sink: &str) -> Home {
        let text = consumer("x", sink, "")
            .replace("stream = \"x\"", &format!("super_stream = \"{}\"", self.name));
        Home::new(&self.broker.uri(), &text)
    }

    fn arguments<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        self.range.iter().map(String::as_str).chain(more.iter().copied()).collect()
    }
}

/// The offsets of the hour in a partition.
fn hour_of(nth: usize) -> Vec<u64> {
    let [before, within, _] = PARTS[nth];
    (before..before + within).collect()
}

#[tokio::test]
async fn an_hour_of_all_partitions_is_written_once_however_often_it_is_killed() {
    or_skip!(
        async {
            let hours = Hours::publish("replay-super").await?;
            let home = hours.home("{ type = \"file\", dir = \"out\" }");
            let kills = killed(&home, &hours.arguments(&[])).await;
            assert!(kills >= 3, "only {kills} kills");
            let place = folder(&home, "out.replay-");
            for nth in [0, 1] {
                assert_eq!(home.offsets(&place, &hours.partitions[nth]), hour_of(nth), "{nth}");
            }
            // The end of all was the same moment, and one of them has nothing in the range.
            let table = "{ type = \"sqlite\", path = \"again.db\", table = \"t\" }";
            let done =
                summary(&replay(&home, &hours.arguments(&["--sink", table, "--json"])).await);
            assert_eq!(
                (&done["written"], &done["super_stream"]),
                (&350.into(), &hours.name.clone().into()),
                "{done}"
            );
            let parts = done["streams"].as_array().unwrap();
            assert_eq!(parts.len(), 3, "{done}");
            let nothing = parts.iter().find(|part| part["stream"] == hours.partitions[2]).unwrap();
            assert_eq!((&nothing["written"], &nothing["from_offset"]), (&0.into(), &Value::Null));
            // One of them, as before.
            let one = ["--stream", &hours.partitions[1], "--sink", "null", "--json"];
            let done = summary(&replay(&home, &hours.arguments(&one)).await);
            assert_eq!(
                (&done["written"], &done["from_offset"]),
                (&150.into(), &30.into()),
                "{done}"
            );
            let refused = replay(&home, &["--from", "offset:0", "--to", "end"]).await;
            assert_eq!(refused.status.code(), Some(64), "{}", said(&refused));
            assert!(said(&refused).contains("name one with --stream"), "{}", said(&refused));
            Ok::<_, Unavailable>(())
        }
        .await
    );
}

/// A sink without a position: only the replay's own state tells what is done.
#[tokio::test]
async fn a_partition_that_is_done_is_not_done_again() {
    or_skip!(
        async {
            let hours = Hours::publish("replay-points").await?;
            let home = hours.home("{ type = \"stdout\" }");
            let mut printed = String::new();
            for fault in
                ["replay_kept:1", "stream_replayed:1", "stream_replayed:1", "replay_told:1", ""]
            {
                let mut command =
                    home.command(&[&["replay", "it"], &hours.arguments(&["--quiet"])[..]].concat());
                if !fault.is_empty() {
                    command.env("RILLWAY_FAULT", format!("die@{fault}"));
                }
                let output = output(command).await;
                match fault {
                    "" => assert!(output.status.success(), "{}", said(&output)),
                    _ => assert_eq!(output.status.signal(), Some(9), "{fault}: {}", said(&output)),
                }
                if ["replay_kept:1", "replay_told:1", ""].contains(&fault) {
                    assert!(output.stdout.is_empty(), "{fault}: nothing is left to print");
                }
                if fault.is_empty() {
                    let told = said(&output);
                    assert!(told.contains("were replayed before an interruption"), "{told}");
                }
                printed.push_str(std::str::from_utf8(&output.stdout).unwrap());
            }
            let mut offsets: BTreeMap<String, Vec<u64>> = BTreeMap::new();
            for line in printed.lines() {
                let line: Value = serde_json::from_str(line).unwrap();
                let stream = line["stream"].as_str().unwrap().to_owned();
                offsets.entry(stream).or_default().push(line["offset"].as_u64().unwrap());
            }
            let expected = [0, 1].map(|nth| (hours.partitions[nth].clone(), hour_of(nth)));
            assert_eq!(offsets, expected.into());
            // Nothing of it is left: the same command begins a new one.
            let again = replay(&home, &hours.arguments(&["--sink", "stdout", "--quiet"])).await;
            assert_eq!(std::str::from_utf8(&again.stdout).unwrap().lines().count(), 350);
            let left = files(home.path("state"));
            assert!(left.is_empty(), "{left:?}");
            Ok::<_, Unavailable>(())
        }
        .await
    );
}
