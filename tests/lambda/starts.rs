//! Cold starts, and starts that fail.

use serde_json::Value;

use tokio::time::Instant;

use super::aws::{Lambda, Said};
use super::sandbox::{GRACE, ORDERS, Plan, SOON, Sandbox, extension, millis, over_tcp, secs};
use super::vault::{Fault, Lives, Vault};

#[tokio::test]
async fn the_function_starts_when_everything_is_there() {
    let plan = Plan {
        config: "token_role = \"run\"\n[[prefetch]]\npath = \"database/creds/orders\"\n",
        name: Some("broker"),
        ..Plan::default()
    };
    let sandbox = Sandbox::start_with(plan, |vault, _| {
        // The function waits for all three.
        for line in ["POST auth/approle", "POST auth/token/create", "GET database"] {
            vault.fail(line, Fault::Late(millis(150)), 1);
        }
    })
    .await;
    sandbox.until_waiting().await;
    assert_eq!((sandbox.vault.tokens().len(), sandbox.vault.users()), (2, 1));
    assert!(sandbox.socket.exists() && sandbox.token_file.exists());
    let log = sandbox.lambda.log();
    let [(began, registered), (_, subscribed), (asked, next)] = &log[..] else { panic!("{log:?}") };
    assert!(matches!(next, Said::Next));
    assert!(*asked - *began >= millis(450), "{:?}", *asked - *began);
    let Said::Registered { name, events } = registered else { panic!("{registered:?}") };
    assert_eq!((name.as_str(), events.join(" ").as_str()), ("broker", "INVOKE SHUTDOWN"));
    let Said::Subscribed(subscribed) = subscribed else { panic!("{subscribed:?}") };
    assert_eq!(subscribed["types"], serde_json::json!(["platform"]));
    // The prefetched one is there.
    let read = sandbox.invoke(async |_| sandbox.get(ORDERS).await).await;
    assert_eq!((read.status, read.headers["x-tenure-source"].as_str()), (200, "cache"));
    assert_eq!(sandbox.vault.count("GET database"), 1);
    sandbox.finish().await;
}

/// With nothing configured the doors are where a function expects them. Those places are of the whole machine: where
/// another process uses them, nothing is tried.
#[tokio::test]
async fn without_configuration_the_doors_are_where_functions_expect_them() {
    let (vault, lambda) = (Vault::start(Lives::default()).await, Lambda::start().await);
    let folder = std::path::Path::new("/tmp/tenure");
    let free = std::net::TcpListener::bind("127.0.0.1:8200").is_ok() && std::fs::create_dir(folder).is_ok();
    if !free {
        eprintln!("skipped: /tmp/tenure or port 8200 is in use");
        return;
    }
    std::fs::remove_dir(folder).expect("it is empty");
    let _ours = Removed(folder);
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("tenure.toml");
    let secret_id = dir.path().join("secret-id");
    std::fs::write(&secret_id, "secret-id-1").expect("a file");
    let auth = format!(
        "[vault.auth.approle]\nrole_id = \"role\"\nsecret_id_file = \"{}\"\n[run]\ntoken_role = \"run\"\n",
        secret_id.display()
    );
    std::fs::write(&file, auth).expect("a file");
    let mut command = extension(&lambda, &vault, "on-demand", env!("CARGO_BIN_EXE_tenure"));
    command.env("TENURE_CONFIG", &file);
    let mut sandbox = Sandbox::of(command, vault, lambda, dir);
    sandbox.socket = folder.join("tenure.sock");
    sandbox.token_file = folder.join("token");
    sandbox.until_waiting().await;
    let token = std::fs::read_to_string(&sandbox.token_file).expect("a token");
    sandbox
        .invoke(async |_| {
            assert_eq!(sandbox.get(ORDERS).await.status, 200);
            assert_eq!(over_tcp(8200, "/v1/database/creds/orders", &token).await.status, 200);
        })
        .await;
    sandbox.line("read", 2).await;
    assert_eq!(sandbox.lines("read").len(), 2, "the audit lines go where the function's log goes");
    sandbox.finish().await;
}

/// A folder that is not to be left behind.
struct Removed(&'static std::path::Path);

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.0);
    }
}

#[tokio::test]
async fn a_start_that_fails_is_made_up_for_by_the_first_read() {
    let plan =
        Plan { config: "token_role = \"run\"\n[lambda]\ninit_timeout = \"300ms\"\n", ..Plan::default() };
    let sandbox =
        Sandbox::start_with(plan, |vault, _| vault.fail("POST auth/approle", Fault::Status(503), 100)).await;
    sandbox.until_waiting().await;
    assert!(sandbox.lambda.init_error().is_none() && sandbox.said().contains("starts without"));
    sandbox.vault.mend();
    // Who comes before the next try is told why, and comes again.
    let sandbox = &sandbox;
    sandbox
        .invoke(async |_| {
            let began = Instant::now();
            while sandbox.get(ORDERS).await.status == 503 {
                assert!(began.elapsed() < SOON);
                tokio::time::sleep(millis(50)).await;
            }
            sandbox.user(ORDERS).await
        })
        .await;
    sandbox.until_waiting().await;
}

#[tokio::test]
async fn where_it_is_so_configured_the_function_does_not_start_without_a_login() {
    let cases: [(&str, Fault, &str); 3] = [
        ("POST auth/approle", Fault::Hang, "Extension.LoginTimedOut"),
        ("POST auth/approle", Fault::Status(400), "Extension.LoginFailed"),
        ("GET database", Fault::Status(500), "Extension.PrefetchFailed"),
    ];
    for (line, fault, kind) in cases {
        let config = "token_role = \"run\"\n[lambda]\ninit = \"fail\"\ninit_timeout = \"900ms\"\n\
                      [[prefetch]]\npath = \"database/creds/orders\"\n";
        let plan = Plan { config, ..Plan::default() };
        let mut sandbox = Sandbox::start_with(plan, |vault, _| vault.fail(line, fault, 100)).await;
        assert!(!sandbox.ended(SOON).await.success());
        assert!(sandbox.lambda.asked().is_empty(), "the function did not start");
        let (told, body) = sandbox.lambda.init_error().expect("Lambda is told");
        assert_eq!((told.as_str(), &body["errorType"]), (kind, &Value::from(kind)));
        assert!(body["errorMessage"].as_str().is_some_and(|why| why.contains("Vault")), "{body}");
        assert!(sandbox.vault.tokens().is_empty(), "what was made is revoked: {:?}", sandbox.vault.tokens());
        sandbox.check();
    }
}

#[tokio::test]
async fn a_wrong_configuration_is_told_with_what_is_wrong() {
    let plan = Plan { config: "token_roll = \"run\"\n", ..Plan::default() };
    let mut sandbox = Sandbox::start(plan).await;
    assert!(!sandbox.ended(SOON).await.success());
    let (kind, body) = sandbox.lambda.init_error().expect("Lambda is told");
    assert_eq!(kind, "Extension.ConfigInvalid");
    let why = body["errorMessage"].as_str().expect("a message");
    assert!(why.contains("token_roll") && why.contains("token_role"), "{why}");
    assert!(sandbox.said().contains("token_roll"), "the function's log has it too");
}

#[tokio::test]
async fn a_place_that_is_taken_is_told() {
    let plan = Plan {
        config: "token_role = \"run\"\n",
        vars: vec![("TENURE_SOCKET", "/proc/nowhere/tenure.sock".to_owned())],
        ..Plan::default()
    };
    let mut sandbox = Sandbox::start(plan).await;
    assert!(!sandbox.ended(SOON).await.success());
    let (kind, body) = sandbox.lambda.init_error().expect("Lambda is told");
    assert_eq!(kind, "Extension.ListenFailed");
    assert!(body["errorMessage"].as_str().is_some_and(|why| why.contains("/proc/nowhere")), "{body}");
}

/// Without telemetry it serves all the same, and asks for the next event when nothing is under way.
#[tokio::test]
async fn without_telemetry_it_serves() {
    let plan =
        Plan { lives: Lives { lease: secs(2), lease_max: secs(4), ..Lives::default() }, ..Plan::default() };
    let sandbox = Sandbox::start_with(plan, |_, lambda| lambda.refuse("/telemetry", 403)).await;
    sandbox.until_waiting().await;
    for _ in 0..3 {
        sandbox.invoke(async |_| sandbox.user(ORDERS).await).await;
        sandbox.frozen(millis(1500)).await;
    }
    sandbox.finish().await;
}

#[tokio::test]
async fn an_api_that_refuses_ends_the_process_with_a_word() {
    let mut sandbox = Sandbox::start_with(Plan::default(), |_, lambda| lambda.refuse("/register", 500)).await;
    assert!(!sandbox.ended(SOON).await.success());
    assert!(sandbox.said().contains("the registration with 500"), "{}", sandbox.said());
    assert!(sandbox.vault.log().is_empty(), "nothing was begun");

    let mut sandbox = Sandbox::start_with(Plan::default(), |_, lambda| lambda.refuse("/next", 500)).await;
    assert!(!sandbox.ended(SOON).await.success());
    let (kind, body) = sandbox.lambda.exit_error().expect("Lambda is told");
    assert_eq!(kind, "Extension.ApiFailed");
    assert!(body["errorMessage"].as_str().is_some_and(|why| why.contains("500")), "{body}");
    assert!(sandbox.vault.tokens().is_empty(), "what was made is revoked");
    sandbox.check();
}

/// An environment that is made ahead of any invocation is used by itself alone: it may log in.
#[tokio::test]
async fn provisioned_concurrency_logs_in_before_the_first_invocation() {
    let sandbox = Sandbox::ready(Plan { start: "provisioned-concurrency", ..Plan::default() }).await;
    assert_eq!(sandbox.vault.tokens().len(), 2);
    sandbox.invoke(async |_| sandbox.user(ORDERS).await).await;
    sandbox.finish().await;
}

/// What begins with a snapshot: nothing that its copies would share.
#[tokio::test]
async fn before_a_snapshot_nothing_is_made_that_its_copies_would_share() {
    let mut boots = Vec::new();
    for _ in 0..2 {
        let sandbox = Sandbox::ready(Plan { start: "snap-start", ..Plan::default() }).await;
        assert!(sandbox.vault.log().is_empty(), "{:?}", sandbox.vault.log());
        assert_eq!(sandbox.audit(), "", "a chain would begin with the boot id");
        assert!(!sandbox.token_file.exists(), "the local token");
        assert!(sandbox.socket.exists(), "but who connects waits");
        sandbox.frozen(secs(3)).await;
        sandbox.invoke(async |_| sandbox.user(ORDERS).await).await;
        assert!(sandbox.token_file.exists());
        boots.push(sandbox.lines("boot")[0]["boot"].clone());
        sandbox.frozen(millis(300)).await;
        sandbox.invoke(async |_| sandbox.user(ORDERS).await).await;
        sandbox.finish().await;
    }
    assert!(boots[0].is_string() && boots[0] != boots[1], "{boots:?}");
}

/// The end of the first invocation is told while the broker has yet to begin: it is not missed.
#[tokio::test]
async fn a_function_that_is_done_before_the_broker_has_begun_is_not_waited_for() {
    let config = "token_role = \"run\"\n[lambda]\nrun = \"invocation\"\n";
    let sandbox = Sandbox::ready(Plan { start: "snap-start", config, ..Plan::default() }).await;
    sandbox.vault.fail("POST auth/approle", Fault::Late(secs(1)), 1);
    sandbox.invoke(async |_| ()).await;
    let asked = sandbox.lambda.asked();
    let took = asked[1] - sandbox.vault.log()[0].at;
    assert!(took < secs(5), "the function was done at once, and nobody was told for {took:?}");
    sandbox.finish().await;
}

/// Nor is a login that hangs waited for, when the function is done without it.
#[tokio::test]
async fn a_restored_function_that_needs_nothing_is_not_kept_by_a_login_that_hangs() {
    let sandbox = Sandbox::ready(Plan { start: "snap-start", ..Plan::default() }).await;
    sandbox.vault.fail("", Fault::Hang, 100);
    sandbox.invoke(async |_| ()).await;
    let asked = sandbox.lambda.asked();
    let took = asked[1] - sandbox.vault.log()[0].at;
    assert!(took < secs(5), "{took:?}");
    sandbox.vault.mend();
    sandbox.frozen(secs(3)).await;
    sandbox.invoke(async |_| sandbox.user(ORDERS).await).await;
    sandbox.finish().await;
}

#[tokio::test]
async fn an_environment_that_is_never_used_ends_clean() {
    for start in ["on-demand", "snap-start"] {
        let mut sandbox = Sandbox::ready(Plan { start, ..Plan::default() }).await;
        sandbox.lambda.shut_down("spindown", GRACE);
        assert!(sandbox.ended(GRACE).await.success());
        assert!(sandbox.vault.tokens().is_empty());
        sandbox.check();
    }
}
