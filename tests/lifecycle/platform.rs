//! A Step Functions and an issuer that say what they are told to: with latency, failure switches and a log of calls.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tenure::clock::{Moment, Until};
use tenure::lease::failure::{Class, Failure};
use tenure::lease::upstream::BoxFuture;
use tenure::policy::pattern::Pattern;
use tenure::policy::rules::{Matches, Rule, Share, Verification};
use tenure::run::arn::ExecutionArn;
use tenure::run::request::{Facts, Request};
use tenure::run::subject::{Assurance, Checked, Issuers, Subject, SubjectError, SubjectKind};
use tenure::run::workflow::{Beat, Claim, Evidence, ExecutionStatus, Workflow};
use tenure::secret::Credential;

use crate::stage::{Stage, secs, sleep};

/// A call, as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Heartbeat,
    Describe,
    History,
}

/// Step Functions. All clones are one.
#[derive(Clone, Default)]
pub(crate) struct Platform(Arc<Mutex<Say>>);

#[derive(Default)]
struct Say {
    latency: Duration,
    /// What every call fails with.
    failure: Option<Failure>,
    /// What is answered to each heartbeat; [`Beat::Alive`] if nothing is said.
    beats: HashMap<String, Beat>,
    /// How executions are doing; those that are not named run. `None`: there is no such execution.
    statuses: HashMap<ExecutionArn, Option<ExecutionStatus>>,
    /// What histories say from now on, one after the other; the last of them stays.
    evidence: Vec<Evidence>,
    calls: Vec<(Asked, tokio::time::Instant)>,
}

impl Platform {
    pub(crate) fn shared(&self) -> Option<Arc<dyn Workflow>> {
        Some(Arc::new(self.clone()))
    }

    pub(crate) fn set_latency(&self, latency: Duration) {
        self.say().latency = latency;
    }

    /// Fails every call.
    pub(crate) fn fail(&self, failure: Failure) {
        self.say().failure = Some(failure);
    }

    /// Fails every call with this class, and no status.
    pub(crate) fn fail_with(&self, class: Class) {
        self.fail(Failure::new(class, "a failure that was switched on"));
    }

    pub(crate) fn recover(&self) {
        self.say().failure = None;
    }

    pub(crate) fn beat(&self, token: &str, beat: Beat) {
        self.say().beats.insert(token.to_owned(), beat);
    }

    pub(crate) fn status(&self, execution: &ExecutionArn, status: Option<ExecutionStatus>) {
        self.say().statuses.insert(execution.clone(), status);
    }

    pub(crate) fn evidence(&self, evidence: &[Evidence]) {
        self.say().evidence = evidence.to_vec();
    }

    pub(crate) fn calls(&self) -> Vec<Asked> {
        self.say().calls.iter().map(|(asked, _)| *asked).collect()
    }

    pub(crate) fn count(&self, sought: Asked) -> usize {
        self.calls().into_iter().filter(|asked| *asked == sought).count()
    }

    pub(crate) fn clear_calls(&self) {
        self.say().calls.clear();
    }

    fn say(&self) -> MutexGuard<'_, Say> {
        self.0.lock().expect("the platform")
    }

    async fn answer<T>(&self, asked: Asked, answer: impl FnOnce(&mut Say) -> T) -> Result<T, Failure> {
        let latency = {
            let mut say = self.say();
            say.calls.push((asked, tokio::time::Instant::now()));
            say.latency
        };
        sleep(latency).await;
        let mut say = self.say();
        match say.failure.clone() {
            Some(failure) => Err(failure),
            None => Ok(answer(&mut say)),
        }
    }
}

impl Workflow for Platform {
    fn heartbeat<'a>(&'a self, task_token: &'a Credential) -> BoxFuture<'a, Result<Beat, Failure>> {
        Box::pin(self.answer(Asked::Heartbeat, |say| {
            let known = say.beats.iter().find(|(token, _)| task_token.matches(token.as_bytes()));
            known.map_or(Beat::Alive, |(_, beat)| *beat)
        }))
    }

    fn describe<'a>(
        &'a self,
        execution: &'a ExecutionArn,
    ) -> BoxFuture<'a, Result<Option<ExecutionStatus>, Failure>> {
        Box::pin(self.answer(Asked::Describe, |say| {
            say.statuses.get(execution).copied().unwrap_or(Some(ExecutionStatus::Running))
        }))
    }

    fn history<'a>(&'a self, _: &'a ExecutionArn, _: Claim<'a>) -> BoxFuture<'a, Result<Evidence, Failure>> {
        Box::pin(self.answer(Asked::History, |say| match say.evidence.len() {
            0 => Evidence::default(),
            1 => say.evidence[0],
            _ => say.evidence.remove(0),
        }))
    }
}

/// Whoever vouches for subjects.
#[derive(Clone, Default)]
pub(crate) struct Vouching(Arc<Mutex<HashMap<String, Result<Checked, SubjectError>>>>);

impl Vouching {
    pub(crate) fn shared(&self) -> Option<Arc<dyn Issuers>> {
        Some(Arc::new(self.clone()))
    }

    /// `token` proves that its holder is `id`, of these groups, for so long from now on.
    pub(crate) fn vouch(&self, stage: &Stage, token: &str, id: &str, groups: &[&str], good_for: Duration) {
        let subject = Subject {
            id: id.to_owned(),
            kind: SubjectKind::Person,
            issuer: Some("https://issuer.example".to_owned()),
            assurance: Assurance::Verified,
            groups: groups.iter().map(|&group| group.to_owned()).collect(),
        };
        let expires = stage.clock.now().wall() + good_for;
        self.say(token, Ok(Checked { subject, expires }));
    }

    pub(crate) fn say(&self, token: &str, answer: Result<Checked, SubjectError>) {
        self.0.lock().expect("the issuer").insert(token.to_owned(), answer);
    }
}

impl Issuers for Vouching {
    fn check<'a>(&'a self, token: &'a Credential, _: Moment) -> BoxFuture<'a, Result<Checked, SubjectError>> {
        Box::pin(async {
            sleep(Duration::from_millis(20)).await;
            let said = self.0.lock().expect("the issuer");
            let known = said.iter().find(|(known, _)| token.matches(known.as_bytes()));
            let known = known.map(|(_, answer)| answer.clone());
            known.unwrap_or_else(|| Err(SubjectError::Refused("its signature is not good".to_owned())))
        })
    }
}

/// A rule for all runs, with the token role of the process's own run and an hour at most.
pub(crate) fn rule() -> Rule {
    Rule {
        name: "run.rule[0]".to_owned(),
        matches: Matches::default(),
        token_role: "run".into(),
        policies: Vec::new(),
        namespace: None,
        max_ttl: secs(3600),
        share: Share::None,
        verification: Verification::Off,
        may_register: false,
        ends_with_parent: true,
    }
}

/// What a rule for one state matches.
pub(crate) fn state(name: &str) -> Matches {
    Matches { state: Some(Pattern::new(name)), ..Matches::default() }
}

pub(crate) fn execution(name: &str) -> ExecutionArn {
    format!("arn:aws:states:eu-west-1:123456789012:execution:orders:{name}").parse().expect("an ARN")
}

pub(crate) fn express(name: &str) -> ExecutionArn {
    format!("arn:aws:states:eu-west-1:123456789012:express:orders:{name}:1").parse().expect("an ARN")
}

/// The first try of a state of an execution.
pub(crate) fn of(execution: &ExecutionArn, state: &str) -> Request {
    let facts = Facts {
        execution: Some(execution.clone()),
        state: Some(state.into()),
        attempt: Some(0),
        ..Facts::default()
    };
    Request { facts, ..Request::default() }
}

/// The same, for so long.
pub(crate) fn lasting(stage: &Stage, request: Request, life: Duration) -> Request {
    Request { deadline: Some(Until::new(stage.clock.now(), life)), ..request }
}

/// The same, with a task token.
pub(crate) fn with_task(request: Request, token: &str) -> Request {
    Request { task_token: Some(Credential::new(token.to_owned())), ..request }
}

/// The same, on behalf of whom that token names.
pub(crate) fn with_subject(request: Request, token: &str) -> Request {
    Request { subject_token: Some(Credential::new(token.to_owned())), ..request }
}
