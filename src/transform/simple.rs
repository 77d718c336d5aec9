//! Tests that need no interpreter: comparisons of members of the body with literals, joined by `and`, `or` and
//! `not`. The interpreter takes several times as long for them.
//!
//! What would be an error is left to the interpreter, so there is one place that makes errors.

use jaq_core::load::{self, lex::StrPart, parse::BinaryOp, parse::Term};
use jaq_core::ops::Cmp;
use jaq_core::path::{Opt, Part};
use jaq_core::{ValR, ValT};

use super::value::Value;

/// A test of a body.
pub(super) enum Test {
    Truth(Operand),
    Compare(Operand, Cmp, Operand),
    And(Box<Test>, Box<Test>),
    Or(Box<Test>, Box<Test>),
    Not(Box<Test>),
}

/// A value that is compared.
pub(super) enum Operand {
    /// The member at these keys, from the outermost object inwards.
    Member(Vec<String>),
    Null,
    Bool(bool),
    Number(String),
    Text(String),
}

/// The test that a program is; `None` if it is more than one.
pub(super) fn of(text: &str) -> Option<Test> {
    test(&load::parse(text, |parser| parser.term())?)
}

fn test(term: &Term<&str>) -> Option<Test> {
    let both = |left: &Term<&str>, right: &Term<&str>| {
        Some((Box::new(test(left)?), Box::new(test(right)?)))
    };
    Some(match term {
        Term::BinOp(left, op, right) => match op {
            BinaryOp::And => both(left, right).map(|(left, right)| Test::And(left, right))?,
            BinaryOp::Or => both(left, right).map(|(left, right)| Test::Or(left, right))?,
            BinaryOp::Cmp(op) => Test::Compare(operand(left)?, *op, operand(right)?),
            BinaryOp::Pipe(None) => match &**right {
                Term::Call("not", args) if args.is_empty() => Test::Not(Box::new(test(left)?)),
                _ => return None,
            },
            _ => return None,
        },
        other => Test::Truth(operand(other)?),
    })
}

fn operand(term: &Term<&str>) -> Option<Operand> {
    Some(match term {
        Term::Num(number) => Operand::Number((*number).to_owned()),
        Term::Str(None, parts) => Operand::Text(literal(parts)?),
        Term::Call("null", args) if args.is_empty() => Operand::Null,
        Term::Call("true", args) if args.is_empty() => Operand::Bool(true),
        Term::Call("false", args) if args.is_empty() => Operand::Bool(false),
        Term::Path(of, path) if matches!(**of, Term::Id) => {
            let keys = path.0.iter().map(|part| match part {
                (Part::Index(Term::Str(None, parts)), Opt::Essential) => literal(parts),
                _ => None,
            });
            Operand::Member(keys.collect::<Option<_>>()?)
        }
        _ => return None,
    })
}

/// The text of a string without interpolations.
pub(super) fn literal(parts: &[StrPart<&str, Term<&str>>]) -> Option<String> {
    parts.iter().try_fold(String::new(), |mut text, part| {
        match part {
            StrPart::Str(part) => text.push_str(part),
            StrPart::Char(char) => text.push(*char),
            StrPart::Term(_) => return None,
        }
        Some(text)
    })
}

impl Test {
    /// Whether a body passes; `None` if that is an error.
    pub(super) fn passes(&self, body: &Value) -> Option<bool> {
        Some(match self {
            Test::Truth(operand) => operand.of(body)?.as_bool(),
            Test::Compare(left, op, right) => op.run(&left.of(body)?, &right.of(body)?),
            Test::And(left, right) => left.passes(body)? && right.passes(body)?,
            Test::Or(left, right) => left.passes(body)? || right.passes(body)?,
            Test::Not(test) => !test.passes(body)?,
        })
    }
}

impl Operand {
    fn of(&self, body: &Value) -> Option<Value> {
        Some(match self {
            Operand::Member(keys) => {
                let mut at = body;
                for key in keys {
                    at = match at {
                        Value::Obj(object) => match object.entries().get(key.as_str()) {
                            Some(member) => member,
                            None => &Value::Null,
                        },
                        Value::Null => &Value::Null,
                        _ => return None,
                    };
                }
                at.clone()
            }
            Operand::Null => Value::Null,
            Operand::Bool(bool) => Value::Bool(*bool),
            Operand::Number(number) => {
                let number: ValR<Value> = Value::from_num(number);
                number.ok()?
            }
            Operand::Text(text) => Value::Str(text.as_str().into()),
        })
    }
}
