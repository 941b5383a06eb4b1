//! The login by a TLS client certificate: the one that the connection to Vault was made with proves who asks.
//!
//! Reference: <https://developer.hashicorp.com/vault/api-docs/auth/cert#login-with-tls-certificate-method>.

use std::sync::Arc;

use super::exchange::{self, Explained, Place};
use crate::lease::failure::Failure;
use crate::lease::upstream::{BoxFuture, CallId, Login, Minted, Token};
use crate::vault::{CertLoginRequest, VaultClient};

/// How to log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertLoginConfig {
    /// The path of Vault's auth method, below `auth/`.
    pub mount: String,
    /// The role there, `auth/<mount>/certs/<role>`; `None`: the first that the certificate fits.
    pub role: Option<String>,
}

/// The login by the client's certificate.
#[derive(Debug)]
pub struct CertLogin {
    client: Arc<VaultClient>,
    config: CertLoginConfig,
}

impl CertLogin {
    /// `client` must have a certificate.
    #[must_use]
    pub fn new(client: Arc<VaultClient>, config: CertLoginConfig) -> Self {
        Self { client, config }
    }

    async fn once(&self, call: CallId) -> Result<Minted<Token>, Failure> {
        let CertLoginConfig { mount, role } = &self.config;
        // The certificate may have been replaced since the connections that are open were made.
        self.client.forget_connections();
        let request = CertLoginRequest { mount: mount.clone(), name: role.clone() };
        let path = format!("auth/{mount}/certs/{}", role.as_deref().unwrap_or("<role>"));
        let place = Place { method: "cert", mount, role: &path };
        exchange::login(&self.client, &call, &place, &request, |_, said| self.refused(said)).await
    }

    /// The texts are those of Vault's `builtin/credential/cert/path_login.go`.
    fn refused(&self, said: &str) -> Option<Explained> {
        let CertLoginConfig { mount, role } = &self.config;
        let has = |text: &str| said.contains(text);
        if has("tls connection required") || has("missing TLS connection") {
            return Explained::permanent(
                "Vault saw no TLS of ours: what stands before it ends TLS. Let it pass TLS through, or log in by \
                 another method."
                    .to_owned(),
            );
        }
        if has("client certificate must be supplied") || has("no client certificate") {
            return Explained::permanent(
                "Vault saw no certificate: its listener does not ask for one (tls_disable_client_certs), or what stands \
                 before it ends TLS. Or the certificate has expired, or is of an authority that Vault does not know."
                    .to_owned(),
            );
        }
        if has("no chain matching all constraints") || has("invalid certificate") || has("failed to match") {
            let which = match role {
                Some(role) => format!("the role auth/{mount}/certs/{role}, or there is no such role"),
                None => format!("any role below auth/{mount}/certs/"),
            };
            return Explained::permanent(format!(
                "The certificate does not fit {which}: compare its authority with certificate there, and its names with \
                 allowed_common_names, allowed_dns_sans, allowed_uri_sans and allowed_organizational_units."
            ));
        }
        None
    }
}

impl Login for CertLogin {
    fn login(&self, call: CallId) -> BoxFuture<'_, Result<Minted<Token>, Failure>> {
        Box::pin(self.once(call))
    }

    fn describe(&self) -> String {
        let CertLoginConfig { mount, role } = &self.config;
        match role {
            Some(role) => format!("cert role {role} at auth/{mount}"),
            None => format!("cert at auth/{mount}"),
        }
    }
}

#[cfg(test)]
mod tests;
