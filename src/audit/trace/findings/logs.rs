//! What is of note in the logs themselves, and between them.

use std::collections::HashSet;

use super::{SKEW, finding, some};
use crate::audit::trace::TraceError;
use crate::audit::trace::chain::Chains;
use crate::audit::trace::foreign::{Foreign, Key};
use crate::audit::trace::output::{Finding, FindingKind, Place, Severity};
use crate::audit::trace::survey::Survey;
use crate::audit::verify::anchored;

/// Problems of one file's chain that are findings of their own.
const PROBLEMS: usize = 20;

pub(super) fn judge(survey: &Survey<'_>, found: &mut Vec<Finding>) -> Result<(), TraceError> {
    chains(survey, found)?;
    anchors(survey, found);
    for (mark, lost) in &survey.ledger.lost {
        let torn = lost
            .torn_bytes
            .map_or_else(String::new, |bytes| format!("; {bytes} bytes of a torn line were moved away"));
        let message = format!(
            "the log could not be written for a while: {} lines of the life cycle were lost, {} requests were refused{torn}",
            lost.dropped, lost.refused
        );
        let severity = if lost.dropped > 0 { Severity::Error } else { Severity::Warning };
        found.push(finding(severity, FindingKind::LinesLost, None, message, [Some(*mark)]));
    }
    found.extend(survey.foreign.iter().filter_map(|(key, foreign)| bypass(survey, key, foreign)));
    unknown_brokers(survey, found);
    not_in_vault(survey, found);
    coverage(survey, found);
    Ok(())
}

/// What Vault's log has of chains and brokers' logs have not.
fn anchors(survey: &Survey<'_>, found: &mut Vec<Finding>) {
    for problem in survey.confirmed.iter().flat_map(|confirmed| &confirmed.problems) {
        let severity = match problem.kind {
            // Whoever may log in as the broker does can write one, and it counts for nothing.
            anchored::Finding::Foreign => Severity::Warning,
            _ => Severity::Error,
        };
        let line = problem.place.rsplit_once(':').and_then(|(name, line)| {
            let file = survey.files.iter().position(|file| file.name == name)?;
            Some(Place { file: u32::try_from(file).ok()?, line: line.parse().ok()? })
        });
        found.push(Finding {
            severity,
            kind: FindingKind::AnchorContradicts,
            at: None,
            run: None,
            message: problem.message.clone(),
            lines: line.into_iter().collect(),
            more_lines: 0,
        });
    }
}

fn chains(survey: &Survey<'_>, found: &mut Vec<Finding>) -> Result<(), TraceError> {
    let heads: HashSet<_> = survey.chains.iter().flat_map(Chains::heads).collect();
    for (file, chains) in survey.chains.iter().enumerate() {
        let name = &survey.files[file].name;
        let at = |line| Place { file: u32::try_from(file).unwrap_or(u32::MAX), line };
        let mut add = |severity, kind, message: String, line: u64| {
            let lines = vec![at(line)];
            found.push(Finding { severity, kind, at: None, run: None, message, lines, more_lines: 0 });
        };
        if chains.broken {
            let (report, numbers) = survey.verify(file)?;
            let listed = report.problems.iter().take(PROBLEMS);
            for problem in listed {
                let line = usize::try_from(problem.line).unwrap_or(usize::MAX);
                let line = numbers.get(line.wrapping_sub(1)).copied().unwrap_or_default();
                // The verifier counts the broker's lines alone: what it says of line numbers holds where there are no others.
                let mixed = numbers.last().is_some_and(|&last| last != numbers.len() as u64);
                let counted = if mixed { " (lines counted are the broker's own)" } else { "" };
                let message = format!("{name}: {}{counted}", problem.message);
                add(Severity::Error, FindingKind::ChainBroken, message, line);
            }
            let more = (report.problems.len().saturating_sub(PROBLEMS)) as u64 + report.more_problems;
            if more > 0 {
                let message =
                    format!("{name}: {more} more breaks of the chain; `tenure audit verify` names them");
                add(Severity::Error, FindingKind::ChainBroken, message, 1);
            }
            if !report.is_good() {
                continue;
            }
            // Copies, and lines out of order, as a pipeline delivers them: each chain is whole.
        }
        if let [_, again, ..] = chains.begun[..] {
            let message = format!(
                "{name}: {} chains begin in it, as they do on collected standard output; in a broker's own file the log was begun anew",
                chains.begun.len()
            );
            add(Severity::Notice, FindingKind::ChainContinues, message, again);
        }
        for &(prev, line) in chains.continues.iter().filter(|(prev, _)| !heads.contains(prev)) {
            let message = format!(
                "{name}: it goes on from a log whose last line has the hash {}…, which is not among the files",
                &prev.as_str()[..16]
            );
            add(Severity::Notice, FindingKind::ChainContinues, message, line);
        }
    }
    Ok(())
}

fn requests(count: u64) -> String {
    if count == 1 { "one request".to_owned() } else { format!("{count} requests") }
}

fn bypass(survey: &Survey<'_>, key: &Key, foreign: &Foreign) -> Option<Finding> {
    let paths = some(foreign.paths.iter().map(|path| &**path), 8);
    let who = some(foreign.who.iter().map(|who| &**who), 3);
    let from = some(foreign.remotes.iter().map(|from| &**from), 3);
    let count = requests(foreign.requests);
    let refused = if foreign.effective == 0 { ", none of which did anything" } else { "" };
    let to = format!("{count} to {paths}{refused} (as {who}, from {from})");
    let severity = if foreign.effective > 0 { Severity::Error } else { Severity::Warning };
    let marks = foreign.marks.iter().map(|&mark| Some(mark));
    let (severity, kind, run, message) = match key {
        Key::Accessor(_) => {
            let message = format!("Vault was asked under our role, and no broker asked: {to}");
            (severity, FindingKind::Bypass, None, message)
        }
        Key::Token(run) => {
            let known = survey.run_state(run).is_some_and(|run| run.is_ours);
            let whose = if known {
                "this run's token was used"
            } else {
                "a token was used that names a run of which no broker tells"
            };
            (severity, FindingKind::Bypass, Some(&**run), format!("{whose}, and no broker asked: {to}"))
        }
        Key::Again(request) => {
            let message =
                format!("the id of the broker's request {request} was used again, for another: {to}");
            (Severity::Error, FindingKind::Bypass, None, message)
        }
        Key::Boot(_) => return None,
    };
    let mut finding = finding(severity, kind, run, message, marks);
    finding.more_lines += foreign.more;
    Some(finding)
}

/// All of them as one: where one log is traced of a service that has thousands of brokers, the others are no news.
fn unknown_brokers(survey: &Survey<'_>, found: &mut Vec<Finding>) {
    let others: Vec<_> = survey
        .foreign
        .iter()
        .filter_map(|(key, foreign)| match key {
            Key::Boot(boot) => Some((&**boot, foreign)),
            _ => None,
        })
        .collect();
    if others.is_empty() {
        return;
    }
    let asked = requests(others.iter().map(|(_, foreign)| foreign.requests).sum());
    let boots = some(others.iter().map(|&(boot, _)| boot), 5);
    let message = format!(
        "Vault was asked under our role by {} whose logs are not given, or by who says to be one: {asked}, with \
         the boot {ids} {boots}",
        if others.len() == 1 { "a broker".to_owned() } else { format!("{} brokers", others.len()) },
        ids = if others.len() == 1 { "id" } else { "ids" },
    );
    let marks = others.iter().flat_map(|(_, foreign)| foreign.marks.iter().map(|&mark| Some(mark)));
    let mut finding = finding(Severity::Warning, FindingKind::UnknownBroker, None, message, marks);
    finding.more_lines += others.iter().map(|(_, foreign)| foreign.more).sum::<u64>();
    found.push(finding);
}

/// What brokers say to have had from Vault, and Vault's log, which covers that time, does not have.
fn not_in_vault(survey: &Survey<'_>, found: &mut Vec<Finding>) {
    let Some((from, to)) = survey.vault_covers.filter(|_| survey.headers_are_audited) else { return };
    let (from, to) = (from.plus(SKEW), to);
    let missing: Vec<_> = survey
        .ledger
        .calls
        .iter()
        .filter(|call| {
            let at = call.mark.0;
            at >= from && at.plus(SKEW) <= to && !survey.seen.contains_key(&(call.boot, call.number))
        })
        .collect();
    let Some(first) = missing.iter().map(|call| call.mark).min() else { return };
    let number = missing.iter().find(|call| call.mark == first).map_or(0, |call| call.number);
    let boot = missing.iter().find(|call| call.mark == first).map_or(0, |call| call.boot);
    let message = format!(
        "the broker tells of {} that Vault's log does not have, though it covers that time: {}-{number} is the first. \
         Is all of Vault's log there, that of each node?",
        requests(missing.len() as u64),
        survey.ledger.boot_id(boot),
    );
    let marks = missing.iter().map(|call| Some(call.mark));
    found.push(finding(Severity::Warning, FindingKind::NotInVault, None, message, marks));
}

/// What could not be judged.
fn coverage(survey: &Survey<'_>, found: &mut Vec<Finding>) {
    let sum =
        |of: fn(&crate::audit::trace::output::FileSeen) -> u64| survey.files.iter().map(of).sum::<u64>();
    let (brokers, vaults) = (sum(|file| file.broker_lines), sum(|file| file.vault_lines));
    let mut add = |message: &str| {
        let message = message.to_owned();
        let (severity, kind) = (Severity::Notice, FindingKind::Coverage);
        found.push(Finding {
            severity,
            kind,
            at: None,
            run: None,
            message,
            lines: Vec::new(),
            more_lines: 0,
        });
    };
    if brokers == 0 {
        add(
            "no broker's log is among the files: what Vault did is shown, and not whether a broker asked for it",
        );
    }
    if vaults == 0 {
        add("no log of Vault is among the files: what went round the broker cannot be seen");
    } else if brokers > 0 && survey.vault_covers.is_some() {
        if !survey.headers_are_audited {
            add(
                "Vault does not audit X-Tenure-Request: logins and the brokers' own requests cannot be told from others; \
                 see sys/config/auditing/request-headers",
            );
        } else if survey.logins.is_unknown() {
            add(
                "no login of these brokers is in Vault's log, so their role is not known: of what went round them only the \
                 use of runs' tokens is seen",
            );
        }
    }
    if survey.histories_unknown > 0 {
        add(
            "there are histories that do not tell whose they are, and are not shown: name such a file after its execution, \
             the last part of its ARN",
        );
    }
    for (severity, message) in survey.fetching.notes() {
        let kind = FindingKind::Coverage;
        let lines = Vec::new();
        found.push(Finding { severity, kind, at: None, run: None, message, lines, more_lines: 0 });
    }
}
