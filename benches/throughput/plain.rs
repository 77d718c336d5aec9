//! The plain socket reader: the upper bound that the broker and the loopback device allow. It reads,
//! walks from frame to frame, adds up the counts in the chunk headers, gives credit back, and does
//! nothing else.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::bail;
use rillway::wire::commands::{OffsetSpec, Subscribe, credit, keys};

use crate::options::Job;
use crate::peers::Run;
use crate::process;
use crate::socket::{self, ask, u32_at};

/// Size of the read buffer.
const READ_BYTES: usize = 256 * 1024;
/// Chunks in flight.
const CREDIT: u16 = 200;
/// Sizes of the headers of a frame, of Deliver v1, and of the chunk.
const CHUNK_AT: usize = 9;
const HEAD_BYTES: usize = CHUNK_AT + 48;

pub(crate) fn run(job: &Job) -> anyhow::Result<()> {
    let mut socket = socket::log_in(job.port)?;
    socket.set_read_timeout(Some(job.limit.max(Duration::from_secs(1))))?;
    ask(
        &mut socket,
        &Subscribe {
            subscription: 0,
            stream: job.stream.as_str().into(),
            start: OffsetSpec::First,
            credits: CREDIT,
            properties: Vec::new(),
        },
    )?;
    let pid = std::process::id();
    let cpu = process::cpu(pid)?;
    let began = Instant::now();
    let (messages, chunks, whole) = read(&mut socket, job, began)?;
    let run = Run {
        messages,
        chunks,
        took: began.elapsed(),
        cpu: process::cpu(pid)?.saturating_sub(cpu),
        memory_peak: process::memory_peak(pid)?,
        whole,
    };
    println!("{}", run.line());
    Ok(())
}

/// Messages, chunks, and whether all were read.
fn read(socket: &mut TcpStream, job: &Job, began: Instant) -> anyhow::Result<(u64, u64, bool)> {
    let mut buffer = vec![0; READ_BYTES];
    let (mut filled, mut skip) = (0, 0);
    let (mut messages, mut chunks) = (0, 0);
    while messages < job.messages {
        let read = socket.read(&mut buffer[filled..])?;
        if read == 0 {
            bail!("the broker closed the connection");
        }
        filled += read;
        let mut at = 0;
        let mut owed = 0;
        loop {
            let here = skip.min(filled - at);
            at += here;
            skip -= here;
            let rest = &buffer[at..filled];
            if skip > 0 || rest.len() < 8 {
                break;
            }
            let size = u32_at(rest, 0) as usize + 4;
            if u16::from_be_bytes([rest[4], rest[5]]) == keys::DELIVER {
                if rest.len() < HEAD_BYTES {
                    break;
                }
                messages += u64::from(u32_at(rest, CHUNK_AT + 4));
                chunks += 1;
                owed += 1;
            }
            skip = size;
        }
        if owed > 0 {
            socket.write_all(&credit(0, owed))?;
        }
        buffer.copy_within(at..filled, 0);
        filled -= at;
        if began.elapsed() > job.limit {
            break;
        }
    }
    Ok((messages, chunks, messages >= job.messages))
}
