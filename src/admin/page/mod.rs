//! The status page: one HTML document, made on the server from a [`Status`]. It loads nothing else, and can
//! be read without JavaScript. With it, the page fetches itself every second and has buttons for commands.
//!
//! All foreign text (names, reasons) is escaped. Only the page's own style and script run: they carry a nonce
//! that is another one in each answer.

mod chart;
mod nonce;

use std::collections::HashMap;
use std::fmt::{self, Display, Write};

use hyper::header::HeaderValue;

use self::chart::{joined, lag_chart, rate_chart};
pub(super) use self::nonce::nonce;
use super::overview::{HistoryView, PointView};
use super::status::{Group, Level, Row, Status, WatchedRow};
use super::units::{Bytes, Count, Exact, Seconds};

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");
const DIALOGS: &str = include_str!("dialogs.html");

/// Interval in seconds at which a browser without JavaScript reloads the page.
const RELOAD_SECONDS: u32 = 5;

/// Most consumers with charts: more would make the page large, and nobody looks at them all.
const CHARTS_MAX: usize = 200;

/// Age from which a row shows when the stream's end was last seen.
const SEEN_LONG_AGO_SECONDS: f64 = 10.0;

/// Commands of a consumer, with the text of the button.
const COMMANDS: &[(&str, &str)] = &[
    ("commit", "Store the offset now"),
    ("pause", "Pause"),
    ("resume", "Resume"),
    ("restart", "Restart"),
];

/// Opens the dialog that moves the position.
const SEEK: &str = "Move the position…";

const LEGEND: &str = "Lag: messages from the durable one to the end of the stream, and the age of the oldest of \
    them. The broker's own chunks (stored offsets) are not counted, so a consumer that has caught up has no lag even \
    if its end is above the durable offset. Rate: messages and bytes received, over the last 10 s. A dash \
    means that a value is not known.";

/// What a page may do: run its own style and script, and talk to this server.
pub(super) fn policy(nonce: &str) -> Option<HeaderValue> {
    let text = format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    HeaderValue::from_str(&text).ok()
}

/// The complete page.
pub(super) fn render(status: &Status, histories: &[HistoryView], nonce: &str) -> String {
    let mut charts: HashMap<&str, Vec<&HistoryView>> = HashMap::new();
    for history in histories {
        charts.entry(history.name.as_str()).or_default().push(history);
    }
    document(nonce, &title(status), |out| body(out, status, &charts))
}

/// The page for a caller who may not read: it asks for the token.
pub(super) fn locked(nonce: &str) -> String {
    document(nonce, "rillway: needs the token", |out| {
        out.write_str(
            "<main id=\"status\" data-locked><p class=\"verdict warn\">This server shows its state only with \
             the token of [admin] token.</p></main>\n",
        )
    })
}

fn title(status: &Status) -> String {
    let total = status.consumers.len();
    let needy = status.consumers.iter().filter(|group| group.sum.level <= Level::Warn).count();
    match needy {
        0 => "rillway: all is well".to_owned(),
        _ => format!("({needy}) rillway: {needy} of {total} need attention"),
    }
}

fn document(
    nonce: &str,
    title: &str,
    write_main: impl FnOnce(&mut String) -> fmt::Result,
) -> String {
    let mut out = String::new();
    let written = write!(
        out,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\"><link rel=\"icon\" href=\"data:,\">\n\
         <noscript><meta http-equiv=\"refresh\" content=\"{RELOAD_SECONDS}\"></noscript>\n\
         <style nonce=\"{nonce}\">{STYLE}</style></head><body>\n\
         <header><h1>Rillway <small>{}</small></h1><nav><a href=\"/metrics\">metrics</a> \
         <a href=\"/readyz\">readiness</a> <a href=\"/api/v1/status\">JSON</a> \
         <a href=\"/api/v1/openapi.json\">API</a></nav></header>\n",
        env!("CARGO_PKG_VERSION")
    )
    .and_then(|()| write_main(&mut out))
    .and_then(|()| {
        write!(
            out,
            "<footer><p>{LEGEND}</p><p id=\"told\" role=\"status\" aria-live=\"polite\"></p></footer>\n\
             {DIALOGS}<script nonce=\"{nonce}\">{SCRIPT}</script></body></html>\n"
        )
    });
    // Writing to a String does not fail.
    written.map_or_else(|_| String::new(), |()| out)
}

fn body(
    out: &mut String,
    status: &Status,
    charts: &HashMap<&str, Vec<&HistoryView>>,
) -> fmt::Result {
    let level = status.level.name();
    writeln!(
        out,
        "<main id=\"status\"><p class=\"verdict {level}\">{}</p>",
        Escaped(&status.verdict)
    )?;
    if !status.consumers.is_empty() {
        out.write_str(
            "<h2>Consumers</h2>\n<div class=\"head\" aria-hidden=\"true\"><span></span><span>name and stream</span>\
             <span>state</span><span>lag</span><span>rate</span><span>lag, last hour</span></div>\n\
             <ul class=\"list\">\n",
        )?;
        for (nth, group) in status.consumers.iter().enumerate() {
            let histories = charts.get(group.name.as_str()).filter(|_| nth < CHARTS_MAX);
            consumer(out, group, &joined(histories.map_or(&[][..], Vec::as_slice)))?;
        }
        out.write_str("</ul>\n")?;
    }
    if !status.watches.is_empty() {
        watches(out, &status.watches)?;
    }
    out.write_str("</main>\n")
}

fn consumer(out: &mut String, group: &Group, points: &[PointView]) -> fmt::Result {
    let (name, sum) = (Escaped(&group.name), &group.sum);
    let lag = lag_chart(points);
    write!(
        out,
        "<li><details data-key=\"{name}\" class=\"{}\"><summary data-focus=\"{name}\">\
         <span class=\"name\">{name} <small>{}</small></span>\
         <span class=\"state\"><b>{}</b> <span class=\"soft\">for {}</span></span>\
         <span class=\"lag num\"><span class=\"l\">lag </span>{}</span>\
         <span class=\"rate num\"><span class=\"l\">rate </span>{}</span><span class=\"trend\">",
        sum.level.name(),
        Escaped(&group.stream),
        Escaped(&sum.state),
        Exactly(Seconds(sum.state_age_seconds), format_args!("{:.1} s", sum.state_age_seconds)),
        Lag(sum),
        Rate(sum),
    )?;
    if !points.is_empty() {
        write!(out, "{lag}")?;
    }
    out.write_str("</span>")?;
    if let Some(reason) = &sum.reason {
        write!(out, "<span class=\"why\">{}</span>", Escaped(reason))?;
    }
    out.write_str("</summary><div class=\"more\">")?;
    if !points.is_empty() {
        let rate = rate_chart(points);
        write!(
            out,
            "<div class=\"charts\"><figure>{lag}<figcaption>{}</figcaption></figure>\
             <figure>{rate}<figcaption>{}</figcaption></figure></div>",
            lag.label, rate.label
        )?;
    }
    facts(out, group)?;
    if !group.partitions.is_empty() {
        partitions(out, &group.name, &group.partitions)?;
    }
    out.write_str("<div class=\"acts\">")?;
    for (verb, text) in COMMANDS {
        write!(
            out,
            "<button data-verb=\"{verb}\" data-name=\"{name}\" data-focus=\"{verb} {name}\">{text}\
             <span class=\"sr\"> ({name})</span></button>"
        )?;
    }
    write!(
        out,
        "<button data-move data-name=\"{name}\" data-focus=\"move {name}\">{SEEK}\
         <span class=\"sr\"> ({name})</span></button>"
    )?;
    if group.partitions.is_empty() {
        skip(out, &group.name, sum)?;
    }
    out.write_str("</div></div></details></li>\n")
}

/// The button that leaves out the message at which a row has halted.
fn skip(out: &mut String, name: &str, row: &Row) -> fmt::Result {
    let Some(offset) = row.halted_offset else { return Ok(()) };
    let (name, stream) = (Escaped(name), Escaped(row.partition.as_deref().unwrap_or_default()));
    write!(
        out,
        "<button data-skip=\"{offset}\" data-name=\"{name}\" data-stream=\"{stream}\" \
         data-focus=\"skip {name} {stream}\">Skip message {}…<span class=\"sr\"> ({name} {stream})</span></button>",
        Exact(offset.into())
    )
}

fn facts(out: &mut String, group: &Group) -> fmt::Result {
    let sum = &group.sum;
    out.write_str("<dl>")?;
    if let Some(error) = &sum.last_error {
        let age = sum.last_error_age_seconds.unwrap_or(0.0);
        write!(
            out,
            "<div class=\"wide\"><dt>last error, {} ago</dt><dd>{}</dd></div>",
            Exactly(Seconds(age), format_args!("{age:.1} s")),
            Escaped(error)
        )?;
    }
    let mut fact = |what: &str, value: &dyn Display| {
        write!(out, "<div><dt>{what}</dt><dd class=\"num\">{value}</dd></div>")
    };
    fact("sink", &Escaped(&group.sink))?;
    fact("guarantee", &Escaped(&group.guarantee))?;
    fact("reference", &Escaped(&group.reference))?;
    if group.partitions.is_empty() {
        fact("durable offset", &Offset(sum.durable_offset))?;
        fact("stored offset", &Offset(sum.stored_offset))?;
        fact("end of the stream", &Offset(sum.stream_last_offset))?;
    }
    if let Some(age) = sum.stream_seen_age_seconds.filter(|age| *age >= SEEN_LONG_AGO_SECONDS) {
        fact("end last seen", &format_args!("{} ago", Seconds(age)))?;
    }
    fact("retention may drop", &Headroom(sum.headroom_messages))?;
    fact("restarts", &Exact(sum.restarts.into()))?;
    fact("in memory", &Memory(sum))?;
    out.write_str("</dl>")
}

fn partitions(out: &mut String, name: &str, rows: &[Row]) -> fmt::Result {
    write!(
        out,
        "<h3>{} partitions</h3><table><thead><tr><th scope=\"col\">partition</th><th scope=\"col\">state</th>\
         <th scope=\"col\">lag</th><th scope=\"col\">rate</th><th scope=\"col\">durable</th>\
         <th scope=\"col\">end</th></tr></thead><tbody>",
        rows.len()
    )?;
    for row in rows {
        write!(
            out,
            "<tr class=\"{}\"><th scope=\"row\">{}</th><td data-l=\"state\" class=\"state\"><b>{}</b> \
             <span class=\"soft\">for {}</span>",
            row.level.name(),
            Escaped(row.partition.as_deref().unwrap_or("–")),
            Escaped(&row.state),
            Seconds(row.state_age_seconds)
        )?;
        if let Some(reason) = &row.reason {
            write!(out, "<p class=\"why\">{}</p>", Escaped(reason))?;
        }
        if row.halted_offset.is_some() {
            out.write_str("<div class=\"acts\">")?;
            skip(out, name, row)?;
            out.write_str("</div>")?;
        }
        write!(
            out,
            "</td><td data-l=\"lag\" class=\"num\">{}</td><td data-l=\"rate\" class=\"num\">{}</td>\
             <td data-l=\"durable\" class=\"num\">{}</td><td data-l=\"end\" class=\"num\">{}</td></tr>",
            Lag(row),
            Rate(row),
            Offset(row.durable_offset),
            Offset(row.stream_last_offset)
        )?;
    }
    out.write_str("</tbody></table>")
}

fn watches(out: &mut String, watches: &[WatchedRow]) -> fmt::Result {
    out.write_str(
        "<h2>References of other programs</h2>\n<table><thead><tr><th scope=\"col\">reference</th>\
         <th scope=\"col\">stream</th><th scope=\"col\">lag</th><th scope=\"col\">stored</th>\
         <th scope=\"col\">end</th><th scope=\"col\">retention may drop</th></tr></thead><tbody>\n",
    )?;
    for watch in watches {
        write!(
            out,
            "<tr class=\"{}\"><th scope=\"row\">{}",
            watch.level.name(),
            Escaped(&watch.reference)
        )?;
        if let Some(problem) = &watch.problem {
            write!(out, "<p class=\"why\">{}</p>", Escaped(problem))?;
        }
        writeln!(
            out,
            "</th><td data-l=\"stream\">{}</td><td data-l=\"lag\" class=\"num\">{}</td>\
             <td data-l=\"stored\" class=\"num\">{}</td><td data-l=\"end\" class=\"num\">{}</td>\
             <td data-l=\"retention may drop\" class=\"num\">{}</td></tr>",
            Escaped(&watch.stream),
            Behind(watch.lag_messages, watch.lag_seconds),
            Offset(watch.stored_offset),
            Offset(watch.stream_last_offset),
            Headroom(watch.headroom_messages)
        )?;
    }
    out.write_str("</tbody></table>\n")
}

fn messages(count: f64) -> String {
    let unit = if (0.995..1.005).contains(&count) { "message" } else { "messages" };
    format!("{} {unit}", Count(count))
}

/// A value for people, with the exact one as its title.
struct Exactly<A, B>(A, B);

impl<A: Display, B: Display> Display for Exactly<A, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<span title=\"{}\">{}</span>", self.1, self.0)
    }
}

const UNKNOWN: &str = "<span title=\"not known\">–</span>";

struct Lag<'a>(&'a Row);

impl Display for Lag<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Behind(self.0.lag_messages, self.0.lag_seconds).fmt(f)
    }
}

/// Messages and seconds.
struct Behind(Option<u64>, Option<f64>);

impl Display for Behind {
    #[allow(clippy::cast_precision_loss)]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0, self.1) {
            (Some(0), Some(seconds)) if seconds <= 0.0 => {
                f.write_str("<span title=\"0 messages\">none</span>")
            }
            (Some(count), seconds) => {
                let exact = format!(
                    "{} messages, {}",
                    Exact(count.into()),
                    seconds.map_or("age unknown".to_owned(), |seconds| format!("{seconds:.1} s"))
                );
                let age = seconds.filter(|seconds| *seconds > 0.0);
                match age {
                    Some(age) if count == 0 => {
                        // Nothing was waiting when the stream was last seen.
                        write!(f, "{}", Exactly(format_args!("none {} ago", Seconds(age)), exact))
                    }
                    Some(age) => write!(
                        f,
                        "{}",
                        Exactly(
                            format_args!("{}, {}", messages(count as f64), Seconds(age)),
                            exact
                        )
                    ),
                    None => write!(f, "{}", Exactly(messages(count as f64), exact)),
                }
            }
            (None, Some(seconds)) => write!(f, "{}", Seconds(seconds)),
            (None, None) => f.write_str(UNKNOWN),
        }
    }
}

struct Rate<'a>(&'a Row);

impl Display for Rate<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(count) = self.0.received_messages_per_second else { return f.write_str(UNKNOWN) };
        let bytes = self.0.received_bytes_per_second.unwrap_or(0.0);
        let exact = format!("{count:.2} messages/s, {bytes:.0} bytes/s");
        match count > 0.0 {
            true => {
                write!(
                    f,
                    "{}",
                    Exactly(format_args!("{}/s, {}/s", Count(count), Bytes(bytes)), exact)
                )
            }
            false => write!(f, "{}", Exactly("0/s", exact)),
        }
    }
}

struct Offset(Option<u64>);

impl Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(offset) => write!(f, "{}", Exactly(Exact(offset.into()), offset)),
            None => f.write_str(UNKNOWN),
        }
    }
}

struct Headroom(Option<i64>);

impl Display for Headroom {
    #[allow(clippy::cast_precision_loss)]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(left) if left < 0 => {
                let lost = left.unsigned_abs();
                let text = messages(lost as f64);
                write!(f, "{}", Exactly(format_args!("lost: {text}"), Exact(left.into())))
            }
            Some(left) => {
                write!(f, "{}", Exactly(messages(left as f64), Exact(left.into())))
            }
            None => f.write_str(UNKNOWN),
        }
    }
}

struct Memory<'a>(&'a Row);

impl Display for Memory<'_> {
    #[allow(clippy::cast_precision_loss)]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (now, most) = (self.0.buffered_bytes, self.0.memory_bound_bytes);
        let exact = format!("{} of {} bytes", Exact(now.into()), Exact(most.into()));
        let text = format_args!("{} of {}", Bytes(now as f64), Bytes(most as f64)).to_string();
        write!(f, "{}", Exactly(text, exact))
    }
}

/// Text, escaped for HTML.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '&' => f.write_str("&amp;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                '`' => f.write_str("&#96;")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}
