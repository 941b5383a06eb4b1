//! The Vault API door: what Vault's own clients read, answered from the broker.

use http::{Method, StatusCode};

use super::{Connection, Request, Response, response, target};
use crate::broker::ReadRequest;

/// Answers `/v1/…`.
pub(super) async fn answer(connection: &Connection, request: &Request) -> Response {
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
    let uri = request.uri();
    let path = uri.path().strip_prefix("/v1/").unwrap_or_default();
    if path == "auth/token/lookup-self" && !list {
        return lookup_self(connection);
    }
    let key = match target::parse(path, uri.query(), list) {
        Ok(key) => key,
        Err(reason) => return refuse(&reason),
    };
    let min_left =
        match request.headers().get("x-tenure-min-ttl").map(|text| target::min_ttl(text.as_bytes())) {
            None => std::time::Duration::ZERO,
            Some(Ok(min_left)) => min_left,
            Some(Err(reason)) => return refuse(&reason),
        };
    match broker.read(&connection.asker, &ReadRequest { key, min_left }).await {
        Ok(disclosed) => response::disclosed(&disclosed),
        Err(denied) => response::denied(&denied),
    }
}

/// What clients ask to see whether their token is good. The answer is about the run; the token itself stays here.
fn lookup_self(connection: &Connection) -> Response {
    let runs = connection.doors.broker.runs();
    let view = runs.parent().view();
    let Some(held) = view.held.as_ref() else {
        return response::error(StatusCode::SERVICE_UNAVAILABLE, "the run has no token yet");
    };
    let left = connection.doors.broker.left_of(held).as_secs();
    let body = serde_json::json!({
        "request_id": "", "lease_id": "", "renewable": false, "lease_duration": 0,
        "data": {
            "id": "", "accessor": "", "display_name": "tenure", "type": "service", "path": "tenure",
            "policies": held.payload.policies, "ttl": left, "creation_ttl": held.full.as_secs(),
            "renewable": false, "orphan": held.payload.orphan, "num_uses": 0, "explicit_max_ttl": 0,
            "entity_id": "", "creation_time": held.own.from.wall.as_secs(), "issue_time": held.own.from.rfc3339(),
            "expire_time": held.ends().rfc3339(), "meta": runs.run.metadata(),
        },
        "wrap_info": null, "warnings": null, "auth": null,
    });
    response::json(StatusCode::OK, body.to_string())
}
