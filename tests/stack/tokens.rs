//! The broker's own tokens over time: each is replaced before it ends, and no reader notices.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::broker::{SOON, Setup};
use crate::harness::{Server, text, wait_until};
use crate::http::{Place, request};

against_both! {
    a_login_near_its_last_is_replaced_without_a_gap
    a_run_token_near_its_ceiling_is_replaced_without_a_dead_credential
    a_run_token_that_is_no_orphan_is_told_of
    aws_credentials_that_rotate_cause_no_login
}

/// The login token of `orders-short` lives for 6 s and, renewed, for 20 s at most.
fn a_login_near_its_last_is_replaced_without_a_gap(server: &Server) {
    let broker = Setup::new(server).set("vault.auth.aws", "role", "orders-short").start();
    let login = broker.credential("orders");
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(24) {
        let ready = broker.get("/tenure/ready");
        assert_eq!(ready.status, 200, "after {:?}: {}", began.elapsed(), ready.text());
        assert_eq!(broker.credential("orders"), login, "the run does not notice");
        std::thread::sleep(Duration::from_millis(100));
    }
    server.database.use_as(&login.user, &login.password).expect("good");
    let run = broker.run.clone();
    let logins = server.asked(&run, "auth/aws/login");
    assert!((2..=3).contains(&logins), "{logins} logins in 24 s");
    let renewals = server.asked(&run, "auth/token/renew-self");
    assert!((3..=12).contains(&renewals), "{renewals} renewals in 24 s");
    assert_eq!(server.asked(&run, "auth/token/create/run"), 1);
    let finished = broker.finish();
    assert_eq!(finished.of("token.lost").len(), 0);
    assert_eq!(finished.of("login").len(), logins);
    assert!(finished.of("login.renew").iter().all(|line| line["outcome"] == "done"));
}

/// A token of the role `run-short` lives for 12 s at most, whatever is asked.
fn a_run_token_near_its_ceiling_is_replaced_without_a_dead_credential(server: &Server) {
    let broker = Setup::new(server)
        .set("vault.auth.aws", "role", "orders-extra")
        .set("run", "token_role", "run-short")
        .start();
    let began = Instant::now();
    let mut users = Vec::new();
    while began.elapsed() < Duration::from_secs(20) {
        let login = broker.credential("orders");
        let used = server.database.use_as(&login.user, &login.password);
        used.unwrap_or_else(|why| panic!("a dead credential after {:?}: {why}", began.elapsed()));
        if users.last() != Some(&login.user) {
            users.push(login.user);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let run = broker.run.clone();
    let made = server.asked(&run, "auth/token/create/run-short");
    assert!((2..=4).contains(&made), "{made} run tokens in 20 s");
    assert!((2..=4).contains(&users.len()), "{users:?}");
    broker.finish();
    assert_eq!(server.database.existing(&users), [""; 0]);
}

fn a_run_token_that_is_no_orphan_is_told_of(server: &Server) {
    let broker = Setup::new(server)
        .set("vault.auth.aws", "role", "orders-extra")
        .set("run", "token_role", "run-child")
        .start();
    let login = broker.credential("orders");
    let finished = broker.finish();
    assert!(finished.log.contains("not an orphan"), "{}", finished.log);
    assert!(finished.log.contains("set orphan=true on the token role"), "{}", finished.log);
    assert_eq!(server.database.existing(&[login.user]), [""; 0]);
}

fn aws_credentials_that_rotate_cause_no_login(server: &Server) {
    let ecs = &server.sts()["ecs"];
    let broker = Setup::new(server)
        .without_aws()
        .env("AWS_CONTAINER_CREDENTIALS_FULL_URI", text(&ecs["url"]))
        .env("AWS_CONTAINER_AUTHORIZATION_TOKEN", text(&ecs["token"]))
        .set("vault.auth.aws", "role", "orders-short")
        .start();
    let (address, path) =
        text(&ecs["rotate_url"]).trim_start_matches("http://").split_once('/').expect("an URL");
    let place = Place::Tcp(address.parse().expect("an address"));
    let authorized = [("authorization", text(&ecs["token"]))];
    request(&place, "POST", &format!("/{path}"), &authorized, None).expect("the STS").ok();
    // Two renewals later it is still the same login; the next one is with what is there then.
    wait_until("two renewals", SOON, || server.asked(&broker.run, "auth/token/renew-self") >= 2);
    assert_eq!(server.asked(&broker.run, "auth/aws/login"), 1);
    let journal = std::fs::read_to_string(broker.path("audit.jsonl.orphans")).expect("the journal");
    let first: serde_json::Value =
        serde_json::from_str(journal.lines().next().expect("a line")).expect("JSON");
    server
        .admin("PUT", "auth/token/revoke-accessor", Some(&json!({ "accessor": first["token"]["accessor"] })))
        .ok();
    wait_until("another login", SOON, || server.asked(&broker.run, "auth/aws/login") == 2);
    wait_until("ready", SOON, || broker.get("/tenure/ready").status == 200);
    broker.finish();
}
