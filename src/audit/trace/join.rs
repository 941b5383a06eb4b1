//! One timeline: lines of several logs that tell of the same become one item.
//!
//! An item stands at its own log's time: clocks are not corrected, and what two logs say of one request stands at the
//! broker's. Items of one time are in the order of their logs, then of the chain, of Vault's ids, of the history.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};

use super::findings::lease_end;
use super::output::{Finding, Item, LeaseSeen, Place, RunSeen, Source, StateSeen, Trace, VERSION};
use super::read::vault::VaultLine;
use super::select::Selection;
use super::survey::{HistorySeen, Record, Survey};
use crate::audit::{self, At, Event, Line};

/// What an item is put in order by, beside its time: the log, the chain or id, the number in it.
type Order = (Source, String, u64);

pub(super) fn join(mut survey: Survey<'_>, findings: Vec<Finding>, now: At) -> Trace {
    let records = survey.records.take().unwrap_or_default();
    let evidence: HashSet<Place> =
        survey.foreign.values().flat_map(|foreign| foreign.marks.iter().map(|&(_, place)| place)).collect();
    let mut items: Vec<(Order, Item)> = Vec::with_capacity(records.len());
    let mut of_vault = Vec::new();
    for (at, place, record) in records {
        match record {
            Record::Broker(line) => items.push(of_broker(at, place, *line)),
            Record::Vault(line) => of_vault.push((place, *line)),
        }
    }
    items.sort_by(in_order);
    attach(&survey, &mut items, of_vault, &evidence);
    let mut histories = std::mem::take(&mut survey.histories);
    // A history that was given twice is shown once.
    let mut known = HashSet::new();
    histories.sort_by_key(|seen| seen.place);
    histories.retain(|seen| known.insert((seen.history.execution.clone(), seen.history.events.len())));
    items.extend(histories.iter().flat_map(of_history));
    items.retain(|(_, item)| is_asked_for(survey.selection, item) || evidence.contains(&item.line));
    items.sort_by(in_order);

    let mut proofs: HashMap<Place, Vec<usize>> = HashMap::new();
    for (number, finding) in findings.iter().enumerate() {
        for &place in &finding.lines {
            proofs.entry(place).or_default().push(number);
        }
    }
    let mut timeline: Vec<Item> = items.into_iter().map(|(_, item)| item).collect();
    for item in &mut timeline {
        let places = std::iter::once(&item.line).chain(&item.vault_lines);
        let mut numbers: Vec<_> = places.filter_map(|place| proofs.get(place)).flatten().copied().collect();
        numbers.sort_unstable();
        numbers.dedup();
        item.findings = numbers;
    }
    let (skipped, more_skipped) = survey.skipped();
    Trace {
        version: VERSION,
        made: now,
        selection: survey.selection.said(),
        runs: runs(&survey),
        leases: leases(&survey),
        states: states(&histories),
        files: survey.files,
        timeline,
        findings,
        skipped,
        more_skipped,
    }
}

fn in_order(a: &(Order, Item), b: &(Order, Item)) -> Ordering {
    (a.1.at, &a.0).cmp(&(b.1.at, &b.0)).then_with(|| a.1.line.cmp(&b.1.line))
}

/// Whether a line is shown: by its time, and where a path or a lease was asked for, by these. What tells of a run as a whole
/// is shown with them.
fn is_asked_for(selection: &Selection, item: &Item) -> bool {
    let is_of = |item: &Item| {
        item.path.as_deref().is_some_and(|path| selection.is_path(path))
            || item.lease_id.as_deref().is_some_and(|id| selection.is_lease(id))
    };
    let of_run = item.source == Source::StepFunctions
        || item.source == Source::Broker && (item.path.is_none() && item.lease_id.is_none());
    let chosen = selection.path.is_none() && selection.lease.is_none() || of_run || is_of(item);
    chosen && selection.is_in_time(item.at)
}

fn of_broker(at: At, place: Place, line: Line) -> (Order, Item) {
    let order = (Source::Broker, line.boot.clone(), line.seq);
    let detail = detail(&line);
    let (execution, state) = match &line.run {
        Some(run) => (run.execution_arn.clone(), run.state.clone()),
        None => (None, None),
    };
    let caller = line.caller.as_ref().filter(|peer| peer.via != audit::Via::Own).map(|peer| {
        match (peer.uid, peer.pid) {
            (Some(uid), Some(pid)) => format!("uid {uid}, pid {pid}"),
            (Some(uid), None) => format!("uid {uid}"),
            _ => "by handle".to_owned(),
        }
    });
    let item = Item {
        at,
        source: Source::Broker,
        event: line.event.word().to_owned(),
        outcome: Some(line.outcome.word().to_owned()),
        run: line.run.map(|run| run.id),
        execution_arn: execution,
        state,
        path: line.path,
        lease_id: line.lease_id,
        request: line.request,
        vault_request_id: line.vault_request_id,
        caller,
        detail,
        line: place,
        vault_lines: Vec::new(),
        findings: Vec::new(),
    };
    (order, item)
}

fn detail(line: &Line) -> Option<String> {
    let mut parts = Vec::new();
    if line.event == Event::RunRegister
        && let Some(rule) = line.policy.as_deref().filter(|rule| !rule.is_empty())
    {
        parts.push(format!("by {rule}"));
    }
    if let Some(subject) = line.run.as_ref().and_then(|run| run.subject.as_ref())
        && matches!(line.event, Event::RunRegister | Event::RunStart)
    {
        parts.push(format!("for {} ({})", subject.id, subject.assurance));
    }
    match (line.event, line.detail.as_deref()) {
        (Event::RunStart, Some(role)) => parts.push(format!("token role {role}")),
        (_, Some(detail)) => parts.push(detail.to_owned()),
        (_, None) => {}
    }
    parts.extend(line.reason.clone());
    match line.source {
        Some(audit::Source::Cache) => parts.push("from the cache".to_owned()),
        Some(audit::Source::Stale) => parts.push("a stale value: Vault was down".to_owned()),
        _ => {}
    }
    parts.extend(line.version.map(|version| format!("version {version}")));
    parts.extend(line.expires.as_deref().and_then(At::parse).map(|at| format!("until {at}")));
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// Puts Vault's lines to the broker's that tell of the same request; the rest are items of their own.
fn attach(
    survey: &Survey<'_>,
    items: &mut Vec<(Order, Item)>,
    mut lines: Vec<(Place, VaultLine)>,
    evidence: &HashSet<Place>,
) {
    // The call itself comes before what was disclosed of its answer, and cached answers name it again.
    let (mut by_request, mut by_id) = (HashMap::new(), HashMap::new());
    for (number, (_, item)) in items.iter().enumerate() {
        if let Some(request) = &item.request {
            by_request.entry(request.clone()).or_insert(number);
        }
        if let Some(id) = &item.vault_request_id {
            by_id.entry(id.clone()).or_insert(number);
        }
    }
    lines.sort_by(|(a, x), (b, y)| (x.at, &x.id, a).cmp(&(y.at, &y.id, b)));
    for (place, line) in lines {
        let same =
            line.request.as_ref().and_then(|request| by_request.get(request)).or_else(|| by_id.get(&line.id));
        match same {
            Some(&number) if !evidence.contains(&place) => {
                let item = &mut items[number].1;
                item.vault_lines.push(place);
                // A line of a mint that was refused does not have it; what is done to tokens has no path of a secret.
                if item.path.is_none() && matches!(&*item.event, "mint" | "rotate") {
                    item.path = Some(line.path);
                }
                item.vault_request_id.get_or_insert(line.id);
            }
            // A broker's questions change and disclose nothing, and no line of its tells of them.
            _ if line.is_bookkeeping() && !evidence.contains(&place) => {}
            _ => items.push(of_vault(survey, place, line)),
        }
    }
}

fn of_vault(survey: &Survey<'_>, place: Place, line: VaultLine) -> (Order, Item) {
    let by_token = line.metadata.get("run").cloned().or_else(|| survey.run_of_token(&line));
    let run = by_token.or_else(|| line.run.clone());
    let known = run.as_deref().and_then(|run| survey.run_state(run));
    let text = |text: &Option<std::sync::Arc<str>>| text.as_ref().map(ToString::to_string);
    let outcome = if line.error.is_some() { "failed" } else { "done" };
    let about = line.about.map(|_| "about a token, by its accessor".to_owned());
    let detail: Vec<_> = about.into_iter().chain(line.error).collect();
    let caller = match &line.remote {
        Some(remote) => format!("{} from {remote}", line.display_name),
        None => line.display_name.clone(),
    };
    let item = Item {
        at: line.at,
        source: Source::Vault,
        event: line.operation,
        outcome: Some(outcome.to_owned()),
        execution_arn: known.and_then(|run| text(&run.execution)),
        state: known.and_then(|run| text(&run.state)),
        run,
        path: Some(line.path),
        lease_id: line.lease_id,
        request: line.request,
        vault_request_id: Some(line.id.clone()),
        caller: Some(caller),
        detail: (!detail.is_empty()).then(|| detail.join("; ")),
        line: place,
        vault_lines: Vec::new(),
        findings: Vec::new(),
    };
    ((Source::Vault, line.id, 0), item)
}

fn of_history(seen: &HistorySeen) -> Vec<(Order, Item)> {
    let execution = seen.history.execution.clone();
    let shown = |kind: &str| {
        kind.starts_with("Execution")
            || ["Entered", "Exited", "Failed", "TimedOut", "Aborted"].iter().any(|end| kind.ends_with(end))
    };
    let events = seen.history.events.iter().filter(|event| event.started.is_some() || shown(&event.kind));
    let item = |event: &super::read::history::HistoryEvent| {
        let failed = ["Failed", "TimedOut", "Aborted"].iter().any(|end| event.kind.ends_with(end));
        let started = event.started.as_ref().map(|arn| format!("started {arn}"));
        let item = Item {
            at: event.at,
            source: Source::StepFunctions,
            event: event.kind.clone(),
            outcome: failed.then(|| "failed".to_owned()),
            run: None,
            execution_arn: execution.clone(),
            state: event.state.clone(),
            path: None,
            lease_id: None,
            request: None,
            vault_request_id: None,
            caller: None,
            detail: started.or_else(|| event.error.clone()),
            line: Place { file: seen.place.file, line: seen.place.line + event.line },
            vault_lines: Vec::new(),
            findings: Vec::new(),
        };
        ((Source::StepFunctions, execution.clone().unwrap_or_default(), event.id), item)
    };
    events.map(item).collect()
}

fn runs(survey: &Survey<'_>) -> Vec<RunSeen> {
    let mut runs: Vec<_> = survey
        .ledger
        .runs
        .iter()
        .filter_map(|(id, run)| {
            let text = |text: &Option<std::sync::Arc<str>>| text.as_ref().map(ToString::to_string);
            Some(RunSeen {
                id: id.to_string(),
                kind: run.kind.to_string(),
                execution_arn: text(&run.execution),
                state: text(&run.state),
                attempt: run.attempt,
                standing: text(&run.standing),
                parents: run.parents.iter().map(ToString::to_string).collect(),
                parent: text(&run.parent),
                subject: run.subject.as_deref().cloned(),
                rule: text(&run.rule),
                began: run.first?.0,
                deadline: run.deadline,
                ended: run.ended.as_ref().map(|(at, ..)| *at),
                end_reason: run.ended.as_ref().map(|(_, _, why)| why.to_string()),
                revoked: run.confirmed.map(|(at, _)| at),
                last: run.last?.0,
                reads: run.reads,
                denials: run.denials,
            })
        })
        .collect();
    runs.sort_by(|a, b| (a.began, &a.id).cmp(&(b.began, &b.id)));
    runs
}

fn leases(survey: &Survey<'_>) -> Vec<LeaseSeen> {
    let mut leases: Vec<_> = survey
        .ledger
        .leases
        .iter()
        .filter_map(|(id, lease)| {
            let owner =
                lease.owner.as_deref().or_else(|| lease.users.iter().map(|(user, _)| &**user).min())?;
            let run = survey.run_state(owner);
            let (minted, _) = lease.minted.or_else(|| lease.users.iter().map(|&(_, mark)| mark).min())?;
            let (end, revoked) = lease_end(run, lease);
            Some(LeaseSeen {
                id: id.to_string(),
                path: lease.path.to_string(),
                run: owner.to_owned(),
                minted,
                ended: end.unwrap_or(minted).max(minted),
                revoked,
                reads: lease.reads,
            })
        })
        .collect();
    leases.sort_by(|a, b| (a.minted, &a.id).cmp(&(b.minted, &b.id)));
    leases
}

/// From each entering of a state to the next leaving of one of that name, or to the history's end.
fn states(histories: &[HistorySeen]) -> Vec<StateSeen> {
    let mut states = Vec::new();
    for HistorySeen { history, .. } in histories {
        let end = history.events.iter().map(|event| event.at).max().unwrap_or_default();
        let mut exits: HashMap<&str, std::collections::VecDeque<At>> = HashMap::new();
        for event in history.events.iter().filter(|event| event.kind.ends_with("StateExited")) {
            exits.entry(event.state.as_deref().unwrap_or_default()).or_default().push_back(event.at);
        }
        for event in history.events.iter().filter(|event| event.kind.ends_with("StateEntered")) {
            let name = event.state.clone().unwrap_or_default();
            let exited = exits.get_mut(&*name).and_then(std::collections::VecDeque::pop_front).unwrap_or(end);
            let execution_arn = history.execution.clone().unwrap_or_default();
            states.push(StateSeen { execution_arn, name, entered: event.at, exited: exited.max(event.at) });
        }
    }
    states
        .sort_by(|a, b| (a.entered, &a.execution_arn, &a.name).cmp(&(b.entered, &b.execution_arn, &b.name)));
    states
}
