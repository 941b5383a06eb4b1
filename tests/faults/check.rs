//! What must hold of everything that was read, asked of upstream and written down.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tenure::audit::{self, Event, Line, Outcome as Ended};

use crate::broker::{Broker, FRESH, STALE};
use crate::readers::{FIRST, LONG, PATHS, Reading, SHORT, VALUE};
use crate::stage::Span;
use crate::table::{CLOSED, Fault, Row};
use crate::vault::{Told, Vault};
use crate::wire::Call;

/// What an answer's way takes at most on a busy machine, from the broker's last look at the clock to the reader's.
const TRANSIT: Duration = Duration::from_millis(500);

/// What may lie between the asking of a value and its arrival: a request takes a second at most.
const UNDER_WAY: Duration = Duration::from_millis(1_200);

/// A credential may end while its line is being written. Then a second line takes that one back, and the broker looks for
/// another: nobody is refused for that.
const TAKEN_BACK: &str = "ended while its audit line was being written";

/// What is listed of one kind of problem.
const LISTED: usize = 3;

/// What came of a row.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) reads: usize,
    /// In percent, of the reads during the fault.
    pub(crate) served: f64,
    /// How often readers were refused, by status and name.
    pub(crate) errors: BTreeMap<String, usize>,
    /// Calls to upstream a second during the fault, and the most for one lease within a second.
    pub(crate) calls: f64,
    pub(crate) per_lease: usize,
    pub(crate) recovery: Duration,
    pub(crate) problems: Vec<String>,
    /// What the broker said, where there are problems.
    pub(crate) log: String,
}

impl Outcome {
    /// It came to nothing.
    pub(crate) fn broken(why: String) -> Self {
        Self { problems: vec![why], ..Self::default() }
    }
}

/// What the readers saw, against what Vault knows and the row allows. The broker still lives: what it revokes at its end
/// was alive.
pub(crate) fn judge(row: &Row, span: &Span, readings: &[Reading], calls: &[Call], vault: &Vault) -> Outcome {
    let mut outcome = Outcome { reads: readings.len(), ..Outcome::default() };
    let bad = readings.iter().filter_map(|reading| wrong(row, span, reading, vault));
    outcome.problems.extend(bad.take(LISTED));
    outcome.problems.extend(readings.iter().filter_map(|reading| misnamed(row, span, reading)).take(LISTED));
    for reading in readings.iter().filter(|reading| !reading.is_served()) {
        let name = reading.error.as_ref().map_or("?", |(name, _)| name.trim_start_matches("Tenure."));
        *outcome.errors.entry(format!("{} {name}", reading.status)).or_default() += 1;
    }
    serve_enough(row, span, readings, &mut outcome);
    call_little(row, span, calls, &mut outcome);
    recover(row, span, readings, &mut outcome);
    outcome
}

/// Why what was served must not have been: it is none of Vault's, of another path, dead, or older than it may be.
fn wrong(row: &Row, span: &Span, reading: &Reading, vault: &Vault) -> Option<String> {
    if !reading.is_served() {
        return None;
    }
    let bad = |why: &str| Some(format!("{why}: {reading:?}"));
    let Some(secret) = &reading.secret else { return bad("an answer without a secret") };
    if reading.path == VALUE {
        let Some(until) = vault.superseded(secret) else { return bad("a value that Vault never had") };
        let is_stale = reading.source.as_deref() == Some("stale");
        let most = if is_stale { STALE } else { FRESH + UNDER_WAY };
        let old = reading.asked.saturating_duration_since(until);
        let frozen = row.fault == Fault::Frozen && reading.asked < span.began;
        return if old > most && !frozen { bad("a value that is older than it may be") } else { None };
    }
    let Some(issued) = vault.issued(secret) else { return bad("a user that Vault never issued") };
    if issued.path != reading.path {
        return bad("a user of another path");
    }
    if reading.source.as_deref() == Some("stale") {
        return bad("a stale user");
    }
    match issued.told {
        Some(Told::NotYet) => None,
        Some(Told::At(told)) if reading.asked > told + TRANSIT => bad("a user that is known to be revoked"),
        Some(Told::At(_)) => None,
        None => {
            // Who was being answered when the process was stopped may be answered when it goes on.
            let under_way = row.fault == Fault::Frozen && reading.asked < span.began;
            let sure = reading.answered.checked_sub(TRANSIT).filter(|_| !under_way);
            let when = sure.map_or(reading.asked, |sure| sure.max(reading.asked));
            if when >= issued.dies {
                return bad("a dead user");
            }
            (reading.asked + reading.left > issued.dies)
                .then(|| format!("a user that is said to live longer than it does: {reading:?}"))
        }
    }
}

/// Why a refusal is not one that the row names.
fn misnamed(row: &Row, span: &Span, reading: &Reading) -> Option<String> {
    if reading.is_served() {
        return None;
    }
    let bad = |why: &str| Some(format!("{why}: {reading:?}"));
    if reading.answered < span.began {
        return bad("refused before the fault");
    }
    let Some((name, text)) = &reading.error else { return bad("a refusal without a name") };
    if !row.errors.iter().any(|(status, named)| reading.status == *status && name == named) {
        return bad("another refusal");
    }
    if matches!(reading.status, 429 | 503) && !reading.retry_after {
        return bad("no Retry-After");
    }
    // A request may be under way when its connection is cut.
    let cut = matches!(row.fault, Fault::Wire(wrong) | Fault::Tls(wrong) if wrong.cuts_connections());
    let also: &[&str] = if cut { CLOSED } else { &[] };
    if !row.says.iter().chain(also).any(|word| text.contains(word)) {
        return bad("a refusal that does not name the fault");
    }
    None
}

fn serve_enough(row: &Row, span: &Span, readings: &[Reading], outcome: &mut Outcome) {
    let mut all = (0, 0);
    for path in PATHS {
        let during =
            readings.iter().filter(|it| it.path == path && (span.began..span.ended).contains(&it.asked));
        let (served, asked) =
            during.fold((0, 0), |(served, asked), it| (served + usize::from(it.is_served()), asked + 1));
        all = (all.0 + served, all.1 + asked);
        let least = match path {
            LONG => row.served.long,
            SHORT => row.served.short,
            VALUE => row.served.value,
            FIRST => row.served.first,
            other => unreachable!("no reader of {other}"),
        };
        if asked == 0 && row.fault == Fault::Frozen {
            // Its one question was under way already.
        } else if asked == 0 {
            outcome.problems.push(format!("nobody asked for {path} during the fault"));
        } else if served * 100 < usize::from(least) * asked {
            outcome.problems.push(format!("{path}: {served} of {asked} reads were served, not {least} %"));
        }
        // A fault that nobody noticed is none.
        if path == FIRST && least == 0 && served == asked {
            outcome.problems.push(format!("all {served} reads of {path} were served: where is the fault?"));
        }
    }
    outcome.served = 100.0 * all.0 as f64 / f64::from(u32::try_from(all.1.max(1)).unwrap_or(u32::MAX));
}

fn call_little(row: &Row, span: &Span, calls: &[Call], outcome: &mut Outcome) {
    let during: Vec<&Call> = calls.iter().filter(|call| call.at < span.ended).collect();
    outcome.calls = during.len() as f64 / (span.ended - span.began).as_secs_f64();
    let mut by_lease: BTreeMap<&str, Vec<Instant>> = BTreeMap::new();
    for call in &during {
        by_lease.entry(&call.about).or_default().push(call.at);
    }
    for (about, at) in by_lease {
        let second = Duration::from_secs(1);
        let within = |from: &Instant| at.iter().filter(|at| (*from..*from + second).contains(*at)).count();
        let most = at.iter().map(within).max().unwrap_or_default();
        // Connections that came to nothing are those of all leases together; a value is asked for five times a second.
        let allowed = match about {
            "connection" => row.calls * 4,
            VALUE => row.calls.max(8),
            _ => row.calls,
        };
        outcome.per_lease = outcome.per_lease.max(most);
        if most > allowed {
            let since: Vec<_> = at.iter().map(|at| at.saturating_duration_since(span.began)).collect();
            outcome
                .problems
                .push(format!("{most} calls for {about} within a second, not {allowed}: {since:?}"));
        }
    }
}

/// From the end of the fault to the last answer that was not good, and to the first good one of each path.
fn recover(row: &Row, span: &Span, readings: &[Reading], outcome: &mut Outcome) {
    let after = || readings.iter().filter(|reading| reading.answered >= span.ended);
    let last_bad = after().filter(|reading| !reading.is_good()).map(|reading| reading.answered).max();
    let mut over = last_bad.unwrap_or(span.ended);
    for path in PATHS {
        let mut good = after().filter(|it| it.path == path && it.asked >= span.ended && it.is_good());
        match good.next() {
            Some(first) => over = over.max(first.answered),
            None => outcome.problems.push(format!("{path} was never served again")),
        }
    }
    outcome.recovery = over - span.ended;
    if outcome.recovery > row.recovery {
        outcome.problems.push(format!(
            "recovered {:?} after the fault, not within {:?}; the last bad answer: {:?}",
            outcome.recovery,
            row.recovery,
            after().filter(|reading| !reading.is_good()).max_by_key(|reading| reading.answered)
        ));
    }
}

/// The audit log, once the broker has ended: whole, one line for each answer, and nothing secret in it or in the log.
pub(crate) fn records(broker: &Broker, readings: &[Reading]) -> Vec<String> {
    let mut problems = Vec::new();
    let log = broker.log();
    if log.contains("panicked") {
        problems.push("the broker panicked".to_owned());
    }
    let mut lines: Vec<Line> = Vec::new();
    let (mut ends, mut begins) = (Vec::new(), Vec::new());
    for entry in std::fs::read_dir(broker.dir.path()).expect("our own directory") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some(number) = name.strip_prefix("audit.jsonl") else { continue };
        // Beside it are the journal, and what was torn.
        if !number.bytes().all(|byte| byte == b'.' || byte.is_ascii_digit()) {
            continue;
        }
        let bytes = std::fs::read(&path).expect("our own file");
        match audit::verify(&bytes[..]) {
            Ok(report) if report.is_good() => {
                ends.extend(report.head);
                begins.push(report.continues);
            }
            Ok(report) => problems.push(format!("{name}: {report}")),
            Err(error) => problems.push(format!("{name} cannot be verified: {error}")),
        }
        let text = String::from_utf8_lossy(&bytes);
        if ["password-", "hvs.0", "value-"].iter().any(|secret| text.contains(secret)) {
            problems.push(format!("a secret is in {name}"));
        }
        let faults = crate::schema::faults_of_lines(&text).into_iter().take(3);
        problems.extend(faults.map(|fault| format!("{name} is not of the schema: {fault}")));
        lines.extend(text.lines().filter_map(|line| serde_json::from_str(line).ok()));
    }
    if ["password-", "hvs.0", "value-"].iter().any(|secret| log.contains(secret)) {
        problems.push("a secret is in the log".to_owned());
    }
    // One file is the first; each of the others goes on where another ends.
    let loose = begins.iter().filter(|begin| begin.is_none_or(|begin| !ends.contains(&begin))).count();
    if loose != 1 {
        problems.push(format!("{loose} of {} files of the log go on from none of the others", begins.len()));
    }
    problems.extend(one_line_each(&lines, readings));
    problems
}

fn one_line_each(lines: &[Line], readings: &[Reading]) -> Vec<String> {
    let mut problems = Vec::new();
    let mut counts: BTreeMap<(String, String), (u64, u64)> = BTreeMap::new();
    let mut unwritten = 0;
    for reading in readings {
        let said = reading.error.as_ref().map_or("", |(_, text)| text);
        if said.contains("audit log") {
            unwritten += 1;
            continue;
        }
        let what = match reading.is_served() {
            true => reading.source.clone().unwrap_or_default(),
            false => "refused".to_owned(),
        };
        counts.entry((reading.path.to_owned(), what)).or_default().0 += 1;
    }
    for line in lines.iter().filter(|line| line.event == Event::Read) {
        let what = match (line.outcome, line.source) {
            (Ended::Granted, Some(source)) => source.word().to_owned(),
            (Ended::Granted, None) => String::new(),
            _ => "refused".to_owned(),
        };
        let path = line.path.clone().unwrap_or_default();
        if line.reason.as_deref().is_some_and(|reason| reason.contains(TAKEN_BACK)) {
            // Neither it nor the one before it belongs to an answer.
            counts.entry((path, "cache".to_owned())).or_default().0 += 1;
            continue;
        }
        counts.entry((path, what)).or_default().1 += 1;
    }
    for ((path, what), (answers, lines)) in counts {
        if answers != lines {
            problems.push(format!("{path}, {what}: {answers} answers and {lines} lines"));
        }
    }
    let recovered = lines.iter().filter_map(|line| line.recovered.as_ref());
    let told: u64 = recovered.map(|recovered| recovered.refused).sum();
    if told != unwritten {
        problems
            .push(format!("{unwritten} reads were refused for want of a line, and the log tells of {told}"));
    }
    problems
}
