//! From SIGTERM to the end.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::process::Signal;

use crate::broker::{Place, now};
use crate::vault::Vault;

const PREFETCH: &str = "[[prefetch]]\npath = \"database/creds/orders\"\n";

#[tokio::test]
async fn from_the_signal_on_it_is_not_ready() {
    let folder = tempfile::tempdir().expect("a folder");
    let (app, _vault) = crate::spans::broker(folder.path()).await;
    assert_eq!(crate::spans::get(folder.path(), "/tenure/ready", 1).await, "200");
    app.broker().stopping();
    assert_eq!(crate::spans::get(folder.path(), "/tenure/ready", 1).await, "503");
    assert_eq!(app.broker().ready().missing, ["the broker is stopping"]);
    // Who asks for a secret gets it, as long as there is one.
    assert_eq!(crate::spans::get(folder.path(), "/v1/secret/data/app", 1).await, "200");
    assert!(app.stop().await);
}

#[test]
fn what_is_in_flight_is_answered_and_nobody_else_is() {
    let vault = Vault::start();
    let place = Place::new(&vault, "[shutdown]\ngrace = \"10s\"\n");
    let mut broker = place.ready(&[]);
    // Both connections are there before the signal; one of them asks for what takes its time.
    let mut asking = UnixStream::connect(place.path("s")).expect("the socket");
    vault.hang(true);
    asking.write_all(b"GET /v1/secret/data/app HTTP/1.1\r\nHost: x\r\n\r\n").expect("a request");
    broker.until("it asks Vault", |_| vault.asked().iter().any(|line| line.contains("secret/data/app")));
    broker.signal(Signal::TERM);
    broker.until("nobody is let in any more", |_| place.get("/tenure/ready", "").0 == 0);
    vault.hang(false);
    let mut answer = String::new();
    asking.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("canary-value"), "{answer}");
    assert_eq!(broker.ended().code(), Some(0), "{}", broker.said());
    assert_eq!(vault.tokens(), 0, "{}", broker.said());
}

#[test]
fn a_vault_that_hangs_does_not_hold_the_broker_past_its_grace() {
    let vault = Vault::start();
    let place = Place::new(&vault, &format!("[shutdown]\ngrace = \"2s\"\n{PREFETCH}"));
    let mut broker = place.ready(&[]);
    vault.hang(true);
    // Somebody waits for an answer, somebody else just stays connected.
    let mut asking = UnixStream::connect(place.path("s")).expect("the socket");
    asking.write_all(b"GET /v1/secret/data/app HTTP/1.1\r\nHost: x\r\n\r\n").expect("a request");
    let _idle = UnixStream::connect(place.path("s")).expect("the socket");
    let began = now();
    broker.signal(Signal::TERM);
    assert_eq!(broker.ended().code(), Some(0), "ended as told: {}", broker.said());
    let took = began.elapsed();
    assert!(took < Duration::from_secs(4), "the grace is 2 s: {took:?}");
    let said = broker.said();
    for left in [
        "the token of the run run-",
        "the login token (accessor accessor-of-login-",
        "), which ends by itself at 20",
    ] {
        assert!(said.contains(left), "{left}: {said}");
    }
    assert!(place.audit().contains("not everything could be revoked in time"), "{}", place.audit());
}

#[test]
fn a_second_signal_ends_it_at_once_and_names_what_is_left() {
    let vault = Vault::start();
    let place = Place::new(&vault, &format!("[shutdown]\ngrace = \"60s\"\n{PREFETCH}"));
    for (second, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let mut broker = place.ready(&[]);
        vault.hang(true);
        broker.signal(Signal::TERM);
        broker.until("it stops", |broker| broker.said().contains("draining, then revoking"));
        let began = now();
        broker.signal(second);
        assert_eq!(broker.ended().code(), Some(code), "{}", broker.said());
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        let said = broker.said();
        assert!(said.contains("the token of the run run-") && said.contains("the login token ("), "{said}");
        assert!(place.audit().contains("ended by a second signal"), "{}", place.audit());
        vault.hang(false);
    }
    // What was left is revoked at the next start.
    let mut broker = place.ready(&[]);
    broker.until("the orphans' end", |_| place.audit().matches("orphan.revoked").count() >= 2);
    broker.signal(Signal::TERM);
    assert!(broker.ended().success(), "{}", broker.said());
    assert_eq!(vault.tokens(), 0, "{}", broker.said());
}

#[test]
fn on_ecs_a_grace_that_the_default_would_cut_short_is_warned_of() {
    let vault = Vault::start();
    for (shutdown, warned) in [
        ("grace = \"30s\"", true),
        ("grace = \"29s\"", false),
        ("grace = \"60s\"\nstop_timeout = \"120s\"", false),
    ] {
        let place = Place::new(&vault, &format!("[shutdown]\n{shutdown}\n"));
        let config = place.path("tenure.toml");
        let mut serve = crate::broker::command(&[], &["serve", "--config", config.to_str().unwrap()]);
        // Nobody is there: the task is not known, and the broker goes on without.
        serve.env("ECS_CONTAINER_METADATA_URI_V4", "http://127.0.0.1:1/v4/x");
        let mut broker = crate::broker::Process::start(serve);
        broker.until("it serves", |broker| broker.said().contains("serving; "));
        assert_eq!(broker.said().contains("set stopTimeout (120 s at most)"), warned, "{}", broker.said());
        broker.signal(Signal::TERM);
        assert!(broker.ended().success(), "{}", broker.said());
    }
}
