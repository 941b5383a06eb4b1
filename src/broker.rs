//! One read, from the caller to the receipt: may it, is there a live grant, is it written down?
//!
//! Doors speak protocols; the broker knows none. Whatever a door opens, it opens with the receipt that it gets here.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::audit::{Audit, AuditError, Composed, Entry, Event, Fragment, Peer, Receipt, Source};
use crate::caller::Caller;
use crate::causes::causes;
use crate::clock::{Clock, Moment, Until};
use crate::lease::failure::Failure;
use crate::lease::keeper::{Refusal, Taken};
use crate::lease::upstream::{ReadKey, Token};
use crate::lease::view::{Freshness, Held};
use crate::metrics::Metrics;
use crate::policy::{self, Admission, Decision};
use crate::run::Boot;
use crate::runs::Runs;
use crate::runs::leases::{Full, Granted};

mod registration;
mod status;

pub use crate::runs::{Active, Cause, Found, Refusal as RunRefusal, Registrant};
pub use registration::{RunView, Visitor};
pub use status::{Counts, Readiness, Status};

/// What a door asks for.
#[derive(Clone, Debug)]
pub struct ReadRequest {
    /// What is to be read.
    pub key: ReadKey,
    /// The least life that it must have left; zero for whatever is alive.
    pub min_left: Duration,
}

/// Who asks, and by which door: the same for all requests of a connection.
#[derive(Clone, Debug)]
pub struct Asker {
    peer: Peer,
    door: &'static str,
    /// Their part of an audit line.
    line: Option<Fragment>,
}

impl Asker {
    /// `door` is what audit lines name it.
    #[must_use]
    pub fn new(caller: &Caller, door: &'static str) -> Self {
        let peer = peer(caller);
        let line = Entry::granted(Event::Read).caller(&peer).door(door).fragment().ok();
        Self { peer, door, line }
    }
}

/// A secret that may be opened: its disclosure is on record.
#[derive(Debug)]
pub struct Disclosed {
    /// Upstream's answer.
    pub granted: Arc<Granted>,
    /// What is really left of it; `None` for a value without a lease.
    pub left: Option<Duration>,
    /// When it ends, or when it is revalidated.
    pub ends: Moment,
    /// How old what upstream said is.
    pub age: Duration,
    /// Where it came from.
    pub freshness: Freshness,
    /// Whether the broker can still extend it.
    pub renewable: bool,
    /// It ends before the run does, and nothing can be done about that.
    pub short: bool,
    /// What opens it.
    pub receipt: Receipt,
}

/// Why nothing was disclosed.
#[derive(Debug)]
pub enum Denied {
    /// Local policy.
    Policy(&'static str),
    /// Upstream failed, or refused.
    Upstream {
        /// How.
        failure: Arc<Failure>,
        /// When the next try is.
        retry_in: Duration,
    },
    /// No credential lives that long.
    TooLong {
        /// What was asked.
        asked: Duration,
        /// The longest to be had.
        reach: Duration,
    },
    /// The hard limit on leases is reached.
    Full(Full),
    /// The run is over.
    Over {
        /// Its id.
        run: Arc<str>,
        /// Why.
        cause: Cause,
    },
    /// It took too long.
    TimedOut {
        /// What the lease was doing.
        phase: &'static str,
        /// How long the reader waited.
        waited: Duration,
    },
    /// The credential came to its end while its audit line was being written.
    Ended,
    /// The audit line could not be written.
    Unaudited(String),
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time =
            |span: &Duration| humantime::format_duration(Duration::from_secs(span.as_secs())).to_string();
        match self {
            Self::Policy(reason) => f.write_str(reason),
            Self::Upstream { failure, .. } => write!(f, "{failure}"),
            Self::TooLong { asked, reach } => write!(
                f,
                "a life of {} was asked for, and upstream gives {} at most; ask for less, or raise the TTLs of the role \
                 or of the run's token",
                time(asked),
                time(reach)
            ),
            Self::Full(full) => {
                write!(f, "all {} leases are in use; nothing was minted; see cache.max_leases", full.limit)
            }
            Self::Over { run, cause } => {
                write!(f, "the run {run} is over: {cause}; its credentials are revoked")
            }
            Self::TimedOut { phase, waited } => {
                write!(f, "nothing came within {} (the lease's state: {phase}); try again", time(waited))
            }
            Self::Ended => {
                f.write_str("the credential ended while its audit line was being written; try again")
            }
            Self::Unaudited(why) => {
                write!(f, "nothing is disclosed that cannot be written to the audit log: {why}")
            }
        }
    }
}

/// The broker. Shared by all doors.
pub struct Broker {
    runs: Arc<Runs>,
    admission: Admission,
    audit: Audit,
    boot: Boot,
    clock: Clock,
    metrics: Metrics,
    patience: Duration,
    stopping: AtomicBool,
}

impl Broker {
    /// Puts the parts together; `patience` is how long a reader waits at most.
    #[must_use]
    pub fn new(
        runs: Arc<Runs>,
        admission: Admission,
        audit: Audit,
        boot: Boot,
        clock: Clock,
        metrics: Metrics,
        patience: Duration,
    ) -> Self {
        audit.bound(patience);
        Self { runs, admission, audit, boot, clock, metrics, patience, stopping: AtomicBool::new(false) }
    }

    /// The runs that it serves.
    #[must_use]
    pub fn runs(&self) -> &Arc<Runs> {
        &self.runs
    }

    /// Now.
    #[must_use]
    pub fn now(&self) -> Moment {
        self.clock.now()
    }

    /// What is left of a token, now.
    #[must_use]
    pub fn left_of(&self, held: &Held<Arc<Token>>) -> Duration {
        held.left(self.clock.now())
    }

    /// What is left until then, in whole seconds; 0 without an end.
    #[must_use]
    pub fn left(&self, until: Option<Until>) -> u64 {
        until.map_or(0, |until| until.left(self.clock.now()).as_secs())
    }

    /// What is counted.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// May this caller use the door at all? Returns the rule that admits it.
    ///
    /// # Errors
    /// [`Denied::Policy`], which is on record.
    pub fn admit(&self, caller: &Caller, door: &str) -> Result<&'static str, Denied> {
        match self.admission.admit(caller) {
            Decision::Allow(policy) => Ok(policy),
            Decision::Deny { policy, reason } => {
                self.refuse(caller, door, policy, reason);
                Err(Denied::Policy(reason))
            }
        }
    }

    /// Puts a request on record that was refused before it was known what it asks for.
    pub fn refuse(&self, caller: &Caller, door: &str, policy: &str, reason: &str) {
        self.metrics.denied.inc();
        let peer = peer(caller);
        let entry = Entry::denied(Event::Request, reason).run(&self.runs.own().stamp).caller(&peer);
        self.audit.note(&entry.door(door).policy(policy));
    }

    /// Reads a secret for a caller that was admitted, on behalf of a run.
    ///
    /// # Errors
    /// [`Denied`]: nothing may be disclosed. The refusal is on record too.
    pub async fn read(
        &self,
        asker: &Asker,
        run: &Arc<Active>,
        request: &ReadRequest,
    ) -> Result<Disclosed, Denied> {
        let mut again = true;
        loop {
            match self.try_read(asker, run, request).await {
                // Its line says that it was disclosed: this one takes that back. Whoever asked wanted one that lives.
                Err(denied @ Denied::Ended) if again => {
                    self.note_denied(asker, run, request, &denied);
                    again = false;
                }
                Err(denied) => {
                    self.count_denied(&denied);
                    self.note_denied(asker, run, request, &denied);
                    return Err(denied);
                }
                disclosed => return disclosed,
            }
        }
    }

    async fn try_read(
        &self,
        asker: &Asker,
        run: &Arc<Active>,
        request: &ReadRequest,
    ) -> Result<Disclosed, Denied> {
        let policy = match policy::readable(&request.key.path) {
            Decision::Allow(policy) => policy,
            Decision::Deny { reason, .. } => return Err(Denied::Policy(reason)),
        };
        // One look at the clock is enough for what does not wait.
        let mut now = self.clock.now();
        still_open(run, || now)?;
        let work = self.runs.work(run);
        // An entry may end between being looked up and being read: its lease lapsed, or the cache let go of it.
        let mut again = true;
        let (entry, taken) = loop {
            let entry = work.leases.entry(&request.key, false).map_err(Denied::Full)?;
            let taken = match entry.keeper.peek(request.min_left, now) {
                Some(taken) => Ok(taken),
                None => {
                    // Nothing that comes after the run's end is of use to it.
                    let left = run.deadline().map_or(self.patience, |deadline| deadline.left(now));
                    entry.keeper.get(request.min_left, self.patience.min(left)).await
                }
            };
            match taken {
                Ok(taken) => break (entry, taken),
                Err(refusal) => {
                    now = self.clock.now();
                    still_open(run, || now)?;
                    match refusal {
                        Refusal::Over if again => {
                            work.leases.forget(&entry);
                            again = false;
                        }
                        refusal => return Err(self.denied(run, request, refusal)),
                    }
                }
            }
        };
        if taken.freshness == Freshness::Vault {
            work.leases.settle(&entry, &taken.held);
        }
        let ends = taken.held.ends();
        let recorded = self.record(asker, run, request, &taken, ends, policy).await;
        let held = taken.held;
        let receipt = recorded.map_err(|error| Denied::Unaudited(causes(&error)))?;
        // Writing the line may have taken a while.
        let now = self.clock.now();
        still_open(run, || now)?;
        if !held.is_static && held.left(now).is_zero() {
            return Err(Denied::Ended);
        }
        entry.count_read();
        self.metrics.granted(taken.freshness);
        let left = (!held.is_static).then(|| held.left(now));
        // What the run's token outlives by nothing ends with it, whatever upstream says of the lease itself.
        let fixed = held.bound.is_some_and(|bound| bound.left(now) <= held.own.left(now))
            && !work.parent.view().held.as_ref().is_some_and(|token| token.extendable());
        let short = !held.is_static
            && !held.extendable()
            && run.deadline().is_some_and(|deadline| held.own.left(now) < deadline.left(now));
        Ok(Disclosed {
            left,
            ends,
            age: now.since(held.own.from),
            freshness: taken.freshness,
            renewable: held.extendable() && !fixed,
            short,
            receipt,
            granted: Arc::clone(&held.payload),
        })
    }

    /// A run that is over gets nothing any more.
    ///
    /// # Errors
    /// [`Denied::Over`].
    pub fn goes_on(&self, run: &Active) -> Result<(), Denied> {
        still_open(run, || self.clock.now())
    }

    /// Puts a disclosure on record that is about to happen.
    async fn record(
        &self,
        asker: &Asker,
        run: &Active,
        request: &ReadRequest,
        taken: &Taken<Arc<Granted>>,
        ends: Moment,
        policy: &str,
    ) -> Result<Receipt, AuditError> {
        let (list, held) = (request.key.list, &taken.held);
        let (granted, answer) = (&*held.payload, &held.payload.answer);
        let path = shown(&request.key);
        let mut line = Entry::granted(if list { Event::List } else { Event::Read })
            .path(&path)
            .request(&granted.request)
            .vault_request_id(&answer.request_id)
            .policy(policy);
        if !held.is_static {
            line = line.lease_id(&answer.lease_id).expires(ends);
        }
        if let Some(version) = answer.version {
            line = line.version(version);
        }
        if let Some(values) = &granted.values {
            line = line.values(values);
        }
        let source = match taken.freshness {
            Freshness::Cache => Source::Cache,
            Freshness::Vault => Source::Vault,
            Freshness::Stale => Source::Stale,
        };
        // What is read once need not be kept as it is shown.
        if source != Source::Vault
            && let (Some(lead), Some(caller)) = (run.lead(list), &asker.line)
            && let Some(shown) = granted.shown(ends, || line.fragment().ok())
        {
            let composed = Composed { at: taken.at, lead, asker: caller, grant: &shown.line, source };
            return self.audit.record_composed(&composed).await;
        }
        let line = line.at(taken.at).run(&run.stamp).caller(&asker.peer).door(asker.door);
        self.audit.record(&line.source(source)).await
    }

    fn denied(&self, run: &Active, request: &ReadRequest, refusal: Refusal) -> Denied {
        let over = |cause| Denied::Over { run: Arc::clone(&run.run.id), cause };
        if self.runs.is_ending(run) {
            return over(Cause::Deadline);
        }
        match refusal {
            Refusal::Failed { failure, retry_in } => Denied::Upstream { failure, retry_in },
            Refusal::TooLong { reach } => Denied::TooLong { asked: request.min_left, reach },
            // The leases of a run end with it alone, or when the broker stops.
            Refusal::Over => over(Cause::Shutdown),
            Refusal::TimedOut { phase } => Denied::TimedOut { phase, waited: self.patience },
        }
    }

    fn count_denied(&self, denied: &Denied) {
        match denied {
            Denied::Unaudited(_) => self.metrics.unaudited.inc(),
            Denied::Upstream { .. } | Denied::TimedOut { .. } | Denied::Ended => self.metrics.failed.inc(),
            _ => self.metrics.denied.inc(),
        };
    }

    fn note_denied(&self, asker: &Asker, run: &Active, request: &ReadRequest, denied: &Denied) {
        let event = if request.key.list { Event::List } else { Event::Read };
        let (path, text) = (shown(&request.key), denied.to_string());
        let entry = match denied {
            Denied::Policy(_) | Denied::Over { .. } | Denied::Full(_) | Denied::TooLong { .. } => {
                Entry::denied(event, &text)
            }
            Denied::Upstream { failure, .. } => Entry::failed(event, failure),
            Denied::TimedOut { .. } | Denied::Ended => Entry::denied(event, &text),
            // The writer itself tells of what it could not write.
            Denied::Unaudited(_) => return,
        };
        let entry = if matches!(denied, Denied::Policy(_)) { entry.policy("paths") } else { entry };
        self.audit.note(&entry.run(&run.stamp).caller(&asker.peer).door(asker.door).path(&path));
    }
}

fn still_open(run: &Active, now: impl FnOnce() -> Moment) -> Result<(), Denied> {
    match run.over(now) {
        None => Ok(()),
        Some(cause) => Err(Denied::Over { run: Arc::clone(&run.run.id), cause }),
    }
}

/// What audit lines call the caller.
fn peer(caller: &Caller) -> Peer {
    match *caller {
        Caller::Unix { uid, gid, pid } => Peer::unix(uid, gid, pid),
        Caller::Holder => Peer::TCP,
        Caller::Broker => Peer::OWN,
    }
}

/// The path as audit lines show it.
fn shown(key: &ReadKey) -> std::borrow::Cow<'_, str> {
    match key.query.is_empty() {
        true => std::borrow::Cow::Borrowed(&key.path),
        false => std::borrow::Cow::Owned(key.to_string()),
    }
}
