//! Programs that need no interpreter: those that only look at parts of a message, compare them, and put them
//! together. Most programs of `where` are such ones.
//!
//! They are compiled from the syntax tree that the interpreter's own parser makes ([`simplify`](super::simplify)),
//! and what they read is known before a message comes, so of the body only that is built
//! ([`parts`](super::parts)). Invariants:
//! - a result is the one that the interpreter would have;
//! - what would be an error is left to the interpreter, so that there is one place that makes errors, and so
//!   is everything that is over a limit;
//! - each term has one result or none: a program with a term that may have several is not a simple one.

use jaq_core::ops::{Cmp, Math};

use super::parts::{Parts, Place, Step};

/// A simple program.
pub(super) struct Simple {
    pub(super) expr: Expr,
    pub(super) body: Source,
    pub(super) message: Source,
}

/// What is read of one JSON text.
#[derive(Default)]
pub(super) struct Source {
    pub(super) parts: Parts,
    pub(super) reads: Vec<Read>,
}

/// A path, and where it is found.
pub(super) struct Read {
    pub(super) place: Place,
    pub(super) path: Path,
}

/// Steps, each with whether it is no error to fail there (`?`).
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Path {
    pub(super) steps: Vec<Step>,
    pub(super) optional: Vec<bool>,
}

/// A term that has one result, or none.
pub(super) enum Expr {
    /// Stands for the body where only its truth is asked for.
    BodyIsTrue,
    /// What is on the left of `|`.
    Input,
    /// The path with this number, of the body.
    Body(usize),
    /// The path with this number, of `$message`.
    Message(usize),
    Part(Box<Expr>, Path),
    Literal(Literal),
    Compare(Box<Expr>, Cmp, Box<Expr>),
    CompareLiteral(Box<Expr>, Cmp, Literal),
    /// `or`, which is decided by true, or `and`, which is decided by false.
    Logic(Box<Expr>, bool, Box<Expr>),
    Not(Box<Expr>),
    Alternative(Box<Expr>, Box<Expr>),
    If(Box<Expr>, Box<Expr>, Box<Expr>),
    /// The second, if the first is true.
    When(Box<Expr>, Box<Expr>),
    Pipe(Box<Expr>, Box<Expr>),
    Calculate(Box<Expr>, Math, Box<Expr>),
    Negate(Box<Expr>),
    List(Vec<Expr>),
    /// Members with different keys.
    Object(Vec<Member>),
    Text(Vec<Expr>),
    /// True if one of them is equal to the first.
    In(Box<Expr>, Vec<Expr>),
    /// True if the test has the given result for one of the items.
    Any(Box<Expr>, Box<Expr>, bool),
    /// A value with changed parts.
    Update(Box<Expr>, Vec<Path>, Change),
    /// A function, its input, and its arguments.
    Call(Function, Box<Expr>, Vec<Expr>),
    Nothing,
    Error,
}

/// A member of an object.
pub(super) struct Member {
    pub(super) key: String,
    /// The key and a colon, as JSON, behind a comma if it is not the first.
    pub(super) written: Vec<u8>,
    pub(super) value: Expr,
}

/// What becomes of a part of a value.
pub(super) enum Change {
    /// The value of the term, whose input is that of the whole change (`=`).
    Set(Box<Expr>),
    /// The value of the term, whose input is the part (`|=`); nothing, if it has none.
    Map(Box<Expr>),
    /// The result with the value of the term (`+=`).
    Calculate(Math, Box<Expr>),
    /// The value of the term, if the part is null or false (`//=`).
    Default(Box<Expr>),
    Delete,
}

#[derive(Clone, Debug)]
pub(super) enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    /// All other numbers.
    Number(String),
    Text(String),
}

#[derive(Clone, Copy)]
pub(super) enum Function {
    Type,
    Length,
    ToString,
    ToJson,
    ToNumber,
    StartsWith,
    EndsWith,
    Contains,
    Has,
    Test,
    Lowercase,
    Uppercase,
}

impl Default for Path {
    /// To the whole value.
    fn default() -> Path {
        Path { steps: Vec::new(), optional: Vec::new() }
    }
}
