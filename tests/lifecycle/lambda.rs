//! A Lambda environment and its invocations. The process around them is in the suite `lambda`.

use std::time::Duration;

use tenure::audit::Event;
use tenure::broker::Denied;
use tenure::clock::Until;
use tenure::run::lambda::{Invocation, Lambda};
use tenure::runs::Cause;

use crate::stage::{ORDERS, Plan, Stage, secs, sleep};

async fn environment() -> Stage {
    let function = Lambda {
        function: "orders".into(),
        version: "$LATEST".into(),
        log_stream: "2026/01/01/[$LATEST]0".into(),
        invocation: None,
        trace: None,
    };
    Stage::new(Plan { lambda: Some(function), ..Plan::default() }).await
}

fn invocation(request: &str) -> Invocation {
    Invocation { request: request.into(), function_arn: None, trace: None }
}

#[tokio::test(start_paused = true)]
async fn who_names_no_invocation_reads_for_the_only_one_that_is_open() {
    let stage = environment().await;
    let runs = stage.broker.runs();
    let until = Some(Until::new(stage.clock.now(), secs(60)));
    assert_eq!(runs.current(None).await.run.id, runs.own().run.id);
    let one = runs.invoke(&invocation("one"), until, None).expect("begun");
    let same = runs.invoke(&invocation("one"), until, None).expect("begun");
    assert_eq!((one.run.id.clone(), stage.lines(Event::RunRegister).len()), (same.run.id.clone(), 1));
    assert_eq!(runs.current(None).await.run.id, one.run.id);
    let user = stage.alive_as(&one, ORDERS).await.value;
    let two = runs.invoke(&invocation("two"), until, None).expect("begun");
    assert_eq!(runs.current(None).await.run.id, runs.own().run.id, "whose it is cannot be known");
    assert_eq!(runs.current(Some(b"two")).await.run.id, two.run.id);
    assert_eq!(runs.current(Some(b"three")).await.run.id, runs.own().run.id);
    runs.invoked("one").expect("it was open");
    assert_eq!(runs.current(None).await.run.id, two.run.id);
    assert_eq!(stage.alive_as(&two, ORDERS).await.value, user, "they share what the environment holds");
    stage.finish().await;
}

/// The beginning and the end are told on different ways: the end may be the first to be known.
#[tokio::test(start_paused = true)]
async fn an_invocation_whose_end_is_told_first_is_over_when_it_begins() {
    let stage = environment().await;
    let runs = stage.broker.runs();
    assert!(runs.invoked("early").is_none());
    let until = Some(Until::new(stage.clock.now(), secs(60)));
    let run = runs.invoke(&invocation("early"), until, None).expect("begun");
    assert_eq!(run.over(|| stage.clock.now()), Some(Cause::Ended));
    assert!(runs.invocations().is_empty());
    // That is forgotten with it; and of many that never begin, the last are kept.
    let again = runs.invoke(&invocation("early"), until, None).expect("begun");
    assert_eq!(again.over(|| stage.clock.now()), None);
    for number in 0..1000 {
        runs.invoked(&number.to_string());
    }
    for (request, over) in [("0", false), ("999", true)] {
        let run = runs.invoke(&invocation(request), until, None).expect("begun");
        assert_eq!(run.over(|| stage.clock.now()).is_some(), over, "{request}");
    }
    stage.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_read_does_not_wait_longer_than_its_run_lasts() {
    let stage = environment().await;
    let runs = stage.broker.runs();
    let until = Some(Until::new(stage.clock.now(), secs(3)));
    let run = runs.invoke(&invocation("short"), until, None).expect("begun");
    stage.vault.hang();
    let began = tokio::time::Instant::now();
    let denied = stage.read_as(&run, ORDERS, Duration::ZERO).await.expect_err("too late");
    assert!(matches!(denied, Denied::Over { cause: Cause::Deadline, .. }), "{denied}");
    assert!(began.elapsed() < secs(4), "{:?}", began.elapsed());
    stage.vault.recover();
    sleep(secs(60)).await;
    stage.finish().await;
}

/// All calls are counted, so that it is known when the machine may be frozen.
#[tokio::test(start_paused = true)]
async fn it_is_quiet_when_nothing_is_under_way() {
    let stage = environment().await;
    let runs = stage.broker.runs();
    runs.quiet().await;
    let (reader, calls) = (stage.clone(), runs.calls());
    let read = tokio::spawn(async move { reader.read(ORDERS).await });
    sleep(Duration::from_millis(10)).await;
    assert_eq!((calls, runs.calls()), (0, 1));
    runs.quiet().await;
    assert!(read.await.expect("it ends").is_ok());
    let lease = stage.read(ORDERS).await.expect("served").left.expect("it ends");
    assert!(!runs.is_due_before(Until::new(stage.clock.now(), lease / 10)));
    assert!(runs.is_due_before(Until::new(stage.clock.now(), lease)));
    stage.finish().await;
}
