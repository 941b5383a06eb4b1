//! The Vault API door: what Vault's own clients read, answered from the broker.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, StatusCode, Uri};

use super::guard::Who;
use super::named::{self, INVOCATION};
use super::{Connection, Request, Response, response, runs, target};
use crate::broker::{Active, Cause, Denied, Disclosed, ReadRequest};
use crate::lease::upstream::ReadKey;

const MIN_TTL: HeaderName = HeaderName::from_static("x-tenure-min-ttl");

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
    let run = match run_of(connection, who, request).await {
        Ok(run) => run,
        Err(refusal) => return *refusal,
    };
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
    let read = ReadRequest { key, min_left };
    match disclosed(connection, who, request, &run, &read).await {
        Ok(disclosed) => response::disclosed(&disclosed),
        Err(denied) => response::denied(&denied),
    }
}

/// On whose behalf a request is made: the run that it names by its execution, the one whose handle it presents, the Lambda
/// invocation that is named or the only one that is served, or the process's own run.
pub(super) async fn run_of(
    connection: &Connection,
    who: &Who,
    request: &Request,
) -> Result<Arc<Active>, Box<Response>> {
    let broker = &connection.doors.broker;
    let invocation = request.headers().get(INVOCATION);
    match (named::execution(request.headers()), who) {
        (Err(why), _) => Err(Box::new(runs::refused(connection, &why))),
        (Ok(Some(named)), _) => {
            let registered = broker.named(runs::visitor(connection, who, invocation), named);
            Box::pin(registered).await.map_err(|refusal| Box::new(runs::refusal_of(&refusal)))
        }
        (Ok(None), Who::Run(run)) => Ok(Arc::clone(run)),
        (Ok(None), Who::Anybody | Who::Registrant) => {
            Ok(broker.runs().current(invocation.map(HeaderValue::as_bytes)).await)
        }
    }
}

/// Reads on behalf of [the run](run_of) of a request.
pub(super) async fn disclosed(
    connection: &Connection,
    who: &Who,
    request: &Request,
    run: &Arc<Active>,
    read: &ReadRequest,
) -> Result<Disclosed, Denied> {
    let broker = &connection.doors.broker;
    let answer = broker.read(&connection.asker, run, read).await;
    let names_none = !matches!(who, Who::Run(_)) && !named::is_there(request.headers());
    if names_none && matches!(answer, Err(Denied::Over { cause: Cause::Ended, .. })) {
        // Who named no run has no part in the end of one: another may have begun meanwhile.
        let invocation = request.headers().get(INVOCATION).map(HeaderValue::as_bytes);
        let now = broker.runs().current(invocation).await;
        if !Arc::ptr_eq(&now, run) {
            return broker.read(&connection.asker, &now, read).await;
        }
    }
    answer
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
