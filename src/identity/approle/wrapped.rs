//! A secret id that is wrapped in a token: unwrapped once, kept in memory alone, and never where somebody may have been
//! there before.
//!
//! Reference: <https://developer.hashicorp.com/vault/docs/concepts/response-wrapping#response-wrapping-token-validation>.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use vaultrs::api::sys::requests::{UnwrapRequest, WrappingLookupRequest};
use zeroize::Zeroize as _;

use super::AppRoleLoginConfig;
use crate::identity::exchange::{decided, is_refusal};
use crate::identity::file;
use crate::lease::failure::{Class, Failure};
use crate::lease::upstream::CallId;
use crate::secret::Credential;
use crate::vault::{Ask, CONTROL_LIMIT, Envelope, Reply, VaultClient, advised};

/// What was unwrapped, for the logins that follow.
#[derive(Debug, Default)]
pub(super) struct Unwrapped(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The wrapping token that was used last, and what was in it.
    kept: Option<(Credential, Credential)>,
    /// The wrapping token whose unwrapping was asked for and not answered: it may have been used up by that.
    unanswered: Option<Credential>,
}

/// What `sys/wrapping/lookup` says.
#[derive(Deserialize)]
struct Wrapping {
    creation_path: String,
}

/// What was wrapped.
#[derive(Deserialize)]
struct SecretId {
    secret_id: String,
    #[serde(default)]
    secret_id_num_uses: u64,
}

impl Unwrapped {
    /// The secret id that the file's wrapping token holds: kept from before, or unwrapped where the file is a new one.
    ///
    /// # Errors
    /// [`Class::Permanent`] if it was unwrapped already, or wrapped by another request than the one that makes secret ids
    /// of this role: then it must be treated as stolen.
    pub(super) async fn secret_id(
        &self,
        client: &VaultClient,
        call: &CallId,
        config: &AppRoleLoginConfig,
    ) -> Result<Credential, Failure> {
        let path = &config.secret_id_file;
        let wrapping = match (file::read(path, "the wrapping token of the secret id").await, self.newest()) {
            (Ok(wrapping), _) => wrapping,
            // Whoever delivers it may take it away once it was used: what came of it is kept.
            (Err(failure), Some(kept)) if failure.class == Class::Transient => return Ok(kept),
            (Err(failure), _) => return Err(failure),
        };
        if let Some(kept) = self.kept(&wrapping) {
            return Ok(kept);
        }
        let shown = path.display();
        if !wrapping.expose().contains('.') {
            return Err(Failure::new(
                Class::Permanent,
                format!(
                    "what {shown} holds is no wrapping token (those look like hvs.… or s.…): if it is the secret id \
                     itself, set wrapped = false; better, have it wrapped (vault write -wrap-ttl=60s -f \
                     auth/{}/role/<role>/secret-id)",
                    config.mount
                ),
            ));
        }
        self.check(client, call, config, &wrapping).await?;
        self.unwrap(client, call, config, wrapping).await
    }

    /// Whether the token is unused, and was made by the request that makes secret ids of the role.
    async fn check(
        &self,
        client: &VaultClient,
        call: &CallId,
        config: &AppRoleLoginConfig,
        wrapping: &Credential,
    ) -> Result<(), Failure> {
        let mut request = WrappingLookupRequest { token: wrapping.expose().to_owned() };
        let ask = Ask { call, token: None, namespace: None, index: None, limit: CONTROL_LIMIT };
        let reply = client.execute(ask, &request).await;
        request.token.zeroize();
        let reply = self.accepted(reply?, config, wrapping)?;
        let Wrapping { creation_path } = data(&reply)?;
        if is_secret_id_of(&creation_path, &config.mount, config.role.as_deref()) {
            return Ok(());
        }
        let role = config.role.as_deref().unwrap_or("<role>");
        Err(reply.broken(
            Class::Permanent,
            format!(
                "the wrapping token in {} was made by a request to {creation_path:?}, not to \
                 auth/{}/role/{role}/secret-id: somebody put another in its place. It was not unwrapped. Treat the \
                 secret id that was to be there as stolen: destroy it, and find out who could write that file",
                config.secret_id_file.display(),
                config.mount,
            ),
        ))
    }

    async fn unwrap(
        &self,
        client: &VaultClient,
        call: &CallId,
        config: &AppRoleLoginConfig,
        wrapping: Credential,
    ) -> Result<Credential, Failure> {
        self.state().unanswered = Some(wrapping.clone());
        let request = UnwrapRequest { token: None };
        let ask = Ask { call, token: Some(&wrapping), namespace: None, index: None, limit: CONTROL_LIMIT };
        let reply = client.execute(ask, &request).await?;
        if is_refusal(reply.status.as_u16()) {
            // An answer, and it says that nothing was unwrapped by this request.
            self.state().unanswered = None;
        }
        let reply = self.accepted(reply, config, &wrapping)?;
        let SecretId { secret_id, secret_id_num_uses } = data(&reply)?;
        let secret_id = Credential::new(secret_id);
        if secret_id_num_uses == 1 {
            tracing::warn!(
                "the secret id of {} is good for one login: the next one needs a fresh wrapping token there \
                 (secret_id_num_uses=0 lets one be used for as many as are needed)",
                config.secret_id_file.display()
            );
        }
        *self.state() = State { kept: Some((wrapping, secret_id.clone())), unanswered: None };
        Ok(secret_id)
    }

    /// An accepted answer about the wrapping token; a refusal says that there is no such token any more.
    fn accepted(
        &self,
        reply: Reply,
        config: &AppRoleLoginConfig,
        wrapping: &Credential,
    ) -> Result<Reply, Failure> {
        if reply.status.is_success() {
            return Ok(reply);
        }
        let gone = ["wrapping token is not valid", "does not exist", "bad token", "invalid token"];
        let failure = reply.failure();
        let is_gone = [400, 403].iter().any(|status| reply.refuses_with(*status, &gone));
        if !is_gone {
            return Err(decided(failure));
        }
        let ours = match self.state().unanswered.as_ref() {
            Some(asked) if asked.matches(wrapping.expose().as_bytes()) => {
                "This broker asked for it before and got no answer: that may have used it up. "
            }
            _ => "",
        };
        Err(advised(failure, &stolen(&config.secret_id_file, &config.mount, config.role.as_deref(), ours))
            .decided(Class::Permanent))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn newest(&self) -> Option<Credential> {
        self.state().kept.as_ref().map(|(_, secret_id)| secret_id.clone())
    }

    fn kept(&self, wrapping: &Credential) -> Option<Credential> {
        let state = self.state();
        let (from, secret_id) = state.kept.as_ref()?;
        from.matches(wrapping.expose().as_bytes()).then(|| secret_id.clone())
    }
}

fn stolen(file: &Path, mount: &str, role: Option<&str>, ours: &str) -> String {
    let role = role.unwrap_or("<role>");
    format!(
        "The wrapping token in {} is used up or has expired. {ours}If neither an earlier start of this broker used it nor \
         its wrap TTL is over, somebody else has unwrapped it: treat it as stolen. Destroy the secret id (vault write \
         auth/{mount}/role/{role}/secret-id-accessor/destroy secret_id_accessor=…; Vault's audit log says who \
         unwrapped it), then put a fresh one there (vault write -wrap-ttl=60s -f auth/{mount}/role/{role}/secret-id).",
        file.display()
    )
}

/// The member `data`.
fn data<T: DeserializeOwned>(reply: &Reply) -> Result<T, Failure> {
    let envelope = Envelope::of(reply)?;
    let data = envelope.data.and_then(|data| serde_json::from_str(data.get()).ok());
    data.ok_or_else(|| {
        reply.broken(Class::Permanent, format!("the answer to {} is not what it should be", reply.subject()))
    })
}

/// Whether `path` is the request that makes secret ids: `auth/<mount>/role/<role>/secret-id`, of that role where it is
/// known. Vault takes a role's name in any case.
fn is_secret_id_of(path: &str, mount: &str, role: Option<&str>) -> bool {
    let found = path
        .strip_prefix("auth/")
        .and_then(|rest| rest.strip_prefix(mount))
        .and_then(|rest| rest.strip_prefix("/role/"))
        .and_then(|rest| rest.strip_suffix("/secret-id"));
    found.is_some_and(|found| {
        !found.is_empty() && !found.contains('/') && role.is_none_or(|role| role.eq_ignore_ascii_case(found))
    })
}

#[cfg(test)]
mod tests {
    use super::is_secret_id_of;

    #[test]
    fn only_the_request_that_makes_secret_ids_will_do() {
        for (path, role, good) in [
            ("auth/team/approle/role/orders/secret-id", None, true),
            ("auth/team/approle/role/orders/secret-id", Some("orders"), true),
            ("auth/team/approle/role/Orders/secret-id", Some("orders"), true),
            ("auth/team/approle/role/orders/secret-id", Some("others"), false),
            ("auth/team/approle/role/orders/custom-secret-id", None, false),
            ("auth/team/approle/role/orders/secret-id/lookup", None, false),
            ("auth/team/approle/role//secret-id", None, false),
            ("auth/team/approle/role/a/b/secret-id", None, false),
            ("auth/approle/role/orders/secret-id", None, false),
            ("sys/wrapping/wrap", None, false),
            ("sys/wrapping/rewrap", None, false),
            ("", None, false),
        ] {
            assert_eq!(is_secret_id_of(path, "team/approle", role), good, "{path} {role:?}");
        }
    }
}
