//! What a refusal by Vault means, and the words for it.

use std::time::Duration;

use http::StatusCode;
use http::header::{HeaderMap, RETRY_AFTER};
use serde::Deserialize;

use crate::clock::Moment;
use crate::lease::failure::{Class, Failure};

/// How much of Vault's own words goes into a message.
const QUOTE: usize = 600;

/// The one classification of answers that are not 2xx.
pub(super) fn classify(
    subject: &str,
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    now: Moment,
) -> Failure {
    let errors = errors(body);
    let said = if errors.is_empty() { snippet(body) } else { quoted(&errors) };
    let foreign = matches!(status.as_u16(), 401 | 403 | 404 | 407) && !is_vaults(body);
    let who = if foreign { "something before Vault" } else { "Vault" };
    let mut message = format!("{who} answered {} to {subject}", status.as_u16());
    if !said.is_empty() {
        message.push_str(": ");
        message.push_str(&said);
    }
    let cure = match foreign {
        true => Some(
            "that is a proxy's or a firewall's answer, not Vault's: does the address lead to Vault's API?",
        ),
        false => cure(status, &said),
    };
    if let Some(cure) = cure {
        message.push_str(" (");
        message.push_str(cure);
        message.push(')');
    }
    Failure {
        class: if foreign { Class::Transient } else { class(status) },
        message,
        status: Some(status.as_u16()),
        retry_after: retry_after(headers, now),
        request_id: request_id(body),
    }
}

fn class(status: StatusCode) -> Class {
    match status.as_u16() {
        403 => Class::Forbidden,
        404 => Class::NotFound,
        // 412: this node has not yet seen a write (eventual consistency). 472, 473: standby and secondary nodes.
        408 | 412 | 425 | 429 | 472 | 473 | 500..=599 => Class::Transient,
        307 | 308 => Class::Transient,
        _ => Class::Permanent,
    }
}

fn cure(status: StatusCode, said: &str) -> Option<&'static str> {
    Some(match status.as_u16() {
        307 | 308 => "two nodes redirect to each other: has the cluster an active node?",
        300..=399 => "not followed: give the address that it redirects to",
        400 if said.contains("HTTP request to an HTTPS server") => "the address must begin with https://",
        404 if said.contains("no handler for route") => "nothing is mounted at that path",
        404 if said.is_empty() => "there is nothing at that path",
        405 => "that path cannot be used in this way",
        412 => "this node has not caught up with a write",
        413 => "the request is larger than Vault allows",
        429 => "a rate limit or quota of Vault",
        472 => "a disaster-recovery secondary: give the primary's address",
        473 => "a performance standby that does not forward",
        503 if said.contains("sealed") => "unseal it",
        501 => "Vault is not initialised",
        _ => return None,
    })
}

/// Whether a refusal is Vault's own. What stands before Vault (a firewall, a balancer without a target) also answers 403
/// and 404, and that says nothing about a token or a secret: held grants must not be given up for it.
fn is_vaults(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Vaults {
        errors: Option<serde::de::IgnoredAny>,
        // A deleted version of a KV v2 value: 404, in the frame of an answer.
        request_id: Option<serde::de::IgnoredAny>,
    }
    serde_json::from_slice::<Vaults>(body).is_ok_and(|it| it.errors.is_some() || it.request_id.is_some())
}

/// Vault's `errors`, empty if the body is none of Vault's.
pub(super) fn errors(body: &[u8]) -> Vec<String> {
    #[derive(Deserialize)]
    struct Refusal {
        #[serde(default)]
        errors: Option<Vec<String>>,
    }
    serde_json::from_slice::<Refusal>(body).ok().and_then(|refusal| refusal.errors).unwrap_or_default()
}

fn request_id(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Identified {
        request_id: Option<String>,
    }
    let id = serde_json::from_slice::<Identified>(body).ok()?.request_id?;
    (!id.is_empty() && id.len() <= 64).then_some(id)
}

/// Vault's words on one line, without its list's ornaments, scrubbed and cut.
pub(super) fn quoted(errors: &[String]) -> String {
    let mut said = String::new();
    let errors: Vec<String> = errors.iter().map(|error| without_xml(error)).collect();
    for part in errors.iter().flat_map(|error| error.split('\n')) {
        let part = part.trim().trim_start_matches("* ");
        if part.is_empty() || part.ends_with("error occurred:") || part.ends_with("errors occurred:") {
            continue;
        }
        if !said.is_empty() {
            said.push_str("; ");
        }
        said.push_str(part);
    }
    cut(&scrubbed(&said), QUOTE)
}

/// AWS's XML error, which Vault relays, as its code and message.
fn without_xml(error: &str) -> String {
    let Some(start) = error.find("<ErrorResponse") else { return error.to_owned() };
    let element = |name: &str| {
        let rest = error[start..].split_once(&format!("<{name}>"))?.1;
        Some(rest.split_once("</")?.0.trim().replace('\n', " "))
    };
    let said = [element("Code"), element("Message")].into_iter().flatten().collect::<Vec<_>>().join(": ");
    format!("{}{said}", &error[..start])
}

/// The beginning of a body that is not Vault's: a proxy's page, Go's plain text.
fn snippet(body: &[u8]) -> String {
    let head = String::from_utf8_lossy(&body[..body.len().min(QUOTE)]);
    let head = head.trim();
    // A JSON body without `errors` is an API's answer and might hold anything.
    if head.starts_with(['{', '[', '"']) {
        return String::new();
    }
    cut(&scrubbed(&head.split_whitespace().collect::<Vec<_>>().join(" ")), 160)
}

/// Takes out what looks like a token, and what AWS repeats of a signed request.
///
/// Vault does not repeat tokens in its errors. What it relays from elsewhere (STS quotes the canonical request, with
/// the session token in it) is not Vault's to promise.
fn scrubbed(text: &str) -> String {
    let text = match text.find("The Canonical String for this request") {
        Some(start) => &text[..start],
        None => text,
    };
    let mut clean = String::with_capacity(text.len());
    let separator = |c: char| c.is_whitespace() || "\"'`,;:=<>()[]{}".contains(c);
    for word in text.split_inclusive(separator) {
        let bare = word.trim_end_matches(separator);
        // What begins the tokens of today stands nowhere else; the letters of the older ones may.
        let new = ["hvs.", "hvb.", "hvr."]
            .iter()
            .any(|start| bare.match_indices(start).any(|(at, _)| is_long(&bare[at + start.len()..])));
        let old = ["s.", "b.", "r."].iter().any(|start| {
            bare.strip_prefix(start).is_some_and(|rest| rest.len() >= 20 && !rest.contains('/'))
        });
        if new || old || bare.len() > 200 {
            clean.push('…');
            clean.push_str(&word[bare.len()..]);
        } else {
            clean.push_str(word);
        }
    }
    clean
}

/// Whether what follows a token's beginning can be the rest of one.
fn is_long(rest: &str) -> bool {
    rest.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte)).count() >= 20
}

fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// `Retry-After` in either form: seconds, or a date (RFC 9110, section 10.2.3).
fn retry_after(headers: &HeaderMap, now: Moment) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(now.system_time()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_token_is_not_quoted() {
        let long = "x".repeat(300);
        for (said, shown) in [
            ("lookup of hvs.CAESIJ0123456789abcdef0123456789 failed", "lookup of … failed"),
            ("GET /v1/x#hvs.CAESIJ0123456789abcdef0123456789/y failed", "GET … failed"),
            ("token=s.0123456789abcdefghijklmn, bad", "token=…, bad"),
            (
                "2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n",
                "permission denied; invalid token",
            ),
            (
                "no handler for route \"aws/creds/s.x\". route entry not found.",
                "no handler for route \"aws/creds/s.x\". route entry not found.",
            ),
            (
                "403: mismatch. The Canonical String for this request should have been\n'POST x-amz-security-token:abc'",
                "403: mismatch.",
            ),
            (long.as_str(), "…"),
            (
                "error code 403 from STS: <ErrorResponse xmlns=\"x\">\n  <Error>\n<Code>A</Code>\n<Message>b c</Message>\n</Error>",
                "error code 403 from STS: A: b c",
            ),
        ] {
            assert_eq!(quoted(&[said.to_owned()]).trim(), shown);
        }
        assert!(quoted(&["a b ".repeat(1_000)]).chars().count() <= QUOTE + 1);
    }
}
