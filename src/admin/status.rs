//! The state of everything in the order in which an operator wants to see it: what is wrong first, and in
//! words. The page and `rillway status` show the same.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::overview::{ConsumerView, WatchView};
use super::units::{Count, Seconds};
use crate::telemetry::State;
use crate::types::ConsumerName;

/// Lag from which a consumer lags, in seconds.
pub const LAGGING_SECONDS: f64 = 60.0;

/// Time for which a consumer may start or connect before something is wrong, in seconds.
const STARTING_SECONDS: f64 = 30.0;

/// How bad it is; the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Something is wrong: an operator should look.
    Bad,
    /// Something may become wrong, or an operator has stopped it.
    Warn,
    /// It works.
    Ok,
    /// It has nothing to do: another instance is active, or it has ended.
    Quiet,
}

impl Level {
    /// Name, as in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Level::Bad => "bad",
            Level::Warn => "warn",
            Level::Ok => "ok",
            Level::Quiet => "quiet",
        }
    }
}

/// What a consumer is, for the verdict; the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Halted,
    Failing,
    Waiting,
    Losing,
    Lagging,
    Starting,
    Paused,
    Draining,
    Works,
    StandsBy,
    Ended,
}

impl Kind {
    fn of(view: &ConsumerView) -> Kind {
        match view.state {
            State::Halted => Kind::Halted,
            State::Degraded | State::Backoff => Kind::Failing,
            State::Starting | State::Connecting if view.state_age_seconds < STARTING_SECONDS => {
                Kind::Starting
            }
            State::Starting | State::Connecting => Kind::Waiting,
            State::Paused => Kind::Paused,
            State::Draining => Kind::Draining,
            State::Passive => Kind::StandsBy,
            State::Stopped if view.reason.is_some() => Kind::Failing,
            State::Stopped => Kind::Ended,
            State::Running if view.headroom_messages.is_some_and(|left| left < 0) => Kind::Losing,
            State::Running if view.lag_seconds.is_some_and(|lag| lag >= LAGGING_SECONDS) => {
                Kind::Lagging
            }
            State::Running => Kind::Works,
        }
    }

    fn level(self) -> Level {
        match self {
            Kind::Halted | Kind::Failing | Kind::Waiting => Level::Bad,
            Kind::Losing | Kind::Lagging | Kind::Starting | Kind::Paused | Kind::Draining => {
                Level::Warn
            }
            Kind::Works => Level::Ok,
            Kind::StandsBy | Kind::Ended => Level::Quiet,
        }
    }

    /// What so many of them do: `1 has halted`.
    fn says(self, count: usize) -> String {
        let (one, many) = match self {
            Kind::Halted => ("has halted", "have halted"),
            Kind::Failing => ("fails", "fail"),
            Kind::Waiting => ("cannot start", "cannot start"),
            Kind::Losing => ("has lost messages to retention", "have lost messages to retention"),
            Kind::Lagging => ("lags", "lag"),
            Kind::Starting => ("starts", "start"),
            Kind::Paused => ("is paused", "are paused"),
            Kind::Draining => ("is being stopped", "are being stopped"),
            Kind::Works => ("works", "work"),
            Kind::StandsBy => ("stands by", "stand by"),
            Kind::Ended => ("has ended", "have ended"),
        };
        format!("{count} {}", if count == 1 { one } else { many })
    }
}

/// Everything, in order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the daemon.
    pub version: String,
    /// The worst of all.
    pub level: Level,
    /// Whether all is well, in one sentence.
    pub verdict: String,
    /// The consumers, the worst first.
    pub consumers: Vec<Group>,
    /// References of other programs; those with a problem first.
    pub watches: Vec<WatchedRow>,
}

/// A consumer, with all of its partitions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// Name in the configuration.
    pub name: String,
    /// The stream, or the super stream.
    pub stream: String,
    /// Kind of its sink.
    pub sink: String,
    /// Guarantee of that sink.
    pub guarantee: String,
    /// Name under which its offsets are stored.
    pub reference: String,
    /// What is true of all partitions together.
    #[serde(flatten)]
    pub sum: Row,
    /// The partitions of a super stream, the worst first; empty for a stream.
    pub partitions: Vec<Row>,
}

/// One stream of a consumer; or all of them together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The stream; `None` for all of a super stream together.
    pub partition: Option<String>,
    /// How bad it is.
    pub level: Level,
    /// Its state; of several partitions, that of the worst, and how many are in it.
    pub state: String,
    /// Seconds since it has this state.
    pub state_age_seconds: f64,
    /// Why it does not work normally, with what to do.
    pub reason: Option<String>,
    /// Offset of the message at which it has halted; `None` for several partitions, and if no message is why.
    #[serde(default)]
    pub halted_offset: Option<u64>,
    /// Messages that are not durable; of several partitions, the sum. `None` if one of them is unknown.
    pub lag_messages: Option<u64>,
    /// Age in seconds of the oldest message that is not durable; of several partitions, the largest.
    pub lag_seconds: Option<f64>,
    /// Messages received per second, over the last 10 s.
    pub received_messages_per_second: Option<f64>,
    /// Bytes received per second, over the last 10 s.
    pub received_bytes_per_second: Option<f64>,
    /// The last durable offset; `None` for several partitions.
    pub durable_offset: Option<u64>,
    /// The offset stored on the broker; `None` for several partitions.
    pub stored_offset: Option<u64>,
    /// The last offset of the stream; `None` for several partitions.
    pub stream_last_offset: Option<u64>,
    /// Seconds since that was seen.
    pub stream_seen_age_seconds: Option<f64>,
    /// Offsets that retention may drop before messages are lost; of several partitions, the fewest.
    pub headroom_messages: Option<i64>,
    /// The last error, whether or not it is over.
    pub last_error: Option<String>,
    /// Seconds since the last error.
    pub last_error_age_seconds: Option<f64>,
    /// Restarts and reconnections since the daemon started.
    pub restarts: u64,
    /// Bytes of messages in memory.
    pub buffered_bytes: u64,
    /// Upper bound of those.
    pub memory_bound_bytes: u64,
}

/// A reference that another program owns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WatchedRow {
    /// Name under which its owner stores offsets.
    pub reference: String,
    /// The stream.
    pub stream: String,
    /// How bad it is.
    pub level: Level,
    /// Why there is no lag, or what is worth knowing about it.
    pub problem: Option<String>,
    /// The last offset stored.
    pub stored_offset: Option<u64>,
    /// The last offset of the stream.
    pub stream_last_offset: Option<u64>,
    /// Offsets from the stored one to the end.
    pub lag_messages: Option<u64>,
    /// Age in seconds of the first message after the stored one.
    pub lag_seconds: Option<f64>,
    /// Offsets that retention may drop before the owner loses messages.
    pub headroom_messages: Option<i64>,
}

impl Status {
    /// Orders a snapshot.
    pub fn new(views: &[ConsumerView], watches: &[WatchView]) -> Status {
        let mut named: IndexMap<&ConsumerName, Vec<&ConsumerView>> = IndexMap::new();
        for view in views {
            named.entry(&view.name).or_default().push(view);
        }
        let mut groups: Vec<(Kind, Group)> = named.values().map(|of| group(of)).collect();
        // Stable: otherwise in the order of the configuration.
        groups.sort_by(|(a, x), (b, y)| {
            let lag = |group: &Group| group.sum.lag_seconds.unwrap_or(0.0);
            let by_lag = lag(y).total_cmp(&lag(x));
            a.cmp(b).then(if *a == Kind::Lagging { by_lag } else { std::cmp::Ordering::Equal })
        });
        let mut watches: Vec<WatchedRow> = watches.iter().map(WatchedRow::new).collect();
        watches.sort_by_key(|watch| watch.level);
        let verdict = verdict(&groups, &watches);
        let consumers: Vec<Group> = groups.into_iter().map(|(_, group)| group).collect();
        let levels = consumers.iter().map(|group| group.sum.level);
        let level = levels.chain(watches.iter().map(|watch| watch.level)).min();
        let level = level.map_or(Level::Ok, |level| level.min(Level::Ok));
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Status { version, level, verdict, consumers, watches }
    }
}

fn verdict(groups: &[(Kind, Group)], watches: &[WatchedRow]) -> String {
    let total = groups.len();
    let count = |kind: Kind| groups.iter().filter(|(of, _)| *of == kind).count();
    let mut kinds: Vec<Kind> = groups.iter().map(|(kind, _)| *kind).collect();
    kinds.dedup();
    let wrong = kinds.iter().filter(|kind| kind.level() <= Level::Warn);
    let wrong: Vec<String> = wrong.map(|kind| kind.says(count(*kind))).collect();
    let needy = groups.iter().filter(|(kind, _)| kind.level() <= Level::Warn).count();
    let is_bad = groups.iter().any(|(kind, _)| kind.level() == Level::Bad);
    let consumers =
        |n: usize| if n == 1 { "1 consumer".to_owned() } else { format!("{n} consumers") };
    let mut text = match (total, needy) {
        (0, _) => String::new(),
        (_, 0) => format!("All is well: {}.", working(groups, &consumers(total))),
        (1, _) => format!("The consumer {}: it {}.", attention(is_bad, 1), of_one(&kinds)),
        (_, n) if n == total => {
            format!("All {total} consumers {}: {}.", attention(is_bad, n), listed(&wrong))
        }
        (_, n) => {
            format!("{n} of {total} consumers {}: {}.", attention(is_bad, n), listed(&wrong))
        }
    };
    let troubled = watches.iter().filter(|watch| watch.level <= Level::Warn).count();
    let watched = match (watches.len(), troubled) {
        (0, _) => String::new(),
        (1, 0) => "1 reference of another program is watched.".to_owned(),
        (n, 0) => format!("{n} references of other programs are watched."),
        (1, _) => "The watched reference of another program may need attention.".to_owned(),
        (n, troubled) => {
            format!("Of {n} watched references of other programs, {troubled} may need attention.")
        }
    };
    if !text.is_empty() && !watched.is_empty() {
        text.push(' ');
    }
    text.push_str(&watched);
    if text.is_empty() {
        text.push_str("There is no consumer yet.");
    }
    text
}

fn attention(is_bad: bool, count: usize) -> &'static str {
    match (is_bad, count) {
        (true, 1) => "needs attention",
        (true, _) => "need attention",
        (false, 1) => "is not at its best",
        (false, _) => "are not at their best",
    }
}

fn of_one(kinds: &[Kind]) -> String {
    let says = kinds.first().map(|kind| kind.says(1)).unwrap_or_default();
    says.strip_prefix("1 ").unwrap_or(&says).to_owned()
}

fn working(groups: &[(Kind, Group)], all: &str) -> String {
    let verb = if groups.len() == 1 { "works" } else { "work" };
    let by = groups.iter().filter(|(kind, _)| *kind == Kind::StandsBy).count();
    let ended = groups.iter().filter(|(kind, _)| *kind == Kind::Ended).count();
    let mut text = match (by, ended) {
        (0, 0) => format!("{all} {verb}"),
        (1, 0) if groups.len() == 1 => format!("{all} stands by for another instance"),
        (by, 0) if by == groups.len() => format!("{all} stand by for another instance"),
        (1, 0) => format!("{all} {verb}, of which 1 stands by"),
        (by, 0) => format!("{all} {verb}, of which {by} stand by"),
        (_, ended) => {
            format!("{all}, of which {} ended", if ended == 1 { "1 has" } else { "some have" })
        }
    };
    let active =
        || groups.iter().filter(|(kind, _)| *kind == Kind::Works).map(|(_, group)| &group.sum);
    let unknown = active().filter(|row| row.lag_seconds.is_none()).count();
    let largest = active().filter_map(|row| row.lag_seconds).fold(0.0, f64::max);
    let waiting = active().filter_map(|row| row.lag_messages).max().unwrap_or(0);
    if unknown > 0 {
        let whose = if unknown == groups.len() { "the lag" } else { "the lag of some" };
        text.push_str(&format!(", and {whose} is not known"));
    } else if largest > 0.0 {
        let messages = count_of(waiting);
        text.push_str(&format!(", at most {} and {messages} behind", Seconds(largest)));
    } else if active().next().is_some() {
        text.push_str(", and nothing waits");
    }
    text
}

#[allow(clippy::cast_precision_loss)]
fn count_of(messages: u64) -> String {
    let unit = if messages == 1 { "message" } else { "messages" };
    format!("{} {unit}", Count(messages as f64))
}

fn listed(parts: &[String]) -> String {
    match parts.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, first)) => format!("{} and {last}", first.join(", ")),
        None => String::new(),
    }
}

/// All rows of one consumer; there is at least one.
fn group(of: &[&ConsumerView]) -> (Kind, Group) {
    let mut rows: Vec<(Kind, Row)> =
        of.iter().map(|view| (Kind::of(view), Row::new(view))).collect();
    rows.sort_by_key(|(kind, _)| *kind);
    let kind = rows.first().map_or(Kind::Ended, |(kind, _)| *kind);
    let first = of.first();
    let of_super = first.and_then(|view| view.super_stream.as_ref());
    let text =
        |of: &dyn Fn(&ConsumerView) -> String| first.map(|view| of(view)).unwrap_or_default();
    let sum = match (rows.as_slice(), of_super) {
        ([(_, row)], None) => Row { partition: None, ..row.clone() },
        _ => Row::sum(&rows),
    };
    let partitions = match of_super {
        Some(_) => rows.into_iter().map(|(_, row)| row).collect(),
        None => Vec::new(),
    };
    let group = Group {
        name: text(&|view| view.name.to_string()),
        stream: of_super.map_or_else(|| text(&|view| view.stream.to_string()), ToString::to_string),
        sink: text(&|view| view.sink.to_owned()),
        guarantee: text(&|view| view.guarantee.to_string()),
        reference: text(&|view| view.reference.to_string()),
        sum,
        partitions,
    };
    (kind, group)
}

impl Row {
    fn new(view: &ConsumerView) -> Row {
        Row {
            partition: Some(view.stream.to_string()),
            level: Kind::of(view).level(),
            state: match Kind::of(view) {
                Kind::Lagging => format!("{}, lagging", view.state),
                Kind::Losing => format!("{}, losing messages", view.state),
                _ => view.state.to_string(),
            },
            state_age_seconds: view.state_age_seconds,
            reason: view.reason.clone(),
            halted_offset: view.halted_offset.map(|offset| offset.0),
            lag_messages: view.lag_messages,
            lag_seconds: view.lag_seconds,
            received_messages_per_second: view.received_messages_per_second,
            received_bytes_per_second: view.received_bytes_per_second,
            durable_offset: view.durable_offset.map(|offset| offset.0),
            stored_offset: view.stored_offset.map(|offset| offset.0),
            stream_last_offset: view.stream_last_offset.map(|offset| offset.0),
            stream_seen_age_seconds: view.stream_seen_age_seconds,
            headroom_messages: view.headroom_messages,
            last_error: view.last_error.clone(),
            last_error_age_seconds: view.last_error_age_seconds,
            restarts: view.restarts,
            buffered_bytes: view.buffered_bytes,
            memory_bound_bytes: view.memory_bound_bytes,
        }
    }

    /// Partitions together, the worst first. One that stands by counts for nothing: its active instance does.
    fn sum(rows: &[(Kind, Row)]) -> Row {
        let all = || rows.iter().map(|(_, row)| row);
        let active = || rows.iter().filter(|(kind, _)| *kind != Kind::StandsBy).map(|(_, row)| row);
        let worst = all().next();
        let state = worst.map(|row| row.state.as_str()).unwrap_or_default();
        let same = all().filter(|row| row.state == state).count();
        let error = all().filter(|row| row.last_error_age_seconds.is_some()).min_by(|a, b| {
            let age = |row: &Row| row.last_error_age_seconds.unwrap_or(f64::MAX);
            age(a).total_cmp(&age(b))
        });
        let sum_of = |value: fn(&Row) -> Option<f64>| active().map(value).sum::<Option<f64>>();
        let largest = |value: fn(&Row) -> Option<f64>| {
            active().map(value).try_fold(0.0, |most, value| Some(f64::max(most, value?)))
        };
        let is_any = active().next().is_some();
        Row {
            partition: None,
            level: worst.map_or(Level::Quiet, |row| row.level),
            state: match same == rows.len() {
                true => state.to_owned(),
                false => format!("{same} of {} {state}", rows.len()),
            },
            state_age_seconds: worst.map_or(0.0, |row| row.state_age_seconds),
            reason: all().find_map(|row| {
                let reason = row.reason.as_ref()?;
                Some(format!("{}: {reason}", row.partition.as_deref().unwrap_or_default()))
            }),
            halted_offset: None,
            lag_messages: active()
                .map(|row| row.lag_messages)
                .sum::<Option<u64>>()
                .filter(|_| is_any),
            lag_seconds: largest(|row| row.lag_seconds).filter(|_| is_any),
            received_messages_per_second: sum_of(|row| row.received_messages_per_second),
            received_bytes_per_second: sum_of(|row| row.received_bytes_per_second),
            durable_offset: None,
            stored_offset: None,
            stream_last_offset: None,
            stream_seen_age_seconds: largest(|row| row.stream_seen_age_seconds),
            headroom_messages: active().filter_map(|row| row.headroom_messages).min(),
            last_error: error.and_then(|row| {
                let text = row.last_error.as_ref()?;
                Some(format!("{}: {text}", row.partition.as_deref().unwrap_or_default()))
            }),
            last_error_age_seconds: error.and_then(|row| row.last_error_age_seconds),
            restarts: all().map(|row| row.restarts).sum(),
            buffered_bytes: all().map(|row| row.buffered_bytes).sum(),
            memory_bound_bytes: all().map(|row| row.memory_bound_bytes).sum(),
        }
    }
}

impl WatchedRow {
    fn new(view: &WatchView) -> WatchedRow {
        let lags = view.lag_seconds.is_some_and(|lag| lag >= LAGGING_SECONDS);
        let is_wanting = view.problem.is_some() || lags;
        WatchedRow {
            reference: view.reference.to_string(),
            stream: view.stream.to_string(),
            level: if is_wanting { Level::Warn } else { Level::Ok },
            problem: view.problem.clone(),
            stored_offset: view.stored_offset.map(|offset| offset.0),
            stream_last_offset: view.stream_last_offset.map(|offset| offset.0),
            lag_messages: view.lag_messages,
            lag_seconds: view.lag_seconds,
            headroom_messages: view.headroom_messages,
        }
    }
}
