//! TLS configurations in use, each with the contents of the files that it was made from.
//!
//! The files are read for each connection and compared by their contents: that notices every kind
//! of replacement, also a symbolic link that leads elsewhere and a file that is written in place.
//!
//! Invariant: contents that make no usable configuration never replace one that does.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls_pki_types::{CertificateDer, pem};
use tokio_rustls::rustls::ClientConfig;

use super::{TlsError, TlsOptions, build};
use crate::flow::trouble::Trouble;
use crate::sync::lock;
use crate::telemetry::identity::{self, ReloadResult};

/// Largest file in bytes. A bundle of all public authorities has about 250 kB.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// How long a reading of the files may take before others do not wait for it any more.
const READING_MAX: Duration = Duration::from_secs(2);

/// Told when a reading has ended.
static READ: Condvar = Condvar::new();

/// The configurations of this process; one for each set of options.
static KEPT: Mutex<Vec<(TlsOptions, Kept)>> = Mutex::new(Vec::new());

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
        let content = |what: &str, path: Option<&std::path::PathBuf>| {
            path.map(|path| {
                read(path).map_err(|error| super::unusable(what, path, &pem::Error::Io(error)))
            })
            .transpose()
        };
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

    /// Number by which the same contents are recognised.
    fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (&self.ca, &self.cert, &self.key).hash(&mut hasher);
        self.system.iter().for_each(|certificate| certificate.as_ref().hash(&mut hasher));
        hasher.finish()
    }
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

/// What is in use for one set of options.
#[derive(Default)]
struct Kept {
    /// `None` until the files could be used once.
    good: Option<(u64, Arc<ClientConfig>)>,
    trouble: Trouble,
    /// Since when the files are being read. On a file system that hangs this takes a thread, and there is
    /// never more than one.
    reading: Option<Instant>,
}

/// A reading of the files of these options; it ends with this.
struct Reading<'a>(&'a TlsOptions);

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        if let Some(kept) = kept(&mut lock(&KEPT), self.0) {
            kept.reading = None;
        }
        READ.notify_all();
    }
}

fn kept<'a>(all: &'a mut Vec<(TlsOptions, Kept)>, options: &TlsOptions) -> Option<&'a mut Kept> {
    let at = all.iter().position(|(of, _)| of == options).unwrap_or_else(|| {
        all.push((options.clone(), Kept::default()));
        all.len() - 1
    });
    all.get_mut(at).map(|(_, kept)| kept)
}

/// Begins to read, after those who do so now. Otherwise what is to be used in its place, or why nothing is.
fn begin(options: &TlsOptions) -> Result<Reading<'_>, Result<Arc<ClientConfig>, TlsError>> {
    let mut all = lock(&KEPT);
    let since = Instant::now();
    loop {
        let Some(kept) = kept(&mut all, options) else { return Err(Err(internal())) };
        let Some(other) = kept.reading else {
            kept.reading = Some(since);
            drop(all);
            return Ok(Reading(options));
        };
        let left = READING_MAX.saturating_sub(other.elapsed());
        if left.is_zero() {
            return Err(match &kept.good {
                Some((_, config)) => Ok(Arc::clone(config)),
                None => Err(TlsError(format!(
                    "the certificate files are being read for {} s: does their file system hang?",
                    other.elapsed().as_secs()
                ))),
            });
        }
        all = READ.wait_timeout(all, left).unwrap_or_else(PoisonError::into_inner).0;
    }
}

fn internal() -> TlsError {
    TlsError("internal error: no TLS configuration".into())
}

/// The TLS configuration of these options, made from what the files hold now; or else, where that
/// cannot be used, from what they held before. Reads files, so it may block.
///
/// # Errors
/// If the files cannot be used and never could.
pub fn current(options: &TlsOptions) -> Result<Arc<ClientConfig>, TlsError> {
    let reading = match begin(options) {
        Ok(reading) => reading,
        Err(instead) => return instead,
    };
    let files = Files::read(options);
    let taken = match kept(&mut lock(&KEPT), options) {
        Some(kept) => kept.take(options, files),
        None => Err(internal()),
    };
    drop(reading);
    taken
}

impl Kept {
    fn take(
        &mut self,
        options: &TlsOptions,
        files: Result<Files, TlsError>,
    ) -> Result<Arc<ClientConfig>, TlsError> {
        let print = files.as_ref().map_or(0, Files::fingerprint);
        if let (Ok(_), Some((known, config))) = (&files, &self.good)
            && *known == print
        {
            if self.trouble.over(Instant::now()).is_some() {
                tracing::info!("the certificate files are again as they were when last used");
            }
            return Ok(Arc::clone(config));
        }
        let error = match files.and_then(|files| build(options, &files)) {
            Ok(config) => return Ok(self.replace(options, print, config)),
            Err(error) => error,
        };
        let Some((_, former)) = &self.good else { return Err(error) };
        identity::tls_reload(ReloadResult::Failed);
        if self.trouble.failed(&error.0, Instant::now()) {
            tracing::warn!(
                %error,
                "the certificate files have changed and cannot be used: connections are made with their \
                 former content. The files are read again for each connection; a restart before they \
                 are mended would fail"
            );
        }
        Ok(Arc::clone(former))
    }

    fn replace(
        &mut self,
        options: &TlsOptions,
        print: u64,
        config: ClientConfig,
    ) -> Arc<ClientConfig> {
        let config = Arc::new(config);
        let is_first = self.good.replace((print, Arc::clone(&config))).is_none();
        self.trouble.over(Instant::now());
        if !is_first {
            identity::tls_reload(ReloadResult::Loaded);
            tracing::info!("the certificate files have changed: new connections use them");
        }
        if is_first {
            identity::tls_in_use();
        }
        if is_first && options.insecure_skip_verify {
            identity::tls_unverified();
            tracing::warn!(
                "insecure_skip_verify = true: any certificate is accepted, so whoever can redirect the \
                 connection reads and changes everything, the login included. Set tls.ca to the \
                 authority that signed the peer's certificate, and remove insecure_skip_verify"
            );
        }
        config
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
        while kept(&mut lock(&KEPT), &options).unwrap().reading.is_none() {
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
