//! TLS settings: of outgoing connections (trusted certificates, client certificate, server name), and of
//! those that others open ([`ServerTls`]).
//!
//! [`current`] looks at the files for each connection, so that replaced ones are used by the next
//! connection. Files that cannot be used do not replace those that can
//! ([ADR 22](../../docs/adr/0022-certificates-and-tokens.md)).
//! Knows nothing of the peers.

mod kept;
mod pinned;
mod server;
mod words;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    crypto,
};

use self::kept::Files;
pub use self::kept::current;
pub use self::pinned::pinned;
pub use self::server::{ServerOptions, ServerTls};
pub use self::words::{in_words, is_of_tls};
use crate::files;

/// TLS options of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsOptions {
    /// Certificates to trust instead of the system's (PEM).
    pub ca: Option<PathBuf>,
    /// The client's certificate chain (PEM).
    pub cert: Option<PathBuf>,
    /// The client's key (PEM).
    pub key: Option<PathBuf>,
    /// Name that the peer's certificate must contain, if it is not the host connected to.
    pub server_name: Option<String>,
    /// Accepts any certificate.
    pub insecure_skip_verify: bool,
}

/// Reason why a TLS configuration could not be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TlsError(pub String);

/// Builds the TLS configuration of these options, from the contents of their files.
fn build(options: &TlsOptions, files: &Files) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError(error.to_string()))?;
    let builder = if options.insecure_skip_verify {
        let any = AnyCertificate { provider, only: None };
        builder.dangerous().with_custom_certificate_verifier(Arc::new(any))
    } else {
        builder.with_root_certificates(roots(options, files)?)
    };
    let mut config = match (&options.cert, &files.cert, &options.key, &files.key) {
        (Some(cert_path), Some(cert), Some(key_path), Some(key)) => {
            let (chain, key) = identity((cert_path, cert), (key_path, key))?;
            // Also refuses a key that belongs to another certificate.
            let set = builder.with_client_auth_cert(chain, key);
            set.map_err(|error| do_not_fit(cert_path, key_path, &error))?
        }
        (None, _, None, _) => builder.with_no_client_auth(),
        _ => return Err(TlsError("tls.cert and tls.key go together".into())),
    };
    // A resumed session would not check the peer's certificate again.
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// A certificate chain and its key, out of the contents of these files.
fn identity(
    (cert_path, cert): (&Path, &[u8]),
    (key_path, key): (&Path, &[u8]),
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
    let key = PrivateKeyDer::from_pem_slice(key);
    let key = key.map_err(|error| unusable("key", key_path, &error))?;
    Ok((certificates("certificate", cert_path, cert)?, key))
}

fn do_not_fit(cert: &Path, key: &Path, error: &Error) -> TlsError {
    let (cert, key) = (cert.display(), key.display());
    TlsError(format!("cannot use certificate {cert} with key {key}: {error}"))
}

fn roots(options: &TlsOptions, files: &Files) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    match (&options.ca, &files.ca) {
        (Some(path), Some(pem)) => return authorities(path, pem),
        _ => {
            store.add_parsable_certificates(files.system.clone());
            if store.is_empty() {
                return Err(TlsError("this system has no trusted certificates; install ca-certificates or set tls.ca".into()));
            }
        }
    }
    Ok(store)
}

/// The authorities in the contents of this file.
fn authorities(path: &Path, pem: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates("CA certificate", path, pem)? {
        store
            .add(certificate)
            .map_err(|error| TlsError(format!("CA certificate in {}: {error}", path.display())))?;
    }
    Ok(store)
}

fn certificates(
    what: &str,
    path: &Path,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|error| unusable(what, path, &error))?;
    if found.is_empty() {
        return Err(TlsError(format!("no {what} in {}", path.display())));
    }
    Ok(found)
}

fn unusable(what: &str, path: &Path, error: &pem::Error) -> TlsError {
    let error = match error {
        pem::Error::Io(error) => files::unread(path, error),
        other => other.to_string(),
    };
    TlsError(format!("cannot use {what} {}: {error}", path.display()))
}

/// Accepts any certificate, for `insecure_skip_verify`; or only one, whatever its names and its dates are.
/// The peer must hold its key.
#[derive(Debug)]
struct AnyCertificate {
    provider: Arc<CryptoProvider>,
    only: Option<CertificateDer<'static>>,
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        presented: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls_pki_types::UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match &self.only {
            Some(only) if only != presented => {
                Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
            }
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
