//! `/tenure/runs`: registering, showing, extending and ending runs.
//!
//! | request | answer |
//! |---|---|
//! | `POST /tenure/runs` | 201 with the run and its handle; 200 if it is registered already |
//! | `GET /tenure/runs` | those that the caller registered |
//! | `GET /tenure/runs/<id>` | one |
//! | `PATCH /tenure/runs/<id>` | 200 with the run, which goes on as long as its rule allows |
//! | `DELETE /tenure/runs/<id>` | 204: its handle is refused from now on, its token is being revoked |

use std::collections::BTreeMap;
use std::time::Duration;

use http::header::{ALLOW, HeaderValue};
use http::{Method, StatusCode};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::guard::Who;
use super::local::serialized;
use super::named::INVOCATION;
use super::{Connection, Request, Response, Via, response};
use crate::broker::{Cause, Registrant, RunRefusal, Visitor};
use crate::caller::Caller;
use crate::clock::{Moment, Until};
use crate::run::request::{self, Facts};
use crate::run::subject::SubjectKind;
use crate::secret::Credential;

/// The largest body: two tokens, tags, names.
const LARGEST: usize = 64 * 1024;

/// How long a body may take to come.
const BODY: Duration = Duration::from_secs(10);

const MEMBERS: &[&str] = &[
    "execution_arn",
    "state",
    "attempt",
    "parent_execution_arn",
    "root_execution_arn",
    "timeout_seconds",
    "deadline",
    "subject",
    "subject_token",
    "task_token",
    "tags",
];

/// Answers `/tenure/runs`.
pub(super) async fn all(connection: &Connection, who: &Who, request: Request) -> Response {
    let broker = &connection.doors.broker;
    let invocation = request.headers().get(INVOCATION).cloned();
    let visitor = visitor(connection, who, invocation.as_ref());
    match *request.method() {
        Method::GET => serialized(StatusCode::OK, &serde_json::json!({ "runs": broker.list(visitor) })),
        Method::POST => {
            let registration = match body(connection, request).await {
                Ok(said) => registration(said, broker.now()),
                Err(refusal) => return refusal,
            };
            let registration = match registration {
                Ok(registration) => registration,
                Err(why) => return refused(connection, &why),
            };
            match broker.register(visitor, registration).await {
                Ok((run, true)) => serialized(StatusCode::CREATED, &run),
                Ok((run, false)) => serialized(StatusCode::OK, &run),
                Err(refusal) => refusal_of(&refusal),
            }
        }
        _ => method_not_allowed("GET, POST"),
    }
}

/// Answers `/tenure/runs/<id>`.
pub(super) async fn one(connection: &Connection, who: &Who, id: &str, request: Request) -> Response {
    let broker = &connection.doors.broker;
    let visitor = visitor(connection, who, None);
    let shown = match *request.method() {
        Method::GET => broker.inspect(visitor, id),
        Method::DELETE => match broker.end_run(visitor, id) {
            Ok(()) => {
                return response::no_content();
            }
            Err(error) => Err(error),
        },
        Method::PATCH => {
            let to = match body(connection, request).await {
                Ok(said) => extension(said, broker.now()),
                Err(refusal) => return refusal,
            };
            match to {
                Ok(to) => broker.extend(visitor, id, to),
                Err(why) => return refused(connection, &why),
            }
        }
        _ => return method_not_allowed("GET, PATCH, DELETE"),
    };
    match shown {
        Ok(run) => serialized(StatusCode::OK, &run),
        Err(Some(cause)) => over(id, cause),
        Err(None) => response::error(StatusCode::NOT_FOUND, "there is no such run, or it is not yours"),
    }
}

pub(super) fn visitor<'a>(
    connection: &'a Connection,
    who: &'a Who,
    invocation: Option<&'a HeaderValue>,
) -> Visitor<'a> {
    let run = match who {
        Who::Run(run) => Some(run),
        Who::Anybody | Who::Registrant => None,
    };
    let registrant = match (connection.via, connection.caller) {
        (Via::Unix, Caller::Unix { uid, .. }) => Some(Registrant::Uid(uid)),
        (Via::Tcp, _) if run.is_none() => Some(Registrant::Holder),
        _ => None,
    };
    let invocation = invocation.map(HeaderValue::as_bytes);
    Visitor { asker: &connection.asker, registrant, run, invocation }
}

/// What was said, wiped when it was read.
async fn body(connection: &Connection, request: Request) -> Result<Map<String, Value>, Response> {
    let wrong = |status, why: &str| response::error(status, why);
    let Some(_reading) = connection.place.body() else {
        let busy = wrong(
            StatusCode::TOO_MANY_REQUESTS,
            "too many bodies of yours are on their way: send fewer requests at a time",
        );
        return Err(response::retry_after(busy, 1));
    };
    let collected = Limited::new(request.into_body(), LARGEST).collect();
    let Ok(collected) = tokio::time::timeout(BODY, collected).await else {
        return Err(wrong(
            StatusCode::REQUEST_TIMEOUT,
            &format!("the body was not there within {} s", BODY.as_secs()),
        ));
    };
    let collected = collected.map_err(|error| {
        if error.is::<LengthLimitError>() {
            wrong(StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than 64 KiB")
        } else {
            wrong(StatusCode::BAD_REQUEST, "the body ended early")
        }
    })?;
    let text = Zeroizing::new(collected.to_bytes().to_vec());
    if text.iter().all(u8::is_ascii_whitespace) {
        return Ok(Map::new());
    }
    // serde's message would quote what it stumbles over, and that may be a token.
    match serde_json::from_slice(&text) {
        Ok(Value::Object(said)) => Ok(said),
        Ok(_) => Err(wrong(StatusCode::BAD_REQUEST, "the body must be a JSON object")),
        Err(error) => Err(wrong(
            StatusCode::BAD_REQUEST,
            &format!("the body is not JSON: line {}, column {}", error.line(), error.column()),
        )),
    }
}

/// What is said of a run that is to be registered.
pub(super) fn registration(mut said: Map<String, Value>, now: Moment) -> Result<request::Request, String> {
    if let Some(name) = said.keys().find(|name| !MEMBERS.contains(&name.as_str())) {
        let name = shown(name);
        return Err(format!("no such member: {name:?}; a run has {}", MEMBERS.join(", ")));
    }
    let arn = |text: Option<String>| text.map(|text| text.parse()).transpose();
    let wrong = |name: &'static str| move |why: crate::run::arn::ArnError| format!("{name}: {why}");
    let facts = Facts {
        execution: arn(text(&mut said, "execution_arn")?).map_err(wrong("execution_arn"))?,
        state: words(&mut said, "state")?,
        attempt: match said.remove("attempt") {
            None | Some(Value::Null) => None,
            Some(value) => {
                let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
                Some(number.ok_or("attempt: must be a whole number: $$.State.RetryCount")?)
            }
        },
        parent: arn(text(&mut said, "parent_execution_arn")?).map_err(wrong("parent_execution_arn"))?,
        root: arn(text(&mut said, "root_execution_arn")?).map_err(wrong("root_execution_arn"))?,
        subject: subject(said.remove("subject"))?,
        tags: tags(said.remove("tags"))?,
    };
    let task_token = match text(&mut said, "task_token")? {
        Some(token) => Some(request::task_token(&token).map_err(|why| format!("task_token: {why}"))?),
        None => None,
    };
    let subject_token = text(&mut said, "subject_token")?.map(Credential::new);
    Ok(request::Request { facts, deadline: end(&mut said, now)?, subject_token, task_token })
}

/// A name that a caller made up; a long one may be a token that was put there by mistake.
fn shown(name: &str) -> &str {
    if name.len() <= 32 { name } else { "…" }
}

/// Until when a run is to go on.
pub(super) fn extension(mut said: Map<String, Value>, now: Moment) -> Result<Until, String> {
    if let Some(name) = said.keys().find(|name| !matches!(name.as_str(), "timeout_seconds" | "deadline")) {
        let name = shown(name);
        return Err(format!("no such member: {name:?}; an extension has timeout_seconds or deadline"));
    }
    end(&mut said, now)?.ok_or_else(|| "say until when: timeout_seconds or deadline".to_owned())
}

fn end(said: &mut Map<String, Value>, now: Moment) -> Result<Option<Until>, String> {
    let timeout = match said.remove("timeout_seconds") {
        None | Some(Value::Null) => None,
        Some(value) => {
            let seconds = value.as_f64().ok_or("timeout_seconds: must be a number of seconds")?;
            Some(request::timeout(seconds, now).map_err(|why| format!("timeout_seconds: {why}"))?)
        }
    };
    let deadline = match text(said, "deadline")? {
        Some(text) => Some(request::deadline(&text, now).map_err(|why| format!("deadline: {why}"))?),
        None => None,
    };
    Ok(timeout.into_iter().chain(deadline).min_by_key(|until| until.len()))
}

fn text(said: &mut Map<String, Value>, name: &str) -> Result<Option<String>, String> {
    match said.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(format!("{name}: must be a string")),
    }
}

fn words(said: &mut Map<String, Value>, name: &str) -> Result<Option<Box<str>>, String> {
    let text = text(said, name)?;
    text.map(|text| request::text(&text).map_err(|why| format!("{name}: {why}"))).transpose()
}

/// `"ada"`, or `{"id": "nightly", "kind": "scheduler"}`.
fn subject(said: Option<Value>) -> Result<Option<(Box<str>, SubjectKind)>, String> {
    let (id, kind) = match said {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(id)) => (id, SubjectKind::Person),
        Some(Value::Object(mut said)) => {
            let id = text(&mut said, "id")?.ok_or("subject: has no id")?;
            let kind = match text(&mut said, "kind")? {
                None => SubjectKind::Person,
                Some(word) => SubjectKind::ALL
                    .into_iter()
                    .find(|kind| kind.word() == word)
                    .ok_or("subject.kind: must be person, service, agent or scheduler")?,
            };
            (id, kind)
        }
        Some(_) => return Err("subject: must be a string, or an object with id and kind".to_owned()),
    };
    let id = request::text(&id).map_err(|why| format!("subject: {why}"))?;
    Ok(Some((id, kind)))
}

fn tags(said: Option<Value>) -> Result<BTreeMap<Box<str>, Box<str>>, String> {
    let said = match said {
        None | Some(Value::Null) => return Ok(BTreeMap::new()),
        Some(Value::Object(said)) => said,
        Some(_) => return Err("tags: must be an object of strings".to_owned()),
    };
    let mut pairs = Vec::with_capacity(said.len());
    for (name, value) in &said {
        match value {
            Value::String(value) => pairs.push((name.as_str(), value.as_str())),
            _ => return Err("tags: must be an object of strings".to_owned()),
        }
    }
    request::tags(pairs).map_err(|(name, why)| format!("tags: {name:?}: {why}"))
}

/// The answer to a request that makes no sense.
pub(super) fn refused(connection: &Connection, why: &str) -> Response {
    connection.doors.broker.refuse(&connection.caller, connection.via.door(), "run", why);
    response::error(StatusCode::BAD_REQUEST, why)
}

fn over(id: &str, cause: Cause) -> Response {
    response::error(StatusCode::GONE, &format!("the run {id} is over: {cause}"))
}

/// The one place where a refused registration becomes a status.
pub(super) fn refusal_of(refusal: &RunRefusal) -> Response {
    let message = refusal.to_string();
    match refusal {
        RunRefusal::Wrong(_) => response::error(StatusCode::BAD_REQUEST, &message),
        RunRefusal::Denied { .. } => response::error(StatusCode::FORBIDDEN, &message),
        RunRefusal::Over { .. } => response::error(StatusCode::GONE, &message),
        RunRefusal::Full { .. } => {
            response::retry_after(response::error(StatusCode::TOO_MANY_REQUESTS, &message), 1)
        }
        RunRefusal::Unavailable(failure) => {
            use crate::lease::failure::Class;
            if failure.class != Class::Transient {
                return response::error(StatusCode::FORBIDDEN, &message);
            }
            let seconds = failure.retry_after.map_or(1, |wait| wait.as_secs() + 1);
            response::retry_after(response::error(StatusCode::SERVICE_UNAVAILABLE, &message), seconds)
        }
        RunRefusal::Unaudited(_) => {
            response::retry_after(response::error(StatusCode::SERVICE_UNAVAILABLE, &message), 1)
        }
    }
}

fn method_not_allowed(allowed: &'static str) -> Response {
    let mut response = response::error(StatusCode::METHOD_NOT_ALLOWED, &format!("this page takes {allowed}"));
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
}
