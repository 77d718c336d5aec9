//! The `stdout` sink: lines to whatever reads our standard output, at least once.
//!
//! Invariants:
//! - A batch with a bad record leaves nothing behind: the whole batch is looked through before its
//!   first byte goes out (records beyond the first 512 KiB are encoded twice for that, so that
//!   memory stays bounded).
//! - Lines of several consumers never mix: each piece ends on a whole record and goes out under
//!   one lock, process-wide.
//! - After a write that failed amid a line, the next one begins with a delimiter: the torn line
//!   stays alone.
//! - A reader that does not read blocks the sink's own thread, never the runtime, and never the
//!   exit of the process. It does hold up the other `stdout` sinks: they share the pipe.
//!
//! "Written" means handed to the kernel: a pipe has no more to offer. So `Ok` survives a crash of
//! this process, not one of the reader.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use crate::flow::batch::Batch;
use crate::sink::envelope::Envelope;
use crate::sink::format::Format;
use crate::sink::worker::{Unavailable, Worker};
use crate::sink::{Durability, Sink, SinkError};
use crate::types::{Checkpoint, Guarantee, StreamName};

/// Encoded records go out whenever so many bytes are there.
const PIECE_BYTES: usize = 512 << 10;

/// How long to wait before asking a full pipe again, where whoever started us made it non-blocking.
const FULL_PIPE_WAIT: Duration = Duration::from_millis(5);

/// One writer at a time. Not std's own lock on stdout: a reader that does not read would then stop
/// everything else that prints, the farewell included.
static TURN: Mutex<()> = Mutex::new(());

/// Whether a write to standard output has found that nobody reads it any more.
static READER_GONE: AtomicBool = AtomicBool::new(false);

/// Whether whatever read this process's standard output has gone. There is only one, and it never
/// comes back.
pub fn reader_is_gone() -> bool {
    READER_GONE.load(Ordering::Acquire)
}

/// What a stdout sink needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StdoutOptions {
    /// How records are laid out.
    pub format: Format,
}

/// Writes records to standard output.
pub struct StdoutSink {
    /// `None` once closed.
    worker: Option<Worker<Printer>>,
}

impl StdoutSink {
    /// A sink on this process's standard output.
    ///
    /// # Errors
    /// Fatal where standard output is closed.
    pub async fn open(options: StdoutOptions, stream: StreamName) -> Result<StdoutSink, SinkError> {
        let stdout = io::stdout().as_fd().try_clone_to_owned().map_err(|error| {
            SinkError::Fatal(format!("could not open standard output: {error}"))
        })?;
        StdoutSink::to(Box::new(File::from(stdout)), options, stream).await
    }

    /// The same sink on another target.
    async fn to(
        target: Box<dyn Write + Send>,
        options: StdoutOptions,
        stream: StreamName,
    ) -> Result<StdoutSink, SinkError> {
        let make = move || {
            Ok::<_, SinkError>(Printer {
                target,
                envelope: options.format.envelope(&stream),
                delimiter: options.format.delimiter().to_vec(),
                plain: Vec::new(),
                torn: false,
            })
        };
        match Worker::start("rillway-stdout", make).await {
            Ok(made) => Ok(StdoutSink { worker: Some(made?) }),
            Err(error) => Err(unavailable(error)),
        }
    }
}

fn unavailable(error: Unavailable) -> SinkError {
    let what = format!("could not write to standard output: the stdout sink: {error}");
    match error {
        Unavailable::Gone => {
            SinkError::Fatal(format!("{what}. This is an internal error; please report it."))
        }
        Unavailable::Busy => SinkError::Transient { what, retry_after: None },
    }
}

#[async_trait]
impl Sink for StdoutSink {
    fn kind(&self) -> &'static str {
        "stdout"
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::AtLeastOnce
    }

    async fn position(&mut self) -> Result<Option<Checkpoint>, SinkError> {
        Ok(None)
    }

    async fn write(&mut self, batch: &Arc<Batch>) -> Result<Durability, SinkError> {
        let Some(worker) = &self.worker else {
            return Err(SinkError::Fatal(
                "internal error: the stdout sink was used after it was closed; please report it"
                    .to_owned(),
            ));
        };
        let batch = Arc::clone(batch);
        worker.run(move |printer| printer.print(&batch)).await.map_err(unavailable)??;
        Ok(Durability::Durable)
    }

    /// Never waits for a reader. Closing twice is no error.
    async fn close(&mut self) -> Result<(), SinkError> {
        self.worker = None;
        Ok(())
    }
}

/// Lives on the sink's thread.
struct Printer {
    target: Box<dyn Write + Send>,
    envelope: Envelope,
    delimiter: Vec<u8>,
    /// Encoded records that are not written yet.
    plain: Vec<u8>,
    /// Whether the last thing that went out was the beginning of a record.
    torn: bool,
}

impl Printer {
    fn print(&mut self, batch: &Batch) -> Result<(), SinkError> {
        self.plain.clear();
        let fits = self.look_through(batch)?;
        if fits {
            self.put()?;
        } else {
            self.plain.clear();
            for record in batch.records() {
                if let Err(bad) = self.envelope.append(record, &mut self.plain) {
                    return Err(SinkError::Poison(vec![bad])); // Was fine a moment ago.
                }
                if self.plain.len() >= PIECE_BYTES {
                    self.put()?;
                }
            }
            self.put()?;
        }
        self.plain.shrink_to(2 * PIECE_BYTES);
        self.target.flush().map_err(|error| failed(&error))
    }

    /// Encodes the whole batch to find all bad records; `true` where what is encoded is all of it.
    fn look_through(&mut self, batch: &Batch) -> Result<bool, SinkError> {
        let mut bad = Vec::new();
        let mut fits = true;
        for record in batch.records() {
            if self.plain.len() >= PIECE_BYTES {
                self.plain.clear();
                fits = false;
            }
            if let Err(record) = self.envelope.append(record, &mut self.plain) {
                bad.push(record);
            }
        }
        if bad.is_empty() { Ok(fits) } else { Err(SinkError::Poison(bad)) }
    }

    /// Writes out what is encoded.
    fn put(&mut self) -> Result<(), SinkError> {
        // The lock guards no data, so one who panicked with it left nothing broken.
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        if self.torn {
            write_all(&mut self.target, &self.delimiter).map_err(|(_, error)| failed(&error))?;
            self.torn = false;
        }
        let written = write_all(&mut self.target, &self.plain);
        if let Err((bytes, error)) = written {
            let out = self.plain.get(..bytes).unwrap_or_default();
            self.torn = !out.is_empty() && !out.ends_with(&self.delimiter);
            return Err(failed(&error));
        }
        self.plain.clear();
        Ok(())
    }
}

/// Like [`Write::write_all`], but says how much went out before a failure, and waits for a
/// non-blocking pipe.
fn write_all(target: &mut dyn Write, bytes: &[u8]) -> Result<(), (usize, io::Error)> {
    let mut out = 0;
    while let Some(rest) = bytes.get(out..).filter(|rest| !rest.is_empty()) {
        match target.write(rest) {
            Ok(0) => return Err((out, io::ErrorKind::WriteZero.into())),
            Ok(n) => out += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                std::thread::sleep(FULL_PIPE_WAIT);
            }
            Err(error) => return Err((out, error)),
        }
    }
    Ok(())
}

fn failed(error: &io::Error) -> SinkError {
    let what = format!("could not write to standard output: {error}");
    if error.kind() == io::ErrorKind::BrokenPipe {
        READER_GONE.store(true, Ordering::Release);
        return SinkError::Fatal(format!(
            "{what}. Whatever read it has ended: start it again together with rillway. What it \
             took but did not use is lost to it, though not to rillway's count."
        ));
    }
    if rustix::io::Errno::from_io_error(error) == Some(rustix::io::Errno::BADF) {
        return SinkError::Fatal(format!("{what}. Start rillway with standard output open."));
    }
    SinkError::Transient { what: format!("{what}. The batch is tried again."), retry_after: None }
}

#[cfg(test)]
mod tests;
