//! The seams to upstream. `identity` and `source` implement them: Vault for real, `source::dev` in memory.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use super::failure::Failure;
use crate::clock::Moment;
use crate::secret::{Credential, Secret};

/// A boxed future, so that the seams can be used as trait objects.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What one upstream call is known by in both logs: it goes into `X-Tenure-Request` and `X-Tenure-Run`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallId {
    /// Unique among all calls of all processes: `<boot id>-<counter>`.
    pub request: Arc<str>,
    /// The run on whose behalf the call is made.
    pub run: Arc<str>,
    /// The head of the audit log's chain, where the call is made to pin it: `X-Tenure-Chain`.
    pub chain: Option<Arc<str>>,
}

/// How long a grant lives, as upstream said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// A lease or a token: gone after `ttl`, unless renewed.
    Leased {
        /// What upstream granted.
        ttl: Duration,
        /// Whether upstream says that it can be renewed.
        renewable: bool,
    },
    /// A value without a lease. How long it is taken for fresh or stale is the broker's decision, not upstream's.
    Static {
        /// Whether it may be kept at all: KV values may, a one-time code may not.
        keep: bool,
    },
}

/// What a successful mint brought.
#[derive(Debug)]
pub struct Minted<P> {
    /// The token or the secret.
    pub payload: P,
    /// When the request was *sent*: upstream's TTL began no earlier than that.
    pub sent: Moment,
    /// How long it lives.
    pub life: Life,
}

/// What a successful renewal brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renewed {
    /// When the request was sent.
    pub sent: Moment,
    /// What upstream granted from then on.
    pub ttl: Duration,
    /// Whether it can be renewed again.
    pub renewable: bool,
}

/// A Vault token of ours.
#[derive(Clone)]
pub struct Token {
    /// The token itself.
    pub credential: Credential,
    /// Its accessor, by which it can be revoked without being known.
    pub accessor: String,
    /// Its policies, as upstream listed them.
    pub policies: Vec<String>,
    /// Whether it outlives the token that made it.
    pub orphan: bool,
    /// Whether it belongs to somebody else, who made it, may use it beside us and sees to its end: it is neither
    /// journaled nor revoked.
    pub lent: bool,
    /// The namespace that it was made in, and in which every call with it or about it is made; `None`: the client's own.
    /// A whole path without slashes at its ends: `team-a/orders`. Empty: the root.
    pub namespace: Option<Arc<str>>,
    /// Its creation, for as long as a node of upstream may not have heard of it; `None` where that is of no interest.
    pub made: Option<Made>,
}

/// When a token was made, and after which write: not every node of upstream knows of it at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// When the answer that brought it came.
    pub at: Moment,
    /// Upstream's own name for the state after that write (`X-Vault-Index`), where it gives one: sent back with each call
    /// that the token makes, so that no node answers from a state before it.
    pub index: Option<Arc<str>>,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("policies", &self.policies)
            .field("orphan", &self.orphan)
            .field("lent", &self.lent)
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

/// What a run token is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenSpec {
    /// The token role (`auth/token/roles/<role>`).
    pub role: String,
    /// Its policies, where not all that the token role allows; the role refuses others.
    pub policies: Vec<String>,
    /// Its time to live, in whole seconds upstream.
    pub ttl: Duration,
    /// False where the run has a deadline: then the deadline is law.
    pub renewable: bool,
    /// What Vault's audit log shows on each request of the token.
    pub meta: BTreeMap<String, String>,
    /// The namespace to make it in, as in [`Token::namespace`]: the role's. Where it is another than the
    /// login's, Vault wants a policy of the login's with `update` and `sudo` on that namespace's
    /// `auth/token/create/<role>`.
    pub namespace: Option<Arc<str>>,
}

/// What to read: a path below `/v1/`, an optional query, GET or LIST.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReadKey {
    /// Without `/v1/`, without a leading slash, not empty: `database/creds/orders`. Decoded: what policy judges is
    /// what upstream decodes, so the source percent-encodes it (a `%` too) and refuses empty, `.` and `..` segments.
    pub path: Arc<str>,
    /// The query, in canonical order and percent-encoded, without `?`: `version=2`. Most often empty.
    pub query: Arc<str>,
    /// LIST rather than GET.
    pub list: bool,
}

impl ReadKey {
    /// A secret, as it is.
    #[must_use]
    pub fn secret(path: &str) -> Self {
        Self { path: path.into(), query: "".into(), list: false }
    }
}

impl fmt::Display for ReadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)?;
        if self.query.is_empty() { Ok(()) } else { write!(f, "?{}", self.query) }
    }
}

/// An answer to a read, taken apart as far as the broker must know it; `data` stays upstream's own bytes.
#[derive(Debug)]
pub struct Answer {
    /// Upstream's id of the request that brought it.
    pub request_id: String,
    /// Empty for values without a lease.
    pub lease_id: Arc<str>,
    /// The JSON text of the member `data`.
    pub data: Secret,
    /// Vault's warnings.
    pub warnings: Vec<String>,
    /// `kv`, `database`, ...; empty where upstream does not say.
    pub mount_type: String,
    /// The version of a KV v2 value.
    pub version: Option<u64>,
}

/// A key of Vault's transit engine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TransitKey {
    /// Where the engine is mounted: `transit`.
    pub mount: String,
    /// The key's name there. It is not derived; of type `ed25519` where it signs, and of one that encrypts where it wraps.
    pub name: String,
}

/// A signature by one version of a transit key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// The version of the key, from 1 on.
    pub version: u32,
    /// An Ed25519 signature (RFC 8032) over the input itself.
    pub signature: [u8; 64],
}

/// A key of its own that a transit key wraps: who has the wrapped one has nothing until Vault unwraps it.
pub struct DataKey {
    /// The key.
    pub plain: Zeroizing<[u8; 32]>,
    /// The key as the transit key wraps it: `vault:v1:…`.
    pub wrapped: String,
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataKey").field("wrapped", &self.wrapped).finish_non_exhaustive()
    }
}

/// By what the signatures of a transit key are checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKeys {
    /// Versions below this one count no more, whatever was signed by them (`min_decryption_version`).
    pub least: u32,
    /// The Ed25519 public key of each version.
    pub keys: BTreeMap<u32, [u8; 32]>,
    /// When they were asked for.
    pub sent: Moment,
}

/// Logs in to upstream.
pub trait Login: Send + Sync + 'static {
    /// One login. The token that comes back is a service token that can be renewed, or the failure says why not.
    fn login(&self, call: CallId) -> BoxFuture<'_, Result<Minted<Token>, Failure>>;

    /// The method and what identifies it, for `status` and the log: `aws role orders at auth/aws`.
    fn describe(&self) -> String;

    /// Whether the last login was made with something that has been replaced since, such as a file that holds another
    /// token now: then there is to be a login at once. Asked every second, so it must be cheap and not wait.
    fn is_outdated(&self) -> bool {
        false
    }
}

/// Everything else that is asked of upstream.
///
/// What is asked with a token is asked in its namespace. What is asked with the login token about another token, or about
/// what hangs off it, is asked in that one's: `namespace` is that token's [`Token::namespace`].
pub trait Source: Send + Sync + 'static {
    /// Makes a run token from a token role.
    fn create_token<'a>(
        &'a self,
        call: CallId,
        login: &'a Token,
        spec: &'a TokenSpec,
    ) -> BoxFuture<'a, Result<Minted<Token>, Failure>>;

    /// `renew-self`. An increment of `None` asks for the token's own period.
    fn renew_token<'a>(
        &'a self,
        call: CallId,
        token: &'a Token,
        increment: Option<Duration>,
    ) -> BoxFuture<'a, Result<Renewed, Failure>>;

    /// `lookup-self`: decides what a 403 meant. [`super::failure::Class::TokenLost`] if upstream does not know it.
    fn lookup_token<'a>(&'a self, call: CallId, token: &'a Token) -> BoxFuture<'a, Result<(), Failure>>;

    /// `revoke-self`. A token that upstream no longer knows counts as revoked.
    fn revoke_token<'a>(&'a self, call: CallId, token: &'a Token) -> BoxFuture<'a, Result<(), Failure>>;

    /// Revokes by accessor with the login token's right to do so: for what an earlier process left behind.
    fn revoke_accessor<'a>(
        &'a self,
        call: CallId,
        login: &'a Token,
        namespace: Option<&'a str>,
        accessor: &'a str,
    ) -> BoxFuture<'a, Result<(), Failure>>;

    /// Whether upstream still knows the token with this accessor: `Ok(false)` confirms a revocation.
    fn accessor_lives<'a>(
        &'a self,
        call: CallId,
        login: &'a Token,
        namespace: Option<&'a str>,
        accessor: &'a str,
    ) -> BoxFuture<'a, Result<bool, Failure>>;

    /// Whether upstream still knows the lease: `Ok(false)` confirms a revocation.
    fn lease_lives<'a>(
        &'a self,
        call: CallId,
        login: &'a Token,
        namespace: Option<&'a str>,
        lease_id: &'a str,
    ) -> BoxFuture<'a, Result<bool, Failure>>;

    /// GET or LIST of a path, with a run's token.
    fn read<'a>(
        &'a self,
        call: CallId,
        token: &'a Token,
        key: &'a ReadKey,
    ) -> BoxFuture<'a, Result<Minted<Answer>, Failure>>;

    /// Renews a lease by its id (`sys/leases/renew`).
    fn renew_lease<'a>(
        &'a self,
        call: CallId,
        token: &'a Token,
        lease_id: &'a str,
        increment: Duration,
    ) -> BoxFuture<'a, Result<Renewed, Failure>>;

    /// Signs with the latest version of a transit key (`transit/sign/<key>`).
    fn sign<'a>(
        &'a self,
        call: CallId,
        login: &'a Token,
        key: &'a TransitKey,
        input: &'a [u8],
    ) -> BoxFuture<'a, Result<Signed, Failure>>;

    /// The public keys of a transit key (`transit/keys/<key>`).
    fn public_keys<'a>(
        &'a self,
        call: CallId,
        login: &'a Token,
        key: &'a TransitKey,
    ) -> BoxFuture<'a, Result<PublicKeys, Failure>>;

    /// A new data key of 256 bits (`transit/datakey/plaintext/<key>`).
    fn data_key<'a>(
        &'a self,
        call: CallId,
        login: &'a Token,
        key: &'a TransitKey,
    ) -> BoxFuture<'a, Result<Minted<DataKey>, Failure>>;

    /// Idle connections are of no use after the machine was frozen or its clock jumped: drop them.
    fn forget_connections(&self);
}
