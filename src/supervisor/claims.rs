//! What a consumer uses alone while it runs. Pure.
//!
//! A reload compares every consumer that starts with every one that ends, so what can be made of one of them
//! is made once.

use crate::config::{self, BrokerConfig, ConsumerConfig};
use crate::sink::placeholders::may_be_same;
use crate::types::Reference;

/// The references and destinations of one consumer.
#[derive(Debug)]
pub struct Claims {
    references: Vec<Reference>,
    /// May have placeholders, for the names of partitions.
    places: Vec<String>,
    /// The consumer, as far as its placeholders can be filled.
    consumer: ConsumerConfig,
}

impl Claims {
    /// Those of this consumer, or of all partitions of its super stream.
    pub(super) fn of(consumer: &ConsumerConfig) -> Claims {
        let mut references = vec![consumer.reference.clone()];
        if consumer.dead_letter.is_some() {
            references.push(consumer.dead_letter_reference());
        }
        let consumer = match consumer.is_super_stream {
            // The names of its partitions are not known here.
            true => consumer.clone(),
            false => consumer.of_stream(None),
        };
        let sinks = [Some(&consumer.sink), consumer.dead_letter.as_ref()].into_iter().flatten();
        let places = sinks.filter_map(|sink| Some(sink.exclusive()?.place)).collect();
        Claims { references, places, consumer }
    }

    /// True if the two cannot run at the same time: they use the same reference, or the same destination, or their
    /// sinks cannot stand in one configuration with this broker.
    pub(super) fn exclude(&self, other: &Claims, broker: &BrokerConfig) -> bool {
        self.references.iter().any(|one| other.references.contains(one))
            || self.places.iter().any(|one| other.places.iter().any(|two| may_be_same(one, two)))
            || config::conflict(&self.consumer, &other.consumer, broker)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::difference::tests::{NULL, consumer, load};

    /// A store, where the sink is compiled in; else the folder again.
    const STORE: (&str, &str) = if cfg!(feature = "object-stores") {
        ("object", "url = \"s3://a/d/PLACE\"")
    } else {
        ("file", "dir = \"/d/PLACE\"")
    };

    #[test]
    fn two_that_share_a_reference_or_a_destination_exclude_each_other() {
        let pair = |a: &str, b: &str| {
            let (a, b) = (load(&consumer("a", a)), load(&consumer("b", b)));
            let [one, other] = [&a, &b].map(|config| Claims::of(&config.consumers[0]));
            one.exclude(&other, &b.broker)
        };
        let file = |dir: &str| format!("sink = {{ type = \"file\", dir = \"{dir}\" }}");
        let referred = |reference: &str| format!("reference = \"{reference}\"\n{NULL}");
        assert!(!pair(NULL, NULL));
        assert!(pair(&referred("r"), &referred("r")));
        assert!(pair(NULL, &referred("a")), "its name is the other one's reference");
        assert!(!pair(&file("/x"), &file("/y")));
        assert!(pair(&file("/x"), &file("/z/../x")));
        assert!(pair(&file("/d/s"), &file("/d/{stream}")), "by the stream's name");
        let letters = |dir: &str| {
            format!(
                "on_bad_message = \"dead_letter\"\ndead_letter = {{ type = \"file\", dir = \"{dir}\" }}\n{NULL}"
            )
        };
        assert!(pair(&letters("/x"), &file("/x")));
        assert!(pair(&letters("/x"), &referred("a.dead-letters")));
        assert!(!pair(&letters("/x"), &letters("/y")));
        let publisher = |name: &str| {
            format!("sink = {{ type = \"stream\", stream = \"t\", publisher = \"{name}\" }}")
        };
        assert!(pair(&publisher("p"), &publisher("p")));
        assert!(!pair(&publisher("p"), &publisher("q")));
    }

    #[test]
    fn a_super_stream_excludes_whoever_may_write_where_a_partition_does() {
        for (kind, place) in [("file", "dir = \"/d/PLACE\""), STORE] {
            let of = |name: &str| {
                format!("sink = {{ type = \"{kind}\", {} }}", place.replace("PLACE", name))
            };
            let whole = consumer("a", &of("{stream}"));
            let whole = load(&whole.replace("stream = \"s\"", "super_stream = \"s\""));
            let excluded = |rest: &str| {
                let other = load(&consumer("b", rest));
                let others = Claims::of(&other.consumers[0]);
                Claims::of(&whole.consumers[0]).exclude(&others, &other.broker)
            };
            assert!(excluded(&of("s-0")), "{kind}");
            assert!(!excluded(&of("s-0").replace("/d/", "/e/")), "{kind}");
            assert!(excluded(&format!("reference = \"a\"\n{NULL}")));
            assert!(!excluded(NULL));
        }
    }
}
