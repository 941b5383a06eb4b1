//! What the logs say of each run, lease and broker, folded line by line: the order of the lines does not matter.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::output::{Place, SubjectSeen};
use super::read::quick::Stamp;
use super::read::vault::VaultLine;
use crate::audit::{At, Event, Line, Outcome, Recovered, Run, Source};

/// Refusals of a run that are remembered with their time.
const REMEMBERED: usize = 256;

/// A time and the line that says so.
pub(super) type Mark = (At, Place);

/// What is known of a run.
#[derive(Debug, Default)]
pub(super) struct RunState {
    pub(super) kind: Arc<str>,
    pub(super) execution: Option<Arc<str>>,
    pub(super) state: Option<Arc<str>>,
    pub(super) attempt: Option<u32>,
    pub(super) standing: Option<Arc<str>>,
    pub(super) parents: Box<[Arc<str>]>,
    pub(super) parent: Option<Arc<str>>,
    pub(super) subject: Option<Arc<SubjectSeen>>,
    /// The rule whose runs share one token and its leases, where it is that run.
    pub(super) shared_by: Option<Arc<str>>,
    pub(super) rule: Option<Arc<str>>,
    pub(super) boot: Option<u32>,
    /// Whether a broker's line tells of it, rather than Vault's log alone.
    pub(super) is_ours: bool,
    pub(super) first: Option<Mark>,
    pub(super) last: Option<Mark>,
    pub(super) registered: Option<Mark>,
    pub(super) started: Option<Mark>,
    pub(super) deadline: Option<At>,
    /// When the last of its tokens ends.
    pub(super) token_ends: Option<At>,
    pub(super) ended: Option<(At, Place, Arc<str>)>,
    /// The last time that the revocation was asked for, confirmed, and given up.
    pub(super) requested: Option<Mark>,
    pub(super) confirmed: Option<Mark>,
    pub(super) unconfirmed: Option<Mark>,
    /// The same of the login token, which hangs off the process's own run.
    pub(super) login_requested: Option<Mark>,
    pub(super) login_confirmed: Option<Mark>,
    pub(super) reads: u64,
    /// The last disclosure of the broker.
    pub(super) last_read: Option<Mark>,
    /// The last that Vault did for its token, other than to answer a question.
    pub(super) last_in_vault: Option<Mark>,
    pub(super) denials: u64,
    pub(super) denied: Vec<Mark>,
    /// Where something else is said of it, and what.
    pub(super) conflict: Option<(Mark, &'static str)>,
}

/// What is known of a lease.
#[derive(Debug, Default)]
pub(super) struct LeaseState {
    pub(super) path: Arc<str>,
    /// The run that minted it.
    pub(super) owner: Option<Arc<str>>,
    pub(super) minted: Option<Mark>,
    pub(super) expires: Option<At>,
    pub(super) reads: u64,
    /// The first line of each run that used it: most often there is one.
    pub(super) users: Vec<(Arc<str>, Mark)>,
}

/// What is known of one start of a broker. Its lines are all looked at, whatever is selected.
#[derive(Debug, Default)]
pub(super) struct BootState {
    pub(super) first: Option<Stamp>,
    pub(super) last: Option<Stamp>,
    /// The file of its last line.
    pub(super) file: u32,
    pub(super) stopped: bool,
    /// The numbers of the requests that its lines tell of.
    pub(super) requests: HashSet<u64>,
    /// Those that were logins.
    pub(super) logins: HashSet<u64>,
}

/// Something that the broker says to have had from Vault.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) boot: u32,
    pub(super) number: u64,
    pub(super) mark: Mark,
}

/// What the logs say.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Boxed, so that the room that the table keeps free is small.
    pub(super) runs: HashMap<Arc<str>, Box<RunState>>,
    pub(super) leases: HashMap<Arc<str>, LeaseState>,
    pub(super) boots: Vec<BootState>,
    boot_ids: HashMap<Box<str>, u32>,
    /// Requests whose ids are not of a boot.
    odd_requests: HashSet<Box<str>>,
    /// Vault's ids of requests that brokers tell of.
    pub(super) vault_ids: HashSet<Box<str>>,
    pub(super) calls: Vec<Call>,
    pub(super) lost: Vec<(Mark, Recovered)>,
    texts: HashSet<Arc<str>>,
    subjects: HashSet<Arc<SubjectSeen>>,
}

impl Ledger {
    pub(super) fn boot(&mut self, id: &str) -> u32 {
        if let Some(&boot) = self.boot_ids.get(id) {
            return boot;
        }
        let boot = u32::try_from(self.boots.len()).unwrap_or(u32::MAX);
        self.boots.push(BootState::default());
        self.boot_ids.insert(id.into(), boot);
        boot
    }

    pub(super) fn known_boot(&self, id: &str) -> Option<u32> {
        self.boot_ids.get(id).copied()
    }

    pub(super) fn boot_id(&self, boot: u32) -> &str {
        self.boot_ids.iter().find(|(_, number)| **number == boot).map_or("", |(id, _)| id)
    }

    /// Takes down that a broker's line tells of that request.
    pub(super) fn claim(&mut self, request: &str, is_login: bool) {
        match parts(request) {
            Some((boot, number)) => {
                let boot = self.boot(boot) as usize;
                self.boots[boot].requests.insert(number);
                if is_login {
                    self.boots[boot].logins.insert(number);
                }
            }
            None => {
                if !self.odd_requests.contains(request) {
                    self.odd_requests.insert(request.into());
                }
            }
        }
    }

    /// Whether a broker's line tells of that request.
    pub(super) fn claims(&self, request: &str) -> bool {
        match parts(request) {
            Some((boot, number)) => {
                self.known_boot(boot).is_some_and(|boot| self.boots[boot as usize].requests.contains(&number))
            }
            None => self.odd_requests.contains(request),
        }
    }

    /// Whether a broker's line says that it was a login.
    pub(super) fn claims_login(&self, request: &str) -> bool {
        parts(request).is_some_and(|(boot, number)| {
            self.known_boot(boot).is_some_and(|boot| self.boots[boot as usize].logins.contains(&number))
        })
    }

    fn text(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.texts.get(text) {
            return Arc::clone(known);
        }
        let text: Arc<str> = text.into();
        self.texts.insert(Arc::clone(&text));
        text
    }

    fn subject(&mut self, subject: SubjectSeen) -> Arc<SubjectSeen> {
        if let Some(known) = self.subjects.get(&subject) {
            return Arc::clone(known);
        }
        let subject = Arc::new(subject);
        self.subjects.insert(Arc::clone(&subject));
        subject
    }

    /// Takes a broker's line.
    pub(super) fn broker(&mut self, at: At, place: Place, line: &Line) {
        let mark = (at, place);
        if let Some(lost) = &line.recovered {
            self.lost.push((mark, lost.clone()));
        }
        let boot = self.boot(&line.boot);
        if let Some(id) = &line.vault_request_id
            && !self.vault_ids.contains(id.as_str())
        {
            self.vault_ids.insert(id.as_str().into());
        }
        let happened = matches!(line.outcome, Outcome::Done | Outcome::Granted);
        let expires = line.expires.as_deref().and_then(At::parse);
        // What comes from the cache was asked for before.
        let asked = happened && line.source.is_none_or(|source| source == Source::Vault);
        if let (true, Some((_, number))) = (asked, line.request.as_deref().and_then(parts)) {
            self.calls.push(Call { boot, number, mark });
        }
        let Some(run) = &line.run else { return };
        let about = self.about(run);
        let policy =
            line.policy.as_deref().filter(|_| line.event == Event::RunRegister).map(|rule| self.text(rule));
        let why = line.detail.as_deref().unwrap_or_default();
        let why = if line.event == Event::RunEnd { self.text(why) } else { Arc::default() };
        let id = self.text(&run.id);
        let state = self.runs.entry(Arc::clone(&id)).or_default();
        state.is(mark, about);
        state.boot = Some(boot);
        widen(state, mark);
        let of_login = line.detail.as_deref().is_some_and(|what| what.starts_with("login token"));
        match (line.event, happened) {
            (Event::RunRegister, true) => {
                earliest(&mut state.registered, mark);
                state.rule = policy.filter(|rule| !rule.is_empty()).or(state.rule.take());
                state.deadline = state.deadline.max(expires);
            }
            (Event::RunExtend, true) => state.deadline = state.deadline.max(expires),
            (Event::RunStart, true) => {
                earliest(&mut state.started, mark);
                state.token_ends = state.token_ends.max(expires);
            }
            (Event::Renew, true) if line.lease_id.is_none() && !of_login => {
                state.token_ends = state.token_ends.max(expires);
            }
            // That it was asked for is `granted`.
            (Event::RunEnd, true)
                if line.outcome == Outcome::Done
                    && state.ended.as_ref().is_none_or(|(ended, place, _)| mark < (*ended, *place)) =>
            {
                state.ended = Some((at, place, why));
            }
            (Event::RevokeRequested, _) if of_login => latest(&mut state.login_requested, mark),
            (Event::RevokeConfirmed, true) if of_login => latest(&mut state.login_confirmed, mark),
            (Event::RevokeRequested, _) => latest(&mut state.requested, mark),
            (Event::RevokeConfirmed, true) => latest(&mut state.confirmed, mark),
            (Event::RevokeUnconfirmed, _) => latest(&mut state.unconfirmed, mark),
            (Event::Read | Event::Deliver | Event::SessionOpen, true) => {
                state.reads += 1;
                latest(&mut state.last_read, mark);
            }
            _ => {}
        }
        let refused = line.outcome == Outcome::Denied || line.class.as_deref() == Some("denied");
        if refused && line.event != Event::Mint {
            state.denials += 1;
            if state.denied.len() < REMEMBERED {
                state.denied.push(mark);
            }
        }
        if let Some(lease) = line.lease_id.as_deref().filter(|_| happened) {
            let path = line.path.as_deref().map(|path| self.text(path));
            let lease = match self.leases.get_mut(lease) {
                Some(lease) => lease,
                None => self.leases.entry(lease.into()).or_default(),
            };
            if let Some(path) = path.filter(|_| lease.path.is_empty()) {
                lease.path = path;
            }
            match line.event {
                Event::Mint | Event::Rotate => {
                    earliest(&mut lease.minted, mark);
                    lease.owner = Some(Arc::clone(&id));
                    lease.expires = lease.expires.max(expires);
                }
                Event::Renew => lease.expires = lease.expires.max(expires),
                _ => lease.reads += 1,
            }
            match lease.users.iter_mut().find(|(user, _)| *user == id) {
                Some((_, first)) => *first = mark.min(*first),
                None => {
                    lease.users.reserve_exact(1);
                    lease.users.push((id, mark));
                }
            }
        }
    }

    /// Takes what Vault says of a run's token.
    pub(super) fn vault(&mut self, place: Place, line: &VaultLine, run: &str) {
        let mark = (line.at, place);
        let about = line.metadata.contains_key("run").then(|| self.about_token(&line.metadata));
        let shared = line.metadata.get("tag_shared_by").map(|rule| self.text(rule));
        let id = self.text(run);
        let state = self.runs.entry(id).or_default();
        if let Some(about) = about {
            state.is_in_vault(mark, about);
        }
        if state.shared_by.is_none() {
            state.shared_by = shared;
        }
        widen(state, mark);
        if line.error.is_none()
            && !line.is_bookkeeping()
            && !line.is_end()
            && line.metadata.contains_key("run")
        {
            latest(&mut state.last_in_vault, mark);
        }
    }

    fn about(&mut self, run: &Run) -> About {
        About {
            kind: self.text(&run.kind),
            execution: run.execution_arn.as_deref().map(|text| self.text(text)),
            state: run.state.as_deref().map(|text| self.text(text)),
            attempt: run.attempt,
            standing: run.standing.as_deref().map(|text| self.text(text)),
            parents: run.parents.iter().map(|text| self.text(text)).collect(),
            parent: run.parent.as_deref().map(|text| self.text(text)),
            subject: run.subject.as_ref().map(|subject| {
                self.subject(SubjectSeen {
                    id: subject.id.clone(),
                    kind: subject.kind.clone(),
                    assurance: subject.assurance.clone(),
                    issuer: subject.issuer.clone(),
                })
            }),
            shared_by: run.tags.get("shared_by").map(|rule| self.text(rule)),
        }
    }

    /// What a token's metadata says: the same, under other names.
    fn about_token(&mut self, meta: &BTreeMap<String, String>) -> About {
        let get = |name: &str| meta.get(name).map(String::as_str);
        let parents = get("execution_chain").or_else(|| get("parent_execution_arn")).unwrap_or_default();
        let subject = get("subject").map(|id| SubjectSeen {
            id: id.to_owned(),
            kind: get("subject_kind").unwrap_or_default().to_owned(),
            assurance: get("subject_assurance").unwrap_or_default().to_owned(),
            issuer: get("subject_issuer").map(str::to_owned),
        });
        About {
            kind: self.text(get("kind").unwrap_or_default()),
            execution: get("execution_arn").map(|text| self.text(text)),
            state: get("state").map(|text| self.text(text)),
            attempt: get("attempt").and_then(|attempt| attempt.parse().ok()),
            standing: get("verified").map(|text| self.text(text)),
            parents: parents.split(' ').filter(|arn| !arn.is_empty()).map(|arn| self.text(arn)).collect(),
            parent: get("parent_run").map(|text| self.text(text)),
            subject: subject.map(|subject| self.subject(subject)),
            shared_by: None,
        }
    }
}

/// What one line says that a run is.
struct About {
    kind: Arc<str>,
    execution: Option<Arc<str>>,
    state: Option<Arc<str>>,
    attempt: Option<u32>,
    standing: Option<Arc<str>>,
    parents: Box<[Arc<str>]>,
    parent: Option<Arc<str>>,
    subject: Option<Arc<SubjectSeen>>,
    shared_by: Option<Arc<str>>,
}

impl RunState {
    /// Takes what a broker's line says that it is.
    fn is(&mut self, mark: Mark, about: About) {
        if self.is_ours {
            return self.compare(mark, &about);
        }
        // What Vault said before is compared with what counts: the broker's own word.
        let was = std::mem::take(&mut self.is_ours) || self.first.is_some() && !self.kind.is_empty();
        if was {
            self.compare(mark, &about);
        }
        self.take(about);
        self.is_ours = true;
    }

    /// Takes what Vault's log says that it is.
    fn is_in_vault(&mut self, mark: Mark, about: About) {
        if self.is_ours || !self.kind.is_empty() {
            self.compare(mark, &about);
        } else {
            self.take(about);
        }
    }

    fn take(&mut self, about: About) {
        let About { kind, execution, state, attempt, standing, parents, parent, subject, shared_by } = about;
        (self.kind, self.execution, self.state, self.attempt) = (kind, execution, state, attempt);
        (self.standing, self.parents, self.parent, self.subject) = (standing, parents, parent, subject);
        self.shared_by = shared_by.or(self.shared_by.take());
    }

    fn compare(&mut self, mark: Mark, about: &About) {
        let what = if self.kind != about.kind {
            "its kind"
        } else if self.execution != about.execution {
            "its execution"
        } else if self.state != about.state || self.attempt != about.attempt {
            "its state"
        } else if self.standing != about.standing {
            "how far it is verified"
        } else if self.parents != about.parents || self.parent != about.parent {
            "what started it"
        } else if self.subject != about.subject {
            "its subject"
        } else {
            return;
        };
        if self.conflict.as_ref().is_none_or(|(before, _)| mark < *before) {
            self.conflict = Some((mark, what));
        }
    }
}

fn widen(state: &mut RunState, mark: Mark) {
    earliest(&mut state.first, mark);
    latest(&mut state.last, mark);
}

fn earliest(known: &mut Option<Mark>, mark: Mark) {
    *known = Some(known.map_or(mark, |known| known.min(mark)));
}

fn latest(known: &mut Option<Mark>, mark: Mark) {
    *known = Some(known.map_or(mark, |known| known.max(mark)));
}

/// The boot and the number of a request's id: `<boot>-<number>`.
pub(super) fn parts(request: &str) -> Option<(&str, u64)> {
    let (boot, number) = request.rsplit_once('-')?;
    // As it is written, so that no two texts are the same request.
    (!number.starts_with('0') && number.bytes().all(|byte| byte.is_ascii_digit())).then_some(())?;
    Some((boot, number.parse().ok()?))
}
