//! The life of a run, pure: no runtime, no I/O, no clock of its own.
//!
//! ```text
//!   Open ── deadline, end, a platform that says so ──▶ Closing ── its token is revoked ──▶ Over
//!    └── one question to the platform at a time: a heartbeat of its task, or how its execution is doing
//! ```
//!
//! A run's token and its leases have lives of their own ([`crate::lease::state`]); this one says when they must end.

use std::fmt;
use std::time::Duration;

use crate::backoff::Backoff;
use crate::clock::{Moment, Until};
use crate::lease::failure::{Class, Failure};
use crate::run::workflow::ExecutionStatus;

/// Why a run is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Who registered it, or it itself, said so.
    Ended,
    /// Its deadline has passed.
    Deadline,
    /// Step Functions answered a heartbeat with `TaskTimedOut`: the task took too long, or its execution was stopped.
    TaskTimedOut,
    /// Step Functions does not know its task any more.
    TaskGone,
    /// Its execution is over.
    Execution(ExecutionStatus),
    /// The run or the execution that started it is over.
    Parent,
    /// The broker stops.
    Shutdown,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended => f.write_str("it was ended"),
            Self::Deadline => f.write_str("its deadline has passed"),
            Self::TaskTimedOut => {
                f.write_str("Step Functions says TaskTimedOut: its task timed out, or was stopped")
            }
            Self::TaskGone => f.write_str("Step Functions does not know its task any more"),
            Self::Execution(status) => write!(f, "its execution is over: {}", status.word()),
            Self::Parent => f.write_str("the run or execution that started it is over"),
            Self::Shutdown => f.write_str("the broker stops"),
        }
    }
}

/// How the platform is asked whether the run goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// A heartbeat of its task.
    Heartbeat,
    /// How its execution is doing.
    Describe,
}

/// What happened.
#[derive(Debug)]
pub(super) enum Event {
    /// Time has passed, or the clock jumped.
    Tick,
    /// It may go on until then; the ceiling is kept.
    Extend {
        /// From now on.
        to: Until,
    },
    /// It is to end.
    End {
        /// Why.
        cause: Cause,
    },
    /// Its token is revoked, or ended by itself.
    Closed,
    /// The platform answered; `None` if that says nothing.
    Answered {
        /// Why the run is over, if it is; or why there was no answer.
        answer: Result<Option<Cause>, Failure>,
        /// The jitter's sample, in `[0, 1)`.
        roll: f64,
    },
}

/// What to do now. At most one question is under way: exactly one [`Event::Answered`] answers each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// Ask the platform.
    Ask(Question),
    /// Revoke its token, then say [`Event::Closed`].
    Close,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    Closing { cause: Cause },
    Over { cause: Cause },
}

#[derive(Clone, Copy, Debug)]
struct Watching {
    question: Question,
    every: Duration,
    due: Until,
    asking: bool,
    attempt: u32,
}

/// One run's life.
#[derive(Debug)]
pub(super) struct Life {
    phase: Phase,
    deadline: Option<Until>,
    /// No extension goes beyond it.
    ceiling: Option<Until>,
    watching: Option<Watching>,
}

impl Life {
    /// A run that begins at `now`. It is over at `deadline` and can be extended up to `ceiling`.
    pub(super) fn new(deadline: Option<Until>, ceiling: Option<Until>) -> Self {
        Self { phase: Phase::Open, deadline, ceiling, watching: None }
    }

    /// From now on the platform is asked about it, about every so often.
    pub(super) fn watch(&mut self, question: Question, every: Duration, roll: f64, now: Moment) {
        let due = Until::new(now, spread(every, roll));
        self.watching = Some(Watching { question, every, due, asking: false, attempt: 0 });
    }

    /// When it must be over.
    pub(super) fn deadline(&self) -> Option<Until> {
        self.deadline
    }

    /// Why it is over at `now`, if it is; its token may still have to be revoked.
    pub(super) fn cause(&self, now: Moment) -> Option<Cause> {
        match self.phase {
            Phase::Closing { cause } | Phase::Over { cause } => Some(cause),
            Phase::Open => self.deadline.filter(|deadline| deadline.is_over(now)).map(|_| Cause::Deadline),
        }
    }

    /// The phase, in a word.
    pub(super) fn word(&self) -> &'static str {
        match self.phase {
            Phase::Open => "open",
            Phase::Closing { .. } => "closing",
            Phase::Over { .. } => "over",
        }
    }

    /// Takes in what happened at `now` and returns what to do, if anything.
    pub(super) fn step(&mut self, event: Event, now: Moment) -> Option<Act> {
        match event {
            Event::Tick => {}
            Event::Extend { to } => self.extend(to, now),
            Event::End { cause } => return self.close(cause),
            Event::Closed => {
                if let Phase::Closing { cause } = self.phase {
                    self.phase = Phase::Over { cause };
                }
                return None;
            }
            Event::Answered { answer, roll } => {
                if let Some(cause) = self.answered(answer, roll, now) {
                    return self.close(cause);
                }
            }
        }
        match self.phase {
            Phase::Open if self.cause(now).is_some() => self.close(Cause::Deadline),
            Phase::Open => self.ask(now),
            Phase::Closing { .. } | Phase::Over { .. } => None,
        }
    }

    /// How long until time alone makes something happen; `None`: never.
    pub(super) fn wake_in(&self, now: Moment) -> Option<Duration> {
        match self.phase {
            Phase::Open => {
                let deadline = self.deadline.map(|deadline| deadline.left(now));
                let question =
                    self.watching.filter(|watching| !watching.asking).map(|watching| watching.due.left(now));
                deadline.into_iter().chain(question).min()
            }
            Phase::Closing { .. } | Phase::Over { .. } => None,
        }
    }

    fn close(&mut self, cause: Cause) -> Option<Act> {
        if self.phase != Phase::Open {
            return None;
        }
        self.phase = Phase::Closing { cause };
        Some(Act::Close)
    }

    fn extend(&mut self, to: Until, now: Moment) {
        let Some(deadline) = self.deadline.filter(|_| self.cause(now).is_none()) else { return };
        let capped = match self.ceiling {
            Some(ceiling) if ceiling.left(now) < to.left(now) => ceiling,
            _ => to,
        };
        if capped.left(now) > deadline.left(now) {
            self.deadline = Some(capped);
        }
    }

    fn ask(&mut self, now: Moment) -> Option<Act> {
        let watching =
            self.watching.as_mut().filter(|watching| !watching.asking && watching.due.is_over(now))?;
        watching.asking = true;
        Some(Act::Ask(watching.question))
    }

    fn answered(&mut self, answer: Result<Option<Cause>, Failure>, roll: f64, now: Moment) -> Option<Cause> {
        let watching = self.watching.as_mut()?;
        watching.asking = false;
        match answer {
            Ok(cause) => {
                watching.attempt = 0;
                watching.due = Until::new(now, spread(watching.every, roll));
                cause
            }
            Err(failure) if matches!(failure.class, Class::Transient) => {
                watching.attempt = watching.attempt.saturating_add(1);
                // An answer that does not come is no reason to ask more often.
                let delay = Backoff::UPSTREAM.delay(watching.attempt, failure.retry_after, roll);
                watching.due = Until::new(now, delay.max(spread(watching.every, roll)));
                None
            }
            Err(_) => {
                // It will never answer: it may not be asked.
                self.watching = None;
                None
            }
        }
    }
}

/// About so long: a tenth less or more, so that runs that began together are not asked about together.
fn spread(every: Duration, roll: f64) -> Duration {
    every.mul_f64(0.9 + 0.2 * roll)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Moment = Moment::new(Duration::from_secs(1), Duration::from_secs(1_800_000_000));

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn a_deadline_closes_it_once() {
        let mut life = Life::new(Some(Until::new(START, secs(60))), None);
        assert_eq!(life.step(Event::Tick, START), None);
        assert_eq!(life.wake_in(START), Some(secs(60)));
        let end = START.plus(secs(60));
        assert_eq!(life.cause(end), Some(Cause::Deadline), "over before anybody looked");
        assert_eq!(life.step(Event::Tick, end), Some(Act::Close));
        assert_eq!(life.step(Event::Tick, end), None);
        assert_eq!(life.step(Event::End { cause: Cause::Ended }, end), None, "it ends once, for one cause");
        life.step(Event::Closed, end);
        assert_eq!((life.word(), life.cause(end)), ("over", Some(Cause::Deadline)));
        assert_eq!((life.step(Event::Tick, end), life.wake_in(end)), (None, None));
    }

    #[test]
    fn an_extension_keeps_the_ceiling_and_never_shortens() {
        let until = |secs_| Until::new(START, secs(secs_));
        let mut life = Life::new(Some(until(60)), Some(until(100)));
        for (to, then) in [(90, 90), (30, 90), (500, 100)] {
            life.step(Event::Extend { to: until(to) }, START);
            assert_eq!(life.deadline(), Some(until(then)));
        }
        let end = START.plus(secs(100));
        life.step(Event::Extend { to: Until::new(end, secs(60)) }, end);
        assert_eq!(life.cause(end), Some(Cause::Deadline), "what is over is not taken up again");
    }

    #[test]
    fn the_platform_is_asked_again_and_again_until_it_says_no() {
        let mut life = Life::new(None, None);
        life.watch(Question::Heartbeat, secs(10), 0.5, START);
        let mut now = START;
        for _ in 0..3 {
            now = now.plus(life.wake_in(now).expect("a question"));
            assert_eq!(life.step(Event::Tick, now), Some(Act::Ask(Question::Heartbeat)));
            assert_eq!((life.step(Event::Tick, now), life.wake_in(now)), (None, None), "one at a time");
            life.step(Event::Answered { answer: Ok(None), roll: 0.5 }, now);
        }
        now = now.plus(secs(10));
        life.step(Event::Tick, now);
        let gone = Event::Answered { answer: Ok(Some(Cause::TaskTimedOut)), roll: 0.5 };
        assert_eq!(life.step(gone, now), Some(Act::Close));
    }

    #[test]
    fn who_may_not_ask_stops_asking() {
        let mut life = Life::new(None, None);
        life.watch(Question::Describe, secs(10), 0.0, START);
        let now = START.plus(secs(9));
        assert_eq!(life.step(Event::Tick, now), Some(Act::Ask(Question::Describe)));
        let answer = Err(Failure::new(Class::Denied, "AccessDenied"));
        assert_eq!(life.step(Event::Answered { answer, roll: 0.0 }, now), None);
        assert_eq!(life.wake_in(now), None);
    }

    proptest! {
        #[test]
        fn it_closes_once_asks_one_thing_at_a_time_and_is_never_open_past_its_deadline(
            ops in prop::collection::vec((0u8..8, any::<u16>()), 1..80),
            deadline in prop::option::of(1u64..2_000),
            ceiling in prop::option::of(1u64..4_000),
        ) {
            let until = |secs_: u64| Until::new(START, secs(secs_));
            let ceiling = ceiling.map(|more| until(deadline.unwrap_or(0) + more));
            let mut life = Life::new(deadline.map(until), ceiling);
            life.watch(Question::Heartbeat, secs(10), 0.3, START);
            let (mut now, mut asking, mut closes, mut last_asked) = (START, false, 0, None);
            for (op, arg) in ops {
                let roll = f64::from(arg) / 65_536.0;
                let event = match op {
                    0..=2 => {
                        now = now.plus(match arg % 3 {
                            0 => life.wake_in(now).unwrap_or(secs(1)),
                            _ => Duration::from_millis(u64::from(arg)),
                        });
                        Event::Tick
                    }
                    3 => Event::Extend { to: Until::new(now, secs(u64::from(arg % 5_000))) },
                    4 if arg % 8 == 0 => Event::End { cause: Cause::Ended },
                    5 if life.word() == "closing" => Event::Closed,
                    6 | 7 if asking => {
                        asking = false;
                        Event::Answered {
                            answer: match arg % 5 {
                                0 => Ok(Some(Cause::TaskGone)),
                                1 => Err(Failure::new(Class::Transient, "no")),
                                _ => Ok(None),
                            },
                            roll,
                        }
                    }
                    _ => Event::Tick,
                };
                match life.step(event, now) {
                    Some(Act::Ask(_)) => {
                        prop_assert!(!asking && closes == 0);
                        if let Some(last) = last_asked {
                            prop_assert!(now.since(last) >= secs(9), "asked again too soon");
                        }
                        asking = true;
                        last_asked = Some(now);
                    }
                    Some(Act::Close) => closes += 1,
                    None => {}
                }
                let late = life.deadline().is_some_and(|deadline| deadline.is_over(now));
                prop_assert!(!late || life.word() != "open", "open past its deadline");
                prop_assert!(closes <= 1);
                if let (Some(ceiling), Some(deadline)) = (ceiling, life.deadline()) {
                    prop_assert!(deadline.end().wall() <= ceiling.end().wall());
                }
                if let Some(wake) = life.wake_in(now).filter(|_| life.word() == "open") {
                    prop_assert!(!wake.is_zero(), "it would spin");
                }
            }
        }
    }
}
