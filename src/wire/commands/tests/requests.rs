//! What is sent, against bytes written down by hand from PROTOCOL.adoc.

use bytes::Bytes;

use super::super::*;
use crate::types::{Offset, Reference, Secret, StreamName, Timestamp};
use crate::wire::error::{WireError, WireProblem};

/// Hex digits and spaces; `'text'` stands for its bytes.
pub(super) fn bytes(notation: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for (i, part) in notation.split('\'').enumerate() {
        if i % 2 == 1 {
            out.extend_from_slice(part.as_bytes());
            continue;
        }
        let digits: Vec<u8> = part
            .chars()
            .filter(|c| !c.is_whitespace())
            .map(|c| c.to_digit(16).unwrap() as u8)
            .collect();
        assert!(digits.len().is_multiple_of(2), "odd digits in {part:?}");
        out.extend(digits.chunks(2).map(|d| d[0] << 4 | d[1]));
    }
    out
}

/// Checks a whole frame: the size is computed here, the rest is the notation's.
#[track_caller]
fn sent(frame: Bytes, notation: &str) {
    let content = bytes(notation);
    let expected = [&(content.len() as u32).to_be_bytes()[..], &content].concat();
    assert_eq!(frame, expected, "\n sent {frame:02x?}\n want {expected:02x?}");
}

#[track_caller]
fn request<R: Request>(request: R, notation: &str) {
    sent(encode_request(&request, 0x0102_0304).unwrap(), notation);
}

fn stream() -> StreamName {
    StreamName::from("events")
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

#[test]
fn the_handshake() {
    request(
        PeerProperties { properties: pairs(&[("product", "rillway"), ("v", "")]) },
        "0011 0001 01020304 00000002 0007 'product' 0007 'rillway' 0001 'v' 0000",
    );
    request(SaslHandshake, "0012 0001 01020304");
    request(
        SaslAuthenticate::plain("guest", &Secret::new("s3cret")),
        "0013 0001 01020304 0005 'PLAIN' 0000000d 00 'guest' 00 's3cret'",
    );
    request(SaslAuthenticate::external(), "0013 0001 01020304 0008 'EXTERNAL' ffffffff");
    sent(tune(1_048_576, 60), "0014 0001 00100000 0000003c");
    request(Open { virtual_host: "/".into() }, "0015 0001 01020304 0001 '/'");
    request(
        ExchangeCommandVersions { versions: vec![CommandVersions { key: 8, min: 1, max: 2 }] },
        "001b 0001 01020304 00000001 0008 0001 0002",
    );
    request(
        Close { code: ResponseCode::Ok, reason: "bye".into() },
        "0016 0001 01020304 0001 0003 'bye'",
    );
    sent(close_response(0x0a0b_0c0d), "8016 0001 0a0b0c0d 0001");
    sent(heartbeat(), "0017 0001");
}

#[test]
fn offered_versions_hold_deliver_2_and_nothing_that_old_brokers_cannot_parse() {
    let ours = ExchangeCommandVersions::ours().versions;
    assert!(CommandVersions::supports(&ours, keys::DELIVER, 2));
    assert!(!CommandVersions::supports(&ours, keys::DELIVER, 3));
    assert!(!CommandVersions::supports(&ours, keys::PUBLISH, 2));
    assert_eq!(ours.iter().map(|v| v.key).max(), Some(0x1c));
    assert_eq!(ours.len(), 0x1c);
}

#[test]
fn subscriptions_at_all_five_positions() {
    let cases = [
        (OffsetSpec::First, "0001"),
        (OffsetSpec::Last, "0002"),
        (OffsetSpec::Next, "0003"),
        (OffsetSpec::Offset(Offset(u64::MAX - 1)), "0004 fffffffffffffffe"),
        (OffsetSpec::Timestamp(Timestamp(-2)), "0005 fffffffffffffffe"),
    ];
    for (start, notation) in cases {
        let subscribe = |properties| Subscribe {
            subscription: 0xfe,
            stream: stream(),
            start,
            credits: 10,
            properties,
        };
        request(
            subscribe(Vec::new()),
            &format!("0007 0001 01020304 fe 0006 'events' {notation} 000a"),
        );
        request(
            subscribe(pairs(&[("filter.0", "eu")])),
            &format!(
                "0007 0001 01020304 fe 0006 'events' {notation} 000a
                 00000001 0008 'filter.0' 0002 'eu'"
            ),
        );
        sent(
            consumer_update_response(0x0a0b_0c0d, ResponseCode::Ok, Some(start)),
            &format!("801a 0001 0a0b0c0d 0001 {notation}"),
        );
    }
    sent(
        consumer_update_response(0x0a0b_0c0d, ResponseCode::Ok, None),
        "801a 0001 0a0b0c0d 0001 0000",
    );
    request(Unsubscribe { subscription: 3 }, "000c 0001 01020304 03");
    sent(credit(0xfe, 0x0102), "0009 0001 fe 0102");
}

#[test]
fn offsets_and_statistics() {
    let reference = Reference::from("archiver");
    sent(
        store_offset(&reference, &stream(), Offset(0x0102_0304_0506_0708)).unwrap(),
        "000a 0001 0008 'archiver' 0006 'events' 0102030405060708",
    );
    request(
        QueryOffset { reference, stream: stream() },
        "000b 0001 01020304 0008 'archiver' 0006 'events'",
    );
    request(StreamStats { stream: stream() }, "001c 0001 01020304 0006 'events'");
}

#[test]
fn topology() {
    request(
        Metadata { streams: vec![stream(), StreamName::from("b")] },
        "000f 0001 01020304 00000002 0006 'events' 0001 'b'",
    );
    request(Partitions { super_stream: stream() }, "0019 0001 01020304 0006 'events'");
    request(
        Create { stream: stream(), arguments: pairs(&[("max-age", "1h")]) },
        "000d 0001 01020304 0006 'events' 00000001 0007 'max-age' 0002 '1h'",
    );
    request(
        Create { stream: stream(), arguments: Vec::new() },
        "000d 0001 01020304 0006 'events' 00000000",
    );
    request(Delete { stream: stream() }, "000e 0001 01020304 0006 'events'");
    request(
        CreateSuperStream {
            super_stream: StreamName::from("s"),
            partitions: vec![
                (StreamName::from("s-0"), "0".into()),
                (StreamName::from("s-1"), "1".into()),
            ],
            arguments: Vec::new(),
        },
        "001d 0001 01020304 0001 's' 00000002 0003 's-0' 0003 's-1'
         00000002 0001 '0' 0001 '1' 00000000",
    );
}

#[test]
fn publishing() {
    request(
        DeclarePublisher { publisher: 1, reference: "p".into(), stream: stream() },
        "0001 0001 01020304 01 0001 'p' 0006 'events'",
    );
    request(
        QueryPublisherSequence { reference: "p".into(), stream: stream() },
        "0005 0001 01020304 0001 'p' 0006 'events'",
    );
    request(DeletePublisher { publisher: 1 }, "0006 0001 01020304 01");
    let mut builder = PublishBuilder::new(1, 0);
    assert_eq!(builder.push(7, b"ab"), Ok(true));
    assert_eq!(builder.push(8, b""), Ok(true));
    assert_eq!(builder.count(), 2);
    sent(
        builder.finish().unwrap(),
        "0002 0001 01 00000002 0000000000000007 00000002 'ab' 0000000000000008 00000000",
    );
    assert!(PublishBuilder::new(1, 0).finish().is_none());
}

#[test]
fn a_publish_frame_fills_the_limit_and_never_passes_it() {
    // 9 bytes ahead of the messages, 12 ahead of each.
    let limit = 9 + 2 * (12 + 10);
    let mut builder = PublishBuilder::new(1, limit);
    assert_eq!(builder.push(1, &[0; 10]), Ok(true));
    assert_eq!(builder.push(2, &[0; 11]), Ok(false));
    assert_eq!(builder.push(2, &[0; 10]), Ok(true));
    assert_eq!(builder.push(3, &[]), Ok(false));
    assert_eq!(builder.finish().unwrap().len(), 4 + limit as usize);
    let error = PublishBuilder::new(1, limit).push(1, &[0; 33]).unwrap_err();
    assert!(matches!(error.problem, WireProblem::TooLong { what: "message", length: 33, .. }));
}

#[test]
fn text_over_its_limit_is_an_error_that_names_it() {
    let long = "x".repeat(32_768);
    let what = |error: WireError| match error.problem {
        WireProblem::TooLong { what, length, limit } => (what, length, limit),
        other => panic!("{other}"),
    };
    let error = encode_request(&Open { virtual_host: long.clone() }, 1).unwrap_err();
    assert_eq!(what(error), ("virtual host", 32_768, 32_767));
    assert!(encode_request(&Open { virtual_host: long[1..].to_owned() }, 1).is_ok());

    let at_most = Reference::new("r".repeat(255));
    let too_long = Reference::new("r".repeat(256));
    assert!(store_offset(&at_most, &stream(), Offset(0)).is_ok());
    let error = store_offset(&too_long, &stream(), Offset(0)).unwrap_err();
    assert_eq!(what(error), ("reference", 256, 255));
    let query = QueryOffset { reference: too_long, stream: stream() };
    assert_eq!(what(encode_request(&query, 1).unwrap_err()), ("reference", 256, 255));
}

#[test]
fn secrets_are_not_shown() {
    let plain = SaslAuthenticate::plain("guest", &Secret::new("s3cret"));
    let shown = format!("{plain:?} {:?}", SaslOutcome::Challenge(b"s3cret".to_vec()));
    assert!(!shown.contains("s3cret") && shown.contains("PLAIN"), "{shown}");
}
