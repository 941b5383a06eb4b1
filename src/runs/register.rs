//! How a run begins that is registered: who it acts for, which rule counts, what the platform says, and in what limits.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::active::{Active, Registrant, Secrets};
use super::life::{Cause, Life};
use super::registry::Key;
use super::subjects::AskKeys;
use super::tokens::refused;
use super::{Common, PATIENCE, Runs, SubjectExpiry};
use crate::audit::{AuditError, Entry, Event, Peer};
use crate::causes::causes;
use crate::clock::Until;
use crate::lease::failure::{Class, Failure};
use crate::lease::keeper::TokenKeeper;
use crate::lease::upstream::{BoxFuture, PublicKeys};
use crate::policy::rules::{Candidate, Choice, Owner, Rule, Verification};
use crate::run::arn::{ExecutionArn, Flow};
use crate::run::budget::Budget;
use crate::run::request::{Facts, Request};
use crate::run::seal::Lineage;
use crate::run::subject::{Assurance, Subject, SubjectError};
use crate::run::workflow::{Beat, Claim, Standing};
use crate::run::{Kind, Run};
use crate::secret::Credential;

/// How long a registration waits for the budget of calls to the platform.
const BUDGET_PATIENCE: Duration = Duration::from_secs(5);

/// An execution's history may be a little behind the task that it tells of: it is asked as often, with these pauses.
const LAG: [Duration; 3] = [Duration::from_millis(500), Duration::from_millis(1500), Duration::ZERO];

/// Why a run was not registered, extended or shown.
#[derive(Clone, Debug)]
pub enum Refusal {
    /// What was said of it makes no sense.
    Wrong(String),
    /// It may not: the policy that says so, and why.
    Denied {
        /// `run.rule`, `run.subject`, `run.verification`.
        policy: String,
        /// For the caller and for the auditor.
        reason: String,
    },
    /// Whether it may cannot be learnt now.
    Unavailable(Failure),
    /// There are as many runs as there may be.
    Full {
        /// The limit.
        limit: usize,
    },
    /// The registrant's own run is over.
    Over {
        /// Its id.
        id: Arc<str>,
        /// Why.
        cause: Cause,
    },
    /// The audit line could not be written.
    Unaudited(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wrong(why) | Self::Denied { reason: why, .. } => f.write_str(why),
            Self::Unavailable(failure) => write!(f, "{failure}"),
            Self::Full { limit } => {
                write!(
                    f,
                    "there are {limit} runs already, and run.max_runs allows no more: end some, or raise it"
                )
            }
            Self::Over { id, cause } => write!(f, "the run {id} is over: {cause}"),
            Self::Unaudited(why) => write!(f, "no run begins that cannot be written to the audit log: {why}"),
        }
    }
}

fn denied(policy: &str, reason: impl Into<String>) -> Refusal {
    Refusal::Denied { policy: policy.to_owned(), reason: reason.into() }
}

/// A run that is registered.
#[derive(Debug)]
pub struct Registered {
    /// It.
    pub active: Arc<Active>,
    /// Whether it began with this request; it was registered before otherwise.
    pub new: bool,
}

impl Runs {
    /// Registers a run in the limits of `by`, its registrant's own run.
    ///
    /// To register the same execution, state and attempt again is to be told of the same run. Nothing is asked of
    /// upstream: the run's token is made at its first read.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn register(
        self: &Arc<Self>,
        registrant: Registrant,
        by: &Arc<Active>,
        peer: &Peer,
        door: &str,
        request: Request,
    ) -> Result<Registered, Refusal> {
        let common = &self.common;
        let now = common.clock.now();
        if let Some(cause) = by.over(|| now) {
            return Err(Refusal::Over { id: Arc::clone(&by.run.id), cause });
        }
        if by.rule.as_ref().is_some_and(|rule| !rule.may_register) {
            return Err(denied("run.rule", "a run of this rule registers no others: see may_register"));
        }
        let Request { facts, deadline, subject_token, task_token } = request;
        let parent = by.rule.as_ref().map(|_| Arc::clone(&by.run.id));
        let parents = self.above(&facts, by)?;
        let mut run = Run {
            execution: facts.execution.clone(),
            state: facts.state.clone(),
            attempt: facts.attempt,
            parents,
            parent,
            task: common.task.clone(),
            ..Run::new("".into(), Kind::Api)
        };
        let key = Key::of(&run, registrant);
        if let Some(active) = self.known(key.as_ref()) {
            return Ok(Registered { active, new: false });
        }
        let checked =
            common.subject(&facts, &run, subject_token.as_ref(), Some(&by.run), &self.login).await?;
        let (subject, expires) = checked.map_or((None, None), |(subject, expires)| (Some(subject), expires));
        let uid = match registrant {
            Registrant::Uid(uid) => Some(uid),
            Registrant::Own | Registrant::Holder => None,
        };
        let mut candidate = Candidate { facts: &facts, subject: subject.as_ref(), uid, standing: None };
        let mut choice = common.rules.choose(&candidate);
        if choice == Choice::Verify {
            let wanted = Verification::Warn;
            candidate.standing =
                Some(common.standing(&facts, task_token.as_ref(), wanted, &self.budget).await?);
            choice = common.rules.choose(&candidate);
        }
        let rule = match choice {
            Choice::Take(rule) => Arc::clone(rule),
            Choice::Refuse(reason) => return Err(denied("run.rule", reason)),
            Choice::Verify => return Err(denied("run.rule", "the platform's word on this run is not known")),
        };
        if !rule.may_widen(&candidate) {
            self.within(&rule, by)?;
        }
        let standing = candidate.standing.unwrap_or(Standing::Asserted);
        if rule.verification == Verification::Warn && standing != Standing::Verified {
            tracing::warn!(
                rule = rule.name,
                standing = standing.word(),
                "a run begins that the platform does not confirm"
            );
        }
        run.kind = candidate.kind();
        run.id = Run::new_id().map_err(random)?;
        run.standing = standing;
        run.subject = subject.map(Box::new);
        run.tags = facts.tags.into_iter().collect();

        let now = common.clock.now();
        let cap = expires.filter(|_| common.subject_expiry == SubjectExpiry::Cap);
        let bounds = [Some(Until::new(now, rule.max_ttl)), cap, by.deadline()];
        let soonest =
            |untils: &[Option<Until>]| untils.iter().flatten().copied().min_by_key(|until| until.left(now));
        let ceiling = soonest(&bounds);
        let deadline = soonest(&[ceiling, deadline]);
        if deadline.is_some_and(|deadline| deadline.is_over(now)) {
            return Err(denied(
                "run.subject",
                "the run would end before it began: its subject's token, or its registrant, ends now",
            ));
        }
        let mut life = Life::new(deadline, ceiling);
        common.watch_life(&mut life, &run, task_token.is_some());
        let secrets = Secrets { handle: Some(new_handle()?), task_token };
        let active = Active::new(run, self.number(), registrant, Some(rule), life, now, secrets);
        let active = active.map_err(|error| Refusal::Unaudited(error.to_string()))?;
        self.begin(Arc::new(active), key.as_ref(), peer, door).await
    }

    /// Puts a run on record and into the registry.
    async fn begin(
        self: &Arc<Self>,
        active: Arc<Active>,
        key: Option<&Key>,
        peer: &Peer,
        door: &str,
    ) -> Result<Registered, Refusal> {
        {
            let mut registry = self.registry();
            // Somebody may have been quicker.
            if let Some(active) = key.and_then(|key| registry.by_key(key)) {
                return Ok(Registered { active: Arc::clone(active), new: false });
            }
            // The process's own run is not counted.
            if registry.len() > self.common.max_runs {
                return Err(Refusal::Full { limit: self.common.max_runs });
            }
            registry.insert(&active);
        }
        let rule = active.rule.as_ref().map_or("", |rule| &rule.name);
        let entry =
            Entry::granted(Event::RunRegister).run(&active.stamp).caller(peer).door(door).policy(rule);
        let entry = match active.deadline() {
            Some(deadline) => entry.expires(deadline.end()),
            None => entry,
        };
        if let Err(error) = self.common.audit.record(&entry).await {
            self.registry().forget(&active);
            return Err(unaudited(&error));
        }
        self.schedule(&active);
        Ok(Registered { active, new: true })
    }

    fn known(&self, key: Option<&Key>) -> Option<Arc<Active>> {
        let active = self.registry().by_key(key?).cloned()?;
        active.over(|| self.common.clock.now()).is_none().then_some(active)
    }

    /// The executions above a run, as far as they are known: what it says itself, and what is known of its parent here.
    fn above(&self, facts: &Facts, by: &Active) -> Result<Box<[ExecutionArn]>, Refusal> {
        if facts.parent.is_some() && facts.parent == facts.execution {
            return Err(Refusal::Wrong(
                "parent_execution_arn: an execution is not its own parent".to_owned(),
            ));
        }
        let registrant = by.run.execution.as_ref();
        let parent = match (&facts.parent, registrant) {
            (Some(parent), _) => parent,
            // A run that a run of another execution registered was started by that one.
            (None, Some(registrant)) if facts.execution.as_ref() != Some(registrant) => registrant,
            (None, Some(_)) => return Ok(by.run.parents.clone()),
            (None, None) => return Ok(Box::default()),
        };
        let above = if registrant == Some(parent) {
            Some(by.run.parents.clone())
        } else {
            self.registry().of(parent).first().map(|known| known.run.parents.clone())
        };
        Ok(self::above(&Facts { parent: Some(parent.clone()), ..facts.clone() }, above))
    }

    /// Whether a rule gives no more than the registrant has.
    fn within(&self, rule: &Rule, by: &Arc<Active>) -> Result<(), Refusal> {
        let own = self.common.own_token.as_deref();
        let (token_role, narrowed, namespace) = match &by.rule {
            Some(rule) => (Some(&*rule.token_role), &*rule.policies, rule.namespace.as_deref()),
            None => (own.map(|own| &*own.role), &[][..], None),
        };
        let view = self.work(by).parent.view();
        let policies = view.held.as_ref().map(|held| &*held.payload.policies);
        let owner = Owner { token_role, narrowed, policies, namespace };
        rule.lies_within(&owner).map_err(|reason| match policies {
            None if !rule.policies.is_empty() => Refusal::Unavailable(Failure::new(Class::Transient, reason)),
            _ => denied("run.rule", reason),
        })
    }
}

impl Common {
    /// On whose behalf a run acts, and until when what proves it is good. Without a word of its own, a run acts for whom
    /// its registrant's run acts.
    pub(super) async fn subject(
        &self,
        facts: &Facts,
        run: &Run,
        token: Option<&Credential>,
        by: Option<&Run>,
        login: &TokenKeeper,
    ) -> Result<Option<(Subject, Option<Until>)>, Refusal> {
        let Some(token) = token else {
            let asserted = facts.subject.as_ref().map(|(id, kind)| Subject {
                id: id.to_string(),
                kind: *kind,
                issuer: None,
                assurance: Assurance::Asserted,
                groups: Vec::new(),
            });
            let inherited = || by.and_then(|run| run.subject.as_deref().cloned());
            return Ok(asserted.or_else(inherited).map(|subject| (subject, None)));
        };
        let now = self.clock.now();
        let lineage = Lineage { execution: facts.execution.as_ref(), ancestors: &run.parents };
        let ask = || -> BoxFuture<'_, Result<PublicKeys, Failure>> {
            Box::pin(async move {
                let taken = login.get(Duration::ZERO, PATIENCE).await;
                let held = taken.map_err(|refusal| refused("login token", refusal))?.held;
                let call = self.boot.call(&run.id);
                // Asked only where there is a key.
                let key =
                    self.seal_key.as_ref().ok_or_else(|| Failure::new(Class::Permanent, "no key seals"))?;
                match self.source.public_keys(call, &held.payload, key).await {
                    Ok(keys) => Ok(keys),
                    Err(failure) => Err(login.decide(held.seq, failure, PATIENCE).await),
                }
            })
        };
        let ask = self.seal_key.is_some().then_some(&ask as AskKeys<'_>);
        match self.subjects.check(token, lineage, now, ask).await {
            Ok(checked) => {
                let until = Until::new(now, checked.expires.saturating_sub(now.wall()));
                Ok(Some((checked.subject, Some(until))))
            }
            Err(SubjectError::Refused(reason)) => {
                Err(denied("run.subject", format!("the subject's token is refused: {reason}")))
            }
            Err(SubjectError::Unavailable(failure)) => Err(Refusal::Unavailable(failure)),
        }
    }

    /// What the platform says of a run. What it cannot say now is an error only where that was required.
    pub(super) async fn standing(
        &self,
        facts: &Facts,
        task_token: Option<&Credential>,
        wanted: Verification,
        budget: &Mutex<Budget>,
    ) -> Result<Standing, Refusal> {
        match self.confirmed(facts, task_token, budget).await {
            Ok(standing) => Ok(standing),
            Err(Refusal::Unavailable(failure)) if wanted == Verification::Warn => {
                tracing::warn!("what the platform knows of a run could not be learnt: {failure}");
                Ok(Standing::Asserted)
            }
            Err(refusal) => Err(refusal),
        }
    }

    async fn confirmed(
        &self,
        facts: &Facts,
        task_token: Option<&Credential>,
        budget: &Mutex<Budget>,
    ) -> Result<Standing, Refusal> {
        const POLICY: &str = "run.verification";
        let (Some(workflow), Some(execution)) = (&self.workflow, &facts.execution) else {
            return Ok(Standing::Asserted);
        };
        if let Some(token) = task_token {
            let beat = workflow.heartbeat(token).await.map_err(Refusal::Unavailable)?;
            let wrong = match beat {
                Beat::Alive => None,
                Beat::TimedOut => Some("its task has timed out or was stopped (TaskTimedOut)"),
                Beat::Gone => Some("Step Functions does not know its task (TaskDoesNotExist)"),
                Beat::Invalid => Some("its task token is none (InvalidToken)"),
            };
            if let Some(why) = wrong {
                return Err(denied(POLICY, format!("the run is not taken: {why}")));
            }
        }
        if execution.flow() == Flow::Express {
            return Ok(Standing::Unverifiable);
        }
        let task_arn = self.task.as_deref().map(|task| task.arn.as_str());
        if let Some(state) = facts.state.as_deref()
            && (task_token.is_some() || task_arn.is_some())
        {
            let claim = Claim { state, task_arn, task_token };
            for wait in LAG {
                self.budgeted(budget).await?;
                let evidence = self.counted(budget, workflow.history(execution, claim).await);
                let evidence = evidence.map_err(Refusal::Unavailable)?;
                // An activity's token is not in the history: that it is good, and that the state is under way, is all
                // that Step Functions tells of it.
                if evidence.names_token
                    || evidence.names_task
                    || (evidence.in_progress && task_token.is_some())
                {
                    return Ok(Standing::Verified);
                }
                tokio::time::sleep(wait).await;
            }
            if task_token.is_some() {
                return Err(denied(
                    POLICY,
                    format!(
                        "the execution's history does not say that a task of the state {state:?} is under way"
                    ),
                ));
            }
        }
        self.budgeted(budget).await?;
        let status =
            self.counted(budget, workflow.describe(execution).await).map_err(Refusal::Unavailable)?;
        match status {
            Some(status) if status.is_live() => Ok(Standing::Exists),
            Some(status) => Err(denied(POLICY, format!("the execution is over: {}", status.word()))),
            None => Err(denied(POLICY, format!("there is no execution {execution}"))),
        }
    }

    /// Takes leave for one call to the platform.
    pub(super) fn within_budget(&self, budget: &Mutex<Budget>) -> Result<(), Failure> {
        let taken = budget.lock().unwrap_or_else(PoisonError::into_inner).take(self.clock.now());
        taken.map_err(|wait| {
            let message = "the budget of calls to Step Functions is used up: see workflow.account_rate and workflow.brokers";
            Failure { retry_after: Some(wait), ..Failure::new(Class::Transient, message) }
        })
    }

    /// The same, with a little patience: somebody waits for the answer.
    async fn budgeted(&self, budget: &Mutex<Budget>) -> Result<(), Refusal> {
        let mut patience = BUDGET_PATIENCE;
        loop {
            let failure = match self.within_budget(budget) {
                Ok(()) => return Ok(()),
                Err(failure) => failure,
            };
            let wait = failure.retry_after.unwrap_or(patience);
            if wait > patience {
                return Err(Refusal::Unavailable(failure));
            }
            patience = patience.saturating_sub(wait);
            tokio::time::sleep(wait).await;
        }
    }

    /// What throttles a call slows down all that follow.
    pub(super) fn counted<T>(
        &self,
        budget: &Mutex<Budget>,
        result: Result<T, Failure>,
    ) -> Result<T, Failure> {
        if let Err(failure) = &result
            && failure.class == Class::Transient
            && matches!(failure.status, Some(400 | 429))
        {
            let now = self.clock.now();
            budget.lock().unwrap_or_else(PoisonError::into_inner).throttled(now, failure.retry_after);
        }
        result
    }
}

/// The executions above a run: its parent, what is known to be above that one, the root.
pub(super) fn above(facts: &Facts, known: Option<Box<[ExecutionArn]>>) -> Box<[ExecutionArn]> {
    let mut chain: Vec<ExecutionArn> = facts.parent.iter().cloned().collect();
    chain.extend(known.unwrap_or_default());
    if let Some(root) = &facts.root
        && !chain.contains(root)
        && facts.execution.as_ref() != Some(root)
    {
        chain.push(root.clone());
    }
    chain.into()
}

/// `tnr_` and 256 random bits.
fn new_handle() -> Result<Credential, Refusal> {
    let mut bits = [0; 32];
    getrandom::fill(&mut bits).map_err(random)?;
    Ok(Credential::new(format!("tnr_{}", URL_SAFE_NO_PAD.encode(bits))))
}

fn random(error: getrandom::Error) -> Refusal {
    Refusal::Unavailable(Failure::new(
        Class::Transient,
        format!("the system has no randomness to give: {error}"),
    ))
}

fn unaudited(error: &AuditError) -> Refusal {
    Refusal::Unaudited(causes(error))
}
