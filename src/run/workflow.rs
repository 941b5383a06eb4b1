//! What the platform knows of a run: the seam to Step Functions and ECS.

use super::arn::ExecutionArn;
use crate::lease::failure::Failure;
use crate::lease::upstream::BoxFuture;
use crate::secret::Credential;

/// How far the platform confirms what was said of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// Somebody said so, and nobody looked.
    Asserted,
    /// An express execution: the platform tells nothing of those.
    Unverifiable,
    /// Such an execution is running; that this run belongs to it is not known.
    Exists,
    /// The platform confirmed that *this task* belongs to that execution, and to that state of it.
    Verified,
}

impl Standing {
    /// The word in logs, metadata and answers.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Asserted => "asserted",
            Self::Unverifiable => "unverifiable",
            Self::Exists => "exists",
            Self::Verified => "verified",
        }
    }
}

/// What Step Functions answers to a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beat {
    /// The task goes on.
    Alive,
    /// It has timed out, or its execution was stopped: `TaskTimedOut`.
    TimedOut,
    /// Step Functions does not know it any more: `TaskDoesNotExist`.
    Gone,
    /// It is no task token: `InvalidToken`.
    Invalid,
}

/// How an execution is doing (`DescribeExecution`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExecutionStatus {
    /// It runs.
    Running,
    /// It failed, and is to be taken up again.
    PendingRedrive,
    /// It has ended well.
    Succeeded,
    /// It has failed.
    Failed,
    /// It took too long.
    TimedOut,
    /// Somebody stopped it.
    Aborted,
}

impl ExecutionStatus {
    /// Whether its runs may go on.
    #[must_use]
    pub fn is_live(self) -> bool {
        matches!(self, Self::Running | Self::PendingRedrive)
    }

    /// As Step Functions spells it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Running => "RUNNING",
            Self::PendingRedrive => "PENDING_REDRIVE",
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
            Self::TimedOut => "TIMED_OUT",
            Self::Aborted => "ABORTED",
        }
    }
}

/// What is to be looked for in an execution's history.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// The state that the run says it is.
    pub state: &'a str,
    /// The ECS task that this process runs in.
    pub task_arn: Option<&'a str>,
    /// The task token that the run presented.
    pub task_token: Option<&'a Credential>,
}

/// What an execution's history says to a [`Claim`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// The state was entered and not left, and a task of it is under way.
    pub in_progress: bool,
    /// Such a task is an activity's: no history tells the token that it was given.
    pub of_activity: bool,
    /// A task of that state that is under way names our ECS task.
    pub names_task: bool,
    /// A task of that state that is under way was given the very token. Activities' tokens are not in the history.
    pub names_token: bool,
}

/// Step Functions.
pub trait Workflow: Send + Sync + 'static {
    /// `SendTaskHeartbeat`: whether the task goes on. A token that is none is an answer, not a failure.
    fn heartbeat<'a>(&'a self, task_token: &'a Credential) -> BoxFuture<'a, Result<Beat, Failure>>;

    /// `DescribeExecution`: how it is doing; `None` if there is no such execution. Never asked of an express one.
    ///
    /// AWS calls the answer eventually consistent: it may lag behind.
    fn describe<'a>(
        &'a self,
        execution: &'a ExecutionArn,
    ) -> BoxFuture<'a, Result<Option<ExecutionStatus>, Failure>>;

    /// `GetExecutionHistory`: what it says to a claim. An execution that is not known says nothing.
    ///
    /// A task may run before the history names it (`TaskSubmitted` is written when ECS has answered): that nothing is found
    /// at first says nothing. May be up to ten calls, each of which counts against the account's rate.
    fn history<'a>(
        &'a self,
        execution: &'a ExecutionArn,
        claim: Claim<'a>,
    ) -> BoxFuture<'a, Result<Evidence, Failure>>;
}

/// The ECS task that the broker runs in, as its metadata endpoint tells it (version 4).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EcsTask {
    /// The task's ARN.
    pub arn: String,
    /// The task definition's family.
    pub family: String,
    /// The task definition's revision.
    pub revision: String,
}
