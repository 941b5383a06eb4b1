//! A line as an event of the Open Cybersecurity Schema Framework, version 1.5.0 (<https://schema.ocsf.io/1.5.0/>).
//!
//! The event says what the line says, for tools that know no other words; `docs/audit.md` has the table. What is proved is
//! the line, which is in `raw_data` byte for byte.

use serde_json::{Map, Value, json};

use super::at::At;
use super::line::Line;
use super::who::{Peer, Run};
use super::words::{Event, Outcome, Via};

/// The version of the schema, in each event's `metadata`.
const VERSION: &str = "1.5.0";

/// <https://schema.ocsf.io/1.5.0/classes/api_activity>
const API_ACTIVITY: Class = Class { uid: 6003, name: "API Activity", category: (6, "Application Activity") };
/// <https://schema.ocsf.io/1.5.0/classes/application_lifecycle>
const LIFECYCLE: Class = Class { uid: 6002, name: "Application Lifecycle", ..API_ACTIVITY };
/// <https://schema.ocsf.io/1.5.0/classes/authentication>
const AUTHENTICATION: Class =
    Class { uid: 3002, name: "Authentication", category: (3, "Identity & Access Management") };

struct Class {
    uid: u32,
    name: &'static str,
    category: (u32, &'static str),
}

/// The class of an event, and its activity there: 99 is one that the class has no word for.
fn activity(event: Event) -> (Class, u32, Option<&'static str>) {
    match event {
        Event::Boot => (LIFECYCLE, 3, Some("Start")),
        Event::Shutdown => (LIFECYCLE, 4, Some("Stop")),
        Event::Login => (AUTHENTICATION, 1, Some("Logon")),
        Event::LoginRenew => (AUTHENTICATION, 99, None),
        Event::LoginEnd => (AUTHENTICATION, 2, Some("Logoff")),
        Event::Mint | Event::RunRegister | Event::RunStart | Event::SessionOpen => {
            (API_ACTIVITY, 1, Some("Create"))
        }
        Event::Read | Event::List | Event::RunInspect | Event::Deliver => (API_ACTIVITY, 2, Some("Read")),
        Event::Renew | Event::Rotate | Event::RunExtend => (API_ACTIVITY, 3, Some("Update")),
        Event::RevokeRequested
        | Event::RevokeConfirmed
        | Event::RevokeUnconfirmed
        | Event::OrphanRevoked
        | Event::RunEnd
        | Event::SessionClose => (API_ACTIVITY, 4, Some("Delete")),
        Event::Request
        | Event::Forward
        | Event::TokenLost
        | Event::PolicyLoad
        | Event::ClockJump
        | Event::AuditKey
        | Event::AuditAnchor
        | Event::AuditRecovered
        | Event::AuditReopened => (API_ACTIVITY, 99, None),
    }
}

/// The event of a line, whose bytes are `raw`.
///
/// No string of the line is in it more than twice, beside `raw_data`: its length is reckoned by that.
///
/// # Errors
/// The line's time is none.
pub(super) fn event(line: &Line, raw: &str) -> std::io::Result<Value> {
    let at = At::parse(&line.time).ok_or(std::io::ErrorKind::InvalidData)?;
    let (class, activity, name) = activity(line.event);
    let failed = matches!(line.outcome, Outcome::Denied | Outcome::Failed);
    let (severity, severity_name) = match line.outcome {
        Outcome::Granted | Outcome::Done => (1, "Informational"),
        Outcome::Denied => (2, "Low"),
        Outcome::Failed => (3, "Medium"),
    };
    let word = line.event.word();
    let product = json!({ "name": "Tenure", "vendor_name": "Tenure", "version": env!("CARGO_PKG_VERSION") });
    let mut event = members(json!({
        "activity_id": activity,
        "activity_name": name.unwrap_or(word),
        "category_uid": class.category.0,
        "category_name": class.category.1,
        "class_uid": class.uid,
        "class_name": class.name,
        "type_uid": class.uid * 100 + activity,
        "time": at.since(At::default()).as_millis() as u64,
        "severity_id": severity,
        "severity": severity_name,
        "status_id": if failed { 2 } else { 1 },
        "status": if failed { "Failure" } else { "Success" },
        "status_code": line.class,
        "status_detail": line.reason,
        "message": match &line.path {
            Some(path) => format!("{word} {}: {path}", line.outcome),
            None => format!("{word} {}", line.outcome),
        },
        "metadata": members(json!({
            "version": VERSION,
            "product": product,
            "log_name": "audit",
            "log_version": line.v.to_string(),
            "event_code": word,
            "original_time": line.time,
            "sequence": line.seq,
            "correlation_uid": line.run.as_ref().map(|run| &run.id),
        })),
        "actor": actor(line.caller.as_ref(), line.run.as_ref()),
        "src_endpoint": members(json!({
            "name": match line.caller.as_ref().map_or(Via::Own, |caller| caller.via) {
                Via::Unix => "unix",
                Via::Tcp => "loopback",
                Via::Own => "self",
            },
            "svc_name": line.door,
        })),
        "raw_data": raw,
    }));
    match class.uid {
        6003 => {
            let request = line.request.as_ref().or(line.vault_request_id.as_ref());
            let api = json!({
                "operation": word,
                "service": { "name": "Vault" },
                "request": request.map(|uid| json!({ "uid": uid })),
            });
            event.insert("api".to_owned(), members(api).into());
            let resource = members(json!({ "name": line.path, "uid": line.lease_id }));
            if !resource.is_empty() {
                event.insert("resources".to_owned(), json!([resource]));
            }
        }
        3002 => {
            // Whose login it is, Vault says: to us it is the broker's own.
            event.insert("user".to_owned(), json!({ "name": "tenure", "type_id": 3, "type": "System" }));
            event.insert("service".to_owned(), json!({ "name": "Vault" }));
        }
        _ => {
            // The class has neither: it is about the broker itself.
            event.remove("actor");
            event.remove("src_endpoint");
            event.insert("app".to_owned(), product);
        }
    }
    Ok(event.into())
}

/// Who acted: the process that asked, on whose behalf, in which run; the broker where none of that is known.
fn actor(caller: Option<&Peer>, run: Option<&Run>) -> Value {
    let subject = run.and_then(|run| run.subject.as_ref());
    let uid = caller.and_then(|caller| caller.uid);
    let groups = |names: &[String]| -> Option<Vec<Value>> {
        (!names.is_empty()).then(|| names.iter().map(|name| json!({ "name": name })).collect())
    };
    let user = match (subject, uid) {
        (Some(subject), _) => Some(members(json!({
            "uid": subject.id,
            "domain": subject.issuer,
            "type_id": if subject.kind == "person" { 1 } else { 99 },
            "type": if subject.kind == "person" { "User" } else { &subject.kind },
            "groups": groups(&subject.groups),
        }))),
        (None, Some(uid)) => Some(members(json!({ "uid": uid.to_string(), "type_id": 0 }))),
        (None, None) => None,
    };
    let process = caller.and_then(|caller| caller.pid).map(|pid| {
        let user = uid.map(|uid| json!({ "uid": uid.to_string() }));
        members(json!({ "pid": pid, "user": user }))
    });
    let is_broker = caller.is_none_or(|caller| caller.via == Via::Own);
    members(json!({
        "app_name": is_broker.then_some("tenure"),
        "process": process,
        "user": user,
        "session": run.map(|run| json!({ "uid": run.id })),
    }))
    .into()
}

/// The members of an object that are there.
fn members(object: Value) -> Map<String, Value> {
    match object {
        Value::Object(members) => members.into_iter().filter(|(_, value)| !value.is_null()).collect(),
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests;
