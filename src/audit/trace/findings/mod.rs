//! What is of note in what was taken down, each with the lines that prove it.

use std::time::Duration;

use super::ledger::Mark;
use super::output::{Finding, FindingKind, Place, Severity};
use super::survey::Survey;
use super::{Rules, TraceError};
use crate::audit::At;

mod logs;
mod runs;

pub(super) use runs::lease_end;

/// Lines that are listed with a finding.
const LISTED: usize = 20;

/// A revocation may take so long before it is said that a lease outlived its run.
const PROMPT: Duration = Duration::from_secs(60);

/// Clocks of two machines may differ by so much.
const SKEW: Duration = Duration::from_secs(5);

/// So many refusals within [`BURST_WITHIN`] are a burst.
const BURST: usize = 10;
const BURST_WITHIN: Duration = Duration::from_secs(60);

/// All findings, what matters most first.
pub(super) fn judge(survey: &Survey<'_>, rules: Rules) -> Result<Vec<Finding>, TraceError> {
    let mut found = Vec::new();
    logs::judge(survey, &mut found)?;
    runs::judge(survey, rules, &mut found);
    found.retain(|finding| finding.at.is_none_or(|at| survey.selection.is_in_time(at)));
    found.sort_by(|a, b| {
        let of = |finding: &Finding| (finding.severity, finding.at, finding.kind);
        of(a).cmp(&of(b)).then_with(|| a.message.cmp(&b.message))
    });
    Ok(found)
}

/// A finding about these lines.
fn finding(
    severity: Severity,
    kind: FindingKind,
    run: Option<&str>,
    message: String,
    marks: impl IntoIterator<Item = Option<Mark>>,
) -> Finding {
    let mut marks: Vec<Mark> = marks.into_iter().flatten().collect();
    marks.sort_unstable();
    marks.dedup();
    let at = marks.first().map(|&(at, _)| at);
    let more_lines = marks.len().saturating_sub(LISTED) as u64;
    let lines: Vec<Place> = marks.iter().take(LISTED).map(|&(_, place)| place).collect();
    Finding { severity, kind, at, run: run.map(str::to_owned), message, lines, more_lines }
}

/// A span, for a person.
fn span(span: Duration) -> String {
    let shown = match span.as_secs() {
        0..10 => Duration::from_millis(u64::try_from(span.as_millis()).unwrap_or_default()),
        seconds => Duration::from_secs(seconds),
    };
    humantime::format_duration(shown).to_string()
}

/// A few names, and how many more there are.
fn some<'a>(names: impl ExactSizeIterator<Item = &'a str>, most: usize) -> String {
    let more = names.len().saturating_sub(most);
    let shown: Vec<_> = names.take(most).collect();
    match more {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

fn at_of(stamp: super::read::quick::Stamp) -> Option<At> {
    std::str::from_utf8(&stamp).ok().and_then(At::parse)
}
