//! Runs: each has a token of its own, and all its leases hang off that.
//!
//! The process that the broker stands beside is a run from the broker's start to its end; others are registered, each by
//! a rule that says what it may have. A run's token is an orphan made from a token role, so that the login token needs
//! no access to secrets; it is made at the run's first read. Where the process's own run has no token role, its leases
//! hang off the login token itself.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::audit::{Audit, Entry, Event};
use crate::backoff;
use crate::clock::Clock;
use crate::lease::failure::{Class, Failure};
use crate::lease::keeper::{Keeper, TokenKeeper};
use crate::lease::upstream::{Login, Source, TransitKey};
use crate::policy::rules::Rules;
use crate::run::arn::Flow;
use crate::run::budget::Budget;
use crate::run::lambda::Lambda;
use crate::run::workflow::{EcsTask, Workflow};
use crate::run::{Boot, Run};
use crate::supervise::Supervisor;

mod active;
mod anchors;
mod busy;
mod invoked;
pub mod journal;
pub mod leases;
mod life;
mod outstanding;
mod own;
mod register;
mod registry;
pub mod subjects;
mod tokens;
mod values;
mod verify;
mod watch;
mod work;

pub use active::{Active, Registrant};
pub use life::Cause;
pub use outstanding::Outstanding;
pub use own::{Own, StartError};
pub use register::{Refusal, Registered};
pub use registry::{Found, Gone};
pub use tokens::Grant;
pub use work::Work;

use active::Secrets;
use busy::Busy;
use invoked::Invoked;
use journal::{Journal, Orphan};
use leases::{Limits, Pool};
use life::Life;
use registry::Registry;
use subjects::Subjects;
use tokens::{Context, LoginPerformer, refused};
use values::ValueKeys;
use work::token_terms;

/// How long a call waits for the token that it is to be made with.
const PATIENCE: Duration = Duration::from_secs(10);

/// Calls to the platform at once: one registration may take four, its history's lag included, and a small share of the
/// account's rate would let none but the first of them through in time.
const BURST: u32 = 5;

/// What upstream's whole seconds may take from a run's deadline, and the way of a request.
const LAST_MOMENT: Duration = Duration::from_secs(2);

/// What the life of runs is made with.
pub struct Setup {
    /// How we log in.
    pub login: Arc<dyn Login>,
    /// Everything else that is asked of upstream.
    pub source: Arc<dyn Source>,
    /// The platform, where it can be asked.
    pub workflow: Option<Arc<dyn Workflow>>,
    /// Who checks subjects.
    pub subjects: Subjects,
    /// The key that seals subjects; `None`: no seal is accepted.
    pub seal_key: Option<TransitKey>,
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
    /// The process's own run.
    pub own: Own,
    /// What other runs may have.
    pub rules: Rules,
    /// How many runs there may be at a time, beside the process's own.
    pub max_runs: usize,
    /// Of all leases.
    pub limits: Limits,
    /// How the platform is asked.
    pub watching: Watching,
    /// Whether a run ends with its subject's token.
    pub subject_expiry: SubjectExpiry,
    /// How often the head of the audit log is put into upstream's; `None`: with run tokens and at the end alone.
    pub anchor: Option<Duration>,
    /// What wraps the key that disclosed values are hashed with; `None`: they are not.
    pub value_key: Option<TransitKey>,
}

/// How the platform is asked whether runs go on.
#[derive(Clone, Copy, Debug)]
pub struct Watching {
    /// How often a task that has a task token sends its heartbeat.
    pub heartbeat: Duration,
    /// How often an execution is described where there is no task token; `None`: never.
    pub poll: Option<Duration>,
    /// Descriptions and histories a second, over all runs of this process.
    pub rate: f64,
}

impl Default for Watching {
    fn default() -> Self {
        Self { heartbeat: Duration::from_secs(10), poll: None, rate: 1.0 }
    }
}

/// Whether a run ends with its subject's token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SubjectExpiry {
    /// The run's deadline is the token's expiry at the latest.
    #[default]
    Cap,
    /// The token has to be good when the run begins, and no longer.
    AtStart,
}

/// The login token, and all runs with their tokens and leases.
pub struct Runs {
    /// The keeper of the login token.
    pub login: TokenKeeper,
    /// How we log in, for a person.
    pub method: String,
    by: Arc<dyn Login>,
    own: Arc<Active>,
    registry: Mutex<Registry>,
    /// What runs of a rule share, by the rule's name, and how many of them there are.
    shared: Mutex<HashMap<String, (Arc<Work>, usize)>>,
    /// Something must be looked at sooner than was thought.
    news: Notify,
    numbers: AtomicU64,
    budget: Mutex<Budget>,
    pool: Arc<Pool>,
    values: Option<ValueKeys>,
    invoked: Invoked,
    /// Nothing is left of a run that is over.
    retired: Notify,
    common: Common,
}

/// What does not change.
struct Common {
    source: Arc<dyn Source>,
    workflow: Option<Arc<dyn Workflow>>,
    subjects: Subjects,
    seal_key: Option<TransitKey>,
    audit: Audit,
    journal: Journal,
    boot: Boot,
    clock: Clock,
    supervisor: Supervisor,
    rules: Rules,
    max_runs: usize,
    watching: Watching,
    subject_expiry: SubjectExpiry,
    own_token: Option<Arc<Grant>>,
    token_ttl: Duration,
    busy: Busy,
    /// Leases that were replaced by new ones.
    rotations: Arc<AtomicU64>,
    task: Option<Arc<EcsTask>>,
    lambda: Option<Lambda>,
}

impl Runs {
    /// Starts the login at once, and the process's own run and its token with it, as soon as what is said of that run was
    /// checked as far as the configuration wants.
    ///
    /// # Errors
    /// [`StartError`]: the process's own run cannot begin.
    pub async fn start(setup: Setup) -> Result<Arc<Self>, StartError> {
        let Setup { login, own, .. } = setup;
        let clock = setup.clock.clone();
        let Own { id, request, task, lambda, token_role, token_ttl, verification } = own;
        let common = Common {
            source: setup.source,
            workflow: setup.workflow,
            subjects: setup.subjects,
            seal_key: setup.seal_key,
            audit: setup.audit,
            journal: setup.journal,
            boot: setup.boot,
            clock: clock.clone(),
            supervisor: setup.supervisor,
            rules: setup.rules,
            max_runs: setup.max_runs,
            watching: setup.watching,
            subject_expiry: setup.subject_expiry,
            own_token: token_role
                .map(|role| Arc::new(Grant { role: role.into(), policies: Vec::new(), namespace: None })),
            token_ttl,
            busy: Busy::default(),
            rotations: Arc::default(),
            task: task.map(Arc::new),
            lambda,
        };
        let budget = Mutex::new(Budget::new(setup.watching.rate, BURST));
        let method = login.describe();
        // The login begins before anything of the run was checked: its lines say what was said.
        let said = common.said(id, &request.facts);
        let plain = Active::new(
            said.clone(),
            0,
            Registrant::Own,
            None,
            Life::new(None, None),
            clock.now(),
            Secrets::default(),
        )?;
        let by = Arc::clone(&login);
        let performer = Arc::new(LoginPerformer { login, context: common.context(&plain) });
        let login =
            Keeper::start("login", token_terms(None), None, performer, clock.clone(), &common.supervisor);
        let values = setup.value_key.map(|key| {
            let (login, context) = (login.clone(), common.context(&plain));
            ValueKeys::start(key, login, context, clock, &common.supervisor)
        });
        let own = common.own(said, request, verification, &login, &budget).await?;
        let runs = Arc::new(Self {
            login,
            method,
            by,
            own: Arc::new(own),
            registry: Mutex::default(),
            shared: Mutex::default(),
            news: Notify::new(),
            numbers: AtomicU64::new(1),
            budget,
            pool: Arc::new(Pool::new(setup.limits)),
            values,
            invoked: Invoked::default(),
            retired: Notify::new(),
            common,
        });
        let own = Arc::clone(&runs.own);
        runs.work(&own);
        runs.registry().insert(&own);
        runs.schedule(&own);
        let watcher = Arc::clone(&runs);
        runs.common.supervisor.spawn("runs", async move { watcher.watch().await });
        if let Some(every) = setup.anchor {
            let anchoring = Arc::clone(&runs);
            runs.common.supervisor.spawn("anchors", async move { anchoring.keep_anchored(every).await });
        }
        Ok(runs)
    }

    /// The process's own run.
    #[must_use]
    pub fn own(&self) -> &Arc<Active> {
        &self.own
    }

    /// The token and the leases of the process's own run.
    #[must_use]
    pub fn own_work(&self) -> &Arc<Work> {
        self.work(&self.own)
    }

    /// All runs that are open or closing, the process's own first, then in the order in which they began.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Active>> {
        let mut all = self.registry().all();
        all.sort_by_key(|active| active.number);
        all
    }

    /// How many runs are open or closing, the process's own among them.
    #[must_use]
    pub fn count(&self) -> usize {
        self.registry().len()
    }

    /// How many leases and values are held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.pool.held()
    }

    /// The run that a handle stands for.
    #[must_use]
    pub fn by_handle(&self, presented: &[u8]) -> Option<Found> {
        self.registry().by_handle(presented)
    }

    /// The run with that id.
    #[must_use]
    pub fn by_id(&self, id: &str) -> Option<Found> {
        self.registry().by_id(id)
    }

    /// Waits until there is a token that leases of the process's own run can hang off, and what their values are hashed
    /// with.
    ///
    /// # Errors
    /// The failure that no further try will mend. Transient ones are waited out.
    pub async fn established(&self) -> Result<(), Failure> {
        there_is(&self.login).await?;
        if let Some((_, token)) = &self.own_work().token {
            there_is(token).await?;
        }
        match &self.values {
            Some(values) => there_is(values.keeper()).await,
            None => Ok(()),
        }
    }

    /// Revokes what an earlier process left behind. One that upstream does not know any more counts as revoked.
    pub async fn revoke_orphans(&self, orphans: &[Orphan]) {
        let context = &self.own_work().context;
        for orphan in orphans {
            let call = context.call();
            let result = match self.login.get(Duration::ZERO, PATIENCE).await {
                Ok(login) => {
                    let (login, namespace) = (&login.held.payload, orphan.namespace.as_deref());
                    context.source.revoke_accessor(call.clone(), login, namespace, &orphan.accessor).await
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

    /// The machine was frozen, or its clock jumped, and nobody expected that: it is on record, and everything is
    /// [judged anew](Self::thawed).
    pub fn clock_jumped(self: &Arc<Self>, by: Duration) {
        tracing::warn!(
            "the clocks moved apart by {}: everything is judged anew",
            humantime::format_duration(by)
        );
        let detail = format!("{} ms", by.as_millis());
        self.common.audit.note(&Entry::done(Event::ClockJump).run(&self.own.stamp).detail(&detail));
        self.thawed();
    }

    /// Judges everything anew after a freeze. Idle connections are of no use any more, and calls that were under way are
    /// made again.
    pub fn thawed(self: &Arc<Self>) {
        self.common.source.forget_connections();
        self.login.thawed();
        if let Some(values) = &self.values {
            values.keeper().thawed();
        }
        for active in self.all() {
            if let Some(work) = active.work().filter(|_| !active.borrows()) {
                work.thawed();
            }
            self.step(&active, life::Event::Tick);
        }
    }

    /// Logs in again where what the last login was made with has been replaced.
    pub fn look_at_login(&self) {
        if self.by.is_outdated() {
            self.login.outdated();
        }
    }

    /// Lets go of entries that hold nothing and that nobody waits for.
    pub fn sweep(&self) {
        for active in self.all() {
            if let Some(work) = active.work() {
                work.leases.sweep();
            }
        }
        self.pool.sweep();
    }

    /// Whether a run has come to its end but for a moment: upstream counts in whole seconds, so the token of a run with a
    /// deadline is gone a little before it, and there will be no other.
    #[must_use]
    pub fn is_ending(&self, active: &Active) -> bool {
        let now = self.common.clock.now();
        let near = active.deadline().is_some_and(|deadline| deadline.left(now) < LAST_MOMENT);
        near && active.work().is_some_and(|work| work.parent.view().held.is_none())
    }

    /// Ends all runs and then the login. Returns whether all of it was done within `grace`.
    pub async fn end(self: &Arc<Self>, grace: Duration) -> bool {
        let until = tokio::time::Instant::now() + grace;
        let all = self.all();
        for active in &all {
            self.step(active, life::Event::End { cause: Cause::Shutdown });
        }
        let parents: Vec<TokenKeeper> = all
            .iter()
            .filter_map(|active| active.work())
            .filter_map(|work| work.token.as_ref().map(|(_, token)| token.clone()))
            .collect();
        let mut ended = true;
        let runs_until = tokio::time::Instant::now() + grace.mul_f64(0.7);
        for token in parents {
            let left = runs_until.saturating_duration_since(tokio::time::Instant::now());
            ended &= token.end(left).await;
        }
        if let Some(values) = &self.values {
            values.keeper().request_end();
        }
        // What a login takes has been spared for it.
        let left = until.saturating_duration_since(tokio::time::Instant::now());
        self.anchor(left / 2).await;
        let left = until.saturating_duration_since(tokio::time::Instant::now());
        ended & self.login.end(left).await
    }

    fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shared(&self) -> MutexGuard<'_, HashMap<String, (Arc<Work>, usize)>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits until something is held, or never will be.
async fn there_is<P: Clone + Send + Sync + 'static>(keeper: &Keeper<P>) -> Result<(), Failure> {
    let hopeless = |failure: &Failure| {
        matches!(failure.class, Class::Permanent | Class::Denied | Class::Forbidden | Class::NotFound)
    };
    let mut watch = keeper.watch();
    let settled = watch.wait_for(|view| {
        view.held.is_some()
            || view.ended
            || view.trouble.as_ref().is_some_and(|trouble| hopeless(&trouble.failure))
    });
    let view = settled.await;
    match &view.trouble {
        Some(trouble) if view.held.is_none() => Err(Failure::clone(&trouble.failure)),
        _ => Ok(()),
    }
}

impl Common {
    /// What performers of a run's calls need.
    fn context(&self, active: &Active) -> Arc<Context> {
        Arc::new(Context {
            source: Arc::clone(&self.source),
            audit: self.audit.clone(),
            journal: self.journal.clone(),
            boot: self.boot.clone(),
            clock: self.clock.clone(),
            run: Arc::clone(&active.run),
            stamp: Arc::clone(&active.stamp),
            deadline: Mutex::new(active.deadline()),
            patience: PATIENCE,
            busy: self.busy.clone(),
            rotations: Arc::clone(&self.rotations),
        })
    }

    /// How the platform is asked about a run from now on, if it is.
    fn watch_life(&self, life: &mut Life, run: &Run, has_task_token: bool) {
        if self.workflow.is_none() {
            return;
        }
        let (now, roll) = (self.clock.now(), backoff::roll());
        let standard = run.execution.as_ref().is_some_and(|arn| arn.flow() == Flow::Standard);
        if has_task_token {
            life.watch(life::Question::Heartbeat, self.watching.heartbeat, roll, now);
        } else if let Some(every) = self.watching.poll.filter(|_| standard) {
            life.watch(life::Question::Describe, every, roll, now);
        }
    }
}
