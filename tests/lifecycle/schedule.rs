//! What time alone makes happen: renewal, rotation, revalidation, over hours.

use std::time::Duration;

use tenure::audit::Event;
use tenure::lease::view::Freshness;
use tenure::source::dev::{DatabaseRole, DevConfig, Operation, TokenRole};

use crate::stage::{APP, ORDERS, Plan, Stage, secs, sleep};

#[tokio::test(start_paused = true)]
async fn a_lease_is_renewed_in_the_middle_third_of_its_life_and_then_at_about_two_thirds() {
    let stage = Stage::new(Plan::default()).await;
    let first = stage.alive(ORDERS).await;
    let started = tokio::time::Instant::now();
    stage.until(secs(60), "a renewal", |stage| stage.vault.count(Operation::RenewLease) == 1).await;
    let share = started.elapsed().as_secs_f64() / 60.0;
    assert!((0.33..0.68).contains(&share), "renewed at {share} of its life");
    let again = tokio::time::Instant::now();
    sleep(secs(1)).await;
    let renewed = stage.alive(ORDERS).await;
    assert_eq!(renewed.value, first.value);
    assert!(renewed.left > Some(secs(57)), "{:?}", renewed.left);
    stage.until(secs(60), "another", |stage| stage.vault.count(Operation::RenewLease) == 2).await;
    let share = again.elapsed().as_secs_f64() / 60.0;
    assert!((0.56..0.68).contains(&share), "renewed at {share} of its life");
    stage.finish().await;
}

/// Reads every second, and holds that the reader always gets a live one and that the one before was alive when it was
/// replaced. Returns how many users it saw.
async fn read_for_hours(stage: &Stage, hours: u64) -> usize {
    let mut last = stage.alive(ORDERS).await.value;
    let mut seen = 1;
    for second in 0..hours * 3600 {
        sleep(secs(1)).await;
        let got = stage.alive(ORDERS).await;
        if got.value != last {
            assert!(
                stage.vault.is_alive(&last),
                "after {second} s the switch came too late for open connections"
            );
            (last, seen) = (got.value, seen + 1);
        }
    }
    seen
}

#[tokio::test(start_paused = true)]
async fn rotation_precedes_the_maximum_for_hours_and_nobody_gets_a_dead_one() {
    let orders = DatabaseRole { ttl: secs(60), max_ttl: secs(150) };
    let stage = Stage::new(Plan { orders, ..Plan::default() }).await;
    let seen = read_for_hours(&stage, 3).await;
    // 150 seconds each, less what is left over at the switch.
    assert!((72..100).contains(&seen), "{seen} users in three hours");
    assert_eq!(stage.vault.count(Operation::Login), 1, "the login is renewed");
    assert_eq!(stage.lines(Event::Rotate).len(), seen - 1);
    assert!(stage.vault.alive() <= 2, "one in use, one left to its end");
    stage.finish().await;
}

#[tokio::test(start_paused = true)]
async fn tokens_are_replaced_before_their_maximum_and_leases_move_over() {
    let stage = Stage::new(Plan {
        vault: DevConfig {
            login_ttl: secs(300),
            login_max_ttl: secs(1000),
            latency: Duration::from_millis(300),
            ..DevConfig::default()
        },
        role: Some(TokenRole {
            explicit_max_ttl: Some(secs(700)),
            ..TokenRole::orphan(&["database/creds/", "secret/"])
        }),
        token_ttl: secs(200),
        ..Plan::default()
    })
    .await;
    let seen = read_for_hours(&stage, 4).await;
    let logins = stage.vault.count(Operation::Login);
    let tokens = stage.vault.count(Operation::CreateToken);
    assert!((14..24).contains(&logins), "{logins} logins of 1000 s in four hours");
    assert!((20..34).contains(&tokens), "{tokens} run tokens of 700 s in four hours");
    assert!(seen <= tokens + 4, "{seen} users, {tokens} run tokens: leases move once for each token");
    stage.finish().await;
}

#[tokio::test(start_paused = true)]
async fn without_a_token_role_leases_hang_off_the_login_and_outlive_it() {
    let stage = Stage::new(Plan {
        vault: DevConfig {
            login_ttl: secs(300),
            login_max_ttl: secs(1000),
            login_allow: vec!["database/".to_owned()],
            ..DevConfig::default()
        },
        role: None,
        ..Plan::default()
    })
    .await;
    read_for_hours(&stage, 2).await;
    assert!(stage.vault.count(Operation::Login) >= 7);
    stage.finish().await;
}

#[tokio::test(start_paused = true)]
async fn what_nobody_reads_lapses() {
    let orders = DatabaseRole { ttl: secs(60), max_ttl: secs(150) };
    let stage = Stage::new(Plan { orders, ..Plan::default() }).await;
    stage.alive(ORDERS).await;
    sleep(secs(3600)).await;
    // The one read was after the first mint: that one is replaced once.
    assert!(stage.vault.count(Operation::Read) <= 2 && stage.vault.alive() == 0);
    stage.alive(ORDERS).await;
    stage.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_new_version_is_seen_once_the_value_is_not_fresh_any_more() {
    let stage = Stage::new(Plan::default()).await;
    assert_eq!(stage.read(APP).await.expect("served").version, Some(1));
    stage.vault.put("app", serde_json::json!({ "key": "canary-two" }));
    sleep(secs(30)).await;
    let fresh = stage.read(APP).await.expect("served");
    assert_eq!((fresh.version, fresh.freshness), (Some(1), Freshness::Cache));
    sleep(secs(31)).await;
    let got = stage.read(APP).await.expect("served");
    assert_eq!((got.version, got.value.as_str()), (Some(2), "canary-two"));
    let reads = stage.vault.count(Operation::Read);
    sleep(secs(3600)).await;
    assert!(stage.vault.count(Operation::Read) <= reads + 1, "a value that nobody reads is not revalidated");
    stage.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_was_frozen_serves_nothing_dead() {
    for told in [true, false] {
        let stage = Stage::new(Plan::default()).await;
        let before = stage.alive(ORDERS).await;
        stage.read(APP).await.expect("served");
        // Two hours pass outside; here the monotonic clock stands still.
        stage.clock.jump(2 * 3_600_000);
        if !told {
            // Nobody has noticed yet: nothing, rather than something dead.
            let got = stage.read(ORDERS).await;
            assert!(
                got.as_ref().is_ok_and(|got| stage.vault.is_alive(&got.value)) || got.is_err(),
                "{got:?}"
            );
        }
        stage.broker.runs().clock_jumped(secs(2 * 3600));
        let after = stage.alive(ORDERS).await;
        assert_ne!(after.value, before.value);
        let value = stage.read(APP).await.expect("served");
        assert!(value.age < secs(60) && value.freshness != Freshness::Stale, "{value:?}");
        assert_eq!(stage.vault.count(Operation::Login), 2);
        let calls = stage.vault.calls().len();
        assert!(calls < 20, "{calls} calls");
        sleep(secs(600)).await;
        stage.alive(ORDERS).await;
        stage.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_wall_clock_that_is_set_back_prolongs_nothing() {
    let stage = Stage::new(Plan::default()).await;
    stage.alive(ORDERS).await;
    stage.clock.jump(-86_400_000);
    stage.broker.runs().clock_jumped(secs(86_400));
    for _ in 0..600 {
        sleep(secs(1)).await;
        stage.alive(ORDERS).await;
    }
    stage.finish().await;
}
