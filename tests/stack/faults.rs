//! What goes wrong upstream, or with the process itself: nobody gets a dead credential where the broker can know better,
//! upstream is not stormed, and what comes back is used again without a restart.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::broker::{Broker, SOON, Setup};
use crate::harness::{Flavor, Server, Stack, text, wait_for, wait_until};
use crate::http::Answer;
use crate::proxy::{Fault, Proxy, Seen, Wire};
use crate::readers::Readers;

against_both! {
    a_login_token_revoked_behind_our_back
    a_run_token_revoked_behind_our_back
    a_lease_revoked_behind_our_back
    an_upstream_that_answers_badly
    an_outage_that_outlives_every_token
    an_end_while_upstream_hangs
    a_login_token_found_lost_at_the_end
    a_rate_limit_quota
    a_process_thawed_after_its_leases_ended
    a_permission_that_is_taken_and_given_back
    a_database_that_is_gone_for_a_while
}

mod own {
    use super::{Flavor, sealed_then_stopped};

    #[test]
    fn vault_sealed_then_stopped() {
        sealed_then_stopped(Flavor::Vault);
    }

    #[test]
    fn openbao_sealed_then_stopped() {
        sealed_then_stopped(Flavor::OpenBao);
    }
}

const LONG: &str = "database/creds/orders";
/// 4 s, 12 s at most.
const SHORT: &str = "database/creds/orders-short";
const VALUE: &str = "secret/data/orders/config";
const ALL: [&str; 3] = [LONG, SHORT, VALUE];

/// What a reader may wait where nothing is wrong: a mint, on a busy machine.
const BRISK: Duration = Duration::from_secs(3);

/// A broker whose calls are counted, and whose values are asked for again each second.
fn counted<'a>(server: &'a Server, proxy: &Proxy) -> Setup<'a> {
    Setup::new(server).set("vault", "address", &proxy.address()).set("cache", "kv_fresh", "1s")
}

fn a_login_token_revoked_behind_our_back(server: &Server) {
    let proxy = Proxy::before(server.says("address"));
    // Renewed every few seconds: that is its next use.
    let broker = counted(server, &proxy).set("vault.auth.aws", "role", "orders-short").start();
    let readers = Readers::of(&broker, &server.database, &ALL);
    let revoked = Instant::now();
    revoke_by_accessor(server, &broker, "login");
    wait_until("another login", SOON, || !proxy.seen(revoked, "auth/aws/login").is_empty());
    let noticed = revoked.elapsed();
    readers.wait_good(Instant::now(), &ALL, BRISK);
    let calls = of_tokens(&proxy.seen(revoked, ""));
    let readings = readers.finish(&broker, None);
    ALL.iter().for_each(|path| readings.all_good(path));
    assert_eq!(readings.users(LONG).len(), 1, "the run's credential stays");
    // A refused renewal, what that means (two questions on OpenBao), the login.
    assert!(calls.len() <= 6, "{calls:?}");
    assert!(noticed < Duration::from_secs(8), "{noticed:?}");
    assert_eq!(proxy.seen(revoked, "auth/token/create").len(), 0, "the run token stays");
    said(server, "login token revoked", &format!("noticed after {noticed:?}, {} calls", calls.len()));
    assert_eq!(broker.finish().of("token.lost").len(), 1);
}

fn a_run_token_revoked_behind_our_back(server: &Server) {
    let proxy = Proxy::before(server.says("address"));
    let broker = counted(server, &proxy).start();
    let readers = Readers::of(&broker, &server.database, &ALL);
    // A token that is lost right after it was made is replaced after a delay.
    std::thread::sleep(Duration::from_secs(5));
    let revoked = Instant::now();
    revoke_by_accessor(server, &broker, "run");
    let made = wait_for("another run token", SOON, || {
        proxy.seen(revoked, "auth/token/create/run").first().map(|call| call.at)
    });
    let recovered = readers.wait_good(made + Duration::from_millis(300), &ALL, BRISK);
    std::thread::sleep(Duration::from_secs(2));
    let calls = proxy.seen(revoked, "");
    let readings = readers.finish(&broker, Some((revoked, made + Duration::from_millis(300))));
    let noticed = made - revoked;
    // The value is asked for again each second, and the short lease is renewed sooner than each three.
    assert!(noticed < Duration::from_secs(5), "{noticed:?}");
    assert_eq!(count(&calls, "auth/token/create/run"), 1, "replaced once");
    assert_eq!(count(&calls, "auth/aws/login"), 0, "the login token is good");
    assert_eq!(count(&calls, LONG), 1 + count(&calls, SHORT), "one mint for each lease: {calls:?}");
    assert!(count(&calls, "auth/token/lookup-self") <= 2, "{calls:?}");
    assert!(calls.len() <= 16, "{calls:?}");
    assert_eq!(readings.users(LONG).len(), 2);
    readings.within(BRISK);
    said(
        server,
        "run token revoked",
        &format!("noticed after {noticed:?}, good again {recovered:?} later, {} calls", calls.len()),
    );
    assert_eq!(broker.finish().of("token.lost").len(), 1);
}

fn a_lease_revoked_behind_our_back(server: &Server) {
    let proxy = Proxy::before(server.says("address"));
    let broker = counted(server, &proxy).start();
    let readers = Readers::of(&broker, &server.database, &ALL);
    let login = broker.credential("orders-short");
    let revoked = Instant::now();
    server.admin("PUT", "sys/leases/revoke", Some(&json!({ "lease_id": login.lease_id }))).ok();
    let made = wait_for("another credential", SOON, || {
        let readings = readers.since(revoked, SHORT);
        readings.iter().find(|seen| seen.user().is_some_and(|user| user != login.user)).map(|seen| seen.asked)
    });
    readers.wait_good(Instant::now(), &ALL, BRISK);
    let calls = proxy.seen(revoked, "");
    let readings = readers.finish(&broker, Some((revoked, made)));
    let noticed = made - revoked;
    assert!(noticed < Duration::from_secs(4), "at its next renewal, and no later: {noticed:?}");
    assert_eq!((count(&calls, SHORT), count(&calls, "database/creds/orders")), (1, 1), "{calls:?}");
    assert_eq!((count(&calls, "auth/token/"), count(&calls, "auth/aws")), (0, 0), "nobody doubts the token");
    assert_eq!(readings.users(LONG).len(), 1);
    ALL.iter().for_each(|path| readings.all_good(path));
    said(server, "lease revoked", &format!("noticed after {noticed:?}, {} calls", calls.len()));
    broker.finish();
}

/// Both on one server of its own, one after the other, under the same load.
fn sealed_then_stopped(flavor: Flavor) {
    const OUTAGE: Duration = Duration::from_secs(6);
    let stack = Stack::own(flavor);
    let server = stack.server(flavor);
    let proxy = Proxy::before(server.says("address"));
    let broker = counted(server, &proxy).start();
    let readers = Readers::of(&broker, &server.database, &ALL);
    let mut pid: i32 =
        server.stack[flavor.name()]["pid"].as_i64().and_then(|pid| pid.try_into().ok()).expect("a pid");
    let mut restarted = None;
    for (outage, new_path, word) in [
        ("sealed", "kv1/orders/config", "sealed"),
        ("stopped", "secret/metadata/orders/config", "the connection was closed before an answer came"),
    ] {
        let began = Instant::now();
        match outage {
            "sealed" => drop(server.admin("PUT", "sys/seal", None)),
            _ => {
                kill_process(Pid::from_raw(pid).expect("a pid"), Signal::TERM).expect("the server");
                let stopped = || {
                    rustix::process::test_kill_process(Pid::from_raw(pid).expect("a pid")).is_err()
                        || is_zombie(pid)
                };
                wait_until("the end of the server", SOON, stopped);
            }
        }
        let down = Instant::now();
        std::thread::sleep(Duration::from_secs(2));
        let asked = Instant::now();
        let refused = broker.get(&format!("/v1/{new_path}"));
        assert!(asked.elapsed() < BRISK, "a new path fails fast: {:?}", asked.elapsed());
        assert_eq!(refused.status, 503, "{}", refused.text());
        assert!(
            refused.header("retry-after").is_some() && refused.text().contains(word),
            "{}",
            refused.text()
        );
        assert!(readers.since(down, LONG).iter().all(super::readers::Reading::is_good), "held and alive");
        let stale = readers.since(down + Duration::from_secs(1), VALUE);
        assert!(stale.iter().any(|seen| seen.source() == Some("stale")), "{stale:?}");
        std::thread::sleep(OUTAGE.saturating_sub(down.elapsed()));
        let calls = proxy.seen(down, "").len();
        if outage == "stopped" {
            let child = start_again(server);
            pid = i32::try_from(child.id()).expect("a pid");
            restarted = Some(child);
        }
        unseal(server);
        let up = Instant::now();
        let recovered = readers.wait_good(up, &ALL, Duration::from_secs(15));
        assert_eq!(broker.get(&format!("/v1/{new_path}")).status, 200, "a new path is read");
        // Four schedules (three paths under load, one of somebody else), each with delays that double.
        assert!(calls <= 24, "{calls} calls while it was {outage}");
        let after = proxy.seen(up, "");
        assert_eq!(
            (count(&after, "auth/aws/login"), count(&after, "auth/token/create")),
            (0, 0),
            "{after:?}"
        );
        assert!(after.len() <= 16, "{after:?}");
        said(
            server,
            outage,
            &format!(
                "{:?} long, {calls} calls meanwhile, {} after, good again {recovered:?} after it was back",
                up - began,
                after.len()
            ),
        );
    }
    let readings = readers.finish(&broker, None);
    readings.all_good(LONG);
    assert_eq!(readings.users(LONG).len(), 1, "it outlives both");
    readings.within(BRISK);
    for stale in readings.of(VALUE).filter(|seen| seen.source() == Some("stale")) {
        assert!(stale.answer.text().contains("upstream cannot be reached"), "{}", stale.answer.text());
    }
    broker.finish();
    drop(restarted);
}

fn an_upstream_that_answers_badly(server: &Server) {
    let answer =
        |status, retry_after, content_type, body| Fault::Answer { status, retry_after, content_type, body };
    const JSON: &str = "application/json";
    const PAGE: &str = "text/html";
    let faults = [
        ("hanging", Fault::Hang),
        ("resetting", Fault::Reset),
        ("dripping", Fault::Drip),
        ("cut in half", Fault::Half),
        ("503", answer(503, Some(3), JSON, r#"{"errors":["a maintenance of the test"]}"#)),
        ("429", answer(429, Some(3), JSON, r#"{"errors":["too many requests, says the test"]}"#)),
        ("502 page", answer(502, None, PAGE, "<html>bad gateway</html>")),
        ("403 page", answer(403, None, PAGE, "<html>blocked by a firewall</html>")),
        ("404 page", answer(404, None, PAGE, "<html>no such route</html>")),
        ("200 page", answer(200, None, PAGE, "<html>down for maintenance</html>")),
        ("200 cut JSON", answer(200, None, JSON, r#"{"request_id":"7a","data":{"passwo"#)),
    ];
    std::thread::scope(|scope| {
        let tests =
            faults.map(|(name, fault)| (name, scope.spawn(move || answered_badly(server, name, fault))));
        let failed: Vec<_> =
            tests.into_iter().filter_map(|(name, test)| test.join().err().map(|_| name)).collect();
        assert_eq!(failed, [""; 0], "see above");
    });
}

fn answered_badly(server: &Server, name: &str, fault: Fault) {
    const PATIENCE: Duration = Duration::from_secs(4);
    let proxy = Proxy::before(server.says("address"));
    let broker = counted(server, &proxy)
        .set("vault", "connect_timeout", "1s")
        .set("vault", "request_timeout", "2s")
        .set("cache", "read_timeout", "4s")
        .start();
    let readers = Readers::of(&broker, &server.database, &ALL);
    let began = Instant::now();
    proxy.answer(Some(fault));
    std::thread::sleep(Duration::from_secs(1));
    let refused = broker.get("/v1/kv1/orders/config");
    let expected = if name == "429" { 429 } else { 503 };
    assert_eq!(refused.status, expected, "{name}: {}", refused.text());
    std::thread::sleep(Duration::from_secs(7).saturating_sub(began.elapsed()));
    let calls = proxy.seen(began, "");
    let mended = Instant::now();
    proxy.answer(None);
    let recovered = readers.wait_good(mended, &ALL, Duration::from_secs(15));
    assert_eq!(broker.get("/v1/kv1/orders/config").status, 200, "{name}");
    let after = proxy.seen(mended, "");
    let readings = readers.finish(&broker, None);
    readings.all_good(LONG);
    assert_eq!(readings.users(LONG).len(), 1, "{name}: what is held and alive stays");
    readings.within(PATIENCE + Duration::from_secs(2));
    let stale = readings.of(VALUE).filter(|seen| seen.source() == Some("stale")).count();
    assert!(stale > 0, "{name}: the value is served, and labelled");
    let refusals = readings.of(VALUE).filter(|seen| seen.answer.status != 200).count();
    assert_eq!(refusals, 0, "{name}: the value is served throughout");
    assert!(calls.len() <= 30, "{name}: {calls:?}");
    assert!(after.len() <= 20, "{name}: {after:?}");
    if let Fault::Answer { retry_after: Some(after), .. } = fault {
        for path in ALL {
            let times: Vec<Instant> =
                calls.iter().filter(|call| call.path == path).map(|call| call.at).collect();
            let soonest = times.windows(2).map(|two| two[1] - two[0]).min();
            assert!(
                soonest.is_none_or(|gap| gap >= Duration::from_secs(after)),
                "{name}: {path} after {soonest:?}"
            );
        }
    }
    said(
        server,
        name,
        &format!(
            "{} calls in {:?}, {} after; good again {recovered:?} after it was mended; longest wait {:?}; {stale} stale",
            calls.len(),
            mended - began,
            after.len(),
            readings.longest()
        ),
    );
    broker.finish();
}

fn an_outage_that_outlives_every_token(server: &Server) {
    let proxy = Proxy::before(server.says("address"));
    let broker = counted(server, &proxy)
        .set("vault.auth.aws", "role", "orders-short")
        .set("run", "ttl", "8s")
        .set("cache", "kv_stale", "5s")
        .start();
    let readers = Readers::of(&broker, &server.database, &ALL);
    let began = Instant::now();
    proxy.answer(Some(Fault::Reset));
    std::thread::sleep(Duration::from_secs(13));
    let calls = proxy.seen(began, "");
    let mended = Instant::now();
    proxy.answer(None);
    // The run token is asked for on a schedule of its own, which may be waiting when the login is there again.
    let recovered = readers.wait_good(mended, &ALL, Duration::from_secs(45));
    let after = proxy.seen(mended, "");
    let late = began + Duration::from_secs(9)..mended;
    let readings = readers.finish(&broker, None);
    for path in ALL {
        let late: Vec<_> = readings.of(path).filter(|seen| late.contains(&seen.asked)).collect();
        assert!(late.len() > 20, "{path}: nobody waits for what cannot come: {} answers", late.len());
        assert!(late.iter().all(|seen| seen.answer.status == 503), "{path}: nothing is left to be served");
    }
    readings.within(BRISK);
    assert_eq!(readings.users(LONG).len(), 2);
    assert!(calls.len() <= 30, "{calls:?}");
    assert_eq!((count(&after, "auth/aws/login"), count(&after, "auth/token/create")), (1, 1), "{after:?}");
    assert!(after.len() <= 20, "{after:?}");
    said(
        server,
        "all tokens ended",
        &format!(
            "{} calls in {:?}, {} after, good again {recovered:?} later",
            calls.len(),
            mended - began,
            after.len()
        ),
    );
    broker.finish();
}

fn an_end_while_upstream_hangs(server: &Server) {
    let proxy = Proxy::before(server.says("address"));
    let setup = counted(server, &proxy).set("shutdown", "grace", "4s");
    let mut broker = setup.start();
    let users = [broker.credential("orders").user];
    proxy.answer(Some(Fault::Hang));
    let ended = Instant::now();
    broker.signal(Signal::TERM);
    broker.wait_exit(SOON);
    let took = ended.elapsed();
    assert!(took < Duration::from_secs(6), "{took:?}");
    broker.check_outputs();
    assert_eq!(server.database.existing(&users).len(), 1, "nobody could revoke it");
    proxy.answer(None);
    let next = setup.start();
    wait_until("the end of what was left behind", SOON, || server.database.existing(&users).is_empty());
    said(server, "end while hanging", &format!("took {took:?}; the next start revoked the rest"));
    next.finish();
}

fn a_login_token_found_lost_at_the_end(server: &Server) {
    let broker = Setup::new(server).start();
    let users = [broker.credential("orders").user];
    // A token that is younger may be one that a standby has not heard of yet.
    std::thread::sleep(Duration::from_secs(2));
    revoke_by_accessor(server, &broker, "login");
    let finished = broker.finish();
    assert_eq!(server.database.existing(&users), [""; 0]);
    assert_eq!(finished.of("revoke.unconfirmed").len(), 0, "{:?}", finished.of("revoke.unconfirmed"));
    let confirmed = finished.of("revoke.confirmed").len();
    assert_eq!(confirmed, 2, "the run token, and the login token that saw it go:\n{}", finished.log);
}

fn a_rate_limit_quota(server: &Server) {
    let role = Grants::new(server, "faults-quota");
    role.database_role(server, "orders");
    server
        .admin("PUT", "sys/quotas/config", Some(&json!({ "enable_rate_limit_response_headers": true })))
        .ok();
    let path = "database/creds/faults-quota";
    let quota = json!({ "path": path, "rate": 1, "interval": "4s" });
    server.admin("PUT", "sys/quotas/rate-limit/faults", Some(&quota)).ok();
    let proxy = Proxy::before(server.says("address"));
    let broker = role.setup(counted(server, &proxy)).start();
    // Somebody else uses it up.
    let limited = wait_for("the limit", SOON, || {
        Some(server.admin("GET", path, None)).filter(|answer| answer.status == 429)
    });
    let used_up = Instant::now();
    let refused = broker.get(&format!("/v1/{path}"));
    assert_eq!(refused.status, 429, "{}", refused.text());
    assert!(refused.text().contains("quota"), "{}", refused.text());
    let again: u64 =
        refused.header("retry-after").and_then(|after| after.parse().ok()).expect("when to come again");
    assert!((1..=6).contains(&again), "{again} (Vault said {:?})", limited.header("retry-after"));
    let good = wait_for("the credential", Duration::from_secs(15), || {
        Some(broker.get(&format!("/v1/{path}"))).filter(|answer| answer.status == 200)
    });
    let waited = used_up.elapsed();
    broker.keep(&good);
    let calls = proxy.seen(used_up, path);
    assert!(calls.len() <= 4, "{calls:?}");
    said(
        server,
        "quota",
        &format!(
            "Vault said Retry-After {:?}, we {again}; {} calls, good after {waited:?}",
            limited.header("retry-after"),
            calls.len()
        ),
    );
    broker.finish();
    server.admin("DELETE", "sys/quotas/rate-limit/faults", None).ok();
}

fn a_process_thawed_after_its_leases_ended(server: &Server) {
    let proxy = Proxy::before(server.says("address"));
    let broker = counted(server, &proxy).start();
    let before = broker.credential("orders-short");
    let readers = Readers::of(&broker, &server.database, &ALL);
    broker.signal(Signal::STOP);
    std::thread::sleep(Duration::from_secs(15));
    wait_until("the end of the credential", SOON, || {
        server.database.existing(std::slice::from_ref(&before.user)).is_empty()
    });
    let thawed = Instant::now();
    broker.signal(Signal::CONT);
    let first = broker.credential("orders-short");
    let took = thawed.elapsed();
    assert_ne!(first.user, before.user);
    server.database.use_as(&first.user, &first.password).expect("a live credential");
    readers.wait_good(thawed, &ALL, BRISK);
    std::thread::sleep(Duration::from_secs(2));
    let calls = proxy.seen(thawed, "");
    let readings = readers.finish(&broker, None);
    ALL.iter().for_each(|path| readings.all_good(path));
    assert_eq!(readings.users(LONG).len(), 1, "the long one is still alive");
    assert_eq!(count(&calls, SHORT), 1, "one mint: {calls:?}");
    assert!(calls.len() <= 8, "{calls:?}");
    said(
        server,
        "thawed",
        &format!("the first read took {took:?}; {} calls within two seconds", calls.len()),
    );
    let finished = broker.finish();
    assert!(!finished.of("clock.jump").is_empty(), "it is on record");
}

fn a_permission_that_is_taken_and_given_back(server: &Server) {
    let role = Grants::new(server, "faults-policy");
    let proxy = Proxy::before(server.says("address"));
    let broker = role.setup(counted(server, &proxy)).start();
    let readers = Readers::of(&broker, &server.database, &ALL);
    let taken = Instant::now();
    // Not even what decides between a lost token and a lost permission is left.
    role.allow(server, "path \"auth/token/renew-self\" { capabilities = [\"update\"] }");
    wait_until("refusals", SOON, || {
        [SHORT, VALUE]
            .iter()
            .all(|path| readers.since(taken, path).iter().any(|seen| seen.answer.status == 403))
    });
    let refused = taken.elapsed();
    std::thread::sleep(Duration::from_secs(3));
    for path in [SHORT, VALUE] {
        let answer = broker.get(&format!("/v1/{path}"));
        assert_eq!(answer.status, 403);
        assert!(answer.text().contains(&format!("403 to GET {path}")), "{}", answer.text());
    }
    let given = Instant::now();
    let calls = proxy.seen(taken, "");
    role.allow(server, &role.policy);
    let recovered = readers.wait_good(given, &ALL, Duration::from_secs(20));
    let after = proxy.seen(given, "");
    let readings = readers.finish(&broker, None);
    readings.all_good(LONG);
    assert_eq!(readings.users(LONG).len(), 1, "what is held and alive stays");
    let all = proxy.seen(taken, "");
    assert_eq!((count(&all, "auth/aws/login"), count(&all, "auth/token/create")), (0, 0), "{all:?}");
    // Each refusal is followed by the question what it means, which is two questions here.
    assert!(calls.len() <= 45, "{calls:?}");
    assert!(after.len() <= 20, "{after:?}");
    readings.within(BRISK);
    said(
        server,
        "permission",
        &format!(
            "refused after {refused:?}, {} calls in {:?}, good again {recovered:?} after it was given back",
            calls.len(),
            given - taken
        ),
    );
    assert_eq!(broker.finish().of("token.lost").len(), 0);
}

fn a_database_that_is_gone_for_a_while(server: &Server) {
    const PATH: &str = "database/creds/faults-database";
    let role = Grants::new(server, "faults-database");
    let port =
        server.stack["postgres"]["port"].as_u64().and_then(|port| port.try_into().ok()).expect("a port");
    let wire = Wire::before(std::net::SocketAddr::from(([127, 0, 0, 1], port)));
    role.database(server, &wire);
    let proxy = Proxy::before(server.says("address"));
    let broker = role.setup(counted(server, &proxy)).start();
    let readers = Readers::of(&broker, &server.database, &[PATH, VALUE]);
    let gone = Instant::now();
    wire.cut();
    wait_until("refusals", SOON, || readers.since(gone, PATH).iter().any(|seen| seen.answer.status == 503));
    let refused = gone.elapsed();
    std::thread::sleep(Duration::from_secs(2));
    let answer = broker.get(&format!("/v1/{PATH}"));
    assert_eq!(answer.status, 503);
    assert!(answer.text().contains("Vault answered 500"), "{}", answer.text());
    let back = Instant::now();
    let calls = proxy.seen(gone, "");
    wire.mend();
    let recovered = readers.wait_good(back, &[PATH, VALUE], Duration::from_secs(20));
    let after = proxy.seen(back, PATH);
    let readings = readers.finish(&broker, None);
    readings.all_good(VALUE);
    let of_it = count(&calls, PATH) + count(&calls, "sys/leases/renew");
    assert!(of_it <= 14, "{calls:?}");
    assert!(after.len() <= 3, "{after:?}");
    said(
        server,
        "database",
        &format!(
            "refused after {refused:?}, {of_it} calls in {:?}, good again {recovered:?} after it was back",
            back - gone
        ),
    );
    broker.finish();
}

/// What was measured, for who runs the tests with `--nocapture`.
fn said(server: &Server, what: &str, figures: &str) {
    eprintln!("{} {what}: {figures}", server.flavor.name());
}

fn count(calls: &[Seen], path: &str) -> usize {
    calls.iter().filter(|call| call.path.starts_with(path)).count()
}

/// The calls about tokens and logins, as path and answer.
fn of_tokens(calls: &[Seen]) -> Vec<(String, Option<u16>)> {
    let of_tokens = |call: &&Seen| call.path.starts_with("auth/") || call.path.starts_with("sys/internal");
    calls.iter().filter(of_tokens).map(|call| (call.path.clone(), call.status)).collect()
}

/// Revokes the broker's newest token of that kind, as an operator does who knows its accessor.
fn revoke_by_accessor(server: &Server, broker: &Broker<'_>, kind: &str) {
    let journal = std::fs::read_to_string(broker.path("audit.jsonl.orphans")).expect("the journal");
    let mut lines = journal.lines().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let last = lines.find(|line| line["token"]["kind"] == kind).expect("a token in the journal");
    let body = json!({ "accessor": last["token"]["accessor"] });
    server.admin("PUT", "auth/token/revoke-accessor", Some(&body)).ok();
}

fn is_zombie(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
}

/// A server process of ours. It is stopped with this value.
struct Restarted(std::process::Child);

impl Restarted {
    fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Restarted {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
        let _ = self.0.wait();
    }
}

fn start_again(server: &Server) -> Restarted {
    let described = &server.stack[server.flavor.name()];
    let words: Vec<&str> = described["argv"].as_array().expect("a command").iter().map(text).collect();
    let env = described["env"].as_object().expect("an environment");
    let child = Command::new(words[0])
        .args(&words[1..])
        .env_clear()
        .envs(env.iter().map(|(name, value)| (name, text(value))))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    Restarted(child.expect("the server"))
}

/// Unseals the server and waits until it serves.
fn unseal(server: &Server) {
    let ask = |method, path: &str, body: Option<&Value>| {
        crate::http::request(&server.place(), method, path, &[], body)
    };
    let key = json!({ "key": server.says("unseal_key") });
    wait_until("an unsealed server", SOON, || {
        ask("PUT", "/v1/sys/unseal", Some(&key)).is_ok_and(|answer| answer.json()["sealed"] == false)
    });
    wait_until("an active server", SOON, || {
        ask("GET", "/v1/sys/health", None).is_ok_and(|answer| answer.status == 200)
    });
}

/// A run of its own kind on the shared server: a policy that nobody else has, and the roles that lead to it.
pub(crate) struct Grants {
    name: &'static str,
    policy: String,
}

impl Grants {
    pub(crate) fn new(server: &Server, name: &'static str) -> Self {
        let shipped =
            std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/policies/vault/orders.hcl"));
        let own = format!("path \"database/creds/{name}\" {{ capabilities = [\"read\"] }}");
        let grants = Self { name, policy: format!("{}\n{own}", shipped.expect("the shipped policy")) };
        grants.allow(server, &grants.policy);
        let data = |path: &str| server.admin("GET", path, None).ok()["data"].clone();
        let mut run = data("auth/token/roles/run");
        run["allowed_policies"] = json!([name]);
        server.admin("PUT", &format!("auth/token/roles/{name}"), Some(&run)).ok();
        let login = format!("path \"auth/token/create/{name}\" {{ capabilities = [\"update\"] }}");
        let body = json!({ "policy": login });
        server.admin("PUT", &format!("sys/policies/acl/{name}-login"), Some(&body)).ok();
        let shipped = data("auth/aws/role/orders");
        let mut aws = json!({ "token_policies": ["tenure-login", format!("{name}-login")] });
        for kept in [
            "auth_type",
            "bound_iam_principal_arn",
            "resolve_aws_unique_ids",
            "token_type",
            "token_no_default_policy",
            "token_ttl",
            "token_max_ttl",
        ] {
            aws[kept] = shipped[kept].clone();
        }
        server.admin("PUT", &format!("auth/aws/role/{name}"), Some(&aws)).ok();
        grants
    }

    /// From now on the run's policy is this.
    fn allow(&self, server: &Server, policy: &str) {
        let body = json!({ "policy": policy });
        server.admin("PUT", &format!("sys/policies/acl/{}", self.name), Some(&body)).ok();
    }

    /// A role of the same name in the database engine, of 4 s and 12 s at most.
    fn database_role(&self, server: &Server, connection: &str) -> Answer {
        let mut role = server.admin("GET", "database/roles/orders-short", None).ok()["data"].clone();
        role["db_name"] = json!(connection);
        let made = server.admin("PUT", &format!("database/roles/{}", self.name), Some(&role));
        made.ok();
        made
    }

    /// The same, on a connection of its own.
    pub(crate) fn database(&self, server: &Server, wire: &Wire) {
        let admin = &server.stack[server.flavor.name()]["database_admin"];
        let url = format!(
            "postgresql://{{{{username}}}}:{{{{password}}}}@{}/orders?sslmode=disable",
            wire.address()
        );
        let connection = json!({
            "plugin_name": "postgresql-database-plugin", "allowed_roles": ["*"], "connection_url": url,
            "username": admin["user"], "password": admin["password"], "password_authentication": "scram-sha-256",
        });
        server.admin("PUT", &format!("database/config/{}", self.name), Some(&connection)).ok();
        self.database_role(server, self.name);
    }

    pub(crate) fn setup<'a>(&self, setup: Setup<'a>) -> Setup<'a> {
        setup.set("vault.auth.aws", "role", self.name).set("run", "token_role", self.name)
    }
}
