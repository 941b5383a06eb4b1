//! The tables of a page.

use std::fmt::Write as _;

use super::{Text, place};
use crate::audit::trace::At;
use crate::audit::trace::output::{FileSeen, Trace};
use crate::audit::trace::report::Report;

/// A cell: its class and its text.
struct Cell(&'static str, String);

fn text(text: impl Into<String>) -> Cell {
    Cell("", text.into())
}

fn id(text: impl Into<String>) -> Cell {
    Cell("id", text.into())
}

fn time(at: Option<At>) -> Cell {
    Cell("time", at.map_or_else(|| "–".to_owned(), |at| at.to_string()))
}

fn number(number: u64) -> Cell {
    Cell("number", number.to_string())
}

/// A table with a heading; `row` names the rows for links, where they have any.
fn table(
    (name, title, caption): (&str, &str, &str),
    heads: &[&str],
    row: Option<&str>,
    rows: impl IntoIterator<Item = Vec<Cell>>,
    out: &mut String,
) {
    let mut rows = rows.into_iter().peekable();
    if rows.peek().is_none() {
        return;
    }
    let _ = write!(
        out,
        "<section aria-labelledby=\"{name}\">\n<h2 id=\"{name}\">{title}</h2>\n<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-labelledby=\"{name}\">\n\
         <table>\n<caption>{caption}</caption>\n<thead><tr>"
    );
    for head in heads {
        let _ = write!(out, "<th scope=\"col\">{head}</th>");
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    for (at, cells) in rows.enumerate() {
        match row {
            Some(row) => {
                let _ = write!(out, "<tr id=\"{row}-{at}\">");
            }
            None => out.push_str("<tr>"),
        }
        for Cell(class, text) in cells {
            match class {
                "" => out.push_str("<td>"),
                class => {
                    let _ = write!(out, "<td class=\"{class}\">");
                }
            }
            let _ = write!(out, "{}</td>", Text(&text));
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody>\n</table>\n</div>\n</section>\n");
}

pub(super) fn runs(trace: &Trace, out: &mut String) {
    out.push_str("<div id=\"tables\"></div>\n");
    let rows = trace.runs.iter().map(|run| {
        let subject = run.subject.as_ref().map(|subject| format!("{} ({})", subject.id, subject.assurance));
        vec![
            id(&*run.id),
            text(&*run.kind),
            id(run.execution_arn.clone().unwrap_or_default()),
            text(run.state.clone().unwrap_or_default()),
            text(run.standing.clone().unwrap_or_default()),
            text(subject.unwrap_or_default()),
            time(Some(run.began)),
            time(run.ended),
            text(run.end_reason.clone().unwrap_or_default()),
            time(run.revoked),
            number(run.reads),
            number(run.denials),
        ]
    });
    let heads = [
        "Run",
        "Kind",
        "Execution",
        "State",
        "Standing",
        "Subject",
        "Began",
        "Ended",
        "Why",
        "Revoked",
        "Reads",
        "Refused",
    ];
    table(("runs", "Runs", "In the order in which they began."), &heads, Some("run"), rows, out);
}

pub(super) fn leases(trace: &Trace, out: &mut String) {
    let rows = trace.leases.iter().map(|lease| {
        vec![
            id(&*lease.id),
            id(&*lease.run),
            time(Some(lease.minted)),
            time(Some(lease.ended)),
            text(if lease.revoked { "revoked" } else { "expiry" }),
            number(lease.reads),
        ]
    });
    let caption = "In the order in which they were minted. The end is the latest: by expiry, the token's, or the confirmed revocation.";
    table(("leases", "Leases", caption), &["Lease", "Run", "Minted", "End", "By", "Reads"], None, rows, out);
}

pub(super) fn timeline(trace: &Trace, out: &mut String) {
    let rows = trace.timeline.iter().map(|item| {
        let outcome = match item.outcome.as_deref() {
            Some("denied") => Cell("denied", "denied".to_owned()),
            Some("failed") => Cell("failed", "failed".to_owned()),
            other => text(other.unwrap_or_default()),
        };
        let mut lines = vec![place(item.line, &trace.files)];
        lines.extend(item.vault_lines.iter().map(|&line| place(line, &trace.files)));
        let findings: Vec<_> = item
            .findings
            .iter()
            .filter_map(|&number| trace.findings.get(number))
            .map(|finding| format!("{}: {}", finding.severity.word(), finding.kind.word()))
            .collect();
        vec![
            time(Some(item.at)),
            text(item.source.word()),
            text(&*item.event),
            outcome,
            text(item.state.clone().unwrap_or_default()),
            id(item.run.clone().unwrap_or_default()),
            id(item.lease_id.clone().or_else(|| item.path.clone()).unwrap_or_default()),
            text(item.caller.clone().unwrap_or_default()),
            text(item.detail.clone().unwrap_or_default()),
            Cell(if findings.is_empty() { "" } else { "error" }, findings.join(", ")),
            id(lines.join(" ")),
        ]
    });
    let heads = [
        "Time",
        "Log",
        "Event",
        "Outcome",
        "State",
        "Run",
        "Path or lease",
        "Who",
        "Detail",
        "Findings",
        "Lines",
    ];
    let caption = "What happened, in order; lines of several logs that tell of the same are one row.";
    table(("timeline", "Timeline", caption), &heads, Some("item"), rows, out);
}

pub(super) fn files(files: &[FileSeen], out: &mut String) {
    let rows = files.iter().map(|file| {
        vec![
            id(&*file.name),
            number(file.broker_lines),
            number(file.vault_lines),
            number(file.histories),
            number(file.skipped),
            time(file.first),
            time(file.last),
        ]
    });
    let heads = ["File", "Broker's lines", "Vault's lines", "Histories", "Passed over", "First", "Last"];
    table(("files", "Files", "What was read; times are those of brokers' lines."), &heads, None, rows, out);
}

pub(super) fn coverage(report: &Report, out: &mut String) {
    let seen = &report.coverage;
    let yes = |is_so: bool| if is_so { "yes" } else { "no" }.to_owned();
    let span = |from: Option<At>, to: Option<At>| match from.zip(to) {
        Some((from, to)) => format!("{from} to {to}"),
        None => "–".to_owned(),
    };
    let rows = [
        ("Lines of brokers' logs", seen.broker_lines.to_string()),
        ("Starts of brokers", seen.brokers.to_string()),
        ("Brokers' logs cover", span(seen.broker_first, seen.broker_last)),
        ("Each of them is a whole chain", yes(seen.chains_whole)),
        ("Lines of Vault's audit log", seen.vault_lines.to_string()),
        ("Vault's log covers", span(seen.vault_first, seen.vault_last)),
        ("It has our headers: both logs join exactly", yes(seen.headers_audited)),
        ("Our roles are known: a login beside us is seen", yes(seen.roles_known)),
        ("Runs that ended", format!("{} of {}", seen.runs_ended, seen.runs)),
        (
            "Runs whose credentials are confirmed to be gone",
            format!("{} of {}", seen.runs_revoked, seen.runs),
        ),
        (
            "Executions that Step Functions confirms",
            format!("{} of {}", seen.runs_verified, seen.runs_of_executions),
        ),
        (
            "Subjects that are verified",
            format!("{} of {}", seen.runs_with_verified_subject, seen.runs_with_subject),
        ),
        ("Secrets disclosed", seen.reads.to_string()),
        ("Leases minted", seen.leases.to_string()),
        ("Requests refused", seen.denials.to_string()),
    ];
    let rows = rows.into_iter().map(|(name, value)| vec![text(name), text(value)]);
    let caption = "How much of it the logs cover, which says how far the rest can be believed.";
    table(("coverage", "Coverage", caption), &["What", "How much"], None, rows, out);
}

pub(super) fn totals(report: &Report, out: &mut String) {
    out.push_str("<div id=\"tables\"></div>\n");
    let rows = report.workloads.iter().map(|one| {
        vec![
            text(&*one.name),
            text(one.state.clone().unwrap_or_default()),
            number(one.runs),
            number(one.ended),
            number(one.revoked),
            number(one.verified),
            number(one.reads),
            number(one.denials),
        ]
    });
    let heads = ["Workload", "State", "Runs", "Ended", "Revoked", "Verified", "Reads", "Refused"];
    table(("work", "Work", "Runs by state machine and state, or by what they are."), &heads, None, rows, out);
    let rows = report.subjects.iter().map(|one| {
        vec![
            text(&*one.subject.id),
            text(&*one.subject.kind),
            text(&*one.subject.assurance),
            text(one.subject.issuer.clone().unwrap_or_default()),
            number(one.runs),
            number(one.reads),
            number(one.denials),
            time(Some(one.first)),
            time(Some(one.last)),
        ]
    });
    let heads = ["Subject", "Kind", "Assurance", "Issuer", "Runs", "Reads", "Refused", "First", "Last"];
    table(("subjects", "Subjects", "On whose behalf runs acted."), &heads, None, rows, out);
    let rows = report.secrets.iter().map(|one| {
        vec![
            id(&*one.path),
            number(one.reads),
            number(one.runs),
            number(one.subjects),
            number(one.leases),
            number(one.denials),
            time(Some(one.last)),
        ]
    });
    let heads = ["Path", "Reads", "Runs", "Subjects", "Leases", "Refused", "Last"];
    table(("secrets", "Secrets", "What was read: paths, and never a value."), &heads, None, rows, out);
    let rows = report.denials.iter().map(|one| {
        vec![text(&*one.event), text(&*one.by), number(one.count), number(one.runs), time(Some(one.last))]
    });
    let heads = ["What", "By", "Times", "Runs", "Last"];
    table(("refused", "Refused", "What was refused, and what decided."), &heads, None, rows, out);
}
