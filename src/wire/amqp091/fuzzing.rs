//! What the decoders promise of any bytes.

use super::{
    Delivered, FrameKind, Method, Style, begin_message, bound, content_header, frame, offset_of,
};
use crate::wire::amqp::Message;

/// Most bytes of a frame here.
const FRAME_MAX: usize = 1 << 16;

/// Treats the bytes as read from a socket: cuts frames, and reads each.
pub(in crate::wire) fn frames(data: &[u8]) {
    let mut rest = data;
    let mut delivered = Delivered { tag: 1, exchange: Vec::new(), routing_key: b"q".to_vec() };
    loop {
        let head = match frame(rest, FRAME_MAX) {
            Ok(Some(head)) => head,
            Ok(None) => return,
            Err(error) => {
                assert!(!error.to_string().is_empty());
                return;
            }
        };
        assert!(head.bytes <= FRAME_MAX && head.bytes <= rest.len());
        // It matters not how the bytes arrive: without its last byte it is not complete.
        assert_eq!(frame(&rest[..head.bytes - 1], FRAME_MAX), Ok(None));
        let (this, after) = rest.split_at(head.bytes);
        let payload = &this[head.payload()];
        match head.kind {
            FrameKind::Method => match Method::parse(payload) {
                Ok(Method::Deliver(next)) => delivered = next,
                Ok(_) => {}
                Err(error) => assert!(!error.to_string().is_empty()),
            },
            FrameKind::Header => message(payload, &delivered),
            FrameKind::Body | FrameKind::Heartbeat => {}
        }
        rest = after;
    }
}

fn message(payload: &[u8], delivered: &Delivered) {
    let Ok((body, properties)) = content_header(payload) else { return };
    let most = bound(body, properties.len(), delivered);
    for style in [Style::Record, Style::Container] {
        let mut out = Vec::new();
        match begin_message(&mut out, properties, body, delivered, "q", style) {
            Ok(incoming) => {
                assert_eq!(Ok(incoming.offset), offset_of(properties));
                let whole = (out.len() as u64).saturating_add(body);
                assert!(whole <= most, "{whole} bytes, where {most} were admitted");
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
        if let Ok(message) = Message::parse(&out) {
            message.validate().unwrap_or_default();
        }
    }
}

/// Whether all of the bytes are frames that can be read.
#[cfg(test)]
pub(in crate::wire) fn reads(data: &[u8]) -> bool {
    let mut rest = data;
    while let Ok(Some(head)) = frame(rest, FRAME_MAX) {
        let (this, after) = rest.split_at(head.bytes);
        let payload = &this[head.payload()];
        let is_read = match head.kind {
            FrameKind::Method => !matches!(Method::parse(payload), Err(_) | Ok(Method::Other(..))),
            FrameKind::Header => {
                content_header(payload).is_ok_and(|(_, properties)| offset_of(properties).is_ok())
            }
            FrameKind::Body | FrameKind::Heartbeat => true,
        };
        if !is_read {
            return false;
        }
        rest = after;
    }
    rest.is_empty()
}
