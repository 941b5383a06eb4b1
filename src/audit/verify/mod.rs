//! The auditor's check: reads a log once, from its beginning, and names what is not as it was written.
//!
//! Each line is judged by itself (does its hash fit its bytes?) and against its neighbours (does it name the hash of the
//! line before, has it the next number?). One line of look-ahead tells a line that is out of place from lines that are
//! missing before it: after the former the old count goes on, after the latter the new one does.

use std::collections::BTreeSet;
use std::io::{self, BufRead, Read as _};

use super::chain::{Hash, Head, split, stated};
use super::file::MAX_LINE;
use super::frame::unwrapped;
use super::line::{Line, VERSION};

pub mod anchored;
mod collected;
mod report;
#[cfg(test)]
mod tests;

pub use report::{CAVEAT, ChainSeen, Kind, Problem, Report};

use collected::Collected;

/// Lines out of place, and gaps, that are remembered to be matched with each other.
const REMEMBERED: usize = 100_000;

/// Verifies a log file: one chain.
///
/// # Errors
/// The reader's.
pub fn verify(reader: impl BufRead) -> io::Result<Report> {
    verify_all([reader], &mut |_| {})
}

/// Verifies the files of one chain that was rotated, in their order, and shows each line whose hash fits to `seen`. Lines
/// are counted over all of them.
///
/// # Errors
/// The readers'.
pub fn verify_all(
    readers: impl IntoIterator<Item = impl BufRead>,
    seen: &mut dyn FnMut(&Seen<'_>),
) -> io::Result<Report> {
    let mut walk = Walk::new();
    let mut lines = Lines::of(readers);
    let mut current = lines.next()?;
    while let Some(item) = current {
        if let (Some(line), Some(time)) = (item.good(), &item.time) {
            let head = Head { seq: line.seq, hash: line.hash };
            seen(&Seen { at: line.at, chain: 0, head, boot: line.boot, time });
        }
        let next = lines.next()?;
        walk.step(item, next.as_ref());
        current = next;
    }
    Ok(walk.finish(lines.at))
}

/// Verifies what was collected of any number of brokers, each chain by itself: lines may come between each other in any way,
/// twice, and within a chain out of order. Each line that has its place is shown to `seen`, those of a chain in its order.
/// Lines are counted over all readers.
///
/// # Errors
/// The readers'.
pub fn verify_collected(
    readers: impl IntoIterator<Item = impl BufRead>,
    seen: &mut dyn FnMut(&Seen<'_>),
) -> io::Result<Report> {
    let mut collected = Collected::new(seen);
    let mut lines = Lines::of(readers);
    while let Some(item) = lines.next()? {
        collected.take(item);
    }
    Ok(collected.finish(lines.at))
}

/// A line whose hash fits its bytes, wherever it stands.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// The line, counted over all files.
    pub at: u64,
    /// The chain that it is of, from 0 on, as [`ChainSeen::number`] has it; always 0 for a broker's own file.
    pub chain: usize,
    /// Its number, and its hash.
    pub head: Head,
    /// The boot that wrote it.
    pub boot: &'a str,
    /// When.
    pub time: &'a str,
}

/// The lines of several files, one after the other.
struct Lines<I, R> {
    readers: I,
    reader: Option<R>,
    bytes: Vec<u8>,
    at: u64,
}

impl<R: BufRead, I: Iterator<Item = R>> Lines<I, R> {
    fn of(readers: impl IntoIterator<Item = R, IntoIter = I>) -> Self {
        Self { readers: readers.into_iter(), reader: None, bytes: Vec::new(), at: 0 }
    }

    fn next(&mut self) -> io::Result<Option<Item>> {
        loop {
            if let Some(reader) = &mut self.reader
                && let Some(item) = read(reader, &mut self.bytes, &mut self.at)?
            {
                return Ok(Some(item));
            }
            self.reader = self.readers.next();
            if self.reader.is_none() {
                return Ok(None);
            }
        }
    }
}

/// A line, judged by itself.
struct Item {
    at: u64,
    time: Option<String>,
    boot: Option<String>,
    seq: Option<u64>,
    prev: Option<Hash>,
    hash: Option<Hash>,
    reopened: Option<Head>,
    /// It was collected in a wrapping, as it is of standard output or syslog: each boot begins a chain there.
    wrapped: bool,
    fault: Option<(Kind, String)>,
}

impl Item {
    fn good(&self) -> Option<Good<'_>> {
        if self.fault.is_some() {
            return None;
        }
        Some(Good {
            at: self.at,
            seq: self.seq?,
            prev: self.prev?,
            hash: self.hash?,
            boot: self.boot.as_deref()?,
            wrapped: self.wrapped,
        })
    }
}

/// A line whose hash fits its bytes.
#[derive(Clone, Copy)]
struct Good<'a> {
    at: u64,
    seq: u64,
    prev: Hash,
    hash: Hash,
    boot: &'a str,
    wrapped: bool,
}

impl Good<'_> {
    fn begins_a_chain(&self) -> bool {
        self.seq == 1 && self.prev == Hash::NONE
    }
}

fn read(reader: &mut impl BufRead, bytes: &mut Vec<u8>, at: &mut u64) -> io::Result<Option<Item>> {
    bytes.clear();
    if reader.by_ref().take(MAX_LINE as u64).read_until(b'\n', bytes)? == 0 {
        return Ok(None);
    }
    *at += 1;
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        return Ok(Some(judge(bytes, *at)));
    }
    let mut item = judge(b"", *at);
    if bytes.len() < MAX_LINE {
        item.fault = Some((Kind::Torn, "the last line is torn: it has no end".into()));
    } else {
        reader.skip_until(b'\n')?;
        item.fault = Some((Kind::NotALine, format!("it is longer than the {MAX_LINE} bytes of a line")));
    }
    Ok(Some(item))
}

fn judge(collected: &[u8], at: u64) -> Item {
    let bytes = &*unwrapped(collected);
    let parsed = serde_json::from_slice::<Line>(bytes);
    let parts = split(bytes);
    let fault = match (&parsed, &parts) {
        (_, Some((content, hash))) if Hash::of(content) != *hash => {
            Some((Kind::Edited, "it was changed: its hash is not that of its content".into()))
        }
        (Ok(line), Some(_)) if line.v != VERSION => {
            Some((Kind::NotALine, format!("its schema version {} is not known", line.v)))
        }
        (Ok(_), Some(_)) => None,
        (Ok(_), None) => Some((Kind::Edited, "it was changed: its hash does not stand at its end".into())),
        (Err(error), _) => Some((Kind::NotALine, format!("it is not a line of an audit log: {error}"))),
    };
    let line = parsed.ok();
    // What a line says that is none by itself is worth knowing: it may be where one is missing.
    let at_its_end = if line.is_none() { stated(bytes) } else { None };
    Item {
        at,
        seq: line.as_ref().map(|line| line.seq).or(at_its_end.map(|(seq, ..)| seq)),
        prev: line.as_ref().map(|line| line.prev).or(at_its_end.map(|(_, prev, _)| prev)),
        hash: parts.map(|(_, hash)| hash),
        reopened: line.as_ref().and_then(|line| line.previous),
        fault,
        wrapped: bytes.len() != collected.len(),
        time: line.as_ref().map(|line| line.time.clone()),
        boot: line.map(|line| line.boot),
    }
}

/// Numbers that were passed over.
struct Gap {
    from: u64,
    to: u64,
    /// The line of the file before the gap, and the one after it.
    between: (u64, u64),
}

/// A good line that is not where the chain goes on.
struct Stray {
    at: u64,
    seq: u64,
    prev: Hash,
    hash: Hash,
}

struct Walk {
    report: Report,
    boots: BTreeSet<String>,
    boot: Option<String>,
    /// The number of the last line of the chain, and the line of the file that it is.
    seq: u64,
    last_at: u64,
    /// What the next line must name; `None` after a line whose hash is not known for sure.
    prev: Option<Hash>,
    /// The hash of the chain's first line.
    first: Option<Hash>,
    gaps: Vec<Gap>,
    strays: Vec<Stray>,
}

impl Walk {
    fn new() -> Self {
        Self {
            report: Report::new(),
            boots: BTreeSet::new(),
            boot: None,
            seq: 0,
            last_at: 0,
            prev: Some(Hash::NONE),
            first: None,
            gaps: Vec::new(),
            strays: Vec::new(),
        }
    }

    fn step(&mut self, item: Item, next: Option<&Item>) {
        let next = next.and_then(Item::good);
        let Some(line) = item.good() else { return self.faulty(item, next) };
        let due = self.seq.saturating_add(1);
        let fits = self.prev.is_none_or(|prev| prev == line.prev);
        let started = self.first.is_some();
        // The place is still to be filled, and the next line fills it: this one does not belong here.
        let is_in_the_way = next.is_some_and(|next| next.seq == due && Some(next.prev) == self.prev);

        if line.seq == due && fits {
            self.accept(&line);
        } else if !started && item.reopened == Some(Head { seq: line.seq.wrapping_sub(1), hash: line.prev }) {
            self.report.continues = item.reopened;
            self.accept(&line);
        } else if self.restarts(&line, next.as_ref()) {
            self.restart(&line);
        } else if line.seq == due {
            self.misfit(&line, is_in_the_way);
        } else if Some(line.prev) == self.prev {
            let message =
                format!("it was changed and its hash made anew: it stands in the place of seq {due}");
            self.report.add(line.at, Some(due), Kind::Edited, message);
            self.place(due, line.at, None);
        } else if line.seq > due && !next.is_some_and(|next| next.seq <= line.seq && !self.is_new_boot(&next))
        {
            self.gap(due, line.seq - 1, line.at);
            self.accept(&line);
        } else if self.strays.len() < REMEMBERED {
            self.strays.push(Stray { at: line.at, seq: line.seq, prev: line.prev, hash: line.hash });
        } else {
            self.report.add(line.at, Some(line.seq), Kind::Inserted, "it is out of place".into());
        }
        self.saw(item);
    }

    /// A line that is not good by itself: it stands in the place that is due, unless its neighbours say otherwise.
    fn faulty(&mut self, item: Item, next: Option<Good<'_>>) {
        let Some((kind, message)) = item.fault else { return };
        let due = self.seq.saturating_add(1);
        if kind == Kind::Torn {
            self.report.add(item.at, Some(due), kind, message);
        } else if next.is_some_and(|next| next.seq == due && Some(next.prev) == self.prev) {
            let kind = if kind == Kind::Edited { Kind::Inserted } else { kind };
            self.report.add(item.at, None, kind, format!("{message}; the chain is whole without it"));
        } else {
            let place =
                item.seq.filter(|&seq| seq > due && next.is_some_and(|next| next.seq == seq.wrapping_add(1)));
            if let Some(seq) = place {
                self.gap(due, seq - 1, item.at);
            }
            let seq = place.unwrap_or(due);
            self.report.add(item.at, Some(seq), kind, message);
            self.first = self.first.or(Some(Hash::NONE));
            self.place(seq, item.at, None);
        }
    }

    /// The number is right, and the hash that it names is not that of the line before.
    fn misfit(&mut self, line: &Good<'_>, is_in_the_way: bool) {
        if is_in_the_way {
            let message = format!("it was put in: the next line is the true seq {}", line.seq);
            return self.report.add(line.at, Some(line.seq), Kind::Inserted, message);
        }
        let rival = self.strays.last().filter(|stray| stray.at + 1 == line.at);
        if rival.is_some_and(|stray| stray.seq == self.seq && stray.hash == line.prev) {
            let message = format!("it was put in: line {} is the true seq {}", line.at - 1, self.seq);
            self.report.add(self.last_at, Some(self.seq), Kind::Inserted, message);
            self.strays.pop();
        } else if self.seq == 0 {
            let message = "it was changed: the first line of a chain has none before it".into();
            self.report.add(line.at, Some(line.seq), Kind::Edited, message);
        } else {
            let message =
                format!("it was changed and its hash made anew: line {} names the hash it had", line.at);
            self.report.add(self.last_at, Some(self.seq), Kind::Edited, message);
        }
        self.accept(line);
    }

    fn is_new_boot(&self, line: &Good<'_>) -> bool {
        line.begins_a_chain() && self.boot.as_deref().is_some_and(|boot| boot != line.boot)
    }

    fn restarts(&self, line: &Good<'_>, next: Option<&Good<'_>>) -> bool {
        self.is_new_boot(line)
            && self.first != Some(line.hash)
            && (next.is_some_and(|next| next.seq == 2 && next.prev == line.hash)
                || !self.gaps.iter().any(|gap| gap.from == 1))
    }

    fn restart(&mut self, line: &Good<'_>) {
        if !line.wrapped {
            let message = format!(
                "a new chain begins: the log before it ended at seq {} and was not continued; if these are lines of several \
                 brokers, as a pipeline collects them, say --collected",
                self.seq
            );
            self.report.add(line.at, Some(1), Kind::Restarted, message);
        }
        self.resolve();
        self.first = None;
        self.accept(line);
    }

    fn accept(&mut self, line: &Good<'_>) {
        if self.first.is_none() {
            self.first = Some(line.hash);
            self.report.chains += 1;
        }
        self.place(line.seq, line.at, Some(line.hash));
        self.report.head = Some(Head { seq: line.seq, hash: line.hash });
    }

    fn place(&mut self, seq: u64, at: u64, hash: Option<Hash>) {
        (self.seq, self.last_at, self.prev) = (seq, at, hash);
    }

    fn gap(&mut self, from: u64, to: u64, at: u64) {
        if self.gaps.len() < REMEMBERED {
            self.gaps.push(Gap { from, to, between: (self.last_at, at) });
        } else {
            self.missing(from, to, (self.last_at, at));
        }
    }

    fn missing(&mut self, from: u64, to: u64, (before, after): (u64, u64)) {
        let which = if from == to { format!("seq {from} is") } else { format!("seq {from}–{to} are") };
        let place = if before == 0 {
            "before the first line".into()
        } else {
            format!("between line {before} and {after}")
        };
        self.report.add(after, Some(from), Kind::Missing, format!("{which} missing {place}"));
    }

    fn saw(&mut self, item: Item) {
        if let Some(time) = item.time {
            self.report.first.get_or_insert_with(|| time.clone());
            self.report.last = Some(time);
        }
        if let Some(boot) = item.boot
            && self.boot.as_ref() != Some(&boot)
        {
            self.boots.insert(boot.clone());
            self.boot = Some(boot);
        }
    }

    /// Matches lines out of place with gaps: what fills one was moved, what fills none was put in.
    fn resolve(&mut self) {
        let mut strays = std::mem::take(&mut self.strays);
        strays.sort_by_key(|stray| (stray.seq, stray.at));
        let mut moved = BTreeSet::new();
        for Stray { at, seq, prev, hash } in strays {
            let gap = self.gaps.partition_point(|gap| gap.to < seq);
            let fills = self.gaps.get(gap).is_some_and(|gap| gap.from <= seq) && moved.insert(seq);
            let is_the_tail = seq == self.seq.saturating_add(1) && self.prev.is_none_or(|last| last == prev);
            if is_the_tail {
                self.place(seq, at, Some(hash));
                self.report.head = Some(Head { seq, hash });
            }
            let (kind, message) = if fills || is_the_tail {
                (Kind::Reordered, format!("seq {seq} was moved here from its place"))
            } else {
                (Kind::Inserted, format!("seq {seq} was put in here: the chain is whole without it"))
            };
            self.report.add(at, Some(seq), kind, message);
        }
        for Gap { from, to, between } in std::mem::take(&mut self.gaps) {
            let mut start = from;
            for seq in moved.range(from..=to).copied().chain([to + 1]) {
                if start < seq {
                    self.missing(start, seq - 1, between);
                }
                start = seq + 1;
            }
        }
    }

    fn finish(mut self, lines: u64) -> Report {
        self.resolve();
        self.report.lines = lines;
        self.report.boots = self.boots.len() as u64;
        self.report.problems.sort_by_key(|problem| problem.line);
        self.report
    }
}
