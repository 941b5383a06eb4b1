//! The only reader of time. Everything else is handed a [`Moment`].
//!
//! A machine may be frozen (a Lambda environment, a suspended VM) or have its wall clock set. Neither the monotonic
//! clock nor the wall clock tells the age of a grant alone, so a [`Moment`] carries both, and an age is the larger of
//! the two: a credential is believed to be older rather than younger.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// A point in time on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    mono: Nanos,
    wall: Nanos,
}

/// Nanoseconds, up to the year 2554: every lease holds a dozen of them, and a `Duration` takes twice the room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Nanos(u64);

impl Nanos {
    const fn of(span: Duration) -> Self {
        let nanos = span.as_nanos();
        // Longer than five centuries is for ever.
        Self(if nanos > u64::MAX as u128 { u64::MAX } else { nanos as u64 })
    }

    const fn span(self) -> Duration {
        Duration::from_nanos(self.0)
    }

    fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(Self::of(by).0))
    }

    fn minus(self, by: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(by.0))
    }
}

impl Moment {
    /// The moment when the two clocks read so.
    #[must_use]
    pub const fn new(mono: Duration, wall: Duration) -> Self {
        Self { mono: Nanos::of(mono), wall: Nanos::of(wall) }
    }

    /// Since the clock was made; never goes back, stands still while the machine is suspended.
    #[must_use]
    pub fn mono(self) -> Duration {
        self.mono.span()
    }

    /// Since the Unix epoch; may jump either way.
    #[must_use]
    pub fn wall(self) -> Duration {
        self.wall.span()
    }

    /// The time that has passed since `earlier`: the larger of what the two clocks say.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        self.mono.minus(earlier.mono).max(self.wall.minus(earlier.wall))
    }

    /// The same point `by` later, on both clocks.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self { mono: self.mono.plus(by), wall: self.wall.plus(by) }
    }

    /// As a wall-clock time, for printing.
    #[must_use]
    pub fn system_time(self) -> SystemTime {
        UNIX_EPOCH + self.wall()
    }

    /// RFC 3339, in UTC, to the millisecond.
    #[must_use]
    pub fn rfc3339(self) -> String {
        Timestamp::of(self).as_str().to_owned()
    }
}

/// `YYYY-MM-DDThh:mm:ss.mmmZ`.
///
/// A formatter of our own, because it is on every line: a tenth of the general one's time, and no allocation.
pub(crate) struct Timestamp([u8; 24]);

impl Timestamp {
    pub(crate) fn of(moment: Moment) -> Self {
        // A moment ends in the year 2554: four digits hold every year.
        let seconds = moment.wall().as_secs();
        let (days, second) = (seconds / 86_400, seconds % 86_400);
        // Days since 0000-03-01 in eras of 400 years (H. Hinnant, "chrono-compatible low-level date algorithms").
        let shifted = days + 719_468;
        let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        let year = era * 400 + year_of_era + u64::from(month <= 2);

        let mut text = *b"0000-00-00T00:00:00.000Z";
        let mut put = |at: usize, width: usize, mut value: u64| {
            for digit in text[at..at + width].iter_mut().rev() {
                *digit = b'0' + (value % 10) as u8;
                value /= 10;
            }
        };
        put(0, 4, year);
        put(5, 2, month);
        put(8, 2, day);
        put(11, 2, second / 3_600);
        put(14, 2, second / 60 % 60);
        put(17, 2, second % 60);
        put(20, 3, u64::from(moment.wall().subsec_millis()));
        Self(text)
    }

    pub(crate) fn as_str(&self) -> &str {
        // Digits and punctuation only.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// A span that began at a moment: an expiry, a retry delay, a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Until {
    /// When the span began.
    pub from: Moment,
    len: Nanos,
}

impl Until {
    /// `len` from `from` on.
    #[must_use]
    pub fn new(from: Moment, len: Duration) -> Self {
        Self { from, len: Nanos::of(len) }
    }

    /// How long it lasts.
    #[must_use]
    pub fn len(self) -> Duration {
        self.len.span()
    }

    /// What is left of it.
    #[must_use]
    pub fn left(self, now: Moment) -> Duration {
        self.len().saturating_sub(now.since(self.from))
    }

    /// Whether nothing is left of it.
    #[must_use]
    pub fn is_over(self, now: Moment) -> bool {
        self.left(now).is_zero()
    }

    /// Whether nothing is left of it even if the wall clock was set forward: by the monotonic clock alone, which may
    /// stand still and never runs ahead. What is not surely over may live on upstream, although nobody gets it any more.
    #[must_use]
    pub fn is_surely_over(self, now: Moment) -> bool {
        now.mono.minus(self.from.mono) >= self.len()
    }

    /// When it ends, read on both clocks from its beginning.
    #[must_use]
    pub fn end(self) -> Moment {
        self.from.plus(self.len())
    }
}

/// The one of these that is over first.
#[must_use]
pub fn soonest(untils: impl IntoIterator<Item = Option<Until>>, now: Moment) -> Option<Until> {
    untils.into_iter().flatten().min_by_key(|until| until.left(now))
}

/// Reads both clocks. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Clock(Arc<Source>);

#[derive(Debug)]
enum Source {
    System {
        started: Instant,
    },
    /// Wall time follows tokio's (pausable) clock, plus a skew that a test sets, in milliseconds.
    Simulated {
        started: Instant,
        wall: Duration,
        skew: AtomicI64,
    },
}

impl Clock {
    /// The machine's clocks.
    #[must_use]
    pub fn system() -> Self {
        Self(Arc::new(Source::System { started: Instant::now() }))
    }

    /// A clock for tests: wall time starts on 2026-01-01 and follows tokio's clock, which a test may pause.
    #[must_use]
    pub fn simulated() -> Self {
        Self(Arc::new(Source::Simulated {
            started: Instant::now(),
            wall: Duration::from_secs(1_767_225_600),
            skew: AtomicI64::new(0),
        }))
    }

    /// Lets a simulated wall clock jump by `millis`; does nothing to the machine's clock.
    pub fn jump(&self, millis: i64) {
        if let Source::Simulated { skew, .. } = &*self.0 {
            skew.fetch_add(millis, Ordering::SeqCst);
        }
    }

    /// Now, on both clocks.
    #[must_use]
    pub fn now(&self) -> Moment {
        match &*self.0 {
            Source::System { started } => {
                #[expect(clippy::disallowed_methods, reason = "this is the one place that reads wall time")]
                let wall = SystemTime::now();
                Moment::new(started.elapsed(), wall.duration_since(UNIX_EPOCH).unwrap_or_default())
            }
            Source::Simulated { started, wall, skew } => {
                let mono = started.elapsed();
                let skew = skew.load(Ordering::SeqCst);
                let shift = Duration::from_millis(skew.unsigned_abs());
                let wall = *wall + mono;
                let wall = if skew < 0 { wall.saturating_sub(shift) } else { wall + shift };
                Moment::new(mono, wall)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_timestamp_says_what_the_general_formatter_says(millis in 0..u64::MAX / 1_000_000) {
            let wall = Duration::from_millis(millis);
            let moment = Moment::new(Duration::ZERO, wall);
            prop_assert_eq!(moment.rfc3339(), humantime::format_rfc3339_millis(UNIX_EPOCH + wall).to_string());
        }
    }

    fn at(mono: u64, wall: u64) -> Moment {
        Moment::new(Duration::from_secs(mono), Duration::from_secs(wall))
    }

    #[test]
    fn an_age_is_the_larger_of_the_two_clocks() {
        assert_eq!(
            at(15, 1_010).since(at(10, 1_000)),
            Duration::from_secs(10),
            "suspended: the wall went on"
        );
        assert_eq!(at(20, 400).since(at(10, 1_000)), Duration::from_secs(10), "the wall clock was set back");
        assert_eq!(at(10, 1_000).since(at(20, 2_000)), Duration::ZERO);
    }

    #[test]
    fn a_span_ends_by_whichever_clock_is_ahead() {
        let span = Until::new(at(0, 1_000), Duration::from_secs(60));
        assert_eq!(span.left(at(10, 1_010)), Duration::from_secs(50));
        assert!(span.is_over(at(1, 1_060)));
        assert!(span.is_over(at(60, 0)));
    }

    #[test]
    fn a_span_is_surely_over_when_the_clock_that_cannot_be_set_says_so() {
        let span = Until::new(at(0, 1_000), Duration::from_secs(60));
        assert!(!span.is_surely_over(at(1, 5_000)), "the wall clock was set forward");
        assert!(!span.is_surely_over(at(59, 1_059)));
        assert!(span.is_surely_over(at(60, 0)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_simulated_clock_follows_paused_time_and_jumps_when_told() {
        let clock = Clock::simulated();
        let before = clock.now();
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(clock.now().since(before), Duration::from_secs(5));
        clock.jump(3_600_000);
        assert_eq!(clock.now().since(before), Duration::from_secs(3_605));
        assert_eq!(before.rfc3339(), "2026-01-01T00:00:00.000Z");
    }
}
