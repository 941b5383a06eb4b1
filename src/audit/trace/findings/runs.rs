//! What is of note in runs and their leases.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{BURST, BURST_WITHIN, PROMPT, SKEW, at_of, finding, some, span};
use crate::audit::At;
use crate::audit::trace::Rules;
use crate::audit::trace::ledger::{BootState, LeaseState, RunState};
use crate::audit::trace::output::{Finding, FindingKind, Severity};
use crate::audit::trace::survey::Survey;

type Leases<'a> = Vec<(&'a Arc<str>, &'a LeaseState)>;

pub(super) fn judge(survey: &Survey<'_>, rules: Rules, found: &mut Vec<Finding>) {
    let mut leases: BTreeMap<&Arc<str>, Leases<'_>> = BTreeMap::new();
    for (id, lease) in &survey.ledger.leases {
        if let Some(owner) = &lease.owner {
            leases.entry(owner).or_default().push((id, lease));
        }
        shared(survey, id, lease, found);
    }
    for (id, run) in &survey.ledger.runs {
        if !run.is_ours {
            continue;
        }
        let held = leases.get_mut(id).map(std::mem::take).unwrap_or_default();
        outlived(id, run, held, found);
        unconfirmed(survey, id, run, found);
        after_end(id, run, found);
        never_ended(survey, id, run, found);
        refused(id, run, found);
        if let (true, Some(subject)) = (rules.verified_subjects && run.reads > 0, &run.subject)
            && subject.assurance != "verified"
        {
            let message = format!(
                "{} secrets were read on behalf of {:?}, which is {}: only verified subjects may",
                run.reads, subject.id, subject.assurance
            );
            let marks = [run.registered.or(run.first), run.last_read];
            found.push(finding(Severity::Error, FindingKind::SubjectUnverified, Some(id), message, marks));
        }
        if let Some((mark, what)) = run.conflict {
            let message = format!(
                "two lines disagree on {what}: one of them was not written by its broker or its Vault"
            );
            let marks = [Some(mark), run.first];
            found.push(finding(Severity::Error, FindingKind::RunConflict, Some(id), message, marks));
        }
    }
}

/// When a lease ends, whoever says so: by its own expiry, its token's, or the confirmed revocation; and whether by the last.
pub(in crate::audit::trace) fn lease_end(run: Option<&RunState>, lease: &LeaseState) -> (Option<At>, bool) {
    let token = run.and_then(|run| run.token_ends);
    let expiry = match (lease.expires, token) {
        (Some(own), Some(token)) => Some(own.min(token)),
        (one, other) => one.or(other),
    };
    // Without a token of its own, what a run holds hangs off the login token.
    let confirmed = |run: &RunState| run.confirmed.or(run.login_confirmed.filter(|_| run.started.is_none()));
    let revoked = run.and_then(confirmed).map(|(at, _)| at);
    let revoked = revoked.filter(|&at| lease.minted.is_none_or(|(minted, _)| minted <= at));
    match (expiry, revoked) {
        (Some(expiry), Some(revoked)) if revoked < expiry => (Some(revoked), true),
        (None, Some(revoked)) => (Some(revoked), true),
        (expiry, _) => (expiry, false),
    }
}

fn outlived(id: &Arc<str>, run: &RunState, held: Leases<'_>, found: &mut Vec<Finding>) {
    let Some((ended, place, _)) = &run.ended else { return };
    let mut late: Vec<_> = held
        .into_iter()
        .filter_map(|(lease, state)| {
            let (end, revoked) = lease_end(Some(run), state);
            let over = end?.since(*ended);
            (over > PROMPT).then_some((over, lease, state, revoked))
        })
        .collect();
    late.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(b.1)));
    let Some(&(longest, first, _, revoked)) = late.first() else { return };
    let how = match revoked {
        true => "until it was confirmed to be revoked",
        false => "until it expired: no revocation is confirmed before",
    };
    let others = match late.len() {
        1 => String::new(),
        more => format!(", and {} more", more - 1),
    };
    let message =
        format!("the lease {first} could be used for {} after its run's end, {how}{others}", span(longest));
    let marks =
        late.iter().map(|(_, _, state, _)| state.minted).chain([Some((*ended, *place)), run.confirmed]);
    found.push(finding(Severity::Error, FindingKind::LeaseOutlivedRun, Some(id), message, marks));
}

fn unconfirmed(survey: &Survey<'_>, id: &Arc<str>, run: &RunState, found: &mut Vec<Finding>) {
    let pairs = [
        ("run token", run.requested, run.confirmed),
        ("login token", run.login_requested, run.login_confirmed),
    ];
    for (what, requested, confirmed) in pairs {
        let Some((requested_at, _)) = requested else { continue };
        if confirmed.is_some_and(|(confirmed, _)| requested_at <= confirmed) {
            continue;
        }
        let last = boot(survey, run).and_then(|boot| boot.last).and_then(at_of);
        // It may be in the next line.
        let severity = match last.is_some_and(|last| last.since(requested_at) < PROMPT)
            && !boot(survey, run).is_some_and(|boot| boot.stopped)
        {
            true => Severity::Warning,
            false => Severity::Error,
        };
        let known = match run.unconfirmed {
            Some(_) if what == "run token" => "; the broker says itself that it could not learn it",
            _ => "",
        };
        let message = format!(
            "the revocation of the {what} was requested, and that it is gone was never confirmed{known}"
        );
        let marks = [requested, run.unconfirmed.filter(|_| what == "run token")];
        found.push(finding(severity, FindingKind::RevocationUnconfirmed, Some(id), message, marks));
    }
}

fn after_end(id: &Arc<str>, run: &RunState, found: &mut Vec<Finding>) {
    let Some((ended, place, _)) = &run.ended else { return };
    let mut late = |at: At, mark, message: String| {
        let lines = [Some((at, mark)), Some((*ended, *place))];
        found.push(finding(Severity::Error, FindingKind::ReadAfterEnd, Some(id), message, lines));
    };
    if let Some((at, mark)) = run.last_read.filter(|(at, _)| at > ended) {
        let after = span(at.since(*ended));
        late(at, mark, format!("the broker disclosed a secret {after} after the run's end"));
    }
    if let Some((at, mark)) = run.last_in_vault.filter(|(at, _)| at.since(*ended) > SKEW) {
        let after = span(at.since(*ended));
        late(at, mark, format!("Vault served the run's token {after} after the run's end"));
    }
}

fn never_ended(survey: &Survey<'_>, id: &Arc<str>, run: &RunState, found: &mut Vec<Finding>) {
    if run.ended.is_some() || (run.registered.is_none() && run.started.is_none()) {
        return;
    }
    let Some(boot) = boot(survey, run) else { return };
    let Some(last) = boot.last.and_then(at_of) else { return };
    let marks = [run.registered, run.started, run.last];
    let token = run.token_ends.map_or_else(String::new, |ends| format!("; Vault ends its token at {ends}"));
    let limit = [run.deadline, run.token_ends].into_iter().flatten().min();
    let next = survey.ledger.boots.iter().filter(|other| other.file == boot.file && other.first > boot.last);
    let next = next.filter_map(|other| other.first).min().and_then(at_of);
    let (severity, message) = if boot.stopped {
        (
            Severity::Error,
            format!("its broker stopped in order at {last}, and no line tells of the run's end{token}"),
        )
    } else if let Some(deadline) = run.deadline.filter(|deadline| last.since(*deadline) > PROMPT) {
        (
            Severity::Error,
            format!("its deadline was {deadline}, and no line tells of its end up to {last}{token}"),
        )
    } else if let Some(next) = next {
        let severity = if limit.is_some() { Severity::Warning } else { Severity::Error };
        let how = format!("its broker ended without a word after {last} and was started again at {next}");
        (severity, format!("{how}: no line tells of the run's end{token}"))
    } else {
        (Severity::Notice, format!("it is open where its broker's log ends, at {last}{token}"))
    };
    found.push(finding(severity, FindingKind::NeverEnded, Some(id), message, marks));
}

fn refused(id: &Arc<str>, run: &RunState, found: &mut Vec<Finding>) {
    let mut denied = run.denied.clone();
    denied.sort_unstable();
    let burst = denied.windows(BURST).find(|window| window[BURST - 1].0.since(window[0].0) <= BURST_WITHIN);
    if let Some(&[(from, _), ..]) = burst {
        let within: Vec<_> =
            denied.iter().filter(|(at, _)| *at >= from && at.since(from) <= BURST_WITHIN).copied().collect();
        let message = format!(
            "{} requests were refused within {}; {} in all",
            within.len(),
            span(within[within.len() - 1].0.since(from)),
            run.denials
        );
        let marks = within.into_iter().map(Some);
        found.push(finding(Severity::Warning, FindingKind::DenialBurst, Some(id), message, marks));
    }
}

fn shared(survey: &Survey<'_>, id: &str, lease: &LeaseState, found: &mut Vec<Finding>) {
    let run = |id: &Arc<str>| survey.ledger.runs.get(id);
    // A rule says so, and then its runs' leases are those of a run of its own.
    let declared = lease.owner.as_ref().and_then(run).is_some_and(|owner| owner.shared_by.is_some());
    if lease.users.len() < 2 || declared {
        return;
    }
    let mut users: Vec<_> = lease.users.iter().map(|(user, _)| &**user).collect();
    users.sort_unstable();
    let first = users.first().copied();
    let users = some(users.into_iter(), 4);
    let message = format!("one credential, the lease {id}, was used by {} runs: {users}", lease.users.len());
    let owner = lease.owner.as_deref().or(first);
    let marks = lease.users.iter().map(|&(_, mark)| Some(mark));
    found.push(finding(Severity::Error, FindingKind::LeaseShared, owner, message, marks));
}

fn boot<'s>(survey: &'s Survey<'_>, run: &RunState) -> Option<&'s BootState> {
    survey.ledger.boots.get(run.boot? as usize)
}
