//! Reads the rows of a Parquet object, and makes the rows that should be in it with the sink's own code.

use std::sync::Arc;

use bytes::Bytes;
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::DataType;
use parquet::errors::{ParquetError, Result};
use parquet::file::reader::{FileReader, RowGroupReader, SerializedFileReader};

use super::layout::ParquetLayout;
use super::rows::{Cells, Rows};
use crate::sink::BadRecord;
use crate::sink::audit::cells::{ABSENT, BOOLEAN, BYTES, FLOAT, INTEGER, NULL, put, values};
use crate::sink::audit::{Contents, Entry, Found, MakesEach, Span, Stop, Turner};
use crate::types::{Offset, StreamName};
use crate::wire::block::Record;

/// Rows that are decoded at once.
const ROWS: usize = 4096;

/// Most bytes of a row whose memory is kept for another one.
const ROW_BYTES_KEPT: usize = 4 << 10;

/// Names of the columns, in the order of a row.
pub(super) fn names(layout: &ParquetLayout) -> Arc<[String]> {
    layout.columns.names_and_types().map(|(name, _)| name.to_owned()).collect()
}

/// Makes rows, one at a time: a refused one must not spoil the others.
pub(super) struct RowMaker {
    layout: ParquetLayout,
    rows: Rows,
    contents: Contents,
}

impl RowMaker {
    pub(super) fn new(layout: ParquetLayout, stream: &StreamName) -> RowMaker {
        let rows = Rows::new(&layout.columns, stream.as_str());
        RowMaker { layout, rows, contents: Contents::default() }
    }
}

impl MakesEach for RowMaker {
    fn each(
        &mut self,
        record: Record<'_>,
        into: &mut Vec<Entry>,
    ) -> std::result::Result<(), BadRecord> {
        self.rows.clear();
        self.rows.push(&self.layout, record, &mut Vec::new())?;
        write(&self.rows, self.contents.begin());
        into.push(Entry { offset: record.offset, content: self.contents.end() });
        Ok(())
    }
}

/// Writes the one row that is in these cells.
fn write(rows: &Rows, out: &mut Vec<u8>) {
    for cells in &rows.cells {
        let is_null = |levels: &[i16]| levels.first() == Some(&0);
        match cells {
            Cells::Same(value) => put(BYTES, value.data(), out),
            Cells::Bytes { levels, .. }
            | Cells::Integers { levels, .. }
            | Cells::Floats { levels, .. }
            | Cells::Booleans { levels, .. }
                if is_null(levels) =>
            {
                put(NULL, &[], out);
            }
            Cells::Bytes { buffer, .. } => put(BYTES, buffer, out),
            Cells::Integers { values, .. } => {
                let value = values.first().copied().unwrap_or_default();
                put(INTEGER, &value.to_le_bytes(), out);
            }
            Cells::Floats { values, .. } => {
                let value = values.first().copied().unwrap_or_default();
                put(FLOAT, &value.to_le_bytes(), out);
            }
            Cells::Booleans { values, .. } => {
                put(BOOLEAN, &[u8::from(values.first() == Some(&true))], out);
            }
        }
    }
}

/// Reads an object. One that cannot be read is reported with its place.
pub(super) fn read(
    place: &str,
    bytes: Bytes,
    columns: &[String],
    span: Span,
    to: &mut Turner,
) -> std::result::Result<(), Stop> {
    let mut pushed = Ok(());
    let read = each_row(bytes, columns, |row| {
        if span.holds(row.offset) {
            pushed = to.push(Found::Record(row));
        }
        pushed.is_ok()
    });
    pushed?;
    if let Err(error) = read {
        to.push(Found::Unreadable(format!("{place} cannot be read: {error}")))?;
    }
    Ok(())
}

/// Calls `found` with each row, until it returns `false`.
fn each_row(bytes: Bytes, columns: &[String], mut found: impl FnMut(Entry) -> bool) -> Result<()> {
    let reader = SerializedFileReader::new(bytes)?;
    let schema = reader.metadata().file_metadata().schema_descr_ptr();
    let places: Vec<Option<usize>> = columns
        .iter()
        .map(|name| schema.columns().iter().position(|column| column.name() == name))
        .collect();
    let mut contents = Contents::default();
    // The rows that are read together, column by column.
    let mut rows: Vec<Vec<u8>> = Vec::new();
    for group in 0..reader.num_row_groups() {
        let group = reader.get_row_group(group)?;
        let mut left = usize::try_from(group.metadata().num_rows()).unwrap_or(0);
        let mut sources = places
            .iter()
            .map(|place| place.map(|place| Column::open(&*group, place)).transpose())
            .collect::<Result<Vec<_>>>()?;
        while left > 0 {
            let count = left.min(ROWS);
            left -= count;
            rows.resize_with(count, || Vec::with_capacity(128));
            for row in &mut rows {
                match row.capacity() > ROW_BYTES_KEPT {
                    true => *row = Vec::new(),
                    false => row.clear(),
                }
            }
            for column in &mut sources {
                match column {
                    Some(column) => column.read(&mut rows)?,
                    None => rows.iter_mut().for_each(|row| put(ABSENT, &[], row)),
                }
            }
            for row in &rows {
                let offset = match values(row).nth(1) {
                    Some((INTEGER, value)) => value.first_chunk::<8>().copied(),
                    _ => None,
                };
                let Some(offset) = offset else {
                    return Err(ParquetError::General("a row has no offset".to_owned()));
                };
                let offset = Offset(i64::from_le_bytes(offset).cast_unsigned());
                if !found(Entry { offset, content: contents.copy(row) }) {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

/// A column of a row group.
struct Column {
    reader: ColumnReader,
    is_optional: bool,
}

impl Column {
    fn open(group: &dyn RowGroupReader, place: usize) -> Result<Column> {
        let is_optional = group.metadata().column(place).column_descr().max_def_level() > 0;
        Ok(Column { reader: group.get_column_reader(place)?, is_optional })
    }

    /// Adds the next value of the column to each row.
    fn read(&mut self, rows: &mut [Vec<u8>]) -> Result<()> {
        let is_optional = self.is_optional;
        match &mut self.reader {
            ColumnReader::ByteArrayColumnReader(reader) => {
                add(reader, is_optional, rows, |value, row| put(BYTES, value.data(), row))
            }
            ColumnReader::Int64ColumnReader(reader) => {
                add(reader, is_optional, rows, |value, row| put(INTEGER, &value.to_le_bytes(), row))
            }
            ColumnReader::DoubleColumnReader(reader) => {
                add(reader, is_optional, rows, |value, row| put(FLOAT, &value.to_le_bytes(), row))
            }
            ColumnReader::BoolColumnReader(reader) => {
                add(reader, is_optional, rows, |value, row| put(BOOLEAN, &[u8::from(*value)], row))
            }
            _ => Err(ParquetError::General(
                "a column of a type that the sink never writes".to_owned(),
            )),
        }
    }
}

fn add<T: DataType>(
    reader: &mut ColumnReaderImpl<T>,
    is_optional: bool,
    rows: &mut [Vec<u8>],
    write: impl Fn(&T::T, &mut Vec<u8>),
) -> Result<()> {
    let (mut levels, mut read) = (Vec::new(), Vec::new());
    let mut records = 0;
    while records < rows.len() {
        let levels = is_optional.then_some(&mut levels);
        let (more, _, _) = reader.read_records(rows.len() - records, levels, None, &mut read)?;
        if more == 0 {
            return Err(ParquetError::General("a column ends before the others".to_owned()));
        }
        records += more;
    }
    let mut values = read.iter();
    for (nth, row) in rows.iter_mut().enumerate() {
        let is_null = levels.get(nth) == Some(&0);
        match (is_null, if is_null { None } else { values.next() }) {
            (false, Some(value)) => write(value, row),
            _ => put(NULL, &[], row),
        }
    }
    Ok(())
}
