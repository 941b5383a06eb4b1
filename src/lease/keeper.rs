//! One task for each lease: it performs what the state machine says, and publishes what readers may know.
//!
//! Readers hold a [`Watch`] at most, so a reader who goes away cancels nothing: the call goes on, and what it
//! brings is there for the next one.

use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::failure::{Class, Failure};
use super::state::{Call, Event, Lease, Outcome, Terms};
use super::upstream::{BoxFuture, Token};
use super::view::{Freshness, Held, Verdict, View};
use crate::backoff;
use crate::clock::{Clock, Moment, Until};
use crate::supervise::Supervisor;

/// Performs the calls of one lease: logs in, makes a run token, reads a secret.
pub trait Performer<P>: Send + Sync + 'static {
    /// Makes the call and says how it went. It ends by itself: its time-outs are its own.
    fn perform(&self, call: Call<P>) -> BoxFuture<'static, Outcome<P>>;
}

/// What came for a call while the machine was frozen is here within this time; what is not here by then is given up: its
/// connection may have been gone for days, and its time-out would be a long wait.
const AFTER_A_FREEZE: Duration = Duration::from_millis(250);

/// How long a reader waits for an upstream that does not answer, where a stale value may be served instead.
const STALE_AFTER: Duration = Duration::from_secs(2);

/// The keeper of a token.
pub type TokenKeeper = Keeper<Arc<Token>>;

/// The handle of a keeper. The task ends when the lease does: ask for its [`end`](Self::end).
pub struct Keeper<P>(Arc<Shared<P>>);

impl<P> Clone for Keeper<P> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<P> fmt::Debug for Keeper<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper").finish_non_exhaustive()
    }
}

struct Shared<P> {
    published: Mutex<Published<P>>,
    changed: Notify,
    inbox: Mutex<Inbox>,
    news: Notify,
    used: AtomicBool,
    parent: Option<TokenKeeper>,
    clock: Clock,
}

/// What readers may know, and how often that has changed.
struct Published<P> {
    version: u64,
    view: Arc<View<P>>,
}

/// Sees every change of a lease, or the last of several. A channel of tokio's own would take 400 bytes for each lease.
pub struct Watch<P> {
    shared: Arc<Shared<P>>,
    seen: u64,
}

impl<P> Watch<P> {
    /// What is known now; it counts as seen.
    pub fn see(&mut self) -> Arc<View<P>> {
        let published = self.shared.published();
        self.seen = published.version;
        Arc::clone(&published.view)
    }

    /// Waits until there is something that was not seen.
    pub async fn changed(&self) {
        loop {
            let mut changed = pin!(self.shared.changed.notified());
            // What changes from here on wakes it.
            changed.as_mut().enable();
            if self.shared.published().version != self.seen {
                return;
            }
            changed.await;
        }
    }

    /// Waits for what was not seen, and sees it.
    pub async fn next(&mut self) -> Arc<View<P>> {
        self.changed().await;
        self.see()
    }

    /// Waits for a view, from the present one on, of which `wanted` is true.
    pub async fn wait_for(&mut self, wanted: impl Fn(&View<P>) -> bool) -> Arc<View<P>> {
        let mut view = self.see();
        while !wanted(&view) {
            view = self.next().await;
        }
        view
    }
}

/// What readers told the keeper since it last looked; many demands are one.
#[derive(Debug, Default)]
struct Inbox {
    demand: Option<Duration>,
    suspect: Option<u64>,
    judge: bool,
    thawed: bool,
    retry: bool,
    outdated: bool,
    until: Option<Until>,
    end: bool,
}

/// What a reader got.
#[derive(Debug)]
pub struct Taken<P> {
    /// The grant.
    pub held: Arc<Held<P>>,
    /// Where it came from.
    pub freshness: Freshness,
    /// When that was decided.
    pub at: Moment,
}

/// Why a reader got nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Upstream failed.
    Failed {
        /// How.
        failure: Arc<Failure>,
        /// Until the next try.
        retry_in: Duration,
    },
    /// No credential lives as long as was asked for.
    TooLong {
        /// The longest life to be had.
        reach: Duration,
    },
    /// The work that it belonged to is over.
    Over,
    /// Nothing came within the reader's patience.
    TimedOut {
        /// What the lease was doing, in a word.
        phase: &'static str,
    },
}

/// What became of a token that was suspected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenVerdict {
    /// It is gone, or was replaced already.
    Lost,
    /// It is good.
    Alive,
    /// Upstream could not say.
    Unknown(Arc<Failure>),
}

impl<P: Clone + Send + Sync + 'static> Keeper<P> {
    /// Starts the task of a lease that holds nothing yet.
    pub fn start(
        name: &'static str,
        terms: impl Into<Arc<Terms>>,
        parent: Option<TokenKeeper>,
        performer: Arc<dyn Performer<P>>,
        clock: Clock,
        supervisor: &Supervisor,
    ) -> Self {
        let parent_view = parent.as_ref().map(|parent| parent.view().as_parent());
        let lease = Lease::new(terms, parent_view);
        let shared = Arc::new(Shared {
            published: Mutex::new(Published { version: 0, view: Arc::new(lease.view()) }),
            changed: Notify::new(),
            inbox: Mutex::default(),
            news: Notify::new(),
            used: AtomicBool::new(false),
            parent,
            clock,
        });
        let mut task = Task { shared: Arc::clone(&shared), lease, performer, supervisor: supervisor.clone() };
        // By reference: a future that takes its argument has room for it twice.
        supervisor.spawn(name, async move { task.run().await });
        Self(shared)
    }

    /// What is known of the lease now.
    #[must_use]
    pub fn view(&self) -> Arc<View<P>> {
        Arc::clone(&self.0.published().view)
    }

    /// Receives every change.
    #[must_use]
    pub fn watch(&self) -> Watch<P> {
        Watch { shared: Arc::clone(&self.0), seen: self.0.published().version }
    }

    /// What is held, if it is good enough at `now`, without waiting.
    #[must_use]
    pub fn peek(&self, min_left: Duration, now: Moment) -> Option<Taken<P>> {
        let view = &self.0.published().view;
        match view.decide(min_left, view.standpoint(), now) {
            Verdict::Serve(freshness) => {
                self.0.used.store(true, Ordering::Relaxed);
                view.held.clone().map(|held| Taken { held, freshness, at: now })
            }
            _ => None,
        }
    }

    /// A grant with at least `min_left` of life, fetched or extended if need be.
    ///
    /// # Errors
    /// A [`Refusal`] that says why not; at the latest after `patience`.
    pub async fn get(&self, min_left: Duration, patience: Duration) -> Result<Taken<P>, Refusal> {
        if let Some(taken) = self.peek(min_left, self.0.clock.now()) {
            return Ok(taken);
        }
        let stale =
            |now| self.view().held.clone().filter(|held| held.is_static && !held.stale_until().is_over(now));
        // An upstream that does not answer is one that cannot: who has something to fall back on need not wait it out.
        let patience = match stale(self.0.clock.now()) {
            Some(_) => patience.min(STALE_AFTER),
            None => patience,
        };
        match tokio::time::timeout(patience, Box::pin(self.wait(min_left, patience))).await {
            Ok(result) => result,
            Err(_) => {
                let at = self.0.clock.now();
                match stale(at) {
                    Some(held) => Ok(Taken { held, freshness: Freshness::Stale, at }),
                    None => Err(Refusal::TimedOut { phase: self.view().phase }),
                }
            }
        }
    }

    async fn wait(&self, min_left: Duration, patience: Duration) -> Result<Taken<P>, Refusal> {
        let mut watch = self.watch();
        let came = watch.see().standpoint();
        // What is asked for is counted from now on: a grant of just that length is a little older when it is here.
        let since = self.0.clock.now().mono();
        if let Some(parent) = &self.0.parent {
            // Its timer may lie behind, where the machine was frozen.
            parent.judge();
        }
        if let Some(parent) = self.0.parent.as_ref().filter(|_| !min_left.is_zero()) {
            // It lives no longer than its parent: see to that one first. That there is none yet is not for us to say.
            let parent = Box::pin(parent.get(min_left, patience)).await;
            if let Err(refusal @ (Refusal::TooLong { .. } | Refusal::Over)) = parent {
                return Err(refusal);
            }
        }
        loop {
            let view = watch.see();
            let now = self.0.clock.now();
            let wanted = min_left.saturating_sub(now.mono().saturating_sub(since));
            match view.decide(wanted, came, now) {
                Verdict::Serve(freshness) => {
                    self.0.used.store(true, Ordering::Relaxed);
                    if let Some(held) = view.held.clone() {
                        return Ok(Taken { held, freshness, at: now });
                    }
                }
                Verdict::Ask => self.tell(|inbox| {
                    inbox.demand = Some(inbox.demand.unwrap_or_default().max(wanted));
                }),
                Verdict::Fail { failure, retry_in } => return Err(Refusal::Failed { failure, retry_in }),
                Verdict::TooLong { reach } => return Err(Refusal::TooLong { reach }),
                Verdict::Over => return Err(Refusal::Over),
            }
            watch.changed().await;
        }
    }

    /// Judge everything anew.
    pub fn judge(&self) {
        self.tell(|inbox| inbox.judge = true);
    }

    /// The machine was frozen, or its clock jumped: everything is judged anew, and a call that was under way is made again
    /// unless its answer is there already.
    pub fn thawed(&self) {
        self.tell(|inbox| inbox.thawed = true);
    }

    /// What stood in the way of the last try is gone: the next one need not wait.
    pub fn retry(&self) {
        self.tell(|inbox| inbox.retry = true);
    }

    /// What is held was made from something that has been replaced since: another is made now.
    pub fn outdated(&self) {
        self.tell(|inbox| inbox.outdated = true);
    }

    /// It is needed until then: the run that it belongs to was extended.
    pub fn extend(&self, until: Until) {
        self.tell(|inbox| inbox.until = Some(until));
    }

    /// Asks for the end without waiting for it.
    pub fn request_end(&self) {
        self.tell(|inbox| inbox.end = true);
    }

    /// Ends the lease: a token is revoked and seen to be gone. Returns false if that took longer than `patience`.
    pub async fn end(&self, patience: Duration) -> bool {
        let mut watch = self.watch();
        self.request_end();
        tokio::time::timeout(patience, watch.wait_for(|view| view.ended)).await.is_ok()
    }

    fn tell(&self, what: impl FnOnce(&mut Inbox)) {
        what(&mut self.0.inbox());
        self.0.news.notify_one();
    }
}

impl TokenKeeper {
    /// A call made with the grant `seq` was answered with 403: is the token gone, or does it lack a capability?
    ///
    /// However many ask, upstream is asked once.
    pub async fn verdict(&self, seq: u64, patience: Duration) -> TokenVerdict {
        let mut watch = self.watch();
        let before = watch.see();
        let gone =
            |view: &View<Arc<Token>>| view.seq > seq || view.lost_through >= seq || view.held.is_none();
        if gone(&before) {
            return TokenVerdict::Lost;
        }
        self.tell(|inbox| inbox.suspect = Some(seq));
        let settled = watch.wait_for(|view| {
            gone(view) || view.checks > before.checks || view.failures > before.failures || view.ended
        });
        match tokio::time::timeout(patience, settled).await {
            Ok(view) if gone(&view) || view.ended => TokenVerdict::Lost,
            Ok(view) if view.checks > before.checks => TokenVerdict::Alive,
            Ok(view) => TokenVerdict::Unknown(view.trouble.as_ref().map_or_else(
                || Arc::new(Failure::new(Class::Transient, "the token could not be looked up")),
                |trouble| Arc::clone(&trouble.failure),
            )),
            Err(_) => TokenVerdict::Unknown(Arc::new(Failure::new(
                Class::Transient,
                "looking up the token took too long",
            ))),
        }
    }

    /// What a 403 to a call made with the grant `seq` means: the failure, decided.
    pub async fn decide(&self, seq: u64, failure: Failure, patience: Duration) -> Failure {
        if failure.class != Class::Forbidden {
            return failure;
        }
        match self.verdict(seq, patience).await {
            TokenVerdict::Lost => failure.decided(Class::TokenLost),
            TokenVerdict::Alive => failure.decided(Class::Denied),
            TokenVerdict::Unknown(why) => {
                let mut failure = failure.decided(Class::Transient);
                failure.message = format!(
                    "{}; whether the token is still good could not be learnt: {why}",
                    failure.message
                );
                failure
            }
        }
    }
}

impl<P> Shared<P> {
    fn published(&self) -> MutexGuard<'_, Published<P>> {
        self.published.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, view: Arc<View<P>>) {
        let mut published = self.published();
        published.version += 1;
        published.view = view;
        drop(published);
        self.changed.notify_waiters();
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Task<P> {
    shared: Arc<Shared<P>>,
    lease: Lease<P>,
    performer: Arc<dyn Performer<P>>,
    supervisor: Supervisor,
}

impl<P: Clone + Send + Sync + 'static> Task<P> {
    /// A call that nobody waits for any longer goes on until its time-out, and says in the log how it went; a token that it
    /// brings after all is revoked.
    fn let_go(&self, late: BoxFuture<'static, Outcome<P>>) {
        let performer = self.lease.revokes().then(|| Arc::clone(&self.performer));
        self.supervisor.spawn("late call", async move {
            if let Outcome::Minted(Ok(minted)) = late.await
                && let Some(performer) = performer
            {
                performer.perform(Call::Revoke { payload: minted.payload }).await;
            }
        });
    }

    async fn run(&mut self) {
        let clock = self.shared.clock.clone();
        // What the parent was when the lease was made may have changed since: it is looked at once in any case.
        let mut parent = self.shared.parent.as_ref().map(|parent| Watch { seen: u64::MAX, ..parent.watch() });
        let mut call: Option<BoxFuture<'static, Outcome<P>>> = None;
        // Until when a call may go on that was under way in a freeze.
        let mut give_up: Option<Until> = None;
        // Empty, and so without memory of its own, while nothing happens.
        let mut events = vec![Event::Tick { used: false }];
        loop {
            let now = clock.now();
            let mut changed = false;
            let before = self.lease.told();
            for event in std::mem::take(&mut events) {
                // What readers say is no news to readers: telling them would only make them say it again.
                changed |= matches!(
                    event,
                    Event::Done { .. }
                        | Event::Interrupted
                        | Event::Parent { .. }
                        | Event::Extend { .. }
                        | Event::End
                );
                if let Some(wanted) = self.lease.step(event, now) {
                    changed = true;
                    call = Some(self.performer.perform(wanted));
                }
            }
            // A tick may have let something lapse; publishing what readers can't tell apart would only wake them.
            if changed || self.lease.told() != before {
                self.shared.publish(Arc::new(self.lease.view()));
            }
            if self.lease.is_over() {
                return;
            }
            let wake =
                [self.lease.wake_in(now), give_up.map(|end| end.left(now))].into_iter().flatten().min();
            tokio::select! {
                biased;
                outcome = async { call.as_mut().expect("guarded").await }, if call.is_some() => {
                    call = None;
                    // Its time-out may have been the first to notice that the machine goes on.
                    let thawed = give_up.take().is_some() || std::mem::take(&mut self.shared.inbox().thawed);
                    events.push(match thawed && outcome.is_transient() {
                        true => Event::Interrupted,
                        false => Event::Done { outcome, roll: backoff::roll() },
                    });
                }
                () = self.shared.news.notified() => self.shared.take_news(&mut events, &mut give_up),
                view = async { parent.as_mut().expect("guarded").next().await.as_parent() }, if parent.is_some() => {
                    events.push(Event::Parent { view, roll: backoff::roll() });
                }
                () = sleep(wake) => {}
            }
            if let Some(late) = call.take_if(|_| give_up.is_some_and(|end| end.is_over(clock.now()))) {
                self.let_go(late);
                events.push(Event::Interrupted);
            }
            give_up = give_up.filter(|_| call.is_some());
            events.push(Event::Tick { used: self.shared.used.swap(false, Ordering::Relaxed) });
        }
    }
}

impl<P> Shared<P> {
    fn take_news(&self, events: &mut Vec<Event<P>>, give_up: &mut Option<Until>) {
        let news = std::mem::take(&mut *self.inbox());
        if news.thawed {
            *give_up = Some(Until::new(self.clock.now(), AFTER_A_FREEZE));
        }
        if let Some(seq) = news.suspect {
            events.push(Event::Suspect { seq });
        }
        if let Some(until) = news.until {
            events.push(Event::Extend { until, roll: backoff::roll() });
        }
        if let Some(min_left) = news.demand {
            events.push(Event::Demand { min_left });
        }
        if news.retry {
            events.push(Event::Retry);
        }
        if news.outdated {
            events.push(Event::Outdated);
        }
        if news.end {
            events.push(Event::End);
        }
    }
}

async fn sleep(wake: Option<Duration>) {
    match wake {
        // Timers count in milliseconds and must not fire a moment too early, again and again.
        Some(wake) => tokio::time::sleep(wake + Duration::from_millis(1)).await,
        None => std::future::pending().await,
    }
}
