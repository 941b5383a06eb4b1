//! `[[run.rule]]` and `[workflow]`: what runs may have, and how the platform is asked about them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::raw::RawDuration;
use super::validate::{Check, DAY, HOUR, SECOND};
use crate::policy::pattern::Pattern;
use crate::policy::rules::{Matches, Rule, Share, Verification};
use crate::run::Kind;
use crate::run::subject::SubjectKind;

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawRule {
    /// For which runs: everything that is given must fit; `*` in a text stands for any characters. Default: all.
    pub(crate) r#match: RawMatch,
    /// The token role that their tokens are made from. Default: run.token_role.
    pub(crate) token_role: Option<String>,
    /// The policies of their tokens, of those that the token role allows. Default: all of them.
    pub(crate) policies: Option<Vec<String>>,
    /// The Vault namespace of the token role. Default: vault.namespace.
    pub(crate) namespace: Option<String>,
    /// The longest life of a run, with all extensions. Default: "1h".
    #[schemars(extend("default" = "1h"))]
    pub(crate) max_ttl: Option<RawDuration>,
    /// Whether leases are each run's own ("none"), or shared by the runs of this rule ("process"). Default: "none".
    #[schemars(extend("default" = "none"))]
    pub(crate) share: Option<Share>,
    /// Whether the platform is asked about these runs: "off", "warn", "require". Default: "off".
    #[schemars(extend("default" = "off"))]
    pub(crate) verification: Option<Verification>,
    /// Whether these runs may register runs themselves, in their own limits. Default: false.
    #[schemars(extend("default" = false))]
    pub(crate) may_register: Option<bool>,
    /// Whether these runs end with the run or the execution that started them. Default: true.
    #[schemars(extend("default" = true))]
    pub(crate) ends_with_parent: Option<bool>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawMatch {
    /// What the run is: "state" (of an execution) or "api" (it names none).
    pub(crate) kind: Option<RawKind>,
    /// The name of its state machine.
    pub(crate) state_machine: Option<String>,
    /// The name of its state.
    pub(crate) state: Option<String>,
    /// The name of its execution.
    pub(crate) execution: Option<String>,
    /// The account of its state machine.
    pub(crate) account: Option<String>,
    /// Its tags, by their names in lower case: tag.team = "payments".
    pub(crate) tag: BTreeMap<String, String>,
    /// A group of its subject, which must be verified.
    pub(crate) group: Option<String>,
    /// Its subject, which must be verified.
    pub(crate) subject: Option<String>,
    /// What its subject is, which must be verified: "person", "service", "agent", "scheduler".
    pub(crate) subject_kind: Option<RawSubjectKind>,
    /// The user id of the process that registers it, by the Unix socket.
    #[schemars(range(max = 4_294_967_295_u32))]
    pub(crate) uid: Option<u32>,
    /// Whether the platform must confirm that its task belongs to that state of that execution. Default: false.
    #[schemars(extend("default" = false))]
    pub(crate) verified: Option<bool>,
}

/// What can be registered.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(crate) enum RawKind {
    State,
    Api,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(crate) enum RawSubjectKind {
    Person,
    Service,
    Agent,
    Scheduler,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawWorkflow {
    /// How often a run that has a task token sends its heartbeat; an answer that its task is over ends it. Default: "10s".
    #[schemars(extend("default" = "10s"))]
    pub(crate) heartbeat: Option<RawDuration>,
    /// How often the execution of a run without a task token is described; one that is over ends its runs. Default:
    /// never.
    pub(crate) poll: Option<RawDuration>,
    /// Descriptions and histories a second that all brokers of the account may ask for together. Default: 10, two thirds
    /// of what Step Functions grants an account.
    #[schemars(range(min = 1, max = 10_000), extend("default" = 10))]
    pub(crate) account_rate: Option<u32>,
    /// How many brokers share that: as many as run at a time. Default: 10.
    #[schemars(range(min = 1, max = 1_000_000), extend("default" = 10))]
    pub(crate) brokers: Option<u32>,
}

/// How the platform is asked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Workflow {
    /// How often a run that has a task token sends its heartbeat.
    pub heartbeat: Duration,
    /// How often the execution of a run without one is described; `None`: never.
    pub poll: Option<Duration>,
    /// Descriptions and histories a second that all brokers of the account may ask for together.
    pub account_rate: u32,
    /// How many brokers share that.
    pub brokers: u32,
}

impl Default for Workflow {
    fn default() -> Self {
        Self { heartbeat: 10 * SECOND, poll: None, account_rate: 10, brokers: 10 }
    }
}

impl Workflow {
    /// This broker's share, in calls a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        f64::from(self.account_rate) / f64::from(self.brokers)
    }
}

impl Check<'_> {
    pub(super) fn workflow(&mut self, raw: &RawWorkflow) -> Workflow {
        let poll = raw.poll.as_ref();
        let default = Workflow::default();
        Workflow {
            heartbeat: self.duration(
                "workflow.heartbeat",
                raw.heartbeat.as_ref(),
                default.heartbeat,
                SECOND,
                HOUR,
            ),
            poll: poll.map(|_| self.duration("workflow.poll", poll, 60 * SECOND, 5 * SECOND, DAY)),
            account_rate: raw.account_rate.unwrap_or(default.account_rate),
            brokers: raw.brokers.unwrap_or(default.brokers),
        }
    }

    /// The rules. `own` is the token role of the process's own run.
    pub(super) fn rules(&mut self, raw: &[RawRule], own: Option<&str>) -> Vec<Rule> {
        raw.iter().enumerate().filter_map(|(i, raw)| self.rule(&format!("run.rule[{i}]"), raw, own)).collect()
    }

    fn rule(&mut self, name: &str, raw: &RawRule, own: Option<&str>) -> Option<Rule> {
        let key = |member: &str| format!("{name}.{member}");
        let token_role = match (&raw.token_role, own) {
            (Some(role), _) => self.name(&key("token_role"), role, "/"),
            (None, Some(own)) => Some(own.to_owned()),
            (None, None) => self.refuse(
                &key("token_role"),
                "missing: the process's own run has no token role (run.token_role) that it could be"
                    .to_owned(),
            ),
        };
        let mut policies = Vec::new();
        if let Some(said) = &raw.policies {
            if said.is_empty() {
                self.refuse::<()>(
                    &key("policies"),
                    "an empty list gives nothing; leave it out to give all that the token role allows"
                        .to_owned(),
                );
            }
            for (i, policy) in said.iter().enumerate() {
                policies.extend(self.name(&key(&format!("policies[{i}]")), policy, ""));
            }
        }
        let namespace = raw.namespace.as_deref().map(|text| text.trim_matches('/'));
        let namespace = namespace.and_then(|text| self.mountlike(&key("namespace"), text));
        let max_ttl = self.duration(&key("max_ttl"), raw.max_ttl.as_ref(), HOUR, SECOND, 366 * DAY);
        let matches = self.matches(name, &raw.r#match);
        let verification = raw.verification.unwrap_or_default();
        let checked = matches.verified
            || matches.group.is_some()
            || matches.subject.is_some()
            || verification == Verification::Require;
        let wider = token_role.as_deref() != own || namespace.is_some();
        if wider && !checked && policies.is_empty() && token_role.is_some() {
            let message = format!(
                "gives more than the process's own run has{}, and nothing of the runs that it matches is verified: add \
                 verified = true, a group or a subject to its match, or verification = \"require\"; or name policies that \
                 the process's own run has, too",
                own.map(|own| format!(" (run.token_role = {own:?})")).unwrap_or_default()
            );
            self.refuse::<()>(&key("token_role"), message);
        }
        Some(Rule {
            name: name.to_owned(),
            matches,
            token_role: token_role?.into(),
            policies,
            namespace: namespace.map(Into::into),
            max_ttl,
            share: raw.share.unwrap_or_default(),
            verification,
            may_register: raw.may_register.unwrap_or(false),
            ends_with_parent: raw.ends_with_parent.unwrap_or(true),
        })
    }

    fn matches(&mut self, rule: &str, raw: &RawMatch) -> Matches {
        let mut known = BTreeSet::new();
        for name in raw.tag.keys() {
            if !known.insert(name.to_lowercase()) {
                // The one would take the other's place, and the rule match more than it says.
                let message = "is given twice, in different case; tags are named in lower case".to_owned();
                self.refuse::<()>(&format!("{rule}.match.tag.{name}"), message);
            }
        }
        let mut pattern = |name: &str, text: Option<&String>| {
            let text = text?;
            if text.is_empty() {
                let message = "is empty, and nothing is; leave it out to match anything".to_owned();
                return self.refuse(&format!("{rule}.match.{name}"), message);
            }
            Some(Pattern::new(text))
        };
        let mut tags = BTreeMap::new();
        for (name, text) in &raw.tag {
            let Some(value) = pattern(&format!("tag.{name}"), Some(text)) else { continue };
            tags.insert(name.to_lowercase(), value);
        }
        Matches {
            kind: raw.kind.map(|kind| match kind {
                RawKind::State => Kind::State,
                RawKind::Api => Kind::Api,
            }),
            state_machine: pattern("state_machine", raw.state_machine.as_ref()),
            state: pattern("state", raw.state.as_ref()),
            execution: pattern("execution", raw.execution.as_ref()),
            account: pattern("account", raw.account.as_ref()),
            group: pattern("group", raw.group.as_ref()),
            subject: pattern("subject", raw.subject.as_ref()),
            tags,
            subject_kind: raw.subject_kind.map(|kind| match kind {
                RawSubjectKind::Person => SubjectKind::Person,
                RawSubjectKind::Service => SubjectKind::Service,
                RawSubjectKind::Agent => SubjectKind::Agent,
                RawSubjectKind::Scheduler => SubjectKind::Scheduler,
            }),
            uid: raw.uid,
            verified: raw.verified.unwrap_or(false),
        }
    }
}
