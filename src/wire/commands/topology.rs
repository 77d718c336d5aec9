//! Which streams there are, where they live, and making and deleting them.

use bytes::BytesMut;

use super::{Request, ResponseCode, keys};
use crate::types::StreamName;
use crate::wire::cursor::{Cursor, PutExt};
use crate::wire::error::WireError;

/// Asks where streams live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// The streams.
    pub streams: Vec<StreamName>,
}

/// A broker, at the address that it advertises.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Node {
    /// Its host.
    pub host: String,
    /// Its stream port.
    pub port: u32,
}

/// One stream's members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamMetadata {
    /// The stream.
    pub stream: StreamName,
    /// `Ok`, or why nothing more is known: 0x02 (no such stream), 0x06 (not available: ask again),
    /// 0x10 (not allowed).
    pub code: ResponseCode,
    /// Address of its leader; `None` while there is none.
    pub leader: Option<Node>,
    /// Where its replicas are. In an election the list can be short.
    pub replicas: Vec<Node>,
}

/// The answer to [`Metadata`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataResponse {
    /// The brokers that the streams live on.
    pub nodes: Vec<Node>,
    /// The streams; the order need not be that of the question.
    pub streams: Vec<StreamMetadata>,
}

impl MetadataResponse {
    /// The answer about one stream.
    pub fn stream(&self, name: &StreamName) -> Option<&StreamMetadata> {
        self.streams.iter().find(|s| s.stream == *name)
    }
}

impl Request for Metadata {
    const KEY: u16 = keys::METADATA;
    const NAME: &'static str = "Metadata";
    const ANSWER_HAS_CODE: bool = false;
    type Response = MetadataResponse;

    fn encode(&self, out: &mut BytesMut) -> Result<(), WireError> {
        out.put_count("streams", self.streams.len())?;
        self.streams.iter().try_for_each(|s| out.put_string("stream name", s.as_str()))
    }

    fn decode(_: ResponseCode, body: &mut Cursor<'_>) -> Result<Self::Response, WireError> {
        let nodes = body
            .array(8, |c| Ok((c.u16()?, Node { host: c.string()?.to_owned(), port: c.u32()? })))?;
        let node = |index: u16| nodes.iter().find(|(i, _)| *i == index).map(|(_, n)| n.clone());
        let streams = body.array(10, |c| {
            Ok(StreamMetadata {
                stream: StreamName::from(c.string()?),
                code: ResponseCode::from(c.u16()?),
                // 0xffff stands for "none"; an index that names no node is taken the same way, as
                // the broker's own decoder does.
                leader: node(c.u16()?),
                replicas: c.array(2, |c| c.u16().map(node))?.into_iter().flatten().collect(),
            })
        })?;
        Ok(MetadataResponse { nodes: nodes.into_iter().map(|(_, n)| n).collect(), streams })
    }
}

fn stream_names(body: &mut Cursor<'_>) -> Result<Vec<StreamName>, WireError> {
    body.array(2, |c| c.string().map(StreamName::from))
}

/// Asks for a super stream's partitions, in their order (3.11+).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partitions {
    /// The super stream.
    pub super_stream: StreamName,
}

impl Request for Partitions {
    const KEY: u16 = keys::PARTITIONS;
    const NAME: &'static str = "Partitions";
    type Response = Vec<StreamName>;

    fn encode(&self, out: &mut BytesMut) -> Result<(), WireError> {
        out.put_string("super stream name", self.super_stream.as_str())
    }

    fn decode(_: ResponseCode, body: &mut Cursor<'_>) -> Result<Self::Response, WireError> {
        stream_names(body)
    }
}

macro_rules! answered_by_code_alone {
    ($command:ident, $key:ident) => {
        const KEY: u16 = keys::$key;
        const NAME: &'static str = stringify!($command);
        type Response = ();

        fn decode(_: ResponseCode, _: &mut Cursor<'_>) -> Result<(), WireError> {
            Ok(())
        }
    };
}

/// Makes a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Create {
    /// Its name.
    pub stream: StreamName,
    /// `max-length-bytes`, `max-age`, `stream-max-segment-size-bytes`, …
    pub arguments: Vec<(String, String)>,
}

impl Request for Create {
    answered_by_code_alone!(Create, CREATE);

    fn encode(&self, out: &mut BytesMut) -> Result<(), WireError> {
        out.put_string("stream name", self.stream.as_str())?;
        out.put_string_pairs("stream argument", &self.arguments)
    }
}

/// Deletes a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delete {
    /// Its name.
    pub stream: StreamName,
}

impl Request for Delete {
    answered_by_code_alone!(Delete, DELETE);

    fn encode(&self, out: &mut BytesMut) -> Result<(), WireError> {
        out.put_string("stream name", self.stream.as_str())
    }
}

/// Makes a super stream (3.13+).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateSuperStream {
    /// Its name.
    pub super_stream: StreamName,
    /// Its partitions, and the routing key that leads to each.
    pub partitions: Vec<(StreamName, String)>,
    /// As for [`Create`].
    pub arguments: Vec<(String, String)>,
}

impl Request for CreateSuperStream {
    answered_by_code_alone!(CreateSuperStream, CREATE_SUPER_STREAM);

    fn encode(&self, out: &mut BytesMut) -> Result<(), WireError> {
        out.put_string("super stream name", self.super_stream.as_str())?;
        out.put_count("partitions", self.partitions.len())?;
        for (name, _) in &self.partitions {
            out.put_string("partition name", name.as_str())?;
        }
        out.put_count("binding keys", self.partitions.len())?;
        for (_, key) in &self.partitions {
            out.put_string("binding key", key)?;
        }
        out.put_string_pairs("stream argument", &self.arguments)
    }
}
