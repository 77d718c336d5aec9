//! The table: a line for each consumer, and one for the reason of each that does not work.

use std::io::Write;

use console::{Style, measure_text_width, truncate_str};

use crate::admin::status::{Group, Level, Row, Status, WatchedRow};
use crate::admin::units::{Bytes, Count, Seconds};
use crate::cli::exit::Failure;

/// How the table looks.
pub(super) struct Look {
    /// Width of the terminal; `None` if lines may have any length.
    pub(super) width: Option<usize>,
    /// Whether there are colours.
    pub(super) colours: bool,
    /// Whether all partitions are shown.
    pub(super) partitions: bool,
}

/// Widths from which columns are shown.
const WITH_RATE: usize = 78;
const WITH_STREAM: usize = 110;

/// Most characters of a column.
const NAME_MAX: usize = 40;
const NAME_MAX_NARROW: usize = 18;

const UNKNOWN: &str = "–";

/// A line of the table: its level, its cells, and what stands below it.
struct Line {
    level: Level,
    cells: Vec<String>,
    why: Option<String>,
}

/// The whole table.
pub(super) fn table(status: &Status, look: &Look) -> String {
    lines(status, look).join("\n") + "\n"
}

/// The table's lines.
pub(super) fn lines(status: &Status, look: &Look) -> Vec<String> {
    let mut out = Vec::new();
    let verdict = look.paint(status.level, &status.verdict);
    out.extend(wrapped(&verdict, look.width));
    if !status.consumers.is_empty() {
        let mut all = Vec::new();
        for group in &status.consumers {
            all.push(consumer(group, look));
            let shown = |row: &&Row| look.partitions || row.level <= Level::Warn;
            all.extend(group.partitions.iter().filter(shown).map(|row| partition(row, look)));
        }
        let head = ["consumer", "stream", "state", "lag", "behind", "rate"];
        out.push(String::new());
        out.extend(aligned(&head, all, look));
    }
    if !status.watches.is_empty() {
        let all = status.watches.iter().map(watched).collect();
        out.push(String::new());
        out.extend(aligned(&["reference", "stream", "state", "lag", "behind", ""], all, look));
    }
    out
}

fn consumer(group: &Group, look: &Look) -> Line {
    let sum = &group.sum;
    let mut line = line(&group.name, &group.stream, sum);
    let many = group.partitions.len();
    if many > 0 && !look.partitions {
        line.cells[1] = format!("{} ({many} partitions)", group.stream);
    }
    // Those of partitions stand below these.
    let is_told = group.partitions.iter().any(|row| row.reason.is_some());
    line.why = line.why.filter(|_| !is_told);
    line
}

fn partition(row: &Row, _: &Look) -> Line {
    line(&format!("  {}", row.partition.as_deref().unwrap_or(UNKNOWN)), "", row)
}

fn line(name: &str, stream: &str, row: &Row) -> Line {
    #[allow(clippy::cast_precision_loss)]
    let lag = row.lag_messages.map(|lag| Count(lag as f64).to_string());
    let rate = row.received_messages_per_second.map(|count| match count > 0.0 {
        true => {
            let bytes = row.received_bytes_per_second.unwrap_or(0.0);
            format!("{}/s {}/s", Count(count), Bytes(bytes))
        }
        false => "0/s".to_owned(),
    });
    let cells = vec![
        plain(name),
        plain(stream),
        format!("{} {}", plain(&row.state), Seconds(row.state_age_seconds)),
        lag.unwrap_or_else(|| UNKNOWN.to_owned()),
        behind(row.lag_seconds),
        rate.unwrap_or_else(|| UNKNOWN.to_owned()),
    ];
    Line { level: row.level, cells, why: row.reason.as_deref().map(plain) }
}

fn watched(watch: &WatchedRow) -> Line {
    #[allow(clippy::cast_precision_loss)]
    let lag = watch.lag_messages.map(|lag| Count(lag as f64).to_string());
    let cells = vec![
        plain(&watch.reference),
        plain(&watch.stream),
        "watched".to_owned(),
        lag.unwrap_or_else(|| UNKNOWN.to_owned()),
        behind(watch.lag_seconds),
        String::new(),
    ];
    Line { level: watch.level, cells, why: watch.problem.as_deref().map(plain) }
}

fn behind(seconds: Option<f64>) -> String {
    seconds.map_or_else(|| UNKNOWN.to_owned(), |seconds| Seconds(seconds).to_string())
}

/// Text without anything that a terminal would obey.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// The lines with their columns one below the other; as many columns as fit.
fn aligned(head: &[&str], lines: Vec<Line>, look: &Look) -> Vec<String> {
    let width = look.width.unwrap_or(usize::MAX);
    let is_shown = |column: usize| match column {
        1 => width >= WITH_STREAM,
        5 => width >= WITH_RATE,
        _ => true,
    };
    let name_max = if width < WITH_RATE { NAME_MAX_NARROW } else { NAME_MAX };
    let limit = if look.width.is_some() { name_max } else { usize::MAX };
    let columns: Vec<usize> = (0..head.len()).filter(|column| is_shown(*column)).collect();
    let cell = |text: &str, column: usize| match column {
        0 | 1 => truncate_str(text, limit, "…").into_owned(),
        _ => text.to_owned(),
    };
    let widest = |column: usize| {
        let cells = lines.iter().map(|line| line.cells[column].as_str()).chain([head[column]]);
        cells.map(|text| measure_text_width(&cell(text, column))).max().unwrap_or(0)
    };
    let widths: Vec<usize> = columns.iter().map(|column| widest(*column)).collect();
    let row = |cells: &dyn Fn(usize) -> String| {
        let padded = columns.iter().zip(&widths).map(|(column, width)| {
            let text = cell(&cells(*column), *column);
            let space = " ".repeat(width.saturating_sub(measure_text_width(&text)));
            // Numbers end, and texts begin, one below the other.
            if *column == 3 { space + &text } else { text + &space }
        });
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let cut = |text: String| match look.width {
        Some(width) => truncate_str(&text, width, "…").into_owned(),
        None => text,
    };
    let mut out = vec![look.dim(&cut(format!("  {}", row(&|column| head[column].to_owned()))))];
    for line in &lines {
        let text =
            cut(format!("{} {}", mark(line.level), row(&|column| line.cells[column].clone())));
        out.push(look.paint(line.level, &text));
        if let Some(why) = &line.why {
            let room = look.width.map(|width| width.saturating_sub(4));
            let why = wrapped(why, room).into_iter().map(|part| format!("    {part}"));
            out.extend(why.map(|part| look.dim(&part)));
        }
    }
    out
}

fn mark(level: Level) -> char {
    match level {
        Level::Bad => '✗',
        Level::Warn => '!',
        Level::Ok => '✓',
        Level::Quiet => '·',
    }
}

/// The text in lines of this width, broken between words where possible.
fn wrapped(text: &str, width: Option<usize>) -> Vec<String> {
    let Some(width) = width.map(|width| width.max(8)) else { return vec![text.to_owned()] };
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        let mut word = word.to_owned();
        match lines.last_mut() {
            Some(line) if measure_text_width(line) + 1 + measure_text_width(&word) <= width => {
                line.push(' ');
                line.push_str(&word);
                continue;
            }
            _ => {}
        }
        while measure_text_width(&word) > width {
            let head = truncate_str(&word, width, "").into_owned();
            if head.is_empty() {
                break;
            }
            word = word.split_at(head.len()).1.to_owned();
            lines.push(head);
        }
        lines.push(word);
    }
    lines
}

impl Look {
    fn paint(&self, level: Level, text: &str) -> String {
        let style = match level {
            Level::Bad => Style::new().red().bold(),
            Level::Warn => Style::new().yellow(),
            Level::Ok => Style::new().green(),
            Level::Quiet => Style::new().dim(),
        };
        self.styled(style, text)
    }

    fn dim(&self, text: &str) -> String {
        self.styled(Style::new().dim(), text)
    }

    fn styled(&self, style: Style, text: &str) -> String {
        match self.colours {
            true => style.force_styling(true).apply_to(text).to_string(),
            false => text.to_owned(),
        }
    }
}

/// Prints; false if nobody reads any more.
pub(super) fn print(text: &str) -> anyhow::Result<bool> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => {
            Err(Failure::Unavailable(format!("cannot write to standard output: {error}")).into())
        }
    }
}

#[cfg(test)]
mod tests;
