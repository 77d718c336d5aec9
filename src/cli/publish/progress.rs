//! Progress on standard error: a bar on a terminal, plain lines elsewhere.

use std::cell::Cell;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Time between two plain lines.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// Number of times per second that a bar is redrawn.
const DRAWS_PER_SECOND: u8 = 10;

/// Shows how many messages are confirmed.
pub(super) struct Progress {
    total: Option<u64>,
    view: View,
}

enum View {
    Bar(ProgressBar),
    Lines { next: Cell<Instant> },
    Nothing,
}

impl Progress {
    pub(super) fn new(total: Option<u64>, quiet: bool) -> Progress {
        let view = if quiet {
            View::Nothing
        } else if std::io::stderr().is_terminal() {
            View::Bar(bar(total))
        } else {
            View::Lines { next: Cell::new(Instant::now() + LINE_EVERY) }
        };
        Progress { total, view }
    }

    /// Reports the number of confirmed messages.
    pub(super) fn confirmed(&self, confirmed: u64) {
        match &self.view {
            View::Bar(bar) => bar.set_position(confirmed),
            View::Lines { next } => {
                let now = Instant::now();
                if now >= next.get() {
                    next.set(now + LINE_EVERY);
                    match self.total {
                        Some(total) => eprintln!("{confirmed} of {total} confirmed"),
                        None => eprintln!("{confirmed} confirmed"),
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

    pub(super) fn finish(&self) {
        if let View::Bar(bar) = &self.view {
            bar.finish_and_clear();
        }
    }
}

fn bar(total: Option<u64>) -> ProgressBar {
    let (bar, template) = match total {
        Some(total) => (
            ProgressBar::new(total),
            "{wide_bar} {human_pos} of {human_len} confirmed, {per_sec}, {eta} to go",
        ),
        None => (ProgressBar::no_length(), "{spinner} {human_pos} confirmed, {per_sec}"),
    };
    bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(DRAWS_PER_SECOND));
    // The template is a constant; if it were wrong, the default bar would be used.
    bar.set_style(ProgressStyle::with_template(template).unwrap_or(ProgressStyle::default_bar()));
    bar
}
