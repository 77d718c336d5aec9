//! `rillway status` on a terminal, seen by an emulator of one; into a pipe; and as JSON.

use std::fmt::Write as _;
use std::io::Read;
use std::num::NonZeroU16;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use vt100::{Color, Parser, Screen};

use super::{Scene, pictures};
use crate::common::python;
use crate::common::skip::{Unavailable, or_skip};

/// A program on a terminal of this size.
struct Terminal {
    child: Child,
    output: Receiver<Vec<u8>>,
    emulator: Parser,
}

impl Terminal {
    fn start(python: &Path, command: &Command, (rows, columns): (u16, u16)) -> Terminal {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/terminal.py");
        let mut run = Command::new(python);
        run.arg(script).arg("-").arg(command.get_program()).args(command.get_args());
        run.env("TERMINAL_SIZE", format!("{rows} {columns}")).env("TERM", "xterm-256color");
        run.env_remove("NO_COLOR").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = run.spawn().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let (send, output) = sync_channel(64);
        std::thread::spawn(move || {
            let mut buffer = [0; 8192];
            while let Ok(n @ 1..) = stdout.read(&mut buffer) {
                if send.send(buffer[..n].to_vec()).is_err() {
                    return;
                }
            }
        });
        let size = |of: u16| NonZeroU16::new(of).unwrap();
        Terminal { child, output, emulator: Parser::new(size(rows), size(columns), 0) }
    }

    /// Reads on until the screen is as wanted.
    fn until(&mut self, what: &str, wanted: impl Fn(&Screen) -> bool) {
        let began = Instant::now();
        while !wanted(self.emulator.screen()) {
            match self.output.recv_timeout(Duration::from_millis(200)) {
                Ok(bytes) => self.emulator.process(&bytes),
                Err(RecvTimeoutError::Timeout) if began.elapsed() < Duration::from_secs(60) => {}
                Err(error) => panic!("{what}: {error}\n{}", self.emulator.screen().contents()),
            }
        }
    }

    fn text(&self) -> String {
        self.emulator.screen().contents()
    }

    /// Ends the program as `kill` does, and reads what it still writes.
    fn end(mut self) -> (Parser, Option<i32>) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        while let Ok(bytes) = self.output.recv_timeout(Duration::from_secs(60)) {
            self.emulator.process(&bytes);
        }
        (self.emulator, self.child.wait().unwrap().code())
    }
}

/// The screen as an SVG picture.
fn picture(screen: &Screen, scene: &Scene) -> String {
    const WIDTH: f64 = 8.4;
    const HEIGHT: f64 = 18.0;
    let columns = screen.size().1.get();
    let is_empty = |row: &u16| {
        (0..columns).all(|column| {
            screen.cell(*row, column).is_none_or(|cell| cell.contents().trim().is_empty())
        })
    };
    let rows =
        (0..screen.size().0.get()).rev().find(|row| !is_empty(row)).map_or(0, |last| last + 1);
    // The tests' streams have names of their own for each run.
    let short = |text: String, name: &str, short: &str| {
        text.replace(name, &format!("{short:<0$}", name.len()))
    };
    let (width, height) = (f64::from(columns) * WIDTH + 16.0, f64::from(rows) * HEIGHT + 16.0);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" font-family=\"monospace\" \
         font-size=\"14\">\n<rect width=\"100%\" height=\"100%\" rx=\"6\" fill=\"#0d1117\"/>\n"
    );
    for row in 0..rows {
        let mut spans: Vec<(u16, &str, String)> = Vec::new();
        for column in 0..columns {
            let Some(cell) = screen.cell(row, column) else { continue };
            let fill = match cell.fgcolor() {
                Color::Idx(1 | 9) => "#ff8d85",
                Color::Idx(2 | 10) => "#5fd07d",
                Color::Idx(3 | 11) => "#f0b54d",
                _ if cell.dim() => "#9aa4af",
                _ => "#e6edf3",
            };
            let text = if cell.has_contents() { cell.contents() } else { " " };
            match spans.last_mut() {
                Some((_, last, span)) if *last == fill => span.push_str(text),
                _ => spans.push((column, fill, text.to_owned())),
            }
        }
        let y = f64::from(row) * HEIGHT + 22.0;
        for (column, fill, text) in spans.iter().filter(|(.., text)| !text.trim().is_empty()) {
            let x = f64::from(*column) * WIDTH + 8.0;
            let length = text.chars().count() as f64 * WIDTH;
            let text = short(short(text.clone(), &scene.events, "events"), &scene.odd, "odd");
            let text = text.replace('&', "&amp;").replace('<', "&lt;");
            writeln!(
                out,
                "<text x=\"{x:.1}\" y=\"{y:.0}\" fill=\"{fill}\" textLength=\"{length:.1}\" xml:space=\"preserve\">{text}</text>"
            )
            .unwrap();
        }
    }
    out + "</svg>\n"
}

async fn on_a_terminal() -> Result<(), Unavailable> {
    let python = python::of("browser")?;
    let scene = Scene::set("terminal").await?;
    let status = |arguments: &[&str]| scene.home.command(&[&["status"], arguments].concat());

    // A wide one: everything is there, and the worst is first and red.
    let watch = status(&["--watch"]);
    let mut wide = Terminal::start(&python, &watch, (50, 120));
    wide.until("all consumers are shown", |screen| screen.contents().contains("passive"));
    let text = wide.text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "2 of 30 consumers need attention: 1 has halted and 1 lags.", "{text}");
    assert!(lines[3].starts_with("✗ halted"), "{text}");
    let lagging = lines.iter().position(|line| line.starts_with("! lagging")).unwrap();
    let first = lines.iter().position(|line| line.starts_with("✓ consumer-01")).unwrap();
    let passive = lines.iter().position(|line| line.starts_with("· passive")).unwrap();
    assert!(3 < lagging && lagging < first && first < passive, "{text}");
    let screen = wide.emulator.screen();
    assert_eq!(screen.cell(3, 2).unwrap().fgcolor(), Color::Idx(1), "{text}");
    assert!(screen.alternate_screen() && screen.hide_cursor());
    if std::env::var_os("UPDATE_SCREENSHOTS").is_some() {
        let folder = pictures(&scene.home);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("status-terminal.svg"), picture(screen, &scene)).unwrap();
    }
    // A change is shown.
    let pause = scene.home.command(&["pause", "consumer-07"]).output().unwrap();
    assert!(pause.status.success(), "{}", String::from_utf8_lossy(&pause.stderr));
    wide.until("the pause is shown", |screen| screen.contents().contains("! consumer-07"));
    let resume = scene.home.command(&["resume", "consumer-07"]).output().unwrap();
    assert!(resume.status.success(), "{}", String::from_utf8_lossy(&resume.stderr));
    wide.until("it runs again", |screen| screen.contents().contains("✓ consumer-07"));
    let (after, code) = wide.end();
    assert_eq!(code, Some(0));
    assert!(!after.screen().alternate_screen() && !after.screen().hide_cursor(), "left as it was");

    // A narrow one: fewer columns, and no line is broken.
    let mut narrow = Terminal::start(&python, &watch, (20, 44));
    narrow.until("the foot is shown", |screen| screen.contents().contains("more lines"));
    let text = narrow.text();
    assert!(text.contains("✗ halted") && text.contains("! lagging"), "{text}");
    assert!(!text.contains("rate") && !text.contains("stream "), "{text}");
    narrow.end();

    // Into a pipe: the whole table, without colours.
    let piped = status(&[]).output().unwrap();
    let text = String::from_utf8(piped.stdout).unwrap();
    assert!(piped.status.success() && !text.contains('\x1b'), "{text}");
    assert_eq!(text.lines().filter(|line| line.starts_with(['✗', '!', '✓', '·'])).count(), 30);
    let json = status(&["--json"]).output().unwrap();
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["consumers"].as_array().unwrap().len(), 30);
    assert_eq!(json["consumers"][0]["name"], "halted");
    let both = status(&["--json", "--watch"]).output().unwrap();
    assert_eq!(both.status.code(), Some(64), "{}", String::from_utf8_lossy(&both.stderr));
    let nobody = status(&["--url", "http://127.0.0.1:1"]).output().unwrap();
    assert_eq!(nobody.status.code(), Some(69), "{}", String::from_utf8_lossy(&nobody.stderr));
    scene.end().await;
    Ok(())
}

#[tokio::test]
async fn the_status_on_a_terminal() {
    or_skip!(on_a_terminal().await);
}
