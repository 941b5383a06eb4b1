use super::*;
use crate::audit::frame::{Framing, unwrapped};
use crate::audit::{Audit, Entry, Format, RunStamp, Subject, verify};
use crate::clock::Clock;
use crate::lease::failure::{Class as Meaning, Failure};

/// What version 1.5.0 requires: of an object, all of the first, and one of the second where there are any.
const REQUIRED: &[(&str, &[&str], &[&str])] = &[
    (
        "base_event",
        &["activity_id", "category_uid", "class_uid", "metadata", "severity_id", "time", "type_uid"],
        &[],
    ),
    ("6003", &["actor", "api", "src_endpoint"], &[]),
    ("6002", &["app"], &[]),
    ("3002", &["user"], &["service", "dst_endpoint"]),
    ("metadata", &["product", "version"], &[]),
    ("product", &[], &["name", "uid"]),
    ("app", &[], &["name", "uid"]),
    ("actor", &[], &["process", "user", "invoked_by", "session", "app_name", "app_uid"]),
    ("process", &[], &["pid", "uid", "cpid"]),
    ("user", &[], &["account", "name", "uid"]),
    ("groups", &[], &["name", "uid"]),
    (
        "src_endpoint",
        &[],
        &[
            "ip",
            "uid",
            "name",
            "hostname",
            "svc_name",
            "instance_uid",
            "interface_uid",
            "interface_name",
            "domain",
        ],
    ),
    ("api", &["operation"], &[]),
    ("request", &["uid"], &[]),
    ("service", &[], &["name", "uid"]),
    ("resources", &[], &["name", "uid"]),
];

/// Each attribute that we use, with its type in the dictionary of version 1.5.0.
const ATTRIBUTES: &[(&str, &[&str])] = &[
    (
        "integer",
        &[
            "activity_id",
            "category_uid",
            "class_uid",
            "severity_id",
            "status_id",
            "sequence",
            "type_id",
            "pid",
        ],
    ),
    ("long", &["time", "type_uid"]),
    (
        "string",
        &[
            "activity_name",
            "app_name",
            "category_name",
            "class_name",
            "correlation_uid",
            "domain",
            "event_code",
            "log_name",
            "log_version",
            "message",
            "name",
            "operation",
            "original_time",
            "raw_data",
            "severity",
            "status",
            "status_code",
            "status_detail",
            "svc_name",
            "type",
            "uid",
            "vendor_name",
            "version",
        ],
    ),
    (
        "object",
        &[
            "actor",
            "api",
            "app",
            "metadata",
            "process",
            "product",
            "request",
            "service",
            "session",
            "src_endpoint",
            "user",
        ],
    ),
    ("array", &["groups", "resources"]),
];

fn check(name: &str, object: &Value, faults: &mut Vec<String>) {
    let members = object.as_object().unwrap();
    for (_, all, one_of) in REQUIRED.iter().filter(|(of, ..)| *of == name) {
        faults.extend(
            all.iter().filter(|of| !members.contains_key(**of)).map(|of| format!("{name} lacks {of}")),
        );
        if !one_of.is_empty() && !one_of.iter().any(|of| members.contains_key(*of)) {
            faults.push(format!("{name} has none of {one_of:?}"));
        }
    }
    for (name, value) in members {
        let kind = match value {
            Value::Number(number) if number.is_u64() => "long",
            Value::String(_) => "string",
            Value::Object(_) => "object",
            Value::Array(_) => "array",
            _ => "unknown",
        };
        let of = ATTRIBUTES.iter().find(|(_, names)| names.contains(&name.as_str())).map(|(of, _)| *of);
        let fits = of == Some(kind)
            || of == Some("integer") && value.as_u64().is_some_and(|it| i32::try_from(it).is_ok());
        if !fits {
            faults.push(format!("{name}: {value} is {of:?}"));
        }
        match value {
            Value::Object(_) => check(name, value, faults),
            Value::Array(items) => items.iter().for_each(|item| check(name, item, faults)),
            _ => {}
        }
    }
}

fn faults(event: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    check("base_event", event, &mut faults);
    let class = event["class_uid"].as_u64().unwrap();
    for (_, all, one_of) in REQUIRED.iter().filter(|(of, ..)| *of == class.to_string()) {
        faults.extend(all.iter().filter(|of| event[**of].is_null()).map(|of| format!("{class} lacks {of}")));
        if !one_of.is_empty() && one_of.iter().all(|of| event[*of].is_null()) {
            faults.push(format!("{class} has none of {one_of:?}"));
        }
    }
    let activity = event["activity_id"].as_u64().unwrap();
    if event["type_uid"] != class * 100 + activity {
        faults.push("type_uid is not of class and activity".into());
    }
    let foreign: &[&str] = match class {
        6002 => &["actor", "api", "resources", "service", "src_endpoint", "user"],
        3002 => &["api", "app", "resources"],
        _ => &["app", "service", "user"],
    };
    let foreign = foreign.iter().filter(|name| !event[**name].is_null());
    faults.extend(foreign.map(|name| format!("{class} has no {name}")));
    if event["category_uid"] != class / 1000 {
        faults.push("category_uid is not the class's".into());
    }
    let known = match class {
        6003 => 1..=4,
        6002 => 1..=8,
        3002 => 1..=6,
        _ => 0..=0,
    };
    if activity != 99 && !known.contains(&activity) {
        faults.push(format!("{activity} is no activity of {class}"));
    }
    faults
}

/// Lines of all events and outcomes, with little and with much in them.
fn lines() -> Vec<String> {
    let (audit, memory) = Audit::in_memory("b1", Clock::simulated()).unwrap();
    let bare = RunStamp::new(&Run { id: "r1".into(), kind: "process".into(), ..Run::default() }).unwrap();
    let subject = |kind: &str| Subject {
        id: "al\"ice".into(),
        kind: kind.into(),
        issuer: Some("https://id.example".into()),
        assurance: "verified".into(),
        groups: vec!["admins".into()],
    };
    let runs = ["person", "agent"].map(|kind| {
        let run = Run { id: "r2".into(), kind: "api".into(), subject: Some(subject(kind)), ..Run::default() };
        RunStamp::new(&run).unwrap()
    });
    let failure = Failure { request_id: Some("v1".into()), ..Failure::new(Meaning::Denied, "no\n\\read") };
    for &event in Event::ALL {
        for entry in [
            Entry::done(event),
            Entry::granted(event),
            Entry::denied(event, "why"),
            Entry::failed(event, &failure),
        ] {
            audit.note(&entry);
            for caller in [Peer::OWN, Peer::TCP, Peer::unix(7, 8, None), Peer::unix(7, 8, Some(9))] {
                for run in [&bare, &runs[0], &runs[1]] {
                    let entry = entry.clone().run(run).caller(&caller).door("vault/unix").path("kv/\"ü");
                    audit.note(&entry.clone().request("b1-7").lease_id("database/creds/x"));
                }
            }
        }
    }
    memory.text().lines().map(str::to_owned).collect()
}

#[test]
fn every_event_has_what_its_class_requires_and_the_line_byte_for_byte() {
    let framing = Framing { format: Format::Ocsf, header: None };
    let mut collected = Vec::new();
    for line in lines() {
        let start = collected.len();
        framing.frame(line.as_bytes(), &mut collected).unwrap();
        let event: Value = serde_json::from_slice(&collected[start..]).unwrap();
        assert_eq!(faults(&event), [""; 0], "{event:#}");
        assert_eq!(event["raw_data"], line);
        assert_eq!(*unwrapped(&collected[start..]), *line.as_bytes());
        assert!(collected.len() - start <= 4 * line.len() + 4096, "the length that is reckoned with");
        // A pipeline may have laid it out anew, and put something in.
        let mut enriched = event.clone();
        enriched["observables"] = json!([{ "name": "x", "value": "{\"v\":1,\"time\":\"" }]);
        assert_eq!(*unwrapped(serde_json::to_string(&enriched).unwrap().as_bytes()), *line.as_bytes());
        collected.push(b'\n');
    }
    let report = verify(&*collected).unwrap();
    assert!(report.is_good() && report.lines > 1_000, "{report}");

    let text = String::from_utf8(collected).unwrap();
    let report = verify(text.replacen("kv/\\\\\\\"ü", "kv/\\\\\\\"u", 1).as_bytes()).unwrap();
    assert!(!report.is_good(), "a path was changed in raw_data: {report}");
}

#[test]
fn the_check_finds_what_is_missing() {
    let raw = &lines()[0];
    let whole = event(&serde_json::from_str(raw).unwrap(), raw).unwrap();
    for lacking in ["activity_id", "metadata", "time", "app", "type_uid"] {
        let mut event = whole.clone();
        event.as_object_mut().unwrap().remove(lacking);
        if lacking == "activity_id" || lacking == "type_uid" {
            event[lacking] = "text".into();
            let mut found = Vec::new();
            check("base_event", &event, &mut found);
            assert!(!found.is_empty(), "{lacking}");
        } else {
            assert!(!faults(&event).is_empty(), "{lacking}");
        }
    }
}

#[test]
fn a_read_is_told_as_one() {
    let line = r#"{"v":1,"time":"2026-01-01T00:00:00.250Z","boot":"b1","event":"read","outcome":"denied","run":{"id":"r1","kind":"api"},"caller":{"via":"unix","uid":7,"gid":8,"pid":9},"door":"vault/unix","path":"kv/a","request":"b1-1","reason":"no rule","seq":3,"prev":"0000000000000000000000000000000000000000000000000000000000000000","hash":"0000000000000000000000000000000000000000000000000000000000000000"}"#;
    let event = event(&serde_json::from_str(line).unwrap(), line).unwrap();
    let said = |at: &str| event.pointer(at).cloned().unwrap_or_default();
    assert_eq!(said("/type_uid"), 600_302);
    assert_eq!(said("/time"), 1_767_225_600_250_u64);
    assert_eq!(said("/status"), "Failure");
    assert_eq!(said("/status_detail"), "no rule");
    assert_eq!(said("/message"), "read denied: kv/a");
    assert_eq!(
        said("/actor"),
        json!({ "process": { "pid": 9, "user": { "uid": "7" } }, "user": { "uid": "7", "type_id": 0 }, "session": { "uid": "r1" } })
    );
    assert_eq!(
        said("/api"),
        json!({ "operation": "read", "request": { "uid": "b1-1" }, "service": { "name": "Vault" } })
    );
    assert_eq!(said("/resources"), json!([{ "name": "kv/a" }]));
    assert_eq!(said("/src_endpoint"), json!({ "name": "unix", "svc_name": "vault/unix" }));
    assert_eq!(said("/metadata/sequence"), 3);
}
