//! What a report counts, line by line; no line is kept.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};

use super::select::Selection;
use crate::audit::{At, Event, Line, Outcome};

/// What is counted line by line.
#[derive(Debug)]
pub(super) struct Tally {
    selection: Selection,
    pub(super) paths: HashMap<Box<str>, PathTally>,
    pub(super) denials: HashMap<(Event, Box<str>), DenialTally>,
    pub(super) reads: u64,
    pub(super) denied: u64,
}

#[derive(Debug, Default)]
pub(super) struct PathTally {
    pub(super) reads: u64,
    pub(super) denials: u64,
    pub(super) leases: u64,
    /// Hashes: a set of texts would be many times as large.
    pub(super) runs: HashSet<u64>,
    pub(super) subjects: HashSet<u64>,
    pub(super) last: At,
}

#[derive(Debug, Default)]
pub(super) struct DenialTally {
    pub(super) count: u64,
    pub(super) runs: HashSet<u64>,
    pub(super) last: At,
}

impl Tally {
    pub(super) fn new(selection: &Selection) -> Self {
        Self {
            selection: selection.clone(),
            paths: HashMap::new(),
            denials: HashMap::new(),
            reads: 0,
            denied: 0,
        }
    }

    pub(super) fn broker(&mut self, at: At, line: &Line) {
        if !self.selection.is_in_time(at) {
            return;
        }
        let happened = matches!(line.outcome, Outcome::Granted | Outcome::Done);
        let by_vault = line.class.as_deref() == Some("denied");
        // A mint that is refused is the read's refusal.
        let denied = (line.outcome == Outcome::Denied || by_vault) && line.event != Event::Mint;
        let read = happened && matches!(line.event, Event::Read | Event::Deliver | Event::SessionOpen);
        let minted = happened && matches!(line.event, Event::Mint | Event::Rotate) && line.lease_id.is_some();
        let run = line.run.as_ref().map(|run| hash(&run.id));
        self.reads += u64::from(read);
        self.denied += u64::from(denied);
        if denied {
            let by =
                if by_vault { "vault" } else { line.policy.as_deref().unwrap_or("the protocol's rules") };
            let tally = self.denials.entry((line.event, by.into())).or_default();
            tally.count += 1;
            tally.runs.extend(run);
            tally.last = tally.last.max(at);
        }
        let Some(path) = line.path.as_deref().filter(|_| read || denied || minted) else { return };
        if !self.paths.contains_key(path) {
            self.paths.insert(path.into(), PathTally::default());
        }
        let Some(tally) = self.paths.get_mut(path) else { return };
        tally.reads += u64::from(read);
        tally.denials += u64::from(denied);
        tally.leases += u64::from(minted);
        tally.last = tally.last.max(at);
        if read {
            tally.runs.extend(run);
            let subject = line.run.as_ref().and_then(|run| run.subject.as_ref());
            tally.subjects.extend(subject.map(|subject| hash(&(&subject.id, &subject.issuer))));
        }
    }
}

fn hash(what: &impl std::hash::Hash) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(what)
}
