//! Who and what a line is about: the caller, and the run with its subject.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::words::Via;
use crate::run;

/// The local process that asked, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// By which way it came.
    pub via: Via,
    /// Its user id.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub uid: Option<u32>,
    /// Its group id.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub gid: Option<u32>,
    /// Its process id, in our pid namespace.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pid: Option<i32>,
}

impl Peer {
    /// The broker itself.
    pub const OWN: Self = Self { via: Via::Own, uid: None, gid: None, pid: None };

    /// The holder of a run handle on loopback TCP.
    pub const TCP: Self = Self { via: Via::Tcp, uid: None, gid: None, pid: None };

    /// The process at the other end of a Unix socket.
    #[must_use]
    pub fn unix(uid: u32, gid: u32, pid: Option<i32>) -> Self {
        Self { via: Via::Unix, uid: Some(uid), gid: Some(gid), pid }
    }
}

/// On whose behalf a run acts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// The subject's name at its issuer.
    pub id: String,
    /// `person`, `service`, `agent` or `scheduler`.
    pub kind: String,
    /// Who vouches for it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub issuer: Option<String>,
    /// How far it can be believed: `verified` (checked by us), or `asserted` (somebody said so).
    pub assurance: String,
    /// Its groups.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub groups: Vec<String>,
}

/// A run, as lines name it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// Its id.
    pub id: String,
    /// What it is: `process`, `task` (of ECS), `environment` and `invocation` (of Lambda), `state` (of a Step Functions
    /// execution), `api` (what else was registered).
    pub kind: String,
    /// The execution it belongs to.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub execution_arn: Option<String>,
    /// The state of that execution.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub state: Option<String>,
    /// Which try of that state, from 0.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub attempt: Option<u32>,
    /// How far the platform confirms that: `verified`, `exists`, `unverifiable` or `asserted`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub standing: Option<String>,
    /// The executions that started that one: the nearest first, the root last.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub parents: Vec<String>,
    /// The id of the run that registered it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub parent: Option<String>,
    /// The ECS task that it runs in.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub task_arn: Option<String>,
    /// The Lambda function: its name, or the ARN that was invoked.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub function: Option<String>,
    /// The function's version.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub function_version: Option<String>,
    /// The log stream of the execution environment.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub log_stream: Option<String>,
    /// The request id of the invocation.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub invocation: Option<String>,
    /// The X-Ray trace header of the invocation.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub trace: Option<String>,
    /// On whose behalf it acts.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub subject: Option<Subject>,
    /// What it was labelled with: a git commit, a team.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub tags: BTreeMap<String, String>,
}

impl Run {
    /// What lines say of a run.
    #[must_use]
    pub fn of(run: &run::Run) -> Self {
        let lambda = |wanted| {
            let mut facts = run.lambda.iter().flat_map(|lambda| lambda.facts());
            facts.find(|(name, _)| *name == wanted).map(|(_, value)| value.to_owned())
        };
        Self {
            id: run.id.to_string(),
            kind: run.kind.word().to_owned(),
            execution_arn: run.execution.as_ref().map(ToString::to_string),
            state: run.state.as_deref().map(str::to_owned),
            attempt: run.attempt,
            standing: run.execution.as_ref().map(|_| run.standing.word().to_owned()),
            parents: run.parents.iter().map(ToString::to_string).collect(),
            parent: run.parent.as_deref().map(str::to_owned),
            task_arn: run.task.as_ref().map(|task| task.arn.clone()),
            function: lambda("function"),
            function_version: lambda("function_version"),
            log_stream: lambda("log_stream"),
            invocation: lambda("invocation"),
            trace: lambda("trace"),
            subject: run.subject.as_deref().map(|subject| Subject {
                id: subject.id.clone(),
                kind: subject.kind.word().to_owned(),
                issuer: subject.issuer.clone(),
                assurance: subject.assurance.word().to_owned(),
                groups: subject.groups.clone(),
            }),
            tags: run.tags.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
        }
    }
}

/// A run in the bytes of a line.
///
/// A run does not change and is named on all of its lines: it is rendered once, when it begins.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub struct RunStamp(Box<RawValue>);

impl RunStamp {
    /// Renders a run.
    ///
    /// # Errors
    /// Never with strings, which is all that a [`Run`] holds; the error is serde's.
    pub fn new(run: &Run) -> Result<Self, serde_json::Error> {
        serde_json::value::to_raw_value(run).map(Self)
    }
}
