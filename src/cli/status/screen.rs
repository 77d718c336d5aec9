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
    ask: impl FnMut() -> anyhow::Result<Status>,
) -> anyhow::Result<()> {
    let over = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&over))?;
    }
    let _screen = Screen;
    if !table::print(ENTER)? {
        return Ok(());
    }
    draw_on(&mut Real { term: Term::stdout(), over, ask }, first, partitions)
}

/// The terminal, the daemon and the clock that `status --watch` works with. A test has its own.
trait World {
    fn now(&self) -> Instant;
    fn wait(&mut self, time: Duration);
    /// True once a signal has come.
    fn is_over(&self) -> bool;
    /// Lines and columns.
    fn size(&self) -> (u16, u16);
    /// False if the terminal has gone.
    fn draw(&mut self, picture: &str) -> anyhow::Result<bool>;
    fn ask(&mut self) -> anyhow::Result<Status>;
}

struct Real<A> {
    term: Term,
    over: Arc<AtomicBool>,
    ask: A,
}

impl<A: FnMut() -> anyhow::Result<Status>> World for Real<A> {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn wait(&mut self, time: Duration) {
        std::thread::sleep(time);
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn size(&self) -> (u16, u16) {
        self.term.size()
    }

    fn draw(&mut self, picture: &str) -> anyhow::Result<bool> {
        table::print(picture)
    }

    fn ask(&mut self) -> anyhow::Result<Status> {
        (self.ask)()
    }
}

/// Draws, and asks every [`EVERY`], so that a change is shown after that time and twice that of an answer.
fn draw_on(world: &mut impl World, first: Status, partitions: bool) -> anyhow::Result<()> {
    let mut status = first;
    let (mut asked, mut seen) = (world.now(), world.now());
    let mut trouble: Option<String> = None;
    while !world.is_over() {
        let size = world.size();
        let age = world.now() - seen;
        if !world.draw(&frame(&status, trouble.as_deref(), age, partitions, size))? {
            return Ok(());
        }
        // A terminal of another size is drawn at once, which puts no question off.
        while world.now() - asked < EVERY && !world.is_over() && world.size() == size {
            world.wait(TURN);
        }
        if world.now() - asked < EVERY {
            continue;
        }
        let answer = world.ask();
        asked = world.now();
        match answer {
            Ok(now) => (status, seen, trouble) = (now, asked, None),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::status::Level;

    const CHANGED: &str = "Something has changed.";

    /// Terminal and daemon whose time passes only where something takes time.
    struct Simulated {
        began: Instant,
        now: Instant,
        /// When the status changes.
        change: Instant,
        /// Time that the daemon needs for an answer, and whether it answers.
        answer: Duration,
        answers: bool,
        /// True if somebody draws the window larger and smaller all the time.
        resized: bool,
        /// When what was waited for was drawn.
        shown: Option<Instant>,
        waits_for: &'static str,
    }

    fn status(verdict: &str) -> Status {
        let (version, verdict) = ("0.1.0".to_owned(), verdict.to_owned());
        Status { version, level: Level::Ok, verdict, consumers: Vec::new(), watches: Vec::new() }
    }

    impl World for Simulated {
        fn now(&self) -> Instant {
            self.now
        }

        fn wait(&mut self, time: Duration) {
            self.now += time;
        }

        fn is_over(&self) -> bool {
            self.shown.is_some() || self.now - self.began > Duration::from_secs(20)
        }

        fn size(&self) -> (u16, u16) {
            let turns = (self.now - self.began).as_millis() / 400;
            (50, if self.resized && turns % 2 == 1 { 100 } else { 120 })
        }

        fn draw(&mut self, picture: &str) -> anyhow::Result<bool> {
            if picture.contains(self.waits_for) {
                self.shown = Some(self.now);
            }
            Ok(true)
        }

        fn ask(&mut self) -> anyhow::Result<Status> {
            // What the answer says is decided first.
            let answer = status(if self.now >= self.change { CHANGED } else { "All is well." });
            self.now += self.answer;
            if self.answers { Ok(answer) } else { anyhow::bail!("nobody is there") }
        }
    }

    /// Time from a change to its picture, for changes at this and at any later time.
    fn slowest(answer_ms: u64, resized: bool, answers: bool, waits_for: &'static str) -> Duration {
        let times = (0..3_000).step_by(13).map(Duration::from_millis);
        let of = |time| {
            let began = Instant::now();
            let mut world = Simulated {
                began,
                now: began,
                change: began + time,
                answer: Duration::from_millis(answer_ms),
                answers,
                resized,
                shown: None,
                waits_for,
            };
            draw_on(&mut world, status("All is well."), false).unwrap();
            world.shown.expect("it is drawn") - world.change.min(world.shown.unwrap())
        };
        times.map(of).max().unwrap()
    }

    #[test]
    fn a_change_is_shown_within_two_seconds() {
        for resized in [false, true] {
            for answer_ms in [0, 100, 400] {
                let slowest = slowest(answer_ms, resized, true, CHANGED);
                assert!(slowest <= Duration::from_secs(2), "{answer_ms} {resized}: {slowest:?}");
                assert!(slowest >= EVERY, "{answer_ms} {resized}: {slowest:?}");
            }
        }
    }

    #[test]
    fn a_daemon_that_is_away_is_told_with_the_age_of_what_is_shown() {
        slowest(100, true, false, "NO ANSWER for 5 s: nobody is there");
    }
}
