//! The plain socket reader: what the broker and the loopback give at the most. It reads, walks from
//! frame to frame, counts what the chunk headers say, gives credit back, and looks at nothing else.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rillway::types::Secret;
use rillway::wire::commands::{
    OffsetSpec, Open, PeerProperties, Request, SaslAuthenticate, SaslHandshake, Subscribe, credit,
    encode_request, keys, tune,
};

use crate::options::Job;
use crate::peers::Run;
use crate::process;

/// Room for one read.
const READ_BYTES: usize = 256 * 1024;
/// Chunks on their way.
const CREDIT: u16 = 200;
/// The heads of frame and Deliver v1, and the chunk's header.
const CHUNK_AT: usize = 9;
const HEAD_BYTES: usize = CHUNK_AT + 48;

pub(crate) fn run(job: &Job) -> anyhow::Result<()> {
    let mut socket = TcpStream::connect(("localhost", job.port))?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(job.limit.max(Duration::from_secs(1))))?;
    log_in(&mut socket)?;
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

/// Messages, chunks, and whether that was all.
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

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn log_in(socket: &mut TcpStream) -> anyhow::Result<()> {
    ask(socket, &PeerProperties { properties: Vec::new() })?;
    ask(socket, &SaslHandshake)?;
    ask(socket, &SaslAuthenticate::plain("guest", &Secret::new("guest")))?;
    let (key, _) = frame(socket)?;
    if key != keys::TUNE {
        bail!("no Tune, but {key}");
    }
    socket.write_all(&tune(1 << 20, 0))?;
    ask(socket, &Open { virtual_host: "/".to_owned() })
}

/// A request, and its answer's code, which must be good.
fn ask<R: Request>(socket: &mut TcpStream, request: &R) -> anyhow::Result<()> {
    socket.write_all(&encode_request(request, 1)?)?;
    let (key, payload) = frame(socket)?;
    let code = payload.get(4..6).context("a short answer")?;
    if key != R::KEY || code != [0, 1] {
        bail!("{} was answered by {key} with code {code:?}", R::NAME);
    }
    Ok(())
}

/// The next frame: key without the response bit, and what follows the version.
fn frame(socket: &mut TcpStream) -> anyhow::Result<(u16, Vec<u8>)> {
    let mut head = [0; 8];
    socket.read_exact(&mut head)?;
    let mut payload = vec![0; u32_at(&head, 0) as usize - 4];
    socket.read_exact(&mut payload)?;
    Ok((u16::from_be_bytes([head[4], head[5]]) & 0x7fff, payload))
}
