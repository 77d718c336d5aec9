//! Keys of sinks: which values are refused, and the text of the errors.

use super::*;

fn of_sink(keys: &str) -> Vec<String> {
    let text = format!("[[consumer]]\nname = \"a\"\nstream = \"s\"\n[consumer.sink]\n{keys}\n");
    problems(&text, &Env::default())
}

#[cfg(feature = "http")]
fn http(keys: &str) -> Vec<String> {
    of_sink(&format!("type = \"http\"\n{keys}"))
}

#[cfg(feature = "http")]
#[test]
fn http_says_what_is_wrong_without_the_secrets() {
    let url = "url = \"https://user:hunter2@h/x?key=hunter2\"\n";
    for (keys, says) in [
        ("url = \"hunter2\"", "not a URL"),
        ("url = \"ftp://h/hunter2\"", "expected http://HOST"),
        ("url = \"https://\"", "not a URL"),
        ("url = \"http://h/\"\ntls = {}", "the URL's scheme is not https"),
        (&format!("{url}tls = {{ cert = \"c\" }}"), "`cert` and `key` go together"),
        (
            &format!("{url}tls = {{ ca = \"c\", insecure_skip_verify = true }}"),
            "accepts any certificate",
        ),
        (&format!("{url}headers = {{ authorization = \"hunter2\" }}"), "and the URL holds a user"),
        (
            &format!("{url}headers = {{ \"a b\" = \"hunter2\" }}"),
            "\"a b\" is not the name of a header",
        ),
        (&format!("{url}headers = {{ Host = \"hunter2\" }}"), "the sink sets this header itself"),
        (&format!("{url}headers = {{ A = \"hunter2\\nB: c\" }}"), "holds what no header may hold"),
        (&format!("{url}headers = {{ A = 5 }}"), "not a text"),
        (&format!("{url}in_flight = 0"), "1 to 64"),
        (&format!("{url}max_records = 0"), "1 to 1000000"),
        (&format!("{url}max_bytes = 10"), "1KiB to 256MiB"),
        (&format!("{url}timeout = \"0s\""), "more than 0s"),
        (&format!("{url}refusals_max = 0"), "at least 1, or \"never\""),
        (&format!("{url}method = \"GET\""), "POST"),
    ] {
        let found = http(keys).join("\n");
        assert!(found.contains(says), "{keys}:\n{found}");
        assert!(!found.contains("hunter2"), "{found}");
    }
    let unset = http("url = \"http://h/\"\nheaders = { A = { env = \"NO_SUCH\" } }").join("\n");
    assert!(unset.contains("consumer[0].sink.headers.A"), "{unset}");
    assert!(unset.contains("NO_SUCH is not set"), "{unset}");
}

#[cfg(feature = "http")]
#[test]
fn headers_come_from_secrets_and_the_environment() {
    let text = "[[consumer]]\nname = \"a\"\nstream = \"s\"\n[consumer.sink]\ntype = \"http\"\n\
                url = { env = \"HOOK\" }\nheaders = { Authorization = { env = \"TOKEN\" } }\n";
    let env = Env::from([("HOOK", "http://h/"), ("TOKEN", "Bearer hunter2")]);
    let config = File::new(text).load(&env).unwrap();
    let SinkConfig::Http(http) = &config.consumers[0].sink else { panic!() };
    assert_eq!(http.headers["Authorization"].reveal(), "Bearer hunter2");
    assert_eq!(http.url.reveal(), "http://h/");
    assert!(!format!("{config:?}").contains("hunter2"));
}

/// Names that differ only in what a table's name cannot show.
#[test]
fn two_streams_do_not_share_a_table_unasked() {
    let consumer = |name: &str, stream: &str, keys: &str| {
        format!(
            "[[consumer]]\nname = \"{name}\"\nstream = \"{stream}\"\n\
             sink = {{ type = \"sqlite\", path = \"data.db\"{keys} }}\n"
        )
    };
    let shared = ", table = \"both\"";
    for (first, second, keys, refused) in [
        ("orders-eu", "orders.eu", "", true),
        ("Orders", "orders", "", true),
        ("\u{3042}\u{3044}", "\u{3046}\u{3048}", "", true),
        ("orders-eu", "orders.eu", shared, false),
        ("orders-eu", "orders-us", "", false),
        ("orders", "returns", "", false),
    ] {
        let text = consumer("a", first, keys) + &consumer("b", second, keys);
        if !refused {
            load(&text).unwrap();
            continue;
        }
        let found = problems(&text, &Env::default());
        assert_eq!(found.len(), 1, "{first} {second}: {found:?}");
        assert!(found[0].starts_with("consumer[1].sink.table"), "{found:?}");
        assert!(found[0].contains("where consumer[0] writes those of stream"), "{found:?}");
        assert!(found[0].contains("set `table = \"...\"`"), "{found:?}");
    }
}

#[cfg(feature = "object-stores")]
#[test]
fn a_prefix_leaves_room_for_the_rest_of_a_key() {
    let object = |prefix: &str| {
        format!(
            "[[consumer]]\nname = \"a\"\nstream = \"s\"\n\
             sink = {{ type = \"object\", url = \"s3://b/{prefix}\" }}\n"
        )
    };
    load(&object(&"p".repeat(896))).unwrap();
    // Encoded, but not in the key.
    load(&object(&"%C3%A4".repeat(448))).unwrap();
    for too_long in ["p".repeat(897), "%C3%A4".repeat(449), "p/".repeat(450)] {
        let found = problems(&object(&too_long), &Env::default()).join("\n");
        assert!(found.contains("consumer[0].sink.url"), "{found}");
        assert!(found.contains("its prefix is 89"), "{found}");
        assert!(found.contains("a prefix of at most 896 bytes"), "{found}");
    }
}

#[cfg(feature = "object-stores")]
#[test]
fn folders_of_an_archive_that_make_no_sense_are_refused() {
    let columns =
        "columns = { region = \"/region\", at = { from = \"/at\", type = \"timestamp\" } }";
    let long = format!("url = \"s3://b/{}\"\n", "p".repeat(400));
    for (keys, key, says) in [
        ("partition_by = []", "partition_by", "use 1 to 4"),
        ("partition_by = [5]", "partition_by", "expected \"date\", \"hour\""),
        ("partition_by = [\"regoin\"]", "partition_by", "such as \"/regoin\""),
        ("partition_by = [\"/a\"]\nopen_partitions = 0", "open_partitions", "1 to 256"),
        ("partition_by = [\"/a\"]\nopen_partitions = 257", "open_partitions", "1 to 256"),
        ("open_partitions = 5", "open_partitions", "no effect without `partition_by`"),
        ("partition_by = [\"/_id\"]", "partition_by", "no underscore in front"),
        ("partition_by = [\"/body\"]", "partition_by", "a column of the file too"),
        (
            &format!("partition_by = [\"/x/Region\"]\n{columns}"),
            "partition_by",
            "a column of the file too",
        ),
        (
            &format!("partition_by = [\"at\"]\n{columns}"),
            "partition_by",
            "text, integer or boolean",
        ),
        (
            &format!("partition_by = [\"there\"]\n{columns}"),
            "partition_by",
            "`columns` has region, at",
        ),
        (&format!("{long}partition_by = [\"/a\", \"/b\"]"), "url", "at most 351 bytes"),
    ] {
        let url = if keys.starts_with("url") { "" } else { "url = \"x\"\n" };
        let found = of_sink(&format!("type = \"object\"\n{url}{keys}")).join("\n");
        assert!(found.contains(&format!("consumer[0].sink.{key}")), "{keys}:\n{found}");
        assert!(found.contains(says), "{keys}:\n{found}");
    }
    let good =
        "type = \"object\"\nurl = \"x\"\npartition_by = [\"region\", \"/b\", \"date\", \"hour\"]";
    let text =
        format!("[[consumer]]\nname = \"a\"\nstream = \"s\"\n[consumer.sink]\n{good}\n{columns}\n");
    load(&text).unwrap();
}

#[cfg(all(feature = "object-stores", feature = "postgres"))]
#[test]
fn no_name_holds_a_control_character() {
    for c in ["\\u0000", "\\n", "\\u001b", "\\u007f", "\\u0085"] {
        for (key, sink) in [
            ("stream", "type = \"stream\"\nstream = \"aC\"".to_owned()),
            ("publisher", "type = \"stream\"\nstream = \"a\"\npublisher = \"aC\"".to_owned()),
            ("table", "type = \"sqlite\"\npath = \"p\"\ntable = \"aC\"".to_owned()),
            ("table", "type = \"postgres\"\nurl = \"postgres://h/d\"\ntable = \"aC\"".to_owned()),
            (
                "schema",
                "type = \"postgres\"\nurl = \"postgres://h/d\"\ntable = \"a\"\nschema = \"aC\""
                    .to_owned(),
            ),
            (
                "columns",
                "type = \"sqlite\"\npath = \"p\"\ncolumns = { \"aC\" = \"/a\" }".to_owned(),
            ),
        ] {
            let found = of_sink(&sink.replace('C', c)).join("\n");
            assert!(found.contains("control character"), "{key} {c}: {found}");
            assert!(found.contains(&format!("consumer[0].sink.{key}")), "{key} {c}: {found}");
        }
        let text = format!(
            "[[consumer]]\nname = \"a\"\nstream = \"s\"\nreference = \"r{c}\"\nsink = {{ type = \"null\" }}\n"
        );
        let found = problems(&text, &Env::default()).join("\n");
        assert!(found.contains("consumer[0].reference"), "{c}: {found}");
        assert!(found.contains("control character"), "{c}: {found}");
    }
    let found = of_sink("type = \"object\"\nurl = \"s3://b/a%00b\"").join("\n");
    assert!(
        found.contains("consumer[0].sink.url")
            && found.contains("its prefix holds a control character"),
        "{found}"
    );
}

fn metric(keys: &str) -> String {
    let text = format!("type = \"metrics\"\n[[consumer.sink.metrics]]\n{keys}");
    of_sink(&text).join("\n")
}

#[test]
fn metrics_say_what_is_wrong() {
    for (keys, says) in [
        ("name = \"rillway_x\"\ntype = \"counter\"", "for the program's own metrics"),
        ("name = \"a-b\"\ntype = \"counter\"", "\"a-b\" cannot be"),
        ("name = \"9\"\ntype = \"counter\"", "not beginning with a digit"),
        ("name = \"a\"\ntype = \"summary\"", "summary"),
        ("name = \"a\"\ntype = \"gauge\"", "it is missing: only a counter"),
        ("name = \"a\"\ntype = \"counter\"\nvalue = \"amount\"", "is not a source"),
        ("name = \"a\"\ntype = \"counter\"\nlabels = { consumer = \"/c\" }", "is reserved"),
        ("name = \"a\"\ntype = \"counter\"\nlabels = { __x = \"/c\" }", "cannot be a label"),
        ("name = \"a\"\ntype = \"counter\"\nlabels = { x = \"c\" }", "label \"x\""),
        ("name = \"a\"\ntype = \"counter\"\nbuckets = [1]", "it has no effect"),
        (
            "name = \"a\"\ntype = \"histogram\"\nvalue = \"/v\"\nbuckets = [2, 1]",
            "ascending numbers",
        ),
        ("name = \"a\"\ntype = \"histogram\"\nvalue = \"/v\"\nbuckets = []", "ascending numbers"),
        ("name = \"a\"\ntype = \"counter\"\nwhen = { \"/t\" = [1] }", "expected a text"),
        ("name = \"a\"\ntype = \"counter\"\nwhen = { t = 1 }", "is not a source"),
        (
            "name = \"a\"\ntype = \"counter\"\n[[consumer.sink.metrics]]\nname = \"a\"\ntype = \"counter\"",
            "is used twice",
        ),
        (
            "name = \"a\"\ntype = \"histogram\"\nvalue = \"/v\"\n[[consumer.sink.metrics]]\nname = \"a_sum\"\ntype = \"counter\"",
            "\"a\" also uses the name \"a_sum\"",
        ),
    ] {
        let found = metric(keys);
        assert!(found.contains(says), "{keys}:\n{found}");
    }
    assert!(of_sink("type = \"metrics\"\nmetrics = []").join("\n").contains("0 metrics"));
}

#[test]
fn two_consumers_share_a_name_where_it_means_the_same() {
    let consumer = |name: &str, metric: &str| {
        format!(
            "[[consumer]]\nname = \"{name}\"\nstream = \"s\"\n[consumer.sink]\ntype = \"metrics\"\n[[consumer.sink.metrics]]\nname = \"x\"\n{metric}\n"
        )
    };
    let counter = "type = \"counter\"";
    let histogram = "type = \"histogram\"\nvalue = \"/v\"";
    let both = |one: &str, other: &str| consumer("a", one) + &consumer("b", other);
    let config = load(&both(counter, counter)).unwrap();
    assert_eq!(config.consumers[0].start, Start::Next, "the default of this sink");
    assert_eq!(config.consumers[0].sink.guarantee(), Guarantee::AtLeastOnce);
    for (other, says) in [
        (both(counter, "type = \"gauge\"\nvalue = \"/v\""), "of another type there"),
        (both(histogram, &format!("{histogram}\nbuckets = [1]")), "other buckets there"),
    ] {
        let found = problems(&other, &Env::default()).join("\n");
        assert!(found.contains(says) && found.contains("consumer[0]"), "{found}");
    }
    let told = consumer("a", counter).replace("stream", "start = \"first\"\nstream");
    assert_eq!(load(&told).unwrap().consumers[0].start, Start::First);
}

#[cfg(feature = "postgres")]
#[test]
fn postgres_says_what_is_wrong_without_the_secrets() {
    let postgres = |keys: &str| of_sink(&format!("type = \"postgres\"\n{keys}"));
    let both = "url = \"postgres://u:hunter2@h/d\"\ntable = \"t\"\n";
    for (keys, says) in [
        ("table = \"t\"", "url"),
        ("url = \"postgres://u:hunter2@h/d\"", "table"),
        ("url = \"hunter2\"\ntable = \"t\"", "not the URL of a PostgreSQL database"),
        ("url = \"postgres://u:hunter2@h:hunter2/d\"\ntable = \"t\"", "not the URL"),
        ("url = \"postgres://u:hunter2@h/d?sslmode=verify-full\"\ntable = \"t\"", "not the URL"),
        ("url = \"postgres://u:hun@ter2@h/d\"\ntable = \"t\"", "@ has to be written %40"),
        ("url = \"postgres://u:ter2@hunter2@h/d\"\ntable = \"t\"", "@ has to be written %40"),
        ("url = \"postgres://u:hunter2/hun@h/d\"\ntable = \"t\"", "%2F"),
        ("url = \"postgres://u:hunter2?x@h/d\"\ntable = \"t\"", "%3F"),
        ("url = \"postgres://u:hunter2#x@h/d\"\ntable = \"t\"", "%23"),
        ("url = \"postgres://h/d?application_name=a@hunter2\"\ntable = \"t\"", "%40"),
        ("url = \"postgres:///d\"\ntable = \"t\"", "it names no host"),
        ("url = \"postgres://h/d\"\ntable = \"a.t\"", "give schema and table a key each"),
        ("url = \"postgres://h/d\"\ntable = \"\"", "is no name"),
        ("url = \"postgres://h/d\"\ntable = \"rillway_positions\"", "take another"),
        (&format!("{both}connect_timeout = \"0s\""), "out of range"),
        (&format!("{both}write_timeout = \"5s\""), "is not below write_timeout, which is 5s"),
        (&format!("{both}tls = {{ cert = \"c\" }}"), "`cert` and `key` go together"),
        (&format!("{both}columns = {{ offset = \"/o\" }}"), "\"offset\" is used twice"),
    ] {
        let found = postgres(keys).join("\n");
        assert!(found.contains(says), "{keys}:\n{found}");
        assert!(!found.contains("hunter2"), "{found}");
    }
    let consumer = |name: &str| {
        format!(
            "[[consumer]]\nname = \"{name}\"\nstream = \"s\"\n[consumer.sink]\ntype = \"postgres\"\n{both}"
        )
    };
    let found = problems(&[consumer("a"), consumer("b")].concat(), &Env::default()).join("\n");
    assert!(found.contains("into table \"t\" of h:5432/d"), "{found}");
    assert!(!found.contains("hunter2"), "{found}");
}
