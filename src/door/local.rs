//! `/tenure/…` and `/metrics`: the broker about itself, without a value in it.

use bytes::Bytes;
use http::header::HeaderValue;
use http::{Method, StatusCode};

use super::guard::Who;
use super::{Connection, Request, Response, response};

/// Answers everything that is not `/v1/…`.
///
/// A run's handle opens what names no other run.
pub(super) fn answer(connection: &Connection, who: &Who, request: &Request) -> Response {
    let broker = &connection.doors.broker;
    let path = request.uri().path();
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return response::read_only();
    }
    match path {
        "/tenure/health" => response::json(StatusCode::OK, &b"{\"alive\":true}"[..]),
        "/tenure/ready" => {
            let readiness = broker.ready();
            let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            serialized(status, &readiness)
        }
        "/tenure/leases" if matches!(who, Who::Run(_)) => {
            let reason =
                "a run's handle does not show what others have: ask for the run itself, /tenure/runs/<id>";
            broker.refuse(&connection.caller, connection.via.door(), "handle", reason);
            response::error(StatusCode::FORBIDDEN, reason)
        }
        "/tenure/leases" => serialized(StatusCode::OK, &broker.status()),
        "/metrics" => {
            const OPENMETRICS: HeaderValue =
                HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
            response::with_type(StatusCode::OK, OPENMETRICS, Bytes::from(broker.scrape()))
        }
        _ => response::error(
            StatusCode::NOT_FOUND,
            "no such page: secrets are below /v1/, runs below /tenure/runs; the broker's own pages are /tenure/health, \
             /tenure/ready, /tenure/leases and /metrics",
        ),
    }
}

pub(super) fn serialized(status: StatusCode, value: &impl serde::Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => response::json(status, body),
        Err(error) => response::error(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}
