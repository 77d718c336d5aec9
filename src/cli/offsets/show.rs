//! `rillway offsets show`: the positions side by side, and what they mean.

use clap::Args;
use futures_util::future::join_all;
use serde_json::{Value, json};

use super::{find, plans_of};
use crate::cli::exit::Failure;
use crate::cli::schema::write;
use crate::config::{Config, ConsumerConfig};
use crate::consumer::positions::{self, Explained, Next, Seen};
use crate::flow::beginning::Memory;
use crate::supervisor::Plan;
use crate::types::Offset;

/// Arguments of `offsets show`.
#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// The consumer's name in the configuration [default: all]
    consumer: Option<String>,
}

/// One consumer and stream.
pub(super) struct Row {
    consumer: String,
    reference: String,
    stream: String,
    sink: &'static str,
    seen: Result<Seen, String>,
}

/// Looks at all of them, and prints them.
///
/// # Errors
/// If the positions of one could not be read; the others are printed all the same.
pub(super) async fn show(config: &Config, args: &ShowArgs, as_json: bool) -> anyhow::Result<()> {
    let chosen: Vec<&ConsumerConfig> = match &args.consumer {
        Some(name) => vec![find(config, name)?],
        None => config.consumers.iter().collect(),
    };
    let rows = join_all(chosen.iter().map(|consumer| rows_of(config, consumer))).await;
    let rows: Vec<Row> = rows.into_iter().flatten().collect();
    write(&if as_json { as_json_text(&rows) } else { as_table(&rows) })?;
    let failed: Vec<String> = rows
        .iter()
        .filter_map(|row| {
            let error = row.seen.as_ref().err()?;
            Some(format!("consumer {:?}, stream {:?}: {error}", row.consumer, row.stream))
        })
        .collect();
    match failed.is_empty() {
        true => Ok(()),
        false => Err(Failure::Unavailable(failed.join("\n")).into()),
    }
}

async fn rows_of(config: &Config, consumer: &ConsumerConfig) -> Vec<Row> {
    let of = |stream: String, seen| Row {
        consumer: consumer.name.to_string(),
        reference: consumer.reference.to_string(),
        stream,
        sink: consumer.sink.kind(),
        seen,
    };
    match plans_of(config, consumer).await {
        Err(error) => vec![of(consumer.stream.to_string(), Err(error))],
        Ok(plans) => {
            let each = plans.iter().map(async |plan: &Plan| {
                let seen = positions::see(&plan.subject()).await;
                of(plan.spec.stream.to_string(), seen.map_err(|error| format!("{error:#}")))
            });
            join_all(each).await
        }
    }
}

fn as_json_text(rows: &[Row]) -> String {
    let rows: Vec<Value> = rows.iter().map(row_as_json).collect();
    format!("{:#}\n", json!({ "consumers": rows }))
}

fn row_as_json(row: &Row) -> Value {
    let Row { consumer, reference, stream, sink, seen } = row;
    let mut value = json!({
        "consumer": consumer, "stream": stream, "reference": reference, "sink": sink,
    });
    let more = match seen {
        Err(problem) => json!({ "problem": problem }),
        Ok(seen) => seen_as_json(seen),
    };
    if let (Some(value), Value::Object(more)) = (value.as_object_mut(), more) {
        value.extend(more);
    }
    value
}

/// The positions, for programs.
pub(super) fn seen_as_json(seen: &Seen) -> Value {
    let Explained { mark, text } = positions::explain(seen);
    let (next, reason) = match &seen.next {
        Next::At(offset, _) => (Some(*offset), None),
        Next::From(why) | Next::Halt(why) => (None, Some(why)),
    };
    let (position, beginning) = match seen.memory {
        Some(Memory::Position(at)) => (Some(at.offset), None),
        Some(Memory::Beginning(beginning)) => (None, Some(beginning.at)),
        None => (None, None),
    };
    json!({
        "next_offset": next,
        "next_offset_unknown_because": reason,
        "stored_offset": seen.stored,
        "broker_stores_offsets": seen.stores_offsets,
        "state_file_position": position,
        "state_file_begins_at": beginning,
        "sink_keeps_position": seen.keeps_position,
        "sink_position": seen.sink.map(|at| at.offset),
        "stream_first_offset": seen.first,
        "stream_last_offset": seen.last,
        "lag_messages": seen.lag(),
        "mark": mark,
        "explanation": text,
    })
}

const HEAD: [&str; 9] =
    ["CONSUMER", "STREAM", "NEXT", "BROKER", "STATE FILE", "SINK", "FIRST", "LAST", "LAG"];

fn as_table(rows: &[Row]) -> String {
    if rows.is_empty() {
        return "the configuration has no consumers\n".to_owned();
    }
    let cells: Vec<[String; 9]> = rows.iter().map(cells).collect();
    let width = |nth: usize| {
        let all = cells.iter().filter_map(|row| row.get(nth)).map(|cell| cell.chars().count());
        all.chain(HEAD.get(nth).map(|head| head.len())).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..HEAD.len()).map(width).collect();
    let mut text = line(HEAD.iter().copied(), &widths);
    for (row, cells) in rows.iter().zip(&cells) {
        text.push_str(&line(cells.iter().map(String::as_str), &widths));
        let told = match &row.seen {
            Ok(seen) => positions::explain(seen).text,
            Err(problem) => problem.clone(),
        };
        text.push_str(&format!("  {}\n", told.replace('\n', "\n  ")));
        if row.reference != row.consumer {
            text.push_str(&format!("  its reference is {:?}\n", row.reference));
        }
    }
    text
}

fn line<'c>(cells: impl Iterator<Item = &'c str>, widths: &[usize]) -> String {
    let mut text = String::new();
    for (nth, (cell, width)) in cells.zip(widths).enumerate() {
        let pad = " ".repeat(width.saturating_sub(cell.chars().count()));
        // Names to the left, numbers to the right.
        let (before, after) = if nth < 2 { ("", pad.as_str()) } else { (pad.as_str(), "") };
        let gap = if nth == 0 { "" } else { "  " };
        text.extend([gap, before, cell, after]);
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

fn cells(row: &Row) -> [String; 9] {
    let (consumer, stream) = (row.consumer.clone(), row.stream.clone());
    let Ok(seen) = &row.seen else {
        let unknown = || "?".to_owned();
        return [
            consumer,
            stream,
            unknown(),
            unknown(),
            unknown(),
            unknown(),
            unknown(),
            unknown(),
            unknown(),
        ];
    };
    let shown = |offset: Option<Offset>| offset.map_or("-".to_owned(), |offset| offset.to_string());
    let next = match &seen.next {
        Next::At(offset, _) => offset.to_string(),
        Next::From(_) => "?".to_owned(),
        Next::Halt(_) => "halts".to_owned(),
    };
    let broker = if seen.stores_offsets { shown(seen.stored) } else { "(none)".to_owned() };
    let state_file = match seen.memory {
        Some(Memory::Position(at)) => at.offset.to_string(),
        Some(Memory::Beginning(beginning)) => format!("begins {}", beginning.at),
        None => "-".to_owned(),
    };
    let sink = match seen.keeps_position {
        true => shown(seen.sink.map(|at| at.offset)),
        false => "(none)".to_owned(),
    };
    let lag = seen.lag().map_or("?".to_owned(), |lag| lag.to_string());
    let (first, last) = (shown(seen.first), shown(seen.last));
    [consumer, stream, next, broker, state_file, sink, first, last, lag]
}
