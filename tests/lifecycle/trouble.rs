//! An upstream that is down, silent or loses its answers, and an operator who revokes behind our back.

use std::time::Duration;

use tenure::audit::Event;
use tenure::broker::Denied;
use tenure::lease::failure::Class;
use tenure::lease::upstream::ReadKey;
use tenure::lease::view::Freshness;
use tenure::source::dev::{DevConfig, Operation};

use crate::stage::{APP, ORDERS, Plan, Stage, secs, sleep};

const BILLING: &str = "database/creds/billing";

#[tokio::test(start_paused = true)]
async fn an_outage_is_outlived_to_the_leases_end_and_asked_about_in_moderation() {
    let stage = Stage::new(Plan::default()).await;
    let first = stage.alive(ORDERS).await;
    sleep(secs(10)).await;
    stage.vault.fail(Class::Transient);
    for _ in 0..48 {
        sleep(secs(1)).await;
        let got = stage.alive(ORDERS).await;
        assert_eq!((got.value, got.freshness), (first.value.clone(), Freshness::Cache));
    }
    sleep(secs(2)).await;
    let denied = stage.read(ORDERS).await.expect_err("it has ended");
    assert!(denied.to_string().contains("sealed"), "{denied}");
    stage.vault.clear_calls();
    for _ in 0..3600 {
        assert!(matches!(stage.read(ORDERS).await, Err(Denied::Upstream { .. })));
        sleep(secs(1)).await;
    }
    // Three keepers (login, run token, lease), each at intervals of 15 to 30 seconds.
    let calls = stage.vault.calls().len();
    assert!(calls <= 3 * 3600 / 15, "{calls} calls in an hour of outage");
    assert!(calls >= 100, "{calls} calls: nobody would notice the recovery");
    stage.vault.recover();
    sleep(secs(61)).await;
    stage.alive(ORDERS).await;
    stage.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_renewal_mints_nothing_while_the_lease_is_good() {
    let stage = Stage::new(Plan::default()).await;
    let first = stage.alive(ORDERS).await;
    sleep(secs(30)).await;
    stage.vault.fail(Class::Transient);
    sleep(secs(20)).await;
    stage.vault.recover();
    for _ in 0..600 {
        sleep(secs(1)).await;
        assert_eq!(stage.alive(ORDERS).await.value, first.value);
    }
    assert_eq!(stage.vault.count(Operation::Read), 1);
    stage.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_value_is_served_stale_with_a_label_and_a_limit() {
    let stage = Stage::new(Plan::default()).await;
    stage.read(APP).await.expect("served");
    let started = tokio::time::Instant::now();
    stage.vault.fail(Class::Transient);
    let mut labels = Vec::new();
    let refused = loop {
        sleep(secs(1)).await;
        match stage.read(APP).await {
            Ok(got) => {
                let age = started.elapsed();
                assert!(got.age.abs_diff(age) < secs(1), "it says {:?} and is {age:?} old", got.age);
                labels.push(got.freshness);
            }
            Err(denied) => break denied,
        }
    };
    assert!(matches!(refused, Denied::Upstream { .. }), "{refused:?}");
    let served = started.elapsed();
    assert!((secs(595)..=secs(605)).contains(&served), "served for {served:?}");
    labels.dedup();
    assert_eq!(labels, [Freshness::Cache, Freshness::Stale]);
    stage.vault.recover();
    sleep(secs(31)).await;
    assert_eq!(stage.read(APP).await.expect("served").version, Some(1));
    stage.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_silent_upstream_keeps_nobody_waiting_for_long() {
    let stage = Stage::new(Plan::default()).await;
    let first = stage.alive(ORDERS).await;
    stage.vault.hang();
    let started = tokio::time::Instant::now();
    let denied = stage.read(BILLING).await.expect_err("silent");
    assert!(started.elapsed() <= secs(15), "{denied}");
    assert_eq!(stage.alive(ORDERS).await.value, first.value);
    sleep(secs(120)).await;
    assert!(stage.read(ORDERS).await.is_err());
    stage.vault.recover();
    sleep(secs(45)).await;
    stage.alive(ORDERS).await;
    stage.alive(BILLING).await;
    stage.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_renewal_without_an_answer_at_the_leases_end_does_not_spin() {
    let vault = DevConfig { time_out: secs(120), ..DevConfig::default() };
    let stage = Stage::new(Plan { vault, ..Plan::default() }).await;
    stage.alive(ORDERS).await;
    let key = ReadKey { path: ORDERS.into(), query: "".into(), list: false };
    let entry = stage.broker.runs().own_work().leases.entry(&key, false).expect("held");
    let mut watch = entry.keeper.watch();
    stage.vault.hang();
    let mut changes = 0;
    let counted = async {
        loop {
            watch.next().await;
            changes += 1;
        }
    };
    let _: Result<(), _> = tokio::time::timeout(secs(90), counted).await;
    assert!(changes < 50, "readers were woken {changes} times in 90 s of silence");
    stage.vault.recover();
    sleep(secs(60)).await;
    stage.alive(ORDERS).await;
    stage.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_credential_whose_answer_was_lost_ends_with_the_run() {
    let stage = Stage::new(Plan::default()).await;
    stage.vault.lose_answers(1);
    stage.read(ORDERS).await.expect_err("the answer was lost");
    assert_eq!(stage.vault.alive(), 1, "nobody knows of it");
    sleep(secs(1)).await;
    stage.alive(ORDERS).await;
    assert_eq!(stage.vault.alive(), 2);
    stage.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_run_token_revoked_behind_our_back_is_replaced_once() {
    let stage = Stage::new(Plan::default()).await;
    let before = stage.alive(ORDERS).await;
    // A token that is lost as soon as it was made is replaced after a delay.
    sleep(secs(10)).await;
    stage.vault.revoke_runs();
    assert!(!stage.vault.is_alive(&before.value), "its leases went with it");
    // The next call with the token finds out, and what hung off it is not served any more.
    stage.alive(BILLING).await;
    let after = stage.alive(ORDERS).await;
    assert_ne!(after.value, before.value);
    let counts = [Operation::Login, Operation::CreateToken, Operation::Read].map(|op| stage.vault.count(op));
    assert_eq!(counts, [1, 2, 4], "the read that was refused, its repetition, and one more");
    assert_eq!(stage.lines(Event::TokenLost).len(), 1);
    stage.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_run_token_revoked_again_and_again_makes_no_storm() {
    let stage = Stage::new(Plan::default()).await;
    let started = tokio::time::Instant::now();
    while started.elapsed() < secs(300) {
        stage.vault.revoke_runs();
        let _ = stage.read(ORDERS).await;
        let _ = stage.read(BILLING).await;
        sleep(Duration::from_millis(500)).await;
    }
    let calls = stage.vault.calls().len();
    assert!(calls < 1200, "{calls} calls in five minutes");
    sleep(secs(60)).await;
    stage.alive(ORDERS).await;
    stage.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_login_is_made_again_and_the_run_does_not_notice() {
    let stage = Stage::new(Plan::default()).await;
    let first = stage.alive(ORDERS).await;
    stage.vault.revoke_logins();
    for _ in 0..3600 {
        sleep(secs(1)).await;
        assert_eq!(stage.alive(ORDERS).await.value, first.value);
        if stage.vault.count(Operation::Login) == 2 {
            break;
        }
    }
    assert_eq!([Operation::Login, Operation::CreateToken].map(|op| stage.vault.count(op)), [2, 1]);
    stage.finish().await;
}

#[tokio::test(start_paused = true)]
async fn both_tokens_lost_at_once_are_both_replaced() {
    let stage = Stage::new(Plan::default()).await;
    stage.alive(ORDERS).await;
    // A token that is lost as soon as it was made is replaced after a delay.
    sleep(secs(10)).await;
    stage.vault.revoke_logins();
    stage.vault.revoke_runs();
    stage.alive(BILLING).await;
    stage.alive(ORDERS).await;
    assert_eq!([Operation::Login, Operation::CreateToken].map(|op| stage.vault.count(op)), [2, 3]);
    stage.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_lease_revoked_behind_our_back_is_replaced_at_its_next_renewal() {
    let stage = Stage::new(Plan::default()).await;
    let before = stage.alive(ORDERS).await;
    stage.vault.revoke_leases();
    stage.until(secs(60), "a renewal", |stage| stage.vault.count(Operation::RenewLease) == 1).await;
    sleep(secs(1)).await;
    assert_ne!(stage.alive(ORDERS).await.value, before.value);
    let counts = [Operation::Login, Operation::CreateToken, Operation::Read].map(|op| stage.vault.count(op));
    assert_eq!(counts, [1, 1, 2]);
    stage.finish().await;
}
