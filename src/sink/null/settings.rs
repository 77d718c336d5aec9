//! The keys of `{ type = "null" }`: none.

use schemars::JsonSchema;
use serde::Deserialize;

/// A sink that keeps nothing.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct NullSettings {}
