//! `tenure dev`: a broker to develop against.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;

use super::{Output, Session};
use crate::causes::causes;
use crate::config::Environment;
use crate::demo::Look;
use crate::dev::{self, Options, Planned, RealVault, SEED};

/// What the environment may say of the way to a real Vault.
const WAY: &[&str] =
    &["VAULT_CACERT", "VAULT_CLIENT_CERT", "VAULT_CLIENT_KEY", "VAULT_TLS_SERVER_NAME", "VAULT_NAMESPACE"];

/// A broker to develop against, with a Vault in memory
#[derive(Args, Debug, Default)]
#[command(
    long_about = "A broker to develop against, with nothing else installed: the same doors as `tenure serve`, with a \
        small Vault in memory behind them. It holds what a seed file says and refuses no path; TTLs are real: leases are \
        renewed, replaced and revoked. What happens is told, one line each.\n\n\
        With a command, that is run with VAULT_ADDR, VAULT_TOKEN and TENURE_SOCKET set, on stderr is told what happens, \
        and SIGINT and SIGTERM are passed on. At the end everything is revoked.\n\n\
        On a terminal without a command: o outage, s slow, d database down, r revoke everything, q quit.\n\n\
        Exit code: the command's (128 and the signal that ended it; 127 not found, 126 not to be started); otherwise \
        0 ended as told, 1 not started.",
    after_long_help = "Examples:\n  \
        tenure dev                                     serve; prints what to export\n  \
        tenure dev --init                              write a seed to edit, tenure-dev.toml\n  \
        tenure dev --env-file dev.env                  in other shells: . ./dev.env\n  \
        tenure dev -- cargo test                       with a broker for as long as the tests run\n  \
        tenure dev -q -- tenure get secret/data/app --field password\n  \
        tenure dev --fail outage@10s..20s --fail revoke@30s -- ./worker\n  \
        tenure dev --vault http://127.0.0.1:8200 --vault-token-file token -- ./worker"
)]
pub(crate) struct DevArgs {
    /// The seed [default: tenure-dev.toml, if it is there; otherwise one that is built in]
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Write a commented seed and end; never over a file
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = SEED, exclusive = true)]
    init: Option<PathBuf>,
    /// The Unix socket to make [default: one in a temporary folder]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// The loopback address to listen on [default: 127.0.0.1, with a free port]
    #[arg(long, value_name = "ADDRESS")]
    tcp: Option<String>,
    /// The file of audit lines, which stays [default: one in a temporary folder, which does not]
    #[arg(long, value_name = "FILE")]
    audit_file: Option<PathBuf>,
    /// Write what to export to this file, 0600, for `. FILE` in other shells; it is removed at the end
    #[arg(long, value_name = "FILE")]
    env_file: Option<PathBuf>,
    /// Let it fail: outage, slow, database or revoke, @ and when: outage@10s..20s, slow@5s, revoke@15s; may be given again
    #[arg(long, value_name = "WHAT@WHEN", conflicts_with = "vault")]
    fail: Vec<Planned>,
    /// Do not tell what happens
    #[arg(long, short)]
    quiet: bool,
    /// A Vault of yours to develop against, instead of the one in memory
    #[arg(long, value_name = "URL", requires = "vault_token_file")]
    vault: Option<String>,
    /// The file of the token to log in to it with; the token is renewed, and not revoked
    #[arg(long, value_name = "FILE", requires = "vault")]
    vault_token_file: Option<PathBuf>,
    /// The token role there that run tokens are made from, for orphans
    #[arg(long, value_name = "ROLE", requires = "vault", default_value = "run")]
    vault_token_role: String,
    /// The command to run, and its arguments
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

impl DevArgs {
    fn options(&self, session: &Session) -> Options {
        let (address, token_file) = (self.vault.clone(), self.vault_token_file.clone());
        let real = address.zip(token_file).map(|(address, token_file)| RealVault {
            address,
            token_file,
            token_role: self.vault_token_role.clone(),
            environment: WAY
                .iter()
                .filter_map(|name| Some((*name, session.environment.var(name)?)))
                .collect::<Environment>(),
        });
        Options {
            file: self.file.clone(),
            socket: self.socket.clone(),
            tcp: self.tcp.clone(),
            audit_file: self.audit_file.clone(),
            env_file: self.env_file.clone(),
            vault: real,
            failures: self.fail.clone(),
            quiet: self.quiet,
            keys: session.screen.out_is_terminal,
            command: self.command.clone(),
        }
    }
}

/// Prints as it goes along: what there is to see is when it happens.
pub(crate) async fn dev(args: &DevArgs, session: &Session) -> Output {
    if let Some(path) = &args.init {
        return init(path);
    }
    let options = args.options(session);
    let screen = session.screen;
    // Standard output is the command's, where there is one.
    let ended = if options.command.is_empty() {
        let look = Look { terminal: screen.out_is_terminal, colour: screen.colour };
        dev::run(&options, &session.clock, &mut io::stdout(), look).await
    } else {
        let refused =
            session.environment.var("NO_COLOR").is_some() || session.environment.var("TERM") == Some("dumb");
        let look = Look { terminal: screen.err_is_terminal, colour: screen.err_is_terminal && !refused };
        dev::run(&options, &session.clock, &mut io::stderr(), look).await
    };
    match ended {
        Ok(code) => Output { code, ..Output::default() },
        Err(error) => Output::failed(error.code(), &causes(&error)),
    }
}

fn init(path: &Path) -> Output {
    match dev::init(path) {
        Ok(()) => {
            Output::said(format!("{} is written; `tenure dev` reads {SEED} by itself\n", path.display()))
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Output::failed(1, &format!("{}: there is a file already; it was left as it is", path.display()))
        }
        Err(error) => Output::failed(1, &format!("{}: {error}", path.display())),
    }
}
