//! Files and variables of another shape than they should have: each error leads to the line, and says
//! what to do.

use super::*;

const CONSUMER: &str = "[[consumer]]\nname = \"a\"\nstream = \"s\"\nsink = { type = \"null\" }\n";

fn error(bytes: &[u8]) -> String {
    let file = File::new("");
    std::fs::write(file.path(), bytes).unwrap();
    let error = file.load(&Env::default()).unwrap_err();
    assert_eq!(error.exit_code(), 78);
    let text = error.to_string();
    assert!(text.contains(&file.path().display().to_string()), "{text}");
    text
}

#[test]
fn toml_errors_name_the_line_and_the_remedy() {
    let with = |extra: &str| format!("{CONSUMER}{extra}\n");
    for (text, says) in [
        (
            with("start = { offset = 9223372036854775808 }"),
            "line 5: consumer[0].start.offset: 9223372036854775808 is out of range: a whole number \
             in TOML lies between -9223372036854775808 and 9223372036854775807",
        ),
        (
            with("commit = { every_messages = 0xffffffffffffffff }"),
            "line 5: consumer[0].commit.every_messages: 0xffffffffffffffff is out of range",
        ),
        (with("name = \"b\""), "line 5, column 1: the key `name` is given twice in one table"),
        (
            format!("[log]\nlevel = \"info\"\n[log]\n{CONSUMER}"),
            "line 3, column 2: the key `log` is given twice",
        ),
        (format!("[log]\nlevel = info\n{CONSUMER}"), "line 2, column 9: this is not a TOML value"),
        (format!("[log]\nlevel = warn\n{CONSUMER}"), "put a text in quotes"),
        ("[broker\n".to_owned(), "line 1, column 8: not valid TOML: unclosed table"),
        (String::new(), "consumer: no consumer is configured: expected at least one [[consumer]]"),
        (with("batch = { max_messages = \"5\" }"), "line 5: consumer[0].batch.max_messages"),
    ] {
        let error = error(text.as_bytes());
        assert!(error.contains(says), "{text}\n{error}");
    }
    let latin_1 = [CONSUMER.as_bytes(), b"# caf\xe9\n"].concat();
    let error = error(&latin_1);
    assert!(error.contains("line 5, column 6: the byte 0xe9 is not UTF-8"), "{error}");
}

/// The types would take a list for the table's values, in the order of its keys.
#[test]
fn a_list_is_no_table() {
    for (keys, at) in [
        ("batch = [500]", "line 5: consumer[0].batch"),
        ("filter = [[\"eu\"]]", "line 5: consumer[0].filter"),
        ("commit = [5]", "line 5: consumer[0].commit"),
        ("restart = []", "line 5: consumer[0].restart"),
        ("create = [\"1GB\"]", "line 5: consumer[0].create"),
        ("[[consumer.batch]]\nmax_messages = 5", "line 5: consumer[0].batch"),
        (
            "[consumer.dead_letter]\ntype = \"metrics\"\nmetrics = [[\"n\", \"counter\"]]",
            "consumer[0].dead_letter.metrics[0]",
        ),
    ] {
        let error = error(format!("{CONSUMER}{keys}\n").as_bytes());
        assert!(error.contains(at), "{error}");
        assert!(error.contains("found a list, expected one table"), "{keys}: {error}");
    }
    for keys in ["where = [\".a\"]", "map = [\".a\"]"] {
        let error = error(format!("{CONSUMER}{keys}\n").as_bytes());
        assert!(error.contains("expected a program in the language jq"), "{error}");
    }
}

#[test]
fn what_is_no_name_of_a_choice_is_told_the_names() {
    for (keys, says) in [
        (
            "on_offset_lost = 5",
            "consumer[0].on_offset_lost (consumer \"a\"): found integer `5`, expected one of `halt`",
        ),
        (
            "on_bad_message = true",
            "found boolean `true`, expected one of `halt`, `skip`, `dead_letter`",
        ),
        (
            "dead_letter = { type = \"sqlite\", path = \"x\", mode = 5 }",
            "dead_letter.mode (consumer \"a\"): found integer `5`, expected `append` or `upsert`",
        ),
        (
            "dead_letter = { type = \"sqlite\", path = \"x\", evolve = true }",
            "found boolean `true`, expected `add`",
        ),
        (
            "dead_letter = { type = \"object\", url = \"x\", format = 1.5 }",
            "expected `parquet` or `ndjson`",
        ),
    ] {
        let error = error(format!("{CONSUMER}{keys}\n").as_bytes());
        assert!(error.contains(says), "{keys}: {error}");
        assert!(error.contains("line 5: "), "{error}");
    }
}

#[test]
fn tables_and_lists_that_were_confused() {
    let one = CONSUMER.replace("[[consumer]]", "[consumer]") + "memry = \"1MiB\"\n";
    let error = error(one.as_bytes());
    for says in [
        "2 problems",
        "line 1: consumer: [consumer] is one table, expected a list of them: write [[consumer]]",
        "memry (consumer \"a\"): unknown key; did you mean `memory`?",
    ] {
        assert!(error.contains(says), "{error}");
    }
    let many = format!("{CONSUMER}[[broker]]\nuri = \"rabbitmq-stream://h\"\n");
    let error = super::problems(&many, &Env::default());
    assert_eq!(error, ["broker: [[broker]] is a list, expected one table: write [broker]"]);
    let misspelt = CONSUMER.replace("consumer", "consumers");
    let error = super::problems(&misspelt, &Env::default());
    assert_eq!(error, ["consumers: unknown key; did you mean `consumer`?"]);
}

#[test]
fn a_byte_order_mark_and_line_ends_of_windows_are_read() {
    assert!(load(&format!("\u{feff}{CONSUMER}")).is_ok());
    assert!(load(&CONSUMER.replace('\n', "\r\n")).is_ok());
    let wrong = format!("{CONSUMER}memry = 5\n").replace('\n', "\r\n");
    assert!(error(wrong.as_bytes()).contains("line 5: consumer[0].memry"));
}

#[test]
fn a_file_that_cannot_be_read_says_why() {
    let file = File::new(CONSUMER);
    let folder = Config::load(Some(file.0.path()), &Env::default()).unwrap_err().to_string();
    assert!(folder.contains("it is a folder; give the path of a file"), "{folder}");
    let missing = file.0.path().join("none.toml");
    let missing = Config::load(Some(&missing), &Env::default()).unwrap_err().to_string();
    assert!(missing.contains("none.toml (name another one with -c FILE"), "{missing}");
}

#[test]
fn a_variable_that_looks_like_a_key_but_sets_none_is_reported() {
    for (name, meant) in [
        ("RILLWAY_BROKER_URI", "did you mean RILLWAY__BROKER__URI?"),
        ("RILLWAY_BROKER_CONNECT_TIMEOUT", "did you mean RILLWAY__BROKER__CONNECT_TIMEOUT?"),
        ("RILLWAY_STATE_DIR", "did you mean RILLWAY__STATE_DIR?"),
        ("RILLWAY_BROKER__URI", "did you mean RILLWAY__BROKER__URI?"),
        ("RILLWAY_CONSUMER_0_MEMORY", "did you mean RILLWAY__CONSUMER__0__MEMORY?"),
        ("RILLWAY_BROKR_URI", "two underscores stand before each key, as in RILLWAY__BROKER__URI"),
        ("RILLWAY_LOG_LEVEL", "did you mean RILLWAY__LOG__LEVEL?"),
    ] {
        let found = problems(CONSUMER, &Env::from([(name, "x")]));
        assert_eq!(found, [format!("the variable {name} sets no key; {meant}")]);
    }
    // What is no key: this program's other variables, and those of a cluster's services.
    for name in ["RILLWAY_LOG", "RILLWAY_CONFIG", "RILLWAY_SERVICE_HOST", "RILLWAY_PORT_9552_TCP"] {
        let env = Env::from([(name, "info")]);
        assert!(File::new(CONSUMER).load(&env).is_ok(), "{name}");
    }
    let file = File::new(CONSUMER);
    let env = Env::from([("RILLWAY_BROKER_URI", "x"), ("RILLWAY_ADMIN_LISTEN", "x")]);
    let error = Config::load_broker(Some(&file.path()), &env).unwrap_err().to_string();
    assert!(error.contains("RILLWAY__BROKER__URI") && !error.contains("ADMIN"), "{error}");
}

#[test]
fn problems_come_in_the_order_of_the_file() {
    let one = |n: usize| {
        format!(
            "[[consumer]]\nname = \"c{n}\"\nstream = \"s{n}\"\nmemory = \"1B\"\nsink = {{ type = \"null\" }}\n"
        )
    };
    let found = problems(&(0..12).map(one).collect::<String>(), &Env::default());
    let of_consumer = found.iter().map(|problem| {
        let after = problem.split("consumer[").nth(1).expect("the path of a consumer");
        after.split(']').next().unwrap().parse::<usize>().unwrap()
    });
    let indices: Vec<usize> = of_consumer.collect();
    assert!(indices.len() >= 12 && indices.is_sorted(), "{found:?}");
}
