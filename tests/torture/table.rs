//! The table at the end of `make torture`: a line for each test, appended to the file that
//! `RILLWAY_TORTURE_TABLE` names.

use std::io::Write;
use std::time::Duration;

use super::oracle::Tally;

/// Adds the result of one test.
pub(crate) fn row(sink: &str, what: &str, times: u64, tally: Tally, took: Duration) {
    let Tally { total, lost, repeated, torn } = tally;
    let seconds = took.as_secs();
    eprintln!(
        "{sink}, {what} × {times}: {total} messages, {lost} lost, {repeated} repeated, {torn} torn, {seconds} s"
    );
    let Some(path) = std::env::var_os("RILLWAY_TORTURE_TABLE") else { return };
    let line = format!("{sink}\t{what}\t{times}\t{total}\t{lost}\t{repeated}\t{torn}\t{seconds}\n");
    // One write, so that lines of parallel tests stay whole.
    std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .and_then(|mut file| file.write_all(line.as_bytes()))
        .expect("the table can be written");
}
