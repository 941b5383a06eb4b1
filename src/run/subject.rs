//! On whose behalf a run acts, and how far that can be believed.

use std::fmt;
use std::time::Duration;

use crate::clock::Moment;
use crate::lease::failure::Failure;
use crate::lease::upstream::BoxFuture;
use crate::secret::Credential;

/// What a subject is.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum SubjectKind {
    /// A human being.
    #[default]
    Person,
    /// A program with an identity of its own.
    Service,
    /// A program that decides by itself what to do for somebody: an AI agent.
    Agent,
    /// A schedule: nobody asked for this run at this time.
    Scheduler,
}

impl SubjectKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Person, Self::Service, Self::Agent, Self::Scheduler];

    /// The word in logs, metadata and the configuration.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Person => "person",
            Self::Service => "service",
            Self::Agent => "agent",
            Self::Scheduler => "scheduler",
        }
    }
}

/// How far a subject can be believed. The two are never mixed up in a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Assurance {
    /// Checked: an OIDC token by us, or by the entry step, which sealed what it found.
    Verified,
    /// Somebody said so.
    Asserted,
}

impl Assurance {
    /// The word in logs and metadata.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Verified => "verified",
            Self::Asserted => "asserted",
        }
    }
}

/// On whose behalf a run acts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The subject's name at its issuer; without control characters, at most 256 characters.
    pub id: String,
    /// What it is.
    pub kind: SubjectKind,
    /// Who vouches for it: the `iss` of its token. `None` where it is only asserted.
    pub issuer: Option<String>,
    /// How far that can be believed.
    pub assurance: Assurance,
    /// The groups that its token names, those that were configured to matter first; none where it is only asserted.
    pub groups: Vec<String>,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.id, self.assurance.word())
    }
}

/// A subject that was checked.
///
/// `expires` may have passed already, by less than the leeway that is configured between two machines' clocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// Who it is; [`Assurance::Verified`].
    pub subject: Subject,
    /// When what proves it expires, since the Unix epoch.
    pub expires: Duration,
}

/// Why a subject's token was not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubjectError {
    /// It is not good: the reason, for the caller and for the auditor. Never a part of the token.
    Refused(String),
    /// Whether it is good cannot be learnt now: the issuer, or upstream, does not answer.
    Unavailable(Failure),
}

impl fmt::Display for SubjectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(why) => f.write_str(why),
            Self::Unavailable(failure) => write!(f, "{failure}"),
        }
    }
}

/// The issuers of identity tokens that are believed.
pub trait Issuers: Send + Sync + 'static {
    /// Checks an OIDC token: against its issuer's keys, and where that is configured by asking the issuer. `at` is now.
    ///
    /// Sealed subjects are not for this seam: they are checked by upstream's keys ([`super::seal`]).
    fn check<'a>(&'a self, token: &'a Credential, at: Moment)
    -> BoxFuture<'a, Result<Checked, SubjectError>>;
}
