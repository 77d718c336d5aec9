//! Messages as objects: does the archive hold each of them once, as a table that others can read, through
//! all failures of the store and the daemon?

pub(crate) mod archive;
mod daemon;
mod partitions;
mod store;
mod unfinished;
