//! What the columns of an open object hold beyond what its size counts: a page, and a dictionary.
//!
//! `PAGE_FIGURES=1 cargo test --lib object::page -- --nocapture` prints the memory of a process with many open objects,
//! beyond their sizes and per column: the bound of the declaration is made of that.

use parquet::column::page::Page;
use parquet::file::reader::{FileReader, SerializedFileReader};

use super::parquet_file::ParquetFile;
use super::rows::Rows;
use super::*;
use crate::sink::conformance::message;
use crate::types::column::{Column, ColumnType, OnMisfit};
use crate::types::{Offset, StreamName, Timestamp};
use crate::wire::block::Record;

/// Bytes of the values of each column.
const WIDTHS: [usize; 10] = [1, 4, 10, 30, 60, 100, 200, 500, 1_000, 3_000];

fn layout() -> Layout {
    let column = |nth: usize| Column {
        name: format!("c{nth}"),
        from: format!("/c{nth}").parse().unwrap(),
        kind: ColumnType::Text,
        required: false,
        on_misfit: OnMisfit::Null,
    };
    let columns = ParquetColumns::Named((0..WIDTHS.len()).map(column).collect());
    Layout::new(&Format::Parquet { zstd_level: Some(1), columns }, &StreamName::from("s")).unwrap()
}

/// Appends rows in pieces of so many. Every other column has few values.
fn fill(file: &mut ParquetFile, rows: &mut Rows, layout: &Layout, (count, piece): (u64, u64)) {
    let Layout::Parquet(layout) = layout else { panic!() };
    for at in 0..count {
        let value = |(nth, width): (usize, &usize)| {
            let number = if nth % 2 == 0 { at } else { at % 40 };
            (format!("c{nth}"), serde_json::json!(format!("{number:0width$}")))
        };
        let body: serde_json::Map<_, _> = WIDTHS.iter().enumerate().map(value).collect();
        let body = message(serde_json::Value::Object(body).to_string().as_bytes());
        let (offset, timestamp) = (Offset(at), Timestamp(1_700_000_000_000));
        rows.push(layout, Record { offset, timestamp, message: &body }, &mut Vec::new()).unwrap();
        if (at + 1) % piece == 0 || at + 1 == count {
            file.append(rows).unwrap();
            rows.clear();
        }
    }
}

/// The largest page, the largest dictionary in bytes, and the most values of a page.
fn largest(layout: &Layout, counts: (u64, u64)) -> (usize, usize, u32) {
    let Layout::Parquet(parquet) = layout else { panic!() };
    let mut file = ParquetFile::new(parquet).unwrap();
    fill(&mut file, &mut Rows::new(&parquet.columns, "s"), layout, counts);
    let reader = SerializedFileReader::new(file.finish(Vec::new()).unwrap()).unwrap();
    let (mut page_bytes, mut dictionary_bytes, mut values) = (0, 0, 0);
    let group = reader.get_row_group(0).unwrap();
    for column in 0..group.num_columns() {
        for page in group.get_column_page_reader(column).unwrap() {
            match page.unwrap() {
                Page::DictionaryPage { buf, .. } => {
                    dictionary_bytes = buf.len().max(dictionary_bytes)
                }
                page => {
                    page_bytes = page.buffer().len().max(page_bytes);
                    values = page.num_values().max(values);
                }
            }
        }
    }
    (page_bytes, dictionary_bytes, values)
}

#[test]
fn pages_and_dictionaries_are_smaller_where_many_objects_are_open() {
    // A few rows of each folder, or many.
    for piece in [8, 300] {
        let (pages, dictionaries, values) = largest(&layout().in_folders(), (5_000, piece));
        // A page ends with the rows that exceed the limit.
        assert!(pages <= 68 << 10 && pages > 16 << 10, "{piece}: {pages}");
        assert!(dictionaries <= 68 << 10 && dictionaries > 1_000, "{piece}: {dictionaries}");
        assert!(values <= 4_096 + 300, "{piece}: {values}");
    }
    // Elsewhere they are as large as is good for readers.
    let (pages, _, values) = largest(&layout(), (5_000, 300));
    assert!(pages > 512 << 10 && values >= 5_000, "{pages} {values}");
}

#[test]
fn the_memory_of_open_columns() {
    if std::env::var_os("PAGE_FIGURES").is_none() {
        return;
    }
    const FILES: usize = 128;
    let resident = || {
        let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
        pages.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 4096
    };
    for (what, layout) in [("in folders", layout().in_folders()), ("alone", layout())] {
        for count in [10, 100, 1_000, 3_000] {
            let Layout::Parquet(parquet) = &layout else { panic!() };
            let mut rows = Rows::new(&parquet.columns, "s");
            let before = resident();
            let mut files: Vec<_> =
                (0..FILES).map(|_| ParquetFile::new(parquet).unwrap()).collect();
            for file in &mut files {
                fill(file, &mut rows, &layout, (count, 8));
            }
            let sizes: u64 = files.iter().map(ParquetFile::bytes).sum();
            let more = (resident() - before).saturating_sub(sizes);
            let columns = (FILES * parquet.columns.len()) as u64;
            eprintln!(
                "{what}, {count} rows: sizes {sizes}, beyond that {} for a column",
                more / columns
            );
        }
    }
}
