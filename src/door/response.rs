//! Answers in Vault's shape.

use std::io::Write as _;
use std::ops::Range;

use bytes::Bytes;
use http::header::{AGE, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{HeaderName, StatusCode};
use http_body_util::Full;
use zeroize::Zeroize as _;

use super::Response;
use crate::broker::{Denied, Disclosed};
use crate::clock::Timestamp;
use crate::lease::failure::Class;
use crate::lease::view::Freshness;

const EXPIRES: HeaderName = HeaderName::from_static("x-tenure-expires");
const SOURCE: HeaderName = HeaderName::from_static("x-tenure-source");
/// What the frame around an answer takes, without the texts in it: its own words, two numbers, the broker's warnings.
const FRAME: usize = 512;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// A JSON body.
pub(super) fn json(status: StatusCode, body: impl Into<Bytes>) -> Response {
    with_type(status, JSON, body.into())
}

pub(super) fn with_type(status: StatusCode, content_type: HeaderValue, body: Bytes) -> Response {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response.headers_mut().insert(CACHE_CONTROL, NO_STORE);
    response
}

/// Done, and there is nothing to say.
pub(super) fn no_content() -> Response {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(CACHE_CONTROL, NO_STORE);
    response
}

/// `{"errors": [message], "error": name}`: Vault's shape, and the name by which a state machine can retry or catch it.
pub(super) fn error(status: StatusCode, message: &str) -> Response {
    json(status, serde_json::json!({ "errors": [message], "error": name(status) }).to_string())
}

/// The name of an error, for `Retry` and `Catch` in a state machine.
fn name(status: StatusCode) -> &'static str {
    match status {
        StatusCode::FORBIDDEN => "Tenure.Denied",
        StatusCode::NOT_FOUND => "Tenure.NotFound",
        StatusCode::GONE => "Tenure.RunOver",
        StatusCode::TOO_MANY_REQUESTS => "Tenure.Busy",
        status if status.is_client_error() => "Tenure.BadRequest",
        _ => "Tenure.Unavailable",
    }
}

/// `Retry-After`, in seconds.
pub(super) fn retry_after(mut response: Response, seconds: u64) -> Response {
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    response
}

/// Writing is not served.
pub(super) fn read_only() -> Response {
    let mut response = error(
        StatusCode::METHOD_NOT_ALLOWED,
        "this broker serves reads: GET and LIST; write to Vault itself, with a login of your own",
    );
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, LIST"));
    response
}

/// The secret, in Vault's frame. This is where it is opened: against the receipt.
pub(super) fn disclosed(disclosed: &Disclosed) -> Response {
    let answer = &disclosed.granted.answer;
    let data = answer.data.open(&disclosed.receipt);
    // Six bytes are the most that JSON makes of one: a buffer that grew would leave the secret in the old one.
    let texts = [&*answer.request_id, &*answer.lease_id, &*answer.mount_type];
    let texts = texts
        .into_iter()
        .chain(answer.warnings.iter().map(String::as_str))
        .map(|text| 6 * text.len() + 3)
        .sum::<usize>();
    let mut body = Vec::with_capacity(data.len() + texts + FRAME);
    let secret = frame(&mut body, disclosed, data);
    debug_assert!(body.len() <= data.len() + texts + FRAME);
    labelled(wiped(StatusCode::OK, body, secret), disclosed)
}

/// A JSON body with a secret in it: the bytes stay in our own buffer, in which the secret is wiped when the response has
/// been written.
pub(super) fn wiped(status: StatusCode, body: Vec<u8>, secret: Range<usize>) -> Response {
    json(status, Bytes::from_owner(Body { bytes: body, secret }))
}

/// Says where the secret came from, how old it is and when it ends.
pub(super) fn labelled(mut response: Response, disclosed: &Disclosed) -> Response {
    let headers = response.headers_mut();
    headers.insert(SOURCE, HeaderValue::from_static(disclosed.freshness.word()));
    headers.insert(AGE, HeaderValue::from(disclosed.age.as_secs()));
    if let Ok(expires) = HeaderValue::from_str(Timestamp::of(disclosed.ends).as_str()) {
        headers.insert(EXPIRES, expires);
    }
    response
}

/// A buffer, and where in it the secret is.
struct Body {
    bytes: Vec<u8>,
    secret: Range<usize>,
}

impl AsRef<[u8]> for Body {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Body {
    fn wipe(&mut self) {
        self.bytes[self.secret.clone()].zeroize();
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        self.wipe();
    }
}

/// Writes the answer, and says where in it the secret is.
fn frame(body: &mut Vec<u8>, disclosed: &Disclosed, data: &[u8]) -> Range<usize> {
    let answer = &disclosed.granted.answer;
    body.extend_from_slice(b"{\"request_id\":");
    text(body, &answer.request_id);
    body.extend_from_slice(b",\"lease_id\":");
    text(body, &answer.lease_id);
    // Writing to a Vec does not fail.
    let left = disclosed.left.map_or(0, |left| left.as_secs());
    let _ = write!(body, ",\"renewable\":{},\"lease_duration\":{left},\"data\":", disclosed.renewable);
    let start = body.len();
    body.extend_from_slice(data);
    let secret = start..body.len();
    body.extend_from_slice(b",\"wrap_info\":null,\"warnings\":");
    warnings(body, disclosed);
    body.extend_from_slice(b",\"auth\":null,\"mount_type\":");
    text(body, &answer.mount_type);
    body.push(b'}');
    secret
}

fn warnings(body: &mut Vec<u8>, disclosed: &Disclosed) {
    let stale = (disclosed.freshness == Freshness::Stale)
        .then_some("Tenure: upstream cannot be reached; this value is as old as the Age header says");
    let short =
        disclosed.short.then_some("Tenure: this credential ends before the run does; read it again by then");
    let mut all =
        disclosed.granted.answer.warnings.iter().map(String::as_str).chain(stale).chain(short).peekable();
    if all.peek().is_none() {
        body.extend_from_slice(b"null");
        return;
    }
    let mut separator = b'[';
    for warning in all {
        body.push(separator);
        text(body, warning);
        separator = b',';
    }
    body.push(b']');
}

fn text(body: &mut Vec<u8>, value: &str) {
    // A string always serializes, and a Vec always takes it.
    let _ = serde_json::to_writer(body, value);
}

/// A denial, in Vault's shape.
pub(super) fn denied(denied: &Denied) -> Response {
    let (status, retry) = status_of(denied);
    if status == StatusCode::NOT_FOUND {
        // Vault says "nothing here" with an empty list.
        return json(status, &b"{\"errors\":[],\"error\":\"Tenure.NotFound\"}"[..]);
    }
    let response = error(status, &denied.to_string());
    match retry {
        Some(seconds) => retry_after(response, seconds),
        None => response,
    }
}

/// The one place where a denial becomes a status, and perhaps the seconds after which to try again.
pub(super) fn status_of(denied: &Denied) -> (StatusCode, Option<u64>) {
    match denied {
        Denied::Policy(_) => (StatusCode::FORBIDDEN, None),
        Denied::TooLong { .. } => (StatusCode::BAD_REQUEST, None),
        Denied::Full(_) => (StatusCode::TOO_MANY_REQUESTS, Some(1)),
        Denied::Over { .. } => (StatusCode::GONE, None),
        Denied::TimedOut { .. } | Denied::Ended | Denied::Unaudited(_) => {
            (StatusCode::SERVICE_UNAVAILABLE, Some(1))
        }
        Denied::Upstream { failure, retry_in } => {
            let status = match failure.class {
                Class::NotFound => StatusCode::NOT_FOUND,
                Class::Denied | Class::Forbidden => StatusCode::FORBIDDEN,
                Class::Transient | Class::TokenLost | Class::LeaseGone => match failure.status {
                    Some(429) => StatusCode::TOO_MANY_REQUESTS,
                    _ => StatusCode::SERVICE_UNAVAILABLE,
                },
                Class::Permanent => match failure.status.and_then(|status| StatusCode::from_u16(status).ok())
                {
                    Some(status) if status.is_client_error() => status,
                    // It was not upstream that said so, and what stands between may be put right at any time.
                    _ => StatusCode::SERVICE_UNAVAILABLE,
                },
            };
            let retry = (status == StatusCode::SERVICE_UNAVAILABLE
                || status == StatusCode::TOO_MANY_REQUESTS)
                .then(|| retry_in.as_secs() + 1);
            (status, retry)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wiped_is_the_secret() {
        let bytes = b"{\"data\":{\"key\":\"canary\"},\"auth\":null}".to_vec();
        let mut body = Body { secret: 8..24, bytes };
        body.wipe();
        assert_eq!(&body.bytes[..8], b"{\"data\":");
        assert!(body.bytes[8..24].iter().all(|byte| *byte == 0));
        assert_eq!(&body.bytes[24..], b",\"auth\":null}");
    }
}
