//! What was found, as values: how it looks is the command's business.

/// A step of the way from the configuration to a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// The file, the environment and the flags.
    Configuration,
    /// The AWS credentials, or what another login needs.
    Credentials,
    /// The region whose STS the login is signed for.
    Region,
    /// Whom STS takes these credentials for.
    Identity,
    /// This machine's clock beside those of others.
    Clock,
    /// The way to Vault, and Vault's own state.
    Vault,
    /// The login.
    Login,
    /// What the login token may do.
    LoginPolicy,
    /// A run token, really made.
    RunToken,
    /// The headers that join Vault's audit log with ours.
    AuditedHeaders,
    /// The key of seals.
    SealKey,
    /// What wraps the keys of disclosed values.
    ValueKey,
    /// A path that must be there before the broker is ready.
    Prefetch,
    /// Where workloads reach the broker.
    Listeners,
    /// The audit log.
    AuditLog,
    /// The orphan journal.
    Journal,
    /// What the examination itself made is gone.
    LeftBehind,
}

impl Step {
    /// Its name, for people and in JSON.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Credentials => "credentials",
            Self::Region => "region",
            Self::Identity => "identity",
            Self::Clock => "clock",
            Self::Vault => "vault",
            Self::Login => "login",
            Self::LoginPolicy => "login policy",
            Self::RunToken => "run token",
            Self::AuditedHeaders => "audited headers",
            Self::SealKey => "seal key",
            Self::ValueKey => "value key",
            Self::Prefetch => "prefetch",
            Self::Listeners => "listeners",
            Self::AuditLog => "audit log",
            Self::Journal => "journal",
            Self::LeftBehind => "left behind",
        }
    }
}

/// What to do about something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cure {
    /// A sentence.
    pub text: String,
    /// To be pasted as it is: commands, or a part of a policy. May be empty.
    pub paste: String,
}

impl Cure {
    /// A sentence, and what to paste.
    pub fn new(text: impl Into<String>, paste: impl Into<String>) -> Self {
        Self { text: text.into(), paste: paste.into() }
    }
}

/// How a step came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As it should be: what was seen.
    Good(String),
    /// That cannot be known from here: why, and how it could be.
    Unknown(String, Cure),
    /// The cause, and what to do.
    Wrong(String, Cure),
    /// It could not be judged, as something before it is wrong.
    Skipped(String),
}

/// One step, judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The step.
    pub step: Step,
    /// How it came out.
    pub verdict: Verdict,
}

/// All findings, in the order of the steps. Nothing in it is secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The findings.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether nothing is wrong. What is not known, or was not judged, is not wrong.
    #[must_use]
    pub fn is_good(&self) -> bool {
        !self.findings.iter().any(|finding| matches!(finding.verdict, Verdict::Wrong(..)))
    }

    /// A step is as it should be.
    pub fn good(&mut self, step: Step, seen: impl Into<String>) {
        self.add(step, Verdict::Good(seen.into()));
    }

    /// A step cannot be judged from here.
    pub fn unknown(&mut self, step: Step, why: impl Into<String>, cure: Cure) {
        self.add(step, Verdict::Unknown(why.into(), cure));
    }

    /// Something is wrong.
    pub fn wrong(&mut self, step: Step, cause: impl Into<String>, cure: Cure) {
        self.add(step, Verdict::Wrong(cause.into(), cure));
    }

    /// A step cannot be judged, because of an earlier one.
    pub fn skipped(&mut self, step: Step, why: impl Into<String>) {
        self.add(step, Verdict::Skipped(why.into()));
    }

    /// Puts what was found of a step together, in the order of the steps: they are not all tried in it.
    #[must_use]
    pub fn in_order(mut self) -> Self {
        self.findings.sort_by_key(|finding| finding.step);
        self
    }

    fn add(&mut self, step: Step, verdict: Verdict) {
        self.findings.push(Finding { step, verdict });
    }
}
