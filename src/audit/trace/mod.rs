//! The auditor's trace: who used what, for which execution, until when; and what the logs of the broker, of Vault and of Step
//! Functions, laid beside each other, do not explain.
//!
//! **What joins.** The broker's line has what it sent as `X-Tenure-Request`, Vault's line has that header where it is audited;
//! Vault's `request.id`; the run, which the run token's metadata names in Vault's log; the execution that both name, which the
//! history is of; and accessors. These are HMACs in Vault's log and compared with each other: so a request that somebody made
//! about a run's token belongs to the run. One that an auditor holds is turned into its HMAC by Vault (`sys/audit-hash`), by the
//! caller.
//!
//! **What is found** is said in [`output::FindingKind`], how a bypass is told in [`foreign`]. A trace is no stronger than the
//! logs: a broker that lies in its own lines is caught where Vault's log says otherwise, and nobody else's lies are.
//!
//! **What is fetched.** Histories, where the caller has somebody to ask ([`trace_and_fetch`]): this module connects to nothing.
//!
//! **What is not shown.** No data of a request or an answer, no input or output of a state, no cause of an error: only what is
//! named in [`output`].

use std::io::Read;
use std::path::PathBuf;

mod anchors;
mod chain;
mod findings;
mod foreign;
pub mod html;

mod join;
mod ledger;
pub mod output;
mod read;
pub mod report;
mod select;
pub mod served;
mod survey;
mod tally;
#[cfg(test)]
mod tests;

use crate::audit::At;
pub use anchors::anchors;
pub use output::Trace;
pub use read::ReadError;
pub use read::history::HistoryEvent;
pub use report::Report;
pub use select::Selection;
pub use survey::{MOST_HISTORIES, MOST_LINES};

use read::Source;
use survey::Survey;

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Which time the input is read, from 1 on. How often it will be is not known before.
    pub pass: u64,
    /// Bytes that were read in this pass, compressed as they may be.
    pub bytes: u64,
    /// All bytes of the input.
    pub of: u64,
}

/// Why there is no trace.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TraceError {
    /// An input is not there.
    #[error(transparent)]
    Input(#[from] ReadError),
    /// An input could not be read to its end.
    #[error("{name}: it cannot be read to its end ({source})")]
    Read {
        /// The file.
        name: String,
        /// Why.
        source: std::io::Error,
    },
    /// The selection has more lines than can be shown.
    #[error(
        "more than {MOST_LINES} lines belong to that: narrow it with --execution, --run, --path, --since or --until"
    )]
    TooMany,
    /// Histories were to be fetched, and none can be.
    #[error("{0}")]
    NotFetched(String),
}

/// Asks for the history of an execution, oldest event first, which no file has.
pub type Fetch<'a> = dyn FnMut(&str) -> Result<Vec<HistoryEvent>, Unfetched> + 'a;

/// Why a history was not fetched; said of the execution, whose ARN is put before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unfetched {
    /// There is none, and nothing is to be done: a notice of the trace.
    None(String),
    /// This one may not be fetched, or not as a whole: a warning.
    Refused(String),
    /// None can be fetched, and this is why: there is no trace.
    Failed(String),
}

/// What is to be judged otherwise than by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Secrets may be read for verified subjects alone.
    pub verified_subjects: bool,
}

/// Traces what is selected through all files that are named, and those in folders that are; `-` is `stdin`.
///
/// # Errors
/// What cannot be read, and a selection of more than [`MOST_LINES`] lines.
pub fn trace(
    named: &[PathBuf],
    stdin: &mut dyn Read,
    selection: &Selection,
    rules: Rules,
    now: At,
    progress: &mut dyn FnMut(Progress),
) -> Result<Trace, TraceError> {
    trace_and_fetch(named, stdin, selection, rules, now, progress, None)
}

/// The same, and what `fetch` has of executions whose history none of the files is: of the execution that is selected and
/// those that it started, else of those that selected runs are of; of [`MOST_HISTORIES`] at most.
///
/// # Errors
/// As [`trace`], and [`Unfetched::Failed`].
pub fn trace_and_fetch<'a>(
    named: &[PathBuf],
    stdin: &mut dyn Read,
    selection: &'a Selection,
    rules: Rules,
    now: At,
    progress: &'a mut dyn FnMut(Progress),
    fetch: Option<&'a mut Fetch<'a>>,
) -> Result<Trace, TraceError> {
    let mut survey = Survey::new(Source::all(named, stdin)?, selection, true, progress);
    survey.fetching.by(fetch);
    let survey = survey.run()?;
    let findings = findings::judge(&survey, rules)?;
    Ok(join::join(survey, findings, now))
}

/// Sums up what the files tell of the time from `selection.since` to `selection.until`.
///
/// # Errors
/// What cannot be read.
pub fn report(
    named: &[PathBuf],
    stdin: &mut dyn Read,
    selection: &Selection,
    rules: Rules,
    now: At,
    progress: &mut dyn FnMut(Progress),
) -> Result<Report, TraceError> {
    report::report(Source::all(named, stdin)?, selection, rules, now, progress)
}
