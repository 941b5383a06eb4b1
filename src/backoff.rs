//! How long to wait before the next try: more than nothing, jittered, capped, and never less than upstream asked for.

use std::time::Duration;

/// A schedule of growing delays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The first delay.
    pub base: Duration,
    /// No delay is longer than this, not counting what upstream asked for.
    pub cap: Duration,
}

impl Backoff {
    /// No `Retry-After` is honoured beyond this.
    pub const ASKED_FOR_MOST: Duration = Duration::from_secs(3600);

    /// For calls to Vault: half a second, doubling, at most half a minute.
    pub const UPSTREAM: Self = Self { base: Duration::from_millis(500), cap: Duration::from_secs(30) };

    /// The delay after `attempt` failures in a row (the first failure is attempt 1).
    ///
    /// `roll` in `[0, 1)` is the jitter's sample, taken once for the schedule: the delay lies between half of the step
    /// and the whole of it.
    ///
    /// Where upstream pushed back, `retry_after` is what it asked for. It tells everybody the same, so the delay lies
    /// anywhere between that and a step more, lest all come back in the same instant. That step is four times the one
    /// after a mere failure: who is told to wait is one of many, and a wider spread costs the crowd no time.
    #[must_use]
    pub fn delay(self, attempt: u32, retry_after: Option<Duration>, roll: f64) -> Duration {
        let roll = if roll.is_finite() { roll.clamp(0.0, 1.0) } else { 0.5 };
        let failures = attempt.clamp(1, 16);
        let step = |factor: u32| self.base.saturating_mul(factor).min(self.cap);
        let delay = match retry_after {
            Some(after) => after.min(Self::ASKED_FOR_MOST) + step(4 << (failures - 1)).mul_f64(roll),
            None => step(1 << (failures - 1)).mul_f64(0.5 + roll / 2.0),
        };
        delay.max(Duration::from_millis(10))
    }
}

/// A sample for jitter, in `[0, 1)`.
#[must_use]
pub fn roll() -> f64 {
    // 53 bits are what an f64 holds exactly. Without entropy the middle will do: jitter is no secret.
    let bits = getrandom::u64().unwrap_or(1 << 63) >> 11;
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
    let share = bits as f64 / (1u64 << 53) as f64;
    share
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_delay_is_positive_capped_and_honours_retry_after(
            attempt in 0u32..1_000, roll in any::<f64>(), after in proptest::option::of(0u64..10_000),
        ) {
            let after = after.map(Duration::from_secs);
            let delay = Backoff::UPSTREAM.delay(attempt, after, roll);
            prop_assert!(delay > Duration::ZERO);
            let asked = after.unwrap_or_default().min(Backoff::ASKED_FOR_MOST);
            prop_assert!(delay >= asked);
            prop_assert!(delay <= Backoff::UPSTREAM.cap + asked);
        }
    }

    #[test]
    fn a_roll_is_a_share() {
        assert!((0..1_000).map(|_| roll()).all(|roll| (0.0..1.0).contains(&roll)));
    }

    #[test]
    fn whoever_was_told_the_same_does_not_come_back_together() {
        let second = Duration::from_secs(1);
        let most = 1.0 - f64::EPSILON;
        for (attempt, longest) in [(1, 3_u32), (2, 5), (3, 9), (4, 17), (5, 31), (99, 31)] {
            let at = |roll| Backoff::UPSTREAM.delay(attempt, Some(second), roll);
            assert_eq!(at(0.0), second, "what was asked for is the least");
            assert_eq!(at(most).as_secs_f64().ceil(), f64::from(longest), "attempt {attempt}");
            assert_eq!(at(0.5), (second + Duration::from_secs(longest.into())) / 2, "evenly spread");
        }
    }

    #[test]
    fn delays_grow_and_spread() {
        let at = |attempt, roll| Backoff::UPSTREAM.delay(attempt, None, roll);
        assert_eq!(at(1, 0.0), Duration::from_millis(250));
        assert_eq!(at(3, 0.0), Duration::from_secs(1));
        assert!(at(3, 0.9) > at(3, 0.1));
    }
}
