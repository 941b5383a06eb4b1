//! A small Vault over HTTP that knows which of its credentials are alive, with faults that can be switched on, and a log.
//!
//! Time is the machine's: the processes that are frozen are real.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// What it does instead of answering at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Says nothing, and does nothing.
    Hang,
    /// Does it, and says so only after this time.
    Late(Duration),
    /// Closes the connection after this time, without an answer.
    Close(Duration),
    /// Answers with this status.
    Status(u16),
}

/// One request, as it came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) at: Instant,
    /// `POST auth/approle/login`.
    pub(crate) line: String,
}

/// How long what it gives out lives.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lives {
    pub(crate) login: Duration,
    pub(crate) lease: Duration,
    /// A lease is renewed no further than this from its beginning.
    pub(crate) lease_max: Duration,
}

impl Default for Lives {
    fn default() -> Self {
        let hour = Duration::from_secs(3600);
        Self { login: hour, lease: hour, lease_max: hour }
    }
}

/// A token.
#[derive(Clone, Debug)]
pub(crate) struct Granted {
    pub(crate) accessor: String,
    pub(crate) is_login: bool,
    pub(crate) meta: Value,
    ends: Instant,
    revoked: Option<Instant>,
}

#[derive(Clone, Debug)]
struct Lease {
    token: String,
    made: Instant,
    ends: Instant,
}

#[derive(Default)]
struct State {
    lives: Lives,
    number: u64,
    tokens: BTreeMap<String, Granted>,
    /// By lease id; the last segment is the user's name.
    leases: BTreeMap<String, Lease>,
    /// By what the request's line begins with; how often.
    faults: Vec<(String, Fault, usize)>,
    log: Vec<Asked>,
}

/// It ends when it is dropped.
pub(crate) struct Vault {
    pub(crate) address: String,
    state: Arc<Mutex<State>>,
    server: JoinHandle<()>,
}

impl Drop for Vault {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Vault {
    pub(crate) async fn start(lives: Lives) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let state = Arc::new(Mutex::new(State { lives, ..State::default() }));
        let shared = Arc::clone(&state);
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&shared);
                let service = service_fn(move |request| answer(Arc::clone(&state), request));
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Self { address, state, server }
    }

    /// Has a fault in the next requests whose line begins so.
    pub(crate) fn fail(&self, line: &str, fault: Fault, times: usize) {
        self.state().faults.push((line.to_owned(), fault, times));
    }

    /// No faults any more.
    pub(crate) fn mend(&self) {
        self.state().faults.clear();
    }

    /// Everything that was asked.
    pub(crate) fn log(&self) -> Vec<Asked> {
        self.state().log.clone()
    }

    /// How many requests there were whose line begins so.
    pub(crate) fn count(&self, line: &str) -> usize {
        self.state().log.iter().filter(|asked| asked.line.starts_with(line)).count()
    }

    /// Whether the database user of that name was alive then.
    pub(crate) fn lived(&self, user: &str, at: Instant) -> bool {
        let state = self.state();
        let lease = state.leases.iter().find(|(id, _)| id.rsplit('/').next() == Some(user));
        lease.is_some_and(|(_, lease)| at < lease.ends && state.token_lives(&lease.token, at))
    }

    pub(crate) fn is_alive(&self, user: &str) -> bool {
        self.lived(user, Instant::now())
    }

    /// The database users that are alive.
    pub(crate) fn users(&self) -> usize {
        let (state, now) = (self.state(), Instant::now());
        state.leases.values().filter(|lease| now < lease.ends && state.token_lives(&lease.token, now)).count()
    }

    /// The tokens that are alive.
    pub(crate) fn tokens(&self) -> Vec<Granted> {
        let (state, now) = (self.state(), Instant::now());
        let alive = state.tokens.iter().filter(|(name, _)| state.token_lives(name, now));
        alive.map(|(_, token)| token.clone()).collect()
    }

    /// All run tokens that there ever were.
    pub(crate) fn run_tokens(&self) -> Vec<Granted> {
        self.state().tokens.values().filter(|token| !token.is_login).cloned().collect()
    }

    /// Makes a token that logins could bring, for somebody else to hand on.
    pub(crate) fn token(&self) -> String {
        let mut state = self.state();
        let ttl = state.lives.login;
        let granted = state.grant(true, ttl, Value::Null);
        granted["auth"]["client_token"].as_str().expect("a token").to_owned()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn token_lives(&self, token: &str, at: Instant) -> bool {
        self.tokens
            .get(token)
            .is_some_and(|token| at < token.ends && token.revoked.is_none_or(|when| at < when))
    }

    fn number(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    fn fault(&mut self, line: &str) -> Option<Fault> {
        let found =
            self.faults.iter_mut().find(|(begin, _, times)| *times > 0 && line.starts_with(&**begin))?;
        found.2 -= 1;
        Some(found.1)
    }

    fn grant(&mut self, is_login: bool, ttl: Duration, meta: Value) -> Value {
        let number = self.number();
        let (name, accessor) = (format!("hvs.canary-{number}"), format!("accessor-{number}"));
        let granted =
            Granted { accessor: accessor.clone(), is_login, meta, ends: Instant::now() + ttl, revoked: None };
        self.tokens.insert(name.clone(), granted);
        json!({"request_id": format!("r-{number}"), "auth": {
            "client_token": name, "accessor": accessor, "policies": ["p"], "token_policies": ["p"],
            "lease_duration": ttl.as_secs(), "renewable": true, "token_type": "service", "orphan": true,
        }})
    }

    /// What the request with that line does, and its answer.
    fn perform(&mut self, line: &str, token: &str, body: &Value) -> (u16, Value) {
        let now = Instant::now();
        let refused = |status: u16, why: &str| (status, json!({ "errors": [why] }));
        if line == "POST auth/approle/login" {
            let ttl = self.lives.login;
            return (200, self.grant(true, ttl, Value::Null));
        }
        if !self.token_lives(token, now) {
            return refused(403, "permission denied; invalid token");
        }
        let number = self.number();
        let id = format!("r-{number}");
        match line {
            "POST auth/token/create/run" => {
                let ttl = body["ttl"].as_str().and_then(|ttl| humantime::parse_duration(ttl).ok());
                (200, self.grant(false, ttl.expect("a time to live"), body["meta"].clone()))
            }
            "GET auth/token/lookup-self" => {
                let held = &self.tokens[token];
                let data = json!({"accessor": held.accessor, "policies": ["p"], "ttl": (held.ends - now).as_secs(),
                    "renewable": true, "type": "service", "num_uses": 0, "orphan": true});
                (200, json!({"request_id": id, "data": data}))
            }
            "POST auth/token/renew-self" => {
                let ttl = self.lives.login;
                self.tokens.get_mut(token).expect("alive").ends = now + ttl;
                let auth = json!({"lease_duration": ttl.as_secs(), "renewable": true, "client_token": ""});
                (200, json!({"request_id": id, "auth": auth}))
            }
            "POST auth/token/revoke-self" => {
                self.tokens.get_mut(token).expect("alive").revoked = Some(now);
                (204, Value::Null)
            }
            "POST auth/token/lookup-accessor" => {
                let accessor = body["accessor"].as_str().unwrap_or_default();
                let alive = self.tokens.iter().find(|(_, it)| it.accessor == accessor);
                match alive.is_some_and(|(name, _)| self.token_lives(name, now)) {
                    true => (200, json!({"request_id": id, "data": {}})),
                    false => refused(403, "invalid accessor"),
                }
            }
            "POST sys/leases/lookup" | "PUT sys/leases/lookup" => {
                let lease = self.leases.get(body["lease_id"].as_str().unwrap_or_default());
                match lease.is_some_and(|lease| now < lease.ends && self.token_lives(&lease.token, now)) {
                    true => (200, json!({"request_id": id, "data": {}})),
                    false => refused(400, "invalid lease"),
                }
            }
            "POST sys/leases/renew" | "PUT sys/leases/renew" => {
                let lease_id = body["lease_id"].as_str().unwrap_or_default().to_owned();
                let (ttl, max) = (self.lives.lease, self.lives.lease_max);
                match self.leases.get_mut(&lease_id).filter(|lease| now < lease.ends) {
                    Some(lease) => {
                        lease.ends = (now + ttl).min(lease.made + max);
                        let left = (lease.ends - now).as_secs();
                        (
                            200,
                            json!({"request_id": id, "lease_id": lease_id, "lease_duration": left, "renewable": true}),
                        )
                    }
                    None => refused(400, "lease not found"),
                }
            }
            _ => self.read(line, token, number),
        }
    }

    fn read(&mut self, line: &str, token: &str, number: u64) -> (u16, Value) {
        let now = Instant::now();
        let id = format!("r-{number}");
        if let Some(role) = line.strip_prefix("GET database/creds/") {
            let (user, ttl) = (format!("v-{role}-{number}"), self.lives.lease);
            let lease_id = format!("database/creds/{role}/{user}");
            self.leases
                .insert(lease_id.clone(), Lease { token: token.to_owned(), made: now, ends: now + ttl });
            let data = json!({"username": user, "password": format!("canary-password-{number}")});
            let renewable = self.lives.lease_max > ttl;
            return (
                200,
                json!({"request_id": id, "lease_id": lease_id, "lease_duration": ttl.as_secs(),
                "renewable": renewable, "data": data, "mount_type": "database"}),
            );
        }
        if line.starts_with("GET secret/data/") {
            let data = json!({"data": {"key": "canary-value"}, "metadata": {"version": 1}});
            return (
                200,
                json!({"request_id": id, "lease_id": "", "lease_duration": 0, "renewable": false,
                "data": data, "mount_type": "kv"}),
            );
        }
        (404, json!({ "errors": [] }))
    }
}

async fn answer(
    state: Arc<Mutex<State>>,
    request: Request<Incoming>,
) -> std::io::Result<Response<Full<Bytes>>> {
    let path = request.uri().path().trim_start_matches("/v1/").to_owned();
    let line = format!("{} {path}", request.method());
    let token = request.headers().get("x-vault-token").and_then(|token| token.to_str().ok());
    let token = token.unwrap_or_default().to_owned();
    let body =
        request.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let lock = || state.lock().unwrap_or_else(PoisonError::into_inner);
    let fault = {
        let mut state = lock();
        state.log.push(Asked { at: Instant::now(), line: line.clone() });
        state.fault(&line)
    };
    let (status, said) = match fault {
        Some(Fault::Hang) => std::future::pending().await,
        Some(Fault::Close(after)) => {
            tokio::time::sleep(after).await;
            return Err(std::io::ErrorKind::ConnectionReset.into());
        }
        Some(Fault::Status(status)) => (status, json!({ "errors": ["told to fail"] })),
        Some(Fault::Late(by)) => {
            let done = lock().perform(&line, &token, &body);
            tokio::time::sleep(by).await;
            done
        }
        None => lock().perform(&line, &token, &body),
    };
    let said = if said.is_null() { String::new() } else { said.to_string() };
    let mut response = Response::new(Full::new(Bytes::from(said)));
    *response.status_mut() = status.try_into().expect("a status");
    Ok(response)
}
