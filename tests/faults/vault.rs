//! A Vault that remembers: each secret that it ever issued, for which path, and until when it is good by its own clock.
//!
//! It knows what one broker asks for: a login, run tokens, leased users below `database/creds/`, a KV value that
//! changes all the time, renewals, look-ups and revocations. The rules are those of Vault 1.21.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// How long one version of the value is the current one.
const VERSION: Duration = Duration::from_millis(100);

/// Longer than any row.
const LONG: Duration = Duration::from_secs(3600);

/// A token that is younger may be unknown to a node that lags behind: that it is gone need not be believed.
const YOUNG: Duration = Duration::from_secs(2);

/// What a login token lives where logins fail: it ends within the fault.
const SHORT_LOGIN: Duration = Duration::from_secs(2);

/// An answer, and what it was about: the path of a lease, or which token.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
    pub(crate) about: String,
}

/// What is known of a user that was issued.
#[derive(Clone, Debug)]
pub(crate) struct Issued {
    pub(crate) path: String,
    /// It is dead from then on, by this clock.
    pub(crate) dies: Instant,
    /// It died of a revocation of which the broker could not know before that; `None` where it could know by itself.
    pub(crate) told: Option<Told>,
}

/// When the broker heard that its token is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    NotYet,
    At(Instant),
}

#[derive(Debug)]
struct Token {
    accessor: String,
    is_login: bool,
    ends: Instant,
    ttl: Duration,
    /// Revoked by us at the broker's request, or behind its back.
    revoked: Option<Instant>,
    behind: bool,
    made: Instant,
    /// When a look-up was first answered with "invalid token", and had to be believed.
    told: Option<Instant>,
}

#[derive(Debug)]
struct Lease {
    id: String,
    path: String,
    token: String,
    ends: Instant,
    ttl: Duration,
    /// Revoked by its id, behind the broker's back, and when a renewal was first answered so.
    revoked: Option<Instant>,
    told: Option<Instant>,
}

#[derive(Debug, Default)]
struct State {
    made: u64,
    tokens: BTreeMap<String, Token>,
    /// By their password.
    leases: BTreeMap<String, Lease>,
    /// The policy of run tokens gives nothing at the moment.
    withdrawn: bool,
    /// Login tokens are short, and cannot be renewed.
    short_logins: bool,
}

/// The Vault. What reaches it, and what of it reaches the broker, is the wire's business.
#[derive(Debug)]
pub(crate) struct Vault {
    began: Instant,
    state: Mutex<State>,
}

impl Token {
    fn is_alive(&self, now: Instant) -> bool {
        self.revoked.is_none() && now < self.ends
    }
}

impl Vault {
    pub(crate) fn new(short_logins: bool) -> Self {
        Self { began: Instant::now(), state: Mutex::new(State { short_logins, ..State::default() }) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of the user with that password.
    pub(crate) fn issued(&self, password: &str) -> Option<Issued> {
        let state = self.state();
        let lease = state.leases.get(password)?;
        let token = state.tokens.get(&lease.token)?;
        let mut dies = lease.ends.min(token.ends);
        let mut told = None;
        for (revoked, behind, heard) in
            [(lease.revoked, true, lease.told), (token.revoked, token.behind, token.told)]
        {
            if let Some(at) = revoked.filter(|at| *at < dies) {
                dies = at;
                told = behind.then(|| heard.map_or(Told::NotYet, Told::At));
            }
        }
        Some(Issued { path: lease.path.clone(), dies, told })
    }

    /// When that value stopped being the current one, if it has, and whether it ever was one.
    pub(crate) fn superseded(&self, value: &str) -> Option<Instant> {
        let number: u32 = value.strip_prefix("value-")?.parse().ok()?;
        let until = self.began + VERSION * (number + 1);
        (self.began + VERSION * number <= Instant::now()).then_some(until)
    }

    /// Tokens that are good now.
    pub(crate) fn tokens(&self) -> usize {
        let now = Instant::now();
        self.state().tokens.values().filter(|token| token.is_alive(now)).count()
    }

    /// Revokes tokens behind the broker's back: the run's, or the login's.
    pub(crate) fn revoke(&self, logins: bool) {
        let now = Instant::now();
        for token in self.state().tokens.values_mut().filter(|token| token.is_login == logins) {
            token.revoked.get_or_insert(now);
            token.behind = true;
        }
    }

    /// Revokes all leases behind the broker's back.
    pub(crate) fn revoke_leases(&self) {
        let now = Instant::now();
        for lease in self.state().leases.values_mut() {
            lease.revoked.get_or_insert(now);
        }
    }

    /// Takes the run's policy away, or gives it back.
    pub(crate) fn withdraw(&self, withdrawn: bool) {
        self.state().withdrawn = withdrawn;
    }

    /// What a request is about that does not get here.
    pub(crate) fn about(&self, path: &str, token: Option<&str>, body: &Value) -> Answer {
        Answer { status: 0, body: String::new(), about: self.state().about(path, token, body) }
    }

    /// Answers a request; `path` is without `/v1/`.
    pub(crate) fn answer(&self, path: &str, token: Option<&str>, body: &Value) -> Answer {
        let now = Instant::now();
        let mut state = self.state();
        let about = state.about(path, token, body);
        let (status, body) = match path.strip_prefix("auth/jwt/login") {
            Some(_) => state.log_in(now),
            None => state.with_token(self.began, path, token.unwrap_or_default(), body, now),
        };
        Answer { status, body: body.map(|body| body.to_string()).unwrap_or_default(), about }
    }
}

type Said = (u16, Option<Value>);

fn refused(status: u16, why: &str) -> Said {
    (status, Some(json!({ "errors": [why] })))
}

fn unknown_token() -> Said {
    refused(403, "2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n")
}

impl State {
    /// What a request is about: for a lease its path, whether it is minted or renewed.
    fn about(&self, path: &str, token: Option<&str>, body: &Value) -> String {
        let of_lease = |id: &str| id.rsplit_once('/').map_or(id, |(path, _)| path).to_owned();
        match path {
            "auth/jwt/login" => "login token".to_owned(),
            _ if path.starts_with("auth/token/create/") => "run token".to_owned(),
            "auth/token/renew-self" | "auth/token/lookup-self" | "auth/token/revoke-self" => {
                let token = token.and_then(|token| self.tokens.get(token));
                if token.is_some_and(|token| token.is_login) { "login token" } else { "run token" }.to_owned()
            }
            "sys/leases/renew" => body["lease_id"].as_str().map(of_lease).unwrap_or_default(),
            other => other.to_owned(),
        }
    }

    fn log_in(&mut self, now: Instant) -> Said {
        let short = self.short_logins;
        self.make_token(true, if short { SHORT_LOGIN } else { LONG }, !short, now)
    }

    fn make_token(&mut self, is_login: bool, ttl: Duration, renewable: bool, now: Instant) -> Said {
        self.made += 1;
        let (id, accessor) =
            (format!("hvs.{:024}", self.made), format!("accessor-{}-{}", self.made, u8::from(is_login)));
        let token = Token {
            accessor: accessor.clone(),
            is_login,
            ends: now + ttl,
            ttl,
            revoked: None,
            behind: false,
            made: now,
            told: None,
        };
        self.tokens.insert(id.clone(), token);
        let auth = json!({
            "client_token": id, "accessor": accessor, "policies": ["default", "orders"],
            "token_policies": ["default", "orders"], "lease_duration": ttl.as_secs(), "renewable": renewable,
            "token_type": "service", "orphan": true, "num_uses": 0,
        });
        (200, Some(json!({ "request_id": format!("request-{}", self.made), "auth": auth })))
    }

    fn with_token(&mut self, began: Instant, path: &str, id: &str, body: &Value, now: Instant) -> Said {
        let Some(token) = self.tokens.get_mut(id).filter(|token| token.is_alive(now)) else {
            if path == "auth/token/lookup-self"
                && let Some(token) = self.tokens.get_mut(id)
                && now > token.made + YOUNG
            {
                token.told.get_or_insert(now);
            }
            return unknown_token();
        };
        let denied = self.withdrawn && !token.is_login;
        match path {
            "auth/token/lookup-self" => {
                let left = (token.ends - now).as_secs();
                (200, Some(json!({ "request_id": "looked-up", "data": { "ttl": left, "type": "service" } })))
            }
            "auth/token/renew-self" => {
                token.ends = now + token.ttl;
                let auth = json!({ "client_token": id, "accessor": token.accessor,
                    "lease_duration": token.ttl.as_secs(), "renewable": true });
                (200, Some(json!({ "request_id": "renewed", "auth": auth })))
            }
            "auth/token/revoke-self" => {
                token.revoked = Some(now);
                (204, None)
            }
            "auth/token/create/run" => self.make_token(false, LONG, true, now),
            "auth/token/lookup-accessor" | "auth/token/revoke-accessor" => {
                let accessor = body["accessor"].as_str().unwrap_or_default();
                let about = self.tokens.values_mut().find(|it| it.accessor == accessor && it.is_alive(now));
                match about {
                    None => refused(404, "1 error occurred:\n\t* invalid accessor\n\n"),
                    Some(about) if path.ends_with("revoke-accessor") => {
                        about.revoked = Some(now);
                        (204, None)
                    }
                    Some(_) => (200, Some(json!({ "request_id": "looked-up", "data": {} }))),
                }
            }
            "sys/leases/lookup" => match self.lease(body, now) {
                None => refused(400, "invalid lease"),
                Some(_) => (200, Some(json!({ "request_id": "looked-up", "data": {} }))),
            },
            _ if denied => refused(403, "1 error occurred:\n\t* permission denied\n\n"),
            "sys/leases/renew" => self.renew(body, now),
            "secret/data/config" => (200, Some(value(began, now))),
            _ => match path.strip_prefix("database/creds/") {
                Some(name) => self.mint(path, name, id, now),
                None => refused(404, "no handler for route"),
            },
        }
    }

    /// The lease that a body names, if it is alive.
    fn lease(&mut self, body: &Value, now: Instant) -> Option<&mut Lease> {
        let id = body["lease_id"].as_str()?;
        let tokens = &self.tokens;
        let is_alive = |lease: &Lease| {
            let token = tokens.get(&lease.token);
            lease.revoked.is_none() && now < lease.ends && token.is_some_and(|token| token.is_alive(now))
        };
        self.leases.values_mut().find(|lease| lease.id == id && is_alive(lease))
    }

    fn renew(&mut self, body: &Value, now: Instant) -> Said {
        let id = body["lease_id"].clone();
        let Some(lease) = self.lease(body, now) else {
            if let Some(lease) = self.leases.values_mut().find(|lease| *lease.id == id) {
                lease.told.get_or_insert(now);
            }
            return refused(400, "lease not found");
        };
        lease.ends = now + lease.ttl;
        let ttl = lease.ttl.as_secs();
        let body =
            json!({ "request_id": "renewed", "lease_id": id, "lease_duration": ttl, "renewable": true });
        (200, Some(body))
    }

    fn mint(&mut self, path: &str, name: &str, token: &str, now: Instant) -> Said {
        let ttl = if name == "short" { Duration::from_secs(2) } else { LONG };
        self.made += 1;
        let (id, password) = (format!("{path}/{}", self.made), format!("password-{}", self.made));
        let body = json!({
            "request_id": format!("request-{}", self.made), "lease_id": id, "lease_duration": ttl.as_secs(),
            "renewable": true, "data": { "username": format!("v-{name}-{}", self.made), "password": password },
            "mount_type": "database",
        });
        let lease = Lease {
            id,
            path: path.to_owned(),
            token: token.to_owned(),
            ends: now + ttl,
            ttl,
            revoked: None,
            told: None,
        };
        self.leases.insert(password, lease);
        (200, Some(body))
    }
}

/// The value that is current: another one ten times a second.
fn value(began: Instant, now: Instant) -> Value {
    let number = (now - began).as_millis() / VERSION.as_millis();
    let data =
        json!({ "data": { "value": format!("value-{number}") }, "metadata": { "version": number + 1 } });
    json!({ "request_id": "read", "lease_id": "", "lease_duration": 0, "renewable": false, "data": data,
        "mount_type": "kv" })
}
