//! `tenure audit`: the auditor's commands.

use std::path::{Path, PathBuf};

use clap::Subcommand;

use super::Output;

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Verify the chain of an audit file
    #[command(
        long_about = "Verify the chain of an audit file: that no line was edited, deleted, moved or put in between. \
            Names the first line that does not follow from the one before it.\n\nExit code: 0 whole, 1 not.",
        after_long_help = "Example:\n  tenure audit verify /var/log/tenure/audit.jsonl"
    )]
    Verify {
        /// The file of audit lines
        file: PathBuf,
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
    /// Print the JSON schema of an audit line
    #[command(
        long_about = "Print the JSON schema of an audit line: its version, its fields and what they mean.",
        after_long_help = "Example:\n  tenure audit schema > audit.schema.json"
    )]
    Schema,
}

pub(crate) fn audit(command: &AuditCommand) -> Output {
    match command {
        AuditCommand::Verify { file, json } => verify(file, *json),
        AuditCommand::Schema => schema(),
    }
}

fn verify(_file: &Path, _json: bool) -> Output {
    Output::failed(1, "`audit verify` is not built yet")
}

fn schema() -> Output {
    Output::failed(1, "`audit schema` is not built yet")
}
