//! Questions to sinks that hold the latest row of each key, besides those to every sink.
//!
//! The rows have an integer `id`, which is the key and comes from `/id`, and a text `v` from `/v`; `"op":"d"` deletes.

use std::sync::Arc;

use async_trait::async_trait;

use super::{STREAM, attempt, ensure, message, part};
use crate::flow::batch::Batch;
use crate::sink::{Sink, SinkError};
use crate::types::{Offset, StreamName};

/// A table with one row per key, and the sinks that write to it.
#[async_trait]
pub trait KeyedMedium: Send + Sync {
    /// A sink of this stream, under this reference.
    async fn open(&self, stream: &str, reference: &str) -> Result<Box<dyn Sink>, SinkError>;

    /// `id:v@offset` of each row, by id; `-` for a value that is null.
    async fn rows(&self) -> String;

    /// Deletes all positions.
    async fn forget(&self);
}

async fn open(
    medium: &impl KeyedMedium,
    stream: &str,
    reference: &str,
) -> Result<Box<dyn Sink>, String> {
    let opened = medium.open(stream, reference).await;
    opened.map_err(|error| format!("could not open as {reference:?}: {error}"))
}

fn of(stream: &str, first: u64, bodies: &[&str]) -> Result<Batch, String> {
    let messages: Vec<_> = bodies.iter().map(|body| message(body.as_bytes())).collect();
    let part = part(first, &messages);
    let batch = part.and_then(|part| Batch::new(StreamName::new(stream), vec![part]));
    batch.ok_or_else(|| format!("no batch from {first} on"))
}

/// Writes these bodies, and looks at the rows.
async fn write(
    medium: &impl KeyedMedium,
    sink: &mut dyn Sink,
    (first, bodies): (u64, &[&str]),
    expected: &str,
) -> Result<(), String> {
    let written = attempt(sink, &Arc::new(of(STREAM, first, bodies)?)).await;
    written.map_err(|error| format!("{bodies:?} was not written: {error}"))?;
    shows(medium, expected).await
}

async fn shows(medium: &impl KeyedMedium, expected: &str) -> Result<(), String> {
    let rows = medium.rows().await;
    ensure(rows == expected, || format!("shows {rows:?}, not {expected:?}"))
}

/// A row holds the last message of its key, within one batch and across batches. A message without a key is bad, and
/// the rest of its batch can be written.
///
/// # Errors
/// The reason of a failure.
pub async fn keeps_the_latest_of_each_key(medium: &impl KeyedMedium) -> Result<(), String> {
    let mut sink = open(medium, STREAM, "r").await?;
    let changes = [
        r#"{"id":1,"v":"a"}"#,
        r#"{"id":2,"v":"b"}"#,
        r#"{"id":1,"v":"c"}"#,
        r#"{"id":3,"v":"d"}"#,
        r#"{"id":2,"op":"d"}"#,
    ];
    write(medium, &mut *sink, (10, &changes), "1:c@12 3:d@13").await?;
    // A key is deleted and written again; a key without a row is deleted; a value becomes null.
    let changes =
        [r#"{"id":3,"op":"d"}"#, r#"{"id":3,"v":"e"}"#, r#"{"id":9,"op":"d"}"#, r#"{"id":1}"#];
    write(medium, &mut *sink, (15, &changes), "1:-@18 3:e@16").await?;
    let changes = [
        r#"{"id":1,"v":"f"}"#,
        r#"{"v":"g"}"#,
        r#"{"id":null,"op":"d"}"#,
        r#"{"id":"x","op":"d"}"#,
        "",
    ];
    let batch = of(STREAM, 20, &changes)?;
    let bad = match attempt(&mut *sink, &Arc::new(batch.clone())).await {
        Err(SinkError::Poison(bad)) => bad,
        other => return Err(format!("messages without a key returned {other:?}")),
    };
    let offsets: Vec<Offset> = bad.iter().map(|bad| bad.offset).collect();
    ensure(offsets == [21, 22, 23, 24].map(Offset), || format!("named {offsets:?} as bad"))?;
    let why = bad.first().map_or("", |bad| &bad.detail);
    ensure(why.contains("column \"id\": there is no value"), || why.to_owned())?;
    let rest = batch.without(offsets.into_iter().collect());
    let written = attempt(&mut *sink, &Arc::new(rest)).await;
    written.map_err(|error| format!("the rest was not written: {error}"))?;
    shows(medium, "1:f@20 3:e@16").await
}

/// A replay, which has its own reference, writes messages that are older than the rows of the table: it changes
/// nothing.
///
/// # Errors
/// The reason of a failure.
pub async fn never_goes_back(medium: &impl KeyedMedium) -> Result<(), String> {
    let mut sink = open(medium, STREAM, "r").await?;
    let (first, second) = ([r#"{"id":1,"v":"a"}"#], [r#"{"id":1,"v":"b"}"#]);
    write(medium, &mut *sink, (10, &first), "1:a@10").await?;
    write(medium, &mut *sink, (20, &second), "1:b@20").await?;
    let mut replay = open(medium, STREAM, "r.replay-1").await?;
    write(medium, &mut *replay, (10, &first), "1:b@20").await?;
    write(medium, &mut *replay, (15, &[r#"{"id":1,"op":"d"}"#]), "1:b@20").await?;
    // The row's own message again, which a replay may write into another column.
    write(medium, &mut *replay, (20, &[r#"{"id":1,"v":"B"}"#]), "1:B@20").await?;
    // Another stream has other offsets.
    let mut other = open(medium, "other", "r").await?;
    let written = attempt(&mut *other, &Arc::new(of("other", 3, &[r#"{"id":1,"v":"o"}"#])?)).await;
    written.map_err(|error| format!("another stream was not written: {error}"))?;
    shows(medium, "1:o@3").await
}

/// The rows of an old incarnation of the stream are replaced, whatever their offsets; so are those of a consumer whose
/// position is gone.
///
/// # Errors
/// The reason of a failure.
pub async fn begins_anew(medium: &impl KeyedMedium) -> Result<(), String> {
    let mut sink = open(medium, STREAM, "r").await?;
    let two = [r#"{"id":1,"v":"a"}"#, r#"{"id":2,"v":"b"}"#];
    write(medium, &mut *sink, (10, &two), "1:a@10 2:b@11").await?;
    sink.restart().await.map_err(|error| format!("was not restarted: {error}"))?;
    shows(medium, "1:a@-1 2:b@-1").await?;
    let position = sink.position().await.map_err(|error| error.to_string())?;
    ensure(position.is_none(), || format!("stands at {position:?} after the restart"))?;
    let changes = [r#"{"id":1,"v":"c"}"#, r#"{"id":2,"op":"d"}"#];
    write(medium, &mut *sink, (0, &changes), "1:c@0").await?;
    medium.forget().await;
    let mut sink = open(medium, STREAM, "new").await?;
    shows(medium, "1:c@-1").await?;
    write(medium, &mut *sink, (0, &[r#"{"id":1,"v":"d"}"#]), "1:d@0").await
}
