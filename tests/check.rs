//! `rillway check`: does it report on every consumer, and does it promise what the documentation does?

use std::collections::BTreeMap;

use rillway::sink::declaration::About;
use rillway::sink::registry::SINKS;
use serde_json::Value;

use crate::common::daemon::Home;
use crate::common::load::body;
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, streams};

fn consumer(name: &str, stream: &str, sink: &str) -> String {
    format!("[[consumer]]\nname = \"{name}\"\nstream = \"{stream}\"\nsink = {sink}\n")
}

/// One consumer that could run, among others that could not, each for another reason.
async fn all_consumers_are_told_of() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "check").await;
    streams::publish(broker, &stream, (0..10).map(body)).await;
    let closed = crate::common::ports::nobody().port();
    let dead = format!("{{ type = \"http\", url = \"http://127.0.0.1:{closed}/in\" }}");
    let letters = consumer("letters", &stream, "{ type = \"null\" }")
        + "on_bad_message = \"dead_letter\"\n\
           dead_letter = { type = \"file\", dir = \"plain/letters\" }\n";
    let consumers = [
        consumer("missing", "there-is-no-such-stream", "{ type = \"null\" }"),
        consumer("dead", &stream, &dead),
        consumer("below", &stream, "{ type = \"file\", dir = \"plain/deeper\" }"),
        consumer("archive", &stream, "{ type = \"object\", url = \"plain/archive\" }"),
        letters,
        consumer("folder", &stream, "{ type = \"sqlite\", path = \"folder\" }"),
        consumer("database", &stream, "{ type = \"sqlite\", path = \"plain/x.db\" }"),
        consumer("fine", &stream, "{ type = \"file\", dir = \"out\" }"),
    ];
    let home = Home::new(&broker.uri(), &consumers.concat());
    std::fs::write(home.path("plain"), "a file, where folders are to be made").unwrap();
    std::fs::create_dir(home.path("folder")).unwrap();

    let checked = home.command(&["check", "--connect", "--json"]).output().unwrap();
    assert_eq!(checked.status.code(), Some(69), "{}", String::from_utf8_lossy(&checked.stderr));
    let plan: Value = serde_json::from_slice(&checked.stdout).unwrap();
    let errors = String::from_utf8_lossy(&checked.stderr).into_owned();
    let says = [
        ("missing", "there-is-no-such-stream"),
        ("dead", "could not connect to 127.0.0.1"),
        ("below", "is not a folder"),
        ("archive", "is not a folder"),
        ("letters", "dead letters: "),
        ("folder", "it is a folder"),
        ("database", "is not a folder"),
    ];
    for (index, (name, says)) in says.iter().enumerate() {
        let told = &plan["consumers"][index];
        assert_eq!(told["name"], *name);
        let problem = told["problem"].as_str().unwrap_or_else(|| panic!("{name} is fine: {told}"));
        assert!(problem.contains(says), "{name}: {problem}");
        assert!(errors.contains(&format!("consumer {name:?}: ")), "{errors}");
    }
    let fine = &plan["consumers"][says.len()];
    assert!(fine["problem"].is_null() && fine["resume"].is_object(), "{fine}");

    let checked = home.command(&["check", "--connect"]).output().unwrap();
    let text = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(text.contains("7 of 8 consumers could not run"), "{text}");
    assert!(text.contains("consumer \"fine\""), "{text}");
    assert!(!home.path("out").exists(), "to check is to make nothing");
    Ok(())
}

#[tokio::test]
async fn one_bad_consumer_does_not_hide_the_others() {
    or_skip!(all_consumers_are_told_of().await);
}

async fn state_dir_below_a_file() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "check-state").await;
    let home = Home::new(&broker.uri(), &consumer("c", &stream, "{ type = \"null\" }"));
    std::fs::write(home.path("plain"), "x").unwrap();
    let mut command = home.command(&["check", "--connect"]);
    let checked = command.env("RILLWAY__STATE_DIR", home.path("plain/state")).output().unwrap();
    let errors = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert_eq!(checked.status.code(), Some(69), "{errors}");
    assert!(errors.contains("state_dir: ") && errors.contains("is not a folder"), "{errors}");
    Ok(())
}

#[tokio::test]
async fn a_state_dir_that_cannot_be_made_is_told() {
    or_skip!(state_dir_below_a_file().await);
}

/// The guarantee of each sink, by the headings of docs/guarantees.md: `` ## `file`: exactly-once ``.
fn documented() -> BTreeMap<String, String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/guarantees.md");
    let text = std::fs::read_to_string(path).unwrap();
    let heading = |line: &str| {
        let (sink, words) = line.strip_prefix("## `")?.split_once("`: ")?;
        let guarantee = words.split([',', ' ']).next()?;
        Some((sink.to_owned(), guarantee.to_owned()))
    };
    text.lines().filter_map(heading).collect()
}

#[test]
fn check_promises_what_the_documentation_does() {
    let consumers: String = SINKS
        .iter()
        .map(|about| {
            let About { kind, least, .. } = about();
            format!(
                "[[consumer]]\nname = \"{kind}\"\nstream = \"s\"\n[consumer.sink]\ntype = \"{kind}\"\n{least}\n"
            )
        })
        .collect();
    let home = Home::new("rabbitmq-stream://guest:guest@localhost:5552/%2f", &consumers);
    let checked = home.command(&["check", "--json"]).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    let plan: Value = serde_json::from_slice(&checked.stdout).unwrap();
    let promised: BTreeMap<String, String> = plan["consumers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| (c["sink"].as_str().unwrap().into(), c["guarantee"].as_str().unwrap().into()))
        .collect();
    assert_eq!(promised, documented());
}
