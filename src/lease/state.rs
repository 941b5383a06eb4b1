//! The life cycle of a lease, pure: no runtime, no I/O, no clock of its own.
//!
//! A login token, a run token and a secret are three instances of the same thing: a grant with an expiry, ways to
//! renew, replace and revoke it, and optionally a parent whose end is its end too. [`Lease::step`] takes what happened
//! and when, and says which upstream call to make next, if any; at most one is ever under way.
//!
//! ```text
//!            demand              minted                  due
//!   Idle ──────────▶ Minting ──────────▶ Holding ◀────────────▶ Calling (renew, rotate, check: still served)
//!    ▲  ◀─ lapse ──     │ failed            │ lost, expired
//!    │                  ▼                   ▼
//!    └─────────────── Failed            Idle or Minting            End, from anywhere ▶ Revoking ▶ Ended
//! ```

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::failure::{Class, Failure};
use super::upstream::{Minted, Renewed};
use super::view::{Act, Held, ParentView, Trouble, View};
use crate::backoff::Backoff;
use crate::clock::{Moment, Until};

mod outcome;

/// A token found lost sooner than this after it was made is not replaced at once, but after a retry delay.
const SUSPICIOUSLY_SHORT: Duration = Duration::from_secs(5);

/// What is asked for at least beyond what a reader wants: more than an answer's way takes.
const SPARE: Duration = Duration::from_secs(5);

/// By how much a life that was to reach a certain time may miss it: Vault counts in seconds, for a token and again for a
/// lease that hangs off it.
const WHOLE: Duration = Duration::from_secs(2);

/// How long an answer that may not be kept stays readable for those who were waiting for it.
const ONCE: Duration = Duration::from_secs(1);

/// What does not change over a lease's life.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Held without being asked for: tokens, prefetched secrets.
    pub keep: bool,
    /// Revoked by itself at the end: tokens. Secrets end with the token they hang off.
    pub revocable: bool,
    /// A static value is revalidated when it is older than this.
    pub fresh: Duration,
    /// While upstream cannot answer, a static value is served up to this age, labelled.
    pub stale: Duration,
    /// The schedule of retries.
    pub backoff: Backoff,
    /// Nobody needs it any longer: one that lives until then is neither prolonged nor replaced before its end. An
    /// [`Event::Extend`] moves it.
    pub until: Option<Until>,
}

/// What happened. The set is closed.
#[derive(Debug)]
pub enum Event<P> {
    /// A reader wants it, with at least this much life left.
    Demand {
        /// Zero: whatever is alive.
        min_left: Duration,
    },
    /// Time has passed, or the clock jumped: judge everything anew.
    Tick {
        /// Whether it was read since the last tick.
        used: bool,
    },
    /// The call that was under way came back.
    Done {
        /// With what.
        outcome: Outcome<P>,
        /// The jitter's sample for the schedule that follows, in `[0, 1)`.
        roll: f64,
    },
    /// The parent changed.
    Parent {
        /// To this.
        view: ParentView,
        /// The jitter's sample for a rotation that follows, in `[0, 1)`.
        roll: f64,
    },
    /// A call made with this grant was answered with 403. Only tokens are suspected.
    Suspect {
        /// The grant's number.
        seq: u64,
    },
    /// What stood in the way of the last try is gone: the next one need not wait for its delay.
    Retry,
    /// What is held was made from something that has been replaced since: make another now, and keep this one until it
    /// is there. Where that fails it goes on as before, and whoever sees the change says so again, if another try may help.
    Outdated,
    /// The call that was under way was given up: the machine was frozen in the middle of it, and whether upstream carried
    /// it out is not known. It says nothing of upstream, so it is no failure: what is still wanted is asked for again.
    Interrupted,
    /// It is needed until then: the run that it belongs to was extended.
    Extend {
        /// Instead of the [`Terms::until`] that it was made with.
        until: Until,
        /// The jitter's sample for the schedule that follows, in `[0, 1)`.
        roll: f64,
    },
    /// The work is over, or the process is.
    End,
}

/// How a call came back.
#[derive(Debug)]
pub enum Outcome<P> {
    /// A mint or a rotation.
    Minted(Result<Minted<P>, Failure>),
    /// A renewal.
    Renewed(Result<Renewed, Failure>),
    /// A look-up of the token itself.
    Checked(Result<(), Failure>),
    /// A revocation, requested and confirmed.
    Revoked(Result<(), Failure>),
}

impl<P> Outcome<P> {
    /// Whether upstream said nothing: no answer came, or one that says to try again.
    pub(super) fn is_transient(&self) -> bool {
        let failure = match self {
            Self::Minted(result) => result.as_ref().err(),
            Self::Renewed(result) => result.as_ref().err(),
            Self::Checked(result) | Self::Revoked(result) => result.as_ref().err(),
        };
        failure.is_some_and(|failure| failure.class == Class::Transient)
    }
}

/// The one upstream call to make now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call<P> {
    /// Get a new one, under the parent's grant of that number (0: no parent).
    Mint {
        /// The parent's grant.
        under: u64,
        /// Whether one is held already: the call is a rotation or a revalidation.
        rotation: bool,
    },
    /// Extend this one.
    Renew {
        /// What is held.
        payload: P,
        /// The parent's grant that it hangs off.
        under: u64,
        /// By how much, in whole seconds.
        ask: Duration,
    },
    /// Ask upstream whether it still knows this token.
    Check {
        /// What is held.
        payload: P,
    },
    /// Revoke this one and see that it is gone.
    Revoke {
        /// What was held.
        payload: P,
    },
}

#[derive(Debug)]
enum Phase<P> {
    /// Nothing held, nothing asked.
    Idle,
    /// Asked for, and waiting until the parent can be minted from.
    Parked,
    /// The first mint is under way.
    Minting { under: u64 },
    /// The mint failed; not again before `retry` is over.
    Failed { retry: Until },
    /// Held; `call` tells what is under way meanwhile.
    Holding { held: Arc<Held<P>>, call: Option<Underway> },
    /// The work is over: what is left to revoke, one after the other.
    Revoking { queue: VecDeque<(P, Until)>, retry: Option<Until>, busy: bool },
    /// Nothing more happens.
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Underway {
    Renew { ask: Duration },
    Rotate { under: u64 },
    Check,
}

/// One lease: its terms, its phase and what its readers may know.
#[derive(Debug)]
pub struct Lease<P> {
    terms: Arc<Terms>,
    /// When nobody needs it any longer, as of now.
    until: Option<Until>,
    phase: Phase<P>,
    parent: Option<ParentView>,
    /// The parent's grant before the present one, and its end: a mint that is under way may hang off it.
    parent_before: Option<(u64, Until)>,
    /// Grants so far; the number of the newest.
    seq: u64,
    /// All grants up to this number are known to be dead upstream.
    lost_through: u64,
    /// The parent's grants up to this number are known to be dead, perhaps before the parent says so.
    refused_under: u64,
    /// Failed calls so far; readers compare it with what it was when they came.
    failures: u64,
    /// Failed calls in a row.
    attempt: u32,
    /// Checks that found the token alive.
    checks: u64,
    /// Read since the present grant was made, or asked for.
    wanted: bool,
    suspected: bool,
    ending: bool,
    trouble: Option<Arc<Trouble>>,
    /// Replaced or given up tokens that upstream may still know: older rather than younger is how they are served, and
    /// younger rather than older how they are revoked.
    retired: Vec<(P, Until)>,
}

impl<P: Clone> Lease<P> {
    /// A lease that holds nothing yet. `parent` is `None` for one that hangs off nothing.
    #[must_use]
    pub fn new(terms: impl Into<Arc<Terms>>, parent: Option<ParentView>) -> Self {
        let terms = terms.into();
        Self {
            until: terms.until,
            terms,
            phase: Phase::Idle,
            parent,
            parent_before: None,
            seq: 0,
            lost_through: 0,
            refused_under: 0,
            failures: 0,
            attempt: 0,
            checks: 0,
            wanted: false,
            suspected: false,
            ending: false,
            trouble: None,
            retired: Vec::new(),
        }
    }

    /// Takes in what happened at `now` and returns the call to make, if any.
    ///
    /// No call is returned while the one before is under way: exactly one [`Event::Done`] answers each.
    pub fn step(&mut self, event: Event<P>, now: Moment) -> Option<Call<P>> {
        match event {
            Event::Demand { min_left } => return self.demand(min_left, now),
            Event::Tick { used } => self.wanted |= used,
            Event::Done { outcome, roll } => self.done(outcome, roll, now),
            Event::Parent { view, roll } => self.parent_changed(view, roll, now),
            Event::Suspect { seq } => self.suspected |= self.held().is_some_and(|held| held.seq == seq),
            Event::Retry => self.retry(),
            Event::Outdated => self.outdated(now),
            Event::Interrupted => self.interrupted(),
            Event::Extend { until, roll } => self.extend(until, roll, now),
            Event::End => self.ending = true,
        }
        self.judge(now)
    }

    /// What readers may know.
    #[must_use]
    pub fn view(&self) -> View<P> {
        View {
            held: self.held().cloned(),
            trouble: self.trouble.clone(),
            seq: self.seq,
            failures: self.failures,
            checks: self.checks,
            lost_through: self.lost_through,
            phase: self.word(),
            ended: matches!(self.phase, Phase::Ended),
            ending: self.ending,
        }
    }

    /// What tells one [`view`](Self::view) from the next, where no call came back and the parent did not change.
    pub(crate) fn told(&self) -> (&'static str, u64, u64, bool) {
        (self.word(), self.failures, self.lost_through, self.ending)
    }

    /// How long until time alone makes something happen; `None`: never.
    #[must_use]
    pub fn wake_in(&self, now: Moment) -> Option<Duration> {
        match &self.phase {
            Phase::Holding { held, call } => {
                let end = held.gone_in(now);
                if end.is_zero() && call.is_some() {
                    // It is over already; what comes next, comes with the answer.
                    return None;
                }
                match held.due {
                    Some((Act::Rotate, _)) if self.mintable(now).is_none() => Some(end),
                    Some((_, due)) if call.is_none() => Some(end.min(self.not_before(due, now))),
                    _ => Some(end),
                }
            }
            Phase::Failed { retry } if self.terms.keep => Some(retry.left(now)),
            Phase::Revoking { retry: Some(retry), .. } => Some(retry.left(now)),
            _ => None,
        }
    }

    /// Whether nothing more will happen.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Ended)
    }

    /// Whether what it holds is revoked by itself.
    pub(super) fn revokes(&self) -> bool {
        self.terms.revocable
    }

    /// Whether a call is under way.
    #[must_use]
    pub fn is_calling(&self) -> bool {
        match &self.phase {
            Phase::Minting { .. } => true,
            Phase::Holding { call, .. } => call.is_some(),
            Phase::Revoking { busy, .. } => *busy,
            _ => false,
        }
    }

    fn held(&self) -> Option<&Arc<Held<P>>> {
        match &self.phase {
            Phase::Holding { held, .. } => Some(held),
            _ => None,
        }
    }

    /// The phase's word in `status`.
    fn word(&self) -> &'static str {
        match &self.phase {
            Phase::Idle => "idle",
            Phase::Parked => "waiting",
            Phase::Minting { .. } => "minting",
            Phase::Failed { .. } => "failed",
            Phase::Holding { call: None, held } if held.is_static => "cached",
            Phase::Holding { call: None, .. } => "held",
            Phase::Holding { call: Some(Underway::Renew { .. }), .. } => "renewing",
            Phase::Holding { call: Some(Underway::Rotate { .. }), .. } => "rotating",
            Phase::Holding { call: Some(Underway::Check), .. } => "checking",
            Phase::Revoking { .. } => "revoking",
            Phase::Ended => "ended",
        }
    }

    /// The parent's grant that a mint can be made from now; `Some(0)` without a parent.
    fn mintable(&self, now: Moment) -> Option<u64> {
        match &self.parent {
            None => Some(0),
            Some(parent) => parent
                .until
                .filter(|until| !until.is_over(now) && parent.seq > self.dead_under())
                .map(|_| parent.seq),
        }
    }

    /// How long until what is due may be done: while upstream is failing, not before the retry delay is over.
    fn not_before(&self, due: Until, now: Moment) -> Duration {
        due.left(now).max(self.trouble.as_ref().map_or(Duration::ZERO, |trouble| trouble.retry.left(now)))
    }

    fn retry(&mut self) {
        if let Phase::Failed { .. } = self.phase {
            self.recovered();
            self.phase = if self.terms.keep { Phase::Parked } else { Phase::Idle };
        }
    }

    /// While a call is under way nothing is planned: its answer would plan anew. Who sees to it asks again.
    fn outdated(&mut self, now: Moment) {
        if let Phase::Holding { held, call: None } = &mut self.phase {
            Arc::make_mut(held).due = Some((Act::Rotate, Until::new(now, Duration::ZERO)));
            self.wanted = true;
        }
    }

    /// What is due stays due; who wanted more than that sees that nothing is under way, and says so again.
    fn interrupted(&mut self) {
        match &mut self.phase {
            Phase::Minting { .. } => self.phase = Phase::Parked,
            Phase::Holding { call, .. } => *call = None,
            Phase::Revoking { busy, .. } => *busy = false,
            _ => {}
        }
    }

    /// Whatever hangs off the parent's grants up to this number is dead.
    fn dead_under(&self) -> u64 {
        self.parent.as_ref().map_or(0, |parent| parent.lost_through.max(self.refused_under))
    }

    fn demand(&mut self, min_left: Duration, now: Moment) -> Option<Call<P>> {
        if self.ending {
            return self.judge(now);
        }
        self.wanted = true;
        match &self.phase {
            Phase::Idle => self.phase = Phase::Parked,
            Phase::Failed { retry } if retry.is_over(now) => self.phase = Phase::Parked,
            _ => {}
        }
        if let Some(call) = self.judge(now) {
            return Some(call);
        }
        // Held, nothing under way and nothing due: is it good enough for this reader?
        let in_trouble = self.trouble.as_ref().is_some_and(|trouble| !trouble.retry.is_over(now));
        let Phase::Holding { held, call: None } = &self.phase else { return None };
        if in_trouble || held.serves(min_left, now) || held.reach.is_some_and(|reach| reach < min_left) {
            return None;
        }
        if !held.is_static && held.own.left(now) >= min_left {
            // It is the parent that ends too soon: a newer parent's grant may do, this one's keeper must see to it.
            return self.mintable(now).filter(|seq| *seq != held.under).and_then(|_| self.rotate(now));
        }
        if held.extendable() { self.renew(min_left) } else { self.rotate(now) }
    }

    fn renew(&mut self, at_least: Duration) -> Option<Call<P>> {
        let Phase::Holding { held, call } = &mut self.phase else { return None };
        // A reader wants so much when the answer is here, and the next one a moment later.
        let spare = if at_least.is_zero() { Duration::ZERO } else { SPARE.max(at_least / 8) };
        let ask = whole_seconds(held.full.max(at_least.saturating_add(spare)));
        *call = Some(Underway::Renew { ask });
        Some(Call::Renew { payload: held.payload.clone(), under: held.under, ask })
    }

    fn rotate(&mut self, now: Moment) -> Option<Call<P>> {
        let under = self.mintable(now)?;
        let Phase::Holding { call, .. } = &mut self.phase else { return None };
        *call = Some(Underway::Rotate { under });
        Some(Call::Mint { under, rotation: true })
    }

    /// Decides, with nothing but the state and the time, what is to be done now.
    fn judge(&mut self, now: Moment) -> Option<Call<P>> {
        self.retired.retain(|(_, until)| !until.is_surely_over(now));
        self.drop_what_is_dead(now);
        if self.ending {
            return self.wind_up(now);
        }
        if matches!(self.phase, Phase::Idle) && self.terms.keep {
            self.phase = Phase::Parked;
        }
        match &self.phase {
            Phase::Failed { retry } if self.terms.keep && retry.is_over(now) => {
                self.phase = Phase::Parked;
                self.mint(now)
            }
            Phase::Parked => self.mint(now),
            Phase::Holding { held, call: None } => {
                if self.suspected {
                    let payload = held.payload.clone();
                    self.suspected = false;
                    return self.check(payload);
                }
                let (act, due) = held.due?;
                if !self.not_before(due, now).is_zero() {
                    return None;
                }
                match act {
                    Act::Renew if self.ends_with_its_parent(now) => {
                        self.forget_due();
                        None
                    }
                    Act::Renew => self.renew(Duration::ZERO),
                    // Where the parent cannot be minted from just now, its change will be an event.
                    Act::Rotate if self.terms.keep || self.wanted => self.rotate(now),
                    Act::Rotate => {
                        // Nobody has read it since it was made: let it lapse rather than make another.
                        self.forget_due();
                        None
                    }
                }
            }
            _ => None,
        }
    }

    fn check(&mut self, payload: P) -> Option<Call<P>> {
        if let Phase::Holding { call, .. } = &mut self.phase {
            *call = Some(Underway::Check);
        }
        Some(Call::Check { payload })
    }

    fn forget_due(&mut self) {
        if let Phase::Holding { held, .. } = &mut self.phase {
            Arc::make_mut(held).due = None;
        }
    }

    /// A renewal would give nothing: the parent ends first and can't be extended either.
    fn ends_with_its_parent(&self, now: Moment) -> bool {
        let Some(held) = self.held() else { return false };
        let fixed = self.parent.as_ref().is_some_and(|parent| parent.seq != held.under || !parent.extendable);
        fixed && held.bound.is_some_and(|bound| bound.left(now) <= held.own.left(now))
    }

    fn mint(&mut self, now: Moment) -> Option<Call<P>> {
        if let Some(under) = self.mintable(now) {
            self.phase = Phase::Minting { under };
            return Some(Call::Mint { under, rotation: false });
        }
        // No parent to mint from: its failure is ours, so that readers are not left waiting for a dead upstream.
        if let Some(trouble) = self.parent.as_ref().and_then(|parent| parent.trouble.clone()) {
            let news = self.trouble.as_ref().is_none_or(|known| *known != trouble);
            if news || self.wanted {
                self.failures += 1;
                self.wanted = false;
            }
            self.trouble = Some(trouble);
        }
        None
    }

    /// Lets go of a grant that is past its end or known to be dead. What is under way stays under way.
    fn drop_what_is_dead(&mut self, now: Moment) {
        let (dead_under, lost_through) = (self.dead_under(), self.lost_through);
        let Phase::Holding { held, call } = &mut self.phase else { return };
        let orphaned = self.parent.is_some() && held.under <= dead_under;
        if orphaned || held.seq <= lost_through {
            Arc::make_mut(held).kill(now);
        }
        if !held.gone_in(now).is_zero() {
            return;
        }
        if orphaned && call.is_none() {
            // What failed, failed under a token that is gone; with a new one the tries begin anew.
            self.trouble = None;
        }
        // A renewal or a check of what is gone has no meaning any more, but its answer must be waited for.
        if matches!(call, Some(Underway::Renew { .. } | Underway::Check)) {
            return;
        }
        if self.terms.revocable && !held.own.is_surely_over(now) {
            // A wall clock that was set forward ends nothing upstream.
            self.retired.push((held.payload.clone(), held.own));
        }
        self.phase = match *call {
            Some(Underway::Rotate { under }) => Phase::Minting { under },
            _ => match self.trouble.as_ref().filter(|trouble| !trouble.retry.is_over(now)) {
                // Upstream is failing: its end is no reason to ask again sooner.
                Some(trouble) => Phase::Failed { retry: trouble.retry },
                _ if self.terms.keep || self.wanted => Phase::Parked,
                _ => Phase::Idle,
            },
        };
    }

    fn wind_up(&mut self, now: Moment) -> Option<Call<P>> {
        // A token that is being made must not be forgotten; a secret ends with the token that it hangs off.
        if self.terms.revocable && self.is_calling() {
            return None;
        }
        let phase = std::mem::replace(&mut self.phase, Phase::Ended);
        let (mut queue, retry) = match phase {
            Phase::Revoking { queue, retry, .. } => (queue, retry),
            Phase::Holding { held, .. } if self.terms.revocable => {
                let mut queue = VecDeque::from([(held.payload.clone(), held.own)]);
                queue.extend(self.retired.drain(..));
                (queue, None)
            }
            Phase::Ended => return None,
            _ => (self.retired.drain(..).collect(), None),
        };
        queue.retain(|(_, until)| !until.is_surely_over(now));
        let payload = queue.front()?.0.clone();
        if retry.is_some_and(|retry| !retry.is_over(now)) {
            self.phase = Phase::Revoking { queue, retry, busy: false };
            return None;
        }
        self.phase = Phase::Revoking { queue, retry: None, busy: true };
        Some(Call::Revoke { payload })
    }

    fn parent_changed(&mut self, view: ParentView, roll: f64, now: Moment) {
        let news = self.parent.as_ref().is_none_or(|known| known.seq != view.seq);
        let usable = view.until.is_some_and(|until| !until.is_over(now));
        if let Phase::Holding { held, .. } = &mut self.phase
            && view.seq == held.under
            && view.until.is_some()
        {
            Arc::make_mut(held).bound = view.until;
        }
        if usable && matches!(self.phase, Phase::Parked) {
            self.trouble = None;
        }
        if let Some(ParentView { seq, until: Some(until), .. }) = self.parent.replace(view)
            && news
        {
            self.parent_before = Some((seq, until));
        }
        if news {
            self.plan_to_move_over(roll, now);
        }
    }
}

/// Vault counts in seconds; never ask for less than one.
fn whole_seconds(span: Duration) -> Duration {
    let ceiling = if span.subsec_nanos() > 0 { 1 } else { 0 };
    Duration::from_secs((span.as_secs() + ceiling).max(1))
}

#[cfg(test)]
mod invariants;
