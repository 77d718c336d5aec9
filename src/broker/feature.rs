//! What a broker has to be new enough for: the one place that says which version brings what
//! ([the table for operators](../../../docs/versions.md)).
//!
//! A configuration that asks for more than the broker has gets the error of [`Feature::missing`].

use std::fmt;

/// Something that a configuration can ask for, and that not every version has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Feature {
    /// The partitions of a super stream can be asked for.
    SuperStream,
    /// The broker chooses the active one of several consumers.
    SingleActive,
    /// A super stream can be created.
    CreateSuperStream,
    /// The broker leaves out chunks by filter values.
    Filter,
}

impl Feature {
    /// All of them, oldest first.
    pub const ALL: &'static [Feature] =
        &[Feature::SuperStream, Feature::SingleActive, Feature::CreateSuperStream, Feature::Filter];

    /// Key of the configuration that asks for it.
    pub fn key(self) -> &'static str {
        match self {
            Feature::SuperStream => "super_stream",
            Feature::SingleActive => "single_active",
            Feature::CreateSuperStream => "create of a super stream",
            Feature::Filter => "filter",
        }
    }

    /// The first version with it: major and minor.
    pub fn since(self) -> (u32, u32) {
        match self {
            Feature::SuperStream | Feature::SingleActive => (3, 11),
            Feature::CreateSuperStream | Feature::Filter => (3, 13),
        }
    }

    /// True if this version, major and minor, has it.
    pub fn is_in(self, version: (u32, u32)) -> bool {
        version >= self.since()
    }

    /// The same for the text that the broker gives for its version.
    pub fn is_in_version(self, version: &str) -> bool {
        self.is_in(parse_version(version))
    }

    /// Error for a node of this version, which does not have it.
    pub fn missing(self, node: &impl fmt::Display, version: &str) -> String {
        let (major, minor) = self.since();
        format!(
            "{} needs RabbitMQ {major}.{minor} or later, but {node} is {version}: upgrade the broker, or {}",
            self.key(),
            self.instead()
        )
    }

    /// What to do with an older broker.
    pub fn instead(self) -> &'static str {
        match self {
            Feature::SuperStream => "read each partition with a consumer of its own, with `stream`",
            Feature::SingleActive => {
                "remove single_active and run only one rillway for this reference"
            }
            Feature::CreateSuperStream => {
                "create the super stream by hand (rabbitmq-streams add_super_stream NAME --partitions N), and remove `create`"
            }
            // The broker's stream_filtering flag is off after an upgrade from before 3.13.
            Feature::Filter => {
                "set filter.client_side = true, with filter.by, so that everything is sent and Rillway selects (a broker that was upgraded from before 3.13 also needs: rabbitmqctl enable_feature_flag stream_filtering)"
            }
        }
    }
}

/// Major and minor of `3.10.8`, `4.0.5`, `4.3.6-rc.1`; (0, 0) if it cannot be parsed.
pub(super) fn parse_version(text: &str) -> (u32, u32) {
    let mut parts = text.split(['.', '-', '+']).map(|p| p.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        assert!(parse_version("3.9.29") < (3, 11));
        assert!(parse_version("3.10.8") < (3, 11));
        assert!(parse_version("3.11.0-beta.1") >= (3, 11));
        assert!(parse_version("4.3.6") >= (3, 11));
        assert_eq!(parse_version("what"), (0, 0));
    }

    #[test]
    fn each_version_has_what_came_until_then() {
        for (version, has) in [("3.10.8", 0), ("3.11.0-beta.1", 2), ("3.12.14", 2), ("4.0.5", 4)] {
            let found = Feature::ALL.iter().filter(|feature| feature.is_in_version(version));
            assert_eq!(found.count(), has, "{version}");
        }
        let error = Feature::SingleActive.missing(&"localhost:5552", "3.10.8");
        assert!(error.starts_with(
            "single_active needs RabbitMQ 3.11 or later, but localhost:5552 is 3.10.8: "
        ));
    }
}
