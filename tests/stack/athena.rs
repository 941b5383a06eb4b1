//! The queries of `deploy/athena`, by DuckDB, over logs of the real stack: they find what `tenure audit` finds in the same
//! bytes, also where lines are missing or changed.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::broker::Broker;
use crate::harness::text;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/athena");

/// Findings that both make for each run, in the queries' own words.
const OF_RUNS: [&str; 8] = [
    "lease_outlived_run",
    "revocation_unconfirmed",
    "read_after_end",
    "never_ended",
    "subject_unverified",
    "denial_burst",
    "lease_shared",
    "run_conflict",
];

/// What is counted in both.
const COUNTS: [(&str, &str); 19] = [
    ("broker_lines", "broker_lines"),
    ("brokers", "brokers"),
    ("broker_first", "broker_first"),
    ("broker_last", "broker_last"),
    ("vault_first", "vault_first"),
    ("vault_last", "vault_last"),
    ("headers_audited", "headers_audited"),
    ("roles_known", "roles_known"),
    ("runs", "runs"),
    ("runs_ended", "runs_ended"),
    ("runs_revoked", "runs_revoked"),
    ("runs_of_executions", "runs_of_executions"),
    ("runs_verified", "runs_verified"),
    ("runs_with_subject", "runs_with_subject"),
    ("runs_with_verified_subject", "runs_with_verified_subject"),
    ("reads", "secret_reads"),
    ("denials", "denials"),
    ("leases", "leases"),
    ("chains_whole", "chains_whole"),
];

/// One broker's log and Vault's, as lines.
#[derive(Clone)]
pub(crate) struct Logs {
    pub(crate) broker: Vec<Value>,
    pub(crate) vault: Vec<Value>,
}

/// The tools over one pair of logs.
struct Tools<'a> {
    broker: &'a Broker<'a>,
    python: &'a str,
    folder: tempfile::TempDir,
}

impl Logs {
    /// Each line that can be read: the last of a log that is written to may be cut off. Of Vault's those are left out that
    /// are of the brokers of other tests, which run at the same time and whose own logs are not here.
    pub(crate) fn read(broker: &Path, vault: &Path) -> Self {
        let lines = |path: &Path| -> Vec<Value> {
            let text = std::fs::read_to_string(path).expect("a log");
            text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
        };
        let broker = lines(broker);
        let boot = text(&broker[0]["boot"]).to_owned();
        let mut vault = lines(vault);
        vault.retain(|line| {
            let sent = line["request"]["headers"]["x-tenure-request"][0].as_str();
            let made = [&line["auth"]["metadata"]["boot"], &line["response"]["auth"]["metadata"]["boot"]];
            sent.is_none_or(|sent| sent.starts_with(&boot))
                && made.iter().all(|made| made.as_str().is_none_or(|made| made == boot))
        });
        Self { broker, vault }
    }

    fn changed(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut logs = self.clone();
        change(&mut logs);
        logs
    }
}

impl<'a> Tools<'a> {
    /// Puts the logs where the bucket would have them.
    fn of(broker: &'a Broker<'a>, python: &'a str, logs: &Logs) -> Self {
        let tools = Self { broker, python, folder: tempfile::tempdir().expect("a folder") };
        // The order of a line's members is the broker's own.
        let line =
            |line: &Value| serde_json::from_value::<tenure::audit::Line>(line.clone()).expect("a line");
        let broker = logs.broker.iter().map(|value| serde_json::to_string(&line(value)).expect("JSON"));
        let logs = [
            (tools.lines(), broker.collect::<Vec<_>>()),
            (tools.answers(), logs.vault.iter().map(Value::to_string).collect()),
        ];
        for (path, lines) in logs {
            let path = Path::new(&path);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
            std::fs::write(path, lines.iter().map(|line| format!("{line}\n")).collect::<String>())
                .expect("a log");
        }
        tools
    }

    fn path(&self, below: &str) -> String {
        self.folder.path().join(below).display().to_string()
    }

    fn lines(&self) -> String {
        self.path("tenure/123456789012/eu-west-1/2026/11/21/audit.jsonl")
    }

    fn answers(&self) -> String {
        self.path("vault/main/2026/11/21/audit.log")
    }

    #[track_caller]
    fn sql(&self, words: &[&str]) -> Value {
        let output = Command::new(self.python)
            .arg(format!("{FOLDER}/local.py"))
            .arg(self.folder.path())
            .args(words)
            .stdin(Stdio::null())
            .output()
            .expect("the stack's Python");
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        let out = String::from_utf8_lossy(&output.stdout);
        self.broker.check_silence(&out, "what the queries show");
        serde_json::from_str(&out).expect("JSON")
    }

    #[track_caller]
    fn tenure(&self, words: &[&str]) -> Value {
        let (lines, answers) = (self.lines(), self.answers());
        let files = [lines.as_str(), answers.as_str()];
        let (code, out, err) = self.broker.tenure(&[&["audit"], words, &files].concat());
        assert!(code < 2, "{words:?}: {code}: {err}");
        serde_json::from_str(&out).expect("JSON")
    }

    /// What an execution used, and until when, is the same in both.
    #[track_caller]
    fn agree_on_use(&self, execution: &str) {
        let trace = self.tenure(&["trace", "--execution", execution, "--json"]);
        let used = self.sql(&["execution", execution]);
        assert_eq!(texts(&used, "run_id"), texts(&trace["runs"], "id"));
        assert_eq!(texts(&used, "lease_id"), texts(&trace["leases"], "id"));
        for lease in rows(&trace["leases"]) {
            let row = rows(&used).find(|row| row["lease_id"] == lease["id"]).expect("a row");
            let of_row = [&row["run_id"], &row["path"], &row["usable_until"], &row["revoked"]];
            assert_eq!(of_row, [&lease["run"], &lease["path"], &lease["ended"], &lease["revoked"]]);
        }
    }

    /// Vault's ids of the requests that prove findings of a kind.
    fn proofs(&self, trace: &Value, kind: &str) -> BTreeSet<String> {
        let log = std::fs::read_to_string(self.answers()).expect("Vault's log");
        let log: Vec<_> = log.lines().collect();
        let found = rows(&trace["findings"]).filter(|finding| finding["kind"] == kind);
        let lines = found.flat_map(|finding| rows(&finding["lines"]));
        lines
            .map(|place| {
                assert_eq!(place["file"], 1, "a bypass is in Vault's log: {place}");
                let number =
                    place["line"].as_u64().and_then(|line| usize::try_from(line).ok()).expect("a line");
                let line: Value = serde_json::from_str(log[number - 1]).expect("a line of Vault's");
                text(&line["request"]["id"]).to_owned()
            })
            .collect()
    }
}

fn rows(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().expect("rows").iter()
}

fn texts(value: &Value, member: &str) -> BTreeSet<String> {
    rows(value).filter_map(|row| row[member].as_str()).map(str::to_owned).collect()
}

/// Severity, kind and run of what both judge by run.
fn of_runs<'v>(findings: impl Iterator<Item = &'v Value>, run: &str) -> BTreeSet<[String; 3]> {
    findings
        .filter(|finding| OF_RUNS.iter().any(|kind| finding["kind"] == *kind))
        // A run that is open where its log ends is no row of the queries'.
        .filter(|finding| finding["kind"] != "never_ended" || finding["severity"] == "error")
        .map(|finding| {
            [text(&finding["severity"]), text(&finding["kind"]), text(&finding[run])].map(str::to_owned)
        })
        .collect()
}

/// Asks both about the same logs; the kinds of findings of runs, and the requests of bypasses.
#[track_caller]
fn agree(what: &str, broker: &Broker<'_>, python: &str, logs: &Logs) -> (BTreeSet<String>, BTreeSet<String>) {
    let tools = Tools::of(broker, python, logs);
    let sql = tools.sql(&["--all"]);
    let trace = tools.tenure(&["trace", "--require-verified-subject", "--json"]);
    let all = sql.as_object().expect("queries").values().flat_map(rows);
    let by_sql = of_runs(all, "run_id");
    assert_eq!(by_sql, of_runs(rows(&trace["findings"]), "run"), "{what}");
    let of_kind = |kind: &str| {
        let rows = rows(&sql["bypass"]).filter(|row| row["kind"] == kind);
        rows.map(|row| text(&row["vault_request_id"]).to_owned()).collect::<BTreeSet<_>>()
    };
    let bypasses = of_kind("bypass");
    assert_eq!(bypasses, tools.proofs(&trace, "bypass"), "{what}");
    // Of these a trace lists a few for each broker alone.
    let others = tools.proofs(&trace, "unknown_broker");
    assert!(others.is_subset(&of_kind("unknown_broker")), "{what}: {others:?}");
    assert_eq!(others.is_empty(), of_kind("unknown_broker").is_empty(), "{what}");
    let missing = rows(&trace["findings"]).any(|finding| finding["kind"] == "not_in_vault");
    assert_eq!(rows(&sql["not_in_vault"]).next().is_some(), missing, "{what}");

    let report = tools.tenure(&["report", "--json"]);
    let mut coverage = sql["coverage"][0].clone();
    // What the log's own bytes are, SQL does not see: lines written anew here have the hashes of others.
    coverage["chains_whole"] =
        json!(coverage["chain_breaks"] == 0 && report["coverage"]["chains_whole"] == true);
    for (name, column) in COUNTS {
        assert_eq!(coverage[column], report["coverage"][name], "{what}: {name}");
    }
    let kinds = by_sql.into_iter().map(|[_, kind, _]| kind).collect();
    (kinds, bypasses)
}

/// What was found before with the logs as they are, and then with each of a few changes.
#[track_caller]
pub(crate) fn finds_the_same(broker: &Broker<'_>, python: &str, logs: &Logs, execution: &str, stolen: &str) {
    let (_, bypasses) = agree("as they are", broker, python, logs);
    let lease = |line: &&Value| line["response"]["secret"]["lease_id"] == stolen;
    let theft = logs.vault.iter().find(lease).expect("what was stolen is in Vault's log");
    assert!(bypasses.contains(text(&theft["request"]["id"])), "{bypasses:?}");

    // The questions of one execution, one subject, one path.
    let tools = Tools::of(broker, python, logs);
    tools.agree_on_use(execution);
    // Without a confirmation, a lease ends with its token or by itself.
    let open = logs.changed(|logs| logs.broker.retain(|line| line["event"] != "revoke.confirmed"));
    Tools::of(broker, python, &open).agree_on_use(execution);
    let trace = tools.tenure(&["trace", "--subject", "ada", "--json"]);
    assert_eq!(texts(&tools.sql(&["subject", "ada"]), "run_id"), texts(&trace["runs"], "id"));
    for path in ["database/creds/*", "secret/data/orders/states/charge"] {
        let rows_of = tools.sql(&["path", path]);
        let trace = tools.tenure(&["trace", "--path", path, "--json"]);
        let ours: Vec<_> = rows(&rows_of).filter(|row| row["source"] == "tenure").cloned().collect();
        assert_eq!(texts(&json!(ours), "run_id"), texts(&trace["runs"], "id"), "{path}");
    }
    assert!(texts(&tools.sql(&["path", "database/creds/*"]), "lease_id").contains(stolen));
    assert_eq!(tools.sql(&["path", "database/cred_*"]), json!([]), "a `_` stands for itself");

    changes(broker, python, logs);
    anchors(broker, python, logs);
}

/// The logs with lines missing, moved and changed: both see it.
fn changes(broker: &Broker<'_>, python: &str, logs: &Logs) {
    let of = |line: &Value, event: &str| line["event"] == event && line["run"]["kind"] == "state";
    let expect = |what: &str, kinds: &[&str], logs: Logs| {
        let (found, _) = agree(what, broker, python, &logs);
        for kind in kinds {
            assert!(found.contains(*kind), "{what}: {found:?}");
        }
    };
    let logs_of = |change: &dyn Fn(&mut Logs)| logs.changed(change);
    expect(
        "no confirmation",
        &["revocation_unconfirmed", "lease_outlived_run"],
        logs_of(&|logs| logs.broker.retain(|line| !of(line, "revoke.confirmed"))),
    );
    let last = logs.broker.iter().rfind(|line| of(line, "read")).expect("a read").clone();
    expect(
        "a read after all else",
        &["read_after_end"],
        logs_of(&|logs| {
            let mut late = last.clone();
            late["time"] = json!("2199-01-01T00:00:00.000Z");
            logs.broker.push(late);
        }),
    );
    expect(
        "a subject that is asserted",
        &["subject_unverified", "run_conflict"],
        logs_of(&|logs| {
            for line in logs.broker.iter_mut().filter(|line| line["run"]["subject"].is_object()) {
                line["run"]["subject"]["assurance"] = json!("asserted");
            }
        }),
    );
    expect(
        "many refusals",
        &["denial_burst"],
        logs_of(&|logs| {
            let denied = logs.broker.iter().find(|line| line["class"] == "denied" && of(line, "read"));
            let denied = denied.expect("a refusal").clone();
            logs.broker.extend(std::iter::repeat_n(denied, 9));
        }),
    );
    expect(
        "one lease in two runs",
        &["lease_shared"],
        logs_of(&|logs| {
            let registered =
                |line: &&Value| of(line, "run.register") && line["run"]["id"] != last["run"]["id"];
            let other = logs.broker.iter().find(registered).expect("another run")["run"].clone();
            let mut shared = last.clone();
            shared["run"] = other;
            logs.broker.push(shared);
        }),
    );
    expect(
        "no end",
        &["never_ended"],
        logs_of(&|logs| {
            logs.broker.retain(|line| !of(line, "run.end"));
            let mut stop = logs.broker[0].clone();
            (stop["event"], stop["time"]) = (json!("shutdown"), last["time"].clone());
            logs.broker.push(stop);
        }),
    );
    // The lines of a read taken out of the broker's log: what Vault did is now unexplained.
    let (_, before) = agree("as they are", broker, python, logs);
    let hidden = logs_of(&|logs| logs.broker.retain(|line| line["request"] != last["request"]));
    let (_, after) = agree("a read that is hidden", broker, python, &hidden);
    assert!(after.len() > before.len() && after.is_superset(&before), "{after:?}");
    agree(
        "no headers",
        broker,
        python,
        &logs_of(&|logs| {
            for line in &mut logs.vault {
                line["request"]["headers"] = json!({});
            }
        }),
    );
    agree("no log of the broker", broker, python, &logs_of(&|logs| logs.broker.clear()));
    agree("no log of Vault", broker, python, &logs_of(&|logs| logs.vault.clear()));
}

/// The anchors in Vault's log against the lines: as `tenure audit verify --vault-log` judges.
fn anchors(broker: &Broker<'_>, python: &str, logs: &Logs) {
    let judged = |logs: &Logs| {
        let tools = Tools::of(broker, python, logs);
        let (_, out, err) =
            broker.tenure(&["audit", "verify", "--json", &tools.lines(), "--vault-log", &tools.answers()]);
        let report: Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{err}"));
        // The logs of other brokers, which run beside this one, are not here.
        let boots = texts(&json!(logs.broker), "boot");
        let mine = |row: &&Value| row["boot"].as_str().is_some_and(|boot| boots.contains(boot));
        let found = tools.sql(&["anchors"]);
        let found: BTreeSet<_> = rows(&found).filter(mine).map(|row| text(&row["kind"]).to_owned()).collect();
        (found, texts(&report["anchored"]["problems"], "kind"))
    };
    let (found, theirs) = judged(logs);
    assert!(found.is_empty() && theirs.is_empty(), "{found:?} {theirs:?}");
    let boot = text(&logs.broker[0]["boot"]).to_owned();
    let of_boot = |line: &&Value| line["response"]["auth"]["metadata"]["boot"] == *boot;
    let anchor = |line: &Value| {
        let sequence = text(&line["response"]["auth"]["metadata"]["audit_seq"]);
        sequence.parse::<u64>().expect("a number")
    };
    let last = logs.vault.iter().filter(of_boot).map(anchor).max().expect("an anchor");
    let cut = logs.changed(|logs| {
        logs.broker.retain(|line| line["seq"].as_u64().is_some_and(|sequence| sequence < last));
    });
    let (found, theirs) = judged(&cut);
    assert_eq!(
        (found.contains("cut_tail"), theirs.contains("cut_tail")),
        (true, true),
        "{found:?} {theirs:?}"
    );
    let other = logs.changed(|logs| {
        for line in logs.vault.iter_mut().filter(|line| of_boot(&&**line) && anchor(line) == last) {
            line["response"]["auth"]["metadata"]["audit_head"] = json!("ab".repeat(32));
        }
    });
    let (found, theirs) = judged(&other);
    assert_eq!(
        (found.contains("rewritten"), theirs.contains("rewritten")),
        (true, true),
        "{found:?} {theirs:?}"
    );
}

/// The table definitions and Athena's own prelude cannot be run here; that they are SQL of that dialect can be told.
#[test]
fn the_definitions_are_of_athenas_dialect() {
    let server = crate::harness::Flavor::Vault.shared();
    let program = "
import pathlib, sys
import sqlglot
from sqlglot import exp
for path in sorted(pathlib.Path(sys.argv[1]).rglob('*.sql')):
    if 'duckdb' in path.parts:
        continue
    text = path.read_text()
    assert ';' not in '\\n'.join(line for line in text.splitlines() if not line.lstrip().startswith('--')), path
    for dialect in ('athena',) if path.parent.name == 'tables' else ('athena', 'trino'):
        [statement] = sqlglot.parse(text, dialect=dialect)
        assert not isinstance(statement, exp.Command), f'{path} is not understood'
        # Athena takes these in a WHERE clause alone.
        words = list(statement.find_all(exp.Placeholder))
        assert all(word.find_ancestor(exp.Where) for word in words), path
        assert len(words) == (path.stem in ('execution', 'subject', 'path')), path
    print(path.stem, *(column.name for column in statement.selects) if statement.find(exp.Select) else ())
";
    let output =
        Command::new(text(&server.stack["python"])).args(["-c", program, FOLDER]).output().expect("Python");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.lines().count() > 20, "{said}");
}
