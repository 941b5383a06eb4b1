//! The composition: the one place that names the adapters and puts all parts together.

pub mod doctor;
mod listeners;
mod login;
mod secrets_manager;
mod serve;
pub mod subject;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::audit::{self, Audit, AuditError, Entry, Event};
use crate::broker::Broker;
use crate::clock::Clock;
use crate::config::{self, AuditSink, Config, RunEnv};
use crate::door::{Doors, ListenError};
use crate::lease::failure::Failure;
use crate::lease::upstream::{Login, ReadKey, Source, TransitKey};
use crate::metrics::Metrics;
use crate::policy::rules::Rules;
use crate::policy::{Admission, Allow};
use crate::run::lambda::Lambda;
use crate::run::request::Request;
use crate::run::subject::Issuers;
use crate::run::workflow::{EcsTask, Workflow};
use crate::run::{Boot, Run};
use crate::runs::journal::{Journal, JournalError, Orphan};
use crate::runs::leases::Limits;
use crate::runs::subjects::Subjects;
use crate::runs::{Own, Runs, Setup, StartError, SubjectExpiry, Watching};
use crate::secret::Credential;
use crate::source::vault::VaultSource;
use crate::supervise::Supervisor;
use crate::vault::{ClientCert, VaultClient, VaultConfig};
use crate::workflow::{self, StepFunctions};

pub use listeners::Listeners;
use listeners::Tokens;
pub use serve::{Ended, serve};

/// How often the clocks are compared.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// The clocks moved apart by more than this: the machine was frozen, or its clock was set.
const JUMP: Duration = Duration::from_secs(2);

/// Entries that hold nothing are let go of every so many heartbeats.
const SWEEP_EVERY: u32 = 30;

/// Why the broker cannot start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The audit log.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The orphan journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A listener.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The process's own run.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The file of the subject's token.
    #[error("TENURE_SUBJECT_FILE {}: {why}", path.display())]
    SubjectFile {
        /// The file.
        path: PathBuf,
        /// Why it cannot be used.
        why: String,
    },
    /// Upstream refuses us for good.
    #[error("{0}")]
    Upstream(Failure),
    /// Something that the process cannot do without.
    #[error("{what}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A task panicked: the state of its lease is not known any more.
    #[error("the task {0:?} panicked; everything was revoked")]
    Fallen(&'static str),
}

/// Who is upstream.
pub struct Upstream {
    /// How we log in.
    pub login: Arc<dyn Login>,
    /// Everything else.
    pub source: Arc<dyn Source>,
    /// The platform that runs are started by, where it can be asked.
    pub workflow: Option<Arc<dyn Workflow>>,
    /// Who checks subjects, where any are trusted.
    pub issuers: Option<Arc<dyn Issuers>>,
}

impl Upstream {
    /// An upstream without a platform, and without anybody who would vouch for a subject.
    #[must_use]
    pub fn new(login: Arc<dyn Login>, source: Arc<dyn Source>) -> Self {
        Self { login, source, workflow: None, issuers: None }
    }

    /// Vault or OpenBao, by the login that is configured; sessions of AWS roles that are assumed for it are named after
    /// `run`.
    ///
    /// # Errors
    /// An address that leads nowhere, or no login of several whose means are at hand. Nothing is connected yet.
    pub fn vault(config: &Config, run: &Process, clock: &Clock) -> Result<Self, AppError> {
        let client = Arc::new(client(&config.vault, clock).map_err(AppError::Upstream)?);
        let workflow = StepFunctions::new(config.login.aws().and_then(|aws| aws.region.clone()));
        let login = login::of(&config.login, &client, run)?;
        Ok(Self {
            workflow: Some(Arc::new(workflow)),
            issuers: subject::issuers(&config.subject).map_err(AppError::Upstream)?,
            ..Self::new(login, Arc::new(VaultSource::new(client)))
        })
    }
}

/// The client to Vault that is configured. Nothing is connected yet.
fn client(vault: &config::Vault, clock: &Clock) -> Result<VaultClient, Failure> {
    VaultClient::new(
        VaultConfig {
            address: vault.address.clone(),
            namespace: vault.namespace.clone(),
            ca_file: vault.ca_file.clone(),
            client_cert: vault
                .client
                .as_ref()
                .map(|client| ClientCert { cert_file: client.cert.clone(), key_file: client.key.clone() }),
            tls_server_name: vault.tls_server_name.clone(),
            connect_timeout: vault.connect_timeout,
            request_timeout: vault.request_timeout,
        },
        clock.clone(),
    )
}

/// The run that the process itself is: a new id, and what its environment says of it.
#[derive(Debug)]
pub struct Process {
    /// The run's id.
    pub id: Arc<str>,
    /// What the environment says of it.
    pub env: RunEnv,
    /// The Lambda environment that it serves.
    pub lambda: Option<Lambda>,
}

/// The run that the process itself is, under a new id.
///
/// # Errors
/// When the system has no randomness to give.
pub fn process_run(env: RunEnv) -> Result<Process, AppError> {
    Ok(Process { id: Run::new_id().map_err(no_randomness)?, env, lambda: None })
}

fn no_randomness(source: getrandom::Error) -> AppError {
    AppError::System { what: "the system has no randomness to give", source: std::io::Error::other(source) }
}

/// A broker that serves.
pub struct App {
    broker: Arc<Broker>,
    doors: Arc<Doors>,
    audit: Audit,
    supervisor: Supervisor,
    orphans: Vec<Orphan>,
    grace: Duration,
    socket: Option<PathBuf>,
    tcp: Option<SocketAddr>,
    secrets_manager: Option<SocketAddr>,
}

impl App {
    /// Opens the log, binds the listeners and begins to log in. Readers may come from now on; they wait for the login.
    ///
    /// # Errors
    /// What stands in the way, before anything was asked of upstream.
    pub async fn start(
        config: &Config,
        run: Process,
        upstream: Upstream,
        clock: Clock,
    ) -> Result<Self, AppError> {
        let mut run = run;
        // Who finds a listener finds its token.
        let tokens = Tokens::of(&config.listen, run.env.session_token.take())?;
        let listeners = Listeners::bind(&config.listen).await?;
        Box::pin(Self::begin(tokens, listeners, config, run, upstream, clock)).await
    }

    /// [`start`](Self::start), on listeners that are bound already: who connected to them meanwhile is served now.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_on(
        listeners: Listeners,
        config: &Config,
        run: Process,
        upstream: Upstream,
        clock: Clock,
    ) -> Result<Self, AppError> {
        let mut run = run;
        let tokens = Tokens::of(&config.listen, run.env.session_token.take())?;
        Box::pin(Self::begin(tokens, listeners, config, run, upstream, clock)).await
    }

    async fn begin(
        tokens: Tokens,
        listeners: Listeners,
        config: &Config,
        run: Process,
        upstream: Upstream,
        clock: Clock,
    ) -> Result<Self, AppError> {
        let Process { id, env: run, lambda } = run;
        let frozen = lambda.is_some();
        let boot = Boot::new().map_err(no_randomness)?;
        let request = Request {
            facts: run.facts,
            deadline: run.deadline,
            subject_token: run.subject_file.as_deref().map(subject_token).transpose()?,
            task_token: run.task_token,
        };
        let sink = match &config.audit {
            AuditSink::File(path) => audit::Config::File(path.clone()),
            AuditSink::Stdout(format) => audit::Config::Stdout(line_format(*format)),
            AuditSink::Syslog(to, format) => audit::Config::Syslog(receiver(to), line_format(*format)),
        };
        let audit = Audit::open(sink, boot.id(), clock.clone())?;
        let (journal, orphans) = match &config.run.journal {
            Some(path) => Journal::open(path)?,
            None => (Journal::default(), Vec::new()),
        };
        let Listeners { unix, tcp, secrets_manager } = listeners;
        let address = tcp.as_ref().and_then(|listener| listener.local_addr().ok());
        audit.note(&Entry::done(Event::Boot).detail(concat!("tenure ", env!("CARGO_PKG_VERSION"))));
        let supervisor = Supervisor::default();
        let runs = Runs::start(Setup {
            login: upstream.login,
            source: upstream.source,
            audit: audit.clone(),
            journal,
            boot: boot.clone(),
            clock: clock.clone(),
            supervisor: supervisor.clone(),
            workflow: upstream.workflow,
            subjects: Subjects::new(upstream.issuers, config.subject.leeway),
            seal_key: subject::seal_key(&config.subject),
            own: Own {
                id,
                request,
                task: ecs_task(run.ecs_metadata.as_deref()).await,
                lambda,
                token_role: config.run.token_role.clone(),
                token_ttl: config.run.ttl,
                verification: config.run.verification,
            },
            rules: Rules::new(config.run.rules.clone()),
            max_runs: config.run.max_runs,
            watching: Watching {
                heartbeat: config.workflow.heartbeat,
                poll: config.workflow.poll,
                rate: config.workflow.rate(),
            },
            subject_expiry: match config.subject.expiry {
                config::Expiry::Cap => SubjectExpiry::Cap,
                config::Expiry::AtStart => SubjectExpiry::AtStart,
            },
            anchor: config.audit_anchor,
            value_key: value_key(config),
            limits: Limits {
                max_leases: config.cache.max_leases,
                kv_fresh: config.cache.kv_fresh,
                kv_stale: config.cache.kv_stale,
                kv_bytes: config.cache.kv_bytes,
            },
        });
        let runs = runs.await?;
        for path in &config.prefetch {
            runs.own_work().leases.prefetch(&ReadKey::secret(path.as_str()));
        }
        let admission = Admission::new(rustix::process::geteuid().as_raw(), allowed(config));
        let broker = Arc::new(Broker::new(
            runs,
            admission,
            audit.clone(),
            boot,
            clock.clone(),
            Metrics::default(),
            config.cache.read_timeout,
        ));
        let doors =
            Doors::new(Arc::clone(&broker), tokens.tcp, config.vault.namespace.clone(), supervisor.clone());
        if let Some(door) = unix {
            supervisor.spawn("unix door", Arc::clone(&doors).serve_unix(door));
        }
        if let Some(listener) = tcp {
            supervisor.spawn("tcp door", Arc::clone(&doors).serve_tcp(listener));
        }
        let aws_address = secrets_manager.as_ref().and_then(|listener| listener.local_addr().ok());
        if let (Some(listener), Some(door)) = (secrets_manager, tokens.secrets_manager) {
            supervisor.spawn("aws door", Arc::clone(&doors).serve_secrets_manager(listener, door));
        }
        supervisor.spawn("heartbeat", heartbeat(Arc::clone(&broker), clock, frozen));
        Ok(Self {
            broker,
            doors,
            audit,
            supervisor,
            orphans,
            grace: config.shutdown.grace,
            socket: config.listen.unix.as_ref().map(|unix| unix.path.clone()),
            tcp: address,
            secrets_manager: aws_address,
        })
    }

    /// The broker.
    #[must_use]
    pub fn broker(&self) -> &Arc<Broker> {
        &self.broker
    }

    /// The audit log.
    #[must_use]
    pub fn audit(&self) -> &Audit {
        &self.audit
    }

    /// Where the TCP listener is, if there is one: the port may have been chosen by the system.
    #[must_use]
    pub fn tcp(&self) -> Option<SocketAddr> {
        self.tcp
    }

    /// Where the Secrets Manager door is, if there is one.
    #[must_use]
    pub fn secrets_manager(&self) -> Option<SocketAddr> {
        self.secrets_manager
    }

    /// Waits for the login and the run token, then revokes what an earlier process left behind.
    ///
    /// # Errors
    /// The failure that no further try will mend; transient ones are waited out.
    pub async fn established(&mut self) -> Result<(), AppError> {
        self.broker.runs().established().await.map_err(AppError::Upstream)?;
        let orphans = std::mem::take(&mut self.orphans);
        if !orphans.is_empty() {
            let broker = Arc::clone(&self.broker);
            self.supervisor.spawn("orphans", async move { broker.runs().revoke_orphans(&orphans).await });
        }
        Ok(())
    }

    /// Waits until a task panics, and returns its name: then the state of its lease is not known any more, and whoever
    /// [stops](Self::stop) the broker himself is to do so.
    pub async fn fallen(&self) -> &'static str {
        self.supervisor.fallen().await
    }
}

/// The ECS task that the process runs in. Who cannot learn it goes on without.
async fn ecs_task(endpoint: Option<&str>) -> Option<EcsTask> {
    workflow::ecs::task(endpoint).await.unwrap_or_else(|failure| {
        tracing::warn!("the ECS task is not known, and will not be named: {failure}");
        None
    })
}

/// What the file holds.
fn subject_token(path: &Path) -> Result<Credential, AppError> {
    Credential::from_file(path).map_err(|why| AppError::SubjectFile { path: path.to_owned(), why })
}

fn receiver(to: &config::Receiver) -> audit::Syslog {
    match to {
        config::Receiver::Unix(path) => audit::Syslog::Unix(path.clone()),
        config::Receiver::Udp(address) => audit::Syslog::Udp(*address),
    }
}

/// The key of Vault's transit engine that wraps the keys of values.
fn value_key(config: &Config) -> Option<TransitKey> {
    config.audit_hmac.as_ref().map(|hmac| TransitKey { mount: hmac.mount.clone(), name: hmac.key.clone() })
}

fn line_format(format: config::AuditFormat) -> audit::Format {
    match format {
        config::AuditFormat::Tenure => audit::Format::Tenure,
        config::AuditFormat::Ocsf => audit::Format::Ocsf,
    }
}

fn allowed(config: &Config) -> Vec<Allow> {
    match config.listen.unix.as_ref().map(|unix| &unix.allow) {
        Some(config::Allow::Listed(peers)) => {
            peers.iter().map(|peer| Allow { uid: peer.uid, gid: peer.gid }).collect()
        }
        Some(config::Allow::SameUser) | None => Vec::new(),
    }
}

/// Compares the clocks: a machine that was frozen, or whose clock was set, has everything judged anew. `frozen`: it is
/// frozen all the time, which is nothing to speak of.
async fn heartbeat(broker: Arc<Broker>, clock: Clock, frozen: bool) {
    let mut beats = 0u32;
    loop {
        let before = clock.now();
        tokio::time::sleep(HEARTBEAT).await;
        let after = clock.now();
        let mono = after.mono().saturating_sub(before.mono());
        let wall = after.wall().saturating_sub(before.wall());
        let back = before.wall().saturating_sub(after.wall());
        let apart = wall.abs_diff(mono).max(back).max(mono.saturating_sub(HEARTBEAT));
        if apart > JUMP {
            match frozen {
                true => broker.runs().thawed(),
                false => broker.runs().clock_jumped(apart),
            }
        }
        broker.runs().look_at_login();
        beats = beats.wrapping_add(1);
        if beats.is_multiple_of(SWEEP_EVERY) {
            broker.runs().sweep();
        }
    }
}
