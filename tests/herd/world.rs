//! Ten thousand brokers and one Vault, in simulated time: the same seed gives the same world.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use tenure::clock::Moment;
use tenure::lease::failure::{Class, Failure};

use crate::broker::{Broker, Which, Wish};
use crate::upstream::{Character, Fate, Upstream};

/// How long a broker waits for an answer: `vault.request_timeout` as it is by default.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The way to Vault, its work and the way back.
const SERVICE: (Duration, Duration) = (Duration::from_millis(4), Duration::from_millis(40));

/// SplitMix64 (Steele, Lea, Flood 2014): what jitter and luck are drawn from.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
        let share = (mixed >> 11) as f64 / (1u64 << 53) as f64;
        share
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Start,
    Wake(u8, u64),
    /// The answer to the call of this lease is here: 0 done, 1 refused, 2 lost.
    Answer(u8, u8),
    LosePatience(u64),
}

/// All of it.
pub(crate) struct World {
    pub(crate) brokers: Vec<Broker>,
    pub(crate) upstream: Upstream,
    /// When each renewal was admitted; in order.
    pub(crate) renewals: Vec<Duration>,
    /// Ordered by time, then by when it was planned.
    queue: BinaryHeap<Reverse<(Duration, u64, u32, What)>>,
    planned: u64,
    refusals: Vec<Option<Failure>>,
    dice: Dice,
    now: Duration,
}

impl World {
    /// `brokers` of them start within `start`.
    pub(crate) fn new(brokers: u32, start: Duration, character: Character, seed: u64) -> Self {
        let mut world = Self {
            brokers: (0..brokers).map(|_| Broker::new(moment(Duration::ZERO))).collect(),
            upstream: Upstream::new(character),
            renewals: Vec::new(),
            queue: BinaryHeap::new(),
            planned: 0,
            refusals: vec![None; brokers as usize * Which::ALL.len()],
            dice: Dice(seed),
            now: Duration::ZERO,
        };
        for broker in 0..brokers {
            let at = start.mul_f64(world.dice.roll());
            world.plan(at, broker, What::Start);
        }
        world
    }

    /// Lets time pass until `end`.
    pub(crate) fn run_until(&mut self, end: Duration) {
        let mut wishes = Vec::new();
        while let Some(Reverse((at, ..))) = self.queue.peek()
            && *at < end
        {
            let Some(Reverse((at, _, number, what))) = self.queue.pop() else { break };
            self.now = at;
            let now = moment(at);
            let broker = &mut self.brokers[number as usize];
            let mut rolls = || self.dice.roll();
            match what {
                What::Start => broker.start(now, &mut rolls, &mut wishes),
                What::Wake(which, alarm) => {
                    broker.wake(Which::ALL[usize::from(which)], alarm, now, &mut rolls, &mut wishes);
                }
                What::LosePatience(wait) => broker.lose_patience(wait, now, &mut rolls, &mut wishes),
                What::Answer(which, fate) => {
                    let which = Which::ALL[usize::from(which)];
                    let result = match fate {
                        0 => Ok(()),
                        1 => Err(self.refusals[slot(number, which)].take().expect("a refusal")),
                        _ => Err(Failure::new(Class::Transient, "no answer came in time")),
                    };
                    broker.answered(which, result, now, &mut rolls, &mut wishes);
                }
            }
            for wish in wishes.drain(..) {
                self.grant(number, wish);
            }
        }
        self.now = end;
    }

    fn grant(&mut self, number: u32, wish: Wish) {
        match wish {
            Wish::Wake(which, after, alarm) => {
                self.plan(self.now + after, number, What::Wake(which as u8, alarm));
            }
            Wish::LosePatience(after, wait) => self.plan(self.now + after, number, What::LosePatience(wait)),
            Wish::Send(which) => {
                let (luck, work) = (self.dice.roll(), self.dice.roll());
                let work = SERVICE.0 + (SERVICE.1 - SERVICE.0).mul_f64(work);
                let (after, fate) = match self.upstream.ask(self.now, luck) {
                    Fate::Done => (work, 0),
                    Fate::Refused(failure) => {
                        self.refusals[slot(number, which)] = Some(failure);
                        (SERVICE.0, 1)
                    }
                    Fate::Lost => (TIMEOUT, 2),
                };
                if fate != 1 && self.brokers[number as usize].is_renewal(which) {
                    self.renewals.push(self.now);
                }
                self.plan(self.now + after, number, What::Answer(which as u8, fate));
            }
        }
    }

    fn plan(&mut self, at: Duration, number: u32, what: What) {
        self.planned += 1;
        self.queue.push(Reverse((at, self.planned, number, what)));
    }

    /// The brokers that hold everything now.
    pub(crate) fn complete(&self) -> usize {
        let now = moment(self.now);
        self.brokers.iter().filter(|broker| broker.holds_everything(now)).count()
    }
}

fn slot(number: u32, which: Which) -> usize {
    number as usize * Which::ALL.len() + which as usize
}

/// Both clocks agree here: no machine is frozen.
fn moment(at: Duration) -> Moment {
    Moment::new(at, Duration::from_secs(1_800_000_000) + at)
}
