//! Regular expressions: all matches of one in a text.
//!
//! The `regex` crate searches while what that may take at most is little, which it nearly always is. Then a
//! search that counts its work goes on ([`pike`](super::pike)), with the same matches. Which one searches, and
//! what counts, depends on the expression and the text alone, not on what was searched for before.

use std::cell::RefCell;
use std::rc::Rc;

use jaq_core::native::{bome, v};
use jaq_core::{Bind, Error, RunPtr, ValR};
use regex::{Regex, RegexBuilder};
use regex_automata::nfa::thompson::{Compiler, NFA};
use regex_automata::util::syntax;

use super::access::Failed;
use super::budget::{is_spent, message, take};
use super::jq::Jq;
use super::pike::{Groups, Search};
use super::value::{Entries, Value};

/// Most bytes of a compiled expression.
const COMPILED_BYTES_MAX: usize = 1 << 20;

/// What compiling one counts for.
const COMPILING: u64 = 64 << 10;

/// Most steps that the searches of the `regex` crate for one list of matches may take: bytes that are left of
/// the text, for each state of the expression. Some tenths of a second.
const FAST_STEPS_MAX: usize = 1 << 27;

/// How many of these steps count as a byte.
const FAST_STEPS_PER_BYTE: u64 = 16;

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
    for found in Matches::new(&regex, text) {
        let Some(&Some((from, to))) = found.first() else { continue };
        if flags.no_empty && from == to {
            continue;
        }
        if is_spent() || !take(64) {
            return Ok(Value::Null);
        }
        if !matches!(wanted, Parts::Matches) {
            out.push(Value::text(text.get(end..from).unwrap_or_default()));
        }
        if !matches!(wanted, Parts::Between) {
            let offset = chars.upto(text, from);
            let groups = found.iter().zip(regex.fast.capture_names());
            let groups = groups.map(|(group, name)| match group {
                // Groups may begin before the last one's begin.
                Some((begin, finish)) => {
                    let within = text.get(from..*begin).unwrap_or_default();
                    if !take(within.len() as u64 / 8) {
                        return described(None, name);
                    }
                    let group = text.get(*begin..*finish).unwrap_or_default();
                    described(Some((offset + within.chars().count(), group)), name)
                }
                None => described(None, name),
            });
            out.push(Value::list(groups.collect()));
        }
        end = to;
        if !flags.global {
            break;
        }
    }
    if !matches!(wanted, Parts::Matches) {
        out.push(Value::text(text.get(end..).unwrap_or_default()));
    }
    Ok(Value::list(out))
}

/// True if a text has a match.
pub(super) fn is_found(text: &str, regex: &str, flags: &str) -> Result<bool, Failed> {
    let (flags, regex) = compiled(regex, flags)?;
    if !take(text.len() as u64) {
        return Ok(false);
    }
    let mut matches = Matches::new(&regex, text);
    if !flags.no_empty && matches.is_cheap() {
        return Ok(regex.fast.is_match(text));
    }
    let is_empty =
        |found: &Groups| found.first().copied().flatten().is_none_or(|(from, to)| from == to);
    Ok(matches.any(|found| !flags.no_empty || !is_empty(&found)))
}

/// Matches of an expression in a text, one after the other. When the budget is spent there are no more.
struct Matches<'m> {
    regex: &'m Expression,
    text: &'m str,
    /// Where the next search begins.
    at: usize,
    last_end: Option<usize>,
    /// What the searches of the `regex` crate may have taken.
    fast_steps: usize,
    counted: Option<Search<'m>>,
}

impl<'m> Matches<'m> {
    fn new(regex: &'m Expression, text: &'m str) -> Matches<'m> {
        Matches { regex, text, at: 0, last_end: None, fast_steps: 0, counted: None }
    }

    /// True if the `regex` crate may search from here. Counts that.
    fn is_cheap(&mut self) -> bool {
        let left = self.text.len() - self.at.min(self.text.len());
        let steps = (left + 16).saturating_mul(self.regex.nfa.states().len());
        self.fast_steps = self.fast_steps.saturating_add(steps);
        self.fast_steps <= FAST_STEPS_MAX && take(steps as u64 / FAST_STEPS_PER_BYTE)
    }

    /// The first match from here on, and its begin and end.
    fn first(&mut self) -> Option<(Groups, usize, usize)> {
        let found = self.find()?;
        let (from, to) = found.first().copied().flatten()?;
        Some((found, from, to))
    }

    fn find(&mut self) -> Option<Groups> {
        if self.at > self.text.len() || is_spent() {
            return None;
        }
        if self.counted.is_none() && self.is_cheap() {
            let found = self.regex.fast.captures_at(self.text, self.at)?;
            return Some(found.iter().map(|one| one.map(|one| (one.start(), one.end()))).collect());
        }
        if self.counted.is_none() {
            self.counted = Search::new(&self.regex.nfa, self.text).ok();
        }
        self.counted.as_mut()?.find(self.at).ok()?
    }
}

impl Iterator for Matches<'_> {
    type Item = Groups;

    fn next(&mut self) -> Option<Groups> {
        let (mut found, from, mut to) = self.first()?;
        if from == to && self.last_end == Some(to) {
            // An empty match right behind the last one is none.
            self.at += 1;
            (found, _, to) = self.first()?;
        }
        (self.at, self.last_end) = (to, Some(to));
        Some(found)
    }
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

/// An expression, compiled for both searches.
struct Expression {
    fast: Regex,
    nfa: NFA,
}

/// Expressions that a thread has compiled.
struct Kept {
    key: String,
    /// The message for which it was last counted.
    message: u64,
    expression: Rc<Expression>,
}

thread_local! {
    static KEPT: RefCell<Vec<Kept>> = const { RefCell::new(Vec::new()) };
}

fn compiled(regex: &str, letters: &str) -> Result<(Flags, Rc<Expression>), Failed> {
    let mut flags = Flags { global: false, no_empty: false };
    let mut builder = RegexBuilder::new(regex);
    let mut syntax = syntax::Config::new();
    builder.size_limit(COMPILED_BYTES_MAX).dfa_size_limit(COMPILED_BYTES_MAX);
    for letter in letters.chars() {
        match letter {
            'g' => flags.global = true,
            'n' => flags.no_empty = true,
            'i' => {
                builder.case_insensitive(true);
                syntax = syntax.case_insensitive(true);
            }
            'x' => {
                builder.ignore_whitespace(true);
                syntax = syntax.ignore_whitespace(true);
            }
            's' => {
                builder.dot_matches_new_line(true);
                syntax = syntax.dot_matches_new_line(true);
            }
            'm' => {
                builder.multi_line(true);
                syntax = syntax.multi_line(true);
            }
            'l' => {
                builder.swap_greed(true);
                syntax = syntax.swap_greed(true);
            }
            'p' => {
                builder.multi_line(true).dot_matches_new_line(true);
                syntax = syntax.multi_line(true).dot_matches_new_line(true);
            }
            _ => {
                return Err(Error::str(format_args!(
                    "{letter:?} is no flag of a regular expression"
                )));
            }
        }
    }
    let key = format!("{letters}/{regex}");
    let message = message();
    let known = KEPT.with_borrow_mut(|kept| {
        let nth = kept.iter().position(|known| known.key == key)?;
        // Those of this message stand at the end, in the order in which they were counted. So which of them
        // are dropped and counted again does not depend on the messages before.
        if kept.get(nth)?.message != message {
            let known = kept.remove(nth);
            kept.push(Kept { message, ..known });
            take(COMPILING + kept.last()?.expression.nfa.memory_usage() as u64);
            return Some(Rc::clone(&kept.last()?.expression));
        }
        Some(Rc::clone(&kept.get(nth)?.expression))
    });
    if let Some(expression) = known {
        return Ok((flags, expression));
    }
    let no_regex = |error: &dyn std::fmt::Display| {
        // It is not kept.
        take(COMPILED_BYTES_MAX as u64);
        let error = error.to_string();
        Error::str(format_args!("not a regular expression: {}", error.replace('\n', " ")))
    };
    take(COMPILING);
    let fast = builder.build().map_err(|error| no_regex(&error))?;
    let nfa = Compiler::new()
        .syntax(syntax)
        .configure(NFA::config().nfa_size_limit(Some(COMPILED_BYTES_MAX)))
        .build(regex)
        .map_err(|error| no_regex(&error))?;
    take(nfa.memory_usage() as u64);
    let expression = Rc::new(Expression { fast, nfa });
    KEPT.with_borrow_mut(|kept| {
        if kept.len() >= KEPT_MAX {
            kept.remove(0);
        }
        kept.push(Kept { key, message, expression: Rc::clone(&expression) });
    });
    Ok((flags, expression))
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::*;

    const PARTS: &[&str] = &[
        "a", "b", "é", ".", "\\w", "\\d", "[ab]", "[^a]", "\\b", "\\B", "^", "$", "(?m:^)",
        "(?m:$)", "", "x*", "(?i:A)",
    ];

    fn pattern(rng: &mut Rng, depth: u32) -> String {
        let mut part = || match depth {
            0 => PARTS[rng.usize(..PARTS.len())].to_owned(),
            _ => pattern(rng, depth - 1),
        };
        let (one, two) = (part(), part());
        match rng.u32(..9) {
            0 => format!("(?:{one})*"),
            1 => format!("(?:{one})+?"),
            2 => format!("({one})?"),
            3 => format!("(?:{one}){{1,3}}"),
            4 => format!("(?:{one}|{two})"),
            5 => format!("(?P<n{depth}{}>{one})", rng.u32(..1_000_000)),
            6 => format!("(?:{one})*?{two}"),
            _ => format!("{one}{two}"),
        }
    }

    fn all(expression: &Expression, text: &str, fast_steps: usize) -> Vec<Groups> {
        Matches { fast_steps, ..Matches::new(expression, text) }.collect()
    }

    /// Where each byte may begin a match, the places of all groups are cleared there.
    #[test]
    fn groups_count_at_each_byte() {
        let text = "x".repeat(1_000);
        for (groups, is_enough) in [(7, true), (7_000, false)] {
            super::super::budget::start(0);
            let (_, expression) = compiled(&format!("(?m:^){}", "()".repeat(groups)), "").unwrap();
            super::super::budget::start(0);
            // A mebibyte is left: the memory of a search, and little more.
            assert!(take(super::super::budget::BASE_BYTES - (1 << 20)));
            let found = Search::new(&expression.nfa, &text).and_then(|mut search| search.find(1));
            assert_eq!(found.is_ok(), is_enough, "{groups} groups");
        }
    }

    /// Whichever search finds them, the matches are those of the `regex` crate.
    #[test]
    fn counted_searches_find_the_same() {
        crate::seeds::all_pass(2_000, "counted_searches", |seed| {
            let mut rng = Rng::with_seed(seed);
            let depth = rng.u32(..4);
            let pattern = pattern(&mut rng, depth);
            let letters = ["", "i", "l", "s", "m", "p", "x"][rng.usize(..7)];
            super::super::budget::start(1 << 20);
            let Ok((_, expression)) = compiled(&pattern, letters) else { return };
            for _ in 0..8 {
                let text: String = (0..rng.usize(..12))
                    .map(|_| ["a", "b", "A", "é", "\n", "1", " ", "𝄞"][rng.usize(..8)])
                    .collect();
                let expected: Vec<Groups> = expression
                    .fast
                    .captures_iter(&text)
                    .map(|found| {
                        found.iter().map(|one| one.map(|one| (one.start(), one.end()))).collect()
                    })
                    .collect();
                for (fast_steps, what) in [(0, "fast"), (usize::MAX, "counted")] {
                    let found = all(&expression, &text, fast_steps);
                    assert_eq!(found, expected, "{what}: {pattern:?} {letters} in {text:?}");
                }
            }
        });
    }
}
