//! What an answer of upstream does to a lease: a grant, a refusal, a failure, and when to try again.

use std::sync::Arc;
use std::time::Duration;

use super::{Lease, ONCE, Outcome, Phase, SUSPICIOUSLY_SHORT, Underway, WHOLE};
use crate::clock::{Moment, Until};
use crate::lease::failure::{Class, Failure};
use crate::lease::upstream::{Life, Minted, Renewed};
use crate::lease::view::{Act, Held, Trouble};

impl<P: Clone> Lease<P> {
    pub(super) fn done(&mut self, outcome: Outcome<P>, roll: f64, now: Moment) {
        match outcome {
            Outcome::Minted(Ok(minted)) => self.minted(minted, roll, now),
            Outcome::Minted(Err(failure)) => self.mint_failed(failure, roll, now),
            Outcome::Renewed(result) => self.renewed(result, roll, now),
            Outcome::Checked(result) => self.checked(result, roll, now),
            Outcome::Revoked(result) => self.revoked(result, roll, now),
        }
    }

    fn minted(&mut self, minted: Minted<P>, roll: f64, now: Moment) {
        let (under, old) = match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Minting { under } => (under, None),
            Phase::Holding { held, call: Some(Underway::Rotate { under }) } => (under, Some(held)),
            other => {
                self.phase = other;
                return;
            }
        };
        if let Some(old) = old.filter(|_| self.terms.revocable) {
            self.retired.push((old.payload.clone(), old.own));
        }
        self.seq += 1;
        let span = |len| Until::new(minted.sent, len);
        let (own, stale, reach, renewable, is_static) = match minted.life {
            Life::Leased { ttl, renewable } => {
                let reach = (!renewable).then(|| ttl.saturating_sub(now.since(minted.sent)));
                (span(ttl), Duration::ZERO, reach, renewable, false)
            }
            Life::Static { keep: true } => (span(self.terms.fresh), self.terms.stale, None, false, true),
            Life::Static { keep: false } => (span(Duration::ZERO), Duration::ZERO, None, false, true),
        };
        let bound = self.parent.as_ref().map(|parent| match (parent.until, self.parent_before) {
            (Some(until), _) if parent.seq == under => until,
            (_, Some((seq, until))) if seq == under => until,
            _ => Until::new(now, Duration::ZERO),
        });
        let held = Held {
            payload: minted.payload,
            seq: self.seq,
            under,
            own,
            stale: stale.max(own.len()),
            linger: is_static.then(|| Box::new(Until::new(now, ONCE))),
            bound,
            full: own.len(),
            reach,
            renewable,
            maxed: false,
            is_static,
            due: None,
        };
        if !is_static && held.own.is_over(now) {
            if self.terms.revocable && !held.own.is_surely_over(now) {
                self.retired.push((held.payload, held.own));
            }
            let late =
                Failure::new(Class::Transient, "upstream took longer to answer than what it granted lives");
            self.phase = Phase::Failed { retry: self.failed(late, roll, now) };
            return;
        }
        self.wanted = false;
        self.recovered();
        self.phase = Phase::Holding { held: Arc::new(held), call: None };
        self.plan(true, roll, now);
    }

    /// Plans what is to be done with what is held; the jitter is sampled here, once. With `crowd` many others may be
    /// doing the same now.
    fn plan(&mut self, crowd: bool, roll: f64, now: Moment) {
        if let Phase::Holding { held, .. } = &mut self.phase {
            let held = Arc::make_mut(held);
            held.schedule(crowd, roll);
            let enough = self.until.is_some_and(|until| until.left(now) <= held.own.left(now) + WHOLE);
            if enough && !held.is_static {
                held.due = None;
            }
        }
        self.plan_to_move_over(roll, now);
    }

    /// What was enough may be so no longer: a schedule that was given up is made anew.
    pub(super) fn extend(&mut self, until: Until, roll: f64, now: Moment) {
        self.until = Some(until);
        let Phase::Holding { held, .. } = &mut self.phase else { return };
        if held.is_static {
            return;
        }
        if self.terms.revocable {
            // What a token was given was what the run had left; now there is more to be had.
            Arc::make_mut(held).reach = None;
        }
        if held.due.is_none() {
            self.plan(false, roll, now);
        }
    }

    /// Where the parent was replaced, the old one is left to its own end, and ours with it: move over in time, but not
    /// all leases at once.
    pub(super) fn plan_to_move_over(&mut self, roll: f64, now: Moment) {
        let Phase::Holding { held, call: None } = &mut self.phase else { return };
        let replaced =
            self.parent.as_ref().is_some_and(|parent| parent.seq != held.under && parent.until.is_some());
        if !replaced || held.is_static {
            return;
        }
        let move_over = Until::new(now, held.gone_in(now).mul_f64(0.1 + 0.4 * roll));
        // A renewal that is due sooner would come to nothing, and the move with it.
        if held.due.is_none_or(|(act, due)| act == Act::Renew || due.left(now) > move_over.left(now)) {
            Arc::make_mut(held).due = Some((Act::Rotate, move_over));
        }
    }

    pub(super) fn recovered(&mut self) {
        self.attempt = 0;
        self.trouble = None;
    }

    /// Counts a failure and returns the delay before the next try.
    fn failed(&mut self, failure: Failure, roll: f64, now: Moment) -> Until {
        self.failures += 1;
        self.attempt = self.attempt.saturating_add(1);
        let delay = self.terms.backoff.delay(self.attempt, failure.pushed_back(), roll);
        let retry = Until::new(now, delay);
        self.trouble = Some(Arc::new(Trouble { failure: Arc::new(failure), retry }));
        retry
    }

    /// As [`failed`](Self::failed), but the next try comes before what is held ends, of which `left` is left: half-way
    /// there at the latest, unless upstream asked for more or a second is all that is left.
    fn failed_before(&mut self, left: Duration, failure: Failure, roll: f64, now: Moment) -> Until {
        let asked = failure.pushed_back().unwrap_or_default();
        let mut retry = self.failed(failure, roll, now);
        // Not all at the very moment that was asked for.
        let latest = left.mul_f64(0.5).max(asked.mul_f64(1.0 + roll / 4.0));
        if left > Duration::from_secs(1) {
            retry = Until::new(retry.from, retry.len().min(latest));
            if let Some(trouble) = &mut self.trouble {
                Arc::make_mut(trouble).retry = retry;
            }
        }
        retry
    }

    fn mint_failed(&mut self, failure: Failure, roll: f64, now: Moment) {
        let class = failure.class;
        let lost = class == Class::TokenLost;
        let withdrawn = failure.is_refusal();
        match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Minting { under } if lost && self.parent.is_some() => {
                self.refused_under = self.refused_under.max(under);
                self.phase = Phase::Parked;
            }
            Phase::Minting { .. } => self.phase = Phase::Failed { retry: self.failed(failure, roll, now) },
            Phase::Holding { mut held, call: Some(Underway::Rotate { under }) } => {
                let retry = match held.is_static {
                    true => self.failed(failure, roll, now),
                    false => self.failed_before(held.gone_in(now), failure, roll, now),
                };
                if held.is_static && withdrawn {
                    // Upstream did answer: what we hold is no longer what it says.
                    self.phase = Phase::Failed { retry };
                } else if !held.is_static && held.extendable() && held.under == under {
                    // Only what it was made from had changed: it is good, and is renewed as before.
                    self.phase = Phase::Holding { held, call: None };
                    self.plan(false, roll, now);
                } else {
                    Arc::make_mut(&mut held).due = Some((Act::Rotate, retry));
                    self.phase = Phase::Holding { held, call: None };
                }
            }
            other => self.phase = other,
        }
    }

    fn renewed(&mut self, result: Result<Renewed, Failure>, roll: f64, now: Moment) {
        let Phase::Holding { held, call } = &mut self.phase else { return };
        let Some(Underway::Renew { ask }) = call.take() else { return };
        let held = Arc::make_mut(held);
        match result {
            Ok(renewed) => {
                let longer = renewed.ttl > held.own.left(renewed.sent);
                held.renewable = renewed.renewable;
                if renewed.ttl < ask {
                    // The answer's way has taken its share: nobody was ever given more than is left now.
                    held.reach = Some(renewed.ttl.max(held.full).saturating_sub(now.since(renewed.sent)));
                }
                held.maxed = renewed.ttl < held.full || (!longer && renewed.ttl < ask);
                held.own = Until::new(renewed.sent, renewed.ttl);
                held.stale = held.own.len();
                // Whoever had to wait for upstream waited together with others.
                let crowd = self.attempt > 0;
                self.recovered();
                self.plan(crowd, roll, now);
            }
            Err(failure) => match failure.class {
                Class::Transient | Class::Permanent if !failure.is_refusal() => {
                    let left = held.gone_in(now);
                    let retry = self.failed_before(left, failure, roll, now);
                    if let Phase::Holding { held, .. } = &mut self.phase {
                        // A try after the end is none: then the lease simply ends.
                        let in_time = retry.left(now) < held.own.left(now);
                        Arc::make_mut(held).due = in_time.then_some((Act::Renew, retry));
                    }
                }
                Class::LeaseGone => {
                    let dead = held.seq;
                    self.lost_through = dead;
                }
                Class::TokenLost => {
                    // For a secret the parent's change follows. For a token, it is its own verdict.
                    let under = held.under;
                    match self.parent {
                        None => self.lose(failure, roll, now),
                        Some(_) => self.refused_under = self.refused_under.max(under),
                    }
                }
                Class::Transient | Class::Forbidden | Class::Denied | Class::NotFound | Class::Permanent => {
                    // It can't be renewed; from now on it is one that has to be replaced before its end.
                    held.maxed = true;
                    held.reach = Some(held.full);
                    held.schedule_within(now, roll);
                    self.failed(failure, roll, now);
                }
            },
        }
    }

    fn checked(&mut self, result: Result<(), Failure>, roll: f64, now: Moment) {
        let Phase::Holding { call, .. } = &mut self.phase else { return };
        if *call != Some(Underway::Check) {
            return;
        }
        *call = None;
        match result {
            Ok(()) => self.checks += 1,
            Err(failure) if failure.class == Class::TokenLost => self.lose(failure, roll, now),
            Err(failure) => {
                self.failed(failure, roll, now);
            }
        }
    }

    /// Upstream does not know our token any more.
    fn lose(&mut self, failure: Failure, roll: f64, now: Moment) {
        let Phase::Holding { held, .. } = &self.phase else { return };
        let young = now.since(held.own.from) < SUSPICIOUSLY_SHORT;
        self.lost_through = held.seq;
        // What failed before that it was asked of the one that is gone; the tries for the next one begin anew.
        self.recovered();
        self.phase = if young {
            Phase::Failed { retry: self.failed(failure, roll, now) }
        } else if self.terms.keep || self.wanted {
            Phase::Parked
        } else {
            Phase::Idle
        };
    }

    fn revoked(&mut self, result: Result<(), Failure>, roll: f64, now: Moment) {
        let failed = result.err().map(|failure| self.failed(failure, roll, now));
        let Phase::Revoking { queue, retry, busy } = &mut self.phase else { return };
        *busy = false;
        *retry = failed;
        if failed.is_none() {
            queue.pop_front();
            self.attempt = 0;
        }
    }
}
