//! The Vault API door: what Vault's own clients read, answered from the broker.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use http::{HeaderName, Method, StatusCode, Uri};

use super::guard::Who;
use super::{Connection, Request, Response, response, target};
use crate::broker::{Active, ReadRequest};
use crate::lease::upstream::ReadKey;

const MIN_TTL: HeaderName = HeaderName::from_static("x-tenure-min-ttl");

/// The request id of the Lambda invocation that reads, where several are served at a time.
const INVOCATION: HeaderName = HeaderName::from_static("x-tenure-invocation");

/// Answers `/v1/…`.
pub(super) async fn answer(connection: &Connection, who: &Who, request: &Request) -> Response {
    let broker = &connection.doors.broker;
    let refuse = |reason: &str| {
        broker.refuse(&connection.caller, connection.via.door(), "http", reason);
        response::error(StatusCode::BAD_REQUEST, reason)
    };
    let list = match *request.method() {
        Method::GET => false,
        ref method if method.as_str() == "LIST" => true,
        _ => return response::read_only(),
    };
    let run = run_of(connection, who, request);
    let uri = request.uri();
    let path = uri.path().strip_prefix("/v1/").unwrap_or_default();
    if path == "auth/token/lookup-self" && !list {
        return lookup_self(connection, &run);
    }
    let key = match connection.key(uri, path, list) {
        Ok(key) => key,
        Err(reason) => return refuse(&reason),
    };
    let min_left = match min_left(request) {
        Ok(min_left) => min_left,
        Err(reason) => return refuse(&reason),
    };
    match broker.read(&connection.asker, &run, &ReadRequest { key, min_left }).await {
        Ok(disclosed) => response::disclosed(&disclosed),
        Err(denied) => response::denied(&denied),
    }
}

/// On whose behalf is read: the run whose handle was presented, the Lambda invocation that is named or the only one that is
/// served, or the process's own run.
pub(super) fn run_of(connection: &Connection, who: &Who, request: &Request) -> Arc<Active> {
    match who {
        Who::Run(run) => Arc::clone(run),
        Who::Anybody | Who::Registrant => {
            let named = request.headers().get(INVOCATION).map(http::HeaderValue::as_bytes);
            connection.doors.broker.runs().current(named)
        }
    }
}

/// The least life that is asked for; zero where nothing is said.
pub(super) fn min_left(request: &Request) -> Result<Duration, String> {
    let said = request.headers().get(MIN_TTL);
    said.map_or(Ok(Duration::ZERO), |text| target::min_ttl(text.as_bytes()))
}

impl Connection {
    /// What a target asks for. A GET's is kept for the next one: a key that is shared costs no allocation.
    fn key(&self, uri: &Uri, path: &str, list: bool) -> Result<ReadKey, String> {
        let Some(target) = uri.path_and_query().filter(|_| !list) else {
            return target::parse(path, uri.query(), list);
        };
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some((known, key)) if **known == *target.as_str() => Ok(key.clone()),
            _ => {
                let key = target::parse(path, uri.query(), list)?;
                *last = Some((target.as_str().into(), key.clone()));
                Ok(key)
            }
        }
    }
}

/// What clients ask to see whether their token is good. The answer is about the run; the token itself stays here.
fn lookup_self(connection: &Connection, run: &Arc<Active>) -> Response {
    let broker = &connection.doors.broker;
    if let Err(denied) = broker.goes_on(run) {
        return response::denied(&denied);
    }
    // A run that has read nothing yet has no token: it is as good as the run is.
    let meta = run.run.metadata();
    let Some(work) = run.work() else {
        let left = broker.left(run.deadline());
        let body = serde_json::json!({
            "request_id": "", "lease_id": "", "renewable": false, "lease_duration": 0,
            "data": {
                "id": "", "accessor": "", "display_name": "tenure", "type": "service", "path": "tenure",
                "policies": [], "ttl": left, "renewable": false, "num_uses": 0, "meta": meta,
            },
            "wrap_info": null, "warnings": null, "auth": null,
        });
        return response::json(StatusCode::OK, body.to_string());
    };
    let view = work.parent.view();
    let Some(held) = view.held.as_ref() else {
        return response::error(StatusCode::SERVICE_UNAVAILABLE, "the run has no token yet");
    };
    let left = broker.left_of(held).as_secs();
    let body = serde_json::json!({
        "request_id": "", "lease_id": "", "renewable": false, "lease_duration": 0,
        "data": {
            "id": "", "accessor": "", "display_name": "tenure", "type": "service", "path": "tenure",
            "policies": held.payload.policies, "ttl": left, "creation_ttl": held.full.as_secs(),
            "renewable": false, "orphan": held.payload.orphan, "num_uses": 0, "explicit_max_ttl": 0,
            "entity_id": "", "creation_time": held.own.from.wall().as_secs(), "issue_time": held.own.from.rfc3339(),
            "expire_time": held.ends().rfc3339(), "meta": meta,
        },
        "wrap_info": null, "warnings": null, "auth": null,
    });
    response::json(StatusCode::OK, body.to_string())
}
