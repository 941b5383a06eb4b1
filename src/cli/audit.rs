//! `tenure audit`: the auditor's commands.

use clap::{Subcommand, ValueEnum};

use super::{Output, Session, block_on};
use crate::audit;

mod accessors;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod histories;
mod matched;
mod report;
mod text;
mod trace;
mod vault;
mod verify;

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    Verify(verify::VerifyArgs),
    Trace(trace::TraceArgs),
    Report(report::ReportArgs),
    Match(matched::MatchArgs),
    /// Print the JSON schema of an audit line, a trace, a report or a match
    #[command(
        long_about = "Print a JSON schema: of an audit line, or of what `tenure audit trace`, `report` and `match` print with \
            --json; their versions, their fields and what they mean.\n\nExit code: 0.",
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
    /// What `tenure audit match --json` prints
    Match,
}

pub(crate) fn run(command: &AuditCommand, session: &Session) -> Output {
    match command {
        AuditCommand::Verify(args) => verify::verify(args, session),
        AuditCommand::Trace(args) => trace::trace(args, session),
        AuditCommand::Report(args) => report::report(args, session),
        AuditCommand::Match(args) => block_on(matched::find(args, session)),
        AuditCommand::Schema { of } => schema(*of),
    }
}

fn schema(of: Document) -> Output {
    let schema = match of {
        Document::Line => audit::schema(),
        Document::Trace => audit::trace::output::trace_schema(),
        Document::Report => audit::trace::report::schema(),
        Document::Match => audit::trace::served::schema(),
    };
    Output { out: format!("{schema:#}\n"), ..Output::default() }
}
