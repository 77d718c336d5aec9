//! Finds the values of several JSON pointers in one walk over a JSON text.
//!
//! The whole text is checked on the way; nothing is copied. A pointer that selects nothing (a
//! missing key, an index past the end, a step into a number) finds nothing, which is no error.
//!
//! Legal JSON that is not a Rust value (a string with half of a surrogate pair, `1e999`) is no
//! error either: such a text is walked a second time, more slowly, with each value taken as text.

use std::fmt;

use serde::Deserializer as _;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::types::column::Pointer;

/// The pointers, combined into a tree.
#[derive(Clone, Debug, Default)]
pub(super) struct Tree {
    /// Slots of the pointers that end here.
    here: Vec<usize>,
    below: Vec<(Token, Tree)>,
}

#[derive(Clone, Debug)]
struct Token {
    key: String,
    /// The token as an array index, if it is one.
    index: Option<usize>,
}

impl Tree {
    /// Builds the tree from pointers, each with the slot for its value.
    pub(super) fn new<'p>(pointers: impl Iterator<Item = (&'p Pointer, usize)>) -> Tree {
        let mut root = Tree::default();
        for (pointer, slot) in pointers {
            let mut at = &mut root;
            for key in &pointer.0 {
                let nth = at.below.iter().position(|(token, _)| token.key == *key);
                let nth = nth.unwrap_or_else(|| {
                    let canonical = key == "0" || !key.starts_with(['0', '+']);
                    let index = canonical.then(|| key.parse().ok()).flatten();
                    at.below.push((Token { key: key.clone(), index }, Tree::default()));
                    at.below.len() - 1
                });
                at = &mut at.below[nth].1;
            }
            at.here.push(slot);
        }
        root
    }

    pub(super) fn is_empty(&self) -> bool {
        self.here.is_empty() && self.below.is_empty()
    }

    /// Puts the text of each selected value into its slot.
    pub(super) fn find<'a>(
        &self,
        text: &'a [u8],
        slots: &mut [Option<&'a str>],
    ) -> Result<(), serde_json::Error> {
        self.walk(text, slots, false).or_else(|_| self.walk(text, slots, true))
    }

    fn walk<'a>(
        &self,
        text: &'a [u8],
        slots: &mut [Option<&'a str>],
        by_text: bool,
    ) -> Result<(), serde_json::Error> {
        let mut json = serde_json::Deserializer::from_slice(text);
        Walk { tree: self, slots, by_text }.deserialize(&mut json)?;
        json.end()
    }

    /// Nothing is found here or below: values found in an earlier repetition of the key are
    /// dropped.
    fn clear(&self, slots: &mut [Option<&str>]) {
        self.here.iter().for_each(|slot| slots[*slot] = None);
        self.below.iter().for_each(|(_, tree)| tree.clear(slots));
    }
}

struct Walk<'t, 's, 'a> {
    tree: &'t Tree,
    slots: &'s mut [Option<&'a str>],
    /// True if values are taken as text, and only objects and lists are parsed.
    by_text: bool,
}

impl<'t, 'a> Walk<'t, '_, 'a> {
    fn below<'s>(&'s mut self, tree: &'t Tree) -> Walk<'t, 's, 'a> {
        Walk { tree, slots: &mut *self.slots, by_text: self.by_text }
    }
}

impl<'a> DeserializeSeed<'a> for Walk<'_, '_, 'a> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'a>>(self, json: D) -> Result<(), D::Error> {
        self.tree.clear(self.slots);
        if self.tree.here.is_empty() && !self.by_text {
            return json.deserialize_any(self);
        }
        let raw = <&'a RawValue as serde::Deserialize>::deserialize(json)?.get();
        self.tree.here.iter().for_each(|slot| self.slots[*slot] = Some(raw));
        if self.tree.below.is_empty() || !raw.starts_with(['{', '[']) {
            return Ok(());
        }
        // One pointer needs the whole value and another a part of it, or values are taken as text.
        let mut inner = serde_json::Deserializer::from_str(raw);
        inner.deserialize_any(self).map_err(serde::de::Error::custom)
    }
}

impl<'a> Visitor<'a> for Walk<'_, '_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<M: MapAccess<'a>>(mut self, mut map: M) -> Result<(), M::Error> {
        while let Some(found) = map.next_key_seed(Key(self.tree))? {
            match found {
                Some(tree) => map.next_value_seed(self.below(tree))?,
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }

    fn visit_seq<S: SeqAccess<'a>>(mut self, mut seq: S) -> Result<(), S::Error> {
        for index in 0.. {
            let below = self.tree.below.iter().find(|(token, _)| token.index == Some(index));
            let more = match below {
                Some((_, tree)) => seq.next_element_seed(self.below(tree))?.is_some(),
                None => seq.next_element::<IgnoredAny>()?.is_some(),
            };
            if !more {
                break;
            }
        }
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// Selects the subtree of a key.
struct Key<'t>(&'t Tree);

impl<'a, 't> DeserializeSeed<'a> for Key<'t> {
    type Value = Option<&'t Tree>;

    fn deserialize<D: serde::Deserializer<'a>>(self, json: D) -> Result<Self::Value, D::Error> {
        // As bytes, which may hold more than a string can.
        json.deserialize_bytes(self)
    }
}

impl<'t> Visitor<'_> for Key<'t> {
    type Value = Option<&'t Tree>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_bytes<E>(self, key: &[u8]) -> Result<Self::Value, E> {
        let found = self.0.below.iter().find(|(token, _)| token.key.as_bytes() == key);
        Ok(found.map(|(_, tree)| tree))
    }
}
