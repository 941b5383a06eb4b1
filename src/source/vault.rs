//! Vault (and OpenBao) as the source of run tokens and secrets.

mod transit;
mod young;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::StatusCode;
use rustify::endpoint::Endpoint;
use serde::Deserialize;
use vaultrs::api::token::requests::{
    CreateRoleTokenRequest, LookupTokenAccessorRequest, LookupTokenSelfRequest, RenewTokenSelfRequest,
    RevokeTokenAccessorRequest, RevokeTokenSelfRequest,
};

use crate::lease::failure::{Class, Failure};
use crate::lease::upstream::{
    Answer, BoxFuture, CallId, DataKey, Life, Minted, PublicKeys, ReadKey, Renewed, Signed, Source, Token,
    TokenSpec, TransitKey,
};
use crate::secret::Secret;
use crate::vault::{
    Ask, Auth, CONTROL_LIMIT, Envelope, LookupLeaseRequest, READ_LIMIT, RenewLeaseRequest, Reply,
    VaultClient, advised,
};

/// How many answers about mounts are remembered. There are as many as a deployment has mounts, or, where the token may
/// not ask, as many as it reads paths.
const MOUNTS: usize = 1024;

/// The source over one Vault client.
#[derive(Debug)]
pub struct VaultSource {
    client: Arc<VaultClient>,
    /// The type of each mount by its namespace and its path (`secret/`), or the empty text where upstream would not say.
    mounts: Mutex<BTreeMap<Option<Arc<str>>, Mounts>>,
    ended: young::Ended,
}

type Mounts = BTreeMap<String, Arc<str>>;

impl VaultSource {
    /// A source that shares `client`'s connections.
    #[must_use]
    pub fn new(client: Arc<VaultClient>) -> Self {
        Self { client, mounts: Mutex::default(), ended: young::Ended::default() }
    }

    async fn control<E: Endpoint>(
        &self,
        call: &CallId,
        token: &Token,
        endpoint: &E,
    ) -> Result<Reply, Failure> {
        self.known(token, || self.client.execute(Ask::with(call, token, CONTROL_LIMIT), endpoint)).await
    }

    /// With the login token, but in another namespace than its own.
    async fn control_in<E: Endpoint>(
        &self,
        call: &CallId,
        login: &Token,
        namespace: Option<&str>,
        endpoint: &E,
    ) -> Result<Reply, Failure> {
        let ask = || Ask { namespace, ..Ask::with(call, login, CONTROL_LIMIT) };
        self.known(login, || self.client.execute(ask(), endpoint)).await
    }

    async fn created(&self, call: CallId, login: &Token, spec: &TokenSpec) -> Result<Minted<Token>, Failure> {
        let TokenSpec { role, namespace, .. } = spec;
        let ttl = spec.ttl.as_secs();
        if ttl == 0 {
            // "0s" would ask for Vault's default, a month.
            return Err(Failure::new(
                Class::Permanent,
                format!("a run token of role {role} was asked for with less than a second to live"),
            ));
        }
        let request = CreateRoleTokenRequest {
            role_name: role.clone(),
            ttl: Some(format!("{ttl}s")),
            renewable: Some(spec.renewable),
            meta: Some(spec.meta.clone().into_iter().collect()),
            policies: (!spec.policies.is_empty()).then(|| spec.policies.clone()),
            ..CreateRoleTokenRequest::default()
        };
        let reply = self.control_in(&call, login, namespace.as_deref(), &request).await?;
        if reply.status.is_success() {
            let cure = format!("token_type=service and no token_num_uses on auth/token/roles/{role}");
            return self.client.token(&call, &reply, namespace.as_ref(), &cure).await;
        }
        let failure = reply.failure();
        let cure = match (failure.class, namespace) {
            (Class::Forbidden, Some(namespace)) => format!(
                "if the login token lives, its policy lacks update and sudo on {namespace}/auth/token/create/{role} (as seen from \
                 the root; from the login's own namespace, without what leads there), or there is no namespace \
                 {namespace}, or the role grants policies that it may not"
            ),
            (Class::Forbidden, None) => format!(
                "if the login token lives, its policy lacks update on auth/token/create/{role}, or the role grants \
                 policies that it may not"
            ),
            (Class::Permanent, Some(namespace)) if reply.refuses_with(400, &["root or sudo privileges"]) => {
                format!(
                    "to make a token in another namespace than the login's, its policy needs update and sudo on \
                     {namespace}/auth/token/create/{role}"
                )
            }
            (Class::Permanent, _) if reply.refuses_with(400, &["unknown role"]) => {
                format!(
                    "make the token role: vault write auth/token/roles/{role} orphan=true allowed_policies=…"
                )
            }
            (Class::NotFound, Some(namespace)) => format!("is there a namespace {namespace}?"),
            (Class::NotFound, None) => format!("is auth/token/create/{role} in this namespace?"),
            (Class::Permanent, _) => format!("check auth/token/roles/{role}"),
            _ => return Err(failure),
        };
        Err(advised(failure, &format!("No run token was made: {cure}")))
    }

    async fn renewed(
        &self,
        call: CallId,
        token: &Token,
        increment: Option<Duration>,
    ) -> Result<Renewed, Failure> {
        let request = RenewTokenSelfRequest { increment: increment.map(|by| format!("{}s", seconds(by))) };
        let reply = self.control(&call, token, &request).await?.accepted()?;
        let auth = Auth::of(&reply)?;
        Ok(Renewed {
            sent: reply.sent,
            ttl: Duration::from_secs(auth.lease_duration.unwrap_or(0)),
            renewable: auth.renewable.unwrap_or(false),
        })
    }

    async fn looked_up(&self, call: &CallId, token: &Token) -> Result<(), Failure> {
        let reply = self.control(call, token, &LookupTokenSelfRequest {}).await?;
        if reply.status.is_success() {
            return Envelope::of(&reply).map(drop);
        }
        let failure = reply.failure();
        if failure.class != Class::Forbidden {
            return Err(failure);
        }
        if says_unknown(&reply) {
            return Err(self.unknown(token, failure));
        }
        // Vault 1.10 and later name an unknown token. Older ones and OpenBao do not, and a token whose policies lack
        // lookup-self gets the same answer. The list of mounts needs no capability, only a token that lives.
        let ask = Ask::with(call, token, READ_LIMIT);
        let listed = self.client.read(ask, "sys/internal/ui/mounts", "", false).await?;
        match listed.accepted() {
            Ok(listed) => Envelope::of(&listed).map(drop),
            Err(refused) if refused.class == Class::Forbidden => Err(self.unknown(token, failure)),
            Err(refused) => Err(refused),
        }
    }

    async fn revoked(&self, call: CallId, token: &Token) -> Result<(), Failure> {
        let reply = self.control(&call, token, &RevokeTokenSelfRequest {}).await?;
        if reply.status.is_success() {
            self.ended(token);
            return Ok(());
        }
        let failure = reply.failure();
        if failure.class != Class::Forbidden {
            return Err(failure);
        }
        match self.looked_up(&call, token).await {
            Err(found) if found.class == Class::TokenLost => Ok(()),
            Err(found) if found.class == Class::Transient => Err(found),
            _ => Err(advised(
                failure,
                "The token lives on until it expires: give its policies update on auth/token/revoke-self",
            )),
        }
    }

    async fn revoked_by_accessor(
        &self,
        call: CallId,
        login: &Token,
        namespace: Option<&str>,
        accessor: &str,
    ) -> Result<(), Failure> {
        let request = RevokeTokenAccessorRequest { accessor: accessor.to_owned() };
        let reply = self.control_in(&call, login, namespace, &request).await?;
        if unknown_accessor(&reply) { Ok(()) } else { reply.accepted().map(drop) }
    }

    async fn knows_accessor(
        &self,
        call: CallId,
        login: &Token,
        namespace: Option<&str>,
        accessor: &str,
    ) -> Result<bool, Failure> {
        let request = LookupTokenAccessorRequest { accessor: accessor.to_owned() };
        let reply = self.control_in(&call, login, namespace, &request).await?;
        if unknown_accessor(&reply) { Ok(false) } else { reply.accepted().map(|_| true) }
    }

    async fn knows_lease(
        &self,
        call: CallId,
        login: &Token,
        namespace: Option<&str>,
        lease_id: &str,
    ) -> Result<bool, Failure> {
        let request = LookupLeaseRequest { lease_id: lease_id.to_owned() };
        let reply = self.control_in(&call, login, namespace, &request).await?;
        if reply.refuses_with(400, &["invalid lease", "lease not found"])
            || reply.status == StatusCode::NOT_FOUND
        {
            return Ok(false);
        }
        reply.accepted().map(|_| true)
    }

    async fn lease_renewed(
        &self,
        call: CallId,
        token: &Token,
        lease_id: &str,
        increment: Duration,
    ) -> Result<Renewed, Failure> {
        let request = RenewLeaseRequest { lease_id: lease_id.to_owned(), increment: seconds(increment) };
        let reply = self.control(&call, token, &request).await?;
        if reply.refuses_with(400, &["lease not found", "lease expired", "invalid lease"]) {
            return Err(reply.failure().decided(Class::LeaseGone));
        }
        let reply = reply.accepted()?;
        let envelope = Envelope::of(&reply)?;
        Ok(Renewed {
            sent: reply.sent,
            ttl: Duration::from_secs(envelope.lease_duration.unwrap_or(0)),
            renewable: envelope.renewable.unwrap_or(false),
        })
    }

    async fn value(&self, call: CallId, token: &Token, key: &ReadKey) -> Result<Minted<Answer>, Failure> {
        let ask = || Ask::with(&call, token, READ_LIMIT);
        let read = || self.client.read(ask(), &key.path, &key.query, key.list);
        let reply = self.known(token, read).await?.accepted()?;
        let envelope = Envelope::of(&reply)?;
        for (member, present) in
            [("wrap_info", envelope.wrap_info.is_some()), ("auth", envelope.auth.is_some())]
        {
            if present {
                return Err(reply.broken(
                    Class::Permanent,
                    format!(
                        "the answer to {} has {member} set: it is a token or a wrapped answer, not a secret that can \
                         be shared",
                        reply.subject()
                    ),
                ));
            }
        }
        let lease_id = envelope.lease_id.unwrap_or_default();
        let life = if lease_id.is_empty() {
            None
        } else {
            Some(Life::Leased {
                ttl: Duration::from_secs(envelope.lease_duration.unwrap_or(0)),
                renewable: envelope.renewable.unwrap_or(false),
            })
        };
        let data = envelope.data.map_or("null", |raw| raw.get());
        // What a KV client asks before each read. It is kept as long as a value: mounts change less often.
        let preflight = key.path.starts_with("sys/internal/ui/mounts/");
        let mount_type = match envelope.mount_type.filter(|kind| !kind.is_empty()) {
            Some(kind) => Arc::from(kind),
            // A lease says all there is to know about a life, and a mount's description is no mount.
            None if life.is_some() || preflight => Arc::from(""),
            None => self.mount_type(&call, token, &key.path).await,
        };
        let version = if &*mount_type == "kv" { version(data) } else { None };
        let answer = Answer {
            request_id: envelope.request_id.unwrap_or_default(),
            lease_id: lease_id.into(),
            data: Secret::new(data.as_bytes().to_vec()),
            warnings: envelope.warnings.unwrap_or_default(),
            mount_type: mount_type.to_string(),
            version,
        };
        let life = life.unwrap_or(Life::Static { keep: preflight || &*mount_type == "kv" });
        Ok(Minted { payload: answer, sent: reply.sent, life })
    }

    /// The type of the mount that `path` lies in, asked once with the reader's own token: older Vaults and OpenBao do
    /// not say it with each answer. Empty where it cannot be known; then a value is not kept, which is never wrong.
    async fn mount_type(&self, call: &CallId, token: &Token, path: &str) -> Arc<str> {
        if let Some(known) = self.known_mount(token, path) {
            return known;
        }
        let ask = || Ask::with(call, token, CONTROL_LIMIT);
        let about = format!("sys/internal/ui/mounts/{path}");
        let asked = self.known(token, || self.client.read(ask(), &about, "", false)).await;
        let (prefix, kind) = match asked {
            Ok(reply) if reply.status.is_success() => match mount(&reply) {
                Some(mount) if path.starts_with(&mount.path) => (mount.path, Arc::from(mount.kind)),
                _ => (path.to_owned(), Arc::from("")),
            },
            // Refused for this path, which says nothing of its neighbours.
            Ok(reply) if reply.status.is_client_error() => (path.to_owned(), Arc::from("")),
            _ => return Arc::from(""),
        };
        let mut mounts = self.mounts.lock().unwrap_or_else(PoisonError::into_inner);
        if mounts.values().map(BTreeMap::len).sum::<usize>() >= MOUNTS {
            mounts.clear();
        }
        mounts.entry(token.namespace.clone()).or_default().insert(prefix, Arc::clone(&kind));
        kind
    }

    fn known_mount(&self, token: &Token, path: &str) -> Option<Arc<str>> {
        let mounts = self.mounts.lock().unwrap_or_else(PoisonError::into_inner);
        let mounts = mounts.get(&token.namespace)?;
        if let Some(kind) = mounts.get(path) {
            return Some(Arc::clone(kind));
        }
        // Mounts do not nest, so at most one of the path's parents is known.
        path.match_indices('/').find_map(|(end, _)| mounts.get(&path[..=end]).cloned())
    }
}

/// Whether a refusal names the token as unknown.
fn says_unknown(reply: &Reply) -> bool {
    reply.refuses_with(403, &["invalid token", "bad token"])
}

/// A revoked token's accessor.
fn unknown_accessor(reply: &Reply) -> bool {
    ["invalid accessor", "failed to find accessor entry", "bad token"]
        .iter()
        .any(|text| [400, 403, 404].iter().any(|status| reply.refuses_with(*status, &[text])))
}

struct Mount {
    path: String,
    kind: String,
}

fn mount(reply: &Reply) -> Option<Mount> {
    #[derive(Deserialize)]
    struct Wire {
        path: String,
        #[serde(rename = "type")]
        kind: String,
    }
    let wire: Wire = serde_json::from_str(Envelope::of(reply).ok()?.data?.get()).ok()?;
    (!wire.path.is_empty()).then_some(Mount { path: wire.path, kind: wire.kind })
}

/// The version of a KV v2 value: its `data` has both `data` and `metadata`.
fn version(data: &str) -> Option<u64> {
    #[derive(Deserialize)]
    struct Versioned {
        #[serde(rename = "data")]
        _data: serde::de::IgnoredAny,
        metadata: Metadata,
    }
    #[derive(Deserialize)]
    struct Metadata {
        version: u64,
    }
    serde_json::from_str::<Versioned>(data).ok().map(|value| value.metadata.version)
}

/// Whole seconds, at least one: zero would ask Vault for its default.
fn seconds(span: Duration) -> u64 {
    span.as_secs().max(1)
}

impl Source for VaultSource {
    fn create_token<'a>(
        &'a self,
        call: CallId,
        login: &'a Token,
        spec: &'a TokenSpec,
    ) -> BoxFuture<'a, Result<Minted<Token>, Failure>> {
        Box::pin(self.created(call, login, spec))
    }

    fn renew_token<'a>(
        &'a self,
        call: CallId,
        token: &'a Token,
        increment: Option<Duration>,
    ) -> BoxFuture<'a, Result<Renewed, Failure>> {
        Box::pin(self.renewed(call, token, increment))
    }

    fn lookup_token<'a>(&'a self, call: CallId, token: &'a Token) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move { self.looked_up(&call, token).await })
    }

    fn revoke_token<'a>(&'a self, call: CallId, token: &'a Token) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(self.revoked(call, token))
    }

    fn revoke_accessor<'a>(
        &'a self,
        call: CallId,
        login: &'a Token,
        namespace: Option<&'a str>,
        accessor: &'a str,
    ) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(self.revoked_by_accessor(call, login, namespace, accessor))
    }

    fn accessor_lives<'a>(
        &'a self,
        call: CallId,
        login: &'a Token,
        namespace: Option<&'a str>,
        accessor: &'a str,
    ) -> BoxFuture<'a, Result<bool, Failure>> {
        Box::pin(self.knows_accessor(call, login, namespace, accessor))
    }

    fn lease_lives<'a>(
        &'a self,
        call: CallId,
        login: &'a Token,
        namespace: Option<&'a str>,
        lease_id: &'a str,
    ) -> BoxFuture<'a, Result<bool, Failure>> {
        Box::pin(self.knows_lease(call, login, namespace, lease_id))
    }

    fn read<'a>(
        &'a self,
        call: CallId,
        token: &'a Token,
        key: &'a ReadKey,
    ) -> BoxFuture<'a, Result<Minted<Answer>, Failure>> {
        Box::pin(self.value(call, token, key))
    }

    fn renew_lease<'a>(
        &'a self,
        call: CallId,
        token: &'a Token,
        lease_id: &'a str,
        increment: Duration,
    ) -> BoxFuture<'a, Result<Renewed, Failure>> {
        Box::pin(self.lease_renewed(call, token, lease_id, increment))
    }

    fn sign<'a>(
        &'a self,
        call: CallId,
        login: &'a Token,
        key: &'a TransitKey,
        input: &'a [u8],
    ) -> BoxFuture<'a, Result<Signed, Failure>> {
        Box::pin(self.signed(call, login, key, input))
    }

    fn public_keys<'a>(
        &'a self,
        call: CallId,
        login: &'a Token,
        key: &'a TransitKey,
    ) -> BoxFuture<'a, Result<PublicKeys, Failure>> {
        Box::pin(self.keys(call, login, key))
    }

    fn data_key<'a>(
        &'a self,
        call: CallId,
        login: &'a Token,
        key: &'a TransitKey,
    ) -> BoxFuture<'a, Result<Minted<DataKey>, Failure>> {
        Box::pin(self.wrapped_key(call, login, key))
    }

    fn forget_connections(&self) {
        self.client.forget_connections();
        // Time has passed unseen: mounts may have moved too.
        self.mounts.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

#[cfg(test)]
mod tests;
