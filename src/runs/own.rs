//! The process's own run: what its environment says of it, checked as far as the configuration wants.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::active::{Active, Registrant, Secrets};
use super::life::Life;
use super::register::{self, Refusal};
use super::{Common, SubjectExpiry};
use crate::clock::soonest;
use crate::lease::keeper::TokenKeeper;
use crate::policy::rules::Verification;
use crate::run::budget::Budget;
use crate::run::lambda::Lambda;
use crate::run::request::{Facts, Request};
use crate::run::workflow::{EcsTask, Standing};
use crate::run::{Kind, Run};

/// The process's own run.
#[derive(Debug)]
pub struct Own {
    /// Its id.
    pub id: Arc<str>,
    /// What its environment says of it.
    pub request: Request,
    /// The ECS task that the process runs in.
    pub task: Option<EcsTask>,
    /// The Lambda environment that the process serves.
    pub lambda: Option<Lambda>,
    /// The token role for its token; without one, leases hang off the login token.
    pub token_role: Option<String>,
    /// The time to live of its token where it has no deadline.
    pub token_ttl: Duration,
    /// Whether the platform is asked about it.
    pub verification: Verification,
}

/// Why the process's own run cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The run cannot be written as JSON, which strings always can.
    #[error("the run cannot be written as JSON")]
    Json(#[from] serde_json::Error),
    /// Its subject, or what is said of its execution, was not accepted.
    #[error("the process's own run cannot begin: {0}")]
    Refused(String),
}

impl Common {
    /// The process's own run, as its environment tells of it.
    pub(super) fn said(&self, id: Arc<str>, facts: &Facts) -> Run {
        let kind = match (&facts.execution, &self.lambda, &self.task) {
            (_, Some(_), _) => Kind::Environment,
            (Some(_), None, _) => Kind::State,
            (None, None, Some(_)) => Kind::Task,
            (None, None, None) => Kind::Process,
        };
        Run {
            parents: register::above(facts, None),
            execution: facts.execution.clone(),
            state: facts.state.clone(),
            attempt: facts.attempt,
            task: self.task.clone(),
            lambda: self.lambda.clone().map(Box::new),
            tags: facts.tags.clone().into_iter().collect(),
            ..Run::new(id, kind)
        }
    }

    /// The process's own run, as far as the configuration wants it checked.
    pub(super) async fn own(
        &self,
        said: Run,
        request: Request,
        verification: Verification,
        login: &TokenKeeper,
        budget: &Mutex<Budget>,
    ) -> Result<Active, StartError> {
        let now = self.clock.now();
        let Request { facts, deadline, subject_token, task_token } = request;
        let refused = |refusal: Refusal| StartError::Refused(refusal.to_string());
        let checked =
            self.subject(&facts, &said, subject_token.as_ref(), None, login).await.map_err(refused)?;
        let (standing, unknown) = match verification {
            Verification::Off => (None, None),
            _ => {
                let said = self.standing(&facts, task_token.as_ref(), budget).await;
                let (standing, unknown) = said.map_err(refused)?;
                (Some(standing), unknown)
            }
        };
        if let Some(failure) = unknown.filter(|_| verification == Verification::Require) {
            return Err(refused(Refusal::Unavailable(failure)));
        }
        if verification == Verification::Require && standing != Some(Standing::Verified) {
            let word = standing.unwrap_or(Standing::Asserted).word();
            return Err(StartError::Refused(format!(
                "run.verification requires a verified run, and the platform's word on this one is {word:?}"
            )));
        }
        let (subject, expires) = checked.map_or((None, None), |(subject, expires)| (Some(subject), expires));
        let cap = expires.filter(|_| self.subject_expiry == SubjectExpiry::Cap);
        let deadline = soonest([deadline, cap], now);
        let run =
            Run { subject: subject.map(Box::new), standing: standing.unwrap_or(Standing::Asserted), ..said };
        let mut life = Life::new(deadline, deadline);
        self.watch_life(&mut life, &run, task_token.is_some());
        let secrets = Secrets { handle: None, task_token };
        Ok(Active::new(run, 0, Registrant::Own, None, life, now, secrets)?)
    }
}
