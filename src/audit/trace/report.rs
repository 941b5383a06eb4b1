//! What a time held, for who audits a whole organisation: runs, subjects, secrets, refusals, findings, and how much of it the
//! logs cover. Lines are counted, and none is kept.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use super::findings;
use super::ledger::RunState;
use super::output::{FileSeen, Finding, FindingKind, Severity, Skipped, SubjectSeen, VERSION};
use super::read::Source;
use super::select::Selection;
use super::survey::{Confirmed, Survey};
use super::tally::Tally;
use super::{Progress, Rules, TraceError};
use crate::audit::At;

/// Findings that are listed; all are counted.
const FINDINGS: usize = 1_000;

/// Rows of each table in a report.
const ROWS: usize = 10_000;

/// `tenure audit report --json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Report {
    /// The version of this schema.
    pub version: u8,
    /// When the report was made.
    pub made: At,
    /// From when on; absent: from the first line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<At>,
    /// Until when; absent: to the last line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<At>,
    /// What was read.
    pub files: Vec<FileSeen>,
    /// What the logs cover.
    pub coverage: Coverage,
    /// Runs, by what they are.
    pub workloads: Vec<Workload>,
    /// On whose behalf runs acted.
    pub subjects: Vec<SubjectTotal>,
    /// What was read.
    pub secrets: Vec<SecretTotal>,
    /// What was refused.
    pub denials: Vec<DenialTotal>,
    /// How many findings there are of each severity and kind.
    pub finding_counts: Vec<FindingCount>,
    /// The findings, what matters most first, at most a thousand.
    pub findings: Vec<Finding>,
    /// Lines that were passed over, at most a hundred.
    pub skipped: Vec<Skipped>,
    /// Lines that were passed over and are not listed.
    pub more_skipped: u64,
}

/// What the logs cover: what an auditor must know before believing the rest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Coverage {
    /// Lines of brokers' logs.
    pub broker_lines: u64,
    /// Starts of brokers.
    pub brokers: u64,
    /// The first time of a broker's line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broker_first: Option<At>,
    /// The last time of a broker's line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broker_last: Option<At>,
    /// Whether each broker's log is a whole chain.
    pub chains_whole: bool,
    /// Anchors of these logs, in Vault's, that count.
    pub anchors: u64,
    /// Lines of brokers' logs that anchors confirm: a change of them would show.
    pub anchored_lines: u64,
    /// Lines that no anchor confirms, as they came after the last one.
    pub unanchored_lines: u64,
    /// When the first of these was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unanchored_since: Option<At>,
    /// Starts of brokers of which no line is confirmed.
    pub brokers_unanchored: u64,
    /// Lines of Vault's audit log.
    pub vault_lines: u64,
    /// The first time of an answer in Vault's log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vault_first: Option<At>,
    /// The last time of an answer in Vault's log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vault_last: Option<At>,
    /// Whether Vault audits `X-Tenure-Request`, so that both logs join exactly.
    pub headers_audited: bool,
    /// Whether it is known under which roles the brokers log in, so that a login beside them is seen.
    pub roles_known: bool,
    /// Runs.
    pub runs: u64,
    /// Those that ended.
    pub runs_ended: u64,
    /// Those whose token and leases are confirmed to be gone.
    pub runs_revoked: u64,
    /// Those that name an execution.
    pub runs_of_executions: u64,
    /// Those of them that Step Functions confirms.
    pub runs_verified: u64,
    /// Those with a subject.
    pub runs_with_subject: u64,
    /// Those with a verified one.
    pub runs_with_verified_subject: u64,
    /// Secrets that were disclosed.
    pub reads: u64,
    /// What was refused.
    pub denials: u64,
    /// Leases that were minted.
    pub leases: u64,
}

/// Runs of one kind of work.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Workload {
    /// The state machine, or what kind of run it is.
    pub name: String,
    /// The state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Runs.
    pub runs: u64,
    /// Those that ended.
    pub ended: u64,
    /// Those whose token and leases are confirmed to be gone.
    pub revoked: u64,
    /// Those that Step Functions confirms.
    pub verified: u64,
    /// Secrets that were disclosed to them.
    pub reads: u64,
    /// What was refused to them.
    pub denials: u64,
}

/// What was done on behalf of one subject.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct SubjectTotal {
    /// The subject.
    #[serde(flatten)]
    pub subject: SubjectSeen,
    /// Runs that acted for it.
    pub runs: u64,
    /// Secrets that were disclosed to them.
    pub reads: u64,
    /// What was refused to them.
    pub denials: u64,
    /// The first line of one of them.
    pub first: At,
    /// The last line of one of them.
    pub last: At,
}

/// What was read of one path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct SecretTotal {
    /// The path.
    pub path: String,
    /// How often it was disclosed.
    pub reads: u64,
    /// How often it was refused.
    pub denials: u64,
    /// Leases that were minted.
    pub leases: u64,
    /// Runs that read it.
    pub runs: u64,
    /// Subjects on whose behalf they did.
    pub subjects: u64,
    /// The last time.
    pub last: At,
}

/// Refusals of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct DenialTotal {
    /// What was asked for: `read`, `run.register`.
    pub event: String,
    /// What decided: a rule of ours, or `vault`.
    pub by: String,
    /// How often.
    pub count: u64,
    /// Runs that were refused.
    pub runs: u64,
    /// The last time.
    pub last: At,
}

/// How many findings there are of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct FindingCount {
    /// How much they matter.
    pub severity: Severity,
    /// Their kind.
    pub kind: FindingKind,
    /// How many there are.
    pub count: u64,
}

/// The JSON Schema of `tenure audit report --json`.
#[must_use]
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(Report).to_value()
}

pub(super) fn report(
    sources: Vec<Source>,
    selection: &Selection,
    rules: Rules,
    now: At,
    progress: &mut dyn FnMut(Progress),
) -> Result<Report, TraceError> {
    // What began before tells what came of it: all of it is read, and what is counted is in time.
    let all = Selection::default();
    let mut survey = Survey::new(sources, &all, false, progress);
    survey.tally = Some(Tally::new(selection));
    let mut survey = survey.run()?;
    let mut found = findings::judge(&survey, rules)?;
    found.retain(|finding| finding.at.is_none_or(|at| selection.is_in_time(at)));
    let tally = survey.tally.take().unwrap_or_else(|| Tally::new(selection));
    let runs: Vec<&RunState> = survey
        .ledger
        .runs
        .values()
        .map(|run| &**run)
        .filter(|run| run.is_ours)
        .filter(|run| {
            let touches = |from: At, to: At| {
                selection.since.is_none_or(|since| since <= to)
                    && selection.until.is_none_or(|until| from <= until)
            };
            run.first.zip(run.last).is_some_and(|((from, _), (to, _))| touches(from, to))
        })
        .collect();
    let mut counts: BTreeMap<(Severity, FindingKind), u64> = BTreeMap::new();
    for finding in &found {
        *counts.entry((finding.severity, finding.kind)).or_default() += 1;
    }
    let coverage = coverage(&survey, &tally, &runs, &found);
    let (skipped, more_skipped) = survey.skipped();
    found.truncate(FINDINGS);
    Ok(Report {
        version: VERSION,
        made: now,
        since: selection.since,
        until: selection.until,
        coverage,
        workloads: workloads(&runs),
        subjects: subjects(&runs),
        secrets: secrets(&tally),
        denials: denials(&tally),
        files: survey.files,
        finding_counts: counts
            .into_iter()
            .map(|((severity, kind), count)| FindingCount { severity, kind, count })
            .collect(),
        findings: found,
        skipped,
        more_skipped,
    })
}

fn count<'a>(runs: &[&'a RunState], is_so: impl Fn(&'a RunState) -> bool) -> u64 {
    runs.iter().filter(|run| is_so(run)).count() as u64
}

fn is_verified(run: &RunState) -> bool {
    run.standing.as_deref() == Some("verified")
}

fn coverage(survey: &Survey<'_>, tally: &Tally, runs: &[&RunState], found: &[Finding]) -> Coverage {
    let files = &survey.files;
    let none = Confirmed::default();
    let confirmed = survey.confirmed.as_ref().unwrap_or(&none);
    Coverage {
        broker_lines: files.iter().map(|file| file.broker_lines).sum(),
        brokers: survey.ledger.boots.iter().filter(|boot| boot.first.is_some()).count() as u64,
        broker_first: files.iter().filter_map(|file| file.first).min(),
        broker_last: files.iter().filter_map(|file| file.last).max(),
        chains_whole: !found.iter().any(|finding| finding.kind == FindingKind::ChainBroken),
        anchors: confirmed.anchors,
        anchored_lines: confirmed.lines,
        unanchored_lines: confirmed.unconfirmed,
        unanchored_since: confirmed.since,
        brokers_unanchored: confirmed.boots,
        vault_lines: files.iter().map(|file| file.vault_lines).sum(),
        vault_first: survey.vault_covers.map(|(from, _)| from),
        vault_last: survey.vault_covers.map(|(_, to)| to),
        headers_audited: survey.headers_are_audited,
        roles_known: !survey.logins.is_unknown(),
        runs: runs.len() as u64,
        runs_ended: count(runs, |run| run.ended.is_some()),
        runs_revoked: count(runs, |run| run.confirmed.is_some()),
        runs_of_executions: count(runs, |run| run.execution.is_some()),
        runs_verified: count(runs, is_verified),
        runs_with_subject: count(runs, |run| run.subject.is_some()),
        runs_with_verified_subject: count(runs, |run| {
            run.subject.as_ref().is_some_and(|subject| subject.assurance == "verified")
        }),
        reads: tally.reads,
        denials: tally.denied,
        leases: tally.paths.values().map(|path| path.leases).sum(),
    }
}

fn workloads(runs: &[&RunState]) -> Vec<Workload> {
    let mut by: BTreeMap<(&str, Option<&str>), Workload> = BTreeMap::new();
    for run in runs {
        // arn:aws:states:<region>:<account>:execution:<state machine>:<name>
        let machine = run.execution.as_deref().and_then(|arn| arn.split(':').nth(6));
        let total = by.entry((machine.unwrap_or(&run.kind), run.state.as_deref())).or_default();
        total.runs += 1;
        total.ended += u64::from(run.ended.is_some());
        total.revoked += u64::from(run.confirmed.is_some());
        total.verified += u64::from(is_verified(run));
        total.reads += run.reads;
        total.denials += run.denials;
    }
    let mut rows: Vec<_> = by
        .into_iter()
        .map(|((name, state), total)| Workload {
            name: name.to_owned(),
            state: state.map(str::to_owned),
            ..total
        })
        .collect();
    rows.sort_by(|a, b| b.runs.cmp(&a.runs).then_with(|| (&a.name, &a.state).cmp(&(&b.name, &b.state))));
    rows.truncate(ROWS);
    rows
}

fn subjects(runs: &[&RunState]) -> Vec<SubjectTotal> {
    let mut by: BTreeMap<&SubjectSeen, SubjectTotal> = BTreeMap::new();
    for run in runs {
        let (Some(subject), Some((first, _)), Some((last, _))) =
            (run.subject.as_deref(), run.first, run.last)
        else {
            continue;
        };
        let total = by.entry(subject).or_insert_with(|| SubjectTotal {
            subject: subject.clone(),
            runs: 0,
            reads: 0,
            denials: 0,
            first,
            last,
        });
        total.runs += 1;
        total.reads += run.reads;
        total.denials += run.denials;
        (total.first, total.last) = (total.first.min(first), total.last.max(last));
    }
    let mut rows: Vec<_> = by.into_values().collect();
    rows.sort_by(|a, b| b.reads.cmp(&a.reads).then_with(|| a.subject.cmp(&b.subject)));
    rows.truncate(ROWS);
    rows
}

fn secrets(tally: &Tally) -> Vec<SecretTotal> {
    let rows = tally.paths.iter().map(|(path, tally)| SecretTotal {
        path: path.to_string(),
        reads: tally.reads,
        denials: tally.denials,
        leases: tally.leases,
        runs: tally.runs.len() as u64,
        subjects: tally.subjects.len() as u64,
        last: tally.last,
    });
    let mut rows: Vec<_> = rows.collect();
    rows.sort_by(|a, b| b.reads.cmp(&a.reads).then_with(|| a.path.cmp(&b.path)));
    rows.truncate(ROWS);
    rows
}

fn denials(tally: &Tally) -> Vec<DenialTotal> {
    let rows = tally.denials.iter().map(|((event, by), tally)| DenialTotal {
        event: event.word().to_owned(),
        by: by.to_string(),
        count: tally.count,
        runs: tally.runs.len() as u64,
        last: tally.last,
    });
    let mut rows: Vec<_> = rows.collect();
    rows.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| (&a.event, &a.by).cmp(&(&b.event, &b.by))));
    rows.truncate(ROWS);
    rows
}
