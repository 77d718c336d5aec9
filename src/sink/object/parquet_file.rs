//! A Parquet file in memory.
//!
//! All columns of a row group are written in parallel, each into its own buffer. So rows need not
//! wait in memory until there are enough of them: everything is held encoded and compressed, except
//! one page per column. At the end of a row group its columns are concatenated.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use parquet::column::page::{CompressedPage, PageWriteSpec, PageWriter};
use parquet::column::writer::{ColumnWriter, get_column_writer};
use parquet::data_type::ByteArray;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterPropertiesPtr;
use parquet::file::writer::{SerializedFileWriter, SerializedPageWriter, TrackedWrite};
use parquet::schema::types::SchemaDescriptor;

use super::kept::Kept;
use super::layout::ParquetLayout;
use super::rows::{Cells, Rows};
use crate::sync::lock;

/// Limits of a row group. Readers load one at a time, and distribute them.
const GROUP_ROWS_MAX: usize = 1 << 20;
const GROUP_BYTES_MAX: u64 = 128 << 20;

/// A file in memory.
pub(super) struct ParquetFile {
    file: SerializedFileWriter<Vec<u8>>,
    schema: SchemaDescriptor,
    properties: WriterPropertiesPtr,
    group: Option<Group>,
    /// Bytes of the finished groups.
    finished_bytes: usize,
    /// The values that a column's writer is given next.
    values: Vec<ByteArray>,
}

struct Group {
    columns: Vec<OpenColumn>,
    rows: usize,
    raw_bytes: u64,
    /// Bytes at the last written page, and bytes added since.
    paged_bytes: usize,
    pending_bytes: u64,
}

struct OpenColumn {
    writer: ColumnWriter<'static>,
    pages: Pages,
    kept: Kept,
}

impl ParquetFile {
    pub(super) fn new(layout: &ParquetLayout) -> Result<ParquetFile> {
        let (schema, properties) = (layout.schema.clone(), layout.properties.clone());
        Ok(ParquetFile {
            schema: SchemaDescriptor::new(schema.clone()),
            file: SerializedFileWriter::new(Vec::new(), schema, properties.clone())?,
            properties,
            group: None,
            finished_bytes: 0,
            values: Vec::new(),
        })
    }

    pub(super) fn append(&mut self, rows: &mut Rows) -> Result<()> {
        let (schema, properties) = (&self.schema, &self.properties);
        let group = self.group.get_or_insert_with(|| Group::new(schema, properties));
        for (column, cells) in group.columns.iter_mut().zip(&mut rows.cells) {
            column.write(cells, rows.count, &mut self.values)?;
        }
        group.rows += rows.count;
        group.raw_bytes += rows.bytes;
        group.pending_bytes += rows.bytes;
        let paged_bytes = group.columns.iter().map(|column| column.pages.bytes()).sum();
        if paged_bytes != group.paged_bytes {
            group.paged_bytes = paged_bytes;
            group.pending_bytes = 0;
        }
        if group.rows >= GROUP_ROWS_MAX || group.raw_bytes >= GROUP_BYTES_MAX {
            self.end_group()?;
        }
        Ok(())
    }

    /// Approximate size of the file if it ended here. Values that wait for a full page count
    /// uncompressed.
    pub(super) fn bytes(&self) -> u64 {
        let open = self.group.as_ref().map_or(0, |g| g.paged_bytes as u64 + g.pending_bytes);
        self.finished_bytes as u64 + open
    }

    pub(super) fn finish(mut self, facts: Vec<(&'static str, String)>) -> Result<Bytes> {
        self.end_group()?;
        for (key, value) in facts {
            self.file.append_key_value_metadata(KeyValue::new(key.to_owned(), value));
        }
        self.file.into_inner().map(Bytes::from)
    }

    fn end_group(&mut self) -> Result<()> {
        let Some(group) = self.group.take() else { return Ok(()) };
        let mut to = self.file.next_row_group()?;
        for OpenColumn { writer, pages, .. } in group.columns {
            let closed = writer.close()?;
            to.append_column(&pages.into_bytes()?, closed)?;
        }
        to.close()?;
        self.finished_bytes = self.file.bytes_written();
        Ok(())
    }
}

impl Group {
    fn new(schema: &SchemaDescriptor, properties: &WriterPropertiesPtr) -> Group {
        let columns = schema.columns().iter().map(|column| {
            let pages = Pages::default();
            let writer =
                get_column_writer(column.clone(), properties.clone(), Box::new(pages.clone()));
            let kept = Kept::new(column.path(), properties);
            OpenColumn { writer, pages, kept }
        });
        let columns = columns.collect();
        Group { columns, rows: 0, raw_bytes: 0, paged_bytes: 0, pending_bytes: 0 }
    }
}

impl OpenColumn {
    fn write(
        &mut self,
        cells: &mut Cells,
        count: usize,
        scratch: &mut Vec<ByteArray>,
    ) -> Result<()> {
        fn some(levels: &[i16]) -> Option<&[i16]> {
            (!levels.is_empty()).then_some(levels)
        }
        /// The levels of the first values, of which there is at least one.
        fn of(values: usize, levels: &[i16]) -> &[i16] {
            let ones = levels.iter().enumerate().filter(|(_, level)| **level == 1);
            let last = ones.map(|(at, _)| at).nth(values - 1);
            last.map_or(levels, |last| &levels[..=last])
        }
        scratch.clear();
        match (&mut self.writer, cells) {
            (ColumnWriter::ByteArrayColumnWriter(writer), Cells::Same(value)) => {
                scratch.resize(count, value.clone());
                writer.write_batch(scratch, None, None)?;
            }
            (
                ColumnWriter::ByteArrayColumnWriter(writer),
                Cells::Bytes { buffer, ends, levels },
            ) if !self.kept.is_needed() => {
                let all = buffer.split().freeze();
                let mut start = 0;
                scratch.extend(ends.iter().map(|end| {
                    let value = all.slice(start..*end);
                    start = *end;
                    ByteArray::from(value)
                }));
                writer.write_batch(scratch, some(levels), None)?;
            }
            (
                ColumnWriter::ByteArrayColumnWriter(writer),
                Cells::Bytes { buffer, ends, levels },
            ) => {
                let (mut start, mut ends, mut levels) = (0, ends.as_slice(), levels.as_slice());
                loop {
                    let (now, later) = ends.split_at(Kept::at_once(start, ends));
                    let levels_now = if later.is_empty() { levels } else { of(now.len(), levels) };
                    self.kept.append(buffer, start, now, scratch);
                    writer.write_batch(scratch, some(levels_now), None)?;
                    scratch.clear();
                    self.kept.written(self.pages.bytes() > 0);
                    let Some(end) = now.last().filter(|_| !later.is_empty()) else { break };
                    (start, ends, levels) = (*end, later, &levels[levels_now.len()..]);
                }
            }
            (ColumnWriter::Int64ColumnWriter(writer), Cells::Integers { values, levels }) => {
                writer.write_batch(values, some(levels), None)?;
            }
            (ColumnWriter::DoubleColumnWriter(writer), Cells::Floats { values, levels }) => {
                writer.write_batch(values, some(levels), None)?;
            }
            (ColumnWriter::BoolColumnWriter(writer), Cells::Booleans { values, levels }) => {
                writer.write_batch(values, some(levels), None)?;
            }
            _ => {
                return Err(ParquetError::General(
                    "a column received values of another type".to_owned(),
                ));
            }
        }
        scratch.clear();
        Ok(())
    }
}

/// The pages of one column, in memory.
#[derive(Clone)]
struct Pages(Arc<Mutex<TrackedWrite<Vec<u8>>>>);

impl Default for Pages {
    fn default() -> Self {
        Pages(Arc::new(Mutex::new(TrackedWrite::new(Vec::new()))))
    }
}

impl Pages {
    fn bytes(&self) -> usize {
        lock(&self.0).bytes_written()
    }

    fn into_bytes(self) -> Result<Bytes> {
        let pages = Arc::into_inner(self.0)
            .ok_or_else(|| ParquetError::General("a column is still being written".to_owned()))?;
        let pages = pages.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(Bytes::from(pages.into_inner()?))
    }
}

impl PageWriter for Pages {
    fn write_page(&mut self, page: CompressedPage) -> Result<PageWriteSpec> {
        let mut pages = lock(&self.0);
        SerializedPageWriter::new(&mut pages).write_page(page)
    }

    fn close(&mut self) -> Result<()> {
        Ok(())
    }
}
