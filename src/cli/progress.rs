//! Progress on standard error: a bar on a terminal, plain lines elsewhere.

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
    /// What is done with them, as in "confirmed".
    done: &'static str,
    view: View,
}

enum View {
    Bar(ProgressBar),
    Lines { next: Cell<Instant> },
    Nothing,
}

impl Progress {
    /// Progress to `total` messages, if that is known; nothing is shown if it is `quiet`.
    pub(super) fn new(total: Option<u64>, done: &'static str, quiet: bool) -> Progress {
        let view = if quiet {
            View::Nothing
        } else if std::io::stderr().is_terminal() {
            View::Bar(bar(total, done))
        } else {
            View::Lines { next: Cell::new(Instant::now() + LINE_EVERY) }
        };
        Progress { total, done, view }
    }

    /// Reports the number of messages that are done.
    pub(super) fn at(&self, count: u64) {
        let done = self.done;
        match &self.view {
            View::Bar(bar) => bar.set_position(count),
            View::Lines { next } => {
                let now = Instant::now();
                if now >= next.get() {
                    next.set(now + LINE_EVERY);
                    match self.total {
                        Some(total) => eprintln!("{count} of {total} {done}"),
                        None => eprintln!("{count} {done}"),
                    }
                }
            }
            View::Nothing => {}
        }
    }

    /// Prints a message for the user above the progress.
    pub(super) fn say(&self, text: &str) {
        match &self.view {
            View::Bar(bar) => bar.suspend(|| eprintln!("rillway: {text}")),
            View::Lines { .. } | View::Nothing => eprintln!("rillway: {text}"),
        }
    }

    /// Removes the bar.
    pub(super) fn finish(&self) {
        if let View::Bar(bar) = &self.view {
            bar.finish_and_clear();
        }
    }
}

fn bar(total: Option<u64>, done: &str) -> ProgressBar {
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
    bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(DRAWS_PER_SECOND));
    // If the template were wrong, the default bar would be used.
    bar.set_style(ProgressStyle::with_template(&template).unwrap_or(ProgressStyle::default_bar()));
    bar
}
