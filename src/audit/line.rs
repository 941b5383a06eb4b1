//! A line as it is read: the documented schema, which the verifier and the auditor's tools parse.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::chain::{Hash, Head};
use super::entry::Recovered;
use super::values::WrappedKey;
use super::who::{Peer, Run};
use super::words::{Event, Outcome, Source};

/// The version of the schema, in every line's `v`.
pub const VERSION: u8 = 1;

/// How a line of ours begins.
pub(super) const BEGINNING: &[u8] = br#"{"v":1,"time":""#;

/// One line of the audit log. Absent members are left out, unknown ones are an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// The version of the schema.
    #[schemars(range(min = 1, max = 1))]
    pub v: u8,
    /// When it was decided or happened: RFC 3339 in UTC, to the millisecond.
    pub time: String,
    /// The process that wrote it.
    pub boot: String,
    /// What was asked, or what happened.
    pub event: Event,
    /// How it ended.
    pub outcome: Outcome,
    /// The run it belongs to.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub run: Option<Run>,
    /// Who asked.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub caller: Option<Peer>,
    /// By which door.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub door: Option<String>,
    /// For what: an upstream path, without `/v1/`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub path: Option<String>,
    /// Where the answer came from.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub source: Option<Source>,
    /// What we sent upstream as `X-Tenure-Request`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub request: Option<String>,
    /// The id that upstream gave the request.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub vault_request_id: Option<String>,
    /// Upstream's lease.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lease_id: Option<String>,
    /// When the grant ends: RFC 3339 in UTC, to the millisecond.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub expires: Option<String>,
    /// The version of a KV value.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub version: Option<u64>,
    /// Which policy decided.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub policy: Option<String>,
    /// Why it was denied or failed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// What a failure means: transient, forbidden, token-lost, denied, not-found, lease-gone, permanent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub class: Option<String>,
    /// What else an auditor should know.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub detail: Option<String>,
    /// In `audit.recovered`: what was lost meanwhile.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub recovered: Option<Recovered>,
    /// In `audit.reopened`: the head of the file before.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub previous: Option<Head>,
    /// In `audit.key`: the key that values are hashed with from now on.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub key: Option<WrappedKey>,
    /// What was disclosed: by the JSON pointer of each value, the first 128 bits of its HMAC-SHA-256.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub values: BTreeMap<String, String>,
    /// How many values were disclosed beside these.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub values_omitted: Option<u64>,
    /// Which key they were hashed with: the first 16 digits of the SHA-256 of the wrapped key, as `audit.key` has it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub values_key: Option<String>,
    /// The number of the line in its chain, from 1 on.
    #[schemars(range(min = 1))]
    pub seq: u64,
    /// The hash of the line before; 64 zeros for the first.
    pub prev: Hash,
    /// SHA-256 over the line's own bytes, up to and without `,"hash":`.
    pub hash: Hash,
}

/// The JSON Schema of a line.
#[must_use]
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(Line).to_value()
}
