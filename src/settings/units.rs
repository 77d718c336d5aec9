//! Sizes and durations as text: `"64MiB"`, `"1m30s"`, `"never"`.
//!
//! `Display` and `Serialize` write a text that reads back as the same value.

use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{DeserializeOwned, Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A number of bytes: a plain integer, or a text with a unit (`"64MiB"`, `"8MB"`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

const SIZE_UNITS: [(&str, u64); 9] = [
    ("b", 1),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("kib", KIB),
    ("mib", MIB),
    ("gib", GIB),
    ("tib", TIB),
];

const SIZE_ALLOWED: &str = "a whole number of bytes, or one with a unit: B, kB, MB, GB, TB (powers \
                            of 1000), KiB, MiB, GiB, TiB (powers of 1024), as in \"64MiB\"";

impl ByteSize {
    /// A size in mebibytes.
    pub const fn mib(n: u64) -> ByteSize {
        ByteSize(n * MIB)
    }

    fn parse(text: &str) -> Option<ByteSize> {
        let text = text.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().ok()?;
        let unit = unit.trim_start().to_ascii_lowercase();
        let factor = match unit.as_str() {
            "" => 1,
            unit => SIZE_UNITS.iter().find(|(name, _)| *name == unit)?.1,
        };
        number.checked_mul(factor).map(ByteSize)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, factor) in [("TiB", TIB), ("GiB", GIB), ("MiB", MIB), ("KiB", KIB)] {
            if self.0 >= factor && self.0.is_multiple_of(factor) {
                return write!(f, "{}{name}", self.0 / factor);
            }
        }
        write!(f, "{}B", self.0)
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Size;
        impl Visitor<'_> for Size {
            type Value = ByteSize;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(SIZE_ALLOWED)
            }

            fn visit_u64<E: Error>(self, bytes: u64) -> Result<ByteSize, E> {
                Ok(ByteSize(bytes))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<ByteSize, E> {
                ByteSize::parse(text).ok_or_else(|| {
                    E::custom(format!("{text:?} is not a size: expected {SIZE_ALLOWED}"))
                })
            }
        }
        from.deserialize_any(Size)
    }
}

impl JsonSchema for ByteSize {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ByteSize".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A size: bytes as a plain integer, or a text with a unit, as in \"64MiB\".",
            "anyOf": [
                { "type": "integer", "minimum": 0 },
                { "type": "string", "pattern": "^[0-9]+ *([kKmMgGtT]?[bB]|[kKmMgGtT][iI][bB])?$" },
            ],
        })
    }
}

/// A duration with its units: `"5s"`, `"1m30s"`, `"500ms"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HumanDuration(pub Duration);

/// From the longest to the shortest, as they must appear in a text.
const TIME_UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

const TIME_ALLOWED: &str = "a duration as a text: whole numbers with the units d, h, m, s, ms, the \
                            longer ones first, as in \"5s\", \"1m30s\" or \"500ms\"";

impl HumanDuration {
    /// A duration in seconds.
    pub const fn secs(n: u64) -> HumanDuration {
        HumanDuration(Duration::from_secs(n))
    }

    /// A duration in milliseconds.
    pub const fn millis(n: u64) -> HumanDuration {
        HumanDuration(Duration::from_millis(n))
    }

    fn parse(text: &str) -> Option<HumanDuration> {
        let mut rest = text.trim();
        let mut units = TIME_UNITS.iter();
        let mut millis: u64 = 0;
        if rest.is_empty() {
            return None;
        }
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit())?;
            let (number, after) = rest.split_at(digits);
            let letters = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
            let (unit, after) = after.split_at(letters);
            // The iterator only moves on, so a unit can neither repeat nor follow a shorter one.
            let factor = units.find(|(name, _)| *name == unit)?.1;
            millis = millis.checked_add(number.parse::<u64>().ok()?.checked_mul(factor)?)?;
            rest = after;
        }
        Some(HumanDuration::millis(millis))
    }
}

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut millis = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if millis == 0 {
            return f.write_str("0s");
        }
        for (name, factor) in TIME_UNITS {
            if millis >= factor {
                write!(f, "{}{name}", millis / factor)?;
                millis %= factor;
            }
        }
        Ok(())
    }
}

impl Serialize for HumanDuration {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HumanDuration {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Time;
        impl Visitor<'_> for Time {
            type Value = HumanDuration;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(TIME_ALLOWED)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<HumanDuration, E> {
                HumanDuration::parse(text).ok_or_else(|| {
                    E::custom(format!("{text:?} is not a duration: expected {TIME_ALLOWED}"))
                })
            }
        }
        from.deserialize_str(Time)
    }
}

impl JsonSchema for HumanDuration {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A duration, as in \"5s\", \"1m30s\" or \"500ms\".",
            "type": "string",
            "pattern": "^([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$",
            "minLength": 2,
        })
    }
}

/// A limit that may also be `"never"` (`None`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrNever<T>(pub Option<T>);

const NEVER: &str = "never";

impl<T: Serialize> Serialize for OrNever<T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Some(value) => value.serialize(to),
            None => to.serialize_str(NEVER),
        }
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for OrNever<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(from)?;
        if value == NEVER {
            return Ok(OrNever(None));
        }
        match serde_json::from_value(value) {
            Ok(value) => Ok(OrNever(Some(value))),
            Err(error) => Err(D::Error::custom(format!("{error}; or \"{NEVER}\""))),
        }
    }
}

impl<T: JsonSchema> JsonSchema for OrNever<T> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("{}OrNever", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let value = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [{ "const": NEVER }, value] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{from_value, json};

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("17", 17),
            ("17B", 17),
            ("8MB", 8_000_000),
            ("64MiB", 64 << 20),
            ("64 mib", 64 << 20),
            ("1kB", 1000),
            ("3GiB", 3 << 30),
            ("2TiB", 2 << 40),
        ] {
            assert_eq!(from_value::<ByteSize>(json!(text)).unwrap(), ByteSize(bytes), "{text}");
        }
        assert_eq!(from_value::<ByteSize>(json!(4096)).unwrap(), ByteSize(4096));
        for bad in ["", "MiB", "1.5GiB", "-1", "64M", "64Mi", "99999999999TiB", "6 4MB", "1MiBs"] {
            let error = from_value::<ByteSize>(json!(bad)).unwrap_err().to_string();
            assert!(error.contains(&format!("{bad:?}")) && error.contains("MiB"), "{error}");
        }
        for bad in [json!(-1), json!(1.5), json!(true), json!(null)] {
            let error = from_value::<ByteSize>(bad).unwrap_err().to_string();
            assert!(error.contains("as in \"64MiB\""), "{error}");
        }
    }

    #[test]
    fn durations() {
        for (text, millis) in [
            ("5s", 5_000),
            ("1m30s", 90_000),
            ("500ms", 500),
            ("1h", 3_600_000),
            ("7d", 7 * 86_400_000),
            ("1d2h3m4s5ms", 93_784_005),
            ("0s", 0),
        ] {
            let read = from_value::<HumanDuration>(json!(text)).unwrap();
            assert_eq!(read, HumanDuration::millis(millis), "{text}");
        }
        for bad in ["", "5", "s", "5 s", "1s1m", "5s5s", "-1s", "1.5s", "5sec", "99999999999999d"] {
            let error = from_value::<HumanDuration>(json!(bad)).unwrap_err().to_string();
            assert!(error.contains(&format!("{bad:?}")) && error.contains("1m30s"), "{error}");
        }
        let error = from_value::<HumanDuration>(json!(5)).unwrap_err().to_string();
        assert!(error.contains("`5`") && error.contains("units"), "{error}");
    }

    #[test]
    fn never_is_a_limit_too() {
        assert_eq!(from_value::<OrNever<ByteSize>>(json!("never")).unwrap(), OrNever(None));
        assert_eq!(
            from_value::<OrNever<ByteSize>>(json!("1kB")).unwrap(),
            OrNever(Some(ByteSize(1000)))
        );
        let error = from_value::<OrNever<HumanDuration>>(json!("nevr")).unwrap_err().to_string();
        assert!(error.contains("or \"never\""), "{error}");
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_in_again(bytes: u64, millis in 0..=u64::MAX / 2) {
            prop_assert_eq!(ByteSize::parse(&ByteSize(bytes).to_string()), Some(ByteSize(bytes)));
            let time = HumanDuration::millis(millis);
            prop_assert_eq!(HumanDuration::parse(&time.to_string()), Some(time));
        }

        #[test]
        fn any_text_is_read_without_panic(text: String) {
            let _ = (ByteSize::parse(&text), HumanDuration::parse(&text));
        }
    }
}
