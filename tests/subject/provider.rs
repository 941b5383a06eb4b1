//! An OIDC provider: discovery, keys and introspection, with faults that can be switched on, and a log of what was asked.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Collected, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::NOW;
use super::keys::Key;

/// What it does instead of answering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Answers with this status.
    Status(u16),
    /// Closes the connection.
    Close,
    /// Says nothing.
    Hang,
    /// Answers more than anybody wants to hear.
    Huge,
    /// Answers with a page.
    Garbage,
    /// Sends the client elsewhere.
    Redirect,
}

/// One request, as it came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) path: String,
    pub(crate) authorization: String,
    pub(crate) body: String,
}

/// A provider on a port of this machine. It ends when it is dropped.
pub(crate) struct Provider {
    /// Its issuer.
    pub(crate) issuer: String,
    state: Arc<Mutex<State>>,
    server: JoinHandle<()>,
}

struct State {
    keys: Vec<Value>,
    discovery: Value,
    cache_control: Option<String>,
    latency: Duration,
    /// By path.
    faults: BTreeMap<String, Fault>,
    /// What it answers to a token's introspection.
    introspection: Value,
    log: Vec<Asked>,
}

impl Provider {
    /// One with these keys.
    pub(crate) async fn start(keys: &[&Key]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let issuer = format!("http://{}/tenants/a", listener.local_addr().expect("an address"));
        let discovery = json!({
            "issuer": issuer,
            "jwks_uri": format!("{issuer}/jwks"),
            "introspection_endpoint": format!("{issuer}/introspect"),
        });
        let state = Arc::new(Mutex::new(State {
            keys: keys.iter().map(|key| key.jwk()).collect(),
            discovery,
            cache_control: None,
            latency: Duration::ZERO,
            faults: BTreeMap::new(),
            introspection: json!({"active": true}),
            log: Vec::new(),
        }));
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
        Self { issuer, state, server }
    }

    /// The claims of a token that is good for ten minutes from [`NOW`] on.
    pub(crate) fn claims(&self) -> Value {
        json!({
            "iss": self.issuer, "aud": "tenure", "sub": "ada", "groups": ["staff"],
            "iat": NOW, "nbf": NOW, "exp": NOW + 600,
        })
    }

    /// The same, with one of them changed; `null` takes it out.
    pub(crate) fn claims_with(&self, name: &str, value: Value) -> Value {
        let mut claims = self.claims();
        match value {
            Value::Null => drop(claims.as_object_mut().expect("claims").remove(name)),
            value => claims[name] = value,
        }
        claims
    }

    /// Shows these keys from now on.
    pub(crate) fn set_keys(&self, keys: &[&Key]) {
        self.set_jwks(keys.iter().map(|key| key.jwk()).collect());
    }

    /// Shows these JWKs from now on.
    pub(crate) fn set_jwks(&self, keys: Vec<Value>) {
        self.state().keys = keys;
    }

    /// Changes the discovery document.
    pub(crate) fn set_discovery(&self, name: &str, value: Value) {
        self.state().discovery[name] = value;
    }

    /// What it says of how long its keys may be kept.
    pub(crate) fn set_cache_control(&self, said: &str) {
        self.state().cache_control = Some(said.to_owned());
    }

    /// What it answers to an introspection.
    pub(crate) fn set_introspection(&self, answer: Value) {
        self.state().introspection = answer;
    }

    /// How long an answer takes.
    pub(crate) fn set_latency(&self, latency: Duration) {
        self.state().latency = latency;
    }

    /// Has a fault wherever the path ends so: `jwks`, `openid-configuration`, `introspect`.
    pub(crate) fn fail(&self, path: &str, fault: Fault) {
        self.state().faults.insert(path.to_owned(), fault);
    }

    /// Everything fails.
    pub(crate) fn down(&self) {
        self.fail("", Fault::Close);
    }

    /// Nothing fails any more.
    pub(crate) fn recover(&self) {
        self.state().faults.clear();
    }

    /// How often a path that ends so was asked.
    pub(crate) fn count(&self, path: &str) -> usize {
        self.state().log.iter().filter(|asked| asked.path.ends_with(path)).count()
    }

    /// What was asked last.
    pub(crate) fn last(&self) -> Asked {
        self.state().log.last().cloned().expect("nothing was asked")
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("the state")
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn answer(
    state: Arc<Mutex<State>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, std::io::Error> {
    let path = request.uri().path().to_owned();
    let authorization =
        request.headers().get("authorization").map(|value| value.to_str().expect("text").to_owned());
    let body = request.into_body().collect().await.map(Collected::to_bytes).unwrap_or_default();
    let (fault, latency) = {
        let mut state = state.lock().expect("the state");
        state.log.push(Asked {
            path: path.clone(),
            authorization: authorization.unwrap_or_default(),
            body: String::from_utf8_lossy(&body).into_owned(),
        });
        let fault =
            state.faults.iter().find(|(end, _)| path.ends_with(end.as_str())).map(|(_, fault)| *fault);
        (fault, state.latency)
    };
    if !latency.is_zero() {
        tokio::time::sleep(latency).await;
    }
    let plain = |status: u16, text: String| {
        Response::builder().status(status).body(Full::from(text)).expect("an answer")
    };
    match fault {
        Some(Fault::Status(status)) => return Ok(plain(status, "{}".to_owned())),
        Some(Fault::Close) => return Err(std::io::Error::other("closed")),
        Some(Fault::Hang) => {
            let _: Infallible = std::future::pending().await;
        }
        Some(Fault::Huge) => return Ok(plain(200, format!("{{\"keys\":[\"{}\"]}}", "x".repeat(1 << 20)))),
        Some(Fault::Garbage) => return Ok(plain(200, "<html>\u{0}".to_owned())),
        Some(Fault::Redirect) => {
            let elsewhere = Response::builder().status(StatusCode::FOUND).header("location", "/elsewhere");
            return Ok(elsewhere.body(Full::default()).expect("an answer"));
        }
        None => {}
    }
    let state = state.lock().expect("the state");
    let said = match path.rsplit('/').next().unwrap_or_default() {
        "openid-configuration" => &state.discovery,
        "jwks" => &json!({"keys": state.keys}),
        "introspect" => &state.introspection,
        _ => return Ok(plain(404, "{}".to_owned())),
    };
    let mut response = Response::builder().header("content-type", "application/json");
    if let Some(said) = &state.cache_control {
        response = response.header("cache-control", said);
    }
    Ok(response.body(Full::from(said.to_string())).expect("an answer"))
}
