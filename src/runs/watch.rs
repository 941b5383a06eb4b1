//! What makes a run end: its deadline, who says so, the platform. One task looks after all of them.

use std::sync::Arc;
use std::time::Duration;

use tracing::Instrument as _;

use super::active::{Active, Registrant};
use super::life::{Act, Cause, Event, Question};
use super::{PATIENCE, Runs};
use crate::audit::{self, Entry};
use crate::backoff;
use crate::clock::Until;
use crate::lease::failure::{Class, Failure};
use crate::run::Kind;
use crate::run::arn::{ExecutionArn, Flow};
use crate::run::workflow::{Beat, ExecutionStatus};

/// How often an execution is asked about when a task of it is over, should there be no answer.
const AFTER_A_TASK: u32 = 4;

/// How much later, at least.
const LATER: Duration = Duration::from_secs(2);

/// Questions to the platform that are due within so long are asked together: to wake up for each of ten thousand
/// heartbeats costs more than to send them. Far less than the jitter of a schedule, and deadlines are not put off.
const TOGETHER: Duration = Duration::from_millis(20);

impl Runs {
    /// Looks at each run when its time has come.
    pub(super) async fn watch(self: Arc<Self>) {
        loop {
            let now = self.common.clock.now();
            let due = self.registry().due(now.mono());
            for active in &due {
                self.step(active, Event::Tick);
            }
            let next = self.registry().next_look();
            let wait = next.map(|at| at.saturating_sub(self.common.clock.now().mono()));
            tokio::select! {
                () = self.news.notified() => {}
                () = sleep(wait) => {}
            }
        }
    }

    /// Lets a run go on until `to`, or as long as its ceiling and its registrant's deadline allow. Returns its deadline.
    ///
    /// # Errors
    /// It is over.
    pub fn extend(self: &Arc<Self>, active: &Arc<Active>, to: Until) -> Result<Option<Until>, Cause> {
        let now = self.common.clock.now();
        if let Some(cause) = active.over(|| now) {
            return Err(cause);
        }
        let bound = self.registrant_of(active).deadline();
        let to = match bound {
            Some(bound) if bound.left(now) < to.left(now) => bound,
            _ => to,
        };
        let before = active.deadline();
        self.step(active, Event::Extend { to });
        let deadline = active.deadline();
        // What others use, too, has a life of its own.
        if let Some(deadline) = deadline.filter(|_| deadline != before && !active.shares())
            && let Some(work) = active.work()
        {
            work.context.extend(deadline);
            if let Some((_, token)) = &work.token {
                token.extend(deadline);
            }
            work.leases.extend(deadline);
        }
        Ok(deadline)
    }

    /// Ends a run: its handle is refused from now on, and its token revoked.
    pub fn finish(self: &Arc<Self>, active: &Arc<Active>, cause: Cause) {
        self.step(active, Event::End { cause });
    }

    pub(super) fn step(self: &Arc<Self>, active: &Arc<Active>, event: Event) {
        match active.step(event, self.common.clock.now()) {
            Some(Act::Close) => self.close(active),
            Some(Act::Ask(question)) => self.ask(active, question),
            None => {}
        }
        self.schedule(active);
    }

    /// Looks at a run again when time may make something of it.
    pub(super) fn schedule(&self, active: &Arc<Active>) {
        let now = self.common.clock.now();
        // Timers count in milliseconds and must not fire a moment too early, again and again.
        let after = |wait: Duration| now.mono() + wait + Duration::from_millis(1);
        let (wake, deadline) = active.life(|life| (life.wake_in(now), life.deadline()));
        let at = wake.map(|wake| {
            let asked = together(after(wake));
            deadline.map_or(asked, |deadline| asked.min(after(deadline.left(now))))
        });
        let mut registry = self.registry();
        let before = registry.next_look();
        registry.look_at(active, at);
        if at.is_some_and(|at| before.is_none_or(|before| at < before)) {
            drop(registry);
            self.news.notify_one();
        }
    }

    /// The run in whose limits a run lies.
    fn registrant_of(&self, active: &Active) -> Arc<Active> {
        let parent = active.run.parent.as_ref().and_then(|id| self.by_id(id));
        match parent {
            Some(super::Found::Active(parent)) => parent,
            _ => Arc::clone(&self.own),
        }
    }

    fn close(self: &Arc<Self>, active: &Arc<Active>) {
        let Some(cause) = active.over(|| self.common.clock.now()) else { return };
        let why = cause.to_string();
        self.common.audit.note(&Entry::done(audit::Event::RunEnd).run(&active.stamp).detail(&why));
        match active.run.kind {
            // There are as many as the function has work, and the audit log has each of them.
            Kind::Invocation => tracing::debug!(run = %active.run.id, "the run is over: {why}"),
            _ => tracing::info!(run = %active.run.id, "the run is over: {why}"),
        }
        self.registry().unregister(active);
        let children = match active.registrant {
            Registrant::Own => self.registry().of_own(),
            _ => self.registry().children(&active.run.id),
        };
        let why = if cause == Cause::Shutdown { cause } else { Cause::Parent };
        for child in children.iter().filter(|child| follows(child)) {
            self.step(child, Event::End { cause: why });
        }
        if let Some(execution) = &active.run.execution {
            match cause {
                Cause::Execution(status) => self.execution_over(execution, status),
                // That the task is over may be all that is over: its execution may try again.
                Cause::TaskTimedOut | Cause::TaskGone if execution.flow() == Flow::Standard => {
                    let (runs, execution) = (Arc::clone(self), execution.clone());
                    self.common
                        .supervisor
                        .spawn("execution", async move { runs.look_after(&execution).await });
                }
                _ => {}
            }
        }
        let ends = active
            .work()
            .filter(|_| !active.borrows() && (!active.shares() || self.leaves_as_the_last(active)));
        let Some(work) = ends else { return self.closed(active, cause) };
        work.end();
        let Some((_, token)) = &work.token else { return self.closed(active, cause) };
        let (runs, active, token) = (Arc::clone(self), Arc::clone(active), token.clone());
        self.common.supervisor.spawn("run end", async move {
            // It tries until its token is gone: revoked and seen to be, or ended by itself.
            while !token.end(PATIENCE).await {}
            runs.closed(&active, cause);
        });
    }

    fn closed(&self, active: &Arc<Active>, cause: Cause) {
        let now = self.common.clock.now();
        active.step(Event::Closed, now);
        self.registry().retire(active, cause, now);
        self.retired.notify_waiters();
    }

    /// An execution is over, and with it all its runs, and what it started.
    fn execution_over(self: &Arc<Self>, execution: &ExecutionArn, status: ExecutionStatus) {
        let (of, started) = {
            let registry = self.registry();
            (registry.of(execution).to_vec(), registry.started_by(execution))
        };
        for active in of {
            self.step(&active, Event::End { cause: Cause::Execution(status) });
        }
        for child in started.iter().filter(|child| follows(child)) {
            self.step(child, Event::End { cause: Cause::Parent });
        }
    }

    /// Asks how an execution is doing of which a task is over.
    async fn look_after(self: &Arc<Self>, execution: &ExecutionArn) {
        let others = {
            let registry = self.registry();
            let started = registry.started_by(execution);
            registry.of(execution).iter().chain(&started).any(|active| active.phase() == "open")
        };
        for _ in 0..if others { AFTER_A_TASK } else { 0 } {
            match self.describe(execution).await {
                Ok(Some(Cause::Execution(status))) => return self.execution_over(execution, status),
                // The budget is used up, or the platform does not answer: a little later, then.
                Err(failure) if failure.class == Class::Transient => {
                    let wait = failure.retry_after.unwrap_or(LATER).clamp(LATER, LATER * 8);
                    tokio::time::sleep(wait).await;
                }
                Ok(_) | Err(_) => return,
            }
        }
    }

    fn ask(self: &Arc<Self>, active: &Arc<Active>, question: Question) {
        let (runs, active) = (Arc::clone(self), Arc::clone(active));
        let call = match question {
            Question::Heartbeat => "heartbeat",
            Question::Describe => "describe",
        };
        // There may be a thousand a second, and what goes wrong names its run.
        let span = tracing::debug_span!("upstream", call, of = "execution", run = %active.run.id);
        let asked = async move {
            let answer = match question {
                Question::Heartbeat => runs.beat(&active).await,
                Question::Describe => match &active.run.execution {
                    Some(execution) => runs.describe(execution).await,
                    None => Ok(None),
                },
            };
            if let Err(failure) = &answer
                && failure.class != Class::Transient
            {
                tracing::warn!(run = %active.run.id, "the platform is not asked about this run any more: {failure}");
            }
            runs.step(&active, Event::Answered { answer, roll: backoff::roll() });
        };
        self.common.supervisor.spawn("run watch", asked.instrument(span));
    }

    async fn beat(&self, active: &Active) -> Result<Option<Cause>, Failure> {
        let (Some(workflow), Some(token)) = (&self.common.workflow, &active.task_token) else {
            return Ok(None);
        };
        Ok(match workflow.heartbeat(token).await? {
            Beat::Alive => None,
            Beat::TimedOut => Some(Cause::TaskTimedOut),
            Beat::Gone | Beat::Invalid => Some(Cause::TaskGone),
        })
    }

    async fn describe(&self, execution: &ExecutionArn) -> Result<Option<Cause>, Failure> {
        let Some(workflow) = &self.common.workflow else { return Ok(None) };
        self.common.within_budget(&self.budget)?;
        let described = workflow.describe(execution).await;
        let status = self.common.counted(&self.budget, described)?;
        Ok(status.filter(|status| !status.is_live()).map(Cause::Execution))
    }
}

/// When to look at a run that has a question due at `at`: with all others that have one due by then.
fn together(at: Duration) -> Duration {
    let slice = TOGETHER.as_nanos();
    let end = at.as_nanos().div_ceil(slice) * slice;
    u64::try_from(end).map_or(at, Duration::from_nanos)
}

/// Whether a run ends with what started it.
fn follows(active: &Active) -> bool {
    active.rule.as_ref().is_none_or(|rule| rule.ends_with_parent)
}

async fn sleep(wait: Option<Duration>) {
    match wait {
        Some(wait) => tokio::time::sleep(wait).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_of_the_same_moment_are_looked_at_together_and_none_too_early() {
        let millis = Duration::from_millis;
        for (at, looked) in [(0, 0), (1, 20), (19, 20), (20, 20), (21, 40), (10_001, 10_020)] {
            assert_eq!(together(millis(at)), millis(looked), "{at} ms");
        }
        assert_eq!(together(Duration::MAX), Duration::MAX);
    }
}
