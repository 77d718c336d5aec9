//! The interpreter's kind of data: our own values, and a table of terms that is counted.

use jaq_core::data::HasLut;
use jaq_core::{DataT, Lut};

use super::budget;
use super::value::Value;

/// The kind of data that the interpreter works on.
pub(super) struct Jq;

impl DataT for Jq {
    type V<'a> = Value;
    type Data<'a> = Counted<'a>;
}

/// The table of terms, which counts how often it is asked for: once for each term that is evaluated.
#[derive(Clone, Copy)]
pub(super) struct Counted<'a>(pub(super) &'a Lut<Jq>);

impl<'a> HasLut<'a, Jq> for Counted<'a> {
    #[inline]
    fn lut(&self) -> &'a Lut<Jq> {
        budget::step();
        self.0
    }
}
