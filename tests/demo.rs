//! `tenure demo`, as it runs where its output is piped.

use std::process::{Command, Stdio};

#[test]
fn the_demo_runs_piped_and_mentions_every_step() {
    let output = Command::new(env!("CARGO_BIN_EXE_tenure"))
        .arg("demo")
        .stdin(Stdio::null())
        .output()
        .expect("the demo runs");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{out}\n{err}", output.status);
    assert_eq!(err, "");
    assert!(!out.contains('\x1b') && !out.contains('\r'), "control codes in a pipe");
    let mut rest = &*out;
    for step in [
        "Reserve",
        "serving",
        "run token",
        "readers",
        "64 at once",
        "1 mint",
        "renewed",
        "rotated",
        "none dead",
        "ended",
        "0 tokens, 0 database users",
        "Charge",
        "serving",
        "worker",
        "order-4711 by POST /tenure/runs",
        "verified",
        "order-4712",
        "nested",
        "started by order-4711",
        "apart",
        "403 and 403",
        "outage",
        "stale",
        "refused",
        "recovered",
        "abort",
        "over",
        "410, TaskTimedOut",
        "over, too",
        "410, the run or execution that started it is over",
        "gone",
        "on record",
        "kept",
        "ended",
        "0 tokens, 0 database users",
        "Audit",
        "verified",
        "the chain is whole",
        "searched",
        "tampered",
        "caught",
        "line ",
        "Done",
    ] {
        let at = rest.find(step).unwrap_or_else(|| panic!("{step:?} is missing, or out of order, in\n{out}"));
        rest = &rest[at + step.len()..];
    }
}
