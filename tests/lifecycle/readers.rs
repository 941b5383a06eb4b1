//! Many readers, readers that go away, readers that ask for more than there is.

use std::time::Duration;

use tenure::audit::Event;
use tenure::broker::Denied;
use tenure::lease::failure::Class;
use tenure::lease::view::Freshness;
use tenure::runs::leases::Limits;
use tenure::source::dev::{DatabaseRole, Operation, TokenRole};

use crate::stage::{APP, ORDERS, Plan, Stage, secs, sleep};

/// Starts so many readers at once and waits for all of them.
async fn crowd(stage: &Stage, readers: usize) -> Vec<Result<crate::stage::Got, Denied>> {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..readers {
        let stage = stage.clone();
        tasks.spawn(async move { stage.read(ORDERS).await });
    }
    tasks.join_all().await
}

#[tokio::test(start_paused = true)]
async fn readers_that_come_together_share_one_mint() {
    let stage = Stage::new(Plan::default()).await;
    let got: Vec<_> = crowd(&stage, 200).await.into_iter().map(|got| got.expect("served")).collect();
    assert!(got.iter().all(|one| one.value == got[0].value));
    assert_eq!((stage.vault.count(Operation::Read), stage.vault.alive()), (1, 1));
    assert_eq!(stage.lines(Event::Read).len(), 200, "each disclosure is on record");
    assert_eq!(stage.lines(Event::Mint).len(), 1);
    stage.finish().await;
}

#[tokio::test(start_paused = true)]
async fn readers_that_come_before_the_login_wait_for_it() {
    let stage = Stage::start(Plan::default()).await;
    let got = crowd(&stage, 50).await;
    assert!(got.iter().all(Result::is_ok), "{got:?}");
    let counts = [Operation::Login, Operation::CreateToken, Operation::Read].map(|op| stage.vault.count(op));
    assert_eq!(counts, [1, 1, 1]);
    stage.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_failure_fails_all_readers_alike_and_is_asked_for_once() {
    let stage = Stage::new(Plan::default()).await;
    stage.vault.fail_next(1, Class::Transient);
    let got = crowd(&stage, 200).await;
    let errors: Vec<_> = got.iter().map(|one| one.as_ref().expect_err("failed").to_string()).collect();
    assert!(errors.iter().all(|one| *one == errors[0] && one.contains("sealed")), "{}", errors[0]);
    assert_eq!(stage.vault.count(Operation::Read), 1);
    sleep(secs(2)).await;
    stage.alive(ORDERS).await;
    stage.finish().await;
}

#[tokio::test(start_paused = true)]
async fn readers_that_go_away_cancel_nothing() {
    let stage = Stage::new(Plan::default()).await;
    stage.vault.set_latency(secs(1));
    let readers: Vec<_> = (0..20)
        .map(|_| {
            let stage = stage.clone();
            tokio::spawn(async move { stage.read(ORDERS).await.map(drop) })
        })
        .collect();
    sleep(Duration::from_millis(300)).await;
    assert_eq!(stage.vault.count(Operation::Read), 1);
    for reader in readers {
        reader.abort();
    }
    sleep(secs(2)).await;
    assert_eq!(stage.vault.alive(), 1, "the mint went on");
    assert_eq!(stage.lines(Event::Read).len(), 0);
    let got = stage.alive(ORDERS).await;
    assert_eq!((got.freshness, stage.vault.count(Operation::Read)), (Freshness::Cache, 1));
    stage.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_minimum_life_is_honoured_or_refused() {
    let orders = DatabaseRole { ttl: secs(60), max_ttl: secs(100) };
    let stage = Stage::new(Plan { orders, ..Plan::default() }).await;
    let first = stage.alive(ORDERS).await;
    sleep(secs(20)).await;
    let renewed = stage.read_for(ORDERS, secs(50)).await.expect("renewed");
    assert!(renewed.left >= Some(secs(50)) && renewed.value == first.value, "{renewed:?}");
    assert_eq!(stage.vault.count(Operation::RenewLease), 1);
    // At 70 seconds only 30 are left to the maximum.
    sleep(secs(50)).await;
    let rotated = stage.read_for(ORDERS, secs(50)).await.expect("rotated");
    assert!(rotated.left >= Some(secs(50)) && rotated.value != first.value, "{rotated:?}");
    let calls = stage.vault.calls().len();
    match stage.read_for(ORDERS, secs(1000)).await {
        Err(Denied::TooLong { asked, reach }) => {
            assert_eq!(asked, secs(1000));
            assert!(reach <= secs(100), "{reach:?}");
        }
        other => panic!("{other:?}"),
    }
    assert!(stage.vault.calls().len() <= calls + 2, "a wish that cannot be met is not tried over and over");
    stage.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_full_map_refuses_before_anything_is_minted() {
    let limits = Limits { max_leases: 2, ..Plan::default().limits };
    let stage = Stage::new(Plan { limits, ..Plan::default() }).await;
    stage.alive(ORDERS).await;
    stage.alive("database/creds/billing").await;
    let calls = stage.vault.calls().len();
    match stage.read("database/creds/stock").await {
        Err(Denied::Full(full)) => assert_eq!(full.limit, 2),
        other => panic!("{other:?}"),
    }
    assert_eq!(stage.vault.calls().len(), calls, "nothing was asked of upstream");
    // Nobody reads the two any more: they lapse, and there is room.
    stage.vault.revoke_leases();
    sleep(secs(4000)).await;
    stage.alive("database/creds/stock").await;
    stage.finish().await;
}

#[tokio::test(start_paused = true)]
async fn values_that_may_be_forgotten_take_no_room_in_the_map() {
    let limits = Limits { max_leases: 1, ..Plan::default().limits };
    let stage = Stage::new(Plan { limits, ..Plan::default() }).await;
    for name in ["one", "two", "three"] {
        stage.vault.put(name, serde_json::json!({ "key": "canary-of-many" }));
        stage.read(&format!("secret/data/{name}")).await.expect("served");
    }
    stage.alive(ORDERS).await;
    stage.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_missing_capability_is_named_and_costs_no_login() {
    let role = TokenRole::orphan(&["secret/"]);
    let stage = Stage::new(Plan { role: Some(role), ..Plan::default() }).await;
    for _ in 0..20 {
        match stage.read(ORDERS).await {
            Err(Denied::Upstream { failure, .. }) => assert_eq!(failure.class, Class::Denied),
            other => panic!("{other:?}"),
        }
        sleep(secs(1)).await;
    }
    stage.read(APP).await.expect("what the role allows is served");
    assert_eq!([Operation::Login, Operation::CreateToken].map(|op| stage.vault.count(op)), [1, 1]);
    assert!(stage.vault.count(Operation::LookupToken) <= 20);
    stage.finish().await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_recorded_is_not_disclosed() {
    let stage = Stage::new(Plan::default()).await;
    stage.alive(ORDERS).await;
    stage.memory.fail(true);
    let denied = stage.read(ORDERS).await.expect_err("unaudited");
    assert!(matches!(denied, Denied::Unaudited(_)), "{denied:?}");
    assert!(!stage.broker.ready().ready);
    stage.memory.fail(false);
    stage.alive(ORDERS).await;
    stage.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_wish_for_just_what_the_role_gives_makes_no_storm() {
    let stage = Stage::new(Plan::default()).await;
    stage.alive(ORDERS).await;
    sleep(secs(10)).await;
    stage.vault.clear_calls();
    let got = stage.read_for(ORDERS, secs(60)).await;
    let calls = stage.vault.calls().len();
    assert!(calls <= 4, "{calls} calls for one reader: {got:?}");
    stage.finish().await;
}
