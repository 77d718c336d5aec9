//! Ranges by time, and bare bodies.

use serde_json::json;

use super::{assert_same, consumer, differences, report, verify};
use crate::common::daemon::Home;
use crate::common::reading;
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, next_millisecond, streams};

async fn by_time(version: Version) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    let stream = streams::create(broker, "verified-hour").await;
    let mut times = Vec::new();
    for hour in [0..30_u64, 30..70, 70..100] {
        times.push(format!("time:{}", next_millisecond().await));
        streams::publish(broker, &stream, hour.map(|n| format!("message {n}"))).await;
    }
    times.push(format!("time:{}", next_millisecond().await));
    let home = Home::new(&broker.uri(), &consumer("c", &stream, "type = \"file\", dir = \"out\""));
    let mut daemon = home.start();
    daemon.until_durable("c", 99).await;
    daemon.terminate().await;
    let range = |found: &serde_json::Value| {
        (found["from"].as_u64().unwrap(), found["to"].as_u64().unwrap())
    };
    for (arguments, expected) in [
        (&["--from", &times[1], "--to", &times[2]][..], (30, 69)),
        (&["--from", &times[1]], (30, 99)),
        (&["--to", &times[1]], (0, 29)),
        (&["--from", "ago:1h", "--to", "end"], (0, 99)),
        (&["--from", "first", "--to", "offset:9"], (0, 9)),
        (&["--from", "98"], (98, 99)),
    ] {
        let (found, code) = report(&home, &[&["c"], arguments].concat());
        assert_same("by time", &found, code);
        assert_eq!(range(&found), expected, "{arguments:?}: {found:#}");
        assert_eq!(found["same"], expected.1 - expected.0 + 1, "{arguments:?}: {found:#}");
    }
    for (arguments, code, says) in [
        (&["--from", &*times[3]][..], 69, "has no message of --from or later"),
        (&["--to", "time:2001-01-01T00:00:00Z"], 69, "has no message that was written at 2001"),
        (&["--from", &times[2], "--to", &times[1]], 69, "nothing to compare between"),
        (&["--from", "next"], 64, "in no sink yet"),
        (&["--from", "yesterday"], 64, "time:T"),
        (&["--from", "offset:5", "--to", "4"], 64, "is above"),
    ] {
        let output = verify(&home, &[&["c"], arguments].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(code) && said.contains(says), "{arguments:?}: {said}");
    }
    Ok(())
}

#[tokio::test]
async fn an_hour_on_rabbitmq_4_3() {
    or_skip!(by_time(Version::V4_3).await);
}

#[tokio::test]
async fn an_hour_on_rabbitmq_3_10() {
    or_skip!(by_time(Version::V3_10).await);
}

/// Nothing is stored before the end: a stored offset takes an offset of the stream.
const MORE: &str =
    "on_bad_message = \"skip\"\ncommit = { every = \"1h\", every_messages = 1000000000 }\n";

/// Files of bare bodies: by their order, file by file.
async fn bare_bodies() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "verified-raw").await;
    // One has two lines, one is no AMQP.
    let message = |n: u64| match n {
        7 => rillway::sink::conformance::message(b"two\nlines"),
        9 => rillway::sink::conformance::BAD_MESSAGE.to_vec(),
        n => rillway::sink::conformance::message(format!("{n} {}", "salt ".repeat(10)).as_bytes()),
    };
    let sinks = [
        ("plain", "type = \"file\", dir = \"plain\", format = \"raw\", rotate_bytes = \"1KiB\""),
        (
            "zstd",
            "type = \"file\", dir = \"zstd\", format = \"raw\", compression = \"zstd\", delimiter = \"--\\r\\n\"",
        ),
        ("joined", "type = \"file\", dir = \"joined\", format = \"raw\", delimiter = \"\""),
    ];
    let text: String =
        sinks.iter().map(|(name, sink)| consumer(name, &stream, sink) + MORE).collect();
    let home = Home::new(&broker.uri(), &text);
    let mut daemon = home.start();
    // Each part is a file, at least.
    for part in 0..6 {
        let messages: Vec<_> = (100 * part..100 * (part + 1)).map(message).collect();
        reading::put(broker, &stream, &messages).await;
        for (name, _) in sinks {
            daemon.until_durable(name, 100 * part + 99).await;
        }
    }
    daemon.terminate().await;
    for name in ["plain", "zstd"] {
        for (arguments, same) in
            [(&[][..], 599), (&["--from", "300"], 300), (&["--from", "5", "--to", "20"], 15)]
        {
            let (found, code) = report(&home, &[&[name], arguments].concat());
            assert_same(name, &found, code);
            assert_eq!(found["same"], same, "{name} {arguments:?}: {found:#}");
        }
    }
    let output = verify(&home, &["joined"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(64) && said.contains("format = \"ndjson\""), "{said}");

    let names = std::fs::read_dir(home.path("plain").join(&stream)).unwrap();
    let mut segments: Vec<_> = names.map(|entry| entry.unwrap().path()).collect();
    segments.retain(|path| path.extension().is_some_and(|extension| extension == "raw"));
    segments.sort();
    let first = |nth: usize| {
        let name = segments[nth].file_name().unwrap().to_str().unwrap();
        name.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse::<u64>().unwrap()
    };
    // One is gone, and in others a line was deleted, altered and doubled.
    std::fs::remove_file(&segments[2]).unwrap();
    let mut told = vec![];
    for (nth, segment) in segments.iter().enumerate().take(6) {
        let Ok(text) = std::fs::read_to_string(segment) else { continue };
        let mut lines: Vec<&str> = text.lines().collect();
        match nth {
            1 => drop(lines.remove(20)),
            3 => lines[20] = "forged",
            4 => lines.insert(20, lines[20]),
            _ => {}
        }
        std::fs::write(segment, lines.join("\n") + "\n").unwrap();
        if [1, 3, 4].contains(&nth) {
            told.push(first(nth) + 20);
        }
    }
    let (found, code) = report(&home, &["plain"]);
    let [missing, altered, doubled] = told[..] else { panic!("{told:?}") };
    let gone = (first(2), first(3) - 1);
    let expected = format!(
        "missing [[{missing},{missing}],[{},{}]], doubled [[{doubled},{doubled}]], altered [[{altered},{altered}]]",
        gone.0, gone.1
    );
    assert_eq!((code, differences(&found)), (65, expected), "{found:#}");
    assert_eq!(found["same"], 599 - 2 - (gone.1 - gone.0 + 1), "{found:#}");
    let example = &found["altered_examples"][0]["differences"][0];
    assert_eq!(
        (&example["part"], &example["found"]),
        (&json!("body"), &json!("forged")),
        "{found:#}"
    );
    Ok(())
}

#[tokio::test]
async fn bare_bodies_are_compared_by_their_order() {
    or_skip!(bare_bodies().await);
}
