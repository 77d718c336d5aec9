//! OAuth 2 access tokens, with which RabbitMQ is logged in to instead of a password: read from a file
//! that another program replaces, or asked for at a token endpoint (client credentials, RFC 6749, 4.4).
//!
//! A [`Keeper`] has the current token of one configuration for all connections of the process, and
//! renews it before it expires ([ADR 22](../../docs/adr/0022-certificates-and-tokens.md)).
//!
//! Invariants: no token and no client secret is shown; every wait for an endpoint has a time limit; a
//! token is replaced only by another one. Whether a token is valid is for the broker to say: here it
//! is only read when it expires.
//!
//! Knows nothing of brokers.

mod endpoint;
mod file;
mod jwt;
mod keeper;
mod options;
mod token;

pub use keeper::{Keeper, Renewals};
pub use options::{TokenEndpoint, TokenOptions, TokenOrigin};
pub use token::{Token, TokenError};
