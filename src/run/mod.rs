//! A run: the unit of work that credentials are tied to, and the ids that both logs know it by.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::Until;
use crate::lease::upstream::CallId;

pub mod arn;
pub mod seal;
pub mod subject;
pub mod workflow;

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
        CallId { request: format!("{}-{number}", self.0.id).into(), run: Arc::clone(run) }
    }
}

/// What a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The process beside which the broker runs, from the broker's start to its end.
    Process,
    /// The state of a Step Functions execution that this process was started for.
    State,
}

impl Kind {
    /// The word in logs and metadata.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::State => "state",
        }
    }
}

/// The unit of work that credentials are tied to.
#[derive(Clone, Debug)]
pub struct Run {
    /// Its id: `run-` and 64 random bits in hex.
    pub id: Arc<str>,
    /// What it is.
    pub kind: Kind,
    /// The execution it belongs to, as it was told to us.
    pub execution_arn: Option<String>,
    /// The state of that execution.
    pub state: Option<String>,
    /// The execution that started that execution.
    pub parent_execution_arn: Option<String>,
    /// When it must be over; `None` if it may go on.
    pub deadline: Option<Until>,
    /// What it was labelled with: a git commit, a team.
    pub tags: BTreeMap<String, String>,
}

impl Run {
    /// A fresh id.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn new_id() -> Result<Arc<str>, getrandom::Error> {
        Ok(format!("run-{:016x}", getrandom::u64()?).into())
    }

    /// What Vault's audit log shows on each request of the run's token.
    #[must_use]
    pub fn metadata(&self) -> BTreeMap<String, String> {
        let mut meta = BTreeMap::from([
            ("run".to_owned(), self.id.to_string()),
            ("kind".to_owned(), self.kind.word().to_owned()),
        ]);
        let named = [
            ("execution_arn", &self.execution_arn),
            ("state", &self.state),
            ("parent_execution_arn", &self.parent_execution_arn),
        ];
        for (name, value) in named {
            if let Some(value) = value {
                meta.insert(name.to_owned(), value.clone());
            }
        }
        for (name, value) in &self.tags {
            meta.insert(format!("tag_{name}"), value.clone());
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
    fn metadata_names_the_execution() {
        let run = Run {
            id: "run-1".into(),
            kind: Kind::State,
            execution_arn: Some("arn:x".into()),
            state: Some("Charge".into()),
            parent_execution_arn: None,
            deadline: None,
            tags: BTreeMap::from([("commit".to_owned(), "abc".to_owned())]),
        };
        let meta = run.metadata();
        assert_eq!(meta["execution_arn"], "arn:x");
        assert_eq!(meta["state"], "Charge");
        assert_eq!(meta["tag_commit"], "abc");
        assert!(!meta.contains_key("parent_execution_arn"));
    }
}
