//! `tenure audit trace` and `report` as an auditor calls them: words, files, exit codes, and what is printed where.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tenure::audit::{Audit, Config, Entry, Event, Peer, Run, RunStamp, Source, Subject};
use tenure::clock::Clock;

const EXECUTION: &str = "arn:aws:states:eu-west-1:123456789012:execution:orders:0f1e";
const HOSTILE: &str = "</text><script>alert(1)</script>\u{1b}[31m\n\u{202e}";

/// A log as the broker writes it: one run that reads a credential, and whose end is confirmed.
async fn log(path: &Path, state: &str) {
    let clock = Clock::system();
    let audit = Audit::open(Config::File(path.to_owned()), "b1", clock.clone()).expect("a log");
    let run = Run {
        id: "run-0000000000000001".into(),
        kind: "state".into(),
        execution_arn: Some(EXECUTION.into()),
        state: Some(state.into()),
        standing: Some("verified".into()),
        subject: Some(Subject {
            id: "ada".into(),
            kind: "person".into(),
            issuer: None,
            assurance: "asserted".into(),
            groups: Vec::new(),
        }),
        ..Run::default()
    };
    let run = RunStamp::new(&run).expect("a run");
    let ends = clock.now().plus(Duration::from_secs(60));
    let peer = Peer::unix(1000, 1000, None);
    let (path, lease) = ("database/creds/orders", "database/creds/orders/L1");
    audit.note(&Entry::granted(Event::RunRegister).run(&run).caller(&peer).expires(ends));
    audit.note(&Entry::done(Event::RunStart).run(&run).request("b1-1").expires(ends));
    audit.note(&Entry::done(Event::Mint).run(&run).path(path).request("b1-2").lease_id(lease).expires(ends));
    let read = Entry::granted(Event::Read).run(&run).caller(&peer).path(path).source(Source::Vault);
    let _receipt = audit.record(&read.request("b1-2").lease_id(lease).expires(ends)).await.expect("a line");
    audit.note(&Entry::done(Event::RunEnd).run(&run).detail("it was ended"));
    audit.note(&Entry::done(Event::RevokeRequested).run(&run).request("b1-3").detail("run token"));
    audit.note(&Entry::done(Event::RevokeConfirmed).run(&run).detail("run token and 1 leases"));
    audit.note(&Entry::done(Event::Shutdown));
    audit.close().await.expect("the end of the log");
}

fn tenure(words: &[&str], stdin: Stdio) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_tenure"))
        .arg("audit")
        .args(words)
        .env_clear()
        .stdin(stdin)
        .output()
        .expect("the binary");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

#[tokio::test]
async fn what_is_found_is_in_the_exit_code() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("audit.jsonl");
    log(&file, "Reserve").await;
    let file = file.to_str().expect("a name");
    let run = |words: &[&str]| tenure(words, Stdio::null());

    let (code, out, err) = run(&["trace", "--execution", EXECUTION, file]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    for shown in
        ["run-0000000000000001", "database/creds/orders/L1", "ada (asserted)", "revoked", "audit.jsonl:4"]
    {
        assert!(out.contains(shown), "{shown}: {out}");
    }
    assert!(!out.contains('\u{1b}'), "colours are for terminals");
    let (code, out, _) = run(&["trace", "--subject", "nobody", file]);
    assert!(code == 0 && out.contains("Nothing belongs to that in one file"), "{out}");
    let (code, out, _) = run(&["trace", "--require-verified-subject", file]);
    assert!(code == 1 && out.contains("error subject_unverified"), "{out}");
    let (code, out, _) = run(&["report", "--since", "1h", "--json", file]);
    let report: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, &report["coverage"]["reads"], &report["coverage"]["runs"]), (0, &1.into(), &1.into()));
    let (code, out, _) = run(&["report", "--until", "1h", file]);
    assert!(code == 0 && out.contains("0 reads"), "it was after that: {out}");

    // Standard input is the same.
    let (_, by_name, _) = run(&["trace", "--json", file]);
    let (code, by_pipe, _) =
        tenure(&["trace", "--json", "-"], std::fs::File::open(file).expect("the log").into());
    let timeline = |text: &str| serde_json::from_str::<Value>(text).expect("JSON")["timeline"].clone();
    assert_eq!((code, timeline(&by_pipe)), (0, timeline(&by_name)));

    for (words, word) in [
        (&["trace", "/nowhere"][..], "/nowhere"),
        (&["trace"], "required"),
        (&["trace", "--since", "soon", file], "--since"),
        (&["report", "--since", "1h", "--until", "2h", file], "--until is before --since"),
        (&["trace", "--html", "/nowhere/page.html", file], "/nowhere/page.html"),
    ] {
        let (code, out, err) = run(words);
        assert!(code == 2 && out.is_empty() && err.contains(word), "{words:?}: {code} {out}{err}");
    }

    let text = std::fs::read_to_string(file).expect("the log");
    std::fs::write(file, text.replacen("asserted", "verified", 1)).expect("the log");
    let (code, out, _) = run(&["trace", file]);
    assert!(code == 1 && out.contains("error chain_broken"), "{out}");
}

#[tokio::test]
async fn a_hostile_name_is_only_a_name() {
    let dir = tempfile::tempdir().expect("a folder");
    let (file, page) = (dir.path().join("audit.jsonl"), dir.path().join("page.html"));
    log(&file, HOSTILE).await;
    let words = ["trace", "--html", page.to_str().expect("a name"), file.to_str().expect("a name")];
    let (code, out, err) = tenure(&words, Stdio::null());
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(!out.contains('\u{1b}') && out.contains("\\u{1b}"), "{out}");
    let page = std::fs::read_to_string(&page).expect("the page");
    assert!(
        page.contains("&lt;script&gt;") && !page.contains("<script") && !page.contains('\u{1b}'),
        "{page}"
    );
    let (_, json, _) = tenure(&["trace", "--json", words[3]], Stdio::null());
    let trace: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(trace["runs"][0]["state"], HOSTILE);
    assert!(json.is_ascii() || !json.contains('\u{1b}'), "control characters are escaped");
}

#[test]
fn the_schemas_are_printed() {
    for (of, title) in [("line", "Line"), ("trace", "Trace"), ("report", "Report")] {
        let (code, out, _) = tenure(&["schema", of], Stdio::null());
        let schema: Value = serde_json::from_str(&out).expect("JSON");
        assert_eq!((code, &schema["title"]), (0, &title.into()));
    }
}

/// What a collector of standard output or of syslog keeps: an event for each line, with or without a header, and ours
/// within it.
#[tokio::test]
async fn lines_are_found_within_what_they_were_collected_in() {
    let dir = tempfile::tempdir().expect("a folder");
    let plain = dir.path().join("plain.jsonl");
    log(&plain, "Reserve").await;
    let text = std::fs::read_to_string(&plain).expect("a log");
    let event =
        |line: &str| serde_json::json!({ "class_uid": 6003, "raw_data": line, "status": "ours" }).to_string();
    let header = "<110>1 2026-01-01T00:00:00.000Z host tenure 17 audit -";
    let collected = dir.path().join("collected.log");
    for wrap in [event, |line: &str| line.to_owned()] {
        for header in [Some(header), header.strip_prefix("<110>"), None] {
            let lines = text.lines().map(wrap).map(|line| match header {
                Some(header) => format!("{header} {line}\n"),
                None => line + "\n",
            });
            let lines: String = lines.collect();
            std::fs::write(&collected, &lines).expect("written");
            let file = collected.to_str().expect("a name");
            let (code, out, err) = tenure(&["verify", file], Stdio::null());
            assert_eq!((code, err.as_str()), (0, ""), "{out}");
            let (code, out, err) = tenure(&["trace", "--execution", EXECUTION, file], Stdio::null());
            assert_eq!((code, err.as_str()), (0, ""), "{out}");
            for shown in ["run-0000000000000001", "database/creds/orders/L1", "revoked", "collected.log:4"] {
                assert!(out.contains(shown), "{shown}: {out}");
            }

            std::fs::write(&collected, lines.replacen("orders/L1", "orders/L2", 1)).expect("written");
            let (code, out, _) = tenure(&["verify", file], Stdio::null());
            assert!(code == 1 && out.contains("line 3"), "{out}");
            let (code, out, _) = tenure(&["trace", "--execution", EXECUTION, file], Stdio::null());
            assert!(code == 1, "{out}");
        }
    }
}

#[test]
fn what_is_to_be_asked_of_others_is_checked_before() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("log");
    std::fs::write(&log, "").expect("a file");
    let log = log.display().to_string();
    for (words, says) in [
        (&["--fetch-histories", "--execution", "orders"][..], "\"orders\" is not the ARN of an execution"),
        (&["--accessor", "hvs.canary"], "revoke it"),
        (&["--accessor", "a1", "--audit-hash", "file"], "set VAULT_TOKEN"),
        (&["--audit-hash", "file"], "--accessor"),
    ] {
        let (code, out, err) = tenure(&[&["trace"], words, &[&*log]].concat(), Stdio::null());
        assert!(code == 2 && out.is_empty() && err.contains(says), "{words:?}: {code} {out} {err}");
        assert!(!err.contains("canary"), "{err}");
    }
    let express = EXECUTION.replace("execution", "express") + ":0b-1";
    let words = ["trace", "--fetch-histories", "--execution", &express, &log];
    let (code, out, err) = tenure(&words, Stdio::null());
    assert!(code == 0 && out.contains("it is an express execution"), "{code} {out} {err}");
}

/// What a pipeline makes of two brokers' lines: plain ones with the option, those in its records without it.
#[tokio::test]
async fn lines_of_several_brokers_are_verified_chain_by_chain() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name);
    log(&path("b1"), "Reserve").await;
    let audit = Audit::open(Config::File(path("b2")), HOSTILE, Clock::system()).expect("a log");
    for _ in 0..8 {
        audit.note(&Entry::done(Event::Login));
    }
    audit.close().await.expect("the end of the log");
    let read = |name: &str| std::fs::read_to_string(path(name)).expect("a log");
    let (one, two) = (read("b1"), read("b2"));
    let mut lines: Vec<&str> = one.lines().zip(two.lines()).flat_map(|(a, b)| [a, b]).collect();
    lines.push(lines[4]);
    let verify = |lines: &[String], words: &[&str]| {
        std::fs::write(path("all"), lines.join("\n") + "\n").expect("a file");
        let all = path("all").display().to_string();
        tenure(&[&["verify", &all], words].concat(), Stdio::null())
    };
    let plain: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
    let (code, out, err) = verify(&plain, &[]);
    assert!(code == 1 && out.contains("say --collected"), "{out}{err}");
    let docker = |line: &String| serde_json::json!({ "log": format!("{line}\n"), "stream": "stdout" });
    let records: Vec<_> = plain.iter().map(|line| docker(line).to_string()).collect();
    for (lines, words) in [(&plain, &["--collected"][..]), (&records, &[])] {
        let (code, out, err) = verify(lines, words);
        assert!(code == 0 && out.contains("each chain is whole") && out.contains("BOOT"), "{out}{err}");
        assert!(!out.chars().any(|c| c.is_control() && c != '\n'), "{out:?}");
        let (_, out, _) = verify(lines, &[words, &["--json"]].concat());
        let report: Value = serde_json::from_str(&out).expect("JSON");
        assert_eq!(
            (&report["chains"], &report["repeated"], &report["late"]),
            (&2.into(), &1.into(), &0.into())
        );
        // One line is gone, and it is told of whose chain.
        let mut less = lines.clone();
        less.remove(6);
        let (code, out, err) = verify(&less, &[words, &["--json"]].concat());
        let report: Value = serde_json::from_str(&out).expect("JSON");
        assert_eq!((code, report["problems"].as_array().map(Vec::len)), (1, Some(1)), "{err}");
        let (problem, first) = (&report["problems"][0], &report["by_chain"][0]);
        assert_eq!(
            (&problem["kind"], &problem["boot"], &problem["seq"]),
            (&"missing".into(), &"b1".into(), &4.into())
        );
        assert_eq!((&first["boot"], &first["problems"]), (&"b1".into(), &1.into()));
    }
}
