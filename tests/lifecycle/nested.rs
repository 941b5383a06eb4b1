//! Runs that runs register, and what ends with what.

use std::sync::Arc;

use tenure::audit::Event;
use tenure::broker::{Cause, RunRefusal};
use tenure::policy::rules::Rule;
use tenure::run::request::{Facts, Request};
use tenure::run::workflow::{Beat, ExecutionStatus};
use tenure::runs::{Active, Watching};

use crate::platform::{Platform, execution, lasting, of, rule, state, with_task};
use crate::runs::{gone, with_rules};
use crate::stage::{ORDERS, Plan, Stage, USER, secs, sleep};

/// A rule for what may register others, one for what outlives its parent, and one for all else.
fn rules() -> Vec<Rule> {
    vec![
        Rule { may_register: true, matches: state("Start*"), ..rule() },
        Rule { ends_with_parent: false, matches: state("Detached"), ..rule() },
        rule(),
    ]
}

async fn child(stage: &Stage, parent: &Arc<Active>, request: Request) -> Arc<Active> {
    stage.register_by(USER, parent, request).await.expect("registered").0
}

#[tokio::test(start_paused = true)]
async fn a_chain_of_runs_is_known_up_to_its_root() {
    let stage = with_rules(rules()).await;
    let [root, middle, leaf] = ["root", "middle", "leaf"].map(execution);
    let first = stage.register(of(&root, "Start")).await.expect("registered");
    let second = child(&stage, &first, of(&middle, "Start")).await;
    let third = child(&stage, &second, of(&leaf, "Charge")).await;
    assert_eq!(third.run.parent.as_ref(), Some(&second.run.id));
    assert_eq!(*third.run.parents, [middle.clone(), root.clone()]);
    stage.alive_as(&third, ORDERS).await;
    let meta = stage.vault.tokens().pop().expect("its token").meta;
    assert_eq!(meta["parent_run"], *second.run.id);
    assert_eq!(meta["root_execution_arn"], root.as_str());
    assert_eq!(meta["execution_chain"], format!("{middle} {root}"));
    let line = stage.lines(Event::Read).pop().and_then(|line| line.run).expect("a line");
    assert_eq!(line.parents, [middle.as_str(), root.as_str()]);
    // Of the same execution: what is above it is above its runs alike.
    let sibling = child(&stage, &second, of(&middle, "Charge")).await;
    assert_eq!(*sibling.run.parents, [root]);
    let refusal =
        stage.register_by(USER, &third, Request::default()).await.expect_err("its rule lets it not");
    assert!(refusal.to_string().contains("may_register"), "{refusal}");
    stage.finish().await;
}

#[tokio::test(start_paused = true)]
async fn executions_that_are_said_to_go_in_a_circle_make_no_longer_chains() {
    let stage = with_rules(rules()).await;
    let (one, other) = (execution("one"), execution("other"));
    for attempt in 0..20 {
        for (of_, above) in [(&one, &other), (&other, &one)] {
            let mut request = of(of_, "Charge");
            request.facts.attempt = Some(attempt);
            request.facts.parent = Some(above.clone());
            let run = stage.register(request).await.expect("registered");
            assert_eq!(*run.run.parents, *std::slice::from_ref(above));
        }
    }
    let mut itself = of(&one, "Charge");
    itself.facts.parent = Some(one);
    let refusal = stage.register(itself).await.expect_err("its own parent");
    assert!(matches!(refusal, RunRefusal::Wrong(_)), "{refusal:?}");
    stage.finish().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_run_registered_lies_in_its_limits_and_ends_with_it() {
    let stage = with_rules(rules()).await;
    let parent = lasting(&stage, of(&execution("a"), "Start"), secs(300));
    let parent = stage.register(parent).await.expect("registered");
    let grown = child(&stage, &parent, of(&execution("b"), "Start")).await;
    let grandchild = child(&stage, &grown, of(&execution("c"), "Charge")).await;
    let detached = child(&stage, &parent, of(&execution("d"), "Detached")).await;
    for run in [&grown, &grandchild, &detached] {
        let left = run.deadline().expect("a deadline").left(stage.clock.now());
        assert!(left <= secs(300), "{left:?} is more than its registrant has");
        stage.alive_as(run, ORDERS).await;
    }
    stage.end(&parent).await;
    stage.until(secs(10), "its children are over", |stage| stage.broker.runs().count() == 2).await;
    assert_eq!(gone(&stage, &grown), Some(Cause::Parent));
    assert_eq!(gone(&stage, &grandchild), Some(Cause::Parent));
    stage.alive_as(&detached, ORDERS).await;
    assert_eq!(stage.vault.alive(), 1);
    let refusal = stage.register_by(USER, &parent, Request::default()).await.expect_err("over");
    assert!(matches!(refusal, RunRefusal::Over { cause: Cause::Ended, .. }), "{refusal:?}");
    stage.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_execution_that_is_over_ends_all_its_runs_and_what_it_started() {
    let platform = Platform::default();
    let watching = Watching { poll: Some(secs(30)), rate: 10.0, ..Watching::default() };
    let plan = Plan { rules: rules(), workflow: platform.shared(), watching, ..Plan::default() };
    let stage = Stage::new(plan).await;
    let (stopped, started, other) = (execution("stopped"), execution("started"), execution("other"));
    let mut runs = Vec::new();
    for request in [
        of(&stopped, "Charge"),
        of(&stopped, "Ship"),
        Request {
            facts: Facts { parent: Some(stopped.clone()), ..of(&started, "Charge").facts },
            ..Request::default()
        },
        Request {
            facts: Facts { parent: Some(stopped.clone()), ..of(&started, "Detached").facts },
            ..Request::default()
        },
        of(&other, "Charge"),
    ] {
        runs.push(stage.register(request).await.expect("registered"));
        stage.alive_as(runs.last().expect("a run"), ORDERS).await;
    }
    sleep(secs(60)).await;
    assert_eq!(stage.broker.runs().count(), 6);
    platform.status(&stopped, Some(ExecutionStatus::Aborted));
    stage.until(secs(35), "its runs are over", |stage| stage.broker.runs().count() == 3).await;
    let causes: Vec<_> = runs.iter().map(|run| gone(&stage, run)).collect();
    let aborted = Some(Cause::Execution(ExecutionStatus::Aborted));
    assert_eq!(causes, [aborted, aborted, Some(Cause::Parent), None, None]);
    assert_eq!(stage.vault.alive(), 2);
    stage.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_task_that_is_over_has_its_execution_asked_about_and_no_more() {
    let platform = Platform::default();
    let plan = Plan { rules: rules(), workflow: platform.shared(), ..Plan::default() };
    let stage = Stage::new(plan).await;
    for (name, status, left) in
        [("retried", ExecutionStatus::Running, 2), ("aborted", ExecutionStatus::Aborted, 1)]
    {
        let arn = execution(name);
        platform.status(&arn, Some(status));
        let task = stage.register(with_task(of(&arn, "Charge"), name)).await.expect("registered");
        let beside = stage.register(of(&arn, "Ship")).await.expect("registered");
        platform.clear_calls();
        platform.beat(name, Beat::TimedOut);
        stage.until(secs(12), "its task is over", |stage| stage.broker.runs().count() == left).await;
        assert_eq!(gone(&stage, &task), Some(Cause::TaskTimedOut));
        assert_eq!(platform.count(crate::platform::Asked::Describe), 1);
        if left == 2 {
            stage.end(&beside).await;
        }
    }
    stage.finish().await;
}

#[tokio::test(start_paused = true)]
async fn what_the_process_registered_ends_with_its_own_run() {
    let platform = Platform::default();
    let plan = Plan {
        rules: rules(),
        workflow: platform.shared(),
        facts: of(&execution("own"), "Work").facts,
        task_token: Some("own-task"),
        ..Plan::default()
    };
    let stage = Stage::new(plan).await;
    let run = stage.register(of(&execution("a"), "Charge")).await.expect("registered");
    let user = stage.alive_as(&run, ORDERS).await.value;
    platform.beat("own-task", Beat::TimedOut);
    stage.until(secs(13), "all is over", |stage| stage.broker.runs().count() == 0).await;
    assert_eq!(gone(&stage, &run), Some(Cause::Parent));
    assert!(!stage.vault.is_alive(&user));
    stage.finish().await;
}
