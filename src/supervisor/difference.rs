//! What differs between two configurations, consumer by consumer. Pure.
//!
//! Compared is what a consumer really runs by: its own table with all defaults and secrets filled in, and
//! what it inherits from the rest of the file.

use crate::config::{Config, ConsumerConfig};
use crate::types::ConsumerName;

/// The consumers of a new configuration, compared with those of an old one.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Consumers that the old one does not have.
    pub added: Vec<ConsumerName>,
    /// Consumers that both have, with different settings.
    pub changed: Vec<ConsumerName>,
    /// Consumers that the new one does not have.
    pub removed: Vec<ConsumerName>,
    /// Consumers that both have, with the same settings.
    pub unchanged: Vec<ConsumerName>,
}

impl Difference {
    /// Compares `new` with `old`.
    pub(super) fn between(old: &Config, new: &Config) -> Difference {
        let inherits_the_same = inherited(old) == inherited(new);
        let mut difference = Difference::default();
        for consumer in &new.consumers {
            let place = match named(old, &consumer.name) {
                None => &mut difference.added,
                Some(before) if inherits_the_same && before == consumer => {
                    &mut difference.unchanged
                }
                Some(_) => &mut difference.changed,
            };
            place.push(consumer.name.clone());
        }
        let is_gone = |consumer: &&ConsumerConfig| named(new, &consumer.name).is_none();
        let gone = old.consumers.iter().filter(is_gone);
        difference.removed = gone.map(|consumer| consumer.name.clone()).collect();
        difference
    }

    /// True if a task of a consumer with this name has to end.
    pub(super) fn ends(&self, name: &ConsumerName) -> bool {
        self.removed.contains(name) || self.changed.contains(name)
    }

    /// True if a consumer with this name has to start.
    pub(super) fn starts(&self, name: &ConsumerName) -> bool {
        self.added.contains(name) || self.changed.contains(name)
    }

    /// True if no consumer differs.
    pub(super) fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty()
    }
}

/// The consumer of this name.
pub(super) fn named<'a>(config: &'a Config, name: &ConsumerName) -> Option<&'a ConsumerConfig> {
    config.consumers.iter().find(|consumer| consumer.name == *name)
}

/// Everything outside of its own table that a consumer's plan depends on. `state_dir` is part of it, and
/// cannot change while the daemon runs.
fn inherited(config: &Config) -> impl PartialEq + '_ {
    (&config.broker, &config.shutdown_grace, &config.state_dir)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::config::Env;

    pub(in crate::supervisor) fn load(text: &str) -> Config {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rillway.toml");
        std::fs::write(&path, text).unwrap();
        let mut config = Config::load(Some(&path), &Env::from([("SECRET", "one")])).unwrap();
        config.state_dir = "/state".into();
        config
    }

    pub(in crate::supervisor) fn consumer(name: &str, rest: &str) -> String {
        format!("[[consumer]]\nname = \"{name}\"\nstream = \"s\"\n{rest}\n")
    }

    fn names(all: &[ConsumerName]) -> Vec<&str> {
        all.iter().map(ConsumerName::as_str).collect()
    }

    pub(in crate::supervisor) const NULL: &str = "sink = { type = \"null\" }";

    #[test]
    fn a_consumer_differs_by_what_it_runs_by() {
        let broker = "[broker]\nuri = \"rabbitmq-stream://u:p@h/%2f\"\n";
        let base = format!("{broker}{}{}", consumer("a", NULL), consumer("b", NULL));
        let old = load(&base);
        // (the new text, changed)
        let table = [
            (base.clone(), vec![]),
            // What is written out is the default; comments, and the order, mean nothing.
            (format!("shutdown_grace = \"10s\"\n# words\n{base}"), vec![]),
            (format!("{broker}{}{}", consumer("b", NULL), consumer("a", NULL)), vec![]),
            (base.replace("name = \"a\"", "name = \"a\"\nmemory = \"32MiB\""), vec![]),
            (base.replace("name = \"a\"", "name = \"a\"\nmemory = \"33MiB\""), vec!["a"]),
            (base.replace("name = \"b\"", "name = \"b\"\nreference = \"c\""), vec!["b"]),
            (base.replace("u:p@h", "u:q@h"), vec!["a", "b"]),
            (base.replace("[broker]", "[broker]\nheartbeat = \"9s\""), vec!["a", "b"]),
            (
                base.replace("u:p@h", "u@h").replace("[broker]", "[broker]\npassword = \"p\""),
                vec![],
            ),
            (format!("shutdown_grace = \"11s\"\n{base}"), vec!["a", "b"]),
            // What consumers do not run by.
            (format!("[log]\nlevel = \"debug\"\n{base}"), vec![]),
            (format!("{base}[[watch]]\nstream = \"s\"\nreference = \"r\"\n"), vec![]),
        ];
        for (text, changed) in table {
            let difference = Difference::between(&old, &load(&text));
            assert_eq!(names(&difference.changed), changed, "{text}");
            assert_eq!(difference.is_empty(), changed.is_empty(), "{text}");
            let all = difference.changed.len() + difference.unchanged.len();
            assert_eq!((all, difference.added.len(), difference.removed.len()), (2, 0, 0));
        }
        let text = format!("{broker}{}{}", consumer("b", NULL), consumer("c", NULL));
        let difference = Difference::between(&old, &load(&text));
        let Difference { added, changed, removed, unchanged } = &difference;
        assert_eq!((names(added), names(changed)), (vec!["c"], vec![]));
        assert_eq!((names(removed), names(unchanged)), (vec!["a"], vec!["b"]));
        let (a, b, c) = ("a".into(), "b".into(), "c".into());
        assert_eq!([&a, &b, &c].map(|name| difference.ends(name)), [true, false, false]);
        assert_eq!([&a, &b, &c].map(|name| difference.starts(name)), [false, false, true]);
    }
}
