//! A value made from files, in use until their contents make another one.
//!
//! The files are read again whenever somebody looks, and compared by their contents: that notices every
//! kind of replacement, also a symbolic link that leads elsewhere and a file that is written in place.
//!
//! Invariants: contents that make no usable value never replace one that does; there is never more than
//! one reading at a time, so that a file system that hangs takes one thread.

use std::fmt::Display;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::flow::trouble::Trouble;
use crate::sync::lock;

/// How long a reading of the files may take before others do not wait for it any more.
const READING_MAX: Duration = Duration::from_secs(2);

/// The value in use.
pub(crate) struct Keep<T> {
    state: Mutex<State<T>>,
    /// Told when a reading has ended.
    read: Condvar,
}

struct State<T> {
    /// Fingerprint of the contents, and what they make; `None` until they could be used once.
    good: Option<(u64, Arc<T>)>,
    trouble: Trouble,
    /// Since when the files are being read.
    reading: Option<Instant>,
}

/// Outcome of a look, for the log.
#[derive(Debug)]
pub(crate) enum News<E> {
    /// Nothing has changed.
    Same,
    /// The files could be used for the first time.
    First,
    /// The files are again as they were when last used.
    Restored,
    /// The files have changed, and are in use.
    Changed,
    /// The files cannot be used: their former contents stay in use.
    Unusable {
        /// The reason.
        error: E,
        /// True if it is worth a log line.
        say: bool,
    },
}

impl<T> Default for Keep<T> {
    fn default() -> Self {
        Keep::with(None)
    }
}

impl<T> Keep<T> {
    /// A value that these contents have made.
    pub(crate) fn holding(value: T, contents: &impl Hash) -> Keep<T> {
        Keep::with(Some((fingerprint(contents), Arc::new(value))))
    }

    fn with(good: Option<(u64, Arc<T>)>) -> Keep<T> {
        let state = State { good, trouble: Trouble::default(), reading: None };
        Keep { state: Mutex::new(state), read: Condvar::new() }
    }

    /// The value that the files make now; or else, where they cannot be used, the former one. `read` reads
    /// the files, so this may block. `hangs` is the error if another reading takes for ever, and there is
    /// no former value.
    ///
    /// # Errors
    /// If the files cannot be used and never could.
    pub(crate) fn look<C: Hash, E: Display>(
        &self,
        read: impl FnOnce() -> Result<C, E>,
        make: impl FnOnce(&C) -> Result<T, E>,
        hangs: impl FnOnce(Duration) -> E,
    ) -> Result<(Arc<T>, News<E>), E> {
        let reading = match self.begin() {
            Ok(reading) => reading,
            Err((_, Some(former))) => return Ok((former, News::Same)),
            Err((since, None)) => return Err(hangs(since)),
        };
        let contents = read();
        let taken = lock(&self.state).take(contents, make);
        drop(reading);
        taken
    }

    /// The value in use, without a look at the files.
    pub(crate) fn held(&self) -> Option<Arc<T>> {
        lock(&self.state).good.as_ref().map(|(_, value)| Arc::clone(value))
    }

    /// Begins to read, after those who do so now. If that takes too long: for how long it has taken, and the
    /// former value.
    fn begin(&self) -> Result<Reading<'_, T>, (Duration, Option<Arc<T>>)> {
        let mut state = lock(&self.state);
        let since = Instant::now();
        loop {
            let Some(other) = state.reading else {
                state.reading = Some(since);
                return Ok(Reading(self));
            };
            let left = READING_MAX.saturating_sub(other.elapsed());
            if left.is_zero() {
                drop(state);
                return Err((other.elapsed(), self.held()));
            }
            state = self.read.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    #[cfg(test)]
    pub(crate) fn is_being_read(&self) -> bool {
        lock(&self.state).reading.is_some()
    }
}

/// A reading of the files, which ends with this.
struct Reading<'k, T>(&'k Keep<T>);

impl<T> Drop for Reading<'_, T> {
    fn drop(&mut self) {
        lock(&self.0.state).reading = None;
        self.0.read.notify_all();
    }
}

impl<T> State<T> {
    fn take<C: Hash, E: Display>(
        &mut self,
        contents: Result<C, E>,
        make: impl FnOnce(&C) -> Result<T, E>,
    ) -> Result<(Arc<T>, News<E>), E> {
        let print = contents.as_ref().map_or(0, fingerprint);
        if let (Ok(_), Some((known, value))) = (&contents, &self.good)
            && *known == print
        {
            let value = Arc::clone(value);
            return Ok(match self.trouble.over(Instant::now()) {
                Some(_) => (value, News::Restored),
                None => (value, News::Same),
            });
        }
        let error = match contents.and_then(|contents| make(&contents)) {
            Ok(value) => {
                let value = Arc::new(value);
                let is_first = self.good.replace((print, Arc::clone(&value))).is_none();
                self.trouble.over(Instant::now());
                return Ok((value, if is_first { News::First } else { News::Changed }));
            }
            Err(error) => error,
        };
        let Some((_, former)) = &self.good else { return Err(error) };
        let say = self.trouble.failed(&error.to_string(), Instant::now());
        Ok((Arc::clone(former), News::Unusable { error, say }))
    }
}

/// Number by which the same contents are recognised.
fn fingerprint(contents: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    contents.hash(&mut hasher);
    hasher.finish()
}
