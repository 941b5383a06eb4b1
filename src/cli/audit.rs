//! `tenure audit`: the auditor's commands.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use clap::{Subcommand, ValueEnum};

use super::{Output, Session};
use crate::audit;

mod report;
mod text;
mod trace;

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
    Trace(trace::TraceArgs),
    Report(report::ReportArgs),
    /// Print the JSON schema of an audit line, a trace or a report
    #[command(
        long_about = "Print a JSON schema: of an audit line, of `tenure audit trace --json` or of `tenure audit report --json`; \
            their versions, their fields and what they mean.\n\nExit code: 0.",
        after_long_help = "Examples:\n  tenure audit schema > audit.schema.json\n  \
            tenure audit schema trace > trace.schema.json"
    )]
    Schema {
        /// Of what
        #[arg(value_enum, default_value_t = Document::Line)]
        of: Document,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Document {
    /// A line of the audit log
    Line,
    /// What `tenure audit trace --json` prints
    Trace,
    /// What `tenure audit report --json` prints
    Report,
}

pub(crate) fn run(command: &AuditCommand, session: &Session) -> Output {
    match command {
        AuditCommand::Verify { file, json } => verify(file, *json),
        AuditCommand::Trace(args) => trace::trace(args, session),
        AuditCommand::Report(args) => report::report(args, session),
        AuditCommand::Schema { of } => schema(*of),
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

fn schema(of: Document) -> Output {
    let schema = match of {
        Document::Line => audit::schema(),
        Document::Trace => audit::trace::output::trace_schema(),
        Document::Report => audit::trace::report::schema(),
    };
    Output { out: format!("{schema:#}\n"), ..Output::default() }
}
