//! `tenure audit`: the auditor's commands.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use clap::Subcommand;

use super::Output;
use crate::audit;

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
        long_about = "Print the JSON schema of an audit line: its version, its fields and what they mean.\n\n\
            Exit code: 0.",
        after_long_help = "Example:\n  tenure audit schema > audit.schema.json"
    )]
    Schema,
}

pub(crate) fn run(command: &AuditCommand) -> Output {
    match command {
        AuditCommand::Verify { file, json } => verify(file, *json),
        AuditCommand::Schema => schema(),
    }
}

fn verify(path: &Path, json: bool) -> Output {
    let report = File::open(path).and_then(|file| audit::verify(BufReader::with_capacity(1 << 20, file)));
    let report = match report {
        Ok(report) => report,
        Err(error) => return Output::failed(2, &format!("{}: {error}", path.display())),
    };
    let out = match json {
        true => serde_json::to_string_pretty(&report).map(|text| text + "\n").unwrap_or_default(),
        false => format!("{report}\n"),
    };
    Output { out, code: u8::from(!report.is_good()), ..Output::default() }
}

fn schema() -> Output {
    Output { out: format!("{:#}\n", audit::schema()), ..Output::default() }
}
