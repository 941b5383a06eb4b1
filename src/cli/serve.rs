//! `tenure serve`: the broker itself.

use std::path::PathBuf;

use clap::Args;
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer, Registry};

use super::check::file_of;
use super::{Output, Session};
use crate::app::{App, AppError, Upstream, process_run};
use crate::causes::causes;
use crate::clock::Clock;
use crate::config::{self, Loaded, Log, LogFormat, Overrides};

/// Run the broker
#[derive(Args, Debug, Default)]
#[command(
    long_about = "Run the broker: log in to Vault, listen, and serve credentials until SIGTERM or SIGINT; then revoke \
        all that was minted.\n\nSettings come from the file, then the environment, then these flags; `tenure config \
        check` shows what is in effect. TENURE_DEADLINE (RFC 3339) and TENURE_TIMEOUT_SECONDS say when the run ends: \
        its credentials end with it.",
    after_long_help = "Examples:\n  tenure serve --config tenure.toml\n  \
        VAULT_ADDR=https://vault.internal:8200 TENURE_AUTH_ROLE=orders TENURE_TOKEN_ROLE=run \\\n    \
        TENURE_SOCKET=/run/tenure/tenure.sock TENURE_AUDIT_FILE=/var/log/tenure/audit.jsonl tenure serve"
)]
pub(crate) struct ServeArgs {
    /// The configuration file [env: TENURE_CONFIG] [default: /etc/tenure/tenure.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Vault's address (vault.address) [env: VAULT_ADDR]
    #[arg(long, value_name = "URL")]
    vault_address: Option<String>,
    /// The namespace of every request (vault.namespace) [env: VAULT_NAMESPACE]
    #[arg(long, value_name = "NAME")]
    vault_namespace: Option<String>,
    /// The role of the AWS auth method (vault.auth.aws.role) [env: TENURE_AUTH_ROLE]
    #[arg(long, value_name = "ROLE")]
    auth_role: Option<String>,
    /// The token role of run tokens (run.token_role) [env: TENURE_TOKEN_ROLE]
    #[arg(long, value_name = "ROLE")]
    token_role: Option<String>,
    /// The Unix socket to make (listen.unix.path) [env: TENURE_SOCKET]
    #[arg(long, value_name = "PATH")]
    socket: Option<String>,
    /// The loopback address to listen on (listen.tcp.address) [env: TENURE_TCP]
    #[arg(long, value_name = "ADDRESS")]
    tcp: Option<String>,
    /// The file of the local token (listen.tcp.token_file) [env: TENURE_TOKEN_FILE]
    #[arg(long, value_name = "FILE")]
    token_file: Option<String>,
    /// The file of audit lines (audit.file) [env: TENURE_AUDIT_FILE]
    #[arg(long, value_name = "FILE")]
    audit_file: Option<String>,
    /// What is logged, such as info,tenure::vault=debug (log.filter) [env: TENURE_LOG]
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
    /// How it is logged: auto, json or text (log.format)
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
}

impl ServeArgs {
    fn overrides(&self) -> Overrides {
        Overrides {
            vault_address: self.vault_address.clone(),
            vault_namespace: self.vault_namespace.clone(),
            auth_role: self.auth_role.clone(),
            token_role: self.token_role.clone(),
            socket: self.socket.clone(),
            tcp: self.tcp.clone(),
            token_file: self.token_file.clone(),
            audit_file: self.audit_file.clone(),
            log: self.log.clone(),
            log_format: self.log_format.clone(),
            lambda: false,
        }
    }
}

pub(crate) fn serve(args: &ServeArgs, session: &Session) -> Output {
    let file = file_of(args.config.as_deref(), &session.environment);
    let loaded = config::load(file.as_deref(), &session.environment, &args.overrides(), session.clock.now());
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(problems) => {
            return Output {
                err: format!("{problems}\nerror: the configuration cannot be used\n"),
                code: 1,
                ..Output::default()
            };
        }
    };
    if let Err(message) = start_logging(&loaded.config.log, session) {
        return Output::failed(1, &message);
    }
    match broker(loaded, &session.clock) {
        Ok(()) => Output::default(),
        Err(message) => Output::failed(1, &message),
    }
}

/// Serves until the process is told to end; the error is what the process ends for.
fn broker(loaded: Loaded, clock: &Clock) -> Result<(), String> {
    harden();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("the runtime cannot start: {error}"))?;
    let Loaded { config, run, .. } = loaded;
    let result = runtime.block_on(async {
        outlive_limits();
        let run = process_run(run)?;
        let upstream = Upstream::vault(&config, &run, clock)?;
        App::start(&config, run, upstream, clock.clone()).await?.serve().await
    });
    result.map_err(|error: AppError| causes(&error))
}

/// What the process gives up before it holds anything: files that others can read, core dumps, being traced, and gaining
/// privileges.
pub(super) fn harden() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit, umask};
    umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    let outcomes = [
        ("core dumps", setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })),
        ("being dumped and traced", set_dumpable_behavior(DumpableBehavior::NotDumpable)),
        ("gaining privileges", rustix::thread::set_no_new_privs(true)),
    ];
    for (what, outcome) in outcomes {
        if let Err(error) = outcome {
            tracing::warn!(%error, "{what} could not be given up");
        }
    }
}

/// A file that may not grow any further (`ulimit -f`) is dealt with as a full disk is, by the error of the write: its
/// signal must not kill us. Once tokio has handled a signal it goes on doing so.
pub(super) fn outlive_limits() {
    use tokio::signal::unix::{SignalKind, signal};
    if let Err(error) = signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw())) {
        tracing::warn!(%error, "the signal of a file that may not grow could not be handled");
    }
}

/// Log lines go to stderr: stdout is the audit log's, where it is asked for.
pub(super) fn start_logging(log: &Log, session: &Session) -> Result<(), String> {
    let terminal = session.screen.err_is_terminal;
    let colour = terminal && session.environment.var("NO_COLOR").is_none();
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match log.format {
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
        LogFormat::Auto if !terminal => lines.json().flatten_event(true).boxed(),
        LogFormat::Auto | LogFormat::Text => lines.with_ansi(colour).boxed(),
    };
    start_lines(lines, log)
}

/// Sends what the filter lets through to `lines`.
pub(super) fn start_lines(lines: Box<dyn Layer<Registry> + Send + Sync>, log: &Log) -> Result<(), String> {
    let subscriber = tracing_subscriber::registry().with(lines.with_filter(quiet(&log.filter)));
    subscriber.try_init().map_err(|error| format!("logging cannot start: {error}"))
}

/// The filter, with the crates capped whose spans say nothing but that a request was built, and the one that prints whole
/// requests, task tokens and all, where everything is asked for.
fn quiet(filter: &Targets) -> Targets {
    filter
        .clone()
        .with_target("rustify", Level::WARN)
        .with_target("vaultrs", Level::WARN)
        .with_target("aws_smithy_runtime", Level::WARN)
}
