//! The first process of a pid namespace: it is told to end by a handler or not at all, and waits for whoever is left.

use std::time::Duration;

use rustix::process::Signal;

use crate::broker::{PID_NAMESPACE, Place, Process, children_of, command, must_have, now, run, text};
use crate::vault::Vault;

#[test]
fn as_pid_1_the_broker_ends_in_order() {
    must_have(PID_NAMESPACE);
    let vault = Vault::start();
    let place = Place::new(&vault, "[[prefetch]]\npath = \"database/creds/orders\"\n");
    for signal in [Signal::TERM, Signal::INT] {
        let mut broker = place.ready(PID_NAMESPACE);
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", broker.pid().as_raw_nonzero())).unwrap();
        assert!(status.lines().any(|line| line.starts_with("NSpid:") && line.ends_with("\t1")), "{status}");
        assert_eq!(vault.tokens(), 2, "a login and a run");
        broker.signal(signal);
        assert_eq!(broker.ended().code(), Some(0), "{}", broker.said());
        assert_eq!(vault.tokens(), 0, "{}", broker.said());
        assert!(place.audit().contains("everything was revoked"), "{}", place.audit());
    }
}

/// Each waits for something that does not come: without a handler nothing but SIGKILL would end it.
#[test]
fn as_pid_1_every_command_is_told_to_end() {
    must_have(PID_NAMESPACE);
    let vault = Vault::start();
    vault.hang(true);
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).unwrap();
    let fifo = fifo.to_str().unwrap();
    let silent = folder.path().join("silent");
    let _listener = std::os::unix::net::UnixListener::bind(&silent).unwrap();
    let silent = silent.to_str().unwrap();
    for words in [
        // A configuration that is being read.
        &["config", "check", fifo][..],
        &["serve", "--config", fifo],
        // A broker that does not answer, or is not there.
        &["get", "secret/data/app", "--socket", silent],
        &["health", "--socket", silent],
        &["wait", "--socket", "/nonexistent/s"],
        &["run", "list", "--socket", silent],
        &["status", "--watch", "--socket", silent],
        &["demo"],
    ] {
        for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130), (Signal::HUP, 129)] {
            // Somebody who watches leaves with it, and nothing went wrong.
            if words[0] == "status" && signal == Signal::INT {
                continue;
            }
            let mut process = Process::start(command(PID_NAMESPACE, words));
            process.until("it listens", |process| catches(process.pid().as_raw_nonzero().get(), signal));
            process.signal(signal);
            // unshare ends with the code of what it started.
            assert_eq!(process.ended().code(), Some(code), "{words:?} {signal:?}: {}", process.said());
        }
    }
}

#[test]
fn as_pid_1_the_doctor_is_broken_off_in_its_own_way() {
    must_have(PID_NAMESPACE);
    let vault = Vault::start();
    let place = Place::new(&vault, "");
    vault.hang(true);
    let config = place.path("tenure.toml");
    for signal in [Signal::TERM, Signal::INT] {
        let before = vault.asked().len();
        let mut doctor =
            Process::start(command(PID_NAMESPACE, &["doctor", "--config", config.to_str().unwrap()]));
        doctor.until("it asks Vault", |_| vault.asked().len() > before);
        doctor.signal(signal);
        assert_eq!(doctor.ended().code(), Some(1), "{}", doctor.said());
        assert!(doctor.said().starts_with("error: broken off"), "{}", doctor.said());
    }
}

/// Whether a process has a handler for the signal.
fn catches(pid: i32, signal: Signal) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let named = status.starts_with("Name:\ttenure\n");
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    named && caught & (1 << (signal.as_raw() - 1)) != 0
}

#[test]
fn as_pid_1_while_it_logs_in_it_ends_in_its_grace() {
    must_have(PID_NAMESPACE);
    let vault = Vault::start();
    vault.hang(true);
    let place = Place::new(&vault, "[shutdown]\ngrace = \"1s\"\n");
    let mut broker = place.serve(PID_NAMESPACE, &[]);
    broker.until("a login is under way", |_| vault.asked().iter().any(|line| line.contains("approle/login")));
    let began = now();
    broker.signal(Signal::TERM);
    assert_eq!(broker.ended().code(), Some(0), "{}", broker.said());
    assert!(began.elapsed() < Duration::from_secs(4), "the grace is 1 s: {:?}", began.elapsed());
}

/// The children of the shell are re-parented to whom it becomes: some have ended before, one ends while we serve.
#[test]
fn as_pid_1_the_broker_waits_for_orphans() {
    must_have(PID_NAMESPACE);
    let vault = Vault::start();
    let place = Place::new(&vault, "");
    let script = "(sh -c : & sh -c : & sleep 1 &) ; exec \"$@\"";
    let mut broker = place.ready(&[PID_NAMESPACE, &["sh", "-c", script, "sh"]].concat());
    let pid = broker.pid().as_raw_nonzero().to_string();
    assert_eq!(children_of(&pid).len(), 1, "those that had ended are gone: {}", broker.said());
    broker.until("the end of the last", |_| children_of(&pid).is_empty());
    broker.signal(Signal::TERM);
    assert_eq!(broker.ended().code(), Some(0), "{}", broker.said());
}

/// The child that is waited for is told from orphans, whichever ends first.
#[test]
fn as_pid_1_dev_ends_with_the_code_of_its_command() {
    must_have(PID_NAMESPACE);
    let folder = tempfile::tempdir().unwrap();
    for (script, code) in [
        ("(sh -c 'exit 3' &); exit 7", 7),
        ("(sleep 0.2 &); sleep 0.5; exit 8", 8),
        ("kill -KILL $$", 137),
        ("(sh -c : &); sleep 0.3; grep -q '^State:.Z' /proc/[0-9]*/status && exit 1; exit 9", 9),
    ] {
        let words = ["dev", "-q", "--", "sh", "-c", script];
        let mut dev = command(PID_NAMESPACE, &words);
        dev.env("TMPDIR", folder.path()).current_dir(folder.path());
        let output = run(dev);
        assert_eq!(output.status.code(), Some(code), "{script}: {}", text(&output.stderr));
    }
    // A signal is passed on.
    let words =
        ["dev", "-q", "--", "sh", "-c", "trap 'exit 31' TERM; touch up; while :; do sleep 0.05; done"];
    let mut dev = command(PID_NAMESPACE, &words);
    dev.env("TMPDIR", folder.path()).current_dir(folder.path());
    let mut dev = Process::start(dev);
    dev.until("the command runs", |_| folder.path().join("up").exists());
    dev.signal(Signal::TERM);
    assert_eq!(dev.ended().code(), Some(31), "{}", dev.said());
}

#[test]
fn as_pid_1_wait_becomes_its_command() {
    must_have(PID_NAMESPACE);
    let vault = Vault::start();
    let place = Place::new(&vault, "");
    let socket = place.path("s");
    let words = ["wait", "--socket", socket.to_str().unwrap(), "--", "sh", "-c", "echo $$; exec sleep 600"];
    let mut waiting = Process::start(command(PID_NAMESPACE, &words));
    let mut broker = place.ready(&[]);
    waiting.until("it is the command", |waiting| {
        let pid = waiting.pid().as_raw_nonzero();
        std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default() == "sleep\n"
    });
    let pid = waiting.pid().as_raw_nonzero();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.lines().any(|line| line.starts_with("NSpid:") && line.ends_with("\t1")), "{status}");
    let mask = |status: &str, name: &str| {
        let line =
            status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned();
        u64::from_str_radix(&line, 16).expect("a mask")
    };
    let ours = std::fs::read_to_string("/proc/self/status").unwrap();
    // A process of Rust's ignores SIGPIPE, and what it starts does not.
    let ignored = mask(&ours, "SigIgn:") & !(1 << (Signal::PIPE.as_raw() - 1));
    let found = ["SigBlk:", "SigCgt:", "SigIgn:"].map(|name| mask(&status, name));
    assert_eq!(found, [0, 0, ignored], "signals are as a process finds them");
    waiting.signal(Signal::KILL);
    waiting.ended();
    broker.signal(Signal::TERM);
    assert!(broker.ended().success());
}
