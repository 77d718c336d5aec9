//! Default table for a stream.

use super::StreamName;

/// The table in which the sinks keep their positions.
pub const POSITIONS: &str = "rillway_positions";

/// The stream's name with an underscore for every character that is not a letter, digit or
/// underscore, so that it needs no quotes. Two streams may get the same name.
pub fn of(stream: &StreamName) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let mut name: String = stream.as_str().chars().map(plain).collect();
    let reserved =
        name.to_ascii_lowercase().starts_with("sqlite_") || name.eq_ignore_ascii_case(POSITIONS);
    if reserved || !name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
        name.insert(0, '_');
    }
    name
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
