//! What tests of several sinks expect of a result.

use super::{BadRecord, SinkError};

/// The reason of a fatal error.
pub(super) fn fatal<T>(result: Result<T, SinkError>) -> String {
    match result {
        Err(SinkError::Fatal(why)) => why,
        Err(other) => panic!("not fatal: {other:?}"),
        Ok(_) => panic!("it worked"),
    }
}

/// The reason of an error that may pass.
pub(super) fn transient<T>(result: Result<T, SinkError>) -> String {
    match result {
        Err(SinkError::Transient { what, .. }) => what,
        Err(other) => panic!("not transient: {other:?}"),
        Ok(_) => panic!("it worked"),
    }
}

/// The bad records of a batch.
pub(super) fn poison<T>(result: Result<T, SinkError>) -> Vec<BadRecord> {
    match result {
        Err(SinkError::Poison(bad)) => bad,
        Err(other) => panic!("not poison: {other:?}"),
        Ok(_) => panic!("it worked"),
    }
}
