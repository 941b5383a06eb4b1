//! The command line: what was typed, and what each command prints.
//!
//! A command is given its surroundings as a [`Session`] and returns an [`Output`], so that all of it can be tested
//! without a process. [`main`] is the only place that looks at the real environment and terminal.

pub(crate) mod audit;
mod check;
mod client;
mod completions;
mod demo;
mod dev;
mod doctor;
mod get;
mod lambda;
mod logging;
mod man;
mod probe;
mod run;
mod screen;
mod serve;
mod status;
mod subject;
#[cfg(test)]
mod tests;
mod wait;

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::clock::Clock;
use crate::config::Environment;
use crate::init;
use crate::lambda::AwsEnv;
use screen::Screen;

/// Runs the command that the process was started with.
#[must_use]
pub fn main() -> ExitCode {
    if let Err(error) = init::begin() {
        eprintln!("warning: signals may go unheeded, and orphans unwaited for: {error}");
    }
    let environment = Environment::from_os(std::env::vars_os());
    // Lambda starts extensions without arguments.
    let by_lambda = std::env::args_os().len() <= 1 && AwsEnv::read(&environment).is_some();
    let command = if by_lambda { Command::Lambda(lambda::LambdaArgs {}) } else { Cli::parse().command };
    let screen = Screen::new(&environment, std::io::stdout().is_terminal(), std::io::stderr().is_terminal());
    let session = Session { environment, screen, clock: Clock::system() };
    ExitCode::from(run(command, &session).print())
}

/// Runs the Lambda extension, and nothing else: a binary that begins here has no other command in it.
#[must_use]
pub fn extension() -> ExitCode {
    let environment = Environment::from_os(std::env::vars_os());
    let screen = Screen::new(&environment, std::io::stdout().is_terminal(), std::io::stderr().is_terminal());
    let session = Session { environment, screen, clock: Clock::system() };
    ExitCode::from(lambda::lambda(&session).print())
}

#[derive(Debug, Parser)]
#[command(
    name = "tenure",
    bin_name = "tenure",
    version,
    about = "A Vault-aware credential broker sidecar",
    long_about = "A Vault-aware credential broker sidecar.\n\n\
        A credential lives exactly as long as the work that needs it, and an auditor can prove it. Tenure logs in to \
        Vault with the task's IAM role, keeps the credentials that workloads read alive, hands them out on a local \
        socket, writes an audit line for each, and revokes all of them when the run ends.\n\n\
        Exit code: 0 done; 1 refused, wrong, or not to be done; 2 nobody to ask (no broker, no Vault), or a command line \
        that makes no sense. Each command's help says what it means there.\n\n\
        Environment: TENURE_CONFIG names the configuration file; VAULT_ADDR, TENURE_AUTH_ROLE, TENURE_SOCKET and \
        TENURE_AUDIT_FILE are the least that `tenure serve` needs without one. NO_COLOR is heeded.",
    after_long_help = "Examples:\n  \
        tenure demo                                    see it work, with nothing else installed\n  \
        tenure dev -- ./worker                         a broker to develop against, as long as that runs\n  \
        tenure config check tenure.toml                is this configuration good?\n  \
        tenure doctor --config tenure.toml             will it work here, and if not, why?\n  \
        tenure serve --config tenure.toml              the broker\n  \
        tenure get database/creds/orders               read a credential from it\n  \
        tenure run start --timeout 5m                  a run of its own: prints its handle, a VAULT_TOKEN\n  \
        tenure status --watch                          what it holds, and for how long"
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::ServeArgs),
    Get(get::GetArgs),
    Status(status::StatusArgs),
    /// Register, show, extend and end runs
    #[command(
        subcommand,
        long_about = "Register, show, extend and end runs. A run is a piece of work with an end, to which credentials are tied: what is \
        read with its handle ends with it. The broker's [[run.rule]] say what runs may have.",
        after_long_help = "Example:\n  VAULT_TOKEN=$(tenure run start --timeout 5m) vault read database/creds/orders"
    )]
    Run(run::RunCommand),
    /// Check or describe the configuration
    #[command(
        subcommand,
        long_about = "Check the configuration of `tenure serve`, or print what may be said in one.",
        after_long_help = "Example:\n  tenure config check tenure.toml"
    )]
    Config(check::ConfigCommand),
    /// Verify, trace and sum up audit logs
    #[command(
        subcommand,
        long_about = "Verify the audit log of a broker; trace what was done through brokers' logs, Vault's and Step Functions'; \
        sum up a time; print what lines are.",
        after_long_help = "Example:\n  tenure audit verify /var/log/tenure/audit.jsonl"
    )]
    Audit(audit::AuditCommand),
    /// Seal or check on whose behalf an execution runs
    #[command(
        subcommand,
        long_about = "Seal, or check, on whose behalf an execution runs: a person or a service, as an OIDC token proves it.",
        after_long_help = "Example:\n  tenure subject verify --file seal.txt --execution-arn \\\n    arn:aws:states:eu-west-1:123456789012:execution:orders:7f3a"
    )]
    Subject(subject::SubjectCommand),
    Doctor(doctor::DoctorArgs),
    Demo(demo::DemoArgs),
    Dev(dev::DevArgs),
    Lambda(lambda::LambdaArgs),
    Health(probe::HealthArgs),
    Ready(probe::ReadyArgs),
    Wait(wait::WaitArgs),
    Completions(completions::CompletionsArgs),
    Man(man::ManArgs),
}

fn run(command: Command, session: &Session) -> Output {
    match command {
        Command::Serve(args) => serve::serve(&args, session),
        Command::Get(args) => block_on(get::get(&args, session)),
        Command::Status(args) => block_on(status::status(&args, session)),
        Command::Run(command) => block_on(run::run(&command, session)),
        Command::Config(command) => check::config(&command, session),
        Command::Audit(command) => audit::run(&command, session),
        Command::Subject(command) => block_on(subject::run(&command, session)),
        Command::Doctor(args) => block_on(doctor::doctor(&args, session)),
        Command::Demo(args) => block_on(demo::demo(&args, session)),
        Command::Dev(args) => block_on(dev::dev(&args, session)),
        Command::Lambda(lambda::LambdaArgs {}) => lambda::lambda(session),
        Command::Health(args) => block_on(probe::health(&args, session)),
        Command::Ready(args) => block_on(probe::ready(&args, session)),
        Command::Wait(args) => wait::wait(&args, session),
        Command::Completions(args) => completions::completions(&args),
        Command::Man(args) => man::man(&args),
    }
}

/// What a command knows of its surroundings.
pub(crate) struct Session {
    pub(crate) environment: Environment,
    pub(crate) screen: Screen,
    pub(crate) clock: Clock,
}

/// What a command has to say, and its exit code.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Output {
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) code: u8,
}

impl Output {
    /// Something to say on stdout.
    pub(crate) fn said(out: String) -> Self {
        Self { out, ..Self::default() }
    }

    /// A failure, in one message; a full stop is not added.
    pub(crate) fn failed(code: u8, message: &str) -> Self {
        Self { err: format!("error: {message}\n"), code, ..Self::default() }
    }

    fn print(&self) -> u8 {
        // A reader that has gone away (`| head`) wants no more; there is nobody left to tell.
        let mut out = std::io::stdout().lock();
        let written = out.write_all(self.out.as_bytes()).and_then(|()| out.flush());
        let told = std::io::stderr().write_all(self.err.as_bytes());
        match written.and(told) {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => self.code.max(1),
            _ => self.code,
        }
    }
}

/// Runs a command that talks to the broker: one task, on this thread.
fn block_on(command: impl Future<Output = Output>) -> Output {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(command),
        Err(error) => Output::failed(1, &format!("the runtime cannot start: {error}")),
    }
}
