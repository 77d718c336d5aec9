//! Response codes of the server.

use std::fmt;

macro_rules! codes {
    ($($name:ident = $value:literal, $words:literal;)*) => {
        /// Result of a request, or reason why a connection or a stream went away (PROTOCOL.adoc,
        /// "Response Codes", and `rabbit_stream.hrl` for the last two).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ResponseCode {
            $(
                #[doc = $words]
                $name,
            )*
            /// A code that this version does not know.
            Unknown(u16),
        }

        impl ResponseCode {
            /// Every code that has a name.
            pub const ALL: &'static [ResponseCode] = &[$(ResponseCode::$name),*];

            /// The number on the wire.
            pub fn value(self) -> u16 {
                match self {
                    $(ResponseCode::$name => $value,)*
                    ResponseCode::Unknown(value) => value,
                }
            }

            /// Description that fits into the middle of a sentence.
            pub fn describe(self) -> &'static str {
                match self {
                    $(ResponseCode::$name => $words,)*
                    ResponseCode::Unknown(_) => "unknown response code",
                }
            }
        }

        impl From<u16> for ResponseCode {
            fn from(value: u16) -> Self {
                match value {
                    $($value => ResponseCode::$name,)*
                    other => ResponseCode::Unknown(other),
                }
            }
        }
    };
}

codes! {
    Ok = 0x01, "done";
    StreamDoesNotExist = 0x02, "the stream does not exist";
    SubscriptionIdAlreadyExists = 0x03, "the subscription id is in use already";
    SubscriptionIdDoesNotExist = 0x04, "the subscription id does not exist";
    StreamAlreadyExists = 0x05, "the stream exists already";
    StreamNotAvailable = 0x06, "the stream is not available at the moment";
    SaslMechanismNotSupported = 0x07, "the authentication mechanism is not supported";
    AuthenticationFailure = 0x08, "authentication failed";
    SaslError = 0x09, "the authentication data could not be understood";
    SaslChallenge = 0x0a, "the server asks for more authentication data";
    AuthenticationFailureLoopback = 0x0b, "this user may only connect from the broker's own host";
    VirtualHostAccessFailure = 0x0c, "access to the virtual host was refused";
    UnknownFrame = 0x0d, "the broker does not know this command";
    FrameTooLarge = 0x0e, "the frame is too large";
    InternalError = 0x0f, "internal error in the broker";
    AccessRefused = 0x10, "access refused";
    PreconditionFailed = 0x11, "precondition failed";
    PublisherDoesNotExist = 0x12, "the publisher does not exist";
    NoOffset = 0x13, "no offset is stored";
    SaslCannotChangeMechanism = 0x14, "the authentication mechanism cannot be changed on a live connection";
    SaslCannotChangeUsername = 0x15, "the user cannot be changed on a live connection";
}

impl ResponseCode {
    /// True if the request was carried out.
    pub fn is_ok(self) -> bool {
        self == ResponseCode::Ok
    }
}

impl fmt::Display for ResponseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (code {:#04x})", self.describe(), self.value())
    }
}
