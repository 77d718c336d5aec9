//! Stand-in.
use crate::sink::{BadReason, BadRecord};
use crate::types::StreamName;
use crate::wire::block::Record;
use std::io::Write;

/// Stand-in.
#[derive(Debug)]
pub struct Envelope {
    stream: Option<StreamName>,
    delimiter: Vec<u8>,
}
impl Envelope {
    /// Stand-in.
    pub fn ndjson(stream: &StreamName) -> Envelope {
        Envelope { stream: Some(stream.clone()), delimiter: b"\n".to_vec() }
    }
    /// Stand-in.
    pub fn raw(delimiter: Vec<u8>) -> Envelope {
        Envelope { stream: None, delimiter }
    }
    /// Stand-in.
    pub fn append(&mut self, record: Record<'_>, out: &mut Vec<u8>) -> Result<(), BadRecord> {
        let bad = |d: &str| BadRecord {
            offset: record.offset,
            reason: BadReason::Undecodable,
            detail: d.to_owned(),
        };
        let body = match record.message {
            [0, 0x53, 0x75, 0xA0, n, body @ ..] if body.len() == usize::from(*n) => body,
            [0, 0x53, 0x75, 0xB0, a, b, c, d, body @ ..]
                if body.len() == u32::from_be_bytes([*a, *b, *c, *d]) as usize =>
            {
                body
            }
            _ => return Err(bad("no data section")),
        };
        if let Some(stream) = &self.stream {
            let text = std::str::from_utf8(body).map_err(|_| bad("no text"))?;
            writeln!(out, "{{\"stream\":\"{stream}\",\"offset\":{},\"timestamp\":{},\"body\":\"{text}\",\"body_encoding\":\"text\"}}", record.offset, record.timestamp.0).map_err(|_| bad("io"))?;
        } else {
            out.extend_from_slice(body);
            out.extend_from_slice(&self.delimiter);
        }
        Ok(())
    }
}
