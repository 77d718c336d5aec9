//! Progress on standard error: a bar on a terminal, plain lines elsewhere. Both estimate how long it takes.

use std::cell::Cell;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Time between two plain lines.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// Number of times per second that a bar is redrawn.
const DRAWS_PER_SECOND: u8 = 10;

/// Shows how many messages are done.
pub(super) struct Progress {
    total: Option<u64>,
    /// What is done with a message, as in "confirmed".
    done: &'static str,
    /// When this run began, and how many were done before.
    began: Instant,
    before: u64,
    view: View,
}

enum View {
    Bar(ProgressBar),
    Lines { next: Cell<Instant> },
    Nothing,
}

impl Progress {
    /// `total` is how many there are in all, `None` if that is not known; `before` is how many were done
    /// by an earlier run.
    pub(super) fn new(
        total: Option<u64>,
        before: u64,
        done: &'static str,
        quiet: bool,
    ) -> Progress {
        let began = Instant::now();
        let view = if quiet {
            View::Nothing
        } else if std::io::stderr().is_terminal() {
            View::Bar(bar(total, before, done))
        } else {
            View::Lines { next: Cell::new(began + LINE_EVERY) }
        };
        Progress { total, done, began, before, view }
    }

    /// Reports the number that is done.
    pub(super) fn reached(&self, number: u64) {
        match &self.view {
            View::Bar(bar) => bar.set_position(number),
            View::Lines { next } => {
                let now = Instant::now();
                if now >= next.get() {
                    next.set(now + LINE_EVERY);
                    eprintln!("{}", self.line(number, now - self.began));
                }
            }
            View::Nothing => {}
        }
    }

    fn line(&self, number: u64, took: Duration) -> String {
        let Some(total) = self.total else { return format!("{number} {}", self.done) };
        let line = format!("{number} of {total} {}", self.done);
        let here = number.saturating_sub(self.before);
        if here == 0 {
            return line;
        }
        let left = total.saturating_sub(number) as f64 * took.as_secs_f64() / here as f64;
        format!("{line}, about {left:.0} s to go")
    }

    /// Prints a message for the user above the progress.
    pub(super) fn say(&self, text: &str) {
        match &self.view {
            View::Bar(bar) => bar.suspend(|| eprintln!("rillway: {text}")),
            View::Lines { .. } | View::Nothing => eprintln!("rillway: {text}"),
        }
    }

    pub(super) fn finish(&self) {
        if let View::Bar(bar) = &self.view {
            bar.finish_and_clear();
        }
    }
}

fn bar(total: Option<u64>, before: u64, done: &str) -> ProgressBar {
    let (bar, template) = match total {
        Some(total) => (
            ProgressBar::new(total),
            format!(
                "{{wide_bar}} {{human_pos}} of {{human_len}} {done}, {{per_sec}}, {{eta}} to go"
            ),
        ),
        None => {
            (ProgressBar::no_length(), format!("{{spinner}} {{human_pos}} {done}, {{per_sec}}"))
        }
    };
    bar.set_position(before);
    bar.reset_eta();
    bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(DRAWS_PER_SECOND));
    // The template is a constant; if it were wrong, the default bar would be used.
    bar.set_style(ProgressStyle::with_template(&template).unwrap_or(ProgressStyle::default_bar()));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_far_it_is_and_how_long_it_takes() {
        let of = |total, before| Progress::new(total, before, "replayed", true);
        let took = Duration::from_secs(10);
        assert_eq!(of(None, 0).line(7, took), "7 replayed");
        assert_eq!(of(Some(100), 0).line(0, took), "0 of 100 replayed");
        assert_eq!(of(Some(100), 0).line(25, took), "25 of 100 replayed, about 30 s to go");
        // What was done before says nothing of the rate.
        assert_eq!(of(Some(100), 50).line(75, took), "75 of 100 replayed, about 10 s to go");
    }
}
