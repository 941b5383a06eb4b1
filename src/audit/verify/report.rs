//! What a verification found.

use std::fmt;

use serde::Serialize;

use crate::audit::Head;

/// Said with each report, because it is true of each.
pub const CAVEAT: &str = "A cut tail, or a chain made anew as a whole, cannot be seen in the log alone: \
    compare the head with the last anchor in Vault's audit log.";

/// No more problems are listed one by one.
const LISTED: usize = 1_000;

/// What is wrong with a log at one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A line was changed.
    Edited,
    /// Lines were taken out.
    Missing,
    /// A line stands elsewhere than it was written.
    Reordered,
    /// A line was put in: a copy of another, or a foreign one.
    Inserted,
    /// The last line has no end.
    Torn,
    /// It is not a line of an audit log.
    NotALine,
    /// A new chain begins in the middle.
    Restarted,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The line of the file, from 1 on: the one at fault, or for missing lines the one after them.
    pub line: u64,
    /// The number that the line has, or should have, in its chain, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// The boot that began the chain, where several were collected and it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot: Option<String>,
    /// What kind of finding it is.
    pub kind: Kind,
    /// The finding, for a person.
    pub message: String,
}

/// One chain of those that were collected.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ChainSeen {
    /// Which one it is, from 0 on, in the order in which they came.
    pub number: usize,
    /// The boot that began it, or that was seen first of it.
    pub boot: String,
    /// Boots that wrote it, one after the other.
    pub boots: u64,
    /// Its lines, each once, but for damaged ones.
    pub lines: u64,
    /// The time of its first line.
    pub first: String,
    /// The time of its last line.
    pub last: String,
    /// The head that its first line says to go on from, after a rotation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub continues: Option<Head>,
    /// Where it ends.
    pub head: Option<Head>,
    /// What is wrong with it.
    pub problems: u64,
}

impl ChainSeen {
    pub(super) fn saw(&mut self, head: Head, time: &str) {
        if self.lines == 0 {
            time.clone_into(&mut self.first);
        }
        time.clone_into(&mut self.last);
        self.lines += 1;
        self.head = Some(head);
    }
}

/// What was found in a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Lines read.
    pub lines: u64,
    /// Processes that wrote them.
    pub boots: u64,
    /// Whether it was read as lines of any number of brokers.
    pub collected: bool,
    /// Chains: more than one only where lines were collected.
    pub chains: u64,
    /// The time of the first good line.
    pub first: Option<String>,
    /// The time of the last good line.
    pub last: Option<String>,
    /// The head of the file that this one says it continues, after a rotation. The file before must end in it.
    pub continues: Option<Head>,
    /// Where the chain ends; of several that were collected each has its own.
    pub head: Option<Head>,
    /// Of what was collected: copies of lines, which say nothing new.
    pub repeated: u64,
    /// Of what was collected: lines that came after later ones of their chain.
    pub late: u64,
    /// Of what was collected: each chain, those with problems first, up to the first thousand.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub by_chain: Vec<ChainSeen>,
    /// Chains that are not listed.
    pub more_chains: u64,
    /// All findings by line, up to the first thousand.
    pub problems: Vec<Problem>,
    /// Findings that are not listed.
    pub more_problems: u64,
    /// What no verification of a log alone can tell.
    pub caveat: &'static str,
}

impl Report {
    pub(super) fn new() -> Self {
        Self {
            lines: 0,
            boots: 0,
            collected: false,
            chains: 0,
            first: None,
            last: None,
            continues: None,
            head: None,
            repeated: 0,
            late: 0,
            by_chain: Vec::new(),
            more_chains: 0,
            problems: Vec::new(),
            more_problems: 0,
            caveat: CAVEAT,
        }
    }

    /// Whether the chain is whole, as far as the log alone can tell.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.problems.is_empty()
    }

    pub(super) fn add(&mut self, line: u64, seq: Option<u64>, kind: Kind, message: String) {
        self.add_of(None, line, seq, kind, message);
    }

    pub(super) fn add_of(
        &mut self,
        boot: Option<String>,
        line: u64,
        seq: Option<u64>,
        kind: Kind,
        message: String,
    ) {
        if self.problems.len() < LISTED {
            self.problems.push(Problem { line, seq, boot, kind, message });
        } else {
            self.more_problems += 1;
        }
    }
}

impl Report {
    /// Takes down the chains, those with problems first.
    pub(super) fn chains_are(&mut self, chains: impl Iterator<Item = ChainSeen>) {
        let (bad, good): (Vec<_>, Vec<_>) = chains.partition(|chain| chain.problems > 0);
        let all = bad.len() + good.len();
        self.chains = all as u64;
        if let ([only], []) | ([], [only]) = (&bad[..], &good[..]) {
            (self.head, self.continues) = (only.head, only.continues);
        }
        self.by_chain = bad.into_iter().chain(good).take(LISTED).collect();
        self.more_chains = (all - self.by_chain.len()) as u64;
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lines, boots, chains, .. } = self;
        write!(f, "{lines} lines, {boots} boots, {chains} chains")?;
        if let (Some(first), Some(last)) = (&self.first, &self.last) {
            write!(f, ", from {first} to {last}")?;
        }
        writeln!(f)?;
        if let Some(Head { seq, hash }) = self.continues {
            writeln!(f, "continues the file whose head is seq {seq} hash {hash}")?;
        }
        if self.repeated > 0 || self.late > 0 {
            writeln!(
                f,
                "{} lines came more than once and {} after later ones, as pipelines deliver them: each counts once, in its place",
                self.repeated, self.late
            )?;
        }
        for Problem { line, boot, message, .. } in &self.problems {
            match boot {
                Some(boot) => writeln!(f, "line {line}: boot {boot}: {message}")?,
                None => writeln!(f, "line {line}: {message}")?,
            }
        }
        if self.more_problems > 0 {
            writeln!(f, "and {} more problems", self.more_problems)?;
        }
        if self.is_good() {
            f.write_str(if self.collected { "each chain is whole\n" } else { "the chain is whole\n" })?;
        }
        if let Some(Head { seq, hash }) = self.head {
            writeln!(f, "the head is seq {seq} hash {hash}")?;
        }
        f.write_str(self.caveat)
    }
}
