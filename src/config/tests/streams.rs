//! The `stream` sink's keys.

use super::*;

fn sink(keys: &str) -> String {
    named("a", "s", keys)
}

fn named(name: &str, stream: &str, keys: &str) -> String {
    format!(
        "[[consumer]]\nname = \"{name}\"\nstream = \"{stream}\"\nsink = {{ type = \"stream\", {keys} }}\n"
    )
}

#[test]
fn what_is_wrong_with_a_stream_sink() {
    let long = format!("stream = \"t\", publisher = \"{}\"", "x".repeat(245));
    for (text, path, says) in [
        (sink("create = true"), "consumer[0].sink", "`stream` is missing"),
        (sink("stream = \"\""), "consumer[0].sink.stream", "0 bytes"),
        (sink("stream = \"s\""), "consumer[0].sink.stream", "round for ever"),
        (
            sink("stream = \"s\", uri = \"rabbitmq-stream://x:y@localhost:5552/%2f\""),
            "consumer[0].sink.stream",
            "round for ever",
        ),
        (
            sink("stream = \"t\", uri = \"amqp://u:secret@h\""),
            "consumer[0].sink.uri",
            "scheme `amqp`",
        ),
        (sink("stream = \"t\", in_flight = 0"), "consumer[0].sink.in_flight", "1 to 100000"),
        (sink("stream = \"t\", timeout = \"0s\""), "consumer[0].sink.timeout", "out of range"),
        (sink("stream = \"t\", tls = {}"), "consumer[0].sink.tls", "without `uri`"),
        (sink("stream = \"t\", publisher = \"\""), "consumer[0].sink.publisher", "empty"),
        (sink(&long), "consumer[0].sink.publisher", "245 bytes"),
        (
            named("a", "s", "stream = \"t\", publisher = \"p\"")
                + &named("b", "s", "stream = \"t\", publisher = \"p\""),
            "consumer[1].sink.publisher",
            "consumer[0] publishes to stream \"t\" as \"p\" already",
        ),
    ] {
        let found = problems(&text, &Env::default());
        assert_eq!(found.len(), 1, "{text}\n{found:#?}");
        assert!(found[0].starts_with(path), "{found:?}");
        assert!(found[0].contains(says), "{} does not say {says:?}", found[0]);
        assert!(!found[0].contains("secret"), "{found:?}");
    }
}

#[test]
fn messages_that_would_go_round_through_several_consumers() {
    let text = named("a", "s", "stream = \"t\"")
        + &named("b", "t", "stream = \"u\"")
        + &named("c", "u", "stream = \"s\"")
        + &named("d", "s", "stream = \"elsewhere\"");
    let found = problems(&text, &Env::default());
    assert_eq!(found.len(), 3, "{found:#?}");
    assert!(found.iter().all(|p| p.contains("round for ever")), "{found:#?}");
}

#[test]
fn the_same_name_on_another_broker_is_another_stream() {
    let text = sink("stream = \"s\", uri = \"rabbitmq-stream://other/%2f\"");
    assert!(load(&text).is_ok());
}
