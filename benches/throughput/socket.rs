//! The protocol by hand on a blocking socket: log in, send a request, read a frame.

use std::io::{Read, Write};
use std::net::TcpStream;

use anyhow::{Context as _, bail};
use rillway::types::Secret;
use rillway::wire::commands::{
    Open, PeerProperties, Request, SaslAuthenticate, SaslHandshake, encode_request, keys, tune,
};

pub(crate) const FRAME_MAX: u32 = 1 << 20;

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Connects and logs in as guest, without heartbeats.
pub(crate) fn log_in(port: u16) -> anyhow::Result<TcpStream> {
    let mut connection = TcpStream::connect(("localhost", port))?;
    let socket = &mut connection;
    socket.set_nodelay(true)?;
    ask(socket, &PeerProperties { properties: Vec::new() })?;
    ask(socket, &SaslHandshake)?;
    ask(socket, &SaslAuthenticate::plain("guest", &Secret::new("guest")))?;
    let (key, _) = frame(socket)?;
    if key != keys::TUNE {
        bail!("no Tune, but {key}");
    }
    socket.write_all(&tune(FRAME_MAX, 0))?;
    ask(socket, &Open { virtual_host: "/".to_owned() })?;
    Ok(connection)
}

/// Sends a request; fails unless the answer's code is OK.
pub(crate) fn ask<R: Request>(socket: &mut TcpStream, request: &R) -> anyhow::Result<()> {
    socket.write_all(&encode_request(request, 1)?)?;
    let (key, payload) = frame(socket)?;
    let code = payload.get(4..6).context("a short answer")?;
    if key != R::KEY || code != [0, 1] {
        bail!("{} was answered by {key} with code {code:?}", R::NAME);
    }
    Ok(())
}

/// The next frame: key without the response bit, and what follows the version.
pub(crate) fn frame(socket: &mut TcpStream) -> anyhow::Result<(u16, Vec<u8>)> {
    let mut head = [0; 8];
    socket.read_exact(&mut head)?;
    let mut payload = vec![0; u32_at(&head, 0) as usize - 4];
    socket.read_exact(&mut payload)?;
    Ok((u16::from_be_bytes([head[4], head[5]]) & 0x7fff, payload))
}
