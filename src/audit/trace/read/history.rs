//! A history of Step Functions, as `aws stepfunctions get-execution-history` prints it. Inputs and outputs of states are
//! looked through for ids of executions, and not kept: they are the workflow's own, and nobody's to show.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::audit::At;

/// One execution's history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct History {
    /// The execution, where the document tells: a history does not name its own. Known by the first of: a member
    /// `executionArn`; what it gave a nested execution as the one that started it; what it gave a task as
    /// `execution_arn` or `TENURE_EXECUTION_ARN`.
    pub(in super::super) execution: Option<String>,
    pub(in super::super) events: Vec<HistoryEvent>,
}

/// One event of a history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistoryEvent {
    /// Of the line of the document, from 0 on; of a history that was fetched, the event's id.
    pub line: u64,
    /// Its number in the history, from 1 on.
    pub id: u64,
    /// When it happened.
    pub at: At,
    /// Step Functions' word: `TaskStateEntered`.
    pub kind: String,
    /// The state that it enters or leaves.
    pub state: Option<String>,
    /// The nested execution that it started.
    pub started: Option<String>,
    /// The name of an error; its cause may hold anything.
    pub error: Option<String>,
}

#[derive(Deserialize)]
struct Raw<'a> {
    #[serde(borrow)]
    events: Vec<&'a RawValue>,
    #[serde(rename = "executionArn")]
    execution: Option<String>,
}

impl History {
    /// Reads a document.
    ///
    /// # Errors
    /// Why it is no history, without quoting it.
    pub(in super::super) fn parse(document: &[u8]) -> Result<Self, &'static str> {
        const NONE: &str = "it is a JSON document, but no history of Step Functions";
        let raw: Raw<'_> = serde_json::from_slice(document).map_err(|_| NONE)?;
        let mut history = Self { execution: raw.execution, events: Vec::new() };
        let (mut started_by, mut given) = (None, None);
        let (mut line, mut counted) = (0, 0);
        for raw in raw.events {
            let text = raw.get();
            let from = text.as_ptr() as usize - document.as_ptr() as usize;
            line += memchr::memchr_iter(b'\n', &document[counted..from]).count() as u64;
            counted = from;
            let value: Value = serde_json::from_str(text).map_err(|_| NONE)?;
            let Some(event) = event(&value, line) else {
                return Err("an event of the history has no type or no time");
            };
            if event.kind.ends_with("Scheduled") {
                scheduled(&value, &mut started_by, &mut given);
            }
            history.events.push(event);
        }
        history.execution = history.execution.or(started_by).or(given);
        Ok(history)
    }

    /// The executions that it started.
    pub(in super::super) fn nested(&self) -> impl Iterator<Item = &str> {
        self.events.iter().filter_map(|event| event.started.as_deref())
    }
}

fn event(value: &Value, line: u64) -> Option<HistoryEvent> {
    let at = match &value["timestamp"] {
        Value::Number(seconds) => At::of_seconds(seconds.as_f64()?)?,
        Value::String(text) => At::parse(text)?,
        _ => return None,
    };
    let kind = value["type"].as_str()?.to_owned();
    let details = value.as_object()?.iter().find(|(name, _)| name.ends_with("EventDetails"));
    let details = details.map_or(&Value::Null, |(_, details)| details);
    // What is waited for is said to be started when it was submitted; what is not, by its result.
    let starts = matches!(details["resourceType"].as_str(), Some("states" | "aws-sdk:sfn"))
        && match &*kind {
            "TaskSubmitted" => true,
            "TaskSucceeded" => details["resource"] == "startExecution",
            _ => false,
        };
    let started = starts.then(|| {
        let output: Value = serde_json::from_str(details["output"].as_str()?).ok()?;
        output["ExecutionArn"].as_str().filter(|arn| is_execution(arn)).map(str::to_owned)
    });
    Some(HistoryEvent {
        line,
        id: value["id"].as_u64().unwrap_or_default(),
        at,
        state: details["name"].as_str().filter(|_| kind.contains("State")).map(str::to_owned),
        started: started.flatten(),
        error: details["error"].as_str().map(str::to_owned),
        kind,
    })
}

fn scheduled(value: &Value, started_by: &mut Option<String>, given: &mut Option<String>) {
    let details = value.as_object().into_iter().flatten().find(|(name, _)| name.ends_with("EventDetails"));
    let Some((_, details)) = details else { return };
    for member in ["parameters", "input"] {
        let text = details[member].as_str().unwrap_or_default();
        let Ok(said) = serde_json::from_str::<Value>(text) else { continue };
        // Of a start alone: what is passed on to other tasks may be the one that started this execution.
        if details["resourceType"] == "states" && started_by.is_none() {
            let by = said["Input"]["AWS_STEP_FUNCTIONS_STARTED_BY_EXECUTION_ID"].as_str();
            *started_by = by.filter(|arn| is_execution(arn)).map(str::to_owned);
        }
        look(&said, 0, &mut |name, arn| {
            if matches!(name, "execution_arn" | "TENURE_EXECUTION_ARN") && given.is_none() {
                *given = Some(arn.to_owned());
            }
        });
    }
}

/// Each execution's ARN that is a member's value, or an environment variable's as ECS takes it.
fn look(value: &Value, depth: u32, found: &mut dyn FnMut(&str, &str)) {
    match value {
        _ if depth > 16 => {}
        Value::Object(members) => {
            let pair = |key: &str| members.get(key).and_then(Value::as_str);
            if let (Some(name), Some(arn)) = (pair("Name"), pair("Value"))
                && is_execution(arn)
            {
                found(name, arn);
            }
            for (name, value) in members {
                match value {
                    Value::String(arn) if is_execution(arn) => found(name, arn),
                    other => look(other, depth + 1, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| look(value, depth + 1, found)),
        _ => {}
    }
}

fn is_execution(text: &str) -> bool {
    text.starts_with("arn:") && (text.contains(":execution:") || text.contains(":express:"))
}
