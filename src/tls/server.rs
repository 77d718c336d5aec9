//! TLS of connections that others open: our certificate, and the authorities of theirs.

use std::path::PathBuf;
use std::sync::Arc;

use tokio_rustls::rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio_rustls::rustls::{ServerConfig, crypto};

use super::kept::{content, hangs, tell};
use super::{TlsError, authorities, do_not_fit, identity};
use crate::files::Keep;

/// Files of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerOptions {
    /// The server's certificate chain (PEM).
    pub cert: PathBuf,
    /// The server's key (PEM).
    pub key: PathBuf,
    /// Authorities of the certificates that clients must present (PEM); `None` if they need none.
    pub client_ca: Option<PathBuf>,
}

/// TLS of a server, made again when its files have changed.
pub struct ServerTls {
    options: ServerOptions,
    keep: Keep<ServerConfig>,
}

/// Contents of the files.
#[derive(Hash)]
struct Contents {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl ServerTls {
    /// TLS with these files; nothing is read yet.
    pub fn new(options: ServerOptions) -> ServerTls {
        ServerTls { options, keep: Keep::default() }
    }

    /// The configuration that the files make now; or else, where they cannot be used, the former one. Reads
    /// files, so it may block.
    ///
    /// # Errors
    /// If the files cannot be used and never could.
    pub fn current(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let (config, news) =
            self.keep.look(|| self.read(), |contents| self.build(contents), hangs)?;
        tell(&news);
        Ok(config)
    }

    fn read(&self) -> Result<Contents, TlsError> {
        let client_ca = self.options.client_ca.as_ref();
        Ok(Contents {
            cert: content("certificate", &self.options.cert)?,
            key: content("key", &self.options.key)?,
            client_ca: client_ca.map(|path| content("CA certificate", path)).transpose()?,
        })
    }

    fn build(&self, contents: &Contents) -> Result<ServerConfig, TlsError> {
        let ServerOptions { cert, key, client_ca } = &self.options;
        let provider = Arc::new(crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError(error.to_string()))?;
        let builder = match (client_ca, &contents.client_ca) {
            (Some(path), Some(pem)) => {
                let roots = Arc::new(authorities(path, pem)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
                let verifier = verifier.build().map_err(|error| {
                    TlsError(format!("CA certificate in {}: {error}", path.display()))
                })?;
                builder.with_client_cert_verifier(verifier)
            }
            _ => builder.with_no_client_auth(),
        };
        let (chain, secret) = identity((cert, &contents.cert), (key, &contents.key))?;
        let set = builder.with_single_cert(chain, secret);
        let mut config = set.map_err(|error| do_not_fit(cert, key, &error))?;
        // A resumed session would not check the client's certificate again.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    #[test]
    fn only_usable_files_replace_usable_ones() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let write_pair = || {
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
            std::fs::write(at("cert"), params.self_signed(&key).unwrap().pem()).unwrap();
            std::fs::write(at("key"), key.serialize_pem()).unwrap();
        };
        let options =
            ServerOptions { cert: at("cert"), key: at("key"), client_ca: Some(at("cert")) };
        let server = ServerTls::new(options);
        let says = server.current().unwrap_err().0;
        assert!(says.contains("cannot use certificate") && says.contains("/cert:"), "{says}");
        write_pair();
        let first = server.current().unwrap();
        assert!(Arc::ptr_eq(&first, &server.current().unwrap()));
        for (name, content) in [("key", "nonsense"), ("cert", ""), ("key", "")] {
            let former = std::fs::read(at(name)).unwrap();
            std::fs::write(at(name), content).unwrap();
            assert!(Arc::ptr_eq(&first, &server.current().unwrap()), "{name}: {content:?}");
            std::fs::write(at(name), former).unwrap();
        }
        write_pair();
        assert!(!Arc::ptr_eq(&first, &server.current().unwrap()));
    }
}
