//! Vault's rules over a few maps: what a token may do, what ends with what, how far a renewal reaches. No I/O, no
//! waiting; the time is passed in.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::transit::Transit;
use crate::clock::{Moment, Until};
use crate::lease::failure::{Class, Failure};
use crate::lease::upstream::{Answer, Life, ReadKey, Renewed, Token, TokenSpec};
use crate::secret::{Credential, Secret};

/// The longest life of a token that nothing else limits, as in Vault: 32 days.
const SYSTEM_MAX_TTL: Duration = Duration::from_secs(32 * 24 * 3600);

/// A token role (`auth/token/roles/<name>`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRole {
    /// The paths that its tokens may read, as prefixes. What `allowed_policies` amounts to.
    pub allow: Vec<String>,
    /// Whether its tokens outlive the token that made them.
    pub orphan: bool,
    /// No token of it lives longer, however often it is renewed; `None`: 32 days.
    pub explicit_max_ttl: Option<Duration>,
}

impl TokenRole {
    /// A role for orphans that may read below these paths.
    #[must_use]
    pub fn orphan(allow: &[&str]) -> Self {
        Self {
            allow: allow.iter().map(|&prefix| prefix.to_owned()).collect(),
            orphan: true,
            explicit_max_ttl: None,
        }
    }
}

/// A role of the "database" engine (`database/roles/<name>`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatabaseRole {
    /// What a credential lives at first, and by how much a renewal extends it at most.
    pub ttl: Duration,
    /// No credential lives longer.
    pub max_ttl: Duration,
}

/// A token, as an operator may see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenInfo {
    /// Its accessor.
    pub accessor: String,
    /// The token role that it was made from; `None` for a login token.
    pub role: Option<String>,
    /// Its metadata.
    pub meta: BTreeMap<String, String>,
    /// What is left of it.
    pub left: Duration,
}

/// A lease, as an operator may see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseInfo {
    /// Its id.
    pub lease_id: String,
    /// The database user.
    pub username: String,
    /// The accessor of the token that it hangs off.
    pub accessor: String,
    /// What is left of it.
    pub left: Duration,
}

#[derive(Debug)]
pub(super) struct LiveToken {
    credential: Credential,
    pub(super) accessor: String,
    role: Option<String>,
    allow: Vec<String>,
    meta: BTreeMap<String, String>,
    /// The accessor of the token that it ends with.
    parent: Option<String>,
    renewable: bool,
    end: Until,
    max: Until,
}

#[derive(Debug)]
struct LiveLease {
    lease_id: String,
    username: String,
    role: DatabaseRole,
    accessor: String,
    end: Until,
    max: Until,
    /// Its token is gone and its own revocation is under way, which takes until `end`.
    revoking: bool,
}

#[derive(Debug)]
struct Version {
    data: Value,
    created: Moment,
}

/// All that this Vault knows.
#[derive(Debug, Default)]
pub(super) struct Store {
    pub(super) token_roles: BTreeMap<String, TokenRole>,
    pub(super) database_roles: BTreeMap<String, DatabaseRole>,
    /// The database does not answer.
    pub(super) database_down: bool,
    /// How long after its token a lease is still there: Vault revokes leases by itself, a little later.
    revocation_lag: Duration,
    values: BTreeMap<String, Vec<Version>>,
    tokens: Vec<LiveToken>,
    leases: Vec<LiveLease>,
    pub(super) transit: Transit,
    made: u64,
}

impl Store {
    pub(super) fn new(revocation_lag: Duration) -> Self {
        Self { revocation_lag, ..Self::default() }
    }

    /// Lets go of what has ended by `now`, and of what ends with it.
    pub(super) fn settle(&mut self, now: Moment) {
        let expired: Vec<_> =
            self.tokens.iter().filter(|token| token.end.is_over(now)).map(|t| t.accessor.clone()).collect();
        for accessor in expired {
            self.end_token(&accessor, now);
        }
        self.leases.retain(|lease| !lease.end.is_over(now));
    }

    /// Ends a token with its children and leases. False if it is not known.
    pub(super) fn end_token(&mut self, accessor: &str, now: Moment) -> bool {
        let Some(at) = self.tokens.iter().position(|token| token.accessor == accessor) else { return false };
        self.tokens.remove(at);
        let lag = Until::new(now, self.revocation_lag);
        for lease in self.leases.iter_mut().filter(|lease| lease.accessor == accessor) {
            lease.revoking = true;
            if lag.len() < lease.end.left(now) {
                lease.end = lag;
            }
        }
        self.leases.retain(|lease| !lease.end.is_over(now));
        let children: Vec<_> = self
            .tokens
            .iter()
            .filter(|token| token.parent.as_deref() == Some(accessor))
            .map(|token| token.accessor.clone())
            .collect();
        for child in children {
            self.end_token(&child, now);
        }
        true
    }

    /// Ends one lease. False if it is not known.
    pub(super) fn end_lease(&mut self, lease_id: &str) -> bool {
        let before = self.leases.len();
        self.leases.retain(|lease| lease.lease_id != lease_id);
        self.leases.len() < before
    }

    pub(super) fn knows_accessor(&self, accessor: &str) -> bool {
        self.tokens.iter().any(|token| token.accessor == accessor)
    }

    pub(super) fn knows_lease(&self, lease_id: &str) -> bool {
        self.leases.iter().any(|lease| lease.lease_id == lease_id)
    }

    pub(super) fn tokens(&self, now: Moment) -> Vec<TokenInfo> {
        let info = |token: &LiveToken| TokenInfo {
            accessor: token.accessor.clone(),
            role: token.role.clone(),
            meta: token.meta.clone(),
            left: token.end.left(now),
        };
        self.tokens.iter().map(info).collect()
    }

    pub(super) fn leases(&self, now: Moment) -> Vec<LeaseInfo> {
        let info = |lease: &LiveLease| LeaseInfo {
            lease_id: lease.lease_id.clone(),
            username: lease.username.clone(),
            accessor: lease.accessor.clone(),
            left: lease.end.left(now),
        };
        self.leases.iter().map(info).collect()
    }

    /// Writes the next version of a KV value and returns its number.
    pub(super) fn put(&mut self, path: &str, data: Value, now: Moment) -> u64 {
        let versions = self.values.entry(path.to_owned()).or_default();
        versions.push(Version { data, created: now });
        versions.len() as u64
    }

    /// Takes a KV value away, with all of its versions.
    pub(super) fn remove(&mut self, path: &str) {
        self.values.remove(path);
    }

    pub(super) fn log_in(
        &mut self,
        allow: &[String],
        (ttl, max): (Duration, Duration),
        now: Moment,
    ) -> Result<(Token, Life), Failure> {
        let token = LiveToken {
            credential: Credential::new(format!("hvs.{}", random(24)?)),
            accessor: random(12)?,
            role: None,
            allow: allow.to_vec(),
            meta: BTreeMap::new(),
            parent: None,
            renewable: true,
            end: Until::new(now, ttl.min(max)),
            max: Until::new(now, max),
        };
        Ok(self.issue(token, vec!["dev-login".to_owned()], true))
    }

    pub(super) fn create_token(
        &mut self,
        login: &Token,
        spec: &TokenSpec,
        now: Moment,
    ) -> Result<(Token, Life), Failure> {
        let parent = self.token(login)?;
        if parent.role.is_some() {
            return Err(refused(403, Class::Forbidden, "permission denied"));
        }
        let parent = parent.accessor.clone();
        let Some(role) = self.token_roles.get(&spec.role).cloned() else {
            return Err(refused(400, Class::Permanent, &format!("unknown role {}", spec.role)));
        };
        let max = role.explicit_max_ttl.unwrap_or(SYSTEM_MAX_TTL).min(SYSTEM_MAX_TTL);
        let token = LiveToken {
            credential: Credential::new(format!("hvs.{}", random(24)?)),
            accessor: random(12)?,
            role: Some(spec.role.clone()),
            allow: role.allow,
            meta: spec.meta.clone(),
            parent: (!role.orphan).then_some(parent),
            renewable: spec.renewable,
            end: Until::new(now, whole(spec.ttl.min(max))),
            max: Until::new(now, max),
        };
        Ok(self.issue(token, vec![spec.role.clone()], role.orphan))
    }

    fn issue(&mut self, token: LiveToken, policies: Vec<String>, orphan: bool) -> (Token, Life) {
        let ours = Token {
            credential: token.credential.clone(),
            accessor: token.accessor.clone(),
            policies,
            orphan,
            lent: false,
            namespace: None,
            made: None,
        };
        let life = Life::Leased { ttl: token.end.len(), renewable: token.renewable };
        self.tokens.push(token);
        (ours, life)
    }

    /// The token that a request was made with; 403 if it is not known, as from Vault.
    pub(super) fn token(&self, presented: &Token) -> Result<&LiveToken, Failure> {
        self.tokens
            .iter()
            .find(|token| token.credential.matches(presented.credential.expose().as_bytes()))
            .ok_or_else(|| refused(403, Class::Forbidden, "permission denied, invalid token"))
    }

    pub(super) fn renew_token(
        &mut self,
        presented: &Token,
        increment: Option<Duration>,
        now: Moment,
    ) -> Result<Renewed, Failure> {
        let accessor = self.token(presented)?.accessor.clone();
        let token = self.tokens.iter_mut().find(|token| token.accessor == accessor);
        let Some(token) = token.filter(|token| token.renewable) else {
            return Err(refused(400, Class::Permanent, "lease is not renewable"));
        };
        let wanted = increment.unwrap_or(token.end.len());
        let ttl = whole(wanted.min(token.max.left(now)));
        token.end = Until::new(now, ttl);
        Ok(Renewed { sent: now, ttl, renewable: true })
    }

    pub(super) fn renew_lease(
        &mut self,
        presented: &Token,
        lease_id: &str,
        increment: Duration,
        now: Moment,
    ) -> Result<Renewed, Failure> {
        self.token(presented)?;
        let lease = self.leases.iter_mut().find(|lease| lease.lease_id == lease_id && !lease.revoking);
        let Some(lease) = lease else {
            return Err(refused(400, Class::LeaseGone, "lease not found"));
        };
        if self.database_down {
            return Err(unreachable_database());
        }
        // The database engine extends by its role's TTL at most, whatever is asked.
        let ttl = whole(increment.min(lease.role.ttl).min(lease.max.left(now)));
        lease.end = Until::new(now, ttl);
        Ok(Renewed { sent: now, ttl, renewable: true })
    }

    pub(super) fn read(
        &mut self,
        presented: &Token,
        key: &ReadKey,
        now: Moment,
    ) -> Result<(Answer, Life), Failure> {
        let token = self.token(presented)?;
        let path = &*key.path;
        let preflight = path.strip_prefix("sys/internal/ui/mounts/");
        let allowed = |path: &str| token.allow.iter().any(|prefix| path.starts_with(prefix.as_str()));
        if !allowed(preflight.unwrap_or(path)) {
            return Err(refused(403, Class::Forbidden, "permission denied"));
        }
        let accessor = token.accessor.clone();
        let (data, kind, version, leased) = if let Some(mount) = preflight {
            (mount_of(mount)?, "system", None, None)
        } else if let Some(name) = path.strip_prefix("database/creds/") {
            let (data, lease_id, ttl) = self.credential(name, accessor, now)?;
            (data, "database", None, Some((lease_id, ttl)))
        } else if let (Some(folder), true) = (path.strip_prefix("secret/metadata"), key.list) {
            (self.names(folder.trim_matches('/'))?, "kv", None, None)
        } else if let (Some(name), false) = (path.strip_prefix("secret/data/"), key.list) {
            let (data, version) = self.value(name, &key.query)?;
            (data, "kv", Some(version), None)
        } else {
            return Err(refused(404, Class::NotFound, &format!("no handler for route \"{path}\"")));
        };
        let (lease_id, life) = match leased {
            Some((lease_id, ttl)) => (lease_id, Life::Leased { ttl, renewable: true }),
            None => (String::new(), Life::Static { keep: kind == "kv" }),
        };
        let answer = Answer {
            request_id: random(16)?,
            lease_id: lease_id.into(),
            data: Secret::new(data.to_string().into_bytes()),
            warnings: Vec::new(),
            mount_type: kind.to_owned(),
            version,
        };
        Ok((answer, life))
    }

    fn credential(
        &mut self,
        name: &str,
        accessor: String,
        now: Moment,
    ) -> Result<(Value, String, Duration), Failure> {
        let Some(role) = self.database_roles.get(name).copied() else {
            return Err(refused(400, Class::Permanent, &format!("unknown role: {name}")));
        };
        if self.database_down {
            return Err(unreachable_database());
        }
        self.made += 1;
        let username = format!("v-{name}-{:04}-{}", self.made, random(4)?);
        let lease_id = format!("database/creds/{name}/{}", random(12)?);
        let ttl = whole(role.ttl.min(role.max_ttl));
        self.leases.push(LiveLease {
            lease_id: lease_id.clone(),
            username: username.clone(),
            role,
            accessor,
            end: Until::new(now, ttl),
            max: Until::new(now, role.max_ttl),
            revoking: false,
        });
        Ok((json!({ "username": username, "password": random(12)? }), lease_id, ttl))
    }

    fn value(&self, name: &str, query: &str) -> Result<(Value, u64), Failure> {
        let nothing = || refused(404, Class::NotFound, "nothing at this path");
        let versions = self.values.get(name).ok_or_else(nothing)?;
        let newest = versions.len() as u64;
        let number = match query.strip_prefix("version=") {
            Some(number) => number.parse().map_err(|_| refused(400, Class::Permanent, "no such version"))?,
            None => newest,
        };
        let number = if number == 0 { newest } else { number };
        let index = usize::try_from(number - 1).unwrap_or(usize::MAX);
        let version = versions.get(index).ok_or_else(nothing)?;
        let metadata = json!({
            "created_time": version.created.rfc3339(),
            "custom_metadata": null,
            "deletion_time": "",
            "destroyed": false,
            "version": number,
        });
        Ok((json!({ "data": version.data, "metadata": metadata }), number))
    }

    fn names(&self, folder: &str) -> Result<Value, Failure> {
        let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        let mut names: Vec<_> = self
            .values
            .keys()
            .filter_map(|name| name.strip_prefix(&prefix))
            .map(|rest| rest.find('/').map_or(rest, |end| &rest[..=end]))
            .collect();
        names.dedup();
        match names.is_empty() {
            true => Err(refused(404, Class::NotFound, "nothing at this path")),
            false => Ok(json!({ "keys": names })),
        }
    }
}

fn mount_of(path: &str) -> Result<Value, Failure> {
    match path.split('/').next() {
        Some("secret") => Ok(json!({ "path": "secret/", "type": "kv", "options": { "version": "2" } })),
        Some("database") => Ok(json!({ "path": "database/", "type": "database", "options": null })),
        _ => Err(refused(403, Class::Forbidden, "permission denied")),
    }
}

/// What Vault says while its database does not answer.
fn unreachable_database() -> Failure {
    refused(500, Class::Transient, "the database cannot be reached (a failure that was switched on)")
}

/// An answer as Vault would give it: a status, a class, an entry of `errors`.
pub(super) fn refused(status: u16, class: Class, message: &str) -> Failure {
    Failure {
        status: Some(status),
        ..Failure::new(class, format!("the embedded source answered: {message}"))
    }
}

/// Vault counts in whole seconds, rounded down.
fn whole(span: Duration) -> Duration {
    Duration::from_secs(span.as_secs())
}

fn random(bytes: usize) -> Result<String, Failure> {
    let mut text = String::with_capacity(bytes * 2);
    for _ in 0..bytes.div_ceil(4) {
        let word = getrandom::u32()
            .map_err(|error| Failure::new(Class::Transient, format!("no randomness to be had: {error}")))?;
        let _ = write!(text, "{word:08x}");
    }
    text.truncate(bytes * 2);
    Ok(text)
}
