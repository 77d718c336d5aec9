//! A build without programs.

use super::{Failure, Input, NoProgram};

/// There is none.
pub(super) enum Compiled {}

pub(super) fn memory_max(_: u64) -> u64 {
    0
}

pub(super) fn compile(_: &str) -> Result<Compiled, NoProgram> {
    let what =
        "this rillway was built without `where` and `map`: build it with the feature `transform`";
    Err(NoProgram { line: 1, column: 1, what: what.to_owned() })
}

impl Compiled {
    pub(super) fn wants_message(&self) -> bool {
        match *self {}
    }

    pub(super) fn keeps(&self, _: Input<'_>) -> Result<bool, Failure> {
        match *self {}
    }

    pub(super) fn reshape(&self, _: Input<'_>, _: &mut Vec<u8>) -> Result<bool, Failure> {
        match *self {}
    }
}
