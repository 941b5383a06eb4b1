//! The run that the process is started for, as its environment tells it.

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use super::environment::{Environment, TAG, problem};
use super::problem::Problem;
use crate::clock::{Moment, Until};

/// The longest `TENURE_TIMEOUT_SECONDS`: that of a Step Functions state (`TimeoutSeconds`, Amazon States Language).
const LONGEST: f64 = 99_999_999.0;

/// The longest text, in characters.
const LENGTH: usize = 1024;

/// What the environment says of the run: asserted, not verified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunEnv {
    /// When the run must have ended: the earlier of `TENURE_DEADLINE` and `TENURE_TIMEOUT_SECONDS` from the start.
    pub deadline: Option<Until>,
    /// `TENURE_EXECUTION_ARN`
    pub execution_arn: Option<String>,
    /// `TENURE_STATE_NAME`
    pub state_name: Option<String>,
    /// `TENURE_PARENT_EXECUTION_ARN`
    pub parent_execution_arn: Option<String>,
    /// `TENURE_TAG_<NAME>`, by the name in lower case.
    pub tags: BTreeMap<String, String>,
}

impl RunEnv {
    pub(crate) fn read(environment: &Environment, now: Moment, problems: &mut Vec<Problem>) -> Self {
        let mut said = |name: &str, value: Result<Until, String>| match value {
            Ok(until) => Some(until),
            Err(message) => {
                problems.push(problem(name, message));
                None
            }
        };
        let deadline =
            environment.var("TENURE_DEADLINE").and_then(|text| said("TENURE_DEADLINE", deadline(text, now)));
        let timeout = environment
            .var("TENURE_TIMEOUT_SECONDS")
            .and_then(|text| said("TENURE_TIMEOUT_SECONDS", timeout(text, now)));
        let mut words = |name: &str| {
            let text = environment.var(name)?;
            checked(name, text, problems)
        };
        let execution_arn = words("TENURE_EXECUTION_ARN");
        let state_name = words("TENURE_STATE_NAME");
        let parent_execution_arn = words("TENURE_PARENT_EXECUTION_ARN");
        let mut tags = BTreeMap::new();
        for (rest, value) in environment.beginning(TAG) {
            let name = format!("{TAG}{rest}");
            let tag = rest.to_lowercase();
            if rest.is_empty() {
                problems.push(problem(&name, "the tag has no name: TENURE_TAG_<NAME>".to_owned()));
            } else if checked(&name, rest, problems).is_none() {
                // Said already, of its name.
            } else if let Some(value) = checked(&name, value, problems)
                && tags.insert(tag.clone(), value).is_some()
            {
                problems.push(problem(&name, format!("the tag {tag:?} is given twice, in different case")));
            }
        }
        Self {
            deadline: match (deadline, timeout) {
                (Some(a), Some(b)) => Some(if a.len() <= b.len() { a } else { b }),
                (a, b) => a.or(b),
            },
            execution_arn,
            state_name,
            parent_execution_arn,
            tags,
        }
    }
}

fn deadline(text: &str, now: Moment) -> Result<Until, String> {
    let wall = rfc3339(text)
        .ok_or_else(|| format!("{text:?} is not a time in RFC 3339, such as \"2026-01-01T12:00:00Z\""))?;
    let left = wall.saturating_sub(now.wall());
    if left.is_zero() {
        return Err(format!("the deadline {text} has passed: it is {} now", now.rfc3339()));
    }
    Ok(Until::new(now, left))
}

/// Since the Unix epoch. humantime reads UTC alone; an offset is taken off first.
fn rfc3339(text: &str) -> Option<Duration> {
    let (local, offset) = match text.len().checked_sub(6) {
        Some(at) if text.is_char_boundary(at) && matches!(text.as_bytes()[at], b'+' | b'-') => {
            text.split_at(at)
        }
        _ => (text.strip_suffix(['Z', 'z'])?, "+00:00"),
    };
    let time = humantime::parse_rfc3339(&format!("{local}Z")).ok()?.duration_since(UNIX_EPOCH).ok()?;
    let (hours, minutes) = offset[1..].split_once(':')?;
    if [hours, minutes].iter().any(|part| part.len() != 2 || !part.bytes().all(|byte| byte.is_ascii_digit()))
    {
        return None;
    }
    let (hours, minutes): (u64, u64) = (hours.parse().ok()?, minutes.parse().ok()?);
    let shift = (hours < 24 && minutes < 60).then(|| Duration::from_secs(hours * 3600 + minutes * 60))?;
    if offset.starts_with('+') { time.checked_sub(shift) } else { time.checked_add(shift) }
}

fn timeout(text: &str, now: Moment) -> Result<Until, String> {
    let seconds = text.trim().parse().ok().filter(|seconds: &f64| *seconds > 0.0 && *seconds <= LONGEST);
    let seconds = seconds
        .ok_or_else(|| format!("{text:?} is not a number of seconds greater than 0 and at most {LONGEST}"))?;
    // A positive number may still be less than the nanosecond that a duration can hold.
    let length = Duration::from_secs_f64(seconds).max(Duration::from_nanos(1));
    Ok(Until::new(now, length))
}

fn checked(name: &str, text: &str, problems: &mut Vec<Problem>) -> Option<String> {
    let message = if text.chars().count() > LENGTH {
        format!("longer than {LENGTH} characters")
    } else if let Some(c) = text.chars().find(|c| c.is_control()) {
        format!("has a control character, {c:?}")
    } else {
        return Some(text.to_owned());
    };
    problems.push(problem(name, message));
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-01-01T00:00:00Z.
    const NOW: Moment = Moment::new(Duration::from_secs(5), Duration::from_secs(1_767_225_600));

    fn read(vars: &[(&str, &str)]) -> (RunEnv, Vec<String>) {
        let mut problems = Vec::new();
        let run = RunEnv::read(&vars.iter().copied().collect(), NOW, &mut problems);
        (run, problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn the_earlier_of_deadline_and_timeout_is_the_deadline() {
        for (vars, seconds) in [
            (&[("TENURE_DEADLINE", "2026-01-01T00:10:00Z")][..], Some(600)),
            (&[("TENURE_DEADLINE", "2026-01-01T00:10:00.000Z")], Some(600)),
            (&[("TENURE_DEADLINE", "2026-01-01T02:10:00+02:00")], Some(600)),
            (&[("TENURE_DEADLINE", "2025-12-31T19:10:00-05:00")], Some(600)),
            (&[("TENURE_TIMEOUT_SECONDS", "90")], Some(90)),
            (&[("TENURE_TIMEOUT_SECONDS", "90"), ("TENURE_DEADLINE", "2026-01-01T00:10:00Z")], Some(90)),
            (&[("TENURE_TIMEOUT_SECONDS", "900"), ("TENURE_DEADLINE", "2026-01-01T00:10:00Z")], Some(600)),
            (&[("TENURE_TIMEOUT_SECONDS", "")], None),
        ] {
            let (run, problems) = read(vars);
            assert_eq!(run.deadline, seconds.map(|s| Until::new(NOW, Duration::from_secs(s))), "{vars:?}");
            assert_eq!(problems, [""; 0], "{vars:?}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_name() {
        let long = "x".repeat(1025);
        for (name, value, expected) in [
            ("TENURE_DEADLINE", "tomorrow", "is not a time in RFC 3339"),
            ("TENURE_DEADLINE", "2026-01-01T00:10:00", "is not a time in RFC 3339"),
            ("TENURE_DEADLINE", "2026-01-01T00:10:00+2:000", "is not a time in RFC 3339"),
            ("TENURE_DEADLINE", "2026-01-01T00:10:00+99:00", "is not a time in RFC 3339"),
            ("TENURE_DEADLINE", "é+00:00", "is not a time in RFC 3339"),
            ("TENURE_DEADLINE", "2025-12-31T23:59:59Z", "has passed: it is 2026-01-01T00:00:00.000Z now"),
            ("TENURE_TIMEOUT_SECONDS", "0", "is not a number of seconds"),
            ("TENURE_TIMEOUT_SECONDS", "-5", "is not a number of seconds"),
            ("TENURE_TIMEOUT_SECONDS", "NaN", "is not a number of seconds"),
            ("TENURE_TIMEOUT_SECONDS", "inf", "is not a number of seconds"),
            ("TENURE_TIMEOUT_SECONDS", "5m", "is not a number of seconds"),
            ("TENURE_EXECUTION_ARN", long.as_str(), "longer than 1024 characters"),
            ("TENURE_STATE_NAME", "a\nb", "has a control character, '\\n'"),
            ("TENURE_TAG_COMMIT", "a\tb", "has a control character"),
            ("TENURE_TAG_", "x", "the tag has no name"),
        ] {
            let (_, problems) = read(&[(name, value)]);
            assert_eq!(problems.len(), 1, "{name}={value}: {problems:?}");
            assert!(problems[0].starts_with(&format!("environment {name}: ")), "{}", problems[0]);
            assert!(problems[0].contains(expected), "{}", problems[0]);
        }
    }

    #[test]
    fn tags_are_named_in_lower_case() {
        let (run, problems) = read(&[
            ("TENURE_TAG_GIT_COMMIT", "abc"),
            ("TENURE_TAG_Team", "orders"),
            ("TENURE_STATE_NAME", "Charge the card"),
        ]);
        assert_eq!(problems, [""; 0]);
        let tags: Vec<_> = run.tags.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(tags, [("git_commit", "abc"), ("team", "orders")]);
        assert_eq!(run.state_name.as_deref(), Some("Charge the card"));
    }
}
