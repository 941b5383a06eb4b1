//! Histories of executions, asked of Step Functions with the auditor's own AWS credentials.

use std::io::Write as _;

use super::super::{Output, Session};
use crate::audit::At;
use crate::audit::trace::{HistoryEvent, Unfetched};
use crate::run::arn::ExecutionArn;
use crate::workflow::StepFunctions;
use crate::workflow::past::{PastEvent, Untold};

/// Who asks, one execution after the other, and says so on a terminal.
pub(super) struct Histories {
    functions: StepFunctions,
    runtime: tokio::runtime::Runtime,
    shown: bool,
    asked: u64,
}

impl Histories {
    /// With the standard AWS credential chain. Nothing is asked yet.
    ///
    /// # Errors
    /// Where the process cannot wait for answers.
    pub(super) fn new(session: &Session) -> Result<Self, Output> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime =
            runtime.map_err(|error| Output::failed(2, &format!("the runtime cannot start: {error}")))?;
        let functions = StepFunctions::patient();
        Ok(Self { functions, runtime, shown: session.screen.err_is_terminal, asked: 0 })
    }

    /// The history of an execution, in the region that its ARN names.
    pub(super) fn fetch(&mut self, arn: &str) -> Result<Vec<HistoryEvent>, Unfetched> {
        let execution: ExecutionArn = arn.parse().map_err(|_| {
            Unfetched::Refused(
                "it is not the ARN of an execution, which reads \
                arn:aws:states:<region>:<account>:execution:<state machine>:<name>"
                    .to_owned(),
            )
        })?;
        self.asked += 1;
        if self.shown {
            let _ =
                write!(std::io::stderr(), "\r\x1b[Kfetching history {}: {}", self.asked, execution.name());
        }
        let past = self.runtime.block_on(self.functions.past(&execution));
        if self.shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
        past.map(|events| events.into_iter().map(event).collect()).map_err(unfetched)
    }
}

fn event(past: PastEvent) -> HistoryEvent {
    let PastEvent { id, at, kind, state, started, error } = past;
    HistoryEvent { line: id, id, at: At::new(at), kind, state, started, error }
}

fn unfetched(untold: Untold) -> Unfetched {
    match untold {
        Untold::Express => {
            Unfetched::None("it is an express execution, of which Step Functions keeps no history".to_owned())
        }
        Untold::Gone => Unfetched::None(
            "Step Functions does not know it: it never was, or ended more than 90 days ago; a history that was kept \
             can be given as a file"
                .to_owned(),
        ),
        Untold::Refused(failure) => Unfetched::Refused(failure.message),
        Untold::Failed(failure) => Unfetched::Failed(format!(
            "histories cannot be fetched: {}. Without --fetch-histories the trace is made of the files alone",
            failure.message.trim_end_matches('.')
        )),
    }
}
