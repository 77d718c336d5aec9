//! TLS settings for outgoing connections: trusted certificates, client certificate, server name.
//!
//! Reads certificate and key files each time, so that a renewed one is used by the next connection.
//! Knows nothing of the peers.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls;
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

/// Builds the TLS configuration of these options.
///
/// # Errors
/// If a file cannot be read or has the wrong content.
pub fn client_config(options: &TlsOptions) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError(error.to_string()))?;
    let builder = if options.insecure_skip_verify {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
    } else {
        builder.with_root_certificates(roots(options.ca.as_deref())?)
    };
    match (&options.cert, &options.key) {
        (Some(cert), Some(key)) => {
            let key = PrivateKeyDer::from_pem_file(key).map_err(|e| unusable("key", key, &e))?;
            builder
                .with_client_auth_cert(certificates("certificate", cert)?, key)
                .map_err(|error| TlsError(format!("client certificate: {error}")))
        }
        (None, None) => Ok(builder.with_no_client_auth()),
        _ => Err(TlsError("tls.cert and tls.key go together".into())),
    }
}

/// Text of a failed handshake, with an explanation and what to do where a certificate was refused.
pub fn in_words(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    let Some(Error::InvalidCertificate(problem)) = inner else { return error.to_string() };
    let what = match problem {
        CertificateError::NotValidForNameContext { expected, presented } => {
            let names = presented.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ");
            let names = if names.is_empty() { "no name" } else { &names };
            format!("the certificate is valid for {names}, not for {}", expected.to_str())
        }
        _ => error.to_string(),
    };
    format!("{what}{}", remedy(problem))
}

/// The name in a text such as `DnsName("localhost")`.
fn quoted(name: &str) -> &str {
    name.split('"').nth(1).unwrap_or(name)
}

/// Explanation of a refused certificate, and what to do; empty for any other reason.
fn remedy(problem: &CertificateError) -> &'static str {
    match problem {
        CertificateError::UnknownIssuer => {
            ": the certificate is not signed by a trusted authority. Set tls.ca to the certificate of the authority that signed it"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            ": the certificate is for another host name. Connect to a name that it contains, or set tls.server_name"
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            ": the certificate has expired, or the clock here is wrong"
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            ": the certificate is not valid yet, or the clock here is wrong"
        }
        _ => "",
    }
}

fn roots(ca: Option<&Path>) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    match ca {
        Some(path) => {
            for certificate in certificates("CA certificate", path)? {
                store.add(certificate).map_err(|error| {
                    TlsError(format!("CA certificate in {}: {error}", path.display()))
                })?;
            }
        }
        None => {
            let system = rustls_native_certs::load_native_certs();
            store.add_parsable_certificates(system.certs);
            if store.is_empty() {
                return Err(TlsError("this system has no trusted certificates; install ca-certificates or set tls.ca".into()));
            }
        }
    }
    Ok(store)
}

fn certificates(what: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path)
        .map_err(|error| unusable(what, path, &error))?
        .collect();
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

/// For `insecure_skip_verify`: accepts any certificate, but the peer must hold its key.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls_pki_types::UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
