//! The ECS task that the broker runs in, as the task metadata endpoint tells it.
//!
//! Reference: <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-metadata-endpoint-v4.html>.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http::Uri;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;

use crate::causes::causes;
use crate::lease::failure::{Class, Failure};
use crate::run::workflow::EcsTask;

/// The variable that names the endpoint.
pub const VARIABLE: &str = "ECS_CONTAINER_METADATA_URI_V4";

/// It is on the same host.
const PATIENCE: Duration = Duration::from_secs(1);

/// A task of ten containers, each with the most labels that are allowed, is well below that.
const LIMIT: usize = 64 * 1024;

/// Asks the endpoint that [`VARIABLE`] names for the task; `None` if it is not set: this is no ECS task.
///
/// It is asked over plain HTTP, so only at a link-local or loopback address: whoever answers is taken at its word.
///
/// # Errors
/// The variable names something else, or the answer did not come within a second, is larger than 64 KiB, or is none. The
/// broker works without it: that is to be a warning.
pub async fn task(endpoint: Option<&str>) -> Result<Option<EcsTask>, Failure> {
    let Some(endpoint) = endpoint.filter(|endpoint| !endpoint.is_empty()) else { return Ok(None) };
    let uri = local(endpoint).map_err(|why| {
        let shown: String = endpoint.chars().take(100).collect();
        Failure::new(
            Class::Permanent,
            format!(
                "{VARIABLE} is {shown:?}, which {why}: it is ECS that sets it, to http://169.254.170.2/v4/<id>"
            ),
        )
    })?;
    let read = tokio::time::timeout(PATIENCE, read(uri));
    let answer = read.await.unwrap_or_else(|_| Err("there was no answer within a second".to_owned()));
    answer.and_then(|answer| understood(&answer)).map(Some).map_err(|why| {
        Failure::new(Class::Transient, format!("the ECS task metadata endpoint ({VARIABLE}): {why}"))
    })
}

/// Where the task is to be asked for, if that is on this host.
fn local(endpoint: &str) -> Result<Uri, &'static str> {
    let uri: Uri = endpoint.parse().map_err(|_| "is not a URL")?;
    if uri.scheme_str() != Some("http") {
        return Err("is not an http:// URL");
    }
    if uri.query().is_some() || uri.authority().is_none_or(|authority| authority.as_str().contains('@')) {
        return Err("has a query or a user");
    }
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let near = match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => address.is_loopback() || address.is_link_local(),
        Ok(IpAddr::V6(address)) => address.is_loopback() || address.is_unicast_link_local(),
        Err(_) => false,
    };
    if !near {
        return Err("does not name a link-local or loopback address");
    }
    format!("{}/task", endpoint.trim_end_matches('/')).parse().map_err(|_| "is not a URL")
}

async fn read(uri: Uri) -> Result<Bytes, String> {
    let client = Client::builder(TokioExecutor::new()).build::<_, Empty<Bytes>>(HttpConnector::new());
    let answer = client.get(uri).await.map_err(|error| causes(&error))?;
    let status = answer.status();
    if status != http::StatusCode::OK {
        return Err(format!("it answered {status}"));
    }
    match Limited::new(answer.into_body(), LIMIT).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) => Err(causes(&*error)),
    }
}

fn understood(answer: &[u8]) -> Result<EcsTask, String> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(rename = "TaskARN")]
        arn: String,
        #[serde(rename = "Family", default)]
        family: String,
        #[serde(rename = "Revision", default)]
        revision: String,
    }
    // The error says where it is wrong and what was expected; it quotes a value only where a type is wrong.
    let Answer { arn, family, revision } = serde_json::from_slice(answer).map_err(|error| {
        format!("its answer cannot be read (line {}, column {})", error.line(), error.column())
    })?;
    // All of it goes into logs and into a token's metadata.
    if !is_task(&arn) {
        return Err("the TaskARN in its answer is none".to_owned());
    }
    for (name, value) in [("Family", &family), ("Revision", &revision)] {
        if value.len() > 255 || !value.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(format!("the {name} in its answer is none"));
        }
    }
    Ok(EcsTask { arn, family, revision })
}

/// `arn:aws:ecs:eu-west-1:123456789012:task/cluster/id`.
fn is_task(arn: &str) -> bool {
    let parts: Vec<&str> = arn.splitn(6, ':').collect();
    let [arn_word, partition, service, region, account, task] = parts.as_slice() else { return false };
    *arn_word == "arn"
        && partition.starts_with("aws")
        && *service == "ecs"
        && !region.is_empty()
        && account.len() == 12
        && task.strip_prefix("task/").is_some_and(|id| !id.is_empty())
        && arn.len() <= 512
        && arn.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vault::fake::{Act, FakeVault};

    const ARN: &str = "arn:aws:ecs:us-west-2:111122223333:task/default/158d1c8083dd49d6b527399fd6414f5c";

    #[tokio::test]
    async fn no_variable_no_task() {
        assert_eq!(task(None).await, Ok(None));
        assert_eq!(task(Some("")).await, Ok(None));
    }

    #[tokio::test]
    async fn the_task_is_read() {
        let body = serde_json::json!({
            "Cluster": "default", "TaskARN": ARN, "Family": "curltest", "Revision": "26", "DesiredStatus": "RUNNING",
            "Limits": { "CPU": 0.25, "Memory": 512 }, "Containers": [{ "Name": "curl", "Labels": {} }],
        });
        let server = FakeVault::always(Act::json(200, &body.to_string())).await;
        let found = task(Some(&format!("{}/v4/abc/", server.address))).await;
        let expected = EcsTask { arn: ARN.into(), family: "curltest".into(), revision: "26".into() };
        assert_eq!(found, Ok(Some(expected)));
        assert_eq!(server.seen()[0].line, "GET /v4/abc/task");
    }

    #[tokio::test]
    async fn what_is_not_on_this_host_is_not_asked() {
        for (endpoint, why) in [
            ("http://10.0.0.7/v4/abc", "link-local or loopback"),
            ("http://169.254.170.2.example.org/v4", "link-local or loopback"),
            ("http://localhost.example.org/v4", "link-local or loopback"),
            ("http://[2001:db8::1]/v4", "link-local or loopback"),
            ("https://169.254.170.2/v4/abc", "not an http:// URL"),
            ("file:///etc/passwd", "not a"),
            ("169.254.170.2", "not an http:// URL"),
            ("http://user@127.0.0.1/v4", "a query or a user"),
            ("http://127.0.0.1/v4?x=", "a query or a user"),
            ("http://\n", "not a URL"),
            (&"x".repeat(100_000), "not a"),
        ] {
            let failure = task(Some(endpoint)).await.expect_err(endpoint);
            assert_eq!(failure.class, Class::Permanent);
            assert!(failure.message.contains(why) && failure.message.len() < 400, "{}", failure.message);
        }
        for endpoint in ["http://169.254.170.2/v4/abc", "http://[::1]:80/v4", "http://[fe80::1]/v4"] {
            assert!(local(endpoint).is_ok(), "{endpoint}");
        }
    }

    #[tokio::test]
    async fn an_answer_that_is_none_is_a_failure_soon_and_not_quoted() {
        let canary = "canary\u{1b}[2J";
        let with = |name: &str, value: &str| {
            let mut body = serde_json::json!({ "TaskARN": ARN, "Family": "f", "Revision": "1" });
            body[name] = value.into();
            Act::json(200, &body.to_string())
        };
        let cases = [
            (Act::json(500, canary), "500"),
            (Act::json(302, "").header("location", "http://10.0.0.7/"), "302"),
            (Act::json(200, ""), "cannot be read"),
            (Act::json(200, &format!("{{\"TaskARN\":[\"{canary}")), "cannot be read"),
            (Act::json(200, r#"{"TaskARN":"a","TaskARN":"b"}"#), "cannot be read"),
            (Act::json(200, r#"{"Family":"f"}"#), "cannot be read"),
            (Act::json(200, &"[".repeat(60_000)), "cannot be read"),
            (Act::json(200, &format!("{}{{}}", " ".repeat(70_000))), "length limit exceeded"),
            (with("TaskARN", canary), "TaskARN"),
            (with("TaskARN", "arn:aws:iam::111122223333:role/x"), "TaskARN"),
            (with("TaskARN", &format!("{ARN}\n")), "TaskARN"),
            (with("Family", canary), "Family"),
            (with("Revision", &"9".repeat(256)), "Revision"),
            (Act::Close, ""),
            (Act::Cut, ""),
            (Act::Hang, "within a second"),
            (Act::Drip, "within a second"),
        ];
        for (act, why) in cases {
            let server = FakeVault::always(act.clone()).await;
            let failure = task(Some(&server.address)).await.expect_err("no answer");
            assert_eq!(failure.class, Class::Transient);
            assert!(failure.message.contains(why), "{act:?}: {}", failure.message);
            assert!(!failure.message.contains("canary"), "{}", failure.message);
        }
    }
}
