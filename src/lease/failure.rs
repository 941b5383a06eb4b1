//! Why a call to upstream failed, classified once, where the answer is read.

use std::fmt;
use std::time::Duration;

/// What a failure means for what is done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// May pass by itself: no connection, a time-out, 412, 429, 5xx, sealed, standby. Retried with a delay.
    Transient,
    /// Upstream answered 403: the token is gone or a capability is missing. Which of the two, `lookup-self` decides.
    Forbidden,
    /// Decided: the token that the call was made with is no longer known upstream.
    TokenLost,
    /// Decided: the token is good and lacks a capability.
    Denied,
    /// There is nothing at that path.
    NotFound,
    /// Upstream no longer knows the lease that was to be renewed: it was revoked behind our back.
    LeaseGone,
    /// The request as configured can never succeed: a wrong role, region, server id, signature or mount.
    Permanent,
}

impl Class {
    /// The word for logs, metrics and audit lines.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Forbidden => "forbidden",
            Self::TokenLost => "token-lost",
            Self::Denied => "denied",
            Self::NotFound => "not-found",
            Self::LeaseGone => "lease-gone",
            Self::Permanent => "permanent",
        }
    }
}

/// A failed call: its class, what a person should read, and what upstream said.
///
/// It never contains a secret: adapters build the message from names, addresses and Vault's `errors` list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What it means for what is done next.
    pub class: Class,
    /// What was wrong, where, and what to do.
    pub message: String,
    /// Upstream's HTTP status, where there was an answer.
    pub status: Option<u16>,
    /// What upstream asked for in `Retry-After`.
    pub retry_after: Option<Duration>,
    /// Upstream's id of the request, where the answer had one.
    pub request_id: Option<String>,
}

impl Failure {
    /// A failure without an answer from upstream.
    pub fn new(class: Class, message: impl Into<String>) -> Self {
        Self { class, message: message.into(), status: None, retry_after: None, request_id: None }
    }

    /// For how long upstream wants to be left alone: what it asked for, or, where it says 429 without a word of when (as
    /// Vault does unless its rate-limit headers are enabled), the second that such limits are counted by.
    #[must_use]
    pub fn pushed_back(&self) -> Option<Duration> {
        self.retry_after.or_else(|| (self.status == Some(429)).then_some(Duration::from_secs(1)))
    }

    /// Whether upstream itself has said no to what was asked. Where it has not, nothing was learnt of what is held: no
    /// answer came, or something in between gave one (a page, a redirect, a certificate that is not upstream's), and the
    /// same request may succeed once that is put right.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self.class {
            Class::Transient | Class::TokenLost => false,
            Class::Permanent => self.status.is_some_and(|status| (400..500).contains(&status)),
            Class::Forbidden | Class::Denied | Class::NotFound | Class::LeaseGone => true,
        }
    }

    /// The same failure once `lookup-self` has decided what a 403 meant.
    #[must_use]
    pub fn decided(self, class: Class) -> Self {
        Self { class, ..self }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_upstreams_own_no_is_a_refusal() {
        let failure = |class, status| Failure { status, ..Failure::new(class, "no") };
        for (class, status, refusal) in [
            (Class::Permanent, Some(400), true),
            (Class::Permanent, Some(405), true),
            (Class::Denied, Some(403), true),
            (Class::NotFound, Some(404), true),
            (Class::LeaseGone, Some(400), true),
            // A certificate of somebody else; a redirect to a page; an answer that is not Vault's.
            (Class::Permanent, None, false),
            (Class::Permanent, Some(302), false),
            (Class::Permanent, Some(200), false),
            (Class::Transient, Some(429), false),
            (Class::TokenLost, Some(403), false),
        ] {
            assert_eq!(failure(class, status).is_refusal(), refusal, "{class:?} {status:?}");
        }
    }

    #[test]
    fn a_429_asks_to_be_left_alone_even_where_it_does_not_say_for_how_long() {
        let failure = |status, retry_after| Failure {
            status: Some(status),
            retry_after,
            ..Failure::new(Class::Transient, "not now")
        };
        let seconds = Duration::from_secs;
        assert_eq!(failure(429, None).pushed_back(), Some(seconds(1)));
        assert_eq!(failure(429, Some(seconds(7))).pushed_back(), Some(seconds(7)));
        assert_eq!(failure(503, Some(seconds(7))).pushed_back(), Some(seconds(7)));
        assert_eq!(failure(503, None).pushed_back(), None);
        assert_eq!(Failure::new(Class::Transient, "no answer").pushed_back(), None);
    }
}
