//! Runs on the real parts: registered by who does a task's work, verified by a real interpreter of state machines, with
//! tokens of their own in Vault, and over when their task is.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::broker::{Broker, Login, SOON, Setup};
use crate::faults::Grants;
use crate::harness::{Flavor, Server, text, wait_until};
use crate::http::{Answer, Place, request};
use crate::proxy::Wire;
use crate::subjects::Issuer;
use crate::workflow::{HOLDING, TUTORIAL, Worker, Workflow};

against_both! {
    each_state_reads_what_is_its_own_and_no_other
    what_is_asserted_gains_nothing
    a_task_that_is_stopped_loses_everything_within_seconds
    a_retry_is_another_run_with_another_credential
    the_tutorial_runs_under_the_broker
    a_crash_does_not_outlive_the_runs_deadline
    an_extended_run_moves_to_another_token_in_time
    whom_a_run_acts_for_is_in_vaults_log
    a_thousand_runs_leave_nothing_behind
    a_parent_takes_its_children_with_it
    a_database_that_is_away_when_a_run_ends_is_told_later
    a_stolen_run_token_cannot_outlive_its_ceiling
}

/// A rule for each state, which gives more than the process's own run has, and so must be verified.
pub(crate) const STATES: &str = r#"
[[run.rule]]
match = { state_machine = "orders-*", state = "Reserve", verified = true }
token_role = "run-reserve"
max_ttl = "10m"
[[run.rule]]
match = { state_machine = "charge-*", state = "Charge", verified = true }
token_role = "run-charge"
max_ttl = "10m"
[workflow]
heartbeat = "1s"
account_rate = 1000
brokers = 1
"#;

/// One rule for whatever registers, which gives what the process's own run has.
const ANY: &str = r#"
[[run.rule]]
max_ttl = "10m"
may_register = true
[workflow]
heartbeat = "1s"
account_rate = 1000
brokers = 1
"#;

pub(crate) const RESERVED: &str = "/v1/secret/data/orders/states/reserve";
pub(crate) const CHARGED: &str = "/v1/secret/data/orders/states/charge";

fn setup<'a>(server: &'a Server, rules: &str) -> Setup<'a> {
    Setup::new(server)
        .env("AWS_ENDPOINT_URL_SFN", text(&server.stack["stepfunctions"]["endpoint"]))
        .and(rules)
}

/// A run as its registrant knows it.
struct Run<'b, 's> {
    broker: &'b Broker<'s>,
    id: String,
    handle: String,
    said: Value,
}

impl<'s> Broker<'s> {
    #[track_caller]
    fn post(&self, body: &Value, headers: &[(&str, &str)]) -> Answer {
        let answer = request(&self.unix(), "POST", "/tenure/runs", headers, Some(body)).expect("an answer");
        self.keep(&answer);
        answer
    }

    /// Registers a run by the Unix socket.
    #[track_caller]
    fn register(&self, body: &Value) -> Run<'_, 's> {
        self.run_of(&self.post(body, &[]))
    }

    #[track_caller]
    fn run_of(&self, answer: &Answer) -> Run<'_, 's> {
        let said = answer.ok();
        assert_eq!(answer.status, 201, "{said}");
        let (id, handle) = (text(&said["id"]).to_owned(), text(&said["handle"]).to_owned());
        assert!(handle.starts_with("tnr_") && handle.len() == 47, "{handle}");
        Run { broker: self, id, handle, said }
    }
}

impl Run<'_, '_> {
    #[track_caller]
    fn get(&self, path: &str) -> Answer {
        self.broker.ask(&self.broker.unix(), "GET", path, &[("x-vault-token", &self.handle)])
    }

    #[track_caller]
    fn credential(&self, role: &str) -> Login {
        let answer = self.get(&format!("/v1/database/creds/{role}")).ok();
        Login {
            user: text(&answer["data"]["username"]).to_owned(),
            password: text(&answer["data"]["password"]).to_owned(),
            lease_id: text(&answer["lease_id"]).to_owned(),
        }
    }

    #[track_caller]
    fn end(&self) {
        let path = format!("/tenure/runs/{}", self.id);
        let answer = self.broker.ask(&self.broker.unix(), "DELETE", &path, &[]);
        assert_eq!(answer.status, 204, "{}", answer.text());
    }

    /// What Vault's own log has of the requests made with this run's token: their authentication's metadata.
    #[track_caller]
    fn in_vaults_log(&self, path: &str) -> Vec<Value> {
        let audited = self.broker.setup.server.audited(&self.id);
        audited.into_iter().filter(|line| line["request"]["path"] == path).collect()
    }
}

/// What a task's input says of its run, with its token.
fn of_task(token: &str, input: &Value) -> Value {
    let mut run = input["run"].clone();
    run["task_token"] = json!(token);
    run
}

fn each_state_reads_what_is_its_own_and_no_other(server: &Server) {
    let broker = setup(server, STATES).start();
    let workflow = Workflow::new(server);
    let execution = workflow.start(1);
    let (token, input) = workflow.poll(&workflow.reserve);
    let reserve = broker.register(&of_task(&token, &input));
    assert_eq!(reserve.said["verified"], "verified", "{}", reserve.said);
    reserve.get(RESERVED).ok();
    let denied = reserve.get(CHARGED);
    assert_eq!((denied.status, &denied.json()["error"]), (403, &json!("Tenure.Denied")), "{}", denied.text());
    let login = reserve.credential("orders-reserve");
    assert_eq!(reserve.get("/v1/database/creds/orders-charge").status, 403);

    workflow.succeed(&token, &json!({ "item": "first order" }));
    let (token, input) = workflow.poll(&workflow.charge);
    let charge = broker.register(&of_task(&token, &input));
    charge.get(CHARGED).ok();
    assert_eq!(charge.get(RESERVED).status, 403);
    assert_ne!(charge.credential("orders-charge").user, login.user);
    assert_eq!(charge.said["parents"], json!([execution.arn]));

    // It is Vault that decided: its log has the refusal, and the run that it was.
    let refused = reserve.in_vaults_log("secret/data/orders/states/charge");
    assert!(refused.iter().any(|line| text(&line["error"]).contains("permission denied")), "{refused:#?}");
    let asked = reserve.in_vaults_log("database/creds/orders-reserve");
    let meta = &asked.first().expect("the request")["auth"]["metadata"];
    assert_eq!(meta["execution_arn"], execution.arn.as_str(), "{meta}");
    assert_eq!(
        (&meta["state"], &meta["attempt"], &meta["verified"]),
        (&json!("Reserve"), &json!("0"), &json!("verified"))
    );
    let asked = charge.in_vaults_log("database/creds/orders-charge");
    let meta = &asked.first().expect("the request")["auth"]["metadata"];
    assert_eq!(meta["parent_execution_arn"], execution.arn.as_str(), "{meta}");
    let nested = execution.nested().remove(0).arn;
    assert_eq!(meta["execution_arn"], nested.as_str());

    reserve.end();
    wait_until("the end of the role", SOON, || {
        server.database.existing(std::slice::from_ref(&login.user)).is_empty()
    });
    let over = reserve.get(RESERVED);
    assert_eq!((over.status, &over.json()["error"]), (410, &json!("Tenure.RunOver")), "{}", over.text());
    charge.get(CHARGED).ok();
    workflow.succeed(&token, &json!({ "charged": "first order" }));
    execution.output();
    drop(charge);
    let finished = broker.finish();
    assert_eq!(finished.of("run.register").len(), 2);
    let line = finished.of("run.register").remove(1);
    assert_eq!(
        (&line["run"]["execution_arn"], &line["run"]["parents"]),
        (&json!(nested), &json!([execution.arn]))
    );
}

fn what_is_asserted_gains_nothing(server: &Server) {
    let broker = setup(server, STATES).start();
    let workflow = Workflow::new(server);
    let execution = workflow.start(1);
    let (token, input) = workflow.poll(&workflow.reserve);
    // Another state with a good token, no token, a token that is none, an execution that is not there.
    let claim = |change: &dyn Fn(&mut Value)| {
        let mut run = of_task(&token, &input);
        change(&mut run);
        let answer = broker.post(&run, &[]);
        (answer.status, text(&answer.json()["errors"][0]).to_owned())
    };
    let charge = execution.arn.replace(":orders-", ":charge-");
    let (status, why) = claim(&|run| {
        run["state"] = json!("Charge");
        run["execution_arn"] = json!(charge);
    });
    assert!(status == 403 && why.contains("under way"), "{status} {why}");
    let (status, why) = claim(&|run| run["task_token"] = Value::Null);
    assert!(
        status == 403 && why.contains("no [[run.rule]] matches") && why.contains("exists"),
        "{status} {why}"
    );
    let (status, why) = claim(&|run| run["task_token"] = json!("AAAAnone"));
    assert!(status == 403 && why.contains("task token"), "{status} {why}");
    let (status, why) = claim(&|run| run["execution_arn"] = json!(format!("{}x", execution.arn)));
    assert!(status == 403, "{status} {why}");
    let (status, why) =
        claim(&|run| run["execution_arn"] = json!(execution.arn.replace(":execution:", ":express:") + ":1"));
    assert!(status == 403 && why.contains("unverifiable"), "{status} {why}");
    execution.stop();
    let finished = broker.finish();
    assert_eq!(finished.of("run.register").iter().filter(|line| line["outcome"] == "denied").count(), 5);
    assert_eq!(finished.of("run.start").len(), 1, "no token but the process's own");
}

fn a_task_that_is_stopped_loses_everything_within_seconds(server: &Server) {
    let broker = setup(server, ANY).set("run", "token_role", "run-worker").start();
    let workflow = Workflow::new(server);
    // The worker's own heartbeats are rare: it is the broker that notices.
    let mut worker = Worker::start(&workflow, HOLDING, &broker.unix(), None, &[("HEARTBEAT_EVERY", "10")]);
    let execution = workflow.start(1);
    wait_until("the step holds a session", SOON, || {
        assert!(!worker.log().contains("Traceback"), "{}", worker.log());
        !worker.said().is_empty()
    });
    let user = text(&worker.said()[0]["began"]).to_owned();
    let began = Instant::now();
    execution.stop();
    wait_until("the end of the role", Duration::from_secs(10), || {
        server.database.existing(std::slice::from_ref(&user)).is_empty()
    });
    wait_until("the session is cut", Duration::from_secs(5), || {
        worker.said().iter().any(|said| said["cut"].is_string())
    });
    println!(
        "{}: {:.1} s from the stop to the end of the session",
        server.flavor.name(),
        began.elapsed().as_secs_f64()
    );
    wait_until("the log says why", SOON, || {
        broker
            .audit()
            .iter()
            .any(|line| line["event"] == "run.end" && text(&line["detail"]).contains("TaskTimedOut"))
    });
    wait_until("confirmed", SOON, || broker.audited("revoke.confirmed") > 0);
    rustix::process::kill_process(worker.pid(), rustix::process::Signal::TERM).expect("the worker runs");
    worker.ended();
    broker.finish();
}

fn a_retry_is_another_run_with_another_credential(server: &Server) {
    let broker = setup(server, ANY).start();
    let workflow = Workflow::edited(server, |orders, _| {
        orders["States"]["Reserve"]["Retry"][0]["IntervalSeconds"] = json!(1);
    });
    let execution = workflow.start(1);
    let (token, input) = workflow.poll(&workflow.reserve);
    let first = broker.register(&of_task(&token, &input));
    let again = broker.post(&of_task(&token, &input), &[]);
    assert_eq!((again.status, &again.json()["handle"]), (200, &json!(first.handle)), "the same, told again");
    let login = first.credential("orders");
    workflow.fail(&token, "Tenure.Unavailable");
    let (token, input) = workflow.poll(&workflow.reserve);
    let second = broker.register(&of_task(&token, &input));
    assert_eq!((&first.said["attempt"], &second.said["attempt"]), (&json!(0), &json!(1)));
    assert!(second.id != first.id && second.handle != first.handle);
    let other = second.credential("orders");
    assert_ne!(other.user, login.user);
    server.database.use_as(&other.user, &other.password).expect("the second's own");
    // The first one's task is over: its heartbeat says so.
    wait_until("the first is over", SOON, || first.get(RESERVED).status == 410);
    wait_until("the end of its role", SOON, || {
        server.database.existing(std::slice::from_ref(&login.user)).is_empty()
    });
    server.database.use_as(&other.user, &other.password).expect("still good");
    execution.stop();
    drop((first, second));
    broker.finish();
}

fn the_tutorial_runs_under_the_broker(server: &Server) {
    let broker = setup(server, ANY).set("run", "token_role", "run-worker").start();
    let workflow = Workflow::new(server);
    let tcp = broker.path("token");
    let (place, file) = match server.flavor {
        Flavor::Vault => (broker.unix(), None),
        Flavor::OpenBao => (broker.tcp(), Some(tcp.as_path())),
    };
    let mut worker = Worker::start(&workflow, TUTORIAL, &place, file, &[]);
    let execution = workflow.start(1);
    let output = execution.output();
    assert_eq!(output["payment"]["charged"], 1, "{output}\n{}", worker.log());
    // Each is asked for, and done.
    wait_until("both runs are over", SOON, || broker.audited("run.end") == 4);
    wait_until("and confirmed", SOON, || broker.audited("revoke.confirmed") == 2);
    let users: Vec<_> = broker.audit().iter().filter(|line| line["event"] == "mint").cloned().collect();
    assert_eq!(users.len(), 2, "one credential for each task");
    rustix::process::kill_process(worker.pid(), rustix::process::Signal::TERM).expect("the worker runs");
    assert!(worker.ended(), "{}", worker.log());
    let finished = broker.finish();
    for line in finished.of("read") {
        assert!(line["run"]["execution_arn"].is_string() && line["run"]["standing"].is_string(), "{line}");
    }
}

fn a_crash_does_not_outlive_the_runs_deadline(server: &Server) {
    let mut broker = setup(server, ANY).start();
    let began = Instant::now();
    let (login, deadline) = {
        let run = broker.register(&json!({ "timeout_seconds": 8 }));
        (run.credential("orders"), run.said["deadline"].clone())
    };
    let users = [login.user];
    broker.kill();
    let gone = || server.database.existing(&users).is_empty();
    while began.elapsed() < Duration::from_secs(6) {
        assert!(!gone(), "ended {:?} after the start, its deadline is {deadline}", began.elapsed());
        std::thread::sleep(Duration::from_millis(100));
    }
    wait_until("the end of the role", Duration::from_secs(10).saturating_sub(began.elapsed()), gone);
    broker.check_outputs();
}

fn an_extended_run_moves_to_another_token_in_time(server: &Server) {
    let broker = setup(server, ANY).start();
    let began = Instant::now();
    let run = broker.register(&json!({ "timeout_seconds": 8 }));
    let first = run.credential("orders");
    let path = format!("/tenure/runs/{}", run.id);
    let body = json!({ "timeout_seconds": 60 });
    let extended = request(&broker.unix(), "PATCH", &path, &[], Some(&body)).expect("an answer").ok();
    assert!(text(&extended["deadline"]) > text(&run.said["deadline"]), "{extended}");
    // Whatever is served is good, over the end of the first token.
    let mut users = vec![first.user.clone()];
    while began.elapsed() < Duration::from_secs(12) {
        let login = run.credential("orders");
        server.database.use_as(&login.user, &login.password).expect("what is served is good");
        if !users.contains(&login.user) {
            users.push(login.user);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(users.len() >= 2, "the first token's credential ends with it");
    assert_eq!(run.in_vaults_log("auth/token/create/run").len(), 2, "one more token");
    run.end();
    wait_until("the end of both roles", SOON, || server.database.existing(&users).is_empty());
    drop(run);
    // The one that was replaced may live for long: it is revoked with the other.
    let run = broker.register(&json!({ "timeout_seconds": 200 }));
    let mut users = vec![run.credential("orders").user];
    let path = format!("/tenure/runs/{}", run.id);
    request(&broker.unix(), "PATCH", &path, &[], Some(&json!({ "timeout_seconds": 500 })))
        .expect("an answer")
        .ok();
    let headers = [("x-vault-token", &*run.handle), ("x-tenure-min-ttl", "290s")];
    let longer = broker.ask(&broker.unix(), "GET", "/v1/database/creds/orders", &headers).ok();
    users.push(text(&longer["data"]["username"]).to_owned());
    assert_ne!(users[0], users[1]);
    run.end();
    wait_until("the end of both", Duration::from_secs(5), || server.database.existing(&users).is_empty());
    wait_until("both are confirmed", SOON, || {
        let confirmed =
            |line: &Value| line["event"] == "revoke.confirmed" && line["run"]["id"] == run.id.as_str();
        broker.audit().iter().filter(|line| confirmed(line)).count() == 2
    });
    drop(run);
    broker.finish();
}

fn whom_a_run_acts_for_is_in_vaults_log(server: &Server) {
    let issuer = Issuer::start();
    let rules = format!(
        "{ANY}\n[subject]\n[[subject.issuer]]\nurl = \"{}\"\naudiences = [\"tenure\"]\nallow_loopback_http = true\n",
        issuer.url()
    );
    let broker = setup(server, &rules).start();
    let arn = "arn:aws:states:eu-west-1:123456789012:execution:orders:7f3a";
    let token = issuer.token();
    let verified =
        broker.register(&json!({ "execution_arn": arn, "state": "Reserve", "subject_token": token }));
    assert_eq!(verified.said["subject"]["assurance"], "verified", "{}", verified.said);
    let said = broker.register(&json!({ "execution_arn": arn, "state": "Charge", "subject": { "id": "nightly", "kind": "scheduler" } }));
    verified.credential("orders");
    said.credential("orders");
    let subject = |run: &Run<'_, '_>| {
        let asked = run.in_vaults_log("database/creds/orders");
        let meta = asked.first().expect("the request")["auth"]["metadata"].clone();
        ["subject", "subject_kind", "subject_assurance", "execution_arn", "state"]
            .map(|name| meta[name].as_str().unwrap_or("-").to_owned())
    };
    assert_eq!(subject(&verified), ["ada", "person", "verified", arn, "Reserve"]);
    assert_eq!(subject(&said), ["nightly", "scheduler", "asserted", arn, "Charge"]);
    let forged = format!("{}x", &token[..token.len() - 1]);
    let refused = broker.post(&json!({ "subject_token": forged }), &[]);
    assert_eq!(refused.status, 403, "{}", refused.text());
    assert!(!refused.text().contains(&token[..40]), "{}", refused.text());
    drop((verified, said));
    let finished = broker.finish();
    assert!(!finished.log.contains(&token) && !format!("{:?}", finished.audit).contains(&token));
}

fn a_thousand_runs_leave_nothing_behind(server: &Server) {
    const RUNS: usize = 1000;
    let broker = setup(server, ANY).start();
    let tokens = || {
        let listed = server.admin("LIST", "auth/token/accessors", None).json();
        listed["data"]["keys"].as_array().map_or(0, Vec::len)
    };
    // The first one pays for what is made once.
    let run = broker.register(&json!({ "timeout_seconds": 120 }));
    run.get("/v1/secret/data/orders/config").ok();
    run.end();
    let before = memory(&broker);
    let began = Instant::now();
    std::thread::scope(|threads| {
        for _ in 0..8 {
            threads.spawn(|| {
                for _ in 0..RUNS / 8 {
                    let run = broker.register(&json!({ "timeout_seconds": 120 }));
                    run.get("/v1/secret/data/orders/config").ok();
                    run.end();
                }
            });
        }
    });
    let took = began.elapsed();
    wait_until("every end is confirmed", SOON, || broker.audited("revoke.confirmed") == RUNS + 1);
    // Other tests make tokens at the same time; a thousand more would show.
    wait_until("the tokens are gone", SOON, || tokens() < RUNS / 2);
    wait_until("the runs are gone", SOON, || broker.status()["runs_open"] == 1);
    let after = memory(&broker);
    println!(
        "{}: {RUNS} runs begun, read and ended in {:.1} s; resident {before} → {after} KiB",
        server.flavor.name(),
        took.as_secs_f64()
    );
    assert!(took < Duration::from_secs(60), "{took:?}");
    // What is over is remembered for a while, and the allocator keeps some of what it had.
    assert!(after < before + 6 * 1024, "{before} → {after} KiB");
    let run_ids: Vec<_> =
        broker.audit().iter().filter(|line| line["event"] == "run.start").cloned().collect();
    assert_eq!(run_ids.len(), RUNS + 2);
    drop(run);
    broker.finish();
}

fn a_parent_takes_its_children_with_it(server: &Server) {
    let broker = setup(server, ANY).start();
    let parent = broker.register(&json!({ "timeout_seconds": 120 }));
    let answer = broker.post(&json!({ "timeout_seconds": 600 }), &[("x-vault-token", &parent.handle)]);
    let child = broker.run_of(&answer);
    assert_eq!(child.said["parent"], parent.id.as_str());
    assert!(text(&child.said["deadline"]) <= text(&parent.said["deadline"]), "in its parent's limits");
    let users = [parent.credential("orders").user, child.credential("orders").user];
    let tcp = broker.ask(
        &broker.tcp(),
        "GET",
        "/v1/secret/data/orders/config",
        &[("authorization", &format!("Bearer {}", child.handle))],
    );
    assert_eq!(tcp.status, 200, "on either listener, in either header: {}", tcp.text());
    parent.end();
    wait_until("the end of both roles", SOON, || server.database.existing(&users).is_empty());
    let over = child.get("/v1/secret/data/orders/config");
    assert!(over.status == 410 && over.text().contains("that started it"), "{}", over.text());
    drop((parent, child));
    broker.finish();
}

fn a_database_that_is_away_when_a_run_ends_is_told_later(server: &Server) {
    const NAME: &str = "runs-database";
    let role = Grants::new(server, NAME);
    let port = server.stack["postgres"]["port"].as_u64().and_then(|port| port.try_into().ok());
    let wire = Wire::before(std::net::SocketAddr::from(([127, 0, 0, 1], port.expect("a port"))));
    role.database(server, &wire);
    let broker = role.setup(setup(server, ANY)).start();
    let run = broker.register(&json!({ "timeout_seconds": 300 }));
    let login = run.credential(NAME);
    wire.cut();
    run.end();
    assert_eq!(run.get(RESERVED).status, 410, "whatever becomes of the revocation");
    let said = |event: &str| {
        broker
            .audit()
            .iter()
            .filter(|line| line["event"] == event && line["run"]["id"] == run.id.as_str())
            .count()
    };
    wait_until("it is asked for again", SOON, || said("revoke.requested") > 1);
    assert_eq!(
        (said("revoke.confirmed"), server.database.existing(std::slice::from_ref(&login.user)).len()),
        (0, 1)
    );
    let back = Instant::now();
    wire.mend();
    // The server tries again by itself: after 10 s, 20 s and so on.
    wait_until("confirmed", Duration::from_secs(90), || said("revoke.confirmed") == 1);
    println!(
        "{}: confirmed {:.1} s after the database was back",
        server.flavor.name(),
        back.elapsed().as_secs_f64()
    );
    assert_eq!(server.database.existing(&[login.user]), [""; 0]);
    drop(run);
    broker.finish();
}

/// Whatever a thief asks for: the ceiling is the token role's, and a run with a deadline has a token that nobody renews.
fn a_stolen_run_token_cannot_outlive_its_ceiling(server: &Server) {
    let made = |role: &str, body: Value| {
        let auth =
            server.admin("POST", &format!("auth/token/create/{role}"), Some(&body)).ok()["auth"].clone();
        (text(&auth["client_token"]).to_owned(), auth["lease_duration"].as_u64().expect("a number"))
    };
    let with = |token: &str, method: &str, path: &str, body: Option<&Value>| {
        request(&server.place(), method, &format!("/v1/auth/token/{path}"), &[("x-vault-token", token)], body)
            .expect("the server answers")
    };
    let hour = json!({ "increment": "1h" });
    let began = Instant::now();
    // 12 s are the ceiling of `run-short`, and an hour is that of `run-charge`.
    let (short, ttl) = made("run-short", json!({ "ttl": "8s", "explicit_max_ttl": "20h" }));
    assert_eq!(ttl, 8);
    let (fixed, ttl) =
        made("run-charge", json!({ "ttl": "20h", "explicit_max_ttl": "20h", "renewable": false }));
    assert!(ttl <= 3600, "{ttl}");
    let renewed = with(&short, "POST", "renew-self", Some(&hour)).ok();
    assert!(renewed["auth"]["lease_duration"].as_u64().expect("a number") <= 12, "{renewed}");
    assert_eq!(with(&fixed, "POST", "renew-self", Some(&hour)).status, 400);
    wait_until("its end", Duration::from_secs(15), || with(&short, "GET", "lookup-self", None).status == 403);
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    with(&fixed, "POST", "revoke-self", None);
}

/// The broker's resident memory, in KiB.
fn memory(broker: &Broker<'_>) -> u64 {
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", broker.pid().as_raw_pid())).expect("/proc");
    let line = status.lines().find(|line| line.starts_with("VmRSS")).expect("VmRSS");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
}

#[test]
fn nothing_listens_where_nobody_is_served() {
    // Who may register on TCP holds the local token; a run's handle is not enough unless its rule says so.
    let broker = setup(Flavor::Vault.shared(), "[[run.rule]]\nmax_ttl = \"10m\"\n").start();
    let tcp = |headers: &[(&str, &str)]| {
        request(&broker.tcp(), "POST", "/tenure/runs", headers, Some(&json!({}))).expect("an answer")
    };
    assert_eq!(tcp(&[]).status, 403);
    let run = broker.run_of(&tcp(&[("x-vault-token", &broker.token())]));
    let refused = tcp(&[("x-vault-token", &run.handle)]);
    assert!(refused.status == 403 && refused.text().contains("may_register"), "{}", refused.text());
    let path = format!("/tenure/runs/{}", run.id);
    let own = |method: &str, body: Option<&Value>| {
        request(&broker.tcp(), method, &path, &[("x-vault-token", &run.handle)], body).expect("an answer")
    };
    assert_eq!(own("GET", None).status, 200);
    assert_eq!(
        own("PATCH", Some(&json!({ "timeout_seconds": 300 }))).status,
        404,
        "its handle does not extend it"
    );
    assert_eq!(broker.ask(&broker.unix(), "DELETE", &path, &[]).status, 404, "somebody else's");
    assert_eq!(own("DELETE", None).status, 204);
    assert_eq!(own("GET", None).status, 410);
    let Place::Tcp(_) = broker.tcp() else { panic!("TCP") };
    drop(run);
    broker.finish();
}
