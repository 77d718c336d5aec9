//! One oracle for each sink, with its tests; and some of them again over AMQP 0.9.1, and with
//! programs that leave messages out and make others of the rest.

mod amqp;
mod file;
mod http;
mod object;
mod postgres;
mod programs;
mod sqlite;
mod stdout;
mod stream;
mod varied;
