//! A workload: a real HTTP client on the broker's socket.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;

/// No request of the demo takes longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// One connection to the socket.
pub(super) struct Reader {
    connection: SendRequest<Full<Bytes>>,
    /// The handle of the run that it reads for. Without one it reads for the process's own.
    handle: Option<String>,
}

/// What came back.
pub(super) struct Got {
    pub(super) status: u16,
    headers: HeaderMap,
    body: Value,
}

impl Reader {
    pub(super) async fn connect(socket: &Path, handle: Option<&str>) -> Result<Self, String> {
        let stream = UnixStream::connect(socket).await.map_err(|error| format!("connecting: {error}"))?;
        let (sender, connection) =
            handshake(TokioIo::new(stream)).await.map_err(|error| format!("connecting: {error}"))?;
        tokio::spawn(async move {
            // That it ended is seen by whoever sends next.
            let _ = connection.await;
        });
        Ok(Self { connection: sender, handle: handle.map(str::to_owned) })
    }

    /// `GET /v1/<path>` with the handle as the Vault token, as any Vault client does.
    pub(super) async fn read(&mut self, path: &str) -> Result<Got, String> {
        self.ask(Method::GET, &format!("/v1/{path}"), Bytes::new()).await
    }

    /// `POST /tenure/runs`.
    pub(super) async fn register(&mut self, run: &Value) -> Result<Got, String> {
        self.ask(Method::POST, "/tenure/runs", Bytes::from(run.to_string())).await
    }

    async fn ask(&mut self, method: Method, path: &str, body: Bytes) -> Result<Got, String> {
        let asked = async {
            let mut request = http::Request::builder()
                .method(method.clone())
                .uri(path)
                .header(http::header::HOST, "localhost");
            if let Some(handle) = &self.handle {
                request = request.header("x-vault-token", handle);
            }
            let request = request.body(Full::new(body)).map_err(|error| error.to_string())?;
            self.connection.ready().await.map_err(|error| error.to_string())?;
            let answer = self.connection.send_request(request).await.map_err(|error| error.to_string())?;
            let (parts, body) = answer.into_parts();
            let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
            let body = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
            Ok(Got { status: parts.status.as_u16(), headers: parts.headers, body })
        };
        tokio::time::timeout(PATIENCE, asked)
            .await
            .unwrap_or_else(|_| Err("no answer".to_owned()))
            .map_err(|error| format!("{method} {path}: {error}"))
    }
}

impl Got {
    /// A header's text, empty where it is absent.
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// A member of the answer by its JSON pointer, empty where it is absent or no text.
    pub(super) fn text(&self, pointer: &str) -> &str {
        self.body.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    pub(super) fn number(&self, pointer: &str) -> Option<u64> {
        self.body.pointer(pointer).and_then(Value::as_u64)
    }

    /// What is wrong, as the door says it.
    pub(super) fn error(&self) -> &str {
        self.text("/errors/0")
    }
}
