//! Tokens that were just made: in a cluster, the node that is asked may not have heard of them yet.
//!
//! Where upstream names the state after a token's creation ([`crate::lease::upstream::Made::index`]), it is told to answer
//! from that state, and what it says of the token holds. Where it does not, a refusal may mean that the token is not
//! known *yet*, for a moment after its creation; but not once we have revoked it ourselves.

use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::StatusCode;

use super::VaultSource;
use crate::backoff::{Backoff, roll};
use crate::clock::Moment;
use crate::lease::failure::{Class, Failure};
use crate::lease::upstream::Token;
use crate::vault::{Reply, advised};

/// A token that is younger may be unknown to a node that lags behind.
const YOUNG: Duration = Duration::from_secs(2);

/// How often a young token that is refused is tried again at once.
const TOO_EARLY: u32 = 2;

/// 50 to 100 ms after the first refusal, 100 to 200 after the second.
const CATCH_UP: Backoff = Backoff { base: Duration::from_millis(100), cap: Duration::from_millis(250) };

/// The accessors of young tokens that we have revoked: upstream is right not to know them.
#[derive(Debug, Default)]
pub(super) struct Ended(Mutex<Vec<(String, Moment)>>);

impl Ended {
    fn add(&self, token: &Token, now: Moment) {
        let mut ended = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ended.retain(|(_, at)| now.since(*at) < YOUNG);
        ended.push((token.accessor.clone(), now));
    }

    fn has(&self, token: &Token) -> bool {
        let ended = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ended.iter().any(|(accessor, _)| *accessor == token.accessor)
    }
}

impl VaultSource {
    /// Asks with a token; should a node not have heard of it yet, once or twice more.
    pub(super) async fn known<F>(&self, token: &Token, ask: impl Fn() -> F) -> Result<Reply, Failure>
    where
        F: Future<Output = Result<Reply, Failure>>,
    {
        for attempt in 1..=TOO_EARLY {
            let reply = ask().await?;
            if reply.status != StatusCode::FORBIDDEN || !self.is_young(token) {
                return Ok(reply);
            }
            tokio::time::sleep(CATCH_UP.delay(attempt, None, roll())).await;
        }
        ask().await
    }

    /// What it means that a node does not know a token. One that was just made is not given up for that.
    pub(super) fn unknown(&self, token: &Token, failure: Failure) -> Failure {
        match self.is_young(token) {
            true => advised(
                failure.decided(Class::Transient),
                "The token was made a moment ago: this node may not have heard of it yet",
            ),
            false => failure.decided(Class::TokenLost),
        }
    }

    /// Takes note that upstream has revoked the token.
    pub(super) fn ended(&self, token: &Token) {
        if self.is_young(token) {
            self.ended.add(token, self.client.clock().now());
        }
    }

    /// Whether a node of upstream may not have heard of the token yet.
    fn is_young(&self, token: &Token) -> bool {
        token.made.as_ref().is_some_and(|made| {
            made.index.is_none() && self.client.clock().now().since(made.at) < YOUNG && !self.ended.has(token)
        })
    }
}
