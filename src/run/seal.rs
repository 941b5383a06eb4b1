//! Sealed subjects: what an entry step found out about a subject, signed by upstream, for one execution alone.
//!
//! A token does not belong in a state machine's input: it would be in the execution's history for as long as that is
//! kept, and good for whoever reads it there. So the entry step has its token checked once and passes on a *seal*, which
//! is of no use outside its execution:
//!
//! ```text
//! tns1.<payload>.<key version>.<signature>
//! ```
//!
//! | part | |
//! |---|---|
//! | `tns1` | the form, version 1; it is signed too, so that no other signature by the same key is a seal |
//! | payload | the members of `Wire` as JSON, in base64url without padding (RFC 4648, section 5) |
//! | key version | of Vault's transit key, decimal, without leading zeros |
//! | signature | Ed25519 (RFC 8032) over `tns1.<payload>` as it is written, 64 bytes, in base64url without padding |
//!
//! A seal names the execution that the entry step belongs to, the *root*. An execution that was started by that one, or
//! by one that was, may present it as well: a run names the executions above its own ([`Lineage`]), and a seal is good for
//! each of them. That a run belongs to the executions that it names is not proved by a seal: it is as true as the
//! platform's word for it ([`super::workflow::Standing`]).
//!
//! Nothing here waits or reads a clock.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{ED25519, UnparsedPublicKey};
use serde::{Deserialize, Serialize};

use super::arn::ExecutionArn;
use super::subject::{Assurance, Checked, Subject, SubjectError, SubjectKind};
use crate::lease::upstream::{PublicKeys, Signed};
use crate::secret::Credential;

/// What a seal begins with.
const FORM: &str = "tns1";

/// The longest seal, in bytes. A state's input holds 256 KiB and an ECS container's overrides 8 KiB, in which it is one
/// variable of several.
pub const LONGEST: usize = 2048;

/// The executions that a run belongs to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lineage<'a> {
    /// Its own.
    pub execution: Option<&'a ExecutionArn>,
    /// Those above it: what started its own, what started that, in any order.
    pub ancestors: &'a [ExecutionArn],
}

impl<'a> Lineage<'a> {
    /// A run of this execution, with none above it.
    #[must_use]
    pub fn of(execution: &'a ExecutionArn) -> Self {
        Self { execution: Some(execution), ancestors: &[] }
    }

    fn includes(self, arn: &ExecutionArn) -> bool {
        self.execution.into_iter().chain(self.ancestors).any(|own| own == arn)
    }
}

/// How long a seal is good, and what it carries.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// At most, whatever the token's own life.
    pub max_age: Duration,
    /// Whether it ends with the token that it stands for.
    pub ends_with_token: bool,
    /// The groups that it may name: policy looks at no others.
    pub groups: &'a [String],
}

/// Why a text is no seal, or not a good one here and now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// It has not the form of one.
    #[error("this is no sealed subject: {0}")]
    Malformed(&'static str),
    /// The key has no such version, as far as is known.
    #[error("the sealed subject is signed by version {0} of the key, which the key does not have")]
    UnknownVersion(u32),
    /// The operator has retired that version.
    #[error(
        "the sealed subject is signed by version {version} of the key; versions below {least} were retired: seal it anew"
    )]
    Retired {
        /// What it is signed by.
        version: u32,
        /// The least that counts.
        least: u32,
    },
    /// The signature does not fit.
    #[error("the sealed subject is not signed by that key, or was changed")]
    Forged,
    /// Its time is over.
    #[error("the sealed subject has expired: have the entry step seal it anew")]
    Expired,
    /// Its time has not come.
    #[error("the sealed subject is from the future: are the clocks right?")]
    Early,
    /// It belongs to an execution that the run does not.
    #[error(
        "the sealed subject is for another execution; a child execution presents it by naming its parents up to the one \
         that sealed it"
    )]
    Elsewhere,
    /// There is nothing to be sealed, or too much.
    #[error("the subject cannot be sealed: {0}")]
    Unfit(String),
}

impl From<SealError> for SubjectError {
    fn from(error: SealError) -> Self {
        Self::Refused(error.to_string())
    }
}

/// A subject that is to be sealed.
#[derive(Clone, Debug)]
pub struct Unsealed {
    input: String,
    /// When the seal will expire, since the Unix epoch; whole seconds.
    pub expires: Duration,
}

impl Unsealed {
    /// What is to be signed for `checked` in `execution`. `at` is now, since the Unix epoch.
    ///
    /// # Errors
    /// [`SealError::Unfit`]: the subject is only asserted, or its seal would be too long or have no life.
    pub fn new(
        checked: &Checked,
        execution: &ExecutionArn,
        at: Duration,
        terms: Terms<'_>,
    ) -> Result<Self, SealError> {
        let unfit = |why: &str| SealError::Unfit(why.to_owned());
        let subject = &checked.subject;
        let Some(issuer) = subject.issuer.as_ref().filter(|_| subject.assurance == Assurance::Verified)
        else {
            return Err(unfit("nobody vouches for it"));
        };
        let longest = at.saturating_add(terms.max_age);
        let expires = if terms.ends_with_token { longest.min(checked.expires) } else { longest };
        let wire = Wire {
            sub: subject.id.clone(),
            kind: subject.kind,
            iss: issuer.clone(),
            grp: subject.groups.iter().filter(|group| terms.groups.contains(group)).cloned().collect(),
            iat: at.as_secs(),
            exp: expires.as_secs(),
            exe: execution.to_string(),
        };
        if wire.exp <= wire.iat {
            return Err(unfit("its token ends within the second"));
        }
        let json = serde_json::to_vec(&wire).map_err(|_| unfit("it cannot be written as JSON"))?;
        let input = format!("{FORM}.{}", URL_SAFE_NO_PAD.encode(json));
        // A dot, a version of up to ten digits, a dot, and a signature of 86 characters.
        if input.len() + 98 > LONGEST {
            return Err(SealError::Unfit(format!(
                "with its {} groups the seal would be longer than {LONGEST} bytes; name fewer in subject.groups",
                wire.grp.len()
            )));
        }
        Ok(Self { input, expires: Duration::from_secs(wire.exp) })
    }

    /// What upstream is to sign.
    #[must_use]
    pub fn input(&self) -> &[u8] {
        self.input.as_bytes()
    }

    /// The seal, with upstream's signature over [`Self::input`].
    #[must_use]
    pub fn sealed(&self, signed: &Signed) -> String {
        format!("{}.{}.{}", self.input, signed.version, URL_SAFE_NO_PAD.encode(signed.signature))
    }
}

/// A seal taken apart. Nothing of what it says is believed, or can be read, before [`Self::check`].
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed {
    /// `tns1.<payload>`.
    input: String,
    version: u32,
    signature: [u8; 64],
}

impl Sealed {
    /// Whether a text wants to be a seal, of this form or of another version.
    #[must_use]
    pub fn is_meant(text: &str) -> bool {
        // A JWT begins with the base64url of a brace: `ey…`, never with this.
        text.starts_with("tns")
    }

    /// The same of what a subject presents.
    #[must_use]
    pub fn is_meant_by(token: &Credential) -> bool {
        Self::is_meant(token.expose())
    }

    /// Takes a seal apart.
    ///
    /// # Errors
    /// [`SealError::Malformed`], without anything of the text.
    pub fn parse(text: &str) -> Result<Self, SealError> {
        let wrong = |why| Err(SealError::Malformed(why));
        if text.len() > LONGEST {
            return wrong("it is longer than 2048 bytes");
        }
        let parts: Vec<&str> = text.split('.').collect();
        let [form, payload, version, signature] = parts.as_slice() else {
            return wrong("it has not four parts, as tns1.<payload>.<key version>.<signature> has");
        };
        if *form != FORM {
            return wrong("its form is not tns1, the one that this version of Tenure knows");
        }
        if payload.is_empty() {
            return wrong("it has no payload");
        }
        let digits = !version.starts_with('0') && version.bytes().all(|byte| byte.is_ascii_digit());
        let Some(version) = version.parse().ok().filter(|_| digits) else {
            return wrong("its key version is not a number");
        };
        let Some(signature) = URL_SAFE_NO_PAD.decode(signature).ok().and_then(|bytes| bytes.try_into().ok())
        else {
            return wrong("its signature is not 64 bytes in base64url");
        };
        Ok(Self { input: format!("{form}.{payload}"), version, signature })
    }

    /// The version of the key that it says it is signed by.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Who is sealed, if the seal is good for the run whose executions `lineage` names. `at` is now, since the Unix epoch;
    /// `leeway` is by how much the clocks of two machines may differ.
    ///
    /// # Errors
    /// Why not. [`SealError::UnknownVersion`] may mean that `keys` are older than the key's last rotation.
    pub fn check(
        &self,
        lineage: Lineage<'_>,
        at: Duration,
        leeway: Duration,
        keys: &PublicKeys,
    ) -> Result<Checked, SealError> {
        let version = self.version;
        if version < keys.least {
            return Err(SealError::Retired { version, least: keys.least });
        }
        let key = keys.keys.get(&version).ok_or(SealError::UnknownVersion(version))?;
        UnparsedPublicKey::new(&ED25519, key)
            .verify(self.input.as_bytes(), &self.signature)
            .map_err(|_| SealError::Forged)?;
        // From here on it is ours; what does not fit was signed by something else that may use the key.
        let odd = SealError::Malformed("its payload is none that Tenure writes");
        let payload = self.input.strip_prefix(FORM).and_then(|rest| rest.strip_prefix('.'));
        let json = payload.and_then(|text| URL_SAFE_NO_PAD.decode(text).ok()).ok_or(odd.clone())?;
        let wire: Wire = serde_json::from_slice(&json).map_err(|_| odd.clone())?;
        let names = wire.grp.iter().chain([&wire.sub, &wire.iss]);
        if wire.sub.is_empty() || names.into_iter().any(|name| name.contains(char::is_control)) {
            return Err(odd);
        }
        let execution: ExecutionArn = wire.exe.parse().map_err(|_| odd)?;
        let (issued, expires) = (Duration::from_secs(wire.iat), Duration::from_secs(wire.exp));
        if at >= expires.saturating_add(leeway) {
            return Err(SealError::Expired);
        }
        if issued > at.saturating_add(leeway) {
            return Err(SealError::Early);
        }
        if !lineage.includes(&execution) {
            return Err(SealError::Elsewhere);
        }
        let subject = Subject {
            id: wire.sub,
            kind: wire.kind,
            issuer: Some(wire.iss),
            assurance: Assurance::Verified,
            groups: wire.grp,
        };
        Ok(Checked { subject, expires })
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealed").field("version", &self.version).finish_non_exhaustive()
    }
}

/// The payload.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    /// The subject's id at its issuer.
    sub: String,
    kind: SubjectKind,
    /// Who vouched for it.
    iss: String,
    /// Its groups, of those that matter.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    grp: Vec<String>,
    /// When it was sealed, in seconds since the Unix epoch.
    iat: u64,
    /// When the seal expires.
    exp: u64,
    /// The root execution's ARN.
    exe: String,
}

#[cfg(test)]
mod tests;
