//! `create` and `[[watch]]`: what is taken, and what is refused with which words.

use super::*;

fn created(source: &str, create: &str) -> String {
    format!(
        "[[consumer]]\nname = \"a\"\n{source}\ncreate = {create}\nsink = {{ type = \"null\" }}\n"
    )
}

fn loaded(text: &str) -> Result<Config, String> {
    load(text).map_err(|error| error.to_string())
}

#[test]
fn create_is_off_unless_it_is_given() {
    let none = "[[consumer]]\nname = \"a\"\nstream = \"s\"\nsink = { type = \"null\" }\n";
    assert_eq!(loaded(none).unwrap().consumers[0].create, None);
    let defaults = loaded(&created("stream = \"s\"", "{}")).unwrap();
    assert_eq!(defaults.consumers[0].create, Some(CreateConfig::default()));
}

#[test]
fn partitions_have_numbers_or_keys() {
    let of = |create: &str| {
        let config = loaded(&created("super_stream = \"s\"", create)).unwrap();
        let consumer = &config.consumers[0];
        let partitions = consumer.create.as_ref().unwrap().partitions_of(&consumer.stream).unwrap();
        // A partition is not created by itself.
        assert_eq!(consumer.of_stream(Some(&partitions[0].0)).create, None);
        partitions.into_iter().map(|(name, key)| format!("{name} {key}")).collect::<Vec<_>>()
    };
    assert_eq!(of("{ partitions = 2 }"), ["s-0 0", "s-1 1"]);
    assert_eq!(of("{ binding_keys = [\"eu\", \"us\"] }"), ["s-eu eu", "s-us us"]);
}

#[test]
fn a_create_that_makes_no_sense_says_what_would() {
    let long = format!("super_stream = \"{}\"", "s".repeat(254));
    for (source, create, key, says) in [
        ("stream = \"s\"", "true", "create", "expected a table"),
        ("stream = \"s\"", "{ max_size = \"1GB\" }", "create.max_size", "unknown key"),
        ("stream = \"s\"", "{ max_length = \"20G\" }", "create.max_length", "is not a size"),
        ("stream = \"s\"", "{ max_length = 0 }", "create.max_length", "at least 1"),
        ("stream = \"s\"", "{ segment = 0 }", "create.segment", "at least 1"),
        ("stream = \"s\"", "{ max_age = \"7 days\" }", "create.max_age", "is not a duration"),
        ("stream = \"s\"", "{ max_age = \"0s\" }", "create.max_age", "at least 1s"),
        ("stream = \"s\"", "{ max_age = \"1500ms\" }", "create.max_age", "whole seconds"),
        ("stream = \"s\"", "{ segment = \"4GB\" }", "create.segment", "at most 3GB"),
        (
            "stream = \"s\"",
            "{ max_length = \"1GB\", segment = \"2GB\" }",
            "create.segment",
            "is more than max_length",
        ),
        ("stream = \"s\"", "{ max_length = \"100MB\" }", "create.max_length", "set `segment` too"),
        ("stream = \"s\"", "{ partitions = 3 }", "create.partitions", "use `super_stream`"),
        ("stream = \"s\"", "{ binding_keys = [] }", "create.binding_keys", "use `super_stream`"),
        ("super_stream = \"s\"", "{}", "create.partitions", "with `binding_keys`"),
        ("super_stream = \"s\"", "{ partitions = 0 }", "create.partitions", "1 to 1000"),
        (
            "super_stream = \"s\"",
            "{ partitions = 9000000000000000000 }",
            "create.partitions",
            "1 to 1000",
        ),
        (
            "super_stream = \"s\"",
            "{ partitions = 2, binding_keys = [\"a\"] }",
            "create.binding_keys",
            "one of the two",
        ),
        ("super_stream = \"s\"", "{ binding_keys = [] }", "create.binding_keys", "1 to 1000"),
        ("super_stream = \"s\"", "{ binding_keys = [\"\"] }", "create.binding_keys", "is empty"),
        (
            "super_stream = \"s\"",
            "{ binding_keys = [\"a\", \"a\"] }",
            "create.binding_keys",
            "given twice",
        ),
        (long.as_str(), "{ partitions = 1 }", "create.partitions", "at most 255"),
    ] {
        let error = loaded(&created(source, create)).unwrap_err();
        let path = format!("consumer[0].{key} ");
        let found = error.lines().filter(|line| line.contains(&path)).count();
        assert!(found == 1 && error.contains(says), "{create}: {says:?}\n{error}");
    }
}

#[test]
fn create_and_watch_need_the_stream_protocol() {
    let broker = "[broker]\nuri = \"amqp://guest:guest@localhost\"\n";
    let error = loaded(&format!("{broker}{}", created("stream = \"s\"", "{}"))).unwrap_err();
    assert!(error.contains("create") && error.contains("rabbitmq-stream://"), "{error}");
    let watch = "[[watch]]\nstream = \"s\"\nreference = \"r\"\n";
    let error = loaded(&format!("{broker}{watch}")).unwrap_err();
    assert!(error.contains("watch: it needs the stream protocol"), "{error}");
}

#[test]
fn watches_alone_are_a_configuration() {
    let config = loaded(
        "[[watch]]\nstream = \"s\"\nreference = \"r\"\n\
         [[watch]]\nsuper_stream = \"s\"\nreferences = [\"r\", \"q\"]\n",
    )
    .unwrap();
    assert!(config.consumers.is_empty());
    let seen: Vec<_> = config
        .watches
        .iter()
        .map(|w| (w.stream.as_str(), w.is_super_stream, w.references.len()))
        .collect();
    assert_eq!(seen, [("s", false, 1), ("s", true, 2)]);
}

#[test]
fn a_watch_that_makes_no_sense_says_what_would() {
    for (watch, says) in [
        ("reference = \"r\"", "watch[0].stream: it is missing: the stream, or else `super_stream`"),
        ("stream = \"s\"", "watch[0].reference: it is missing"),
        ("stream = \"s\"\nsuper_stream = \"t\"\nreference = \"r\"", "give one of the two"),
        ("stream = \"s\"\nreference = \"r\"\nreferences = [\"q\"]", "give one of the two"),
        ("stream = \"s\"\nreferences = []", "watch[0].references: it is empty"),
        ("stream = \"s\"\nreferences = \"*\"", "does not tell which references there are"),
        ("stream = \"s\"\nreferences = [\"*\"]", "rabbitmq-streams list_stream_tracking"),
        ("stream = \"s\"\nreferences = \"r\"", "\"r\" is not a list: write [\"r\"]"),
        ("stream = \"s\"\nreferences = 7", "expected a list of texts"),
        ("stream = \"\"\nreference = \"r\"", "expected 1 to 255"),
        ("stream = \"s\"\nreference = \"\"", "expected 1 to 255"),
        ("stream = \"s\"\nreference = \"a\\nb\"", "control character"),
        ("stream = \"s\"\nreferences = [\"r\", \"r\"]", "is watched already"),
        ("stream = \"s\"\nreference = \"r\"\nconsumer = \"c\"", "unknown key"),
    ] {
        let error = loaded(&format!("[[watch]]\n{watch}\n")).unwrap_err();
        assert!(error.contains(says), "{watch}: {says:?}\n{error}");
    }
    let error = loaded("[watch]\nstream = \"s\"\nreference = \"r\"\n").unwrap_err();
    assert!(error.contains("write [[watch]]"), "{error}");
}
