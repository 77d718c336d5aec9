#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::testing::*;
use super::*;
use crate::types::Timestamp;

const ROOMY: InflateLimits = InflateLimits { max_bytes: 16 << 20 };

/// Offset and message of every record.
fn records(blocks: &[Block]) -> Vec<(u64, Vec<u8>)> {
    blocks
        .iter()
        .flat_map(|b| b.records())
        .inspect(|r| assert_eq!(r.timestamp, Timestamp(TIMESTAMP)))
        .map(|r| (r.offset.0, r.message.to_vec()))
        .collect()
}

/// The naive model: every message of every entry, numbered from the first.
fn model(entries: &[Entry]) -> Vec<(u64, Vec<u8>)> {
    entries.iter().flat_map(Entry::messages).zip(FIRST..).map(|(m, o)| (o, m)).collect()
}

fn of_every_kind() -> Vec<Entry> {
    let message = |n: u8| vec![n; usize::from(n)];
    let batch = |codec, n: u8| Entry::Batch(codec, vec![message(n), Vec::new(), message(n + 1)]);
    let mut entries = vec![Entry::Simple(message(3)), Entry::Simple(Vec::new())];
    for (codec, n) in CODECS.into_iter().zip(10..) {
        entries.push(batch(codec, n));
    }
    entries.push(Entry::Batch(Codec::Gzip, Vec::new()));
    entries.push(Entry::Simple(message(5)));
    entries
}

#[test]
fn header_fields_are_read_from_their_places() {
    // Written down by hand from osiris_log.erl, "Chunk format".
    let bytes: [u8; 48] = [
        0x50, 0x00, 0x00, 0x02, 0x00, 0x00, 0x00, 0x05, // magic, type, entries, records
        0x00, 0x00, 0x01, 0x8b, 0xcf, 0xe5, 0x68, 0x7b, // timestamp
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x09, // epoch
        0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x02, // chunk id
        0xde, 0xad, 0xbe, 0xef, 0x00, 0x00, 0x01, 0x00, // crc, data length
        0x00, 0x00, 0x00, 0x21, 0x10, 0x00, 0x00, 0x00, // trailer, bloom size, reserved
    ];
    let expected = ChunkHeader {
        kind: ChunkKind::User,
        entries: 2,
        records: 5,
        timestamp: Timestamp(1_700_000_000_123),
        epoch: 9,
        first_offset: Offset(0x1_0000_0002),
        crc: 0xdead_beef,
        data_bytes: 256,
        trailer_bytes: 33,
        bloom_bytes: 16,
    };
    assert_eq!(ChunkHeader::parse(&bytes), Ok(expected));
    assert_eq!(expected.next_offset(), Offset(0x1_0000_0007));
    for cut in 0..48 {
        assert!(ChunkHeader::parse(&bytes[..cut]).is_err(), "{cut} bytes made a header");
    }
}

#[test]
fn every_kind_of_entry_is_numbered() {
    let entries = of_every_kind();
    let chunk = Chunk::decode(chunk(&entries)).unwrap();
    assert_eq!(chunk.header().records, 18);
    assert_eq!(chunk.id().first_offset, Offset(FIRST));
    assert_eq!(chunk.id().epoch, EPOCH);
    // Four compressed batches of 3 messages; the empty one states 0 bytes; codec none costs nothing.
    let inflated: u64 = (11..15u64).map(|n| 12 + n + n + 1).sum();
    assert_eq!(chunk.inflated_bytes(), inflated);
    let blocks = chunk.into_blocks(&ROOMY).unwrap();
    assert_eq!(records(&blocks), model(&entries));
    // Two messages, five batches, one message; the empty batch leaves no block.
    assert_eq!(blocks.iter().map(Block::count).collect::<Vec<_>>(), [2, 3, 3, 3, 3, 3, 1]);
}

#[test]
fn messages_stay_where_the_frame_put_them() {
    let bytes = chunk(&[Entry::Simple(vec![1; 12]), Entry::Simple(vec![2; 12])]);
    let range = bytes.as_ptr_range();
    let blocks = Chunk::decode(bytes.clone()).unwrap().into_blocks(&ROOMY).unwrap();
    assert_eq!(blocks.len(), 1);
    assert!(range.contains(&blocks[0].bytes().as_ptr()));
    assert_eq!(blocks[0].bytes().len(), 32);
}

#[test]
fn other_kinds_of_chunk_are_named_and_hold_no_records() {
    for (kind, named) in
        [(1, ChunkKind::TrackingDelta), (2, ChunkKind::TrackingSnapshot), (9, ChunkKind::Other(9))]
    {
        let chunk = Chunk::decode(chunk_of(kind, 1, 1, b"\x01\x03abc\0\0\0\0\0\0\0\x09")).unwrap();
        assert_eq!(chunk.header().kind, named);
        assert_eq!(chunk.header().next_offset(), Offset(FIRST + 1));
        assert!(chunk.into_blocks(&ROOMY).unwrap().is_empty());
    }
}

#[test]
fn a_trailer_may_come_or_not() {
    let without = chunk(&[Entry::Simple(vec![1])]);
    let with = Bytes::from([&without[..], &[0; 33][..]].concat());
    assert!(Chunk::decode(without.clone()).is_ok());
    assert!(Chunk::decode(with).is_ok());
    for extra in [1, 32, 34] {
        let bytes = Bytes::from([&without[..], &vec![0; extra][..]].concat());
        let error = Chunk::decode(bytes).unwrap_err();
        assert!(matches!(error, ChunkError::BadHeader(_)), "{extra}: {error}");
    }
}

#[test]
fn a_chunk_cut_at_any_byte_is_an_error() {
    let whole = chunk(&of_every_kind());
    for cut in 0..whole.len() {
        assert!(Chunk::decode(whole.slice(..cut)).is_err(), "{cut} bytes made a chunk");
    }
}

#[test]
fn data_cut_at_any_byte_is_an_error_even_with_the_right_crc() {
    let entries = of_every_kind();
    let whole = chunk(&entries);
    let data = &whole[HEADER_BYTES..];
    for cut in 0..data.len() {
        let error = Chunk::decode(chunk_of(0, entries.len() as u16, 18, &data[..cut])).unwrap_err();
        assert!(matches!(error, ChunkError::BadEntry { .. }), "{cut}: {error}");
    }
}

#[test]
fn a_changed_byte_is_named_with_both_crcs() {
    let whole = chunk(&of_every_kind());
    for at in HEADER_BYTES..whole.len() {
        let mut bytes = whole.to_vec();
        bytes[at] ^= 0x40;
        let found = crc32fast::hash(&bytes[HEADER_BYTES..]);
        let expected = crc32fast::hash(&whole[HEADER_BYTES..]);
        let error = Chunk::decode(bytes.into()).unwrap_err();
        let first_offset = Offset(FIRST);
        assert_eq!(error, ChunkError::CrcMismatch { first_offset, expected, found });
    }
}

#[test]
fn totals_that_lie_are_errors() {
    let mut data = BytesMut::new();
    put_message(&mut data, b"one");
    put_batch(&mut data, 0, 2, 8, &[0; 8]);
    assert!(Chunk::decode(chunk_of(0, 2, 3, &data)).is_ok());
    for (entries, records) in [(2, 2), (2, 4), (2, 0), (2, u32::MAX), (1, 1), (1, 3), (0, 0)] {
        let error = Chunk::decode(chunk_of(0, entries, records, &data)).unwrap_err();
        assert!(
            matches!(error, ChunkError::WrongTotal { .. }),
            "{entries} entries, {records} records: {error}"
        );
    }
    let error = Chunk::decode(chunk_of(0, 3, 3, &data)).unwrap_err();
    assert!(matches!(error, ChunkError::BadEntry { records: 3, .. }), "{error}");
}

#[test]
fn offsets_never_pass_the_end_of_their_range() {
    let mut bytes = chunk(&[Entry::Simple(vec![1]), Entry::Simple(vec![2])]).to_vec();
    bytes[24..32].copy_from_slice(&(u64::MAX - 1).to_be_bytes());
    assert!(matches!(Chunk::decode(bytes.clone().into()), Err(ChunkError::BadHeader(_))));
    bytes[24..32].copy_from_slice(&(u64::MAX - 2).to_be_bytes());
    let blocks = Chunk::decode(bytes.into()).unwrap().into_blocks(&ROOMY).unwrap();
    assert_eq!(blocks[0].last_offset(), Offset(u64::MAX - 1));
}

#[test]
fn lengths_at_the_end_of_their_range_are_errors() {
    for head in [&[0x7f, 0xff, 0xff, 0xff][..], &[0xff; 11][..], &[0xff; 4][..], &[0x80; 10][..]] {
        for tail in [0, 1, 100] {
            let data = [head, &vec![0; tail][..]].concat();
            for records in [0, 1, 0xffff, u32::MAX] {
                assert!(Chunk::decode(chunk_of(0, 1, records, &data)).is_err());
                assert!(Chunk::decode(chunk_of(0, u16::MAX, records, &data)).is_err());
            }
        }
    }
    // A data length that is not that of the bytes.
    let mut bytes = chunk(&[Entry::Simple(vec![1])]).to_vec();
    bytes[36..40].copy_from_slice(&u32::MAX.to_be_bytes());
    assert!(matches!(Chunk::decode(bytes.into()), Err(ChunkError::BadHeader(_))));
}

#[test]
fn an_empty_batch_holds_nothing_and_may_state_nothing_else() {
    let mut data = BytesMut::new();
    put_batch(&mut data, 0, 0, 0, &[]);
    put_message(&mut data, b"after");
    let blocks = Chunk::decode(chunk_of(0, 2, 1, &data)).unwrap().into_blocks(&ROOMY).unwrap();
    assert_eq!(records(&blocks), [(FIRST, b"after".to_vec())]);

    let mut data = BytesMut::new();
    put_batch(&mut data, 0, 0, 4, &[0; 4]);
    let error = Chunk::decode(chunk_of(0, 1, 0, &data)).unwrap().into_blocks(&ROOMY).unwrap_err();
    assert_eq!(error, ChunkError::BadBatch { first: Offset(FIRST), count: 0 });
}

#[test]
fn an_unreadable_batch_leaves_its_neighbours_readable_and_numbered() {
    let mut plain = BytesMut::new();
    put_message(&mut plain, b"x");
    put_message(&mut plain, b"y");
    let gzip = compress(Codec::Gzip, &plain);
    let mut data = BytesMut::new();
    put_message(&mut data, b"before");
    put_batch(&mut data, 7, 3, 10, b"no such codec");
    put_batch(&mut data, 1, 3, plain.len(), &gzip); // Two messages, three stated.
    put_batch(&mut data, 1, 2, plain.len() + 1, &gzip); // One byte short.
    put_batch(&mut data, 1, 2, plain.len() - 1, &gzip); // One byte more.
    put_batch(&mut data, 1, 2, plain.len(), &gzip[..gzip.len() - 1]); // Its CRC cut.
    put_batch(&mut data, 1, 2, ROOMY.max_bytes + 1, &gzip);
    put_message(&mut data, b"after");
    let chunk = Chunk::decode(chunk_of(0, 8, 16, &data)).unwrap();
    let first = Offset(FIRST + 1);
    let limits = InflateLimits { max_bytes: 64 << 20 };
    assert_eq!(
        chunk.clone().into_blocks(&limits).unwrap_err(),
        ChunkError::UnknownCodec { first, codec: 7 }
    );

    let mut next = FIRST;
    let mut errors = Vec::new();
    let mut good = Vec::new();
    for piece in chunk.pieces(&ROOMY) {
        match piece {
            Piece::Block(block) => {
                assert_eq!(block.first_offset(), Offset(next));
                next += u64::from(block.count());
                good.extend(records(&[block]));
            }
            Piece::Unreadable { first, count, error, .. } => {
                assert_eq!(first, Offset(next));
                next += u64::from(count);
                errors.push(error);
            }
        }
    }
    assert_eq!(next, FIRST + 16);
    assert_eq!(good, [(FIRST, b"before".to_vec()), (FIRST + 15, b"after".to_vec())]);
    let at = |n: u64| Offset(FIRST + n);
    let wrong = |longer, stated| InflateError::WrongLength { longer, stated };
    let codec = Codec::Gzip;
    assert_eq!(errors[0], ChunkError::UnknownCodec { first: at(1), codec: 7 });
    assert_eq!(errors[1], ChunkError::BadBatch { first: at(4), count: 3 });
    assert_eq!(errors[2], ChunkError::Inflate { first: at(7), codec, detail: wrong(false, 11) });
    assert_eq!(errors[3], ChunkError::Inflate { first: at(9), codec, detail: wrong(true, 9) });
    assert!(matches!(&errors[4],
        ChunkError::Inflate { first, detail: InflateError::Damaged { .. }, .. } if *first == at(11)));
    assert!(
        matches!(errors[5], ChunkError::OverLimit { first_offset, .. } if first_offset == at(13))
    );
    assert_eq!(errors.len(), 6);
}

#[test]
fn the_limit_holds_for_all_batches_of_a_chunk_together() {
    let batch = Entry::Batch(Codec::Zstd, vec![vec![0; 996]]); // 1,000 bytes inflated.
    let chunk = Chunk::decode(chunk(&[batch.clone(), batch.clone(), batch])).unwrap();
    assert_eq!(chunk.inflated_bytes(), 3000);
    let blocks = chunk.clone().into_blocks(&InflateLimits { max_bytes: 3000 }).unwrap();
    assert_eq!(blocks.len(), 3);
    let error = chunk.clone().into_blocks(&InflateLimits { max_bytes: 2999 }).unwrap_err();
    let first_offset = Offset(FIRST);
    assert_eq!(error, ChunkError::OverLimit { first_offset, wanted: 3000, limit: 2999 });
    let readable = chunk
        .pieces(&InflateLimits { max_bytes: 2999 })
        .filter(|p| matches!(p, Piece::Block(_)))
        .count();
    assert_eq!(readable, 2);
}

fn entry() -> impl Strategy<Value = Entry> {
    let message = || prop::collection::vec(any::<u8>(), 0..40);
    let codec = prop::sample::select(CODECS.to_vec());
    prop_oneof![
        3 => message().prop_map(Entry::Simple),
        1 => (codec, prop::collection::vec(message(), 0..6))
            .prop_map(|(codec, messages)| Entry::Batch(codec, messages)),
    ]
}

proptest! {
    #[test]
    fn offsets_and_messages_agree_with_the_model(
        entries in prop::collection::vec(entry(), 0..20),
    ) {
        let chunk = Chunk::decode(chunk(&entries)).unwrap();
        let blocks = chunk.into_blocks(&ROOMY).unwrap();
        prop_assert_eq!(records(&blocks), model(&entries));
        // Messages that follow each other are one block.
        for pair in blocks.windows(2) {
            prop_assert!(pair[0].last_offset() < pair[1].first_offset());
        }
    }
}
