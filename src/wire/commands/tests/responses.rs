//! What is received, from bytes written down by hand from PROTOCOL.adoc.

use bytes::{Bytes, BytesMut};

use super::super::*;
use super::requests::bytes;
use crate::types::{Offset, StreamName};
use crate::wire::error::{WireError, WireProblem};
use crate::wire::frame::{FrameLimits, split_frame};

/// The frame that the notation (from the key on) makes.
fn received(notation: &str) -> Result<ServerFrame, WireError> {
    let content = bytes(notation);
    let mut buf = BytesMut::from(&(content.len() as u32).to_be_bytes()[..]);
    buf.extend_from_slice(&content);
    let limits = FrameLimits { frame_max: 1 << 20, deliver_max: 1 << 20 };
    decode_server_frame(split_frame(&mut buf, &limits)?.unwrap())
}

fn answer<R: Request>(notation: &str) -> Result<R::Response, ResponseError> {
    decode_response::<R>(&bytes(notation))
}

/// Every shorter version of a payload is an error, and never a panic.
#[track_caller]
fn no_cut_passes<R: Request>(notation: &str) {
    let whole = bytes(notation);
    assert!(decode_response::<R>(&whole).is_ok());
    for cut in 0..whole.len() {
        assert!(decode_response::<R>(&whole[..cut]).is_err(), "{} at {cut} bytes", R::NAME);
    }
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn node(host: &str) -> Node {
    Node { host: host.to_owned(), port: 5552 }
}

#[test]
fn answers_keep_their_payload_from_the_response_code_on() {
    let frame = received("8007 0001 01020304 0001").unwrap();
    let payload = Bytes::from_static(&[0, 1]);
    assert_eq!(
        frame,
        ServerFrame::Response { key: 7, correlation: 0x0102_0304, version: 1, payload }
    );
    assert_eq!(answer::<Subscribe>("0001"), Ok(()));
    assert_eq!(
        answer::<Subscribe>("0010"),
        Err(ResponseError::Refused { code: ResponseCode::AccessRefused, command: "Subscribe" })
    );
    assert!(matches!(answer::<Subscribe>("00"), Err(ResponseError::Wire(_))));
    assert!(received("8007 0001 010203").is_err());
}

#[test]
fn what_the_server_sends_of_itself() {
    let chunk = Bytes::from_static(b"chunk");
    assert_eq!(
        received("0008 0001 2a 'chunk'").unwrap(),
        ServerFrame::Deliver(Deliver {
            subscription: 42,
            committed_chunk_id: None,
            chunk: chunk.clone()
        })
    );
    assert_eq!(
        received("0008 0002 2a 0000000000000102 'chunk'").unwrap(),
        ServerFrame::Deliver(Deliver { subscription: 42, committed_chunk_id: Some(0x102), chunk })
    );
    assert!(received("0008 0003 2a 'chunk'").is_err());
    assert!(received("0008 0002 2a 00000000000001").is_err());
    assert_eq!(
        received("8009 0001 0004 2a").unwrap(),
        ServerFrame::CreditError {
            code: ResponseCode::SubscriptionIdDoesNotExist,
            subscription: 42
        }
    );
    assert_eq!(
        received("0010 0001 0006 0006 'events'").unwrap(),
        ServerFrame::MetadataUpdate {
            code: ResponseCode::StreamNotAvailable,
            stream: StreamName::from("events")
        }
    );
    for (byte, active) in [("00", false), ("01", true)] {
        assert_eq!(
            received(&format!("001a 0001 01020304 2a {byte}")).unwrap(),
            ServerFrame::ConsumerUpdate { correlation: 0x0102_0304, subscription: 42, active }
        );
    }
    assert!(received("001a 0001 01020304 2a 02").is_err());
    assert_eq!(
        received("0003 0001 01 00000002 0000000000000007 0000000000000008").unwrap(),
        ServerFrame::PublishConfirm { publisher: 1, ids: vec![7, 8] }
    );
    assert_eq!(
        received("0004 0001 01 00000001 0000000000000007 0012").unwrap(),
        ServerFrame::PublishError {
            publisher: 1,
            errors: vec![(7, ResponseCode::PublisherDoesNotExist)]
        }
    );
    assert_eq!(
        received("0016 0001 01020304 000f 0003 'why'").unwrap(),
        ServerFrame::Close {
            correlation: 0x0102_0304,
            code: ResponseCode::InternalError,
            reason: "why".into()
        }
    );
    for key in ["0014", "8014"] {
        assert_eq!(
            received(&format!("{key} 0001 00100000 0000003c")).unwrap(),
            ServerFrame::Tune { frame_max: 1 << 20, heartbeat: 60 }
        );
    }
    assert_eq!(received("0017 0001").unwrap(), ServerFrame::Heartbeat);
    assert_eq!(received("0077 0001 0102").unwrap(), ServerFrame::Unknown { key: 0x77 });
}

#[test]
fn a_delivered_chunk_shares_the_read_buffers_memory() {
    let content = bytes("0000000a 0008 0001 2a 'chunk'");
    let mut buf = BytesMut::from(&content[..]);
    let range = buf.as_ptr_range();
    let limits = FrameLimits { frame_max: 100, deliver_max: 100 };
    let frame = split_frame(&mut buf, &limits).unwrap().unwrap();
    let ServerFrame::Deliver(deliver) = decode_server_frame(frame).unwrap() else {
        panic!("not a Deliver");
    };
    assert!(range.contains(&deliver.chunk.as_ptr()));
}

#[test]
fn the_handshake() {
    let two = "0001 00000002 0007 'version' 0005 '4.3.6' 0001 'k' ffff";
    assert_eq!(answer::<PeerProperties>(two), Ok(pairs(&[("version", "4.3.6"), ("k", "")])));
    no_cut_passes::<PeerProperties>(two);
    let mechanisms = "0001 00000002 0005 'PLAIN' 0008 'EXTERNAL'";
    assert_eq!(
        answer::<SaslHandshake>(mechanisms),
        Ok(vec!["PLAIN".to_owned(), "EXTERNAL".to_owned()])
    );
    no_cut_passes::<SaslHandshake>(mechanisms);
    let open = "0001 00000002 000f 'advertised_host' 0002 'h1' 000f 'advertised_port' 0004 '5552'";
    assert_eq!(
        answer::<Open>(open),
        Ok(pairs(&[("advertised_host", "h1"), ("advertised_port", "5552")]))
    );
    assert_eq!(answer::<Open>("0001"), Ok(Vec::new()));
    let versions = "0001 00000001 0008 0001 0002";
    assert_eq!(
        answer::<ExchangeCommandVersions>(versions),
        Ok(vec![CommandVersions { key: 8, min: 1, max: 2 }])
    );
    no_cut_passes::<ExchangeCommandVersions>(versions);
}

#[test]
fn challenges_in_both_encodings() {
    use SaslOutcome::{Challenge, Done};
    let challenge = |text: &[u8]| Ok(Challenge(text.to_vec()));
    assert_eq!(answer::<SaslAuthenticate>("0001"), Ok(Done));
    assert_eq!(answer::<SaslAuthenticate>("000a 00000004 'more'"), challenge(b"more"));
    assert_eq!(answer::<SaslAuthenticate>("000a 0004 'more'"), challenge(b"more"));
    assert_eq!(answer::<SaslAuthenticate>("000a 0000"), challenge(b""));
    assert_eq!(answer::<SaslAuthenticate>("000a 00000000"), challenge(b""));
    assert_eq!(answer::<SaslAuthenticate>("000a ffffffff"), challenge(b""));
    assert_eq!(answer::<SaslAuthenticate>("000a"), challenge(b""));
    assert!(matches!(
        answer::<SaslAuthenticate>("0008"),
        Err(ResponseError::Refused { code: ResponseCode::AuthenticationFailure, .. })
    ));
}

#[test]
fn no_offset_is_an_answer_and_everything_else_is_a_refusal() {
    assert_eq!(answer::<QueryOffset>("0001 0000000000000000"), Ok(Some(Offset(0))));
    assert_eq!(answer::<QueryOffset>("0013 0000000000000000"), Ok(None));
    assert_eq!(answer::<QueryOffset>("0013"), Ok(None));
    no_cut_passes::<QueryOffset>("0001 0000000000000009");
    for code in ResponseCode::ALL {
        if matches!(code, ResponseCode::Ok | ResponseCode::NoOffset) {
            continue;
        }
        let payload = format!("{:04x} 0000000000000000", code.value());
        let refused = ResponseError::Refused { code: *code, command: "QueryOffset" };
        assert_eq!(answer::<QueryOffset>(&payload), Err(refused));
    }
}

#[test]
fn statistics() {
    let stats = "0001 00000003 000e 'first_chunk_id' 0000000000000005
                 0012 'committed_chunk_id' ffffffffffffffff 0001 'x' 0000000000000001";
    let read = answer::<StreamStats>(stats).unwrap();
    assert_eq!(read.first_chunk_id(), Some(Offset(5)));
    assert_eq!(read.committed_chunk_id(), None);
    assert_eq!(read.committed_offset(), None);
    assert_eq!(read.get("committed_chunk_id"), Some(-1));
    assert_eq!(read.get("x"), Some(1));
    no_cut_passes::<StreamStats>(stats);
    let newer = answer::<StreamStats>("0001 00000001 0010 'committed_offset' 000000000000000c");
    assert_eq!(newer.unwrap().committed_offset(), Some(Offset(12)));
}

#[test]
fn metadata_has_no_response_code() {
    let metadata = "00000002 0000 0001 'a' 000015b0 0001 0001 'b' 000015b0
                    00000003
                    0006 'events' 0001 0001 00000002 0000 0001
                    0004 'gone' 0002 ffff 00000000
                    0008 'headless' 0001 ffff 00000002 0000 0009";
    let read = answer::<Metadata>(metadata).unwrap();
    assert_eq!(read.nodes, [node("a"), node("b")]);
    let named = |name| read.stream(&StreamName::from(name)).unwrap();
    assert_eq!(named("events").leader, Some(node("b")));
    assert_eq!(named("events").replicas, [node("a"), node("b")]);
    assert_eq!(named("gone").code, ResponseCode::StreamDoesNotExist);
    assert_eq!(named("gone").leader, None);
    assert_eq!(named("headless").leader, None);
    assert_eq!(named("headless").replicas, [node("a")]);
    assert_eq!(read.stream(&StreamName::from("other")), None);
    no_cut_passes::<Metadata>(metadata);
}

#[test]
fn lists_of_streams() {
    let list = "0001 00000002 0003 's-0' 0003 's-1'";
    let names = vec![StreamName::from("s-0"), StreamName::from("s-1")];
    assert_eq!(answer::<Partitions>(list), Ok(names));
    assert_eq!(answer::<Partitions>("0001 00000000"), Ok(Vec::new()));
    assert_eq!(answer::<QueryPublisherSequence>("0001 0000000000000007"), Ok(7));
    no_cut_passes::<Partitions>(list);
}

#[test]
fn a_count_is_not_believed_beyond_its_bytes() {
    let error = answer::<Partitions>("0001 7fffffff 0001 'a'").unwrap_err();
    let problem = WireProblem::CountTooLarge { count: i32::MAX as u32, left: 3 };
    assert_eq!(error, ResponseError::Wire(WireError::new("Partitions", 2, problem)));
    let error = answer::<Partitions>("0001 80000000 0001 'a'").unwrap_err();
    let problem = WireProblem::NegativeLength(i32::MIN);
    assert_eq!(error, ResponseError::Wire(WireError::new("Partitions", 2, problem)));
    assert!(answer::<Partitions>("0001 00000001 fffe").is_err());
    assert!(answer::<Partitions>("0001 00000001 0002 c328").is_err());
}

#[test]
fn every_code_keeps_its_number_and_has_words() {
    assert_eq!(ResponseCode::ALL.len(), 0x15);
    for value in 0..0x40 {
        let code = ResponseCode::from(value);
        assert_eq!(code.value(), value);
        assert_eq!(matches!(code, ResponseCode::Unknown(_)), value == 0 || value > 0x15);
        assert!(!code.describe().is_empty());
    }
    assert_eq!(ResponseCode::NoOffset.to_string(), "no offset is stored (code 0x13)");
}
