//! HTTP/1 connections of the adapters: the pool, TLS, and what a failed connection means.
//!
//! TLS 1.2 and 1.3 by rustls with ring; the provider is named here and nowhere made the process's default.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore};

use crate::lease::failure::{Class, Failure};

/// Connections that are shared and kept for a while.
pub(crate) type Pool = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// How a server is reached. Holds nothing secret: the client key is named by its file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reach {
    /// A PEM file of certificate authorities. Where it is given, the platform's are not consulted.
    pub(crate) ca_file: Option<PathBuf>,
    /// PEM files of our certificate chain and its key.
    pub(crate) client_cert: Option<(PathBuf, PathBuf)>,
    /// The name that the server's certificate must carry, where it is not the address's host.
    pub(crate) tls_server_name: Option<String>,
    /// For the TCP connection to be made.
    pub(crate) connect_timeout: Duration,
}

/// Vault closes idle connections after five minutes; load balancers do after one.
const IDLE: Duration = Duration::from_secs(50);

const CLOSED: &str = "the connection was closed before an answer came";

/// A new pool. For `https` this reads certificates, which takes milliseconds: off the runtime's thread. Then nothing but
/// https is spoken; else nothing but http, as there are no certificate authorities.
pub(crate) async fn pool(reach: &Reach, https: bool) -> Result<Pool, Failure> {
    let tls = if https {
        let reach = reach.clone();
        tokio::task::spawn_blocking(move || tls(&reach))
            .await
            .map_err(|_| Failure::new(Class::Transient, "loading certificates was interrupted"))??
    } else {
        builder()?.with_root_certificates(RootCertStore::empty()).with_no_client_auth()
    };
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(reach.connect_timeout));
    let connector = HttpsConnectorBuilder::new().with_tls_config(tls);
    let connector = if https { connector.https_only() } else { connector.https_or_http() };
    let connector = match &reach.tls_server_name {
        Some(name) => {
            let name = ServerName::try_from(name.clone()).map_err(|_| {
                unusable(&format!("the TLS server name {name:?} is not a host name or an address"))
            })?;
            connector.with_server_name_resolver(FixedServerNameResolver::new(name))
        }
        None => connector,
    };
    Ok(Client::builder(TokioExecutor::new())
        .pool_idle_timeout(IDLE)
        .pool_timer(TokioTimer::new())
        .build(connector.enable_http1().wrap_connector(tcp)))
}

fn builder() -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, Failure> {
    // Not made the process's default: nothing else is to depend on it.
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(&format!("TLS cannot be set up: {error}")))
}

fn tls(reach: &Reach) -> Result<ClientConfig, Failure> {
    let mut roots = RootCertStore::empty();
    match &reach.ca_file {
        Some(file) => {
            for cert in certificates(file, "CA")? {
                roots.add(cert).map_err(|error| {
                    unusable(&format!("the CA file {} holds a bad certificate: {error}", file.display()))
                })?;
            }
        }
        None => {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
            if roots.is_empty() {
                return Err(unusable(
                    "the platform has no certificate authorities: install ca-certificates in the image, or name a CA \
                     file",
                ));
            }
        }
    }
    let builder = builder()?.with_root_certificates(roots);
    let Some((cert_file, key_file)) = &reach.client_cert else { return Ok(builder.with_no_client_auth()) };
    let chain = certificates(cert_file, "client certificate")?;
    let key = PrivateKeyDer::from_pem_file(key_file)
        .map_err(|error| unusable(&format!("the client key file {}: {error}", key_file.display())))?;
    builder.with_client_auth_cert(chain, key).map_err(|error| {
        unusable(&format!(
            "the client certificate {} and its key {} cannot be used: {error}",
            cert_file.display(),
            key_file.display()
        ))
    })
}

fn certificates(file: &Path, what: &str) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let wrong = |why: String| unusable(&format!("the {what} file {}: {why}", file.display()));
    let certs = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| wrong(error.to_string()))?;
    if certs.is_empty() {
        return Err(wrong("no certificate in it (PEM is expected)".to_owned()));
    }
    Ok(certs)
}

fn unusable(why: &str) -> Failure {
    Failure::new(Class::Permanent, why)
}

/// Why there was no answer.
pub(crate) struct Trouble {
    /// What it means for what is done next.
    pub(crate) class: Class,
    /// What is wrong, and what to do.
    pub(crate) message: String,
    /// Whether TLS failed: a file may be put right on disk, so the next pool is to read it again.
    pub(crate) tls: bool,
}

/// What a failed request without an answer means; `server` is who it went to: "Vault".
///
/// A certificate that does not verify is permanent, so that a wrong CA ends the process at its start rather than having
/// it retry for ever. Everything else may pass by itself.
pub(crate) fn trouble(error: &(dyn Error + 'static), server: &str) -> Trouble {
    if let Some(tls) = find::<rustls::Error>(error) {
        let (class, message) = tls_trouble(tls, server);
        return Trouble { class, message, tls: true };
    }
    let message = match find::<io::Error>(error).map(io::Error::kind) {
        _ if says(error, "dns error") => {
            format!("its host name cannot be resolved ({}): check the address and DNS", innermost(error))
        }
        Some(io::ErrorKind::ConnectionRefused) => "connection refused: nothing listens there".to_owned(),
        Some(io::ErrorKind::TimedOut) => {
            "the connection timed out: check the address, security groups and routes".to_owned()
        }
        Some(io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof) => CLOSED.to_owned(),
        _ if find::<hyper::Error>(error).is_some_and(hyper::Error::is_incomplete_message) => {
            CLOSED.to_owned()
        }
        _ => innermost(error),
    };
    Trouble { class: Class::Transient, message, tls: false }
}

fn tls_trouble(error: &rustls::Error, server: &str) -> (Class, String) {
    use AlertDescription as Alert;
    let permanent = |what: String| (Class::Permanent, what);
    match error {
        rustls::Error::InvalidCertificate(reason) => permanent(match reason {
            CertificateError::UnknownIssuer => format!(
                "its certificate is signed by an unknown authority: name the CA file of {server}'s certificate"
            ),
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => format!(
                "its certificate is for another name ({reason}): correct the address, or set the TLS server name"
            ),
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => {
                format!("its certificate is not valid now ({reason}): renew it, or set this machine's clock")
            }
            other => format!("its certificate is not accepted: {other}"),
        }),
        rustls::Error::AlertReceived(
            alert @ (Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied
            | Alert::CertificateRequired),
        ) => permanent(format!(
            "it does not accept our client certificate ({alert:?}): set a client certificate"
        )),
        rustls::Error::AlertReceived(alert @ (Alert::HandshakeFailure | Alert::ProtocolVersion)) => {
            permanent(format!("no common TLS version or cipher ({alert:?}): TLS 1.2 or 1.3 is needed"))
        }
        rustls::Error::InvalidMessage(_) => {
            permanent("it does not speak TLS: should the address begin with http://?".to_owned())
        }
        other => (Class::Transient, format!("TLS failed: {other}")),
    }
}

/// The first error of type `T` in the chain. An `io::Error` hides what it wraps from `source`.
fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        // The wrapped one first: an io::Error around a TLS error is a TLS error.
        if let Some(inner) = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref)
            && let Some(found) = find::<T>(inner)
        {
            return Some(found);
        }
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

fn says(error: &(dyn Error + 'static), text: &str) -> bool {
    causes(error).any(|cause| cause.to_string().contains(text))
}

/// What the last error in the chain says.
pub(crate) fn innermost(error: &(dyn Error + 'static)) -> String {
    causes(error).last().unwrap_or(error).to_string()
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let this = next?;
        next = this.source();
        Some(this)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As tokio-rustls and hyper-rustls wrap it.
    fn wrapped(error: rustls::Error) -> io::Error {
        io::Error::other(io::Error::new(io::ErrorKind::InvalidData, error))
    }

    #[test]
    fn a_certificate_error_is_permanent_and_names_its_cure() {
        use rustls::Error as Tls;
        for (error, class, words) in [
            (Tls::InvalidCertificate(CertificateError::UnknownIssuer), Class::Permanent, "CA file"),
            (Tls::InvalidCertificate(CertificateError::NotValidForName), Class::Permanent, "server name"),
            (Tls::InvalidCertificate(CertificateError::Expired), Class::Permanent, "clock"),
            (Tls::InvalidCertificate(CertificateError::BadEncoding), Class::Permanent, "not accepted"),
            (
                Tls::AlertReceived(AlertDescription::CertificateRequired),
                Class::Permanent,
                "client certificate",
            ),
            (Tls::AlertReceived(AlertDescription::ProtocolVersion), Class::Permanent, "TLS 1.2"),
            (Tls::AlertReceived(AlertDescription::InternalError), Class::Transient, "TLS failed"),
            (Tls::HandshakeNotComplete, Class::Transient, "TLS failed"),
        ] {
            let trouble = trouble(&wrapped(error), "Vault");
            assert_eq!(trouble.class, class, "{}", trouble.message);
            assert!(trouble.message.contains(words), "{}", trouble.message);
            assert!(trouble.tls);
        }
    }

    #[test]
    fn other_connection_errors_are_transient() {
        for (kind, words) in [
            (io::ErrorKind::ConnectionRefused, "nothing listens"),
            (io::ErrorKind::TimedOut, "timed out"),
            (io::ErrorKind::ConnectionReset, "closed before"),
            (io::ErrorKind::NetworkUnreachable, "unreachable"),
        ] {
            let trouble = trouble(&io::Error::from(kind), "Vault");
            assert_eq!(trouble.class, Class::Transient);
            assert!(trouble.message.contains(words), "{}", trouble.message);
            assert!(!trouble.tls);
        }
    }
}
