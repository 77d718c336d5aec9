//! Names of a stream's folder and of segments, and the rule for when a segment ends.
//!
//! Pure: no I/O.

use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::sink::format::Format;
use crate::types::file_name::fitted;
use crate::types::{Offset, StreamName, Timestamp};

use super::compression::Compression;
use super::position::Tail;

/// Characters that are percent-encoded in a folder's name.
const UNSAFE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');

/// Longest folder name in bytes; file systems accept 255.
const FOLDER_BYTES_MAX: usize = 200;

/// All extensions of segments.
const EXTENSIONS: [&str; 6] = ["ndjson", "ndjson.zst", "ndjson.gz", "raw", "raw.zst", "raw.gz"];

/// Name of a stream's folder: the stream's own name, percent-encoded except letters, digits, `-`, `_` and
/// `.` (a `.` at the beginning is encoded too). A name that becomes too long is cut, and `~` and a hash
/// are appended.
pub(super) fn folder(stream: &StreamName) -> String {
    let stream = stream.as_str();
    let mut name = utf8_percent_encode(stream, UNSAFE).to_string();
    if name.starts_with('.') {
        name.replace_range(..1, "%2E");
    }
    if name.is_empty() {
        name.push('%'); // No encoded name can end like this.
    }
    // The position file, which holds the stream's whole name, shows a collision.
    fitted(name, stream, FOLDER_BYTES_MAX)
}

/// Extension of segments of this format and compression.
pub(super) fn extension(format: &Format, compression: Compression) -> String {
    let suffix = match compression {
        Compression::None => "",
        Compression::Zstd { .. } => ".zst",
        Compression::Gzip { .. } => ".gz",
    };
    format!("{}{suffix}", format.extension())
}

/// Name of the segment whose first record has an offset of at least `first`.
pub(super) fn file_name(first: Offset, extension: &str) -> String {
    format!("{:020}.{extension}", first.0)
}

/// First offset and extension in a segment's name; `None` for any other file.
pub(super) fn parse(name: &str) -> Option<(Offset, &str)> {
    let (digits, extension) = name.split_once('.')?;
    let well_formed = digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit());
    if !well_formed || !EXTENSIONS.contains(&extension) {
        return None;
    }
    Some((Offset(digits.parse().ok()?), extension))
}

/// Rule for when a segment ends and the next begins.
#[derive(Clone, Debug)]
pub(super) struct Rotation {
    /// Current extension of segments.
    pub(super) extension: String,
    /// Size in bytes from which a segment accepts no further batch; `None` for no limit.
    pub(super) bytes: Option<u64>,
    /// Age from which a segment accepts no further batch; `None` for no limit.
    pub(super) age: Option<Duration>,
}

impl Rotation {
    /// True if a batch that begins at `first` must go into a new segment.
    pub(super) fn is_due(&self, tail: &Tail, first: Offset, now: Timestamp) -> bool {
        let Some((tail_first, extension)) = parse(&tail.segment) else {
            return true;
        };
        if extension != self.extension {
            return true; // The configured format or compression has changed.
        }
        if tail.bytes == 0 {
            return tail_first != first; // An empty segment is never full, but may be misnamed.
        }
        let age = Duration::from_secs_f64(tail.started.seconds_until(now));
        self.bytes.is_some_and(|limit| tail.bytes >= limit)
            || self.age.is_some_and(|limit| age >= limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn stream_names_become_folders() {
        let cases = [
            ("events", "events"),
            ("a.b-c_d", "a.b-c_d"),
            ("..", "%2E."),
            (".hidden", "%2Ehidden"),
            ("a/b", "a%2Fb"),
            ("../../etc", "%2E.%2F..%2Fetc"),
            ("a\0b", "a%00b"),
            ("100%", "100%25"),
            ("é", "%C3%A9"),
            ("", "%"),
        ];
        for (stream, expected) in cases {
            assert_eq!(folder(&StreamName::from(stream)), expected);
        }
        let long = folder(&StreamName::from("x".repeat(255).as_str()));
        let other = folder(&StreamName::from(format!("{}y", "x".repeat(254)).as_str()));
        assert_eq!(long.len(), FOLDER_BYTES_MAX);
        assert_ne!(long, other);
    }

    proptest! {
        #[test]
        fn a_folder_is_one_safe_component(name in any::<String>()) {
            let folder = folder(&StreamName::from(name.as_str()));
            prop_assert!(!folder.is_empty() && folder.len() <= FOLDER_BYTES_MAX);
            prop_assert!(!folder.starts_with('.'));
            prop_assert!(folder.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.%~".contains(&b)));
        }

        #[test]
        fn two_streams_never_share_a_folder(a in ".{0,80}", b in ".{0,80}") {
            let same = folder(&StreamName::from(a.as_str())) == folder(&StreamName::from(b.as_str()));
            prop_assert_eq!(same, a == b);
        }

        #[test]
        fn segment_names_are_read_back(offset in any::<u64>(), ending in 0..EXTENSIONS.len()) {
            let name = file_name(Offset(offset), EXTENSIONS[ending]);
            prop_assert_eq!(parse(&name), Some((Offset(offset), EXTENSIONS[ending])));
        }
    }

    #[test]
    fn other_files_are_not_segments() {
        for name in [
            "position.rillway",
            "rillway.lock",
            "1.ndjson",
            "00000000000000000001.ndjson.aside",
            "00000000000000000001.ndjson.aside.1",
            "00000000000000000001.txt",
            "00000000000000000001",
            "0000000000000000000x.ndjson",
            "99999999999999999999.ndjson",
            "+0000000000000000001.ndjson",
        ] {
            assert_eq!(parse(name), None, "{name}");
        }
    }

    #[test]
    fn rotation_is_due_by_table() {
        let rotation = Rotation {
            extension: "ndjson".to_owned(),
            bytes: Some(100),
            age: Some(Duration::from_secs(10)),
        };
        let name = "00000000000000000005.ndjson";
        let cases = [
            // (segment, bytes, started, first of the batch, due)
            (name, 0, 1_000, 5, false),
            (name, 0, 1_000, 6, true),
            (name, 0, -90_000, 5, false),
            (name, 99, 1_000, 9, false),
            (name, 100, 1_000, 9, true),
            (name, 1, -9_000, 9, true),
            (name, 1, -8_999, 9, false),
            (name, 1, 99_000, 9, false), // The clock was put back.
            ("00000000000000000005.ndjson.zst", 1, 1_000, 9, true),
            ("00000000000000000005.raw", 0, 1_000, 5, true),
        ];
        for (segment, bytes, started, first, due) in cases {
            let tail = Tail { segment: segment.to_owned(), bytes, started: Timestamp(started) };
            let got = rotation.is_due(&tail, Offset(first), Timestamp(1_000));
            assert_eq!(got, due, "{tail:?} first {first}");
        }
    }
}
