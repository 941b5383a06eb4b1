//! A log against Vault's own: whether what was written is still there, told by what nobody but Vault can write.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::Signal;
use serde_json::{Value, json};
use tenure::audit::Hash;

use crate::broker::{Broker, SOON, Setup};
use crate::harness::{Flavor, Server, text, wait_until};
use crate::http::request;

against_both! {
    a_log_that_is_as_it_was_is_confirmed_but_for_its_end
    eight_ways_of_tampering_are_each_named
    an_anchor_by_somebody_else_does_not_count_and_is_told
    a_log_that_was_rotated_is_confirmed_over_all_of_its_files
    what_several_brokers_wrote_to_syslog_is_verified_from_one_file
}

fn a_log_that_is_as_it_was_is_confirmed_but_for_its_end(server: &Server) {
    let mut broker = anchored(server).start();
    work(&broker);
    let boot = text(&broker.status()["boot"]).to_owned();
    let (code, report) = verify(&broker, &[&broker.path("audit.jsonl")]);
    assert_eq!((code, &report["anchored"]["problems"]), (0, &json!([])), "{report:#}");
    let covered = report["anchored"]["covered"]["seq"].as_u64().expect("a line that is covered");
    assert!(covered >= 3, "the header says more than the run token: {report:#}");
    let unproved = report["anchored"]["unproved"].as_array().cloned().unwrap_or_default();
    assert!(!unproved.contains(&Value::from(boot.as_str())), "its own login is in Vault's log: {report:#}");
    broker.terminate();
    let (code, report) = verify(&broker, &[&broker.path("audit.jsonl")]);
    assert_eq!(code, 0, "{report:#}");
    // What is anchored last is the end of all runs; what follows is the end of the login.
    assert!(report["anchored"]["uncovered"].as_u64().is_some_and(|lines| lines <= 5), "{report:#}");
    broker.check_outputs();
}

fn eight_ways_of_tampering_are_each_named(server: &Server) {
    // A broker elsewhere works at the same time: its log is whole, and another one.
    let elsewhere = match server.flavor {
        Flavor::Vault => Flavor::OpenBao.shared(),
        Flavor::OpenBao => Flavor::Vault.shared(),
    };
    let mut other = anchored(elsewhere).start();
    let setup = anchored(server);
    let mut broker = setup.start();
    work(&broker);
    broker.terminate();
    let old = lines(&broker.path("audit.jsonl"));
    let mut broker = setup.start();
    work(&broker);
    broker.terminate();
    other.terminate();
    let whole = lines(&broker.path("audit.jsonl"));
    let swapped = lines(&other.path("audit.jsonl"));

    // Lines that no anchor names: those that one names would be missed by it, too.
    let vault = std::fs::read_to_string(server.says("audit_log")).expect("the server's audit log");
    let free = |from: usize| {
        let plain = |line: &String| !vault.contains(text(&parsed(line)["hash"]));
        (from..whole.len() - 2).find(|&at| plain(&whole[at])).expect("a line that no anchor names")
    };
    let one = free(2);
    let two = free(one + 2);
    let with = |change: &dyn Fn(&mut Vec<String>)| {
        let mut lines = whole.clone();
        change(&mut lines);
        lines
    };
    let edited = whole[one].replacen(r#""outcome":""#, r#""outcome" :""#, 1);
    let ways: [(&str, Vec<String>, &str, &str, &str); 8] = [
        ("edit", with(&|lines| lines[one].clone_from(&edited)), "problems", "edited", "it was changed"),
        ("deletion", with(&|lines| drop(lines.remove(one))), "problems", "missing", "is missing between"),
        ("reordering", with(&|lines| lines.swap(one, two)), "problems", "reordered", "was moved here"),
        (
            "insertion",
            with(&|lines| lines.insert(two, whole[one].clone())),
            "problems",
            "inserted",
            "was put in here",
        ),
        (
            "cut tail",
            with(&|lines| lines.truncate(old.len() + 2)),
            "anchored",
            "cut_tail",
            "its tail was cut",
        ),
        ("swapped file", swapped.clone(), "anchored", "swapped", "it is another file"),
        (
            "rewritten chain",
            chained_anew(&with(&|lines| {
                lines[1] = lines[1].replacen(r#""outcome":""#, r#""detail":"x","outcome":""#, 1);
            })),
            "anchored",
            "rewritten",
            "it was made anew as a whole",
        ),
        ("replayed file", old.clone(), "anchored", "replayed", "it is an older state of the file"),
    ];
    let judged = broker.path("judged.jsonl");
    for (what, lines, by, kind, words) in ways {
        write(&judged, &lines);
        let (code, report) = verify(&broker, &[&judged]);
        let chain = kinds(&report["problems"]);
        let anchored = kinds(&report["anchored"]["problems"]);
        let found = if by == "anchored" { [&chain, &anchored] } else { [&anchored, &chain] };
        assert_eq!(code, 1, "{what}: {report:#}");
        assert_eq!(found, [&BTreeSet::new(), &BTreeSet::from([kind.to_owned()])], "{what}: {report:#}");
        let (code, said, _) = run(&broker, &[&judged], &[]);
        assert!(code == 1 && said.contains(words), "{what}: {said}");
        if by == "anchored" {
            let (_, found) = reported(&broker, &[&judged]);
            assert!(found.iter().any(|message| message.contains(words)), "{what}: {found:#?}");
        }
    }
    // The old state, with a broker that goes on from it, as it would be put back before a restart.
    write(&broker.path("audit.jsonl"), &old);
    let mut broker = setup.start();
    work(&broker);
    broker.terminate();
    let (code, report) = verify(&broker, &[&broker.path("audit.jsonl")]);
    assert_eq!(code, 1, "{report:#}");
    assert_eq!(kinds(&report["anchored"]["problems"]), BTreeSet::from(["replayed".to_owned()]), "{report:#}");

    // The log of another broker of the same Vault is confirmed as its own; the auditor says whose it should be.
    let mut neighbour = anchored(server).start();
    work(&neighbour);
    neighbour.terminate();
    let neighbours = neighbour.path("audit.jsonl");
    assert_eq!(verify(&broker, &[&neighbours]).0, 0);
    let boot = text(&parsed(&whole[0])["boot"]).to_owned();
    let (code, said, _) = run(&broker, &[&neighbours], &["--boot", &boot]);
    assert!(code == 1 && said.contains("it is another file") && said.contains(&boot), "{said}");
    broker.check_silence(&said, "the report");
}

fn an_anchor_by_somebody_else_does_not_count_and_is_told(server: &Server) {
    let mut broker = anchored(server).start();
    work(&broker);
    broker.terminate();
    let log = broker.path("audit.jsonl");
    let (code, before) = verify(&broker, &[&log]);
    assert_eq!(code, 0, "{before:#}");

    // Somebody with a login of their own wants the log to seem rewritten, and confirmed further than it is.
    server.admin("PUT", "sys/auth/approle-forger", Some(&json!({ "type": "approle" })));
    let role = json!({ "token_policies": ["default"], "token_ttl": "60s" });
    server.admin("PUT", "auth/approle-forger/role/forger", Some(&role)).ok();
    let id = server.admin("GET", "auth/approle-forger/role/forger/role-id", None).ok();
    let secret = server.admin("PUT", "auth/approle-forger/role/forger/secret-id", None).ok();
    let login = json!({ "role_id": id["data"]["role_id"], "secret_id": secret["data"]["secret_id"] });
    let login = request(&server.place(), "PUT", "/v1/auth/approle-forger/login", &[], Some(&login));
    let token = login.expect("the server answers").ok();
    let all = lines(&log);
    let (first, last) = (parsed(&all[0]), parsed(all.last().expect("a line")));
    let zeros = "0".repeat(64);
    for (seq, hash) in [(1, zeros.as_str()), (last["seq"].as_u64().expect("a number"), text(&last["hash"]))] {
        let chain = format!("{}:{seq}:{hash}:0:{zeros}", text(&first["boot"]));
        let headers = [("x-vault-token", text(&token["auth"]["client_token"])), ("x-tenure-chain", &chain)];
        let answer = request(&server.place(), "GET", "/v1/auth/token/lookup-self", &headers, None);
        answer.expect("the server answers").ok();
    }

    let (code, report) = verify(&broker, &[&log]);
    assert_eq!(code, 1, "it is told: {report:#}");
    assert_eq!(kinds(&report["anchored"]["problems"]), BTreeSet::from(["foreign".to_owned()]), "{report:#}");
    let told = report["anchored"]["problems"].as_array().expect("a list");
    assert!(told.len() == 2 && told[0].to_string().contains("does not count"), "{report:#}");
    for what in ["covered", "uncovered", "anchors"] {
        assert_eq!(report["anchored"][what], before["anchored"][what], "{what}: it does not count");
    }
    let (_, said, _) = run(&broker, &[&log], &[]);
    assert!(said.contains("was made by forger") && said.contains("it does not count"), "{said}");
}

fn a_log_that_was_rotated_is_confirmed_over_all_of_its_files(server: &Server) {
    let mut broker = anchored(server).start();
    work(&broker);
    let (log, moved) = (broker.path("audit.jsonl"), broker.path("audit.jsonl.1"));
    std::fs::rename(&log, &moved).expect("moved");
    broker.signal(Signal::HUP);
    wait_until("the new file", SOON, || broker.audited("audit.reopened") == 1);
    work(&broker);
    broker.terminate();
    let (code, report) = verify(&broker, &[&log, &moved]);
    assert_eq!((code, &report["chains"]), (0, &json!(1)), "{report:#}");
    assert!(
        report["anchored"]["covered"]["seq"].as_u64() > report["continues"]["seq"].as_u64(),
        "{report:#}"
    );
    // What was rotated away is packed, most often.
    let packed = broker.path("audit.jsonl.1.gz");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(&std::fs::read(&moved).expect("the file")).expect("packed");
    std::fs::write(&packed, gzip.finish().expect("packed")).expect("a file");
    let (code, of_packed) = verify(&broker, &[&packed, &log]);
    assert_eq!((code, &of_packed["lines"]), (0, &report["lines"]), "{of_packed:#}");
    // In a report the files are in any order, and the anchors of the newer one confirm the older one as a whole.
    let (seen, found) = reported(&broker, &[&log, &moved]);
    let [confirmed, open] = ["anchored_lines", "unanchored_lines"].map(|name| seen[name].as_u64());
    assert_eq!(confirmed.zip(open).map(|(a, b)| a + b), seen["broker_lines"].as_u64(), "{seen:#}");
    assert!(open <= Some(5) && seen["unanchored_since"].is_string(), "{seen:#}");
    assert_eq!((&seen["brokers_unanchored"], found), (&json!(0), BTreeSet::new()));
    // The new file alone says what it goes on from; the old one alone is not all that there was.
    let (code, report) = verify(&broker, &[&log]);
    assert_eq!(code, 0, "{report:#}");
    assert!(report["anchored"]["earlier"].as_u64() >= Some(1), "{report:#}");
    assert!(report["continues"]["seq"].as_u64() > Some(2), "{report:#}");
    let (code, report) = verify(&broker, &[&moved]);
    assert_eq!(code, 1, "{report:#}");
    assert_eq!(kinds(&report["anchored"]["problems"]), BTreeSet::from(["cut_tail".to_owned()]), "{report:#}");
}

/// Two brokers, one receiver: what it took is one file of two chains.
fn what_several_brokers_wrote_to_syslog_is_verified_from_one_file(server: &Server) {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = std::os::unix::net::UnixDatagram::bind(folder.path().join("log")).expect("a receiver");
    let received = Arc::new(Mutex::new(Vec::new()));
    let into = Arc::clone(&received);
    // It ends with the process: until then somebody may send.
    std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(length) = socket.recv(&mut buffer) {
            let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
            into.lock().unwrap_or_else(PoisonError::into_inner).push(message);
        }
    });
    let collect = || -> Vec<String> { received.lock().unwrap_or_else(PoisonError::into_inner).clone() };
    let to = format!("unix://{}", folder.path().join("log").display());
    let setups = ["tenure", "ocsf"].map(|format| {
        anchored(server).unset("audit", "file").set("audit", "syslog", &to).set("audit", "format", format)
    });
    let mut brokers = setups.each_ref().map(Setup::start);
    for broker in brokers.iter().chain(&brokers) {
        broker.credential("orders");
    }
    let boots = brokers.each_ref().map(|broker| text(&broker.status()["boot"]).to_owned());
    wait_until("both are anchored", SOON, || {
        let of = |boot: &String| {
            collect().iter().any(|line| line.contains(boot.as_str()) && line.contains("audit.anchor"))
        };
        boots.iter().all(of)
    });
    brokers.iter_mut().for_each(Broker::terminate);
    wait_until("their last lines", SOON, || {
        collect()
            .iter()
            .filter(|line| {
                line.contains(r#""event":"shutdown""#) || line.contains(r#"\"event\":\"shutdown\""#)
            })
            .count()
            == 2
    });
    let mut all = collect();
    // What is delivered at least once comes twice, and what comes over a network not always in order.
    all.push(all[3].clone());
    all.swap(5, 6);
    let (broker, file) = (&brokers[0], folder.path().join("collected"));
    write(&file, &all);
    let (code, report) = verify(broker, &[&file]);
    assert_eq!(code, 0, "{report:#}");
    assert_eq!((&report["chains"], &report["repeated"]), (&json!(2), &json!(1)), "{report:#}");
    let each = report["by_chain"].as_array().expect("a list");
    let named: BTreeSet<_> = each.iter().map(|chain| text(&chain["boot"])).collect();
    assert_eq!(named, boots.iter().map(String::as_str).collect(), "{report:#}");
    let covered = report["anchored"]["by_chain"].as_array().expect("a list");
    assert!(covered.iter().all(|chain| chain["covered"]["seq"].as_u64() >= Some(2)), "{report:#}");

    // One of them is tampered with, and it is that one that is named: by its chain, and by its anchors.
    let of = |line: &String| line.contains(&boots[1]);
    let at = all.iter().rposition(of).expect("a line");
    let mut changed = all.clone();
    changed[at] = changed[at].replacen("outcome", "outgoing", 1);
    write(&file, &changed);
    let (code, report) = verify(broker, &[&file]);
    assert_eq!(code, 1, "{report:#}");
    let mut short: Vec<_> = all.iter().filter(|line| !of(line)).cloned().collect();
    let begun: Vec<_> = all.iter().filter(|line| of(line)).take(2).cloned().collect();
    short.extend(begun);
    write(&file, &short);
    let (code, report) = verify(broker, &[&file]);
    assert_eq!((code, kinds(&report["anchored"]["problems"])), (1, BTreeSet::from(["cut_tail".to_owned()])));
    let told = report["anchored"]["problems"].as_array().expect("a list");
    assert!(told.iter().all(|problem| text(&problem["message"]).contains(&boots[1])), "{report:#}");
    let (_, said, _) = run(broker, &[&file], &[]);
    assert!(boots.iter().all(|boot| said.contains(boot)), "{said}");
    broker.check_silence(&said, "the report");
}

/// A broker whose chain is anchored as often as may be.
fn anchored(server: &Server) -> Setup<'_> {
    Setup::new(server).set("audit", "anchor", "1s")
}

/// Reads some, until the chain is anchored twice more.
#[track_caller]
fn work(broker: &Broker<'_>) {
    let before = broker.audited("audit.anchor");
    broker.credential("orders");
    wait_until("the chain is anchored", SOON, || broker.audited("audit.anchor") > before);
    for _ in 0..4 {
        broker.get("/v1/secret/data/orders/config").ok();
    }
    wait_until("it is anchored again", SOON, || broker.audited("audit.anchor") > before + 1);
}

fn lines(file: &Path) -> Vec<String> {
    let log = std::fs::read_to_string(file).expect("the log");
    log.lines().map(str::to_owned).collect()
}

fn write(file: &Path, lines: &[String]) {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    std::fs::write(file, text).expect("a file");
}

#[track_caller]
fn parsed(line: &str) -> Value {
    serde_json::from_str(line).expect("a line of JSON")
}

/// The same lines with good hashes, whatever was changed in them: what somebody can do who may write the file.
fn chained_anew(lines: &[String]) -> Vec<String> {
    let mut prev = "0".repeat(64);
    let mut seq = 0;
    let again = |line: &String| {
        let body = &line[..line.rfind(r#","seq":"#).expect("its number")];
        seq += 1;
        let content = format!(r#"{body},"seq":{seq},"prev":"{prev}""#);
        prev = Hash::of(content.as_bytes()).to_string();
        format!(r#"{content},"hash":"{prev}"}}"#)
    };
    lines.iter().map(again).collect()
}

fn kinds(problems: &Value) -> BTreeSet<String> {
    let problems = problems.as_array().into_iter().flatten();
    problems.map(|problem| text(&problem["kind"]).to_owned()).collect()
}

#[track_caller]
fn verify(broker: &Broker<'_>, files: &[&PathBuf]) -> (i32, Value) {
    let (code, out, err) = run(broker, files, &["--json"]);
    assert!(code < 2, "{code}: {err}");
    (code, serde_json::from_str(&out).expect("JSON"))
}

/// What a report says of the anchors: the coverage, and the findings.
#[track_caller]
fn reported(broker: &Broker<'_>, files: &[&PathBuf]) -> (Value, BTreeSet<String>) {
    let files: Vec<_> = files.iter().map(|file| file.display().to_string()).collect();
    let mut words = vec!["audit", "report", "--json", broker.setup.server.says("audit_log")];
    words.extend(files.iter().map(String::as_str));
    let (code, out, err) = broker.tenure(&words);
    assert!(code < 2, "{code}: {err}");
    let report: Value = serde_json::from_str(&out).expect("JSON");
    let found = report["findings"].as_array().into_iter().flatten();
    let found = found.filter(|finding| finding["kind"] == "anchor_contradicts");
    (report["coverage"].clone(), found.map(|finding| text(&finding["message"]).to_owned()).collect())
}

fn run(broker: &Broker<'_>, files: &[&PathBuf], more: &[&str]) -> (i32, String, String) {
    let files: Vec<_> = files.iter().map(|file| file.display().to_string()).collect();
    let mut words = vec!["audit", "verify", "--vault-log", broker.setup.server.says("audit_log")];
    words.extend(more);
    words.extend(files.iter().map(String::as_str));
    broker.tenure(&words)
}
