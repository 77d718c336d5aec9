//! The `stdout` sink: lines to standard output, at least once.
//!
//! Invariants:
//! - A batch with a bad record leaves no output: the whole batch is checked before its first byte
//!   is written (records beyond the first 512 KiB are encoded twice for that, so that memory stays
//!   bounded).
//! - While the rest of a batch waits for a slow reader, the written part is reported to the record:
//!   a crash repeats little of it, and a graceful shutdown nothing.
//! - Lines of several consumers never mix: each piece ends on a whole record and is written under
//!   one lock, process-wide.
//! - After a write that failed within a line, the next one begins with a delimiter: the torn line
//!   stays separate.
//! - A reader that does not read blocks the sink's own thread, never the runtime or the exit of the
//!   process. It also blocks the other `stdout` sinks: they share the pipe.
//!
//! "Written" means passed to the kernel: a pipe can guarantee no more. So an acknowledged batch
//! survives a crash of this process, but not of the reader.

mod declaration;
mod reader;
mod settings;

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;

pub use self::reader::{reader_goes, reader_is_gone};
pub use self::settings::StdoutSettings;
use crate::flow::batch::Batch;
use crate::sink::declaration::Declaration;
use crate::sink::envelope::Envelope;
use crate::sink::format::Format;
use crate::sink::thread::SinkThread;
use crate::sink::{BAD_RECORDS_MAX, BadRecord, Durability, Sink, SinkError, used_after_close};
use crate::sync::lock;
use crate::types::{Checkpoint, Guarantee, Offset, StreamName};
use crate::wire::block::Record;

/// Bytes of encoded records after which they are written.
const PIECE_BYTES: usize = 512 << 10;

/// Most bytes and records that are written between two looks at the clock.
const SLICE_BYTES: usize = 64 << 10;
const SLICE_RECORDS: usize = 1_000;

/// Time after which a batch is reported in parts.
const TURN: Duration = Duration::from_millis(100);

/// Pause before retrying a full pipe, if the parent process made it non-blocking.
const FULL_PIPE_WAIT: Duration = Duration::from_millis(5);

/// Lock for one writer at a time. Not std's own lock on stdout: a reader that does not read would
/// then block everything else that prints, including the last messages at shutdown.
static TURN_OF: Mutex<()> = Mutex::new(());

/// Options of a stdout sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StdoutOptions {
    /// Format of records.
    pub format: Format,
}

/// Writes records to standard output.
pub struct StdoutSink {
    /// `None` once closed.
    worker: Option<SinkThread<Printer>>,
}

impl StdoutSink {
    /// A sink on this process's standard output.
    ///
    /// # Errors
    /// Fatal if standard output is closed.
    pub async fn open(options: StdoutOptions, stream: StreamName) -> Result<StdoutSink, SinkError> {
        let stdout = io::stdout().as_fd().try_clone_to_owned().map_err(|error| {
            SinkError::Fatal(format!("could not open standard output: {error}"))
        })?;
        StdoutSink::to(Box::new(File::from(stdout)), options, stream).await
    }

    /// The same sink with another output.
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
                ends: Vec::new(),
                torn: false,
                under_way: None,
            })
        };
        match SinkThread::start("rillway-stdout", make).await {
            Ok(made) => Ok(StdoutSink { worker: Some(made?) }),
            Err(error) => Err(error.during(WRITING)),
        }
    }
}

const WRITING: &str = "could not write to standard output: the stdout sink";

#[async_trait]
impl Sink for StdoutSink {
    fn kind(&self) -> &'static str {
        StdoutSettings::about().kind
    }

    fn guarantee(&self) -> Guarantee {
        StdoutSettings::about().guarantee
    }

    async fn position(&mut self) -> Result<Option<Checkpoint>, SinkError> {
        Ok(None)
    }

    async fn write(&mut self, batch: &Arc<Batch>) -> Result<Durability, SinkError> {
        let Some(worker) = &self.worker else {
            return Err(used_after_close("the stdout sink"));
        };
        let batch = Arc::clone(batch);
        worker
            .run(move |printer| printer.print(&batch))
            .await
            .map_err(|error| error.during(WRITING))?
    }

    /// All written records were reported already.
    async fn wind_up(&mut self, _batch: &Arc<Batch>) -> Result<Durability, SinkError> {
        Ok(Durability::Part(None))
    }

    /// Never waits for the reader. Closing twice is no error.
    async fn close(&mut self) -> Result<(), SinkError> {
        self.worker = None;
        Ok(())
    }
}

/// State of the sink's thread.
struct Printer {
    target: Box<dyn Write + Send>,
    envelope: Envelope,
    delimiter: Vec<u8>,
    /// Encoded records that are not written yet, and the end of each of them.
    plain: Vec<u8>,
    ends: Vec<(Offset, usize)>,
    /// True if the last write ended within a record.
    torn: bool,
    under_way: Option<UnderWay>,
}

/// A batch that is partly written.
struct UnderWay {
    /// Last offset of the batch, which identifies it.
    last: Offset,
    out: Offset,
}

impl Printer {
    /// Writes the batch, or continues with it.
    fn print(&mut self, batch: &Batch) -> Result<Durability, SinkError> {
        let turn_ends = Instant::now() + TURN;
        let last = batch.last_offset();
        let mut out = None;
        let printed = match self.under_way.take().filter(|under_way| under_way.last == last) {
            Some(under_way) => self.go_on(batch, under_way.out, turn_ends, &mut out),
            None => self.begin(batch, turn_ends, &mut out),
        };
        self.empty();
        self.plain.shrink_to(2 * PIECE_BYTES);
        match (printed, out) {
            (Ok(true), _) => Ok(Durability::Durable),
            (Err(error), None) => Err(error),
            // An error occurs again, and is reported then.
            (Ok(false) | Err(_), Some(out)) => {
                self.under_way = Some(UnderWay { last, out });
                Ok(Durability::Part(Some(out)))
            }
            (Ok(false), None) => Ok(Durability::Part(None)),
        }
    }

    fn begin(
        &mut self,
        batch: &Batch,
        turn_ends: Instant,
        out: &mut Option<Offset>,
    ) -> Result<bool, SinkError> {
        self.empty();
        if self.look_through(batch)? {
            return Ok(self.put(turn_ends, out)? && self.flush()?);
        }
        self.pour(batch, batch.first_offset(), turn_ends, out)
    }

    fn go_on(
        &mut self,
        batch: &Batch,
        from: Offset,
        turn_ends: Instant,
        out: &mut Option<Offset>,
    ) -> Result<bool, SinkError> {
        match from.0.checked_add(1) {
            Some(next) => self.pour(batch, Offset(next), turn_ends, out),
            None => Ok(true),
        }
    }

    /// Writes the records from this offset on, in pieces; returns `true` if all of them are
    /// written.
    fn pour(
        &mut self,
        batch: &Batch,
        from: Offset,
        turn_ends: Instant,
        out: &mut Option<Offset>,
    ) -> Result<bool, SinkError> {
        self.empty();
        for record in batch.records_from(from) {
            self.encode(record).map_err(|bad| SinkError::Poison(vec![bad]))?; // Was fine a moment ago.
            if self.plain.len() >= PIECE_BYTES && !self.put(turn_ends, out)? {
                return Ok(false);
            }
        }
        Ok(self.put(turn_ends, out)? && self.flush()?)
    }

    fn encode(&mut self, record: Record<'_>) -> Result<(), BadRecord> {
        self.envelope.append(record, &mut self.plain)?;
        self.ends.push((record.offset, self.plain.len()));
        Ok(())
    }

    fn empty(&mut self) {
        self.plain.clear();
        self.ends.clear();
    }

    fn flush(&mut self) -> Result<bool, SinkError> {
        self.target.flush().map_err(|error| failed(&error))?;
        Ok(true)
    }

    /// Encodes the whole batch to find all bad records; returns `true` if the buffer holds all of
    /// it.
    fn look_through(&mut self, batch: &Batch) -> Result<bool, SinkError> {
        let mut bad = Vec::new();
        let mut fits = true;
        for record in batch.records() {
            if self.plain.len() >= PIECE_BYTES {
                self.empty();
                fits = false;
            }
            bad.extend(self.encode(record).err());
            if bad.len() >= BAD_RECORDS_MAX {
                break;
            }
        }
        if bad.is_empty() { Ok(fits) } else { Err(SinkError::Poison(bad)) }
    }

    /// Writes the encoded records, and stores the last complete one in `out`; returns `false` if
    /// the time limit was reached before the end.
    fn put(&mut self, turn_ends: Instant, out: &mut Option<Offset>) -> Result<bool, SinkError> {
        // The lock guards no data, so a panic while it was held broke nothing.
        let _turn = lock(&TURN_OF);
        if self.torn {
            write_all(&mut self.target, &self.delimiter).map_err(|(_, error)| failed(&error))?;
            self.torn = false;
        }
        let (mut start, mut nth) = (0, 0);
        while nth < self.ends.len() {
            let rest = self.ends.get(nth..).unwrap_or_default();
            let within = rest.iter().take(SLICE_RECORDS);
            let records = within.take_while(|(_, end)| end - start <= SLICE_BYTES).count().max(1);
            let Some((offset, end)) = rest.get(records - 1).copied() else { break };
            let slice = self.plain.get(start..end).unwrap_or_default();
            if let Err((bytes, error)) = write_all(&mut self.target, slice) {
                let whole = rest.iter().take_while(|(_, end)| *end <= start + bytes).last();
                self.torn = bytes > 0 && whole.is_none_or(|(_, end)| *end < start + bytes);
                *out = whole.map(|(offset, _)| *offset).or(*out);
                return Err(failed(&error));
            }
            *out = Some(offset);
            (start, nth) = (end, nth + records);
            if nth < self.ends.len() && Instant::now() >= turn_ends {
                return Ok(false);
            }
        }
        self.empty();
        Ok(true)
    }
}

/// Like [`Write::write_all`], but reports the bytes written before a failure, and waits for a
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
    let errno = rustix::io::Errno::from_io_error(error);
    // A closed terminal has another error than a pipe; a disk may have that error too.
    let terminal_gone = errno == Some(rustix::io::Errno::IO) && reader_is_gone();
    if error.kind() == io::ErrorKind::BrokenPipe || terminal_gone {
        reader::note_gone();
        return SinkError::Fatal(format!(
            "{what}. The program that read it has ended: start it again together with Rillway. Messages \
             that it read but did not process are not written again."
        ));
    }
    if errno == Some(rustix::io::Errno::BADF) {
        return SinkError::Fatal(format!("{what}. Start rillway with standard output open."));
    }
    SinkError::transient(format!("{what}. The batch is retried."))
}

#[cfg(test)]
mod tests;
