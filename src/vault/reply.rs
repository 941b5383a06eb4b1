//! Answers: read whole and within a limit, and what a refusal means.

use std::fmt;

use http::StatusCode;
use http::header::HeaderMap;
use http_body_util::BodyExt as _;
use zeroize::{Zeroize as _, Zeroizing};

use super::{connect, refusal};
use crate::clock::Moment;
use crate::lease::failure::{Class, Failure};

/// An answer as it came.
pub(super) struct Raw {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Zeroizing<Vec<u8>>,
}

/// An answer of Vault, of whatever status. The body may hold a secret: it is wiped on drop and not printed.
pub struct Reply {
    /// The HTTP status.
    pub status: StatusCode,
    /// The response headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Zeroizing<Vec<u8>>,
    /// When the request was sent.
    pub sent: Moment,
    pub(super) received: Moment,
    /// What was asked, for messages: `GET secret/data/a at https://vault:8200`.
    pub(super) subject: String,
}

impl Reply {
    /// This answer if it is a 2xx, else what its refusal means by the general rules.
    ///
    /// # Errors
    /// The classified refusal.
    pub fn accepted(self) -> Result<Self, Failure> {
        if self.status.is_success() { Ok(self) } else { Err(self.failure()) }
    }

    /// Whether this is a refusal of that status, one of whose error texts contains one of `texts`.
    #[must_use]
    pub fn refuses_with(&self, status: u16, texts: &[&str]) -> bool {
        self.status.as_u16() == status
            && self.errors().iter().any(|error| texts.iter().any(|text| error.contains(text)))
    }

    /// Vault's `errors`, as they are: scrub them before they are shown.
    pub(crate) fn errors(&self) -> Vec<String> {
        refusal::errors(&self.body)
    }

    /// What was asked, for a message.
    pub(crate) fn subject(&self) -> &str {
        &self.subject
    }

    /// What this refusal means by the general rules.
    pub(crate) fn failure(&self) -> Failure {
        refusal::classify(&self.subject, self.status, &self.headers, &self.body, self.received)
    }

    /// A failure of the caller's own making about this answer.
    pub(crate) fn broken(&self, class: Class, message: String) -> Failure {
        Failure { class, message, status: Some(self.status.as_u16()), ..self.failure() }
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply")
            .field("status", &self.status)
            .field("subject", &self.subject)
            .finish_non_exhaustive()
    }
}

/// The failure with what to do about it.
pub(crate) fn advised(failure: Failure, cure: &str) -> Failure {
    Failure { message: format!("{}. {cure}", failure.message.trim_end_matches('.')), ..failure }
}

/// The whole body, if it is no larger than `limit`.
pub(super) async fn collect(
    mut body: hyper::body::Incoming,
    head: &http::response::Parts,
    limit: usize,
    subject: &str,
) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let too_large = || {
        Failure::new(Class::Permanent, format!("the answer to {subject} is larger than {} KiB", limit / 1024))
    };
    let announced = head
        .headers
        .get(http::header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<usize>().ok())
        .unwrap_or(0);
    if announced > limit {
        return Err(too_large());
    }
    let mut whole = Zeroizing::new(Vec::with_capacity(announced.min(64 * 1024)));
    while let Some(frame) = body.frame().await {
        let frame = match frame {
            Ok(frame) => frame,
            // A server that refuses before it has read the request may reset the connection: the status says enough.
            Err(_) if head.status.is_client_error() => break,
            Err(error) => {
                let cause = connect::innermost(&error);
                return Err(Failure::new(
                    Class::Transient,
                    format!("the answer to {subject} broke off: {cause}"),
                ));
            }
        };
        let Ok(data) = frame.into_data() else { continue };
        let needed = whole.len() + data.len();
        if needed > limit {
            return Err(too_large());
        }
        if needed > whole.capacity() {
            // Growing in place would leave a copy behind that nobody wipes.
            let mut larger = Zeroizing::new(Vec::with_capacity(needed.max(whole.capacity() * 2).min(limit)));
            larger.extend_from_slice(&whole);
            whole.zeroize();
            whole = larger;
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole)
}
