//! How a run ends: by its deadline, by a crash, in order; and what does not end it.

use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};

use crate::broker::{Broker, SOON, Setup};
use crate::harness::{Flavor, Server, Stack, text, wait_until};

against_both! {
    the_deadline_holds_without_the_broker
    at_the_deadline_the_broker_revokes_and_goes_on_running
    a_login_lost_behind_our_back_does_not_disturb_the_run
    what_a_crash_left_is_revoked_at_the_next_start
}

fn the_deadline_holds_without_the_broker(server: &Server) {
    let began = Instant::now();
    let mut broker = Setup::new(server).env("TENURE_TIMEOUT_SECONDS", "10").start();
    let login = broker.credential("orders");
    let users = [login.user];
    let deadline = text(&broker.status()["run"]["deadline"]).to_owned();
    broker.kill();
    let gone = || server.database.existing(&users).is_empty();
    while began.elapsed() < Duration::from_secs(8) {
        assert!(!gone(), "ended {:?} after the start, its deadline is {deadline}", began.elapsed());
        std::thread::sleep(Duration::from_millis(100));
    }
    // The deadline is counted from when the process reads its environment.
    wait_until("the end of the role", Duration::from_secs(12).saturating_sub(began.elapsed()), gone);
    // The database's role goes first, Vault's entry of the lease right after it.
    wait_until("the end of the lease", Duration::from_secs(2), || !server.knows_lease(&login.lease_id));
    broker.check_outputs();
}

fn at_the_deadline_the_broker_revokes_and_goes_on_running(server: &Server) {
    let began = Instant::now();
    let broker = Setup::new(server).env("TENURE_TIMEOUT_SECONDS", "6").start();
    let answer = broker.get("/v1/database/creds/orders").ok();
    let left = answer["lease_duration"].as_u64().expect("a number");
    assert!(left <= 6, "a credential ends with the run: {left} s");
    let longer =
        broker.ask(&broker.unix(), "GET", "/v1/database/creds/orders", &[("x-tenure-min-ttl", "60s")]);
    assert_eq!(longer.status, 400, "and none lives longer: {}", longer.text());
    let users = [text(&answer["data"]["username"]).to_owned()];
    while began.elapsed() < Duration::from_secs(4) {
        assert_eq!(broker.credential("orders").user, users[0], "what ends with the run is not replaced");
        std::thread::sleep(Duration::from_millis(100));
    }
    wait_until("the end of the role", SOON, || server.database.existing(&users).is_empty());
    assert!((5..=8).contains(&began.elapsed().as_secs()), "{:?} after the start", began.elapsed());
    wait_until("the end of the run", SOON, || broker.audited("run.end") > 0);
    for path in ["/v1/database/creds/orders", "/v1/secret/data/orders/config"] {
        let over = broker.get(path);
        assert_eq!(over.status, 410, "{path}: {}", over.text());
        assert!(over.text().contains("is over: its deadline has passed"), "{}", over.text());
    }
    assert_eq!(broker.get("/tenure/health").status, 200);
    let run = broker.run.clone();
    let finished = broker.finish();
    assert_eq!(finished.of("run.end").len(), 1, "once");
    assert_eq!(server.asked(&run, "auth/token/create/run"), 1, "nobody made another token");
    assert_eq!(server.asked(&run, "database/creds/orders"), 1);
}

fn a_login_lost_behind_our_back_does_not_disturb_the_run(server: &Server) {
    // This login token is renewed every few seconds: the loss is noticed then.
    let broker = Setup::new(server).set("vault.auth.aws", "role", "orders-short").start();
    let login = broker.credential("orders");
    let accessor = accessors(&broker, "login").pop().expect("the login token's accessor");
    server.admin("PUT", "auth/token/revoke-accessor", Some(&json!({ "accessor": accessor }))).ok();
    wait_until("another login", SOON, || {
        assert_eq!(broker.credential("orders"), login, "the run's credential stays");
        server.asked(&broker.run, "auth/aws/login") == 2 && broker.get("/tenure/ready").status == 200
    });
    assert_eq!(broker.credential("orders"), login);
    server.database.use_as(&login.user, &login.password).expect("still good");
    assert_eq!(server.asked(&broker.run, "auth/token/create/run"), 1, "the run token stays");
    let finished = broker.finish();
    assert_eq!(finished.of("token.lost").len(), 1);
    assert_eq!(server.database.existing(&[login.user]), [""; 0]);
}

fn what_a_crash_left_is_revoked_at_the_next_start(server: &Server) {
    let setup = Setup::new(server);
    let mut broker = setup.start();
    let login = broker.credential("orders");
    let (logins, runs) = (accessors(&broker, "login"), accessors(&broker, "run"));
    assert_eq!((logins.len(), runs.len()), (1, 1));
    let before = broker.audit().len();
    broker.kill();
    let users = [login.user];
    assert_eq!(server.database.existing(&users).len(), 1, "a crash revokes nothing");
    drop(broker);

    // The socket of the dead process is in the way, too.
    let broker = setup.start();
    wait_until("two orphans revoked", SOON, || broker.audited("orphan.revoked") == 2);
    wait_until("the end of the role", Duration::from_secs(5), || server.database.existing(&users).is_empty());
    wait_until("the end of the lease", Duration::from_secs(5), || !server.knows_lease(&login.lease_id));
    for accessor in logins.iter().chain(&runs) {
        let known = server.admin("PUT", "auth/token/lookup-accessor", Some(&json!({ "accessor": accessor })));
        assert!(known.status >= 400, "{}", known.text());
    }
    let fresh = broker.credential("orders");
    server.database.use_as(&fresh.user, &fresh.password).expect("a good credential");
    let finished = broker.finish();
    let orphans = finished.of("orphan.revoked");
    assert!(orphans.iter().all(|line| line["outcome"] == "done"), "{orphans:?}");
    assert_eq!(finished.of("boot").len(), 2, "one file");
    assert_eq!(finished.audit[before]["prev"], finished.audit[before - 1]["hash"], "one chain");
    assert_ne!(finished.audit[before]["boot"], finished.audit[before - 1]["boot"]);
    let left = std::fs::read_to_string(setup.dir().join("audit.jsonl.orphans")).expect("the journal");
    assert!(
        accessors_in(&left, "login")
            .iter()
            .chain(&accessors_in(&left, "run"))
            .all(|accessor| { left.contains(&json!({ "gone": { "accessor": accessor } }).to_string()) })
    );
}

/// The accessors that the journal names, in the order in which their tokens were made.
pub(crate) fn accessors(broker: &Broker<'_>, kind: &str) -> Vec<String> {
    accessors_in(&std::fs::read_to_string(broker.path("audit.jsonl.orphans")).expect("the journal"), kind)
}

fn accessors_in(journal: &str, kind: &str) -> Vec<String> {
    let lines = journal.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let tokens = lines.filter(|line| line["token"]["kind"] == kind);
    tokens.map(|line| text(&line["token"]["accessor"]).to_owned()).collect()
}

/// Has a stack of its own: its server is stopped.
fn what_could_not_be_revoked_is_revoked_at_the_next_start(flavor: Flavor) {
    let stack = Stack::own(flavor);
    let server = stack.server(flavor);
    let pid = server.pid();
    let setup = Setup::new(server).and("[shutdown]\ngrace = \"2s\"\n");
    let mut broker = setup.start();
    let login = broker.credential("orders");
    kill_process(pid, Signal::STOP).expect("the server is ours");
    let began = Instant::now();
    broker.terminate();
    assert!(began.elapsed() < Duration::from_secs(5), "the grace is 2 s: {:?}", began.elapsed());
    assert!(broker.log().contains("not everything could be revoked in time"), "{}", broker.log());
    broker.check_outputs();
    drop(broker);
    kill_process(pid, Signal::CONT).expect("the server is ours");

    let broker = setup.start();
    wait_until("two orphans revoked", SOON, || broker.audited("orphan.revoked") == 2);
    wait_until("the end of the role", SOON, || {
        server.database.existing(std::slice::from_ref(&login.user)).is_empty()
    });
    let finished = broker.finish();
    let last =
        finished.of("shutdown").iter().map(|line| text(&line["detail"]).to_owned()).collect::<Vec<_>>();
    assert_eq!(last, ["not everything could be revoked in time", "everything was revoked"]);
}

#[test]
fn what_could_not_be_revoked_is_revoked_at_the_next_start_vault() {
    what_could_not_be_revoked_is_revoked_at_the_next_start(Flavor::Vault);
}

#[test]
fn what_could_not_be_revoked_is_revoked_at_the_next_start_openbao() {
    what_could_not_be_revoked_is_revoked_at_the_next_start(Flavor::OpenBao);
}
