//! What a program reads of the body: all of it, or some keys of the outermost object.
//!
//! A body is checked as a whole in any case, but only the values of those keys are built, which is most of
//! the cost of a simple test. The analysis knows a small part of the language, and what it does not know
//! needs everything: a part of the body is left out only if the program cannot see the difference, except
//! in the text of an error.

use jaq_core::load::parse::{BinaryOp, Term};
use jaq_core::load::{self, lex::StrPart};
use jaq_core::path::{Opt, Part};

use super::read::Wanted;
use super::simplify::literal;

/// Functions whose arguments get the same input, and that do not look at it themselves.
const TRANSPARENT: &[(&str, usize)] =
    &[("select", 1), ("true", 0), ("false", 0), ("null", 0), ("empty", 0)];

/// What a program needs.
pub(super) fn of(text: &str) -> Wanted {
    let mut keys = Vec::new();
    let term = load::parse(text, |parser| parser.term());
    match term.is_some_and(|term| see(&term, false, &mut keys)) {
        true => Wanted::Keys(keys),
        false => Wanted::All,
    }
}

/// Adds the keys that a term reads of the body, which is its input. False if it may read more. `ignored` is
/// true if the term's own result is not used where it would be the body itself.
fn see(term: &Term<&str>, ignored: bool, keys: &mut Vec<String>) -> bool {
    match term {
        Term::Id => ignored,
        Term::Num(_) | Term::Var(_) => true,
        Term::Str(None, parts) => parts.iter().all(|part| match part {
            StrPart::Term(term) => see(term, false, keys),
            StrPart::Str(_) | StrPart::Char(_) => true,
        }),
        Term::Arr(items) => items.as_ref().is_none_or(|items| see(items, false, keys)),
        Term::Obj(entries) => entries.iter().all(|(key, value)| match (key, value) {
            (key, Some(value)) => see(key, false, keys) && see(value, false, keys),
            // `{a}` is `{a: .a}`.
            (Term::Str(None, parts), None) => literal(parts).is_some_and(|key| {
                keys.push(key);
                true
            }),
            (Term::Var(_), None) => true,
            _ => false,
        }),
        Term::Neg(term) => see(term, false, keys),
        Term::BinOp(left, op, right) => match op {
            // What stands on the right has another input, so it is enough to look at the left.
            BinaryOp::Pipe(None) => match selects(left) {
                // The body goes on to the right.
                true => see(left, true, keys) && see(right, ignored, keys),
                false => see(left, false, keys),
            },
            BinaryOp::Comma | BinaryOp::Alt => {
                see(left, ignored, keys) && see(right, ignored, keys)
            }
            BinaryOp::Or | BinaryOp::And | BinaryOp::Math(_) | BinaryOp::Cmp(_) => {
                see(left, false, keys) && see(right, false, keys)
            }
            _ => false,
        },
        Term::IfThenElse(branches, otherwise) => {
            branches.iter().all(|(test, then)| see(test, false, keys) && see(then, ignored, keys))
                && otherwise.as_ref().map_or(ignored, |term| see(term, ignored, keys))
        }
        Term::Call(name, args) if TRANSPARENT.contains(&(name, args.len())) => {
            (*name != "select" || ignored) && args.iter().all(|arg| see(arg, false, keys))
        }
        Term::Path(of, path) if matches!(**of, Term::Id) => {
            let mut parts = path.0.iter();
            // `.key?` of what is no object is nothing, as of all of it.
            let first = parts.next();
            let Some((Part::Index(Term::Str(None, text)), Opt::Essential | Opt::Optional)) = first
            else {
                return false;
            };
            let Some(key) = literal(text) else { return false };
            keys.push(key);
            parts.all(|(part, _)| match part {
                Part::Index(index) => see(index, false, keys),
                Part::Range(from, to) => {
                    [from, to].into_iter().flatten().all(|bound| see(bound, false, keys))
                }
            })
        }
        _ => false,
    }
}

/// True if the results of this term are the body itself, or nothing.
fn selects(term: &Term<&str>) -> bool {
    match term {
        Term::Id => true,
        Term::Call("select", args) => args.len() == 1,
        _ => false,
    }
}
