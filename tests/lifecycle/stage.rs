//! A broker over the embedded Vault, and what every test must leave behind.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tenure::audit::{self, Audit, Event, Line, Memory};
use tenure::broker::{Asker, Broker, Denied, ReadRequest};
use tenure::caller::Caller;
use tenure::clock::{Clock, Until};
use tenure::lease::upstream::ReadKey;
use tenure::lease::view::Freshness;
use tenure::metrics::Metrics;
use tenure::policy::Admission;
use tenure::policy::rules::{Rule, Rules, Verification};
use tenure::run::request::Request;
use tenure::run::subject::Issuers;
use tenure::run::workflow::Workflow;
use tenure::run::{Boot, Run};
use tenure::runs::journal::Journal;
use tenure::runs::leases::Limits;
use tenure::runs::subjects::Subjects;
use tenure::runs::{Active, Own, Runs, Setup, SubjectExpiry, Watching};
use tenure::source::dev::{DatabaseRole, DevConfig, DevVault, TokenRole};
use tenure::supervise::Supervisor;

pub(crate) const ORDERS: &str = "database/creds/orders";
pub(crate) const APP: &str = "secret/data/app";

/// How long a reader waits at most.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

pub(crate) fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

pub(crate) async fn sleep(span: Duration) {
    tokio::time::sleep(span).await;
}

/// What a test may want to be different.
pub(crate) struct Plan {
    pub(crate) vault: DevConfig,
    pub(crate) orders: DatabaseRole,
    pub(crate) role: Option<TokenRole>,
    pub(crate) token_ttl: Duration,
    pub(crate) deadline: Option<Duration>,
    pub(crate) limits: Limits,
    pub(crate) rules: Vec<Rule>,
    pub(crate) max_runs: usize,
    pub(crate) workflow: Option<Arc<dyn Workflow>>,
    pub(crate) issuers: Option<Arc<dyn Issuers>>,
    pub(crate) watching: Watching,
    pub(crate) subject_expiry: SubjectExpiry,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            vault: DevConfig { latency: Duration::from_millis(40), ..DevConfig::default() },
            orders: DatabaseRole { ttl: secs(60), max_ttl: secs(3600) },
            role: Some(TokenRole::orphan(&["database/creds/", "secret/"])),
            token_ttl: secs(600),
            deadline: None,
            limits: Limits { max_leases: 100, kv_fresh: secs(60), kv_stale: secs(600), kv_bytes: 1 << 20 },
            rules: Vec::new(),
            max_runs: 100,
            workflow: None,
            issuers: None,
            watching: Watching::default(),
            subject_expiry: SubjectExpiry::Cap,
        }
    }
}

/// What a reader got.
#[derive(Clone, Debug)]
pub(crate) struct Got {
    /// The database user, or the value of the member `key`.
    pub(crate) value: String,
    pub(crate) left: Option<Duration>,
    pub(crate) freshness: Freshness,
    pub(crate) age: Duration,
    pub(crate) version: Option<u64>,
}

#[derive(Clone)]
pub(crate) struct Stage {
    pub(crate) vault: DevVault,
    pub(crate) broker: Arc<Broker>,
    pub(crate) memory: Memory,
    pub(crate) clock: Clock,
    supervisor: Supervisor,
    secrets: Arc<Mutex<BTreeSet<String>>>,
}

impl Stage {
    /// Everything is there: the login, the run's token.
    pub(crate) async fn new(plan: Plan) -> Self {
        let stage = Self::start(plan).await;
        stage.broker.runs().established().await.expect("established");
        stage
    }

    pub(crate) async fn start(plan: Plan) -> Self {
        let clock = Clock::simulated();
        let vault = DevVault::new(clock.clone(), plan.vault);
        for name in ["orders", "billing", "stock", "audit"] {
            vault.database_role(name, plan.orders);
        }
        vault.put("app", serde_json::json!({ "key": "canary-one" }));
        let role = plan.role.map(|role| {
            vault.token_role("run", role);
            "run".to_owned()
        });
        let boot = Boot::new().expect("entropy");
        let (audit, memory) = Audit::in_memory(boot.id(), clock.clone()).expect("audit");
        let supervisor = Supervisor::default();
        let request = Request {
            deadline: plan.deadline.map(|deadline| Until::new(clock.now(), deadline)),
            ..Request::default()
        };
        let runs = Runs::start(Setup {
            login: Arc::new(vault.clone()),
            source: Arc::new(vault.clone()),
            audit: audit.clone(),
            journal: Journal::default(),
            boot: boot.clone(),
            clock: clock.clone(),
            supervisor: supervisor.clone(),
            workflow: plan.workflow,
            subjects: Subjects::new(plan.issuers, secs(60)),
            seal_key: None,
            own: Own {
                id: Run::new_id().expect("entropy"),
                request,
                task: None,
                token_role: role,
                token_ttl: plan.token_ttl,
                verification: Verification::Off,
            },
            rules: Rules::new(plan.rules),
            max_runs: plan.max_runs,
            watching: plan.watching,
            subject_expiry: plan.subject_expiry,
            limits: plan.limits,
        })
        .await
        .expect("runs");
        let admission = Admission::new(1000, Vec::new());
        let broker = Broker::new(runs, admission, audit, boot, clock.clone(), Metrics::default(), PATIENCE);
        let secrets = Arc::new(Mutex::new(BTreeSet::from(["canary-one".to_owned()])));
        Self { vault, broker: Arc::new(broker), memory, clock, supervisor, secrets }
    }

    pub(crate) async fn read(&self, path: &str) -> Result<Got, Denied> {
        self.read_for(path, Duration::ZERO).await
    }

    /// Reads what is left for at least `min_left`.
    pub(crate) async fn read_for(&self, path: &str, min_left: Duration) -> Result<Got, Denied> {
        self.read_as(self.broker.runs().own(), path, min_left).await
    }

    /// Reads on behalf of a run.
    pub(crate) async fn read_as(
        &self,
        run: &Arc<Active>,
        path: &str,
        min_left: Duration,
    ) -> Result<Got, Denied> {
        let request =
            ReadRequest { key: ReadKey { path: path.into(), query: "".into(), list: false }, min_left };
        let caller = Caller::Unix { uid: 1000, gid: 1000, pid: None };
        let disclosed = self.broker.read(&Asker::new(&caller, "test"), run, &request).await?;
        let answer = &disclosed.granted.answer;
        let data: serde_json::Value =
            serde_json::from_slice(answer.data.open(&disclosed.receipt)).expect("JSON");
        let secret = data["password"].as_str().or(data["data"]["key"].as_str()).expect("a secret");
        self.secrets.lock().expect("secrets").insert(secret.to_owned());
        Ok(Got {
            value: data["username"].as_str().unwrap_or(secret).to_owned(),
            left: disclosed.left,
            freshness: disclosed.freshness,
            age: disclosed.age,
            version: answer.version,
        })
    }

    /// Reads a database user that must be alive.
    pub(crate) async fn alive(&self, path: &str) -> Got {
        let got = self.read(path).await.expect("served");
        assert!(self.vault.is_alive(&got.value), "{} is dead: {got:?}", got.value);
        got
    }

    /// All audit lines of this event.
    pub(crate) fn lines(&self, event: Event) -> Vec<Line> {
        let mut lines = self.memory.lines().expect("lines");
        lines.retain(|line| line.event == event);
        lines
    }

    /// Waits, at most so long, until something holds; asks ten times a second.
    pub(crate) async fn until(&self, within: Duration, what: &str, holds: impl Fn(&Self) -> bool) {
        let started = tokio::time::Instant::now();
        while !holds(self) {
            assert!(started.elapsed() < within, "not within {within:?}: {what}");
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Ends the run: everything is revoked and confirmed, the audit chain is whole and holds no secret.
    pub(crate) async fn finish(self) {
        assert!(self.broker.runs().end(secs(20)).await, "the end took too long");
        assert_eq!((self.vault.alive(), self.vault.tokens()), (0, Vec::new()), "something outlived the run");
        let confirmed = self.lines(Event::RevokeConfirmed);
        assert!(confirmed.iter().any(|line| line.detail.as_deref() == Some("login token")), "{confirmed:?}");
        self.check().await;
    }

    /// What must hold however a run ended.
    pub(crate) async fn check(&self) {
        let text = self.memory.text();
        let report = audit::verify(text.as_bytes()).expect("read");
        assert!(report.is_good(), "{report}");
        for secret in self.secrets.lock().expect("secrets").iter() {
            assert!(!text.contains(secret.as_str()), "a secret is in the audit log");
        }
        let fallen = tokio::time::timeout(Duration::from_millis(1), self.supervisor.fallen()).await;
        assert!(fallen.is_err(), "the task {fallen:?} has died");
    }
}
