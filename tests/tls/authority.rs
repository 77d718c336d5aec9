//! Certificates for tests: an authority, and what it signs.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};

/// An authority that signs certificates.
pub(crate) struct Authority {
    /// Its own certificate.
    pub(crate) ca: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key.
pub(crate) type Pair = (String, String);

impl Authority {
    pub(crate) fn new(name: &str) -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = named(name, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = params.self_signed(&key).unwrap().pem();
        Authority { ca, issuer: Issuer::new(params, key) }
    }

    /// Certificate of a broker on these hosts.
    pub(crate) fn broker(&self, hosts: &[&str]) -> Pair {
        self.signed(named("broker", hosts))
    }

    /// Certificate of the user guest, of this organisation.
    pub(crate) fn guest(&self, organisation: &str) -> Pair {
        let mut params = named("guest", &[]);
        params.distinguished_name.push(DnType::OrganizationName, organisation);
        self.signed(params)
    }

    /// The same, good for one day of 2020.
    pub(crate) fn expired(&self, name: &str, hosts: &[&str]) -> Pair {
        let mut params = named(name, hosts);
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2020, 1, 2);
        self.signed(params)
    }

    fn signed(&self, params: CertificateParams) -> Pair {
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

fn named(name: &str, hosts: &[&str]) -> CertificateParams {
    let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let mut params = CertificateParams::new(hosts).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}
