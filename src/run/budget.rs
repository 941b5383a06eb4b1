//! A budget for calls to a service that throttles a whole account: a token bucket that slows down when it is told to.
//!
//! Step Functions, for one, refills `DescribeExecution` at 15 a second in most regions, for everybody in the account
//! (<https://docs.aws.amazon.com/step-functions/latest/dg/service-quotas.html>): a sidecar takes a small share of that.

use std::time::Duration;

use crate::clock::Moment;

/// No rate is lower than this: one call an hour.
const LEAST: f64 = 1.0 / 3_600.0;

/// A budget that was throttled keeps at least this share of its rate.
const FLOOR: f64 = 1.0 / 16.0;

/// From nothing to the whole rate, a throttled budget takes so long to recover.
const RECOVERY: Duration = Duration::from_secs(300);

/// Calls that were under way together are throttled together: that counts once.
const ONCE: Duration = Duration::from_secs(1);

/// Nobody is made to wait for longer, whatever a server asks for.
const LONGEST: Duration = Duration::from_secs(3_600);

/// A token bucket. In any span `t` it lets no more than `burst + rate × t` calls through.
///
/// It goes by the monotonic clock alone: a wall clock that is set must not make calls due.
#[derive(Clone, Debug)]
pub struct Budget {
    /// What was configured, in calls a second.
    full: f64,
    /// What is in effect at `at`.
    rate: f64,
    burst: f64,
    tokens: f64,
    /// Up to when tokens were counted, on the monotonic clock. In the future while a server has asked to wait.
    at: Option<Duration>,
    /// When the rate was last halved.
    halved: Option<Duration>,
}

impl Budget {
    /// `burst` calls at once, at least one, and `rate_per_second` from then on; full at first.
    ///
    /// A rate that is no number, or lower than one call an hour, is one call an hour.
    #[must_use]
    pub fn new(rate_per_second: f64, burst: u32) -> Self {
        let full = if rate_per_second.is_finite() { rate_per_second.max(LEAST) } else { LEAST };
        let burst = f64::from(burst.max(1));
        Self { full, rate: full, burst, tokens: burst, at: None, halved: None }
    }

    /// Takes leave for one call.
    ///
    /// # Errors
    /// How long to wait before asking again, more than nothing; nothing was taken. Who waits that long alone gets it.
    pub fn take(&mut self, now: Moment) -> Result<(), Duration> {
        self.count(now.mono());
        let held = self.at.map_or(Duration::ZERO, |at| at.saturating_sub(now.mono()));
        if held.is_zero() && self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        // The rate may rise in the meantime: this is the longest that it takes. A microsecond more, for the rounding.
        let lacking = ((1.0 - self.tokens).max(0.0) / self.rate).min(LONGEST.as_secs_f64());
        Err(held + Duration::from_secs_f64(lacking) + Duration::from_micros(1))
    }

    /// The service throttled a call: the rate is halved, down to a sixteenth, and recovers within minutes; nothing is let
    /// through before `retry_after` is over, where the service asked for that (an hour at most).
    pub fn throttled(&mut self, now: Moment, retry_after: Option<Duration>) {
        let now = now.mono();
        self.count(now);
        if self.halved.is_none_or(|halved| now.saturating_sub(halved) >= ONCE) {
            self.rate = (self.rate / 2.0).max(self.full * FLOOR);
            self.halved = Some(now);
        }
        self.tokens = 0.0;
        let until = now + retry_after.unwrap_or_default().min(LONGEST);
        self.at = Some(self.at.unwrap_or_default().max(until));
    }

    /// Counts the tokens, and the recovery, up to `now`.
    fn count(&mut self, now: Duration) {
        let Some(at) = self.at else {
            self.at = Some(now);
            return;
        };
        let span = now.saturating_sub(at).as_secs_f64();
        if span <= 0.0 {
            return;
        }
        self.at = Some(now);
        let slope = self.full / RECOVERY.as_secs_f64();
        let rising = ((self.full - self.rate) / slope).clamp(0.0, span);
        let risen = (self.rate + slope * rising).min(self.full);
        let came = (self.rate + risen) / 2.0 * rising + risen * (span - rising);
        self.rate = risen;
        self.tokens = (self.tokens + came).min(self.burst);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::new(Duration::from_millis(millis), Duration::from_secs(1_767_225_600))
    }

    /// How many calls get through in `seconds`, with one tried every 10 ms.
    fn through(budget: &mut Budget, from: u64, seconds: u64) -> usize {
        (from * 100..(from + seconds) * 100).filter(|tick| budget.take(at(tick * 10)).is_ok()).count()
    }

    #[test]
    fn a_burst_then_the_rate() {
        let mut budget = Budget::new(2.0, 5);
        assert_eq!((0..9).filter(|_| budget.take(at(0)).is_ok()).count(), 5);
        let wait = budget.take(at(0)).expect_err("nothing is left");
        assert!(wait >= Duration::from_millis(500) && wait < Duration::from_millis(501), "{wait:?}");
        assert_eq!(budget.take(at(501)), Ok(()));
        assert!(budget.take(at(502)).is_err());
    }

    #[test]
    fn throttling_halves_the_rate_once_for_calls_that_were_together_and_it_recovers() {
        let mut budget = Budget::new(8.0, 1);
        for _ in 0..20 {
            budget.throttled(at(0), None);
        }
        let slow = through(&mut budget, 0, 10);
        assert!((39..=45).contains(&slow), "half of 80, and a little recovery: {slow}");
        for second in 100..200 {
            budget.throttled(at(second * 1_000), None);
        }
        let floor = through(&mut budget, 200, 10);
        assert!((4..=9).contains(&floor), "a sixteenth of 80, and a little recovery: {floor}");
        let _ = through(&mut budget, 210, 300);
        let whole = through(&mut budget, 600, 10);
        assert!((75..=80).contains(&whole), "all of it, less what trying every 10 ms loses: {whole}");
    }

    #[test]
    fn what_the_service_asks_for_is_waited_for_but_not_for_ever() {
        let mut budget = Budget::new(10.0, 10);
        budget.throttled(at(0), Some(Duration::from_secs(30)));
        budget.throttled(at(1_000), Some(Duration::from_secs(1)));
        let wait = budget.take(at(2_000)).expect_err("it asked for 30 s");
        assert!(wait >= Duration::from_secs(28) && wait < Duration::from_secs(29), "{wait:?}");
        assert!(budget.take(at(29_999)).is_err());
        assert_eq!(budget.take(at(2_000).plus(wait)), Ok(()));
        budget.throttled(at(60_000), Some(Duration::MAX));
        assert!(budget.take(at(60_000)).expect_err("held") <= LONGEST + Duration::from_secs(1));
    }

    #[test]
    fn a_rate_that_is_none_is_one_call_an_hour_and_a_wall_clock_that_jumps_makes_nothing_due() {
        for rate in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, 0.0] {
            let mut budget = Budget::new(rate, 0);
            assert_eq!(budget.take(at(0)), Ok(()));
            let wait = budget.take(at(0)).expect_err("once an hour");
            assert!(wait > Duration::from_secs(3_599), "{wait:?}");
            let jumped = Moment::new(Duration::from_secs(1), Duration::from_secs(4_000_000_000));
            assert!(budget.take(jumped).is_err());
        }
    }

    proptest! {
        #[test]
        fn no_window_lets_more_through_than_burst_and_rate(
            rate in 0.01f64..50.0,
            burst in 0u32..20,
            steps in proptest::collection::vec((0u64..3_000, 0u8..12, proptest::option::of(0u64..20)), 1..200),
        ) {
            let mut budget = Budget::new(rate, burst);
            let mut now = 0;
            let mut taken = Vec::new();
            for (step, act, after) in steps {
                now += step;
                if act == 0 {
                    budget.throttled(at(now), after.map(Duration::from_secs));
                }
                for _ in 0..act {
                    match budget.take(at(now)) {
                        Ok(()) => taken.push(now),
                        Err(wait) => {
                            prop_assert!(wait > Duration::ZERO);
                            prop_assert_eq!(budget.clone().take(at(now).plus(wait)), Ok(()));
                        }
                    }
                }
            }
            for first in 0..taken.len() {
                for last in first..taken.len() {
                    let span = Duration::from_millis(taken[last] - taken[first]).as_secs_f64();
                    let most = f64::from(burst.max(1)) + rate * span;
                    let count = u32::try_from(last - first + 1).expect("few");
                    prop_assert!(f64::from(count) <= most + 1e-6, "{count} in {span} s");
                }
            }
        }
    }
}
