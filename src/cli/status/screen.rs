//! `status --watch` on a terminal: the alternate screen, drawn again every second, and left as it was.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use console::{Term, truncate_str};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::EVERY;
use super::table::{self, Look};
use crate::admin::status::Status;

/// Escape sequences: the alternate screen without a cursor; and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
/// The first place; the rest of a line, and of the screen.
const HOME: &str = "\x1b[H";
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";

/// Time between two looks at the signals and at the size of the terminal.
const TURN: Duration = Duration::from_millis(50);

/// The alternate screen, until this is dropped.
struct Screen;

impl Drop for Screen {
    fn drop(&mut self) {
        // Nothing can be done if the terminal has gone.
        table::print(LEAVE).unwrap_or_default();
    }
}

/// Draws until a signal ends it.
pub(super) fn watch(
    first: Status,
    partitions: bool,
    mut ask: impl FnMut() -> anyhow::Result<Status>,
) -> anyhow::Result<()> {
    let over = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&over))?;
    }
    let term = Term::stdout();
    let _screen = Screen;
    if !table::print(ENTER)? {
        return Ok(());
    }
    let mut status = first;
    let mut seen = Instant::now();
    let mut trouble: Option<String> = None;
    while !over.load(Ordering::Relaxed) {
        let size = term.size();
        if !table::print(&frame(&status, trouble.as_deref(), seen.elapsed(), partitions, size))? {
            return Ok(());
        }
        let drawn = Instant::now();
        // A terminal of another size is drawn at once.
        while drawn.elapsed() < EVERY && !over.load(Ordering::Relaxed) && term.size() == size {
            std::thread::sleep(TURN);
        }
        if drawn.elapsed() < EVERY {
            continue;
        }
        match ask() {
            Ok(now) => (status, seen, trouble) = (now, Instant::now(), None),
            Err(error) => trouble = Some(format!("{error:#}")),
        }
    }
    Ok(())
}

/// One picture: as many lines as there is room for.
fn frame(
    status: &Status,
    trouble: Option<&str>,
    age: Duration,
    partitions: bool,
    (height, width): (u16, u16),
) -> String {
    let (height, width) = (usize::from(height).max(2), usize::from(width).max(10));
    let look = Look { width: Some(width), colours: console::colors_enabled(), partitions };
    let mut lines = Vec::new();
    if let Some(trouble) = trouble {
        let text = format!("NO ANSWER for {} s: {trouble}", age.as_secs());
        lines.push(truncate_str(&text, width, "…").into_owned());
    }
    lines.extend(table::lines(status, &look));
    let room = height - 1;
    let left_out = lines.len().saturating_sub(room);
    lines.truncate(room);
    let foot = match left_out {
        0 => format!("rillway {}  Ctrl-C ends this", status.version),
        _ => format!("{left_out} more lines: make the terminal higher  Ctrl-C ends this"),
    };
    lines.push(truncate_str(&foot, width, "…").into_owned());
    let drawn = lines.join(&format!("{CLEAR_LINE}\r\n"));
    format!("{HOME}{drawn}{CLEAR_LINE}{CLEAR_BELOW}")
}
