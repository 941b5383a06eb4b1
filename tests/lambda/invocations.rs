//! Invocations of an environment that is not frozen, or for a moment only.

use serde_json::{Value, json};
use tokio::time::Instant;

use super::aws::trace;
use super::sandbox::{ORDERS, Plan, SOON, Sandbox, TIME_OUT, millis, secs};
use super::vault::{Fault, Lives};

const EXECUTION: &str = "arn:aws:states:eu-west-1:123456789012:execution:orders:order-1";

/// One token, one lease, a line for each read with the invocation that it was for. What is done at an invocation costs
/// the function nothing.
#[tokio::test]
async fn invocations_share_a_token_and_have_lines_of_their_own() {
    let sandbox = Sandbox::ready(Plan::default()).await;
    sandbox.invoke(async |_| sandbox.user(ORDERS).await).await;
    let (began, mut held_up) = (sandbox.worked(), Vec::new());
    let mut requests = Vec::new();
    for _ in 0..50 {
        sandbox.until_waiting().await;
        let request = sandbox.lambda.request_id();
        let told = Instant::now();
        sandbox.lambda.invoke(&request, TIME_OUT);
        sandbox.until_waiting().await;
        held_up.push(*sandbox.lambda.asked().last().expect("it was") - told);
        sandbox.serve(&request, async |_| sandbox.user(ORDERS).await).await;
        requests.push(request);
    }
    held_up.sort();
    let work = (sandbox.worked() - began) / 50;
    eprintln!(
        "an invocation with a read: {work:?} on a processor; the next event asked for after {:?} (median), {:?} (last)",
        held_up[25], held_up[49]
    );
    // The work is that of a binary without optimisation, and the machine may be busy.
    assert!(work < millis(10), "{work:?}");
    assert!(held_up[25] < millis(50), "{held_up:?}");
    assert_eq!((sandbox.vault.tokens().len(), sandbox.vault.users()), (2, 1));
    assert_eq!(sandbox.vault.log().len(), 3, "{:?}", sandbox.vault.log());
    sandbox.line("read", 51).await;
    let reads = sandbox.lines("read");
    for (request, line) in requests.iter().zip(&reads[1..]) {
        assert_eq!(line["run"]["invocation"], **request, "{line}");
        assert_eq!(line["run"]["trace"], *trace(request), "{line}");
        assert_eq!(line["run"]["kind"], "invocation", "{line}");
    }
    assert_eq!(reads.len(), 51);
    sandbox.finish().await;
}

/// What the function reads before its first invocation, while it starts, is the environment's.
#[tokio::test]
async fn what_is_read_before_the_first_invocation_is_the_environments() {
    let sandbox = Sandbox::ready(Plan::default()).await;
    let user = sandbox.user(ORDERS).await;
    let line = sandbox.line("read", 1).await;
    assert_eq!((&line["run"]["kind"], &line["run"]["invocation"]), (&json!("environment"), &Value::Null));
    assert_eq!(sandbox.invoke(async |_| sandbox.user(ORDERS).await).await, user);
    sandbox.finish().await;
}

/// Where a lease would have to be renewed before the invocation's deadline, the process says that it may be frozen only
/// when the function is done.
#[tokio::test]
async fn who_has_something_to_do_waits_for_the_end_of_the_invocation() {
    let lives = Lives { lease: secs(20), lease_max: secs(20), ..Lives::default() };
    let sandbox = Sandbox::ready(Plan { lives, ..Plan::default() }).await;
    sandbox.invoke(async |_| sandbox.user(ORDERS).await).await;
    sandbox
        .invoke(async |_| {
            tokio::time::sleep(millis(400)).await;
            assert!(!sandbox.lambda.is_waited_for(), "a lease is replaced before the deadline");
            sandbox.user(ORDERS).await
        })
        .await;
    sandbox.finish().await;
}

/// What the function needs is there for as long as it may take.
#[tokio::test]
async fn what_would_not_outlive_the_invocation_is_replaced_as_it_begins() {
    let lives = Lives { lease: secs(31), lease_max: secs(31), ..Lives::default() };
    let sandbox = Sandbox::ready(Plan { lives, ..Plan::default() }).await;
    let before = sandbox.invoke(async |_| sandbox.user(ORDERS).await).await;
    tokio::time::sleep(millis(2500)).await;
    sandbox
        .invoke(async |_| {
            sandbox.until("it is replaced", SOON, |it| it.vault.count("GET database") == 2).await;
            sandbox.until("it is served", SOON, |it| it.vault.users() == 2).await;
            let answer =
                sandbox.ask("GET", "/v1/database/creds/orders", &[("x-tenure-min-ttl", "29s")], None);
            assert_ne!(answer.await.user(), before);
        })
        .await;
    sandbox.finish().await;
}

/// Where nothing lives as long as the function may take, nothing is replaced for that again and again.
#[tokio::test]
async fn leases_that_cannot_outlive_the_time_out_are_used_to_their_end() {
    let lives = Lives { login: secs(25), lease: secs(20), lease_max: secs(20) };
    let sandbox = Sandbox::ready(Plan { lives, ..Plan::default() }).await;
    for _ in 0..20 {
        sandbox.invoke(async |_| sandbox.user(ORDERS).await).await;
    }
    let log = sandbox.vault.log();
    assert!(sandbox.vault.count("GET database") <= 2, "{log:#?}");
    assert!(sandbox.vault.count("POST auth/token/renew-self") <= 4, "{log:#?}");
    assert_eq!(sandbox.vault.count("POST auth/approle"), 1, "{log:#?}");
    sandbox.finish().await;
}

/// Each invocation has a run token, which is gone when the next event is asked for.
#[tokio::test]
async fn an_invocation_may_have_a_token_of_its_own() {
    let config = "token_role = \"run\"\n[lambda]\nrun = \"invocation\"\n[[prefetch]]\npath = \"database/creds/orders\"\n";
    let sandbox = Sandbox::ready(Plan { config, ..Plan::default() }).await;
    let mut users = Vec::new();
    for number in 0..5u64 {
        let request = sandbox
            .invoke(async |request| {
                let (user, again) = (sandbox.user(ORDERS).await, sandbox.user(ORDERS).await);
                assert_eq!(user, again);
                users.push(user);
                tokio::time::sleep(millis(20 * number)).await;
                assert!(!sandbox.lambda.is_waited_for(), "the function is not done");
                request.to_owned()
            })
            .await;
        let alive = sandbox.vault.tokens();
        assert!(alive.iter().all(|token| token.meta["invocation"].is_null()), "{alive:?}");
        assert_eq!(sandbox.vault.users(), 0);
        let made = sandbox.vault.run_tokens();
        let of_it: Vec<_> = made.iter().filter(|token| token.meta["invocation"] == *request).collect();
        assert_eq!(of_it.len(), 1, "one run token for {request}: {made:?}");
        assert_eq!(of_it[0].meta["trace"], *trace(&request));
    }
    users.sort();
    users.dedup();
    assert_eq!(users.len(), 5, "none is used twice");
    sandbox.finish().await;
}

/// A function that names its execution registers it: a run in the invocation, which ends with it.
#[tokio::test]
async fn an_execution_that_is_registered_lies_in_the_invocation() {
    let config = "token_role = \"run\"\n[[run.rule]]\nmatch = { state_machine = \"orders\" }\n";
    let sandbox = Sandbox::ready(Plan { config, ..Plan::default() }).await;
    let handle = sandbox
        .invoke(async |request| {
            let said = json!({"execution_arn": EXECUTION, "state": "Charge", "attempt": 0});
            let run = sandbox.ask("POST", "/tenure/runs", &[], Some(said)).await;
            assert_eq!(run.status, 201, "{}", run.body);
            let handle = run.body["handle"].as_str().expect("a handle").to_owned();
            let read =
                sandbox.ask("GET", "/v1/database/creds/orders", &[("x-vault-token", &handle)], None).await;
            read.user();
            let line = sandbox.line("read", 1).await;
            assert_eq!(line["run"]["execution_arn"], EXECUTION, "{line}");
            let invocations = sandbox.lines("run.register");
            let invocation = invocations.iter().find(|line| line["run"]["invocation"] == *request);
            let invocation = invocation.expect("a line for the invocation");
            assert_eq!(line["run"]["parent"], invocation["run"]["id"], "{line}");
            handle
        })
        .await;
    assert_eq!((sandbox.vault.users(), sandbox.vault.tokens().len()), (0, 2), "{:?}", sandbox.vault.tokens());
    let read = sandbox.ask("GET", "/v1/database/creds/orders", &[("x-vault-token", &handle)], None).await;
    assert_eq!(read.status, 410, "{}", read.body);
    sandbox.finish().await;
}

/// A lease that cannot be had in time is refused by then: what the function waits for is bounded by its deadline.
#[tokio::test]
async fn an_upstream_that_hangs_does_not_outlast_the_invocation() {
    let sandbox = Sandbox::ready(Plan::default()).await;
    let request = sandbox.lambda.request_id();
    sandbox.vault.fail("GET database", Fault::Hang, 1);
    sandbox.lambda.invoke(&request, secs(2));
    let began = Instant::now();
    let read = sandbox.serve(&request, async |_| sandbox.get(ORDERS).await).await;
    assert!(began.elapsed() < secs(4), "{read:?}");
    assert!(matches!(read.status, 410 | 503), "{read:?}");
    sandbox.until_waiting().await;
    sandbox.frozen(secs(3)).await;
    sandbox.invoke(async |_| sandbox.user(ORDERS).await).await;
    sandbox.finish().await;
}

/// A call that hangs keeps the environment for a moment when the function is done, and not until its time is up.
#[tokio::test]
async fn an_upstream_that_hangs_does_not_keep_the_environment() {
    for config in ["token_role = \"run\"\n", "token_role = \"run\"\n[lambda]\nrun = \"invocation\"\n"] {
        let sandbox = Sandbox::ready(Plan { config, ..Plan::default() }).await;
        sandbox.invoke(async |_| sandbox.user(ORDERS).await).await;
        sandbox.vault.fail("", Fault::Hang, 100);
        tokio::time::sleep(millis(2100)).await;
        let began = Instant::now();
        sandbox
            .invoke(async |_| {
                let gone = tokio::time::timeout(millis(300), sandbox.get("database/creds/billing")).await;
                assert!(gone.is_err(), "{gone:?}");
            })
            .await;
        assert!(began.elapsed() < secs(5), "{config}: {:?}", began.elapsed());
        sandbox.vault.mend();
        sandbox.frozen(secs(3)).await;
        sandbox.invoke(async |_| sandbox.user(ORDERS).await).await;
        sandbox.finish().await;
    }
}

/// Where the end of an invocation is not told, the next event is asked for before the time is up.
#[tokio::test]
async fn an_end_that_is_not_told_is_waited_for_no_longer_than_the_deadline() {
    let config = "token_role = \"run\"\n[lambda]\nrun = \"invocation\"\n";
    let sandbox = Sandbox::ready(Plan { config, ..Plan::default() }).await;
    for _ in 0..2 {
        let request = sandbox.lambda.request_id();
        let began = Instant::now();
        sandbox.lambda.invoke(&request, secs(2));
        sandbox.user(ORDERS).await;
        sandbox.until_waiting().await;
        assert!(began.elapsed() < secs(2), "{:?}", began.elapsed());
    }
    sandbox.invoke(async |_| sandbox.user(ORDERS).await).await;
    sandbox.finish().await;
}

/// Rotated credentials of the login are noticed as an invocation begins.
#[tokio::test]
async fn a_login_that_was_replaced_is_noticed() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("token");
    let login = Some(format!("[vault.auth.token]\nfile = \"{}\"\nrevoke = true", file.display()));
    let sandbox = Sandbox::start_with(Plan { login, ..Plan::default() }, |vault, _| {
        std::fs::write(&file, vault.token()).expect("a file");
    });
    let sandbox = sandbox.await;
    sandbox.until_waiting().await;
    sandbox.invoke(async |_| sandbox.user(ORDERS).await).await;
    sandbox.freeze().await;
    std::fs::write(&file, sandbox.vault.token()).expect("a file");
    let before = sandbox.vault.count("GET auth/token/lookup-self");
    sandbox.thaw();
    sandbox.invoke(async |_| sandbox.user(ORDERS).await).await;
    sandbox
        .until("the new token is looked at", SOON, |it| it.vault.count("GET auth/token/lookup-self") > before)
        .await;
    sandbox.until_waiting().await;
    sandbox.finish().await;
}

/// A read may name its execution itself.
#[tokio::test]
async fn a_read_that_names_its_execution_is_a_run_in_the_invocation() {
    let config = "token_role = \"run\"\n[[run.rule]]\nmatch = { state_machine = \"orders\" }\n";
    let sandbox = Sandbox::ready(Plan { config, ..Plan::default() }).await;
    let headers =
        [("x-tenure-execution", EXECUTION), ("x-tenure-state", "Charge"), ("x-tenure-attempt", "0")];
    let mut users = Vec::new();
    for _ in 0..2 {
        sandbox
            .invoke(async |request| {
                for _ in 0..3 {
                    let read = sandbox.ask("GET", "/v1/database/creds/orders", &headers, None).await;
                    users.push(read.user());
                }
                let registered = sandbox.lines("run.register");
                let [.., invocation, run] = &registered[..] else { panic!("{registered:?}") };
                assert_eq!(invocation["run"]["invocation"], *request);
                assert_eq!(run["run"]["parent"], invocation["run"]["id"]);
                assert_eq!(run["run"]["execution_arn"], EXECUTION);
            })
            .await;
        assert_eq!(sandbox.vault.users(), 0, "its token is gone when the process may be frozen");
    }
    users.dedup();
    assert_eq!(users.len(), 2, "one for each invocation");
    sandbox.finish().await;
}

/// Several invocations at a time, of which telemetry alone tells; a read says whose it is.
#[tokio::test]
async fn a_managed_instance_serves_several_at_a_time() {
    let config = "token_role = \"run\"\n[[run.rule]]\nmatch = { state_machine = \"orders\" }\n";
    let plan = Plan { start: "lambda-managed-instances", config, ..Plan::default() };
    let sandbox = Sandbox::ready(plan).await;
    let registered = format!("{:?}", sandbox.lambda.log()[0].1);
    assert!(registered.contains("[\"SHUTDOWN\"]"), "{registered}");
    let requests: Vec<String> = (0..3).map(|_| sandbox.lambda.request_id()).collect();
    for request in &requests {
        sandbox.lambda.started(request);
    }
    sandbox.until("all began", SOON, |it| it.lines("run.register").len() == 3).await;
    let read = async |named: Option<&str>| {
        let number = sandbox.lines("read").len() + 1;
        let headers: Vec<_> = named.map(|request| ("x-tenure-invocation", request)).into_iter().collect();
        sandbox.ask("GET", "/v1/database/creds/orders", &headers, None).await.user();
        sandbox.line("read", number).await["run"].clone()
    };
    for request in &requests {
        let run = read(Some(request)).await;
        assert_eq!((&run["invocation"], &run["trace"]), (&json!(request), &json!(trace(request))));
    }
    assert_eq!(read(None).await["invocation"], Value::Null, "whose it is cannot be known");
    // What is registered for an invocation lies in it, and ends with it.
    let said = json!({"execution_arn": EXECUTION, "state": "Charge", "attempt": 0});
    let headers = [("x-tenure-invocation", requests[2].as_str())];
    assert_eq!(sandbox.ask("POST", "/tenure/runs", &headers, Some(said)).await.status, 201);
    let (run, all) = (sandbox.line("run.register", 4).await, sandbox.lines("run.register"));
    let invocation = all.iter().find(|line| line["run"]["invocation"] == requests[2]).expect("a line");
    assert_eq!(run["run"]["parent"], invocation["run"]["id"]);
    sandbox.lambda.done(&requests[0], "success");
    sandbox.lambda.done(&requests[2], "failure");
    sandbox.until("three are over", SOON, |it| it.lines("run.end").len() == 3).await;
    assert_eq!(read(None).await["invocation"], json!(requests[1]), "the only one that is open");
    assert_eq!(sandbox.lambda.asked().len(), 1, "nothing but the end is waited for");
    sandbox.finish().await;
}

/// Each of several at a time may have its own token.
#[tokio::test]
async fn a_managed_instance_may_have_a_token_for_each() {
    let config = "token_role = \"run\"\n[lambda]\nrun = \"invocation\"\n";
    let plan = Plan { start: "lambda-managed-instances", config, ..Plan::default() };
    let sandbox = Sandbox::ready(plan).await;
    let requests: Vec<String> = (0..2).map(|_| sandbox.lambda.request_id()).collect();
    let mut users = Vec::new();
    for request in &requests {
        sandbox.lambda.started(request);
        sandbox.until("it began", SOON, |it| it.lines("run.register").len() > users.len()).await;
        let headers = [("x-tenure-invocation", request.as_str())];
        users.push(sandbox.ask("GET", "/v1/database/creds/orders", &headers, None).await.user());
    }
    assert_ne!(users[0], users[1]);
    sandbox.lambda.done(&requests[0], "success");
    sandbox.until("its user is gone", SOON, |it| !it.vault.is_alive(&users[0])).await;
    assert!(sandbox.vault.is_alive(&users[1]));
    sandbox.lambda.done(&requests[1], "success");
    sandbox.until("its user is gone", SOON, |it| !it.vault.is_alive(&users[1])).await;
    sandbox.finish().await;
}

/// Without telemetry nobody would know of invocations there.
#[tokio::test]
async fn a_managed_instance_does_not_start_without_telemetry() {
    let plan = Plan { start: "lambda-managed-instances", ..Plan::default() };
    let mut sandbox = Sandbox::start_with(plan, |_, lambda| lambda.refuse("/telemetry", 500)).await;
    assert!(!sandbox.ended(SOON).await.success());
    assert_eq!(sandbox.lambda.init_error().expect("Lambda is told").0, "Extension.TelemetryFailed");
}
