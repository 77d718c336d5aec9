//! TLS configurations in use, each with the contents of the files that it was made from.
//!
//! Invariant: contents that make no usable configuration never replace one that does.

use std::hash::{Hash, Hasher};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls_pki_types::{CertificateDer, pem};
use tokio_rustls::rustls::ClientConfig;

use super::{TlsError, TlsOptions, build};
use crate::files::{Keep, News};
use crate::sync::lock;
use crate::telemetry::identity::{self, ReloadResult};

/// Largest file in bytes. A bundle of all public authorities has about 250 kB.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// The configurations of this process; one for each set of options.
static KEPT: Mutex<Vec<(TlsOptions, Arc<Keep<ClientConfig>>)>> = Mutex::new(Vec::new());

/// Contents of the files of one set of options.
pub(super) struct Files {
    pub(super) ca: Option<Vec<u8>>,
    pub(super) cert: Option<Vec<u8>>,
    pub(super) key: Option<Vec<u8>>,
    /// The system's authorities, if no others are named.
    pub(super) system: Vec<CertificateDer<'static>>,
}

impl Files {
    fn read(options: &TlsOptions) -> Result<Files, TlsError> {
        let content =
            |what: &str, path: Option<&PathBuf>| path.map(|path| content(what, path)).transpose();
        let system = match options.ca.is_none() && !options.insecure_skip_verify {
            true => rustls_native_certs::load_native_certs().certs,
            false => Vec::new(),
        };
        Ok(Files {
            ca: content("CA certificate", options.ca.as_ref())?,
            cert: content("certificate", options.cert.as_ref())?,
            key: content("key", options.key.as_ref())?,
            system,
        })
    }
}

impl Hash for Files {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        (&self.ca, &self.cert, &self.key).hash(hasher);
        self.system.iter().for_each(|certificate| certificate.as_ref().hash(hasher));
    }
}

/// The bytes of a file of this kind.
pub(super) fn content(what: &str, path: &Path) -> Result<Vec<u8>, TlsError> {
    read(path).map_err(|error| super::unusable(what, path, &pem::Error::Io(error)))
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut content = Vec::new();
    std::fs::File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut content)?;
    if content.len() as u64 > FILE_BYTES_MAX {
        let what = format!("it is larger than {FILE_BYTES_MAX} bytes");
        return Err(std::io::Error::other(what));
    }
    Ok(content)
}

/// What is in use for these options.
fn kept(options: &TlsOptions) -> Arc<Keep<ClientConfig>> {
    let mut all = lock(&KEPT);
    if let Some((_, keep)) = all.iter().find(|(of, _)| of == options) {
        return Arc::clone(keep);
    }
    let keep = Arc::<Keep<ClientConfig>>::default();
    all.push((options.clone(), Arc::clone(&keep)));
    keep
}

/// The error where the files are read for ever.
pub(super) fn hangs(since: Duration) -> TlsError {
    TlsError(format!(
        "the certificate files are being read for {} s: does their file system hang?",
        since.as_secs()
    ))
}

/// The TLS configuration of these options, made from what the files hold now; or else, where that
/// cannot be used, from what they held before. Reads files, so it may block.
///
/// # Errors
/// If the files cannot be used and never could.
pub fn current(options: &TlsOptions) -> Result<Arc<ClientConfig>, TlsError> {
    let read = || Files::read(options);
    let (config, news) = kept(options).look(read, |files| build(options, files), hangs)?;
    tell(&news);
    if matches!(news, News::First) && options.insecure_skip_verify {
        identity::tls_unverified();
        tracing::warn!(
            "insecure_skip_verify = true: any certificate is accepted, so whoever can redirect the \
             connection reads and changes everything, the login included. Set tls.ca to the \
             authority that signed the peer's certificate, and remove insecure_skip_verify"
        );
    }
    Ok(config)
}

/// Logs and counts what a look at certificate files has found.
pub(super) fn tell(news: &News<TlsError>) {
    match news {
        News::Same => {}
        News::First => identity::tls_in_use(),
        News::Restored => {
            tracing::info!("the certificate files are again as they were when last used");
        }
        News::Changed => {
            identity::tls_reload(ReloadResult::Loaded);
            tracing::info!("the certificate files have changed: new connections use them");
        }
        News::Unusable { error, say } => {
            identity::tls_reload(ReloadResult::Failed);
            if *say {
                tracing::warn!(
                    %error,
                    "the certificate files have changed and cannot be used: connections are made with \
                     their former content. The files are read again for each connection; a restart \
                     before they are mended would fail"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn write(&self, name: &str, content: &str) {
            std::fs::write(self.0.path().join(name), content).unwrap();
        }

        fn options(&self) -> TlsOptions {
            let path = |name| Some(self.0.path().join(name));
            TlsOptions {
                ca: path("ca"),
                cert: path("cert"),
                key: path("key"),
                ..TlsOptions::default()
            }
        }
    }

    /// A certificate that signs itself, and its key.
    fn pair() -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    #[test]
    fn only_usable_files_replace_usable_ones() {
        let folder = Folder(tempfile::tempdir().unwrap());
        let options = folder.options();
        let says = current(&options).unwrap_err().0;
        assert!(says.contains("cannot use CA certificate") && says.contains("/ca:"), "{says}");
        let (cert, key) = pair();
        folder.write("ca", &cert);
        folder.write("cert", &cert);
        folder.write("key", &key);
        let first = current(&options).unwrap();
        assert!(Arc::ptr_eq(&first, &current(&options).unwrap()), "nothing has changed");
        let (new_cert, new_key) = pair();
        // Half of each, none, and a certificate without its own key.
        for (name, content) in [
            ("ca", &new_cert[..new_cert.len() / 2]),
            ("ca", ""),
            ("cert", &new_cert[..new_cert.len() / 2]),
            ("key", &new_key[..new_key.len() / 2]),
            ("key", ""),
            ("cert", new_cert.as_str()),
            ("key", new_key.as_str()),
        ] {
            folder.write(name, content);
            assert!(Arc::ptr_eq(&first, &current(&options).unwrap()), "{name}: {content:?}");
            for (name, content) in [("ca", &cert), ("cert", &cert), ("key", &key)] {
                folder.write(name, content);
            }
            assert!(Arc::ptr_eq(&first, &current(&options).unwrap()));
        }
        std::fs::remove_file(folder.0.path().join("key")).unwrap();
        assert!(Arc::ptr_eq(&first, &current(&options).unwrap()), "without a file");
        folder.write("cert", &new_cert);
        folder.write("key", &new_key);
        let second = current(&options).unwrap();
        assert!(!Arc::ptr_eq(&first, &second));
        assert!(Arc::ptr_eq(&second, &current(&options).unwrap()));
    }

    /// A pipe that nobody writes into hangs as such a file system does: one thread, and not one for each
    /// connection.
    #[test]
    fn files_that_hang_take_one_thread() {
        use std::io::Write as _;
        let folder = Folder(tempfile::tempdir().unwrap());
        let options = TlsOptions { ca: folder.options().ca, ..TlsOptions::default() };
        let path = folder.0.path().join("ca");
        folder.write("ca", &pair().0);
        let first = current(&options).unwrap();
        std::fs::remove_file(&path).unwrap();
        let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
        let hangs = std::thread::spawn({
            let options = options.clone();
            move || current(&options)
        });
        while !kept(&options).is_being_read() {
            std::thread::yield_now();
        }
        for _ in 0..3 {
            assert!(Arc::ptr_eq(&first, &current(&options).unwrap()), "the former one is used");
        }
        let (cert, _) = pair();
        std::fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .unwrap()
            .write_all(cert.as_bytes())
            .unwrap();
        let second = hangs.join().unwrap().unwrap();
        assert!(!Arc::ptr_eq(&first, &second));
    }

    /// As Kubernetes replaces a mounted secret: by one link, whatever the time of the files is.
    #[test]
    fn a_link_that_leads_elsewhere_is_noticed() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for version in ["one", "two"] {
            std::fs::create_dir(at(version)).unwrap();
            std::fs::write(at(version).join("ca.crt"), pair().0).unwrap();
        }
        symlink("one", at("..data")).unwrap();
        symlink("..data/ca.crt", at("ca.crt")).unwrap();
        let options = TlsOptions { ca: Some(at("ca.crt")), ..TlsOptions::default() };
        let first = current(&options).unwrap();
        symlink("two", at("..data_tmp")).unwrap();
        std::fs::rename(at("..data_tmp"), at("..data")).unwrap();
        let second = current(&options).unwrap();
        assert!(!Arc::ptr_eq(&first, &second));
    }
}
