//! The `stream` sink's keys, and where dead letters go.

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
        (sink("stream = \"s\""), "consumer[0].sink.stream", "without end"),
        (
            sink("stream = \"s\", uri = \"rabbitmq-stream://x:y@localhost:5552/%2f\""),
            "consumer[0].sink.stream",
            "without end",
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
            named("a", "s", "stream = \"t\"") + &named("b", "s", "stream = \"t\""),
            "consumer[1].sink.stream",
            "consumer[0] already sends the messages of stream \"s\" to \"t\"",
        ),
        (
            named("a", "s", "stream = \"t\", publisher = \"p\"")
                + &named("b", "s", "stream = \"t\", publisher = \"p\""),
            "consumer[1].sink.publisher",
            "consumer[0] already publishes to stream \"t\" as \"p\"",
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
    assert!(found.iter().all(|p| p.contains("without end")), "{found:#?}");
}

#[test]
fn the_same_name_on_another_broker_is_another_stream() {
    let text = sink("stream = \"s\", uri = \"rabbitmq-stream://other/%2f\"");
    assert!(load(&text).is_ok());
}

#[test]
fn what_is_wrong_with_dead_letters() {
    let with = |keys: &str| format!("{}{keys}\n", named("a", "s", "stream = \"t\""));
    let policy = "on_bad_message = \"dead_letter\"\n";
    let long = "r".repeat(243);
    for (text, path, says) in [
        (with(policy), "consumer[0].dead_letter", "needs a sink"),
        (
            with("on_bad_message = \"skip\"\ndead_letter = { type = \"file\", dir = \"d\" }"),
            "consumer[0].dead_letter",
            "no effect with",
        ),
        (
            with(&format!("{policy}dead_letter = {{ type = \"null\" }}")),
            "consumer[0].dead_letter",
            "keeps no messages",
        ),
        (
            with(&format!("{policy}dead_letter = {{ type = \"stream\", stream = \"s\" }}")),
            "consumer[0].dead_letter.stream",
            "its dead letters would come back",
        ),
        (
            with(&format!("{policy}dead_letter = {{ type = \"file\", dir = \"d\", zzz = 1 }}")),
            "consumer[0].dead_letter.zzz",
            "unknown key",
        ),
        (
            with(&format!(
                "{policy}reference = \"{long}\"\ndead_letter = {{ type = \"file\", dir = \"d\" }}"
            ))
            .replace("stream = \"t\"", "stream = \"t\", publisher = \"p\""),
            "consumer[0].reference",
            "242 bytes",
        ),
    ] {
        let found = problems(&text, &Env::default());
        assert_eq!(found.len(), 1, "{text}\n{found:#?}");
        assert!(found[0].starts_with(path), "{found:?}");
        assert!(found[0].contains(says), "{} does not say {says:?}", found[0]);
    }
    let fine = with(&format!("{policy}dead_letter = {{ type = \"stream\", stream = \"t\" }}"));
    let config = load(&fine).unwrap();
    assert_eq!(config.consumers[0].dead_letter_reference().as_str(), "a.dead-letters");
}

#[test]
fn letters_do_not_go_where_others_write() {
    let file = "{ type = \"file\", dir = \"d\" }";
    let letters = format!("on_bad_message = \"dead_letter\"\ndead_letter = {file}\n");
    let text = format!("{}{letters}", named("a", "s", "stream = \"t\""))
        + &format!("[[consumer]]\nname = \"b\"\nstream = \"s\"\nsink = {file}\n");
    let found = problems(&text, &Env::default());
    assert!(found.len() == 1 && found[0].contains("another `dir`"), "{found:#?}");
}

#[test]
fn over_amqp_only_streams_are_read() {
    let over_amqp = |rest: String| format!("[broker]\nuri = \"amqp://u:p@h/%2f\"\n{rest}");
    let null = "sink = { type = \"null\" }";
    let letters =
        "on_bad_message = \"dead_letter\"\ndead_letter = { type = \"stream\", stream = \"bad\" }";
    let consumer = |rest: &str| format!("[[consumer]]\nname = \"a\"\n{rest}\n");
    for (text, path, says) in [
        (
            consumer(&format!("super_stream = \"orders\"\n{null}")),
            "consumer[0].super_stream",
            "super streams need the stream protocol",
        ),
        (sink("stream = \"t\""), "consumer[0].sink.uri", "a `uri` of its own"),
        (
            consumer(&format!("stream = \"s\"\n{letters}\n{null}")),
            "consumer[0].dead_letter.uri",
            "a `uri` of its own",
        ),
        (
            // The same broker, at the port of the other protocol.
            sink("stream = \"s\", uri = \"rabbitmq-stream://u:p@h/%2f\""),
            "consumer[0].sink.stream",
            "without end",
        ),
    ] {
        let found = problems(&over_amqp(text.clone()), &Env::default());
        assert_eq!(found.len(), 1, "{text}\n{found:#?}");
        assert!(found[0].starts_with(path), "{path}: {found:?}");
        assert!(found[0].contains(says), "{} does not say {says:?}", found[0]);
    }
    for text in [
        sink("stream = \"t\", uri = \"rabbitmq-stream://u:p@h/%2f\""),
        consumer(&format!("stream = \"s\"\n{null}")),
    ] {
        let config = File::new(&over_amqp(text)).load(&Env::default()).unwrap();
        assert_eq!(config.broker.addresses[0].port, 5672);
    }
}
