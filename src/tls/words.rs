//! Failed handshakes in words, with what to do.

use std::io;

use tokio_rustls::rustls::{AlertDescription, CertificateError, Error};

/// Text of a failed handshake, with an explanation and what to do where a certificate was refused.
pub fn in_words(error: &io::Error) -> String {
    let problem = match of_tls(error) {
        Some(Error::InvalidCertificate(problem)) => problem,
        Some(Error::AlertReceived(alert)) => {
            return format!("the peer refused the handshake ({error}){}", remedy_for(*alert));
        }
        _ => return error.to_string(),
    };
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

/// True if TLS itself failed, and not the connection below it.
pub fn is_of_tls(error: &io::Error) -> bool {
    of_tls(error).is_some()
}

fn of_tls(error: &io::Error) -> Option<&Error> {
    error.get_ref().and_then(|inner| inner.downcast_ref::<Error>())
}

/// The name in a text such as `DnsName("localhost")`.
fn quoted(name: &str) -> &str {
    name.split('"').nth(1).unwrap_or(name)
}

/// Explanation of a certificate that we refuse, and what to do; empty for any other reason.
fn remedy(problem: &CertificateError) -> &'static str {
    match problem {
        // The second where the authority has the same name, and another key.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            ": the certificate is not signed by a trusted authority. Set tls.ca to the certificate of the authority that signed it"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            ": the certificate is for another host name. Connect to a name that it contains, or set tls.server_name"
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            ": the certificate has expired, or the clock here is wrong. Have the peer's certificate renewed"
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            ": the certificate is not valid yet, or the clock here is wrong"
        }
        _ => "",
    }
}

/// Explanation of why the peer refuses us, and what to do; empty for any other reason.
fn remedy_for(alert: AlertDescription) -> &'static str {
    match alert {
        AlertDescription::CertificateRequired | AlertDescription::NoCertificate => {
            ": it requires a client certificate. Set tls.cert and tls.key"
        }
        AlertDescription::UnknownCA
        | AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnsupportedCertificate => {
            ": it does not accept the client certificate. Set tls.cert to a certificate that is signed by an authority that the peer trusts (in RabbitMQ, ssl_options.cacertfile)"
        }
        AlertDescription::CertificateExpired => {
            ": the client certificate has expired, or the peer's clock is wrong. Replace the files of tls.cert and tls.key; a restart is not needed"
        }
        AlertDescription::CertificateRevoked => {
            ": the client certificate was revoked. Replace the files of tls.cert and tls.key; a restart is not needed"
        }
        AlertDescription::HandshakeFailure | AlertDescription::AccessDenied => {
            ": it may require a client certificate (tls.cert and tls.key), or have no version of TLS and no cipher in common"
        }
        AlertDescription::ProtocolVersion => ": it offers neither TLS 1.2 nor TLS 1.3",
        _ => "",
    }
}
