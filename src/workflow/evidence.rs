//! What an execution's history says to a claim: a pure function over its events.
//!
//! A history is a tree written down as a list: an event names the one that it came after (`previousEventId`), and what
//! runs at once (the branches of a Parallel, the iterations of a Map) are chains that part at the state's `…Started`.
//! The events are gone over once, in the order of their ids, and each is given the frame that it stands in: this task,
//! of this state, of this iteration, of this attempt at a Map. What was opened and not closed, up to the root, is under
//! way.
//!
//! Some of what histories do is not in the reference
//! (<https://docs.aws.amazon.com/step-functions/latest/apireference/API_HistoryEvent.html>):
//!
//! - The first state is entered after event 0, not after `ExecutionStarted`.
//! - A state that is tried again is not entered again. For a Task, a new `TaskScheduled` comes after the `TaskFailed`; for
//!   a Parallel or a Map, a new `…StateStarted` comes after the last event of the branch that failed, with no
//!   `…StateFailed` before it.
//! - `MapIterationFailed`, `…StateSucceeded` and `…StateFailed` may be passed by: what follows names the event before.
//! - What is redriven begins with a new `TaskScheduled` after the original `TaskStateEntered`.
//!
//! The list may be only the newest part of a history: that never says more than the whole would.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use zeroize::Zeroizing;

use crate::run::workflow::{Claim, Evidence};
use crate::secret::Credential;

/// One event, as far as it matters here.
#[derive(Clone, Debug)]
pub(super) struct Event {
    /// 1 is the oldest.
    pub(super) id: i64,
    /// The event that it came after; 0: none.
    pub(super) previous: i64,
    pub(super) kind: Kind,
}

/// What happened.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    /// A state was entered.
    Entered { name: String, holds: Holds },
    /// A state was left, by its end or by a `Catch`.
    Exited { name: String },
    /// `TaskStateAborted`, `WaitStateAborted`: the state that the event stands in is over.
    StateAborted,
    /// `ParallelStateStarted`, `MapStateStarted`: the first attempt at one that was entered, or the next.
    Started(Holds),
    /// `ParallelStateSucceeded`, `MapStateSucceeded`.
    Succeeded(Holds),
    /// `ParallelState…` and `MapState…`, `Failed` and `Aborted`: it will not be tried again.
    Failed(Holds),
    /// `MapIterationStarted`.
    IterationStarted,
    /// `MapIterationSucceeded`.
    IterationSucceeded,
    /// `MapIterationFailed`, `MapIterationAborted`.
    IterationFailed,
    /// `TaskScheduled`, `ActivityScheduled`, `LambdaFunctionScheduled`; with what it was given, which is not told of an
    /// activity's.
    Scheduled { parameters: Option<Payload> },
    /// `TaskSubmitted`; with what `ecs:runTask` answered, if it was that.
    Submitted { ecs: Option<Payload> },
    /// A task succeeded, failed, timed out, or could not be started.
    Ended,
    /// The execution is over, however.
    ExecutionEnded,
    /// The execution was taken up again.
    Redriven,
    /// Nothing that opens or closes anything.
    Other,
}

/// What a state holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holds {
    /// At most one task at a time.
    Task,
    /// Branches.
    Parallel,
    /// Iterations.
    Map,
}

/// JSON out of a history. It may hold anything that the workload was given: it is wiped, and not printed.
#[derive(Clone)]
pub(super) struct Payload(Zeroizing<String>);

impl Payload {
    pub(super) fn new(json: String) -> Self {
        Self(Zeroizing::new(json))
    }

    /// Whether one of its string values, at any depth, is that token and nothing else.
    fn holds(&self, token: &Credential) -> bool {
        let mut json = serde_json::Deserializer::from_str(&self.0);
        let found = Sought(token).deserialize(&mut json);
        found.is_ok_and(|found| found && json.end().is_ok())
    }

    /// Whether it is `ecs:runTask`'s answer that it started that task.
    fn started(&self, task: &str) -> bool {
        #[derive(Deserialize)]
        struct Answer {
            #[serde(rename = "Tasks")]
            tasks: Vec<Task>,
        }
        #[derive(Deserialize)]
        struct Task {
            #[serde(rename = "TaskArn")]
            arn: String,
        }
        serde_json::from_str::<Answer>(&self.0)
            .is_ok_and(|answer| answer.tasks.iter().any(|started| started.arn == task))
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Payload(…)")
    }
}

/// Looks for a token among JSON's values as they are read, so that no copy of them is left behind.
#[derive(Clone, Copy)]
struct Sought<'a>(&'a Credential);

impl<'de> DeserializeSeed<'de> for Sought<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<bool, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Sought<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_str<E>(self, text: &str) -> Result<bool, E> {
        Ok(self.0.matches(text.as_bytes()))
    }

    fn visit_bool<E>(self, _: bool) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_i64<E>(self, _: i64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_u64<E>(self, _: u64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_f64<E>(self, _: f64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<bool, A::Error> {
        let mut found = false;
        while let Some(here) = values.next_element_seed(self)? {
            found |= here;
        }
        Ok(found)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<bool, A::Error> {
        let mut found = false;
        while members.next_key::<IgnoredAny>()?.is_some() {
            found |= members.next_value_seed(self)?;
        }
        Ok(found)
    }
}

/// What `events`, in any order, say to `claim`.
pub(super) fn evidence<'e>(events: impl IntoIterator<Item = &'e Event>, claim: &Claim<'_>) -> Evidence {
    let ordered: BTreeMap<i64, &Event> = events.into_iter().map(|event| (event.id, event)).collect();
    let mut tree = Tree::new();
    for event in ordered.values() {
        tree.grow(event);
    }
    let mut evidence = Evidence::default();
    for at in 0..tree.frames.len() {
        let What::Task { parameters, ecs } = &tree.frames[at].what else { continue };
        let of_state = tree.frames[at].parent.is_some_and(|state| tree.frames[state].is_state(claim.state));
        if !of_state || !tree.is_under_way(at) {
            continue;
        }
        evidence.in_progress = true;
        evidence.of_activity |= parameters.is_none();
        evidence.names_task |=
            claim.task_arn.is_some_and(|arn| ecs.is_some_and(|answer| answer.started(arn)));
        evidence.names_token |=
            claim.task_token.is_some_and(|token| parameters.is_some_and(|given| given.holds(token)));
    }
    evidence
}

/// The frame that everything stands in.
const ROOT: usize = 0;

/// Stands for all frames that were opened by events that are not in the list.
const LOST: usize = 1;

struct Tree<'e> {
    frames: Vec<Frame<'e>>,
    /// The frame that an event leaves its followers in.
    left_in: HashMap<i64, usize>,
    /// The last end of the execution: no task from before it is under way.
    ended: i64,
    /// The last failure of something that is not in the list: whatever hung from outside of the list before it may have
    /// been part of that.
    lost: i64,
}

struct Frame<'e> {
    /// None: it is the root, or lost.
    parent: Option<usize>,
    id: i64,
    what: What<'e>,
    closed: Option<Closed>,
    /// The attempt at it, or its task, that is the newest.
    newest: Option<usize>,
}

enum What<'e> {
    Outside,
    State {
        name: &'e str,
        holds: Holds,
    },
    /// Of a Parallel or a Map.
    Attempt,
    Iteration,
    Task {
        parameters: Option<&'e Payload>,
        ecs: Option<&'e Payload>,
    },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Closed {
    ForGood,
    /// By a failure, which a redrive undoes.
    Failed,
}

impl Frame<'_> {
    fn is_state(&self, sought: &str) -> bool {
        matches!(self.what, What::State { name, .. } if name == sought)
    }

    /// Whether it is a state that holds that, and was not closed.
    fn is_open(&self, sought: Holds) -> bool {
        self.closed.is_none() && matches!(self.what, What::State { holds, .. } if holds == sought)
    }
}

impl<'e> Tree<'e> {
    fn new() -> Self {
        let outside = || Frame { parent: None, id: 0, what: What::Outside, closed: None, newest: None };
        Self { frames: vec![outside(), outside()], left_in: HashMap::new(), ended: 0, lost: 0 }
    }

    fn grow(&mut self, event: &'e Event) {
        let id = event.id;
        let here = match event.previous {
            0 => ROOT,
            previous => self.left_in.get(&previous).copied().unwrap_or(LOST),
        };
        let left_in = match &event.kind {
            Kind::Entered { name, holds } => {
                // One state follows another; one that was never left is over all the same.
                if let Some(before) = self.state(here) {
                    self.close(before, Closed::ForGood);
                }
                let scope = self.nearest(here, |frame| matches!(frame.what, What::Attempt | What::Iteration));
                self.open(scope, id, What::State { name, holds: *holds })
            }
            Kind::Exited { name } => {
                let state =
                    self.nearest(here, |frame| frame.is_state(name) && frame.closed != Some(Closed::ForGood));
                self.close(state, Closed::ForGood);
                self.outer(state)
            }
            Kind::StateAborted => {
                if let Some(state) = self.state(here) {
                    self.close(state, Closed::Failed);
                }
                here
            }
            Kind::Started(holds) => {
                let state = self.nearest(here, |frame| frame.is_open(*holds));
                if state == LOST {
                    self.lost = id;
                }
                self.replace(state, id, What::Attempt)
            }
            Kind::Succeeded(holds) => {
                let state = self.nearest(here, |frame| frame.is_open(*holds));
                if let Some(attempt) = self.frames[state].newest {
                    self.close(attempt, Closed::ForGood);
                }
                state
            }
            Kind::Failed(holds) => {
                let state = self.nearest(here, |frame| frame.is_open(*holds));
                self.fail(state, id)
            }
            Kind::IterationStarted => {
                let attempt =
                    self.nearest(here, |frame| frame.closed.is_none() && matches!(frame.what, What::Attempt));
                self.open(attempt, id, What::Iteration)
            }
            Kind::IterationSucceeded => {
                let iteration = self.iteration(here);
                self.close(iteration, Closed::ForGood);
                self.outer(iteration)
            }
            Kind::IterationFailed => {
                let iteration = self.iteration(here);
                let iteration = self.fail(iteration, id);
                self.outer(iteration)
            }
            Kind::Scheduled { parameters } => match self.state(here) {
                Some(state) => {
                    self.replace(state, id, What::Task { parameters: parameters.as_ref(), ecs: None })
                }
                None => here,
            },
            Kind::Submitted { ecs: answer } => {
                if let What::Task { ecs, .. } = &mut self.frames[here].what {
                    *ecs = answer.as_ref();
                }
                here
            }
            Kind::Ended if matches!(self.frames[here].what, What::Task { .. }) => {
                self.close(here, Closed::ForGood);
                self.outer(here)
            }
            Kind::ExecutionEnded => {
                self.ended = id;
                here
            }
            Kind::Redriven => {
                self.lost = 0;
                for frame in &mut self.frames {
                    frame.closed = frame.closed.filter(|closed| *closed == Closed::ForGood);
                }
                here
            }
            Kind::Ended | Kind::Other => here,
        };
        self.left_in.insert(id, left_in);
    }

    /// The nearest frame from `at` outwards that is it; else the root, or what is lost.
    fn nearest(&self, mut at: usize, is: impl Fn(&Frame<'_>) -> bool) -> usize {
        while let Some(parent) = self.frames[at].parent {
            if is(&self.frames[at]) {
                return at;
            }
            at = parent;
        }
        at
    }

    /// The state that what stands at `at` is directly a part of.
    fn state(&self, at: usize) -> Option<usize> {
        let at = if matches!(self.frames[at].what, What::Task { .. }) { self.outer(at) } else { at };
        matches!(self.frames[at].what, What::State { .. }).then_some(at)
    }

    /// The iteration around `at` that is not over: those within it that have failed are passed by.
    fn iteration(&self, at: usize) -> usize {
        self.nearest(at, |frame| frame.closed.is_none() && matches!(frame.what, What::Iteration))
    }

    fn outer(&self, at: usize) -> usize {
        self.frames[at].parent.unwrap_or(at)
    }

    fn open(&mut self, parent: usize, id: i64, what: What<'e>) -> usize {
        self.frames.push(Frame { parent: Some(parent), id, what, closed: None, newest: None });
        self.frames.len() - 1
    }

    /// Opens one that takes the place of the one before.
    fn replace(&mut self, parent: usize, id: i64, what: What<'e>) -> usize {
        if let Some(before) = self.frames[parent].newest {
            self.close(before, Closed::ForGood);
        }
        let frame = self.open(parent, id, what);
        // What is lost may be many: one does not take another's place.
        if self.frames[parent].parent.is_some() {
            self.frames[parent].newest = Some(frame);
        }
        frame
    }

    fn close(&mut self, at: usize, how: Closed) {
        let frame = &mut self.frames[at];
        if frame.parent.is_some() && frame.closed != Some(Closed::ForGood) {
            frame.closed = Some(how);
        }
    }

    fn fail(&mut self, at: usize, id: i64) -> usize {
        if at == LOST {
            self.lost = id;
        }
        self.close(at, Closed::Failed);
        at
    }

    /// Whether a task was begun and not ended, and nothing around it was either.
    fn is_under_way(&self, task: usize) -> bool {
        let mut at = task;
        let mut outermost = task;
        while let Some(parent) = self.frames[at].parent {
            if self.frames[at].closed.is_some() {
                return false;
            }
            outermost = at;
            at = parent;
        }
        self.frames[task].id > self.ended && (at == ROOT || self.frames[outermost].id > self.lost)
    }
}

#[cfg(test)]
mod tests;
