//! How long to wait before the next try: more than nothing, jittered, capped, and never less than upstream asked for.

use std::time::Duration;

/// A schedule of growing delays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The first delay.
    pub base: Duration,
    /// No delay is longer than this, unless upstream asked for it.
    pub cap: Duration,
}

impl Backoff {
    /// For calls to Vault: half a second, doubling, at most half a minute.
    pub const UPSTREAM: Self = Self { base: Duration::from_millis(500), cap: Duration::from_secs(30) };

    /// The delay after `attempt` failures in a row (the first failure is attempt 1).
    ///
    /// `roll` in `[0, 1)` is the jitter's sample, taken once for the schedule: the delay lies between half of the step
    /// and the whole of it, or, where upstream sent `Retry-After`, between that and a quarter more.
    #[must_use]
    pub fn delay(self, attempt: u32, retry_after: Option<Duration>, roll: f64) -> Duration {
        let roll = if roll.is_finite() { roll.clamp(0.0, 1.0) } else { 0.5 };
        let doublings = attempt.saturating_sub(1).min(16);
        let step = self.base.saturating_mul(1 << doublings).min(self.cap);
        let own = step.mul_f64(0.5 + roll / 2.0);
        let asked = retry_after
            .map(|after| after.min(Duration::from_secs(3600)))
            .map_or(Duration::ZERO, |after| after.mul_f64(1.0 + roll / 4.0));
        own.max(asked).max(Duration::from_millis(10))
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
            let asked = after.unwrap_or_default().min(Duration::from_secs(3600));
            prop_assert!(delay >= asked);
            prop_assert!(delay <= Backoff::UPSTREAM.cap.max(asked.mul_f64(1.25)));
        }
    }

    #[test]
    fn a_roll_is_a_share() {
        assert!((0..1_000).map(|_| roll()).all(|roll| (0.0..1.0).contains(&roll)));
    }

    #[test]
    fn delays_grow_and_spread() {
        let at = |attempt, roll| Backoff::UPSTREAM.delay(attempt, None, roll);
        assert_eq!(at(1, 0.0), Duration::from_millis(250));
        assert_eq!(at(3, 0.0), Duration::from_secs(1));
        assert!(at(3, 0.9) > at(3, 0.1));
    }
}
