//! Small charts of the last hour, as inline SVG.

use std::fmt::{self, Display, Write};

use super::super::overview::{HistoryView, PointView};
use super::messages;

/// Size of a chart, in units of its own.
const WIDTH: f64 = 240.0;
const HEIGHT: f64 = 40.0;

/// Length of the time axis in seconds.
const HOUR: f64 = 3600.0;

/// Points further apart than this in seconds are not joined: nothing was noted in between.
const GAP: f64 = 75.0;

/// One series over the last hour.
pub(super) struct Chart<'a> {
    /// What it shows, for those who cannot see it.
    pub(super) label: String,
    /// CSS class of the line.
    pub(super) class: &'static str,
    /// The points, the oldest first.
    pub(super) points: &'a [PointView],
    /// The series.
    pub(super) value: fn(&PointView) -> Option<f64>,
}

impl Chart<'_> {
    /// The largest value; `None` if none is known.
    pub(super) fn largest(&self) -> Option<f64> {
        self.points.iter().filter_map(|point| (self.value)(point)).reduce(f64::max)
    }

    /// Runs of points whose values are known, as coordinates.
    fn runs(&self) -> Vec<Vec<(f64, f64)>> {
        let largest = self.largest().unwrap_or(0.0).max(f64::MIN_POSITIVE);
        let mut runs: Vec<Vec<(f64, f64)>> = Vec::new();
        let mut before: Option<f64> = None;
        for point in self.points {
            let Some(value) = (self.value)(point) else {
                before = None;
                continue;
            };
            let age = point.age_seconds.clamp(0.0, HOUR);
            let place =
                (WIDTH - age / HOUR * WIDTH, HEIGHT - 1.0 - value / largest * (HEIGHT - 3.0));
            match (runs.last_mut(), before) {
                (Some(run), Some(before)) if before - point.age_seconds <= GAP => run.push(place),
                _ => runs.push(vec![place]),
            }
            before = Some(point.age_seconds);
        }
        runs
    }
}

impl Display for Chart<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "<svg class=\"chart {}\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" preserveAspectRatio=\"none\" role=\"img\" \
             aria-label=\"{}\">",
            self.class, self.label
        )?;
        for run in self.runs() {
            let mut line = String::new();
            for (nth, (x, y)) in run.iter().enumerate() {
                write!(line, "{}{x:.1} {y:.1}", if nth == 0 { "M" } else { "L" })?;
            }
            if let ([(x, y)], true) = (run.as_slice(), run.len() == 1) {
                // A single point is a short stroke.
                write!(line, "L{:.1} {y:.1}", x + 2.0)?;
            }
            let (first, last) = (run.first().map_or(0.0, |p| p.0), run.last().map_or(0.0, |p| p.0));
            write!(
                f,
                "<path class=\"area\" d=\"{line}L{last:.1} {HEIGHT}L{first:.1} {HEIGHT}Z\"/>"
            )?;
            write!(f, "<path class=\"line\" d=\"{line}\"/>")?;
        }
        f.write_str("</svg>")
    }
}

/// Points of several partitions as those of one consumer: sums, and the largest age. A value that one of
/// them does not have is not known.
pub(super) fn joined(histories: &[&HistoryView]) -> Vec<PointView> {
    let mut all: Vec<PointView> = histories.iter().flat_map(|one| one.points.clone()).collect();
    if histories.len() <= 1 {
        return all;
    }
    // Noted for all in one go, so the ages agree.
    all.sort_by(|a, b| b.age_seconds.total_cmp(&a.age_seconds));
    let mut points: Vec<PointView> = Vec::new();
    for point in all {
        match points.last_mut().filter(|last| last.age_seconds - point.age_seconds < 1.0) {
            None => points.push(point),
            Some(sum) => {
                let add = |a: Option<f64>, b: Option<f64>| Some(a? + b?);
                sum.lag_messages = add(sum.lag_messages, point.lag_messages);
                sum.lag_seconds =
                    sum.lag_seconds.zip(point.lag_seconds).map(|(a, b)| f64::max(a, b));
                sum.received_messages_per_second =
                    add(sum.received_messages_per_second, point.received_messages_per_second);
                sum.received_bytes_per_second =
                    add(sum.received_bytes_per_second, point.received_bytes_per_second);
            }
        }
    }
    points
}

pub(super) fn lag_chart(points: &[PointView]) -> Chart<'_> {
    let chart =
        Chart { label: String::new(), class: "lag", points, value: |point| point.lag_messages };
    let label = match chart.largest() {
        Some(most) => format!("Lag over the last hour: at most {}", messages(most)),
        None => "Lag over the last hour: not known yet".to_owned(),
    };
    Chart { label, ..chart }
}

pub(super) fn rate_chart(points: &[PointView]) -> Chart<'_> {
    let chart = Chart {
        label: String::new(),
        class: "rate",
        points,
        value: |point| point.received_messages_per_second,
    };
    let label = match chart.largest() {
        Some(most) => format!("Rate over the last hour: at most {}/s", messages(most)),
        None => "Rate over the last hour: not known yet".to_owned(),
    };
    Chart { label, ..chart }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_partitions_of_a_consumer_are_added_up_point_by_point() {
        let history = |points| HistoryView { name: "c".into(), stream: "s".into(), points };
        let some = [
            history(vec![point(90.0, Some(5.0)), point(60.0, Some(4.0)), point(30.0, Some(3.0))]),
            // Added later.
            history(vec![point(60.0, Some(1000.0)), point(30.0, Some(1000.0))]),
            history(vec![point(90.0, Some(0.0)), point(60.0, Some(0.0)), point(30.0, None)]),
        ];
        let points = joined(&some.iter().collect::<Vec<_>>());
        let seen: Vec<_> = points.iter().map(|p| (p.age_seconds, p.lag_messages)).collect();
        assert_eq!(seen, [(90.0, Some(5.0)), (60.0, Some(1004.0)), (30.0, None)]);
        assert_eq!(lag_chart(&points).label, "Lag over the last hour: at most 1,004 messages");
    }

    fn point(age_seconds: f64, lag: Option<f64>) -> PointView {
        PointView {
            age_seconds,
            lag_messages: lag,
            lag_seconds: lag,
            received_messages_per_second: None,
            received_bytes_per_second: None,
        }
    }

    fn chart(points: &[PointView]) -> Chart<'_> {
        Chart { label: "lag".into(), class: "lag", points, value: |point| point.lag_seconds }
    }

    #[test]
    fn what_is_not_known_is_a_gap_and_not_a_line() {
        let points = [
            point(300.0, Some(5.0)),
            point(270.0, Some(10.0)),
            point(240.0, None),
            point(210.0, Some(0.0)),
            // Nothing was noted for minutes.
            point(30.0, Some(2.0)),
            point(0.0, Some(2.0)),
        ];
        let runs = chart(&points).runs();
        assert_eq!(runs.iter().map(Vec::len).collect::<Vec<_>>(), [2, 1, 2]);
        assert_eq!(runs[2][1].0, WIDTH, "now is at the right");
        assert_eq!(runs[0][1].1, 2.0, "the largest is at the top");
        assert_eq!(runs[1][0].1, HEIGHT - 1.0, "0 is at the bottom");
    }

    #[test]
    fn nothing_known_is_an_empty_chart_and_zeros_are_a_line() {
        assert!(!chart(&[]).to_string().contains("<path"));
        assert!(!chart(&[point(0.0, None)]).to_string().contains("<path"));
        let text = chart(&[point(30.0, Some(0.0)), point(0.0, Some(0.0))]).to_string();
        assert!(text.contains("<path") && !text.contains("NaN"), "{text}");
        assert!(text.contains("aria-label=\"lag\""), "{text}");
    }
}
