//! Was *this* value served? The hashes in the lines of brokers are compared with those of a value that somebody has: one that
//! was found where it should not be.
//!
//! The first pass takes down the wrapped keys. Whoever may have them unwrapped does that, and the second pass compares. The
//! value itself is in no result.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::io::Read;
use std::path::PathBuf;

use memchr::memmem::Finder;
use schemars::JsonSchema;
use serde::Serialize;
use zeroize::Zeroizing;

use super::output::{Place, SubjectSeen, VERSION};
use super::read::quick::Head;
use super::read::{Piece, Source, place};
use super::{Progress, TraceError};
use crate::audit::values::{ValueHash, ValueKey, WrappedKey, unhex};
use crate::audit::{At, Event, Line, Outcome};

/// What was found is listed up to here; beyond it is counted.
const MOST: usize = 10_000;

/// How many lines are read between two words of progress.
const TOLD_EVERY: u64 = 1 << 14;

/// `tenure audit match --json`: whether values were served, to whom, and how far that can be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Matches {
    /// The version of this schema.
    pub version: u8,
    /// When the logs were read.
    pub made: At,
    /// From when on; absent: from the first line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<At>,
    /// Until when; absent: to the last line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<At>,
    /// How many values were asked for.
    pub values: usize,
    /// What was read.
    pub files: Vec<String>,
    /// Where they were served, the earliest first; at most ten thousand.
    pub served: Vec<Served>,
    /// Others that are not listed.
    pub more_served: u64,
    /// What could be compared.
    pub coverage: Coverage,
}

/// A value that was served to a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Served {
    /// Which of the values that were asked for, from 1 on.
    pub value: usize,
    /// What was read: a path of Vault's, without `/v1/`.
    pub path: String,
    /// Where the value stood in that: a JSON pointer (RFC 6901).
    pub pointer: String,
    /// The version of a KV value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kv_version: Option<u64>,
    /// The lease.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease_id: Option<String>,
    /// The run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// Its execution.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execution_arn: Option<String>,
    /// The state of that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// On whose behalf it acted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<SubjectSeen>,
    /// How often it was disclosed.
    pub times: u64,
    /// The first time.
    pub first: At,
    /// The last time.
    pub last: At,
    /// The line of the first time.
    pub line: Place,
    /// The line of the last time.
    pub last_line: Place,
}

/// What could be compared, and what could not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Coverage {
    /// Lines by which a secret was disclosed.
    pub disclosures: u64,
    /// Those whose hashes were compared, all of them.
    pub compared: u64,
    /// Those without hashes: their broker had no key, or the secret no value.
    pub without_hashes: u64,
    /// Those whose key is not among the lines, or was not unwrapped.
    pub without_key: u64,
    /// Those with more values than hashes.
    pub with_more_values: u64,
    /// Lines of brokers that could not be read.
    pub unreadable: u64,
    /// Lines of no known log, which were passed over: what a damaged one told is not known.
    pub passed_over: u64,
    /// Keys that were not unwrapped, and why.
    pub locked: Vec<Locked>,
    /// The first of the disclosures.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first: Option<At>,
    /// The last of the disclosures.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<At>,
}

impl Coverage {
    /// Whether a value that was not found was not served, as far as these logs go.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.compared == self.disclosures && self.unreadable == 0
    }
}

/// A key that was not unwrapped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Locked {
    /// Where the line of the key is.
    pub line: Place,
    /// Why it was not.
    pub why: String,
}

/// A value, in the forms that it may have been served in.
pub struct Wanted(Vec<Zeroizing<Vec<u8>>>);

impl Wanted {
    /// The value as it is; and, since files and pipes end in a newline that a value seldom does, without one at its end.
    #[must_use]
    pub fn new(value: Zeroizing<Vec<u8>>) -> Self {
        let bare = value.strip_suffix(b"\n").map(|rest| rest.strip_suffix(b"\r").unwrap_or(rest));
        let bare = bare.map(|bare| Zeroizing::new(bare.to_vec()));
        if value.is_empty() || bare.as_ref().is_some_and(|bare| bare.is_empty()) {
            return Self(Vec::new());
        }
        Self([Some(value), bare].into_iter().flatten().collect())
    }

    /// Whether there is nothing to look for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wanted(…)")
    }
}

/// Logs whose keys are known.
#[derive(Debug)]
pub struct Logs {
    sources: Vec<Source>,
    keys: Vec<(WrappedKey, Place)>,
    read: u64,
}

impl Logs {
    /// Reads which keys the brokers had.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn open(
        named: &[PathBuf],
        stdin: &mut dyn Read,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Self, TraceError> {
        let sources = Source::all(named, stdin)?;
        let mut logs = Self { sources, keys: Vec::new(), read: 0 };
        let (mut keys, mut known) = (Vec::new(), HashSet::new());
        logs.pass(progress, &mut |place, piece| {
            let Piece::Broker(bytes) = piece else { return };
            if Head::of(bytes).is_none_or(|head| head.event != b"audit.key") {
                return;
            }
            let Ok(Line { key: Some(key), .. }) = serde_json::from_slice(bytes) else { return };
            if known.insert(key.clone()) {
                keys.push((key, place));
            }
        })?;
        logs.keys = keys;
        Ok(logs)
    }

    /// The wrapped keys of all brokers, each once.
    pub fn keys(&self) -> impl Iterator<Item = &WrappedKey> {
        self.keys.iter().map(|(key, _)| key)
    }

    /// Looks for the values. `unwrapped` has each of the [`keys`](Self::keys), in their order, or why it was not
    /// unwrapped.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn find(
        mut self,
        unwrapped: &[Result<ValueKey, String>],
        wanted: &[Wanted],
        (since, until): (Option<At>, Option<At>),
        now: At,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Matches, TraceError> {
        let keys = std::mem::take(&mut self.keys);
        let locked = keys.iter().zip(unwrapped).filter_map(|((_, line), key)| {
            key.as_ref().err().map(|why| Locked { line: *line, why: why.clone() })
        });
        let mut search = Search {
            hashes: keys
                .iter()
                .zip(unwrapped)
                .filter_map(|((wrapped, _), key)| Some((wrapped.id(), hashes(key.as_ref().ok()?, wanted))))
                .collect(),
            coverage: Coverage { locked: locked.collect(), ..Coverage::default() },
            served: BTreeMap::new(),
            more: 0,
            between: (since.unwrap_or_default(), until),
        };
        let granted = Finder::new(br#","outcome":"granted""#);
        let mut passed_over = 0;
        self.pass(progress, &mut |place, piece| {
            let bytes = match piece {
                Piece::Broker(bytes) => bytes,
                Piece::Unknown(_) => return passed_over += 1,
                Piece::Vault(_) | Piece::Document(_) => return,
            };
            match Head::of(bytes) {
                Some(head) => {
                    let discloses = matches!(head.event, b"read" | b"deliver" | b"session.open");
                    if discloses && granted.find(bytes).is_some() {
                        search.see(place, bytes);
                    }
                }
                None => search.coverage.unreadable += 1,
            }
        })?;
        search.coverage.passed_over = passed_over;
        let mut served: Vec<Served> = search.served.into_values().collect();
        served.sort_by_key(|found| (found.first, found.line, found.value));
        Ok(Matches {
            version: VERSION,
            made: now,
            since,
            until,
            values: wanted.len(),
            files: self.sources.into_iter().map(|source| source.name).collect(),
            served,
            more_served: search.more,
            coverage: search.coverage,
        })
    }

    fn pass(
        &mut self,
        progress: &mut dyn FnMut(Progress),
        sink: &mut dyn FnMut(Place, Piece<'_>),
    ) -> Result<(), TraceError> {
        self.read += 1;
        let of = self.sources.iter().map(|source| source.bytes).sum();
        let mut before = 0;
        for (file, source) in self.sources.iter().enumerate() {
            let counted = Cell::new(0);
            let read = source.lines(&counted, &mut |line, piece| {
                if line % TOLD_EVERY == 1 {
                    progress(Progress { pass: self.read, bytes: before + counted.get(), of });
                }
                sink(place(file, line), piece);
            });
            read.map_err(|error| TraceError::Read { name: source.name.clone(), source: error })?;
            before += source.bytes;
        }
        Ok(())
    }
}

/// What the values would be in a line, and which of them that is.
fn hashes(key: &ValueKey, wanted: &[Wanted]) -> HashMap<ValueHash, usize> {
    let forms =
        wanted.iter().enumerate().flat_map(|(at, wanted)| wanted.0.iter().map(move |form| (at, form)));
    // Of two that are the same, the first.
    let mut hashes = HashMap::new();
    for (at, form) in forms {
        hashes.entry(key.hash_of(form)).or_insert(at + 1);
    }
    hashes
}

struct Search {
    /// Of each key that was unwrapped, by its id.
    hashes: HashMap<String, HashMap<ValueHash, usize>>,
    coverage: Coverage,
    /// By the value, and by what was read: path, pointer, lease, version, and for which run.
    served: BTreeMap<(usize, [String; 5]), Served>,
    more: u64,
    between: (At, Option<At>),
}

impl Search {
    fn see(&mut self, place: Place, bytes: &[u8]) {
        let Ok(line) = serde_json::from_slice::<Line>(bytes) else {
            self.coverage.unreadable += 1;
            return;
        };
        let Some(at) = At::parse(&line.time) else {
            self.coverage.unreadable += 1;
            return;
        };
        let discloses = matches!(line.event, Event::Read | Event::Deliver | Event::SessionOpen);
        let (since, until) = self.between;
        if !discloses
            || line.outcome != Outcome::Granted
            || at < since
            || until.is_some_and(|until| at > until)
        {
            return;
        }
        let coverage = &mut self.coverage;
        coverage.disclosures += 1;
        coverage.first = Some(coverage.first.map_or(at, |first| first.min(at)));
        coverage.last = Some(coverage.last.map_or(at, |last| last.max(at)));
        if line.values.is_empty() && line.values_omitted.is_none() {
            coverage.without_hashes += 1;
            return;
        }
        let coverage = &mut self.coverage;
        let Some(hashes) = line.values_key.as_ref().and_then(|key| self.hashes.get(key)) else {
            coverage.without_key += 1;
            return;
        };
        match line.values_omitted {
            Some(_) => coverage.with_more_values += 1,
            None => coverage.compared += 1,
        }
        let found: Vec<_> = line
            .values
            .iter()
            .filter_map(|(pointer, hash)| Some((*hashes.get(&unhex(hash)?)?, pointer.clone())))
            .collect();
        for (value, pointer) in found {
            self.take(value, pointer, at, place, &line);
        }
    }

    fn take(&mut self, value: usize, pointer: String, at: At, place: Place, line: &Line) {
        let run = line.run.as_ref();
        let text = |text: Option<&String>| text.cloned().unwrap_or_default();
        let version = line.version.map(|version| version.to_string());
        let id = run.map(|run| &run.id);
        let key = [
            text(line.path.as_ref()),
            pointer.clone(),
            text(line.lease_id.as_ref()),
            text(version.as_ref()),
            text(id),
        ];
        if let Some(known) = self.served.get_mut(&(value, key.clone())) {
            known.times += 1;
            if (at, place) < (known.first, known.line) {
                (known.first, known.line) = (at, place);
            }
            if (at, place) > (known.last, known.last_line) {
                (known.last, known.last_line) = (at, place);
            }
            return;
        }
        if self.served.len() >= MOST {
            self.more += 1;
            return;
        }
        let subject = run.and_then(|run| run.subject.as_ref()).map(|subject| SubjectSeen {
            id: subject.id.clone(),
            kind: subject.kind.clone(),
            assurance: subject.assurance.clone(),
            issuer: subject.issuer.clone(),
        });
        let served = Served {
            value,
            path: text(line.path.as_ref()),
            pointer,
            kv_version: line.version,
            lease_id: line.lease_id.clone(),
            run: id.cloned(),
            execution_arn: run.and_then(|run| run.execution_arn.clone()),
            state: run.and_then(|run| run.state.clone()),
            subject,
            times: 1,
            first: at,
            last: at,
            line: place,
            last_line: place,
        };
        self.served.insert((value, key), served);
    }
}

/// The JSON Schema of [`Matches`].
#[must_use]
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(Matches).to_value()
}
