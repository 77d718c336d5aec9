//! Simple programs, with the interpreter and without it: random programs on random bodies, of which some are no
//! JSON.
//!
//! Run more of them with `RILLWAY_SIMULATIONS=100000 cargo test --release --lib simple_programs`; each is a
//! program on 40 bodies. A failure prints its seed.

use std::cell::Cell;

use fastrand::Rng;

use super::*;

const KEYS: &[&str] = &["a", "b", "c", "\\u0061", "x y", "é", ""];

const SCALARS: &[&str] = &[
    "null",
    "true",
    "false",
    "0",
    "-0",
    "1",
    "-1",
    "1.0",
    "1.5",
    "1e1000",
    "-1E+1000",
    "5e-324",
    "9007199254740993",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775808",
    "123456789012345678901234567890",
    "\"\"",
    "\"a\"",
    "\"ab\"",
    "\"AbC\"",
    "\"1\"",
    "\" 1.50 \"",
    "\"\\u0061\"",
    "\"\\n\\t\\u0000\\\"\\\\\\/\"",
    "\"é\\ud834\\udd1e𝄞\"",
    "\"a text that is longer than eight, and than thirty-two bytes, é\"",
    "\"a text that is longer than thirty-two bytes, \\\\ and has escapes\"",
    // No JSON.
    "\"\\ud834\"",
    "\"\\udd1e\"",
    "01",
    "nul",
    "\"\u{1}\"",
    "",
];

/// Those that are JSON.
const GOOD_SCALARS: usize = 28;

struct Maker(Rng);

impl Maker {
    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.0.usize(..of.len())]
    }

    fn is_one_in(&mut self, n: u32) -> bool {
        self.0.u32(..n) == 0
    }

    fn blank(&mut self) -> &'static str {
        if self.is_one_in(8) { self.one(&[" ", "\n\t", "\r "]) } else { "" }
    }

    fn json(&mut self, depth: u32) -> String {
        let value = match self.0.u32(..10) {
            0..6 if depth > 0 => self.object(depth - 1),
            6 if depth > 0 => {
                let items: Vec<_> = (0..self.0.u32(..4)).map(|_| self.json(depth - 1)).collect();
                format!("[{}]", items.join(","))
            }
            _ if self.is_one_in(60) => self.one(SCALARS).to_owned(),
            _ => self.one(&SCALARS[..GOOD_SCALARS]).to_owned(),
        };
        format!("{}{value}{}", self.blank(), self.blank())
    }

    fn object(&mut self, depth: u32) -> String {
        let entries: Vec<_> = (0..self.0.u32(..5))
            .map(|_| {
                let key = self.one(KEYS);
                format!("{}\"{key}\"{}:{}", self.blank(), self.blank(), self.json(depth))
            })
            .collect();
        let mut entries = entries;
        if self.is_one_in(3)
            && let Some(first) = entries.first()
        {
            // The same key once more.
            let (key, _) = first.split_once(':').unwrap();
            entries.push(format!("{key}:{}", self.json(depth)));
        }
        format!("{{{}}}", entries.join(","))
    }

    /// A body, which may be anything.
    fn body(&mut self) -> Vec<u8> {
        let mut body = match self.0.u32(..20) {
            0 => {
                let deep = self.0.usize(120..132);
                let inner = self.json(1);
                format!("{{\"a\":{}{inner}{}}}", "[".repeat(deep), "]".repeat(deep))
            }
            1..4 => self.json(3),
            _ => self.object(3),
        }
        .into_bytes();
        if self.is_one_in(6) && !body.is_empty() {
            let at = self.0.usize(..body.len());
            match self.0.u32(..3) {
                0 => body[at] = self.0.u8(..),
                1 => body.insert(at, self.0.u8(..)),
                _ => drop(body.remove(at)),
            }
        }
        body
    }

    fn path(&mut self) -> String {
        let mut path = self.one(&[".", ".", ".", ".", "$message"]).to_owned();
        for nth in 0..self.0.u32(..4) {
            let step = match path.as_str() {
                // `.` and a name are one word.
                "." => self.one(&["a", "b", "c", "\"x y\"", "[0]", "[-1]", "[\"é\"]", "a[1]"]),
                _ => self.one(&[".a", ".b", ".c", ".\"\"", "[0]", "[-2]", "[\"x y\"]", "[\"a\"]"]),
            };
            path.push_str(step);
            if self.is_one_in(5) || (nth == 2 && self.is_one_in(2)) {
                path.push('?');
            }
        }
        path
    }

    fn literal(&mut self) -> &'static str {
        self.one(&[
            "null",
            "true",
            "false",
            "0",
            "1",
            "-1",
            "1.0",
            "1e1000",
            "100",
            "9007199254740993",
            "123456789012345678901234567890",
            "\"\"",
            "\"a\"",
            "\"ab\"",
            "\"1\"",
            "\"é\"",
            "[]",
            "{}",
        ])
    }

    fn change(&mut self, depth: u32) -> String {
        let of = self.one(&[
            ".a",
            ".b",
            ".b.c",
            ".a[0]",
            ".\"x y\"",
            "(.a, .b)",
            ".a?",
            ".c[-1]",
            ".a.b?.c",
            ".[0]",
            "(.a, .a.b)",
            ".[2]?",
            ".a[-1]?",
        ]);
        match self.0.u32(..4) {
            0 => format!("del({of})"),
            _ => {
                let op = self.one(&["=", "|=", "+=", "-=", "*=", "//="]);
                format!("({of} {op} {})", self.term(depth))
            }
        }
    }

    fn term(&mut self, depth: u32) -> String {
        if depth == 0 {
            return match self.0.u32(..3) {
                0 => self.literal().to_owned(),
                _ => self.path(),
            };
        }
        let depth = depth - 1;
        let left = self.term(depth);
        match self.0.u32(..28) {
            0..4 => {
                let op = self.one(&["==", "!=", "<", "<=", ">", ">="]);
                format!("({left} {op} {})", self.term(depth))
            }
            4 => format!(
                "({left} {op} {lit})",
                op = self.one(&["==", "!=", "<", ">="]),
                lit = self.literal()
            ),
            5 => format!(
                "({lit} {op} {left})",
                op = self.one(&["==", "!=", "<=", ">"]),
                lit = self.literal()
            ),
            6 => format!("({left} and {})", self.term(depth)),
            7 => format!("({left} or {})", self.term(depth)),
            8 => format!("({left} // {})", self.term(depth)),
            9 => format!("({left} | not)"),
            10 => format!("if {left} then {} else {} end", self.term(depth), self.term(depth)),
            11 => format!("(select({left}) | {})", self.term(depth)),
            12 => format!("({left} | {})", self.term(depth)),
            13 => format!("({left} {} {})", self.one(&["+", "-", "*", "/", "%"]), self.term(depth)),
            14 => format!("[{left}, {}]", self.term(depth)),
            15 => format!("{{a: {left}, \"x y\": {}, b}}", self.term(depth)),
            16 => format!("\"<\\({left})>\\({})\"", self.term(depth)),
            17 => format!("({left} | IN({}, {}, 1))", self.literal(), self.term(depth)),
            18 => {
                let name = self.one(&["any", "all"]);
                format!("{name}({}[]; {})", self.path(), self.term(depth))
            }
            19 => {
                format!("({left} | {}({}))", self.one(&["any", "all", "select"]), self.term(depth))
            }
            20 => {
                let name = self.one(&[
                    "type",
                    "length",
                    "tostring",
                    "tojson",
                    "tonumber",
                    "ascii_downcase",
                    "ascii_upcase",
                ]);
                format!("({left} | {name})")
            }
            21 => {
                let name = self.one(&["startswith", "endswith", "contains", "has"]);
                format!("({left} | {name}({}))", self.term(depth))
            }
            22 => format!(
                "(\"a\\({left})\" | test({}))",
                self.one(&["\"^a\"", "\"A.*e\"; \"i\"", "\"\"; \"n\""])
            ),
            23..27 => self.change(depth),
            _ => self
                .one(&[
                    "(-1 | -.)",
                    "empty",
                    "error(\"no\")",
                    "(try (1 / 0) catch 2)",
                    "select(.)",
                    "[]",
                ])
                .to_owned(),
        }
    }
}

/// The result without the interpreter; `None` if it has to be asked.
fn simple_shape(compiled: &language::Compiled, input: Input<'_>) -> Option<Option<Vec<u8>>> {
    // What is left of another message does not matter.
    let mut made = b"left over".to_vec();
    Some(compiled.simply_reshape(input, &mut made)?.then_some(made))
}

/// How often the interpreter had to be asked, and how often not.
#[derive(Default)]
struct Asked {
    not: Cell<u64>,
    although_it_knows: Cell<u64>,
}

fn compare(seed: u64, asked: &Asked) {
    let mut maker = Maker(Rng::with_seed(seed));
    let depth = maker.0.u32(..4);
    let text = maker.term(depth);
    let program = program(&text);
    let compiled = &program.compiled;
    let message = maker.object(2);
    for _ in 0..40 {
        let body = maker.body();
        let input = Input { body: &body, message: Some(message.as_bytes()) };
        let shown = || format!("{text} of {} with {message}", String::from_utf8_lossy(&body));
        let (ours, theirs) = (compiled.simply_keeps(input), compiled.interpreted_keeps(input));
        let (shape, their_shape) =
            (simple_shape(compiled, input), compiled.interpreted_reshape(input));
        for is_asked in [ours.is_none() && theirs.is_ok(), shape.is_none() && their_shape.is_ok()] {
            let count = if is_asked { &asked.although_it_knows } else { &asked.not };
            count.set(count.get() + 1);
        }
        if let Some(ours) = ours {
            assert_eq!(Ok(ours), theirs, "{}", shown());
        }
        if let Some(shape) = shape {
            let lossy = |made: Option<Vec<u8>>| {
                made.map(|made| String::from_utf8_lossy(&made).into_owned())
            };
            assert_eq!(Ok(lossy(shape)), their_shape.map(lossy), "{}", shown());
        }
        // The errors are always the interpreter's.
        assert_eq!(program.keeps(input), compiled.interpreted_keeps(input), "{}", shown());
    }
}

#[test]
fn simple_programs_are_what_the_interpreter_makes_of_them() {
    on_large_stack(|| {
        let asked = Asked::default();
        crate::seeds::all_pass(100, "simple_programs", |seed| compare(seed, &asked));
        let (not, although) = (asked.not.get(), asked.although_it_knows.get());
        println!("asked {although} times although there is no error, and not {not} times");
        assert!(although * 20 < not, "{although} of {not}");
    })
    .unwrap();
}

#[test]
fn the_last_value_of_a_repeated_key_counts() {
    on_large_stack(|| {
        for body in [
            r#"{"a":{"b":1},"a":{}}"#,
            r#"{"a":{"b":1},"a":{"c":1}}"#,
            r#"{"a":{"b":1},"a":null}"#,
            r#"{"a":{"b":1},"a":2}"#,
            r#"{"a":{"b":1},"a":[2]}"#,
            r#"{"a":[{"b":1}],"a":[]}"#,
            r#"{"a":[{"b":1}],"a":{"b":2}}"#,
            r#"{"a":2,"a":{"b":{"c":3},"b":4}}"#,
            r#"{"\u0061":{"b":1},"a":{"\u0062":"x"}}"#,
            r#"{"a":{"b":1,"b":{}},"A":1}"#,
        ] {
            for text in
                [".a.b", ".a.b?", ".a[0]?", ".a[0].b?", ".a.b.c?", "[.a, .a.b?]", "{b: .a.b}"]
            {
                let compiled = program(text);
                let input = Input { body: body.as_bytes(), message: None };
                let ours = simple_shape(&compiled.compiled, input);
                let theirs = compiled.compiled.interpreted_reshape(input);
                assert_eq!(ours, theirs.ok(), "{text} of {body}");
                let ours = compiled.compiled.simply_keeps(input);
                let theirs = compiled.compiled.interpreted_keeps(input);
                assert_eq!(ours, theirs.ok(), "{text} of {body}");
            }
        }
    })
    .unwrap();
}

fn program(text: &str) -> Program {
    Program::compile(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn programs_of_the_guide_are_simple() {
    for (text, test, shape) in [
        (".region == \"eu\"", true, true),
        ("(.type == \"order\" or .type == \"refund\") and (.amount // 0) >= 100", true, true),
        ("$message.application_properties.tenant == \"acme\"", true, true),
        (".country | IN(\"DE\", \"FR\", \"NL\")", true, true),
        (".email // \"\" | test(\"@example\\\\.(com|org)$\"; \"i\")", true, true),
        ("any(.tags[]; . == \"x\")", true, true),
        ("select(.a > 1)", true, true),
        ("{id, amount, placed: .created_at}", true, true),
        ("if .id then . else error(\"an order without an id\") end", true, true),
        ("[.lines[].price] | add", false, false),
        ("{id, total: ([.lines[].price] | add)}", false, false),
        (".[]", false, false),
        ("1, 2", false, false),
        ("def f: .; f", false, false),
        (". as $x | $x", false, false),
    ] {
        let program = Program::compile(text).unwrap();
        let is_simple = (program.compiled.is_simple_test(), program.compiled.is_simple_shape());
        assert_eq!(is_simple, (test, shape), "{text}");
    }
}
