//! The passes over the input, and what each takes down.
//!
//! 1. Every line is looked at: which log it is of, whether the chains are whole, which requests brokers tell of, and which
//!    runs are chosen. Again, while a pass finds runs or executions below chosen ones.
//! 2. The chosen runs' lines of brokers' logs are read, the histories of their executions, and all logins of Vault's log.
//! 3. Then who we are to Vault is known, and its log is read: what chosen runs asked for, and what was done under our roles.
//!    Again, while a pass finds tokens that were made by who went round the broker.
//!
//! **Memory.** A trace holds the lines that it shows, at most [`MOST_LINES`] of some 2 KB each; a report holds none, but 0.5 KB for each
//! run, 0.3 KB for each lease and each anchor, and 100 bytes for each request to Vault. Beside these 16 bytes for each request that brokers
//! tell of, and one line or document at a time.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io::{BufReader, Write as _};

use memchr::memmem::Finder;

use super::anchors;
use super::chain::Chains;
use super::foreign::{Foreign, Key, Logins, Seen};
use super::ledger::{Ledger, RunState};
use super::output::{FileSeen, Place, Skipped};
use super::read::history::History;
use super::read::quick::{Head, Requests};
use super::read::vault::VaultLine;
use super::read::{Piece, Source, place};
use super::select::{Choice, Chosen, Selection};
use super::tally::Tally;
use super::{Progress, TraceError};
use crate::audit::verify::anchored::Anchors;
use crate::audit::{At, Line, verify};
use fetched::Fetching;

mod confirmed;
mod fetched;
mod in_vault;

pub(super) use confirmed::Confirmed;

pub use fetched::MOST_HISTORIES;

/// No more lines are shown of one selection.
pub const MOST_LINES: usize = 50_000;

/// How many lines are read between two words of progress.
const TOLD_EVERY: u32 = 1 << 14;

/// Lines that are listed as passed over.
const SKIPPED: usize = 100;

/// A line that is shown.
#[derive(Clone, Debug)]
pub(super) enum Record {
    Broker(Box<Line>),
    Vault(Box<VaultLine>),
}

/// An execution's history, and where its first line is.
#[derive(Debug)]
pub(super) struct HistorySeen {
    pub(super) place: Place,
    pub(super) history: History,
}

/// Everything that was taken down.
pub(super) struct Survey<'a> {
    pub(super) selection: &'a Selection,
    sources: Vec<Source>,
    pub(super) files: Vec<FileSeen>,
    skipped: BTreeMap<Place, &'static str>,
    more_skipped: u64,
    pub(super) chains: Vec<Chains>,
    pub(super) chosen: Chosen,
    pub(super) ledger: Ledger,
    /// The lines to be shown; none of them for a report.
    pub(super) records: Option<Vec<(At, Place, Record)>>,
    pub(super) histories: Vec<HistorySeen>,
    pub(super) logins: Logins,
    /// The accessors of the tokens of chosen runs, as Vault's log shows them, and whose they are.
    tokens: HashMap<Box<str>, Box<str>>,
    pub(super) foreign: BTreeMap<Key, Foreign>,
    pub(super) seen: HashMap<(u32, u64), Seen>,
    /// Whether a request of Vault's log carries `X-Tenure-Request`.
    pub(super) headers_are_audited: bool,
    /// From the first to the last line of Vault's log.
    pub(super) vault_covers: Option<(At, At)>,
    /// Histories of executions that are not known.
    pub(super) histories_unknown: u64,
    /// What a report counts.
    pub(super) tally: Option<Tally>,
    /// What Vault's log knows of brokers' chains.
    anchors: Anchors,
    /// How far that confirms them, for a report.
    pub(super) confirmed: Option<Confirmed>,
    /// Histories that none of the files is.
    pub(super) fetching: Fetching<'a>,
    progress: &'a mut dyn FnMut(Progress),
    read: u64,
}

impl<'a> Survey<'a> {
    pub(super) fn new(
        sources: Vec<Source>,
        selection: &'a Selection,
        keep: bool,
        progress: &'a mut dyn FnMut(Progress),
    ) -> Self {
        let files =
            sources.iter().map(|source| FileSeen { name: source.name.clone(), ..FileSeen::default() });
        Self {
            selection,
            files: files.collect(),
            chains: sources.iter().map(|_| Chains::default()).collect(),
            sources,
            skipped: BTreeMap::new(),
            more_skipped: 0,
            chosen: Choice::new(selection).chosen(),
            ledger: Ledger::default(),
            records: keep.then(Vec::new),
            histories: Vec::new(),
            logins: Logins::default(),
            tokens: HashMap::new(),
            foreign: BTreeMap::new(),
            seen: HashMap::new(),
            headers_are_audited: false,
            vault_covers: None,
            histories_unknown: 0,
            tally: None,
            anchors: Anchors::default(),
            confirmed: None,
            fetching: Fetching::default(),
            progress,
            read: 0,
        }
    }

    /// All passes.
    ///
    /// # Errors
    /// What cannot be read, and a selection that is too large.
    pub(super) fn run(mut self) -> Result<Self, TraceError> {
        self.choose()?;
        self.collect()?;
        let boots: HashSet<u32> = self.ledger.runs.values().filter_map(|run| run.boot).collect();
        self.logins.resolve(&self.ledger, &boots);
        self.vault()?;
        if self.tally.is_some() {
            self.confirm()?;
        }
        if let Some(records) = &mut self.records {
            records.retain(|(_, _, record)| match record {
                Record::Broker(line) if line.run.is_none() => {
                    self.ledger.known_boot(&line.boot).is_some_and(|boot| boots.contains(&boot))
                }
                _ => true,
            });
        }
        Ok(self)
    }

    pub(super) fn skipped(&self) -> (Vec<Skipped>, u64) {
        let listed = self.skipped.iter().map(|(&place, &why)| Skipped { place, why: why.to_owned() });
        (listed.collect(), self.more_skipped)
    }

    fn pass(&mut self, sink: impl FnMut(&mut Self, usize, u64, Piece<'_>)) -> Result<(), TraceError> {
        self.pass_over((0..self.sources.len()).collect(), sink)
    }

    /// A pass over these files, in that order.
    fn pass_over(
        &mut self,
        files: Vec<usize>,
        mut sink: impl FnMut(&mut Self, usize, u64, Piece<'_>),
    ) -> Result<(), TraceError> {
        let sources = std::mem::take(&mut self.sources);
        let mut result = Ok(());
        self.read += 1;
        let of = files.iter().map(|file| sources[*file].bytes).sum();
        let mut before = 0;
        for file in files {
            let source = &sources[file];
            let counted = Cell::new(0);
            let mut lines: u32 = 0;
            let mut last = 0;
            let read = source.lines(&counted, &mut |line, piece| {
                if lines.is_multiple_of(TOLD_EVERY) {
                    (self.progress)(Progress { pass: self.read, bytes: before + counted.get(), of });
                }
                lines = lines.wrapping_add(1);
                last = line;
                sink(self, file, line, piece);
            });
            before += source.bytes;
            let Err(error) = read else { continue };
            let Some(why) = source.excuse(&error) else {
                result = Err(TraceError::Read { name: self.files[file].name.clone(), source: error });
                break;
            };
            if self.read == 1 {
                self.skip(place(file, last + 1), why);
            }
        }
        self.sources = sources;
        result
    }

    fn skip(&mut self, place: Place, why: &'static str) {
        if self.skipped.len() < SKIPPED {
            self.skipped.insert(place, why);
        } else {
            self.more_skipped += 1;
        }
        self.files[place.file as usize].skipped += 1;
    }

    fn choose(&mut self) -> Result<(), TraceError> {
        let selection = self.selection;
        let mut choice = Choice::new(selection);
        let requests = Requests::default();
        let header = Finder::new(br#""x-tenure-request":"#);
        let mut first = true;
        loop {
            self.pass(|this, file, line, piece| {
                let at = place(file, line);
                match piece {
                    Piece::Broker(bytes) => {
                        if first {
                            this.look(at, bytes, &requests);
                        }
                        if !choice.is_all()
                            && choice.may_concern(bytes)
                            && let Ok(line) = serde_json::from_slice(bytes)
                        {
                            choice.broker(&line);
                        }
                    }
                    Piece::Vault(bytes) => {
                        if first {
                            this.files[file].vault_lines += 1;
                            // Vault writes the names of headers in lower case.
                            this.headers_are_audited =
                                this.headers_are_audited || header.find(bytes).is_some();
                        }
                        if !choice.is_all()
                            && choice.may_concern(bytes)
                            && let Ok(line) = VaultLine::parse(bytes)
                        {
                            choice.vault(&line);
                        }
                    }
                    Piece::Document(bytes) => match History::parse(bytes) {
                        Ok(history) => {
                            this.files[file].histories += u64::from(first);
                            choice.history(&history);
                            this.fetching.given(&history);
                        }
                        Err(why) if first => this.skip(at, why),
                        Err(_) => {}
                    },
                    Piece::Unknown(why) if first => this.skip(at, why),
                    Piece::Unknown(_) => {}
                }
            })?;
            first = false;
            self.fetch_below(&mut choice)?;
            if !choice.grew() {
                break;
            }
        }
        self.chosen = choice.chosen();
        Ok(())
    }

    /// Looks at a broker's line, whoever it is about.
    fn look(&mut self, at: Place, bytes: &[u8], requests: &Requests) {
        let file = &mut self.files[at.file as usize];
        file.broker_lines += 1;
        let Some(head) = Head::of(bytes) else {
            self.chains[at.file as usize].broken = true;
            return self.skip(at, "it begins as a broker's line does, and is none");
        };
        self.chains[at.file as usize].line(at.line, bytes, head.event == b"audit.reopened");
        if let Some(time) = std::str::from_utf8(&head.time).ok().and_then(At::parse) {
            file.first = Some(file.first.map_or(time, |first| first.min(time)));
            file.last = Some(file.last.map_or(time, |last| last.max(time)));
        }
        if let Ok(id) = std::str::from_utf8(head.boot) {
            let boot = self.ledger.boot(id) as usize;
            let boot = &mut self.ledger.boots[boot];
            boot.stopped |= head.event == b"shutdown";
            if boot.first.is_none_or(|first| head.time < first) {
                boot.first = Some(head.time);
            }
            if boot.last.is_none_or(|last| last <= head.time) {
                (boot.last, boot.file) = (Some(head.time), at.file);
            }
        }
        if let Some(request) = requests.of(bytes).and_then(|id| std::str::from_utf8(id).ok()) {
            self.ledger.claim(request, head.event == b"login");
        }
    }

    fn collect(&mut self) -> Result<(), TraceError> {
        let anchor = self.chosen.anchor();
        let recovered = Finder::new(br#""event":"audit.recovered""#);
        let run = Finder::new(br#","run":{"#);
        let is_auth = Finder::new(b"auth/");
        let mut too_many = false;
        self.pass(|this, file, number, piece| {
            let place = place(file, number);
            match piece {
                Piece::Broker(bytes) => {
                    let no_run = run.find(bytes).is_none();
                    if !(no_run && (this.records.is_some() || recovered.find(bytes).is_some())
                        || !no_run && this.chosen.may_concern(&anchor, bytes))
                    {
                        return;
                    }
                    let Ok(line) = serde_json::from_slice::<Line>(bytes) else {
                        return this.skip(place, "it is no line of a broker's log of this version");
                    };
                    let Some(at) = At::parse(&line.time) else {
                        return this.skip(place, "its time is not in RFC 3339");
                    };
                    if line.run.as_ref().is_some_and(|run| !this.chosen.has(&run.id)) {
                        return;
                    }
                    if let Some(arn) = line.run.as_ref().and_then(|run| run.execution_arn.as_deref()) {
                        this.chosen.add_execution(arn);
                    }
                    this.ledger.broker(at, place, &line);
                    if let Some(tally) = &mut this.tally {
                        tally.broker(at, &line);
                    }
                    too_many |= this.keep(at, place, || Record::Broker(Box::new(line)));
                }
                Piece::Vault(bytes) if is_auth.find(bytes).is_some() => {
                    if let Ok(line) = VaultLine::parse(bytes)
                        && line.is_answer
                        && line.error.is_none()
                    {
                        this.know_token(&line);
                        this.logins.take(&line);
                        if this.tally.is_some() {
                            let name = &this.files[file].name;
                            anchors::take(&mut this.anchors, &line, || format!("{name}:{number}"));
                        }
                    }
                }
                _ => {}
            }
        })?;
        if too_many {
            return Err(TraceError::TooMany);
        }
        self.read_histories()?;
        self.fetch_rest()
    }

    /// After the runs: their executions are known then.
    fn read_histories(&mut self) -> Result<(), TraceError> {
        let with: BTreeSet<usize> =
            (0..self.files.len()).filter(|&file| self.files[file].histories > 0).collect();
        if with.is_empty() || self.records.is_none() {
            return Ok(());
        }
        self.pass(|this, file, number, piece| {
            if let (true, Piece::Document(bytes)) = (with.contains(&file), piece)
                && let Ok(mut history) = History::parse(bytes)
            {
                if history.execution.is_none() {
                    history.execution = this.execution_named(file);
                }
                this.histories_unknown += u64::from(history.execution.is_none() && !this.chosen.is_all());
                if history
                    .execution
                    .as_deref()
                    .map_or(this.chosen.is_all(), |arn| this.chosen.has_execution(arn))
                {
                    this.histories.push(HistorySeen { place: place(file, number), history });
                }
            }
        })
    }

    /// A history that does not tell whose it is may be in a file that has its execution's name.
    fn execution_named(&self, file: usize) -> Option<String> {
        let path = std::path::Path::new(&self.files[file].name);
        let stem = path.file_name()?.to_str()?.split('.').next()?;
        let mut named = self.ledger.runs.values().filter_map(|run| run.execution.as_ref());
        named.find(|arn| arn.rsplit(':').next() == Some(stem)).map(ToString::to_string)
    }

    fn keep(&mut self, at: At, place: Place, record: impl FnOnce() -> Record) -> bool {
        let Some(records) = &mut self.records else { return false };
        let room = records.len() < MOST_LINES;
        if room {
            records.push((at, place, record()));
        }
        !room
    }

    /// Reads a broker's file again and names what is wrong with its chain.
    ///
    /// # Errors
    /// The reader's.
    pub(super) fn verify(&self, file: usize) -> Result<(verify::Report, Vec<u64>), TraceError> {
        let wrong = |source| TraceError::Read { name: self.files[file].name.clone(), source };
        let (lines, mut into) = std::io::pipe().map_err(wrong)?;
        std::thread::scope(|threads| {
            let source = &self.sources[file];
            let feeding = threads.spawn(move || {
                let mut numbers = Vec::new();
                let mut failed = Ok(());
                let mut into = std::io::BufWriter::with_capacity(1 << 16, &mut into);
                let read = source.lines(&Cell::new(0), &mut |number, piece| {
                    if let (true, Piece::Broker(bytes)) = (failed.is_ok(), piece) {
                        numbers.push(number);
                        failed = into.write_all(bytes).and_then(|()| into.write_all(b"\n"));
                    }
                });
                read.or_else(|error| source.excuse(&error).map(drop).ok_or(error))?;
                failed.and_then(|()| into.flush()).map(|()| numbers)
            });
            let lines = [BufReader::with_capacity(1 << 16, lines)];
            let report = match self.chains[file].begun.len() {
                0 | 1 => verify::verify_all(lines, &mut |_| {}),
                _ => verify::verify_collected(lines, &mut |_| {}),
            };
            let numbers = feeding.join().unwrap_or_else(|_| Err(std::io::Error::other("the reader ended")));
            Ok((report.map_err(wrong)?, numbers.map_err(wrong)?))
        })
    }

    pub(super) fn run_state(&self, id: &str) -> Option<&RunState> {
        self.ledger.runs.get(id).map(|run| &**run)
    }
}
