//! How environments end: in two seconds at most, whatever Vault does.

use tokio::time::Instant;

use super::sandbox::{GRACE, ORDERS, Plan, Sandbox, TIME_OUT, millis, secs};
use super::vault::{Fault, Lives};

#[tokio::test]
async fn what_hangs_does_not_keep_the_rest_from_being_revoked() {
    let mut sandbox = Sandbox::ready(Plan::default()).await;
    sandbox.invoke(async |_| sandbox.user(ORDERS).await).await;
    // Somebody's connection is left open, as those of a function that was frozen are.
    let idle = tokio::net::UnixStream::connect(&sandbox.socket).await.expect("the socket");
    sandbox.vault.fail("POST auth/token/lookup-accessor", Fault::Hang, 100);
    sandbox.vault.fail("POST sys/leases/lookup", Fault::Hang, 100);
    sandbox.lambda.shut_down("spindown", GRACE);
    assert!(sandbox.ended(GRACE).await.success());
    assert_eq!((sandbox.vault.tokens().len(), sandbox.vault.users()), (0, 0), "{:?}", sandbox.vault.tokens());
    sandbox.check();
    drop(idle);
}

#[tokio::test]
async fn a_vault_that_hangs_does_not_keep_the_process() {
    let mut sandbox = Sandbox::ready(Plan::default()).await;
    sandbox.invoke(async |_| sandbox.user(ORDERS).await).await;
    sandbox.vault.fail("POST auth/token/revoke-self", Fault::Hang, 1);
    let began = Instant::now();
    sandbox.lambda.shut_down("spindown", GRACE);
    sandbox.ended(GRACE).await;
    assert!(began.elapsed() < GRACE);
    let left = sandbox.vault.tokens();
    assert!(left.iter().all(|token| !token.is_login), "the login is revoked, even so: {left:?}");
    assert!(sandbox.lines("shutdown").len() == 1, "{}", sandbox.audit());
    sandbox.check();

    let mut sandbox = Sandbox::ready(Plan::default()).await;
    sandbox.vault.fail("", Fault::Hang, 1000);
    sandbox.lambda.shut_down("spindown", GRACE);
    sandbox.ended(GRACE).await;
    sandbox.check();
}

/// A call that was under way when the end came does not keep what is held from being revoked.
#[tokio::test]
async fn a_mint_that_hangs_does_not_keep_the_tokens_from_being_revoked() {
    let mut sandbox = Sandbox::ready(Plan::default()).await;
    sandbox.invoke(async |_| sandbox.user(ORDERS).await).await;
    sandbox.vault.fail("GET database/creds/billing", Fault::Hang, 1);
    sandbox
        .invoke(async |_| {
            sandbox.until_waiting().await;
            let gone = tokio::time::timeout(millis(200), sandbox.get("database/creds/billing")).await;
            assert!(gone.is_err(), "{gone:?}");
        })
        .await;
    sandbox.lambda.shut_down("spindown", GRACE);
    assert!(sandbox.ended(GRACE).await.success());
    assert_eq!((sandbox.vault.tokens().len(), sandbox.vault.users()), (0, 0), "{:?}", sandbox.vault.tokens());
    sandbox.check();
}

/// After a freeze, as it is with an environment that nobody has used for a while.
#[tokio::test]
async fn what_ends_after_a_freeze_is_revoked() {
    for order in [true, false] {
        let mut sandbox = Sandbox::ready(Plan::default()).await;
        sandbox.invoke(async |_| sandbox.user(ORDERS).await).await;
        sandbox.freeze().await;
        tokio::time::sleep(secs(3)).await;
        if order {
            sandbox.thaw();
        }
        sandbox.lambda.shut_down("spindown", GRACE);
        if !order {
            sandbox.thaw();
        }
        assert!(sandbox.ended(GRACE).await.success());
        assert_eq!(
            (sandbox.vault.tokens().len(), sandbox.vault.users()),
            (0, 0),
            "{:?}",
            sandbox.vault.tokens()
        );
        sandbox.check();
    }
}

/// A function that crashes or runs out of time: Lambda says so by the end of the environment.
#[tokio::test]
async fn a_function_that_crashes_leaves_nothing() {
    for (reason, config) in [
        ("failure", "token_role = \"run\"\n"),
        ("timeout", "token_role = \"run\"\n[lambda]\nrun = \"invocation\"\n"),
    ] {
        let mut sandbox = Sandbox::ready(Plan { config, ..Plan::default() }).await;
        let request = sandbox.lambda.request_id();
        sandbox.lambda.invoke(&request, TIME_OUT);
        sandbox.lambda.started(&request);
        sandbox.user(ORDERS).await;
        sandbox.lambda.done(&request, reason);
        sandbox.until_waiting().await;
        sandbox.lambda.shut_down(reason, GRACE);
        assert!(sandbox.ended(GRACE).await.success());
        assert_eq!(
            (sandbox.vault.tokens().len(), sandbox.vault.users()),
            (0, 0),
            "{:?}",
            sandbox.vault.tokens()
        );
        sandbox.check();
    }
}

/// Time to revoke is what Lambda says that there is.
#[tokio::test]
async fn a_shorter_time_is_kept_to() {
    let lives = Lives { lease: secs(60), ..Lives::default() };
    let mut sandbox = Sandbox::ready(Plan { lives, ..Plan::default() }).await;
    sandbox.vault.fail("", Fault::Hang, 1000);
    sandbox.lambda.shut_down("spindown", secs(1));
    let began = Instant::now();
    sandbox.ended(secs(1)).await;
    assert!(began.elapsed() < secs(1));
}
