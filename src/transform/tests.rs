use proptest::prelude::*;

use super::*;

fn program(text: &str) -> Program {
    Program::compile(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn input(body: &str) -> Input<'_> {
    Input { body: body.as_bytes(), message: Some(br#"{"offset":7,"stream":"s"}"#) }
}

/// On a stack as it is in the daemon.
fn reshape(text: &str, body: &str) -> Result<Option<String>, String> {
    on_large_stack(|| {
        let made = program(text).reshape(input(body)).map_err(|failure| failure.what)?;
        Ok(made.map(|made| String::from_utf8(made).unwrap()))
    })
    .unwrap()
}

fn is_kept(text: &str, body: &str) -> Result<bool, String> {
    on_large_stack(|| program(text).keeps(input(body)).map_err(|failure| failure.what)).unwrap()
}

#[test]
fn a_message_is_kept_by_the_truth_of_the_result() {
    for (text, body, kept) in [
        (".region == \"eu\"", r#"{"region":"eu"}"#, true),
        (".region == \"eu\"", r#"{"region":"us"}"#, false),
        (".region == \"eu\"", "{}", false),
        (".a", "{\"a\":null}", false),
        (".a", "{\"a\":0}", true),
        (".a", "{\"a\":\"\"}", true),
        ("select(.a > 1)", "{\"a\":1}", false),
        ("select(.a > 1)", "{\"a\":2}", true),
        ("empty", "{}", false),
        (".a.b?", "{\"a\":1}", false),
        ("any(.tags[]; . == \"x\")", "{\"tags\":[\"y\",\"x\"]}", true),
        (".n == 9007199254740993", "{\"n\":9007199254740992}", false),
        (".n == 12345678901234567890123", "{\"n\":12345678901234567890123}", true),
        ("$message.offset == 7", "{}", true),
        ("test(\"^a.c$\")", "\"abc\"", true),
    ] {
        assert_eq!(is_kept(text, body), Ok(kept), "{text} of {body}");
    }
    let several = is_kept(".[]", "[1,2]").unwrap_err();
    assert!(several.contains("use any(…) or all(…)"), "{several}");
}

#[test]
fn what_is_not_touched_stays_as_it_is() {
    for body in [
        "{\"z\":1.000,\"a\":123456789012345678901234567890,\"m\":-0,\"e\":1E+2}",
        "[\"\\\"\\\\\\n\",\"é\",null,true,false,{},[]]",
        "0.1000000000000000000000000001",
        "\"𝄞\"",
    ] {
        assert_eq!(reshape(".", body), Ok(Some(body.to_owned())));
    }
    assert_eq!(reshape(".", "{\"a\":1,\"b\":2,\"a\":3}"), Ok(Some("{\"a\":3,\"b\":2}".to_owned())));
    assert_eq!(reshape(".", "\"\\ud834\\udd1e\""), Ok(Some("\"𝄞\"".to_owned())));
    assert_eq!(
        reshape("del(.b)", "{\"a\":1.0,\"b\":2,\"c\":3}"),
        Ok(Some("{\"a\":1.0,\"c\":3}".to_owned()))
    );
}

#[test]
fn the_language_is_jq() {
    for (text, body, made) in [
        ("{id, n: (.a + 1)}", "{\"id\":\"x\",\"a\":1,\"c\":3}", "{\"id\":\"x\",\"n\":2}"),
        (".a.b = 1", "{}", "{\"a\":{\"b\":1}}"),
        (".[2] = 1", "[]", "[null,null,1]"),
        (".a |= map(. * 2)", "{\"a\":[1,2]}", "{\"a\":[2,4]}"),
        ("with_entries(.value += 1)", "{\"a\":1}", "{\"a\":2}"),
        ("[.[] | select(. > 1)]", "[1,2,3]", "[2,3]"),
        ("reduce .[] as $x (0; . + $x)", "[1,2,3]", "6"),
        ("[limit(3; repeat(1))]", "null", "[1,1,1]"),
        ("[range(0; 10; 4)]", "null", "[0,4,8]"),
        ("\"\\(.a)-\\(.b)\"", "{\"a\":1,\"b\":[2]}", "\"1-[2]\""),
        (".a // \"none\"", "{\"a\":null}", "\"none\""),
        ("try error(\"x\") catch .", "null", "\"x\""),
        ("10 / 4, 10 / 5 | [.]", "null", ""),
        ("[10 / 4, 10 / 5, 7 % 3, 1 - 0.5]", "null", "[2.5,2,1,0.5]"),
        ("def f(x): x * 2; f(.a)", "{\"a\":4}", "8"),
        ("def fac: if . <= 1 then 1 else . * (. - 1 | fac) end; fac", "10", "3628800"),
        ("[.. | numbers]", "{\"a\":[1,{\"b\":2}]}", "[1,2]"),
        ("[paths]", "{\"a\":[1]}", "[[\"a\"],[\"a\",0]]"),
        ("to_entries", "{\"a\":1}", "[{\"key\":\"a\",\"value\":1}]"),
        ("group_by(.k) | map(length)", "[{\"k\":1},{\"k\":2},{\"k\":1}]", "[2,1]"),
        ("sort_by(.k) | .[0].k", "[{\"k\":2},{\"k\":1}]", "1"),
        ("capture(\"(?<y>\\\\d+)-(?<m>\\\\d+)\")", "\"2026-01\"", "{\"y\":\"2026\",\"m\":\"01\"}"),
        ("gsub(\"a\"; \"b\")", "\"banana\"", "\"bbnbnb\""),
        ("[scan(\"a.\")]", "\"abac\"", "[\"ab\",\"ac\"]"),
        ("split(\",\")", "\"a,b\"", "[\"a\",\"b\"]"),
        ("[splits(\", *\")]", "\"a, b\"", "[\"a\",\"b\"]"),
        ("fromdateiso8601", "\"2026-01-01T00:00:00Z\"", "1767225600"),
        ("todate", "1767225600", "\"2026-01-01T00:00:00Z\""),
        ("strftime(\"%Y/%m/%d\")", "1767225600", "\"2026/01/01\""),
        // Everybody's "for ever", and the first second of the years with four digits.
        (
            "[.[] | fromdateiso8601]",
            "[\"9999-12-31T23:59:59Z\",\"0000-01-01T00:00:00Z\",\"9999-12-31T23:59:59.5+01:00\"]",
            "[253402300799,-62167219200,253402297199.5]",
        ),
        (
            "[.[] | todate]",
            "[253402300799, 0.5]",
            "[\"9999-12-31T23:59:59Z\",\"1970-01-01T00:00:00.5Z\"]",
        ),
        ("gmtime", "253402300799", "[9999,11,31,23,59,59,5,364]"),
        ("mktime", "[9999,11,31,23,59,59,5,364]", "253402300799"),
        ("strftime(\"%Y-%m-%dT%H:%M:%S%z\")", "253402300799", "\"9999-12-31T23:59:59+0000\""),
        ("strptime(\"%Y-%m-%dT%H:%M:%SZ\") | mktime", "\"9999-12-31T23:59:59Z\"", "253402300799"),
        (
            "strptime(\"%Y-%m-%dT%H:%M:%S%z\") | mktime",
            "\"9999-12-31T23:59:59+0100\"",
            "253402297199",
        ),
        (
            "[.[] | (todate, gmtime, mktime, strftime(\"%s\"))? ]",
            "[1e300, 9223372036854775807, [10000,0,1,0,0,0]]",
            "[]",
        ),
        ("strptime(\"%Y-%m-%d\") | mktime", "\"2026-01-01\"", "1767225600"),
        ("@base64, (@base64 | @base64d) | [.]", "\"hé\"", ""),
        ("@base64 | @base64d", "\"hé\"", "\"hé\""),
        ("@uri", "\"a b/ü\"", "\"a%20b%2F%C3%BC\""),
        ("@csv", "[1,\"a\\\"b\",null]", "\"1,\\\"a\\\"\\\"b\\\",\""),
        ("tojson | fromjson", "{\"a\":1.50}", "{\"a\":1.50}"),
        ("tonumber", "\"1.50\"", "1.50"),
        ("ascii_downcase | ltrimstr(\"x\")", "\"XABC\"", "\"abc\""),
        ("[.[] | floor, sqrt]", "[4.5]", "[4,2.1213203435596424]"),
        ("{a: 1, b: {c: 1}} * {b: {d: 2}}", "null", "{\"a\":1,\"b\":{\"c\":1,\"d\":2}}"),
        ("del(.[] | select(. > 1))", "[1,2,3]", "[1]"),
        (".[1:]", "\"äbc\"", "\"bc\""),
        (".[-1:]", "[1,2]", "[2]"),
        ("length", "\"äbc\"", "3"),
        ("[.[] | isnan]", "[1]", "[false]"),
        ("{($message.stream): $message.offset}", "null", "{\"s\":7}"),
        (
            "walk(if type == \"string\" then ascii_upcase else . end)",
            "{\"a\":[\"b\"]}",
            "{\"a\":[\"B\"]}",
        ),
        ("input_line_number? // 1", "null", ""),
    ] {
        let several = made.is_empty();
        let Ok(compiled) = Program::compile(text) else {
            assert!(several, "{text}");
            continue;
        };
        drop(compiled);
        let found = reshape(text, body);
        match several {
            true => assert!(
                found.clone().unwrap_err().contains("more than one result"),
                "{text}: {found:?}"
            ),
            false => assert_eq!(found, Ok(Some(made.to_owned())), "{text} of {body}"),
        }
    }
    assert_eq!(reshape("empty", "{}"), Ok(None));
}

#[test]
fn errors_of_a_message_say_what_is_wrong() {
    for (text, body, says) in [
        (".", "{", "the body is not JSON: "),
        (".", "{'a':1}", "a key in quotation marks is expected at byte 1"),
        (".", "\"\\ud800\"", "half of a surrogate pair"),
        (".", "[1,]", "a value is expected at byte 3"),
        (".a + 1", "{\"a\":\"x\"}", "cannot calculate \"x\" + 1"),
        ("nan | todate", "{}", "is not a time"),
        ("error(\"no id\")", "{}", "no id"),
        ("error({a: 1})", "{}", "error: {\"a\":1}"),
        (".[0]", "{}", "cannot index {} with 0"),
        ("1 / .a", "{\"a\":0}", "cannot divide by zero"),
        ("nan", "{}", "a number that JSON cannot write"),
        ("[.[] | tonumber]", "[\"x\"]", "\"x\" is not a number"),
        ("test(\"(\")", "\"a\"", "not a regular expression"),
        (".[]", "[1,2]", "more than one result"),
    ] {
        let said = reshape(text, body).unwrap_err();
        assert!(said.contains(says), "{text} of {body}: {said}");
    }
}

#[test]
fn a_text_that_is_no_program_is_told_with_its_place() {
    let mut wrong = Vec::new();
    for (text, at, says) in [
        (".a ==", (1, 6), "a term is expected, and the program ends"),
        (".a |\n  foo", (2, 3), "there is no function `foo`"),
        ("map(. )  map", (1, 10), "expected"),
        ("{a: (1}", (1, 7), "a closing parenthesis is expected, and there is `}`"),
        (". as $x | $y", (1, 11), "there is no variable `$y`"),
        ("now", (1, 1), "`now` is not available here"),
        ("$ENV.HOME", (1, 1), "reads no environment"),
        ("env.HOME", (1, 1), "reads no environment"),
        ("input", (1, 1), "a program has one message"),
        ("import \"a\" as a; 1", (1, 9), "modules are not available"),
        (".a & 1", (1, 4), "expected"),
        ("\"abc", (1, 5), "closing quote"),
    ] {
        let error = Program::compile(text).unwrap_err();
        if (error.line, error.column) != at || !error.what.contains(says) {
            wrong.push(format!("{text}: {error}"));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    let long = "1 + ".repeat(PROGRAM_BYTES_MAX / 4) + "1";
    assert!(Program::compile(&long).unwrap_err().what.contains("at most 16384"));
}

/// Programs without an end, or that take all memory, if they could.
const ENDLESS: &[&str] = &[
    "def f: f; f",
    "def f: 1 + f; f",
    "def f: [f]; f",
    "def f: f | f; f",
    "def f(x): f(x | x); f(.)",
    "[range(1e18)]",
    "last(range(1e18))",
    "[range(0; 1; 0)]",
    "[limit(1e12; repeat(1))]",
    "[repeat(.)]",
    "until(false; . + 1)",
    "[while(true; . + 1)]",
    "[recurse(. + 1)]",
    "last(recurse([.]))",
    "\"x\" * 1e12",
    "\"x\" * 1e18",
    "reduce range(60) as $i (\"x\"; . + .)",
    "reduce range(60) as $i ([1]; . + .)",
    "reduce range(60) as $i (1; [., .]) | tojson",
    "reduce range(60) as $i (1; {a: ., b: .}) | [., .] | unique",
    "reduce range(1e6) as $i (.; [.])",
    "reduce range(1e9) as $i (.; .a = .)",
    "reduce range(60) as $i ({}; .a = . | .b = .)",
    "[range(1000) | range(1000) | range(1000)]",
    "(1,2)|(1,2)|(1,2)|(1,2)|(1,2)|(1,2)|(1,2)|(1,2)|(1,2)|(1,2)|(1,2)|(1,2)|(1,2)|(1,2)|(1,2)|(1,2)|(1,2)|(1,2)|(1,2)|(1,2)|(1,2)|(1,2)|(1,2)|(1,2)|empty",
    "try (def f: f; f) catch 1",
    "[range(1e9)]? // 1",
    "(range(1e12) | empty), 1",
    "path(last(limit(1e9; repeat(.a))))",
    "def f: .a | f; path(f)",
    "def f: .a | f; f |= 1",
    "[.[:1e9] = [range(1e9)]]",
    ".[1e6] = 1 | [limit(1e6; repeat(.))] | add",
    "[range(3e4)] | map(tostring) | reduce .[] as $x (\"\"; . + $x)",
    "[range(1e5)] | . as $a | map(select(. as $x | $a | index($x)))",
    "[limit(1000; repeat([range(100)]))] | contains([[99],[98]]) | [.,.] | combinations",
    "label $f | repeat(1 | if . == 2 then break $f else . end) | empty",
    "\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\" | until(test(\"^(a+)+$\") | not; . + \"a\")",
    "[\"a\" * 1e5 | gsub(\"a\"; \"bbbbbbbbbb\")] | until(false; map(gsub(\"b\"; \"bbbbbbbbbb\")))",
];

#[test]
fn every_program_ends() {
    for text in ENDLESS {
        let ended = on_large_stack(|| program(text).reshape(input("null")));
        // Not asked of the clock: each of them is over a limit, or it would not have ended.
        match ended.unwrap() {
            Err(failure) => assert!(failure.is_over_limit || !failure.what.is_empty(), "{text}"),
            Ok(made) => assert!(made.is_none_or(|made| made.len() <= RESULT_BYTES_MAX), "{text}"),
        }
    }
}

/// One message cannot keep its consumer for long, also by functions with loops of their own.
#[test]
fn loops_inside_of_functions_are_counted() {
    let comments = format!("{{\"a\": \"{}\"}}", "/*".repeat(20_000));
    let lists =
        format!("{{\"a\": [{}\"\"], \"b\": [{}\"\"]}}", "0,".repeat(9_000), "\"\",".repeat(9_000));
    for (text, body) in [
        // Each search for the next match looks for the end of the comment up to the end of the text.
        (r#".a | gsub("/\\*.*?\\*/|."; "")"#, &comments),
        (r#".a | [match("/\\*.*?\\*/|."; "g")] | length"#, &comments),
        (r#".a | test("(/\\*.*?\\*/|.)+x")"#, &format!("{{\"a\": \"{}\"}}", "/*".repeat(1_000))),
        (".b as $b | .a | contains($b)", &lists),
    ] {
        let ended = on_large_stack(|| program(text).reshape(input(body))).unwrap();
        let over = ended.as_ref().is_err_and(|failure| failure.is_over_limit);
        assert_eq!(over, !text.contains("test"), "{text}: {ended:?}");
    }
}

/// What a message may take does not depend on the messages before.
#[test]
fn compiled_expressions_are_counted_for_each_message() {
    // As many as fit into the budget of a small message, and one more.
    let patterns = |count: usize| {
        let patterns: Vec<_> = (0..count).map(|nth| format!("\"a{nth}\"")).collect();
        format!("[{}]", patterns.join(","))
    };
    let compiled = program("[.[] as $p | \"a\" | test($p)] | length");
    let (mut fits, mut is_over) = (0, 1_000);
    on_large_stack(|| {
        while fits + 1 < is_over {
            let count = usize::midpoint(fits, is_over);
            match compiled.reshape(input(&patterns(count))) {
                Ok(_) => fits = count,
                Err(_) => is_over = count,
            }
        }
        // With all of the last ones in the cache.
        for _ in 0..3 {
            assert!(compiled.reshape(input(&patterns(fits))).is_ok(), "{fits}");
            assert!(compiled.reshape(input(&patterns(is_over))).is_err(), "{is_over}");
        }
    })
    .unwrap();
    assert!((100..1_000).contains(&fits), "{fits}");
}

#[test]
fn a_limit_is_not_caught_and_the_next_message_has_its_own() {
    let compiled = program("if . == 1 then try (def f: f; f) catch 2 else . end");
    let (over, fine) =
        on_large_stack(|| (compiled.reshape(input("1")), compiled.reshape(input("3")))).unwrap();
    let over = over.unwrap_err();
    assert!(over.is_over_limit && over.what.contains("more steps or memory"), "{over}");
    assert_eq!(fine, Ok(Some(b"3".to_vec())));
}

#[test]
fn programs_of_any_shape_are_compiled_and_dropped() {
    let n = PROGRAM_BYTES_MAX;
    for text in [
        "(".repeat(n / 2) + "1" + &")".repeat(n / 2 - 1),
        "[".repeat(n / 2) + "1" + &"]".repeat(n / 2 - 1),
        "-".repeat(n - 1) + "1",
        ".|".repeat(n / 2 - 1) + ".",
        "try ".repeat(n / 4 - 1) + "1",
        "1+".repeat(n / 2 - 1) + "1",
        ".[".repeat(n / 3) + "0" + &"]".repeat(n / 3),
        "if . then ".repeat(n / 14) + "1" + &" end".repeat(n / 14),
        "def f:".repeat(n / 8) + "1" + &";1".repeat(n / 8),
        "\"\\(".repeat(n / 5) + "1" + &")\"".repeat(n / 5),
        format!("def w(f): {}f; {}1{}", "-".repeat(n / 2), "w(".repeat(n / 8), ")".repeat(n / 8)),
    ] {
        let ran =
            on_large_stack(|| Program::compile(&text).map(|program| program.reshape(input("1"))));
        assert!(ran.is_ok(), "{}…", text.get(..20).unwrap());
    }
}

#[test]
fn deep_and_large_bodies_are_refused() {
    let deep = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
    assert_eq!(reshape(".", &deep(127)), Ok(Some(deep(127))));
    assert!(reshape(".", &deep(128)).unwrap_err().contains("nested too deep"));
    assert!(reshape(".", &deep(100_000)).unwrap_err().contains("nested too deep"));
    assert!(reshape("[.]", &deep(127)).unwrap_err().contains("nested deeper than 127"));
    let large = format!("\"{}\"", "x".repeat(BODY_BYTES_MAX));
    assert!(is_kept("true", &large).unwrap_err().contains("at most 1048576"));
    let largest = format!("[{}1]", "1,".repeat(BODY_BYTES_MAX / 2 - 2));
    assert_eq!(is_kept("length > 500000", &largest), Ok(true));
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    use serde_json::Value;
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 30, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            proptest::collection::vec(("[a-d]", inner), 0..6)
                .prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

proptest! {
    /// The reader accepts what serde_json does, and nothing else; and reads the same.
    #[test]
    fn json_is_read_as_others_read_it(
        value in json(),
        at in any::<proptest::sample::Index>(),
        with in prop_oneof![Just(None), any::<u8>().prop_map(Some)],
    ) {
        let mut text = value.to_string().into_bytes();
        if let Some(byte) = with {
            let at = at.index(text.len());
            text[at] = byte;
        }
        let theirs = serde_json::from_slice::<serde_json::Value>(&text);
        let ours = on_large_stack(|| {
            program(".").reshape(Input { body: &text, message: None }).map(|made| made.unwrap())
        }).unwrap();
        match (theirs, ours) {
            (Ok(theirs), Ok(ours)) => {
                prop_assert_eq!(theirs, serde_json::from_slice::<serde_json::Value>(&ours).unwrap());
            }
            (Err(error), Ok(_)) => prop_assert!(error.to_string().contains("number out of range"), "{}", error),
            (Ok(_), Err(failure)) => prop_assert!(false, "{}", failure),
            (Err(_), Err(_)) => {}
        }
    }

    /// What a program does not need of a body makes no difference.
    #[test]
    fn a_part_of_the_body_is_enough(
        body in json(),
        text in proptest::sample::select(vec![
            ".a == .b", ".a.b // .c", "select(.a) | .b", "{a, x: .b[0]}", "if .a then .b else .c end",
            "[.a, .d] | length", "\"\\(.a)\"", ".a and (.b or .c)", ".a? == 1", ".a[.b:]?", "true", "1",
            "select(.a == .b) | select(.c) | .d", ".a | .b?", "-.a", ". | .a", ".a | [., .]",
        ]),
    ) {
        let body = body.to_string();
        // The second reads all of it, since the analysis does not know definitions.
        let all = format!("def whole: .; {text}");
        prop_assert_eq!(reshape(text, &body), reshape(&all, &body));
    }
}
