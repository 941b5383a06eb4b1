//! What an auditor asks for, and which runs that means.
//!
//! `execution`, `subject`, `run` and `accessors` choose runs, the last also the lines of a token that is no run's; `path` and
//! `lease` choose lines, and with them the runs that they belong to; a time chooses lines, and by itself the runs that have one
//! then. A run is chosen if all that was asked for is true of it.
//! The executions and runs below a chosen one are found by reading again until there is no further one: what a run says of
//! its parents may stand before what they say of theirs.

use std::collections::{BTreeMap, HashMap, HashSet};

use memchr::memmem::Finder;

use super::read::history::History;
use super::read::vault::VaultLine;
use crate::audit::At;
use crate::audit::Line;

/// What is asked for. Nothing: everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// An execution, with those that it started.
    pub execution: Option<String>,
    /// On whose behalf runs acted: the id at its issuer.
    pub subject: Option<String>,
    /// A lease.
    pub lease: Option<String>,
    /// What was read: a path without `/v1/`; a `*` at its end stands for whatever follows.
    pub path: Option<String>,
    /// A run, with those that it registered.
    pub run: Option<String>,
    /// A token's accessor, in each form in which logs may show it: as it is, or its HMAC by an audit device. Empty: any token.
    pub accessors: Vec<String>,
    /// Nothing before this.
    pub since: Option<At>,
    /// Nothing after this.
    pub until: Option<At>,
}

impl Selection {
    /// Whether nothing is chosen but, perhaps, a time.
    #[must_use]
    pub fn is_open(&self) -> bool {
        let Self { execution, subject, lease, path, run, accessors, .. } = self;
        [execution, subject, lease, path, run].iter().all(|one| one.is_none()) && accessors.is_empty()
    }

    /// What was asked for, by the names of the options.
    #[must_use]
    pub fn said(&self) -> BTreeMap<String, String> {
        let Self { execution, subject, lease, path, run, accessors, since, until } = self;
        let accessor = accessors.first().cloned();
        let texts = [
            ("execution", execution),
            ("subject", subject),
            ("lease", lease),
            ("path", path),
            ("run", run),
            ("accessor", &accessor),
        ];
        let texts = texts.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.clone()?)));
        let times = [("since", since), ("until", until)];
        let times =
            times.into_iter().filter_map(|(name, at)| Some((name.to_owned(), at.as_ref()?.to_string())));
        texts.chain(times).collect()
    }

    /// Whether a line of that time is asked for.
    pub(super) fn is_in_time(&self, at: At) -> bool {
        self.since.is_none_or(|since| since <= at) && self.until.is_none_or(|until| at <= until)
    }

    pub(super) fn is_path(&self, path: &str) -> bool {
        self.path.as_deref().is_some_and(|wanted| match wanted.strip_suffix('*') {
            Some(start) => path.starts_with(start),
            // A read with a query is one of the path.
            None => path == wanted || path.strip_prefix(wanted).is_some_and(|rest| rest.starts_with('?')),
        })
    }

    pub(super) fn is_lease(&self, id: &str) -> bool {
        self.lease.as_deref() == Some(id)
    }

    pub(super) fn is_accessor(&self, accessor: Option<&str>) -> bool {
        accessor.is_some_and(|accessor| self.accessors.iter().any(|known| known == accessor))
    }

    /// Whether the token asked, was made, or is what was asked about.
    pub(super) fn is_of_token(&self, line: &VaultLine) -> bool {
        let made = line.made.as_ref().and_then(|made| made.accessor.as_deref());
        [line.accessor.as_deref(), made, line.about.as_deref()].into_iter().any(|one| self.is_accessor(one))
    }
}

const EXECUTION: u8 = 1;
const SUBJECT: u8 = 2;
const LEASE: u8 = 4;
const PATH: u8 = 8;
const RUN: u8 = 16;
const TIME: u8 = 32;
const ACCESSOR: u8 = 64;

/// The runs that a selection means, while they are looked for.
pub(super) struct Choice<'a> {
    selection: &'a Selection,
    /// What must be true of a run.
    wanted: u8,
    /// What is true of each.
    found: HashMap<Box<str>, u8>,
    pub(super) executions: HashSet<Box<str>>,
    runs: HashSet<Box<str>>,
    needles: Vec<Finder<'a>>,
    /// Ids that were found, to look for in the next pass: behind these, up to a quote.
    anchors: [Finder<'static>; 2],
    grew: bool,
}

impl<'a> Choice<'a> {
    pub(super) fn new(selection: &'a Selection) -> Self {
        let Selection { execution, subject, lease, path, run, accessors, since, until } = selection;
        let texts = [(EXECUTION, execution), (SUBJECT, subject), (LEASE, lease), (PATH, path), (RUN, run)];
        let mut wanted = 0;
        let mut needles = Vec::new();
        for (bit, text) in texts {
            if let Some(text) = text {
                wanted |= bit;
                needles.push(Finder::new(plain(text)));
            }
        }
        for accessor in accessors {
            wanted |= ACCESSOR;
            needles.push(Finder::new(plain(accessor)));
        }
        if wanted == 0 && (since.is_some() || until.is_some()) {
            wanted = TIME;
        }
        Self {
            selection,
            wanted,
            found: HashMap::new(),
            executions: execution.iter().map(|arn| arn.as_str().into()).collect(),
            runs: run.iter().map(|id| id.as_str().into()).collect(),
            needles,
            anchors: [Finder::new(b"\"arn:"), Finder::new(b"\"run-")],
            grew: false,
        }
    }

    /// Whether everything is chosen: nothing need be looked for.
    pub(super) fn is_all(&self) -> bool {
        self.wanted == 0
    }

    /// Whether another pass may find more. To be asked after each.
    pub(super) fn grew(&mut self) -> bool {
        std::mem::take(&mut self.grew)
    }

    /// Whether a line may matter; a `false` is certain.
    pub(super) fn may_concern(&self, line: &[u8]) -> bool {
        if self.wanted == TIME || self.needles.iter().any(|needle| needle.find(line).is_some()) {
            return true;
        }
        let [arn, run] = &self.anchors;
        (self.executions.len() > 1 && any(arn, line, &self.executions))
            || (self.runs.len() > 1 && any(run, line, &self.runs))
    }

    pub(super) fn broker(&mut self, line: &Line) {
        let Some(run) = &line.run else { return };
        let Some(at) = At::parse(&line.time) else { return };
        let mut bits = self.below(
            &run.id,
            run.execution_arn.as_deref(),
            run.parents.iter().map(String::as_str),
            run.parent.as_deref(),
        );
        if run.subject.as_ref().is_some_and(|subject| Some(&subject.id) == self.selection.subject.as_ref()) {
            bits |= SUBJECT;
        }
        bits |= self.of_line(at, line.path.as_deref(), line.lease_id.as_deref());
        self.mark(&run.id, bits);
    }

    pub(super) fn vault(&mut self, line: &VaultLine) {
        let made = line.made.as_ref();
        let tokens = [
            Some((&line.metadata, line.accessor.as_deref())),
            made.map(|made| (&made.metadata, made.accessor.as_deref())),
        ];
        // A login is of no run by its token, but of that of the broker's process by the header.
        if let Some(run) = line.run.as_deref().filter(|_| line.is_login())
            && self.selection.is_accessor(made.and_then(|made| made.accessor.as_deref()))
        {
            self.mark(run, ACCESSOR);
        }
        for (meta, accessor) in tokens.into_iter().flatten() {
            let Some(run) = meta.get("run") else { continue };
            let get = |name: &str| meta.get(name).map(String::as_str);
            let chain = get("execution_chain").unwrap_or_default().split(' ').filter(|arn| !arn.is_empty());
            let above = get("parent_execution_arn").into_iter().chain(chain);
            let mut bits = self.below(run, get("execution_arn"), above, get("parent_run"));
            if get("subject").is_some_and(|subject| Some(subject) == self.selection.subject.as_deref()) {
                bits |= SUBJECT;
            }
            if self.selection.is_accessor(accessor) {
                bits |= ACCESSOR;
            }
            bits |= self.of_line(line.at, Some(&line.path), line.lease_id.as_deref());
            self.mark(run, bits);
        }
    }

    pub(super) fn history(&mut self, history: &History) {
        if history.execution.as_deref().is_some_and(|arn| self.executions.contains(arn)) {
            for nested in history.nested() {
                self.grew |= self.executions.insert(nested.into());
            }
        }
    }

    /// The runs that were chosen; `None` for all.
    pub(super) fn chosen(self) -> Chosen {
        if self.is_all() {
            return Chosen { runs: None, executions: self.executions };
        }
        let all = self.wanted;
        let runs = self.found.into_iter().filter(|(_, bits)| bits & all == all).map(|(run, _)| run).collect();
        Chosen { runs: Some(runs), executions: self.executions }
    }

    fn below<'l>(
        &mut self,
        id: &str,
        execution: Option<&str>,
        mut above: impl Iterator<Item = &'l str>,
        parent: Option<&str>,
    ) -> u8 {
        let mut bits = 0;
        if self.selection.execution.is_some() {
            let itself = execution.is_some_and(|arn| self.executions.contains(arn));
            if itself || above.any(|arn| self.executions.contains(arn)) {
                bits |= EXECUTION;
                if let (false, Some(arn)) = (itself, execution) {
                    self.grew |= self.executions.insert(arn.into());
                }
            }
        }
        if self.selection.run.is_some() {
            let itself = self.runs.contains(id);
            if itself || parent.is_some_and(|parent| self.runs.contains(parent)) {
                bits |= RUN;
                if !itself {
                    self.grew |= self.runs.insert(id.into());
                }
            }
        }
        bits
    }

    fn of_line(&self, at: At, path: Option<&str>, lease: Option<&str>) -> u8 {
        if !self.selection.is_in_time(at) {
            return 0;
        }
        let mut bits = TIME;
        if path.is_some_and(|path| self.selection.is_path(path)) {
            bits |= PATH;
        }
        if lease.is_some_and(|lease| self.selection.is_lease(lease)) {
            bits |= LEASE;
        }
        bits
    }

    fn mark(&mut self, run: &str, bits: u8) {
        if bits & self.wanted != 0 {
            match self.found.get_mut(run) {
                Some(found) => *found |= bits,
                None => {
                    self.found.insert(run.into(), bits);
                }
            }
        }
    }
}

/// The runs that were chosen.
pub(super) struct Chosen {
    runs: Option<HashSet<Box<str>>>,
    executions: HashSet<Box<str>>,
}

impl Chosen {
    pub(super) fn is_all(&self) -> bool {
        self.runs.is_none()
    }

    pub(super) fn has(&self, run: &str) -> bool {
        self.runs.as_ref().is_none_or(|runs| runs.contains(run))
    }

    pub(super) fn executions(&self) -> impl Iterator<Item = &str> {
        self.executions.iter().map(|arn| &**arn)
    }

    pub(super) fn has_execution(&self, arn: &str) -> bool {
        self.runs.is_none() || self.executions.contains(arn)
    }

    /// The execution of a chosen run, whose history belongs to the trace.
    pub(super) fn add_execution(&mut self, arn: &str) {
        if self.runs.is_some() && !self.executions.contains(arn) {
            self.executions.insert(arn.into());
        }
    }

    /// Whether a line may be of a chosen run; a `false` is certain. `anchor` finds what ids begin with.
    pub(super) fn may_concern(&self, anchor: &Finder<'_>, line: &[u8]) -> bool {
        self.runs.as_ref().is_none_or(|runs| any(anchor, line, runs))
    }

    /// The finder for [`may_concern`](Self::may_concern): every id of a run begins with `run-`; where one does not, all
    /// lines may concern it.
    pub(super) fn anchor(&self) -> Finder<'static> {
        let regular = self.runs.iter().flatten().all(|run| run.starts_with("run-"));
        Finder::new(if regular { b"\"run-".as_slice() } else { b"\"" })
    }
}

/// Whether one of the ids stands in quotes behind the opening quote that the anchor begins with.
fn any(anchor: &Finder<'_>, line: &[u8], ids: &HashSet<Box<str>>) -> bool {
    anchor.find_iter(line).any(|at| {
        let rest = &line[at + 1..];
        let end = memchr::memchr(b'"', rest).unwrap_or(rest.len());
        // Several stand in one text in `execution_chain`.
        rest[..end].split(|&byte| byte == b' ').any(|id| {
            let id = id.strip_suffix(b"\\").unwrap_or(id);
            std::str::from_utf8(id).is_ok_and(|id| ids.contains(id))
        })
    })
}

/// The longest part of a text that every JSON writer leaves as it is.
fn plain(text: &str) -> &str {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.:/@ ,=+".contains(c);
    text.split(|c| !is_plain(c)).max_by_key(|part| part.len()).unwrap_or_default()
}
