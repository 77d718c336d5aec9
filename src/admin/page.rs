//! The status page: a table in plain HTML, made on the server. No script, nothing loaded from other
//! hosts, and all foreign text escaped.

use std::fmt::{self, Display, Write};
use std::time::Duration;

use super::overview::{ConsumerView, WatchView};

/// Interval at which the browser reloads the page.
const REFRESH_SECONDS: u32 = 5;

const STYLE: &str = "body{font:14px/1.5 system-ui,sans-serif;margin:2rem;color:#1b1f24}\
    table{border-collapse:collapse}th,td{padding:.3rem .8rem;text-align:left;\
    border-bottom:1px solid #d8dde3}td.n{text-align:right;font-variant-numeric:tabular-nums}\
    tr.bad td{background:#fdecea}p.why{margin:0;color:#9a1c12;max-width:60rem}";

/// Explanation below the table.
const LEGEND: &str = "lag = end − durable, at the same moment, not counting the broker's \
    own chunks at the end (stored offsets): a consumer that has caught up has no lag, even if its end \
    is above the durable offset.";

/// Explanation below the table of watched references.
const WATCH_LEGEND: &str = "lag = end − stored: what their owners have not stored yet. No value means \
    that it is not known.";

/// Age from which a row shows when the stream's end was last seen.
const SEEN_LONG_AGO_SECONDS: f64 = 10.0;

/// The complete page.
pub(super) fn render(consumers: &[ConsumerView], watches: &[WatchView]) -> String {
    let mut out = String::new();
    // Writing to a String does not fail.
    write(&mut out, consumers, watches).map_or_else(|_| String::new(), |()| out)
}

fn write(out: &mut String, consumers: &[ConsumerView], watches: &[WatchView]) -> fmt::Result {
    let ready = consumers.iter().filter(|c| c.ready).count();
    write!(
        out,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta http-equiv=\"refresh\" content=\"{REFRESH_SECONDS}\">\
         <title>rillway: {ready} of {all} ready</title><style>{STYLE}</style></head><body>\n\
         <h1>rillway {version}</h1>\n<p>{ready} of {all} consumers ready. \
         <a href=\"/metrics\">metrics</a> · <a href=\"/readyz\">readiness</a> · \
         <a href=\"/api/v1/consumers\">JSON</a></p>\n\
         <table><thead><tr><th>consumer</th><th>stream</th><th>sink</th><th>guarantee</th>\
         <th>state</th><th>durable</th><th>stored</th><th>end</th><th>lag</th><th>lag, s</th>\
         <th>headroom</th><th>restarts</th><th>buffered</th></tr></thead><tbody>\n",
        all = consumers.len(),
        version = env!("CARGO_PKG_VERSION"),
    )?;
    for consumer in consumers {
        row(out, consumer)?;
    }
    out.write_str("</tbody></table>\n<p>")?;
    out.write_str(LEGEND)?;
    out.write_str("</p>\n")?;
    if !watches.is_empty() {
        out.write_str(
            "<h2>References of other programs</h2>\n<table><thead><tr><th>reference</th>\
             <th>stream</th><th>stored</th><th>end</th><th>lag</th><th>lag, s</th><th>headroom</th>\
             </tr></thead><tbody>\n",
        )?;
        watches.iter().try_for_each(|watch| watch_row(out, watch))?;
        out.write_str("</tbody></table>\n<p>")?;
        out.write_str(WATCH_LEGEND)?;
        out.write_str("</p>\n")?;
    }
    out.write_str("</body></html>\n")
}

fn watch_row(out: &mut String, w: &WatchView) -> fmt::Result {
    write!(out, "<tr class=\"{}\">", if w.problem.is_none() { "ok" } else { "bad" })?;
    write!(out, "<td>{}", Escaped(w.reference.as_str()))?;
    if let Some(problem) = &w.problem {
        write!(out, "<p class=\"why\">{}</p>", Escaped(problem))?;
    }
    write!(out, "</td><td>{}</td>", Escaped(w.stream.as_str()))?;
    number(out, w.stored_offset)?;
    end(out, w.stream_last_offset, w.stream_seen_age_seconds)?;
    number(out, w.lag_messages)?;
    number(out, w.lag_seconds.map(|s| format!("{s:.1}")))?;
    number(out, w.headroom_messages)?;
    out.write_str("</tr>\n")
}

/// The last offset of a stream; with its age if it was seen long ago.
fn end(out: &mut String, last: Option<impl Display>, age: Option<f64>) -> fmt::Result {
    match age.filter(|age| *age >= SEEN_LONG_AGO_SECONDS) {
        Some(age) => {
            let end = last.map_or_else(|| "–".to_owned(), |end| end.to_string());
            number(out, Some(format!("{end}, seen {} ago", Span(age))))
        }
        None => number(out, last),
    }
}

fn row(out: &mut String, c: &ConsumerView) -> fmt::Result {
    write!(out, "<tr class=\"{}\">", if c.ready { "ok" } else { "bad" })?;
    write!(out, "<td>{}", Escaped(c.name.as_str()))?;
    if let Some(reason) = &c.reason {
        write!(out, "<p class=\"why\">{}</p>", Escaped(reason))?;
    }
    write!(
        out,
        "</td><td>{}</td><td>{}</td><td>{}</td><td>{}",
        Escaped(c.stream.as_str()),
        Escaped(c.sink),
        c.guarantee,
        c.state
    )?;
    if !c.ready {
        write!(out, " for {}", Span(c.ready_age_seconds))?;
    }
    out.write_str("</td>")?;
    number(out, c.durable_offset)?;
    number(out, c.stored_offset)?;
    end(out, c.stream_last_offset, c.stream_seen_age_seconds)?;
    number(out, c.lag_messages)?;
    number(out, c.lag_seconds.map(|s| format!("{s:.1}")))?;
    number(out, c.headroom_messages)?;
    number(out, Some(c.restarts))?;
    number(out, Some(c.buffered_bytes))?;
    out.write_str("</tr>\n")
}

fn number(out: &mut String, value: Option<impl Display>) -> fmt::Result {
    match value {
        Some(value) => write!(out, "<td class=\"n\">{value}</td>"),
        None => out.write_str("<td class=\"n\">–</td>"),
    }
}

/// A time span, shown in its two largest units.
struct Span(f64);

impl Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = Duration::try_from_secs_f64(self.0).unwrap_or_default().as_secs();
        match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60) {
            (0, 0, 0, s) => write!(f, "{s} s"),
            (0, 0, m, s) => write!(f, "{m} min {s} s"),
            (0, h, m, _) => write!(f, "{h} h {m} min"),
            (d, h, _, _) => write!(f, "{d} d {h} h"),
        }
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
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}
