//! Reading what was just written: a cluster's other nodes hear of a write a little later, a token's creation too.
//!
//! Vault Enterprise 1.7 and later and OpenBao 2.7 and later name the state after a write in `X-Vault-Index`. A request
//! that carries it is answered from that state or a later one, or with 412. Then the node may be asked to forward the
//! request to the active one; Vault does so only if `allow_forwarding_via_header` is set, and refuses the request if not.
//!
//! Reference: <https://developer.hashicorp.com/vault/docs/enterprise/consistency>.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::StatusCode;
use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::refusal;
use super::reply::Raw;
use crate::backoff::{Backoff, roll};

const INDEX: HeaderName = HeaderName::from_static("x-vault-index");
const INCONSISTENT: HeaderName = HeaderName::from_static("x-vault-inconsistent");

/// How often a request is sent to nodes that have not caught up.
const TRIES: u32 = 3;

/// Replication takes milliseconds: 50 to 100 ms after the first 412, 100 to 200 after the second.
const CATCH_UP: Backoff = Backoff { base: Duration::from_millis(100), cap: Duration::from_millis(250) };

/// The longest index that is remembered. Vault's and OpenBao's have about a hundred characters.
const LONGEST: usize = 1024;

/// What is known of the cluster.
#[derive(Debug, Default)]
pub(super) struct Consistency {
    /// It does not forward because a header asks it to.
    keeps: AtomicBool,
}

/// One request, over all its tries.
pub(super) struct Tries<'a> {
    cluster: &'a Consistency,
    behind: u32,
}

/// The state after what was answered.
pub(super) fn index(headers: &HeaderMap) -> Option<Arc<str>> {
    let text = headers.get(INDEX)?.to_str().ok()?;
    (!text.is_empty() && text.len() <= LONGEST).then(|| text.into())
}

/// Asks for an answer from that state or a later one.
pub(super) fn ask(headers: &mut HeaderMap, index: &str) {
    // It came as a header, so it can be one.
    if let Ok(index) = HeaderValue::from_str(index) {
        headers.insert(INDEX, index);
    }
}

impl Consistency {
    pub(super) fn tries(&self) -> Tries<'_> {
        Tries { cluster: self, behind: 0 }
    }
}

impl Tries<'_> {
    /// Whether the request is to be sent once more, with what is then in `headers`, and after which delay.
    ///
    /// Neither a 412 nor a refused header is an answer to the request itself: it has not been looked at.
    pub(super) fn again(&mut self, answer: &Raw, headers: &mut HeaderMap) -> Option<Duration> {
        match answer.status {
            StatusCode::PRECONDITION_FAILED => {
                self.behind += 1;
                if self.behind >= TRIES {
                    return None;
                }
                let forwards = headers.contains_key(INDEX) && !self.cluster.keeps.load(Ordering::Relaxed);
                if forwards && !headers.contains_key(INCONSISTENT) {
                    headers.insert(INCONSISTENT, HeaderValue::from_static("forward-active-node"));
                    return Some(Duration::ZERO);
                }
                Some(CATCH_UP.delay(self.behind, None, roll()))
            }
            StatusCode::BAD_REQUEST => {
                let refused = |name: &HeaderName| {
                    let named = |error: &String| error.to_ascii_lowercase().contains(name.as_str());
                    headers.contains_key(name) && refusal::errors(&answer.body).iter().any(named)
                };
                if refused(&INCONSISTENT) {
                    self.cluster.keeps.store(true, Ordering::Relaxed);
                    headers.remove(INCONSISTENT);
                    return Some(CATCH_UP.delay(self.behind.max(1), None, roll()));
                }
                // Another cluster's: one was restored, or another answers at the address now.
                refused(&INDEX).then(|| {
                    headers.remove(INDEX);
                    Duration::ZERO
                })
            }
            _ => None,
        }
    }
}
