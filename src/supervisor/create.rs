//! What a consumer's `create` comes to, in the broker's terms.

use super::connect::connect_options;
use crate::broker::Layout;
use crate::config::{Config, ConsumerConfig};
use crate::consumer::Roster;
use crate::source::{Creating, Foreseen};

/// The stream or super stream that `create` describes; `None` if nothing is to be created.
pub(super) fn layout_of(consumer: &ConsumerConfig) -> Option<Layout> {
    let create = consumer.create.as_ref()?;
    let arguments = [
        ("max-length-bytes", create.max_length.map(|size| size.0.to_string())),
        ("max-age", create.max_age.map(|age| format!("{}s", age.0.as_secs()))),
        ("stream-max-segment-size-bytes", create.segment.map(|size| size.0.to_string())),
    ];
    let given = |(key, value): (&str, Option<String>)| Some((key.to_owned(), value?));
    Some(Layout {
        name: consumer.stream.clone(),
        arguments: arguments.into_iter().filter_map(given).collect(),
        partitions: match consumer.is_super_stream {
            true => create.partitions_of(&consumer.stream),
            false => None,
        },
    })
}

/// What `create` says, in words; `None` if nothing is to be created.
pub fn created_with(consumer: &ConsumerConfig) -> Option<String> {
    Some(format!("if it is absent, with {}", layout_of(consumer)?))
}

/// What would be done about a consumer's super stream, for `rillway check`.
///
/// # Errors
/// If the broker cannot say, or it would not be created although it is absent.
pub async fn foresee(config: &Config, consumer: &ConsumerConfig) -> Result<Foreseen, String> {
    let Some(layout) = layout_of(consumer) else { return Ok(Foreseen::Nothing) };
    let roster = Roster::read(&config.state_dir, &consumer.reference, &consumer.stream)
        .map_err(|error| error.to_string())?;
    let connect = connect_options(&config.broker, &format!("rillway {}", consumer.name));
    let creating = Creating::new(connect, layout);
    creating.foresee(roster.has_any()).await.map_err(|error| error.to_string())
}
