//! Conflicts between `stream` sinks: publishers that the broker cannot distinguish, duplicate
//! copies, and streams that feed themselves.

use std::collections::HashMap;

use super::StreamSettings;
use crate::settings::{BrokerConfig, Problem, Protocol};
use crate::sink::declaration::{Role, Use};
use crate::sink::placeholders::has_any;

/// Checks all `stream` sinks against each other; `broker` is that of `[broker]`.
pub(super) fn check(
    uses: &[Use<'_, StreamSettings>],
    broker: Option<&BrokerConfig>,
    problems: &mut Vec<Problem>,
) {
    check_publishers(uses, problems);
    if broker.is_some_and(|own| own.protocol == Protocol::Amqp) {
        check_protocol(uses, problems);
    }
    // The names of partitions are not known here.
    let own = |one: &&Use<'_, StreamSettings>| {
        !one.is_super_stream && broker.is_some_and(|own| one.sink.is_on(own))
    };
    check_letters(uses.iter().filter(own), problems);
    let on_own = |one: &&Use<'_, StreamSettings>| broker.is_some_and(|own| one.sink.is_on(own));
    for one in uses.iter().filter(|one| one.is_super_stream).filter(on_own) {
        if one.sink.stream == "{stream}" {
            problems.push(Problem::new(
                one.path("stream"),
                "each partition would publish into itself, without end: add something to {stream}",
            ));
        }
    }
    let records = uses.iter().filter(|one| one.role == Role::Records).filter(own);
    check_circles(&records.collect::<Vec<_>>(), problems);
}

/// Sinks without a broker of their own, where `[broker]` is reached over AMQP 0.9.1.
fn check_protocol(uses: &[Use<'_, StreamSettings>], problems: &mut Vec<Problem>) {
    for one in uses.iter().filter(|one| one.sink.uri.is_none()) {
        problems.push(Problem::new(
            one.path("uri"),
            "publishing needs the stream protocol, and `broker.uri` says AMQP 0.9.1: give this sink \
             a `uri` of its own, rabbitmq-stream://…",
        ));
    }
}

fn check_publishers(uses: &[Use<'_, StreamSettings>], problems: &mut Vec<Problem>) {
    let mut publishers = HashMap::new();
    // Source, target and whether the publisher name is configured, of each copy.
    let mut copies = HashMap::new();
    for one in uses {
        let target = one.sink;
        let addresses = target.broker.as_ref().map(|broker| (&broker.addresses, &broker.vhost));
        if let Some((key, message)) = target.check_source(one.stream, &one.reference) {
            problems.push(Problem::new(one.path(key), message));
        }
        if one.is_super_stream
            && let Some(name) = &target.publisher
            && !has_any(name)
            && !has_any(&target.stream)
        {
            problems.push(Problem::new(
                one.path("publisher"),
                format!(
                    "the partitions would all publish to stream {:?} as {name:?}, and the broker would \
                     treat the messages of one as repetitions of the other's: put {{partition}} into it",
                    target.stream
                ),
            ));
        }
        let name = target.publisher_name(one.stream, &one.reference);
        let source = (one.stream, one.is_super_stream);
        if let Some(other) = publishers.insert((addresses, &target.stream, name.clone()), one.at) {
            problems.push(Problem::new(
                one.path("publisher"),
                format!(
                    "{other} already publishes to stream {:?} as {name:?}, and the broker would treat \
                     the messages of one as repetitions of the other's: give it another name",
                    target.stream
                ),
            ));
        }
        if one.role == Role::Records
            && target.publisher.is_none()
            && let Some(other) = copies.insert((addresses, &target.stream, source), one.at)
        {
            problems.push(Problem::new(
                one.path("stream"),
                format!(
                    "{other} already sends the messages of stream {:?} to {:?}, and each would be \
                     stored twice. If that is intended, give this one a `publisher`",
                    one.stream, target.stream
                ),
            ));
        }
    }
}

/// Dead letters that go into the stream that the consumer reads.
fn check_letters<'a>(
    own: impl Iterator<Item = &'a Use<'a, StreamSettings>>,
    problems: &mut Vec<Problem>,
) {
    for one in own.filter(|one| one.role == Role::DeadLetters) {
        if one.sink.stream == one.stream.as_str() {
            problems.push(Problem::new(
                one.path("stream"),
                format!(
                    "the consumer reads stream {:?} itself: its dead letters would come back to it, \
                     without end",
                    one.sink.stream
                ),
            ));
        }
    }
}

/// Records that return to the stream from which they were read, through any consumers.
fn check_circles(records: &[&Use<'_, StreamSettings>], problems: &mut Vec<Problem>) {
    // Targets of each stream.
    let mut next: HashMap<&str, Vec<&str>> = HashMap::new();
    for one in records {
        next.entry(one.stream.as_str()).or_default().push(&one.sink.stream);
    }
    for one in records {
        if leads_to(&next, &one.sink.stream, one.stream.as_str()) {
            problems.push(Problem::new(
                one.path("stream"),
                format!(
                    "messages published to {:?} come back into {:?}, which this consumer reads: every \
                     message would be published again without end",
                    one.sink.stream, one.stream
                ),
            ));
        }
    }
}

/// True if messages in `from` reach `to`.
fn leads_to(next: &HashMap<&str, Vec<&str>>, from: &str, to: &str) -> bool {
    let mut seen = vec![from];
    let mut at = 0;
    while let Some(stream) = seen.get(at).copied() {
        if stream == to {
            return true;
        }
        for further in next.get(stream).into_iter().flatten() {
            if !seen.contains(further) {
                seen.push(further);
            }
        }
        at += 1;
    }
    false
}
