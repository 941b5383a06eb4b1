//! What a registered run may have, and until when.

use std::sync::Arc;
use std::time::Duration;

use tenure::broker::{Cause, Denied, RunRefusal};
use tenure::clock::Until;
use tenure::lease::failure::{Class, Failure};
use tenure::policy::pattern::Pattern;
use tenure::policy::rules::{Matches, Rule};
use tenure::run::request::Request;
use tenure::run::subject::SubjectError;
use tenure::runs::{Active, SubjectExpiry};
use tenure::source::dev::{Operation, TokenRole};

use crate::platform::{Platform, Vouching, execution, lasting, of, rule, state, with_subject, with_task};
use crate::runs::with_rules;
use crate::stage::{ORDERS, Plan, Stage, USER, secs, sleep};

/// How long a run may go on.
fn left(stage: &Stage, run: &Active) -> Duration {
    run.deadline().expect("a deadline").left(stage.clock.now())
}

fn reason(refusal: &RunRefusal, policy: &str) -> String {
    match refusal {
        RunRefusal::Denied { policy: by, reason } => {
            assert_eq!(by, policy, "{reason}");
            reason.clone()
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_rule_that_matches_counts() {
    let named = |name: &str, matches| Rule { name: name.to_owned(), matches, ..rule() };
    let stage = with_rules(vec![
        named("run.rule[0]", state("Charge")),
        named("run.rule[1]", Matches { uid: Some(1000), ..state("Re*") }),
        named("run.rule[2]", state("Refund")),
    ])
    .await;
    for (state, expected) in [("Charge", "run.rule[0]"), ("Refund", "run.rule[1]")] {
        let run = stage.register(of(&execution("a"), state)).await.expect("registered");
        assert_eq!(run.rule.as_ref().expect("a rule").name, expected);
    }
    let refusal = stage.register(of(&execution("a"), "Ship")).await.expect_err("no rule matches");
    let reason = reason(&refusal, "run.rule");
    assert!(reason.contains("no [[run.rule]] matches") && reason.contains("\"Ship\""), "{reason}");
    assert_eq!(stage.broker.runs().count(), 3);
    stage.finish().await;
    let stage = with_rules(Vec::new()).await;
    let refusal = stage.register(Request::default()).await.expect_err("no rules");
    assert!(refusal.to_string().contains("the configuration has no [[run.rule]]"), "{refusal}");
    stage.finish().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_asserted_never_widens() {
    let wide = |matches, policies: &[&str]| Rule {
        matches,
        token_role: "wide".into(),
        policies: policies.iter().map(|&name| name.to_owned()).collect(),
        ..rule()
    };
    let by_group = Matches { group: Some(Pattern::new("admins")), ..Matches::default() };
    let rules = vec![
        wide(state("Wide"), &[]),
        wide(state("Foreign"), &["admin"]),
        wide(state("Narrow"), &["run"]),
        wide(by_group, &[]),
    ];
    let vouching = Vouching::default();
    let stage = Stage::new(Plan { rules, issuers: vouching.shared(), ..Plan::default() }).await;
    stage.vault.token_role("wide", TokenRole::orphan(&["database/creds/", "secret/"]));
    for state in ["Wide", "Foreign"] {
        let refusal = stage.register(of(&execution("a"), state)).await.expect_err("wider");
        let reason = reason(&refusal, "run.rule");
        assert!(reason.contains("gives more than the registrant itself has"), "{reason}");
    }
    let run = stage.register(of(&execution("a"), "Narrow")).await.expect("policies of the own run");
    stage.alive_as(&run, ORDERS).await;
    let mut asserted = of(&execution("a"), "Admin");
    asserted.facts.subject = Some(("ada".into(), Default::default()));
    let refusal = stage.register(asserted).await.expect_err("nobody vouches for it");
    assert!(refusal.to_string().contains("\"ada\" (asserted)"), "{refusal}");
    vouching.vouch(&stage, "good", "ada", &["staff", "admins"], secs(900));
    let run =
        stage.register(with_subject(of(&execution("a"), "Admin"), "good")).await.expect("verified widens");
    stage.alive_as(&run, ORDERS).await;
    let token = stage.vault.tokens().pop().expect("its token");
    assert_eq!((token.role.as_deref(), token.meta["subject_assurance"].as_str()), (Some("wide"), "verified"));
    stage.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_registrant_without_a_token_waits_for_one_where_its_policies_must_tell() {
    let parent = Rule { may_register: true, matches: state("Parent"), ..rule() };
    let child = Rule { token_role: "other".into(), policies: vec!["run".into()], ..rule() };
    let stage = with_rules(vec![parent, child, rule()]).await;
    stage.vault.token_role("other", TokenRole::orphan(&["database/creds/"]));
    let parent = stage.register(of(&execution("a"), "Parent")).await.expect("registered");
    assert_eq!(stage.vault.count(Operation::CreateToken), 1, "the process's own");
    let (child, _) =
        stage.register_by(USER, &parent, of(&execution("a"), "Child")).await.expect("registered");
    stage.alive_as(&child, ORDERS).await;
    stage.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_subjects_token_is_checked() {
    let vouching = Vouching::default();
    let plan = Plan { rules: vec![rule()], issuers: vouching.shared(), ..Plan::default() };
    let stage = Stage::new(plan).await;
    let register = |token: &str| stage.register(with_subject(of(&execution("a"), "Charge"), token));
    let why = reason(&register("forged").await.expect_err("refused"), "run.subject");
    assert!(why.contains("signature") && !why.contains("forged"), "{why}");
    vouching
        .say("early", Err(SubjectError::Unavailable(Failure::new(Class::Transient, "the issuer is silent"))));
    let refusal = register("early").await.expect_err("not known now");
    assert!(matches!(refusal, RunRefusal::Unavailable(_)), "{refusal:?}");
    vouching.vouch(&stage, "old", "ada", &[], Duration::ZERO);
    assert!(reason(&register("old").await.expect_err("expired"), "run.subject").contains("expired"));
    assert_eq!(stage.broker.runs().count(), 1);
    stage.finish().await;
    let stage = with_rules(vec![rule()]).await;
    let refusal =
        stage.register(with_subject(Request::default(), "any")).await.expect_err("nobody is trusted");
    assert!(reason(&refusal, "run.subject").contains("no issuer of tokens is configured"));
    stage.finish().await;
}

#[tokio::test(start_paused = true)]
async fn the_earliest_of_all_limits_is_the_deadline() {
    let vouching = Vouching::default();
    for (own, max, asked, subject, expiry, expected) in [
        (None, 900, None, None, SubjectExpiry::Cap, 900),
        (None, 900, Some(60), None, SubjectExpiry::Cap, 60),
        (None, 900, Some(7200), None, SubjectExpiry::Cap, 900),
        (Some(300), 900, Some(7200), None, SubjectExpiry::Cap, 300),
        (None, 900, Some(7200), Some(120), SubjectExpiry::Cap, 120),
        (None, 900, Some(7200), Some(120), SubjectExpiry::AtStart, 900),
    ] {
        let stage = Stage::new(Plan {
            rules: vec![Rule { max_ttl: secs(max), ..rule() }],
            deadline: own.map(secs),
            issuers: vouching.shared(),
            subject_expiry: expiry,
            ..Plan::default()
        })
        .await;
        let mut request = Request::default();
        if let Some(asked) = asked {
            request = lasting(&stage, request, secs(asked));
        }
        if let Some(good_for) = subject {
            vouching.vouch(&stage, "good", "ada", &[], secs(good_for));
            request = with_subject(request, "good");
        }
        let run = stage.register(request).await.expect("registered");
        let left = left(&stage, &run);
        assert!(left <= secs(expected) && left > secs(expected - 1), "{left:?} instead of {expected} s");
        stage.alive_as(&run, ORDERS).await;
        let token = stage.vault.tokens().pop().expect("its token");
        assert!(token.left <= left, "{token:?}");
        stage.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_extended_run_is_served_without_a_gap_up_to_its_ceiling() {
    let stage = with_rules(vec![Rule { max_ttl: secs(400), ..rule() }]).await;
    let run = stage.register(lasting(&stage, Request::default(), secs(90))).await.expect("registered");
    let started = tokio::time::Instant::now();
    stage.alive_as(&run, ORDERS).await;
    for (at, by, expected) in [(60, 120, 180), (150, 30, 180), (170, 7200, 400)] {
        while started.elapsed() < secs(at) {
            let got = stage.alive_as(&run, ORDERS).await;
            assert!(got.left.expect("leased") > Duration::ZERO);
            sleep(secs(1)).await;
        }
        let to = Until::new(stage.clock.now(), secs(by));
        stage.broker.runs().extend(&run, to).expect("extended");
        let ends = started.elapsed() + left(&stage, &run);
        assert!(ends.abs_diff(secs(expected)) < secs(1), "it ends after {ends:?}");
    }
    while started.elapsed() < secs(398) {
        stage.alive_as(&run, ORDERS).await;
        sleep(secs(1)).await;
    }
    // The process's own, the first, and one for each extension that moved the deadline: none can be renewed.
    assert_eq!(stage.vault.count(Operation::CreateToken), 4);
    sleep(secs(3)).await;
    let refused = stage.broker.runs().extend(&run, Until::new(stage.clock.now(), secs(60)));
    assert_eq!(refused, Err(Cause::Deadline), "what is over is not taken up again");
    stage.until(secs(10), "all its tokens are gone", |stage| stage.vault.tokens().len() == 2).await;
    stage.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_extension_ends_with_the_registrant() {
    let plan = Plan { rules: vec![rule()], deadline: Some(secs(300)), ..Plan::default() };
    let stage = Stage::new(plan).await;
    let run = stage.register(lasting(&stage, Request::default(), secs(60))).await.expect("registered");
    stage.broker.runs().extend(&run, Until::new(stage.clock.now(), secs(1000))).expect("extended");
    let left = left(&stage, &run);
    assert!(left <= secs(300) && left > secs(299), "{left:?}");
    stage.finish().await;
}

#[tokio::test(start_paused = true)]
async fn past_its_deadline_a_run_is_refused_at_once_and_its_token_is_gone() {
    let stage = with_rules(vec![rule()]).await;
    let run = stage.register(lasting(&stage, Request::default(), secs(60))).await.expect("registered");
    let user = stage.alive_as(&run, ORDERS).await.value;
    sleep(secs(60)).await;
    let denied = stage.read_as(&run, ORDERS, Duration::ZERO).await.expect_err("over");
    assert!(matches!(denied, Denied::Over { cause: Cause::Deadline, .. }), "{denied:?}");
    stage.until(secs(5), "it is over", |stage| stage.broker.runs().count() == 1).await;
    assert!(!stage.vault.is_alive(&user) && stage.vault.tokens().len() == 2);
    stage.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_past_a_deadline_ends_the_run() {
    let stage = with_rules(vec![rule()]).await;
    let run = stage.register(lasting(&stage, Request::default(), secs(900))).await.expect("registered");
    stage.alive_as(&run, ORDERS).await;
    stage.clock.jump(1_000_000);
    let denied = stage.read_as(&run, ORDERS, Duration::ZERO).await.expect_err("over");
    assert!(matches!(denied, Denied::Over { cause: Cause::Deadline, .. }), "{denied:?}");
    assert_eq!(stage.broker.runs().count(), 2, "nobody has looked");
    stage.broker.runs().clock_jumped(secs(1000));
    stage.until(secs(5), "it is over", |stage| stage.broker.runs().count() == 1).await;
    stage.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_full_house_refuses_before_anything_is_asked() {
    let platform = Platform::default();
    let stage = Stage::new(Plan {
        rules: vec![Rule { verification: tenure::policy::rules::Verification::Warn, ..rule() }],
        max_runs: 2,
        workflow: platform.shared(),
        ..Plan::default()
    })
    .await;
    let first = stage.register(Request::default()).await.expect("registered");
    stage.register(Request::default()).await.expect("registered");
    platform.clear_calls();
    stage.vault.clear_calls();
    let refusal = stage.register(with_task(of(&execution("a"), "Charge"), "task")).await.expect_err("full");
    assert!(matches!(refusal, RunRefusal::Full { limit: 2 }), "{refusal:?}");
    assert_eq!((platform.calls(), stage.vault.calls()), (vec![], vec![]));
    stage.end(&first).await;
    let third = stage.register(Request::default()).await.expect("there is room again");
    assert!(!Arc::ptr_eq(&first, &third));
    stage.finish().await;
}
