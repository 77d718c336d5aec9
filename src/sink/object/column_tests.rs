//! `columns` that change between runs: the sink continues if one query can still read all, and refuses
//! otherwise.

use super::*;
use crate::sink::conformance::{STREAM, batch};
use crate::types::column::{Column, ColumnType, OnMisfit};

fn column(name: &str, kind: ColumnType) -> Column {
    let (name, from) = (name.to_owned(), "body".parse().unwrap());
    Column { name, from, kind, required: false, on_misfit: OnMisfit::Null }
}

fn options(dir: &std::path::Path, columns: ParquetColumns) -> ObjectOptions {
    ObjectOptions {
        place: Place::Folder(dir.to_owned()),
        format: Format::Parquet { zstd_level: None, columns },
        partition_by: None,
        rotation: Rotation { records: 10, bytes: 1 << 20, age: std::time::Duration::ZERO },
    }
}

async fn open(options: &ObjectOptions) -> Result<ObjectSink, SinkError> {
    ObjectSink::open(options.clone(), STREAM.into(), "r".into()).await
}

/// Writes one record with these columns, after the position.
async fn write(options: &ObjectOptions, offset: u64) {
    let mut sink = open(options).await.unwrap();
    sink.write(&Arc::new(batch(offset..offset + 1))).await.unwrap();
    sink.flush().await.unwrap();
    sink.close().await.unwrap();
}

async fn refused(options: &ObjectOptions) -> String {
    let looked = committed(options, &STREAM.into(), &"r".into()).await.unwrap_err().to_string();
    match open(options).await.map(drop) {
        Err(SinkError::Fatal(why)) if why == looked => why,
        other => panic!("{other:?}, and a look said {looked}"),
    }
}

#[tokio::test]
async fn a_type_that_changes_is_refused_and_columns_come_and_go() {
    use ColumnType::*;
    let dir = tempfile::TempDir::new().unwrap();
    let with = |columns: &[(&str, ColumnType)]| {
        let columns = columns.iter().map(|(name, kind)| column(name, *kind)).collect();
        options(dir.path(), ParquetColumns::Named(columns))
    };
    // A column that was never written promises nothing.
    open(&with(&[("a", Float)])).await.unwrap();
    write(&with(&[("a", Text), ("b", Integer)]), 0).await;
    let why = refused(&with(&[("a", Integer), ("b", Integer)])).await;
    assert!(why.contains("\"a\" is integer now and was text"), "{why}");
    assert!(why.contains("another name") && why.contains("checkpoint.json"), "{why}");
    // Text is text; a column comes, and one goes.
    write(&with(&[("a", Json), ("c", Boolean)]), 1).await;
    // A removed column is still in the objects.
    let why = refused(&with(&[("b", Float)])).await;
    assert!(why.contains("\"b\" is float now and was integer"), "{why}");
    write(&with(&[("b", Integer)]), 2).await;
    // Lines beside it have no columns, and forget none.
    let lines = ObjectOptions { format: Format::Ndjson(Packing::Plain), ..with(&[]) };
    write(&lines, 3).await;
    refused(&with(&[("c", Text)])).await;
}

#[tokio::test]
async fn the_body_of_the_envelope_keeps_its_type() {
    let dir = tempfile::TempDir::new().unwrap();
    let body = |body_is_text| options(dir.path(), ParquetColumns::Envelope { body_is_text });
    write(&body(true), 0).await;
    let why = refused(&body(false)).await;
    assert!(why.contains("\"body\" is bytes now and was text"), "{why}");
    write(&body(true), 1).await;
}

/// An archive of a version before this: its columns are those that it is opened with next.
#[tokio::test]
async fn an_archive_that_does_not_list_its_columns() {
    let dir = tempfile::TempDir::new().unwrap();
    let with = |kind| options(dir.path(), ParquetColumns::Named(vec![column("a", kind)]));
    write(&with(ColumnType::Text), 0).await;
    let path = dir.path().join(format!("_rillway/{STREAM}/checkpoint.json"));
    let mut state: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(state["columns"]["a"], "text");
    state.as_object_mut().unwrap().remove("columns");
    std::fs::write(&path, state.to_string()).unwrap();
    write(&with(ColumnType::Text), 1).await;
    refused(&with(ColumnType::Integer)).await;
}

fn typed(dir: &std::path::Path, columns: &[(&str, ColumnType)]) -> ObjectOptions {
    let columns = columns.iter().map(|(name, kind)| column(name, *kind)).collect();
    options(dir, ParquetColumns::Named(columns))
}

/// The objects of the old incarnation stay, and one query reads them with the new ones.
#[tokio::test]
async fn a_re_created_stream_does_not_forget_the_types_of_the_objects() {
    use ColumnType::*;
    let dir = tempfile::TempDir::new().unwrap();
    write(&typed(dir.path(), &[("a", Text)]), 5).await;
    let mut sink = open(&typed(dir.path(), &[("a", Text)])).await.unwrap();
    sink.restart().await.unwrap();
    assert_eq!(sink.position().await.unwrap(), None);
    sink.close().await.unwrap();
    let why = refused(&typed(dir.path(), &[("a", Integer)])).await;
    assert!(why.contains("\"a\" is integer now and was text"), "{why}");
    write(&typed(dir.path(), &[("a", Text)]), 0).await;
}

/// A type that was mistaken, and put right before anything was written.
#[tokio::test]
async fn a_column_that_no_object_has_yet_may_change_its_type() {
    use ColumnType::*;
    let dir = tempfile::TempDir::new().unwrap();
    write(&typed(dir.path(), &[("a", Text)]), 0).await;
    for mistaken in [Integer, Float] {
        open(&typed(dir.path(), &[("a", Text), ("b", mistaken)])).await.unwrap();
    }
    write(&typed(dir.path(), &[("a", Text), ("b", Boolean)]), 1).await;
    refused(&typed(dir.path(), &[("b", Integer)])).await;
}

/// An object that was claimed and never created: an empty one with today's columns takes its place.
#[tokio::test]
async fn an_empty_object_in_the_place_of_a_lost_one_has_columns_too() {
    use ColumnType::*;
    let dir = tempfile::TempDir::new().unwrap();
    write(&typed(dir.path(), &[("a", Text)]), 0).await;
    let path = dir.path().join(format!("_rillway/{STREAM}/checkpoint.json"));
    let mut state: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    state["claim"] = serde_json::json!({
        "key": format!("{STREAM}/date=2026-11-23/hour=14/00000000000000000001-9.parquet"),
        "bytes": 1000, "crc": 1, "first_offset": 1, "last_offset": 1, "records": 1,
        "checkpoint": state["checkpoint"],
    });
    std::fs::write(&path, state.to_string()).unwrap();
    open(&typed(dir.path(), &[("a", Text), ("b", Integer)])).await.unwrap();
    let why = refused(&typed(dir.path(), &[("b", Text)])).await;
    assert!(why.contains("\"b\" is text now and was integer"), "{why}");
}
