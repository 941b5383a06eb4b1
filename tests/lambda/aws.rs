//! Lambda's side, as its documentation has it: the Extensions API and the Telemetry API of one execution environment.
//!
//! <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-extensions-api.html>,
//! <https://docs.aws.amazon.com/lambda/latest/dg/telemetry-api-reference.html>

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tenure::clock::Clock;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Which extension it is, from its registration on.
const IDENTIFIER: &str = "0f7a7a2c-6f8b-4c8e-9d7e-3a0f3f7f0a11";

/// By how much telemetry is late at least: the smallest buffer that a subscriber may ask for.
const BUFFER: Duration = Duration::from_millis(25);

/// What the extension said.
#[derive(Clone, Debug)]
pub(crate) enum Said {
    Registered { name: String, events: Vec<String> },
    Subscribed(Value),
    Next,
    InitError { kind: String, body: Value },
    ExitError { kind: String, body: Value },
}

#[derive(Default)]
struct State {
    log: Vec<(Instant, Said)>,
    /// Whoever asks for the next event.
    waiting: Option<oneshot::Sender<Value>>,
    destination: Option<String>,
    /// Which paths are answered with which status instead, by what they end with.
    refusals: Vec<(&'static str, u16)>,
    invocations: u64,
}

/// It ends when it is dropped.
pub(crate) struct Lambda {
    /// `AWS_LAMBDA_RUNTIME_API`
    pub(crate) address: String,
    clock: Clock,
    state: Arc<Mutex<State>>,
    server: JoinHandle<()>,
}

impl Drop for Lambda {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Lambda {
    pub(crate) async fn start() -> Self {
        Self::start_at(Clock::system()).await
    }

    /// One whose deadlines are by that clock.
    pub(crate) async fn start_at(clock: Clock) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let state = Arc::<Mutex<State>>::default();
        let shared = Arc::clone(&state);
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&shared);
                let service = service_fn(move |request| answer(Arc::clone(&state), request));
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Self { address, clock, state, server }
    }

    /// Answers what ends so with that status.
    pub(crate) fn refuse(&self, path: &'static str, status: u16) {
        self.state().refusals.push((path, status));
    }

    pub(crate) fn log(&self) -> Vec<(Instant, Said)> {
        self.state().log.clone()
    }

    /// When the next event was asked for, each time.
    pub(crate) fn asked(&self) -> Vec<Instant> {
        let state = self.state();
        state.log.iter().filter(|(_, said)| matches!(said, Said::Next)).map(|(at, _)| *at).collect()
    }

    /// Whether somebody waits for the next event.
    pub(crate) fn is_waited_for(&self) -> bool {
        self.state().waiting.as_ref().is_some_and(|waiting| !waiting.is_closed())
    }

    /// The kind of error that the start ended with.
    pub(crate) fn init_error(&self) -> Option<(String, Value)> {
        self.state().log.iter().find_map(|(_, said)| match said {
            Said::InitError { kind, body } => Some((kind.clone(), body.clone())),
            _ => None,
        })
    }

    /// The kind of error that the extension ended with.
    pub(crate) fn exit_error(&self) -> Option<(String, Value)> {
        self.state().log.iter().find_map(|(_, said)| match said {
            Said::ExitError { kind, body } => Some((kind.clone(), body.clone())),
            _ => None,
        })
    }

    /// A request id for the next invocation.
    pub(crate) fn request_id(&self) -> String {
        let mut state = self.state();
        state.invocations += 1;
        format!("8476a536-e9f4-11e8-9739-{:012}", state.invocations)
    }

    /// Answers the question for the next event with an invocation.
    pub(crate) fn invoke(&self, request: &str, time_out: Duration) {
        self.tell(&json!({
            "eventType": "INVOKE", "deadlineMs": self.in_millis(time_out), "requestId": request,
            "invokedFunctionArn": "arn:aws:lambda:eu-west-1:123456789012:function:orders:live",
            "tracing": {"type": "X-Amzn-Trace-Id", "value": trace(request)},
        }));
    }

    /// Answers the question for the next event with the end.
    pub(crate) fn shut_down(&self, reason: &str, time: Duration) {
        self.tell(
            &json!({"eventType": "SHUTDOWN", "shutdownReason": reason, "deadlineMs": self.in_millis(time)}),
        );
    }

    /// So long from now, as Lambda tells it.
    pub(crate) fn in_millis(&self, time: Duration) -> u64 {
        u64::try_from((self.clock.now().wall() + time).as_millis()).expect("a time")
    }

    fn tell(&self, event: &Value) {
        let waiting = self.state().waiting.take().expect("somebody asks for the next event");
        waiting.send(event.clone()).expect("somebody still asks for the next event");
    }

    /// Posts that an invocation began.
    pub(crate) fn started(&self, request: &str) {
        self.post(json!([{"time": "2026-11-21T00:00:00.000Z", "type": "platform.start", "record": {
            "requestId": request, "version": "$LATEST",
            "tracing": {"spanId": "54565fb4", "type": "X-Amzn-Trace-Id", "value": trace(request)},
        }}]));
    }

    /// Posts that the function is done with an invocation.
    pub(crate) fn done(&self, request: &str, status: &str) {
        self.post(json!([{"time": "2026-11-21T00:00:00.000Z", "type": "platform.runtimeDone", "record": {
            "requestId": request, "status": status, "metrics": {"durationMs": 1.0, "producedBytes": 2},
        }}]));
    }

    /// As Lambda does, to whom `sandbox.localdomain` is the environment; nobody waits for it.
    fn post(&self, batch: Value) {
        let Some(destination) = self.state().destination.clone() else { return };
        tokio::spawn(async move {
            tokio::time::sleep(BUFFER).await;
            let rest =
                destination.strip_prefix("http://sandbox.localdomain:").expect("the name of the sandbox");
            let (port, path) = rest.split_once('/').expect("a path");
            let port: u16 = port.parse().expect("a port");
            let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)).await else { return };
            let body = batch.to_string();
            let head = format!(
                "POST /{path} HTTP/1.1\r\nhost: sandbox.localdomain\r\ncontent-type: application/json\r\n\
                 content-length: {}\r\nconnection: close\r\n\r\n",
                body.len()
            );
            if stream.write_all((head + &body).as_bytes()).await.is_ok() {
                let _ = stream.read_to_end(&mut Vec::new()).await;
            }
        });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The X-Ray header of an invocation.
pub(crate) fn trace(request: &str) -> String {
    format!("Root=1-62e90000-{};Parent=4ef8aaaabbbbcccc;Sampled=1", request.rsplit('-').next().unwrap_or(""))
}

async fn answer(
    state: Arc<Mutex<State>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let lock = || state.lock().unwrap_or_else(PoisonError::into_inner);
    let (path, method) = (request.uri().path().to_owned(), request.method().clone());
    let header = |name: &str| {
        request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
    };
    let (identifier, name) = (header("lambda-extension-identifier"), header("lambda-extension-name"));
    let kind = header("lambda-extension-function-error-type");
    let body =
        request.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let error = |status: u16, kind: &str| {
        Ok(reply(status, json!({"errorMessage": "told so", "errorType": kind}).to_string()))
    };
    let refusal = lock().refusals.iter().find(|(end, _)| path.ends_with(end)).map(|(_, status)| *status);
    if let Some(status) = refusal {
        return error(status, "Extension.Refused");
    }
    let log = |said: Said| lock().log.push((Instant::now(), said));
    if path == "/2020-01-01/extension/register" && method == Method::POST {
        let events = body["events"].as_array().into_iter().flatten();
        let events: Vec<String> = events.filter_map(|event| Some(event.as_str()?.to_owned())).collect();
        if name.is_empty() || events.iter().any(|event| !matches!(event.as_str(), "INVOKE" | "SHUTDOWN")) {
            return error(400, "Extension.InvalidRequest");
        }
        log(Said::Registered { name, events });
        let function =
            json!({"functionName": "orders", "functionVersion": "$LATEST", "handler": "h.handler"});
        let mut answer = reply(200, function.to_string());
        answer.headers_mut().insert("lambda-extension-identifier", IDENTIFIER.parse().expect("a value"));
        return Ok(answer);
    }
    if identifier != IDENTIFIER {
        return error(403, "Extension.InvalidExtensionIdentifier");
    }
    match (method.as_str(), path.as_str()) {
        ("PUT", "/2022-07-01/telemetry") => {
            let buffering = &body["buffering"];
            let fits = (25..=30_000).contains(&buffering["timeoutMs"].as_u64().unwrap_or(0))
                && (262_144..=1_048_576).contains(&buffering["maxBytes"].as_u64().unwrap_or(0))
                && (1_000..=10_000).contains(&buffering["maxItems"].as_u64().unwrap_or(0));
            let uri = body["destination"]["URI"].as_str().unwrap_or_default().to_owned();
            if !fits || !uri.starts_with("http://sandbox.localdomain:") {
                return error(400, "ValidationError");
            }
            lock().destination = Some(uri);
            log(Said::Subscribed(body));
            Ok(reply(200, "OK".to_owned()))
        }
        ("GET", "/2020-01-01/extension/event/next") => {
            let (tell, told) = oneshot::channel();
            {
                let mut state = lock();
                state.waiting = Some(tell);
                state.log.push((Instant::now(), Said::Next));
            }
            match told.await {
                Ok(event) => Ok(reply(200, event.to_string())),
                Err(_) => error(500, "Extension.Gone"),
            }
        }
        ("POST", "/2020-01-01/extension/init/error") => {
            log(Said::InitError { kind, body });
            Ok(reply(202, json!({"status": "OK"}).to_string()))
        }
        ("POST", "/2020-01-01/extension/exit/error") => {
            log(Said::ExitError { kind, body });
            Ok(reply(202, json!({"status": "OK"}).to_string()))
        }
        _ => error(404, "NotFound"),
    }
}

fn reply(status: u16, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status.try_into().expect("a status");
    response
}
