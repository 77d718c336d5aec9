//! The consumer's own filter, message by message. The broker's filter selects whole chunks, and some that
//! hold nothing of what is wanted: it is made of bits that several values share.
//!
//! It is applied after messages are numbered, and before the sink, to batches. A batch keeps covering the
//! offsets of what is left out, so the position moves past them with everything else.

use std::collections::HashSet;

use crate::sink::columns::{Columns, Value};
use crate::sink::{BadRecord, discreet};
use crate::types::StreamName;
use crate::types::column::{Column, ColumnType, OnMisfit, Source};
use crate::wire::block::Record;

/// Name of the value in the report of a bad message.
const NAME: &str = "filter.by";

/// The messages wanted.
#[derive(Clone, Debug)]
pub struct Filter {
    /// The part that holds the value.
    columns: Columns,
    values: HashSet<String>,
    match_unfiltered: bool,
    /// True if the report of a bad message may quote its value.
    show_values: bool,
}

impl Filter {
    /// Messages of this stream with one of the values at `by`; with `match_unfiltered`, also those with
    /// none.
    pub(super) fn new(
        stream: &StreamName,
        by: Source,
        values: &[String],
        match_unfiltered: bool,
        show_values: bool,
    ) -> Filter {
        let column = Column {
            name: NAME.to_owned(),
            from: by,
            kind: ColumnType::Text,
            required: false,
            on_misfit: OnMisfit::BadMessage,
        };
        let columns = Columns::only(stream.clone(), vec![column]);
        Filter { columns, values: values.iter().cloned().collect(), match_unfiltered, show_values }
    }

    /// True if this message is wanted.
    ///
    /// # Errors
    /// If its value cannot be read.
    pub(super) fn wants(&self, record: Record<'_>) -> Result<bool, BadRecord> {
        let mut row = Vec::with_capacity(1);
        match self.columns.read(record, &mut row) {
            Err(bad) => Err(if self.show_values { bad } else { discreet::hide(bad) }),
            Ok(()) => Ok(match row.first() {
                Some(Value::Text(text)) => self.values.contains(text.as_ref()),
                _ => self.match_unfiltered,
            }),
        }
    }
}

#[cfg(test)]
pub(super) mod testing {
    use super::Filter;
    use crate::sink::conformance::STREAM;

    /// A filter of these values of this part.
    pub(in crate::consumer) fn filter(by: &str, values: &[&str], match_unfiltered: bool) -> Filter {
        let values: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
        Filter::new(&STREAM.into(), by.parse().unwrap(), &values, match_unfiltered, true)
    }
}

#[cfg(test)]
mod tests {
    use super::testing::filter;
    use super::*;
    use crate::sink::conformance::batch_of;

    fn sift(filter: &Filter, bodies: &[&str]) -> (Vec<u64>, Vec<u64>) {
        let batch = batch_of(0, bodies);
        let (mut unwanted, mut bad) = (Vec::new(), Vec::new());
        for record in batch.records() {
            match filter.wants(record) {
                Ok(true) => {}
                Ok(false) => unwanted.push(record.offset.0),
                Err(_) => bad.push(record.offset.0),
            }
        }
        (unwanted, bad)
    }

    #[test]
    fn values_are_compared_as_text_and_a_missing_one_is_none() {
        let bodies = [
            "{\"region\":\"eu\"}",
            "{\"region\":\"us\"}",
            "{\"region\":null}",
            "{}",
            "{\"region\":7}",
            "{\"region\":true}",
            "{\"region\":{}}",
            "no JSON",
        ];
        let eu = filter("/region", &["eu", "7"], false);
        assert_eq!(sift(&eu, &bodies), (vec![1, 2, 3, 5], vec![6, 7]));
        let or_none = filter("/region", &["true"], true);
        assert_eq!(sift(&or_none, &bodies), (vec![0, 1, 4], vec![6, 7]));
    }

    #[test]
    fn a_report_names_the_key_and_quotes_no_value_where_that_is_forbidden() {
        let mut hidden = filter("/region", &["eu"], false);
        hidden.show_values = false;
        let batch = batch_of(0, &["{\"region\":\"\\ud800 secret\"}", "no JSON"]);
        for (filter, shows) in [(filter("/region", &["eu"], false), true), (hidden, false)] {
            let bad: Vec<_> = batch.records().filter_map(|r| filter.wants(r).err()).collect();
            assert!(bad.iter().all(|b| b.detail.contains("column \"filter.by\": ")), "{bad:?}");
            assert_eq!(bad[0].detail.contains("secret"), shows, "{bad:?}");
        }
    }
}
