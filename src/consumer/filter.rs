//! The consumer's own filter, message by message. The broker's filter selects whole chunks, and some that
//! hold nothing of what is wanted: it is made of bits that several values share.
//!
//! It is applied after messages are numbered, and before the sink, to batches. A batch keeps covering the
//! offsets of what is left out, so the position moves past them with everything else.

use std::collections::HashSet;

use crate::flow::batch::Batch;
use crate::sink::columns::{Columns, Value};
use crate::sink::{BAD_RECORDS_MAX, BadRecord, discreet};
use crate::types::column::{Column, ColumnType, OnMisfit, Source};
use crate::types::{Offset, StreamName};

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

/// Result of looking through a batch.
#[derive(Debug, Default)]
pub(super) struct Sifted {
    /// Messages that are not wanted.
    pub(super) unwanted: Vec<Offset>,
    /// Messages whose value cannot be read, in order.
    pub(super) bad: Vec<BadRecord>,
    /// True if the whole batch was looked through; false if there are too many bad ones.
    pub(super) is_complete: bool,
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

    /// Looks through the messages of a batch.
    pub(super) fn sift(&self, batch: &Batch) -> Sifted {
        let mut sifted = Sifted::default();
        let mut row = Vec::with_capacity(1);
        for record in batch.records() {
            if sifted.bad.len() >= BAD_RECORDS_MAX {
                return sifted;
            }
            let is_wanted = match self.columns.read(record, &mut row) {
                Err(bad) => {
                    sifted.bad.push(if self.show_values { bad } else { discreet::hide(bad) });
                    continue;
                }
                Ok(()) => match row.first() {
                    Some(Value::Text(text)) => self.values.contains(text.as_ref()),
                    _ => self.match_unfiltered,
                },
            };
            if !is_wanted {
                sifted.unwanted.push(record.offset);
            }
        }
        sifted.is_complete = true;
        sifted
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
        let sifted = filter.sift(&batch);
        assert!(sifted.is_complete);
        let bad = sifted.bad.iter().map(|bad| bad.offset.0).collect();
        (sifted.unwanted.iter().map(|offset| offset.0).collect(), bad)
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
            let bad = filter.sift(&batch).bad;
            assert!(bad.iter().all(|b| b.detail.contains("column \"filter.by\": ")), "{bad:?}");
            assert_eq!(bad[0].detail.contains("secret"), shows, "{bad:?}");
        }
    }

    #[test]
    fn it_stops_at_as_many_bad_messages_as_a_report_may_have() {
        let bodies = vec!["no JSON"; BAD_RECORDS_MAX + 1];
        let sifted = filter("/region", &["eu"], false).sift(&batch_of(0, &bodies));
        assert_eq!((sifted.bad.len(), sifted.is_complete), (BAD_RECORDS_MAX, false));
    }
}
