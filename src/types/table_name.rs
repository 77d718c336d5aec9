//! Default table for a stream.

use super::StreamName;
use super::file_name;

/// The table in which the sinks keep their positions.
pub const POSITIONS: &str = "rillway_positions";

/// The stream's name with an underscore for every character that is not a letter, digit or
/// underscore, so that it needs no quotes. Two streams may get the same name.
pub fn of(stream: &StreamName) -> String {
    let mut name = as_part(stream.as_str());
    if is_reserved(&name) || !name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
        name.insert(0, '_');
    }
    name
}

/// Longest name of a table that PostgreSQL takes, in bytes.
const NAME_BYTES_MAX: usize = 63;

/// A stream's name as a part of a table's name, with an underscore for every character that is not a
/// letter, digit or underscore.
pub fn as_part(stream: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    stream.chars().map(plain).collect()
}

/// The name of a table that names of streams were put into, as every database takes it.
pub fn fitted(mut name: String) -> String {
    if is_reserved(&name) {
        name.insert(0, '_');
    }
    let whole = name.clone();
    file_name::fitted(name, &whole, NAME_BYTES_MAX)
}

fn is_reserved(name: &str) -> bool {
    name.to_ascii_lowercase().starts_with("sqlite_") || name.eq_ignore_ascii_case(POSITIONS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_need_no_quotes() {
        for (stream, table) in [
            ("events", "events"),
            ("orders-eu.v2", "orders_eu_v2"),
            ("3d", "_3d"),
            ("größe", "gr__e"),
            ("sqlite_x", "_sqlite_x"),
            ("Rillway_Positions", "_Rillway_Positions"),
            ("_", "_"),
        ] {
            assert_eq!(of(&StreamName::from(stream)), table);
        }
    }
}
