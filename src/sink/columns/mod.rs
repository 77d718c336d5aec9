//! Typed columns: converts a message to a row of values, for every sink that has columns.
//!
//! A value is looked up at the column's source (`lookup.rs`; all pointers into a JSON body in one
//! walk over it, `json.rs`), and converted to the column's type (`convert.rs`). If that fails, the
//! message is bad:
//!
//! | column | accepts |
//! |---|---|
//! | text | text; numbers and booleans as text |
//! | integer | whole numbers, also `3.0`, and texts of one |
//! | float | numbers, and texts of one; not beyond the largest |
//! | numeric | numbers, all digits kept, and texts of one; up to [`convert::DIGITS_MAX`] digits |
//! | boolean | true, false, and texts of these |
//! | timestamp | RFC 3339; whole numbers of milliseconds since 1970, and texts of one; AMQP
//! timestamps |
//! | json | anything |
//! | bytes | bytes; texts as UTF-8; AMQP strings that are not UTF-8 |
//!
//! A missing value, and a JSON or AMQP null, is null, unless the column is required. If an object
//! repeats a key, the last value counts.
//!
//! A JSON string that is not valid Unicode, because it holds half of a surrogate pair (`"\ud83d"`),
//! fits only `json`, where it is kept unchanged. An AMQP string that is not UTF-8 fits `bytes`, and
//! `json` as `{"base64": …}`.
//!
//! The columns of the envelope accept everything: a value that is not text is written as the text
//! of its JSON, as in `envelope/mapping.rs`, and bytes as the text `{"base64":"…"}`.
//!
//! Further limits of a destination (lengths, NUL in text) are checked by its sink. Knows nothing of
//! any destination.

mod changes;
mod convert;
mod declared;
mod json;
mod lookup;
mod value;

#[cfg(test)]
mod odd_tests;
#[cfg(test)]
mod tests;

pub use self::changes::{Change, Changes};
pub use self::declared::{BodyAs, Columns, POSITION_COLUMNS};
pub use self::lookup::json_of_body;
pub use self::value::{Value, value_as_json};
