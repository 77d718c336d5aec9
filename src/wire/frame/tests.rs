#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use proptest::prelude::*;

use super::*;

const LIMITS: FrameLimits = FrameLimits { frame_max: 100, deliver_max: 1000 };

fn frame(key: u16, version: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    write_frame(&mut out, key, version, |out| {
        out.put_slice(payload);
        Ok(())
    })
    .unwrap();
    out.to_vec()
}

#[test]
fn a_frame_is_cut_where_it_ends() {
    let mut buf = BytesMut::from(&b"\0\0\0\x06\x80\x07\0\x02ab\0\0"[..]);
    let cut = split_frame(&mut buf, &LIMITS).unwrap().unwrap();
    let payload = Bytes::from_static(b"ab");
    assert_eq!(cut, Frame { key: 7, response: true, version: 2, payload });
    assert_eq!(&buf[..], b"\0\0");
    assert_eq!(split_frame(&mut buf, &LIMITS), Ok(None));
    assert_eq!(&buf[..], b"\0\0");
}

#[test]
fn nothing_comes_before_the_last_byte() {
    let whole = frame(keys::DELIVER, 1, &[9; 50]);
    for cut in 0..whole.len() {
        let mut buf = BytesMut::from(&whole[..cut]);
        assert_eq!(split_frame(&mut buf, &LIMITS), Ok(None), "{cut} bytes made a frame");
        assert_eq!(buf.len(), cut);
    }
}

#[test]
fn each_limit_holds_for_its_frames_and_before_they_arrive() {
    // Key, payload bytes, whether it passes. Key and version count: 4 bytes.
    let cases = [
        (keys::METADATA, 96, true),
        (keys::METADATA, 97, false),
        (keys::DELIVER, 97, true),
        (keys::DELIVER, 996, true),
        (keys::DELIVER, 997, false),
        // The answer to a Deliver does not exist, but it is bounded like one.
        (keys::DELIVER | 0x8000, 997, false),
    ];
    for (key, payload, passes) in cases {
        let whole = frame(key, 1, &vec![0; payload]);
        for arrived in [8, 9, whole.len()] {
            let result = split_frame(&mut BytesMut::from(&whole[..arrived]), &LIMITS);
            assert_eq!(result.is_ok(), passes, "key {key}, {payload} bytes, {arrived} arrived");
        }
    }
    // Over both limits: no need to wait for the key.
    let error = split_frame(&mut BytesMut::from(&1001_u32.to_be_bytes()[..]), &LIMITS).unwrap_err();
    assert_eq!(error.problem, WireProblem::FrameTooLarge { size: 1001, limit: 1000 });
    assert_eq!(
        error.to_string(),
        "frame, byte 0: a frame of 1001 bytes is over the limit of 1000 bytes"
    );
    // 0 is the protocol's "no limit".
    let none = FrameLimits { frame_max: 0, deliver_max: 10 };
    let huge = [&u32::MAX.to_be_bytes()[..], &[0, 15, 0, 1]].concat();
    assert_eq!(split_frame(&mut BytesMut::from(&huge[..]), &none), Ok(None));
    assert!(split_frame(&mut BytesMut::from(&huge[..]), &LIMITS).is_err());
}

#[test]
fn a_size_that_cannot_hold_a_head_is_an_error() {
    for size in 0..4_u32 {
        let mut buf = BytesMut::from(&size.to_be_bytes()[..]);
        let error = split_frame(&mut buf, &LIMITS).unwrap_err();
        assert_eq!(error.problem, WireProblem::FrameTooSmall(size));
    }
    assert!(split_frame(&mut BytesMut::from(&b"\0\0\0\x04\0\x17\0\x01"[..]), &LIMITS).is_ok());
}

#[test]
fn what_can_be_known_before_a_deliver_is_there() {
    let v1 = frame(keys::DELIVER, 1, b"\x2achunk");
    let v2 = frame(keys::DELIVER, 2, b"\x2a\0\0\0\0\0\0\0\x01chunk");
    assert_eq!(peek(&v1[..7]), None);
    let early = peek(&v1[..8]).unwrap();
    assert!(early.is_deliver());
    assert_eq!((early.subscription, early.frame_bytes), (None, 14));
    for whole in [v1, v2] {
        let seen = peek(&whole[..9]).unwrap();
        assert_eq!(seen.subscription, Some(0x2a));
        assert_eq!(seen.frame_bytes, whole.len() as u64);
        assert_eq!(&whole[seen.chunk_at.unwrap()..], b"chunk");
    }
    let other = peek(&frame(keys::CREDIT | 0x8000, 1, &[0, 4, 7])).unwrap();
    assert_eq!((other.key, other.response, other.version), (keys::CREDIT, true, 1));
    assert_eq!((other.subscription, other.chunk_at, other.is_deliver()), (None, None, false));
}

#[test]
fn a_frame_that_cannot_be_written_leaves_nothing_behind() {
    let mut out = BytesMut::from(&b"before"[..]);
    let failed = write_frame(&mut out, 1, 1, |out| {
        out.put_slice(b"half");
        Err(WireError::new("test", 0, WireProblem::Null))
    });
    assert!(failed.is_err());
    assert_eq!(&out[..], b"before");
}

proptest! {
    #[test]
    fn frames_come_out_as_they_went_in_however_the_bytes_arrive(
        frames in prop::collection::vec(
            (0_u16..0x20, any::<bool>(), any::<u16>(), prop::collection::vec(any::<u8>(), 0..90)),
            0..8,
        ),
        step in 1_usize..40,
    ) {
        let mut stream = Vec::new();
        let mut expected = Vec::new();
        for (key, response, version, payload) in frames {
            let raw = if response { key | RESPONSE_BIT } else { key };
            stream.extend(frame(raw, version, &payload));
            expected.push(Frame { key, response, version, payload: payload.into() });
        }
        let mut buf = BytesMut::new();
        let mut found = Vec::new();
        for piece in stream.chunks(step) {
            buf.extend_from_slice(piece);
            while let Some(frame) = split_frame(&mut buf, &LIMITS).unwrap() {
                found.push(frame);
            }
        }
        prop_assert_eq!(found, expected);
        prop_assert!(buf.is_empty());
    }
}
