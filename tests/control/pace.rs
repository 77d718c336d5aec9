//! How evenly a consumer writes its files.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use crate::common::load::Load;

/// Looks at the folder of a consumer until it is told to end.
pub(super) struct Watch {
    end: Arc<AtomicBool>,
    looking: JoinHandle<(u64, Duration)>,
    began: Instant,
    published: u64,
}

/// What a consumer wrote while it was watched.
pub(super) struct Watched {
    messages: u64,
    published: u64,
    for_how_long: Duration,
    longest_pause: Duration,
}

impl Watch {
    pub(super) fn of(dir: PathBuf, load: &Load) -> Watch {
        let end = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&end);
        let looking = spawn(move || look(&dir, &ends));
        Watch { end, looking, began: Instant::now(), published: load.confirmed() }
    }

    pub(super) fn ended(self, load: &Load) -> Watched {
        let (for_how_long, published) = (self.began.elapsed(), load.confirmed() - self.published);
        self.end.store(true, Ordering::SeqCst);
        let (messages, longest_pause) = self.looking.join().expect("the watch ends");
        Watched { messages, published, for_how_long, longest_pause }
    }
}

impl fmt::Display for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per_second = |messages: u64| messages as f64 / self.for_how_long.as_secs_f64();
        write!(
            f,
            "{:.0} messages/s written, {:.0} messages/s published, longest pause {} ms, in {:.1} s",
            per_second(self.messages),
            per_second(self.published),
            self.longest_pause.as_millis(),
            self.for_how_long.as_secs_f64(),
        )
    }
}

/// Lines written meanwhile, and the longest time without a new one.
fn look(dir: &Path, end: &AtomicBool) -> (u64, Duration) {
    let (mut size, mut grew, mut longest) = (size_of(dir), Instant::now(), Duration::ZERO);
    let before = lines_in(dir);
    while !end.load(Ordering::SeqCst) {
        sleep(Duration::from_millis(5));
        let now = size_of(dir);
        if now != size {
            (longest, size, grew) = (longest.max(grew.elapsed()), now, Instant::now());
        }
    }
    (lines_in(dir) - before, longest.max(grew.elapsed()))
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn size_of(dir: &Path) -> u64 {
    files(dir).iter().filter_map(|path| path.metadata().ok()).map(|about| about.len()).sum()
}

fn lines_in(dir: &Path) -> u64 {
    let read = files(dir).into_iter().filter_map(|path| std::fs::read(path).ok());
    read.map(|bytes| bytes.iter().filter(|byte| **byte == b'\n').count() as u64).sum()
}
