//! The passes over Vault's log: what chosen runs asked for, and what was done under our roles without a broker.

use memchr::memmem::Finder;

use super::{Record, Survey};
use crate::audit::At;
use crate::audit::trace::TraceError;
use crate::audit::trace::foreign::{Key, identity};
use crate::audit::trace::ledger::{Mark, RunState, parts};
use crate::audit::trace::output::Place;
use crate::audit::trace::read::vault::VaultLine;
use crate::audit::trace::read::{Piece, place};

impl Survey<'_> {
    /// Remembers whose token was made. Lines that do not say whose they are can be told by it, and those about it.
    pub(super) fn know_token(&mut self, line: &VaultLine) {
        // A report shows no lines.
        let Some(made) = line.made.as_ref().filter(|_| self.records.is_some()) else { return };
        if let (Some(accessor), Some(run)) = (&made.accessor, made.metadata.get("run"))
            && self.chosen.has(run)
        {
            self.tokens.insert(accessor.as_str().into(), run.as_str().into());
        }
    }

    /// Whether the line names the token of a chosen run; `end` finds what follows the names of such members.
    fn names_token(&self, end: &Finder<'_>, line: &[u8]) -> bool {
        end.find_iter(line).any(|at| {
            let rest = &line[at + 11..];
            let end = memchr::memchr(b'"', rest).unwrap_or(rest.len());
            std::str::from_utf8(&rest[..end]).is_ok_and(|accessor| self.tokens.contains_key(accessor))
        })
    }

    /// The chosen run whose token a line names that does not say whose it is: the one that asked, or was asked about.
    pub(in super::super) fn run_of_token(&self, line: &VaultLine) -> Option<String> {
        let of = |accessor: &Option<String>| self.tokens.get(accessor.as_deref()?).map(ToString::to_string);
        of(&line.accessor).or_else(|| of(&line.about))
    }

    /// From the first line of a chosen run to the end of the last of its tokens.
    fn window(&self) -> Option<(At, At)> {
        let runs = || self.ledger.runs.values().map(|run| &**run);
        let from = runs().filter_map(|run| run.first).min()?.0;
        let ends = |run: &RunState| run.last.map(|(at, _)| at).max(run.token_ends).max(run.deadline);
        Some((from, runs().filter_map(ends).max()?))
    }

    pub(super) fn vault(&mut self) -> Result<(), TraceError> {
        if self.files.iter().all(|file| file.vault_lines == 0) {
            return Ok(());
        }
        let window = if self.chosen.is_all() { None } else { self.window() };
        let anchor = self.chosen.anchor();
        let accessor = Finder::new(br#""accessor":""#);
        let names = Finder::new(br#"accessor":""#);
        let answer = Finder::new(br#""type":"response""#);
        let base = self.records.as_ref().map_or(0, Vec::len);
        loop {
            let needles = self.logins.needles();
            let needles: Vec<_> = needles.iter().map(|needle| Finder::new(needle.as_bytes())).collect();
            let asked = [self.selection.path.as_deref(), self.selection.lease.as_deref()];
            let accessors = self.selection.accessors.iter().map(String::as_str);
            let asked = asked.into_iter().flatten().map(|text| text.trim_end_matches('*'));
            let asked: Vec<_> = asked.chain(accessors).map(Finder::new).collect();
            let known = self.logins.foreign.len();
            if let Some(records) = &mut self.records {
                records.truncate(base);
            }
            self.foreign.clear();
            self.seen.clear();
            let mut too_many = false;
            let first = self.vault_covers.is_none();
            self.pass(|this, file, number, piece| {
                let Piece::Vault(bytes) = piece else { return };
                let concerns = this.chosen.is_all()
                    || this.chosen.may_concern(&anchor, bytes)
                    || needles.iter().chain(&asked).any(|needle| needle.find(bytes).is_some())
                    || !this.logins.foreign.is_empty() && this.logins.names_foreign(&accessor, bytes)
                    || !this.tokens.is_empty() && this.names_token(&names, bytes);
                if !concerns || answer.find(bytes).is_none() {
                    return;
                }
                let place = place(file, number);
                match VaultLine::parse(bytes) {
                    Ok(line) => too_many |= this.take(place, line, window),
                    Err(why) if first => this.skip(place, why),
                    Err(_) => {}
                }
            })?;
            if too_many {
                return Err(TraceError::TooMany);
            }
            if self.logins.foreign.len() == known {
                return Ok(());
            }
        }
    }

    /// Takes one of Vault's answers; whether there was no more room for it.
    fn take(&mut self, place: Place, line: VaultLine, window: Option<(At, At)>) -> bool {
        if !line.is_answer {
            return false;
        }
        let (from, to) = self.vault_covers.unwrap_or((line.at, line.at));
        self.vault_covers = Some((from.min(line.at), to.max(line.at)));
        let of_token = line.metadata.contains_key("run");
        let said = line.of_run().filter(|run| self.chosen.has(run)).map(str::to_owned);
        let known = said.as_deref().filter(|run| of_token || self.ledger.runs.contains_key(*run));
        // A header is anybody's to send: what it says hides no request about a run's token.
        let of_run = known.is_some() || self.run_of_token(&line).is_some();
        if let Some(run) = known {
            self.ledger.vault(place, &line, run);
        }
        let in_window = window.is_none_or(|(from, to)| (from..=to).contains(&line.at));
        let is_foreign = self.judge(place, &line, said.as_deref(), in_window);
        let asked_for = self.selection.is_path(&line.path)
            || line.lease_id.as_deref().is_some_and(|id| self.selection.is_lease(id))
            || self.selection.is_of_token(&line);
        let shown = of_run || said.is_none() && (is_foreign || asked_for);
        shown && self.keep(line.at, place, || Record::Vault(Box::new(line)))
    }

    /// Whether it was done under our roles or with a run's token, and no broker asked for it.
    fn judge(&mut self, place: Place, line: &VaultLine, run: Option<&str>, in_window: bool) -> bool {
        let mark = (line.at, place);
        let claimed = line.request.as_deref().is_some_and(|request| self.ledger.claims(request))
            || self.ledger.vault_ids.contains(line.id.as_str());
        if claimed {
            return self.is_again(mark, line);
        }
        let made_by_foreign =
            line.accessor.as_ref().is_some_and(|accessor| self.logins.foreign.contains(&**accessor));
        let token = line.metadata.get("run").filter(|_| run.is_some()).cloned();
        let ours = self.logins.is_ours(identity(&line.metadata, &line.display_name).as_deref());
        if !(token.is_some() || made_by_foreign || ours && in_window && !line.metadata.contains_key("run")) {
            return false;
        }
        // Without headers a broker's own logins and renewals are told from others' by nothing.
        if !self.headers_are_audited && (token.is_none() || line.error.is_some() || line.is_management()) {
            return false;
        }
        let boot = line.request.as_deref().and_then(parts).map(|(boot, _)| boot);
        let key = match boot {
            Some(boot) if self.ledger.known_boot(boot).is_some() => {
                // The broker tells of no questions; a login token's are also asked for runs that were not chosen.
                if line.is_bookkeeping() {
                    return false;
                }
                None
            }
            // The token of a run that a given log tells of is used by that log's broker alone.
            Some(boot)
                if !token.as_deref().and_then(|run| self.run_state(run)).is_some_and(|run| run.is_ours) =>
            {
                Some(Key::Boot(boot.into()))
            }
            _ => None,
        };
        let key = match (key, token, &line.accessor) {
            (Some(key), ..) => key,
            (None, Some(run), _) => Key::Token(run.into()),
            (None, None, Some(accessor)) => Key::Accessor(accessor.as_str().into()),
            (None, None, None) => match line.made.as_ref().and_then(|made| made.accessor.as_deref()) {
                Some(accessor) => Key::Accessor(accessor.into()),
                None => Key::Accessor("".into()),
            },
        };
        if let (Key::Accessor(_) | Key::Token(_), Some(made)) = (&key, &line.made)
            && let Some(accessor) = &made.accessor
        {
            self.logins.foreign.insert(accessor.as_str().into());
        }
        let is_bypass = !matches!(key, Key::Boot(_));
        self.foreign.entry(key.clone()).or_default().take(mark, line, &key);
        is_bypass
    }

    /// Whether the id was used for something else before: it is easily guessed, and a line claims one request by it.
    fn is_again(&mut self, mark: Mark, line: &VaultLine) -> bool {
        let Some((boot, number)) = line.request.as_deref().and_then(parts) else {
            return false;
        };
        let Some(boot) = self.ledger.known_boot(boot) else { return false };
        let seen = self.seen.entry((boot, number)).or_default();
        // A wrapped secret id is unwrapped for the login that it is for, as one call.
        if line.is_bookkeeping() || line.is_unwrapping() {
            return false;
        }
        let Some(first) = seen.differs(mark, line) else { return false };
        let key = Key::Again(line.request.as_deref().unwrap_or_default().into());
        let entry = self.foreign.entry(key.clone()).or_default();
        entry.take(mark, line, &key);
        entry.marks.push(first);
        true
    }
}
