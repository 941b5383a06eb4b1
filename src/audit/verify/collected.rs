//! Lines that a pipeline collected: of many brokers, each with a chain of its own, in one file.
//!
//! A broker's own file is as it was written, so any other order is a finding there. A pipeline keeps no order between
//! brokers, a bad one within a broker, and delivers at least once. None of that can hide anything: a line says which one it
//! follows, and two lines with one hash are one line. So each line is put where its chain has it, and a copy is counted;
//! neither is a finding. What is left are those that a chain can show: a line that was changed, is missing, or was put in.
//!
//! **Which chain.** A line goes on the chain that ends in the hash that it names: so a boot may go on with the chain of the
//! one before, as it does in a file. Else it is of the chain of its boot.
//!
//! **Memory** is where each chain ends, the lines that came before their turn, and the hashes of the last lines: some hundred
//! bytes for each chain, and at most some 50 MB for the rest.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use super::report::{ChainSeen, Kind, Report};
use super::{Hash, Head, Item, Seen};

#[cfg(test)]
mod tests;

/// Lines that wait for those before them, in all chains. When there are more, those before are missing.
const MOST_HELD: usize = 100_000;

/// So many lines back a copy is known for one.
const REMEMBERED: usize = 1 << 17;

/// Damaged lines, and gaps, that are remembered to be matched with what comes later.
const MOST_MARKS: usize = 100_000;

/// A good line, wherever it came.
#[derive(Clone, Debug)]
struct Taken {
    at: u64,
    seq: u64,
    prev: Hash,
    hash: Hash,
    boot: String,
    time: String,
    /// It is the first one of a file that goes on from another.
    reopens: bool,
}

/// One chain, as far as it was followed.
#[derive(Debug)]
struct Chain {
    seen: ChainSeen,
    /// Where it is: the number of its last line, and the line of the input that it is. 0 before the first.
    seq: u64,
    at: u64,
    /// What the next line must name; `None` after one whose hash is not known for sure.
    prev: Option<Hash>,
    /// What the last line says to be its hash, where it is damaged.
    stated: Option<Hash>,
    begun: bool,
    last_boot: String,
    /// Lines that came before their turn.
    held: BTreeMap<(u64, u64), Taken>,
    /// Another line that says to be the last one.
    rival: Option<(Hash, u64)>,
    gaps: Vec<(u64, u64)>,
}

/// Everything that was collected, line by line.
pub(super) struct Collected<'s> {
    report: Report,
    chains: Vec<Chain>,
    by_boot: HashMap<String, usize>,
    /// The chain that ends in that hash.
    by_head: HashMap<Hash, usize>,
    /// Chains of which the beginning is not known, by the hash that the first of their lines names.
    waiting: HashMap<Hash, usize>,
    /// The hashes that damaged lines state: the line after each names it.
    damaged: HashSet<Hash>,
    recent: Recent,
    held: usize,
    gaps: usize,
    show: &'s mut dyn FnMut(&Seen<'_>),
}

/// The last hashes.
#[derive(Default)]
struct Recent {
    order: VecDeque<Hash>,
    known: HashSet<Hash>,
}

impl Recent {
    /// Whether it is not among them.
    fn is_new(&mut self, hash: Hash) -> bool {
        let new = self.known.insert(hash);
        if new {
            self.order.push_back(hash);
            if self.order.len() > REMEMBERED
                && let Some(oldest) = self.order.pop_front()
            {
                self.known.remove(&oldest);
            }
        }
        new
    }
}

impl Chain {
    fn due(&self) -> u64 {
        self.seq.saturating_add(1)
    }

    fn of(line: &Taken) -> Self {
        Self {
            seen: ChainSeen { boot: line.boot.clone(), ..ChainSeen::default() },
            seq: 0,
            at: 0,
            prev: None,
            stated: None,
            begun: false,
            last_boot: String::new(),
            held: BTreeMap::new(),
            rival: None,
            gaps: Vec::new(),
        }
    }
}

impl<'s> Collected<'s> {
    pub(super) fn new(show: &'s mut dyn FnMut(&Seen<'_>)) -> Self {
        Self {
            report: Report { collected: true, ..Report::new() },
            chains: Vec::new(),
            by_boot: HashMap::new(),
            by_head: HashMap::new(),
            waiting: HashMap::new(),
            damaged: HashSet::new(),
            recent: Recent::default(),
            held: 0,
            gaps: 0,
            show,
        }
    }

    /// Takes the next line.
    pub(super) fn take(&mut self, item: Item) {
        let (Some(_), Some(time)) = (item.good(), item.time.as_ref()) else { return self.faulty(item) };
        let (Some(seq), Some(prev), Some(hash)) = (item.seq, item.prev, item.hash) else { return };
        if seq == 0 {
            let message = "it has the number 0, and lines are counted from 1 on".to_owned();
            return self.add(None, item.at, Some(seq), Kind::NotALine, message);
        }
        if !self.recent.is_new(hash) {
            self.report.repeated += 1;
            return;
        }
        let reopens = item.reopened == Some(Head { seq: seq.wrapping_sub(1), hash: prev });
        let (boot, time) = (item.boot.unwrap_or_default(), time.clone());
        let line = Taken { at: item.at, seq, prev, hash, boot, time, reopens };
        let chain = self.chain_of(&line);
        self.offer(chain, line);
        self.go_on(chain);
        while self.held > MOST_HELD && !self.chains[chain].held.is_empty() {
            self.pass_over(chain);
        }
    }

    /// What was found, once all lines were taken.
    pub(super) fn finish(mut self, lines: u64) -> Report {
        // A chain may turn out to go on with one that is found later: those with the lowest numbers first.
        let first = |of: &Chain| of.held.first_key_value().map_or(0, |((seq, _), _)| *seq);
        let mut order: Vec<_> = self.chains.iter().map(first).enumerate().collect();
        order.sort_by_key(|(_, first)| *first);
        for (chain, _) in order {
            while !self.chains[chain].held.is_empty() {
                self.pass_over(chain);
            }
            let of = &mut self.chains[chain];
            if let Some((_, at)) = of.rival.take() {
                let message = format!(
                    "it was put in, or line {} was: both say to be seq {}, and no line after them tells which one is",
                    of.at, of.seq
                );
                let seq = of.seq;
                self.add(Some(chain), at, Some(seq), Kind::Inserted, message);
            }
        }
        let Self { mut report, chains, .. } = self;
        report.lines = lines;
        report.boots = chains.iter().map(|chain| chain.seen.boots).sum();
        report.problems.sort_by_key(|problem| problem.line);
        let numbered =
            chains.into_iter().enumerate().map(|(number, chain)| ChainSeen { number, ..chain.seen });
        // One whose lines turned out to be of another is none.
        report.chains_are(numbered.filter(|chain| chain.lines > 0));
        report
    }

    fn chain_of(&mut self, line: &Taken) -> usize {
        let known = self.by_boot.get(&line.boot).copied();
        let fits = self.by_head.get(&line.prev).copied();
        if let Some(chain) = fits.filter(|&chain| self.chains[chain].due() == line.seq) {
            // Lines of its boot may have come before the one by which it goes on with this chain.
            let early = known.filter(|&known| !self.chains[known].begun);
            if known.is_none() || early.is_some() {
                self.by_boot.insert(line.boot.clone(), chain);
            }
            if let Some(early) = early {
                let held = std::mem::take(&mut self.chains[early].held);
                self.chains[chain].held.extend(held);
            }
            return chain;
        }
        known.unwrap_or_else(|| {
            self.chains.push(Chain::of(line));
            self.by_boot.insert(line.boot.clone(), self.chains.len() - 1);
            self.chains.len() - 1
        })
    }

    fn offer(&mut self, chain: usize, line: Taken) {
        let of = &mut self.chains[chain];
        if !of.begun && (line.seq == 1 || line.reopens) {
            if line.seq > 1 {
                of.seen.continues = Some(Head { seq: line.seq - 1, hash: line.prev });
                self.begin(chain, line.seq - 1, Some(line.prev));
            } else {
                self.begin(chain, 0, Some(Hash::NONE));
            }
        }
        let of = &mut self.chains[chain];
        if !of.begun || line.seq > of.due() {
            if !of.begun && of.held.first_key_value().is_none_or(|((first, _), _)| line.seq < *first) {
                self.waiting.insert(line.prev, chain);
            }
            self.held += usize::from(of.held.insert((line.seq, line.at), line).is_none());
        } else if line.seq == of.due() {
            // Later ones came before it.
            self.report.late += u64::from(!of.held.is_empty());
            self.place(chain, &line);
        } else {
            self.behind(chain, &line);
        }
    }

    fn begin(&mut self, chain: usize, seq: u64, prev: Option<Hash>) {
        let of = &mut self.chains[chain];
        (of.begun, of.seq, of.prev) = (true, seq, prev);
    }

    /// Takes over the lines of a boot that goes on with this chain, and came before it was known that it does.
    fn join(&mut self, chain: usize) {
        let head = self.chains[chain].prev.or(self.chains[chain].stated);
        let Some(waiting) = head.and_then(|head| self.waiting.remove(&head)) else { return };
        if waiting == chain || self.chains[waiting].begun {
            return;
        }
        let held = std::mem::take(&mut self.chains[waiting].held);
        for line in held.values() {
            self.by_boot.insert(line.boot.clone(), chain);
        }
        self.chains[chain].held.extend(held);
    }

    /// Places those lines whose turn it is now.
    fn go_on(&mut self, chain: usize) {
        loop {
            self.join(chain);
            let of = &mut self.chains[chain];
            let Some((&(seq, _), first)) = of.held.first_key_value() else { return };
            let after = first.prev;
            // The line between is there, and damaged: its place is known by the hash that it states.
            let is_between = Some(seq) == of.seq.checked_add(2) || (!of.begun && seq == 2);
            if is_between && self.damaged.remove(&after) {
                let missing = seq - 1;
                self.begin(chain, missing, None);
                continue;
            }
            if !of.begun || seq > of.due() {
                return;
            }
            let is_due = seq == of.due();
            let Some((_, line)) = of.held.pop_first() else { return };
            self.held = self.held.saturating_sub(1);
            match is_due {
                true => self.place(chain, &line),
                false => self.behind(chain, &line),
            }
        }
    }

    /// Gives up on the lines before the next one that is there.
    fn pass_over(&mut self, chain: usize) {
        let of = &mut self.chains[chain];
        let Some((&(seq, _), line)) = of.held.first_key_value() else { return };
        let (from, mut to, at, before) = (of.due(), seq.saturating_sub(1), line.at, of.at);
        if self.damaged.remove(&line.prev) {
            to = to.saturating_sub(1);
        }
        if from <= to {
            if self.gaps < MOST_MARKS {
                of.gaps.push((from, to));
                self.gaps += 1;
            }
            let which = if from == to { format!("seq {from} is") } else { format!("seq {from}–{to} are") };
            let place = match before {
                0 => "before its first line".to_owned(),
                _ => format!("between line {before} and {at}"),
            };
            self.add(Some(chain), at, Some(from), Kind::Missing, format!("{which} missing {place}"));
        }
        self.begin(chain, seq.saturating_sub(1), None);
        self.go_on(chain);
    }

    fn place(&mut self, chain: usize, line: &Taken) {
        self.judge(chain, line);
        let of = &mut self.chains[chain];
        if let Some(prev) = of.prev
            && self.by_head.get(&prev) == Some(&chain)
        {
            self.by_head.remove(&prev);
        }
        let head = Head { seq: line.seq, hash: line.hash };
        self.by_head.insert(line.hash, chain);
        (of.seq, of.at, of.prev, of.stated, of.rival) = (line.seq, line.at, Some(line.hash), None, None);
        of.seen.saw(head, &line.time);
        if of.last_boot != line.boot {
            of.seen.boots += 1;
            of.last_boot.clone_from(&line.boot);
        }
        let earliest = self.report.first.get_or_insert_with(|| line.time.clone());
        if *earliest > line.time {
            earliest.clone_from(&line.time);
        }
        if self.report.last.as_ref().is_none_or(|last| *last < line.time) {
            self.report.last = Some(line.time.clone());
        }
        (self.show)(&Seen { at: line.at, chain, head, boot: &line.boot, time: &line.time });
    }

    /// Whether the line follows from the last one.
    fn judge(&mut self, chain: usize, line: &Taken) {
        let of = &self.chains[chain];
        let (seq, at, rival) = (of.seq, of.at, of.rival);
        let put_in = |truth: u64| format!("it was put in: line {truth} is the true seq {seq}");
        if of.prev.is_none_or(|prev| prev == line.prev) {
            if let Some((_, other)) = rival {
                self.add(Some(chain), other, Some(seq), Kind::Inserted, put_in(at));
            }
        } else if let Some((_, truth)) = rival.filter(|(hash, _)| *hash == line.prev) {
            self.add(Some(chain), at, Some(seq), Kind::Inserted, put_in(truth));
        } else if seq == 0 {
            let message = "it was changed: the first line of a chain has none before it".into();
            self.add(Some(chain), line.at, Some(line.seq), Kind::Edited, message);
        } else {
            let message =
                format!("it was changed and its hash made anew: line {} names the hash it had", line.at);
            self.add(Some(chain), at, Some(seq), Kind::Edited, message);
        }
    }

    /// A line whose place is taken.
    fn behind(&mut self, chain: usize, line: &Taken) {
        let of = &mut self.chains[chain];
        if line.seq == of.seq && of.prev.is_none() {
            // The damaged one was a copy; this is the line itself.
            of.prev = Some(line.hash);
            self.by_head.insert(line.hash, chain);
            return;
        }
        if line.seq == of.seq && of.rival.is_none() {
            of.rival = Some((line.hash, line.at));
            self.by_head.insert(line.hash, chain);
            return;
        }
        let gap = of.gaps.get(of.gaps.partition_point(|&(_, to)| to < line.seq));
        let is_late = gap.is_some_and(|&(from, _)| from <= line.seq);
        let (kind, message) = match is_late {
            true => (Kind::Reordered, format!("seq {} came so late that it counts as missing", line.seq)),
            false => {
                (Kind::Inserted, format!("seq {} was put in: its place is taken by another line", line.seq))
            }
        };
        self.add(Some(chain), line.at, Some(line.seq), kind, message);
    }

    /// A line that is not good by itself: it is told of, and its place is not missing.
    fn faulty(&mut self, item: Item) {
        let Some((kind, message)) = item.fault else { return };
        let of_boot = item.boot.as_ref().and_then(|boot| self.by_boot.get(boot)).copied();
        let chain = item.prev.and_then(|prev| self.by_head.get(&prev)).copied().or(of_boot);
        let due = chain.map(|chain| &self.chains[chain]).filter(|of| of.begun).map(Chain::due);
        let is_due = due.is_some_and(|_| item.seq == due)
            || (due.is_some() && item.prev == chain.and_then(|of| self.chains[of].prev));
        self.add(chain, item.at, if is_due { due } else { item.seq }, kind, message);
        if let (true, Some(chain), Some(due)) = (is_due, chain, due) {
            let of = &mut self.chains[chain];
            if let Some(prev) = of.prev {
                self.by_head.remove(&prev);
            }
            (of.seq, of.at, of.prev, of.rival) = (due, item.at, None, None);
            // The next line may be of another boot: it names the hash that this one states.
            of.stated = item.hash;
            if let Some(hash) = item.hash {
                self.by_head.insert(hash, chain);
            }
            if let Some(boot) = item.boot {
                self.by_boot.entry(boot).or_insert(chain);
            }
            self.go_on(chain);
        } else if let Some(hash) = item.hash
            && self.damaged.len() < MOST_MARKS
        {
            self.damaged.insert(hash);
            if let Some(chain) = of_boot {
                self.go_on(chain);
            }
        }
    }

    fn add(&mut self, chain: Option<usize>, line: u64, seq: Option<u64>, kind: Kind, message: String) {
        let boot = chain.map(|chain| {
            let of = &mut self.chains[chain].seen;
            of.problems += 1;
            of.boot.clone()
        });
        self.report.add_of(boot, line, seq, kind, message);
    }
}
