//! TLS towards a server of which the certificate is at hand, as a file.

use std::path::Path;
use std::sync::Arc;

use tokio_rustls::rustls::{ClientConfig, crypto};

use super::kept::content;
use super::{AnyCertificate, TlsError, certificates, do_not_fit, identity};

/// Trusts the certificate in the file `cert`, and no other: its names, its dates and its issuer do not
/// matter. With `key`, that certificate is also the client's own.
///
/// # Errors
/// If the files cannot be used.
pub fn pinned(cert: &Path, key: Option<&Path>) -> Result<Arc<ClientConfig>, TlsError> {
    let pem = content("certificate", cert)?;
    let Some(only) = certificates("certificate", cert, &pem)?.into_iter().next() else {
        return Err(TlsError(format!("no certificate in {}", cert.display())));
    };
    let provider = Arc::new(crypto::aws_lc_rs::default_provider());
    let verifier = AnyCertificate { provider: Arc::clone(&provider), only: Some(only) };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let Some(key) = key else { return Ok(Arc::new(builder.with_no_client_auth())) };
    let secret = content("key", key)?;
    let (chain, secret) = identity((cert, &pem), (key, &secret))?;
    let set = builder.with_client_auth_cert(chain, secret);
    Ok(Arc::new(set.map_err(|error| do_not_fit(cert, key, &error))?))
}
