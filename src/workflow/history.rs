//! The SDK's events as ours: what matters is kept, the rest of the data is dropped at once.

use aws_sdk_sfn::types::HistoryEvent;

use super::evidence::{Event, Holds, Kind, Payload};

/// The event, as far as it matters. An event of a kind that is not known opens and closes nothing.
pub(super) fn event(from: HistoryEvent) -> Event {
    Event { id: from.id, previous: from.previous_event_id, kind: kind(from) }
}

fn kind(from: HistoryEvent) -> Kind {
    let kind = from.r#type.as_str();
    if let Some(state) = kind.strip_suffix("StateEntered") {
        let holds = match state {
            "Parallel" => Holds::Parallel,
            "Map" => Holds::Map,
            _ => Holds::Task,
        };
        let name = from.state_entered_event_details.map(|details| details.name);
        return name.map_or(Kind::Other, |name| Kind::Entered { name, holds });
    }
    if kind.ends_with("StateExited") {
        let name = from.state_exited_event_details.map(|details| details.name);
        return name.map_or(Kind::Other, |name| Kind::Exited { name });
    }
    match kind {
        "TaskScheduled" => {
            let details = from.task_scheduled_event_details;
            Kind::Scheduled { parameters: details.map(|details| Payload::new(details.parameters)) }
        }
        "ActivityScheduled" => Kind::Scheduled { parameters: None },
        // A function is given no token.
        "LambdaFunctionScheduled" => Kind::Scheduled { parameters: Some(Payload::new("{}".to_owned())) },
        "TaskSubmitted" => {
            // Any integration may answer what looks like ECS's answer: a function, an HTTP endpoint.
            let ecs = from.task_submitted_event_details.filter(|details| {
                matches!(details.resource_type.as_str(), "ecs" | "aws-sdk:ecs")
                    && details.resource.split('.').next() == Some("runTask")
            });
            Kind::Submitted { ecs: ecs.and_then(|details| details.output).map(Payload::new) }
        }
        "TaskSucceeded"
        | "TaskFailed"
        | "TaskTimedOut"
        | "TaskStartFailed"
        | "TaskSubmitFailed"
        | "ActivitySucceeded"
        | "ActivityFailed"
        | "ActivityTimedOut"
        | "ActivityScheduleFailed"
        | "LambdaFunctionSucceeded"
        | "LambdaFunctionFailed"
        | "LambdaFunctionTimedOut"
        | "LambdaFunctionScheduleFailed"
        | "LambdaFunctionStartFailed" => Kind::Ended,
        "TaskStateAborted" | "WaitStateAborted" => Kind::StateAborted,
        "ParallelStateStarted" => Kind::Started(Holds::Parallel),
        "ParallelStateSucceeded" => Kind::Succeeded(Holds::Parallel),
        "ParallelStateFailed" | "ParallelStateAborted" => Kind::Failed(Holds::Parallel),
        "MapStateStarted" => Kind::Started(Holds::Map),
        "MapStateSucceeded" => Kind::Succeeded(Holds::Map),
        "MapStateFailed" | "MapStateAborted" => Kind::Failed(Holds::Map),
        "MapIterationStarted" => Kind::IterationStarted,
        "MapIterationSucceeded" => Kind::IterationSucceeded,
        "MapIterationFailed" | "MapIterationAborted" => Kind::IterationFailed,
        "ExecutionSucceeded" | "ExecutionFailed" | "ExecutionTimedOut" | "ExecutionAborted" => {
            Kind::ExecutionEnded
        }
        "ExecutionRedriven" => Kind::Redriven,
        _ => Kind::Other,
    }
}
