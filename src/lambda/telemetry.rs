//! Where Lambda posts its telemetry: by it an extension learns that an invocation is over.
//!
//! Any process of the function can post here, too: the way to it has a word in it that they do not know, and all that it
//! could say is that an invocation is over.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::supervise::Supervisor;

/// The largest batch: what is asked for is at most 256 KiB.
const LARGEST: usize = 2 << 20;

/// Connections at a time; Lambda uses one.
const MOST_CONNECTIONS: usize = 16;

/// By which name Lambda reaches processes of the environment.
const HOST: &str = "sandbox.localdomain";

/// What an extension needs to know of an invocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// It began.
    Started {
        /// Its request id.
        request: String,
        /// Its X-Ray trace header.
        trace: Option<String>,
    },
    /// The function is done with it.
    Done {
        /// Its request id.
        request: String,
        /// `success`, `failure`, `error` or `timeout`.
        status: String,
    },
}

/// The listener.
#[derive(Debug)]
pub(super) struct Telemetry {
    listener: TcpListener,
    path: Arc<str>,
    port: u16,
}

#[derive(Deserialize)]
struct RawEvent {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    record: serde_json::Value,
}

impl Telemetry {
    /// Listens where Lambda can reach it, on a port that the system chooses. `word` stands in the way to it.
    ///
    /// # Errors
    /// The operating system's.
    pub(super) async fn listen(word: &str) -> std::io::Result<Self> {
        // Outside Lambda nobody knows that name.
        let listener = match TcpListener::bind((HOST, 0)).await {
            Ok(listener) => listener,
            Err(_) => TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?,
        };
        let port = listener.local_addr()?.port();
        Ok(Self { listener, path: format!("/telemetry/{word}").into(), port })
    }

    /// Where it is to be posted.
    #[must_use]
    pub(super) fn destination(&self) -> String {
        format!("http://{HOST}:{}{}", self.port, self.path)
    }

    /// Serves until the process ends.
    pub(super) async fn serve(self, told: mpsc::UnboundedSender<Told>, supervisor: Supervisor) {
        let slots = Arc::new(tokio::sync::Semaphore::new(MOST_CONNECTIONS));
        loop {
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
            let Ok((stream, _)) = self.listener.accept().await else {
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            };
            let (told, path) = (told.clone(), Arc::clone(&self.path));
            supervisor.spawn("telemetry", async move {
                let _slot = slot;
                let service = service_fn(|request| {
                    let (told, path) = (told.clone(), Arc::clone(&path));
                    async move { Ok::<_, Infallible>(take(request, &path, &told).await) }
                });
                if let Err(error) =
                    http1::Builder::new().serve_connection(TokioIo::new(stream), service).await
                {
                    tracing::debug!(%error, "a connection of telemetry ended early");
                }
            });
        }
    }
}

async fn take(
    request: Request<Incoming>,
    path: &str,
    told: &mpsc::UnboundedSender<Told>,
) -> Response<Full<Bytes>> {
    let answer = |status| {
        let mut answer = Response::new(Full::default());
        *answer.status_mut() = status;
        answer
    };
    if request.method() != Method::POST || request.uri().path() != path {
        return answer(StatusCode::NOT_FOUND);
    }
    let Ok(body) = Limited::new(request.into_body(), LARGEST).collect().await else {
        return answer(StatusCode::PAYLOAD_TOO_LARGE);
    };
    for event in read(&body.to_bytes()) {
        // Nobody listens any more: the environment ends.
        let _ = told.send(event);
    }
    answer(StatusCode::OK)
}

/// What of a batch is of interest. What is not of the documented form is passed over: telemetry is told as well as can be.
fn read(batch: &[u8]) -> Vec<Told> {
    let events: Vec<serde_json::Value> = serde_json::from_slice(batch).unwrap_or_default();
    events.into_iter().filter_map(|event| of(&serde_json::from_value(event).ok()?)).collect()
}

fn of(event: &RawEvent) -> Option<Told> {
    let text = |pointer: &str| event.record.pointer(pointer)?.as_str().map(str::to_owned);
    match event.kind.as_str() {
        "platform.start" => {
            Some(Told::Started { request: text("/requestId")?, trace: text("/tracing/value") })
        }
        "platform.runtimeDone" => {
            Some(Told::Done { request: text("/requestId")?, status: text("/status").unwrap_or_default() })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_all_telemetry_the_begin_and_the_end_of_invocations_are_of_interest() {
        // As documented in "Lambda Telemetry API Event schema reference".
        let batch = br#"[
            {"time":"2022-10-12T00:00:15.064Z","type":"platform.start","record":{"requestId":"6d68","version":"$LATEST",
             "tracing":{"spanId":"54565fb4","type":"X-Amzn-Trace-Id","value":"Root=1-62e9;Parent=4ef8;Sampled=1"}}},
            {"time":"2022-10-12T00:00:16.068Z","type":"platform.runtimeDone","record":{"requestId":"6d68",
             "status":"success","metrics":{"durationMs":140.0,"producedBytes":16}}},
            {"time":"2022-10-12T00:01:15.000Z","type":"platform.report","record":{"requestId":"6d68"}},
            {"time":"x","type":"function","record":"text"}, {"no":"event"}, 7,
            {"time":"x","type":"platform.runtimeDone","record":"[no object]"}
        ]"#;
        assert_eq!(
            read(batch),
            [
                Told::Started {
                    request: "6d68".into(),
                    trace: Some("Root=1-62e9;Parent=4ef8;Sampled=1".into())
                },
                Told::Done { request: "6d68".into(), status: "success".into() },
            ]
        );
        for nonsense in ["", "{}", "[1,2]", "[{}]", "\u{0}"] {
            assert_eq!(read(nonsense.as_bytes()), []);
        }
    }
}
