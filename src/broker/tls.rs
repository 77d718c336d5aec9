//! TLS by rustls: who is trusted, who we are, and which name the broker must bear.

use std::path::Path;
use std::sync::Arc;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme, crypto,
};
use tokio_rustls::{TlsConnector, rustls};

use super::error::BrokerError;
use super::options::{Endpoint, TlsOptions};

/// The TLS handshake. The caller sets the time limit.
pub(super) async fn connect(
    tcp: TcpStream,
    endpoint: &Endpoint,
    options: &TlsOptions,
) -> Result<TlsStream<TcpStream>, BrokerError> {
    let name = options.server_name.as_deref().unwrap_or(&endpoint.host).to_owned();
    let name = ServerName::try_from(name.clone()).map_err(|_| {
        BrokerError::Tls(format!(
            "{name:?} is not a name that a certificate can bear; set tls.server_name"
        ))
    })?;
    let config = client_config(options)?;
    TlsConnector::from(Arc::new(config)).connect(name, tcp).await.map_err(|error| {
        BrokerError::Connect { endpoint: endpoint.clone(), what: format!("TLS handshake: {error}") }
    })
}

fn client_config(options: &TlsOptions) -> Result<ClientConfig, BrokerError> {
    let provider = Arc::new(crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| BrokerError::Tls(error.to_string()))?;
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
                .map_err(|error| BrokerError::Tls(format!("client certificate: {error}")))
        }
        (None, None) => Ok(builder.with_no_client_auth()),
        _ => Err(BrokerError::Tls("tls.cert and tls.key go together".into())),
    }
}

fn roots(ca: Option<&Path>) -> Result<RootCertStore, BrokerError> {
    let mut store = RootCertStore::empty();
    match ca {
        Some(path) => {
            for certificate in certificates("CA certificate", path)? {
                store.add(certificate).map_err(|error| {
                    BrokerError::Tls(format!("CA certificate in {}: {error}", path.display()))
                })?;
            }
        }
        None => {
            let system = rustls_native_certs::load_native_certs();
            store.add_parsable_certificates(system.certs);
            if store.is_empty() {
                return Err(BrokerError::Tls("this system has no trusted certificates; install ca-certificates or set tls.ca".into()));
            }
        }
    }
    Ok(store)
}

fn certificates(what: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, BrokerError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path)
        .map_err(|error| unusable(what, path, &error))?
        .collect();
    let found = found.map_err(|error| unusable(what, path, &error))?;
    if found.is_empty() {
        return Err(BrokerError::Tls(format!("no {what} in {}", path.display())));
    }
    Ok(found)
}

fn unusable(what: &str, path: &Path, error: &dyn std::fmt::Display) -> BrokerError {
    BrokerError::Tls(format!("cannot use {what} {}: {error}", path.display()))
}

/// For `insecure_skip_verify`: any certificate will do, but the peer must hold its key.
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
