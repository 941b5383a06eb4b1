//! Whether brokers' logs are whole: the chain, read from the bytes of each line.
//!
//! What fits is seen here, at the speed of the hash; where something does not, [`crate::audit::verify()`] reads the file again
//! and names it. A file may hold the lines of several brokers, as a collector of their standard output makes it: each chain
//! is followed by itself.

use crate::audit::chain::{Hash, split, stated};

/// More chains at once are not followed in one file.
const MOST_CHAINS: usize = 4096;

/// The chains of one file.
#[derive(Debug, Default)]
pub(super) struct Chains {
    /// Where each ends: the number of its last line, and its hash. The last one that went on is the last of them.
    heads: Vec<(u64, Hash)>,
    /// What chains say that they continue, and the line that says so.
    pub(super) continues: Vec<(Hash, u64)>,
    /// Whether a line does not fit.
    pub(super) broken: bool,
    /// Lines that begin a chain.
    pub(super) begun: Vec<u64>,
    /// The number that the first line states.
    pub(super) first: Option<u64>,
}

impl Chains {
    /// Takes the next line of the file; `reopened` says that it is the first one after a rotation.
    pub(super) fn line(&mut self, number: u64, line: &[u8], reopened: bool) {
        let read = stated(line);
        self.first = self.first.or(read.map(|(seq, ..)| seq));
        if self.broken {
            // How many chains begin tells how the file is to be read again.
            if read.is_some_and(|(seq, prev, _)| seq == 1 && prev == Hash::NONE) {
                self.begun.push(number);
            }
            return;
        }
        let Some((seq, prev, hash)) = read.filter(|_| fits(line)) else {
            self.broken = true;
            return;
        };
        let next =
            self.heads.iter().rposition(|&(last, head)| head == prev && last.checked_add(1) == Some(seq));
        if let Some(at) = next {
            self.heads.remove(at);
        } else if seq == 1 && prev == Hash::NONE {
            self.begun.push(number);
        } else if reopened {
            self.continues.push((prev, number));
        } else {
            self.broken = true;
        }
        self.broken |= self.heads.len() >= MOST_CHAINS;
        self.heads.push((seq, hash));
    }

    /// Where the chains of the file end.
    pub(super) fn heads(&self) -> impl Iterator<Item = Hash> {
        self.heads.iter().map(|&(_, hash)| hash)
    }
}

/// Whether a line's own hash is that of its bytes.
fn fits(line: &[u8]) -> bool {
    split(line).is_some_and(|(content, hash)| Hash::of(content) == hash)
}
