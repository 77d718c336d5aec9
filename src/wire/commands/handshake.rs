//! Commands that open, keep alive and close a connection.
//!
//! Order on a new connection: PeerProperties, SaslHandshake, SaslAuthenticate (more than once where
//! the server challenges), Tune from the server, [`tune`] back, [`Open`]; then, on a broker that
//! knows it (3.11+), [`ExchangeCommandVersions`].

use bytes::{BufMut, Bytes, BytesMut};

use super::{Request, ResponseCode, fixed_frame, keys};
use crate::types::Secret;
use crate::wire::cursor::{Cursor, PutExt};
use crate::wire::error::WireError;
use crate::wire::frame::RESPONSE_BIT;

/// Identifies the client to the server; the answer identifies the server (`version`,
/// `cluster_name`, …).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerProperties {
    /// Names and values, such as `product` and `connection_name`.
    pub properties: Vec<(String, String)>,
}

impl Request for PeerProperties {
    const KEY: u16 = keys::PEER_PROPERTIES;
    const NAME: &'static str = "PeerProperties";
    type Response = Vec<(String, String)>;

    fn encode(&self, out: &mut BytesMut) -> Result<(), WireError> {
        out.put_string_pairs("peer property", &self.properties)
    }

    fn decode(_: ResponseCode, body: &mut Cursor<'_>) -> Result<Self::Response, WireError> {
        body.string_pairs()
    }
}

/// Asks for the server's authentication mechanisms (`PLAIN`, `EXTERNAL`, …).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SaslHandshake;

impl Request for SaslHandshake {
    const KEY: u16 = keys::SASL_HANDSHAKE;
    const NAME: &'static str = "SaslHandshake";
    type Response = Vec<String>;

    fn encode(&self, _: &mut BytesMut) -> Result<(), WireError> {
        Ok(())
    }

    fn decode(_: ResponseCode, body: &mut Cursor<'_>) -> Result<Self::Response, WireError> {
        body.array(2, |c| c.string().map(str::to_owned))
    }
}

/// Authenticates, or answers a challenge. Its `Debug` hides the data.
#[derive(Clone, PartialEq, Eq)]
pub struct SaslAuthenticate {
    mechanism: String,
    data: Vec<u8>,
}

impl SaslAuthenticate {
    /// PLAIN: user and password (RFC 4616). The encoded frame contains the password and must not be
    /// logged.
    pub fn plain(user: &str, password: &Secret) -> Self {
        let mut data = Vec::with_capacity(user.len() + password.reveal().len() + 2);
        data.push(0);
        data.extend_from_slice(user.as_bytes());
        data.push(0);
        data.extend_from_slice(password.reveal().as_bytes());
        Self { mechanism: "PLAIN".to_owned(), data }
    }

    /// EXTERNAL: the identity of the TLS client certificate.
    pub fn external() -> Self {
        Self { mechanism: "EXTERNAL".to_owned(), data: Vec::new() }
    }

    /// Name of the mechanism.
    pub fn mechanism(&self) -> &str {
        &self.mechanism
    }
}

impl std::fmt::Debug for SaslAuthenticate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SaslAuthenticate")
            .field("mechanism", &self.mechanism)
            .field("data", &"***")
            .finish()
    }
}

/// The server's answer to authentication data that it accepted so far.
#[derive(Clone, PartialEq, Eq)]
pub enum SaslOutcome {
    /// Authenticated: Tune comes next.
    Done,
    /// The server asks for more data, which the mechanisms of this client do not need.
    Challenge(Vec<u8>),
}

impl std::fmt::Debug for SaslOutcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            SaslOutcome::Done => "Done",
            SaslOutcome::Challenge(_) => "Challenge(***)",
        })
    }
}

impl Request for SaslAuthenticate {
    const KEY: u16 = keys::SASL_AUTHENTICATE;
    const NAME: &'static str = "SaslAuthenticate";
    type Response = SaslOutcome;

    fn encode(&self, out: &mut BytesMut) -> Result<(), WireError> {
        out.put_string("SASL mechanism", &self.mechanism)?;
        out.put_blob("SASL data", (!self.data.is_empty()).then_some(&self.data))
    }

    fn accepts(code: ResponseCode) -> bool {
        matches!(code, ResponseCode::Ok | ResponseCode::SaslChallenge)
    }

    fn decode(code: ResponseCode, body: &mut Cursor<'_>) -> Result<Self::Response, WireError> {
        if code.is_ok() {
            return Ok(SaslOutcome::Done);
        }
        // PROTOCOL.adoc has `bytes` here (an i32 length) where the broker's own encoder writes an
        // i16 length. Only one of the two can agree with what is there: a string that fills n bytes
        // begins with a length of n - 2, which read as an i32 is at least (n - 2) << 16.
        let rest = body.remaining();
        let as_string = rest
            .split_first_chunk::<2>()
            .filter(|(length, text)| usize::from(u16::from_be_bytes(**length)) == text.len());
        Ok(SaslOutcome::Challenge(match as_string {
            Some((_, text)) => text.to_vec(),
            None if rest.is_empty() => Vec::new(),
            None => body.bytes()?.unwrap_or_default().to_vec(),
        }))
    }
}

/// The answer to the server's Tune, which settles the frame size and the heartbeat. `frame_max` is
/// in bytes and `heartbeat` in seconds; 0 means no limit and no heartbeat.
pub fn tune(frame_max: u32, heartbeat: u32) -> Bytes {
    let mut content = [0; 8];
    content[..4].copy_from_slice(&frame_max.to_be_bytes());
    content[4..].copy_from_slice(&heartbeat.to_be_bytes());
    // The reference lists the answer as a second Tune, and the broker's parser wants it without the
    // response bit.
    fixed_frame(keys::TUNE, &content)
}

/// Selects the virtual host. The answer's properties hold `advertised_host` and `advertised_port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// The virtual host, such as `/`.
    pub virtual_host: String,
}

impl Request for Open {
    const KEY: u16 = keys::OPEN;
    const NAME: &'static str = "Open";
    type Response = Vec<(String, String)>;

    fn encode(&self, out: &mut BytesMut) -> Result<(), WireError> {
        out.put_string("virtual host", &self.virtual_host)
    }

    fn decode(_: ResponseCode, body: &mut Cursor<'_>) -> Result<Self::Response, WireError> {
        // The broker leaves out the count if there are no properties.
        if body.is_empty() { Ok(Vec::new()) } else { body.string_pairs() }
    }
}

/// The versions of one command that a peer supports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandVersions {
    /// Number of the command.
    pub key: u16,
    /// The lowest version.
    pub min: u16,
    /// The highest version.
    pub max: u16,
}

impl CommandVersions {
    /// True if `versions` contains this command in this version.
    pub fn supports(versions: &[CommandVersions], key: u16, version: u16) -> bool {
        versions.iter().any(|v| v.key == key && (v.min..=v.max).contains(&version))
    }
}

/// Sends the command versions of this client and asks for the server's (3.11+). Without it the
/// broker does not send Deliver v2. The broker's list holds only commands that clients send (20 on
/// 4.3.6, ResolveOffsetSpec among them, but not Deliver).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExchangeCommandVersions {
    /// Versions that this client supports.
    pub versions: Vec<CommandVersions>,
}

impl ExchangeCommandVersions {
    /// Versions that this module supports and that any broker with this command accepts. A broker
    /// drops the connection over a key later than its own (seen with 4.0.5 and ResolveOffsetSpec),
    /// so the list ends with StreamStats, which came with this command.
    pub fn ours() -> Self {
        let versions = (keys::DECLARE_PUBLISHER..=keys::STREAM_STATS)
            .map(|key| CommandVersions {
                key,
                min: 1,
                max: if key == keys::DELIVER { 2 } else { 1 },
            })
            .collect();
        Self { versions }
    }
}

impl Request for ExchangeCommandVersions {
    const KEY: u16 = keys::EXCHANGE_COMMAND_VERSIONS;
    const NAME: &'static str = "ExchangeCommandVersions";
    type Response = Vec<CommandVersions>;

    fn encode(&self, out: &mut BytesMut) -> Result<(), WireError> {
        out.put_count("command versions", self.versions.len())?;
        for version in &self.versions {
            out.put_u16(version.key);
            out.put_u16(version.min);
            out.put_u16(version.max);
        }
        Ok(())
    }

    fn decode(_: ResponseCode, body: &mut Cursor<'_>) -> Result<Self::Response, WireError> {
        body.array(6, |c| Ok(CommandVersions { key: c.u16()?, min: c.u16()?, max: c.u16()? }))
    }
}

/// Closes the connection; the server answers, then closes it too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    /// Reason; [`ResponseCode::Ok`] for an ordinary end.
    pub code: ResponseCode,
    /// Reason as text.
    pub reason: String,
}

impl Request for Close {
    const KEY: u16 = keys::CLOSE;
    const NAME: &'static str = "Close";
    type Response = ();

    fn encode(&self, out: &mut BytesMut) -> Result<(), WireError> {
        out.put_u16(self.code.value());
        out.put_string("closing reason", &self.reason)
    }

    fn decode(_: ResponseCode, _: &mut Cursor<'_>) -> Result<(), WireError> {
        Ok(())
    }
}

/// The answer to a Close from the server.
pub fn close_response(correlation: u32) -> Bytes {
    let mut content = [0; 6];
    content[..4].copy_from_slice(&correlation.to_be_bytes());
    content[4..].copy_from_slice(&ResponseCode::Ok.value().to_be_bytes());
    fixed_frame(keys::CLOSE | RESPONSE_BIT, &content)
}

/// An empty frame that shows that this client is alive.
pub fn heartbeat() -> Bytes {
    fixed_frame(keys::HEARTBEAT, &[])
}
