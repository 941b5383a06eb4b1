//! Traces and reports as text.

use std::time::Duration;

use super::super::screen::{Cell, Paint, Screen, printable, span};
use crate::audit::At;
use crate::audit::trace::Report;
use crate::audit::trace::output::{FileSeen, Finding, Item, Place, Severity, Skipped, Source, Trace};

/// Lines that are shown as passed over.
const SKIPPED: usize = 10;

/// Rows of a table of a report.
const ROWS: usize = 25;

pub(super) fn trace(trace: &Trace, screen: Screen) -> String {
    let mut out = String::new();
    if trace.timeline.is_empty() {
        let what =
            if trace.selection.is_empty() { "There is nothing to trace" } else { "Nothing belongs to that" };
        out += &format!("{what} in {}.\n", files(trace.files.len()));
    }
    runs(trace, screen, &mut out);
    leases(trace, screen, &mut out);
    timeline(trace, screen, &mut out);
    findings(&trace.findings, &trace.files, screen, &mut out);
    skipped(&trace.skipped, trace.more_skipped, &trace.files, screen, &mut out);
    out
}

fn title(screen: Screen, text: &str, out: &mut String) {
    if !out.is_empty() {
        out.push('\n');
    }
    *out += &screen.paint(text, Paint::Bold);
    out.push('\n');
}

pub(super) fn heads(names: &[&str]) -> Vec<Cell> {
    names.iter().map(|name| Cell::new(name, Paint::Dim)).collect()
}

fn files(count: usize) -> String {
    if count == 1 { "one file".to_owned() } else { format!("{count} files") }
}

fn runs(trace: &Trace, screen: Screen, out: &mut String) {
    if trace.runs.is_empty() {
        return;
    }
    title(screen, "Runs", out);
    let mut rows = vec![heads(&["RUN", "WHAT", "FOR", "BEGAN", "ENDED", "REVOKED", "READS", "DENIED"])];
    for run in &trace.runs {
        let what = match (&run.execution_arn, &run.state) {
            (Some(arn), Some(state)) => format!("{} {state}", short_arn(arn)),
            (Some(arn), None) => short_arn(arn).to_owned(),
            _ => run.kind.clone(),
        };
        let standing = run.standing.as_deref().map(|standing| format!(" ({standing})")).unwrap_or_default();
        let subject = run.subject.as_ref().map(|subject| match subject.assurance.as_str() {
            "verified" => Cell::new(&subject.id, Paint::Good),
            other => Cell::new(&format!("{} ({other})", subject.id), Paint::Warn),
        });
        let since = |at: Option<At>, none: &str, bad: Paint| match at {
            Some(at) => Cell::from(format!("+{}", lived(at.since(run.began)))),
            None => Cell::new(none, bad),
        };
        rows.push(vec![
            Cell::from(run.id.as_str()),
            Cell::from(what + &standing),
            subject.unwrap_or_else(|| "-".into()),
            Cell::from(run.began.to_string()),
            since(run.ended, "never", Paint::Warn),
            since(run.revoked, "no", Paint::Warn),
            Cell::from(run.reads.to_string()),
            Cell::new(&run.denials.to_string(), if run.denials > 0 { Paint::Warn } else { Paint::Plain }),
        ]);
    }
    *out += &screen.columns(&rows);
}

fn leases(trace: &Trace, screen: Screen, out: &mut String) {
    if trace.leases.is_empty() {
        return;
    }
    title(screen, "Leases", out);
    let mut rows = vec![heads(&["LEASE", "RUN", "MINTED", "LIVED", "END", "READS"])];
    for lease in &trace.leases {
        let end = if lease.revoked { ("revoked", Paint::Good) } else { ("expiry", Paint::Plain) };
        rows.push(vec![
            Cell::from(lease.id.as_str()),
            Cell::from(lease.run.as_str()),
            Cell::from(lease.minted.to_string()),
            Cell::from(lived(lease.ended.since(lease.minted))),
            Cell::new(end.0, end.1),
            Cell::from(lease.reads.to_string()),
        ]);
    }
    *out += &screen.columns(&rows);
}

fn timeline(trace: &Trace, screen: Screen, out: &mut String) {
    if trace.timeline.is_empty() {
        return;
    }
    title(screen, "Timeline", out);
    let mut rows = vec![heads(&["TIME", "LOG", "EVENT", "OUTCOME", "WHO", "WHAT", "LINE"])];
    for item in &trace.timeline {
        let paint = paint(item, &trace.findings);
        let machine = item.execution_arn.as_deref().and_then(|arn| arn.split(':').nth(6));
        let who = match (&item.state, &item.run) {
            _ if item.source == Source::StepFunctions => {
                [machine, item.state.as_deref()].into_iter().flatten().collect::<Vec<_>>().join(" ")
            }
            (Some(state), Some(run)) => format!("{state} {run}"),
            (Some(text), None) | (None, Some(text)) => text.clone(),
            (None, None) => String::new(),
        };
        rows.push(vec![
            Cell::new(&item.at.to_string(), Paint::Dim),
            Cell::from(match (item.source, item.vault_lines.is_empty()) {
                (Source::Broker, false) => "tenure+vault",
                (source, _) => source.word(),
            }),
            Cell::new(&item.event, paint),
            Cell::new(item.outcome.as_deref().unwrap_or_default(), paint),
            Cell::from(who),
            Cell::from(what(item)),
            Cell::new(&place(item.line, &trace.files), Paint::Dim),
        ]);
    }
    *out += &screen.columns(&rows);
}

fn what(item: &Item) -> String {
    let mut parts = Vec::new();
    match (&item.path, &item.lease_id) {
        // A lease's id begins with its path.
        (Some(path), Some(lease)) if lease.starts_with(path.as_str()) => parts.push(lease.clone()),
        (path, lease) => parts.extend([path, lease].into_iter().flatten().cloned()),
    }
    if item.source == Source::Vault {
        parts.extend(item.caller.as_ref().map(|caller| format!("as {caller}")));
    } else {
        parts.extend(item.caller.clone());
    }
    parts.extend(item.detail.clone());
    parts.join("; ")
}

fn paint(item: &Item, findings: &[Finding]) -> Paint {
    let worst =
        item.findings.iter().filter_map(|&number| findings.get(number)).map(|finding| finding.severity).min();
    match (worst, item.outcome.as_deref()) {
        (Some(Severity::Error), _) => Paint::Bad,
        (Some(Severity::Warning), _) | (_, Some("denied" | "failed")) => Paint::Warn,
        (_, Some("granted" | "done")) => Paint::Good,
        _ => Paint::Plain,
    }
}

fn findings(found: &[Finding], files: &[FileSeen], screen: Screen, out: &mut String) {
    title(screen, "Findings", out);
    if found.is_empty() {
        *out += &screen.paint("none", Paint::Good);
        out.push('\n');
    }
    for finding in found {
        let paint = match finding.severity {
            Severity::Error => Paint::Bad,
            Severity::Warning => Paint::Warn,
            Severity::Notice => Paint::Dim,
        };
        let run = finding.run.as_ref().map(|run| format!(" {}", printable(run))).unwrap_or_default();
        let at = finding.at.map(|at| format!(" {at}")).unwrap_or_default();
        *out += &format!(
            "{} {}{at}{run}: {}\n",
            screen.paint(finding.severity.word(), paint),
            finding.kind.word(),
            printable(&finding.message)
        );
        if !finding.lines.is_empty() {
            let mut lines: Vec<_> = finding.lines.iter().map(|&line| place(line, files)).collect();
            if finding.more_lines > 0 {
                lines.push(format!("and {} more lines", finding.more_lines));
            }
            *out += &screen.paint(&printable(&format!("    {}", lines.join("  "))), Paint::Dim);
            out.push('\n');
        }
    }
}

fn skipped(listed: &[Skipped], more: u64, files: &[FileSeen], screen: Screen, out: &mut String) {
    if listed.is_empty() {
        return;
    }
    title(screen, "Passed over", out);
    for one in listed.iter().take(SKIPPED) {
        *out += &printable(&format!("{}: {}", place(one.place, files), one.why));
        out.push('\n');
    }
    let more = more + listed.len().saturating_sub(SKIPPED) as u64;
    if more > 0 {
        *out += &format!("and {more} more lines\n");
    }
}

/// A span, which may be less than a second.
fn lived(time: Duration) -> String {
    match time.as_secs() {
        0 => format!("{}ms", time.as_millis()),
        seconds => span(seconds),
    }
}

/// `file:line`, as tools that jump to lines take it.
fn place(place: Place, files: &[FileSeen]) -> String {
    let name = files.get(place.file as usize).map_or("?", |file| &file.name);
    format!("{name}:{}", place.line)
}

/// `orders:0f1e` of an execution's ARN.
pub(super) fn short_arn(arn: &str) -> &str {
    let at = arn.match_indices(':').nth(5).map_or(0, |(at, _)| at + 1);
    &arn[at..]
}

pub(super) fn report(report: &Report, screen: Screen) -> String {
    let mut out = String::new();
    let (from, to) = (report.since.map(|at| at.to_string()), report.until.map(|at| at.to_string()));
    title(
        screen,
        &format!(
            "From {} to {}",
            from.as_deref().unwrap_or("the first line"),
            to.as_deref().unwrap_or("the last line")
        ),
        &mut out,
    );
    coverage(report, screen, &mut out);
    title(screen, "Work", &mut out);
    let mut rows =
        vec![heads(&["WORKLOAD", "STATE", "RUNS", "ENDED", "REVOKED", "VERIFIED", "READS", "DENIED"])];
    for one in report.workloads.iter().take(ROWS) {
        let short = |count: u64| {
            Cell::new(&count.to_string(), if count < one.runs { Paint::Warn } else { Paint::Plain })
        };
        rows.push(vec![
            Cell::from(one.name.as_str()),
            Cell::from(one.state.as_deref().unwrap_or("-")),
            Cell::from(one.runs.to_string()),
            short(one.ended),
            short(one.revoked),
            Cell::from(one.verified.to_string()),
            Cell::from(one.reads.to_string()),
            Cell::from(one.denials.to_string()),
        ]);
    }
    table(screen, &rows, report.workloads.len(), &mut out);
    title(screen, "Subjects", &mut out);
    let mut rows =
        vec![heads(&["SUBJECT", "KIND", "ASSURANCE", "ISSUER", "RUNS", "READS", "DENIED", "LAST"])];
    for one in report.subjects.iter().take(ROWS) {
        let subject = &one.subject;
        let paint = if subject.assurance == "verified" { Paint::Good } else { Paint::Warn };
        rows.push(vec![
            Cell::from(subject.id.as_str()),
            Cell::from(subject.kind.as_str()),
            Cell::new(&subject.assurance, paint),
            Cell::from(subject.issuer.as_deref().unwrap_or("-")),
            Cell::from(one.runs.to_string()),
            Cell::from(one.reads.to_string()),
            Cell::from(one.denials.to_string()),
            Cell::from(one.last.to_string()),
        ]);
    }
    table(screen, &rows, report.subjects.len(), &mut out);
    title(screen, "Secrets", &mut out);
    let mut rows = vec![heads(&["PATH", "READS", "RUNS", "SUBJECTS", "LEASES", "DENIED", "LAST"])];
    for one in report.secrets.iter().take(ROWS) {
        rows.push(vec![
            Cell::from(one.path.as_str()),
            Cell::from(one.reads.to_string()),
            Cell::from(one.runs.to_string()),
            Cell::from(one.subjects.to_string()),
            Cell::from(one.leases.to_string()),
            Cell::from(one.denials.to_string()),
            Cell::from(one.last.to_string()),
        ]);
    }
    table(screen, &rows, report.secrets.len(), &mut out);
    title(screen, "Refused", &mut out);
    let mut rows = vec![heads(&["WHAT", "BY", "TIMES", "RUNS", "LAST"])];
    for one in report.denials.iter().take(ROWS) {
        rows.push(vec![
            Cell::from(one.event.as_str()),
            Cell::from(one.by.as_str()),
            Cell::from(one.count.to_string()),
            Cell::from(one.runs.to_string()),
            Cell::from(one.last.to_string()),
        ]);
    }
    table(screen, &rows, report.denials.len(), &mut out);
    findings(&report.findings, &report.files, screen, &mut out);
    skipped(&report.skipped, report.more_skipped, &report.files, screen, &mut out);
    out
}

pub(super) fn table(screen: Screen, rows: &[Vec<Cell>], of: usize, out: &mut String) {
    if rows.len() == 1 {
        *out += "none\n";
        return;
    }
    *out += &screen.columns(rows);
    if of + 1 > rows.len() {
        *out += &format!("and {} more; --json has them\n", of + 1 - rows.len());
    }
}

fn coverage(report: &Report, screen: Screen, out: &mut String) {
    let seen = &report.coverage;
    let times = |from: Option<At>, to: Option<At>| match from.zip(to) {
        Some((from, to)) => format!(", from {from} to {to}"),
        None => String::new(),
    };
    let of = |count: u64, all: u64| {
        Cell::new(&format!("{count} of {all}"), if count < all { Paint::Warn } else { Paint::Good })
    };
    let yes = |is_so: bool| if is_so { Cell::new("yes", Paint::Good) } else { Cell::new("no", Paint::Warn) };
    let row = |name: &str, cell: Cell| vec![Cell::new(name, Paint::Dim), cell];
    let broker = format!(
        "{} lines of {} brokers{}",
        seen.broker_lines,
        seen.brokers,
        times(seen.broker_first, seen.broker_last)
    );
    let vault = format!("{} lines{}", seen.vault_lines, times(seen.vault_first, seen.vault_last));
    let rows = [
        row("brokers' logs", Cell::from(broker)),
        row("chains are whole", yes(seen.chains_whole)),
        row("Vault's log", Cell::from(vault)),
        row("lines it confirms", of(seen.anchored_lines, seen.anchored_lines + seen.unanchored_lines)),
        row("it has our headers", yes(seen.headers_audited)),
        row("our roles are known", yes(seen.roles_known)),
        row("runs that ended", of(seen.runs_ended, seen.runs)),
        row("confirmed as revoked", of(seen.runs_revoked, seen.runs)),
        row("executions verified", of(seen.runs_verified, seen.runs_of_executions)),
        row("subjects verified", of(seen.runs_with_verified_subject, seen.runs_with_subject)),
        row(
            "counted",
            Cell::from(format!("{} reads, {} leases, {} refusals", seen.reads, seen.leases, seen.denials)),
        ),
    ];
    *out += &screen.columns(&rows);
}
