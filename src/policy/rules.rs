//! What a run may have: rules, of which the first that matches counts. None that matches is a refusal.
//!
//! What is merely said of a run can narrow what it gets, never widen it: a rule that gives more than the registrant
//! itself has, counts only for a run of which something was *verified*: its standing, or its subject.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use super::pattern::Pattern;
use crate::run::Kind;
use crate::run::arn::ExecutionArn;
use crate::run::request::Facts;
use crate::run::subject::{Assurance, Subject, SubjectKind};
use crate::run::workflow::Standing;

/// Whether runs of a rule have leases of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Share {
    /// Each run has a token and leases of its own, which end with it.
    #[default]
    None,
    /// Runs of the rule share one token and its leases, which end with the last of them.
    Process,
}

/// Whether the platform is asked about a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Verification {
    /// It is not asked, unless the rule's `match` wants it verified.
    #[default]
    Off,
    /// It is asked; a run that it does not confirm is taken, and the log says so.
    Warn,
    /// It is asked; a run that it does not confirm is refused.
    Require,
}

/// What a run must be for a rule to match: everything that is given.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Matches {
    /// What it is.
    pub kind: Option<Kind>,
    /// Its state machine's name.
    pub state_machine: Option<Pattern>,
    /// Its state.
    pub state: Option<Pattern>,
    /// Its execution's name.
    pub execution: Option<Pattern>,
    /// Its state machine's account.
    pub account: Option<Pattern>,
    /// Its tags.
    pub tags: BTreeMap<String, Pattern>,
    /// A group of its subject, which must be verified.
    pub group: Option<Pattern>,
    /// Its subject, which must be verified.
    pub subject: Option<Pattern>,
    /// What its subject is, which must be verified.
    pub subject_kind: Option<SubjectKind>,
    /// The user id of the process that registers it, on a Unix socket.
    pub uid: Option<u32>,
    /// The platform confirms that this task belongs to that state of that execution.
    pub verified: bool,
}

/// One rule: what it is for, and what it gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// How logs and answers name it: `run.rule[0]`.
    pub name: String,
    /// For which runs.
    pub matches: Matches,
    /// The token role that their tokens are made from.
    pub token_role: Arc<str>,
    /// The policies of their tokens, where not all that the token role allows.
    pub policies: Vec<String>,
    /// The namespace of the token role; `None`: the broker's own.
    pub namespace: Option<Arc<str>>,
    /// The longest life of a run, with all extensions.
    pub max_ttl: Duration,
    /// Whether their leases are their own.
    pub share: Share,
    /// Whether the platform is asked about them.
    pub verification: Verification,
    /// Whether they may register runs themselves.
    pub may_register: bool,
    /// Whether they end with the run or the execution that started them.
    pub ends_with_parent: bool,
}

/// A run that is to be registered.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// What is said of it.
    pub facts: &'a Facts,
    /// On whose behalf it acts.
    pub subject: Option<&'a Subject>,
    /// The user id of who registers it.
    pub uid: Option<u32>,
    /// What the platform says; `None` while it was not asked.
    pub standing: Option<Standing>,
}

/// What a registrant has itself.
#[derive(Clone, Copy, Debug)]
pub struct Owner<'a> {
    /// The token role of its own token.
    pub token_role: Option<&'a str>,
    /// The policies that its token was narrowed to.
    pub narrowed: &'a [String],
    /// The policies of its token, as upstream listed them; `None` while there is no token.
    pub policies: Option<&'a [String]>,
    /// The namespace of its token.
    pub namespace: Option<&'a str>,
}

/// What the rules say.
#[derive(Clone, Debug, PartialEq)]
pub enum Choice<'r> {
    /// This rule counts.
    Take(&'r Arc<Rule>),
    /// It depends on what the platform says: ask it, and choose again.
    Verify,
    /// No.
    Refuse(String),
}

/// The rules, in their order. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rules(Arc<[Arc<Rule>]>);

impl Rules {
    /// These, in this order.
    #[must_use]
    pub fn new(rules: Vec<Rule>) -> Self {
        Self(rules.into_iter().map(Arc::new).collect())
    }

    /// Whether there is none: then nothing can be registered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first rule that matches.
    #[must_use]
    pub fn choose(&self, candidate: &Candidate<'_>) -> Choice<'_> {
        if self.is_empty() {
            return Choice::Refuse(
                "no run can be registered here: the configuration has no [[run.rule]]".to_owned(),
            );
        }
        for rule in self.0.iter().filter(|rule| rule.matches.fits(candidate)) {
            let asks = rule.matches.verified || rule.verification != Verification::Off;
            match candidate.standing {
                None if asks => return Choice::Verify,
                Some(standing) if standing != Standing::Verified => {
                    if rule.matches.verified {
                        continue;
                    }
                    if rule.verification == Verification::Require {
                        return Choice::Refuse(format!(
                            "{} requires a verified run, and the platform's word on this one is {:?}: register it with \
                             the task token of a task that is under way, or from the ECS task that the state started",
                            rule.name,
                            standing.word()
                        ));
                    }
                }
                _ => {}
            }
            return Choice::Take(rule);
        }
        Choice::Refuse(format!("no [[run.rule]] matches a run with {}", candidate.shown()))
    }
}

impl Rule {
    /// Whether it gives no more than `owner` has.
    ///
    /// # Errors
    /// Why that cannot be said, for the answer to the registrant.
    pub fn lies_within(&self, owner: &Owner<'_>) -> Result<(), String> {
        let same_namespace = self.namespace.as_deref().is_none_or(|ours| Some(ours) == owner.namespace);
        let subset =
            |of: &[String]| !self.policies.is_empty() && self.policies.iter().all(|name| of.contains(name));
        if same_namespace
            && owner.token_role == Some(&*self.token_role)
            && (owner.narrowed.is_empty() || subset(owner.narrowed))
        {
            return Ok(());
        }
        match owner.policies {
            Some(policies) if same_namespace && subset(policies) => Ok(()),
            None if same_namespace && !self.policies.is_empty() => {
                Err("the registrant has no token yet: try again".to_owned())
            }
            _ => Err(format!(
                "{} gives more than the registrant itself has (token role {}{}), and nothing of this run is verified: \
                 let the rule match with verified = true, a group or a subject, or give policies that the registrant \
                 has",
                self.name,
                self.token_role,
                if self.policies.is_empty() {
                    String::new()
                } else {
                    format!(", policies {}", self.policies.join(", "))
                },
            )),
        }
    }

    /// Whether something that it matched on was verified, so that it may give more than its registrant has.
    #[must_use]
    pub fn may_widen(&self, candidate: &Candidate<'_>) -> bool {
        let by_subject = self.matches.group.is_some() || self.matches.subject.is_some();
        candidate.standing == Some(Standing::Verified) || by_subject
    }
}

impl Matches {
    /// Everything but the standing.
    fn fits(&self, candidate: &Candidate<'_>) -> bool {
        let Candidate { facts, .. } = candidate;
        let fits = |wanted: &Option<Pattern>, value: Option<&str>| {
            wanted.as_ref().is_none_or(|wanted| value.is_some_and(|value| wanted.matches(value)))
        };
        let execution = facts.execution.as_ref();
        let subject = candidate.subject.filter(|subject| subject.assurance == Assurance::Verified);
        self.kind.is_none_or(|kind| kind == candidate.kind())
            && fits(&self.state_machine, execution.map(ExecutionArn::state_machine))
            && fits(&self.state, facts.state.as_deref())
            && fits(&self.execution, execution.map(ExecutionArn::name))
            && fits(&self.account, execution.map(ExecutionArn::account))
            && self.tags.iter().all(|(name, wanted)| {
                facts.tags.get(name.as_str()).is_some_and(|value| wanted.matches(value))
            })
            && fits(&self.subject, subject.map(|subject| subject.id.as_str()))
            && self.subject_kind.is_none_or(|kind| subject.is_some_and(|subject| subject.kind == kind))
            && self.group.as_ref().is_none_or(|wanted| {
                subject.is_some_and(|subject| subject.groups.iter().any(|group| wanted.matches(group)))
            })
            && self.uid.is_none_or(|uid| candidate.uid == Some(uid))
    }
}

impl Candidate<'_> {
    /// What the run is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        if self.facts.execution.is_some() { Kind::State } else { Kind::Api }
    }

    /// What was looked at, for a refusal.
    fn shown(&self) -> String {
        let mut text = format!("kind {}", self.kind().word());
        // Writing to a String does not fail.
        if let Some(execution) = &self.facts.execution {
            let _ = write!(text, ", state machine {:?}", execution.state_machine());
        }
        if let Some(state) = &self.facts.state {
            let _ = write!(text, ", state {state:?}");
        }
        match self.subject {
            Some(subject) => {
                let _ = write!(text, ", subject {:?} ({})", subject.id, subject.assurance.word());
            }
            None => text.push_str(", no subject"),
        }
        if let Some(standing) = self.standing {
            let _ = write!(text, ", {}", standing.word());
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(name: &str, matches: Matches) -> Rule {
        Rule {
            name: name.to_owned(),
            matches,
            token_role: "run".into(),
            policies: Vec::new(),
            namespace: None,
            max_ttl: Duration::from_secs(900),
            share: Share::None,
            verification: Verification::Off,
            may_register: false,
            ends_with_parent: true,
        }
    }

    fn facts(state: &str) -> Facts {
        Facts {
            execution: Some(
                "arn:aws:states:eu-west-1:123456789012:execution:orders:x".parse().expect("an ARN"),
            ),
            state: Some(state.into()),
            tags: BTreeMap::from([("team".into(), "payments".into())]),
            ..Facts::default()
        }
    }

    fn state(name: &str) -> Matches {
        Matches {
            state_machine: Some(Pattern::new("orders")),
            state: Some(Pattern::new(name)),
            ..Matches::default()
        }
    }

    fn chosen(rules: &Rules, candidate: &Candidate<'_>) -> String {
        match rules.choose(candidate) {
            Choice::Take(rule) => rule.name.clone(),
            Choice::Verify => "verify".to_owned(),
            Choice::Refuse(why) => why,
        }
    }

    #[test]
    fn the_first_match_counts_and_no_match_is_a_refusal() {
        let facts = facts("Charge");
        let candidate = Candidate { facts: &facts, subject: None, uid: None, standing: None };
        let rules = Rules::new(vec![
            rule("reserve", state("Reserve")),
            rule(
                "tagged",
                Matches {
                    tags: BTreeMap::from([("team".to_owned(), Pattern::new("pay*"))]),
                    ..Matches::default()
                },
            ),
            rule("all", Matches::default()),
        ]);
        assert_eq!(chosen(&rules, &candidate), "tagged");
        let rules = Rules::new(vec![
            rule("reserve", state("Reserve")),
            rule("api", Matches { kind: Some(Kind::Api), ..Matches::default() }),
        ]);
        let why = chosen(&rules, &candidate);
        assert!(
            why.contains("no [[run.rule]] matches")
                && why.contains("\"Charge\"")
                && why.contains("no subject"),
            "{why}"
        );
        assert!(chosen(&Rules::default(), &candidate).contains("has no [[run.rule]]"));
    }

    #[test]
    fn only_a_verified_subject_has_groups() {
        let facts = facts("Charge");
        let mut subject = Subject {
            id: "ada".into(),
            kind: SubjectKind::Person,
            issuer: None,
            assurance: Assurance::Asserted,
            groups: vec!["admins".into()],
        };
        let rules = Rules::new(vec![rule(
            "admins",
            Matches { group: Some(Pattern::new("admins")), ..Matches::default() },
        )]);
        let said = |subject: &Subject| {
            let subject = Some(subject);
            chosen(&rules, &Candidate { facts: &facts, subject, uid: None, standing: None })
        };
        assert!(said(&subject).contains("asserted"));
        subject.assurance = Assurance::Verified;
        assert_eq!(said(&subject), "admins");
    }

    #[test]
    fn a_rule_that_wants_it_verified_asks_and_then_passes_by_or_refuses() {
        let facts = facts("Charge");
        let at = |standing| Candidate { facts: &facts, subject: None, uid: None, standing };
        let verified = rule("verified", Matches { verified: true, ..state("Charge") });
        let rules = Rules::new(vec![verified, rule("rest", Matches::default())]);
        assert_eq!(chosen(&rules, &at(None)), "verify");
        assert_eq!(chosen(&rules, &at(Some(Standing::Verified))), "verified");
        assert_eq!(chosen(&rules, &at(Some(Standing::Exists))), "rest");
        let required = Rule { verification: Verification::Require, ..rule("required", state("Charge")) };
        let rules = Rules::new(vec![required, rule("rest", Matches::default())]);
        assert!(chosen(&rules, &at(Some(Standing::Exists))).contains("requires a verified run"));
        let warned = Rule { verification: Verification::Warn, ..rule("warned", state("Charge")) };
        let rules = Rules::new(vec![warned]);
        assert_eq!(chosen(&rules, &at(None)), "verify");
        assert_eq!(chosen(&rules, &at(Some(Standing::Unverifiable))), "warned");
    }

    #[test]
    fn what_is_asserted_only_narrows() {
        let has = ["default".to_owned(), "orders-reserve".to_owned(), "orders-charge".to_owned()];
        let owner = Owner { token_role: Some("run"), narrowed: &[], policies: Some(&has), namespace: None };
        let gives = |role: &str, policies: &[&str]| Rule {
            token_role: role.into(),
            policies: policies.iter().map(|name| (*name).to_owned()).collect(),
            ..rule("r", Matches::default())
        };
        let within = |rule: Rule, owner: &Owner<'_>| rule.lies_within(owner).is_ok();
        assert!(within(gives("run", &[]), &owner));
        assert!(within(gives("run", &["orders-charge"]), &owner));
        assert!(within(gives("run-charge", &["orders-charge"]), &owner));
        assert!(!within(gives("run-charge", &[]), &owner), "what the role allows is not known");
        assert!(!within(gives("run-admin", &["admin"]), &owner));
        let narrowed = Owner { narrowed: &has[1..2], ..owner };
        assert!(!within(gives("run", &[]), &narrowed), "a narrowed run has not all of its role");
        assert!(within(gives("run", &["orders-reserve"]), &narrowed));
        let elsewhere = Rule { namespace: Some("team".into()), ..gives("run", &[]) };
        assert!(elsewhere.lies_within(&owner).is_err());
        let early = Owner { policies: None, ..owner };
        assert!(
            gives("run-charge", &["orders-charge"])
                .lies_within(&early)
                .expect_err("too early")
                .contains("try again")
        );
    }
}
