//! The Secrets Manager door: what programs read that were written for AWS's Parameters and Secrets Lambda extension, or
//! for its agent, answered from the broker.
//!
//! | request | answer |
//! |---|---|
//! | `GET /secretsmanager/get?secretId=…`, `GET /v1/<secret id>` | as `GetSecretValue` answers |
//! | `GET /systemsmanager/parameters/get?name=…` | as `GetParameter` answers |
//! | `GET /ping` | `healthy`, to anybody |
//!
//! Callers present the door's token as `X-Aws-Parameters-Secrets-Token` (or as `X-Vault-Token`, which the agent takes as
//! well), or a run's handle. Which id is which path is configured, and no other can be asked for.
//!
//! `refreshNow` asks for what a cache must not hold back. The broker holds nothing back: what has a lease is replaced before
//! it ends, a KV value is as old as `cache.kv_fresh` at most; so it is taken, and changes nothing. `Age` says how old the
//! answer is.
//!
//! <https://docs.aws.amazon.com/secretsmanager/latest/userguide/retrieving-secrets_lambda.html>,
//! <https://docs.aws.amazon.com/systems-manager/latest/userguide/ps-integration-lambda-extensions.html>,
//! <https://github.com/aws/aws-secretsmanager-agent>

use std::collections::HashMap;

use bytes::Bytes;
use http::header::HeaderValue;
use http::{Method, StatusCode};

use self::asked::{Asked, Kind, Wrong};
use super::guard::{LocalToken, Who};
use super::{Connection, Request, Response, response, vault};
use crate::broker::{Denied, ReadRequest};
use crate::lease::upstream::ReadKey;

mod answer;
mod asked;

/// Answered to anybody: whoever watches the process learns that it is alive, and nothing else.
pub(super) const PING: &str = "/ping";

/// A secret of this door, and the one of Vault that it stands for.
#[derive(Clone, Debug)]
pub struct MappedSecret {
    /// The name or ARN that callers ask for.
    pub id: String,
    /// The path below `/v1/`, as [`ReadKey::path`] has it.
    pub path: String,
    /// The one field that is the answer; `None`: all of them.
    pub field: Option<String>,
}

/// What the Secrets Manager door serves, and to whom.
#[derive(Debug)]
pub struct SecretsManager {
    pub(super) token: LocalToken,
    secrets: HashMap<String, MappedSecret>,
}

impl SecretsManager {
    /// Serves these secrets to those who present the token.
    #[must_use]
    pub fn new(token: LocalToken, secrets: impl IntoIterator<Item = MappedSecret>) -> Self {
        Self { token, secrets: secrets.into_iter().map(|secret| (secret.id.clone(), secret)).collect() }
    }
}

/// Answers everything on this listener.
pub(super) async fn answer(
    connection: &Connection,
    door: &SecretsManager,
    who: &Who,
    request: &Request,
) -> Response {
    let broker = &connection.doors.broker;
    let refuse = |status, kind, policy: &str, reason: &str| {
        broker.refuse(&connection.caller, connection.via.door(), policy, reason);
        named(status, kind, reason)
    };
    let (uri, bad) = (request.uri(), StatusCode::BAD_REQUEST);
    if *request.method() != Method::GET {
        let reason = "this door serves reads: GET; write to Vault itself, with a login of your own";
        return refuse(StatusCode::METHOD_NOT_ALLOWED, "InvalidRequestException", "http", reason);
    }
    if uri.path() == PING {
        return response::with_type(
            StatusCode::OK,
            HeaderValue::from_static("text/plain"),
            Bytes::from_static(b"healthy"),
        );
    }
    let asked = match Asked::of(uri.path(), uri.query().unwrap_or_default()) {
        Ok(asked) => asked,
        Err(Wrong::Page) => {
            let reason = "no such page: secrets are at /secretsmanager/get?secretId=… and /v1/…, parameters at \
                          /systemsmanager/parameters/get?name=…";
            return refuse(StatusCode::NOT_FOUND, "ResourceNotFoundException", "http", reason);
        }
        Err(Wrong::Parameter(reason)) => return refuse(bad, "InvalidParameterException", "http", &reason),
        Err(Wrong::Version(reason)) => return refuse(bad, "ResourceNotFoundException", "http", &reason),
    };
    let Some(secret) = door.secrets.get(&asked.id) else {
        let reason = format!(
            "the id {:?} stands for nothing in Vault: add a [[listen.secrets_manager.secret]] with this id and a path",
            asked.id
        );
        let kind = match asked.kind {
            Kind::Secret => "ResourceNotFoundException",
            Kind::Parameter => "ParameterNotFound",
        };
        return refuse(bad, kind, "listen.secrets_manager.secret", &reason);
    };
    if asked.version.is_some() && !secret.path.contains("/data/") {
        let reason = format!("{} has no versions: values of KV v2 have; leave the version out", secret.path);
        return refuse(bad, "ResourceNotFoundException", "http", &reason);
    }
    let min_left = match vault::min_left(request) {
        Ok(min_left) => min_left,
        Err(reason) => return refuse(bad, "InvalidParameterException", "http", &reason),
    };
    let query = asked.version.map_or_else(Default::default, |version| format!("version={version}").into());
    let key = ReadKey { path: secret.path.as_str().into(), query, list: false };
    let run = match vault::run_of(connection, who, request).await {
        Ok(run) => run,
        Err(refusal) => return *refusal,
    };
    let read = ReadRequest { key, min_left };
    match vault::disclosed(connection, who, request, &run, &read).await {
        Err(denied) => error_of(asked.kind, &denied),
        Ok(disclosed) => answer::disclosed(&asked, secret, &disclosed, broker.now())
            .unwrap_or_else(|unfit| named(bad, "InvalidRequestException", &unfit)),
    }
}

/// `{"__type": kind, "message": message}`: an error as AWS's services write it.
fn named(status: StatusCode, kind: &str, message: &str) -> Response {
    response::json(status, serde_json::json!({ "__type": kind, "message": message }).to_string())
}

/// What is refused before it is looked at, in AWS's shape.
pub(super) fn error(status: StatusCode, message: &str) -> Response {
    named(status, kind_of(Kind::Secret, status), message)
}

/// The one place where a denial becomes an error of AWS's. These services say 400 of whatever the caller can mend.
fn error_of(kind: Kind, denied: &Denied) -> Response {
    let (status, retry) = response::status_of(denied);
    let shown = if status.is_client_error() { StatusCode::BAD_REQUEST } else { status };
    let response = named(shown, kind_of(kind, status), &denied.to_string());
    match retry {
        Some(seconds) => response::retry_after(response, seconds),
        None => response,
    }
}

/// The name by which clients know an error.
fn kind_of(kind: Kind, status: StatusCode) -> &'static str {
    match (status, kind) {
        (StatusCode::FORBIDDEN, _) => "AccessDeniedException",
        (StatusCode::NOT_FOUND, Kind::Secret) => "ResourceNotFoundException",
        (StatusCode::NOT_FOUND, Kind::Parameter) => "ParameterNotFound",
        (StatusCode::TOO_MANY_REQUESTS, _) => "ThrottlingException",
        (StatusCode::GONE, _) => "InvalidRequestException",
        (status, _) if status.is_client_error() => "InvalidParameterException",
        (StatusCode::SERVICE_UNAVAILABLE, _) => "ServiceUnavailable",
        (_, Kind::Secret) => "InternalServiceError",
        (_, Kind::Parameter) => "InternalServerError",
    }
}
