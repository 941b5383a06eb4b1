//! The simulated Vault: a rate limit, a service time, an outage, and answers that get lost on their way.

use std::ops::Range;
use std::time::Duration;

use tenure::lease::failure::{Class, Failure};

/// How a request ends, as its sender sees it.
pub(crate) enum Fate {
    /// Done, and the answer arrives.
    Done,
    /// Done, but the answer never arrives: the sender gives up at its time-out.
    Lost,
    /// Refused.
    Refused(Failure),
}

/// What the simulated Vault is like.
#[derive(Clone)]
pub(crate) struct Character {
    /// Requests in a second, on average, and what may come on top of it at once.
    pub(crate) limit: u32,
    pub(crate) burst: u32,
    /// Whether a 429 says `Retry-After`. Vault's own says so where rate-limit headers are enabled.
    pub(crate) says_when: bool,
    /// Everything is answered with 503 then.
    pub(crate) outage: Range<Duration>,
    /// The share of answers that get lost.
    pub(crate) lost: f64,
}

/// The simulated Vault, and when it was asked for what.
pub(crate) struct Upstream {
    character: Character,
    tokens: f64,
    filled: Duration,
    /// When each request came; in order.
    pub(crate) offered: Vec<Duration>,
    /// When each request that was not refused came; in order.
    pub(crate) admitted: Vec<Duration>,
}

impl Upstream {
    pub(crate) fn new(character: Character) -> Self {
        let tokens = f64::from(character.burst);
        Self { character, tokens, filled: Duration::ZERO, offered: Vec::new(), admitted: Vec::new() }
    }

    /// A request comes at `now`; `roll` in `[0, 1)` decides whether its answer gets lost.
    pub(crate) fn ask(&mut self, now: Duration, roll: f64) -> Fate {
        self.offered.push(now);
        if self.character.outage.contains(&now) {
            return Fate::Refused(refusal(503, None));
        }
        let rate = f64::from(self.character.limit);
        let gained = (now - self.filled).as_secs_f64() * rate;
        self.filled = now;
        self.tokens = (self.tokens + gained).min(f64::from(self.character.burst));
        if self.tokens < 1.0 {
            // A token is there in less than a second; the header counts in whole ones, so all are told the same.
            let after = self.character.says_when.then_some(Duration::from_secs(1));
            return Fate::Refused(refusal(429, after));
        }
        self.tokens -= 1.0;
        self.admitted.push(now);
        if roll < self.character.lost { Fate::Lost } else { Fate::Done }
    }
}

fn refusal(status: u16, retry_after: Option<Duration>) -> Failure {
    Failure { status: Some(status), retry_after, ..Failure::new(Class::Transient, "not now") }
}

/// The most that came within any second of `span`.
pub(crate) fn peak(times: &[Duration], span: &Range<Duration>) -> usize {
    let second = Duration::from_secs(1);
    let times = within(times, span);
    let mut first = 0;
    let mut most = 0;
    for (last, at) in times.iter().enumerate() {
        while *at - times[first] >= second {
            first += 1;
        }
        most = most.max(last + 1 - first);
    }
    most
}

/// How many came within `span`.
pub(crate) fn count(times: &[Duration], span: &Range<Duration>) -> usize {
    within(times, span).len()
}

fn within<'a>(times: &'a [Duration], span: &Range<Duration>) -> &'a [Duration] {
    let until = |end| times.partition_point(|at| *at < end);
    &times[until(span.start)..until(span.end)]
}
