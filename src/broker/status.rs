//! What the broker tells about itself: readiness, the state of everything, the metrics. Never a value.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde::Serialize;

use super::{Broker, RunView};
use crate::clock::Moment;
use crate::lease::keeper::TokenKeeper;
use crate::lease::view::Freshness;

/// More runs than that are counted and not shown.
const MOST_SHOWN: usize = 1000;

impl Broker {
    /// Whether everything is there: the login, the run's token, every prefetched secret.
    #[must_use]
    pub fn ready(&self) -> Readiness {
        if self.stopping.load(Ordering::Relaxed) {
            return Readiness { ready: false, missing: vec!["the broker is stopping".to_owned()] };
        }
        let now = self.clock.now();
        let mut missing = Vec::new();
        let lacks = |keeper: &TokenKeeper| {
            let view = keeper.view();
            let held = view.held.as_ref().is_some_and(|held| !held.left(now).is_zero());
            (!held).then(|| {
                view.trouble
                    .as_ref()
                    .map_or_else(|| view.phase.to_owned(), |trouble| trouble.failure.to_string())
            })
        };
        if let Some(why) = lacks(&self.runs.login) {
            missing.push(format!("login: {why}"));
        }
        let own = self.runs.own_work();
        if let Some(why) = own.token.as_ref().and_then(|(_, token)| lacks(token)) {
            missing.push(format!("run token: {why}"));
        }
        for entry in own.leases.all().iter().filter(|entry| entry.prefetched) {
            let view = entry.keeper.view();
            if view.held.as_ref().is_none_or(|held| held.gone_in(now).is_zero()) {
                let why = view
                    .trouble
                    .as_ref()
                    .map_or(view.phase.to_owned(), |trouble| trouble.failure.to_string());
                missing.push(format!("prefetch {}: {why}", entry.key));
            }
        }
        if !self.audit.healthy() {
            missing.push("audit: the log cannot be written".to_owned());
        }
        Readiness { ready: missing.is_empty(), missing }
    }

    /// It is about to end: from now on it is not ready. What is asked for is answered as long as it can be.
    pub fn stopping(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// The state of everything, without a value in it.
    #[must_use]
    pub fn status(&self) -> Status {
        let now = self.clock.now();
        let own = self.runs.own();
        let work = self.runs.own_work();
        let head = self.audit.head();
        Status {
            version: env!("CARGO_PKG_VERSION"),
            boot: self.boot.id().to_owned(),
            ready: self.ready().ready,
            login: LoginStatus {
                method: self.runs.method.clone(),
                token: TokenStatus::of(&self.runs.login, now),
            },
            run: RunStatus {
                about: RunView::of(own),
                token: work.token.as_ref().map(|(grant, token)| RunTokenStatus {
                    role: grant.role.to_string(),
                    policies: token
                        .view()
                        .held
                        .as_ref()
                        .map(|held| held.payload.policies.clone())
                        .unwrap_or_default(),
                    token: TokenStatus::of(token, now),
                }),
            },
            runs: self
                .runs
                .all()
                .iter()
                .filter(|active| !Arc::ptr_eq(active, own))
                .take(MOST_SHOWN)
                .map(RunView::of)
                .collect(),
            runs_open: self.runs.count(),
            audit: AuditStatus { healthy: self.audit.healthy(), seq: head.seq, head: head.hash.to_string() },
            leases: work.leases.all().iter().map(|entry| LeaseStatus::of(entry, now)).collect(),
        }
    }

    /// What has happened so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let metrics = &self.metrics;
        Counts {
            cache: metrics.reads(Freshness::Cache),
            vault: metrics.reads(Freshness::Vault),
            stale: metrics.reads(Freshness::Stale),
            rotations: self.runs.rotations(),
            denied: metrics.denied.get(),
            failed: metrics.failed.get() + metrics.unaudited.get(),
        }
    }

    /// The metrics, in Prometheus' text format.
    #[must_use]
    pub fn scrape(&self) -> String {
        let now = self.clock.now();
        let left =
            |keeper: &TokenKeeper| keeper.view().held.as_ref().map_or(0, |held| held.left(now).as_secs());
        self.metrics.login_left.set(left(&self.runs.login).cast_signed());
        let own = self.runs.own_work();
        self.metrics.run_left.set(own.token.as_ref().map_or(0, |(_, token)| left(token)).cast_signed());
        self.metrics.leases.set(i64::try_from(self.runs.held()).unwrap_or(i64::MAX));
        self.metrics.runs.set(i64::try_from(self.runs.count()).unwrap_or(i64::MAX));
        self.metrics.ready.set(i64::from(self.ready().ready));
        self.metrics.text(self.audit.counters())
    }
}

/// What has happened since the broker began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Secrets disclosed that were held.
    pub cache: u64,
    /// Secrets disclosed that were fetched for it.
    pub vault: u64,
    /// Values disclosed past their time, labelled, because Vault did not answer.
    pub stale: u64,
    /// Leases replaced by new ones.
    pub rotations: u64,
    /// Requests refused by policy or by a limit.
    pub denied: u64,
    /// Reads that upstream failed, or whose audit line could not be written.
    pub failed: u64,
}

/// Whether everything is there, and if not, what is missing.
#[derive(Debug, Serialize)]
pub struct Readiness {
    /// Nothing is missing.
    pub ready: bool,
    /// What is missing, and why.
    pub missing: Vec<String>,
}

/// What `/tenure/leases` answers.
#[derive(Debug, Serialize)]
pub struct Status {
    version: &'static str,
    boot: String,
    ready: bool,
    login: LoginStatus,
    /// The process's own run.
    run: RunStatus,
    /// The others, as many as are shown.
    runs: Vec<RunView>,
    runs_open: usize,
    audit: AuditStatus,
    leases: Vec<LeaseStatus>,
}

#[derive(Debug, Serialize)]
struct TokenStatus {
    state: &'static str,
    left_seconds: Option<u64>,
    expires: Option<String>,
    trouble: Option<String>,
}

#[derive(Debug, Serialize)]
struct LoginStatus {
    method: String,
    #[serde(flatten)]
    token: TokenStatus,
}

#[derive(Debug, Serialize)]
struct RunStatus {
    #[serde(flatten)]
    about: RunView,
    token: Option<RunTokenStatus>,
}

#[derive(Debug, Serialize)]
struct RunTokenStatus {
    role: String,
    policies: Vec<String>,
    #[serde(flatten)]
    token: TokenStatus,
}

#[derive(Debug, Serialize)]
struct AuditStatus {
    healthy: bool,
    seq: u64,
    head: String,
}

#[derive(Debug, Serialize)]
struct LeaseStatus {
    path: String,
    operation: &'static str,
    state: &'static str,
    kind: Option<&'static str>,
    lease_id: Option<String>,
    left_seconds: Option<u64>,
    expires: Option<String>,
    renewable: bool,
    version: Option<u64>,
    grants: u64,
    reads: u64,
    trouble: Option<String>,
}

impl TokenStatus {
    fn of(keeper: &TokenKeeper, now: Moment) -> Self {
        let view = keeper.view();
        Self {
            state: view.phase,
            left_seconds: view.held.as_ref().map(|held| held.left(now).as_secs()),
            expires: view.held.as_ref().map(|held| held.ends().rfc3339()),
            trouble: view.trouble.as_ref().map(|trouble| trouble.failure.to_string()),
        }
    }
}

impl LeaseStatus {
    fn of(entry: &crate::runs::leases::Entry, now: Moment) -> Self {
        let view = entry.keeper.view();
        let held = view.held.as_ref();
        let answer = held.map(|held| &held.payload.answer);
        Self {
            path: entry.key.to_string(),
            operation: if entry.key.list { "list" } else { "read" },
            state: view.phase,
            kind: held.map(|held| if held.is_static { "static" } else { "leased" }),
            lease_id: answer
                .filter(|answer| !answer.lease_id.is_empty())
                .map(|answer| answer.lease_id.to_string()),
            left_seconds: held.map(|held| held.left(now).as_secs()),
            expires: held.map(|held| held.ends().rfc3339()),
            renewable: held.is_some_and(|held| held.extendable()),
            version: answer.and_then(|answer| answer.version),
            grants: view.seq,
            reads: entry.reads.load(Ordering::Relaxed),
            trouble: view.trouble.as_ref().map(|trouble| trouble.failure.to_string()),
        }
    }
}
