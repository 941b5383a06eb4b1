//! The Extensions API and the subscription to the Telemetry API, as a client.
//!
//! <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-extensions-api.html>,
//! <https://docs.aws.amazon.com/lambda/latest/dg/telemetry-api-reference.html>

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use serde_json::json;

/// The longest answer that is read.
const LONGEST: usize = 64 * 1024;

/// How long anything but [`Extension::next`] may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why Lambda's API did not do what was asked of it.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// No answer.
    #[error("Lambda's API did not answer {what}: {why}")]
    Unreachable {
        /// What was asked.
        what: &'static str,
        /// Why not.
        why: String,
    },
    /// An answer that says no.
    #[error("Lambda's API answered {what} with {status}: {body}")]
    Refused {
        /// What was asked.
        what: &'static str,
        /// With which status.
        status: StatusCode,
        /// And what body, or its beginning.
        body: String,
    },
    /// An answer that is not of the documented form.
    #[error("Lambda's answer to {what} makes no sense: {why}")]
    Strange {
        /// What was asked.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
}

/// What an extension wants to be told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Events {
    /// Invocations, and the end.
    All,
    /// The end alone: an environment that serves several invocations at a time tells of nothing else.
    Shutdown,
}

/// What Lambda tells. Times are since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happened {
    /// The function is invoked, now.
    Invoke {
        /// The request id.
        request: String,
        /// When the function must be done.
        deadline: Duration,
        /// The ARN that was invoked.
        function_arn: String,
        /// The X-Ray trace header.
        trace: Option<String>,
    },
    /// The environment ends.
    Shutdown {
        /// `spindown`, `timeout` or `failure`.
        reason: String,
        /// When the process is killed.
        deadline: Duration,
    },
}

/// A registered extension.
#[derive(Clone, Debug)]
pub struct Extension {
    client: Client<HttpConnector, Full<Bytes>>,
    base: String,
    id: HeaderValue,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawEvent {
    event_type: String,
    #[serde(default)]
    deadline_ms: u64,
    #[serde(default)]
    request_id: String,
    #[serde(default)]
    invoked_function_arn: String,
    #[serde(default)]
    shutdown_reason: String,
    tracing: Option<RawTracing>,
}

#[derive(Deserialize)]
struct RawTracing {
    #[serde(default)]
    value: String,
}

impl Extension {
    /// Registers the extension `name`, which is the file name of its executable. The first thing that it does: Lambda
    /// counts the function's start from then on.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn register(api: &str, name: &str, events: Events) -> Result<Self, ApiError> {
        const WHAT: &str = "the registration";
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let strange = |why: String| ApiError::Strange { what: WHAT, why };
        let name = HeaderValue::from_str(name).map_err(|error| strange(error.to_string()))?;
        let mut extension = Self {
            client: Client::builder(TokioExecutor::new()).build(connector),
            base: format!("http://{api}"),
            id: HeaderValue::from_static(""),
        };
        let events: &[&str] = match events {
            Events::All => &["INVOKE", "SHUTDOWN"],
            Events::Shutdown => &["SHUTDOWN"],
        };
        let request = Request::post(extension.url("/2020-01-01/extension/register"))
            .header("Lambda-Extension-Name", name)
            .body(json_of(&json!({ "events": events })));
        let (headers, _) = extension.send(WHAT, request, Some(PATIENCE)).await?;
        let id = headers.get("lambda-extension-identifier").cloned();
        extension.id = id.ok_or_else(|| strange("it has no Lambda-Extension-Identifier".to_owned()))?;
        Ok(extension)
    }

    /// Has telemetry of the platform posted to `destination`.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn subscribe(&self, destination: &str) -> Result<(), ApiError> {
        let body = json!({
            "schemaVersion": "2022-12-13",
            "destination": { "protocol": "HTTP", "URI": destination },
            "types": ["platform"],
            // The least that is allowed: the end of an invocation is to be known soon.
            "buffering": { "maxItems": 1000, "maxBytes": 262_144, "timeoutMs": 25 },
        });
        let request = self.request(Method::PUT, "/2022-07-01/telemetry").body(json_of(&body));
        self.send("the subscription to telemetry", request, Some(PATIENCE)).await.map(drop)
    }

    /// Says that there is nothing left to do, and waits for what comes next. The process may be frozen meanwhile, for as
    /// long as Lambda likes.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn next(&self) -> Result<Happened, ApiError> {
        const WHAT: &str = "the question for the next event";
        let request = self.request(Method::GET, "/2020-01-01/extension/event/next").body(Full::default());
        let (_, body) = self.send(WHAT, request, None).await?;
        let strange = |why: String| ApiError::Strange { what: WHAT, why };
        let event: RawEvent = serde_json::from_slice(&body).map_err(|error| strange(error.to_string()))?;
        let deadline = Duration::from_millis(event.deadline_ms);
        match event.event_type.as_str() {
            "INVOKE" => Ok(Happened::Invoke {
                request: event.request_id,
                deadline,
                function_arn: event.invoked_function_arn,
                trace: event.tracing.map(|tracing| tracing.value).filter(|value| !value.is_empty()),
            }),
            "SHUTDOWN" => Ok(Happened::Shutdown { reason: event.shutdown_reason, deadline }),
            other => Err(strange(format!("its eventType is {other:?}"))),
        }
    }

    /// Says that the extension cannot start; the function does not start either.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn init_error(&self, kind: &str, message: &str) -> Result<(), ApiError> {
        self.error("/2020-01-01/extension/init/error", kind, message).await
    }

    /// Says that the extension ends before its time.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn exit_error(&self, kind: &str, message: &str) -> Result<(), ApiError> {
        self.error("/2020-01-01/extension/exit/error", kind, message).await
    }

    async fn error(&self, path: &str, kind: &str, message: &str) -> Result<(), ApiError> {
        let body = json!({ "errorMessage": message, "errorType": kind, "stackTrace": [] });
        let request = self
            .request(Method::POST, path)
            .header("Lambda-Extension-Function-Error-Type", kind)
            .body(json_of(&body));
        self.send("the report of an error", request, Some(PATIENCE)).await.map(drop)
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    fn request(&self, method: Method, path: &str) -> http::request::Builder {
        Request::builder().method(method).uri(self.url(path)).header("Lambda-Extension-Identifier", &self.id)
    }

    async fn send(
        &self,
        what: &'static str,
        request: Result<Request<Full<Bytes>>, http::Error>,
        patience: Option<Duration>,
    ) -> Result<(HeaderMap, Bytes), ApiError> {
        let request =
            request.map_err(|error| ApiError::Strange { what, why: crate::causes::causes(&error) })?;
        let unreachable = |why: String| ApiError::Unreachable { what, why };
        let exchange = async {
            let answer = self.client.request(request).await;
            let (head, body) =
                answer.map_err(|error| unreachable(crate::causes::causes(&error)))?.into_parts();
            let body = Limited::new(body, LONGEST).collect().await;
            let body = body.map_err(|error| unreachable(error.to_string()))?.to_bytes();
            match head.status.is_success() {
                true => Ok((head.headers, body)),
                false => {
                    let body = String::from_utf8_lossy(&body[..body.len().min(512)]).into_owned();
                    Err(ApiError::Refused { what, status: head.status, body })
                }
            }
        };
        match patience {
            None => exchange.await,
            Some(patience) => tokio::time::timeout(patience, exchange).await.unwrap_or_else(|_| {
                Err(unreachable(format!("nothing came within {}", humantime::format_duration(patience))))
            }),
        }
    }
}

fn json_of(body: &serde_json::Value) -> Full<Bytes> {
    Full::new(Bytes::from(body.to_string()))
}
