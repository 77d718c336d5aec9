//! Numbers of the commands (PROTOCOL.adoc, "Commands").

macro_rules! keys {
    ($($key:ident = $value:literal, $name:literal;)*) => {
        $(
            #[doc = $name]
            pub const $key: u16 = $value;
        )*

        /// Name of a command in the protocol's reference.
        pub fn name(key: u16) -> &'static str {
            match key {
                $($value => $name,)*
                _ => "unknown command",
            }
        }
    };
}

keys! {
    DECLARE_PUBLISHER = 0x01, "DeclarePublisher";
    PUBLISH = 0x02, "Publish";
    PUBLISH_CONFIRM = 0x03, "PublishConfirm";
    PUBLISH_ERROR = 0x04, "PublishError";
    QUERY_PUBLISHER_SEQUENCE = 0x05, "QueryPublisherSequence";
    DELETE_PUBLISHER = 0x06, "DeletePublisher";
    SUBSCRIBE = 0x07, "Subscribe";
    DELIVER = 0x08, "Deliver";
    CREDIT = 0x09, "Credit";
    STORE_OFFSET = 0x0a, "StoreOffset";
    QUERY_OFFSET = 0x0b, "QueryOffset";
    UNSUBSCRIBE = 0x0c, "Unsubscribe";
    CREATE = 0x0d, "Create";
    DELETE = 0x0e, "Delete";
    METADATA = 0x0f, "Metadata";
    METADATA_UPDATE = 0x10, "MetadataUpdate";
    PEER_PROPERTIES = 0x11, "PeerProperties";
    SASL_HANDSHAKE = 0x12, "SaslHandshake";
    SASL_AUTHENTICATE = 0x13, "SaslAuthenticate";
    TUNE = 0x14, "Tune";
    OPEN = 0x15, "Open";
    CLOSE = 0x16, "Close";
    HEARTBEAT = 0x17, "Heartbeat";
    ROUTE = 0x18, "Route";
    PARTITIONS = 0x19, "Partitions";
    CONSUMER_UPDATE = 0x1a, "ConsumerUpdate";
    EXCHANGE_COMMAND_VERSIONS = 0x1b, "ExchangeCommandVersions";
    STREAM_STATS = 0x1c, "StreamStats";
    CREATE_SUPER_STREAM = 0x1d, "CreateSuperStream";
    DELETE_SUPER_STREAM = 0x1e, "DeleteSuperStream";
    RESOLVE_OFFSET_SPEC = 0x1f, "ResolveOffsetSpec";
}
