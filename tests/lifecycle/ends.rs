//! The end of a run: by its deadline, by our own hand, with and without an upstream that answers.

use std::time::Duration;

use tenure::audit::Event;
use tenure::broker::Denied;
use tenure::lease::failure::Class;
use tenure::source::dev::{DevConfig, Operation};

use crate::stage::{APP, ORDERS, Plan, Stage, secs, sleep};

#[tokio::test(start_paused = true)]
async fn the_end_revokes_everything_and_sees_it_gone() {
    let vault = DevConfig { revocation_lag: Duration::from_millis(150), ..DevConfig::default() };
    let stage = Stage::new(Plan { vault, ..Plan::default() }).await;
    for path in [ORDERS, "database/creds/billing", "database/creds/stock"] {
        stage.alive(path).await;
    }
    stage.read(APP).await.expect("served");
    assert!(stage.broker.runs().end(secs(20)).await);
    let details: Vec<_> =
        stage.lines(Event::RevokeConfirmed).into_iter().filter_map(|line| line.detail).collect();
    assert_eq!(details, ["run token and 3 leases", "login token"]);
    for path in [ORDERS, APP, "database/creds/audit"] {
        let denied = stage.read(path).await.expect_err("over");
        assert!(matches!(denied, Denied::Over { .. }), "{path}: {denied:?}");
    }
    stage.finish().await;
}

#[tokio::test(start_paused = true)]
async fn the_end_is_seen_with_another_login_where_the_first_was_lost() {
    // Young tokens are replaced after a delay, older ones at once.
    for age in [1, 10] {
        let stage = Stage::new(Plan::default()).await;
        stage.alive(ORDERS).await;
        sleep(secs(age)).await;
        stage.vault.revoke_logins();
        assert!(stage.broker.runs().end(secs(20)).await);
        assert_eq!(
            stage.lines(Event::RevokeConfirmed).len(),
            2,
            "the run token, and the login that saw it go"
        );
        assert!(stage.lines(Event::RevokeUnconfirmed).is_empty());
        assert_eq!(stage.vault.count(Operation::Login), 2);
        stage.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_waits_for_a_credential_that_is_being_made() {
    let stage = Stage::new(Plan::default()).await;
    stage.vault.set_latency(secs(2));
    let reader = tokio::spawn({
        let stage = stage.clone();
        async move { stage.read(ORDERS).await.map(drop) }
    });
    sleep(Duration::from_millis(500)).await;
    assert!(stage.broker.runs().end(secs(30)).await);
    assert!(matches!(reader.await.expect("ends"), Err(Denied::Over { .. })));
    sleep(secs(5)).await;
    assert_eq!(stage.vault.alive(), 0, "what was under way ended with the run's token");
    stage.finish().await;
}

#[tokio::test(start_paused = true)]
async fn the_end_keeps_to_its_time_when_upstream_does_not_answer() {
    for hangs in [true, false] {
        let stage = Stage::new(Plan::default()).await;
        stage.alive(ORDERS).await;
        if hangs {
            stage.vault.hang();
        } else {
            stage.vault.fail(Class::Transient);
        }
        let started = tokio::time::Instant::now();
        assert!(!stage.broker.runs().end(secs(8)).await, "nothing could be revoked");
        assert!(started.elapsed() <= secs(9), "{:?}", started.elapsed());
        assert!(stage.lines(Event::RevokeConfirmed).is_empty());
        stage.check().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_deadline_is_law() {
    let stage = Stage::new(Plan { deadline: Some(secs(90)), ..Plan::default() }).await;
    let started = tokio::time::Instant::now();
    let token = stage.vault.tokens().pop().expect("the run token");
    assert!((secs(88)..=secs(90)).contains(&token.left), "{token:?}");
    stage.read(APP).await.expect("served");
    while started.elapsed() < secs(88) {
        let got = stage.alive(ORDERS).await;
        assert!(got.left.expect("leased") <= secs(90) - started.elapsed(), "{got:?}");
        sleep(secs(1)).await;
    }
    assert_eq!(stage.vault.count(Operation::RenewToken), 0, "the run token is not renewable");
    sleep(secs(3)).await;
    assert_eq!(stage.vault.alive(), 0);
    stage.vault.clear_calls();
    for _ in 0..300 {
        let denied = stage.read(ORDERS).await.expect_err("over");
        assert!(denied.to_string().contains("deadline"), "{denied}");
        sleep(secs(1)).await;
    }
    assert_eq!(stage.vault.calls(), [], "nothing is asked of upstream for a run that is over");
    stage.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_value_is_not_served_past_the_deadline() {
    let stage = Stage::new(Plan { deadline: Some(secs(30)), ..Plan::default() }).await;
    sleep(secs(20)).await;
    stage.read(APP).await.expect("served");
    sleep(secs(11)).await;
    let got = stage.read(APP).await;
    assert!(got.is_err(), "served past the deadline: {got:?}");
    stage.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_value_is_not_served_stale_past_the_deadline() {
    let stage = Stage::new(Plan { deadline: Some(secs(100)), ..Plan::default() }).await;
    stage.read(APP).await.expect("served");
    stage.vault.fail(Class::Transient);
    sleep(secs(90)).await;
    stage.read(APP).await.expect("stale");
    sleep(secs(11)).await;
    let got = stage.read(APP).await;
    assert!(got.is_err(), "served past the deadline: {got:?}");
    stage.vault.recover();
    stage.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_life_longer_than_the_runs_is_refused() {
    let stage = Stage::new(Plan { deadline: Some(secs(90)), ..Plan::default() }).await;
    stage.alive(ORDERS).await;
    let denied = stage.read_for(ORDERS, secs(300)).await.expect_err("too long");
    assert!(matches!(denied, Denied::TooLong { .. }), "{denied:?}");
    stage.finish().await;
}
