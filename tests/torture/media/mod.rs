//! One oracle for each sink, with its tests; and some of them again over AMQP 0.9.1.

mod amqp;
mod file;
mod http;
mod object;
mod postgres;
mod sqlite;
mod stdout;
mod stream;
