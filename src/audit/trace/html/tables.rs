//! The tables of a page.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::iter::Peekable;

use super::{Breaking, Text, place};
use crate::audit::At;
use crate::audit::trace::output::{FileSeen, RunSeen, Trace};
use crate::audit::trace::report::Report;

/// A cell: its class, its text, and what it leads to.
pub(super) struct Cell {
    class: &'static str,
    text: String,
    to: Option<String>,
}

impl Cell {
    fn new(class: &'static str, text: impl Into<String>) -> Self {
        Self { class, text: text.into(), to: None }
    }

    fn to(self, kind: &str, number: Option<usize>) -> Self {
        Self { to: number.map(|number| format!("{kind}-{number}")), ..self }
    }
}

fn text(text: impl Into<String>) -> Cell {
    Cell::new("", text)
}

fn id(text: impl Into<String>) -> Cell {
    Cell::new("id", text)
}

fn time(at: Option<At>) -> Cell {
    Cell::new("time", at.map_or_else(|| "–".to_owned(), |at| at.to_string()))
}

fn number(number: u64) -> Cell {
    Cell::new("number", number.to_string())
}

type Rows<'a> = Peekable<Box<dyn Iterator<Item = Vec<Cell>> + 'a>>;

/// A table with a heading. Its rows are made as they are written: they may be many.
pub(super) struct Table<'a> {
    /// What links to it name.
    pub(super) id: &'static str,
    pub(super) title: &'static str,
    caption: String,
    heads: &'static [&'static str],
    /// What links to its rows name, before their number.
    row: Option<&'static str>,
    rows: Rows<'a>,
}

impl<'a> Table<'a> {
    fn new(
        (id, title, caption): (&'static str, &'static str, &str),
        heads: &'static [&'static str],
        row: Option<&'static str>,
        rows: impl IntoIterator<Item = Vec<Cell>, IntoIter: 'a>,
    ) -> Self {
        let rows: Box<dyn Iterator<Item = _> + 'a> = Box::new(rows.into_iter());
        Self { id, title, caption: caption.to_owned(), heads, row, rows: rows.peekable() }
    }

    /// Whether there are no rows: then it is not shown.
    pub(super) fn is_empty(&mut self) -> bool {
        self.rows.peek().is_none()
    }

    pub(super) fn write(mut self, out: &mut String) {
        let _ = write!(
            out,
            "<p class=\"note\" id=\"{id}-what\">{}</p>\n\
             <div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-labelledby=\"{id}\">\n\
             <table aria-labelledby=\"{id}\" aria-describedby=\"{id}-what\">\n<thead><tr>",
            Text(&self.caption),
            id = self.id
        );
        for (head, cell) in self.heads.iter().zip(self.rows.peek().into_iter().flatten()) {
            let class = if cell.class == "number" { " class=\"number\"" } else { "" };
            let _ = write!(out, "<th scope=\"col\"{class}>{head}</th>");
        }
        out.push_str("</tr></thead>\n<tbody>\n");
        for (at, cells) in self.rows.enumerate() {
            match self.row {
                Some(row) => {
                    let _ = write!(out, "<tr id=\"{row}-{at}\">");
                }
                None => out.push_str("<tr>"),
            }
            for cell in cells {
                cell.write(out);
            }
            out.push_str("</tr>\n");
        }
        out.push_str("</tbody>\n</table>\n</div>\n");
    }
}

impl Cell {
    fn write(&self, out: &mut String) {
        match self.class {
            "" => out.push_str("<td>"),
            class => {
                let _ = write!(out, "<td class=\"{class}\">");
            }
        }
        // A link without text could be come to, and would say nothing.
        let to = self.to.as_ref().filter(|_| !self.text.trim().is_empty());
        if let Some(to) = to {
            let _ = write!(out, "<a href=\"#{to}\">");
        }
        let _ = match self.class {
            "id" | "error" | "warning" | "notice" => write!(out, "{}", Breaking(&self.text)),
            "time" => match self.text.split_once('T') {
                Some((day, time)) => write!(out, "{}<wbr>T{}", Text(day), Text(time)),
                None => write!(out, "{}", Text(&self.text)),
            },
            _ => write!(out, "{}", Text(&self.text)),
        };
        out.push_str(if to.is_some() { "</a></td>" } else { "</td>" });
    }
}

pub(super) fn states(trace: &Trace) -> Table<'_> {
    let rows = trace.states.iter().map(|state| {
        vec![
            text(&*state.name),
            id(&*state.execution_arn),
            time(Some(state.entered)),
            time(Some(state.exited)),
        ]
    });
    let caption = "In the order in which they were entered. Of one that was not left, the end of its execution or history.";
    Table::new(("states", "States", caption), &["State", "Execution", "Entered", "Left"], Some("state"), rows)
}

pub(super) fn runs(trace: &Trace) -> Table<'_> {
    let rows = trace.runs.iter().map(|run| {
        let subject = run.subject.as_ref().map(|subject| format!("{} ({})", subject.id, subject.assurance));
        vec![
            id(&*run.id),
            text(&*run.kind),
            id(run.execution_arn.clone().unwrap_or_default()),
            text(state(run)),
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
    let heads = &[
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
    let caption = "In the order in which they began. In brackets: which retry of its state a run is.";
    Table::new(("runs", "Runs", caption), heads, Some("run"), rows)
}

/// The state of a run, and which retry of it; empty where it is of none.
pub(super) fn state(run: &RunSeen) -> String {
    match (&run.state, run.attempt) {
        (Some(state), Some(attempt @ 1..)) => format!("{state} ({attempt})"),
        (Some(state), _) => state.clone(),
        (None, _) => String::new(),
    }
}

pub(super) fn leases(trace: &Trace) -> Table<'_> {
    let runs = runs_by_id(trace);
    let rows = trace.leases.iter().map(move |lease| {
        vec![
            id(&*lease.id),
            id(&*lease.run).to("run", runs.get(&*lease.run).copied()),
            time(Some(lease.minted)),
            time(Some(lease.ended)),
            text(if lease.revoked { "revoked" } else { "expiry" }),
            number(lease.reads),
        ]
    });
    let caption = "In the order in which they were minted. The end is the latest: by expiry, the token's, or the confirmed revocation.";
    let heads = &["Lease", "Run", "Minted", "End", "By", "Reads"];
    Table::new(("leases", "Leases", caption), heads, Some("lease"), rows)
}

fn runs_by_id(trace: &Trace) -> BTreeMap<&str, usize> {
    trace.runs.iter().enumerate().map(|(number, run)| (&*run.id, number)).collect()
}

/// The timeline; `files` have the names that the page shows.
pub(super) fn timeline<'a>(trace: &'a Trace, files: &'a [FileSeen]) -> Table<'a> {
    let runs = runs_by_id(trace);
    let rows = trace.timeline.iter().map(move |item| {
        let outcome = match item.outcome.as_deref() {
            Some("denied") => Cell::new("denied", "denied"),
            Some("failed") => Cell::new("failed", "failed"),
            other => text(other.unwrap_or_default()),
        };
        let mut lines = vec![place(item.line, files)];
        lines.extend(item.vault_lines.iter().map(|&line| place(line, files)));
        let found: Vec<_> =
            item.findings.iter().filter_map(|&number| Some((number, trace.findings.get(number)?))).collect();
        let words: Vec<_> = found
            .iter()
            .map(|(_, finding)| format!("{}: {}", finding.severity.word(), finding.kind.word()))
            .collect();
        let worst = found.iter().min_by_key(|(_, finding)| finding.severity);
        let class = worst.map_or("", |(_, finding)| finding.severity.word());
        let run = item.run.as_deref();
        vec![
            time(Some(item.at)),
            text(item.source.word()),
            Cell::new("event", &*item.event),
            outcome,
            text(item.state.clone().unwrap_or_default()),
            id(run.unwrap_or_default()).to("run", run.and_then(|run| runs.get(run).copied())),
            id(item.lease_id.clone().or_else(|| item.path.clone()).unwrap_or_default()),
            text(item.caller.clone().unwrap_or_default()),
            Cell::new("detail", item.detail.clone().unwrap_or_default()),
            Cell::new(class, words.join(", ")).to("finding", worst.map(|(number, _)| *number)),
            id(lines.join(" ")),
        ]
    });
    let heads = &[
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
    Table::new(("timeline", "Timeline", caption), heads, Some("item"), rows)
}

/// What was read, below `folder`.
pub(super) fn files<'a>(files: &'a [FileSeen], folder: &str) -> Table<'a> {
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
    let heads = &["File", "Broker's lines", "Vault's lines", "Histories", "Passed over", "First", "Last"];
    let below = if folder.is_empty() { String::new() } else { format!(" Names are below {folder}.") };
    let caption = format!("What was read; times are those of brokers' lines.{below}");
    Table::new(("files", "Files", &caption), heads, None, rows)
}

pub(super) fn coverage(report: &Report) -> Table<'_> {
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
        (
            "Lines that anchors in Vault's log confirm",
            format!(
                "{} of {}{}",
                seen.anchored_lines,
                seen.anchored_lines + seen.unanchored_lines,
                seen.unanchored_since.map_or_else(String::new, |since| format!("; others since {since}"))
            ),
        ),
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
    Table::new(("coverage", "Coverage", caption), &["What", "How much"], None, rows)
}

pub(super) fn totals(report: &Report) -> [Table<'_>; 4] {
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
    let heads = &["Workload", "State", "Runs", "Ended", "Revoked", "Verified", "Reads", "Refused"];
    let work = Table::new(
        ("work", "Work", "Runs by state machine and state, or by what they are."),
        heads,
        None,
        rows,
    );
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
    let heads = &["Subject", "Kind", "Assurance", "Issuer", "Runs", "Reads", "Refused", "First", "Last"];
    let subjects = Table::new(("subjects", "Subjects", "On whose behalf runs acted."), heads, None, rows);
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
    let heads = &["Path", "Reads", "Runs", "Subjects", "Leases", "Refused", "Last"];
    let secrets =
        Table::new(("secrets", "Secrets", "What was read: paths, and never a value."), heads, None, rows);
    let rows = report.denials.iter().map(|one| {
        vec![text(&*one.event), text(&*one.by), number(one.count), number(one.runs), time(Some(one.last))]
    });
    let heads = &["What", "By", "Times", "Runs", "Last"];
    let refused =
        Table::new(("refused", "Refused", "What was refused, and what decided."), heads, None, rows);
    [work, subjects, secrets, refused]
}
