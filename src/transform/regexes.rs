//! Regular expressions: matching takes time in proportion to the text, whatever the expression.

use std::cell::RefCell;

use jaq_core::native::{bome, v};
use jaq_core::{Bind, Error, RunPtr, ValR};
use regex::{Regex, RegexBuilder};

use super::access::Failed;
use super::budget::{is_spent, take};
use super::language::Jq;
use super::value::{Entries, Value};

/// Most bytes of a compiled expression.
const COMPILED_BYTES_MAX: usize = 1 << 20;

/// What compiling one counts for.
const COMPILING: u64 = 64 << 10;

/// Compiled expressions that a thread keeps.
const KEPT_MAX: usize = 16;

type Native = (&'static str, Box<[Bind]>, RunPtr<Jq>);

/// Parts of a text.
#[derive(Clone, Copy)]
enum Parts {
    Matches,
    Between,
    Both,
}

pub(super) fn natives() -> Vec<Native> {
    vec![
        ("matches", v(2), |mut cv| {
            let flags = cv.0.pop_var();
            bome(parts(&cv.1, &cv.0.pop_var(), &flags, Parts::Matches))
        }),
        ("split_", v(2), |mut cv| {
            let flags = cv.0.pop_var();
            bome(parts(&cv.1, &cv.0.pop_var(), &flags, Parts::Between))
        }),
        ("split_matches", v(2), |mut cv| {
            let flags = cv.0.pop_var();
            bome(parts(&cv.1, &cv.0.pop_var(), &flags, Parts::Both))
        }),
    ]
}

struct Flags {
    global: bool,
    no_empty: bool,
}

thread_local! {
    static KEPT: RefCell<Vec<(String, Regex)>> = const { RefCell::new(Vec::new()) };
}

/// Texts between matches as strings, matches as lists: of the match, and then of its groups.
fn parts(text: &Value, regex: &Value, flags: &Value, wanted: Parts) -> ValR<Value> {
    let as_str = |value: &Value| match value {
        Value::Str(text) => Ok(text.to_string()),
        Value::Null => Ok(String::new()),
        _ => Err(Error::typ(value.clone(), "a string")),
    };
    let Value::Str(text) = text else { return Err(Error::typ(text.clone(), "a string, to match")) };
    let Value::Str(regex) = regex else {
        return Err(Error::typ(regex.clone(), "a regular expression, which is a string"));
    };
    let (flags, regex) = compiled(regex, &as_str(flags)?)?;
    let mut out = Vec::new();
    let (mut end, mut chars) = (0, Chars { byte: 0, chars: 0 });
    if !take(text.len() as u64) {
        return Ok(Value::Null);
    }
    for found in regex.captures_iter(text) {
        let Some(whole) = found.get(0) else { continue };
        if flags.no_empty && whole.is_empty() {
            continue;
        }
        if is_spent() || !take(64) {
            return Ok(Value::Null);
        }
        if !matches!(wanted, Parts::Matches) {
            out.push(Value::text(text.get(end..whole.start()).unwrap_or_default()));
        }
        if !matches!(wanted, Parts::Between) {
            let offset = chars.upto(text, whole.start());
            let groups = found.iter().zip(regex.capture_names());
            let groups = groups.map(|(group, name)| match group {
                // Groups may begin before the last one's begin.
                Some(group) => {
                    let within = text.get(whole.start()..group.start()).unwrap_or_default();
                    described(Some((offset + within.chars().count(), group.as_str())), name)
                }
                None => described(None, name),
            });
            out.push(Value::list(groups.collect()));
        }
        end = whole.end();
        if !flags.global {
            break;
        }
    }
    if !matches!(wanted, Parts::Matches) {
        out.push(Value::text(text.get(end..).unwrap_or_default()));
    }
    Ok(Value::list(out))
}

/// Counts characters up to bytes that only grow.
struct Chars {
    byte: usize,
    chars: usize,
}

impl Chars {
    fn upto(&mut self, text: &str, byte: usize) -> usize {
        self.chars += text.get(self.byte..byte).unwrap_or_default().chars().count();
        self.byte = byte;
        self.chars
    }
}

fn described(found: Option<(usize, &str)>, name: Option<&str>) -> Value {
    let mut entries = Entries::default();
    let (offset, length, string) = match found {
        Some((offset, text)) => {
            (Value::from(offset), Value::from(text.chars().count()), Value::text(text))
        }
        None => (Value::from(-1_isize), Value::from(0_usize), Value::Null),
    };
    entries.insert("offset".into(), offset);
    entries.insert("length".into(), length);
    entries.insert("string".into(), string);
    if let Some(name) = name {
        entries.insert("name".into(), Value::text(name));
    }
    Value::object(entries)
}

fn compiled(regex: &str, letters: &str) -> Result<(Flags, Regex), Failed> {
    let mut flags = Flags { global: false, no_empty: false };
    let mut builder = RegexBuilder::new(regex);
    builder.size_limit(COMPILED_BYTES_MAX).dfa_size_limit(COMPILED_BYTES_MAX);
    for letter in letters.chars() {
        match letter {
            'g' => flags.global = true,
            'n' => flags.no_empty = true,
            'i' => {
                builder.case_insensitive(true);
            }
            'x' => {
                builder.ignore_whitespace(true);
            }
            's' => {
                builder.dot_matches_new_line(true);
            }
            'm' => {
                builder.multi_line(true);
            }
            'l' => {
                builder.swap_greed(true);
            }
            'p' => {
                builder.multi_line(true).dot_matches_new_line(true);
            }
            _ => {
                return Err(Error::str(format_args!(
                    "{letter:?} is no flag of a regular expression"
                )));
            }
        }
    }
    let key = format!("{letters}/{regex}");
    let known = KEPT.with_borrow(|kept| {
        kept.iter().find(|(known, _)| *known == key).map(|(_, regex)| regex.clone())
    });
    if let Some(regex) = known {
        return Ok((flags, regex));
    }
    take(COMPILING);
    let regex = builder.build().map_err(|error| {
        let error = error.to_string();
        Error::str(format_args!("not a regular expression: {}", error.replace('\n', " ")))
    })?;
    KEPT.with_borrow_mut(|kept| {
        if kept.len() >= KEPT_MAX {
            kept.remove(0);
        }
        kept.push((key, regex.clone()));
    });
    Ok((flags, regex))
}
