//! Notifies the service manager: READY, RELOADING, STATUS, STOPPING and WATCHDOG datagrams (sd_notify(3)).
//!
//! Without `NOTIFY_SOCKET` every call is a no-op. The watchdog is notified only while every loop
//! makes progress ([`super::heartbeat`]). So a stuck service is restarted, and the log names the
//! loop.
//!
//! The protocol: one datagram of `KEY=VALUE` lines to the socket that the variable names, either a
//! path or `@NAME` for the abstract namespace.

use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use super::heartbeat::Heartbeats;

/// Longest time that a datagram may wait for room in the manager's queue.
const SEND_TIMEOUT: Duration = Duration::from_millis(250);

/// Interval at which [`watch`] checks the loops without a watchdog.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Longest status text that is sent.
const STATUS_CHARS_MAX: usize = 512;

/// Sender of notifications; does nothing without a service manager.
pub struct Notifier {
    target: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

/// Reason why the service manager cannot be notified.
#[derive(Debug, thiserror::Error)]
#[error(
    "NOTIFY_SOCKET is {name:?}, which cannot be used: {source}. Run rillway from a unit with \
     Type=notify, or unset the variable"
)]
pub struct NotifierError {
    name: OsString,
    source: io::Error,
}

impl Notifier {
    /// From the environment: `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`.
    pub fn from_env() -> Result<Notifier, NotifierError> {
        let var = |name| std::env::var_os(name);
        Notifier::new(
            var("NOTIFY_SOCKET").as_deref(),
            var("WATCHDOG_USEC").as_deref(),
            var("WATCHDOG_PID").as_deref(),
            std::process::id(),
        )
    }

    /// A notifier that does nothing.
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
        // The variables of a parent process are not for this one.
        let ours = watchdog_pid.is_none() || number(watchdog_pid) == Some(u64::from(own_pid));
        let watchdog =
            number(watchdog_usec).filter(|usec| ours && *usec > 0).map(Duration::from_micros);
        Ok(Notifier { target: Some(target), watchdog })
    }

    /// Interval at which the watchdog must be notified: half of its time limit. `None` without a
    /// watchdog.
    pub fn watchdog_period(&self) -> Option<Duration> {
        self.watchdog.map(|limit| limit / 2)
    }

    /// Reports that start-up is complete and consumers run.
    pub fn ready(&self) {
        self.send("READY=1");
    }

    /// Reports that the configuration is being read again, and, when the returned value is dropped, that this is
    /// over, whatever came of it.
    #[must_use]
    pub fn reloading(&self) -> Reloading<'_> {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let usec = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1_000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={usec}"));
        Reloading(self)
    }

    /// Reports that the drain has begun.
    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// Sets the line for `systemctl status`.
    pub fn status(&self, text: &str) {
        let line: String = text
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .take(STATUS_CHARS_MAX)
            .collect();
        self.send(&format!("STATUS={line}"));
    }

    /// Reports that the service works. Does nothing without a watchdog.
    fn feed_watchdog(&self) {
        if self.watchdog.is_some() {
            self.send("WATCHDOG=1");
        }
    }

    fn send(&self, message: &str) {
        let Some((socket, address)) = &self.target else { return };
        if let Err(error) = socket.send_to_addr(message.as_bytes(), address) {
            // There is no answer, and the daemon continues; the manager acts by its own timers.
            tracing::warn!(%error, message, "the service manager could not be notified");
        }
    }
}

/// The time in which the configuration is read again.
pub struct Reloading<'a>(&'a Notifier);

impl Drop for Reloading<'_> {
    fn drop(&mut self) {
        self.0.ready();
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

/// Notifies the watchdog while every loop makes progress, and logs a stuck one. Spawn it also
/// without systemd, for the log line. Runs until it is dropped, which is possible at any time; keep
/// it running through the drain.
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

/// One step of [`watch`]: takes the loops that were reported as stuck, and returns those that are
/// stuck now.
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
            tracing::info!(loops = names.join(", "), "every loop makes progress again");
        }
        return None;
    }
    let names: Vec<String> = stuck.iter().map(|s| s.name.clone()).collect();
    if said.as_ref() != Some(&names) {
        let consequence = if notifier.watchdog.is_some() {
            "the watchdog is not notified; the service manager restarts rillway if this continues"
        } else {
            "no watchdog is set: restart rillway if this continues"
        };
        for one in &stuck {
            tracing::error!("{one}; {consequence}");
        }
    }
    Some(names)
}

#[cfg(test)]
mod tests;
