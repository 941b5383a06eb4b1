//! What is frozen, for longer than anything lives, in the middle of anything, and goes on.

use tokio::time::Instant;

use super::sandbox::{ORDERS, Plan, SOON, Sandbox, millis, secs};
use super::vault::{Fault, Lives};

const SHORT: Lives = Lives { login: secs(3), lease: secs(2), lease_max: secs(4) };

const SHORT_RUN: &str = "token_role = \"run\"\nttl = \"4s\"\n";

/// Which of the two comes first: the event, or the process's being able to go on.
#[derive(Clone, Copy, Debug)]
enum First {
    Thaw,
    Event,
}

async fn freeze_outlives_everything(first: First) {
    let sandbox = Sandbox::ready(Plan { lives: SHORT, config: SHORT_RUN, ..Plan::default() }).await;
    let mut users = vec![sandbox.invoke(async |_| sandbox.user(ORDERS).await).await];
    for span in [3500, 4500] {
        sandbox.freeze().await;
        tokio::time::sleep(millis(span)).await;
        let request = sandbox.lambda.request_id();
        if let First::Thaw = first {
            sandbox.thaw();
        }
        sandbox.lambda.invoke(&request, secs(1));
        if let First::Event = first {
            tokio::time::sleep(millis(30)).await;
            sandbox.thaw();
        }
        sandbox
            .serve(&request, async |_| {
                let began = Instant::now();
                users.push(sandbox.user(ORDERS).await);
                assert!(began.elapsed() < secs(1), "{:?}", began.elapsed());
            })
            .await;
        let line = sandbox.line("read", users.len()).await;
        assert_eq!(line["run"]["invocation"], *request, "it is this invocation's read: {line}");
        sandbox.until_waiting().await;
    }
    users.dedup();
    assert_eq!(users.len(), 3, "each was dead when the next was asked for");
    assert!(sandbox.vault.count("POST auth/approle") >= 3, "the login was dead, too");
    sandbox.finish().await;
}

#[tokio::test]
async fn nothing_dead_is_served_after_a_freeze() {
    freeze_outlives_everything(First::Thaw).await;
}

#[tokio::test]
async fn nothing_dead_is_served_when_the_event_is_there_before_the_process_goes_on() {
    freeze_outlives_everything(First::Event).await;
}

/// Short freezes between invocations, at random points of every life.
#[tokio::test]
async fn nothing_dead_is_served_whenever_it_is_frozen() {
    let sandbox = Sandbox::ready(Plan { lives: SHORT, config: SHORT_RUN, ..Plan::default() }).await;
    for number in 0..24u64 {
        sandbox.invoke(async |_| sandbox.user(ORDERS).await).await;
        sandbox.frozen(millis(number * 7919 % 900)).await;
    }
    sandbox.finish().await;
}

/// Frozen in the middle of a login: it is made again, and nobody waits for the time-out of the old one.
#[tokio::test]
async fn a_login_that_a_freeze_interrupts_is_made_again() {
    interrupted_login(Fault::Hang).await;
}

/// The other end of a connection is gone when the process goes on: that says nothing of upstream.
#[tokio::test]
async fn a_login_whose_connection_a_freeze_cost_is_made_again() {
    interrupted_login(Fault::Close(secs(1))).await;
}

async fn interrupted_login(fault: Fault) {
    let config = "token_role = \"run\"\n[lambda]\ninit_timeout = \"300ms\"\n";
    let sandbox = Sandbox::start_with(Plan { config, ..Plan::default() }, |vault, _| {
        vault.fail("POST auth/approle", fault, 1);
    })
    .await;
    sandbox.until_waiting().await;
    sandbox.frozen(secs(3)).await;
    sandbox
        .invoke(async |_| {
            let read = sandbox.get(ORDERS).await;
            assert!(read.took < secs(2), "{read:?}");
            read.user()
        })
        .await;
    sandbox.finish().await;
}

/// Frozen in the middle of a mint, whose reader has gone: the next one does not wait for its time-out.
async fn interrupted_mint(config: &'static str, fault: Fault) -> Sandbox {
    let sandbox = Sandbox::ready(Plan { config, ..Plan::default() }).await;
    sandbox.vault.fail("GET database", fault, 1);
    sandbox
        .invoke(async |_| {
            sandbox.until_waiting().await;
            let gone = tokio::time::timeout(millis(300), sandbox.get(ORDERS)).await;
            assert!(gone.is_err(), "{gone:?}");
        })
        .await;
    assert_eq!(sandbox.vault.count("GET database"), 1);
    sandbox.frozen(secs(3)).await;
    sandbox
        .invoke(async |_| {
            let read = sandbox.get(ORDERS).await;
            let user = read.user();
            assert!(sandbox.vault.lived(&user, read.sent) && read.took < secs(2), "{read:?}");
        })
        .await;
    sandbox
}

#[tokio::test]
async fn a_mint_that_a_freeze_interrupts_is_made_again() {
    let sandbox = interrupted_mint("token_role = \"run\"\n", Fault::Hang).await;
    assert_eq!(sandbox.vault.count("GET database"), 2);
    sandbox.finish().await;
}

#[tokio::test]
async fn a_mint_whose_connection_a_freeze_cost_is_made_again() {
    let sandbox = interrupted_mint("token_role = \"run\"\n", Fault::Close(secs(1))).await;
    assert_eq!(sandbox.vault.count("GET database"), 2);
    sandbox.finish().await;
}

/// What came for it during the freeze is used.
#[tokio::test]
async fn what_came_during_a_freeze_is_not_asked_for_again() {
    let sandbox = interrupted_mint("token_role = \"run\"\n", Fault::Late(secs(1))).await;
    assert_eq!(sandbox.vault.count("GET database"), 1, "{:?}", sandbox.vault.log());
    sandbox.finish().await;
}

/// A token that comes after all, when another has taken its place, is revoked.
#[tokio::test]
async fn a_token_that_comes_too_late_is_revoked() {
    let config = "token_role = \"run\"\n[lambda]\ninit_timeout = \"300ms\"\n";
    let sandbox = Sandbox::start_with(Plan { config, ..Plan::default() }, |vault, _| {
        vault.fail("POST auth/approle", Fault::Late(secs(5)), 1);
    })
    .await;
    sandbox.until_waiting().await;
    sandbox.frozen(secs(3)).await;
    sandbox
        .invoke(async |_| {
            let read = sandbox.get(ORDERS).await;
            assert!(read.took < secs(2), "{read:?}");
            read.user()
        })
        .await;
    assert_eq!(sandbox.vault.count("POST auth/approle"), 2);
    sandbox.until("the late one is revoked", SOON, |it| it.vault.tokens().len() == 2).await;
    sandbox.finish().await;
}

/// A freeze is nothing to speak of here: no line and no warning says that a clock jumped.
#[tokio::test]
async fn a_freeze_is_no_news() {
    let sandbox = Sandbox::ready(Plan::default()).await;
    for _ in 0..2 {
        sandbox.invoke(async |_| sandbox.user(ORDERS).await).await;
        sandbox.frozen(secs(3)).await;
    }
    assert!(sandbox.lines("clock.jump").is_empty() && !sandbox.said().contains("clocks moved"));
    assert_eq!(sandbox.vault.log().len(), 3, "and nothing is asked for again: {:?}", sandbox.vault.log());
    sandbox.finish().await;
}
