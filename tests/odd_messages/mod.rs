//! Odd messages and chunks: are they written correctly, or left to `on_bad_message`, with every offset
//! around them exact?
//!
//! - [`messages`]: AMQP 1.0 at its limits and beyond, on real brokers
//! - [`headers`]: headers that contradict the content of their chunk
//! - [`chunks`]: damaged chunks and unknown codecs, from a scripted broker

mod chunks;
mod headers;
mod messages;

use crate::common::daemon::Daemon;

/// `rillway_lost_messages_total` of a consumer, by its reason.
async fn lost(daemon: &Daemon, name: &str, reason: &str) -> f64 {
    let (name, reason) = (format!("consumer=\"{name}\""), format!("reason=\"{reason}\""));
    daemon.metric("rillway_lost_messages_total", &[&name, &reason]).await.unwrap_or(0.0)
}

fn consumer(name: &str, stream: &str, sink: &str, more: &str) -> String {
    format!(
        r#"
        [[consumer]]
        name = "{name}"
        stream = "{stream}"
        commit = {{ every = "1h", every_messages = 1000000000 }}
        batch = {{ max_age = "50ms" }}
        restart = {{ min_backoff = "20ms", max_backoff = "100ms" }}
        sink = {sink}
        {more}
        "#
    )
}

fn file(dir: &str) -> String {
    format!("{{ type = \"file\", dir = \"{dir}\" }}")
}

/// Checks that each of these words is in the text.
#[track_caller]
fn assert_says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
}
