//! Super streams and placeholders: what fits together, and what is told where it does not.

use super::*;

fn of(name: &str, source: &str, rest: &str) -> String {
    format!("[[consumer]]\nname = \"{name}\"\n{source}\n{rest}\n")
}

const ORDERS: &str = "super_stream = \"orders\"";

#[test]
fn what_is_wrong_with_a_super_stream() {
    let null = "sink = { type = \"null\" }";
    let stream = |keys: &str| format!("sink = {{ type = \"stream\", stream = {keys} }}");
    let file = |dir: &str| format!("sink = {{ type = \"file\", dir = \"{dir}\" }}");
    let cases = [
        (of("a", "super_stream = \"\"", null), "consumer[0].super_stream", "0 bytes"),
        (of("a", "super_stream = \"a\\nb\"", null), "consumer[0].super_stream", "control"),
        (
            of("a", "stream = \"s\"\nsuper_stream = \"t\"", null),
            "consumer[0].super_stream",
            "one of the two",
        ),
        (
            of("a", ORDERS, &format!("start = {{ offset = 5 }}\n{null}")),
            "consumer[0].start",
            "nothing in common",
        ),
        (
            of("a", ORDERS, &format!("single_active = true\nstart = \"next\"\n{null}")),
            "consumer[0].start",
            "becomes active later",
        ),
        (
            of("a", ORDERS, null)
                + &of("b", "stream = \"x\"", &format!("reference = \"a\"\n{null}")),
            "consumer[1].reference",
            "the partitions of super stream \"orders\"",
        ),
        (
            of("a", "stream = \"x\"", null)
                + &of("b", ORDERS, &format!("reference = \"a\"\n{null}")),
            "consumer[1].reference",
            "consumer[0] has the same reference",
        ),
        (
            of("a", ORDERS, &file("d/{partition}")) + &of("b", ORDERS, &file("d/{partition}")),
            "consumer[1].sink.dir",
            "already writes super stream \"orders\"",
        ),
        (of("a", ORDERS, &file("{partitions}")), "consumer[0].sink.dir", "not a placeholder"),
        (of("a", "stream = \"s\"", &file("{partition}")), "consumer[0].sink.dir", "use {stream}"),
        (
            of("a", ORDERS, &stream("\"t\", publisher = \"p\"")),
            "consumer[0].sink.publisher",
            "put {partition} into it",
        ),
    ];
    for (text, path, says) in cases {
        let found = problems(&text, &Env::default());
        assert_eq!(found.len(), 1, "{text}\n{found:#?}");
        assert!(found[0].starts_with(path), "{path}: {found:?}");
        assert!(found[0].contains(says), "{} does not say {says:?}", found[0]);
    }
}

#[test]
fn what_fits_together() {
    let null = "sink = { type = \"null\" }";
    let file = "sink = { type = \"file\", dir = \"d\" }";
    for text in [
        // An exchange and a stream may have one name.
        of("a", ORDERS, file) + &of("b", "stream = \"orders\"", file),
        of("a", ORDERS, null) + &of("b", ORDERS, null),
        of("a", ORDERS, &format!("single_active = true\n{file}")),
        of(
            "a",
            ORDERS,
            "sink = { type = \"stream\", stream = \"t\", publisher = \"p-{partition}\" }",
        ),
        of(
            "a",
            ORDERS,
            "sink = { type = \"stream\", stream = \"{stream}-copy\", publisher = \"p\" }",
        ),
        of("a", "stream = \"s\"", "sink = { type = \"file\", dir = \"{stream}/x\" }"),
    ] {
        if let Err(error) = File::new(&text).load(&Env::default()) {
            panic!("{error}\n{text}");
        }
    }
}

#[test]
fn a_partition_has_its_names_in_place_of_the_placeholders() {
    let sqlite =
        |keys: &str| format!("sink = {{ type = \"sqlite\", path = \"x-{{partition}}.db\"{keys} }}");
    let text = of("a", ORDERS, &sqlite("")) + &of("b", ORDERS, &sqlite(", table = \"t_{stream}\""));
    let file = File::new(&text);
    let config = file.load(&Env::default()).unwrap();
    let places: Vec<_> = config
        .consumers
        .iter()
        .map(|consumer| {
            assert!(consumer.is_super_stream);
            let one = consumer.of_stream(Some(&"orders-2".into()));
            assert_eq!((one.stream.as_str(), one.is_super_stream), ("orders-2", false));
            assert!(one.sink.place().unwrap().ends_with("x-2.db"), "{:?}", one.sink.place());
            one.sink.exclusive().unwrap().place
        })
        .collect();
    // All partitions share the table by default.
    assert!(places[0].contains("\"orders\""), "{places:?}");
    assert!(places[1].contains("\"t_orders_2\""), "{places:?}");
}

#[test]
fn what_only_the_stream_protocol_can_do_is_refused_over_amqp() {
    let null = "sink = { type = \"null\" }";
    let over_amqp = |consumer: String| format!("[broker]\nuri = \"amqp://localhost\"\n{consumer}");
    let single = format!("single_active = true\n{null}");
    for (consumer, path) in [
        (of("a", ORDERS, null), "consumer[0].super_stream"),
        (of("a", "stream = \"s\"", &single), "consumer[0].single_active"),
    ] {
        assert!(File::new(&consumer).load(&Env::default()).is_ok(), "{consumer}");
        let found = problems(&over_amqp(consumer), &Env::default());
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(found[0].starts_with(path) && found[0].contains("rabbitmq-stream://"), "{found:?}");
    }
}

#[test]
fn a_single_active_consumer_begins_at_a_place_that_all_daemons_know() {
    let null = "sink = { type = \"null\" }";
    for (start, is_fine) in [
        ("\"first\"", true),
        ("{ offset = 5 }", true),
        ("{ timestamp = \"2026-01-01T00:00:00Z\" }", true),
        ("\"next\"", false),
        ("\"last\"", false),
        ("{ ago = \"1h\" }", false),
    ] {
        let text =
            of("a", "stream = \"s\"\nsingle_active = true", &format!("start = {start}\n{null}"));
        match is_fine {
            true => assert!(File::new(&text).load(&Env::default()).is_ok(), "{text}"),
            false => assert!(problems(&text, &Env::default())[0].starts_with("consumer[0].start")),
        }
    }
}

#[test]
fn a_stream_is_not_published_into_itself_by_a_placeholder() {
    for (source, target) in [("stream = \"s\"", "{stream}"), ("super_stream = \"s\"", "{stream}")] {
        let sink = format!("sink = {{ type = \"stream\", stream = \"{target}\" }}");
        let found = problems(&of("a", source, &sink), &Env::default());
        assert!(found[0].starts_with("consumer[0].sink.stream"), "{found:?}");
        assert!(found[0].contains("without end"), "{found:?}");
    }
}
