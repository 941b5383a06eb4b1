//! Histories that none of the files is, asked of who has them.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::{HistorySeen, Survey};
use crate::audit::trace::output::{FileSeen, Place, Severity};
use crate::audit::trace::read::history::History;
use crate::audit::trace::select::Choice;
use crate::audit::trace::{Fetch, TraceError, Unfetched};

/// No more histories are fetched for one trace.
pub const MOST_HISTORIES: usize = 500;

/// Who is asked, and what came of it.
#[derive(Default)]
pub(in super::super) struct Fetching<'a> {
    fetch: Option<&'a mut Fetch<'a>>,
    /// Executions whose history is among the files, as far as these tell.
    given: HashSet<Box<str>>,
    asked: BTreeSet<Box<str>>,
    had: BTreeMap<Box<str>, History>,
    /// What was not had, and why.
    notes: BTreeMap<Box<str>, (Severity, String)>,
    /// Executions that were too many.
    left: BTreeSet<Box<str>>,
}

impl<'a> Fetching<'a> {
    pub(in super::super) fn by(&mut self, fetch: Option<&'a mut Fetch<'a>>) {
        self.fetch = fetch;
    }

    /// A history that is among the files.
    pub(super) fn given(&mut self, history: &History) {
        if let Some(arn) = history.execution.as_deref().filter(|_| self.fetch.is_some()) {
            self.given.insert(arn.into());
        }
    }

    /// What could not be had.
    pub(in super::super) fn notes(&self) -> Vec<(Severity, String)> {
        let mut notes: Vec<_> = self.notes.values().cloned().collect();
        if !self.left.is_empty() {
            let message = format!(
                "the histories of {} more executions were not fetched: no more than {MOST_HISTORIES} are; narrow what is \
                 asked for",
                self.left.len()
            );
            notes.push((Severity::Warning, message));
        }
        notes
    }

    fn is_known(&self, arn: &str) -> bool {
        self.given.contains(arn) || self.asked.contains(arn) || self.left.contains(arn)
    }

    /// The history, if it could be had; each is asked for once.
    fn ask(&mut self, arn: &str) -> Result<Option<&History>, TraceError> {
        let Some(fetch) = &mut self.fetch else { return Ok(None) };
        if self.asked.len() >= MOST_HISTORIES {
            self.left.insert(arn.into());
            return Ok(None);
        }
        self.asked.insert(arn.into());
        let note = |why: String| format!("the history of {arn} was not fetched: {why}");
        match fetch(arn) {
            Ok(mut events) => {
                for event in &mut events {
                    event.line = event.id;
                }
                let history = History { execution: Some(arn.to_owned()), events };
                return Ok(Some(self.had.entry(arn.into()).or_insert(history)));
            }
            Err(Unfetched::Failed(why)) => return Err(TraceError::NotFetched(why)),
            Err(Unfetched::None(why)) => self.notes.insert(arn.into(), (Severity::Notice, note(why))),
            Err(Unfetched::Refused(why)) => self.notes.insert(arn.into(), (Severity::Warning, note(why))),
        };
        Ok(None)
    }
}

impl Survey<'_> {
    /// Of the execution that was asked for, and those that it started: their runs may be known by that alone.
    pub(super) fn fetch_below(&mut self, choice: &mut Choice<'_>) -> Result<(), TraceError> {
        if self.fetching.fetch.is_none() || self.selection.execution.is_none() {
            return Ok(());
        }
        // The least first, so that it is always the same ones where there are too many.
        while let Some(arn) =
            choice.executions.iter().filter(|arn| !self.fetching.is_known(arn)).min().cloned()
        {
            if let Some(history) = self.fetching.ask(&arn)? {
                choice.history(history);
            }
        }
        Ok(())
    }

    /// Of the executions of chosen runs. What was fetched belongs to the trace from here on.
    pub(super) fn fetch_rest(&mut self) -> Result<(), TraceError> {
        if self.fetching.fetch.is_none() {
            return Ok(());
        }
        let is_all = self.chosen.is_all();
        let mut wanted: BTreeSet<Box<str>> = match is_all {
            true => {
                let runs = self.ledger.runs.values();
                runs.filter_map(|run| run.execution.as_deref().map(Into::into)).collect()
            }
            false => self.chosen.executions().map(Into::into).collect(),
        };
        let named = self.histories.iter().filter_map(|seen| seen.history.execution.as_deref());
        self.fetching.given.extend(named.map(Into::into));
        // Where everything is asked for, so is what they started.
        while let Some(arn) = wanted.pop_first() {
            if self.fetching.is_known(&arn) {
                continue;
            }
            if let Some(history) = self.fetching.ask(&arn)?
                && is_all
            {
                wanted.extend(history.nested().map(Into::into));
            }
        }
        for (arn, history) in std::mem::take(&mut self.fetching.had) {
            let place = Place { file: u32::try_from(self.files.len()).unwrap_or(u32::MAX), line: 0 };
            let name = format!("(fetched) {arn}");
            self.files.push(FileSeen { name, histories: 1, ..FileSeen::default() });
            self.histories.push(HistorySeen { place, history });
        }
        Ok(())
    }
}
