//! A fake of Step Functions: it knows the tasks that the demo starts, answers their heartbeats, and lets an execution be
//! stopped. Nothing of it is in a broker that serves.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::lease::failure::Failure;
use crate::lease::upstream::BoxFuture;
use crate::run::arn::ExecutionArn;
use crate::run::workflow::{Beat, Claim, Evidence, ExecutionStatus, Workflow};
use crate::secret::Credential;

/// The fake. Cheap to clone: all clones are one.
#[derive(Clone, Default)]
pub(super) struct FakePlatform(Arc<Mutex<Vec<Task>>>);

/// A state of an execution that is under way, until the execution is stopped.
struct Task {
    token: String,
    execution: String,
    state: String,
    stopped: bool,
    beats: usize,
}

impl FakePlatform {
    /// An execution enters a state, which starts a task with this token.
    pub(super) fn enter(&self, execution: &str, state: &str, token: &str) {
        self.tasks().push(Task {
            token: token.to_owned(),
            execution: execution.to_owned(),
            state: state.to_owned(),
            stopped: false,
            beats: 0,
        });
    }

    /// Somebody stops this execution, and no other.
    pub(super) fn abort(&self, execution: &str) {
        self.tasks()
            .iter_mut()
            .filter(|task| task.execution == execution)
            .for_each(|task| task.stopped = true);
    }

    /// How many heartbeats this execution's tasks have sent.
    pub(super) fn beats(&self, execution: &str) -> usize {
        self.tasks().iter().filter(|task| task.execution == execution).map(|task| task.beats).sum()
    }

    fn tasks(&self) -> MutexGuard<'_, Vec<Task>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Task {
    fn knows(&self, token: &Credential) -> bool {
        token.matches(self.token.as_bytes())
    }
}

impl Workflow for FakePlatform {
    fn heartbeat<'a>(&'a self, task_token: &'a Credential) -> BoxFuture<'a, Result<Beat, Failure>> {
        Box::pin(async move {
            let mut tasks = self.tasks();
            let Some(task) = tasks.iter_mut().find(|task| task.knows(task_token)) else {
                return Ok(Beat::Invalid);
            };
            task.beats += 1;
            Ok(if task.stopped { Beat::TimedOut } else { Beat::Alive })
        })
    }

    fn describe<'a>(
        &'a self,
        execution: &'a ExecutionArn,
    ) -> BoxFuture<'a, Result<Option<ExecutionStatus>, Failure>> {
        Box::pin(async move {
            let tasks = self.tasks();
            let task = tasks.iter().find(|task| task.execution == execution.as_str());
            Ok(task.map(|task| match task.stopped {
                true => ExecutionStatus::Aborted,
                false => ExecutionStatus::Running,
            }))
        })
    }

    fn history<'a>(
        &'a self,
        execution: &'a ExecutionArn,
        claim: Claim<'a>,
    ) -> BoxFuture<'a, Result<Evidence, Failure>> {
        Box::pin(async move {
            let tasks = self.tasks();
            let here: Vec<_> = tasks
                .iter()
                .filter(|task| !task.stopped)
                .filter(|task| task.execution == execution.as_str() && task.state == claim.state)
                .collect();
            let names_token = claim.task_token.is_some_and(|token| here.iter().any(|task| task.knows(token)));
            Ok(Evidence { in_progress: !here.is_empty(), of_activity: false, names_task: false, names_token })
        })
    }
}
