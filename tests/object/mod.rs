//! Messages into objects: does the archive hold each of them once, as a table that others can read,
//! whatever the store and the daemon go through?

pub(crate) mod archive;
mod daemon;
mod store;
