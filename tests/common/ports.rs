//! Ports for servers that start later, or again: below the range that the kernel hands out by itself, so that no
//! connection and no other server takes one meanwhile. `scripts/lib/ports.sh` does the
//! same for brokers.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below those of brokers.
const FIRST: u16 = 11_000;
const COUNT: u16 = 9_000;

/// A port that no other test is given while this exists, in this process or another one of the same user.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) number: u16,
    /// Locked.
    _kept: File,
}

impl Port {
    /// On localhost.
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.number))
    }
}

fn folder() -> PathBuf {
    let user = rustix::process::getuid().as_raw();
    let folder = std::env::temp_dir().join(format!("rillway-test-ports-{user}"));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// A port at which nobody listens.
pub(crate) fn reserve() -> Port {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let folder = folder();
    // Processes that run at the same time begin far from each other.
    let begin = (std::process::id() % u32::from(COUNT)) as u16;
    for _ in 0..COUNT {
        let nth = NEXT.fetch_add(1, Ordering::Relaxed);
        let number = FIRST + ((u32::from(begin) * 97 + u32::from(nth)) % u32::from(COUNT)) as u16;
        let kept = File::create(folder.join(number.to_string())).unwrap();
        if kept.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::UNSPECIFIED, number)).is_ok() {
            return Port { number, _kept: kept };
        }
    }
    panic!("no port from {FIRST} on is free");
}

/// A port that is kept until this process ends, for a server of a test.
pub(crate) fn for_good() -> u16 {
    // Never unlocked.
    Box::leak(Box::new(reserve())).number
}

/// An address at which nobody listens until this process ends.
pub(crate) fn nobody() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, for_good()))
}
