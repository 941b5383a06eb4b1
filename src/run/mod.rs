//! A run: the unit of work that credentials are tied to, and the ids that both logs know it by.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::lease::upstream::CallId;

pub mod arn;
pub mod budget;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
pub mod lambda;
pub mod request;
pub mod seal;
pub mod subject;
pub mod workflow;

use arn::ExecutionArn;
use lambda::Lambda;
use subject::Subject;
use workflow::{EcsTask, Standing};

/// This start of this process, and the numbers of its upstream calls. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Boot(Arc<Numbers>);

#[derive(Debug)]
struct Numbers {
    id: String,
    calls: AtomicU64,
}

impl Boot {
    /// A new boot id: 64 random bits, in hex.
    ///
    /// # Errors
    /// When the system has no randomness to give; then nothing that follows could be trusted either.
    pub fn new() -> Result<Self, getrandom::Error> {
        let id = format!("{:016x}", getrandom::u64()?);
        Ok(Self(Arc::new(Numbers { id, calls: AtomicU64::new(0) })))
    }

    /// The boot id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.0.id
    }

    /// A number for the next upstream call on behalf of `run`.
    #[must_use]
    pub fn call(&self, run: &Arc<str>) -> CallId {
        let number = self.0.calls.fetch_add(1, Ordering::Relaxed) + 1;
        CallId { request: format!("{}-{number}", self.0.id).into(), run: Arc::clone(run), chain: None }
    }
}

/// What a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The process beside which the broker runs, from the broker's start to its end.
    Process,
    /// The ECS task that the broker runs in.
    Task,
    /// The Lambda execution environment that the broker serves, from its init to its shutdown.
    Environment,
    /// An invocation of that function.
    Invocation,
    /// A state of a Step Functions execution.
    State,
    /// What a workload registered without naming an execution: a job, a playbook, a request.
    Api,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Process, Self::Task, Self::Environment, Self::Invocation, Self::State, Self::Api];

    /// The word in logs, metadata and rules.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Task => "task",
            Self::Environment => "environment",
            Self::Invocation => "invocation",
            Self::State => "state",
            Self::Api => "api",
        }
    }
}

/// The unit of work that credentials are tied to. It does not change; its deadline may, and is kept with its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Its id: `run-` and 64 random bits in hex.
    pub id: Arc<str>,
    /// What it is.
    pub kind: Kind,
    /// The execution it belongs to, as it was told to us.
    pub execution: Option<ExecutionArn>,
    /// The state of that execution.
    pub state: Option<Box<str>>,
    /// Which try of that state it is, from 0 (`$$.State.RetryCount`).
    pub attempt: Option<u32>,
    /// The executions that started that execution: the nearest first, the root last.
    pub parents: Box<[ExecutionArn]>,
    /// The run that registered it, and in whose limits it lies; `None` for the process's own and for what was registered
    /// in its name.
    pub parent: Option<Arc<str>>,
    /// On whose behalf it acts.
    pub subject: Option<Box<Subject>>,
    /// How far the platform confirms what was said of it.
    pub standing: Standing,
    /// The ECS task that it runs in.
    pub task: Option<Arc<EcsTask>>,
    /// The Lambda environment or invocation that it is.
    pub lambda: Option<Box<Lambda>>,
    /// What it was labelled with: a git commit, a team; in the order of their names. A map would take four hundred bytes for
    /// the first of them.
    pub tags: Box<[(Box<str>, Box<str>)]>,
}

impl Run {
    /// A run of which nothing is known but what it is.
    #[must_use]
    pub fn new(id: Arc<str>, kind: Kind) -> Self {
        Self {
            id,
            kind,
            execution: None,
            state: None,
            attempt: None,
            parents: Box::default(),
            parent: None,
            subject: None,
            standing: Standing::Asserted,
            task: None,
            lambda: None,
            tags: Box::default(),
        }
    }

    /// A fresh id.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn new_id() -> Result<Arc<str>, getrandom::Error> {
        Ok(format!("run-{:016x}", getrandom::u64()?).into())
    }

    /// The execution that started all others above this one; its own, if none did.
    #[must_use]
    pub fn root(&self) -> Option<&ExecutionArn> {
        self.parents.last().or(self.execution.as_ref())
    }

    /// What Vault's audit log shows on each request of the run's token.
    #[must_use]
    pub fn metadata(&self) -> BTreeMap<String, String> {
        let mut meta = BTreeMap::from([
            ("run".to_owned(), self.id.to_string()),
            ("kind".to_owned(), self.kind.word().to_owned()),
        ]);
        let mut put = |name: &str, value: Option<&str>| {
            if let Some(value) = value {
                meta.insert(name.to_owned(), value.to_owned());
            }
        };
        put("execution_arn", self.execution.as_ref().map(ExecutionArn::as_str));
        put("state", self.state.as_deref());
        put("attempt", self.attempt.map(|attempt| attempt.to_string()).as_deref());
        put("verified", self.execution.as_ref().map(|_| self.standing.word()));
        put("parent_execution_arn", self.parents.first().map(ExecutionArn::as_str));
        if let [_, .., root] = &*self.parents {
            let chain: Vec<_> = self.parents.iter().map(ExecutionArn::as_str).collect();
            put("root_execution_arn", Some(root.as_str()));
            put("execution_chain", Some(&chain.join(" ")));
        }
        put("parent_run", self.parent.as_deref());
        if let Some(subject) = &self.subject {
            put("subject", Some(&subject.id));
            put("subject_kind", Some(subject.kind.word()));
            put("subject_assurance", Some(subject.assurance.word()));
            put("subject_issuer", subject.issuer.as_deref());
        }
        if let Some(task) = &self.task {
            put("task_arn", Some(&task.arn));
            put("task_definition", Some(&format!("{}:{}", task.family, task.revision)));
        }
        for (name, value) in self.lambda.iter().flat_map(|lambda| lambda.facts()) {
            put(name, Some(value));
        }
        for (name, value) in &self.tags {
            put(&format!("tag_{name}"), Some(value));
        }
        meta
    }
}

/// Bytes in lower-case hex.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_numbered_and_carry_their_run() {
        let boot = Boot::new().expect("entropy");
        let run: Arc<str> = "run-1".into();
        let (one, two) = (boot.call(&run), boot.call(&run));
        assert_eq!(&*one.request, format!("{}-1", boot.id()));
        assert_ne!(one.request, two.request);
        assert_eq!(&*two.run, "run-1");
    }

    #[test]
    fn metadata_names_the_execution_and_all_above_it() {
        let arn = |name: &str| -> ExecutionArn {
            format!("arn:aws:states:eu-west-1:123456789012:execution:orders:{name}").parse().expect("an ARN")
        };
        let mut run = Run {
            execution: Some(arn("child")),
            state: Some("Charge".into()),
            attempt: Some(2),
            parents: Box::new([arn("middle"), arn("root")]),
            tags: Box::new([("commit".into(), "abc".into())]),
            ..Run::new("run-1".into(), Kind::State)
        };
        let meta = run.metadata();
        assert_eq!(meta["execution_arn"], arn("child").as_str());
        assert_eq!(
            (meta["state"].as_str(), meta["attempt"].as_str(), meta["tag_commit"].as_str()),
            ("Charge", "2", "abc")
        );
        assert_eq!(meta["parent_execution_arn"], arn("middle").as_str());
        assert_eq!(meta["root_execution_arn"], arn("root").as_str());
        assert_eq!(meta["verified"], "asserted");
        assert!(!meta.contains_key("subject") && !meta.contains_key("task_arn"));
        assert_eq!(run.root(), Some(&arn("root")));
        run.parents = Box::default();
        assert!(!run.metadata().contains_key("parent_execution_arn"));
        assert_eq!(run.root(), Some(&arn("child")));
    }
}
