//! Runs: each has a token of its own, and all its leases hang off that.
//!
//! The process that the broker stands beside is a run from the broker's start to its end. With a token role its token
//! is an orphan made for it, so that the login token needs no access to secrets; without one, leases hang off the login
//! token itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::audit::{self, Audit, Entry, Event, RunStamp};
use crate::backoff::Backoff;
use crate::clock::{Clock, Moment};
use crate::lease::failure::{Class, Failure};
use crate::lease::keeper::{Keeper, TokenKeeper};
use crate::lease::state::Terms;
use crate::lease::upstream::{Login, Source};
use crate::run::{Boot, Run};
use crate::supervise::Supervisor;

pub mod journal;
pub mod leases;
pub mod subjects;
mod tokens;

use journal::{Journal, Orphan};
use leases::{Leases, Limits};
use tokens::{Context, LeaseIds, LoginPerformer, RunPerformer, refused};

/// How long a call waits for the token that it is to be made with.
const PATIENCE: Duration = Duration::from_secs(10);

/// What upstream's whole seconds may take from a run's deadline, and the way of a request.
const LAST_MOMENT: Duration = Duration::from_secs(2);

/// How long a wait for the deadline trusts one clock.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// What the life of runs is made with.
pub struct Setup {
    /// How we log in.
    pub login: Arc<dyn Login>,
    /// Everything else that is asked of upstream.
    pub source: Arc<dyn Source>,
    /// Where lines go.
    pub audit: Audit,
    /// Where tokens are recorded.
    pub journal: Journal,
    /// This start of this process.
    pub boot: Boot,
    /// Time.
    pub clock: Clock,
    /// Who is told when a task dies.
    pub supervisor: Supervisor,
    /// The process's run.
    pub run: Run,
    /// The token role for its token; without one, leases hang off the login token.
    pub token_role: Option<String>,
    /// The time to live of a run token without a deadline.
    pub token_ttl: Duration,
    /// Of its leases.
    pub limits: Limits,
}

/// The login token, and the process's run with its token and its leases.
pub struct Runs {
    /// The process's run.
    pub run: Arc<Run>,
    /// The run, as audit lines name it.
    pub stamp: Arc<RunStamp>,
    /// The keeper of the login token.
    pub login: TokenKeeper,
    /// How we log in, for a person.
    pub method: String,
    /// The token role and the keeper of the run token; `None` where leases hang off the login token.
    pub token: Option<(String, TokenKeeper)>,
    /// The run's leases.
    pub leases: Leases,
    over: AtomicBool,
    context: Arc<Context>,
}

impl Runs {
    /// Starts the keepers: the login begins at once, and the run token with it.
    ///
    /// # Errors
    /// Only if the run cannot be written as JSON, which strings always can.
    pub fn start(setup: Setup) -> Result<Self, serde_json::Error> {
        let Setup {
            login,
            source,
            audit,
            journal,
            boot,
            clock,
            supervisor,
            run,
            token_role,
            token_ttl,
            limits,
        } = setup;
        let stamp = Arc::new(RunStamp::new(&audit::Run {
            id: run.id.to_string(),
            kind: run.kind.word().to_owned(),
            execution_arn: run.execution_arn.clone(),
            state: run.state.clone(),
            parent: run.parent_execution_arn.clone(),
            subject: None,
            tags: run.tags.clone(),
        })?);
        let run = Arc::new(run);
        let context = Arc::new(Context {
            source,
            audit,
            journal,
            boot,
            clock: clock.clone(),
            run: Arc::clone(&run),
            stamp: Arc::clone(&stamp),
            patience: PATIENCE,
        });
        let terms = Terms {
            keep: true,
            revocable: true,
            fresh: Duration::ZERO,
            stale: Duration::ZERO,
            backoff: Backoff::UPSTREAM,
            until: None,
        };
        let method = login.describe();
        let performer = Arc::new(LoginPerformer { login, context: Arc::clone(&context) });
        let login = Keeper::start("login", terms.clone(), None, performer, clock.clone(), &supervisor);
        let minted = Arc::new(LeaseIds::default());
        let token = token_role.map(|role| {
            let performer = Arc::new(RunPerformer {
                role: role.clone(),
                ttl: token_ttl,
                login: login.clone(),
                leases: Arc::clone(&minted),
                context: Arc::clone(&context),
            });
            let terms = Terms { until: context.run.deadline, ..terms };
            (role, Keeper::start("run", terms, None, performer, clock, &supervisor))
        });
        if let Some((_, token)) = &token {
            supervisor.spawn("login watch", retry_after_login(login.clone(), token.clone()));
        }
        let parent = token.as_ref().map_or_else(|| login.clone(), |(_, token)| token.clone());
        let leases = Leases::new(limits, parent, minted, Arc::clone(&context), supervisor);
        Ok(Self { run, stamp, login, method, token, leases, over: AtomicBool::new(false), context })
    }

    /// The keeper of the token that leases hang off.
    #[must_use]
    pub fn parent(&self) -> &TokenKeeper {
        self.token.as_ref().map_or(&self.login, |(_, token)| token)
    }

    /// Waits until there is a token that leases can hang off.
    ///
    /// # Errors
    /// The failure that no further try will mend. Transient ones are waited out.
    pub async fn established(&self) -> Result<(), Failure> {
        for keeper in std::iter::once(&self.login).chain(self.token.as_ref().map(|(_, token)| token)) {
            let mut watch = keeper.watch();
            let settled = watch.wait_for(|view| {
                let hopeless = |failure: &Failure| {
                    matches!(
                        failure.class,
                        Class::Permanent | Class::Denied | Class::Forbidden | Class::NotFound
                    )
                };
                view.held.is_some()
                    || view.ended
                    || view.trouble.as_ref().is_some_and(|trouble| hopeless(&trouble.failure))
            });
            let view = settled.await;
            if view.held.is_none()
                && let Some(trouble) = &view.trouble
            {
                return Err(Failure::clone(&trouble.failure));
            }
        }
        Ok(())
    }

    /// Revokes what an earlier process left behind. One that upstream does not know any more counts as revoked.
    pub async fn revoke_orphans(&self, orphans: &[Orphan]) {
        for orphan in orphans {
            let context = &self.context;
            let call = context.call();
            let result = match self.login.get(Duration::ZERO, PATIENCE).await {
                Ok(login) => {
                    context.source.revoke_accessor(call.clone(), &login.held.payload, &orphan.accessor).await
                }
                Err(refusal) => Err(refused("login token", refusal)),
            };
            let what = match orphan.kind {
                journal::TokenKind::Login => "login token of an earlier process",
                journal::TokenKind::Run => "run token of an earlier process",
            };
            context.note(Event::OrphanRevoked, &call, &result, |entry, ()| entry.detail(what));
            if result.is_ok() {
                tracing::info!("revoked the {what}");
                context.journal.settle(&orphan.accessor).await;
            }
        }
    }

    /// Judges everything anew: the machine was frozen, or its clock jumped. Idle connections are of no use any more.
    pub fn clock_jumped(&self, by: Duration) {
        tracing::warn!(
            "the clocks moved apart by {}: everything is judged anew",
            humantime::format_duration(by)
        );
        let detail = format!("{} ms", by.as_millis());
        self.context.audit.note(&Entry::done(Event::ClockJump).run(&self.stamp).detail(&detail));
        self.context.source.forget_connections();
        self.login.judge();
        if let Some((_, token)) = &self.token {
            token.judge();
        }
        for entry in self.leases.all() {
            entry.keeper.judge();
        }
    }

    /// Whether the run is over, or past its deadline: its credentials are revoked, or about to be, and nobody gets them
    /// any more. Values without a lease end with it too.
    #[must_use]
    pub fn is_over(&self, now: Moment) -> bool {
        self.over.load(Ordering::Relaxed) || self.run.deadline.is_some_and(|deadline| deadline.is_over(now))
    }

    /// Whether the run has come to its end but for a moment: upstream counts in whole seconds, so the token of a run with
    /// a deadline is gone a little before it, and there will be no other.
    #[must_use]
    pub fn is_ending(&self, now: Moment) -> bool {
        let near = self.run.deadline.is_some_and(|deadline| deadline.left(now) < LAST_MOMENT);
        near && self.parent().view().held.is_none()
    }

    /// The same, now. Without a deadline the clock is not read.
    #[must_use]
    pub fn is_over_now(&self) -> bool {
        match self.run.deadline {
            Some(_) => self.is_over(self.context.clock.now()),
            None => self.over.load(Ordering::Relaxed),
        }
    }

    /// Waits for the run's deadline and ends the run then. Without a deadline it waits for ever.
    pub async fn deadline(&self) {
        let Some(deadline) = self.run.deadline else { return std::future::pending().await };
        loop {
            let left = deadline.left(self.context.clock.now());
            if left.is_zero() {
                break;
            }
            // The wall clock may have gone on while this one stood still: look again now and then.
            tokio::time::sleep(left.min(LOOK_AGAIN)).await;
        }
        tracing::info!(run = %self.run.id, "the run's deadline has passed: its credentials are revoked");
        self.end_run(PATIENCE).await;
    }

    /// Ends the run: one revocation ends all its leases. What is not done within `grace` is left to its own expiry and
    /// to the journal.
    async fn end_run(&self, grace: Duration) -> bool {
        if !self.over.swap(true, Ordering::Relaxed) {
            self.context.audit.note(&Entry::done(Event::RunEnd).run(&self.stamp));
        }
        for entry in self.leases.all() {
            entry.keeper.request_end();
        }
        // Without a token of its own the run's leases hang off the login token, and end with it.
        self.parent().end(grace).await
    }

    /// Ends the run and then the login. Returns whether all of it was done within `grace`.
    pub async fn end(&self, grace: Duration) -> bool {
        let until = tokio::time::Instant::now() + grace;
        let run = self.end_run(grace.mul_f64(0.7)).await;
        // What a login takes has been spared for it.
        let left = until.saturating_duration_since(tokio::time::Instant::now());
        run & self.login.end(left).await
    }
}

/// With each new login the run token is tried again at once: that there was none may be all that stood in its way.
async fn retry_after_login(login: TokenKeeper, token: TokenKeeper) {
    let mut watch = login.watch();
    let mut logins = 0;
    loop {
        let view = watch.see();
        if view.ended {
            return;
        }
        if view.seq > logins {
            logins = view.seq;
            token.retry();
        }
        watch.changed().await;
    }
}
