//! Visits every value of a message, so that nothing is left unchecked.

use super::{AmqpError, Body, List, Map, Message, Value};

/// Most values that a message may hold beyond one per byte. Only array elements that take no bytes
/// can exceed that.
const SPARE_VALUES: usize = 65_536;

impl Message<'_> {
    /// Visits every value in every section. Returns their number, or the first error.
    pub fn validate(&self) -> Result<usize, AmqpError> {
        let limit = self.encoded().len().saturating_add(SPARE_VALUES);
        let mut walk = Walk { left: limit, limit, end: self.encoded().len() };
        let lists = [self.header_list(), self.properties_list()];
        for list in lists.into_iter().flatten() {
            walk.list(list)?;
        }
        let maps = [
            self.delivery_annotations(),
            self.message_annotations(),
            self.application_properties(),
            self.footer(),
        ];
        for map in maps.into_iter().flatten() {
            walk.map(map)?;
        }
        match self.body() {
            Body::Absent => {}
            Body::Data(data) => walk.count(data.sections().count())?,
            Body::Sequence(sequences) => {
                for list in sequences.lists() {
                    walk.list(list)?;
                }
            }
            Body::Value(value) => walk.value(value)?,
        }
        Ok(limit - walk.left)
    }
}

struct Walk {
    left: usize,
    limit: usize,
    end: usize,
}

impl Walk {
    fn count(&mut self, n: usize) -> Result<(), AmqpError> {
        self.left = self.left.checked_sub(n).ok_or(AmqpError::OverLimit {
            at: self.end,
            what: "too many values for its size",
            limit: self.limit,
        })?;
        Ok(())
    }

    // The depth limit of the decoder bounds this recursion.
    fn value(&mut self, value: Value<'_>) -> Result<(), AmqpError> {
        self.count(1)?;
        match value {
            Value::List(list) => self.list(list),
            Value::Map(map) => self.map(map),
            Value::Array(array) => array.items().try_for_each(|item| self.value(item?)),
            Value::Described(described) => {
                self.value(described.descriptor()?)?;
                self.value(described.value()?)
            }
            _ => Ok(()),
        }
    }

    fn list(&mut self, list: List<'_>) -> Result<(), AmqpError> {
        list.items().try_for_each(|item| self.value(item?))
    }

    fn map(&mut self, map: Map<'_>) -> Result<(), AmqpError> {
        map.entries().try_for_each(|entry| {
            let (key, value) = entry?;
            self.value(key)?;
            self.value(value)
        })
    }
}

/// Entry point for fuzzing: reads everything that can be read; must neither panic nor hang.
#[doc(hidden)]
pub fn fuzz_message(bytes: &[u8]) {
    let Ok(message) = Message::parse(bytes) else { return };
    assert_eq!(message.encoded(), bytes);
    let valid = message.validate();
    let header = message.header();
    let properties = message.properties();
    // What a typed view accepts, walking accepts too.
    if let (Err(e), Body::Absent | Body::Data(_), Ok(_), Ok(_)) =
        (valid, message.body(), header, properties)
    {
        let maps = message.message_annotations().is_some()
            || message.delivery_annotations().is_some()
            || message.application_properties().is_some()
            || message.footer().is_some();
        assert!(maps, "a message without maps failed only when walked: {e}");
    }
    if let Body::Data(data) = message.body() {
        let joined = data.joined();
        assert!(joined.len() <= bytes.len());
        assert_eq!(data.single().is_some(), data.sections().count() == 1);
    }
    if let Body::Value(Value::Decimal(decimal)) = message.body() {
        assert!(!decimal.to_string().is_empty());
    }
}
