//! Programs that keep or reshape JSON: the keys `where` and `map` of a consumer, in the language jq
//! ([ADR 25](../../docs/adr/0025-jq.md)).
//!
//! A program is a pure function of one message. Invariants:
//! - it ends, and takes a bounded amount of memory, whatever it is and whatever it is given ([`budget`]);
//!   both limits depend on the message alone, so the same message has the same result everywhere;
//! - it reads no clock, no environment and no file;
//! - a number that it does not calculate with keeps its digits;
//! - nothing that it does or is given ends the process: its values are never deeper than
//!   [`budget::DEPTH_MAX`], it uses a bounded part of the stack, and a panic of the interpreter is an
//!   error of the message.
//!
//! The interpreter is jaq's; the values and everything that depends on them are ours, because they are
//! what has to be counted. Knows nothing of consumers, sinks or AMQP.

#[cfg(feature = "transform")]
mod access;
#[cfg(feature = "transform")]
mod arithmetic;
#[cfg(feature = "transform")]
mod budget;
#[cfg(feature = "transform")]
mod evaluate;
#[cfg(feature = "transform")]
mod functions;
#[cfg(feature = "transform")]
mod glimpse;
#[cfg(feature = "transform")]
mod jq;
#[cfg(feature = "transform")]
mod language;
#[cfg(feature = "transform")]
mod natives;
#[cfg(feature = "transform")]
mod needs;
#[cfg(feature = "transform")]
mod number;
#[cfg(feature = "transform")]
mod order;
#[cfg(feature = "transform")]
mod parts;
#[cfg(feature = "transform")]
mod pike;
#[cfg(feature = "transform")]
mod read;
#[cfg(feature = "transform")]
mod regexes;
#[cfg(feature = "transform")]
mod scan;
#[cfg(feature = "transform")]
mod simple;
#[cfg(feature = "transform")]
mod simplify;
#[cfg(feature = "transform")]
mod times;
#[cfg(feature = "transform")]
mod value;
#[cfg(feature = "transform")]
mod write;

#[cfg(not(feature = "transform"))]
mod without;
#[cfg(not(feature = "transform"))]
use without as language;

#[doc(hidden)]
pub mod fuzzing;
#[cfg(feature = "transform")]
#[cfg(test)]
mod simple_tests;
#[cfg(test)]
#[cfg(feature = "transform")]
mod tests;

use std::fmt;
use std::sync::Arc;

/// Most bytes of a program's text.
pub const PROGRAM_BYTES_MAX: usize = 16 << 10;

/// Most bytes of a body that programs are given: what a frame of the stream protocol may hold.
pub const BODY_BYTES_MAX: usize = 1 << 20;

/// Most bytes of a body that a program may make.
pub const RESULT_BYTES_MAX: usize = 4 << 20;

/// Bytes of new messages from which those of a batch are written before the next are made.
pub const MADE_BYTES_MAX: usize = 4 << 20;

/// Most memory for programs on bodies of at most so many bytes: what a program uses, and the bodies that it
/// has made, in two copies, beside a copy of the messages that were not made anew.
pub fn memory_max(body_bytes: u64) -> u64 {
    let bodies = body_bytes.min(BODY_BYTES_MAX as u64);
    let made = 2 * (MADE_BYTES_MAX + RESULT_BYTES_MAX) as u64;
    language::memory_max(bodies).saturating_add(made).saturating_add(body_bytes)
}

/// Name of the variable that holds everything of a message but its body.
pub const MESSAGE: &str = "$message";

/// Stack that a thread needs to run programs.
#[cfg(feature = "transform")]
pub use budget::THREAD_STACK_BYTES;
/// Stack of the thread that nothing runs on without the programs.
#[cfg(not(feature = "transform"))]
pub const THREAD_STACK_BYTES: usize = 2 << 20;

/// A compiled program. Cheap to clone.
#[derive(Clone)]
pub struct Program {
    text: Arc<str>,
    compiled: Arc<language::Compiled>,
}

/// Reason why a text is no program, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoProgram {
    /// Line, counted from 1.
    pub line: usize,
    /// Character in the line, counted from 1.
    pub column: usize,
    /// What is wrong there, and what to do.
    pub what: String,
}

/// Reason why a program has no result for a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// True if the message would take more than a program may use.
    pub is_over_limit: bool,
    /// What happened. It may quote the message.
    pub what: String,
}

/// What a program gets of a message.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The body, as JSON.
    pub body: &'a [u8],
    /// Everything else, as a JSON object; only for a program that [asks](Program::wants_message) for it.
    pub message: Option<&'a [u8]>,
}

/// Runs what uses programs on a stack that is large enough for them, and waits for it.
///
/// # Errors
/// If there is no thread for it, or it panicked.
pub fn on_large_stack<T: Send>(job: impl FnOnce() -> T + Send) -> Result<T, String> {
    let thread = std::thread::Builder::new().stack_size(THREAD_STACK_BYTES);
    std::thread::scope(|scope| match thread.spawn_scoped(scope, job) {
        Ok(thread) => thread
            .join()
            .map_err(|_| "internal error: its thread has ended; please report it".to_owned()),
        Err(error) => Err(format!("no thread can be started: {error}")),
    })
}

impl Program {
    /// Compiles a program.
    ///
    /// # Errors
    /// If it is not one.
    pub fn compile(text: &str) -> Result<Program, NoProgram> {
        let compiled = Arc::new(language::compile(text)?);
        Ok(Program { text: text.into(), compiled })
    }

    /// The program's text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// True if it uses [`MESSAGE`].
    pub fn wants_message(&self) -> bool {
        self.compiled.wants_message()
    }

    /// True if the program keeps this message: its only result is neither false nor null. False also if it
    /// has no result.
    ///
    /// # Errors
    /// If the body is not JSON, or the program fails, or has several results, or reaches a limit.
    pub fn keeps(&self, input: Input<'_>) -> Result<bool, Failure> {
        self.compiled.keeps(input)
    }

    /// The body that the program makes of this one, as JSON; `None` if it has no result.
    ///
    /// # Errors
    /// As [`Program::keeps`].
    pub fn reshape(&self, input: Input<'_>) -> Result<Option<Vec<u8>>, Failure> {
        let mut made = Vec::with_capacity(128);
        Ok(self.reshape_into(input, &mut made)?.then_some(made))
    }

    /// As [`Program::reshape`], into a buffer that is used again for many messages. False if there is no
    /// result; what the buffer holds then means nothing.
    ///
    /// # Errors
    /// As [`Program::keeps`].
    pub fn reshape_into(&self, input: Input<'_>, out: &mut Vec<u8>) -> Result<bool, Failure> {
        self.compiled.reshape(input, out)
    }
}

impl NoProgram {
    /// An error at this byte of the program's text.
    #[cfg_attr(not(feature = "transform"), expect(dead_code, reason = "there are no programs"))]
    pub(self) fn at(text: &str, byte: usize, what: impl Into<String>) -> NoProgram {
        let before = text.get(..byte).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        NoProgram { line, column, what: what.into() }
    }
}

impl fmt::Display for NoProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {} of the program: {}", self.line, self.column, self.what)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl PartialEq for Program {
    fn eq(&self, other: &Program) -> bool {
        self.text == other.text
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Program({:?})", self.text)
    }
}
