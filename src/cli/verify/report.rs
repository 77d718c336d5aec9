//! The report of `rillway verify`, as text and as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::audit::ranges::Ranges;
use crate::audit::{Findings, Tally};
use crate::cli::exit::Failure;
use crate::types::Offset;

/// The report of one consumer.
pub(super) struct Report {
    consumer: String,
    /// What was found in each stream.
    pub(super) streams: Vec<StreamReport>,
    /// Why others could not be compared.
    pub(super) failed: Vec<String>,
}

/// The report of one stream.
pub(super) struct StreamReport {
    stream: String,
    found: Findings,
    show: usize,
}

impl Report {
    pub(super) fn new(consumer: &str) -> Report {
        Report { consumer: consumer.to_owned(), streams: Vec::new(), failed: Vec::new() }
    }

    fn is_same(&self) -> bool {
        self.streams.iter().all(|stream| stream.found.is_same())
    }

    pub(super) fn json(&self) -> anyhow::Result<String> {
        let streams: Vec<Value> = self.streams.iter().map(StreamReport::json).collect();
        let report = json!({
            "consumer": self.consumer,
            "same": self.is_same(),
            "complete": self.is_complete(),
            "streams": streams,
            "failed": self.failed,
        });
        Ok(format!("{report:#}\n"))
    }

    fn is_complete(&self) -> bool {
        self.failed.is_empty() && !self.streams.iter().any(StreamReport::was_stopped)
    }

    pub(super) fn text(&self, show: usize) -> String {
        let mut text = String::new();
        for stream in &self.streams {
            stream.text(&self.consumer, show, &mut text);
        }
        text
    }

    /// The result of the command. A difference counts more than what could not be compared.
    pub(super) fn result(self, failed: Option<Failure>) -> anyhow::Result<()> {
        if !self.is_same() {
            let differing = self.streams.iter().filter(|stream| !stream.found.is_same());
            let named: Vec<_> = differing.map(|one| format!("{:?}", one.stream)).collect();
            let mut what = format!(
                "the sink of consumer {:?} does not hold what stream {} does",
                self.consumer,
                named.join(" and ")
            );
            for failed in &self.failed {
                what.push_str(&format!("\nnot compared: {failed}"));
            }
            return Err(Failure::Differs(what).into());
        }
        let what = self.failed.join("\n");
        match failed {
            Some(Failure::Usage(_)) => Err(Failure::Usage(what).into()),
            Some(_) => Err(Failure::Unavailable(what).into()),
            None if self.is_complete() => Ok(()),
            None => {
                let what = "stopped before the end: nothing differs as far as it was compared";
                Err(Failure::unavailable(what).into())
            }
        }
    }
}

impl StreamReport {
    pub(super) fn new(stream: &str, found: Findings, show: usize) -> StreamReport {
        StreamReport { stream: stream.to_owned(), found, show }
    }

    /// True if it was stopped before its end.
    pub(super) fn was_stopped(&self) -> bool {
        self.found.was_stopped
    }

    /// The offsets of each kind of difference, with its name and meaning.
    fn kinds(&self) -> [(&'static str, &Ranges, &'static str); 5] {
        let Tally { missing, doubled, misplaced, extra, .. } = &self.found.tally;
        [
            ("missing", missing, "in the stream, but not in the sink"),
            ("doubled", doubled, "in the sink more than once"),
            ("altered", &self.found.altered, "not as the sink writes it"),
            ("misplaced", misplaced, "not in the order of the stream"),
            ("extra", extra, "in the sink, where nothing should be"),
        ]
    }

    fn json(&self) -> Value {
        let Findings { span, tally, examples, notes, was_stopped, .. } = &self.found;
        let ranges =
            |ranges: &Ranges| json!({ "count": ranges.count(), "ranges": ranges.first(self.show) });
        let because = |reasons: &[(Offset, String)]| -> Vec<Value> {
            let reasons = reasons.iter().take(self.show);
            reasons.map(|(at, why)| json!({ "offset": at.0, "why": why })).collect()
        };
        let examples: Vec<Value> = examples
            .iter()
            .map(|(at, differences)| {
                let differences: Vec<Value> = differences
                    .iter()
                    .map(|d| json!({ "part": d.part, "expected": d.expected, "found": d.found }))
                    .collect();
                json!({ "offset": at.0, "differences": differences })
            })
            .collect();
        let mut report = json!({
            "stream": self.stream,
            "from": span.from.0,
            "to": span.to.0,
            "complete": !was_stopped,
            "reached": tally.reached.map(|at| at.0),
            "same": tally.same,
        });
        if let Value::Object(report) = &mut report {
            for (name, found, _) in self.kinds() {
                report.insert(name.to_owned(), ranges(found));
            }
            let others = [
                ("surplus_copies", json!(tally.surplus)),
                ("altered_examples", json!(examples)),
                ("missing_because", json!(because(&tally.missing_because))),
                ("extra_because", json!(because(&tally.extra_because))),
                (
                    "unreadable",
                    json!({ "count": tally.unreadable_count, "places": tally.unreadable }),
                ),
                (
                    "foreign",
                    json!({ "count": tally.foreign_count, "target_offsets": tally.foreign }),
                ),
                ("dead_letters", ranges(&tally.dead_letters)),
                ("left_out", ranges(&tally.left_out)),
                ("filtered", json!(tally.unwanted)),
                ("superseded", json!(tally.superseded)),
                ("not_compared", ranges(&tally.unknown)),
                ("notes", json!(notes)),
            ];
            report.extend(others.map(|(name, value)| (name.to_owned(), value)));
        }
        report
    }

    fn text(&self, consumer: &str, show: usize, out: &mut String) {
        // Writing to a String never fails.
        self.write(consumer, show, out).unwrap_or_default();
    }

    fn write(&self, consumer: &str, show: usize, out: &mut String) -> std::fmt::Result {
        let Findings { span, tally, examples, notes, was_stopped, .. } = &self.found;
        let (from, to) = (span.from, span.to);
        writeln!(out, "consumer {consumer:?}, stream {:?}: offsets {from} to {to}", self.stream)?;
        writeln!(out, "  same: {}", tally.same)?;
        for (name, found, meaning) in self.kinds() {
            if found.count() == 0 {
                continue;
            }
            writeln!(out, "  {name}: {} ({meaning}): {}", found.count(), found.text(show))?;
            if name == "doubled" && tally.surplus > found.count() {
                writeln!(out, "    {} copies too many", tally.surplus)?;
            }
            if name == "altered" {
                for (at, differences) in examples.iter().take(show) {
                    for d in differences {
                        let (part, expected, found) = (&d.part, &d.expected, &d.found);
                        writeln!(out, "    {at}: {part}: expected {expected}, found {found}")?;
                    }
                }
            }
            let because = match name {
                "missing" => &tally.missing_because,
                "extra" => &tally.extra_because,
                _ => &Vec::new(),
            };
            for (at, why) in because.iter().take(show) {
                writeln!(out, "    {at}: {why}")?;
            }
        }
        if tally.foreign_count > 0 {
            let places: Vec<_> = tally.foreign.iter().take(show).map(ToString::to_string).collect();
            let places = places.join(", ");
            let count = tally.foreign_count;
            writeln!(
                out,
                "  foreign: {count} (not from this stream), at offset of the target, or in the file of offset: {places}"
            )?;
        }
        if tally.unreadable_count > 0 {
            writeln!(out, "  unreadable: {}", tally.unreadable_count)?;
            for place in tally.unreadable.iter().take(show) {
                writeln!(out, "    {place}")?;
            }
        }
        for (name, found) in [
            ("dead letters, so not in the sink", &tally.dead_letters),
            ("left out, because the sink cannot write them", &tally.left_out),
            (
                "not compared, because retention has taken them or they cannot be read",
                &tally.unknown,
            ),
        ] {
            if found.count() > 0 {
                writeln!(out, "  {name}: {}: {}", found.count(), found.text(show))?;
            }
        }
        if tally.unwanted > 0 {
            writeln!(out, "  left out by the filter: {}", tally.unwanted)?;
        }
        if tally.superseded > 0 {
            let count = tally.superseded;
            writeln!(
                out,
                "  without a row, as a later message has their key, or they delete it: {count}"
            )?;
        }
        for note in notes {
            writeln!(out, "  note: {note}")?;
        }
        let sure = match (self.found.is_same(), was_stopped) {
            (true, false) => "the sink holds what the stream does".to_owned(),
            (false, false) => "the sink differs".to_owned(),
            (_, true) => match tally.reached {
                Some(reached) => format!("stopped at offset {reached}"),
                None => "stopped before anything was compared".to_owned(),
            },
        };
        writeln!(out, "  {sure}")
    }
}
