//! What can be verified of a run that is to begin: whom it acts for, and what the platform says of it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::register::{Refusal, denied};
use super::subjects::AskKeys;
use super::tokens::with_login;
use super::{Common, PATIENCE};
use crate::clock::Until;
use crate::lease::failure::{Class, Failure};
use crate::lease::keeper::TokenKeeper;
use crate::lease::upstream::{BoxFuture, PublicKeys};
use crate::run::Run;
use crate::run::arn::Flow;
use crate::run::budget::Budget;
use crate::run::request::Facts;
use crate::run::seal::Lineage;
use crate::run::subject::{Assurance, Subject, SubjectError};
use crate::run::workflow::{Beat, Claim, Standing};
use crate::secret::Credential;

/// How long a registration waits for the budget of calls to the platform.
const BUDGET_PATIENCE: Duration = Duration::from_secs(5);

/// An execution's history may be a little behind the task that it tells of: it is asked as often, with these pauses.
const LAG: [Duration; 3] = [Duration::from_millis(500), Duration::from_millis(1500), Duration::ZERO];

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
        let ask = self.seal_key.as_ref().map(|key| {
            move || -> BoxFuture<'_, Result<PublicKeys, Failure>> {
                Box::pin(with_login(login, PATIENCE, move |login| async move {
                    self.source.public_keys(self.boot.call(&run.id), &login, key).await
                }))
            }
        });
        let ask = ask.as_ref().map(|ask| ask as AskKeys<'_>);
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

    /// What the platform says of a run; and, where that could not be learnt, why.
    pub(super) async fn standing(
        &self,
        facts: &Facts,
        task_token: Option<&Credential>,
        budget: &Mutex<Budget>,
    ) -> Result<(Standing, Option<Failure>), Refusal> {
        match self.confirmed(facts, task_token, budget).await {
            Ok(standing) => Ok((standing, None)),
            Err(Refusal::Unavailable(failure)) => {
                let execution = facts.execution.as_ref().map(tracing::field::display);
                tracing::warn!(execution, "what the platform knows of a run could not be learnt: {failure}");
                Ok((Standing::Asserted, Some(failure)))
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
                    || (evidence.of_activity && task_token.is_some())
                {
                    return Ok(Standing::Verified);
                }
                tokio::time::sleep(wait).await;
            }
            if task_token.is_some() {
                return Err(denied(
                    POLICY,
                    format!(
                        "the execution's history does not say that this is the token of a task of the state {state:?} \
                         that is under way"
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
