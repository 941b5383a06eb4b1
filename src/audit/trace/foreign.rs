//! What was done under our roles, or with our tokens, without the broker.
//!
//! **Who we are to Vault** is known from logins that a broker's line claims by `X-Tenure-Request`, and from the making of run
//! tokens whose metadata names a run that a broker's line tells of. The asking token's metadata then says what we are: for AWS
//! the role behind the session (`canonical_arn`, or `client_arn` without the session's name), for others the role of the auth
//! method, and where a method says nothing, the display name up to its first `/`. All brokers of a service have one role, and
//! whoever else has it is as good as they: a container beside the broker, above all.
//!
//! **A request is explained** by a broker's line with its `X-Tenure-Request`, or its `request.id`. Questions (look-ups, the
//! server's health) have no lines and disclose nothing: they are passed over where they carry an id of a broker whose log is
//! given. What carries an id of a broker that none of the files is of is told apart, as a warning: there may be such a broker;
//! whoever goes round ours can say so, too. What carries none is a bypass, and so is what a token does that a bypass made.
//! An id can be guessed, as they are counted: one that a line claims and that came twice, with another path or another token,
//! is a bypass, too.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher, Hash};
use std::num::NonZeroU32;
use std::sync::Arc;

use memchr::memmem::Finder;

use super::ledger::{Ledger, Mark, parts};
use super::read::vault::VaultLine;

/// Lines of one bypass that are remembered.
const REMEMBERED: usize = 10_000;

/// The same of a broker whose log is not given.
const REMEMBERED_OF_BROKER: usize = 20;

/// Paths of one bypass that are named.
const PATHS: usize = 50;

/// What we are to Vault, as a token's metadata has it; `None` for tokens of runs and for those that say nothing.
pub(super) fn identity(metadata: &BTreeMap<String, String>, display_name: &str) -> Option<String> {
    if metadata.contains_key("run") {
        return None;
    }
    for name in ["canonical_arn", "role_name", "role", "cert_name"] {
        if let Some(value) = metadata.get(name).filter(|value| !value.is_empty()) {
            return Some(value.clone());
        }
    }
    if let Some(arn) = metadata.get("client_arn") {
        // arn:aws:sts::<account>:assumed-role/<role>/<session>
        let parts: Vec<_> = arn.splitn(3, '/').collect();
        return Some(parts[..parts.len().min(2)].join("/"));
    }
    let name = display_name.split('/').next().unwrap_or_default();
    (!matches!(name, "" | "token" | "root")).then(|| name.to_owned())
}

/// A login, or the making of a run's token.
#[derive(Debug)]
struct Login {
    identity: Arc<str>,
    /// `X-Tenure-Request`.
    request: Option<Box<str>>,
    /// The run that the token was made for.
    run: Option<Box<str>>,
}

/// Who we are to Vault.
#[derive(Debug, Default)]
pub(super) struct Logins {
    seen: Vec<Login>,
    texts: HashSet<Arc<str>>,
    ours: HashSet<Arc<str>>,
    /// Accessors of tokens that were made by who went round the broker.
    pub(super) foreign: HashSet<Box<str>>,
}

impl Logins {
    /// Takes a successful answer of an auth method.
    pub(super) fn take(&mut self, line: &VaultLine) {
        let Some(made) = &line.made else { return };
        let run = made.metadata.get("run").map(|run| run.as_str().into());
        let is_login = line.is_login();
        if !is_login && run.is_none() {
            return;
        }
        let of = if is_login { &made.metadata } else { &line.metadata };
        let Some(identity) = identity(of, &line.display_name) else { return };
        let request = line.request.as_deref().map(Into::into);
        // Of those who have no part in this, and they may be many, nothing is kept.
        if is_login && line.request.is_none() {
            return;
        }
        let identity = match self.texts.get(identity.as_str()) {
            Some(known) => Arc::clone(known),
            None => {
                let text: Arc<str> = identity.into();
                self.texts.insert(Arc::clone(&text));
                text
            }
        };
        self.seen.push(Login { identity, request, run });
    }

    /// Learns who we are, once it is known what brokers claim; of these, if they are not all.
    pub(super) fn resolve(&mut self, ledger: &Ledger, boots: &HashSet<u32>) {
        for login in std::mem::take(&mut self.seen) {
            let by_request = login.request.as_deref().is_some_and(|request| {
                ledger.claims_login(request)
                    && parts(request)
                        .and_then(|(boot, _)| ledger.known_boot(boot))
                        .is_some_and(|boot| boots.contains(&boot))
            });
            let by_run =
                login.run.as_deref().and_then(|run| ledger.runs.get(run)).is_some_and(|run| run.is_ours);
            if by_request || by_run {
                self.ours.insert(login.identity);
            }
        }
        self.texts.clear();
    }

    /// What a line must hold to be of ours.
    pub(super) fn needles(&self) -> Vec<Arc<str>> {
        self.ours.iter().cloned().collect()
    }

    pub(super) fn is_ours(&self, identity: Option<&str>) -> bool {
        identity.is_some_and(|identity| self.ours.contains(identity))
    }

    pub(super) fn is_unknown(&self) -> bool {
        self.ours.is_empty()
    }

    /// Whether the line names an accessor of a bypass; `anchor` finds `"accessor":"`.
    pub(super) fn names_foreign(&self, anchor: &Finder<'_>, line: &[u8]) -> bool {
        anchor.find_iter(line).any(|at| {
            let rest = &line[at + 12..];
            let end = memchr::memchr(b'"', rest).unwrap_or(rest.len());
            std::str::from_utf8(&rest[..end]).is_ok_and(|accessor| self.foreign.contains(accessor))
        })
    }
}

/// By what a bypass is known.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    /// The accessor of the login token that was used.
    Accessor(Box<str>),
    /// The run whose token was used.
    Token(Box<str>),
    /// The broker that it says to be, whose log is not given.
    Boot(Box<str>),
    /// The id of a request that came twice.
    Again(Box<str>),
}

/// What was done under one key.
#[derive(Debug, Default)]
pub(super) struct Foreign {
    pub(super) marks: Vec<Mark>,
    pub(super) more: u64,
    pub(super) requests: u64,
    /// Those of them that were not refused and disclosed or changed something.
    pub(super) effective: u64,
    pub(super) paths: BTreeSet<Box<str>>,
    pub(super) who: BTreeSet<Box<str>>,
    pub(super) remotes: BTreeSet<Box<str>>,
}

impl Foreign {
    /// Takes a line; of brokers whose logs are not given a few do, as there may be thousands.
    pub(super) fn take(&mut self, mark: Mark, line: &VaultLine, key: &Key) {
        let most = if matches!(key, Key::Boot(_)) { REMEMBERED_OF_BROKER } else { REMEMBERED };
        self.requests += 1;
        if line.error.is_none() && !line.is_bookkeeping() {
            self.effective += 1;
        }
        if self.marks.len() < most {
            self.marks.push(mark);
        } else {
            self.more += 1;
        }
        let put = |texts: &mut BTreeSet<Box<str>>, text: &str| {
            if texts.len() < PATHS && !text.is_empty() && !texts.contains(text) {
                texts.insert(text.into());
            }
        };
        put(&mut self.paths, &line.path);
        put(&mut self.who, &line.display_name);
        put(&mut self.remotes, line.remote.as_deref().unwrap_or_default());
    }
}

/// What Vault did for a request that a broker claims. There is one for each: hashes of 32 bits are enough to see that two
/// texts differ, and are small.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    path: Option<NonZeroU32>,
    token: Option<NonZeroU32>,
    first: Mark,
}

impl Seen {
    /// The line that had this id before, if it was another request: of another path, or served to another token. A broker
    /// tries a request again, after a new login with another token, until it is served.
    pub(super) fn differs(&mut self, mark: Mark, line: &VaultLine) -> Option<Mark> {
        if self.path.is_none() {
            self.first = mark;
        }
        let differs = |known: &mut Option<NonZeroU32>, what: Option<NonZeroU32>| match *known {
            None => {
                *known = what;
                false
            }
            first => first != what,
        };
        let other_path = differs(&mut self.path, short_hash(&line.path));
        let other_token = line.error.is_none() && differs(&mut self.token, short_hash(&line.accessor));
        (other_path || other_token).then_some(self.first)
    }
}

fn short_hash(what: &impl Hash) -> Option<NonZeroU32> {
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(what);
    // The upper half; the odd one keeps it from being nothing.
    NonZeroU32::new((hash >> 32) as u32 | 1)
}
