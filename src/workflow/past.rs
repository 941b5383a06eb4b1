//! A whole history, oldest first, as an auditor reads it: what happened when, in which state, and which executions it
//! started. Inputs and outputs are not asked for, but of an execution that starts others: Step Functions says which ones
//! in an output alone. Nothing else is taken from it, and it is dropped at once.

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_sfn::types::HistoryEvent;
use serde::Deserialize;
use tokio::sync::OnceCell;

use super::refusal::{self, Asked};
use super::{PAGE, StepFunctions, all_of};
use crate::lease::failure::{Class, Failure};
use crate::run::arn::{ExecutionArn, Flow};

/// For one page, with all that is tried for it.
const PATIENCE: Duration = Duration::from_secs(120);

/// How often a page is asked for, with pauses of up to 1, 2, 4 s and so on: half a minute at most, most often half of that.
const TRIES: u32 = 6;

/// No more pages are read of one history. It has at most 25,000 events, and pages with data may be smaller than asked for.
const PAGES: usize = 250;

/// One event of a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastEvent {
    /// Its number in the history, from 1 on.
    pub id: u64,
    /// When, since the epoch.
    pub at: Duration,
    /// Step Functions' word: `TaskStateEntered`.
    pub kind: String,
    /// The state that it enters or leaves.
    pub state: Option<String>,
    /// The execution that it started.
    pub started: Option<String>,
    /// The name of an error; never its cause, which may hold anything.
    pub error: Option<String>,
}

/// Why there is no history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Untold {
    /// An express execution: Step Functions keeps none of these.
    Express,
    /// There is no such execution, or it ended more than 90 days ago.
    Gone,
    /// It may not be read; others may be. The message names the permission.
    Refused(Failure),
    /// Step Functions cannot be asked: this will hold for others, too.
    Failed(Failure),
}

impl StepFunctions {
    /// For an auditor's command: as [`StepFunctions::new`], but a call that is throttled or gets no answer is tried again.
    #[must_use]
    pub fn patient() -> Self {
        Self::made(None, OnceCell::new(), PATIENCE, TRIES)
    }

    /// All of an execution's history, oldest first. Needs `states:GetExecutionHistory`, and `kms:Decrypt` where the state
    /// machine has a key of its own.
    ///
    /// # Errors
    /// See [`Untold`].
    pub async fn past(&self, execution: &ExecutionArn) -> Result<Vec<PastEvent>, Untold> {
        if execution.flow() == Flow::Express {
            return Err(Untold::Express);
        }
        let mut events = Vec::new();
        let mut starts_others = false;
        self.pages(execution, false, &mut |event| {
            starts_others |= is_start(&event);
            events.push(past(event));
        })
        .await?;
        if starts_others {
            let mut started = HashMap::new();
            self.pages(execution, true, &mut |event| {
                if let Some(arn) = is_start(&event).then(|| child(&event)).flatten() {
                    started.insert(number(event.id), arn);
                }
            })
            .await?;
            for event in &mut events {
                event.started = started.remove(&event.id);
            }
        }
        Ok(events)
    }

    async fn pages(
        &self,
        execution: &ExecutionArn,
        with_data: bool,
        each: &mut (dyn FnMut(HistoryEvent) + Send),
    ) -> Result<(), Untold> {
        let resource = all_of(execution);
        let whose = self.0.whose;
        let asked = Asked { action: "GetExecutionHistory", resource: &resource, token: None, whose };
        let mut next = None;
        for _ in 0..PAGES {
            let call = async {
                let client = self.client(Some(execution.region())).await?;
                let page = client
                    .get_execution_history()
                    .execution_arn(execution.as_str())
                    .max_results(PAGE)
                    .include_execution_data(with_data)
                    .set_next_token(next.take())
                    .send()
                    .await;
                match page {
                    Ok(page) => Ok(Ok(page)),
                    Err(error) => Ok(Err(match refusal::code(&error) {
                        Some("ExecutionDoesNotExist") => Untold::Gone,
                        Some("InvalidArn" | "KmsInvalidStateException") => {
                            Untold::Refused(self.failed(&asked, &error))
                        }
                        _ => {
                            let failure = self.failed(&asked, &error);
                            match failure.class {
                                Class::Denied => Untold::Refused(failure),
                                _ => Untold::Failed(failure),
                            }
                        }
                    })),
                }
            };
            let page = self.within(&asked, call).await.map_err(Untold::Failed)??;
            page.events.into_iter().for_each(&mut *each);
            next = page.next_token;
            if next.is_none() {
                return Ok(());
            }
        }
        Err(Untold::Refused(Failure::new(
            Class::Permanent,
            format!("Step Functions, GetExecutionHistory: there are more than {PAGES} pages of it"),
        )))
    }
}

fn number(id: i64) -> u64 {
    u64::try_from(id).unwrap_or_default()
}

/// Whether it tells of an execution that was started: at the submission where that is waited for, else as the result.
fn is_start(event: &HistoryEvent) -> bool {
    let is_ours = |resource_type: &str| matches!(resource_type, "states" | "aws-sdk:sfn");
    if let Some(task) = &event.task_submitted_event_details {
        return is_ours(&task.resource_type) && task.resource.starts_with("startExecution");
    }
    let task = event.task_succeeded_event_details.as_ref();
    task.is_some_and(|task| is_ours(&task.resource_type) && task.resource == "startExecution")
}

fn child(event: &HistoryEvent) -> Option<String> {
    #[derive(Deserialize)]
    struct Started {
        #[serde(rename = "ExecutionArn")]
        arn: String,
    }
    let submitted = event.task_submitted_event_details.as_ref().and_then(|task| task.output.as_deref());
    let succeeded = event.task_succeeded_event_details.as_ref().and_then(|task| task.output.as_deref());
    let Started { arn } = serde_json::from_str(submitted.or(succeeded)?).ok()?;
    arn.parse::<ExecutionArn>().is_ok().then_some(arn)
}

fn past(event: HistoryEvent) -> PastEvent {
    let entered = event.state_entered_event_details.as_ref().map(|details| details.name.clone());
    let exited = event.state_exited_event_details.as_ref().map(|details| details.name.clone());
    PastEvent {
        id: number(event.id),
        at: u128::try_from(event.timestamp.as_nanos()).map_or(Duration::ZERO, Duration::from_nanos_u128),
        kind: event.r#type.as_str().to_owned(),
        state: entered.or(exited),
        started: None,
        error: error(event),
    }
}

/// The name of its error, whichever kind it is.
fn error(event: HistoryEvent) -> Option<String> {
    let names = [
        event.activity_failed_event_details.and_then(|it| it.error),
        event.activity_schedule_failed_event_details.and_then(|it| it.error),
        event.activity_timed_out_event_details.and_then(|it| it.error),
        event.task_failed_event_details.and_then(|it| it.error),
        event.task_start_failed_event_details.and_then(|it| it.error),
        event.task_submit_failed_event_details.and_then(|it| it.error),
        event.task_timed_out_event_details.and_then(|it| it.error),
        event.execution_failed_event_details.and_then(|it| it.error),
        event.execution_aborted_event_details.and_then(|it| it.error),
        event.execution_timed_out_event_details.and_then(|it| it.error),
        event.lambda_function_failed_event_details.and_then(|it| it.error),
        event.lambda_function_schedule_failed_event_details.and_then(|it| it.error),
        event.lambda_function_start_failed_event_details.and_then(|it| it.error),
        event.lambda_function_timed_out_event_details.and_then(|it| it.error),
        event.map_run_failed_event_details.and_then(|it| it.error),
        event.evaluation_failed_event_details.and_then(|it| it.error),
    ];
    names.into_iter().flatten().next()
}

#[cfg(test)]
mod tests;
