//! `tenure demo`: the main job from end to end, shown as it happens, with nothing else installed.
//!
//! Real are the broker as [`App`] composes it, its Unix socket, its audit file and its HTTP clients. Upstream is the
//! embedded source. Each state of the workflow is a run of its own, with its own start of the broker, as it is with
//! tasks that Step Functions starts. What is shown is checked first: [`run`] fails with what was off.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use crate::app::{App, AppError, Upstream, process_run};
use crate::audit::{self, Event, Line, Outcome};
use crate::clock::{Clock, Until};
use crate::config::{self, Config, RunEnv, SecretPath};
use crate::lease::failure::Class;
use crate::policy::rules::Verification;
use crate::run::hex;
use crate::run::request::Facts;
use crate::source::dev::{DatabaseRole, DevConfig, DevVault, Logged, Operation, TokenInfo, TokenRole};

mod reader;
mod timeline;

use reader::Reader;
use timeline::{Row, Timeline, Tone};

pub use timeline::Look;

const EXECUTION: &str = "arn:aws:states:eu-west-1:111122223333:execution:checkout:order-4711";
const ORDERS: &str = "database/creds/orders";
const PAYMENTS: &str = "database/creds/payments";
const REFUNDS: &str = "database/creds/refunds";
const GATEWAY: &str = "secret/data/gateway";

/// Readers at the same moment.
const READERS: usize = 64;

/// What a database user of "orders" lives, at first and at most.
const TTL: Duration = Duration::from_secs(3);
const MAX_TTL: Duration = Duration::from_secs(5);

/// The deadline of the second state.
const DEADLINE: Duration = Duration::from_secs(30);

/// Why the demo did not end well.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// Something was not as it should be.
    #[error("the demo found something off: {0}")]
    Off(String),
    /// The broker did not start.
    #[error("the demo's broker did not start")]
    App(#[from] AppError),
    /// A file or the terminal.
    #[error("the demo's files or its output")]
    Io(#[from] io::Error),
}

/// Runs the demo, in about twelve seconds, and prints it as it happens.
///
/// # Errors
/// [`DemoError::Off`] names what was not as it should be; the others say what stood in the way.
pub async fn run(out: &mut (dyn Write + Send), look: Look) -> Result<(), DemoError> {
    let dir = Directory::new()?;
    let clock = Clock::system();
    let mut show = Show {
        upstream: upstream(&clock),
        clock,
        dir,
        line: Timeline::new(out, look),
        secrets: BTreeSet::new(),
    };
    show.line.heading("Tenure demo", "a workflow of two states, an upstream in memory, about 12 seconds")?;
    let first = show.reserve().await?;
    show.charge(&first).await?;
    show.audit()?;
    let (seconds, done) = (show.line.elapsed().as_secs_f64(), show.line.paint("as it should be", Tone::Good));
    show.line.heading("Done", &format!("everything was {done} · {seconds:.1} s"))?;
    Ok(())
}

fn upstream(clock: &Clock) -> DevVault {
    let latency = Duration::from_millis(30);
    let vault = DevVault::new(clock.clone(), DevConfig { latency, ..DevConfig::default() });
    vault.token_role("run", TokenRole::orphan(&["database/creds/", "secret/"]));
    vault.database_role("orders", DatabaseRole { ttl: TTL, max_ttl: MAX_TTL });
    let minute = Duration::from_secs(60);
    for name in ["payments", "refunds"] {
        vault.database_role(name, DatabaseRole { ttl: minute, max_ttl: minute * 60 });
    }
    vault
}

struct Show<'a> {
    upstream: DevVault,
    clock: Clock,
    dir: Directory,
    line: Timeline<'a>,
    /// Every secret value that was disclosed: none may be in the audit log.
    secrets: BTreeSet<String>,
}

/// What is left to compare of a state that is over.
struct Over {
    accessor: String,
    username: String,
}

impl Show<'_> {
    async fn reserve(&mut self) -> Result<Over, DemoError> {
        self.line.heading("Reserve", "state 1 of 2: a broker beside its task")?;
        let app = self.start("Reserve", None).await?;
        let token = self.run_token("Reserve")?;
        let username = self.herd(&app).await?;
        self.rotation(&app, username.clone()).await?;
        self.end(app, "Reserve").await?;
        Ok(Over { accessor: token.accessor, username })
    }

    async fn charge(&mut self, before: &Over) -> Result<(), DemoError> {
        self.line.heading("Charge", "state 2 of 2: another task, another broker, another run")?;
        self.upstream.put("gateway", json!({ "key": format!("gw-{}", random()?) }));
        let app = self.start("Charge", Some(DEADLINE)).await?;
        let token = self.run_token("Charge")?;
        ensure(token.accessor != before.accessor, "the second state got the first one's run token")?;
        ensure(token.left <= DEADLINE, "the run token outlives the run's deadline")?;
        let mut reader = self.reader("Charge").await?;
        let payments = self.granted(&mut reader, PAYMENTS).await?;
        ensure(payments.value != before.username, "the second state got the first one's credential")?;
        let gateway = self.granted(&mut reader, GATEWAY).await?;
        ensure(gateway.version == Some(1), "the gateway's key is not version 1")?;
        self.line.event(
            Tone::Good,
            "own run",
            &format!(
                "its own run token, ending at the state's deadline in {} s at the latest",
                DEADLINE.as_secs()
            ),
        )?;
        self.line.more(&format!(
            "{} and {GATEWAY} version 1 read; nothing of Reserve's is reused",
            payments.value
        ))?;
        self.outage(&mut reader, &payments.value).await?;
        drop(reader);
        self.end(app, "Charge").await
    }

    /// Starts a broker for one state and waits until it can mint.
    async fn start(&mut self, state: &str, deadline: Option<Duration>) -> Result<App, DemoError> {
        let run = RunEnv {
            deadline: deadline.map(|deadline| Until::new(self.clock.now(), deadline)),
            facts: Facts { execution: EXECUTION.parse().ok(), state: Some(state.into()), ..Facts::default() },
            ..RunEnv::default()
        };
        let upstream = Upstream::new(Arc::new(self.upstream.clone()), Arc::new(self.upstream.clone()));
        let socket = self.socket(state);
        let config = config(&socket, &self.dir.log());
        let mut app = App::start(&config, process_run(run)?, upstream, self.clock.clone()).await?;
        app.established().await?;
        let mode = |path: &Path| std::fs::metadata(path).map(|file| file.permissions().mode() & 0o777);
        ensure(mode(&socket)? == 0o600, "the socket can be reached by others")?;
        ensure(mode(&self.dir.log())? == 0o600, "the audit log can be read by others")?;
        ensure(mode(&self.dir.0)? == 0o700, "the directory can be entered by others")?;
        self.line.event(Tone::Good, "serving", &format!("{} (0600)", socket.display()))?;
        Ok(app)
    }

    /// The one run token that upstream knows, which names the execution and the state.
    fn run_token(&mut self, state: &str) -> Result<TokenInfo, DemoError> {
        let tokens: Vec<_> =
            self.upstream.tokens().into_iter().filter(|token| token.role.is_some()).collect();
        let [token] = &tokens[..] else { return off(format!("{} run tokens instead of one", tokens.len())) };
        let named = |key: &str, value: &str| token.meta.get(key).is_some_and(|text| text == value);
        ensure(named("execution_arn", EXECUTION), "the run token does not name the execution")?;
        ensure(named("state", state), "the run token does not name the state")?;
        ensure(token.meta.contains_key("audit_head"), "the run token does not pin the audit log's head")?;
        let text = format!("an orphan made for this run; upstream's own log will show order-4711, {state}");
        self.line.event(Tone::Good, "run token", &text)?;
        Ok(token.clone())
    }

    /// Many readers at the same moment get the same credential, from one mint.
    async fn herd(&mut self, app: &App) -> Result<String, DemoError> {
        let socket = self.socket("Reserve");
        let mut readers = Vec::new();
        for _ in 0..READERS {
            readers.push(Reader::connect(&socket).await.or_else(off)?);
        }
        let mut reads = tokio::task::JoinSet::new();
        for mut reader in readers {
            reads.spawn(async move { reader.read(ORDERS).await });
        }
        let started = self.line.elapsed();
        let mut users = BTreeSet::new();
        while let Some(read) = reads.join_next().await {
            let got = read.or_else(|error| off(error.to_string()))?.or_else(off)?;
            ensure(got.status == 200, format!("a reader was answered with {}", got.status))?;
            users.insert(got.text("/data/username").to_owned());
            self.secrets.insert(got.text("/data/password").to_owned());
        }
        let took = self.line.elapsed() - started;
        let mints = self.upstream.count(Operation::Read);
        ensure(users.len() == 1, format!("{READERS} readers got {} different credentials", users.len()))?;
        ensure(mints == 1, format!("{mints} mints for {READERS} readers"))?;
        ensure(self.upstream.alive() == 1, "there is not one database user")?;
        let username = users.pop_first().unwrap_or_default();
        ensure(self.upstream.is_alive(&username), "the credential is dead")?;
        ensure(app.audit().healthy(), "the audit log cannot be written")?;
        let text = format!(
            "{READERS} at once, each on a connection of its own, answered in {} ms",
            took.as_millis()
        );
        self.line.event(Tone::Good, "readers", &text)?;
        let text = self.line.paint("1 mint", Tone::Bold);
        self.line.more(&format!(
            "{text}: {username}, good for {} s, {} s at most",
            TTL.as_secs(),
            MAX_TTL.as_secs()
        ))?;
        Ok(username)
    }

    /// Reads on, until the credential was renewed and then replaced before its end.
    async fn rotation(&mut self, app: &App, first: String) -> Result<(), DemoError> {
        let mut reader = self.reader("Reserve").await?;
        let began = self.line.elapsed();
        let mut rows = vec![Row::new(first, began)];
        let (mut reads, mut renewals) = (0, 0);
        let mut rotated = None;
        loop {
            let now = self.line.elapsed();
            ensure(now - began < MAX_TTL * 2, "the credential was not replaced in time")?;
            let got = self.granted(&mut reader, ORDERS).await?;
            reads += 1;
            ensure(self.upstream.is_alive(&got.value), format!("a reader got {}, which is dead", got.value))?;
            let leases = self.upstream.leases();
            let left =
                |name: &str| leases.iter().find(|lease| lease.username == name).map(|lease| lease.left);
            for row in &mut rows {
                if left(&row.name).is_some() {
                    row.lived.1 = now;
                }
            }
            let renewed = self.renewals();
            if let Some(row) = rows.last_mut()
                && renewed > renewals
            {
                // The first time it gets its whole life anew, then what is left until its maximum.
                let first = row.renewed.is_empty();
                row.renewed.push(now);
                let name = row.name.clone();
                let left = left(&name).unwrap_or_default();
                let shorter = left + Duration::from_millis(500) < TTL;
                ensure(shorter != first, format!("renewal {renewed} left it {left:?}"))?;
                let left = left.as_secs_f64();
                let (tone, text) = match first {
                    true => {
                        (Tone::Good, format!("{name} is good for {left:.1} s again, long before its end"))
                    }
                    false => (
                        Tone::Warn,
                        format!("{name} gets {left:.1} s: its maximum is near, a replacement is planned"),
                    ),
                };
                self.line.event(tone, "renewed", &text)?;
                renewals = renewed;
            }
            let last = rows.last().map(|row| row.name.clone()).unwrap_or_default();
            if got.value == last {
                if let Some(row) = rows.last_mut() {
                    row.served.1 = now;
                }
            } else {
                let old = left(&last);
                let Some(old) = old else { return off(format!("{last} was dead before it was replaced")) };
                ensure(renewals > 0, "it was replaced before it was ever renewed")?;
                rows.push(Row::new(got.value.clone(), now));
                self.line.event(
                    Tone::Good,
                    "rotated",
                    &format!(
                        "{} from now on; the old one was alive for another {:.1} s",
                        got.value,
                        old.as_secs_f64()
                    ),
                )?;
                rotated = Some(now);
            }
            if let Some(left) = left(&got.value) {
                self.line.life(&got.value, left, TTL)?;
            }
            if rotated.is_some_and(|at| now - at > Duration::from_millis(1200)) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let mints = self.upstream.count(Operation::Read);
        ensure(mints == 2, format!("{mints} mints for two credentials"))?;
        ensure(app.broker().ready().ready, "the broker is not ready")?;
        let none = self.line.paint("none dead", Tone::Bold);
        self.line.event(Tone::Good, "reads", &format!("{reads} since then, {none}; 2 mints in all"))?;
        let to = self.line.elapsed();
        self.line.chart(&rows, began, to)?;
        Ok(())
    }

    /// Renewals of leases that upstream has granted.
    fn renewals(&self) -> usize {
        let granted =
            |call: &&Logged| call.operation == Operation::RenewLease && call.outcome == Some(Ok(()));
        self.upstream.calls().iter().filter(granted).count()
    }

    /// Upstream fails: what is held goes on being served, and what is not held is refused clearly.
    async fn outage(&mut self, reader: &mut Reader, username: &str) -> Result<(), DemoError> {
        self.upstream.fail(Class::Transient);
        self.upstream.clear_calls();
        self.line.event(Tone::Bad, "outage", "upstream answers every call with 503, sealed")?;
        let began = self.line.elapsed();
        let (mut reads, mut stale) = (0, None);
        while self.line.elapsed() - began < Duration::from_millis(2500) {
            let lease = self.granted(reader, PAYMENTS).await?;
            ensure(
                lease.value == username && lease.source == "cache",
                "the lease was not served from the cache",
            )?;
            ensure(self.upstream.is_alive(&lease.value), "a reader got a dead credential")?;
            let value = self.granted(reader, GATEWAY).await?;
            reads += 2;
            if value.source == "stale" && stale.is_none() {
                ensure(value.warned, "a stale value came without a warning")?;
                let text = format!(
                    "{GATEWAY} is past its second of freshness: served, labelled stale, age {} s",
                    value.age
                );
                self.line.event(Tone::Warn, "stale", &text)?;
                stale = Some(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        ensure(stale.is_some(), "the value was never labelled stale")?;
        let refused = reader.read(REFUNDS).await.or_else(off)?;
        ensure(refused.status == 503, format!("what is not held was answered with {}", refused.status))?;
        ensure(!refused.header("retry-after").is_empty(), "the refusal does not say when to try again")?;
        self.line.event(
            Tone::Warn,
            "refused",
            &format!(
                "{REFUNDS} was never read before: 503, try again in {} s",
                refused.header("retry-after")
            ),
        )?;
        let calls = self.upstream.calls().len();
        ensure(calls <= 10, format!("{calls} calls to an upstream that is down"))?;
        let (reads, calls) = (format!("{reads} reads served"), format!("{calls} calls upstream"));
        self.line.more(&format!("{} meanwhile, {}", self.line.paint(&reads, Tone::Bold), calls))?;
        let version = self.upstream.put("gateway", json!({ "key": format!("gw-{}", random()?) }));
        self.upstream.recover();
        let began = self.line.elapsed();
        loop {
            let value = self.granted(reader, GATEWAY).await?;
            if value.version == Some(version) && value.source != "stale" {
                break;
            }
            ensure(self.line.elapsed() - began < Duration::from_secs(8), "it did not recover")?;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let text = format!("upstream is back; {GATEWAY} version {version} is served, nothing was restarted");
        self.line.event(Tone::Good, "recovered", &text)?;
        Ok(())
    }

    /// Ends a state: everything that it held is revoked, and seen to be gone.
    async fn end(&mut self, app: App, state: &str) -> Result<(), DemoError> {
        let users = self.upstream.alive();
        ensure(app.stop().await, format!("{state} could not revoke everything in time"))?;
        ensure(self.upstream.alive() == 0, format!("a database user outlived {state}"))?;
        ensure(self.upstream.tokens().is_empty(), format!("a token outlived {state}"))?;
        ensure(!self.socket(state).exists(), "the socket is still there")?;
        let confirmed: Vec<_> = self
            .lines()?
            .into_iter()
            .filter(|line| line.event == Event::RevokeConfirmed)
            .filter(|line| line.run.as_ref().is_none_or(|run| run.state.as_deref() == Some(state)))
            .filter_map(|line| line.detail)
            .collect();
        let seen = |what: &str| confirmed.iter().any(|detail| detail.starts_with(what));
        ensure(
            seen("run token") && seen("login token"),
            format!("{state}'s end was not confirmed: {confirmed:?}"),
        )?;
        let text = format!(
            "one revocation ended the run token and what hung off it (database users: {users}); confirmed"
        );
        self.line.event(Tone::Good, "ended", &text)?;
        let none = self.line.paint("0 tokens, 0 database users", Tone::Bold);
        self.line.more(&format!("upstream knows {none}"))?;
        Ok(())
    }

    /// The auditor's part: the chain is whole, holds no secret, and a change in a copy is found.
    fn audit(&mut self) -> Result<(), DemoError> {
        self.line.heading("Audit", "what an auditor does, afterwards")?;
        let text = std::fs::read_to_string(self.dir.log())?;
        let lines = self.lines()?;
        let report = audit::verify(text.as_bytes())?;
        ensure(report.is_good(), format!("the audit chain is broken:\n{report}"))?;
        ensure(report.boots == 2 && report.chains == 1, "it is not one chain over both brokers")?;
        let granted = lines.iter().filter(|line| line.outcome == Outcome::Granted).count();
        ensure(granted > READERS, "disclosures are missing in the audit log")?;
        let head = report.head.map(|head| head.hash.to_string()).unwrap_or_default();
        let whole = self.line.paint("the chain is whole", Tone::Bold);
        self.line.event(
            Tone::Good,
            "verified",
            &format!("{} lines, {granted} disclosures, 2 brokers, {whole}; head {:.12}…", report.lines, head),
        )?;
        let secrets = self.secrets.iter().filter(|secret| !secret.is_empty());
        let leaked = secrets.clone().filter(|secret| text.contains(secret.as_str())).count();
        ensure(leaked == 0, format!("{leaked} secrets are in the audit log"))?;
        let count = secrets.count();
        ensure(count >= 5, format!("only {count} secrets were looked for"))?;
        self.line.event(
            Tone::Good,
            "searched",
            &format!("none of the {count} secrets that were handed out is in it"),
        )?;
        let Some(at) = lines
            .iter()
            .rposition(|line| line.event == Event::Read && line.path.as_deref() == Some(PAYMENTS))
        else {
            return off("there is no read to tamper with".to_owned());
        };
        let tampered: Vec<_> = text
            .lines()
            .enumerate()
            .map(
                |(number, line)| {
                    if number == at { line.replace("payments", "harmless") } else { line.to_owned() }
                },
            )
            .collect();
        let copy = self.dir.0.join("tampered.jsonl");
        std::fs::write(&copy, tampered.join("\n") + "\n")?;
        let report = audit::verify(std::fs::read(&copy)?.as_slice())?;
        let Some(found) = report.problems.first() else {
            return off("a tampered copy was not noticed".to_owned());
        };
        let wanted = at as u64 + 1;
        ensure(
            report.problems.len() == 1 && found.line == wanted,
            format!("line {wanted} was changed and line {} was named", found.line),
        )?;
        self.line.event(Tone::Bad, "tampered", "in a copy, one word of one line is changed")?;
        let caught = self.line.paint(&format!("line {}", found.line), Tone::Bold);
        self.line.event(Tone::Good, "caught", &format!("{caught}: {}", found.message))?;
        Ok(())
    }

    async fn reader(&self, state: &str) -> Result<Reader, DemoError> {
        Reader::connect(&self.socket(state)).await.or_else(off)
    }

    /// A read that must be answered with a secret.
    async fn granted(&mut self, reader: &mut Reader, path: &str) -> Result<Granted, DemoError> {
        let got = reader.read(path).await.or_else(off)?;
        ensure(
            got.status == 200,
            format!("{path} was answered with {}: {}", got.status, got.text("/errors/0")),
        )?;
        let secret = if path == GATEWAY { got.text("/data/data/key") } else { got.text("/data/password") };
        ensure(!secret.is_empty(), format!("{path} was answered without a secret"))?;
        self.secrets.insert(secret.to_owned());
        Ok(Granted {
            value: got.text("/data/username").to_owned(),
            version: got.number("/data/metadata/version"),
            source: got.header("x-tenure-source").to_owned(),
            age: got.header("age").to_owned(),
            warned: !got.text("/warnings/0").is_empty(),
        })
    }

    fn lines(&self) -> Result<Vec<Line>, DemoError> {
        let text = std::fs::read_to_string(self.dir.log())?;
        let lines: Result<_, _> = text.lines().map(serde_json::from_str).collect();
        lines.or_else(|error| off(format!("the audit log cannot be read: {error}")))
    }

    fn socket(&self, state: &str) -> PathBuf {
        self.dir.0.join(format!("{}.sock", state.to_lowercase()))
    }
}

/// What a reader looks at in an answer.
struct Granted {
    value: String,
    version: Option<u64>,
    source: String,
    age: String,
    warned: bool,
}

fn ensure(holds: bool, what: impl Into<String>) -> Result<(), DemoError> {
    if holds { Ok(()) } else { off(what.into()) }
}

fn off<T>(what: String) -> Result<T, DemoError> {
    Err(DemoError::Off(what))
}

fn random() -> Result<String, DemoError> {
    let mut bytes = [0; 12];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(hex(&bytes))
}

/// A directory of ours alone, which goes with the demo.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Result<Self, DemoError> {
        let path = std::env::temp_dir().join(format!("tenure-demo-{:.8}", random()?));
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    fn log(&self) -> PathBuf {
        self.0.join("audit.jsonl")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What a task's configuration would say, with short times.
fn config(socket: &Path, log: &Path) -> Config {
    let second = Duration::from_secs(1);
    Config {
        vault: config::Vault {
            address: "https://vault.invalid".to_owned(),
            namespace: None,
            ca_file: None,
            client: None,
            tls_server_name: None,
            connect_timeout: second * 5,
            request_timeout: second * 10,
        },
        login: config::Login::By(config::Method::Aws(config::AwsLogin {
            role: "demo".to_owned(),
            mount: "aws".to_owned(),
            server_id: None,
            region: None,
            fips: false,
            assume: Vec::new(),
        })),
        run: config::Run {
            token_role: Some("run".to_owned()),
            ttl: second * 60,
            journal: None,
            verification: Verification::Off,
            max_runs: 100,
            rules: Vec::new(),
        },
        workflow: config::Workflow::default(),
        subject: config::Subject::default(),
        listen: config::Listen {
            unix: Some(config::UnixListen {
                path: socket.to_owned(),
                mode: 0o600,
                owner: None,
                group: None,
                allow: config::Allow::SameUser,
            }),
            tcp: None,
        },
        audit: config::AuditSink::File(log.to_owned()),
        cache: config::Cache {
            max_leases: 100,
            kv_fresh: second,
            kv_stale: second * 60,
            kv_bytes: 1 << 20,
            read_timeout: second * 5,
        },
        log: config::Log { filter: Default::default(), format: config::LogFormat::Text },
        shutdown: config::Shutdown { grace: second * 10 },
        prefetch: Vec::<SecretPath>::new(),
    }
}
