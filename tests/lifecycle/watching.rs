//! Runs that go on: heartbeats, descriptions, and how often the platform is asked.

use tenure::broker::{Cause, Found};
use tenure::lease::failure::{Class, Failure};
use tenure::run::workflow::Beat;
use tenure::runs::Watching;

use crate::platform::{Asked, Platform, execution, express, of, rule, with_task};
use crate::stage::{ORDERS, Plan, Stage, secs, sleep};

async fn stage(platform: &Platform, watching: Watching) -> Stage {
    Stage::new(Plan {
        rules: vec![rule()],
        workflow: platform.shared(),
        watching,
        max_runs: 2000,
        ..Plan::default()
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn a_task_that_is_over_ends_its_run_within_the_interval() {
    for (beat, cause) in [
        (Beat::TimedOut, Cause::TaskTimedOut),
        (Beat::Gone, Cause::TaskGone),
        (Beat::Invalid, Cause::TaskGone),
    ] {
        let platform = Platform::default();
        let stage = stage(&platform, Watching::default()).await;
        let run = stage.register(with_task(of(&express("a"), "Charge"), "task")).await.expect("registered");
        let user = stage.alive_as(&run, ORDERS).await.value;
        sleep(secs(60)).await;
        let beats = platform.count(Asked::Heartbeat);
        assert!((5..=7).contains(&beats), "{beats} heartbeats in a minute");
        platform.beat("task", beat);
        stage.until(secs(12), "it is over", |stage| stage.broker.runs().count() == 1).await;
        let gone = stage.broker.runs().by_id(&run.run.id);
        assert!(matches!(gone, Some(Found::Gone(ref gone)) if gone.cause == cause), "{gone:?}");
        assert!(!stage.vault.is_alive(&user));
        platform.clear_calls();
        sleep(secs(60)).await;
        assert_eq!(platform.calls(), [], "nothing is asked of what is over");
        stage.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_may_not_ask_asks_no_more_and_the_run_goes_on() {
    let platform = Platform::default();
    let stage = stage(&platform, Watching::default()).await;
    let run = stage.register(with_task(of(&execution("a"), "Charge"), "task")).await.expect("registered");
    platform.fail_with(Class::Denied);
    sleep(secs(300)).await;
    assert_eq!(platform.count(Asked::Heartbeat), 1);
    stage.alive_as(&run, ORDERS).await;
    stage.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_platform_that_does_not_answer_ends_nothing_and_is_asked_again() {
    let platform = Platform::default();
    let stage = stage(&platform, Watching::default()).await;
    let run = stage.register(with_task(of(&execution("a"), "Charge"), "task")).await.expect("registered");
    platform.fail_with(Class::Transient);
    sleep(secs(600)).await;
    let beats = platform.count(Asked::Heartbeat);
    assert!((10..=67).contains(&beats), "{beats} heartbeats in ten minutes of outage");
    stage.alive_as(&run, ORDERS).await;
    platform.recover();
    platform.beat("task", Beat::Gone);
    stage.until(secs(60), "it is over", |stage| stage.broker.runs().count() == 1).await;
    stage.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_thousand_polled_runs_keep_to_the_budget() {
    let platform = Platform::default();
    let watching = Watching { poll: Some(secs(60)), rate: 0.1, ..Watching::default() };
    let stage = stage(&platform, watching).await;
    for number in 0..1000 {
        let arn = execution(&format!("x{number}"));
        stage.register(of(&arn, "Charge")).await.expect("registered");
    }
    stage.register(of(&express("e"), "Charge")).await.expect("registered");
    // A moment before the rule's hour is over.
    sleep(secs(3590)).await;
    let asked = platform.count(Asked::Describe);
    assert!(asked <= 5 + 359, "{asked} descriptions in an hour");
    assert!(asked >= 300, "{asked} descriptions in an hour: the budget is not used");
    assert_eq!(stage.broker.runs().count(), 1002);
    stage.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_platform_that_throttles_is_asked_less() {
    let platform = Platform::default();
    let watching = Watching { poll: Some(secs(5)), rate: 2.0, ..Watching::default() };
    let stage = stage(&platform, watching).await;
    for number in 0..100 {
        let arn = execution(&format!("x{number}"));
        stage.register(of(&arn, "Charge")).await.expect("registered");
    }
    sleep(secs(600)).await;
    let before = platform.count(Asked::Describe);
    assert!((600..=1205).contains(&before), "{before} at two a second");
    platform.clear_calls();
    platform.fail(Failure { status: Some(400), ..Failure::new(Class::Transient, "ThrottlingException") });
    sleep(secs(600)).await;
    let throttled = platform.count(Asked::Describe);
    assert!(throttled < before / 3, "{throttled} in ten minutes of throttling, {before} before");
    platform.clear_calls();
    platform.recover();
    sleep(secs(600)).await;
    let after = platform.count(Asked::Describe);
    assert!(after > before / 2, "{after} after it, {before} before");
    assert_eq!(stage.broker.runs().count(), 101);
    stage.finish().await;
}
