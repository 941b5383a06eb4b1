//! A log against Vault's own: whether what was written is still there, told by what nobody but Vault can write.

use std::path::PathBuf;

use serde_json::Value;

use crate::broker::{Broker, SOON, Setup};
use crate::harness::{Server, text, wait_until};

against_both! {
    vaults_log_tells_a_log_that_is_as_it_was_from_one_that_is_not
}

fn vaults_log_tells_a_log_that_is_as_it_was_from_one_that_is_not(server: &Server) {
    let mut broker = Setup::new(server).set("audit", "anchor", "1s").start();
    broker.credential("orders");
    wait_until("the chain is anchored", SOON, || broker.audited("audit.anchor") >= 1);
    broker.get("/v1/secret/data/orders/config").ok();
    wait_until("it is anchored again", SOON, || broker.audited("audit.anchor") >= 2);
    let boot = text(&broker.status()["boot"]).to_owned();
    let log = std::fs::read_to_string(broker.path("audit.jsonl")).expect("the log");
    let whole: Vec<&str> = log[..=log.rfind('\n').expect("a line")].lines().collect();

    let verified = |lines: &[&str]| {
        let file = broker.path("judged.jsonl");
        std::fs::write(&file, lines.iter().map(|line| format!("{line}\n")).collect::<String>())
            .expect("a file");
        verify(&broker, server, &[file])
    };
    let (code, report) = verified(&whole);
    assert_eq!((code, &report["anchored"]["problems"]), (0, &Value::Array(Vec::new())), "{report:#}");
    let covered = report["anchored"]["covered"]["seq"].as_u64().expect("a line that is covered");
    assert!(covered >= 3, "the header says more than the run token: {report:#}");
    let unproved = report["anchored"]["unproved"].as_array().cloned().unwrap_or_default();
    assert!(!unproved.contains(&Value::from(boot.as_str())), "its own login is in Vault's log: {report:#}");

    let (code, report) = verified(&whole[..3]);
    let kinds: Vec<_> =
        report["anchored"]["problems"].as_array().into_iter().flatten().map(|it| text(&it["kind"])).collect();
    assert_eq!(code, 1);
    assert!(!kinds.is_empty() && kinds.iter().all(|kind| *kind == "cut_tail"), "{report:#}");

    broker.terminate();
    let (code, report) = verify(&broker, server, &[broker.path("audit.jsonl")]);
    assert_eq!(code, 0, "{report:#}");
    // What is anchored last is the end of all runs; what follows is the end of the login.
    assert!(report["anchored"]["uncovered"].as_u64().is_some_and(|lines| lines <= 5), "{report:#}");
    broker.check_outputs();
}

fn verify(broker: &Broker<'_>, server: &Server, files: &[PathBuf]) -> (i32, Value) {
    let files: Vec<_> = files.iter().map(|file| file.display().to_string()).collect();
    let mut words = vec!["audit", "verify", "--json", "--vault-log", server.says("audit_log")];
    words.extend(files.iter().map(String::as_str));
    let (code, out, err) = broker.tenure(&words);
    assert!(code < 2, "{code}: {err}");
    (code, serde_json::from_str(&out).expect("JSON"))
}
