//! A broker over the embedded Vault, and what every test must leave behind.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tenure::audit::{self, Audit, Event, Line, Memory, Peer};
use tenure::broker::{Asker, Broker, Denied, ReadRequest, RunRefusal};
use tenure::caller::Caller;
use tenure::clock::{Clock, Until};
use tenure::lease::upstream::{ReadKey, TransitKey};
use tenure::lease::view::Freshness;
use tenure::metrics::Metrics;
use tenure::policy::Admission;
use tenure::policy::rules::{Rule, Rules, Verification};
use tenure::run::lambda::Lambda;
use tenure::run::request::{Facts, Request};
use tenure::run::subject::Issuers;
use tenure::run::workflow::{EcsTask, Workflow};
use tenure::run::{Boot, Run};
use tenure::runs::journal::Journal;
use tenure::runs::leases::Limits;
use tenure::runs::subjects::Subjects;
use tenure::runs::{Active, Cause, Own, Registrant, Runs, Setup, SubjectExpiry, Watching};
use tenure::secret::Credential;
use tenure::source::dev::{DatabaseRole, DevConfig, DevVault, TokenRole};
use tenure::supervise::Supervisor;

pub(crate) const ORDERS: &str = "database/creds/orders";
/// Who registers runs, if nothing else is said.
pub(crate) const USER: Registrant = Registrant::Uid(1000);

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
    /// What is said of the process's own run.
    pub(crate) facts: Facts,
    /// The task token of the process's own run.
    pub(crate) task_token: Option<&'static str>,
    /// The ECS task that the process runs in.
    pub(crate) task: Option<EcsTask>,
    /// The Lambda environment that the process serves.
    pub(crate) lambda: Option<Lambda>,
    /// What wraps the key that values are hashed with; the embedded Vault has it.
    pub(crate) value_key: Option<TransitKey>,
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
            facts: Facts::default(),
            task_token: None,
            task: None,
            lambda: None,
            value_key: None,
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
    pub(crate) supervisor: Supervisor,
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
        Self::started(plan, true).await
    }

    /// The embedded Vault has no transit key.
    pub(crate) async fn start_without_transit(plan: Plan) -> Self {
        Self::started(plan, false).await
    }

    async fn started(plan: Plan, transit: bool) -> Self {
        let clock = Clock::simulated();
        let vault = DevVault::new(clock.clone(), plan.vault);
        for name in ["orders", "billing", "stock", "audit"] {
            vault.database_role(name, plan.orders);
        }
        vault.put("app", serde_json::json!({ "key": "canary-one" }));
        if let Some(key) = plan.value_key.as_ref().filter(|_| transit) {
            vault.rotate_transit_key(&key.mount, &key.name);
        }
        let role = plan.role.map(|role| {
            vault.token_role("run", role);
            "run".to_owned()
        });
        let boot = Boot::new().expect("entropy");
        let (audit, memory) = Audit::in_memory(boot.id(), clock.clone()).expect("audit");
        let supervisor = Supervisor::default();
        let request = Request {
            deadline: plan.deadline.map(|deadline| Until::new(clock.now(), deadline)),
            facts: plan.facts,
            task_token: plan.task_token.map(|token| Credential::new(token.to_owned())),
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
                task: plan.task,
                lambda: plan.lambda,
                token_role: role,
                token_ttl: plan.token_ttl,
                verification: Verification::Off,
            },
            rules: Rules::new(plan.rules),
            max_runs: plan.max_runs,
            watching: plan.watching,
            subject_expiry: plan.subject_expiry,
            anchor: None,
            value_key: plan.value_key,
            limits: plan.limits,
        })
        .await
        .expect("runs");
        let admission = Admission::new(rustix::process::geteuid().as_raw(), Vec::new());
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

    /// Reads a database user on behalf of a run, which must be alive.
    pub(crate) async fn alive_as(&self, run: &Arc<Active>, path: &str) -> Got {
        let got = self.read_as(run, path, Duration::ZERO).await.expect("served");
        assert!(self.vault.is_alive(&got.value), "{} is dead: {got:?}", got.value);
        got
    }

    /// Registers a run in the name of the process's own, as a process of the user 1000.
    pub(crate) async fn register(&self, request: Request) -> Result<Arc<Active>, RunRefusal> {
        self.register_by(USER, self.broker.runs().own(), request).await.map(|(run, _)| run)
    }

    /// Registers a run in the limits of another; says whether it is new.
    pub(crate) async fn register_by(
        &self,
        registrant: Registrant,
        by: &Arc<Active>,
        request: Request,
    ) -> Result<(Arc<Active>, bool), RunRefusal> {
        let peer = Peer::unix(1000, 1000, None);
        let registered = self.broker.runs().register(registrant, by, &peer, "test", request).await?;
        Ok((registered.active, registered.new))
    }

    /// Ends a run and waits until nothing of it is left.
    pub(crate) async fn end(&self, run: &Arc<Active>) {
        self.broker.runs().finish(run, Cause::Ended);
        self.until(secs(30), "the run is over", |_| run.phase() == "over").await;
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
        assert_eq!(crate::schema::faults_of_lines(&text), [""; 0], "lines that are not of the schema");
        // A long log is not searched for each of a thousand secrets: a word of it is looked up, and a few are searched.
        let words: HashSet<&str> = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').collect();
        for (number, secret) in self.secrets.lock().expect("secrets").iter().enumerate() {
            let found = words.contains(secret.as_str()) || (number < 4 && text.contains(secret.as_str()));
            assert!(!found, "a secret is in the audit log");
        }
        let fallen = tokio::time::timeout(Duration::from_millis(1), self.supervisor.fallen()).await;
        assert!(fallen.is_err(), "the task {fallen:?} has died");
    }
}
