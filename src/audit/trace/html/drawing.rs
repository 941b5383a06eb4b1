//! The timeline as a drawing: executions' states, the runs of each, their leases below them, and what happened as marks.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use super::Text;
use crate::audit::trace::at::At;
use crate::audit::trace::output::{Item, LeaseSeen, RunSeen, Source, StateSeen, Trace};

/// Rows that are drawn; the table has all.
const ROWS: usize = 400;

/// Marks that are drawn in one row.
const MARKS: usize = 400;

/// Of the picture, in its own units.
const WIDTH: f64 = 1100.0;
const LABELS: f64 = 260.0;
const ROW: f64 = 20.0;
const HEAD: f64 = 30.0;

enum Row<'a> {
    Head(String),
    State(&'a StateSeen),
    Run(&'a RunSeen, Vec<(usize, &'a Item)>),
    Lease(&'a LeaseSeen),
    Beside(Vec<(usize, &'a Item)>),
}

pub(super) fn draw(trace: &Trace, out: &mut String) {
    let rows = rows(trace);
    let Some(scale) = Scale::of(trace) else { return };
    if rows.is_empty() {
        return;
    }
    out.push_str(
        "<section aria-labelledby=\"drawing\">\n<h2 id=\"drawing\">Drawing</h2>\n<div class=\"scroll\">\n",
    );
    let shown = &rows[..rows.len().min(ROWS)];
    let height = HEAD + ROW * shown.len() as f64 + 10.0;
    let _ = writeln!(
        out,
        "<svg viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"group\" aria-labelledby=\"drawing-title drawing-what\">\n\
         <title id=\"drawing-title\">Runs and leases from {} to {}</title>\n\
         <desc id=\"drawing-what\">Grey bars are states of executions, blue bars are runs, green bars below a run are its leases. \
         Marks are lines of the logs; each leads to its row in the table of the timeline, which has the same content.</desc>",
        scale.from, scale.to
    );
    scale.grid(height, out);
    for (number, row) in shown.iter().enumerate() {
        let y = HEAD + ROW * number as f64;
        match row {
            Row::Head(text) => {
                let _ = writeln!(
                    out,
                    "<text class=\"head\" x=\"4\" y=\"{:.1}\">{}</text>",
                    y + 14.0,
                    Text(&shortened(text, 120))
                );
            }
            Row::State(state) => {
                label(&state.name, 1, y, out);
                let what = format!("State {} from {} to {}", state.name, state.entered, state.exited);
                scale.bar("state", state.entered, state.exited, y, &what, None, out);
            }
            Row::Run(run, marks) => {
                label(&format!("{} {}", run.state.as_deref().unwrap_or(&run.kind), run.id), 1, y, out);
                let end = run.ended.unwrap_or(run.last);
                let how = match run.ended {
                    Some(end) => format!("to {end}"),
                    None => "without an end".to_owned(),
                };
                let what = format!("Run {} from {} {how}", run.id, run.began);
                let class = if run.ended.is_some() { "run" } else { "run open" };
                scale.bar(
                    class,
                    run.began,
                    end,
                    y,
                    &what,
                    Some(&format!("run-{}", position(trace, run))),
                    out,
                );
                scale.marks(marks, y, out);
            }
            Row::Lease(lease) => {
                label(&lease.path, 2, y, out);
                let how = if lease.revoked { "revoked" } else { "by expiry" };
                let what = format!("Lease {} from {} to {}, {how}", lease.id, lease.minted, lease.ended);
                let class = if lease.revoked { "lease" } else { "lease open" };
                scale.bar(class, lease.minted, lease.ended, y, &what, None, out);
            }
            Row::Beside(marks) => {
                label("beside the broker", 1, y, out);
                scale.marks(marks, y, out);
            }
        }
    }
    out.push_str("</svg>\n</div>\n");
    out.push_str(
        "<p class=\"note\">Grey: states. Blue: runs; pale where no end is told. Green: leases; pale where they end by \
         expiry. ○ happened, × refused or failed, ◆ Vault's log alone; a red ring proves a finding.</p>\n",
    );
    if rows.len() > shown.len() {
        let _ = writeln!(
            out,
            "<p>{} more rows are not drawn; the tables have all.</p>",
            rows.len() - shown.len()
        );
    }
    out.push_str("</section>\n");
}

fn position(trace: &Trace, run: &RunSeen) -> usize {
    trace.runs.iter().position(|other| other.id == run.id).unwrap_or_default()
}

fn rows(trace: &Trace) -> Vec<Row<'_>> {
    let mut items: BTreeMap<&str, Vec<(usize, &Item)>> = BTreeMap::new();
    let mut beside = Vec::new();
    for (number, item) in trace.timeline.iter().enumerate() {
        match &item.run {
            Some(run) => items.entry(run).or_default().push((number, item)),
            _ if item.source == Source::Vault => beside.push((number, item)),
            _ => {}
        }
    }
    let mut leases: BTreeMap<&str, Vec<&LeaseSeen>> = BTreeMap::new();
    for lease in &trace.leases {
        leases.entry(&lease.run).or_default().push(lease);
    }
    // Executions in the order in which they began, those without one last.
    let mut executions: Vec<(&str, At)> = Vec::new();
    let firsts = trace
        .states
        .iter()
        .map(|state| (state.execution_arn.as_str(), state.entered))
        .chain(trace.runs.iter().filter_map(|run| Some((run.execution_arn.as_deref()?, run.began))));
    for (arn, at) in firsts {
        match executions.iter_mut().find(|(known, _)| *known == arn) {
            Some((_, first)) => *first = at.min(*first),
            None => executions.push((arn, at)),
        }
    }
    executions.sort_by_key(|&(arn, at)| (at, arn));
    let mut rows = Vec::new();
    for (arn, _) in &executions {
        rows.push(Row::Head(if arn.is_empty() {
            "An execution that is not told".to_owned()
        } else {
            (*arn).to_owned()
        }));
        rows.extend(trace.states.iter().filter(|state| state.execution_arn == *arn).map(Row::State));
        for run in trace.runs.iter().filter(|run| run.execution_arn.as_deref() == Some(arn)) {
            rows.push(Row::Run(run, items.remove(run.id.as_str()).unwrap_or_default()));
            rows.extend(leases.remove(run.id.as_str()).unwrap_or_default().into_iter().map(Row::Lease));
        }
    }
    let mut others = trace.runs.iter().filter(|run| run.execution_arn.is_none()).peekable();
    if others.peek().is_some() {
        rows.push(Row::Head("Runs of no execution".to_owned()));
    }
    for run in others {
        rows.push(Row::Run(run, items.remove(run.id.as_str()).unwrap_or_default()));
        rows.extend(leases.remove(run.id.as_str()).unwrap_or_default().into_iter().map(Row::Lease));
    }
    beside.extend(items.into_values().flatten());
    if !beside.is_empty() {
        beside.sort_by_key(|&(number, _)| number);
        rows.push(Row::Head("In Vault's log, of no run that is shown".to_owned()));
        rows.push(Row::Beside(beside));
    }
    rows
}

fn label(text: &str, depth: u32, y: f64, out: &mut String) {
    let class = if depth > 1 { " class=\"dim\"" } else { "" };
    let x = 4.0 + f64::from(depth) * 10.0;
    let _ =
        writeln!(out, "<text{class} x=\"{x}\" y=\"{:.1}\">{}</text>", y + 14.0, Text(&shortened(text, 38)));
}

fn shortened(text: &str, most: usize) -> String {
    match text.chars().count() > most {
        true => text.chars().take(most - 1).chain(['…']).collect(),
        false => text.to_owned(),
    }
}

/// From times to places.
struct Scale {
    from: At,
    to: At,
    span: Duration,
}

impl Scale {
    /// From the first to the last of what happened. A lease may end later: it is cut off.
    fn of(trace: &Trace) -> Option<Self> {
        let items = trace.timeline.iter().map(|item| item.at);
        let runs = trace.runs.iter().flat_map(|run| [run.began, run.last]);
        let states = trace.states.iter().flat_map(|state| [state.entered, state.exited]);
        let times: Vec<At> = items.chain(runs).chain(states).collect();
        let (from, to) = (*times.iter().min()?, *times.iter().max()?);
        let span = to.since(from).max(Duration::from_millis(1));
        Some(Self { from, to, span })
    }

    fn x(&self, at: At) -> f64 {
        let part = at.since(self.from).as_secs_f64() / self.span.as_secs_f64();
        LABELS + part.clamp(0.0, 1.0) * (WIDTH - LABELS - 20.0)
    }

    fn grid(&self, height: f64, out: &mut String) {
        for part in 0..=4 {
            let after = self.span / 4 * part;
            let x = self.x(self.from.plus(after));
            let text = match part {
                0 => self.from.to_string(),
                _ => format!("+{}", humantime::format_duration(rounded(after))),
            };
            let anchor = if part == 4 { "end" } else { "start" };
            let _ = writeln!(
                out,
                "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"18\" y2=\"{height:.0}\"/>\
                 <text class=\"dim\" x=\"{x:.1}\" y=\"12\" text-anchor=\"{anchor}\">{text}</text>"
            );
        }
    }

    #[expect(clippy::too_many_arguments, reason = "a bar is all of these")]
    fn bar(&self, class: &str, from: At, to: At, y: f64, what: &str, row: Option<&str>, out: &mut String) {
        let (left, right) = (self.x(from), self.x(to));
        let (top, height) = if class.starts_with("lease") { (y + 6.0, 8.0) } else { (y + 3.0, 14.0) };
        let width = (right - left).max(2.0);
        if let Some(row) = row {
            let _ = write!(out, "<a href=\"#{row}\">");
        }
        let _ = write!(
            out,
            "<rect class=\"{class}\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height}\" rx=\"2\"><title>{}</title></rect>",
            Text(what)
        );
        if to > self.to {
            let middle = top + height / 2.0;
            let _ =
                write!(out, "<path class=\"cut\" d=\"M{:.1} {:.1}l6 4l-6 4\"/>", right + 4.0, middle - 4.0);
        }
        out.push_str(if row.is_some() { "</a>\n" } else { "\n" });
    }

    fn marks(&self, items: &[(usize, &Item)], y: f64, out: &mut String) {
        let middle = y + 10.0;
        for (number, item) in items.iter().take(MARKS) {
            let x = self.x(item.at);
            let refused = matches!(item.outcome.as_deref(), Some("denied" | "failed"));
            let outcome = item.outcome.as_deref().unwrap_or_default();
            let path = item.path.as_deref().unwrap_or_default();
            let title = format!("{} {} {} {outcome} {path}", item.at, item.source.word(), item.event);
            let _ = write!(out, "<a href=\"#item-{number}\">");
            if !item.findings.is_empty() {
                let _ = write!(out, "<circle class=\"proves\" cx=\"{x:.1}\" cy=\"{middle:.1}\" r=\"7\"/>");
            }
            if refused {
                let _ = write!(
                    out,
                    "<circle class=\"plate\" cx=\"{x:.1}\" cy=\"{middle:.1}\" r=\"6\"/>\
                     <path class=\"mark refused\" d=\"M{:.1} {:.1}l8 8m0 -8l-8 8\">",
                    x - 4.0,
                    middle - 4.0
                );
            } else if item.source == Source::Vault {
                let _ = write!(
                    out,
                    "<path class=\"mark beside\" d=\"M{x:.1} {:.1}l5 5l-5 5l-5 -5z\">",
                    middle - 5.0
                );
            } else {
                let _ = write!(
                    out,
                    "<path class=\"mark\" d=\"M{:.1} {middle:.1}a3 3 0 1 0 6 0a3 3 0 1 0 -6 0z\">",
                    x - 3.0
                );
            }
            let _ = writeln!(out, "<title>{}</title></path></a>", Text(&title));
        }
    }
}

/// To what can be read beside a line of the grid.
fn rounded(span: Duration) -> Duration {
    match span.as_secs() {
        0..10 => Duration::from_millis(u64::try_from(span.as_millis()).unwrap_or_default()),
        seconds @ 10..36_000 => Duration::from_secs(seconds),
        seconds => Duration::from_secs(seconds / 60 * 60),
    }
}
