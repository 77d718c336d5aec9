//! Whole files, loaded: the results, and the refusals.

mod admin;
mod files;
mod identity;
mod programs;
mod secrets;
mod shapes;
mod sinks;
mod streams;
mod super_streams;
mod topology;
mod traces;

use std::path::Path;

use super::*;
use crate::types::{Guarantee, Offset};

/// The name of the file, and the content, in a folder of its own.
struct File(tempfile::TempDir);

impl File {
    fn new(text: &str) -> File {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("rillway.toml"), text).unwrap();
        File(folder)
    }

    fn path(&self) -> std::path::PathBuf {
        self.0.path().join("rillway.toml")
    }

    fn load(&self, env: &Env) -> Result<Config, ConfigError> {
        Config::load(Some(&self.path()), env)
    }
}

fn load(text: &str) -> Result<Config, ConfigError> {
    File::new(text).load(&Env::default())
}

fn problems(text: &str, env: &Env) -> Vec<String> {
    match File::new(text).load(env) {
        Ok(config) => panic!("taken: {config:?}"),
        Err(ConfigError::Invalid { problems, .. }) => {
            problems.iter().map(ToString::to_string).collect()
        }
        Err(other) => panic!("{other}"),
    }
}

const MINIMAL: &str = r#"
[[consumer]]
name = "a"
stream = "s"
sink = { type = "null" }
"#;

#[test]
fn the_least_and_its_defaults() {
    let file = File::new(MINIMAL);
    let config = file.load(&Env::default()).unwrap();
    assert_eq!(config.broker.addresses[0].to_string(), "localhost:5552");
    assert_eq!(
        (config.broker.username.as_str(), config.broker.password.reveal()),
        ("guest", "guest")
    );
    assert_eq!(config.broker.vhost, "/");
    assert_eq!(config.broker.tls, None);
    assert_eq!(config.admin.listen.to_string(), "127.0.0.1:9552");
    assert_eq!(config.state_dir, file.0.path().join("rillway-state"));
    assert_eq!(config.log.filter(), "info");
    let [consumer] = config.consumers.as_slice() else { panic!("{config:?}") };
    assert_eq!(consumer.reference.as_str(), "a");
    assert_eq!(consumer.start, Start::First);
    assert_eq!(consumer.sink.guarantee(), Guarantee::None);
    assert_eq!(consumer.memory_bound(), ByteSize::mib(34));
}

#[test]
fn unknown_keys_are_all_named_with_the_nearest_known_one() {
    let found = problems(
        r#"
shutdown_grac = "1s"
[broker]
pasword = "hunter2"
tls = { caa = "x" }
[[consumer]]
name = "a"
stream = "s"
sink = { type = "null", dir = "x" }
[[consumer]]
name = "b"
stream = "s"
batch = { max_mesages = 5 }
start = { ofset = 5 }
sink = { type = "file", dir = "d", zzz = 1 }
"#,
        &Env::default(),
    );
    assert_eq!(
        found,
        [
            "shutdown_grac: unknown key; did you mean `shutdown_grace`?",
            "broker.pasword: unknown key; did you mean `password`?",
            "broker.tls.caa: unknown key; did you mean `ca`?",
            "consumer[0].sink.dir (consumer \"a\"): unknown key; there are `type`",
            "consumer[1].batch.max_mesages (consumer \"b\"): unknown key; did you mean `max_messages`?",
            "consumer[1].start.ofset (consumer \"b\"): unknown key; did you mean `offset`?",
            "consumer[1].sink.zzz (consumer \"b\"): unknown key; there are `compression`, \
             `compression_level`, `delimiter`, `dir`, `format`, `rotate_age`, `rotate_bytes`, `type`",
        ]
    );
}

#[test]
fn the_error_names_the_file_and_exits_with_78() {
    let file = File::new(&format!("{MINIMAL}\nbatch = {{ max_mesages = 1 }}"));
    let error = file.load(&Env::default()).unwrap_err();
    assert_eq!(error.exit_code(), 78);
    let path = file.path();
    assert_eq!(
        error.to_string(),
        format!(
            "bad configuration in {}, line 7: consumer[0].batch.max_mesages (consumer \"a\"): unknown key; \
             did you mean `max_messages`?",
            path.display()
        )
    );
    let missing = file.0.path().join("none.toml");
    let error = Config::load(Some(&missing), &Env::default()).unwrap_err();
    assert!(error.to_string().contains("none.toml"), "{error}");
    assert_eq!(error.exit_code(), 78);
}

#[test]
fn wrong_types_and_values_say_where_what_and_what_is_allowed() {
    let consumer = |extra: &str| {
        format!("[[consumer]]\nname = \"a\"\nstream = \"s\"\nsink = {{ type = \"null\" }}\n{extra}")
    };
    let sink = |sink: &str| format!("[[consumer]]\nname = \"a\"\nstream = \"s\"\nsink = {sink}");
    let root = |extra: &str| format!("{extra}\n{MINIMAL}");
    let cases: Vec<(String, &str, &str)> = vec![
        (root("broker = 5"), "broker", "found integer `5`, expected a table"),
        (root("[broker]\nheartbeat = 10"), "broker.heartbeat", "integer `10`"),
        (root("[broker]\nheartbeat = \"1500ms\""), "broker.heartbeat", "whole number of seconds"),
        (root("[broker]\nheartbeat = \"0s\""), "broker.heartbeat", "0s is out of range"),
        (root("[broker]\nrequest_timeout = \"2d\""), "broker.request_timeout", "at most 1h"),
        (
            root("[broker]\nmechanism = \"kerberos\""),
            "broker.mechanism",
            "expected `plain` or `external`",
        ),
        (
            root("[broker]\nfollow_advertised_hosts = \"no\""),
            "broker.follow_advertised_hosts",
            "expected true or false",
        ),
        (root("[broker]\nmove_back_after = \"0s\""), "broker.move_back_after", "at least 1s"),
        (
            root("[broker]\nload_balancer = true\nfollow_advertised_hosts = false"),
            "broker.load_balancer",
            "remove one of the two",
        ),
        (
            root("[broker]\nload_balancer = true\naddress_map = { \"a:1\" = \"b:2\" }"),
            "broker.address_map",
            "remove one of the two",
        ),
        (
            root("[broker]\nfollow_advertised_hosts = false\naddress_map = { \"a:1\" = \"b:2\" }"),
            "broker.address_map",
            "no effect",
        ),
        (
            root("[broker]\nuri = \"amqp://h\"\nload_balancer = true"),
            "broker.load_balancer",
            "AMQP 0.9.1 tells no addresses",
        ),
        (
            root("[broker]\naddress_map = { \"a:1\" = \"b\" }"),
            "broker.address_map.\"a:1\"",
            "\"b\" is not HOST:PORT: there is no port",
        ),
        (
            root("[broker]\naddress_map = { \"a\" = \"b:2\" }"),
            "broker.address_map.\"a\"",
            "the advertised address is not HOST:PORT",
        ),
        (
            root("[broker]\naddress_map = { \"a:1\" = \"a:1\" }"),
            "broker.address_map.\"a:1\"",
            "stands for itself",
        ),
        (
            root("[broker]\naddress_map = { \"a:1\" = \"c:1\", \"b:1\" = \"c:1\" }"),
            "broker.address_map.\"b:1\"",
            "set load_balancer = true instead",
        ),
        (root("[broker]\nuri = \"http://x\""), "broker.uri", "scheme `http`"),
        (root("[broker]\nuris = \"x\""), "broker.uris", "not a list"),
        (root("[broker]\nuris = [\"rabbitmq-stream://a\", \"x\"]"), "broker.uris[1]", "not a URI"),
        (
            root("[broker]\nuris = [\"rabbitmq-stream://a/x\", \"rabbitmq-stream://b/y\"]"),
            "broker.uris[1]",
            "virtual host",
        ),
        (
            root("[broker]\nuri = \"rabbitmq-stream://a\"\nuris = [\"rabbitmq-stream://a\"]"),
            "broker.uris",
            "both",
        ),
        (root("[broker]\ntls = { ca = \"x\" }"), "broker.tls", "nothing is encrypted"),
        (root("[broker]\nmechanism = \"external\""), "broker.mechanism", "client certificate"),
        (
            root("[broker]\nuri = \"rabbitmq-stream+tls://a\"\ntls = { cert = \"x\" }"),
            "broker.tls",
            "`cert` and `key`",
        ),
        (root("[admin]\nlisten = \"9552\""), "admin.listen", "\"127.0.0.1:9552\""),
        (root("[admin]\ntoken = \"secret\""), "admin.token", "openssl rand -hex 32"),
        (root("[admin]\ntoken = \"\""), "admin.token", "fewer than 16"),
        (root("[admin]\ntoken = \"a token with blanks in it\""), "admin.token", "no blanks"),
        (root("[admin]\ntoken = 12345678901234567"), "admin.token", "not a text"),
        (root("[admin]\ntoken = { file = \"nowhere\" }"), "admin.token", "nowhere"),
        (root("[admin]\nprotect_reads = true"), "admin.protect_reads", "set `token` too"),
        (root("[admin]\ntls = { cert = \"x\" }"), "admin.tls", "`key`"),
        (
            root("[admin]\ntls = { cert = \"x\", key = \"y\", ca = \"z\" }"),
            "admin.tls.ca",
            "client_ca",
        ),
        (root("[log]\nlevel = \"loud\""), "log.level", "`trace`"),
        (root("shutdown_grace = \"0s\""), "shutdown_grace", "out of range"),
        (String::new(), "consumer", "at least one"),
        ("consumer = 5".to_owned(), "consumer", "expected a list"),
        (
            "[[consumer]]\nname = \"a\"".to_owned(),
            "consumer[0] (consumer \"a\")",
            "`stream` is missing",
        ),
        (consumer("memory = \"lots\""), "consumer[0].memory", "\"lots\" is not a size"),
        (consumer("memory = -1"), "consumer[0].memory", "-1"),
        (consumer("memory = \"1023KiB\""), "consumer[0].memory", "at least 1MiB"),
        (
            consumer("batch = { max_bytes = \"33MiB\" }"),
            "consumer[0].batch.max_bytes",
            "does not fit into `memory`, 32MiB",
        ),
        (consumer("batch = { max_bytes = 0 }"), "consumer[0].batch.max_bytes", "at least 1"),
        (consumer("batch = { max_messages = 0 }"), "consumer[0].batch.max_messages", "at least 1"),
        (
            consumer("batch = { max_messages = 1.5 }"),
            "consumer[0].batch.max_messages",
            "whole number",
        ),
        (consumer("batch = { max_age = \"0ms\" }"), "consumer[0].batch.max_age", "out of range"),
        (
            consumer("commit = { every_messages = 0 }"),
            "consumer[0].commit.every_messages",
            "at least 1",
        ),
        (
            consumer("restart = { min_backoff = \"1m\" }"),
            "consumer[0].restart.max_backoff",
            "less than",
        ),
        (consumer("start = \"frist\""), "consumer[0].start", "\"frist\""),
        (consumer("start = { offset = \"5\" }"), "consumer[0].start.offset", "whole number"),
        (
            consumer("on_bad_message = \"dead_letter\""),
            "consumer[0].dead_letter",
            "needs a sink for them",
        ),
        (consumer("reference = \"\""), "consumer[0].reference", "0 bytes"),
        (
            consumer(&format!("reference = \"{}\"", "ü".repeat(128))),
            "consumer[0].reference",
            "256 bytes",
        ),
        (consumer("").replace("\"a\"", "\"a/b\""), "consumer[0].name", "\"a/b\""),
        (consumer("").replace("\"a\"", "\"..\""), "consumer[0].name", "\"..\""),
        (consumer("").replace("\"s\"", "\"\""), "consumer[0].stream", "0 bytes"),
        (consumer("").replace("\"s\"", "\"a\\nb\""), "consumer[0].stream", "control"),
        (sink("\"stdout\""), "consumer[0].sink", "{ type = \"stdout\" }"),
        (sink("{ }"), "consumer[0].sink", "`type` is missing"),
        (sink("{ type = \"fil\" }"), "consumer[0].sink.type", "did you mean \"file\"?"),
        (sink("{ type = \"file\" }"), "consumer[0].sink", "`dir` is missing"),
        (sink("{ type = \"file\", dir = \"\" }"), "consumer[0].sink.dir", "empty"),
        (
            sink("{ type = \"file\", dir = \"d\", rotate_bytes = \"x\" }"),
            "consumer[0].sink.rotate_bytes",
            "\"never\"",
        ),
        (
            sink("{ type = \"file\", dir = \"d\", rotate_age = \"0s\" }"),
            "consumer[0].sink.rotate_age",
            "\"never\"",
        ),
        (
            sink("{ type = \"file\", dir = \"d\", compression_level = 3 }"),
            "consumer[0].sink.compression_level",
            "without `compression`",
        ),
        (
            sink(
                "{ type = \"file\", dir = \"d\", compression = \"gzip\", compression_level = 10 }",
            ),
            "consumer[0].sink.compression_level",
            "1 to 9",
        ),
        (sink("{ type = \"stdout\", delimiter = \";\" }"), "consumer[0].sink.delimiter", "raw"),
        (
            sink("{ type = \"stdout\", format = \"xml\" }"),
            "consumer[0].sink.format",
            "`ndjson` or `raw`",
        ),
    ];
    for (text, path, says) in cases {
        let found = problems(&text, &Env::default());
        assert_eq!(found.len(), 1, "{text}\n{found:#?}");
        let at = found[0].split(": ").next().unwrap();
        let at = if path.contains('(') { at } else { at.split(" (").next().unwrap() };
        assert_eq!(at, path, "{found:?}");
        assert!(found[0].contains(says), "{} does not say {says:?}", found[0]);
    }
}

#[test]
fn all_errors_are_reported_at_once() {
    let found = problems(
        r#"
[[consumer]]
name = "a/b"
stream = "s"
memory = 0
sink = { type = "null" }
[[consumer]]
name = "c"
stream = ""
sink = { type = "files" }
[[consumer]]
name = "d"
"#,
        &Env::default(),
    );
    let paths: Vec<&str> = found.iter().map(|p| p.split([' ', ':']).next().unwrap()).collect();
    assert_eq!(
        paths,
        [
            "consumer[0].name",
            "consumer[0].memory",
            "consumer[1].stream",
            "consumer[1].sink.type",
            "consumer[2]"
        ],
        "{found:#?}"
    );
}

#[test]
fn two_consumers_in_each_others_way() {
    let two = |a: &str, b: &str| format!("[[consumer]]\n{a}\n[[consumer]]\n{b}");
    let null = "sink = { type = \"null\" }";
    for (a, b, path) in [
        (
            format!("name='a'\nstream='s'\n{null}"),
            format!("name='a'\nstream='t'\n{null}"),
            "consumer[1].name",
        ),
        (
            format!("name='a'\nstream='s'\n{null}"),
            format!("name='b'\nstream='s'\nreference='a'\n{null}"),
            "consumer[1].reference",
        ),
        (
            "name='a'\nstream='s'\nsink={type='file',dir='x/y'}".to_owned(),
            "name='b'\nstream='s'\nsink={type='file',dir='x/./z/../y/'}".to_owned(),
            "consumer[1].sink.dir",
        ),
    ] {
        let found = problems(&two(&a, &b), &Env::default());
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(found[0].starts_with(path) && found[0].contains("consumer[0]"), "{found:?}");
    }
    for (a, b) in [
        (
            format!("name='a'\nstream='s'\n{null}"),
            format!("name='b'\nstream='t'\nreference='a'\n{null}"),
        ),
        (
            "name='a'\nstream='s'\nsink={type='stdout'}".to_owned(),
            "name='b'\nstream='s'\nsink={type='stdout'}".to_owned(),
        ),
        (
            "name='a'\nstream='s'\nsink={type='file',dir='x'}".to_owned(),
            "name='b'\nstream='t'\nsink={type='file',dir='x'}".to_owned(),
        ),
    ] {
        assert_eq!(load(&two(&a, &b)).unwrap().consumers.len(), 2);
    }
}

#[test]
fn the_environment_overrides_the_file() {
    let file = File::new(&format!("shutdown_grace = \"1s\"\n{MINIMAL}"));
    let config = file
        .load(&Env::from([
            ("RILLWAY__SHUTDOWN_GRACE", "3s"),
            ("RILLWAY__BROKER__URI", "rabbitmq-stream://h:1/v"),
            ("RILLWAY__BROKER__PASSWORD", "007"),
            ("RILLWAY__BROKER__FOLLOW_ADVERTISED_HOSTS", "false"),
            ("RILLWAY__CONSUMER__0__MEMORY", "67108864"),
            ("RILLWAY__CONSUMER__0__BATCH__MAX_MESSAGES", "17"),
            ("RILLWAY__CONSUMER__0__START", "{ offset = 5 }"),
            ("RILLWAY__CONSUMER__1__NAME", "b"),
            ("RILLWAY__CONSUMER__1__STREAM", "12"),
            ("RILLWAY__CONSUMER__1__SINK", "{ type = \"stdout\", format = \"raw\" }"),
            ("RILLWAY_LOG", "debug"),
            ("RUST_LOG", "trace"),
            ("STATE_DIRECTORY", "/var/lib/rillway:/elsewhere"),
        ]))
        .unwrap();
    assert_eq!(config.shutdown_grace, HumanDuration::secs(3));
    assert_eq!(config.broker.addresses[0].to_string(), "h:1");
    assert_eq!((config.broker.vhost.as_str(), config.broker.password.reveal()), ("v", "007"));
    assert!(!config.broker.follow_advertised_hosts);
    assert_eq!(config.consumers[0].memory, ByteSize::mib(64));
    assert_eq!(config.consumers[0].batch.max_messages, 17);
    assert_eq!(config.consumers[0].start, Start::Offset(Offset(5)));
    assert_eq!(config.consumers[1].stream.as_str(), "12");
    assert_eq!(config.consumers[1].sink.kind(), "stdout");
    assert_eq!(config.log.filter(), "debug");
    assert_eq!(config.state_dir, Path::new("/var/lib/rillway"));

    let uris =
        Env::from([("RILLWAY__BROKER__URIS", r#"["rabbitmq-stream://a", "rabbitmq-stream://b"]"#)]);
    assert_eq!(file.load(&uris).unwrap().broker.addresses.len(), 2);
}

#[test]
fn without_a_file_the_environment_is_enough() {
    let env = Env::from([
        ("RILLWAY__CONSUMER__0__NAME", "a"),
        ("RILLWAY__CONSUMER__0__STREAM", "s"),
        ("RILLWAY__CONSUMER__0__SINK__TYPE", "stdout"),
    ]);
    let config = Config::load(None, &env).unwrap();
    assert_eq!(config.consumers[0].sink.kind(), "stdout");
    assert_eq!(config.state_dir, Path::new("rillway-state"));
    let error = Config::load(None, &Env::default()).unwrap_err().to_string();
    assert!(error.contains("the environment"), "{error}");
}

#[test]
fn a_bad_variable_is_named() {
    for (variable, value, says) in [
        ("RILLWAY__BROKR__URI", "x", "brokr: unknown key; did you mean `broker`?"),
        ("RILLWAY__BROKER__HEARTBEAT", "5", "broker.heartbeat: \"5\" is not a duration"),
        (
            "RILLWAY__CONSUMER__0__BATCH__MAX_MESSAGES",
            "many",
            "consumer[0].batch.max_messages (consumer \"a\"): found a text",
        ),
        ("RILLWAY__CONSUMER__0__SINK__DIRR", "x", "consumer[0].sink.dirr"),
        ("RILLWAY__CONSUMER__99999999999__NAME", "x", "consumer"),
        ("RILLWAY__BROKER__FOLLOW_ADVERTISED_HOSTS", "true\nx = 1", "found a text, expected true"),
    ] {
        let found = problems(MINIMAL, &Env::from([(variable, value)]));
        let wanted = format!("(set by the environment variable {variable})");
        assert!(
            found.iter().any(|p| p.starts_with(says) || p.contains(says)),
            "{variable}: {found:#?}"
        );
        assert!(found.iter().all(|p| p.ends_with(&wanted)), "{found:#?}");
    }
}

#[test]
fn bad_toml_is_placed_by_line_and_column() {
    match load("[broker]\nuri = \"x\"\nmechanism = = 5\n").unwrap_err() {
        ConfigError::Syntax { line, column, .. } => assert_eq!((line, column), (3, 13)),
        other => panic!("{other}"),
    }
}

#[test]
fn the_broker_alone_can_be_loaded_from_any_file() {
    let file = File::new("[broker]\nuri = \"rabbitmq-stream://h\"\n[[consumer]]\nname = 5");
    let broker = Config::load_broker(Some(&file.path()), &Env::default()).unwrap();
    assert_eq!(broker.addresses[0].host, "h");
    let env = Env::from([("RILLWAY__BROKER__URI", "x")]);
    let error = Config::load_broker(Some(&file.path()), &env).unwrap_err().to_string();
    assert!(error.contains("broker.uri") && error.contains("RILLWAY__BROKER__URI"), "{error}");
}
