//! One oracle for each sink, with its tests.

mod file;
mod http;
mod object;
mod postgres;
mod sqlite;
mod stdout;
mod stream;
