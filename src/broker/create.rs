//! Creates a stream or super stream that is absent, and finds out whether an existing one has the
//! wanted arguments ([ADR 23](../../../docs/adr/0023-streams-are-created-by-our-own-core.md)).
//!
//! No command tells a stream's arguments. But a Create for an existing stream changes nothing, and its
//! answer tells whether the arguments are the same (`StreamAlreadyExists`) or not
//! (`PreconditionFailed`); see `do_create_stream` in `rabbit_stream_manager.erl`.
//!
//! Invariants: nothing is created unless the caller allows it (or the stream is deleted by somebody
//! between two requests); nothing that exists is changed or deleted.

use std::time::Duration;

use super::connection::Connection;
use super::error::BrokerError;
use super::feature::Feature;
use super::locate::connect_to_seed;
use super::options::ConnectOptions;
use super::partitions;
use crate::types::StreamName;
use crate::wire::commands::{Create, CreateSuperStream, Metadata, ResponseCode};

/// Argument of a stream: how long it keeps messages.
const MAX_AGE: &str = "max-age";
/// Argument of a stream: how its leader is chosen. It makes no difference to a reader.
const LOCATOR: &str = "queue-leader-locator";
/// Values of it, with which others may have created the stream. The broker's own for partitions comes
/// first.
const LOCATORS: [&str; 3] = ["balanced", "least-leaders", "client-local"];

/// Longest random wait before a super stream is created. Two that are created in the same milliseconds
/// undo each other: the broker checks first, and takes back what it made when a partition exists.
const APART_MAX: Duration = Duration::from_millis(1500);
/// Time for another process that creates the same super stream.
const OTHER_MAX: Duration = Duration::from_secs(5);
/// Time between two looks for what it has created.
const OTHER_EVERY: Duration = Duration::from_millis(200);

/// A stream or super stream as it is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Its name.
    pub name: StreamName,
    /// Arguments of the stream, or of each partition: `max-length-bytes`, `max-age`, …
    pub arguments: Vec<(String, String)>,
    /// The partitions, each with its binding key; `None` for a stream.
    pub partitions: Option<Vec<(StreamName, String)>>,
}

/// Result of looking for a stream that a consumer may create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Declared {
    /// The stream is absent; only a check was requested, so it was not created.
    Absent,
    /// The stream was absent and has been created.
    Created,
    /// The stream exists with the requested arguments and partitions.
    Same,
    /// The stream exists with other arguments or partitions; the text says which differ.
    Different(String),
    /// The stream exists. Its arguments are unknown, because the user lacks the configure permission.
    Unknown,
    /// It exists. Its arguments could not be compared, for this reason.
    NotCompared(String),
}

/// Looks for the stream or super stream, and creates it if it is absent and `may_create`.
///
/// # Errors
/// If the broker refuses, is too old for it, or cannot be asked.
pub async fn declare(
    options: &ConnectOptions,
    layout: &Layout,
    may_create: bool,
) -> Result<Declared, BrokerError> {
    // Not one of the shared connections: nothing waits for this.
    let options = ConnectOptions { sharing: None, ..options.clone() };
    let connection = connect_to_seed(&options).await?;
    let declaring = Declaring { connection: &connection, layout, may_create };
    let declared = match &layout.partitions {
        None => declaring.stream().await,
        Some(partitions) => declaring.super_stream(partitions).await,
    };
    if connection.is_sound() {
        connection.close().await;
    }
    declared
}

struct Declaring<'a> {
    connection: &'a Connection,
    layout: &'a Layout,
    may_create: bool,
}

impl Declaring<'_> {
    async fn stream(&self) -> Result<Declared, BrokerError> {
        let name = &self.layout.name;
        if self.exists(name).await? {
            return self.compare(name).await;
        }
        if !self.may_create {
            return Ok(Declared::Absent);
        }
        let arguments = self.layout.arguments.clone();
        match self.create(name, arguments).await? {
            Some(ResponseCode::PreconditionFailed) if self.exists(name).await? => {
                // Another process was faster.
                self.compare(name).await
            }
            Some(ResponseCode::PreconditionFailed) => Err(self.not_created(
                "stream",
                "precondition failed. A classic or quorum queue has this name, a limit of queues is reached (rabbitmqctl list_vhost_limits), or the broker does not allow one of the arguments in `create`; its log says which",
            )),
            Some(_) => Ok(Declared::Same),
            None => Ok(Declared::Created),
        }
    }

    /// `None` if it is created now; otherwise `StreamAlreadyExists` or `PreconditionFailed`.
    async fn create(
        &self,
        stream: &StreamName,
        arguments: Vec<(String, String)>,
    ) -> Result<Option<ResponseCode>, BrokerError> {
        match self.connection.call(&Create { stream: stream.clone(), arguments }).await {
            Ok(()) => Ok(None),
            Err(BrokerError::Refused {
                code: code @ (ResponseCode::StreamAlreadyExists | ResponseCode::PreconditionFailed),
                ..
            }) => Ok(Some(code)),
            Err(error) => Err(self.connection.about_writing(stream, "configure", error)),
        }
    }

    async fn exists(&self, stream: &StreamName) -> Result<bool, BrokerError> {
        let request = Metadata { streams: vec![stream.clone()] };
        let answer = self.connection.call(&request).await?;
        let code = answer.stream(stream).map(|found| found.code);
        Ok(code.is_some_and(|code| code != ResponseCode::StreamDoesNotExist))
    }

    /// Compares an existing stream's arguments with the wanted ones.
    async fn compare(&self, stream: &StreamName) -> Result<Declared, BrokerError> {
        let is_partition = self.layout.partitions.is_some();
        for arguments in spellings(&self.layout.arguments, is_partition) {
            match self.create(stream, arguments).await {
                // It was deleted since.
                Ok(None) => return Ok(Declared::Created),
                Ok(Some(ResponseCode::StreamAlreadyExists)) => return Ok(Declared::Same),
                Ok(Some(_)) => {}
                Err(BrokerError::WriteRefused { .. }) => return Ok(Declared::Unknown),
                // It is there: that nobody tells its arguments keeps nobody from reading it.
                Err(error) => return Ok(Declared::NotCompared(error.to_string())),
            }
        }
        let which = match is_partition {
            true => format!("partition {:?}", stream.as_str()),
            false => "it".to_owned(),
        };
        let wanted = in_words(&self.layout.arguments);
        Ok(Declared::Different(format!("{which} has other arguments than {wanted}")))
    }

    async fn super_stream(&self, wanted: &[(StreamName, String)]) -> Result<Declared, BrokerError> {
        if self.connection.require(Feature::SuperStream).is_err() {
            // Of the two versions that are needed, the later one.
            self.connection.require(Feature::CreateSuperStream)?;
        }
        if let Some(found) = self.partitions().await? {
            return self.compare_all(wanted, &found).await;
        }
        self.connection.require(Feature::CreateSuperStream)?;
        if !self.may_create {
            return Ok(Declared::Absent);
        }
        tokio::time::sleep(APART_MAX.mul_f64(fastrand::f64())).await;
        if let Some(found) = self.partitions().await? {
            return self.compare_all(wanted, &found).await;
        }
        let request = CreateSuperStream {
            super_stream: self.layout.name.clone(),
            partitions: wanted.to_vec(),
            arguments: self.layout.arguments.clone(),
        };
        match self.connection.call(&request).await {
            Ok(()) => Ok(Declared::Created),
            Err(BrokerError::Refused { code: ResponseCode::StreamAlreadyExists, .. }) => {
                self.by_another(wanted).await
            }
            Err(BrokerError::Refused { code: ResponseCode::PreconditionFailed, .. }) => {
                Err(self.not_created(
                    "super stream",
                    "precondition failed. A limit of queues or of partitions is reached (rabbitmqctl list_vhost_limits), or the broker does not allow one of the arguments in `create`; its log says which",
                ))
            }
            Err(BrokerError::Refused { code: ResponseCode::AccessRefused, .. }) => {
                let user = self.connection.user();
                let what = format!(
                    "user {user:?} may not (access refused). It needs `configure` and `read` for the exchange of this name, and `configure` and `write` for the partitions: rabbitmqctl set_permissions -p '{}' '{user}' CONFIGURE WRITE READ, with patterns that the names match",
                    self.connection.vhost()
                );
                Err(self.not_created("super stream", &what))
            }
            Err(error) => Err(error),
        }
    }

    /// An exchange or a queue with one of the names exists: waits until it is a super stream.
    async fn by_another(&self, wanted: &[(StreamName, String)]) -> Result<Declared, BrokerError> {
        let until = tokio::time::Instant::now() + OTHER_MAX;
        while tokio::time::Instant::now() < until {
            let found = self.partitions().await?.unwrap_or_default();
            if found.len() >= wanted.len() {
                return self.compare_all(wanted, &found).await;
            }
            tokio::time::sleep(OTHER_EVERY).await;
        }
        let names: Vec<_> = wanted.iter().map(|(name, _)| name.as_str()).collect();
        let what = format!(
            "an exchange of this name without these partitions, or one of the streams {}, exists. Bind the streams to the exchange, or delete what is left over, if it is empty",
            names.join(", ")
        );
        Err(self.not_created("super stream", &what))
    }

    /// The partitions; `None` if there is no such super stream.
    async fn partitions(&self) -> Result<Option<Vec<StreamName>>, BrokerError> {
        match partitions::ask(self.connection, &self.layout.name).await {
            Ok(found) => Ok(Some(found)),
            Err(BrokerError::SuperStreamMissing { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn compare_all(
        &self,
        wanted: &[(StreamName, String)],
        found: &[StreamName],
    ) -> Result<Declared, BrokerError> {
        let missing = wanted.iter().any(|(name, _)| !found.contains(name));
        if missing || found.len() != wanted.len() {
            let (has, of) = (names(found), names(wanted.iter().map(|(name, _)| name)));
            return Ok(Declared::Different(format!("it has the partitions {has}, not {of}")));
        }
        for partition in found {
            match self.compare(partition).await? {
                Declared::Same => {}
                other => return Ok(other),
            }
        }
        Ok(Declared::Same)
    }

    fn not_created(&self, kind: &'static str, what: &str) -> BrokerError {
        let vhost = self.connection.vhost().to_owned();
        let what = what.to_owned();
        BrokerError::NotCreated { kind, name: self.layout.name.clone(), vhost, what }
    }
}

/// The arguments as words.
fn in_words(arguments: &[(String, String)]) -> String {
    match arguments {
        [] => "the broker's defaults".to_owned(),
        some => {
            let all: Vec<_> = some.iter().map(|(key, value)| format!("{key} = {value}")).collect();
            all.join(", ")
        }
    }
}

fn names<'a>(all: impl IntoIterator<Item = &'a StreamName>) -> String {
    all.into_iter().map(StreamName::as_str).collect::<Vec<_>>().join(", ")
}

impl std::fmt::Display for Layout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(partitions) = &self.partitions {
            write!(f, "{} partitions, ", partitions.len())?;
        }
        f.write_str(&in_words(&self.arguments))
    }
}

/// The same arguments as others may have written them: another unit of time, and a way of choosing the
/// leader. The likeliest comes first.
fn spellings(arguments: &[(String, String)], is_partition: bool) -> Vec<Vec<(String, String)>> {
    let age = arguments.iter().find(|(key, _)| key == MAX_AGE).map(|(_, value)| value.clone());
    let ages: Vec<Option<String>> = match age {
        None => vec![None],
        Some(seconds) => {
            let longer = in_longer_units(&seconds);
            std::iter::once(Some(seconds)).chain(longer.map(Some)).collect()
        }
    };
    let mut locators: Vec<Option<&str>> = std::iter::once(None).chain(LOCATORS.map(Some)).collect();
    if is_partition {
        locators.swap(0, 1);
    }
    let with = |locator: Option<&str>, age: &Option<String>| {
        let mut all: Vec<_> = arguments.to_vec();
        for (key, value) in &mut all {
            if let (MAX_AGE, Some(age)) = (key.as_str(), age) {
                value.clone_from(age);
            }
        }
        all.extend(locator.map(|locator| (LOCATOR.to_owned(), locator.to_owned())));
        all
    };
    locators
        .into_iter()
        .flat_map(|locator| ages.iter().map(move |age| with(locator, age)))
        .collect()
}

/// `604800s` as `7D`.
fn in_longer_units(age: &str) -> Option<String> {
    let seconds: u64 = age.strip_suffix('s')?.parse().ok()?;
    let (unit, length) = [("D", 86_400), ("h", 3_600), ("m", 60)]
        .into_iter()
        .find(|(_, length)| seconds.is_multiple_of(*length))?;
    Some(format!("{}{unit}", seconds / length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_told_in_the_longest_unit_that_fits() {
        for (age, longer) in
            [("604800s", Some("7D")), ("5400s", Some("90m")), ("7200s", Some("2h")), ("61s", None)]
        {
            assert_eq!(in_longer_units(age).as_deref(), longer);
        }
    }

    #[test]
    fn every_spelling_is_tried_once_and_the_own_one_first() {
        let own = vec![
            ("max-age".to_owned(), "3600s".to_owned()),
            ("max-length-bytes".to_owned(), "7".to_owned()),
        ];
        let all = spellings(&own, false);
        assert_eq!(all.first(), Some(&own));
        assert_eq!(all.len(), 8);
        let unique: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!(unique.len(), all.len());
        assert_eq!(spellings(&[], false).len(), 4);
        let balanced = vec![(LOCATOR.to_owned(), "balanced".to_owned())];
        assert_eq!(spellings(&[], true).first(), Some(&balanced));
    }
}
