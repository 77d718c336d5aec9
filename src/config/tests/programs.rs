//! `where`, `map` and `[[test]]`.

use super::*;
use crate::config::Expected;

fn with(consumer: &str, tests: &str) -> String {
    format!("{MINIMAL}{consumer}\n{tests}")
}

#[cfg(feature = "transform")]
#[test]
fn programs_are_compiled_and_their_errors_have_a_place() {
    let config = load(&with("where = '.a == 1'\nmap = '''\n# why\n{a}'''", "")).unwrap();
    assert_eq!(config.consumers[0].keep.as_ref().unwrap().text(), ".a == 1");
    assert!(
        config.consumers[0].memory_bound().0 > load(MINIMAL).unwrap().consumers[0].memory_bound().0
    );
    let said = problems(&with("where = '.a =='\nmap = 'now'", ""), &Env::default());
    let expected = [
        "consumer[0].where (consumer \"a\"): line 1, column 6 of the program: a term is expected, and the \
         program ends",
        "consumer[0].map (consumer \"a\"): line 1, column 1 of the program: `now` is not available here: ",
    ];
    for (said, expected) in said.iter().zip(expected) {
        assert!(said.starts_with(expected), "{said}");
    }
    assert_eq!(said.len(), 2);
}

#[cfg(not(feature = "transform"))]
#[test]
fn a_build_without_programs_says_so() {
    let said = problems(&with("where = '.a == 1'", ""), &Env::default());
    assert!(said[0].contains("build it with the feature `transform`"), "{said:?}");
}

#[test]
fn cases_are_read() {
    let tests = "[[test]]\nconsumer = \"a\"\nbody = { b = [1] }\nproperties = { subject = \"s\" }\n\
                 expect = '{\"b\":[1]}'\nexpect_row = { b = 1 }\n\
                 [[test]]\nconsumer = \"a\"\nbody = \"text\"\nname = \"n\"\ndropped = true\n";
    let config = load(&with("", tests)).unwrap();
    let [first, second] = config.tests.as_slice() else { panic!("{:?}", config.tests) };
    assert_eq!((first.name.as_str(), first.body.as_slice()), ("test[0]", &b"{\"b\":[1]}"[..]));
    assert_eq!(first.expected, Expected::Body(serde_json::json!({"b": [1]})));
    assert_eq!((second.name.as_str(), second.body.as_slice()), ("n", &b"text"[..]));
    assert_eq!(second.expected, Expected::Dropped);
}

#[test]
fn cases_that_make_no_sense_are_refused() {
    for (keys, says) in [
        (
            "consumer = \"b\"\nbody = 1\ndropped = true",
            "test[0].consumer: there is no consumer \"b\"",
        ),
        ("consumer = \"a\"\nbody = 1", "the case expects nothing"),
        ("consumer = \"a\"\nbody = 1\nbad = \"x\"\ndropped = true", "give one of"),
        ("consumer = \"a\"\nbody = 1\nexpect = \"x\"", "the text is not JSON"),
        ("consumer = \"a\"\nbody = 1\ndropped = true\nexpect_row = { a = 1 }", "has no row"),
        ("consumer = \"a\"\nbody = 1\ndropped = true\ntimestamp = \"noon\"", "expected as in"),
        ("consumer = \"a\"\nbody = 1\ndroped = true", "did you mean `dropped`?"),
        ("consumer = \"a\"\ndropped = true", "the key `body` is missing"),
    ] {
        let said = problems(&with("", &format!("[[test]]\n{keys}\n")), &Env::default());
        assert!(said.iter().any(|said| said.contains(says)), "{keys}: {said:?}");
    }
}
