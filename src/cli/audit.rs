//! `tenure audit`: the auditor's commands.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use clap::{Subcommand, ValueEnum};
use serde::Serialize;

use super::{Output, Session, block_on};
use crate::audit;
use crate::audit::verify::anchored::{Anchored, Anchors, Comparison};
use crate::causes::causes;

mod accessors;
mod histories;
mod matched;
mod report;
mod text;
mod trace;
mod vault;

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Verify the chain of an audit file
    #[command(
        long_about = "Verify the chain of an audit file: that no line was edited, deleted, moved or put in between. \
            Names the lines that do not follow from those before them.\n\nBy itself a chain cannot tell that its tail was \
            cut, that it was made anew as a whole, or that it is another file, or an older state of it. Vault's audit log \
            can: it has the chain's head in the metadata of run tokens and, where X-Tenure-Chain is an audited header, every \
            audit.anchor. With --vault-log each of these is named, and what no anchor covers yet is stated.\n\n\
            Exit code: 0 whole, 1 not, 2 it cannot be read.",
        after_long_help = "Examples:\n  tenure audit verify /var/log/tenure/audit.jsonl\n  \
            tenure audit verify audit.jsonl.1 audit.jsonl --vault-log logs/of-vault"
    )]
    Verify {
        /// The file of audit lines; several, in any order, if the log was rotated
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Vault's audit log, plain or gzip, or a folder of it: what it knows of this log is compared
        #[arg(long, value_name = "FILE")]
        vault_log: Vec<PathBuf>,
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
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
        AuditCommand::Verify { files, vault_log, json } => verify(files, vault_log, *json),
        AuditCommand::Trace(args) => trace::trace(args, session),
        AuditCommand::Report(args) => report::report(args, session),
        AuditCommand::Match(args) => block_on(matched::find(args, session)),
        AuditCommand::Schema { of } => schema(*of),
    }
}

fn verify(paths: &[PathBuf], vault_log: &[PathBuf], json: bool) -> Output {
    let anchors = match vault_log {
        [] => None,
        named => match audit::trace::anchors(named, &mut std::io::stdin()) {
            Ok(anchors) => Some(anchors),
            Err(error) => return Output::failed(2, &causes(&error)),
        },
    };
    let mut files = Vec::new();
    for path in paths {
        match opened(path) {
            Ok(file) => files.push((first_seq(path), path, file)),
            Err(error) => return Output::failed(2, &format!("{}: {error}", path.display())),
        }
    }
    files.sort_by_key(|(first, ..)| *first);
    let order: Vec<String> = files.iter().map(|(_, path, _)| path.display().to_string()).collect();
    let mut comparison = anchors.as_ref().map(Anchors::compare);
    let readers = files.into_iter().map(|(_, _, file)| file);
    let report = audit::verify::verify_all(readers, false, &mut |line| {
        if let Some(comparison) = &mut comparison {
            comparison.see(line);
        }
    });
    let report = match report {
        Ok(report) => report,
        Err(error) => return Output::failed(2, &format!("{}: {error}", order.join(", "))),
    };
    let anchored = comparison.map(Comparison::finish);
    let good = report.is_good() && anchored.as_ref().is_none_or(Anchored::is_good);
    let out = match json {
        true => {
            let verified = Verified { files: &order, report: &report, anchored: anchored.as_ref() };
            serde_json::to_string_pretty(&verified).map(|text| text + "\n").unwrap_or_default()
        }
        false => {
            let several = match &*order {
                [_] => String::new(),
                files => format!("{}; lines are counted over all of them\n", files.join(", then ")),
            };
            match &anchored {
                Some(anchored) => {
                    let alone = report.to_string();
                    // What the log alone cannot tell is told by the anchors.
                    let alone = alone.strip_suffix(audit::verify::CAVEAT).unwrap_or(&alone);
                    format!("{several}{alone}{anchored}\n")
                }
                None => format!("{several}{report}\n"),
            }
        }
    };
    Output { out, code: u8::from(!good), ..Output::default() }
}

/// What is printed as JSON: the report, and what the anchors say.
#[derive(Serialize)]
struct Verified<'a> {
    files: &'a [String],
    #[serde(flatten)]
    report: &'a audit::verify::Report,
    #[serde(skip_serializing_if = "Option::is_none")]
    anchored: Option<&'a Anchored>,
}

fn opened(path: &Path) -> std::io::Result<BufReader<File>> {
    File::open(path).map(|file| BufReader::with_capacity(1 << 20, file))
}

/// The number of a file's first line that is one; files without any come last.
fn first_seq(path: &Path) -> u64 {
    let lines = opened(path).map(|file| file.lines().map_while(Result::ok).take(100));
    let seq = |line: String| {
        serde_json::from_slice::<audit::Line>(&audit::unwrapped(line.as_bytes())).ok().map(|line| line.seq)
    };
    lines.ok().and_then(|mut lines| lines.find_map(seq)).unwrap_or(u64::MAX)
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
