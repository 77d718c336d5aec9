//! Values by column, in the form that Parquet's column writers need.
//!
//! Texts and bytes of a column are in one buffer, which is reused for the next batch. A null has no
//! value, only a level.

use bytes::BytesMut;
use parquet::data_type::ByteArray;

use super::layout::{Body, ParquetLayout};
use crate::sink::columns::{Columns, Value};
use crate::sink::{BadReason, BadRecord};
use crate::types::column::ColumnType;
use crate::wire::amqp::single_data;
use crate::wire::block::Record;

/// Rows of one object.
pub(super) struct Rows {
    pub(super) cells: Vec<Cells>,
    pub(super) count: usize,
    /// Approximate bytes of the rows before encoding.
    pub(super) bytes: u64,
}

/// Cells of a column. `levels` holds 1 for a value and 0 for a null; it is empty if the column
/// cannot be null.
pub(super) enum Cells {
    /// The same value in every row.
    Same(ByteArray),
    Bytes {
        buffer: BytesMut,
        ends: Vec<usize>,
        levels: Vec<i16>,
    },
    Integers {
        values: Vec<i64>,
        levels: Vec<i16>,
    },
    Floats {
        values: Vec<f64>,
        levels: Vec<i16>,
    },
    Booleans {
        values: Vec<bool>,
        levels: Vec<i16>,
    },
}

impl Rows {
    pub(super) fn new(columns: &Columns, stream: &str) -> Rows {
        let cells = columns.names_and_types().enumerate().map(|(nth, (_, kind))| match kind {
            _ if nth == 0 => Cells::Same(ByteArray::from(stream)),
            ColumnType::Integer | ColumnType::Timestamp => {
                Cells::Integers { values: Vec::new(), levels: Vec::new() }
            }
            ColumnType::Float => Cells::Floats { values: Vec::new(), levels: Vec::new() },
            ColumnType::Boolean => Cells::Booleans { values: Vec::new(), levels: Vec::new() },
            ColumnType::Text | ColumnType::Json | ColumnType::Numeric | ColumnType::Bytes => {
                Cells::Bytes { buffer: BytesMut::new(), ends: Vec::new(), levels: Vec::new() }
            }
        });
        Rows { cells: cells.collect(), count: 0, bytes: 0 }
    }

    pub(super) fn clear(&mut self) {
        self.count = 0;
        self.bytes = 0;
        for cells in &mut self.cells {
            match cells {
                Cells::Same(_) => {}
                Cells::Bytes { buffer, ends, levels } => {
                    buffer.clear();
                    ends.clear();
                    levels.clear();
                }
                Cells::Integers { values, levels } => {
                    values.clear();
                    levels.clear();
                }
                Cells::Floats { values, levels } => {
                    values.clear();
                    levels.clear();
                }
                Cells::Booleans { values, levels } => {
                    values.clear();
                    levels.clear();
                }
            }
        }
    }

    /// Adds a row. After an error only [`Rows::clear`] may be called.
    #[inline]
    pub(super) fn push<'a>(
        &mut self,
        layout: &'a ParquetLayout,
        record: Record<'a>,
        row: &mut Vec<Value<'a>>,
    ) -> Result<(), BadRecord> {
        if let Some(body) = layout.body
            && let Some(bytes) = single_data(record.message)
            && self.push_data(body, record, bytes)
        {
            return Ok(());
        }
        layout.columns.read(record, row)?;
        for (nth, (cells, value)) in self.cells.iter_mut().zip(row.drain(..)).enumerate() {
            self.bytes += cells.push(value, nth >= 3).map_err(|detail| BadRecord {
                about: None,
                offset: record.offset,
                reason: BadReason::Refused,
                detail: format!("{detail} (in column {})", nth + 1),
            })?;
        }
        self.count += 1;
        Ok(())
    }

    /// Adds a message that consists of its body only, the most common case. Returns `false` if it
    /// needs the general path, even if only for its error.
    #[inline]
    fn push_data(&mut self, body: Body, record: Record<'_>, bytes: &[u8]) -> bool {
        let [
            _,
            Cells::Integers { values: offsets, .. },
            Cells::Integers { values: times, .. },
            Cells::Bytes { levels: ids, .. },
            Cells::Bytes { levels: subjects, .. },
            Cells::Bytes { levels: properties, .. },
            Cells::Bytes { buffer, ends, levels },
        ] = self.cells.as_mut_slice()
        else {
            return false;
        };
        let (Ok(offset), Some(time)) =
            (i64::try_from(record.offset.0), record.timestamp.0.checked_mul(1000))
        else {
            return false;
        };
        if body.is_text && std::str::from_utf8(bytes).is_err() {
            return false;
        }
        offsets.push(offset);
        times.push(time);
        ids.push(0);
        subjects.push(0);
        properties.push(0);
        buffer.extend_from_slice(bytes);
        ends.push(buffer.len());
        levels.push(1);
        self.count += 1;
        self.bytes += bytes.len() as u64 + 20;
        true
    }
}

impl Cells {
    /// Adds a value, and returns its bytes.
    fn push(&mut self, value: Value<'_>, nullable: bool) -> Result<u64, String> {
        let level = |levels: &mut Vec<i16>, level| {
            if nullable {
                levels.push(level);
            }
        };
        if matches!(value, Value::Null) {
            match self {
                Cells::Same(_) => {}
                _ if !nullable => return Err("there is no value".to_owned()),
                Cells::Bytes { levels, .. }
                | Cells::Integers { levels, .. }
                | Cells::Floats { levels, .. }
                | Cells::Booleans { levels, .. } => levels.push(0),
            }
            return Ok(1);
        }
        match (self, &value) {
            (Cells::Same(_), _) => Ok(0),
            (Cells::Bytes { buffer, ends, levels }, value) => {
                let bytes: &[u8] = match value {
                    Value::Text(text) | Value::Numeric(text) | Value::Json(text) => text.as_bytes(),
                    Value::Bytes(bytes) => bytes,
                    other => return Err(format!("{other:?} is neither text nor bytes")),
                };
                buffer.extend_from_slice(bytes);
                ends.push(buffer.len());
                level(levels, 1);
                Ok(bytes.len() as u64 + 4)
            }
            (
                Cells::Integers { values, levels },
                Value::Integer(number) | Value::Timestamp(number),
            ) => {
                values.push(*number);
                level(levels, 1);
                Ok(8)
            }
            (Cells::Floats { values, levels }, Value::Float(number)) => {
                values.push(*number);
                level(levels, 1);
                Ok(8)
            }
            (Cells::Booleans { values, levels }, Value::Boolean(truth)) => {
                values.push(*truth);
                level(levels, 1);
                Ok(1)
            }
            (_, _) => Err("a value of another type".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::layout::{Format, Layout, ParquetColumns};
    use super::*;
    use crate::sink::conformance::message;
    use crate::types::column::{Column, OnMisfit};
    use crate::types::{Offset, StreamName, Timestamp};

    const ROWS: u64 = 1_000;

    /// An array of this many nulls in the application properties, and a body.
    fn nulls(count: u32) -> Vec<u8> {
        let array = [&[0xf0][..], &5u32.to_be_bytes(), &count.to_be_bytes(), &[0x40]].concat();
        let map = [&[0x00, 0x53, 0x74, 0xc1, 14, 2, 0xa1, 1, b'n'][..], &array].concat();
        [&map[..], &[0x00, 0x53, 0x75, 0xa0, 1, b'x']].concat()
    }

    /// A message id of one letter, and no body.
    fn only_an_id() -> Vec<u8> {
        vec![0x00, 0x53, 0x73, 0xc0, 4, 1, 0xa1, 1, b'a']
    }

    /// What the cells hold: values, references into the buffer, and levels.
    fn held(rows: &Rows) -> u64 {
        let sizes = rows.cells.iter().map(|cells| match cells {
            Cells::Same(_) => 0,
            Cells::Bytes { buffer, ends, levels } => {
                buffer.len() + 8 * ends.len() + 2 * levels.len()
            }
            Cells::Integers { values, levels } => 8 * values.len() + 2 * levels.len(),
            Cells::Floats { values, levels } => 8 * values.len() + 2 * levels.len(),
            Cells::Booleans { values, levels } => values.len() + 2 * levels.len(),
        });
        sizes.sum::<usize>() as u64
    }

    /// A batch is decoded in pieces by what its rows count: whatever the records are, that is no less
    /// than a third of what they hold, so that a piece stays within the sink's bound.
    #[test]
    fn a_row_counts_for_what_it_holds() {
        let stream = StreamName::from("s");
        let nowhere: Vec<Column> = (0..50)
            .map(|nth| Column {
                name: format!("c{nth}"),
                from: "/nowhere".parse().unwrap(),
                kind: ColumnType::Text,
                required: false,
                on_misfit: OnMisfit::Null,
            })
            .collect();
        let envelope = |body_is_text| ParquetColumns::Envelope { body_is_text };
        for columns in [envelope(true), envelope(false), ParquetColumns::Named(nowhere)] {
            let format = Format::Parquet { zstd_level: None, columns };
            let Layout::Parquet(layout) = Layout::new(&format, &stream).unwrap() else { panic!() };
            for bytes in [
                message(b"{}"),
                message(&[b'x'; 5_000]),
                message(&[0xff; 100]),
                nulls(1),
                nulls(4_000),
                only_an_id(),
                vec![0x00, 0x53, 0x77, 0x54, 5],
            ] {
                let mut rows = Rows::new(&layout.columns, "s");
                for offset in 0..ROWS {
                    let (offset, timestamp) = (Offset(offset), Timestamp(1_700_000_000_000));
                    let record = Record { offset, timestamp, message: &bytes };
                    // A body that is no JSON has no row in typed columns.
                    if rows.push(&layout, record, &mut Vec::new()).is_err() {
                        rows.clear();
                        break;
                    }
                }
                let (held, counted) = (held(&rows), rows.bytes);
                assert!(held <= 3 * counted, "{bytes:?}: {held} bytes, and {counted} count");
                assert!(counted <= 3 * held, "{bytes:?}: {held} bytes, and {counted} count");
            }
        }
    }
}
