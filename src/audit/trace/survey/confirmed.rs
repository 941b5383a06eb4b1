//! How far brokers' logs are confirmed: by the heads of their chains that Vault's log has.
//!
//! A line is confirmed if an anchor names it, or one after it in its chain. Each boot is looked at by itself, and one that
//! another boot goes on from is confirmed as a whole by any anchor of that one.

use std::collections::HashMap;

use super::Survey;
use crate::audit::At;
use crate::audit::Head;
use crate::audit::chain::{Hash, stated};
use crate::audit::trace::TraceError;
use crate::audit::trace::read::{Piece, quick};
use crate::audit::verify::Seen;
use crate::audit::verify::anchored::{Cover, Problem};

/// How far brokers' logs are confirmed.
#[derive(Debug, Default)]
pub(in super::super) struct Confirmed {
    /// Anchors of these logs that count.
    pub(in super::super) anchors: u64,
    /// Lines that are confirmed.
    pub(in super::super) lines: u64,
    /// Lines that are not.
    pub(in super::super) unconfirmed: u64,
    /// When the first of these was written.
    pub(in super::super) since: Option<At>,
    /// Starts of brokers of which no line is confirmed.
    pub(in super::super) boots: u64,
    /// What the anchors contradict.
    pub(in super::super) problems: Vec<Problem>,
}

/// The lines of a boot.
#[derive(Clone, Copy, Debug)]
struct Lines {
    /// The hash that the first of them follows: of the last line of the boot before, in the same chain.
    after: Hash,
    last: Hash,
    count: u64,
}

impl Survey<'_> {
    /// Lays the lines of all brokers beside the anchors.
    pub(super) fn confirm(&mut self) -> Result<(), TraceError> {
        let anchors = std::mem::take(&mut self.anchors);
        let mut comparison = anchors.compare();
        let mut numbers: HashMap<Box<[u8]>, usize> = HashMap::new();
        let mut boots: Vec<Lines> = Vec::new();
        // A log that was rotated is read in the order in which it was written.
        let mut files: Vec<usize> =
            (0..self.files.len()).filter(|&file| self.files[file].broker_lines > 0).collect();
        files.sort_by_key(|&file| self.chains[file].first);
        self.pass_over(files, |_, _, at, piece| {
            let Piece::Broker(bytes) = piece else { return };
            let (Some(head), Some((seq, prev, hash))) = (quick::Head::of(bytes), stated(bytes)) else {
                return;
            };
            let number = numbers.get(head.boot).copied().unwrap_or_else(|| {
                numbers.insert(head.boot.into(), boots.len());
                boots.push(Lines { after: prev, last: hash, count: 0 });
                boots.len() - 1
            });
            boots[number] = Lines { last: hash, count: boots[number].count + 1, ..boots[number] };
            if let (Ok(boot), Ok(time)) = (str::from_utf8(head.boot), str::from_utf8(&head.time)) {
                comparison.see(&Seen { at, chain: number, head: Head { seq, hash }, boot, time });
            }
        })?;
        let anchored = comparison.finish(&[]);
        let mut covers = anchored.by_chain;
        if covers.is_empty() {
            let (covered, uncovered) = (anchored.covered, anchored.uncovered);
            let uncovered_since = anchored.uncovered_since;
            covers.push(Cover { covered, uncovered, uncovered_since, ..Cover::default() });
        }
        self.confirmed = Some(Confirmed {
            anchors: anchored.anchors as u64,
            problems: anchored.problems,
            ..sum(&boots, &covers)
        });
        Ok(())
    }
}

fn sum(boots: &[Lines], covers: &[Cover]) -> Confirmed {
    let covers: HashMap<usize, &Cover> = covers.iter().map(|cover| (cover.number, cover)).collect();
    let is_anchored = |number: usize| covers.get(&number).is_some_and(|cover| cover.covered.is_some());
    let followed = followed(boots, is_anchored);
    let mut sum = Confirmed::default();
    for (number, lines) in boots.iter().enumerate() {
        let cover = covers.get(&number);
        let open = match cover {
            _ if followed[number] => 0,
            Some(cover) => cover.uncovered,
            None => lines.count,
        };
        sum.lines += lines.count.saturating_sub(open);
        sum.unconfirmed += open;
        sum.boots += u64::from(open == lines.count);
        if open > 0 {
            let since = cover.and_then(|cover| At::parse(cover.uncovered_since.as_deref()?));
            sum.since = [sum.since, since].into_iter().flatten().min();
        }
    }
    sum
}

/// Of each boot, whether a later one of its chain is anchored.
fn followed(boots: &[Lines], is_anchored: impl Fn(usize) -> bool) -> Vec<bool> {
    let after: HashMap<Hash, usize> = (0..).zip(boots).map(|(number, lines)| (lines.after, number)).collect();
    let mut known: Vec<Option<bool>> = vec![None; boots.len()];
    for start in 0..boots.len() {
        let mut way = Vec::new();
        let mut next = Some(start);
        // To the end of the chain, or to what is known. A chain that was made up may lead in a circle.
        while let Some(at) = next.filter(|&at| known[at].is_none()) {
            known[at] = Some(false);
            way.push(at);
            next = after.get(&boots[at].last).copied();
        }
        // And back.
        let mut is_followed = next.is_some_and(|at| known[at] == Some(true) || is_anchored(at));
        for at in way.into_iter().rev() {
            known[at] = Some(is_followed);
            is_followed |= is_anchored(at);
        }
    }
    known.into_iter().map(|known| known == Some(true)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boot(after: u8, last: u8) -> Lines {
        let hash = |of: u8| Hash::of(&[of]);
        Lines { after: hash(after), last: hash(last), count: 10 }
    }

    #[test]
    fn a_boot_is_confirmed_by_those_that_go_on_from_it() {
        // Two chains, whose files came in any order: 3 → 0 → 2, and 1.
        let boots = [boot(1, 2), boot(8, 9), boot(2, 3), boot(0, 1)];
        assert_eq!(followed(&boots, |at| at == 2), [true, false, false, true]);
        assert_eq!(followed(&boots, |at| at == 0), [false, false, false, true]);
        assert_eq!(followed(&boots, |at| at == 1), [false; 4]);
        let circle = [boot(2, 1), boot(1, 2)];
        assert_eq!(followed(&circle, |_| false), [false; 2]);
        assert_eq!(followed(&[boot(1, 1)], |_| true).len(), 1);
    }

    #[test]
    fn lines_after_the_last_anchor_are_counted_and_their_time_told() {
        let boots = [boot(0, 1), boot(1, 2), boot(7, 8)];
        let cover = |number, covered: bool, uncovered, since: &str| Cover {
            number,
            covered: covered.then_some(Head { seq: 1, hash: Hash::NONE }),
            uncovered,
            uncovered_since: Some(since.to_owned()),
            ..Cover::default()
        };
        let covers = [
            cover(0, false, 10, "2026-01-01T00:00:00.000Z"),
            cover(1, true, 4, "2026-01-03T00:00:00.000Z"),
            cover(2, false, 10, "2026-01-02T00:00:00.000Z"),
        ];
        let sum = sum(&boots, &covers);
        assert_eq!((sum.lines, sum.unconfirmed, sum.boots), (16, 14, 1));
        assert_eq!(sum.since.map(|at| at.to_string()).as_deref(), Some("2026-01-02T00:00:00.000Z"));
    }
}
