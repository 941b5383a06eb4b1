//! A log against the anchors that upstream's log has of its chain: what the chain cannot tell by itself.
//!
//! An anchor says that at that time, by upstream's clock, the chain of that boot had that head. So a file whose chain is
//! whole is still not the one that was written where a head is not in it: its tail was cut, it was made anew as a whole, it
//! is another file, or an older state of it that was put back.
//!
//! **Which anchors count.** Whoever has the broker's role can write an anchor. So those of a boot count that were made by
//! who made the boot's first login, as upstream's log has it; others are told. Two that count and contradict each other are
//! a finding.
//!
//! **What no anchor covers** is what came after the last of them: it is stated, not hidden.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use serde::Serialize;

use super::Seen;
use crate::audit::Head;

#[cfg(test)]
mod tests;

/// No more findings of a kind are listed one by one.
const LISTED: usize = 100;

/// An anchor, as upstream's log has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// The boot whose chain it is of.
    pub boot: String,
    /// Where the chain ended.
    pub head: Head,
    /// The last line before the first of the boot; `None` where it does not say.
    pub began: Option<Head>,
    /// Who made it, as upstream knows them; `None` where its log does not say.
    pub by: Option<String>,
    /// When, by upstream's clock, in RFC 3339.
    pub time: String,
    /// Where it stands: file and line.
    pub place: String,
}

/// What upstream's log tells of chains.
#[derive(Debug, Default)]
pub struct Anchors {
    /// In the order of that log.
    anchors: Vec<Anchor>,
    /// Who made the first login of a boot, and when.
    logins: HashMap<String, (String, String)>,
}

/// What is wrong with a log, by its anchors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// Lines are missing at its end that there were.
    CutTail,
    /// The chain was made anew as a whole.
    Rewritten,
    /// It is another file than the one that was anchored.
    Swapped,
    /// It is an older state of the file, put back.
    Replayed,
    /// Two anchors contradict each other.
    Conflict,
    /// An anchor was made by somebody else than who made the boot's first login.
    Foreign,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// What kind of finding it is.
    pub kind: Finding,
    /// The finding, for a person.
    pub message: String,
    /// Where it shows in upstream's log.
    pub place: String,
}

/// What the anchors say of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Anchored {
    /// Anchors of this log's boots, and of those that go on from it, that count.
    pub anchors: usize,
    /// Those of lines before the first: of files that were rotated away, and that are not given.
    pub earlier: usize,
    /// Those of other chains: of other brokers, as far as is known.
    pub others: usize,
    /// How far the log is confirmed: the last line that an anchor names. Of several chains each has its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub covered: Option<Head>,
    /// When that anchor was made, by upstream's clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub covered_at: Option<String>,
    /// Lines after that one, in all chains: changed or cut, that would not show.
    pub uncovered: u64,
    /// When the first of these was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uncovered_since: Option<String>,
    /// Each chain by itself, where there are several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub by_chain: Vec<Cover>,
    /// Chains that no anchor confirms any line of, where there are several.
    pub unconfirmed: u64,
    /// Boots whose first login upstream's log does not name: their anchors are taken at the word of who made the first.
    pub unproved: Vec<String>,
    /// All findings, up to a hundred of each kind.
    pub problems: Vec<Problem>,
}

/// How far one chain is confirmed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cover {
    /// The chain, as the report of the log counts them.
    pub number: usize,
    /// The last line that an anchor names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub covered: Option<Head>,
    /// When that anchor was made, by upstream's clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub covered_at: Option<String>,
    /// Lines after that one.
    pub uncovered: u64,
    /// When the first of these was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uncovered_since: Option<String>,
}

/// A log while it is read, beside the anchors.
#[derive(Debug)]
pub struct Comparison<'a> {
    counted: Vec<&'a Anchor>,
    /// The anchors of each head.
    by_head: HashMap<Head, &'a Anchor>,
    /// The lines that anchors name, as the head or as where the boot began, and whether the log has them.
    named: HashMap<Head, bool>,
    /// The number of the last line of each boot, and the chain that it is of.
    boots: BTreeMap<String, (u64, usize)>,
    /// The number of the first line of each chain.
    begins: HashMap<usize, u64>,
    times: Option<(String, String)>,
    /// Findings on the anchors of a boot; those of other logs' boots are not this one's.
    suspect: Vec<(&'a str, Problem)>,
    /// Boots whose first login is not known.
    unproved: BTreeSet<&'a str>,
    /// How far each chain is confirmed.
    covers: BTreeMap<usize, Cover>,
    result: Anchored,
}

impl Anchors {
    /// Takes an anchor.
    pub fn take(&mut self, anchor: Anchor) {
        self.anchors.push(anchor);
    }

    /// Takes a login that names the boot; the earliest counts.
    pub fn login(&mut self, boot: &str, by: String, time: String) {
        match self.logins.get_mut(boot) {
            Some(known) if known.1 <= time => {}
            Some(known) => *known = (by, time),
            None => drop(self.logins.insert(boot.to_owned(), (by, time))),
        }
    }

    /// Begins to compare a log. Show each of its lines to [`Comparison::see`].
    #[must_use]
    pub fn compare(&self) -> Comparison<'_> {
        let mut suspect: Vec<(&str, Problem)> = Vec::new();
        let mut first_by: HashMap<&str, Option<&str>> = HashMap::new();
        let mut unproved = BTreeSet::new();
        let mut heads: HashMap<(&str, u64), &Anchor> = HashMap::new();
        let mut counted = Vec::new();
        let mut by_head = HashMap::new();
        let mut named = HashMap::new();
        for anchor in &self.anchors {
            let login = self.logins.get(&anchor.boot).map(|(by, _)| by.as_str());
            let first = *first_by.entry(&anchor.boot).or_insert(anchor.by.as_deref());
            if login.is_none() {
                unproved.insert(anchor.boot.as_str());
            }
            if anchor.by.as_deref() != login.or(first) {
                let message = format!(
                    "an anchor of boot {} was made by {}, and the boot logged in as {}: it does not count",
                    anchor.boot,
                    anchor.by.as_deref().unwrap_or("nobody known"),
                    login.or(first).unwrap_or("nobody known"),
                );
                suspect.push((
                    &anchor.boot,
                    Problem { kind: Finding::Foreign, message, place: anchor.place.clone() },
                ));
                continue;
            }
            match heads.get(&(anchor.boot.as_str(), anchor.head.seq)) {
                Some(other) if other.head != anchor.head => {
                    let message = format!(
                        "two anchors of boot {} name different hashes for seq {}: the other is at {}",
                        anchor.boot, anchor.head.seq, other.place
                    );
                    suspect.push((
                        &anchor.boot,
                        Problem { kind: Finding::Conflict, message, place: anchor.place.clone() },
                    ));
                }
                Some(_) => {}
                None => drop(heads.insert((&anchor.boot, anchor.head.seq), anchor)),
            }
            by_head.entry(anchor.head).or_insert(anchor);
            named.extend([Some(anchor.head), anchor.began].into_iter().flatten().map(|head| (head, false)));
            counted.push(anchor);
        }
        Comparison {
            counted,
            by_head,
            named,
            boots: BTreeMap::new(),
            begins: HashMap::new(),
            times: None,
            suspect,
            unproved,
            covers: BTreeMap::new(),
            result: Anchored::default(),
        }
    }
}

impl Comparison<'_> {
    /// Takes the next line of the log.
    pub fn see(&mut self, line: &Seen<'_>) {
        match &mut self.times {
            None => self.times = Some((line.time.to_owned(), line.time.to_owned())),
            // Lines of several brokers are not in the order of their times.
            Some((first, _)) if line.time < first.as_str() => line.time.clone_into(first),
            Some((_, last)) if line.time > last.as_str() => line.time.clone_into(last),
            Some(_) => {}
        }
        match self.boots.get_mut(line.boot) {
            Some(last) => *last = (line.head.seq, line.chain),
            None => drop(self.boots.insert(line.boot.to_owned(), (line.head.seq, line.chain))),
        }
        self.begins.entry(line.chain).or_insert(line.head.seq);
        if let Some(seen) = self.named.get_mut(&line.head) {
            *seen = true;
        }
        let of = self.covers.entry(line.chain).or_default();
        if let Some(anchor) = self.by_head.get(&line.head) {
            of.covered = Some(line.head);
            of.covered_at = Some(anchor.time.clone());
            (of.uncovered, of.uncovered_since) = (0, None);
        } else {
            of.uncovered += 1;
            of.uncovered_since.get_or_insert_with(|| line.time.to_owned());
        }
    }

    /// What the anchors say of the chains, each and all of them.
    fn cover(&mut self) {
        let covers = std::mem::take(&mut self.covers).into_iter();
        let covers: Vec<_> = covers.map(|(number, cover)| Cover { number, ..cover }).collect();
        let result = &mut self.result;
        result.uncovered = covers.iter().map(|cover| cover.uncovered).sum();
        result.uncovered_since = covers.iter().filter_map(|cover| cover.uncovered_since.clone()).min();
        if let [only] = &covers[..] {
            (result.covered, result.covered_at) = (only.covered, only.covered_at.clone());
            return;
        }
        result.unconfirmed = covers.iter().filter(|cover| cover.covered.is_none()).count() as u64;
        result.by_chain = covers;
    }

    /// What comes of it, once all lines were seen. `wanted` are boots whose lines must be among them.
    #[must_use]
    pub fn finish(mut self, wanted: &[String]) -> Anchored {
        self.cover();
        for boot in wanted.iter().filter(|boot| !self.boots.contains_key(*boot)) {
            let known = self.counted.iter().find(|anchor| anchor.boot == *boot);
            let place = known.map_or("", |anchor| &anchor.place);
            let in_vault = if known.is_some() { "anchors of it" } else { "none either" };
            let message = format!(
                "it is another file: none of its lines is of boot {boot}, which was asked for; Vault's log has {in_vault}"
            );
            self.result.add(Finding::Swapped, message, place);
        }
        for (boot, problem) in std::mem::take(&mut self.suspect) {
            if self.boots.contains_key(boot) {
                self.result.add(problem.kind, problem.message, &problem.place);
            }
        }
        let unproved = self.unproved.iter().filter(|boot| self.boots.contains_key(**boot));
        self.result.unproved = unproved.map(|boot| (*boot).to_owned()).collect();
        let mut others = Vec::new();
        for anchor in std::mem::take(&mut self.counted) {
            if self.holds(anchor.head) {
                self.result.anchors += 1;
            } else if let Some(&(last, chain)) = self.boots.get(&anchor.boot) {
                // That lines are missing there, unless the file goes on from another, is told by the chain.
                if self.begins.get(&chain).is_some_and(|&first| anchor.head.seq < first) {
                    self.result.earlier += 1;
                    continue;
                }
                self.result.anchors += 1;
                self.contradicts(anchor, last);
            } else if let Some(began) = anchor.began.filter(|began| began.seq > 0 && self.holds(*began)) {
                self.result.anchors += 1;
                let message = format!(
                    "it is an older state of the file: boot {} went on after seq {}, up to seq {} at least, by {}, and none \
                     of its lines is here",
                    anchor.boot, began.seq, anchor.head.seq, anchor.time
                );
                self.result.add(Finding::Replayed, message, &anchor.place);
            } else {
                others.push(anchor);
            }
        }
        self.result.others = others.len();
        if self.result.anchors + self.result.earlier == 0
            && let Some((first, last)) = &self.times
            && let Some(anchor) = others.iter().find(|anchor| within(&anchor.time, first, last))
        {
            let boots: Vec<_> = self.boots.keys().take(3).map(String::as_str).collect();
            let message = format!(
                "it is another file: a boot is anchored as it begins, and of this file's {} ({}, …) none is, though that log \
                 has anchors of its time, such as one of boot {}",
                self.boots.len(),
                boots.join(", "),
                anchor.boot
            );
            self.result.add(Finding::Swapped, message, &anchor.place);
        }
        self.result
    }

    fn holds(&self, head: Head) -> bool {
        self.named.get(&head).copied().unwrap_or_default()
    }

    /// The boot is in the log, and the line that the anchor names is not.
    fn contradicts(&mut self, anchor: &Anchor, last: u64) {
        let Anchor { boot, head, time, .. } = anchor;
        let (kind, message) = if head.seq > last {
            let message = format!(
                "its tail was cut: boot {boot} had come to seq {} by {time}, and its last line here is seq {last}",
                head.seq
            );
            (Finding::CutTail, message)
        } else {
            let message = format!(
                "it was made anew as a whole: at {time} seq {} of boot {boot} had the hash {}, and here it has another",
                head.seq, head.hash
            );
            (Finding::Rewritten, message)
        };
        self.result.add(kind, message, &anchor.place);
    }
}

/// Whether a time of upstream's clock lies in the time of the log, within a minute: the clocks are not the same.
fn within(time: &str, first: &str, last: &str) -> bool {
    // To the minute, both in UTC.
    let minute = |text: &str| text.get(..16).unwrap_or_default().to_owned();
    (minute(first)..=minute(last)).contains(&minute(time))
}

impl Anchored {
    /// Whether the anchors contradict nothing.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.problems.is_empty()
    }

    fn add(&mut self, kind: Finding, message: String, place: &str) {
        if self.problems.iter().filter(|problem| problem.kind == kind).count() < LISTED {
            self.problems.push(Problem { kind, message, place: place.to_owned() });
        }
    }
}

impl fmt::Display for Anchored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Problem { message, place, .. } in &self.problems {
            writeln!(f, "{place}: {message}")?;
        }
        if !self.unproved.is_empty() {
            writeln!(
                f,
                "the first login of {} boots is not in Vault's log, or its X-Tenure-Request is not audited: their anchors are \
                 taken at the word of who made the first",
                self.unproved.len()
            )?;
        }
        if self.earlier > 0 {
            writeln!(
                f,
                "{} anchors are of lines before the first: of a file that is not given",
                self.earlier
            )?;
        }
        match (&self.covered, &self.covered_at) {
            _ if !self.by_chain.is_empty() => {
                let (all, none) = (self.by_chain.len(), self.unconfirmed);
                writeln!(
                    f,
                    "Vault's log confirms {} of {all} chains, up to where the table says ({} anchors)",
                    all as u64 - none,
                    self.anchors
                )?;
            }
            (Some(head), Some(at)) => {
                writeln!(
                    f,
                    "Vault's log confirms it up to seq {}, at {at} ({} anchors)",
                    head.seq, self.anchors
                )?;
            }
            _ => writeln!(f, "Vault's log confirms none of it")?,
        }
        match (self.uncovered, &self.uncovered_since) {
            (0, _) | (_, None) => f.write_str("no line came after that"),
            (lines, Some(since)) => write!(
                f,
                "not covered yet: {lines} lines from {since} on; had some of them been changed, or others cut off after them, \
                 it would not show"
            ),
        }
    }
}
