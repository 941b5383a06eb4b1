//! `tenure config`: is a configuration good, and what may be said in one?

use std::path::{Path, PathBuf};

use clap::Subcommand;

use super::screen::{Cell, Paint};
use super::{Output, Session};
use crate::config::{self, Environment, Loaded, Overrides};

/// Where the configuration is when nobody says otherwise, if it is there.
const FILE: &str = "/etc/tenure/tenure.toml";

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Check a configuration and print what is in effect
    #[command(
        long_about = "Check a configuration as `tenure serve` would, with the environment of this process, and print \
            what is in effect: on a terminal each setting with where it came from. Files that it names are not opened \
            and nothing is contacted.\n\nExit code: 0 good, 1 not; then every problem is printed.",
        after_long_help = "Example:\n  tenure config check tenure.toml"
    )]
    Check {
        /// The file [env: TENURE_CONFIG] [default: /etc/tenure/tenure.toml, if it is there]
        file: Option<PathBuf>,
    },
    /// Print the JSON schema of the configuration file
    #[command(
        long_about = "Print the JSON schema (draft 2020-12) of the configuration file, for editors and reviews.\n\n\
            Exit code: 0.",
        after_long_help = "Example:\n  tenure config schema > tenure.schema.json"
    )]
    Schema,
}

pub(crate) fn config(command: &ConfigCommand, session: &Session) -> Output {
    match command {
        ConfigCommand::Schema => Output::said(format!("{:#}\n", config::schema())),
        ConfigCommand::Check { file } => {
            let file = file_of(file.as_deref(), &session.environment);
            match config::load(
                file.as_deref(),
                &session.environment,
                &Overrides::default(),
                session.clock.now(),
            ) {
                Ok(loaded) => good(&loaded, session),
                Err(problems) => {
                    let count = match problems.list().len() {
                        1 => "1 problem".to_owned(),
                        count => format!("{count} problems"),
                    };
                    Output { err: format!("{problems}\nerror: {count}\n"), code: 1, ..Output::default() }
                }
            }
        }
    }
}

/// The file that was named: by an argument, by `TENURE_CONFIG`, or the default one if it is there.
pub(crate) fn file_of(named: Option<&Path>, environment: &Environment) -> Option<PathBuf> {
    named
        .map(Path::to_owned)
        .or_else(|| environment.var("TENURE_CONFIG").map(PathBuf::from))
        .or_else(|| Some(PathBuf::from(FILE)).filter(|file| file.exists()))
}

fn good(loaded: &Loaded, session: &Session) -> Output {
    let origins = session.screen.out_is_terminal;
    let rows: Vec<Vec<Cell>> = loaded
        .settings
        .iter()
        .map(|setting| {
            let mut row =
                vec![Cell::new(&setting.key, Paint::Bold), Cell::from(format!("= {}", setting.value))];
            if origins {
                row.push(Cell::new(&format!("# {}", setting.origin), Paint::Dim));
            }
            row
        })
        .collect();
    let mut err = String::new();
    if loaded.config.run.token_role.is_none() {
        err += "note: without run.token_role leases hang off the login token, which then needs access to the secrets\n";
    }
    if loaded.config.run.journal.is_none() {
        err += "note: without run.journal the next start cannot revoke what a crash left behind\n";
    }
    if let Some(deadline) = loaded.run.deadline {
        err += &format!("note: the run's deadline is {}\n", deadline.end().rfc3339());
    }
    Output { out: session.screen.columns(&rows) + "ok\n", err, code: 0 }
}
