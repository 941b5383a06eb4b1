//! Whole traces of logs that are made here: a broker's, with a good chain, and Vault's beside it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::output::{FindingKind, Severity, Trace};
use super::*;
use crate::audit::chain::Head;

mod accessors;
mod fetched;
mod found;
mod input;

const EXECUTION: &str = "arn:aws:states:eu-west-1:123456789012:execution:orders:0f1e";
const NESTED: &str = "arn:aws:states:eu-west-1:123456789012:execution:charge:77aa";
const ROLE: &str = "arn:aws:iam::123456789012:role/orders-task";

/// `2026-01-01T00:00:00Z` and so many milliseconds.
fn at(millis: u64) -> String {
    At::new(std::time::Duration::from_millis(1_767_225_600_000 + millis)).to_string()
}

/// The logs of one broker and of Vault.
#[derive(Clone)]
struct World {
    broker: Vec<(u64, Value)>,
    vault: Vec<(u64, Value)>,
}

fn run(id: &str, execution: &str, state: &str) -> Value {
    json!({ "id": id, "kind": "state", "execution_arn": execution, "state": state, "attempt": 0, "standing": "verified" })
}

fn own() -> Value {
    json!({ "id": "run-00", "kind": "process" })
}

fn token(run: &Value) -> Value {
    let mut meta = json!({ "run": run["id"], "kind": run["kind"], "boot": "b1" });
    for (name, member) in [("execution_arn", "execution_arn"), ("state", "state"), ("verified", "standing")] {
        if run[member].is_string() {
            meta[name] = run[member].clone();
        }
    }
    if run["attempt"].is_number() {
        meta["attempt"] = run["attempt"].to_string().into();
    }
    if let Some(parent) = run["parents"].get(0) {
        meta["parent_execution_arn"] = parent.clone();
    }
    meta
}

impl World {
    /// A run of an execution, and one of what it started: each reads a credential, ends, and is revoked.
    fn new() -> Self {
        let mut world = Self { broker: Vec::new(), vault: Vec::new() };
        world.say(0, "boot", "done", json!({ "detail": "tenure" }));
        world.say(10, "login", "done", json!({ "run": own(), "request": "b1-1", "expires": at(3_600_000) }));
        world.login(9, Some("b1-1"), "login-1");
        let first = run("run-01", EXECUTION, "Reserve");
        let mut second = run("run-02", NESTED, "Charge");
        second["parents"] = json!([EXECUTION]);
        world.work(1_000, &first, 2, "reserve");
        world.work(20_000, &second, 10, "charge");
        world.say(60_000, "shutdown", "done", json!({ "detail": "everything was revoked" }));
        world
    }

    fn say(&mut self, millis: u64, event: &str, outcome: &str, members: Value) {
        let mut line = members;
        line["event"] = event.into();
        line["outcome"] = outcome.into();
        self.broker.push((millis, line));
    }

    fn login(&mut self, millis: u64, request: Option<&str>, accessor: &str) {
        let auth = json!({
            "accessor": accessor, "display_name": "aws-orders-task/task-1",
            "metadata": { "canonical_arn": ROLE, "client_arn": "arn:aws:sts::123456789012:assumed-role/orders-task/task-1" },
        });
        let mut line = json!({ "auth": auth.clone(), "request": { "operation": "update", "path": "auth/aws/login" }, "response": { "auth": auth } });
        if let Some(request) = request {
            line["request"]["headers"] = json!({ "x-tenure-request": [request] });
        }
        self.vault.push((millis, line));
    }

    /// A request with the token of a run.
    fn ask(&mut self, millis: u64, run: &Value, request: Option<&str>, path: &str, lease: Option<&str>) {
        let mut line = json!({
            "auth": { "accessor": format!("of-{}", run["id"]), "display_name": "token", "metadata": token(run) },
            "request": { "operation": "read", "path": path, "client_token_accessor": format!("of-{}", run["id"]), "remote_address": "10.0.0.1" },
            "response": { "data": { "password": "hmac-sha256:aa" } },
        });
        if let Some(request) = request {
            line["request"]["headers"] =
                json!({ "x-tenure-request": [request], "x-tenure-run": [run["id"]] });
        }
        if let Some(lease) = lease {
            line["response"]["secret"] = json!({ "lease_id": lease });
        }
        self.vault.push((millis, line));
    }

    /// A request with a login token.
    fn ask_by_login(
        &mut self,
        millis: u64,
        accessor: &str,
        request: Option<&str>,
        path: &str,
        made: Option<Value>,
    ) {
        let mut line = json!({
            "auth": { "accessor": accessor, "display_name": "aws-orders-task/task-1", "metadata": { "canonical_arn": ROLE } },
            "request": { "operation": "update", "path": path, "client_token_accessor": accessor, "remote_address": "10.0.0.2" },
        });
        if let Some(request) = request {
            line["request"]["headers"] = json!({ "x-tenure-request": [request] });
        }
        if let Some(made) = made {
            line["response"] = json!({ "auth": made });
        }
        self.vault.push((millis, line));
    }

    /// Registers, starts, mints, reads twice, ends and revokes; takes the numbers from `number` on.
    fn work(&mut self, from: u64, run: &Value, number: u64, role: &str) {
        let path = format!("database/creds/{role}");
        let lease = format!("{path}/L{number}");
        let request = |more: u64| format!("b1-{}", number + more);
        self.say(
            from,
            "run.register",
            "granted",
            json!({ "run": run, "policy": "run.rule[0]", "expires": at(from + 120_000) }),
        );
        self.say(
            from + 10,
            "run.start",
            "done",
            json!({ "run": run, "request": request(0), "expires": at(from + 120_000), "detail": "run" }),
        );
        let made = json!({ "accessor": format!("of-{}", run["id"]), "metadata": token(run) });
        self.ask_by_login(from + 9, "login-1", Some(&request(0)), "auth/token/create/run", Some(made));
        let minted = json!({ "run": run, "path": path, "request": request(1), "lease_id": lease, "expires": at(from + 300_000) });
        self.say(from + 20, "mint", "done", minted.clone());
        self.ask(from + 19, run, Some(&request(1)), &path, Some(&lease));
        for (after, source) in [(21, "vault"), (3_000, "cache")] {
            let mut read = minted.clone();
            read["source"] = source.into();
            read["caller"] = json!({ "via": "unix", "uid": 1000, "gid": 1000 });
            self.say(from + after, "read", "granted", read);
        }
        self.say(from + 5_000, "run.end", "done", json!({ "run": run, "detail": "it was ended" }));
        self.ask(from + 5_009, run, Some(&request(2)), "auth/token/revoke-self", None);
        self.say(
            from + 5_010,
            "revoke.requested",
            "done",
            json!({ "run": run, "request": request(2), "detail": "run token" }),
        );
        self.say(
            from + 5_020,
            "revoke.confirmed",
            "done",
            json!({ "run": run, "detail": "run token and 1 leases" }),
        );
    }

    fn broker_log(&self) -> String {
        let mut lines = self.broker.clone();
        lines.sort_by_key(|(millis, _)| *millis);
        let (mut out, mut head) = (Vec::new(), Head::START);
        for (millis, line) in lines {
            let start = out.len();
            // The writer's own order of members.
            let boot = line["boot"].as_str().unwrap_or("b1");
            let mut text =
                format!(r#"{{"v":1,"time":"{}","boot":"{boot}","event":{}"#, at(millis), line["event"]);
            for name in [
                "outcome",
                "run",
                "caller",
                "door",
                "path",
                "source",
                "request",
                "vault_request_id",
                "lease_id",
                "expires",
                "version",
                "policy",
                "reason",
                "class",
                "detail",
            ] {
                if !line[name].is_null() {
                    write!(text, ",\"{name}\":{}", line[name]).unwrap();
                }
            }
            out.extend_from_slice(text.as_bytes());
            head.seal(&mut out, start);
        }
        String::from_utf8(out).unwrap()
    }

    fn vault_lines(&self) -> Vec<String> {
        let mut lines = self.vault.clone();
        lines.sort_by_key(|(millis, _)| *millis);
        lines
            .into_iter()
            .enumerate()
            .map(|(number, (millis, mut line))| {
                line["time"] = at(millis).into();
                line["type"] = "response".into();
                line["request"]["id"] = format!("id-{millis}-{number}").into();
                line.to_string()
            })
            .collect()
    }

    fn vault_log(&self) -> String {
        self.vault_lines().join("\n") + "\n"
    }

    fn trace(&self) -> Trace {
        self.select(&Selection::default())
    }

    fn select(&self, selection: &Selection) -> Trace {
        let files = Files::of(&[("broker.jsonl", &self.broker_log()), ("vault.log", &self.vault_log())]);
        files.trace(selection)
    }
}

struct Files(TempDir);

impl Files {
    fn of(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        Self(dir)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn trace(&self, selection: &Selection) -> Trace {
        follow(&[self.path().to_owned()], selection).unwrap()
    }
}

fn follow(named: &[PathBuf], selection: &Selection) -> Result<Trace, TraceError> {
    trace(named, &mut std::io::empty(), selection, Rules::default(), At::default(), &mut |_| {})
}

/// What was found, without where.
fn kinds(trace: &Trace) -> Vec<(Severity, FindingKind)> {
    trace.findings.iter().map(|finding| (finding.severity, finding.kind)).collect()
}

fn of(kind: FindingKind, trace: &Trace) -> &super::output::Finding {
    let found = trace.findings.iter().find(|finding| finding.kind == kind);
    found.unwrap_or_else(|| panic!("no {kind:?}: {:#?}", trace.findings))
}

fn execution(arn: &str) -> Selection {
    Selection { execution: Some(arn.to_owned()), ..Selection::default() }
}

#[test]
fn what_both_logs_tell_is_one_item() {
    let trace = World::new().trace();
    assert_eq!(kinds(&trace), []);
    let mint = trace.timeline.iter().find(|item| item.event == "mint").unwrap();
    assert_eq!((mint.vault_lines.len(), mint.path.as_deref()), (1, Some("database/creds/reserve")));
    // Every line of Vault's belongs to a line of the broker's.
    assert!(trace.timeline.iter().all(|item| item.source == output::Source::Broker));
    assert_eq!(trace.leases.len(), 2);
    assert!(trace.leases.iter().all(|lease| lease.revoked && lease.reads == 2));
    let runs: Vec<_> = trace.runs.iter().map(|run| (&*run.id, run.reads, run.revoked.is_some())).collect();
    assert_eq!(runs, [("run-00", 0, false), ("run-01", 2, true), ("run-02", 2, true)]);
}

#[test]
fn an_execution_is_shown_with_what_it_started() {
    let world = World::new();
    let ids = |trace: &Trace| trace.runs.iter().map(|run| run.id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&world.select(&execution(EXECUTION))), ["run-01", "run-02"]);
    assert_eq!(ids(&world.select(&execution(NESTED))), ["run-02"]);
    // A grandchild that names its parent alone.
    let mut deeper = world.clone();
    let mut third = run("run-03", &NESTED.replace("charge", "notify"), "Notify");
    third["parents"] = json!([NESTED]);
    deeper.work(500, &third, 30, "notify");
    assert_eq!(ids(&deeper.select(&execution(EXECUTION))), ["run-03", "run-01", "run-02"]);
    assert!(ids(&deeper.select(&execution("arn:aws:states:eu-west-1:1:execution:none:0"))).is_empty());
}

#[test]
fn selections_are_combined() {
    let mut world = World::new();
    let mut third = run("run-03", EXECUTION, "Reserve");
    third["subject"] = json!({ "id": "ada <b>", "kind": "person", "assurance": "verified" });
    third["parent"] = "run-01".into();
    world.work(30_000, &third, 30, "reserve");
    let ids = |selection: Selection| {
        let trace = world.select(&selection);
        trace.runs.iter().map(|run| run.id.clone()).collect::<Vec<_>>()
    };
    let none = Selection::default;
    let text = |text: &str| Some(text.to_owned());
    let time = |millis| At::parse(&at(millis));
    assert_eq!(ids(Selection { subject: text("ada <b>"), ..none() }), ["run-03"]);
    assert_eq!(ids(Selection { path: text("database/creds/reserve"), ..none() }), ["run-01", "run-03"]);
    assert_eq!(ids(Selection { path: text("database/creds/*"), ..none() }).len(), 3);
    assert_eq!(ids(Selection { lease: text("database/creds/reserve/L2"), ..none() }), ["run-01"]);
    assert_eq!(ids(Selection { run: text("run-01"), ..none() }), ["run-01", "run-03"]);
    assert_eq!(
        ids(Selection { run: text("run-01"), path: text("database/creds/charge"), ..none() }),
        [""; 0]
    );
    assert_eq!(ids(Selection { since: time(28_000), until: time(31_000), ..none() }), ["run-03"]);
    assert_eq!(
        ids(Selection { path: text("database/creds/reserve"), until: time(10_000), ..none() }),
        ["run-01"]
    );
    // Lines about another path are left out, those about the run as a whole are not.
    let trace = world.select(&Selection { lease: text("database/creds/reserve/L2"), ..none() });
    assert!(trace.timeline.iter().all(|item| item.run.as_deref() == Some("run-01") || item.run.is_none()));
    for event in ["run.register", "run.start", "mint", "run.end", "revoke.requested", "revoke.confirmed"] {
        assert!(trace.timeline.iter().any(|item| item.event == event), "{event}");
    }
}

#[test]
fn the_documents_fit_their_schemas() {
    let (trace, schema) = (serde_json::to_value(World::new().trace()).unwrap(), output::trace_schema());
    for name in schema["required"].as_array().unwrap() {
        assert!(!trace[name.as_str().unwrap()].is_null(), "{name}");
    }
    for name in trace.as_object().unwrap().keys() {
        assert!(schema["properties"][name]["description"].is_string(), "{name}");
    }
    for name in report::schema()["properties"].as_object().unwrap().keys() {
        assert!(report::schema()["properties"][name]["description"].is_string(), "{name}");
    }
}
