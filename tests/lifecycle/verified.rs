//! What the platform says of a run that is to be registered, and what a rule makes of it.

use tenure::broker::RunRefusal;
use tenure::lease::failure::Class;
use tenure::policy::rules::{Matches, Rule, Verification};
use tenure::run::workflow::{Beat, EcsTask, Evidence, ExecutionStatus, Standing};
use tenure::runs::Watching;

use crate::platform::{Asked, Platform, execution, express, of, rule, with_task};
use crate::stage::{ORDERS, Plan, Stage, secs};

const NOTHING: Evidence =
    Evidence { in_progress: false, of_activity: false, names_task: false, names_token: false };

/// A broker whose rule does that, in an ECS task or not.
async fn stage(platform: &Platform, verification: Verification, in_ecs: bool) -> Stage {
    let task =
        EcsTask { arn: "arn:aws:ecs:eu-west-1:123456789012:task/x/1".to_owned(), ..EcsTask::default() };
    Stage::new(Plan {
        rules: vec![Rule { verification, ..rule() }],
        workflow: platform.shared(),
        task: in_ecs.then_some(task),
        watching: Watching { rate: 10.0, ..Watching::default() },
        ..Plan::default()
    })
    .await
}

fn reason(refusal: RunRefusal) -> String {
    match refusal {
        RunRefusal::Denied { policy, reason } => {
            assert!(policy.starts_with("run."), "{policy}");
            reason
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn each_kind_of_evidence_has_its_standing() {
    use Asked::{Describe, Heartbeat, History};
    let in_progress = Evidence { in_progress: true, ..NOTHING };
    let of_activity = Evidence { of_activity: true, ..in_progress };
    let by_token = Evidence { names_token: true, ..in_progress };
    let by_task = Evidence { names_task: true, ..in_progress };
    for (what, in_ecs, token, evidence, standing, calls) in [
        ("its token", false, true, &[by_token][..], Standing::Verified, &[Heartbeat, History][..]),
        ("an activity", false, true, &[of_activity], Standing::Verified, &[Heartbeat, History]),
        ("its ECS task", true, false, &[by_task], Standing::Verified, &[History]),
        ("late", true, false, &[NOTHING, NOTHING, by_task], Standing::Verified, &[History; 3]),
        (
            "another's task",
            true,
            false,
            &[in_progress],
            Standing::Exists,
            &[History, History, History, Describe],
        ),
        ("it runs", false, false, &[], Standing::Exists, &[Describe]),
    ] {
        let platform = Platform::default();
        platform.set_latency(std::time::Duration::from_millis(50));
        platform.evidence(evidence);
        let stage = stage(&platform, Verification::Warn, in_ecs).await;
        let request = of(&execution("a"), "Charge");
        let request = if token { with_task(request, "task") } else { request };
        let run = stage.register(request).await.expect(what);
        assert_eq!(run.run.standing, standing, "{what}");
        assert_eq!(platform.calls(), calls, "{what}");
        stage.alive_as(&run, ORDERS).await;
        let token = stage.vault.tokens().pop().expect("its token");
        assert_eq!(token.meta["verified"], standing.word(), "{what}");
        stage.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_asked_of_an_express_execution() {
    let platform = Platform::default();
    let stage = stage(&platform, Verification::Warn, true).await;
    let run = stage.register(of(&express("a"), "Charge")).await.expect("registered");
    assert_eq!((run.run.standing, platform.calls()), (Standing::Unverifiable, vec![]));
    stage.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_is_not_so_is_refused_even_where_it_is_only_warned() {
    let platform = Platform::default();
    let stage = stage(&platform, Verification::Warn, false).await;
    for (beat, why) in
        [(Beat::TimedOut, "TaskTimedOut"), (Beat::Gone, "TaskDoesNotExist"), (Beat::Invalid, "InvalidToken")]
    {
        platform.beat("task", beat);
        let refusal = stage.register(with_task(of(&execution("a"), "Charge"), "task")).await;
        let reason = reason(refusal.expect_err("its token is not good"));
        assert!(reason.contains(why), "{reason}");
    }
    let refusal = stage.register(with_task(of(&execution("a"), "Charge"), "other")).await;
    let why = reason(refusal.expect_err("a token of another state"));
    assert!(why.contains("history does not say") && why.contains("\"Charge\""), "{why}");
    for (status, why) in
        [(Some(ExecutionStatus::Succeeded), "SUCCEEDED"), (None, "there is no execution arn:aws:states:")]
    {
        platform.status(&execution("b"), status);
        let refusal = stage.register(of(&execution("b"), "Charge")).await;
        let reason = reason(refusal.expect_err("there is no such run"));
        assert!(reason.contains(why), "{reason}");
    }
    // Of a task that is no activity's, the history tells the token: this one is another's.
    platform.evidence(&[Evidence { in_progress: true, ..NOTHING }]);
    let refusal = stage.register(with_task(of(&execution("a"), "Charge"), "other")).await;
    let why = reason(refusal.expect_err("the token of another task"));
    assert!(why.contains("this is the token"), "{why}");
    assert_eq!(stage.broker.runs().count(), 1);
    stage.finish().await;
}

#[tokio::test(start_paused = true)]
async fn off_asks_nothing_warn_takes_and_require_refuses_what_is_not_confirmed() {
    for (verification, taken, asks) in [
        (Verification::Off, true, false),
        (Verification::Warn, true, true),
        (Verification::Require, false, true),
    ] {
        let platform = Platform::default();
        let stage = stage(&platform, verification, false).await;
        let registered = stage.register(of(&execution("a"), "Charge")).await;
        assert_eq!(registered.is_ok(), taken, "{verification:?}: {registered:?}");
        assert_eq!(!platform.calls().is_empty(), asks, "{verification:?}");
        if let Err(refusal) = registered {
            let reason = reason(refusal);
            assert!(reason.contains("requires a verified run") && reason.contains("\"exists\""), "{reason}");
        }
        stage.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_platform_that_is_down_stands_in_the_way_only_where_it_is_required() {
    for class in [Class::Transient, Class::Denied] {
        let platform = Platform::default();
        platform.fail_with(class);
        let warned = stage(&platform, Verification::Warn, false).await;
        let run = warned.register(of(&execution("a"), "Charge")).await.expect("taken all the same");
        assert_eq!(run.run.standing, Standing::Asserted);
        warned.finish().await;
        let required = stage(&platform, Verification::Require, false).await;
        let refusal = required.register(of(&execution("a"), "Charge")).await.expect_err("required");
        assert_eq!(required.broker.runs().count(), 1, "{refusal}");
        platform.recover();
        platform.evidence(&[Evidence {
            in_progress: true,
            of_activity: false,
            names_task: false,
            names_token: true,
        }]);
        let run = required.register(with_task(of(&execution("a"), "Charge"), "task")).await;
        assert_eq!(run.expect("confirmed").run.standing, Standing::Verified);
        required.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_rule_for_verified_runs_passes_by_what_is_not() {
    let platform = Platform::default();
    let verified = Matches { verified: true, ..Matches::default() };
    let wide = Rule { token_role: "wide".into(), matches: verified, ..rule() };
    let narrow = Rule { name: "run.rule[1]".to_owned(), ..rule() };
    let plan = Plan { rules: vec![wide, narrow], workflow: platform.shared(), ..Plan::default() };
    let stage = Stage::new(plan).await;
    let run = stage.register(of(&execution("a"), "Charge")).await.expect("taken by the next");
    assert_eq!(run.rule.as_ref().expect("a rule").name, "run.rule[1]");
    platform.evidence(&[Evidence {
        in_progress: true,
        of_activity: false,
        names_task: false,
        names_token: true,
    }]);
    let run = stage.register(with_task(of(&execution("b"), "Charge"), "task")).await.expect("verified");
    assert_eq!(run.rule.as_ref().expect("a rule").name, "run.rule[0]");
    stage.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_registration_does_not_wait_long_for_the_budget() {
    let platform = Platform::default();
    let rules = vec![Rule { verification: Verification::Require, ..rule() }];
    let watching = Watching { rate: 0.1, ..Watching::default() };
    let plan = Plan { rules, workflow: platform.shared(), watching, ..Plan::default() };
    let stage = Stage::new(plan).await;
    let started = tokio::time::Instant::now();
    let mut refused = 0;
    for number in 0..10 {
        let refusal = stage.register(of(&execution(&format!("x{number}")), "Charge")).await;
        match refusal.expect_err("nothing is verified") {
            RunRefusal::Unavailable(failure) => {
                assert!(failure.message.contains("workflow.account_rate"), "{failure}");
                assert!(failure.retry_after.is_some_and(|wait| wait < secs(11)), "{failure:?}");
                refused += 1;
            }
            refusal => assert!(reason(refusal).contains("requires a verified run")),
        }
    }
    assert_eq!((refused, platform.calls().len()), (5, 5), "five at once, then one every ten seconds");
    assert!(started.elapsed() < secs(10), "{:?}", started.elapsed());
    stage.finish().await;
}
