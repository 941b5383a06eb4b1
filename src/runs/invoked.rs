//! Lambda's invocations: each a run of its own within the environment's, with a token of its own or the environment's.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::active::{Active, Registrant, Secrets};
use super::life::{Cause, Life};
use super::register::random;
use super::{Runs, StartError};
use crate::audit::{Entry, Event};
use crate::clock::{Moment, Until};
use crate::lease::keeper::Refusal;
use crate::lease::upstream::ReadKey;
use crate::lease::view::View;
use crate::run::lambda::{Invocation, Lambda};
use crate::run::{Kind, Run};

/// So many invocations are remembered whose end was told before their beginning.
const EARLY_ENDS: usize = 16;

/// What is ready to run takes so many turns until it has seen to what has arrived: a connection's task, who waits for the
/// answer, its body.
const TURNS: usize = 8;

/// The invocations that are open.
#[derive(Default)]
pub(super) struct Invoked {
    open: Mutex<Vec<Arc<Active>>>,
    /// Those whose end was told first: the two are told on different ways.
    over: Mutex<VecDeque<Box<str>>>,
}

impl Invoked {
    fn open(&self) -> MutexGuard<'_, Vec<Arc<Active>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn over(&self) -> MutexGuard<'_, VecDeque<Box<str>>> {
        self.over.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the end of that invocation was told already; it is forgotten then.
    fn is_over(&self, request: &str) -> bool {
        let mut over = self.over();
        let found = over.iter().position(|known| **known == *request);
        found.and_then(|at| over.remove(at)).is_some()
    }

    fn ended_early(&self, request: &str) {
        let mut over = self.over();
        if over.len() == EARLY_ENDS {
            over.pop_front();
        }
        over.push_back(request.into());
    }
}

impl Runs {
    /// An invocation begins, or it is found: it may be told of twice.
    ///
    /// With `keys` it has a token of its own, which ends with it, and those secrets are fetched at once. Without it reads
    /// with the environment's.
    ///
    /// # Errors
    /// [`StartError`]: no randomness for its id, or it cannot be written as JSON.
    pub fn invoke(
        self: &Arc<Self>,
        invocation: &Invocation,
        deadline: Option<Until>,
        keys: Option<&[ReadKey]>,
    ) -> Result<Arc<Active>, StartError> {
        if let Some(known) = self.invocation(&invocation.request) {
            return Ok(known);
        }
        let environment = self.own.run.lambda.as_deref();
        let said = |read: fn(&Lambda) -> &str| environment.map_or("", read).into();
        let lambda = Lambda {
            function: invocation.function_arn.clone().unwrap_or_else(|| said(|lambda| &lambda.function)),
            version: said(|lambda| &lambda.version),
            log_stream: said(|lambda| &lambda.log_stream),
            invocation: Some(invocation.request.clone()),
            trace: invocation.trace.clone(),
        };
        let id = Run::new_id().map_err(|error| StartError::Refused(random(error).to_string()))?;
        let run = Run {
            lambda: Some(Box::new(lambda)),
            tags: self.own.run.tags.clone(),
            ..Run::new(id, Kind::Invocation)
        };
        let now = self.common.clock.now();
        let life = Life::new(deadline, deadline);
        let mut active =
            Active::new(run, self.number(), Registrant::Platform, None, life, now, Secrets::default())?;
        active.borrows = keys.is_none();
        let active = Arc::new(active);
        if active.borrows() {
            active.work_or(|| Arc::clone(self.own_work()));
        }
        let entry = Entry::done(Event::RunRegister).run(&active.stamp);
        self.common.audit.note(&entry.expires(deadline.map(Until::end)));
        let _ = active.on_record.set(true);
        self.registry().insert(&active);
        self.schedule(&active);
        for key in keys.unwrap_or_default() {
            self.work(&active).leases.prefetch(key);
        }
        self.invoked.open().push(Arc::clone(&active));
        if self.invoked.is_over(&invocation.request) {
            self.finish(&active, Cause::Ended);
        }
        Ok(active)
    }

    /// The open invocation with that request id.
    #[must_use]
    pub fn invocation(&self, request: &str) -> Option<Arc<Active>> {
        self.invocations().into_iter().find(|active| active.invocation() == Some(request))
    }

    /// The invocations that are open.
    #[must_use]
    pub fn invocations(&self) -> Vec<Arc<Active>> {
        let mut open = self.invoked.open();
        let now = self.common.clock.now();
        open.retain(|active| active.over(|| now).is_none());
        open.clone()
    }

    /// The invocation is over, as Lambda says. What it registered ends with it. One that has yet to begin ends when it does.
    pub fn invoked(self: &Arc<Self>, request: &str) -> Option<Arc<Active>> {
        let Some(active) = self.invocation(request) else {
            self.invoked.ended_early(request);
            return None;
        };
        self.finish(&active, Cause::Ended);
        Some(active)
    }

    /// The run that a caller reads for who presents no handle: the invocation with that request id; where none is named
    /// the only one that is open; else the process's own.
    ///
    /// What arrived before now is seen to first, which may be that another began: who is woken from a freeze finds the
    /// event and the function's first read side by side.
    pub async fn current(&self, named: Option<&[u8]>) -> Arc<Active> {
        if self.common.lambda.is_none() {
            return Arc::clone(&self.own);
        }
        for _ in 0..TURNS {
            tokio::task::yield_now().await;
        }
        let open = self.invocations();
        let current = match (named, &*open) {
            (Some(request), _) => {
                open.iter().find(|active| active.invocation().map(str::as_bytes) == Some(request))
            }
            (None, [only]) => Some(only),
            (None, _) => None,
        };
        Arc::clone(current.unwrap_or(&self.own))
    }

    /// Sees to it that what the process's own run holds lives until then, as far as upstream lets it, and says when that is
    /// done; at the latest after `patience`. What nobody has read since the last time is left to its end.
    pub async fn refresh(self: &Arc<Self>, until: Until, patience: Duration) {
        let now = self.common.clock.now();
        let wanted = until.left(now);
        let work = Arc::clone(self.own_work());
        let mut refreshing = tokio::task::JoinSet::new();
        let token = work.parent.clone();
        if !lives(&token.view(), wanted, now) {
            refreshing.spawn(async move { drop(token.get(wanted, patience).await) });
        }
        for entry in work.leases.all() {
            if entry.was_read() && !lives(&entry.keeper.view(), wanted, now) {
                refreshing.spawn(async move { drop(entry.keeper.get(wanted, patience).await) });
            }
        }
        while refreshing.join_next().await.is_some() {}
    }

    /// Waits until everything that is prefetched for a run is there; at the latest for `patience`.
    ///
    /// # Errors
    /// The path of the first that is not, and why not.
    pub async fn prefetched(
        &self,
        active: &Arc<Active>,
        patience: Duration,
    ) -> Result<(), (ReadKey, Refusal)> {
        let until = tokio::time::Instant::now() + patience;
        for entry in self.work(active).leases.all().iter().filter(|entry| entry.prefetched) {
            let left = until.saturating_duration_since(tokio::time::Instant::now());
            if let Err(refusal) = entry.keeper.get(Duration::ZERO, left).await {
                return Err((entry.key.clone(), refusal));
            }
        }
        Ok(())
    }

    /// Waits until nothing is left of runs that are over: their tokens are revoked and seen to be, or ended by themselves.
    pub async fn tidied(&self) {
        loop {
            let mut retired = pin!(self.retired.notified());
            retired.as_mut().enable();
            let now = self.common.clock.now();
            if self.all().iter().all(|active| active.over(|| now).is_none()) {
                return;
            }
            retired.await;
        }
    }

    /// Whether runs may be registered here.
    #[must_use]
    pub fn registers(&self) -> bool {
        !self.common.rules.is_empty()
    }

    /// Whether a token or a lease is to be renewed, replaced or tried again before then.
    #[must_use]
    pub fn is_due_before(&self, until: Until) -> bool {
        let now = self.common.clock.now();
        let left = until.left(now);
        let mut works: Vec<_> = self.invocations().iter().filter_map(|run| run.work().cloned()).collect();
        works.push(Arc::clone(self.own_work()));
        due(&self.login.view(), left, now)
            || works.iter().any(|work| {
                let token = work.token.as_ref().is_some_and(|(_, token)| due(&token.view(), left, now));
                token || work.leases.all().iter().any(|entry| due(&entry.keeper.view(), left, now))
            })
    }

    /// How many calls to upstream are under way.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.common.busy.count()
    }

    /// How many leases were replaced by new ones, of all runs.
    #[must_use]
    pub fn rotations(&self) -> u64 {
        self.common.rotations.load(Ordering::Relaxed)
    }

    /// Waits until no call to upstream is under way.
    pub async fn quiet(&self) {
        self.common.busy.none().await;
    }
}

fn lives<P>(view: &View<P>, wanted: Duration, now: Moment) -> bool {
    view.held.as_ref().is_some_and(|held| held.serves(wanted, now))
}

/// Values without a lease are asked for again when they are read: a freeze in the middle of that harms nobody.
fn due<P>(view: &View<P>, left: Duration, now: Moment) -> bool {
    let held = view.held.as_ref().filter(|held| !held.is_static);
    let due = held.and_then(|held| held.due).is_some_and(|(_, due)| due.left(now) < left);
    due || view.trouble.as_ref().is_some_and(|trouble| trouble.retry.left(now) < left)
}
