//! Logins by a signed token that somebody else renews in a file: any JWT, or the one of a Kubernetes service account.
//!
//! The two differ in who checks the token: Vault itself with the issuer's keys
//! (<https://developer.hashicorp.com/vault/api-docs/auth/jwt#jwt-login>), or the cluster's TokenReview API, which Vault
//! asks (<https://developer.hashicorp.com/vault/api-docs/auth/kubernetes#login>). The requests are the same.

use std::path::PathBuf;
use std::sync::Arc;

use vaultrs::api::auth::oidc::requests::JWTLoginRequest;
use zeroize::Zeroize as _;

use super::exchange::{self, Explained, Place};
use super::file;
use crate::lease::failure::Failure;
use crate::lease::upstream::{BoxFuture, CallId, Login, Minted, Token};
use crate::vault::VaultClient;

/// Who checks the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checked {
    /// Vault, by the issuer's keys: the method `jwt`.
    ByKeys,
    /// The cluster's TokenReview API, which Vault asks: the method `kubernetes`.
    ByCluster,
}

/// How to log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtLoginConfig {
    /// Who checks the token.
    pub checked: Checked,
    /// The path of Vault's auth method, below `auth/`.
    pub mount: String,
    /// The role there: `auth/<mount>/role/<role>`.
    pub role: String,
    /// Holds the token; read at each login, so that it may be replaced at any time.
    pub token_file: PathBuf,
}

/// The login by a token in a file.
#[derive(Debug)]
pub struct JwtLogin {
    client: Arc<VaultClient>,
    config: JwtLoginConfig,
}

impl JwtLogin {
    /// Nothing is read before the first login.
    #[must_use]
    pub fn new(client: Arc<VaultClient>, config: JwtLoginConfig) -> Self {
        Self { client, config }
    }

    async fn once(&self, call: CallId) -> Result<Minted<Token>, Failure> {
        let JwtLoginConfig { checked, mount, role, token_file } = &self.config;
        let what = match checked {
            Checked::ByKeys => "the JWT to log in with",
            Checked::ByCluster => "the token of the service account",
        };
        let token = file::read(token_file, what).await?;
        let mut request = JWTLoginRequest {
            mount: mount.clone(),
            jwt: token.expose().to_owned(),
            role: Some(role.clone()),
        };
        let path = format!("auth/{mount}/role/{role}");
        let place = Place { method: self.method(), mount, role: &path };
        let result = exchange::login(&self.client, &call, &place, &request, |status, said| match checked {
            Checked::ByKeys => self.refused_by_keys(said),
            Checked::ByCluster => self.refused_by_cluster(status, said),
        });
        let result = result.await;
        request.jwt.zeroize();
        result
    }

    fn method(&self) -> &'static str {
        match self.config.checked {
            Checked::ByKeys => "jwt",
            Checked::ByCluster => "kubernetes",
        }
    }

    /// The texts are those of `vault-plugin-auth-jwt`, `path_login.go`, and of the library by which it checks.
    fn refused_by_keys(&self, said: &str) -> Option<Explained> {
        let JwtLoginConfig { mount, role, token_file, .. } = &self.config;
        let (file, has) = (token_file.display(), |text: &str| said.contains(text));
        if has("could not be found") && has("role") {
            return self.no_role();
        }
        if has("token is expired") || has("(exp)") || has("expired") {
            return Explained::permanent(format!(
                "The token in {file} has expired: whatever renews it there has stopped, or the clocks differ."
            ));
        }
        if has("not yet valid") || has("(nbf)") || has("in the future") || has("(iat)") {
            return Explained::permanent(format!(
                "The token in {file} is not valid yet: the clocks of its issuer and of Vault differ."
            ));
        }
        if has("audience") || has("(aud)") {
            return Explained::permanent(format!(
                "The token in {file} is for another audience: have it issued for one of bound_audiences on \
                 auth/{mount}/role/{role}, or add its audience there."
            ));
        }
        if has("issuer") || has("(iss)") {
            return Explained::permanent(format!(
                "The token in {file} is of another issuer than auth/{mount}/config bound_issuer."
            ));
        }
        if has("malformed") || has("error parsing") || has("compact JWS") {
            return Explained::permanent(format!(
                "What is in {file} is no JWT: three parts in base64url with dots between them, and nothing else."
            ));
        }
        if has("signature") || has("no known key") {
            return Explained::permanent(format!(
                "The token in {file} is not signed by a key that Vault knows: check auth/{mount}/config (jwks_url, \
                 oidc_discovery_url or jwt_validation_pubkeys) against its issuer."
            ));
        }
        if has("claim") || has("subject") {
            return Explained::permanent(format!(
                "The token in {file} is good, but its claims are not those that auth/{mount}/role/{role} asks for: see \
                 bound_claims, bound_subject and user_claim there."
            ));
        }
        if has("could not load configuration") || has("no configuration") {
            return Explained::permanent(format!(
                "The method knows no issuer: write auth/{mount}/config (jwks_url, oidc_discovery_url or \
                 jwt_validation_pubkeys)."
            ));
        }
        None
    }

    /// The texts are those of `vault-plugin-auth-kubernetes`, `path_login.go` and `token_review.go`.
    fn refused_by_cluster(&self, status: u16, said: &str) -> Option<Explained> {
        let JwtLoginConfig { mount, role, token_file, .. } = &self.config;
        let (file, has) = (token_file.display(), |text: &str| said.contains(text));
        if has("invalid role name") {
            return self.no_role();
        }
        if has("service account name not authorized") || has("namespace not authorized") {
            return Explained::permanent(format!(
                "This service account is not bound to the role: add it to bound_service_account_names and its \
                 namespace to bound_service_account_namespaces on auth/{mount}/role/{role}."
            ));
        }
        if has("audience") || has("(aud)") {
            return Explained::permanent(format!(
                "The token in {file} is for another audience than the audience of auth/{mount}/role/{role}: project \
                 one for that (serviceAccountToken.audience)."
            ));
        }
        if has("could not load backend configuration") {
            return Explained::permanent(format!(
                "The method knows no cluster: write auth/{mount}/config kubernetes_host."
            ));
        }
        if has("service account unauthorized") || (status == 403 && has("lookup failed")) {
            return Explained::permanent(format!(
                "The cluster does not take the token in {file}: its service account was deleted or made anew, or \
                 auth/{mount}/config names another cluster."
            ));
        }
        if status == 403 {
            return Explained::permanent(format!(
                "Vault gives no reason. Most likely Vault itself may not ask the cluster (its reviewer needs the \
                 cluster role system:auth-delegator), the token in {file} is of another cluster, or no Kubernetes \
                 method is at auth/{mount} (vault auth enable -path={mount} kubernetes)."
            ));
        }
        None
    }

    fn no_role(&self) -> Option<Explained> {
        let JwtLoginConfig { mount, role, .. } = &self.config;
        Explained::permanent(format!(
            "There is no role {role:?} at auth/{mount}/role/: correct its name, or make it."
        ))
    }
}

impl Login for JwtLogin {
    fn login(&self, call: CallId) -> BoxFuture<'_, Result<Minted<Token>, Failure>> {
        Box::pin(self.once(call))
    }

    fn describe(&self) -> String {
        format!("{} role {} at auth/{}", self.method(), self.config.role, self.config.mount)
    }
}

#[cfg(test)]
mod tests;
