//! How a run begins that is registered: who it acts for, which rule counts, what the platform says, and in what limits.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::active::{Active, Registrant, Secrets};
use super::life::{self, Cause, Life};
use super::registry::{Key, Registry};
use super::tokens::refused;
use super::{PATIENCE, Runs, SubjectExpiry};
use crate::audit::{AuditError, Entry, Event, Peer};
use crate::causes::causes;
use crate::clock::{Until, soonest};
use crate::lease::failure::{Class, Failure};
use crate::policy::rules::{Candidate, Choice, Owner, Rule, Verification};
use crate::run::arn::ExecutionArn;
use crate::run::request::{Facts, Request};
use crate::run::workflow::Standing;
use crate::run::{Kind, Run};
use crate::secret::Credential;

/// Whoever registers a run may be registered by another: so deep, and no deeper.
const DEEPEST: u32 = 16;

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

pub(super) fn denied(policy: &str, reason: impl Into<String>) -> Refusal {
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
        door: &'static str,
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
        let depth = by.depth + 1;
        if depth > DEEPEST {
            return Err(denied("run.rule", format!("runs are nested no deeper than {DEEPEST}")));
        }
        let parent = (by.registrant != Registrant::Own).then(|| Arc::clone(&by.run.id));
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
            return told(active).await;
        }
        self.room(&self.registry())?;
        let checked =
            common.subject(&facts, &run, subject_token.as_ref(), Some(&by.run), &self.login).await?;
        let (subject, expires) = checked.map_or((None, None), |(subject, expires)| (Some(subject), expires));
        let uid = match registrant {
            Registrant::Uid(uid) => Some(uid),
            Registrant::Own | Registrant::Holder | Registrant::Platform => None,
        };
        let mut candidate = Candidate { facts: &facts, subject: subject.as_ref(), uid, standing: None };
        let mut choice = common.rules.choose(&candidate);
        let mut unknown = None;
        if choice == Choice::Verify {
            let (standing, failure) = common.standing(&facts, task_token.as_ref(), &self.budget).await?;
            (candidate.standing, unknown) = (Some(standing), failure);
            choice = common.rules.choose(&candidate);
        }
        let rule = match choice {
            Choice::Take(rule) => Arc::clone(rule),
            // What could not be learnt may be all that stands in the way: another try may do.
            Choice::Refuse(reason) => {
                return Err(unknown.map_or_else(|| denied("run.rule", reason), Refusal::Unavailable));
            }
            Choice::Verify => return Err(denied("run.rule", "the platform's word on this run is not known")),
        };
        if !rule.may_widen(&candidate) {
            self.within(&rule, by).await?;
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
        // To ask the platform takes its time.
        if let Some(cause) = by.over(|| now) {
            return Err(Refusal::Over { id: Arc::clone(&by.run.id), cause });
        }
        if cap.is_some_and(|cap| cap.is_over(now)) {
            return Err(denied("run.subject", "the subject's token has expired"));
        }
        if deadline.is_some_and(|deadline| deadline.is_over(now)) {
            return Err(Refusal::Wrong("the run's deadline passed before it could begin".to_owned()));
        }
        // The registrant may be extended, and what it registered with it.
        let ceiling = soonest([Some(Until::new(now, rule.max_ttl)), cap], now);
        let deadline = soonest([ceiling, deadline, by.deadline()], now);
        let mut life = Life::new(deadline, ceiling);
        common.watch_life(&mut life, &run, task_token.is_some());
        let secrets = Secrets { handle: Some(new_handle()?), task_token };
        let active = Active::new(run, self.number(), registrant, Some(rule), life, now, secrets);
        let mut active = active.map_err(|error| Refusal::Unaudited(error.to_string()))?;
        active.depth = depth;
        let active = Arc::new(active);
        if let Some(known) = self.take_place(&active, key.as_ref())? {
            return told(known).await;
        }
        // Whoever waits for the answer may go away: what is written must be so.
        let (runs, peer) = (Arc::clone(self), peer.clone());
        let begun =
            common.supervisor.spawn("run begin", async move { runs.begin(active, &peer, door).await });
        begun.await.unwrap_or_else(|error| Err(Refusal::Unaudited(error.to_string())))
    }

    /// Takes a place for a run, or finds who was quicker.
    fn take_place(
        self: &Arc<Self>,
        active: &Arc<Active>,
        key: Option<&Key>,
    ) -> Result<Option<Arc<Active>>, Refusal> {
        if let Some(known) = self.known(key) {
            return Ok(Some(known));
        }
        let mut registry = self.registry();
        if let Some(known) = key.and_then(|key| registry.by_key(key)) {
            return Ok(Some(Arc::clone(known)));
        }
        self.room(&registry)?;
        registry.insert(active);
        Ok(None)
    }

    /// Whether there is room for one more. The process's own run is not counted.
    fn room(&self, registry: &Registry) -> Result<(), Refusal> {
        let limit = self.common.max_runs;
        if registry.len() > limit { Err(Refusal::Full { limit }) } else { Ok(()) }
    }

    /// Puts a run on record that has its place.
    async fn begin(
        self: &Arc<Self>,
        active: Arc<Active>,
        peer: &Peer,
        door: &str,
    ) -> Result<Registered, Refusal> {
        let rule = active.rule.as_ref().map_or("", |rule| &rule.name);
        let entry =
            Entry::granted(Event::RunRegister).run(&active.stamp).caller(peer).door(door).policy(rule);
        let entry = entry.expires(active.deadline().map(Until::end));
        let recorded = self.common.audit.record(&entry).await;
        // Nobody else sets it.
        let _ = active.on_record.set(recorded.is_ok());
        if let Err(error) = recorded {
            self.registry().forget(&active);
            return Err(unaudited(&error));
        }
        self.schedule(&active);
        Ok(Registered { active, new: true })
    }

    /// The run with that key. One whose deadline has passed ends here, should nobody have looked at it since.
    fn known(self: &Arc<Self>, key: Option<&Key>) -> Option<Arc<Active>> {
        let active = self.registry().by_key(key?).cloned()?;
        if active.over(|| self.common.clock.now()).is_none() {
            return Some(active);
        }
        self.step(&active, life::Event::Tick);
        None
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

    /// Whether a rule gives no more than the registrant has. Where only the policies of the registrant's token can tell,
    /// and it has none yet, one is made.
    async fn within(&self, rule: &Rule, by: &Arc<Active>) -> Result<(), Refusal> {
        let own = self.common.own_token.as_deref();
        let (token_role, narrowed, namespace) = match &by.rule {
            Some(rule) => (Some(&*rule.token_role), &*rule.policies, rule.namespace.as_deref()),
            None => (own.map(|own| &*own.role), &[][..], None),
        };
        let owner = Owner { token_role, narrowed, policies: None, namespace };
        if rule.lies_within(&owner).is_ok() {
            return Ok(());
        }
        let mut policies = None;
        if !rule.policies.is_empty() {
            let token = self.work(by).parent.get(Duration::ZERO, PATIENCE).await;
            let token =
                token.map_err(|refusal| Refusal::Unavailable(refused("registrant's token", refusal)))?;
            policies = Some(token.held);
        }
        let policies = policies.as_ref().map(|held| &*held.payload.policies);
        rule.lies_within(&Owner { policies, ..owner }).map_err(|reason| denied("run.rule", reason))
    }
}

/// The executions above a run: its parent, what is known to be above that one, the root.
pub(super) fn above(facts: &Facts, known: Option<Box<[ExecutionArn]>>) -> Box<[ExecutionArn]> {
    let known = known.unwrap_or_default();
    let mut chain: Vec<ExecutionArn> = Vec::with_capacity(known.len() + 2);
    for arn in facts.parent.iter().chain(&known).chain(&facts.root) {
        // What is said may go in a circle, and each turn of it would be longer.
        if !chain.contains(arn) && facts.execution.as_ref() != Some(arn) {
            chain.push(arn.clone());
        }
    }
    chain.into()
}

/// The answer to who registers a run again. Until it is on record there is no such run.
async fn told(active: Arc<Active>) -> Result<Registered, Refusal> {
    match *active.on_record.wait().await {
        true => Ok(Registered { active, new: false }),
        false => Err(Refusal::Unaudited("it was being registered, and that could not be written".to_owned())),
    }
}

/// `tnr_` and 256 random bits.
fn new_handle() -> Result<Credential, Refusal> {
    let mut bits = [0; 32];
    getrandom::fill(&mut bits).map_err(random)?;
    Ok(Credential::new(format!("tnr_{}", URL_SAFE_NO_PAD.encode(bits))))
}

pub(super) fn random(error: getrandom::Error) -> Refusal {
    Refusal::Unavailable(Failure::new(
        Class::Transient,
        format!("the system has no randomness to give: {error}"),
    ))
}

fn unaudited(error: &AuditError) -> Refusal {
    Refusal::Unaudited(causes(error))
}
