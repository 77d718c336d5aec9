//! `{ type = "stream" }`.

use std::sync::Arc;

use super::{Look, SinkFactory, opens};
use crate::broker::ConnectOptions;
use crate::config;
use crate::consumer::Spec;
use crate::republish::{Republisher, Target};
use crate::sink::stream::{self, StreamOptions, StreamSink};
use crate::supervisor::connect::connect_options;
use crate::types::StreamName;
use crate::types::file_name::fitted;

pub(super) fn factory(settings: config::StreamSink, spec: &Spec) -> (SinkFactory, Look) {
    let options = StreamOptions {
        source: spec.stream.clone(),
        publisher: publisher(settings.publisher_name(&spec.stream, &spec.reference)),
        annotate: settings.annotate,
    };
    let connect = connect(&settings, &spec.connect);
    let target = Target {
        connect,
        stream: StreamName::new(settings.stream),
        create: settings.create,
        in_flight: usize::try_from(settings.in_flight).unwrap_or(usize::MAX),
        timeout: settings.timeout.0,
    };
    let look: Look = {
        // To look is to change nothing.
        let (options, target) = (options.clone(), Target { create: false, ..target.clone() });
        let may_be_missing = settings.create;
        Arc::new(move || {
            let (options, publisher) = (options.clone(), Republisher::new(target.clone()));
            Box::pin(async move {
                let missing = publisher.is_missing().await;
                if may_be_missing && missing {
                    return Ok(None);
                }
                stream::committed(&options, Box::new(publisher)).await
            })
        })
    };
    let open = opens(move || {
        StreamSink::open(options.clone(), Box::new(Republisher::new(target.clone())))
    });
    (open, look)
}

/// The name, shortened where the suffix of a replay makes it too long.
fn publisher(name: String) -> String {
    let bytes_max = stream::PUBLISHER_BYTES_MAX - stream::GENERATION_BYTES;
    fitted(name.clone(), &name, bytes_max)
}

/// How to reach the target; `own` is how the consumer reaches its source.
pub(in crate::supervisor) fn connect(
    settings: &config::StreamSink,
    own: &ConnectOptions,
) -> ConnectOptions {
    let name = format!("{} to {}", own.name, settings.stream);
    match &settings.broker {
        None => ConnectOptions { name, ..own.clone() },
        // How long to wait for a peer is the same for both.
        Some(broker) => ConnectOptions {
            heartbeat: own.heartbeat,
            connect_timeout: own.connect_timeout,
            request_timeout: own.request_timeout,
            follow_advertised_hosts: own.follow_advertised_hosts,
            ..connect_options(broker, &name)
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replay_of_a_publisher_with_a_long_name_has_a_name_of_its_own() {
        let name = "p".repeat(244);
        assert_eq!(publisher(name.clone()), name);
        let rounds = [0, 1].map(|round| publisher(format!("{name}.replay-{round}")));
        assert!(rounds[0] != rounds[1] && !rounds.contains(&name), "{rounds:?}");
        assert!(rounds.iter().all(|round| round.len() <= 244), "{rounds:?}");
    }
}
