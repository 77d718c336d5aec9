//! Values in arguments, read as the configuration reads them.

use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::{Error as ValueError, StrDeserializer};

use crate::config::HumanDuration;

/// Reads a value as the configuration does.
pub(super) fn read<'de, T: Deserialize<'de>>(text: &'de str) -> Result<T, String> {
    let from: StrDeserializer<'de, ValueError> = text.into_deserializer();
    T::deserialize(from).map_err(|e| e.to_string())
}

/// A duration of more than nothing.
pub(super) fn time(text: &str) -> Result<HumanDuration, String> {
    let time: HumanDuration = read(text)?;
    if time.0.is_zero() {
        return Err("0s is out of range: expected more".to_owned());
    }
    Ok(time)
}
