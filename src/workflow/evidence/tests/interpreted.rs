//! An interpreter of state machines that are made up as it goes: it writes histories in the way that Step Functions does,
//! and knows what is really under way.

use super::*;

/// An execution, and what is left of the choices that make it.
struct Execution<'c> {
    events: Vec<Event>,
    choices: std::slice::Iter<'c, u8>,
}

/// States one after the other: the execution itself, a branch, an iteration.
struct Thread {
    /// The event that the next one comes after.
    tip: i64,
    at: Option<At>,
    /// States that are still to come.
    left: usize,
    done: bool,
}

enum At {
    Task { name: &'static str, entered: i64, ours: bool, phase: Phase },
    Scope { name: &'static str, holds: Holds, threads: Vec<Thread> },
}

#[derive(Clone, Copy, PartialEq)]
enum Phase {
    Idle,
    Scheduled,
    Submitted,
}

enum Went {
    On,
    Done,
    Failed,
}

impl Execution<'_> {
    fn choose(&mut self, of: usize) -> usize {
        self.choices.next().map_or(0, |choice| usize::from(*choice) % of)
    }

    fn emit(&mut self, previous: i64, kind: Kind) -> i64 {
        let id = i64::try_from(self.events.len()).expect("few") + 1;
        self.events.push(Event { id, previous, kind });
        id
    }

    fn thread(&mut self, tip: i64) -> Thread {
        Thread { tip, at: None, left: 1 + self.choose(2), done: false }
    }

    fn attempt(&mut self, previous: i64, holds: Holds) -> Vec<Thread> {
        let started = self.emit(previous, Kind::Started(holds));
        (0..2)
            .map(|_| {
                let tip =
                    if holds == Holds::Map { self.emit(started, Kind::IterationStarted) } else { started };
                self.thread(tip)
            })
            .collect()
    }

    fn enter(&mut self, thread: &mut Thread, depth: usize) {
        let choice = self.choose(4);
        if depth < 2 && choice > 1 {
            let holds = if choice == 2 { Holds::Map } else { Holds::Parallel };
            let name = ["Outer", "Inner"][depth];
            thread.tip = self.emit(thread.tip, holding(name, holds));
            let threads = self.attempt(thread.tip, holds);
            thread.at = Some(At::Scope { name, holds, threads });
        } else {
            let name = ["Ship", "Pack"][choice % 2];
            thread.tip = self.emit(thread.tip, entered(name));
            thread.at =
                Some(At::Task { name, entered: thread.tip, ours: self.choose(2) == 1, phase: Phase::Idle });
        }
    }

    fn leave(&mut self, thread: &mut Thread, previous: i64, name: &'static str) {
        thread.tip = self.emit(previous, exited(name));
        thread.at = None;
    }

    fn step(&mut self, thread: &mut Thread, depth: usize) -> Went {
        match thread.at.take() {
            None if thread.left == 0 => {
                thread.done = true;
                Went::Done
            }
            None => {
                thread.left -= 1;
                self.enter(thread, depth);
                Went::On
            }
            Some(At::Task { name, entered, ours, phase }) => {
                let (phase, went) = match (phase, self.choose(3)) {
                    (Phase::Idle, _) => {
                        thread.tip = self.emit(thread.tip, scheduled(if ours { TOKEN } else { "x" }));
                        (Phase::Scheduled, Went::On)
                    }
                    (Phase::Scheduled, 0 | 1) => {
                        thread.tip = self.emit(thread.tip, submitted(if ours { OURS } else { "y" }));
                        (Phase::Submitted, Went::On)
                    }
                    (Phase::Submitted, 0) => (phase, Went::On),
                    (Phase::Submitted, 1) => {
                        let ended = self.emit(thread.tip, Kind::Ended);
                        self.leave(thread, ended, name);
                        return Went::On;
                    }
                    _ => {
                        thread.tip = self.emit(thread.tip, Kind::Ended);
                        match self.choose(3) {
                            0 => (Phase::Idle, Went::On),
                            1 => {
                                self.leave(thread, thread.tip, name);
                                return Went::On;
                            }
                            _ => {
                                if self.choose(2) == 1 {
                                    self.emit(thread.tip, Kind::StateAborted);
                                }
                                (Phase::Idle, Went::Failed)
                            }
                        }
                    }
                };
                thread.at = Some(At::Task { name, entered, ours, phase });
                went
            }
            Some(At::Scope { name, holds, threads }) => self.step_within(thread, depth, name, holds, threads),
        }
    }

    fn step_within(
        &mut self,
        thread: &mut Thread,
        depth: usize,
        name: &'static str,
        holds: Holds,
        mut threads: Vec<Thread>,
    ) -> Went {
        let which = self.choose(threads.len());
        let which = if threads[which].done { 1 - which } else { which };
        let went = self.step(&mut threads[which], depth + 1);
        let mut tip = threads[which].tip;
        let is_map = holds == Holds::Map;
        match went {
            Went::On => {}
            Went::Done => {
                if is_map {
                    tip = self.emit(tip, Kind::IterationSucceeded);
                }
                if threads.iter().all(|thread| thread.done) {
                    let succeeded = self.emit(tip, Kind::Succeeded(holds));
                    let previous = [tip, succeeded][self.choose(2)];
                    self.leave(thread, previous, name);
                    return Went::On;
                }
            }
            Went::Failed => {
                let other = &threads[1 - which];
                if matches!(other.at, Some(At::Task { .. })) && self.choose(2) == 1 {
                    self.emit(other.tip, Kind::StateAborted);
                }
                if is_map {
                    self.emit(tip, Kind::IterationFailed);
                }
                match self.choose(3) {
                    0 => threads = self.attempt(tip, holds),
                    1 => {
                        let failed = self.emit(tip, Kind::Failed(holds));
                        let previous = [tip, failed][self.choose(2)];
                        self.leave(thread, previous, name);
                        return Went::On;
                    }
                    _ => {
                        let failed = self.emit(tip, Kind::Failed(holds));
                        thread.tip = [tip, failed][self.choose(2)];
                        thread.at = Some(At::Scope { name, holds, threads });
                        return Went::Failed;
                    }
                }
            }
        }
        thread.at = Some(At::Scope { name, holds, threads });
        Went::On
    }
}

/// What failed or was stopped is begun again from where its states were entered.
fn revive(thread: &mut Thread) {
    match &mut thread.at {
        Some(At::Task { entered, phase, .. }) => {
            thread.tip = *entered;
            *phase = Phase::Idle;
        }
        Some(At::Scope { threads, .. }) => threads.iter_mut().filter(|thread| !thread.done).for_each(revive),
        None => {}
    }
}

/// In progress, runs our task, was given our token.
fn truth(thread: &Thread, said: &mut Said) {
    match &thread.at {
        Some(At::Task { name: "Ship", ours, phase, .. }) if *phase != Phase::Idle => {
            said.0 = true;
            said.1 |= *ours && *phase == Phase::Submitted;
            said.2 |= *ours;
        }
        Some(At::Scope { threads, .. }) => threads.iter().for_each(|thread| truth(thread, said)),
        _ => {}
    }
}

/// The history that the choices make, and what is under way at its end.
fn execute(choices: &[u8]) -> (Vec<Event>, Said) {
    let mut execution = Execution { events: Vec::new(), choices: choices.iter() };
    execution.emit(0, Kind::Other);
    let mut main = Thread { tip: 0, at: None, left: 3, done: false };
    while !execution.choices.as_slice().is_empty() {
        let over = match execution.step(&mut main, 0) {
            // At times somebody stops it.
            Went::On if execution.choose(64) == 63 => {
                execution.emit(0, Kind::ExecutionEnded);
                true
            }
            Went::On => false,
            Went::Done => {
                execution.emit(main.tip, Kind::ExecutionEnded);
                return (execution.events, NOTHING);
            }
            Went::Failed => {
                execution.emit(main.tip, Kind::ExecutionEnded);
                true
            }
        };
        if over {
            if execution.choose(2) == 0 {
                return (execution.events, NOTHING);
            }
            let ended = i64::try_from(execution.events.len()).expect("few");
            execution.emit(ended, Kind::Redriven);
            revive(&mut main);
        }
    }
    let mut said = NOTHING;
    truth(&main, &mut said);
    (execution.events, said)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_history_says_what_is_under_way_and_its_newest_part_no_more(
        choices in proptest::collection::vec(any::<u8>(), 0..150),
    ) {
        let (events, expected) = execute(&choices);
        prop_assert_eq!(judge(&events, "Ship"), expected, "{:#?}", events);
        for cut in 1..events.len() {
            let (in_progress, names_task, names_token) = judge(&events[cut..], "Ship");
            prop_assert!(in_progress <= expected.0, "from {cut} on: {events:#?}");
            prop_assert!(names_task <= expected.1, "from {cut} on: {events:#?}");
            prop_assert!(names_token <= expected.2, "from {cut} on: {events:#?}");
        }
    }
}

#[test]
fn the_interpreter_makes_what_it_is_to_make() {
    let mut seen = [0; 4];
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let choices = proptest::collection::vec(any::<u8>(), 150);
    for _ in 0..500 {
        use proptest::strategy::ValueTree as _;
        let choices = choices.new_tree(&mut runner).expect("choices").current();
        let length = usize::from(choices[0]) % 150;
        let (events, said) = execute(&choices[..length]);
        let has = |sought: fn(&Kind) -> bool| events.iter().any(|event| sought(&event.kind));
        seen[0] += usize::from(said == ALL);
        seen[1] += usize::from(has(|kind| matches!(kind, Kind::Redriven)) && said != NOTHING);
        seen[2] += usize::from(has(|kind| matches!(kind, Kind::Failed(Holds::Map))));
        seen[3] += usize::from(events.len() > 30);
    }
    assert!(seen.iter().all(|count| *count > 10), "{seen:?}");
}
