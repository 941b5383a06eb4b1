//! `/tenure/runs` and handles, over a real Unix socket and loopback TCP.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tenure::audit::{Event, Outcome};
use tenure::door::{Doors, LocalToken, UnixDoor, UnixOptions};
use tenure::policy::rules::Rule;
use tenure::source::dev::DevConfig;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};

use crate::platform::{Platform, Vouching, execution, rule, state};
use crate::stage::{Plan, Stage, secs};

/// What stands for a secret that a caller sends, and that must not come back.
const CANARY: &str = "canary-that-must-not-be-told";

/// By which listener a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Via {
    Unix,
    Tcp,
}

struct House {
    stage: Stage,
    doors: Arc<Doors>,
    socket: PathBuf,
    tcp: SocketAddr,
    token: String,
    _folder: tempfile::TempDir,
}

struct Answer {
    status: u16,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.body))
    }

    /// A member of the answer, which must be a string.
    fn word(&self, name: &str) -> String {
        self.json()[name].as_str().unwrap_or_else(|| panic!("no {name} in {}", self.body)).to_owned()
    }

    /// It is refused, with that status and that name.
    #[track_caller]
    fn refused(&self, status: u16, name: &str) -> String {
        assert_eq!(self.status, status, "{}", self.body);
        assert_eq!(self.word("error"), name);
        self.json()["errors"][0].as_str().expect("a message").to_owned()
    }
}

impl House {
    async fn new(rules: Vec<Rule>) -> Self {
        let vouching = Vouching::default();
        let vault = DevConfig::default();
        let plan = Plan {
            rules,
            vault,
            workflow: Platform::default().shared(),
            issuers: vouching.shared(),
            ..Plan::default()
        };
        let stage = Stage::new(plan).await;
        let folder = tempfile::tempdir().expect("a folder");
        let (socket, file) = (folder.path().join("tenure.sock"), folder.path().join("token"));
        let door =
            UnixDoor::bind(&UnixOptions { path: socket.clone(), mode: 0o600, owner: None, group: None });
        let door = door.expect("the socket");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let tcp = listener.local_addr().expect("its address");
        let local = LocalToken::from_file(&file).expect("the token");
        let token = std::fs::read_to_string(&file).expect("the token");
        let doors = Doors::new(Arc::clone(&stage.broker), Some(local), None, stage.supervisor.clone());
        stage.supervisor.spawn("unix door", Arc::clone(&doors).serve_unix(door));
        stage.supervisor.spawn("tcp door", Arc::clone(&doors).serve_tcp(listener));
        Self { stage, doors, socket, tcp, token, _folder: folder }
    }

    /// Sends one request; `header` is a whole line, or nothing.
    async fn send(&self, via: Via, method: &str, path: &str, header: &str, body: &str) -> Answer {
        let host = if via == Via::Tcp { self.tcp.to_string() } else { "localhost".to_owned() };
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n");
        if !header.is_empty() {
            head += &format!("{header}\r\n");
        }
        if !body.is_empty() {
            head += &format!("content-length: {}\r\n", body.len());
        }
        let text = format!("{head}\r\n{body}");
        match via {
            Via::Unix => exchange(UnixStream::connect(&self.socket).await.expect("connected"), &text).await,
            Via::Tcp => exchange(TcpStream::connect(self.tcp).await.expect("connected"), &text).await,
        }
    }

    /// As the process itself on the Unix socket, with the local token on TCP.
    async fn ask(&self, via: Via, method: &str, path: &str, body: &Value) -> Answer {
        let header = if via == Via::Tcp { format!("x-vault-token: {}", self.token) } else { String::new() };
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.send(via, method, path, &header, &body).await
    }

    /// As the holder of a handle.
    async fn ask_as(&self, via: Via, handle: &str, method: &str, path: &str, body: &Value) -> Answer {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.send(via, method, path, &format!("x-vault-token: {handle}"), &body).await
    }

    /// Registers a run: its path, and its handle.
    async fn registered(&self, via: Via, body: &Value) -> (String, String) {
        let answer = self.ask(via, "POST", "/tenure/runs", body).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
        (format!("/tenure/runs/{}", answer.word("id")), answer.word("handle"))
    }

    async fn over(&self, open: usize) {
        self.stage.until(secs(10), "a run is over", |stage| stage.broker.runs().count() == open).await;
    }

    async fn close(self) {
        self.doors.close();
        let text = self.stage.memory.text();
        assert!(!text.contains(CANARY), "what a caller kept secret is in the log");
        assert!(!text.contains("tnr_"), "a handle is in the log");
        self.stage.finish().await;
    }
}

async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, text: &str) -> Answer {
    // Who is refused early may find the other end closed.
    let _ = stream.write_all(text.as_bytes()).await;
    let mut raw = Vec::new();
    let read = tokio::time::timeout(secs(20), stream.read_to_end(&mut raw)).await;
    let _ = read.expect("an answer in time");
    let raw = String::from_utf8(raw).expect("text");
    let (head, body) = raw.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {raw:?}"));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    Answer { status, body: body.to_owned() }
}

fn charge(name: &str) -> Value {
    json!({ "execution_arn": execution(name).as_str(), "state": "Charge", "attempt": 0, "timeout_seconds": 60 })
}

#[tokio::test]
async fn a_run_is_registered_read_with_extended_and_ended() {
    let house = House::new(vec![rule()]).await;
    for via in [Via::Unix, Via::Tcp] {
        let (path, handle) = house.registered(via, &charge("a")).await;
        assert!(handle.starts_with("tnr_") && handle.len() == 47 && handle != house.token);
        let again = house.ask(via, "POST", "/tenure/runs", &charge("a")).await;
        assert_eq!((again.status, again.word("handle")), (200, handle.clone()));
        for listener in [Via::Unix, Via::Tcp] {
            for header in [format!("X-Vault-Token: {handle}"), format!("Authorization: Bearer {handle}")] {
                let read = house.send(listener, "GET", "/v1/secret/data/app", &header, "").await;
                assert_eq!(
                    (read.status, read.json()["data"]["data"]["key"].as_str()),
                    (200, Some("canary-one"))
                );
            }
            let own =
                house.ask_as(listener, &handle, "GET", "/v1/auth/token/lookup-self", &Value::Null).await;
            assert_eq!(own.json()["data"]["meta"]["execution_arn"], execution("a").as_str());
        }
        let shown = house.ask(via, "GET", &path, &Value::Null).await;
        assert_eq!((shown.status, shown.word("phase")), (200, "open".to_owned()));
        assert!(!shown.body.contains("tnr_"), "a handle is told once: {}", shown.body);
        let listed = house.ask(via, "GET", "/tenure/runs", &Value::Null).await.json();
        assert_eq!(listed["runs"].as_array().map(Vec::len), Some(1), "{listed}");
        let before = shown.word("deadline");
        let extended = house.ask(via, "PATCH", &path, &json!({ "timeout_seconds": 600 })).await;
        assert!(extended.status == 200 && extended.word("deadline") > before, "{}", extended.body);
        let ended = house.ask(via, "DELETE", &path, &Value::Null).await;
        assert_eq!((ended.status, ended.body.as_str()), (204, ""));
        house.over(1).await;
        assert_eq!(house.ask(via, "DELETE", &path, &Value::Null).await.status, 204, "it stays so");
        for (method, body) in [("GET", Value::Null), ("PATCH", json!({ "timeout_seconds": 60 }))] {
            let why = house.ask(via, method, &path, &body).await.refused(410, "Tenure.RunOver");
            assert!(why.contains("it was ended"), "{why}");
        }
        for listener in [Via::Unix, Via::Tcp] {
            let read = house.ask_as(listener, &handle, "GET", "/v1/secret/data/app", &Value::Null).await;
            let why = read.refused(410, "Tenure.RunOver");
            assert!(why.contains("it was ended; its credentials are revoked"), "{why}");
        }
    }
    house.close().await;
}

#[tokio::test]
async fn a_read_names_its_execution_and_is_that_runs() {
    let house = House::new(vec![Rule { matches: state("Charge"), ..rule() }]).await;
    let path = "/v1/auth/token/lookup-self";
    let named = |arn: &str, state: &str| {
        let token = format!("x-vault-token: {}", house.token);
        format!("x-tenure-execution: {arn}\r\nx-tenure-state: {state}\r\nx-tenure-attempt: 0\r\n{token}")
    };
    let a = execution("a");
    for via in [Via::Unix, Via::Tcp] {
        let header = named(a.as_str(), "Charge");
        for _ in 0..3 {
            let read = house.send(via, "GET", "/v1/secret/data/app", &header, "").await;
            assert_eq!(read.status, 200, "{}", read.body);
        }
        let own = house.send(via, "GET", path, &header, "").await.json();
        assert_eq!(own["data"]["meta"]["execution_arn"], a.as_str(), "{own}");
        // It is the very run that is registered by its registrant, who alone learns its handle.
        let told = json!({ "execution_arn": a.as_str(), "state": "Charge", "attempt": 0 });
        let again = house.ask(via, "POST", "/tenure/runs", &told).await;
        assert_eq!(
            (again.status, again.word("id")),
            (200, own["data"]["meta"]["run"].as_str().unwrap().into())
        );
        let ended =
            house.ask(via, "DELETE", &format!("/tenure/runs/{}", again.word("id")), &Value::Null).await;
        assert_eq!(ended.status, 204);
        house.over(1).await;
        let why = house.send(via, "GET", path, &named(a.as_str(), "Ship"), "").await;
        assert!(why.refused(403, "Tenure.Denied").contains("rule"), "{}", why.body);
        let why = house.send(via, "GET", path, &named("orders", "Charge"), "").await;
        assert!(why.refused(400, "Tenure.BadRequest").contains("x-tenure-execution: "), "{}", why.body);
        // Who holds a handle registers in that run's limits, and its rule says whether it may.
        let (_, handle) = house.registered(via, &charge("b")).await;
        let header = named(a.as_str(), "Charge").replace(&house.token, &handle);
        let why = house.send(via, "GET", path, &header, "").await.refused(403, "Tenure.Denied");
        assert!(why.contains("may_register"), "{why}");
        house.ask_as(via, &handle, "GET", path, &Value::Null).await;
        let runs = house.stage.broker.runs();
        runs.all().iter().skip(1).for_each(|run| runs.finish(run, tenure::runs::Cause::Ended));
        house.over(1).await;
    }
    let registered = house.stage.lines(Event::RunRegister);
    let granted = registered.iter().filter(|line| line.outcome == Outcome::Granted).count();
    assert_eq!(granted, 6, "one for each run, and where a handle was told once more: {registered:#?}");
    house.close().await;
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_by_name_and_not_repeated() {
    let house = House::new(vec![rule()]).await;
    let too_long = "x".repeat(2049);
    let tags: serde_json::Map<_, _> = (0..33).map(|n| (format!("t{n}"), json!("x"))).collect();
    for (body, said) in [
        (json!([CANARY]).to_string(), "must be a JSON object"),
        (format!("{{\"task_token\": \"{CANARY}\""), "is not JSON: line 1"),
        (format!("{{\"task_token\": {CANARY}}}"), "is not JSON: line 1"),
        (json!({ "statee": "Charge" }).to_string(), "no such member: \"statee\""),
        (json!({ "execution_arn": "orders" }).to_string(), "execution_arn: \"orders\" is not the ARN"),
        (json!({ "execution_arn": 1 }).to_string(), "execution_arn: must be a string"),
        (json!({ "state": "" }).to_string(), "state: is empty"),
        (json!({ "state": "a\nb" }).to_string(), "state: has a control character"),
        (json!({ "attempt": -1 }).to_string(), "attempt: must be a whole number"),
        (json!({ "attempt": "0" }).to_string(), "attempt: must be a whole number"),
        (json!({ "attempt": 4_294_967_296_u64 }).to_string(), "attempt: must be a whole number"),
        (json!({ "timeout_seconds": 0 }).to_string(), "timeout_seconds: is not a number of seconds"),
        (json!({ "timeout_seconds": "60" }).to_string(), "timeout_seconds: must be a number"),
        (json!({ "timeout_seconds": 1e12 }).to_string(), "timeout_seconds: is not a number of seconds"),
        (json!({ "deadline": "tomorrow" }).to_string(), "deadline: \"tomorrow\" is not a time in RFC 3339"),
        (json!({ "deadline": "2020-01-01T00:00:00Z" }).to_string(), "deadline: the deadline"),
        (json!({ "tags": [] }).to_string(), "tags: must be an object of strings"),
        (json!({ "tags": { "a": 1 } }).to_string(), "tags: must be an object of strings"),
        (json!({ "tags": { "a": "x", "A": "y" } }).to_string(), "is given twice"),
        (json!({ "tags": tags }).to_string(), "32 tags"),
        (json!({ "subject": 1 }).to_string(), "subject: must be a string, or an object"),
        (json!({ "subject": { "id": "ada", "kind": "robot" } }).to_string(), "subject"),
        (json!({ "subject_token": [CANARY] }).to_string(), "subject_token: must be a string"),
        (json!({ "task_token": format!("{CANARY} ") }).to_string(), "task_token: holds what"),
        (json!({ "task_token": too_long }).to_string(), "task_token: is longer than 2048 bytes"),
        (
            json!({ "execution_arn": execution("a").as_str(), "parent_execution_arn": execution("a").as_str() })
                .to_string(),
            "not its own parent",
        ),
    ] {
        let answer = house.send(Via::Unix, "POST", "/tenure/runs", "", &body).await;
        let why = answer.refused(400, "Tenure.BadRequest");
        assert!(why.contains(said), "{body}: {why}");
        assert!(!answer.body.contains(CANARY), "{}", answer.body);
    }
    let large = json!({ "task_token": CANARY.repeat(4000) }).to_string();
    let answer = house.send(Via::Unix, "POST", "/tenure/runs", "", &large).await;
    assert!(answer.refused(413, "Tenure.BadRequest").contains("64 KiB"));
    let forged = json!({ "subject_token": CANARY });
    let answer = house.ask(Via::Unix, "POST", "/tenure/runs", &forged).await;
    assert!(answer.refused(403, "Tenure.Denied").contains("signature") && !answer.body.contains(CANARY));
    assert_eq!(house.stage.broker.runs().count(), 1);
    let (path, _) = house.registered(Via::Unix, &Value::Null).await;
    for (body, said) in [
        (json!({}), "say until when"),
        (json!({ "state": "Ship" }), "no such member: \"state\"; an extension has"),
        (json!({ "timeout_seconds": null }), "say until when"),
    ] {
        let why = house.ask(Via::Unix, "PATCH", &path, &body).await.refused(400, "Tenure.BadRequest");
        assert!(why.contains(said), "{why}");
    }
    for (method, path) in [("PUT", "/tenure/runs"), ("DELETE", "/tenure/runs"), ("POST", &*path)] {
        house.ask(Via::Unix, method, path, &Value::Null).await.refused(405, "Tenure.BadRequest");
    }
    house.close().await;
}

#[tokio::test]
async fn a_handle_is_its_run_and_nothing_more() {
    let register = Rule { may_register: true, matches: state("Start"), ..rule() };
    let house = House::new(vec![register, rule()]).await;
    let start = json!({ "execution_arn": execution("a").as_str(), "state": "Start" });
    let (path, handle) = house.registered(Via::Tcp, &start).await;
    let (other, _) = house.registered(Via::Tcp, &charge("b")).await;
    let tcp = |method: &'static str, path: String, body: Value| {
        let (house, handle) = (&house, &handle);
        async move { house.ask_as(Via::Tcp, handle, method, &path, &body).await }
    };
    let longer = json!({ "timeout_seconds": 600 });
    tcp("PATCH", path.clone(), longer.clone()).await.refused(404, "Tenure.NotFound");
    assert_eq!(tcp("GET", path.clone(), Value::Null).await.status, 200, "itself it may see");
    for (method, body) in [("GET", Value::Null), ("PATCH", longer), ("DELETE", Value::Null)] {
        let why = tcp(method, other.clone(), body).await.refused(404, "Tenure.NotFound");
        assert!(why.contains("there is no such run, or it is not yours"), "{why}");
    }
    let own = format!("/tenure/runs/{}", house.stage.broker.runs().own().run.id);
    tcp("GET", own.clone(), Value::Null).await.refused(404, "Tenure.NotFound");
    house.ask(Via::Unix, "DELETE", &own, &Value::Null).await.refused(404, "Tenure.NotFound");
    // What another registered on TCP is not for the Unix socket's users, and the other way round.
    house.ask(Via::Unix, "GET", &path, &Value::Null).await.refused(404, "Tenure.NotFound");
    let (of_unix, _) = house.registered(Via::Unix, &charge("c")).await;
    house.ask(Via::Tcp, "DELETE", &of_unix, &Value::Null).await.refused(404, "Tenure.NotFound");
    let listed = tcp("GET", "/tenure/runs".to_owned(), Value::Null).await.json();
    assert_eq!(listed["runs"].as_array().map(Vec::len), Some(1), "itself alone: {listed}");
    // What it registered is its own to see, to extend and to end.
    let child = tcp("POST", "/tenure/runs".to_owned(), charge("d")).await;
    assert_eq!(child.status, 201, "{}", child.body);
    assert_eq!(format!("/tenure/runs/{}", child.word("parent")), path);
    let child_path = format!("/tenure/runs/{}", child.word("id"));
    assert_eq!(tcp("GET", child_path.clone(), Value::Null).await.status, 200);
    assert_eq!(tcp("PATCH", child_path.clone(), json!({ "timeout_seconds": 600 })).await.status, 200);
    let denied = house.ask_as(Via::Tcp, &child.word("handle"), "POST", "/tenure/runs", &charge("e")).await;
    assert!(denied.refused(403, "Tenure.Denied").contains("may_register"));
    // It may end itself, and what it registered ends with it.
    assert_eq!(tcp("DELETE", path, Value::Null).await.status, 204);
    house.over(3).await;
    let gone =
        house.ask_as(Via::Tcp, &child.word("handle"), "GET", "/v1/secret/data/app", &Value::Null).await;
    assert!(gone.refused(410, "Tenure.RunOver").contains("the run or execution that started it is over"));
    house.close().await;
}

#[tokio::test]
async fn a_handle_of_one_run_shows_nothing_of_the_others() {
    let house = House::new(vec![rule()]).await;
    let (_, handle) = house.registered(Via::Tcp, &charge("mine")).await;
    let (path, other) = house.registered(Via::Tcp, &charge("another")).await;
    house.ask_as(Via::Tcp, &other, "GET", "/v1/database/creds/billing", &Value::Null).await;
    for page in ["/tenure/leases", "/tenure/runs", "/metrics", "/tenure/ready"] {
        let shown = house.ask_as(Via::Tcp, &handle, "GET", page, &Value::Null).await;
        let id = path.rsplit('/').next().expect("an id");
        let told =
            shown.body.contains(id) || shown.body.contains("another") || shown.body.contains("billing");
        assert!(!told, "{page}: {}", shown.body);
    }
    house.close().await;
}

#[tokio::test]
async fn tcp_asks_for_a_token_and_knows_only_ours() {
    let house = House::new(vec![rule()]).await;
    for (header, said) in [
        ("", "this listener needs the local token"),
        ("x-vault-token: hvs.canary-that-must-not-be-told", "not one of this broker's"),
        ("x-vault-token: tnr_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "not one of this broker's"),
        ("authorization: Bearer tnr_", "not one of this broker's"),
    ] {
        let body = charge("a").to_string();
        let answer = house.send(Via::Tcp, "POST", "/tenure/runs", header, &body).await;
        assert!(answer.refused(403, "Tenure.Denied").contains(said), "{header}: {}", answer.body);
        assert!(!answer.body.contains(CANARY));
    }
    let denied = house.stage.lines(Event::Request);
    assert!(denied.len() == 4 && denied.iter().all(|line| line.outcome == Outcome::Denied), "{denied:?}");
    assert_eq!(house.stage.broker.runs().count(), 1);
    house.close().await;
}

#[tokio::test]
async fn each_refusal_has_the_name_that_a_state_machine_can_catch() {
    let house = House::new(vec![Rule { matches: state("Charge"), ..rule() }]).await;
    let ship = json!({ "execution_arn": execution("a").as_str(), "state": "Ship" });
    let answer = house.ask(Via::Unix, "POST", "/tenure/runs", &ship).await;
    assert!(answer.refused(403, "Tenure.Denied").contains("no [[run.rule]] matches"));
    house.ask(Via::Unix, "GET", "/tenure/runs/run-0", &Value::Null).await.refused(404, "Tenure.NotFound");
    house.ask(Via::Unix, "GET", "/v1/secret/data/nothing", &Value::Null).await;
    house.stage.memory.fail(true);
    let answer = house.ask(Via::Unix, "POST", "/tenure/runs", &charge("a")).await;
    assert!(answer.refused(503, "Tenure.Unavailable").contains("audit log"));
    house.stage.memory.fail(false);
    // A log that failed is tried again by the next line, after a moment.
    let started = tokio::time::Instant::now();
    while house.ask(Via::Unix, "POST", "/tenure/runs", &charge("x0")).await.status != 201 {
        assert!(started.elapsed() < secs(10), "the log works");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for number in 1..100 {
        house.registered(Via::Unix, &charge(&format!("x{number}"))).await;
    }
    let answer = house.ask(Via::Unix, "POST", "/tenure/runs", &charge("one-more")).await;
    assert!(answer.refused(429, "Tenure.Busy").contains("run.max_runs"));
    house.close().await;
}
