//! A standby that does not forward names the active node (307), and what stands before a cluster may name another
//! address (308).
//!
//! It is followed once, and the token goes with it, so only to where the same request would be the same: on the same
//! scheme (what was to travel encrypted must not travel in clear) and to the same path (what redirects to a page to log in
//! at is no Vault).

use http::header::LOCATION;
use http::{StatusCode, Uri};

use super::redacted;
use super::reply::Raw;
use crate::lease::failure::{Class, Failure};

/// Whether an answer asks for the same request to be sent elsewhere.
pub(super) fn is(status: StatusCode) -> bool {
    matches!(status, StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT)
}

/// Where to. `asked` is where the request went, `path` what was asked for there, without the address's own prefix:
/// `/v1/secret/a`.
///
/// # Errors
/// Where it is not followed, and what to correct.
pub(super) fn followed(reply: &Raw, address: &str, asked: &Uri, path: &str) -> Result<Uri, Failure> {
    let location = reply.headers.get(LOCATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let place = location.split('?').next().unwrap_or_default();
    let fail = |class, why: &str| {
        Err(Failure {
            status: Some(reply.status.as_u16()),
            ..Failure::new(class, format!("{address} redirected to {:?}, {why}", redacted(place)))
        })
    };
    let Ok(next) = location.parse::<Uri>() else {
        return fail(Class::Transient, "which is not a URL");
    };
    let (Some(scheme), Some(authority)) = (next.scheme(), next.authority()) else {
        return fail(Class::Transient, "which names no host: has the cluster no active node?");
    };
    if Some(scheme) != asked.scheme() {
        return fail(
            Class::Permanent,
            "which is not followed, because the scheme differs: correct api_addr in Vault's configuration",
        );
    }
    if authority.host().is_empty() || authority.as_str().contains('@') {
        return fail(Class::Permanent, "which is not followed, because it names a user or no host");
    }
    if next.query() != asked.query() || !decoded(next.path()).ends_with(&decoded(path)) {
        return fail(
            Class::Transient,
            "which is not followed, because that is another path: does the address lead to Vault's API?",
        );
    }
    Ok(next)
}

/// A path without its percent-encoding: which characters are encoded is everybody's own choice.
fn decoded(path: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = |at: usize| after.get(at).and_then(|digit| char::from(*digit).to_digit(16));
        match (first, hex(0), hex(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push(u8::try_from(high * 16 + low).unwrap_or_default());
                rest = &after[2..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    bytes
}
