//! The example functions with the extension, in environments that are frozen for longer than their credentials live.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::aws::Lambda;
use crate::broker::{SOON, Setup};
use crate::harness::{Server, text};

against_both! { no_invocation_gets_a_dead_credential }

/// Less than a lease lives: the functions ask for one that outlives them.
const TIME_OUT: Duration = Duration::from_millis(3900);

/// Longer than a lease of 4 s, a login of 6 s and a run token of 5 s live.
const LONG: Duration = Duration::from_millis(6500);

const ENVIRONMENTS: usize = 5;
const INVOCATIONS: usize = 40;

/// Leases of a few seconds, a login of a few seconds, a run token of a few seconds; the machine stands still for a moment
/// most often, now and then for longer than any of them. Every second invocation is for an execution of its own.
fn no_invocation_gets_a_dead_credential(server: &Server) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let users = runtime.block_on(async {
        let mut all = Vec::new();
        for number in 0..ENVIRONMENTS {
            let language = if number % 2 == 0 { Language::Python } else { Language::Node };
            all.push(environment(server, number, language));
        }
        together(all).await
    });
    let seen: BTreeSet<String> = users.into_iter().flatten().collect();
    // Each execution has one of its own, and what the environments held was dead after each long freeze.
    assert!(seen.len() > ENVIRONMENTS * INVOCATIONS / 2 + 3 * ENVIRONMENTS, "{}", seen.len());
    let seen: Vec<String> = seen.into_iter().collect();
    crate::harness::wait_until("nobody is left", SOON, || server.database.existing(&seen).is_empty());
}

/// All of them at a time, in this task.
async fn together<T>(all: Vec<impl Future<Output = T>>) -> Vec<T> {
    let mut all: Vec<_> = all.into_iter().map(|one| (Box::pin(one), None)).collect();
    std::future::poll_fn(|context| {
        for (future, done) in &mut all {
            if done.is_none()
                && let std::task::Poll::Ready(value) = future.as_mut().poll(context)
            {
                *done = Some(value);
            }
        }
        match all.iter().all(|(_, done)| done.is_some()) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
    all.into_iter().filter_map(|(_, done)| done).collect()
}

/// One environment, from its start to its end: the database users that its function had.
async fn environment(server: &Server, number: usize, language: Language) -> Vec<String> {
    let lambda = Lambda::start().await;
    let runtime = Runtime::start().await;
    let setup = Setup::new(server)
        .set("vault.auth.aws", "role", "orders-short")
        .set("run", "ttl", "5s")
        .and("[[run.rule]]\nmatch = { state_machine = \"orders\" }\n");
    let mut command = Command::from(setup.extension(&lambda.address));
    let log = std::fs::File::create(setup.dir().join("log")).expect("a file");
    let mut extension =
        command.stderr(log).stdout(Stdio::null()).kill_on_drop(true).spawn().expect("it starts");
    let said = || std::fs::read_to_string(setup.dir().join("log")).unwrap_or_default();
    until(&said, "the extension waits", || lambda.is_waited_for()).await;
    // Lambda starts the function when all extensions are ready.
    let function = language.start(server, setup.dir(), &runtime);
    until(&said, "the function waits", || runtime.is_waited_for()).await;
    let processes = [&extension, &function]
        .map(|child| child.id().and_then(|pid| Pid::from_raw(pid.cast_signed())).expect("a process"));
    let mut users = Vec::new();
    for invocation in 0..INVOCATIONS {
        let request = lambda.request_id();
        let event = match invocation % 2 {
            0 => json!({}),
            _ => json!({"execution": {
                "arn": format!("arn:aws:states:eu-west-1:123456789012:execution:orders:lambda-{number}-{invocation}"),
                "state": "Größe prüfen", "attempt": 0,
            }}),
        };
        lambda.invoke(&request, TIME_OUT);
        let began = Instant::now();
        let answered = runtime.invoke(&lambda, &request, TIME_OUT, &event);
        lambda.started(&request);
        let answer = tokio::time::timeout(TIME_OUT, answered).await;
        let answer =
            answer.unwrap_or_else(|_| panic!("{request} is out of time: {}", said())).expect("an answer");
        lambda.done(&request, if answer["one"] == 1 { "success" } else { "error" });
        assert_eq!(
            answer["one"],
            1,
            "{language:?} {request} after {:?}: {answer}\n{}",
            began.elapsed(),
            said()
        );
        users.push(text(&answer["user"]).to_owned());
        until(&said, "both wait", || lambda.is_waited_for() && runtime.is_waited_for()).await;
        freeze(&processes, pause(number, invocation)).await;
    }
    lambda.shut_down("spindown", Duration::from_secs(2));
    let ended = tokio::time::timeout(Duration::from_secs(2), extension.wait()).await;
    assert!(ended.expect("in time").expect("it ended").success(), "{}", said());
    let audit = std::fs::read(setup.dir().join("audit.jsonl")).expect("the audit log");
    assert!(tenure::audit::verify(&audit[..]).expect("it is read").is_good());
    drop(function);
    users
}

/// How long the environment stands still after an invocation: three times in forty for longer than anything lives.
fn pause(number: usize, invocation: usize) -> Duration {
    let scattered = ((number * INVOCATIONS + invocation) as u64).wrapping_mul(2_654_435_761) >> 7;
    match invocation % 12 {
        7 => LONG,
        _ => Duration::from_millis(scattered % 300),
    }
}

async fn freeze(processes: &[Pid], span: Duration) {
    for process in processes {
        kill_process(*process, Signal::STOP).expect("a signal");
    }
    tokio::time::sleep(span).await;
    for process in processes {
        kill_process(*process, Signal::CONT).expect("a signal");
    }
}

async fn until(said: &impl Fn() -> String, what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < SOON, "not within {SOON:?}: {what}\n{}", said());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[derive(Clone, Copy, Debug)]
enum Language {
    Python,
    Node,
}

impl Language {
    fn start(self, server: &Server, dir: &Path, runtime: &Runtime) -> Child {
        let project = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let (program, bootstrap, code) = match self {
            Self::Python => (text(&server.stack["python"]), "python.py", "python"),
            Self::Node => ("node", "node.js", "node"),
        };
        let postgres = &server.stack["postgres"];
        let functions = project.join("tests/stack/function");
        let mut command = Command::new(program);
        command
            .arg(functions.join(bootstrap))
            .arg(project.join("examples/lambda").join(code))
            .env("AWS_LAMBDA_RUNTIME_API", &runtime.address)
            .env("TENURE_SOCKET", dir.join("tenure.sock"))
            .env("SECRET_PATH", "database/creds/orders-short")
            .env("PGHOST", text(&postgres["host"]))
            .env("PGPORT", postgres["port"].to_string())
            .env("PGDATABASE", text(&postgres["dbname"]))
            .env("PSQL", text(&postgres["psql"]))
            .env("NODE_PATH", functions.join("modules"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command.spawn().unwrap_or_else(|error| panic!("{program} is needed for this test: {error}"))
    }
}

/// The Runtime API, which the function's process asks: one invocation at a time.
///
/// <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html>
struct Runtime {
    address: String,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    waiting: Option<oneshot::Sender<Response<Full<Bytes>>>>,
    answers: Option<oneshot::Sender<Value>>,
}

impl Runtime {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let state = Arc::<Mutex<State>>::default();
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&shared);
                let service = service_fn(move |request| answer(Arc::clone(&state), request));
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Self { address, state }
    }

    fn is_waited_for(&self) -> bool {
        lock(&self.state).waiting.as_ref().is_some_and(|waiting| !waiting.is_closed())
    }

    /// Hands out an invocation, and brings what the function answers.
    fn invoke(
        &self,
        lambda: &Lambda,
        id: &str,
        time_out: Duration,
        event: &Value,
    ) -> oneshot::Receiver<Value> {
        let (answers, answered) = oneshot::channel();
        let told = Response::builder()
            .header("lambda-runtime-aws-request-id", id)
            .header("lambda-runtime-deadline-ms", lambda.in_millis(time_out))
            .body(Full::new(Bytes::from(event.to_string())))
            .expect("an answer");
        let mut state = lock(&self.state);
        state.answers = Some(answers);
        state.waiting.take().expect("the function waits").send(told).expect("the function still waits");
        answered
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn answer(
    state: Arc<Mutex<State>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.uri().path().ends_with("/next") {
        let (tell, told) = oneshot::channel();
        lock(&state).waiting = Some(tell);
        return Ok(told.await.unwrap_or_default());
    }
    let body =
        request.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    if let Some(answers) = lock(&state).answers.take() {
        let _ = answers.send(serde_json::from_slice(&body).unwrap_or_default());
    }
    Ok(Response::default())
}
