//! One oracle for each sink, with its tests.

mod file;
mod sqlite;
mod stdout;
