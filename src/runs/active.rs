//! One run that is open: what it is, its life, and, from its first read on, its token and its leases.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::sync::SetOnce;

use super::life::{Act, Cause, Event, Life};
use super::work::Work;
use crate::audit::{self, Entry, Lead, RunStamp};
use crate::clock::{Moment, Until};
use crate::policy::rules::{Rule, Share};
use crate::run::Run;
use crate::secret::Credential;

/// Who registered a run, and may extend and inspect it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Registrant {
    /// The configuration: the process's own run.
    Own,
    /// A process with that user id, on the Unix socket. The run's handle is good for that user id alone.
    Uid(u32),
    /// A holder of the local token, on TCP.
    Holder,
    /// Lambda: an invocation.
    Platform,
}

/// What a run is known by: to us, and to the platform.
#[derive(Default)]
pub(super) struct Secrets {
    /// What a caller presents to be this run.
    pub(super) handle: Option<Credential>,
    /// What Step Functions knows its task by.
    pub(super) task_token: Option<Credential>,
}

/// A run that is open, or closing.
pub struct Active {
    /// What it is.
    pub run: Arc<Run>,
    /// The same, as audit lines name it.
    pub stamp: Arc<RunStamp>,
    /// The rule that it was registered by; `None` for the process's own.
    pub rule: Option<Arc<Rule>>,
    /// Who registered it.
    pub registrant: Registrant,
    /// When it began.
    pub began: Moment,
    /// `None` for the process's own, which needs none.
    pub(super) handle: Option<Credential>,
    pub(super) task_token: Option<Credential>,
    /// No other run has it.
    pub(super) number: u64,
    /// When the registry looks at it again, in nanoseconds of the monotonic clock; 0: never.
    pub(super) look: AtomicU64,
    /// How many runs stand above it: those that registered one another.
    pub(super) depth: u32,
    /// It reads with the token and the leases of the process's own run, and leaves them to that one at its end.
    pub(super) borrows: bool,
    /// Whether time alone may end it.
    bounded: bool,
    over: AtomicBool,
    /// Whether its registration is on record, once that is known: until then nobody is told of it.
    pub(super) on_record: SetOnce<bool>,
    life: Mutex<Life>,
    work: OnceLock<Arc<Work>>,
    /// How the lines of granted reads and lists begin.
    leads: OnceLock<[Option<Lead>; 2]>,
}

impl Active {
    pub(super) fn new(
        run: Run,
        number: u64,
        registrant: Registrant,
        rule: Option<Arc<Rule>>,
        life: Life,
        began: Moment,
        secrets: Secrets,
    ) -> Result<Self, serde_json::Error> {
        let Secrets { handle, task_token } = secrets;
        let stamp = Arc::new(RunStamp::new(&audit::Run::of(&run))?);
        Ok(Self {
            run: Arc::new(run),
            stamp,
            rule,
            registrant,
            began,
            handle,
            task_token,
            number,
            look: AtomicU64::new(0),
            depth: 0,
            borrows: false,
            bounded: life.deadline().is_some(),
            over: AtomicBool::new(false),
            on_record: SetOnce::new(),
            life: Mutex::new(life),
            work: OnceLock::new(),
            leads: OnceLock::new(),
        })
    }

    /// What a caller presents to be this run. It is for its registrant alone.
    #[must_use]
    pub fn handle(&self) -> Option<&Credential> {
        self.handle.as_ref()
    }

    /// Whether `presented` is its handle, and it has not been closed. Compared in constant time.
    #[must_use]
    pub fn answers_to(&self, presented: &[u8]) -> bool {
        !self.over.load(Ordering::Acquire)
            && self.handle.as_ref().is_some_and(|handle| handle.matches(presented))
    }

    /// When it must be over; `None` if it may go on.
    #[must_use]
    pub fn deadline(&self) -> Option<Until> {
        self.life(|life| life.deadline())
    }

    /// Its phase, in a word.
    #[must_use]
    pub fn phase(&self) -> &'static str {
        self.life(|life| life.word())
    }

    /// Why it is over, if it is. Its credentials are revoked, or about to be, and nobody gets them any more; values
    /// without a lease end with it too.
    ///
    /// `now` is asked for only where time matters.
    pub fn over(&self, now: impl FnOnce() -> Moment) -> Option<Cause> {
        if !self.bounded && !self.over.load(Ordering::Acquire) {
            return None;
        }
        self.life(|life| life.cause(now()))
    }

    /// Its token and its leases, once there was a first read.
    #[must_use]
    pub fn work(&self) -> Option<&Arc<Work>> {
        self.work.get()
    }

    /// Whether its token and its leases are those of the process's own run.
    #[must_use]
    pub fn borrows(&self) -> bool {
        self.borrows
    }

    /// The request id of the Lambda invocation that it is.
    #[must_use]
    pub fn invocation(&self) -> Option<&str> {
        self.run.lambda.as_ref()?.invocation.as_deref()
    }

    /// Whether other runs of its rule use its token and its leases, too.
    pub(super) fn shares(&self) -> bool {
        self.rule.as_ref().is_some_and(|rule| rule.share == Share::Process)
    }

    pub(super) fn work_or(&self, make: impl FnOnce() -> Arc<Work>) -> &Arc<Work> {
        self.work.get_or_init(make)
    }

    /// How the line of a granted read (or list) begins.
    pub fn lead(&self, list: bool) -> Option<&Lead> {
        let leads = self.leads.get_or_init(|| {
            let lead = |event| Entry::granted(event).run(&self.stamp).lead().ok();
            [lead(audit::Event::Read), lead(audit::Event::List)]
        });
        leads[usize::from(list)].as_ref()
    }

    pub(super) fn step(&self, event: Event, now: Moment) -> Option<Act> {
        let act = self.life(|life| life.step(event, now));
        if act == Some(Act::Close) {
            self.over.store(true, Ordering::Release);
        }
        act
    }

    pub(super) fn life<T>(&self, look: impl FnOnce(&mut Life) -> T) -> T {
        look(&mut self.life.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl std::fmt::Debug for Active {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Active").field("run", &self.run.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::run::Kind;

    #[test]
    fn a_run_answers_to_its_handle_until_it_is_closed() {
        let now = Moment::new(Duration::from_secs(1), Duration::from_secs(1_800_000_000));
        let secrets = Secrets { handle: Some(Credential::new("tnr_ours".into())), task_token: None };
        let (run, life) = (Run::new("run-1".into(), Kind::Api), Life::new(None, None));
        let active = Active::new(run, 1, Registrant::Holder, None, life, now, secrets).expect("a run");
        assert!(active.answers_to(b"tnr_ours"));
        assert!(!active.answers_to(b"tnr_theirs") && !active.answers_to(b""));
        assert_eq!(active.step(Event::End { cause: Cause::Ended }, now), Some(Act::Close));
        assert!(!active.answers_to(b"tnr_ours"), "who presents it is to be told that it is over");
    }
}
