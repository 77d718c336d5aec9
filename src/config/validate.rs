//! Checks between consumers: two that would conflict with each other.

use std::collections::HashMap;

use super::consumer::ConsumerConfig;
use crate::settings::{BrokerConfig, Problem, Protocol};
use crate::sink::declaration::{Exclusive, Role, Use};
use crate::sink::registry::SinkConfig;

/// Checks the consumers against each other. Each is given with its path in the file.
pub(super) fn check_together(
    consumers: &[(String, ConsumerConfig)],
    broker: Option<&BrokerConfig>,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    check_names(consumers, &mut problems);
    if broker.is_some_and(|broker| broker.protocol == Protocol::Amqp) {
        check_over_amqp(consumers, &mut problems);
    }
    check_positions(consumers, &mut problems);
    // As they are opened. The names of partitions are not known here.
    let filled: Vec<_> = consumers
        .iter()
        .map(|(at, consumer)| match consumer.is_super_stream {
            true => (at.clone(), consumer.clone()),
            false => (at.clone(), consumer.of_stream(None)),
        })
        .collect();
    let uses = uses(&filled);
    check_places(&uses, &mut problems);
    SinkConfig::validate_together(&uses, broker, &mut problems);
    problems
}

/// True if the sinks of these two consumers cannot stand in one configuration. Their references, and destinations
/// that accept each stream only once, are not compared.
pub fn conflict(one: &ConsumerConfig, other: &ConsumerConfig, broker: &BrokerConfig) -> bool {
    let kinds = |consumer: &ConsumerConfig| {
        [Some(consumer.sink.kind()), consumer.dead_letter.as_ref().map(|sink| sink.kind())]
    };
    let (kinds_of_one, kinds_of_other) = (kinds(one), kinds(other));
    if !kinds_of_one.iter().flatten().any(|kind| kinds_of_other.contains(&Some(kind))) {
        return false;
    }
    let uses: Vec<_> = [one, other].into_iter().flat_map(|one| uses_of("", one)).collect();
    let mut problems = Vec::new();
    SinkConfig::validate_together(&uses, Some(broker), &mut problems);
    !problems.is_empty()
}

fn check_names(consumers: &[(String, ConsumerConfig)], problems: &mut Vec<Problem>) {
    let mut names = HashMap::new();
    for (at, consumer) in consumers {
        if let Some(other) = names.insert(&consumer.name, at) {
            problems.push(Problem::new(
                format!("{at}.name"),
                format!("{other} already has the name {:?}: choose another name", consumer.name),
            ));
        }
    }
}

/// Only the stream protocol tells the partitions of a super stream, and chooses the active consumer.
fn check_over_amqp(consumers: &[(String, ConsumerConfig)], problems: &mut Vec<Problem>) {
    for (at, consumer) in consumers {
        if consumer.is_super_stream {
            problems.push(Problem::new(
                format!("{at}.super_stream"),
                "super streams need the stream protocol, and `broker.uri` says AMQP 0.9.1: use \
                 rabbitmq-stream://…, or read each partition as a `stream`",
            ));
        }
        if consumer.create.is_some() {
            problems.push(Problem::new(
                format!("{at}.create"),
                "it needs the stream protocol, and `broker.uri` says AMQP 0.9.1: use \
                 rabbitmq-stream://…, or declare the stream by hand, as a queue with x-queue-type = stream",
            ));
        }
        if consumer.single_active {
            problems.push(Problem::new(
                format!("{at}.single_active"),
                "it needs the stream protocol, and `broker.uri` says AMQP 0.9.1: use \
                 rabbitmq-stream://…, or run only one rillway for this reference",
            ));
        }
        if consumer.filter.as_ref().is_some_and(|f| f.match_unfiltered && f.is_at_broker()) {
            problems.push(Problem::new(
                format!("{at}.filter.match_unfiltered"),
                "over AMQP 0.9.1, messages in compressed batches are not delivered, and with the broker's \
                 filter no gap would show that: use rabbitmq-stream://…, or set filter.client_side = true",
            ));
        }
    }
}

fn check_positions(consumers: &[(String, ConsumerConfig)], problems: &mut Vec<Problem>) {
    check_super_streams(consumers, problems);
    let mut positions = HashMap::new();
    for (at, consumer) in consumers.iter().filter(|(_, consumer)| !consumer.is_super_stream) {
        if let Some(other) = positions.insert((&consumer.stream, &consumer.reference), at) {
            problems.push(Problem::new(
                format!("{at}.reference"),
                format!(
                    "{other} already reads stream {:?} under the reference {:?}, and they would \
                     overwrite each other's offset: give one of them another `reference`",
                    consumer.stream, consumer.reference
                ),
            ));
        }
    }
    for (at, consumer) in consumers.iter().filter(|(_, consumer)| consumer.dead_letter.is_some()) {
        let reference = consumer.dead_letter_reference();
        if let Some(other) = positions.get(&(&consumer.stream, &reference)) {
            problems.push(Problem::new(
                format!("{at}.reference"),
                format!(
                    "the position of its dead letters is kept under {reference:?}, which is the \
                     reference of {other}: give one of them another `reference`"
                ),
            ));
        }
    }
}

/// Which streams are partitions of a super stream, only the broker knows: the reference under which
/// one is read belongs to nobody else.
fn check_super_streams(consumers: &[(String, ConsumerConfig)], problems: &mut Vec<Problem>) {
    let references = |consumer: &ConsumerConfig| {
        let letters = consumer.dead_letter.as_ref().map(|_| consumer.dead_letter_reference());
        std::iter::once(consumer.reference.clone()).chain(letters).collect::<Vec<_>>()
    };
    for (nth, (at, consumer)) in consumers.iter().enumerate() {
        let earlier = consumers.iter().take(nth);
        let other = earlier
            .filter(|(_, o)| consumer.is_super_stream || o.is_super_stream)
            .find(|(_, other)| references(other).iter().any(|r| references(consumer).contains(r)));
        if let Some((other, of)) = other {
            let name = if consumer.is_super_stream { &consumer.stream } else { &of.stream };
            problems.push(Problem::new(
                format!("{at}.reference"),
                format!(
                    "{other} has the same reference, or keeps its dead letters' position under it, and the \
                     partitions of super stream {name:?} have no other: give one of them another \
                     `reference`"
                ),
            ));
        }
    }
}

/// Checks for destinations that accept each stream only once, whatever the kind of sink.
fn check_places(uses: &[Use<'_, SinkConfig>], problems: &mut Vec<Problem>) {
    let mut places = HashMap::new();
    for one in uses {
        let Some(Exclusive { key, place }) = one.sink.exclusive() else { continue };
        let source = (one.stream, one.is_super_stream);
        if let Some(other) = places.insert((place.clone(), source), one.at) {
            let kind = if one.is_super_stream { "super stream" } else { "stream" };
            problems.push(Problem::new(
                one.path(key),
                format!(
                    "{other} already writes {kind} {:?} into {place}: give one of them another \
                     `{key}`",
                    one.stream,
                ),
            ));
        }
    }
}

/// All sinks of a configuration, in the order of the file, with their purpose.
fn uses(consumers: &[(String, ConsumerConfig)]) -> Vec<Use<'_, SinkConfig>> {
    consumers.iter().flat_map(|(at, consumer)| uses_of(at, consumer)).collect()
}

fn uses_of<'a>(
    at: &'a str,
    consumer: &'a ConsumerConfig,
) -> impl Iterator<Item = Use<'a, SinkConfig>> {
    let (stream, is_super_stream) = (&consumer.stream, consumer.is_super_stream);
    let reference = consumer.reference.clone();
    let sink = &consumer.sink;
    let records = Use { at, role: Role::Records, stream, is_super_stream, reference, sink };
    let letters = consumer.dead_letter.as_ref().map(|sink| {
        let reference = consumer.dead_letter_reference();
        Use { at, role: Role::DeadLetters, stream, is_super_stream, reference, sink }
    });
    std::iter::once(records).chain(letters)
}
