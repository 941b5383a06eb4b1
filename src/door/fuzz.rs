//! Fuzzed: requests, from the path alone to whole connections.

use std::future::Future as _;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::guard::LocalToken;
use super::{Doors, Via, Visitor, runs, target};
use crate::audit::{self, Audit, Event, Memory, Outcome};
use crate::broker::{Asker, Broker, Registrant};
use crate::caller::Caller;
use crate::clock::{Clock, Moment};
use crate::fuzz::{Bytes, contains, secret};
use crate::metrics::Metrics;
use crate::policy::Admission;
use crate::policy::rules::{Matches, Rule, Rules, Share, Verification};
use crate::run::request::{Facts, Request};
use crate::run::{Boot, Run};
use crate::runs::journal::Journal;
use crate::runs::leases::Limits;
use crate::runs::subjects::Subjects;
use crate::runs::{Own, Runs, Setup, SubjectExpiry, Watching};
use crate::secret::Credential;
use crate::source::dev::{DatabaseRole, DevConfig, DevVault, TokenRole};
use crate::supervise::Supervisor;

/// A path, a query and a minimum life, a line each: what is taken is one path, however it was written.
pub(crate) fn path(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mark = secret(data);
    let mut lines = text.splitn(3, '\n');
    let (path, query) = (lines.next().unwrap_or_default(), lines.next());
    for list in [false, true] {
        let marked = target::parse(&format!("{path}{mark}"), query, list);
        assert!(!marked.is_err_and(|why| why.contains(&mark)), "what was refused is repeated");
        match target::parse(path, query, list) {
            Ok(key) => {
                assert!(key.path.len() <= 1024 && !key.path.chars().any(|c| c.is_control() || c == '\\'));
                assert!(key.path.split('/').all(|segment| !matches!(segment, "" | "." | "..")), "{key}");
                let query = Some(&*key.query).filter(|query| !query.is_empty());
                let again = target::parse(&encoded(&key.path), query, key.list);
                assert_eq!(again.as_ref(), Ok(&key), "written down and read again");
                assert!(key.list || !list);
                let said = if key.list { path.strip_suffix('/').unwrap_or(path) } else { path };
                let slashes = |path: &str| path.matches('/').count();
                assert_eq!(slashes(&key.path), slashes(said), "an escape became a slash");
            }
            Err(why) => assert!(why.len() < 100, "{why}"),
        }
    }
    let Some(text) = lines.next() else { return };
    if let Ok(span) = target::min_ttl(text.as_bytes()) {
        assert!(span.as_secs() <= u32::MAX.into());
        let written = humantime::format_duration(span).to_string();
        assert_eq!(target::min_ttl(written.as_bytes()), Ok(span), "{written}");
    }
}

/// Everything but what RFC 3986 never takes for something else.
fn encoded(path: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    path.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02x}") })
        .collect()
}

/// What is said of a run: what was understood says the same again, and what proves something is told to nobody.
pub(crate) fn registration(data: &[u8]) {
    let Ok(Value::Object(said)) = serde_json::from_slice(data) else { return };
    let now = Moment::new(Duration::ZERO, Duration::from_secs(1_767_225_600));
    let _ = runs::extension(said.clone(), now).map(|until| assert!(!until.len().is_zero()));
    match runs::registration(said.clone(), now) {
        Ok(request) => {
            assert!(request.deadline.is_none_or(|until| !until.len().is_zero()));
            let again = runs::registration(written(&request.facts), now).expect("said again");
            assert_eq!(again.facts, request.facts);
        }
        Err(why) => {
            assert!(why.len() < 2048 && !why.chars().any(char::is_control), "{why}");
        }
    }
    let mark = secret(data);
    for name in ["task_token", "subject_token"] {
        let mut said = said.clone();
        if let Some(Value::String(token)) = said.get_mut(name) {
            token.push_str(&mark);
            let told = match runs::registration(said, now) {
                Ok(request) => format!("{request:?}"),
                Err(why) => why,
            };
            assert!(!told.contains(&mark), "{told}");
        }
    }
}

fn written(facts: &Facts) -> Map<String, Value> {
    let arn = |arn: &Option<crate::run::arn::ExecutionArn>| arn.as_ref().map(ToString::to_string);
    let said = json!({
        "execution_arn": arn(&facts.execution),
        "parent_execution_arn": arn(&facts.parent),
        "root_execution_arn": arn(&facts.root),
        "state": facts.state,
        "attempt": facts.attempt,
        "subject": facts.subject.as_ref().map(|(id, kind)| json!({ "id": id, "kind": kind.word() })),
        "tags": facts.tags,
    });
    match said {
        Value::Object(said) => said,
        _ => Map::new(),
    }
}

/// Bytes on a connection, by either listener, to a broker with all behind it: each answer is one of HTTP, what is disclosed
/// has a line, and nobody is told a token.
pub(crate) fn door(data: &[u8]) {
    let mut bytes = Bytes(data);
    let flags = bytes.byte();
    let via = if flags & 1 == 0 { Via::Unix } else { Via::Tcp };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let house = House::new(data).await;
        let sent = match flags >> 1 & 3 {
            1 => presenting(bytes.0, "x-vault-token: ", &house.token),
            2 => presenting(bytes.0, "x-vault-token: ", &house.handle),
            3 => presenting(bytes.0, "authorization: Bearer ", &house.handle),
            _ => bytes.0.to_vec(),
        };
        let said = house.exchange(via, &sent).await;
        house.check(&sent, &said);
    });
}

/// The statuses that a door, or the HTTP library before it, answers with.
const STATUSES: [&str; 15] =
    ["100", "200", "201", "204", "400", "403", "404", "405", "410", "413", "414", "429", "431", "501", "503"];

/// A broker, a run that is registered with it, and doors to it.
struct House {
    doors: Arc<Doors>,
    memory: Memory,
    supervisor: Supervisor,
    /// The local token.
    token: String,
    handle: String,
    /// What a secret of Vault's holds.
    canary: String,
}

impl House {
    async fn new(data: &[u8]) -> Self {
        let canary = secret(data);
        let token = format!("tnr_{canary}");
        let clock = Clock::simulated();
        let vault = DevVault::new(clock.clone(), DevConfig::default());
        let hour = Duration::from_secs(3600);
        vault.database_role("orders", DatabaseRole { ttl: hour, max_ttl: hour });
        vault.put("app", json!({ "key": canary }));
        vault.token_role("run", TokenRole::orphan(&["database/creds/", "secret/"]));
        let boot = Boot::new().expect("entropy");
        let (audit, memory) = Audit::in_memory(boot.id(), clock.clone()).expect("a log");
        let supervisor = Supervisor::default();
        let own = Own {
            id: Run::new_id().expect("entropy"),
            request: Request::default(),
            task: None,
            lambda: None,
            token_role: Some("run".to_owned()),
            token_ttl: hour,
            verification: Verification::Off,
        };
        let setup = Setup {
            login: Arc::new(vault.clone()),
            source: Arc::new(vault),
            audit: audit.clone(),
            journal: Journal::default(),
            boot: boot.clone(),
            clock: clock.clone(),
            supervisor: supervisor.clone(),
            workflow: None,
            subjects: Subjects::new(None, hour),
            seal_key: None,
            own,
            rules: Rules::new(vec![rule()]),
            max_runs: 4,
            watching: Watching::default(),
            subject_expiry: SubjectExpiry::Cap,
            anchor: None,
            value_key: None,
            limits: Limits { max_leases: 8, kv_fresh: hour, kv_stale: hour, kv_bytes: 1 << 16 },
        };
        let runs = Runs::start(setup).await.expect("runs");
        runs.established().await.expect("a login");
        let registered = runs
            .register(Registrant::Holder, runs.own(), &audit::Peer::TCP, "fuzz", Request::default())
            .await
            .expect("a run");
        let handle = registered.active.handle().expect("a handle").expose().to_owned();
        let admission = Admission::new(1000, Vec::new());
        let patience = Duration::from_secs(15);
        let broker = Broker::new(runs, admission, audit, boot, clock, Metrics::default(), patience);
        let local = LocalToken(Credential::new(token.clone()));
        let doors = Doors::new(Arc::new(broker), Some(local), None, supervisor.clone());
        Self { doors, memory, supervisor, token, handle, canary }
    }

    /// What is answered to these bytes, until the door has closed.
    async fn exchange(&self, via: Via, sent: &[u8]) -> Vec<u8> {
        let caller = match via {
            Via::Unix => Caller::Unix { uid: 1000, gid: 1000, pid: None },
            Via::Tcp | Via::SecretsManager => Caller::Holder,
        };
        let visitor = Visitor {
            via,
            asker: Asker::new(&caller, via.door()),
            caller,
            refused: None,
            secrets_manager: None,
        };
        let (ours, theirs) = tokio::net::UnixStream::pair().expect("a pair of sockets");
        self.doors.seat(theirs, visitor);
        let (mut answers, mut requests) = ours.into_split();
        let mut said = Vec::new();
        let ask = async {
            // Who is refused early may find the other end closed.
            let _ = requests.write_all(sent).await;
            let _ = requests.shutdown().await;
            let _ = answers.read_to_end(&mut said).await;
        };
        tokio::time::timeout(Duration::from_secs(120), ask).await.expect("an end");
        said
    }

    fn check(&self, sent: &[u8], said: &[u8]) {
        let answers = statuses(said);
        assert!(
            answers.iter().all(|it| STATUSES.contains(&it.as_str())),
            "{}",
            String::from_utf8_lossy(said)
        );
        let log = self.memory.text();
        assert!(audit::verify(log.as_bytes()).expect("read").is_good(), "{log}");
        for secret in [&self.token, &self.handle, &self.canary] {
            assert!(!log.contains(secret.as_str()), "{log}");
        }
        // A path may begin like a token; then it is none.
        let told = |token: &[u8]| contains(said, token);
        assert!(!told(self.token.as_bytes()), "{}", String::from_utf8_lossy(said));
        assert!(!told(b"hvs.") || contains(sent, b"hvs."), "{}", String::from_utf8_lossy(said));
        let granted = self.memory.lines().expect("lines");
        let granted = granted.iter().filter(|it| it.event == Event::Read && it.outcome == Outcome::Granted);
        let canary = self.canary.as_bytes();
        let disclosed = said.windows(canary.len()).filter(|window| *window == canary).count();
        assert!(disclosed <= granted.count(), "a secret without a line: {log}");
        let fallen = pin!(self.supervisor.fallen()).poll(&mut Context::from_waker(Waker::noop()));
        assert!(fallen.is_pending(), "a task has died: {fallen:?}");
    }
}

fn rule() -> Rule {
    Rule {
        name: "run.rule[0]".to_owned(),
        matches: Matches::default(),
        token_role: "run".into(),
        policies: Vec::new(),
        namespace: None,
        max_ttl: Duration::from_secs(3600),
        share: Share::None,
        verification: Verification::Off,
        may_register: true,
        ends_with_parent: true,
    }
}

/// The status of each answer. A body of ours holds no such line.
fn statuses(said: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(said);
    text.split("HTTP/1.1 ").skip(1).map(|rest| rest.chars().take(3).collect()).collect()
}

/// The requests, each with that header first. A target or a text in JSON cannot hold the end of a line.
fn presenting(text: &[u8], header: &str, token: &str) -> Vec<u8> {
    const LINE: &[u8] = b" HTTP/1.1\r\n";
    let mut whole = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.windows(LINE.len()).position(|window| window == LINE) {
        let (line, after) = rest.split_at(at + LINE.len());
        whole.extend_from_slice(line);
        whole.extend_from_slice(format!("{header}{token}\r\n").as_bytes());
        rest = after;
    }
    whole.extend_from_slice(rest);
    whole
}
