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
    /// What kind of finding it is.
    pub kind: Kind,
    /// The finding, for a person.
    pub message: String,
}

/// What was found in a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Lines read.
    pub lines: u64,
    /// Processes that wrote them.
    pub boots: u64,
    /// Chains: more than one only where standard output was collected.
    pub chains: u64,
    /// The time of the first good line.
    pub first: Option<String>,
    /// The time of the last good line.
    pub last: Option<String>,
    /// The head of the file that this one says it continues, after a rotation. The file before must end in it.
    pub continues: Option<Head>,
    /// Where the last chain ends.
    pub head: Option<Head>,
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
            chains: 0,
            first: None,
            last: None,
            continues: None,
            head: None,
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
        if self.problems.len() < LISTED {
            self.problems.push(Problem { line, seq, kind, message });
        } else {
            self.more_problems += 1;
        }
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
        for Problem { line, message, .. } in &self.problems {
            writeln!(f, "line {line}: {message}")?;
        }
        if self.more_problems > 0 {
            writeln!(f, "and {} more problems", self.more_problems)?;
        }
        if self.is_good() {
            writeln!(f, "the chain is whole")?;
        }
        if let Some(Head { seq, hash }) = self.head {
            writeln!(f, "the head is seq {seq} hash {hash}")?;
        }
        f.write_str(self.caveat)
    }
}
