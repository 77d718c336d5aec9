//! Names of files, folders and objects, made from the name of a stream or a reference.
//!
//! One rule for all of them: a name that fits is unchanged; one that is too long keeps its
//! beginning, followed by `~` and a hash of the whole name. State files and checkpoints also hold
//! the whole name, so a hash collision is noticed there. The dead-letter index and the lock do not:
//! two names with one hash would share them.

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

/// Longest name of a file or folder that file systems accept, in bytes.
pub const FILE_NAME_BYTES_MAX: usize = 255;

/// Longest object key that S3, GCS and Azure all accept, in bytes.
pub const KEY_BYTES_MAX: usize = 1024;

/// Bytes of a key beyond the prefix and the stream's part: partitions, offset, claim, extension.
pub const KEY_REST_BYTES: usize = 96;

/// The name, shortened to `bytes_max` bytes if it is longer; the hash is of `whole`.
pub fn fitted(mut name: String, whole: &str, bytes_max: usize) -> String {
    if name.len() > bytes_max {
        let mut keep = bytes_max.saturating_sub(HASH_BYTES);
        while !name.is_char_boundary(keep) {
            keep -= 1;
        }
        name.truncate(keep);
        name = shortened(&name, whole);
    }
    name
}

/// Bytes that [`shortened`] adds.
pub const HASH_BYTES: usize = 1 + 16;

/// The beginning of a name that was too long, with the hash of `whole`.
pub fn shortened(beginning: &str, whole: &str) -> String {
    format!("{beginning}~{:016x}", fnv1a(whole.as_bytes()))
}

/// Characters that are percent-encoded in a file name of two parts separated by `@`.
const UNSAFE: &AsciiSet = &CONTROLS.add(b'/').add(b'\\').add(b'%').add(b'@').add(b':');

/// The name of a file for two names, such as a reference and its stream: `FIRST@SECOND.EXTENSION`.
/// Leaves room for `suffix` after it.
pub fn of_two(first: &str, second: &str, extension: &str, suffix: &str) -> String {
    let part = |text: &str| utf8_percent_encode(text, UNSAFE).to_string();
    let name = format!("{}@{}", part(first), part(second));
    // The hash is of the encoded text, in which the separating `@` is unambiguous.
    let whole = name.clone();
    let bytes_max = FILE_NAME_BYTES_MAX - 1 - extension.len() - suffix.len();
    format!("{}.{extension}", fitted(name, &whole, bytes_max))
}

/// Longest name that [`as_part`] returns: it is a part of a file's name.
const PART_BYTES_MAX: usize = 200;

/// The name as a part of a path or a URL. Letters, digits, `-`, `_` and `.` are left, unless it begins
/// with a dot. Anything else becomes `_`, with a hash of the name after it, so that two names never
/// give the same.
pub fn as_part(name: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let mut part: String = name.chars().map(|c| if is_plain(c) { c } else { '_' }).collect();
    if part.starts_with('.') {
        part.replace_range(..1, "_");
    }
    if part == name {
        return fitted(part, name, PART_BYTES_MAX);
    }
    part.truncate(PART_BYTES_MAX - HASH_BYTES);
    format!("{part}~{:016x}", fnv1a(name.as_bytes()))
}

/// FNV-1a, 64 bits: must never change.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_stays_and_what_does_not_keeps_its_beginning() {
        for bytes in [0, 1, 254, 255] {
            let name = "n".repeat(bytes);
            assert_eq!(fitted(name.clone(), &name, 255), name);
        }
        let fit = |last: &str| {
            let whole = format!("{}{last}", "n".repeat(255));
            fitted(whole.clone(), &whole, 255)
        };
        let (a, b) = (fit("a"), fit("b"));
        assert_eq!((a.len(), b.len()), (255, 255));
        assert_ne!(a, b);
        assert!(a.starts_with(&"n".repeat(238)) && a.as_bytes()[238] == b'~', "{a}");
    }

    #[test]
    fn a_part_of_a_path_leads_nowhere_else() {
        assert_eq!(as_part("orders-2.eu_x"), "orders-2.eu_x");
        let odd = ["..", ".", "a/b", "a\\b", "a_b", "a b", "ä", "%2e", &"x".repeat(255)];
        let parts: Vec<String> = odd.iter().map(|name| as_part(name)).collect();
        for (part, name) in parts.iter().zip(&odd) {
            assert!(!part.starts_with('.') && part.len() <= PART_BYTES_MAX, "{name}: {part}");
            assert!(part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.~".contains(&b)));
            assert_eq!(parts.iter().filter(|other| *other == part).count(), 1, "{name}: {part}");
        }
    }

    /// Files with these names exist on users' disks.
    #[test]
    fn the_hash_never_changes() {
        let whole = "x".repeat(30);
        assert_eq!(
            fitted(whole.clone(), &whole, 20),
            format!("xxx~{:016x}", fnv1a(whole.as_bytes()))
        );
        assert_eq!(fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
    }
}
