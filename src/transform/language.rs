//! Compiles programs, and runs them.

use std::panic::{AssertUnwindSafe, catch_unwind};

use jaq_core::load::{self, Arena, File, Loader, parse};
use jaq_core::{Compiler, Ctx, Exn, Filter, Vars, compile};

use super::budget::{self, Limit};
use super::glimpse::Undecided;
use super::jq::{Counted, Jq};
use super::needs;
use super::read::{Wanted, read};
use super::simple::Simple;
use super::simplify::{self, Use};
use super::value::Value;
use super::write::{Unwritable, write};
use super::{
    BODY_BYTES_MAX, Failure, Input, MESSAGE, NoProgram, PROGRAM_BYTES_MAX, RESULT_BYTES_MAX,
    natives,
};

pub(super) struct Compiled {
    filter: Filter<Jq>,
    /// The same for `where`, if it needs no interpreter.
    test: Option<Simple>,
    /// The same for `map`, if it needs no interpreter.
    shape: Option<Simple>,
    /// What it reads of the body.
    wanted: Wanted,
    wants_message: bool,
}

/// Definitions of the crates that need functions which are left out here.
const LEFT_OUT: &[&str] = &[
    "debug",
    "drem",
    "gamma",
    "halt",
    "halt_error",
    "infinite",
    "isnan",
    "logb",
    "nan",
    "nexttoward",
    "scalb",
    "significand",
    "stderr",
];

/// Functions of jq that a user may look for, and that are not here on purpose.
const REFUSED: &[(&str, &str)] = &[
    (
        "now",
        "a result depends on the message alone: `$message.timestamp` is the time at which it was stored",
    ),
    ("localtime", "times are in UTC: use gmtime"),
    ("strflocaltime", "times are in UTC: use strftime"),
    ("input", "a program has one message"),
    ("inputs", "a program has one message"),
    ("env", "a program reads no environment"),
    ("$ENV", "a program reads no environment"),
    ("debug", "a program prints nothing: `rillway test` shows results"),
    ("stderr", "a program prints nothing: `rillway test` shows results"),
    ("halt", "use `empty` to leave the message out, or `error(\"…\")` to report it as a bad one"),
    ("halt_error", "use `error(\"…\")` to report the message as a bad one"),
    ("input_filename", "`$message.stream` is the stream"),
];

/// Most memory that a program takes for a body of this size.
pub(super) fn memory_max(body_bytes: u64) -> u64 {
    budget::BASE_BYTES + budget::PER_BYTE * body_bytes
}

/// Compiles on a stack that is large enough for any text of the allowed length.
pub(super) fn compile(text: &str) -> Result<Compiled, NoProgram> {
    if text.len() > PROGRAM_BYTES_MAX {
        let what = format!("it is {} bytes long: at most {PROGRAM_BYTES_MAX}", text.len());
        return Err(NoProgram::at(text, 0, what));
    }
    let compiled = super::on_large_stack(|| compile_here(text));
    compiled.unwrap_or_else(|what| Err(NoProgram::at(text, 0, what)))
}

fn compile_here(text: &str) -> Result<Compiled, NoProgram> {
    let theirs = jaq_core::defs().chain(jaq_std::defs());
    let theirs = theirs.filter(|def| !LEFT_OUT.contains(&def.name));
    let ours = load::parse(include_str!("defs.jq"), |parser| parser.defs()).unwrap_or_default();
    let loader = Loader::new(theirs.chain(ours));
    let arena = Arena::default();
    let modules = loader
        .load(&arena, File { code: text, path: () })
        .map_err(|errors| first(text, errors.into_iter().map(|(_, error)| of_load(text, error))))?;
    let filter = Compiler::default()
        .with_funs(natives::all())
        .with_global_vars([MESSAGE])
        .compile(modules)
        .map_err(|errors| {
            let errors = errors.into_iter().flat_map(|(_, errors)| errors);
            first(text, errors.map(|error| of_compile(text, error)))
        })?;
    let wants_message = text.contains(MESSAGE);
    let (test, shape) = (simplify::of(text, Use::Truth), simplify::of(text, Use::Value));
    Ok(Compiled { filter, test, shape, wanted: needs::of(text), wants_message })
}

/// The error that stands first in the text.
fn first(text: &str, errors: impl Iterator<Item = NoProgram>) -> NoProgram {
    let first = errors.min_by_key(|error| (error.line, error.column));
    first.unwrap_or_else(|| NoProgram::at(text, 0, "it is not a program"))
}

/// The byte of the text at which a part of it begins; 0 if it is no part of it.
fn byte_of(text: &str, part: &str) -> usize {
    let at = part.as_ptr().addr().wrapping_sub(text.as_ptr().addr());
    if at <= text.len() { at } else { 0 }
}

fn of_load(text: &str, error: load::Error<&str>) -> NoProgram {
    match error {
        load::Error::Io(modules) => {
            let at = modules.first().map_or(0, |(name, _)| byte_of(text, name));
            NoProgram::at(
                text,
                at,
                "modules are not available here: write the definitions into the program",
            )
        }
        load::Error::Lex(errors) => {
            let error = errors.into_iter().next();
            error.map_or_else(
                || NoProgram::at(text, 0, "it cannot be read"),
                |(expected, rest)| {
                    let what = format!("a {} is expected{}", expected.as_str(), instead(rest));
                    NoProgram::at(text, byte_of(text, rest), what)
                },
            )
        }
        load::Error::Parse(errors) => {
            let error = errors.into_iter().next();
            error.map_or_else(
                || NoProgram::at(text, 0, "it cannot be parsed"),
                |(expected, found)| {
                    let expected = match expected {
                        parse::Expect::Just(what) => format!("`{what}`"),
                        parse::Expect::Nothing => "the end".to_owned(),
                        other => format!("a {}", other.as_str()),
                    };
                    let what = format!("{expected} is expected{}", instead(found));
                    NoProgram::at(text, byte_of(text, found), what)
                },
            )
        }
    }
}

/// What stands where something else is expected.
fn instead(found: &str) -> String {
    let shown: String = found.chars().take(20).collect();
    match shown.is_empty() {
        true => ", and the program ends".to_owned(),
        false => format!(", and there is `{shown}`"),
    }
}

fn of_compile(text: &str, (name, undefined): compile::Error<&str>) -> NoProgram {
    let at = byte_of(text, name);
    let refused = REFUSED.iter().find(|(refused, _)| *refused == name);
    let what = match (refused, undefined) {
        (Some((_, why)), _) => format!("`{name}` is not available here: {why}"),
        (None, compile::Undefined::Filter(0)) => format!("there is no function `{name}`"),
        (None, compile::Undefined::Filter(arity)) => {
            format!("there is no function `{name}` with {arity} arguments")
        }
        (None, compile::Undefined::Var) => {
            format!(
                "there is no variable `{name}`: besides those that the program binds there is {MESSAGE}"
            )
        }
        (None, other) => format!("there is no {} `{name}`", other.as_str()),
    };
    NoProgram::at(text, at, what)
}

impl Compiled {
    pub(super) fn wants_message(&self) -> bool {
        self.wants_message
    }

    pub(super) fn keeps(&self, input: Input<'_>) -> Result<bool, Failure> {
        self.simply_keeps(input).map_or_else(|| self.interpreted_keeps(input), Ok)
    }

    /// Puts the result into `out`. False if there is none.
    pub(super) fn reshape(&self, input: Input<'_>, out: &mut Vec<u8>) -> Result<bool, Failure> {
        if let Some(is_made) = self.simply_reshape(input, out) {
            return Ok(is_made);
        }
        // What was written so far may be large, and the interpreter needs memory of its own.
        *out = Vec::new();
        let made = self.interpreted_reshape(input)?;
        Ok(made.map(|made| *out = made).is_some())
    }

    #[cfg(test)]
    pub(super) fn is_simple_test(&self) -> bool {
        self.test.is_some()
    }

    #[cfg(test)]
    pub(super) fn is_simple_shape(&self) -> bool {
        self.shape.is_some()
    }

    /// As [`Compiled::keeps`], without the interpreter. `None` if it has to be asked.
    pub(super) fn simply_keeps(&self, input: Input<'_>) -> Option<bool> {
        let test = self.test.as_ref()?;
        attempt(input, || test.keeps(input))
    }

    /// As [`Compiled::reshape`], without the interpreter. `None` if it has to be asked.
    pub(super) fn simply_reshape(&self, input: Input<'_>, out: &mut Vec<u8>) -> Option<bool> {
        let shape = self.shape.as_ref()?;
        out.clear();
        attempt(input, || shape.reshape(input, out))
    }

    pub(super) fn interpreted_keeps(&self, input: Input<'_>) -> Result<bool, Failure> {
        let several =
            "it has more than one result, and a message is kept or not: use any(…) or all(…)";
        self.run(input, several, |result| Ok(jaq_core::ValT::as_bool(&result)))
            .map(Option::unwrap_or_default)
    }

    pub(super) fn interpreted_reshape(&self, input: Input<'_>) -> Result<Option<Vec<u8>>, Failure> {
        let several = "it has more than one result, and a message becomes one message: put them into a \
                       list, as in [ … ], or use first(…)";
        self.run(input, several, |result| {
            write(&result, RESULT_BYTES_MAX).map_err(|why| match why {
                Unwritable::TooLong => {
                    over_limit(format!("its result is longer than {RESULT_BYTES_MAX} bytes"))
                }
                Unwritable::NotFinite => failed(
                    "its result holds a number that JSON cannot write (nan or infinite)".to_owned(),
                ),
            })
        })
    }

    /// What `finish` makes of the only result; `None` if there is none.
    fn run<T>(
        &self,
        input: Input<'_>,
        several: &str,
        finish: impl FnOnce(Value) -> Result<T, Failure>,
    ) -> Result<Option<T>, Failure> {
        if input.body.len() > BODY_BYTES_MAX {
            return Err(over_limit(format!(
                "the body is {} bytes long, and programs are given at most {BODY_BYTES_MAX}",
                input.body.len()
            )));
        }
        budget::start(input.body.len());
        let ran = catch_unwind(AssertUnwindSafe(|| {
            let body = read(input.body, &self.wanted)
                .map_err(|error| failed(format!("the body is not JSON: {error}")))?;
            let message = match input.message.filter(|_| self.wants_message) {
                // It is our own.
                Some(message) => read(message, &Wanted::All).map_err(|error| {
                    failed(format!("internal error: {MESSAGE} is not JSON: {error}"))
                })?,
                None => Value::Null,
            };
            let ctx = Ctx::<Jq>::new(Counted(&self.filter.lut), Vars::new([message]));
            let mut results = self.filter.id.run((ctx, body));
            let Some(result) = results.next() else { return Ok(None) };
            let result = result.map_err(of_run)?;
            match results.next() {
                None => {}
                Some(Ok(_)) => return Err(failed(several.to_owned())),
                Some(Err(error)) => return Err(of_run(error)),
            }
            drop(results);
            finish(result).map(Some)
        }));
        match (budget::reached(), ran) {
            (Some(limit), _) => Err(over_limit(of_limit(limit))),
            (None, Ok(result)) => result,
            (None, Err(_)) => Err(failed(
                "internal error: the interpreter has failed; please report it".to_owned(),
            )),
        }
    }
}

/// The result of a simple program. `None` if it is an error or over a limit.
fn attempt<T>(input: Input<'_>, run: impl FnOnce() -> Result<T, Undecided>) -> Option<T> {
    if input.body.len() > BODY_BYTES_MAX {
        return None;
    }
    budget::start(input.body.len());
    let ran = catch_unwind(AssertUnwindSafe(run));
    ran.ok()?.ok().filter(|_| budget::reached().is_none())
}

fn failed(what: String) -> Failure {
    Failure { is_over_limit: false, what }
}

fn over_limit(what: String) -> Failure {
    Failure { is_over_limit: true, what }
}

fn of_run(error: Exn<'_, Value>) -> Failure {
    let mut what = match error.get_err() {
        Ok(error) => match error.into_val() {
            Value::Str(text) => text.to_string(),
            other => format!("error: {other}"),
        },
        Err(_) => "`break` stands outside of its `label`".to_owned(),
    };
    // Reports of many bad messages are kept together, and logged.
    let end = what.floor_char_boundary(ERROR_BYTES_MAX);
    if end < what.len() {
        what.truncate(end);
        what.push('…');
    }
    failed(what)
}

/// Longest text of a program's error.
const ERROR_BYTES_MAX: usize = 250;

fn of_limit(limit: Limit) -> String {
    match limit {
        Limit::Work => format!(
            "it takes more steps or memory than a message may: {} MiB, and {} bytes for each byte of the body",
            budget::BASE_BYTES >> 20,
            budget::PER_BYTE
        ),
        Limit::Depth => format!("its values are nested deeper than {}", budget::DEPTH_MAX),
        Limit::Size => "one of its values is too large".to_owned(),
        Limit::Stack => "it calls itself too deep".to_owned(),
    }
}
