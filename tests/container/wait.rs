//! `tenure wait` before the real broker.

use rustix::process::Signal;

use crate::broker::{Place, Process, command, now, run, text};
use crate::vault::Vault;

#[test]
fn a_workload_starts_when_the_broker_is_ready() {
    let vault = Vault::start();
    vault.hang(true);
    let place = Place::new(&vault, "[[prefetch]]\npath = \"secret/data/app\"\n");
    let socket = place.path("s");
    let to = ["--socket", socket.to_str().unwrap()];
    let mut waiting =
        Process::start(command(&[], &[&["wait"], &to[..], &["--", "sh", "-c", "exit 7"]].concat()));
    waiting.until("it says what it waits for", |waiting| waiting.said().contains("there is no such socket"));
    let mut broker = place.serve(&[], &[]);
    waiting.until("it says what is missing", |waiting| {
        waiting.said().contains("login: ") && waiting.said().contains("prefetch secret/data/app: ")
    });
    // Alive it is.
    let alive = run(command(&[], &[&["wait", "--for", "alive", "--timeout", "5s"], &to[..]].concat()));
    assert_eq!((text(&alive.stdout).as_str(), alive.status.code()), ("alive\n", Some(0)));
    let late = run(command(&[], &[&["wait", "--timeout", "300ms"], &to[..], &["--", "true"]].concat()));
    assert_eq!(late.status.code(), Some(1));
    assert!(
        text(&late.stderr).starts_with("error: not ready after 300ms: login: "),
        "{}",
        text(&late.stderr)
    );
    vault.hang(false);
    assert_eq!(waiting.ended().code(), Some(7), "{}", waiting.said());
    broker.signal(Signal::TERM);
    assert!(broker.ended().success(), "{}", broker.said());
}

#[test]
fn a_command_that_cannot_be_started_is_named_as_a_shell_would() {
    let vault = Vault::start();
    let place = Place::new(&vault, "");
    let mut broker = place.ready(&[]);
    let plain = place.path("tenure.toml");
    let socket = place.path("s");
    for (program, code) in [("/nowhere/at/all", 127), (plain.to_str().unwrap(), 126)] {
        let output = run(command(&[], &["wait", "--socket", socket.to_str().unwrap(), "--", program]));
        assert_eq!(output.status.code(), Some(code));
        let said = text(&output.stderr);
        assert!(said.starts_with(&format!("error: {program} cannot be started: ")), "{said}");
    }
    broker.signal(Signal::TERM);
    assert!(broker.ended().success());
}

/// It asks a few times a second, and sleeps in between.
#[test]
fn waiting_costs_next_to_nothing() {
    let mut waiting =
        Process::start(command(&[], &["wait", "--socket", "/nonexistent/s", "--timeout", "2s"]));
    let began = now();
    let pid = waiting.pid().as_raw_nonzero();
    let spent = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields: Vec<u64> = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .skip(11)
            .take(2)
            .flat_map(str::parse)
            .collect();
        fields.iter().sum::<u64>()
    };
    waiting.until("most of its time", |_| began.elapsed().as_millis() > 1800);
    // In hundredths of a second; an unoptimised binary starts in a few of them.
    let ticks = spent();
    assert!(ticks < 20, "{ticks} hundredths of a second");
    assert_eq!(waiting.ended().code(), Some(1));
}
