//! The timeline as a drawing: executions' states, the runs of each, their leases below them, and what happened as marks.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use super::Text;
use super::marks::mark;
use super::tables::state;
use crate::audit::At;
use crate::audit::trace::output::{Item, LeaseSeen, RunSeen, Source, StateSeen, Trace};

/// Rows that are drawn; the tables have all.
const ROWS: usize = 400;

/// Most rows of one picture: so many go onto a sheet of paper, and each picture has the times above it.
const PICTURE: usize = 33;

/// Marks that are drawn in one row.
const MARKS: usize = 400;

/// Of a picture, in its own units.
const WIDTH: f64 = 1100.0;
const LABELS: f64 = 260.0;
const RIGHT: f64 = 20.0;
const ROW: f64 = 20.0;
const HEAD: f64 = 30.0;

/// Marks that are nearer than this are one.
const NEAR: f64 = 7.0;

enum Row<'a> {
    Head(String),
    State(usize, &'a StateSeen),
    Run(usize, &'a RunSeen, Vec<(usize, &'a Item)>),
    Lease(usize, &'a LeaseSeen),
    Beside(Vec<(usize, &'a Item)>),
}

/// The drawing, or nothing where there is nothing to draw.
pub(super) fn draw(trace: &Trace) -> String {
    let mut out = String::new();
    let rows = rows(trace);
    let Some(scale) = Scale::of(trace) else { return out };
    if rows.is_empty() {
        return out;
    }
    out.push_str(LEGEND);
    out.push_str("<a class=\"skip\" href=\"#drawn\">Skip the drawing</a>\n<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-labelledby=\"drawing\">\n");
    let shown = &rows[..rows.len().min(ROWS)];
    let pictures = pictures(shown);
    let mut execution = None;
    for (number, rows) in pictures.iter().enumerate() {
        // What goes on in the next picture says there again whose it is.
        let again = match rows.first() {
            Some(Row::Head(_)) | None => None,
            Some(_) => execution.map(|head: &str| format!("{head}, continued")),
        };
        execution = rows
            .iter()
            .rev()
            .find_map(|row| if let Row::Head(head) = row { Some(head.as_str()) } else { None })
            .or(execution);
        picture(trace, &scale, (number, pictures.len()), again, rows, &mut out);
    }
    let more = match rows.len() - shown.len() {
        0 => String::new(),
        more => format!("{more} more rows are not drawn. "),
    };
    let _ = writeln!(
        out,
        "</div>\n<p class=\"note\" id=\"drawn\">{more}The tables below have all that is drawn, and more.</p>"
    );
    out
}

/// Rows for each picture, about as many for each; a heading is not the last of one.
fn pictures<'a, 'b>(rows: &'b [Row<'a>]) -> Vec<&'b [Row<'a>]> {
    let most = rows.len().div_ceil(rows.len().div_ceil(PICTURE).max(1));
    let (mut pictures, mut rest) = (Vec::new(), rows);
    while !rest.is_empty() {
        let mut end = rest.len().min(most);
        if end < rest.len() && end > 1 && matches!(rest[end - 1], Row::Head(_)) {
            end -= 1;
        }
        let (these, others) = rest.split_at(end);
        pictures.push(these);
        rest = others;
    }
    pictures
}

fn picture(
    trace: &Trace,
    scale: &Scale,
    (number, of): (usize, usize),
    again: Option<String>,
    rows: &[Row<'_>],
    out: &mut String,
) {
    let again = again.map(Row::Head);
    let rows = || again.iter().chain(rows);
    let height = HEAD + ROW * rows().count() as f64 + 6.0;
    let part = if of > 1 { format!(", part {} of {of}", number + 1) } else { String::new() };
    let _ = writeln!(
        out,
        "<svg class=\"drawing\" viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"group\" aria-labelledby=\"picture-{number}\" \
         aria-describedby=\"pictured-{number}\">\n<title id=\"picture-{number}\">Runs and leases from {} to {}{part}</title>\n\
         <desc id=\"pictured-{number}\">Bars of states, runs and leases, and marks of what happened, from left to right in time. \
         Each leads to its row in a table below.</desc>",
        scale.from, scale.to
    );
    scale.grid(height, out);
    for (number, row) in rows().enumerate() {
        let y = HEAD + ROW * number as f64;
        match row {
            Row::Head(text) => label("head", text, 0, y, out),
            Row::State(number, state) => {
                label("", &state.name, 1, y, out);
                let what = format!("State {} from {} to {}", state.name, state.entered, state.exited);
                scale.bar("state", (state.entered, state.exited), y, &what, ("state", *number), out);
            }
            Row::Run(number, run, marks) => {
                let state = state(run);
                let name = if state.is_empty() { &run.kind } else { &state };
                label("", &format!("{name} {}", run.id), 1, y, out);
                let how = match run.ended {
                    Some(end) => format!("to {end}"),
                    None => "without an end".to_owned(),
                };
                let what = format!("Run {}, {name}, from {} {how}", run.id, run.began);
                let class = if run.ended.is_some() { "run" } else { "run open" };
                let end = run.ended.unwrap_or(run.last);
                scale.bar(class, (run.began, end), y, &what, ("run", *number), out);
                scale.marks(trace, marks, y, out);
            }
            Row::Lease(number, lease) => {
                label("dim", &lease.path, 2, y, out);
                let how = if lease.revoked { "revoked" } else { "by expiry" };
                let what = format!("Lease {} from {} to {}, {how}", lease.id, lease.minted, lease.ended);
                let class = if lease.revoked { "lease" } else { "lease open" };
                scale.bar(class, (lease.minted, lease.ended), y, &what, ("lease", *number), out);
            }
            Row::Beside(marks) => {
                label("", "beside the broker", 1, y, out);
                scale.marks(trace, marks, y, out);
            }
        }
    }
    out.push_str("</svg>\n");
}

/// What each shape means. The shapes are those of the drawing.
const LEGEND: &str = include_str!("legend.html");

fn rows<'a>(trace: &'a Trace) -> Vec<Row<'a>> {
    let mut items: BTreeMap<&str, Vec<(usize, &Item)>> = BTreeMap::new();
    let mut beside = Vec::new();
    for (number, item) in trace.timeline.iter().enumerate() {
        match &item.run {
            Some(run) => items.entry(run).or_default().push((number, item)),
            _ if item.source == Source::Vault => beside.push((number, item)),
            _ => {}
        }
    }
    let mut leases: BTreeMap<&str, Vec<(usize, &LeaseSeen)>> = BTreeMap::new();
    for (number, lease) in trace.leases.iter().enumerate() {
        leases.entry(&lease.run).or_default().push((number, lease));
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
    let mut runs: BTreeMap<Option<&str>, Vec<(usize, &RunSeen)>> = BTreeMap::new();
    for (number, run) in trace.runs.iter().enumerate() {
        runs.entry(run.execution_arn.as_deref()).or_default().push((number, run));
    }
    let mut with_leases = |number, run: &'a RunSeen, rows: &mut Vec<Row<'a>>| {
        rows.push(Row::Run(number, run, items.remove(run.id.as_str()).unwrap_or_default()));
        let leases = leases.remove(run.id.as_str()).unwrap_or_default();
        rows.extend(leases.into_iter().map(|(number, lease)| Row::Lease(number, lease)));
    };
    let mut rows = Vec::new();
    for (arn, _) in &executions {
        rows.push(Row::Head(if arn.is_empty() {
            "An execution that is not told".to_owned()
        } else {
            (*arn).to_owned()
        }));
        let states = trace.states.iter().enumerate().filter(|(_, state)| state.execution_arn == *arn);
        rows.extend(states.map(|(number, state)| Row::State(number, state)));
        for &(number, run) in runs.get(&Some(*arn)).into_iter().flatten() {
            with_leases(number, run, &mut rows);
        }
    }
    let others = runs.get(&None).map(Vec::as_slice).unwrap_or_default();
    if !others.is_empty() {
        rows.push(Row::Head("Runs of no execution".to_owned()));
    }
    for &(number, run) in others {
        with_leases(number, run, &mut rows);
    }
    beside.extend(items.into_values().flatten());
    if !beside.is_empty() {
        beside.sort_by_key(|&(number, _)| number);
        rows.push(Row::Head("In Vault's log, of no run that is shown".to_owned()));
        rows.push(Row::Beside(beside));
    }
    rows
}

/// Within its own row, and left of the bars where it has some: a picture in the picture cuts off what is wider after all.
fn label(class: &str, text: &str, depth: u32, y: f64, out: &mut String) {
    let x = 4.0 + f64::from(depth) * 10.0;
    let width = if depth == 0 { WIDTH } else { LABELS - 8.0 };
    let short = fitting(text, width - x, class == "head");
    let class = if class.is_empty() { String::new() } else { format!(" class=\"{class}\"") };
    let _ = write!(
        out,
        "<svg y=\"{y:.1}\" width=\"{width}\" height=\"{ROW}\"><text{class} x=\"{x}\" y=\"14\">{}",
        Text(&short)
    );
    if short != text {
        let _ = write!(out, "<title>{}</title>", Text(text));
    }
    out.push_str("</text></svg>\n");
}

/// As much of `text` as has room, in a wide one of the fonts that a browser may take.
fn fitting(text: &str, room: f64, bold: bool) -> String {
    let em = if bold { 12.4 } else { 11.0 };
    let mut used = 0.0;
    for (at, c) in text.char_indices() {
        // What steers is shown as its escape.
        used += em * if super::steers(c) { 4.5 } else { ems(c) };
        if used > room {
            let mut short = text[..at].to_owned();
            short.pop();
            short.push('…');
            return short;
        }
    }
    text.to_owned()
}

fn ems(c: char) -> f64 {
    match c {
        'f' | 'i' | 'j' | 'l' | 'r' | 't' | ' ' | '.' | ',' | ':' | ';' | '/' | '-' | '|' | '!' | '\''
        | '(' | ')' | '[' | ']' | 'I' => 0.41,
        'm' | 'w' | 'M' | 'W' | '@' | '%' => 1.0,
        'A'..='Z' | '<' | '>' | '&' | '=' | '+' | '~' => 0.8,
        '\0'..='\u{2ff}' => 0.64,
        '\u{300}'..='\u{10ff}' => 0.8,
        '\u{1100}'..='\u{ffff}' => 1.1,
        _ => 1.4,
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
        LABELS + part.clamp(0.0, 1.0) * (WIDTH - LABELS - RIGHT)
    }

    /// The first time, and steps from it that are easily counted.
    fn grid(&self, height: f64, out: &mut String) {
        let step = step(self.span);
        let steps = self.span.as_nanos().checked_div(step.as_nanos()).unwrap_or_default();
        for number in 0..=u32::try_from(steps).unwrap_or_default() {
            let after = step.saturating_mul(number);
            let x = self.x(self.from.plus(after));
            let _ = writeln!(
                out,
                "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"18\" y2=\"{height:.0}\"/>"
            );
            let (anchor, text) = match number {
                0 => ("start", self.from.to_string()),
                _ => ("middle", format!("+{}", short(after))),
            };
            // The first of them is long.
            if number == 0 || x > LABELS + 190.0 {
                let _ = writeln!(
                    out,
                    "<text class=\"dim\" x=\"{x:.1}\" y=\"12\" text-anchor=\"{anchor}\">{text}</text>"
                );
            }
        }
    }

    /// A bar that leads to a row of a table.
    fn bar(
        &self,
        class: &str,
        (from, to): (At, At),
        y: f64,
        what: &str,
        (table, row): (&str, usize),
        out: &mut String,
    ) {
        let (left, right) = (self.x(from), self.x(to));
        let (top, height) = if class.starts_with("lease") { (y + 6.0, 8.0) } else { (y + 4.0, 12.0) };
        let width = (right - left).max(3.0);
        let _ = write!(
            out,
            "<a href=\"#{table}-{row}\"><rect class=\"{class}\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" \
             height=\"{height}\" rx=\"2\"><title>{}</title></rect>",
            Text(what)
        );
        if to > self.to {
            let middle = top + height / 2.0;
            let _ =
                write!(out, "<path class=\"cut\" d=\"M{:.1} {:.1}l6 4l-6 4\"/>", right + 5.0, middle - 4.0);
        }
        out.push_str("</a>\n");
    }

    /// Marks that would lie over each other are one.
    fn marks(&self, trace: &Trace, mut items: &[(usize, &Item)], y: f64, out: &mut String) {
        for _ in 0..MARKS {
            let Some((_, first)) = items.first() else { break };
            let x = self.x(first.at);
            let near = items.iter().take_while(|(_, item)| self.x(item.at) - x < NEAR).count().max(1);
            let (these, rest) = items.split_at(near);
            mark(trace, these, x, y + 10.0, out);
            items = rest;
        }
    }
}

/// A whole number of days as such; humantime makes months of them.
fn short(span: Duration) -> String {
    match span.as_secs() / 86_400 {
        0 => humantime::format_duration(span).to_string(),
        days => match span.saturating_sub(Duration::from_secs(days * 86_400)) {
            Duration::ZERO => format!("{days}d"),
            rest => format!("{days}d {}", humantime::format_duration(rest)),
        },
    }
}

/// The smallest of these steps that makes six or fewer of a span.
fn step(span: Duration) -> Duration {
    const MILLIS: [u64; 27] = [
        1,
        2,
        5,
        10,
        20,
        50,
        100,
        200,
        500,
        1_000,
        2_000,
        5_000,
        10_000,
        15_000,
        30_000,
        60_000,
        120_000,
        300_000,
        600_000,
        1_800_000,
        3_600_000,
        7_200_000,
        21_600_000,
        43_200_000,
        86_400_000,
        172_800_000,
        604_800_000,
    ];
    let steps = MILLIS.into_iter().map(Duration::from_millis);
    steps.into_iter().find(|step| span <= *step * 6).unwrap_or_else(|| whole_weeks(span))
}

fn whole_weeks(span: Duration) -> Duration {
    const WEEK: u64 = 604_800;
    Duration::from_secs((span.as_secs() / 6 / WEEK + 1) * WEEK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_has_a_few_lines_of_round_steps() {
        for (span, want) in [
            (Duration::from_millis(1), Duration::from_millis(1)),
            (Duration::from_millis(6_000), Duration::from_secs(1)),
            (Duration::from_secs(301), Duration::from_secs(60)),
            (Duration::from_secs(7 * 86_400), Duration::from_secs(172_800)),
            (Duration::from_secs(3_000 * 86_400), Duration::from_secs(72 * 604_800)),
        ] {
            assert_eq!(step(span), want, "{span:?}");
        }
        assert_eq!(short(Duration::from_secs(40 * 86_400)), "40d");
        assert_eq!(short(Duration::from_secs(36 * 3_600)), "1d 12h");
        assert_eq!(short(Duration::from_secs(90)), "1m 30s");
        for days in [1, 50, 100, 365, 100_000] {
            let span = Duration::from_secs(days * 86_400);
            assert!(span <= step(span) * 6, "{days}");
        }
    }

    #[test]
    fn what_has_no_room_is_shortened() {
        assert_eq!(fitting("Reserve", 100.0, false), "Reserve");
        assert_eq!(fitting("WWWWWWWWWWWW", 40.0, false), "WW…");
        assert_eq!(fitting("\u{202e}\u{202e}", 40.0, false), "…");
        assert_eq!(fitting("", 0.0, false), "");
    }
}
