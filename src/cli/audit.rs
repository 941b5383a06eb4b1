//! `tenure audit`: the auditor's commands.

use clap::{Subcommand, ValueEnum};

use super::{Output, Session};
use crate::audit;

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod report;
mod text;
mod trace;
mod verify;

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    Verify(verify::VerifyArgs),
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
        AuditCommand::Verify(args) => verify::verify(args, session),
        AuditCommand::Trace(args) => trace::trace(args, session),
        AuditCommand::Report(args) => report::report(args, session),
        AuditCommand::Schema { of } => schema(*of),
    }
}

fn schema(of: Document) -> Output {
    let schema = match of {
        Document::Line => audit::schema(),
        Document::Trace => audit::trace::output::trace_schema(),
        Document::Report => audit::trace::report::schema(),
    };
    Output { out: format!("{schema:#}\n"), ..Output::default() }
}
