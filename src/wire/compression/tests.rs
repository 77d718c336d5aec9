#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::Write as _;

use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
use proptest::prelude::*;

use super::*;
use crate::wire::chunk::testing::{CODECS, compress};

const COMPRESSED: [Codec; 4] = [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];
const MIB: usize = 1 << 20;

/// Bytes that every codec can make smaller, but not by much.
fn text(length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(length as u64);
    let mut out = Vec::with_capacity(length + 9);
    while out.len() < length {
        out.extend_from_slice(format!("{:04x}-word ", random.u16(..)).as_bytes());
    }
    out.truncate(length);
    out
}

fn inflated(codec: Codec, data: &[u8], stated: usize) -> Result<Bytes, InflateError> {
    inflate(codec, &Bytes::copy_from_slice(data), stated, 16 * MIB)
}

fn lz4_frame(info: FrameInfo, plain: &[u8]) -> Vec<u8> {
    let mut w = FrameEncoder::with_frame_info(info, Vec::new());
    w.write_all(plain).unwrap();
    w.finish().unwrap()
}

#[test]
fn every_codec_gives_back_what_its_encoder_took() {
    for codec in CODECS {
        for length in [0, 1, 100, 70_000, 9 * MIB] {
            let plain = text(length);
            let packed = compress(codec, &plain);
            assert!(codec == Codec::None || length < 1000 || packed.len() < length);
            assert_eq!(inflated(codec, &packed, length).unwrap(), plain, "{codec}, {length} bytes");
        }
    }
}

#[test]
fn codec_none_copies_nothing_and_believes_no_statement() {
    let data = Bytes::from(text(100));
    let out = inflate(Codec::None, &data, 7, 0).unwrap();
    assert_eq!((out.as_ptr(), out.len()), (data.as_ptr(), 100));
}

/// Two messages, `hello` and an empty one, as other implementations pack them.
#[test]
fn what_other_implementations_write() {
    let cases = [
        // Python's gzip module.
        (Codec::Gzip, "1f8b080000000000020363606060cd48cdc9c9670002008909afbe0d000000"),
        // The command lines of zstd 1.5 (from a pipe, with a window of 128 MiB) and lz4 1.9 (block
        // and content checksums).
        (Codec::Zstd, "28b52ffd04886900000000000568656c6c6f00000000d7a07daa"),
        (Codec::Lz4, "04224d187440bd0d0000800000000568656c6c6f0000000066fdf0930000000066fdf093"),
        // Framed snappy as the format's description lays it down, with an uncompressed chunk.
        (Codec::Snappy, "ff060000734e615070590111000032234bc80000000568656c6c6f00000000"),
    ];
    for (codec, hex) in cases {
        let packed: Vec<u8> = (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
            .collect();
        let plain = inflated(codec, &packed, 13).unwrap();
        assert_eq!(plain, &b"\0\0\0\x05hello\0\0\0\0"[..], "{codec}");
    }
}

#[test]
fn gzip_members_one_after_the_other() {
    let two = [compress(Codec::Gzip, b"one "), compress(Codec::Gzip, b"two")].concat();
    assert_eq!(inflated(Codec::Gzip, &two, 7).unwrap(), "one two");
}

#[test]
fn raw_snappy_is_told_from_framed() {
    let plain = text(100_000);
    let raw = snap::raw::Encoder::new().compress_vec(&plain).unwrap();
    assert_eq!(inflated(Codec::Snappy, &raw, plain.len()).unwrap(), plain);
    let framed = compress(Codec::Snappy, &plain);
    assert!(framed.starts_with(SNAPPY_STREAM) && !raw.starts_with(SNAPPY_STREAM));
    for (stated, longer) in [(99_999, true), (100_001, false)] {
        let error = inflated(Codec::Snappy, &raw, stated).unwrap_err();
        assert_eq!(error, InflateError::WrongLength { stated, longer });
    }
    for cut in (0..raw.len()).step_by(97) {
        assert!(inflated(Codec::Snappy, &raw[..cut], plain.len()).is_err());
    }
}

#[test]
fn lz4_frames_of_every_make_and_one_after_the_other() {
    let plain = text(300_000);
    let mut frames = Vec::new();
    for mode in [BlockMode::Independent, BlockMode::Linked] {
        for size in [BlockSize::Max64KB, BlockSize::Max4MB, BlockSize::Max256KB] {
            for checked in [false, true] {
                let info = FrameInfo::new()
                    .block_mode(mode)
                    .block_size(size)
                    .block_checksums(checked)
                    .content_checksum(checked)
                    .content_size(checked.then_some(plain.len() as u64));
                let frame = lz4_frame(info, &plain);
                assert_eq!(inflated(Codec::Lz4, &frame, plain.len()).unwrap(), plain);
                frames.push(frame);
            }
        }
    }
    let all = inflated(Codec::Lz4, &frames.concat(), plain.len() * frames.len()).unwrap();
    assert!(all.chunks(plain.len()).all(|part| part == plain));
    let raw_block = [0x50, b'h', b'e', b'l', b'l', b'o'];
    assert!(matches!(inflated(Codec::Lz4, &raw_block, 5), Err(InflateError::Damaged { .. })));
}

#[test]
fn zstd_frames_without_a_stated_size_and_one_after_the_other() {
    let plain = text(300_000);
    let mut w = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    w.include_checksum(true).unwrap();
    for part in plain.chunks(1000) {
        w.write_all(part).unwrap();
        w.flush().unwrap();
    }
    let streamed = w.finish().unwrap();
    assert_eq!(inflated(Codec::Zstd, &streamed, plain.len()).unwrap(), plain);
    let two = [compress(Codec::Zstd, b"one "), compress(Codec::Zstd, b"two")].concat();
    assert_eq!(inflated(Codec::Zstd, &two, 7).unwrap(), "one two");
}

#[test]
fn data_cut_at_any_byte_is_an_error() {
    let plain = text(500);
    for codec in COMPRESSED {
        let packed = compress(codec, &plain);
        for cut in 0..packed.len() {
            assert!(inflated(codec, &packed[..cut], 500).is_err(), "{codec} cut at {cut}");
        }
    }
}

#[test]
fn more_or_less_than_stated_is_an_error() {
    let plain = text(200_000);
    for codec in COMPRESSED {
        let packed = compress(codec, &plain);
        for stated in [0, 1, 65_536, 199_999] {
            match inflated(codec, &packed, stated).unwrap_err() {
                InflateError::WrongLength { stated: s, longer: true } => assert_eq!(s, stated),
                InflateError::Damaged { .. } if codec == Codec::Zstd => {}
                other => panic!("{codec}, {stated} stated: {other}"),
            }
        }
        for stated in [200_001, 300_000] {
            let error = inflated(codec, &packed, stated).unwrap_err();
            assert_eq!(error, InflateError::WrongLength { stated, longer: false }, "{codec}");
        }
    }
}

#[test]
fn a_bomb_is_cut_off() {
    for codec in COMPRESSED {
        let packed = Bytes::from(compress(codec, &vec![0; 64 * MIB]));
        assert!(packed.len() < 4 * MIB, "{codec}: not much of a bomb");
        // It states its true size: refused without inflating.
        let error = inflate(codec, &packed, 64 * MIB, MIB).unwrap_err();
        assert_eq!(error, InflateError::OverLimit { wanted: 64 << 20, limit: 1 << 20 });
        // It states a wrong size: cut off at that size.
        assert!(inflate(codec, &packed, MIB, MIB).is_err(), "{codec}");
        // A length that no memory holds.
        let error = inflate(codec, &packed, usize::MAX, MIB).unwrap_err();
        assert!(matches!(error, InflateError::OverLimit { .. }));
    }
}

#[test]
fn no_data_inflates_to_nothing_and_to_nothing_else() {
    for codec in COMPRESSED {
        assert_eq!(inflated(codec, b"", 0).unwrap(), "");
        assert!(inflated(codec, b"", 1).is_err());
    }
}

proptest! {
    #[test]
    fn damaged_data_never_panics_and_never_has_another_length(
        which in 0..4_usize,
        plain in prop::collection::vec(0..4_u8, 0..300),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        stated in 0..400_usize,
    ) {
        let codec = COMPRESSED[which];
        let mut packed = compress(codec, &plain);
        if !packed.is_empty() {
            for (at, value) in damage {
                let at = at.index(packed.len());
                packed[at] = value;
            }
        }
        if let Ok(out) = inflated(codec, &packed, stated) {
            prop_assert_eq!(out.len(), stated);
        }
    }
}
