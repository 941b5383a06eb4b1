//! Runs, as those see them who register, extend, inspect and end them. Each of that is an authorised act, and on record.

use std::sync::Arc;

use serde::Serialize;

use super::{Asker, Broker};
use crate::audit::{Entry, Event};
use crate::causes::causes;
use crate::clock::Until;
use crate::run::arn::ExecutionArn;
use crate::run::request::Request;
use crate::runs::{Active, Cause, Found, Refusal, Registered, Registrant};

/// Who asks about runs.
#[derive(Clone, Copy, Debug)]
pub struct Visitor<'a> {
    /// By which connection.
    pub asker: &'a Asker,
    /// Whose runs it may extend: those that it registered. `None` for who only holds a run's handle.
    pub registrant: Option<Registrant>,
    /// The run whose handle it presents.
    pub run: Option<&'a Arc<Active>>,
    /// The request id of the Lambda invocation that it acts for, where it says so.
    pub invocation: Option<&'a [u8]>,
}

impl Broker {
    /// Registers a run. Returns it, and whether it began with this request.
    ///
    /// # Errors
    /// [`Refusal`], which is on record.
    pub async fn register(&self, visitor: Visitor<'_>, request: Request) -> Result<(RunView, bool), Refusal> {
        let registered = self.registered(visitor, request).await?;
        if !registered.new {
            // Its handle is disclosed once more.
            let entry = Entry::granted(Event::RunRegister).run(&registered.active.stamp);
            let entry =
                entry.caller(&visitor.asker.peer).door(visitor.asker.door).detail("registered already");
            let recorded = self.audit.record(&entry).await;
            let _receipt = recorded.map_err(|error| Refusal::Unaudited(causes(&error)))?;
        }
        let handle = registered.active.handle().map(|handle| handle.expose().to_owned());
        Ok((RunView { handle, ..RunView::of(&registered.active) }, registered.new))
    }

    /// The run that a request names by what it is, rather than by its handle: registered, if it is not yet. Its handle is
    /// nobody's to know.
    ///
    /// # Errors
    /// As [`Self::register`].
    pub async fn named(&self, visitor: Visitor<'_>, request: Request) -> Result<Arc<Active>, Refusal> {
        self.registered(visitor, request).await.map(|registered| registered.active)
    }

    async fn registered(&self, visitor: Visitor<'_>, request: Request) -> Result<Registered, Refusal> {
        // Who presents a handle acts as that run, and in its limits.
        let registrant = visitor.registrant.unwrap_or(Registrant::Holder);
        let by = &match visitor.run {
            Some(run) => Arc::clone(run),
            None => self.runs.current(visitor.invocation).await,
        };
        let Asker { peer, door, .. } = visitor.asker;
        let result = self.runs.register(registrant, by, peer, door, request).await;
        result.inspect_err(|refusal| {
            self.metrics.denied.inc();
            let (policy, why) = match refusal {
                Refusal::Denied { policy, .. } => (policy.as_str(), refusal.to_string()),
                _ => ("run", refusal.to_string()),
            };
            let entry = Entry::denied(Event::RunRegister, &why).run(&by.stamp).policy(policy);
            self.audit.note(&entry.caller(peer).door(door));
        })
    }

    /// Lets a run go on until `to`, as far as its rule and its registrant's deadline allow.
    ///
    /// # Errors
    /// `None` if there is no such run for this visitor; otherwise why it is over.
    pub fn extend(&self, visitor: Visitor<'_>, id: &str, to: Until) -> Result<RunView, Option<Cause>> {
        let active = self.found(visitor, Event::RunExtend, id, false)?;
        let extended = self.runs.extend(&active, to).map_err(Some)?;
        let entry = Entry::done(Event::RunExtend).run(&active.stamp);
        let entry = entry.caller(&visitor.asker.peer).door(visitor.asker.door);
        self.audit.note(&entry.expires(extended.map(Until::end)));
        Ok(RunView::of(&active))
    }

    /// Ends a run. One that is over already stays so.
    ///
    /// # Errors
    /// There is no such run for this visitor.
    pub fn end_run(&self, visitor: Visitor<'_>, id: &str) -> Result<(), Option<Cause>> {
        match self.found(visitor, Event::RunEnd, id, true) {
            Ok(active) => {
                // Who asked; that it is over, and why, is said when it is.
                let entry = Entry::granted(Event::RunEnd).run(&active.stamp).detail("asked for");
                self.audit.note(&entry.caller(&visitor.asker.peer).door(visitor.asker.door));
                self.runs.finish(&active, Cause::Ended);
                Ok(())
            }
            Err(Some(_)) => Ok(()),
            Err(None) => Err(None),
        }
    }

    /// Shows a run.
    ///
    /// # Errors
    /// `None` if there is no such run for this visitor; otherwise why it is over.
    pub fn inspect(&self, visitor: Visitor<'_>, id: &str) -> Result<RunView, Option<Cause>> {
        let active = self.found(visitor, Event::RunInspect, id, true)?;
        let entry = Entry::done(Event::RunInspect).run(&active.stamp);
        self.audit.note(&entry.caller(&visitor.asker.peer).door(visitor.asker.door));
        Ok(RunView::of(&active))
    }

    /// The runs that this visitor may see, in the order in which they began.
    #[must_use]
    pub fn list(&self, visitor: Visitor<'_>) -> Vec<RunView> {
        let all = self.runs.all();
        let seen: Vec<_> = all.iter().filter(|active| may(visitor, active, true)).map(RunView::of).collect();
        let detail = format!("{} runs", seen.len());
        let entry = Entry::done(Event::RunInspect).run(&self.runs.own().stamp).detail(&detail);
        self.audit.note(&entry.caller(&visitor.asker.peer).door(visitor.asker.door));
        seen
    }

    /// The run with that id, if this visitor may do that with it. What it may not see is not there.
    fn found(
        &self,
        visitor: Visitor<'_>,
        event: Event,
        id: &str,
        itself: bool,
    ) -> Result<Arc<Active>, Option<Cause>> {
        match self.runs.by_id(id) {
            Some(Found::Active(active)) if may(visitor, &active, itself) => {
                match active.over(|| self.clock.now()) {
                    None => Ok(active),
                    Some(cause) => Err(Some(cause)),
                }
            }
            Some(Found::Gone(gone)) if visitor.registrant == Some(gone.registrant) => Err(Some(gone.cause)),
            _ => {
                self.metrics.denied.inc();
                let entry = Entry::denied(event, "no such run for this caller").run(&self.runs.own().stamp);
                self.audit.note(&entry.policy("run").caller(&visitor.asker.peer).door(visitor.asker.door));
                Err(None)
            }
        }
    }
}

/// Who registered a run may do everything with it; so may a run with what it registered. `itself`: so may the run.
fn may(visitor: Visitor<'_>, active: &Arc<Active>, itself: bool) -> bool {
    // The process's own run is nobody's to extend or end, and everybody's to see who may register others.
    if active.registrant == Registrant::Own {
        return false;
    }
    let own = visitor.run.is_some_and(|run| Arc::ptr_eq(run, active));
    let parent = visitor.run.is_some_and(|run| active.run.parent.as_ref() == Some(&run.run.id));
    visitor.registrant == Some(active.registrant) || parent || (own && itself)
}

/// A run, as it is shown.
#[derive(Debug, Serialize)]
pub struct RunView {
    /// Its id.
    pub id: String,
    /// What a caller presents to be it. Only in the answer to its registration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handle: Option<String>,
    kind: &'static str,
    phase: &'static str,
    execution_arn: Option<String>,
    state: Option<String>,
    attempt: Option<u32>,
    parents: Vec<String>,
    parent: Option<String>,
    began: String,
    deadline: Option<String>,
    subject: Option<SubjectView>,
    verified: &'static str,
    rule: Option<String>,
    token_role: Option<String>,
    policies: Vec<String>,
    leases: usize,
    tags: std::collections::BTreeMap<String, String>,
}

#[derive(Debug, Serialize)]
struct SubjectView {
    id: String,
    kind: &'static str,
    assurance: &'static str,
    issuer: Option<String>,
    groups: Vec<String>,
}

impl RunView {
    pub(super) fn of(active: &Arc<Active>) -> Self {
        let run = &active.run;
        let (work, rule) = (active.work(), active.rule.as_ref());
        let granted =
            work.and_then(|work| work.token.as_ref()).and_then(|(_, token)| token.view().held.clone());
        // Before its token is made, what it will have at most is all that is known.
        let policies = granted.map(|held| held.payload.policies.clone());
        let policies = policies.or_else(|| rule.map(|rule| rule.policies.clone())).unwrap_or_default();
        let grant = work.and_then(|work| work.token.as_ref()).map(|(grant, _)| grant.role.to_string());
        Self {
            id: run.id.to_string(),
            handle: None,
            kind: run.kind.word(),
            phase: active.phase(),
            execution_arn: run.execution.as_ref().map(ToString::to_string),
            state: run.state.as_deref().map(str::to_owned),
            attempt: run.attempt,
            parents: run.parents.iter().map(ExecutionArn::to_string).collect(),
            parent: run.parent.as_deref().map(str::to_owned),
            began: active.began.rfc3339(),
            deadline: active.deadline().map(|deadline| deadline.end().rfc3339()),
            subject: run.subject.as_deref().map(|subject| SubjectView {
                id: subject.id.clone(),
                kind: subject.kind.word(),
                assurance: subject.assurance.word(),
                issuer: subject.issuer.clone(),
                groups: subject.groups.clone(),
            }),
            verified: run.standing.word(),
            rule: rule.map(|rule| rule.name.clone()),
            token_role: rule.map(|rule| rule.token_role.to_string()).or(grant),
            policies,
            leases: work.map_or(0, |work| work.leases.count()),
            tags: run.tags.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
        }
    }
}
