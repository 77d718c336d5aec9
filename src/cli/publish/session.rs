//! One connection of the official client.
//!
//! Every call has a time limit, and a panic in it becomes an error. Failures that the client does
//! not report (a silent peer, a moved leader) are detected here or in the sender; the remedy is
//! always a new session.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rabbitmq_stream_client::error::ClientError;
use rabbitmq_stream_client::types::{Message, MessageResult, ResponseCode, ResponseKind};
use rabbitmq_stream_client::{Client, ClientOptions, TlsConfiguration};
use tokio::sync::mpsc;

use super::elder;
use crate::cli::exit::Failure;
use crate::config::{BrokerAddress, BrokerConfig, Mechanism};
use crate::oauth::Keeper;
use crate::types::Secret;

/// Id of the only publisher of each connection.
const PUBLISHER: u8 = 1;
/// Largest frame, in bytes. The smaller of this and the broker's limit counts, so this leaves it to
/// the broker.
const FRAME_BYTES_MAX: u32 = u32::MAX;
/// Time limit for closing the connection.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// Usual paths of the system's certificate authorities. The client needs a file.
const SYSTEM_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Destination of the messages.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) broker: BrokerConfig,
    pub(super) stream: String,
    tls: Tls,
    /// True if the broker is known to be older than 3.11.
    elder: AtomicBool,
}

#[derive(Debug)]
enum Tls {
    Off,
    Unverified,
    Verified { ca: PathBuf, client: Option<(PathBuf, PathBuf)> },
}

/// An event of the connection.
#[derive(Debug)]
pub(super) enum Event {
    Confirmed(Vec<u64>),
    Refused(Vec<(u64, ResponseCode)>),
    Lost(&'static str),
}

/// Reason why a session could not be opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    /// A retry may succeed.
    #[error("{0}")]
    Transient(String),
    /// A retry is useless before the user acts.
    #[error("{0}")]
    Permanent(String),
}

impl Target {
    pub(super) fn new(broker: BrokerConfig, stream: &str) -> Result<Target, Failure> {
        let tls = tls(&broker)?;
        if broker.mechanism == Mechanism::External {
            return Err(Failure::Config(
                "publish logs in with user and password only: broker.mechanism \"external\" is for \
                 consuming"
                    .to_owned(),
            ));
        }
        Ok(Target { broker, stream: stream.to_owned(), tls, elder: AtomicBool::new(false) })
    }

    /// The password, or an access token. A session ends when that expires, and the next one has a newer
    /// one.
    async fn password(&self) -> Result<Secret, SessionError> {
        let Some(tokens) = &self.broker.oauth else { return Ok(self.broker.password.clone()) };
        let token = Keeper::of(tokens).token().await;
        let token = token.map_err(|error| SessionError::Transient(error.to_string()))?;
        Ok(token.secret().clone())
    }

    fn options(
        &self,
        address: &BrokerAddress,
        password: &Secret,
    ) -> Result<ClientOptions, SessionError> {
        let tls = match &self.tls {
            Tls::Off => Ok(TlsConfiguration::Disabled),
            Tls::Unverified => TlsConfiguration::builder().enable(true).build(),
            Tls::Verified { ca, client } => {
                let builder = TlsConfiguration::builder().add_root_certificates(ca);
                match client {
                    Some((cert, key)) => builder.add_client_certificates_keys(cert, key).build(),
                    None => builder.build(),
                }
            }
        }
        .map_err(|e| SessionError::Permanent(e.to_owned()))?;
        let seconds = self.broker.heartbeat.0.as_secs();
        Ok(ClientOptions::builder()
            .host(&address.host)
            .port(address.port)
            .user(&self.broker.username)
            .password(password.reveal())
            .v_host(&self.broker.vhost)
            .heartbeat(u32::try_from(seconds).unwrap_or(u32::MAX))
            .max_frame_size(FRAME_BYTES_MAX)
            .client_provided_name("rillway publish".to_owned())
            .tls(tls)
            .build())
    }

    async fn connect(&self, address: &BrokerAddress) -> Result<Client, SessionError> {
        let tried = format!("connecting to {address}");
        if !self.elder.load(Ordering::Relaxed)
            && let Some(client) = self.connect_to(address, &tried).await?
        {
            return Ok(client);
        }
        // Closed during the handshake: the behaviour of a broker before 3.11.
        let closed =
            || SessionError::Transient(format!("{tried}: the broker closed the connection"));
        if !matches!(self.tls, Tls::Off) {
            return Err(SessionError::Permanent(format!(
                "{}. If it is older than RabbitMQ 3.11, publish to it without TLS",
                closed()
            )));
        }
        let bridged = elder::bridge(address).await;
        let bridge =
            bridged.map_err(|error| SessionError::Transient(format!("{tried}: {error}")))?;
        let client = self.connect_to(&bridge, &tried).await?.ok_or_else(closed)?;
        self.elder.store(true, Ordering::Relaxed);
        Ok(client)
    }

    /// `None` if the broker closed the connection during the handshake.
    async fn connect_to(
        &self,
        address: &BrokerAddress,
        tried: &str,
    ) -> Result<Option<Client>, SessionError> {
        let options = self.options(address, &self.password().await?)?;
        let call = async move {
            match Client::connect(options).await {
                Err(ClientError::ConnectionClosed) => Ok(None),
                other => other.map(Some),
            }
        };
        limited(tried, self.broker.connect_timeout.0, call).await
    }

    /// Creates the stream. Returns true if the name is already in use.
    async fn create(&self, client: &Client) -> Result<bool, SessionError> {
        let (client, stream) = (client.clone(), self.stream.clone());
        let call = async move { client.create_stream(&stream, HashMap::new()).await };
        let tried = format!("creating stream {:?}", self.stream);
        let answer = limited(&tried, self.broker.request_timeout.0, call).await?;
        match answer.code() {
            // The second code: one exists with other limits.
            ResponseCode::StreamAlreadyExists | ResponseCode::PreconditionFailed => Ok(true),
            ResponseCode::Ok => Ok(false),
            code => Err(refused(&tried, code, &self.broker)),
        }
    }

    /// Address of the stream's leader.
    async fn leader(
        &self,
        client: &Client,
        name_taken: bool,
    ) -> Result<BrokerAddress, SessionError> {
        let (client, stream) = (client.clone(), self.stream.clone());
        let call = async move { client.metadata(vec![stream]).await };
        let tried = format!("asking for the leader of stream {:?}", self.stream);
        let mut found = limited(&tried, self.broker.request_timeout.0, call).await?;
        match found.remove(&self.stream) {
            Some(stream) if stream.response_code == ResponseCode::Ok => {
                let port = u16::try_from(stream.leader.port).unwrap_or_default();
                Ok(BrokerAddress { host: stream.leader.host, port })
            }
            Some(stream) => Err(refused(&tried, &stream.response_code, &self.broker)),
            // The client leaves out a stream that has no leader or does not exist.
            None => Err(SessionError::Permanent(self.missing(name_taken))),
        }
    }
}

impl Target {
    fn missing(&self, name_taken: bool) -> String {
        let Target { stream, broker: BrokerConfig { vhost, .. }, .. } = self;
        let look = format!("rabbitmqctl list_queues -p '{vhost}' name type");
        if name_taken {
            return format!(
                "{stream:?} is not a stream, or has no leader at the moment: vhost {vhost:?} has a queue of \
                 this name, which may be a classic or a quorum queue ({look})"
            );
        }
        format!(
            "there is no stream {stream:?} in vhost {vhost:?}, or it has no leader at the moment, or a \
             classic or quorum queue has this name ({look}). --create creates a stream"
        )
    }
}

/// A connection for publishing.
pub(super) struct Session {
    client: Client,
    request_timeout: Duration,
    events: mpsc::Receiver<Event>,
}

impl Session {
    /// Connects to the stream's leader through this address. At most `in_flight` messages may be
    /// unconfirmed at any time.
    pub(super) async fn open(
        target: &Target,
        address: &BrokerAddress,
        create: bool,
        in_flight: usize,
    ) -> Result<Session, SessionError> {
        let mut client = target.connect(address).await?;
        let name_taken = create && target.create(&client).await?;
        let leader = target.broker.mapped(target.leader(&client, name_taken).await?);
        // Any node passes messages on to the leader.
        let is_dialled = target.broker.follow_advertised_hosts && !target.broker.load_balancer;
        if is_dialled && leader != *address {
            close(&client).await;
            client = target.connect(&leader).await?;
        }
        // Each event settles at least one message, or is the last, so it cannot overflow.
        let (to, events) = mpsc::channel(in_flight + 16);
        let (handled, request_timeout) = (client.clone(), target.broker.request_timeout.0);
        let to = Arc::new(to);
        let handler = move |item: MessageResult| {
            let to = to.clone();
            async move {
                if let Some(event) = event(item) {
                    // Full or closed: the sender has stopped waiting, or will notice by its time
                    // limit.
                    drop(to.try_send(event));
                }
                Ok(())
            }
        };
        let call = async move {
            handled.set_handler(handler).await;
            Ok::<(), std::convert::Infallible>(())
        };
        limited("listening to the connection", request_timeout, call).await?;
        let session = Session { client, request_timeout, events };
        let (client, stream) = (session.client.clone(), target.stream.clone());
        let call = async move { client.declare_publisher(PUBLISHER, None, &stream).await };
        let tried = format!("declaring a publisher on stream {:?}", target.stream);
        let answer = limited(&tried, request_timeout, call).await?;
        match answer.code() {
            ResponseCode::Ok => Ok(session),
            // Nothing else in such a request causes this answer.
            ResponseCode::PreconditionFailed => Err(SessionError::Transient(format!(
                "{tried}: the broker accepts no messages now, because it has a resource alarm, usually \
                 for its free disk space (rabbitmq-diagnostics alarms, on the node)"
            ))),
            code => Err(refused(&tried, code, &target.broker)),
        }
    }

    /// Sends these messages, which have ids, in one frame.
    pub(super) async fn publish(&self, messages: Vec<Message>) -> Result<(), SessionError> {
        let client = self.client.clone();
        let call = async move { client.publish(PUBLISHER, messages, 1).await };
        limited("sending", self.request_timeout, call).await.map(|_| ())
    }

    /// The next event. Cancel-safe.
    pub(super) async fn event(&mut self) -> Event {
        self.events.recv().await.unwrap_or(Event::Lost("the connection was closed"))
    }

    /// Closes the connection, if it is still open.
    pub(super) async fn close(self) {
        close(&self.client).await;
    }
}

async fn close(client: &Client) {
    let client = client.clone();
    let call = async move { client.close().await };
    // The result does not matter: the connection is not used any more.
    drop(limited("closing", CLOSE_WITHIN, call).await);
}

fn event(item: MessageResult) -> Option<Event> {
    match item {
        None => Some(Event::Lost("the broker closed the connection")),
        Some(Err(_)) => Some(Event::Lost("the connection broke")),
        Some(Ok(response)) => match response.kind_ref() {
            ResponseKind::PublishConfirm(confirm) => {
                Some(Event::Confirmed(confirm.publishing_ids.clone()))
            }
            ResponseKind::PublishError(error) => Some(Event::Refused(
                error
                    .publishing_errors
                    .iter()
                    .map(|e| (e.publishing_id, e.error_code.clone()))
                    .collect(),
            )),
            ResponseKind::MetadataUpdate(_) => {
                Some(Event::Lost("the stream was deleted, or its leader moved"))
            }
            _ => None,
        },
    }
}

/// Awaits a call of the client with a time limit, on a task of its own, because it may panic.
async fn limited<T, E>(
    tried: &str,
    within: Duration,
    call: impl Future<Output = Result<T, E>> + Send + 'static,
) -> Result<T, SessionError>
where
    T: Send + 'static,
    E: fmt::Display + Send + 'static,
{
    let task = tokio::spawn(call);
    let abort = task.abort_handle();
    match tokio::time::timeout(within, task).await {
        Ok(Ok(Ok(done))) => Ok(done),
        Ok(Ok(Err(error))) => Err(explained(tried, &error.to_string())),
        Ok(Err(_)) => Err(SessionError::Transient(format!("{tried}: the client library panicked"))),
        Err(_) => {
            abort.abort();
            Err(SessionError::Transient(format!("{tried}: no answer within {within:?}")))
        }
    }
}

fn explained(tried: &str, error: &str) -> SessionError {
    let permanent = |what: &str| SessionError::Permanent(format!("{tried}: {what}"));
    // The client reports the code of a refused login as text only.
    if error.contains("AuthenticationFailureLoopback") {
        permanent("the broker accepts this user only from its own host")
    } else if error.contains("AuthenticationFailure") || error.contains("Sasl") {
        permanent("the broker does not accept this user and password")
    } else if error.contains("VirtualHostAccessFailure") {
        permanent("the user has no access to this virtual host, or it does not exist")
    } else {
        SessionError::Transient(format!("{tried}: {error}"))
    }
}

fn refused(tried: &str, code: &ResponseCode, broker: &BrokerConfig) -> SessionError {
    let (user, vhost) = (&broker.username, &broker.vhost);
    match code {
        ResponseCode::StreamNotAvailable | ResponseCode::InternalError => {
            SessionError::Transient(format!("{tried}: the broker answered {code:?}"))
        }
        ResponseCode::AccessRefused => SessionError::Permanent(format!(
            "{tried}: the broker does not allow this for user {user:?} in vhost {vhost:?} (access \
             refused). Grant it with rabbitmqctl set_permissions"
        )),
        ResponseCode::StreamDoesNotExist => SessionError::Permanent(format!(
            "{tried}: it does not exist in vhost {vhost:?}. Create it with --create"
        )),
        code => SessionError::Permanent(format!("{tried}: the broker answered {code:?}")),
    }
}

/// Translates the TLS settings for the client. A setting that it does not support is an error,
/// because ignoring it would be less safe than it looks.
fn tls(broker: &BrokerConfig) -> Result<Tls, Failure> {
    let Some(tls) = &broker.tls else { return Ok(Tls::Off) };
    if tls.insecure_skip_verify {
        return Ok(Tls::Unverified);
    }
    if tls.server_name.is_some() {
        return Err(Failure::Config(
            "publish checks the certificate against the host's name only: broker.tls.server_name \
             is for consuming"
                .to_owned(),
        ));
    }
    let system = || SYSTEM_BUNDLES.iter().map(PathBuf::from).find(|path| path.exists());
    let ca = tls.ca.clone().or_else(system).ok_or_else(|| {
        Failure::Config(
            "publish found no file of trusted certificate authorities on this system: set broker.tls.ca"
                .to_owned(),
        )
    })?;
    Ok(Tls::Verified { ca, client: tls.cert.clone().zip(tls.key.clone()) })
}
