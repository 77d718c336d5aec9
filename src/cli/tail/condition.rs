//! A condition on a message: one of its parts is a value, is not, or contains a text.

use std::str::FromStr;

use crate::sink::columns::{Columns, Value};
use crate::types::StreamName;
use crate::types::column::{Column, ColumnType, OnMisfit, Source};
use crate::wire::block::Record;

/// A condition, as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    part: Source,
    operator: Operator,
    value: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Is,
    IsNot,
    Contains,
}

impl FromStr for Condition {
    type Err = String;

    fn from_str(text: &str) -> Result<Condition, String> {
        let Some(at) = text.find(['=', '~']) else {
            return Err(format!(
                "{text:?} has no operator: expected PART=VALUE, PART!=VALUE or PART~TEXT, as in \
                 /user/id=7 or body~error"
            ));
        };
        let (part, rest) = text.split_at(at);
        let (operator, part) = match (rest.starts_with('~'), part.strip_suffix('!')) {
            (true, _) => (Operator::Contains, part),
            (false, Some(part)) => (Operator::IsNot, part),
            (false, None) => (Operator::Is, part),
        };
        let part: Source = part.parse().map_err(|error| format!("{error}"))?;
        Ok(Condition { part, operator, value: rest.get(1..).unwrap_or_default().to_owned() })
    }
}

/// The conditions on the messages of a stream, which have to be true together.
pub(super) struct Conditions(Vec<(Columns, Operator, String)>);

impl Conditions {
    /// These conditions for this stream.
    pub(super) fn new(stream: &StreamName, conditions: &[Condition]) -> Conditions {
        let compiled = conditions.iter().map(|condition| {
            let column = Column {
                name: "filter".to_owned(),
                from: condition.part.clone(),
                kind: ColumnType::Text,
                required: false,
                on_misfit: OnMisfit::BadMessage,
            };
            // One each: a part that cannot be read says nothing of the others.
            let columns = Columns::only(stream.clone(), vec![column]);
            (columns, condition.operator, condition.value.clone())
        });
        Conditions(compiled.collect())
    }

    /// True if all of them are.
    pub(super) fn are_met(&self, record: Record<'_>) -> bool {
        self.0.iter().all(|(columns, operator, value)| {
            let mut row = Vec::new();
            // A part that is missing, or is no text, is no value at all.
            let part = match columns.read(record, &mut row) {
                Ok(()) => row.first(),
                Err(_) => None,
            };
            let text = match part {
                Some(Value::Text(text)) => Some(text.as_ref()),
                _ => None,
            };
            match operator {
                Operator::Is => text == Some(value),
                Operator::IsNot => text != Some(value),
                Operator::Contains => text.is_some_and(|text| text.contains(value)),
            }
        })
    }
}

/// Fuzz target: a condition that is read is asked of a message.
pub(in crate::cli) fn fuzz_condition(text: &str) {
    let Ok(condition) = text.parse::<Condition>() else { return };
    let message = crate::wire::amqp::carrying(&[], br#"{"a":[1,"x",null]}"#);
    let (offset, timestamp) = (crate::types::Offset(7), crate::types::Timestamp(1));
    let record = Record { offset, timestamp, message: &message };
    Conditions::new(&"s".into(), &[condition]).are_met(record);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::conformance::batch_of;

    #[test]
    fn parts_are_compared_as_text() {
        let bodies = ["{\"a\":1,\"b\":{\"c\":\"x=y\"}}", "{\"a\":\"1\"}", "{\"a\":[1]}", "error 5"];
        let batch = batch_of(0, &bodies);
        for (conditions, met) in [
            (&["/a=1"][..], &[0, 1][..]),
            (&["/a!=1"], &[2, 3]),
            (&["/b/c=x=y"], &[0]),
            (&["/b/c~="], &[0]),
            (&["body~error"], &[3]),
            (&["body=error 5"], &[3]),
            (&["body~a", "/a=1"], &[0, 1]),
            (&["/a=1", "/b/c!=x=y"], &[1]),
            (&["properties.subject!="], &[0, 1, 2, 3]),
            (&[], &[0, 1, 2, 3]),
        ] {
            let parsed: Vec<Condition> = conditions.iter().map(|c| c.parse().unwrap()).collect();
            let conditions_of = Conditions::new(&"s".into(), &parsed);
            let found: Vec<u64> = batch
                .records()
                .filter(|record| conditions_of.are_met(*record))
                .map(|record| record.offset.0)
                .collect();
            assert_eq!(found, met, "{conditions:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, says) in
            [("error", "no operator"), ("region=eu", "\"region\""), ("property.x=1", "property")]
        {
            let error = text.parse::<Condition>().unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
