//! Evaluates simple programs.

use std::borrow::Cow;
use std::cell::RefCell;
use std::cmp::Ordering;

use jaq_core::path::Opt;
use jaq_core::{Error, Exn, ValT};

use super::budget::{DEPTH_MAX, STEP_BYTES, take};
use super::functions::known;
use super::glimpse::{Env, Found, Glimpse, Seen, Undecided, walk};
use super::number::Number;
use super::parts::{Part, Step};
use super::simple::{Change, Expr, Literal, Path, Simple};
use super::value::{Entries, NUMBER_RANK, STRING_RANK, Value};
use super::write::{self, Unwritable};
use super::{Input, RESULT_BYTES_MAX};

thread_local! {
    /// Kept, so that they are not allocated for each message.
    static FOUND: RefCell<(Vec<Part>, Vec<Part>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

impl Simple {
    /// True if the result is.
    pub(super) fn keeps(&self, input: Input<'_>) -> Result<bool, Undecided> {
        self.with(input, |env| Ok(self.expr.truth(env, &Value::Null)?.unwrap_or_default()))
    }

    /// Puts the result, as JSON, into an empty `out`. False if there is none.
    pub(super) fn reshape(&self, input: Input<'_>, out: &mut Vec<u8>) -> Result<bool, Undecided> {
        self.with(input, |env| {
            let is_made = self.expr.write(env, &Value::Null, out, 0)?.is_some();
            if out.len() <= RESULT_BYTES_MAX { Ok(is_made) } else { Err(Undecided) }
        })
    }

    fn with<T>(
        &self,
        input: Input<'_>,
        use_it: impl FnOnce(&Env<'_>) -> Result<T, Undecided>,
    ) -> Result<T, Undecided> {
        FOUND.with_borrow_mut(|(body, message)| {
            let read = self.body.parts.read(input.body, body);
            let body_is_true = read.map_err(|_| Undecided)?;
            match input.message.filter(|_| !self.message.reads.is_empty()) {
                Some(text) => {
                    self.message.parts.read(text, message).map_err(|_| Undecided)?;
                }
                None => self.message.parts.nothing(message),
            }
            let text = input.message.unwrap_or_default();
            let used = use_it(&Env {
                body: Glimpse { source: &self.body, parts: body, text: input.body },
                message: Glimpse { source: &self.message, parts: message, text },
                body_is_true,
            });
            // What was read of this message does not outlive it.
            body.clear();
            message.clear();
            used
        })
    }
}

/// The value of a term; goes on to the next term, or returns, if there is none.
macro_rules! some {
    ($found:expr) => {
        match $found? {
            Some(value) => value,
            None => return Ok(None),
        }
    };
}

/// Counts a term. The interpreter counts each at least once too.
#[inline]
fn step() -> Result<(), Undecided> {
    if take(STEP_BYTES) { Ok(()) } else { Err(Undecided) }
}

impl Expr {
    fn value<'e>(&'e self, env: &Env<'e>, input: &'e Value) -> Found<Cow<'e, Value>> {
        let owned = |value| Ok(Some(Cow::Owned(value)));
        step()?;
        match self {
            Expr::Input => Ok(Some(Cow::Borrowed(input))),
            Expr::Body(nth) => Ok(env.body.read(*nth)?.map(Seen::value)),
            Expr::Message(nth) => Ok(env.message.read(*nth)?.map(Seen::value)),
            Expr::Part(of, Path { steps, optional }) => {
                let steps = steps.iter().zip(optional);
                match some!(of.value(env, input)) {
                    Cow::Borrowed(value) => Ok(walk(value, steps)?.map(Cow::Borrowed)),
                    Cow::Owned(value) => owned(some!(walk(&value, steps)).clone()),
                }
            }
            Expr::Literal(literal) => owned(literal.value()?),
            Expr::BodyIsTrue
            | Expr::Compare(..)
            | Expr::CompareLiteral(..)
            | Expr::Logic(..)
            | Expr::Not(_)
            | Expr::In(..)
            | Expr::Any(..) => owned(Value::Bool(some!(self.truth(env, input)))),
            Expr::Alternative(left, right) => match left.value(env, input)? {
                Some(value) if value.as_bool() => Ok(Some(value)),
                _ => right.value(env, input),
            },
            Expr::If(test, then, otherwise) => {
                let chosen = if some!(test.truth(env, input)) { then } else { otherwise };
                chosen.value(env, input)
            }
            Expr::When(test, then) => match some!(test.truth(env, input)) {
                true => then.value(env, input),
                false => Ok(None),
            },
            Expr::Pipe(left, right) => {
                let left = some!(left.value(env, input));
                owned(some!(right.value(env, &left)).into_owned())
            }
            Expr::Calculate(left, op, right) => {
                let (left, right) = some!(both(left, right, env, input));
                owned(known(op.run(left.into_owned(), right.into_owned()))?)
            }
            Expr::Negate(of) => owned(known(-some!(of.value(env, input)).into_owned())?),
            Expr::List(items) => {
                let items = items.iter().map(|item| item.value(env, input));
                let items = items.filter_map(|item| Some(item.transpose()?.map(Cow::into_owned)));
                owned(Value::list(items.collect::<Result<_, Undecided>>()?))
            }
            Expr::Object(members) => {
                let mut entries = Entries::default();
                let values = some!(all(members.iter().map(|member| &member.value), env, input));
                for (member, value) in members.iter().zip(values) {
                    entries.insert(member.key.as_str().into(), value);
                }
                owned(Value::object(entries))
            }
            Expr::Text(parts) => {
                let mut text = String::new();
                for value in some!(all(parts.iter(), env, input)) {
                    match value.into_string() {
                        Value::Str(part) if take(part.len() as u64) => text.push_str(&part),
                        _ => return Err(Undecided),
                    }
                }
                owned(Value::text(text))
            }
            Expr::Update(of, paths, change) => {
                let of = some!(of.value(env, input));
                let with = match change {
                    Change::Set(with) | Change::Calculate(_, with) | Change::Default(with) => {
                        Some(some!(with.value(env, input)).into_owned())
                    }
                    Change::Map(_) | Change::Delete => None,
                };
                let changed = paths.iter().try_fold(of.into_owned(), |value, path| {
                    update(value, &path.steps, &path.optional, &|part| match (change, &with) {
                        (Change::Delete, _) => Ok(None),
                        (Change::Map(to), _) => Ok(to.value(env, &part)?.map(Cow::into_owned)),
                        (Change::Calculate(op, _), Some(with)) => {
                            known(op.run(part, with.clone())).map(Some)
                        }
                        (Change::Default(_), Some(_)) if part.as_bool() => Ok(Some(part)),
                        (_, with) => Ok(with.clone()),
                    })
                });
                owned(changed?)
            }
            Expr::Call(function, of, args) => {
                let of = some!(of.value(env, input));
                let args = some!(all(args.iter(), env, input));
                owned(function.call(&of, &args)?)
            }
            Expr::Nothing => Ok(None),
            Expr::Error => Err(Undecided),
        }
    }

    /// Whether the result is true, that is neither null nor false.
    fn truth<'e>(&'e self, env: &Env<'e>, input: &'e Value) -> Found<bool> {
        step()?;
        Ok(Some(match self {
            Expr::BodyIsTrue => env.body_is_true,
            Expr::Compare(left, op, right) => {
                let (left, right) = some!(both(left, right, env, input));
                op.run(&*left, &*right)
            }
            Expr::CompareLiteral(left, op, right) => {
                let order = match left.seen(env) {
                    Some(seen) => right.order_of(some!(seen))?,
                    None => {
                        let left = some!(left.value(env, input));
                        right.order(&left)?
                    }
                };
                op.run(&order, &Ordering::Equal)
            }
            Expr::Logic(left, decides, right) => {
                let left = some!(left.truth(env, input));
                if left == *decides { left } else { some!(right.truth(env, input)) }
            }
            Expr::Not(of) => !some!(of.truth(env, input)),
            Expr::Alternative(left, right) => match left.truth(env, input)? {
                Some(true) => true,
                _ => some!(right.truth(env, input)),
            },
            Expr::If(test, then, otherwise) => {
                let chosen = if some!(test.truth(env, input)) { then } else { otherwise };
                some!(chosen.truth(env, input))
            }
            Expr::When(test, then) => match some!(test.truth(env, input)) {
                true => some!(then.truth(env, input)),
                false => return Ok(None),
            },
            Expr::Pipe(left, right) => {
                let left = some!(left.value(env, input));
                some!(right.truth(env, &left))
            }
            Expr::In(of, ones) => {
                comparing(ones)?;
                if let Some(seen) = of.seen(env)
                    && ones.iter().all(|one| matches!(one, Expr::Literal(_)))
                {
                    return is_one_of(some!(seen), ones).map(Some);
                }
                let of = some!(of.value(env, input));
                for one in ones {
                    let is_equal = match one {
                        Expr::Literal(literal) => literal.order(&of)? == Ordering::Equal,
                        one => one.value(env, input)?.is_some_and(|one| one == of),
                    };
                    if is_equal {
                        return Ok(Some(true));
                    }
                }
                false
            }
            Expr::Any(items, test, wanted) => match items.value(env, input)? {
                None => false,
                Some(items) => match &*items {
                    Value::Arr(list) => any(list.items().iter(), test, env, *wanted)?,
                    Value::Obj(object) => any(object.entries().values(), test, env, *wanted)?,
                    _ => return Err(Undecided),
                },
            },
            other => match other.seen(env) {
                Some(seen) => some!(seen).is_true(),
                None => some!(other.value(env, input)).as_bool(),
            },
        }))
    }

    /// The part of a message that this is, if it is one.
    #[inline]
    fn seen<'e>(&'e self, env: &Env<'e>) -> Option<Found<Seen<'e>>> {
        match self {
            Expr::Body(nth) => Some(env.body.read(*nth)),
            Expr::Message(nth) => Some(env.message.read(*nth)),
            _ => None,
        }
    }

    /// Writes the result inside of so many objects. What is written means nothing if there is none.
    fn write<'e>(
        &'e self,
        env: &Env<'e>,
        input: &'e Value,
        out: &mut Vec<u8>,
        depth: u32,
    ) -> Found<()> {
        match self {
            Expr::Object(members) if depth < DEPTH_MAX => {
                out.push(b'{');
                let mut is_whole = true;
                for member in members {
                    out.extend_from_slice(&member.written);
                    // The others may be errors nevertheless.
                    is_whole &= member.value.write(env, input, out, depth + 1)?.is_some();
                }
                out.push(b'}');
                return Ok(is_whole.then_some(()));
            }
            Expr::If(test, then, otherwise) => {
                let chosen = if some!(test.truth(env, input)) { then } else { otherwise };
                return chosen.write(env, input, out, depth);
            }
            Expr::When(test, then) => match some!(test.truth(env, input)) {
                true => return then.write(env, input, out, depth),
                false => return Ok(None),
            },
            Expr::Pipe(left, right) => {
                let left = some!(left.value(env, input));
                return right.write(env, &left, out, depth);
            }
            _ => {}
        }
        let value = match self.seen(env) {
            None => some!(self.value(env, input)),
            Some(seen) => match some!(seen) {
                Seen::Value(value) => Cow::Borrowed(value),
                Seen::Number(text) => {
                    out.extend_from_slice(text);
                    return is_short(out);
                }
                Seen::Text(text) => {
                    out.reserve(text.len() + 2);
                    out.push(b'"');
                    out.extend_from_slice(text);
                    out.push(b'"');
                    return is_short(out);
                }
            },
        };
        if value.weight().depth + depth > DEPTH_MAX {
            return Err(Undecided);
        }
        let written = write::append(&value, out, RESULT_BYTES_MAX);
        written.map(Some).map_err(|_: Unwritable| Undecided)
    }
}

/// Undecided if the text is longer than a result may be.
#[inline]
fn is_short(out: &[u8]) -> Found<()> {
    if out.len() <= RESULT_BYTES_MAX { Ok(Some(())) } else { Err(Undecided) }
}

/// Counts the comparisons, as the interpreter does.
fn comparing(ones: &[Expr]) -> Result<(), Undecided> {
    match take(8 * ones.len() as u64) {
        true => Ok(()),
        false => Err(Undecided),
    }
}

fn is_one_of(seen: Seen<'_>, ones: &[Expr]) -> Result<bool, Undecided> {
    for one in ones {
        if let Expr::Literal(literal) = one
            && literal.order_of(seen)? == Ordering::Equal
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A value with a changed part, or without that part.
fn update(
    value: Value,
    steps: &[Step],
    optional: &[bool],
    change: &dyn Fn(Value) -> Found<Value>,
) -> Result<Value, Undecided> {
    let (Some((step, steps)), Some((is_optional, optional))) =
        (steps.split_first(), optional.split_first())
    else {
        return Err(Undecided);
    };
    let index = match step {
        Step::Key(key) => Value::text(key),
        Step::Index(index) => Value::Num(Number::Int(*index)),
    };
    let opt = if *is_optional { Opt::Optional } else { Opt::Essential };
    let change = |part| -> Option<Result<Value, Exn<'_, Value>>> {
        let changed = match steps {
            [] => change(part).transpose()?,
            steps => update(part, steps, optional, change),
        };
        Some(changed.map_err(|Undecided| Exn::from(Error::str(""))))
    };
    value.map_index(&index, opt, |part| change(part).into_iter()).map_err(|_| Undecided)
}

/// Both values. If there is one only, the other may be an error nevertheless.
fn both<'e>(
    left: &'e Expr,
    right: &'e Expr,
    env: &Env<'e>,
    input: &'e Value,
) -> Found<(Cow<'e, Value>, Cow<'e, Value>)> {
    let (left, right) = (left.value(env, input)?, right.value(env, input)?);
    Ok(left.zip(right))
}

/// All values, of which each may be an error, also if another one is not there.
fn all<'e>(
    exprs: impl Iterator<Item = &'e Expr>,
    env: &Env<'e>,
    input: &'e Value,
) -> Found<Vec<Value>> {
    let values: Vec<Option<Value>> = exprs
        .map(|expr| Ok(expr.value(env, input)?.map(Cow::into_owned)))
        .collect::<Result<_, Undecided>>()?;
    Ok(values.into_iter().collect())
}

/// True if the test has the wanted result for one of these.
fn any<'e>(
    mut items: impl Iterator<Item = &'e Value>,
    test: &'e Expr,
    env: &Env<'e>,
    wanted: bool,
) -> Result<bool, Undecided> {
    items.try_fold(false, |found, item| Ok(found || test.truth(env, item)? == Some(wanted)))
}

impl Literal {
    fn value(&self) -> Result<Value, Undecided> {
        Ok(match self {
            Literal::Null => Value::Null,
            Literal::Bool(bool) => Value::Bool(*bool),
            Literal::Int(int) => Value::Num(Number::Int(*int)),
            Literal::Number(text) => known(Value::from_num(text))?,
            Literal::Text(text) => Value::text(text),
        })
    }

    /// The order of a part and this one, without making either where that is easy.
    fn order_of(&self, seen: Seen<'_>) -> Result<Ordering, Undecided> {
        match (seen, self) {
            // The order of strings is that of their bytes.
            (Seen::Text(seen), Literal::Text(text)) => Ok(seen.cmp(text.as_bytes())),
            (Seen::Text(_), _) => Ok(STRING_RANK.cmp(&self.rank())),
            (Seen::Number(_), Literal::Int(_) | Literal::Number(_)) => self.order(&seen.value()),
            (Seen::Number(_), _) => Ok(NUMBER_RANK.cmp(&self.rank())),
            (Seen::Value(value), _) => self.order(value),
        }
    }

    /// The order of a value and this one, without making this one.
    fn order(&self, value: &Value) -> Result<Ordering, Undecided> {
        Ok(match (value, self) {
            (Value::Str(value), Literal::Text(text)) => {
                take(value.len().min(text.len()) as u64 / 16);
                (**value).cmp(text)
            }
            (Value::Num(number), Literal::Int(int)) => number.order(&Number::Int(*int)),
            (Value::Num(_), Literal::Number(_)) => value.cmp(&self.value()?),
            // Of another type, or neither has more than its rank.
            _ => value.rank().cmp(&self.rank()),
        })
    }

    /// The [rank](Value::rank) of its value.
    fn rank(&self) -> u8 {
        match self {
            Literal::Null => 0,
            Literal::Bool(bool) => 1 + u8::from(*bool),
            Literal::Int(_) | Literal::Number(_) => NUMBER_RANK,
            Literal::Text(_) => STRING_RANK,
        }
    }
}
