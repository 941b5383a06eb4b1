//! A line of Vault's audit log, as far as it matters. What it says of requests' and answers' data is not read, as with
//! `log_raw` there would be secrets in it; but for the accessor that a request about a token names.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::audit::At;

/// No more of an error's text is kept.
const LONGEST_ERROR: usize = 300;

/// One answer of Vault, or one request that has none yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct VaultLine {
    pub(in super::super) at: At,
    /// Whether it is the answer; a request has a line of its own before.
    pub(in super::super) is_answer: bool,
    /// Vault's id of the request.
    pub(in super::super) id: String,
    pub(in super::super) operation: String,
    /// With its namespace before it, where that is not the root.
    pub(in super::super) path: String,
    /// Where the namespace ends in it.
    bare: usize,
    /// The engine or method that answered: `transit`.
    mount_type: String,
    pub(in super::super) error: Option<String>,
    /// Who asked; for a login, who it was made to be.
    pub(in super::super) display_name: String,
    /// The asking token's, as the log shows it: an HMAC, which is the same for the same token in one log.
    pub(in super::super) accessor: Option<String>,
    pub(in super::super) metadata: BTreeMap<String, String>,
    /// `X-Tenure-Request`, where the header is audited.
    pub(in super::super) request: Option<String>,
    /// `X-Tenure-Run`, likewise.
    pub(in super::super) run: Option<String>,
    /// `X-Tenure-Chain`, likewise: where a broker's log ended.
    pub(in super::super) chain: Option<String>,
    pub(in super::super) remote: Option<String>,
    pub(in super::super) lease_id: Option<String>,
    /// The accessor of the token that is asked about or ended, shown as `accessor` is.
    pub(in super::super) about: Option<String>,
    /// The token that was made: by a login or by another token.
    pub(in super::super) made: Option<Made>,
}

/// A token that an answer hands out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Made {
    pub(in super::super) accessor: Option<String>,
    pub(in super::super) metadata: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Raw<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    time: Cow<'a, str>,
    error: Option<String>,
    auth: Option<RawAuth>,
    #[serde(borrow)]
    request: RawRequest<'a>,
    response: Option<RawResponse>,
}

#[derive(Default, Deserialize)]
struct RawAuth {
    accessor: Option<String>,
    display_name: Option<String>,
    metadata: Option<BTreeMap<String, Value>>,
}

#[derive(Deserialize)]
struct RawRequest<'a> {
    #[serde(default)]
    id: String,
    #[serde(default)]
    operation: String,
    #[serde(default)]
    path: String,
    #[serde(default)]
    mount_type: String,
    namespace: Option<RawNamespace>,
    client_token_accessor: Option<String>,
    headers: Option<BTreeMap<String, Value>>,
    remote_address: Option<String>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

/// All that is read of a request's data, and of that about accessors alone.
#[derive(Deserialize)]
struct RawAbout {
    accessor: Option<String>,
}

#[derive(Deserialize)]
struct RawNamespace {
    path: Option<String>,
}

#[derive(Deserialize)]
struct RawResponse {
    auth: Option<RawAuth>,
    secret: Option<RawSecret>,
}

#[derive(Deserialize)]
struct RawSecret {
    lease_id: Option<String>,
}

impl VaultLine {
    /// Reads a line.
    ///
    /// # Errors
    /// Why it is none of Vault's, without quoting it.
    pub(in super::super) fn parse(line: &[u8]) -> Result<Self, &'static str> {
        let raw: Raw<'_> = serde_json::from_slice(line)
            .map_err(|_| "it looks like a line of Vault's audit log, and cannot be read as one")?;
        let at = At::parse(&raw.time).ok_or("its time is not in RFC 3339")?;
        let is_answer = match &*raw.kind {
            "response" => true,
            "request" => false,
            _ => return Err("it is neither a request nor a response of Vault's audit log"),
        };
        let (auth, asked) = (raw.auth.unwrap_or_default(), raw.request);
        let header = |name: &str| {
            let headers = asked.headers.as_ref()?;
            let (_, value) = headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name))?;
            value.as_str().or_else(|| value.get(0)?.as_str()).map(str::to_owned)
        };
        let (request, run) = (header("x-tenure-request"), header("x-tenure-run"));
        let chain = header("x-tenure-chain");
        let namespace = asked.namespace.and_then(|namespace| namespace.path).unwrap_or_default();
        // Some versions write it with the namespace.
        let path = asked.path.strip_prefix(namespace.as_str()).unwrap_or(&asked.path);
        let about = asked.data.filter(|_| path.starts_with("auth/token/") && path.ends_with("-accessor"));
        let about = about.and_then(|data| serde_json::from_str::<RawAbout>(data.get()).ok()?.accessor);
        let (made, lease) = raw.response.map_or((None, None), |response| (response.auth, response.secret));
        Ok(Self {
            at,
            is_answer,
            id: asked.id,
            operation: asked.operation,
            bare: namespace.len(),
            mount_type: asked.mount_type,
            path: namespace + path,
            error: raw.error.filter(|error| !error.is_empty()).map(|error| shortened(&error)),
            display_name: auth.display_name.unwrap_or_default(),
            accessor: asked.client_token_accessor.or(auth.accessor),
            metadata: strings(auth.metadata),
            request,
            run,
            chain,
            remote: asked.remote_address,
            lease_id: lease.and_then(|secret| secret.lease_id).filter(|id| !id.is_empty()),
            about,
            made: made.map(|made| Made { accessor: made.accessor, metadata: strings(made.metadata) }),
        })
    }

    /// The run that asked: what its token says, or else the header.
    pub(in super::super) fn of_run(&self) -> Option<&str> {
        self.metadata.get("run").or(self.run.as_ref()).map(String::as_str)
    }

    /// The path without its namespace.
    fn bare(&self) -> &str {
        self.path.get(self.bare..).unwrap_or_default()
    }

    /// Whether it is a question about tokens, leases, mounts, public keys or the server itself, which changes nothing and
    /// discloses no secret: a broker's log does not tell of these.
    pub(in super::super) fn is_bookkeeping(&self) -> bool {
        let path = self.bare();
        // By these seals are checked.
        if self.mount_type == "transit" && self.operation == "read" && path.contains("/keys/") {
            return true;
        }
        let starts = ["auth/token/lookup", "sys/leases/lookup", "sys/internal/ui/mounts"];
        starts.iter().any(|start| path.starts_with(start)) || path == "sys/health"
    }

    /// Whether it looks at or takes out what was wrapped.
    pub(in super::super) fn is_unwrapping(&self) -> bool {
        self.bare().starts_with("sys/wrapping/")
    }

    /// Whether it manages tokens, leases or the server, rather than asks for a secret.
    pub(in super::super) fn is_management(&self) -> bool {
        self.bare().starts_with("auth/") || self.bare().starts_with("sys/")
    }

    /// Whether it ends a token or a lease.
    pub(in super::super) fn is_end(&self) -> bool {
        self.bare().starts_with("auth/token/revoke") || self.bare().starts_with("sys/leases/revoke")
    }

    /// Whether it is a login.
    pub(in super::super) fn is_login(&self) -> bool {
        self.bare().starts_with("auth/") && self.path.contains("/login")
    }
}

fn strings(map: Option<BTreeMap<String, Value>>) -> BTreeMap<String, String> {
    let members = map.unwrap_or_default().into_iter();
    members
        .filter_map(|(name, value)| match value {
            Value::String(value) => Some((name, value)),
            _ => None,
        })
        .collect()
}

/// Vault's error over several lines as one.
fn shortened(error: &str) -> String {
    let words: Vec<_> = error.split_whitespace().filter(|word| *word != "*").collect();
    let text = words.join(" ");
    let text = text.trim_start_matches("1 error occurred: ");
    text.chars().take(LONGEST_ERROR).collect()
}
