//! A workload: a real HTTP client on the broker's socket.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

/// No read of the demo takes longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// One connection to the socket.
pub(super) struct Reader(SendRequest<Empty<Bytes>>);

/// What came back.
pub(super) struct Got {
    pub(super) status: u16,
    headers: HeaderMap,
    body: serde_json::Value,
}

impl Reader {
    pub(super) async fn connect(socket: &Path) -> Result<Self, String> {
        let stream = UnixStream::connect(socket).await.map_err(|error| format!("connecting: {error}"))?;
        let (sender, connection) =
            handshake(TokioIo::new(stream)).await.map_err(|error| format!("connecting: {error}"))?;
        tokio::spawn(async move {
            // That it ended is seen by whoever sends next.
            let _ = connection.await;
        });
        Ok(Self(sender))
    }

    /// `GET /v1/<path>`, as any Vault client does.
    pub(super) async fn read(&mut self, path: &str) -> Result<Got, String> {
        let asked = async {
            let request = http::Request::get(format!("/v1/{path}"))
                .header(http::header::HOST, "localhost")
                .body(Empty::new())
                .map_err(|error| error.to_string())?;
            self.0.ready().await.map_err(|error| error.to_string())?;
            let answer = self.0.send_request(request).await.map_err(|error| error.to_string())?;
            let (parts, body) = answer.into_parts();
            let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
            let body = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
            Ok(Got { status: parts.status.as_u16(), headers: parts.headers, body })
        };
        tokio::time::timeout(PATIENCE, asked)
            .await
            .unwrap_or_else(|_| Err("no answer".to_owned()))
            .map_err(|error| format!("reading {path}: {error}"))
    }
}

impl Got {
    /// A header's text, empty where it is absent.
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// A member of the answer by its JSON pointer, empty where it is absent or no text.
    pub(super) fn text(&self, pointer: &str) -> &str {
        self.body.pointer(pointer).and_then(serde_json::Value::as_str).unwrap_or_default()
    }

    pub(super) fn number(&self, pointer: &str) -> Option<u64> {
        self.body.pointer(pointer).and_then(serde_json::Value::as_u64)
    }
}
