//! The AppRole login: a role id, which says who, and a secret id, which proves it.
//!
//! A secret id that travels is best wrapped: what the file holds then is a token that Vault exchanges for the secret id
//! once. Whoever takes it on the way has to use it up, and that is noticed here.
//!
//! Reference: <https://developer.hashicorp.com/vault/api-docs/auth/approle#login-with-approle>.

mod wrapped;

use std::path::PathBuf;
use std::sync::Arc;

use vaultrs::api::auth::approle::requests::LoginWithApproleRequest;
use zeroize::Zeroize as _;

use self::wrapped::Unwrapped;
use super::exchange::{self, Explained, Place};
use super::file;
use crate::lease::failure::Failure;
use crate::lease::upstream::{BoxFuture, CallId, Login, Minted, Token};
use crate::secret::Credential;
use crate::vault::VaultClient;

/// How to log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppRoleLoginConfig {
    /// The path of Vault's AppRole method, below `auth/`: `approle`.
    pub mount: String,
    /// The role's name, where it is known: a wrapped secret id must then be of that role.
    pub role: Option<String>,
    /// Which role it is.
    pub role_id: RoleId,
    /// Holds the secret id, or the token that it is wrapped in.
    pub secret_id_file: PathBuf,
    /// Whether it is wrapped.
    pub wrapped: bool,
}

/// A role id. It is no secret: it is of no use without a secret id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoleId {
    /// Itself.
    Is(String),
    /// The file that holds it, read at each login.
    In(PathBuf),
}

/// The login by a role id and a secret id.
#[derive(Debug)]
pub struct AppRoleLogin {
    client: Arc<VaultClient>,
    config: AppRoleLoginConfig,
    unwrapped: Unwrapped,
}

impl AppRoleLogin {
    /// Nothing is read before the first login.
    #[must_use]
    pub fn new(client: Arc<VaultClient>, config: AppRoleLoginConfig) -> Self {
        Self { client, config, unwrapped: Unwrapped::default() }
    }

    async fn once(&self, call: CallId) -> Result<Minted<Token>, Failure> {
        let AppRoleLoginConfig { mount, role_id, .. } = &self.config;
        let role_id = match role_id {
            RoleId::Is(id) => id.clone(),
            RoleId::In(file) => file::read(file, "the role id").await?.expose().to_owned(),
        };
        let secret_id = self.secret_id(&call).await?;
        let mut request = LoginWithApproleRequest {
            mount: mount.clone(),
            role_id,
            secret_id: secret_id.expose().to_owned(),
        };
        let path = self.path();
        let place = Place { method: "approle", mount, role: &path };
        let result =
            exchange::login(&self.client, &call, &place, &request, |_, said| self.refused(said)).await;
        request.secret_id.zeroize();
        result
    }

    async fn secret_id(&self, call: &CallId) -> Result<Credential, Failure> {
        let AppRoleLoginConfig { wrapped, secret_id_file, .. } = &self.config;
        if !wrapped {
            return file::read(secret_id_file, "the secret id").await;
        }
        self.unwrapped.secret_id(&self.client, call, &self.config).await
    }

    /// The path of the role, for a message.
    fn path(&self) -> String {
        format!("auth/{}/role/{}", self.config.mount, self.config.role.as_deref().unwrap_or("<role>"))
    }

    /// The texts are those of Vault's `builtin/credential/approle/path_login.go`, now and before 1.13.
    fn refused(&self, said: &str) -> Option<Explained> {
        let AppRoleLoginConfig { wrapped, secret_id_file, .. } = &self.config;
        let (path, file, has) = (self.path(), secret_id_file.display(), |text: &str| said.contains(text));
        if has("CIDR") || has("source address") {
            return Explained::permanent(format!(
                "The role or the secret id is for other machines than this: see secret_id_bound_cidrs and \
                 token_bound_cidrs on {path}."
            ));
        }
        let unfit =
            ["invalid role", "invalid secret", "failed to validate", "missing secret_id", "missing role_id"];
        if !unfit.iter().any(|text| has(text)) {
            return None;
        }
        let other = match wrapped {
            true => format!(
                "It was unwrapped from {file} and kept for this; put a fresh wrapping token there (vault write \
                 -wrap-ttl=60s -f {path}/secret-id)."
            ),
            false => format!(
                "Put another into {file} (vault write -f {path}/secret-id); if the file holds a wrapping token, set \
                 wrapped = true."
            ),
        };
        Explained::permanent(format!(
            "Vault does not say which of the two is wrong. The role id is what {path}/role-id says. A secret id ends \
             with its secret_id_ttl, with its secret_id_num_uses (0: as many logins as are needed), and when it is \
             destroyed. {other}"
        ))
    }
}

impl Login for AppRoleLogin {
    fn login(&self, call: CallId) -> BoxFuture<'_, Result<Minted<Token>, Failure>> {
        Box::pin(self.once(call))
    }

    fn describe(&self) -> String {
        let AppRoleLoginConfig { mount, role, role_id, wrapped, .. } = &self.config;
        let who = match (role, role_id) {
            (Some(role), _) => format!("role {role}"),
            (None, RoleId::Is(id)) => format!("role id {id}"),
            (None, RoleId::In(file)) => format!("role id of {}", file.display()),
        };
        format!("approle {who} at auth/{mount}{}", if *wrapped { ", secret id wrapped" } else { "" })
    }
}

#[cfg(test)]
mod tests;
