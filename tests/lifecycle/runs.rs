//! Registered runs, from their registration to their end.

use std::sync::Arc;
use std::time::Duration;

use tenure::audit::{Event, Outcome};
use tenure::broker::{Asker, Cause, Denied, Found, Registrant, RunRefusal, Visitor};
use tenure::caller::Caller;
use tenure::policy::rules::{Rule, Share};
use tenure::run::request::Request;
use tenure::runs::Active;
use tenure::runs::leases::Limits;
use tenure::source::dev::Operation;

use crate::platform::{execution, lasting, of, rule};
use crate::stage::{APP, ORDERS, Plan, Stage, USER, secs, sleep};

pub(crate) async fn with_rules(rules: Vec<Rule>) -> Stage {
    Stage::new(Plan { rules, ..Plan::default() }).await
}

/// Why a run is over, while that is remembered.
pub(crate) fn gone(stage: &Stage, run: &Active) -> Option<Cause> {
    match stage.broker.runs().by_id(&run.run.id) {
        Some(Found::Gone(gone)) => Some(gone.cause),
        _ => None,
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_reads_ends_and_leaves_nothing() {
    let stage = with_rules(vec![rule()]).await;
    let asker = Asker::new(&Caller::Unix { uid: 1000, gid: 1000, pid: None }, "test");
    let visitor = Visitor { asker: &asker, registrant: Some(USER), run: None, invocation: None };
    let registered = stage.broker.register(visitor, of(&execution("a"), "Charge")).await;
    let (view, true) = registered.expect("registered") else { panic!("it is new") };
    let handle = view.handle.expect("a handle");
    let found = |stage: &Stage| stage.broker.runs().by_handle(handle.as_bytes());
    let Some(Found::Active(run)) = found(&stage) else { panic!("its handle is good") };
    assert!(handle.starts_with("tnr_") && handle.len() == 47);
    let got = stage.alive_as(&run, ORDERS).await;
    stage.read_as(&run, APP, Duration::ZERO).await.expect("served");
    let token = stage.vault.tokens().pop().expect("the run's token");
    assert_eq!(token.meta["run"], *run.run.id);
    assert_eq!(token.meta["execution_arn"], execution("a").as_str());
    assert_eq!(stage.broker.runs().count(), 2);
    stage.broker.end_run(visitor, &view.id).expect("its registrant may");
    stage.until(secs(10), "it is over", |stage| stage.broker.runs().count() == 1).await;
    assert!(!stage.vault.is_alive(&got.value));
    let left: Vec<_> = stage.vault.tokens().into_iter().filter_map(|token| token.role).collect();
    assert_eq!(left, ["run"], "the process's own run's, and no other");
    assert!(matches!(found(&stage), Some(Found::Gone(ref gone)) if gone.cause == Cause::Ended));
    let denied = stage.read_as(&run, ORDERS, Duration::ZERO).await.expect_err("over");
    assert!(matches!(denied, Denied::Over { cause: Cause::Ended, .. }), "{denied:?}");
    stage.broker.runs().sweep();
    assert_eq!((stage.broker.runs().count(), stage.broker.runs().held()), (1, 0));
    let of_run = |event| {
        let lines = stage.lines(event).into_iter();
        lines.filter(|line| line.run.as_ref().is_some_and(|of| of.id == *run.run.id)).collect::<Vec<_>>()
    };
    let confirmed = of_run(Event::RevokeConfirmed);
    assert_eq!(confirmed.len(), 1);
    assert_eq!(confirmed[0].detail.as_deref(), Some("run token and 1 leases"));
    for event in [Event::RunRegister, Event::RunStart, Event::RevokeRequested] {
        assert_eq!(of_run(event).len(), 1, "{event}");
    }
    let ends: Vec<_> = of_run(Event::RunEnd).into_iter().map(|line| (line.outcome, line.caller)).collect();
    let asked = matches!(&ends[..], [(Outcome::Granted, Some(_)), (Outcome::Done, None)]);
    assert!(asked, "who asked, and that it is so: {ends:?}");
    assert_eq!(of_run(Event::RunRegister)[0].policy.as_deref(), Some("run.rule[0]"));
    assert!(!stage.memory.text().contains(&handle));
    // It is told for a while why a handle is good no more.
    sleep(secs(601)).await;
    let other = stage.register(Request::default()).await.expect("registered");
    stage.end(&other).await;
    assert!(found(&stage).is_none() && gone(&stage, &run).is_none());
    stage.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_run_that_never_reads_asks_nothing_of_upstream() {
    let stage = with_rules(vec![rule()]).await;
    stage.vault.clear_calls();
    let run = stage.register(lasting(&stage, Request::default(), secs(60))).await.expect("registered");
    let longer = tenure::clock::Until::new(stage.clock.now(), secs(120));
    stage.broker.runs().extend(&run, longer).expect("extended");
    stage.end(&run).await;
    assert_eq!(stage.vault.calls(), []);
    stage.finish().await;
}

#[tokio::test(start_paused = true)]
async fn the_same_run_is_registered_once() {
    let stage = with_rules(vec![rule()]).await;
    let own = Arc::clone(stage.broker.runs().own());
    let charge = || of(&execution("a"), "Charge");
    let first = stage.register(charge()).await.expect("registered");
    let (again, new) = stage.register_by(USER, &own, charge()).await.expect("known");
    assert!(Arc::ptr_eq(&first, &again) && !new);
    for registrant in [Registrant::Uid(1001), Registrant::Holder] {
        let (other, new) = stage.register_by(registrant, &own, charge()).await.expect("registered");
        assert!(new && !Arc::ptr_eq(&first, &other), "{registrant:?} is told of another's run");
    }
    let mut second_try = charge();
    second_try.facts.attempt = Some(1);
    let second = stage.register(second_try).await.expect("registered");
    assert_ne!(first.run.id, second.run.id);
    let together = || stage.register_by(USER, &own, of(&execution("b"), "Charge"));
    let (one, other) = tokio::join!(together(), together());
    let (one, other) = (one.expect("registered"), other.expect("known"));
    assert!(Arc::ptr_eq(&one.0, &other.0));
    assert_eq!([one.1, other.1].iter().filter(|new| **new).count(), 1);
    stage.end(&first).await;
    let (after, new) = stage.register_by(USER, &own, charge()).await.expect("registered");
    assert!(new && after.run.id != first.run.id, "what is over does not go on");
    let nameless = [Request::default(), Request::default()];
    for request in nameless {
        assert!(stage.register_by(USER, &own, request).await.expect("registered").1);
    }
    stage.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_run_whose_deadline_passed_unseen_is_not_told_of_again() {
    let stage = with_rules(vec![rule()]).await;
    let charge = || lasting(&stage, of(&execution("a"), "Charge"), secs(60));
    let first = stage.register(charge()).await.expect("registered");
    // Nobody has compared the clocks yet.
    stage.clock.jump(90_000);
    let second = stage.register(charge()).await.expect("registered");
    assert_ne!(first.run.id, second.run.id);
    assert_eq!(gone(&stage, &first), Some(Cause::Deadline));
    stage.finish().await;
}

#[tokio::test(start_paused = true)]
async fn no_run_begins_that_is_not_on_record() {
    let stage = with_rules(vec![rule()]).await;
    stage.memory.fail(true);
    let charge = || stage.register(of(&execution("a"), "Charge"));
    let (one, other) = tokio::join!(charge(), charge());
    for refusal in [one.expect_err("refused"), other.expect_err("refused")] {
        assert!(matches!(refusal, RunRefusal::Unaudited(_)), "{refusal:?}");
    }
    assert_eq!(stage.broker.runs().count(), 1, "nothing stays registered");
    stage.memory.fail(false);
    // A log that failed is tried again after a while.
    sleep(secs(10)).await;
    let run = stage.register(of(&execution("a"), "Charge")).await.expect("registered");
    stage.alive_as(&run, ORDERS).await;
    stage.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_registration_that_nobody_waits_for_is_finished() {
    let stage = with_rules(vec![rule()]).await;
    let request = lasting(&stage, Request::default(), secs(60));
    let left = tokio::time::timeout(Duration::ZERO, stage.register(request)).await;
    assert!(left.is_err(), "it takes a moment");
    sleep(secs(1)).await;
    assert_eq!((stage.broker.runs().count(), stage.lines(Event::RunRegister).len()), (2, 1));
    sleep(secs(60)).await;
    assert_eq!(stage.broker.runs().count(), 1, "it ends by its deadline like any other");
    assert_eq!(stage.lines(Event::RunEnd).len(), 1);
    stage.finish().await;
}

fn sharing() -> Rule {
    Rule { share: Share::Process, ..rule() }
}

#[tokio::test(start_paused = true)]
async fn runs_that_share_get_the_same_and_the_last_ends_it() {
    let stage = with_rules(vec![sharing()]).await;
    let (mut runs, mut users) = (Vec::new(), Vec::new());
    for name in ["a", "b", "c"] {
        let run = stage.register(of(&execution(name), "Charge")).await.expect("registered");
        users.push(stage.alive_as(&run, ORDERS).await.value);
        runs.push(run);
    }
    assert!(users.iter().all(|user| *user == users[0]), "{users:?}");
    assert_eq!(stage.vault.count(Operation::CreateToken), 2, "the own run's, and the shared one");
    let read: Vec<_> =
        stage.lines(Event::Read).into_iter().filter_map(|line| line.run.map(|run| run.id)).collect();
    let ids: Vec<_> = runs.iter().map(|run| run.run.id.to_string()).collect();
    assert_eq!(read, ids, "each read is on record with its own run");
    for run in &runs[..2] {
        stage.end(run).await;
        stage.read_as(run, ORDERS, Duration::ZERO).await.expect_err("over");
    }
    assert_eq!(stage.alive_as(&runs[2], ORDERS).await.value, users[0]);
    stage.end(&runs[2]).await;
    assert!(!stage.vault.is_alive(&users[0]), "the last is over when it is revoked");
    let next = stage.register(of(&execution("d"), "Charge")).await.expect("registered");
    assert_ne!(stage.alive_as(&next, ORDERS).await.value, users[0]);
    stage.finish().await;
}

#[tokio::test(start_paused = true)]
async fn extending_a_run_that_shares_moves_nothing_of_the_others() {
    let stage = with_rules(vec![sharing()]).await;
    let short = lasting(&stage, of(&execution("a"), "Charge"), secs(60));
    let short = stage.register(short).await.expect("registered");
    let long = stage.register(of(&execution("b"), "Charge")).await.expect("registered");
    let user = stage.alive_as(&short, ORDERS).await.value;
    stage.alive_as(&long, ORDERS).await;
    let to = tenure::clock::Until::new(stage.clock.now(), secs(120));
    stage.broker.runs().extend(&short, to).expect("extended");
    for _ in 0..900 {
        sleep(secs(1)).await;
        assert_eq!(stage.alive_as(&long, ORDERS).await.value, user);
    }
    assert_eq!(gone(&stage, &short), Some(Cause::Deadline));
    stage.finish().await;
}

#[tokio::test(start_paused = true)]
async fn shutdown_revokes_what_all_runs_have_within_its_grace() {
    let stage = with_rules(vec![rule()]).await;
    for number in 0..50 {
        let run = stage.register(of(&execution(&format!("x{number}")), "Charge")).await.expect("registered");
        stage.alive_as(&run, ORDERS).await;
    }
    assert_eq!(stage.vault.tokens().len(), 52);
    let started = tokio::time::Instant::now();
    assert!(stage.broker.runs().end(secs(20)).await);
    assert!(started.elapsed() < secs(5), "one after the other: {:?}", started.elapsed());
    let why: Vec<_> = stage.lines(Event::RunEnd).into_iter().filter_map(|line| line.detail).collect();
    assert_eq!(why.len(), 51);
    assert!(why.iter().all(|why| why == "the broker stops"), "{why:?}");
    let refusal = stage.register(Request::default()).await.expect_err("stopping");
    assert!(matches!(refusal, RunRefusal::Over { cause: Cause::Shutdown, .. }), "{refusal:?}");
    stage.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_for_what_the_last_that_shares_it_leaves() {
    let stage = with_rules(vec![sharing()]).await;
    let run = stage.register(Request::default()).await.expect("registered");
    stage.alive_as(&run, ORDERS).await;
    stage.broker.runs().finish(&run, Cause::Ended);
    stage.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_thousand_runs_leave_what_was_there_before() {
    let limits = Limits { max_leases: 200, kv_fresh: secs(60), kv_stale: secs(600), kv_bytes: 1 << 20 };
    let stage = Stage::new(Plan { rules: vec![rule()], limits, ..Plan::default() }).await;
    let baseline = |stage: &Stage| {
        stage.broker.runs().sweep();
        let runs = stage.broker.runs();
        (stage.vault.tokens().len(), stage.vault.alive(), runs.count(), runs.held())
    };
    let before = baseline(&stage);
    for round in 0..20 {
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..50 {
            let stage = stage.clone();
            tasks.spawn(async move {
                let request = of(&execution(&format!("{round}-{number}")), "Charge");
                let run = stage.register(request).await.expect("registered");
                stage.alive_as(&run, ORDERS).await;
                stage.read_as(&run, APP, Duration::ZERO).await.expect("served");
                sleep(secs(number % 7)).await;
                stage.end(&run).await;
            });
        }
        tasks.join_all().await;
    }
    assert_eq!(baseline(&stage), before);
    assert_eq!(stage.lines(Event::RunRegister).len(), 1000);
    assert_eq!(stage.lines(Event::RunEnd).len(), 1000);
    stage.finish().await;
}
