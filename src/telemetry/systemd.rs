//! Talks to the service manager: READY, STATUS, STOPPING and WATCHDOG datagrams (sd_notify(3)).
//!
//! Without `NOTIFY_SOCKET` every call is a no-op. The watchdog is fed only while every loop turns
//! ([`super::heartbeat`]); a service that is stuck is thus restarted, and the log says which loop
//! it was.
//!
//! The protocol: one datagram of `KEY=VALUE` lines to the socket named by the variable: a path, or
//! `@NAME` for the abstract namespace.

use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use super::heartbeat::Heartbeats;

/// How long one datagram may wait for room in the manager's queue.
const SEND_TIMEOUT: Duration = Duration::from_millis(250);

/// How often [`watch`] looks at the loops where no watchdog was asked for.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// The most of a status text that is sent.
const STATUS_CHARS_MAX: usize = 512;

/// Where notifications go, if anywhere.
pub struct Notifier {
    target: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

/// Why the service manager cannot be told.
#[derive(Debug, thiserror::Error)]
#[error(
    "NOTIFY_SOCKET names {name:?}, which cannot be used: {source}. Run rillway from a unit with \
     Type=notify, or unset the variable"
)]
pub struct NotifierError {
    name: OsString,
    source: io::Error,
}

impl Notifier {
    /// As the environment says: `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`.
    pub fn from_env() -> Result<Notifier, NotifierError> {
        let var = |name| std::env::var_os(name);
        Notifier::new(
            var("NOTIFY_SOCKET").as_deref(),
            var("WATCHDOG_USEC").as_deref(),
            var("WATCHDOG_PID").as_deref(),
            std::process::id(),
        )
    }

    /// One that tells nobody.
    pub fn none() -> Notifier {
        Notifier { target: None, watchdog: None }
    }

    fn new(
        socket: Option<&OsStr>,
        watchdog_usec: Option<&OsStr>,
        watchdog_pid: Option<&OsStr>,
        own_pid: u32,
    ) -> Result<Notifier, NotifierError> {
        let Some(name) = socket.filter(|name| !name.is_empty()) else {
            return Ok(Notifier::none());
        };
        let target =
            open(name).map_err(|source| NotifierError { name: name.to_owned(), source })?;
        let number = |text: Option<&OsStr>| text?.to_str()?.parse::<u64>().ok();
        // The variables of a parent process are not meant for us.
        let ours = watchdog_pid.is_none() || number(watchdog_pid) == Some(u64::from(own_pid));
        let watchdog =
            number(watchdog_usec).filter(|usec| ours && *usec > 0).map(Duration::from_micros);
        Ok(Notifier { target: Some(target), watchdog })
    }

    /// How often the watchdog must be fed: half of what it allows. `None` where there is none.
    pub fn watchdog_period(&self) -> Option<Duration> {
        self.watchdog.map(|limit| limit / 2)
    }

    /// Start-up is done: consumers run.
    pub fn ready(&self) {
        self.send("READY=1");
    }

    /// The drain has begun.
    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// One line for `systemctl status`.
    pub fn status(&self, text: &str) {
        let line: String = text
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .take(STATUS_CHARS_MAX)
            .collect();
        self.send(&format!("STATUS={line}"));
    }

    /// The service works. Says nothing where no watchdog was asked for.
    fn feed_watchdog(&self) {
        if self.watchdog.is_some() {
            self.send("WATCHDOG=1");
        }
    }

    fn send(&self, message: &str) {
        let Some((socket, address)) = &self.target else { return };
        if let Err(error) = socket.send_to_addr(message.as_bytes(), address) {
            // Nobody waits for an answer, and the work goes on; the manager acts on its own clock.
            tracing::warn!(%error, message, "the service manager could not be told");
        }
    }
}

fn open(name: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match name.as_bytes() {
        [b'/', ..] => SocketAddr::from_pathname(name)?,
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest)?,
        _ => {
            let what = "neither an absolute path nor an abstract name (@…)";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(SEND_TIMEOUT))?;
    Ok((socket, address))
}

/// Feeds the watchdog for as long as every loop turns, and says which one does not. Spawn it also
/// without systemd: the log line is worth it. Runs until it is dropped, which it may be at any
/// time; let it run through the drain.
pub async fn watch(notifier: &Notifier, heartbeats: &Heartbeats) -> Infallible {
    let period = notifier.watchdog_period().unwrap_or(LOOK_EVERY);
    let mut every = tokio::time::interval(period.max(Duration::from_millis(1)));
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut said = None;
    loop {
        every.tick().await;
        said = look(notifier, heartbeats, Instant::now(), said);
    }
}

/// One turn of [`watch`]: takes and returns the names that the log holds as stuck.
fn look(
    notifier: &Notifier,
    heartbeats: &Heartbeats,
    now: Instant,
    said: Option<Vec<String>>,
) -> Option<Vec<String>> {
    let stuck = heartbeats.stuck(now);
    if stuck.is_empty() {
        notifier.feed_watchdog();
        if let Some(names) = said {
            tracing::info!(loops = names.join(", "), "every loop turns again");
        }
        return None;
    }
    let names: Vec<String> = stuck.iter().map(|s| s.name.clone()).collect();
    if said.as_ref() != Some(&names) {
        let consequence = if notifier.watchdog.is_some() {
            "the watchdog is not fed, and the service manager will restart rillway if this lasts"
        } else {
            "no watchdog is set, so a person has to act if this lasts"
        };
        for one in &stuck {
            tracing::error!("{one}; {consequence}");
        }
    }
    Some(names)
}

#[cfg(test)]
mod tests;
