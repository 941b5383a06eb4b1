//! What a lease's readers may know of it, and the one decision that they take: serve, wait, ask, or fail.

use std::sync::Arc;
use std::time::Duration;

use super::failure::Failure;
use crate::clock::{Moment, Until};

/// What a held grant is due for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Renew,
    Rotate,
}

/// A grant that is held.
#[derive(Clone, Debug)]
pub struct Held<P> {
    /// The token or the secret.
    pub payload: P,
    /// Its number: grants of a lease are counted from 1.
    pub seq: u64,
    /// The parent's grant that it hangs off; 0 without a parent.
    pub under: u64,
    /// Its own expiry; for a static value, how long it counts as fresh. Begins when the request was sent.
    pub own: Until,
    /// For a static value: how long it may be served while upstream cannot answer, from when [`own`](Self::own) begins.
    pub(crate) stale: Duration,
    /// For a static value: how long it stays readable for those who were waiting when it came.
    pub(crate) linger: Option<Box<Until>>,
    /// The end of the parent's grant.
    pub bound: Option<Until>,
    /// The life that it was minted with.
    pub full: Duration,
    /// The longest life that upstream is known to give; `None` where no limit is known.
    pub(crate) reach: Option<Duration>,
    /// Whether upstream says that it can be renewed.
    pub renewable: bool,
    /// A renewal gave less than asked: its end is fixed.
    pub(crate) maxed: bool,
    /// A value without a lease.
    pub is_static: bool,
    pub(crate) due: Option<(Act, Until)>,
}

impl<P> Held<P> {
    /// What is really left: the least of its own and its parent's. For a static value, of its freshness.
    #[must_use]
    pub fn left(&self, now: Moment) -> Duration {
        let own = self.own.left(now);
        if self.is_static { own } else { self.bound.map_or(own, |bound| own.min(bound.left(now))) }
    }

    /// When it ends, by the wall clock that it was granted under.
    #[must_use]
    pub fn ends(&self) -> Moment {
        let own = self.own.end();
        match self.bound.map(Until::end) {
            Some(bound) if !self.is_static && bound.wall() < own.wall() => bound,
            _ => own,
        }
    }

    /// Whether a renewal may give it a longer life.
    #[must_use]
    pub fn extendable(&self) -> bool {
        self.renewable && !self.maxed
    }

    /// It is known to be dead upstream: nobody gets it any more, whatever its expiry says.
    pub(crate) fn kill(&mut self, now: Moment) {
        (self.own, self.stale, self.linger) = (Until::new(now, Duration::ZERO), Duration::ZERO, None);
    }

    pub(crate) fn stale_until(&self) -> Until {
        Until::new(self.own.from, self.stale)
    }

    /// How long until it can be of no use to anybody.
    pub(crate) fn gone_in(&self, now: Moment) -> Duration {
        if !self.is_static {
            return self.left(now);
        }
        let linger = self.linger.as_ref().map_or(Duration::ZERO, |linger| linger.left(now));
        self.stale_until().left(now).max(linger)
    }

    /// Whether a reader who wants `min_left` may have it now. The life of a static value is not its freshness.
    pub(crate) fn serves(&self, min_left: Duration, now: Moment) -> bool {
        let left = self.left(now);
        !left.is_zero() && (self.is_static || left >= min_left)
    }

    /// Plans what is to be done with it; the jitter is sampled here, once. With `crowd` it was just minted, or renewed
    /// after failures, and so at the same time as many others perhaps.
    pub(crate) fn schedule(&mut self, crowd: bool, roll: f64) {
        let (act, share) = match (self.is_static, self.extendable()) {
            (true, _) => (Act::Rotate, 0.80 + 0.15 * roll),
            // Anywhere in the middle third of its life: a fleet that was started together, or waited for upstream
            // together, is spread at once, at the price of half a renewal.
            (false, true) if crowd => (Act::Renew, 2.0 / 3.0 - roll / 3.0),
            // Two thirds of its life, and up to a tenth earlier, so that it stays spread.
            (false, true) => (Act::Renew, 2.0 / 3.0 - roll / 10.0),
            (false, false) => (Act::Rotate, 0.70 + 0.10 * roll),
        };
        // What little a last renewal gave is all needed for the overlap.
        let hurry = act == Act::Rotate && !self.is_static && self.own.len() < self.full / 3;
        let due =
            Until::new(self.own.from, if hurry { Duration::ZERO } else { self.own.len().mul_f64(share) });
        self.due = (!self.own.len().is_zero()).then_some((act, due));
    }

    /// Plans its replacement within what is left of it.
    pub(crate) fn schedule_within(&mut self, now: Moment, roll: f64) {
        let left = self.left(now);
        self.due = Some((Act::Rotate, Until::new(now, left.mul_f64(0.70 + 0.10 * roll))));
    }
}

/// The failure of the last call, and when the next try is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What went wrong.
    pub failure: Arc<Failure>,
    /// No call is made before this is over.
    pub retry: Until,
}

/// What a child must know of its parent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParentView {
    /// The number of the newest grant.
    pub seq: u64,
    /// Its effective end; `None` while nothing is held.
    pub until: Option<Until>,
    /// Whether that end may still move.
    pub extendable: bool,
    /// Grants up to this number are dead.
    pub lost_through: u64,
    /// Why nothing is held, or what stands in the way of the next one.
    pub trouble: Option<Arc<Trouble>>,
}

/// The published state of a lease.
#[derive(Clone, Debug)]
pub struct View<P> {
    /// What is held; shared with the state machine, which copies it before it changes it.
    pub held: Option<Arc<Held<P>>>,
    /// The last failure, until a call succeeds.
    pub trouble: Option<Arc<Trouble>>,
    /// Grants so far.
    pub seq: u64,
    /// Failed calls so far.
    pub failures: u64,
    /// Look-ups that found the token alive.
    pub checks: u64,
    /// Grants up to this number are known to be dead.
    pub lost_through: u64,
    /// The phase, in a word.
    pub phase: &'static str,
    /// Nothing more will come.
    pub ended: bool,
    /// The work is over.
    pub ending: bool,
}

/// Where a served secret came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// It was held.
    Cache,
    /// It was fetched while the reader waited.
    Vault,
    /// Upstream cannot answer; a static value within its stated maximum age.
    Stale,
}

impl Freshness {
    /// The word in `X-Tenure-Source`, the audit line and the metrics.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Cache => "cache",
            Self::Vault => "vault",
            Self::Stale => "stale",
        }
    }
}

/// What a reader does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Take what is held.
    Serve(Freshness),
    /// Tell the keeper that it is wanted, and wait for a change.
    Ask,
    /// Give up, with this failure; `retry_in` tells when the next try is.
    Fail {
        /// The failure that all waiting readers get.
        failure: Arc<Failure>,
        /// Until the next try.
        retry_in: Duration,
    },
    /// No credential with so much life can be had; the most is `reach`.
    TooLong {
        /// The longest life to be had.
        reach: Duration,
    },
    /// The work that it belonged to is over.
    Over,
}

/// Where a reader stood when it came: what is newer than that answers it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standpoint {
    /// Grants then.
    pub seq: u64,
    /// Failures then.
    pub failures: u64,
}

impl<P> View<P> {
    /// Where a reader who comes now stands.
    #[must_use]
    pub fn standpoint(&self) -> Standpoint {
        Standpoint { seq: self.seq, failures: self.failures }
    }

    /// The one decision of a reader who wants `min_left` of life and came at `came`.
    #[must_use]
    pub fn decide(&self, min_left: Duration, came: Standpoint, now: Moment) -> Verdict {
        if self.ended || self.ending {
            return Verdict::Over;
        }
        let trouble = self.trouble.as_deref();
        let failing = trouble.filter(|trouble| self.failures > came.failures || !trouble.retry.is_over(now));
        if let Some(held) = &self.held {
            let newer = held.seq > came.seq;
            if held.serves(min_left, now) {
                return Verdict::Serve(if newer { Freshness::Vault } else { Freshness::Cache });
            }
            if held.is_static {
                if newer {
                    return Verdict::Serve(Freshness::Vault);
                }
                let unanswered = failing.is_some_and(|trouble| !trouble.failure.is_refusal());
                if unanswered && !held.stale_until().is_over(now) {
                    return Verdict::Serve(Freshness::Stale);
                }
            } else if let Some(reach) = held.reach.filter(|reach| *reach < min_left) {
                return Verdict::TooLong { reach };
            }
        }
        failing.map_or(Verdict::Ask, |trouble| Verdict::Fail {
            failure: Arc::clone(&trouble.failure),
            retry_in: trouble.retry.left(now),
        })
    }

    /// What a child must know.
    #[must_use]
    pub fn as_parent(&self) -> ParentView {
        let held = self.held.as_ref();
        ParentView {
            seq: self.seq,
            until: held.map(|held| match held.bound {
                Some(bound) if bound.end().wall() < held.own.end().wall() => bound,
                _ => held.own,
            }),
            extendable: held.is_some_and(|held| held.extendable()),
            lost_through: self.lost_through,
            trouble: if held.is_some() { None } else { self.trouble.clone() },
        }
    }
}
