#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use proptest::prelude::*;

use super::*;

fn cursor(bytes: &[u8]) -> Cursor<'_> {
    Cursor::new("test", bytes)
}

#[test]
fn integers_are_big_endian() {
    let bytes = [0xff, 0xfe, 0xfd, 0xfc, 0xfb, 0xfa, 0xf9, 0xf8];
    assert_eq!(cursor(&bytes).u8(), Ok(0xff));
    assert_eq!(cursor(&bytes).u16(), Ok(0xfffe));
    assert_eq!(cursor(&bytes).i16(), Ok(-2));
    assert_eq!(cursor(&bytes).u32(), Ok(0xfffe_fdfc));
    assert_eq!(cursor(&bytes).i32(), Ok(-66_052));
    assert_eq!(cursor(&bytes).u64(), Ok(0xfffe_fdfc_fbfa_f9f8));
    assert_eq!(cursor(&bytes).i64(), Ok(-283_686_952_306_184));
}

#[test]
fn an_error_names_structure_and_byte_and_takes_nothing() {
    let mut c = cursor(&[0, 1, 2, 3, 4]);
    c.u16().unwrap();
    let error = c.u32().unwrap_err();
    assert_eq!(error, WireError::new("test", 2, WireProblem::Truncated { wanted: 4, left: 3 }));
    assert_eq!(error.to_string(), "test, byte 2: 4 more bytes needed, 3 left");
    assert_eq!(c.take(3), Ok(&[2, 3, 4][..]));
    assert!(c.is_empty());
    assert_eq!(c.take(0), Ok(&[][..]));
    assert!(c.u8().is_err());
}

#[test]
fn strings_null_and_wrong() {
    assert_eq!(cursor(b"\0\x02hi!").string(), Ok("hi"));
    assert_eq!(cursor(b"\0\0").string(), Ok(""));
    assert_eq!(cursor(b"\xff\xff").nullable_string(), Ok(None));
    assert_eq!(cursor(b"\xff\xff").string_lossy(), Ok(String::new()));
    assert_eq!(cursor(b"\0\x01\xff").string_lossy(), Ok("\u{fffd}".to_owned()));
    let problem = |bytes: &'static [u8]| {
        let error = cursor(bytes).string().unwrap_err();
        (error.position, error.problem)
    };
    assert_eq!(problem(b"\xff\xff"), (0, WireProblem::Null));
    assert_eq!(problem(b"\0\x02\xc3("), (0, WireProblem::NotUtf8));
    assert_eq!(problem(b"\xff\xfe.."), (0, WireProblem::NegativeLength(-2)));
    assert_eq!(problem(b"\0\x03hi"), (2, WireProblem::Truncated { wanted: 3, left: 2 }));
    assert_eq!(problem(b"\x7f\xff"), (2, WireProblem::Truncated { wanted: 32_767, left: 0 }));
}

#[test]
fn bytes_null_and_wrong() {
    assert_eq!(cursor(b"\0\0\0\x02hi!").bytes(), Ok(Some(&b"hi"[..])));
    assert_eq!(cursor(b"\xff\xff\xff\xff").bytes(), Ok(None));
    for wrong in [&b"\x80\0\0\0"[..], b"\xff\xff\xff\xfe", b"\x7f\xff\xff\xff", b"\0\0\0\x01"] {
        assert!(cursor(wrong).bytes().is_err(), "{wrong:?}");
    }
}

#[test]
fn a_count_over_what_the_bytes_can_hold_reads_no_item() {
    let mut read = 0;
    let result = cursor(b"\0\0\0\x03\0\x01\0\x02\0").array(2, |c| {
        read += 1;
        c.u16()
    });
    let error = WireError::new("test", 0, WireProblem::CountTooLarge { count: 3, left: 5 });
    assert_eq!((result, read), (Err(error), 0));
    assert_eq!(cursor(b"\0\0\0\x02\0\x01\0\x02\0").array(2, Cursor::u16), Ok(vec![1, 2]));
    assert_eq!(cursor(b"\xff\xff\xff\xff").array(2, Cursor::u16), Ok(vec![]));
    assert!(cursor(b"\xff\xff\xff\xfe").array(2, Cursor::u16).is_err());
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        pairs in prop::collection::vec((".{0,20}", ".{0,20}"), 0..10),
        blob in prop::option::of(prop::collection::vec(any::<u8>(), 0..50)),
    ) {
        let mut out = BytesMut::new();
        out.put_string_pairs("pairs", &pairs).unwrap();
        out.put_blob("blob", blob.as_deref()).unwrap();
        let mut c = cursor(&out);
        prop_assert_eq!(c.string_pairs(), Ok(pairs));
        prop_assert_eq!(c.bytes(), Ok(blob.as_deref()));
        prop_assert!(c.is_empty());
    }
}
