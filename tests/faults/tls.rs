//! Certificates of an authority that is made for the suite, and those that a broker must not accept.

use std::sync::Arc;

use base64::Engine as _;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

/// The name that a good certificate carries.
pub(crate) const NAME: &str = "vault.test";

/// What a server shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Certificate {
    Good,
    /// For another name.
    OtherName,
    /// It ended years ago.
    Expired,
    /// Signed by an authority that nobody knows.
    OtherAuthority,
}

/// The certificates of one server.
pub(crate) struct Tls {
    /// The authority, as PEM.
    pub(crate) authority: String,
    shown: [Arc<ServerConfig>; 4],
}

impl Tls {
    pub(crate) fn new() -> Self {
        let (authority, pem) = authority();
        let (other, _) = authority_named("other");
        let shown =
            [Certificate::Good, Certificate::OtherName, Certificate::Expired, Certificate::OtherAuthority]
                .map(|which| {
                    config(which, if which == Certificate::OtherAuthority { &other } else { &authority })
                });
        Self { authority: pem, shown }
    }

    pub(crate) fn showing(&self, which: Certificate) -> Arc<ServerConfig> {
        Arc::clone(&self.shown[which as usize])
    }
}

fn authority() -> (Issuer<'static, KeyPair>, String) {
    authority_named("faults")
}

fn authority_named(name: &str) -> (Issuer<'static, KeyPair>, String) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let der = params.self_signed(&key).expect("an authority").der().to_vec();
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let pem = format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n");
    (Issuer::new(params, key), pem)
}

fn config(which: Certificate, issuer: &Issuer<'static, KeyPair>) -> Arc<ServerConfig> {
    let key = KeyPair::generate().expect("a key");
    let name = if which == Certificate::OtherName { "elsewhere.test" } else { NAME };
    let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
    if which == Certificate::Expired {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    }
    let cert = params.signed_by(&key, issuer).expect("a certificate").der().clone();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("TLS versions")
        .with_no_client_auth()
        .with_single_cert(vec![cert], key);
    Arc::new(config.expect("a certificate with its key"))
}
