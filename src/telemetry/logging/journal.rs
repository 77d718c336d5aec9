//! journald's native protocol: an event is one datagram with its fields, each searchable
//! (`journalctl CONSUMER=archiver OFFSET=17`).
//!
//! A field is a line `NAME=value`. The protocol's other form, for values with line breaks, is never needed,
//! because a [`Lines`](super::line::Lines) escapes them. `MESSAGE` is the whole event as the configured format
//! has it, since that is all that `journalctl` shows by default. journald itself adds the time, the process and
//! the unit (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>).
//!
//! Invariant: an event that journald does not take (it is not there, or the event is too large for a datagram)
//! goes to standard error, which the journal reads too, with its priority and without fields.

use std::fmt;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value};
use tracing_subscriber::fmt::MakeWriter;

/// Socket of the journal of this service, also in a journal namespace.
pub(super) const JOURNALD: &str = "/run/systemd/journal/socket";

/// Longest time that an event may wait for room in journald's queue.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);

/// Longest name of a field that journald keeps.
const NAME_BYTES_MAX: usize = 64;

/// Form in which the journal takes an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Journal {
    /// A line on standard error that begins with its priority: `<4>`.
    Line,
    /// A datagram of fields.
    Fields,
}

/// Destination of the log.
#[derive(Debug)]
pub(super) enum Output {
    /// Lines on standard error.
    Lines,
    /// Lines on standard error, with priorities: it is the journal, whose socket cannot be reached.
    Priorities,
    /// Datagrams to journald at this path.
    Journald(UnixDatagram, PathBuf),
}

impl Output {
    /// journald at this socket, or else standard error with priorities.
    pub(super) fn to_journald(path: impl AsRef<Path>) -> Output {
        let path = path.as_ref();
        let open = || {
            UnixDatagram::unbound()?.connect(path)?;
            // Not connected: journald may be started anew, with a new socket.
            let socket = UnixDatagram::unbound()?;
            socket.set_write_timeout(Some(SEND_TIMEOUT))?;
            io::Result::Ok(Output::Journald(socket, path.to_owned()))
        };
        open().unwrap_or(Output::Priorities)
    }

    /// Form of an event, if the journal takes it.
    pub(super) fn journal(&self) -> Option<Journal> {
        match self {
            Output::Lines => None,
            Output::Priorities => Some(Journal::Line),
            Output::Journald(..) => Some(Journal::Fields),
        }
    }
}

impl<'a> MakeWriter<'a> for Output {
    type Writer = Sender<'a>;

    fn make_writer(&'a self) -> Sender<'a> {
        Sender(self)
    }
}

/// Writer of one event, which tracing passes on in one call.
pub(super) struct Sender<'a>(&'a Output);

impl io::Write for Sender<'_> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        match self.0 {
            Output::Lines | Output::Priorities => io::stderr().write_all(event)?,
            Output::Journald(socket, path) => {
                if socket.send_to(event, path).is_err() {
                    io::stderr().write_all(as_line(event).as_bytes())?;
                }
            }
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// The event as a line with its priority.
fn as_line(event: &[u8]) -> String {
    let event = String::from_utf8_lossy(event);
    let value = |name: &str| event.lines().find_map(|line| line.strip_prefix(name));
    let (priority, message) = (value("PRIORITY=").unwrap_or("6"), value("MESSAGE="));
    format!("<{priority}>{}\n", message.unwrap_or_default())
}

/// Writes the fields of an event behind its `MESSAGE`. A value has no control characters.
pub(super) fn write_fields(
    writer: &mut impl fmt::Write,
    priority: u8,
    target: &str,
    fields: &Map<String, Value>,
    mut write_value: impl FnMut(&mut dyn fmt::Write, &Value) -> fmt::Result,
) -> fmt::Result {
    write!(writer, "PRIORITY={priority}\nSYSLOG_IDENTIFIER=rillway\nTARGET={target}\n")?;
    for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
        write!(writer, "{}=", field_name(name))?;
        write_value(writer, value)?;
        writer.write_char('\n')?;
    }
    Ok(())
}

/// Name as journald accepts it: capitals, digits and underscores, and no underscore or digit in front, which mark
/// fields of its own or are not allowed.
fn field_name(name: &str) -> String {
    let mut upper = String::new();
    for c in name.chars().take(NAME_BYTES_MAX) {
        upper.push(if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' });
    }
    let starts = |c: char| c.is_ascii_uppercase();
    match upper.starts_with(starts) {
        true => upper,
        false => {
            upper.insert(0, 'F');
            upper.truncate(NAME_BYTES_MAX);
            upper
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn names_are_such_as_journald_keeps() {
        let long = "x".repeat(70);
        for (name, field) in [
            ("consumer", "CONSUMER"),
            ("wait_ms", "WAIT_MS"),
            ("log.target", "LOG_TARGET"),
            ("_private", "F_PRIVATE"),
            ("7th", "F7TH"),
            ("größe", "GR__E"),
            ("", "F"),
            (long.as_str(), &long.to_uppercase()[..64]),
        ] {
            assert_eq!(field_name(name), field, "{name}");
        }
    }

    #[test]
    fn an_event_is_one_datagram() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        assert_eq!(Output::to_journald(&path).journal(), Some(Journal::Line), "nobody is there");
        let journald = UnixDatagram::bind(&path).unwrap();
        let output = Output::to_journald(&path);
        assert_eq!(output.journal(), Some(Journal::Fields));
        for event in [&b"MESSAGE=one\nPRIORITY=4\n"[..], b"MESSAGE=two\nPRIORITY=6\n"] {
            output.make_writer().write_all(event).unwrap();
            let mut received = [0; 100];
            let length = journald.recv(&mut received).unwrap();
            assert_eq!(&received[..length], event);
        }
        // Started anew.
        drop(journald);
        std::fs::remove_file(&path).unwrap();
        let journald = UnixDatagram::bind(&path).unwrap();
        output.make_writer().write_all(b"MESSAGE=three\n").unwrap();
        assert_eq!(journald.recv(&mut [0; 100]).unwrap(), "MESSAGE=three\n".len());
    }

    #[test]
    fn what_journald_does_not_take_is_a_line_with_its_priority() {
        let event = b"MESSAGE=no room for=it\nPRIORITY=3\nCONSUMER=c\n";
        assert_eq!(as_line(event), "<3>no room for=it\n");
    }
}
