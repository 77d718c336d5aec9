//! `rillway test` and `rillway check`, from the command line.

use serde_json::Value;

use super::*;

const CONSUMERS: &str = r#"
[[consumer]]
name = "eu"
stream = "orders"
where = '.region == "eu"'
map = '{id, subject: $message.properties.subject, at: $message.offset}'
sink = { type = "sqlite", path = "x.db", columns = { id = "/id", at = { from = "/at", type = "integer" } } }
"#;

fn home(tests: &str) -> Home {
    Home::new("rabbitmq-stream://nowhere.example", &format!("{CONSUMERS}{tests}"))
}

fn run(home: &Home, arguments: &[&str]) -> (i32, String, String) {
    let output = home.command(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

const GOOD: &str = r#"
[[test]]
name = "of the EU"
consumer = "eu"
offset = 7
body = { region = "eu", id = "x" }
properties = { subject = "order.created" }
expect = { id = "x", subject = "order.created", at = 7 }
expect_row = { id = "x", at = 7 }
[[test]]
consumer = "eu"
body = '{"region":"us"}'
dropped = true
[[test]]
consumer = "eu"
body = "no JSON"
bad = "`where`: the body is not JSON"
"#;

#[test]
fn cases_that_pass_and_cases_that_fail() {
    let (code, out, err) = run(&home(GOOD), &["test"]);
    assert_eq!((code, &*err), (0, ""), "{out}");
    assert!(out.contains("ok     eu: of the EU") && out.ends_with("3 passed, 0 failed\n"), "{out}");

    let bad = GOOD
        .replace("at = 7 }\nexpect_row", "at = 8 }\nexpect_row")
        .replace("expect_row = { id = \"x\", at = 7 }", "expect_row = { id = \"y\", at = 7 }")
        .replace("dropped = true", "dropped = false")
        .replace("bad = \"", "bad = \"something else: ");
    let home = home(&bad);
    let (code, out, err) = run(&home, &["test"]);
    assert_eq!(code, 65, "{out}{err}");
    for says in [
        "FAILED eu: of the EU",
        "the body differs (- expected, + found):",
        "-   \"at\": 8",
        "+   \"at\": 7",
        "-   \"id\": \"y\"",
        "it is to be written, but it is left out",
        "does not contain \"something else: ",
        "0 passed, 3 failed",
    ] {
        assert!(out.contains(says), "{says}: {out}");
    }
    assert!(err.contains("3 of 3 cases failed"), "{err}");
    let (code, out, _) = run(&home, &["test", "--json"]);
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (code, &report["failed"], &report["cases"][0]["name"]),
        (65, &3.into(), &"of the EU".into())
    );
    // By the name of one.
    let (code, out, _) = run(&home, &["test", "of the"]);
    assert_eq!(code, 65);
    assert!(out.contains("0 passed, 1 failed"), "{out}");
    assert_eq!(run(&home, &["test", "nothing"]).0, 64);
}

#[test]
fn without_cases_it_says_how_to_write_one() {
    let (code, _, err) = run(&home(""), &["test"]);
    assert_eq!(code, 64);
    assert!(err.contains("the configuration has no [[test]]"), "{err}");
}

#[test]
fn check_shows_programs_and_refuses_what_is_none() {
    let (code, out, _) = run(&home(""), &["check"]);
    assert_eq!(code, 0);
    assert!(out.contains("  where:      .region == \"eu\"\n  map:        {id,"), "{out}");
    let (_, json, _) = run(&home(""), &["check", "--json"]);
    let plan: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(plan["consumers"][0]["where"], ".region == \"eu\"");
    let broken = CONSUMERS.replace(".region ==", ".region =");
    let home = Home::new("rabbitmq-stream://nowhere.example", &broken);
    std::fs::write(home.path("x.jq"), "{id,\n  nope}").unwrap();
    let (code, _, err) = run(&home, &["check"]);
    assert_eq!(code, 0, "an assignment is a program: {err}");
    let broken = CONSUMERS
        .replace(".region == \"eu\"", ".region == eu")
        .replace("map = '{id, subject", "map = '{id; subject");
    let home = Home::new("rabbitmq-stream://nowhere.example", &broken);
    let (code, _, err) = run(&home, &["check"]);
    assert_eq!(code, 78);
    for says in [
        "line ",
        "consumer[0].where (consumer \"eu\"): line 1, column 12 of the program: there is no function `eu`",
        "consumer[0].map (consumer \"eu\"): line 1, column 4 of the program",
    ] {
        assert!(err.contains(says), "{says}: {err}");
    }
}
