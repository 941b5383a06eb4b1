//! What a trace and a report say: the documented JSON, which text and page are drawn from.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use crate::audit::At;

/// The version of both schemas.
pub const VERSION: u8 = 1;

/// A line of the input: an index into `files`, and the line's number in it, from 1 on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, JsonSchema)]
pub struct Place {
    /// Which of the `files`, from 0 on.
    pub file: u32,
    /// The line, from 1 on; of compressed files, of what they hold; of a history that was fetched, the event's number.
    pub line: u64,
}

/// Who wrote a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Step Functions.
    StepFunctions,
    /// The broker.
    Broker,
    /// Vault or OpenBao.
    Vault,
}

impl Source {
    /// The word, for a person.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::StepFunctions => "states",
            Self::Broker => "tenure",
            Self::Vault => "vault",
        }
    }
}

/// How much a finding matters. The order is that of attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// A rule was broken, or the logs cannot be trusted.
    Error,
    /// It should be looked at, and may have a good reason.
    Warning,
    /// It limits what the logs can tell.
    Notice,
}

impl Severity {
    /// The word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Notice => "notice",
        }
    }
}

/// What kind of finding it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// Vault was asked under our role or with a run's token, and no broker asked.
    Bypass,
    /// The same, by who says to be a broker whose log is not among the files.
    UnknownBroker,
    /// The broker says that it asked Vault, and Vault's log, which covers that time, does not have it.
    NotInVault,
    /// A lease could be used after its run had ended.
    LeaseOutlivedRun,
    /// A revocation was requested, and that it was carried out was never confirmed.
    RevocationUnconfirmed,
    /// A secret was read after the run's end.
    ReadAfterEnd,
    /// A run was never ended.
    NeverEnded,
    /// Secrets were read for a subject that is only asserted.
    SubjectUnverified,
    /// A line of a broker's log was changed, taken out, put in or moved, or the log was begun anew.
    ChainBroken,
    /// A log goes on from a file that is not among those given.
    ChainContinues,
    /// An anchor in Vault's log contradicts a broker's, or another one: a cut tail, another file, a chain made anew.
    AnchorContradicts,
    /// Lines were lost while the log could not be written.
    LinesLost,
    /// Many refusals in a short time.
    DenialBurst,
    /// One credential, in two runs that share none.
    LeaseShared,
    /// The logs disagree on what a run is.
    RunConflict,
    /// What is missing among the files, so that something could not be judged.
    Coverage,
}

impl FindingKind {
    /// The word, as in JSON.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::UnknownBroker => "unknown_broker",
            Self::NotInVault => "not_in_vault",
            Self::LeaseOutlivedRun => "lease_outlived_run",
            Self::RevocationUnconfirmed => "revocation_unconfirmed",
            Self::ReadAfterEnd => "read_after_end",
            Self::NeverEnded => "never_ended",
            Self::SubjectUnverified => "subject_unverified",
            Self::ChainBroken => "chain_broken",
            Self::ChainContinues => "chain_continues",
            Self::AnchorContradicts => "anchor_contradicts",
            Self::LinesLost => "lines_lost",
            Self::DenialBurst => "denial_burst",
            Self::LeaseShared => "lease_shared",
            Self::RunConflict => "run_conflict",
            Self::Coverage => "coverage",
        }
    }
}

/// Something of note, and the lines that prove it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// What kind of finding it is.
    pub kind: FindingKind,
    /// When it happened, or began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<At>,
    /// The run that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// The finding, for a person.
    pub message: String,
    /// The lines that prove it, at most twenty.
    pub lines: Vec<Place>,
    /// Lines that prove it and are not listed.
    #[serde(skip_serializing_if = "is_zero")]
    pub more_lines: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A file that was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct FileSeen {
    /// As it was named, or found below a folder that was; `(fetched) <ARN>` of a history that Step Functions was asked for.
    pub name: String,
    /// Lines of brokers' logs.
    pub broker_lines: u64,
    /// Lines of Vault's audit log.
    pub vault_lines: u64,
    /// Histories of Step Functions.
    pub histories: u64,
    /// Lines that were passed over.
    pub skipped: u64,
    /// The earliest time of a broker's line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first: Option<At>,
    /// The latest time of a broker's line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<At>,
}

/// A line that was passed over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Skipped {
    /// Where it is.
    #[serde(flatten)]
    pub place: Place,
    /// Why.
    pub why: String,
}

/// On whose behalf a run acted, as the broker's log has it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, JsonSchema)]
pub struct SubjectSeen {
    /// Its name at its issuer.
    pub id: String,
    /// `person`, `service`, `agent`, `scheduler`.
    pub kind: String,
    /// `verified` or `asserted`.
    pub assurance: String,
    /// Who vouches for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
}

/// A run of the trace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct RunSeen {
    /// Its id.
    pub id: String,
    /// `process`, `task`, `state`, `api`; empty where only Vault's log knows the run.
    pub kind: String,
    /// The execution it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execution_arn: Option<String>,
    /// The state of that execution.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Which try of that state, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// How far Step Functions confirms that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub standing: Option<String>,
    /// The executions above, the nearest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parents: Vec<String>,
    /// The run that registered it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// On whose behalf it acted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<SubjectSeen>,
    /// The rule by which it was registered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Its first line.
    pub began: At,
    /// When it was to be over at the latest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<At>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<At>,
    /// Why it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_reason: Option<String>,
    /// When it was confirmed that its token and its leases are gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revoked: Option<At>,
    /// The last line that tells of it.
    pub last: At,
    /// Secrets that were disclosed to it, by the broker's log.
    pub reads: u64,
    /// What was refused to it.
    pub denials: u64,
}

/// A lease of a run of the trace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct LeaseSeen {
    /// Vault's lease id.
    pub id: String,
    /// What was read.
    pub path: String,
    /// The run that it hangs off.
    pub run: String,
    /// When it was minted.
    pub minted: At,
    /// When it ended at the latest: by its own expiry, its token's, or the confirmed revocation.
    pub ended: At,
    /// Whether its end is a confirmed revocation rather than an expiry.
    pub revoked: bool,
    /// How often it was disclosed.
    pub reads: u64,
}

/// A state of an execution, as its history has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct StateSeen {
    /// The execution; empty where the history does not tell.
    pub execution_arn: String,
    /// Its name.
    pub name: String,
    /// When it was entered.
    pub entered: At,
    /// When it was left; where it was not, the end of the execution or of its history.
    pub exited: At,
}

/// One thing that happened. Lines of several logs that tell of the same are one item.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Item {
    /// When, by the log that says so first in the order of `source`.
    pub at: At,
    /// Which log it is from.
    pub source: Source,
    /// The broker's event; the operation that Vault was asked for; Step Functions' event.
    pub event: String,
    /// `granted`, `denied`, `failed`, `done`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// The run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// The execution.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execution_arn: Option<String>,
    /// The state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// The path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The lease.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease_id: Option<String>,
    /// What the broker sent as `X-Tenure-Request`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// Vault's id of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vault_request_id: Option<String>,
    /// Who asked: the local process for the broker, the token's display name for Vault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caller: Option<String>,
    /// What else is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The line that says so.
    pub line: Place,
    /// Vault's own lines about the same request.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub vault_lines: Vec<Place>,
    /// The findings that this line proves: indices into `findings`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<usize>,
}

/// `tenure audit trace --json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Trace {
    /// The version of this schema.
    pub version: u8,
    /// When the trace was made.
    pub made: At,
    /// What was selected, by the names of the options.
    pub selection: BTreeMap<String, String>,
    /// What was read.
    pub files: Vec<FileSeen>,
    /// The runs, in the order in which they began.
    pub runs: Vec<RunSeen>,
    /// Their leases, in the order in which they were minted.
    pub leases: Vec<LeaseSeen>,
    /// The states of the executions, in the order in which they were entered.
    pub states: Vec<StateSeen>,
    /// What happened, in order.
    pub timeline: Vec<Item>,
    /// What is of note, what matters most first.
    pub findings: Vec<Finding>,
    /// Lines that were passed over, at most a hundred.
    pub skipped: Vec<Skipped>,
    /// Lines that were passed over and are not listed.
    pub more_skipped: u64,
}

/// The JSON Schema of `tenure audit trace --json`.
#[must_use]
pub fn trace_schema() -> serde_json::Value {
    schemars::schema_for!(Trace).to_value()
}
