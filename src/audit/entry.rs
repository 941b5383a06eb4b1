//! What is said in a line: the borrowed fields that a call site fills in.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::chain::Head;
use super::values::{Values, WrappedKey};
use super::who::{Peer, RunStamp};
use super::words::{Event, Outcome, Source};
use crate::clock::{Moment, Timestamp};
use crate::lease::failure::{Class, Failure};

/// What was lost while lines could not be written, or what was found torn at the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Recovered {
    /// Decisions whose line could not be written. Nothing was disclosed for them.
    pub refused: u64,
    /// Lifecycle lines that were dropped, because more of them were waiting than are kept.
    pub dropped: u64,
    /// Attempts to write that failed.
    pub failed_writes: u64,
    /// The bytes of a torn last line that were moved away from the file.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub torn_bytes: Option<u64>,
    /// The file they were moved to.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub torn_file: Option<String>,
}

/// What a call site says: one line, less what the writer adds.
///
/// It borrows, so that it costs nothing to make; nothing that is a secret can be put into it, because secrets do not
/// serialize and do not open without the receipt that this entry is about to be exchanged for.
#[derive(Clone, Debug, Serialize)]
#[must_use = "an entry is nothing until it is recorded or noted"]
pub struct Entry<'a> {
    event: Event,
    outcome: Outcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    run: Option<&'a RunStamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    caller: Option<&'a Peer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    door: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<Source>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vault_request_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "timestamp")]
    expires: Option<Moment>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recovered: Option<&'a Recovered>,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous: Option<&'a Head>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a WrappedKey>,
    #[serde(skip_serializing_if = "Option::is_none")]
    values: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    values_omitted: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    values_key: Option<&'a str>,
    /// When it was decided, where that was not just now.
    #[serde(skip)]
    at: Option<Moment>,
}

impl<'a> Entry<'a> {
    fn new(event: Event, outcome: Outcome) -> Self {
        Self {
            event,
            outcome,
            run: None,
            caller: None,
            door: None,
            path: None,
            source: None,
            request: None,
            vault_request_id: None,
            lease_id: None,
            expires: None,
            version: None,
            policy: None,
            reason: None,
            class: None,
            detail: None,
            recovered: None,
            previous: None,
            key: None,
            values: None,
            values_omitted: None,
            values_key: None,
            at: None,
        }
    }

    /// Something was allowed, and will be disclosed once this is recorded.
    pub fn granted(event: Event) -> Self {
        Self::new(event, Outcome::Granted)
    }

    /// Something was refused; `reason` is for the auditor.
    pub fn denied(event: Event, reason: &'a str) -> Self {
        Self { reason: Some(reason), ..Self::new(event, Outcome::Denied) }
    }

    /// A call to upstream failed: its class, its message, and upstream's request id where there was an answer.
    pub fn failed(event: Event, failure: &'a Failure) -> Self {
        Self {
            reason: Some(&failure.message),
            vault_request_id: failure.request_id.as_deref(),
            ..Self::new(event, Outcome::Failed)
        }
        .class(failure.class)
    }

    /// Something happened.
    pub fn done(event: Event) -> Self {
        Self::new(event, Outcome::Done)
    }

    pub(super) fn recovered(lost: &'a Recovered) -> Self {
        Self { recovered: Some(lost), ..Self::done(Event::AuditRecovered) }
    }

    pub(super) fn reopened(previous: &'a Head) -> Self {
        Self { previous: Some(previous), ..Self::done(Event::AuditReopened) }
    }

    /// When it was decided or happened; without this, when it is handed over.
    pub fn at(self, at: Moment) -> Self {
        Self { at: Some(at), ..self }
    }

    /// The run it belongs to.
    pub fn run(self, run: &'a RunStamp) -> Self {
        Self { run: Some(run), ..self }
    }

    /// Who asked.
    pub fn caller(self, caller: &'a Peer) -> Self {
        Self { caller: Some(caller), ..self }
    }

    /// By which door.
    pub fn door(self, door: &'a str) -> Self {
        Self { door: Some(door), ..self }
    }

    /// For what: an upstream path, without `/v1/`.
    pub fn path(self, path: &'a str) -> Self {
        Self { path: Some(path), ..self }
    }

    /// Where the answer came from.
    pub fn source(self, source: Source) -> Self {
        Self { source: Some(source), ..self }
    }

    /// The id that we sent upstream as `X-Tenure-Request`: it joins this line with upstream's audit log.
    pub fn request(self, request: &'a str) -> Self {
        Self { request: Some(request), ..self }
    }

    /// The id that upstream gave the request.
    pub fn vault_request_id(self, id: &'a str) -> Self {
        Self { vault_request_id: Some(id), ..self }
    }

    /// Upstream's lease.
    pub fn lease_id(self, id: &'a str) -> Self {
        Self { lease_id: Some(id), ..self }
    }

    /// When the grant ends, if it does.
    pub fn expires(self, at: impl Into<Option<Moment>>) -> Self {
        Self { expires: at.into(), ..self }
    }

    /// The version of a KV value.
    pub fn version(self, version: u64) -> Self {
        Self { version: Some(version), ..self }
    }

    /// The wrapped key that values are hashed with.
    pub fn key(self, key: &'a WrappedKey) -> Self {
        Self { key: Some(key), ..self }
    }

    /// The hashes of the values that are disclosed.
    pub fn values(self, values: &'a Values) -> Self {
        let omitted = (values.omitted > 0).then_some(values.omitted);
        Self { values: Some(&values.hashes), values_omitted: omitted, values_key: Some(&values.key), ..self }
    }

    /// Which policy decided.
    pub fn policy(self, policy: &'a str) -> Self {
        Self { policy: Some(policy), ..self }
    }

    /// Why.
    pub fn reason(self, reason: &'a str) -> Self {
        Self { reason: Some(reason), ..self }
    }

    /// What a failure means.
    pub fn class(self, class: Class) -> Self {
        Self { class: Some(class.word()), ..self }
    }

    /// What else an auditor should know.
    pub fn detail(self, detail: &'a str) -> Self {
        Self { detail: Some(detail), ..self }
    }
}

impl Entry<'_> {
    /// Renders the members, for lines that are [composed](Composed). Event and outcome go into the lead alone.
    ///
    /// # Errors
    /// Never with what an entry can hold; the error is serde's.
    pub fn fragment(&self) -> Result<Fragment, serde_json::Error> {
        let bare = Entry::new(self.event, self.outcome).members()?.len();
        let Self { event, outcome, run, caller, door, path, .. } = *self;
        let before_source = Entry { run, caller, door, path, ..Entry::new(event, outcome) }.members()?.len();
        let members = self.members()?;
        Ok(Fragment { bytes: members[bare..].into(), source: before_source - bare })
    }

    /// Renders event, outcome and all other members, as the first part of a [`Composed`] line.
    ///
    /// # Errors
    /// As [`fragment`](Self::fragment).
    pub fn lead(&self) -> Result<Lead, serde_json::Error> {
        Ok(Lead(self.members()?.into()))
    }

    /// Each member after a comma.
    fn members(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut bytes = Vec::with_capacity(512);
        self.render(&mut bytes)?;
        Ok(bytes)
    }
}

/// What can be put into a line.
pub(super) trait Render {
    fn at(&self) -> Option<Moment>;

    /// Appends each member after a comma.
    fn render(&self, line: &mut Vec<u8>) -> Result<(), serde_json::Error>;
}

impl Render for Entry<'_> {
    fn at(&self) -> Option<Moment> {
        self.at
    }

    fn render(&self, line: &mut Vec<u8>) -> Result<(), serde_json::Error> {
        let joint = line.len();
        serde_json::to_writer(&mut *line, self)?;
        // An entry is an object with two members at least: its opening brace becomes the comma before them.
        line[joint] = b',';
        line.pop();
        Ok(())
    }
}

/// Members that many lines have alike, rendered once.
#[derive(Clone, Debug)]
pub struct Fragment {
    bytes: Box<[u8]>,
    /// Where the source has its place among them.
    source: usize,
}

/// The first members of many lines, rendered once.
#[derive(Clone, Debug)]
pub struct Lead(Box<[u8]>);

/// An entry that is put together from what was rendered before: its bytes are those of an [`Entry`] with the members
/// of all of its parts, as long as the parts are filled in the order of its members.
#[derive(Clone, Copy, Debug)]
#[must_use = "an entry is nothing until it is recorded"]
pub struct Composed<'a> {
    /// When it was decided.
    pub at: Moment,
    /// What was decided, on whose behalf: event, outcome, run.
    pub lead: &'a Lead,
    /// Who asked, by which door.
    pub asker: &'a Fragment,
    /// For what, and what was granted: the path, and what comes after the source.
    pub grant: &'a Fragment,
    /// Where the answer came from.
    pub source: Source,
}

impl Render for Composed<'_> {
    fn at(&self) -> Option<Moment> {
        Some(self.at)
    }

    fn render(&self, line: &mut Vec<u8>) -> Result<(), serde_json::Error> {
        let (before, after) = self.grant.bytes.split_at(self.grant.source);
        let source = self.source.word().as_bytes();
        // A word needs no escaping.
        for part in [&self.lead.0, &self.asker.bytes, before, b",\"source\":\"", source, b"\"", after] {
            line.extend_from_slice(part);
        }
        Ok(())
    }
}

/// Serde asks for the reference to the field as it is.
#[expect(clippy::ref_option, reason = "the signature is serde's")]
fn timestamp<S: serde::Serializer>(at: &Option<Moment>, serializer: S) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => serializer.serialize_str(Timestamp::of(*at).as_str()),
        None => serializer.serialize_none(),
    }
}
