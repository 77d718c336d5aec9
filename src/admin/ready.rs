//! `/readyz`: does every consumer work normally?
//!
//! `?exclude=halted` leaves out the consumers in a state (several by commas, or by several `exclude`, as the
//! Kubernetes API server's own `/readyz` takes them). A rolling update waits until the new process is ready. A
//! halted consumer waits for an operator in the new process as it did in the old one, so it must not stop the
//! update, which may well bring the remedy.

use serde_json::{Value, json};

use super::overview::ConsumerView;
use crate::telemetry::State;
use crate::telemetry::labels::Label;

/// The parameter. Others mean nothing, as on every route.
const EXCLUDE: &str = "exclude";

/// True if all that count are ready, and the answer's body; `query` is what follows `?` in the request. The error
/// is a sentence about the query.
pub(super) fn ready(
    consumers: &[ConsumerView],
    query: Option<&str>,
) -> Result<(bool, Value), String> {
    let excluded = excluded(query.unwrap_or_default())?;
    let all = consumers.iter().all(|c| c.ready || excluded.contains(&c.state));
    let each: Vec<_> = consumers
        .iter()
        .map(|c| {
            json!({
                "name": c.name, "stream": c.stream, "state": c.state,
                "ready": c.ready, "ready_age_seconds": c.ready_age_seconds, "reason": c.reason,
            })
        })
        .collect();
    Ok((all, json!({ "ready": all, "consumers": each })))
}

/// The states to leave out. The error is a sentence.
fn excluded(query: &str) -> Result<Vec<State>, String> {
    let mut states = Vec::new();
    for part in query.split('&') {
        let (name, values) = part.split_once('=').unwrap_or((part, ""));
        for value in values.split(',').filter(|_| name == EXCLUDE) {
            let known = State::ALL.iter().find(|state| state.label() == value);
            states.push(*known.ok_or_else(|| unknown(value))?);
        }
    }
    Ok(states)
}

fn unknown(value: &str) -> String {
    let states: Vec<_> = State::ALL.iter().map(|state| state.label()).collect();
    format!("{value:?} is not a state of a consumer; the states are {}", states.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_that_do_not_count() {
        use State::{Backoff, Halted, Paused};
        for (query, states) in [
            ("", vec![]),
            ("exclude=halted", vec![Halted]),
            ("exclude=halted,paused", vec![Halted, Paused]),
            ("exclude=halted&exclude=backoff&verbose", vec![Halted, Backoff]),
        ] {
            assert_eq!(excluded(query), Ok(states), "{query}");
        }
        for (query, named) in [
            ("exclude=", "\"\" is not a state"),
            ("exclude=halt", "\"halt\" is not a state of a consumer; the states are "),
            ("exclude=Halted", "\"Halted\""),
            ("verbose=1&exclude", "\"\" is not a state"),
        ] {
            let error = excluded(query).unwrap_err();
            assert!(error.contains(named), "{query}: {error}");
        }
    }
}
