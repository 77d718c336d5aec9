use proptest::prelude::*;

use super::*;
use crate::sink::conformance::{BAD_MESSAGE, message};
use crate::types::{Offset, Timestamp};
use crate::wire::amqp::tests::encode::{Tree, any_message, section};

fn style(format: Format) -> Style {
    let (binary, on_terminal) = (None, true);
    Style { format, binary, on_terminal, colours: Colours(false), names_stream: false }
}

fn printed(message: &[u8], style: &Style) -> Vec<u8> {
    let record = Record { offset: Offset(12), timestamp: Timestamp(1_767_225_600_250), message };
    let mut out = Vec::new();
    Printer::new(&"events".into(), style).print(record, &mut out);
    out
}

fn text(message: &[u8], style: &Style) -> String {
    String::from_utf8(printed(message, style)).unwrap()
}

/// A message with an id, a property of the application's own, and this body.
fn whole(body: &[u8]) -> Vec<u8> {
    let symbol = |text: &str| Tree::String(text.to_owned());
    [
        section(0x73, Tree::List(vec![symbol("a-1")]), true),
        section(0x74, Tree::Map(vec![(symbol("region"), symbol("eu"))]), true),
        message(body),
    ]
    .concat()
}

#[test]
fn an_envelope_shows_every_part() {
    let shown = text(&whole(b"{\"a\": 1}"), &style(Format::Envelope));
    assert_eq!(
        shown,
        "-- offset 12, 2026-01-01T00:00:00.25Z\n   properties.message_id: \"a-1\"\n   \
         application_properties.region: \"eu\"\n{\"a\": 1}\n"
    );
    let of_several = style(Format::Envelope).naming_streams();
    assert!(text(&whole(b"1"), &of_several).starts_with("-- events offset 12, "));
    let nothing = section(0x77, Tree::Null, true);
    assert!(text(&nothing, &style(Format::Envelope)).ends_with("Z\n(no body)\n"));
    let value = section(0x77, Tree::Map(vec![(Tree::String("k".into()), Tree::Uint(5))]), true);
    assert!(text(&value, &style(Format::Envelope)).ends_with("Z\n{\"k\":5}\n"));
}

#[test]
fn colours_are_only_there_on_request() {
    let plain = style(Format::Envelope);
    assert!(!text(&whole(b"x"), &plain).contains('\x1b'));
    let coloured = Style { colours: Colours(true), ..plain };
    let shown = text(&whole(b"x"), &coloured);
    assert!(shown.starts_with("\x1b[1;36m-- offset 12, "), "{shown:?}");
    assert_eq!(shown.matches("\x1b[").count(), 2 * shown.matches("\x1b[0m").count());
}

#[test]
fn a_message_cannot_command_the_terminal() {
    for format in [Format::Envelope, Format::Body] {
        let shown = text(&message(b"a\x1b[2Jb\x07\xc2\x9b\n\tc"), &style(format));
        assert!(shown.ends_with("a\\u{1b}[2Jb\\u{7}\\u{9b}\n\tc\n"), "{shown:?}");
    }
}

#[test]
fn bytes_are_shown_as_text_and_pass_a_pipe_as_they_are() {
    let bytes = message(&[0, 255, 1]);
    assert!(text(&bytes, &style(Format::Envelope)).ends_with("(3 bytes, base64) AP8B\n"));
    let hex = Style { binary: Some(Binary::Hex), ..style(Format::Envelope) };
    assert!(text(&bytes, &hex).ends_with("(3 bytes, hex) 00ff01\n"));
    let body = style(Format::Body);
    assert_eq!(text(&bytes, &body), "AP8B\n");
    let piped = Style { on_terminal: false, ..body };
    assert_eq!(printed(&bytes, &piped), [0, 255, 1, b'\n']);
    assert_eq!(text(&bytes, &Style { binary: Some(Binary::Hex), ..piped.clone() }), "00ff01\n");
    // Text is never changed in a pipe.
    let escape = message(b"a\x1b[2Jb");
    assert_eq!(printed(&escape, &Style { binary: Some(Binary::Hex), ..piped }), b"a\x1b[2Jb\n");
}

#[test]
fn what_is_not_amqp_is_shown_by_its_bytes() {
    let shown = text(BAD_MESSAGE, &style(Format::Envelope));
    assert!(shown.contains("(not an AMQP message, by its bytes: "), "{shown}");
    assert!(shown.ends_with(&format!("base64) {}\n", STANDARD.encode(BAD_MESSAGE))), "{shown}");
    let line: serde_json::Value =
        serde_json::from_str(&text(BAD_MESSAGE, &style(Format::Json))).unwrap();
    assert_eq!(line["message"], STANDARD.encode(BAD_MESSAGE));
    assert_eq!((&line["offset"], &line["stream"]), (&12.into(), &"events".into()));
}

proptest! {
    #[test]
    fn whatever_comes_is_printed_and_ends_with_a_line_break(
        message in prop_oneof![any_message(), proptest::collection::vec(any::<u8>(), 0..200)]
    ) {
        for format in [Format::Envelope, Format::Body, Format::Json] {
            let shown = printed(&message, &style(format));
            prop_assert_eq!(shown.last(), Some(&b'\n'));
            let is_quiet = |c: char| !c.is_control() || c == '\n' || c == '\t';
            let shown = String::from_utf8(shown).unwrap();
            if format != Format::Json {
                prop_assert!(shown.chars().all(is_quiet), "{:?}", shown);
            }
        }
    }
}
