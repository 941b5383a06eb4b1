//! Points in time as logs state them.

use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use schemars::JsonSchema;
use serde::{Serialize, Serializer};

use crate::clock::{Moment, Timestamp};
use crate::run::request::rfc3339;

/// A time that a line states: nanoseconds since the Unix epoch, which ends in the year 2554.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct At(u64);

impl At {
    /// So long after the Unix epoch; what is later than the year 2554 is that year's.
    #[must_use]
    pub fn new(since_epoch: Duration) -> Self {
        Self(u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX))
    }

    /// Reads RFC 3339, with any offset.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text.ends_with('Z') {
            // Without a copy: it is done for each line.
            true => humantime::parse_rfc3339(text).ok()?.duration_since(UNIX_EPOCH).ok(),
            false => rfc3339(text),
        }
        .map(Self::new)
    }

    /// Reads what a person types: RFC 3339, or a span before `now` such as `30d` or `2h`.
    #[must_use]
    pub fn parse_typed(text: &str, now: Moment) -> Option<Self> {
        Self::parse(text).or_else(|| {
            humantime::parse_duration(text).ok().map(|span| Self::new(now.wall().saturating_sub(span)))
        })
    }

    /// Seconds since the epoch as Step Functions states them; what is no such number is `None`.
    #[must_use]
    pub fn of_seconds(seconds: f64) -> Option<Self> {
        Duration::try_from_secs_f64(seconds).ok().map(Self::new)
    }

    /// The same point `by` later.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(Self::new(by).0))
    }

    /// The time that has passed since `earlier`; none if it is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// RFC 3339 in UTC, to the millisecond.
impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Timestamp::of(Moment::new(Duration::ZERO, Duration::from_nanos(self.0))).as_str())
    }
}

impl Serialize for At {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for At {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Time".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "format": "date-time",
            "description": "RFC 3339 in UTC, to the millisecond.",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_each_log_states_them() {
        let want = "2026-11-21T16:26:00.571Z";
        for text in [want, "2026-11-21T16:26:00.571629142Z", "2026-11-21T17:26:00.571000+01:00"] {
            assert_eq!(At::parse(text).unwrap().to_string(), want, "{text}");
        }
        assert_eq!(At::of_seconds(1_795_278_360.571_629).unwrap().to_string(), want);
        for text in ["", "yesterday", "2026-11-21", "2026-11-21T16:26:00", "9999-99-99T99:99:99Z"] {
            assert_eq!(At::parse(text), None, "{text}");
        }
        for seconds in [f64::NAN, f64::INFINITY, -1.0] {
            assert_eq!(At::of_seconds(seconds), None, "{seconds}");
        }
    }

    #[test]
    fn a_span_is_counted_back_from_now() {
        let now = Moment::new(Duration::ZERO, Duration::from_secs(86_400 * 31));
        assert_eq!(At::parse_typed("30d", now).unwrap().to_string(), "1970-01-02T00:00:00.000Z");
        assert_eq!(At::parse_typed("100000d", now).unwrap(), At::default());
        assert_eq!(At::parse_typed("soon", now), None);
    }
}
