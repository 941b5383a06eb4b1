//! What is said of a run that is to begin: by the environment of the process, or by who registers one.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use super::arn::ExecutionArn;
use super::subject::SubjectKind;
use crate::clock::{Moment, Until};
use crate::secret::Credential;

/// The longest time-out, in seconds: that of a Step Functions state (`TimeoutSeconds`, Amazon States Language).
pub const LONGEST_TIMEOUT: f64 = 99_999_999.0;

/// The longest text, in characters: a state's name has 80, an execution's name as well.
const LONGEST_TEXT: usize = 1024;

/// The most tags. Vault keeps them in the token's metadata, for as long as it lives.
const MOST_TAGS: usize = 32;

/// The longest task token. Those of Step Functions have up to 1024 characters (`SendTaskHeartbeat`: 2048).
const LONGEST_TASK_TOKEN: usize = 2048;

/// What is said of a run, checked as far as words go. Nothing of it is verified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The execution it belongs to.
    pub execution: Option<ExecutionArn>,
    /// The state of that execution.
    pub state: Option<Box<str>>,
    /// Which try of that state it is, from 0.
    pub attempt: Option<u32>,
    /// The execution that started that execution.
    pub parent: Option<ExecutionArn>,
    /// The execution at the root of all.
    pub root: Option<ExecutionArn>,
    /// Who it is said to act for, where no token proves it.
    pub subject: Option<(Box<str>, SubjectKind)>,
    /// What it is labelled with.
    pub tags: BTreeMap<Box<str>, Box<str>>,
}

/// A run that is to be registered.
#[derive(Default)]
pub struct Request {
    /// What is said of it.
    pub facts: Facts,
    /// When it must be over; `None` leaves it to its rule.
    pub deadline: Option<Until>,
    /// An OIDC token, or a sealed subject.
    pub subject_token: Option<Credential>,
    /// The task token that Step Functions gave to the task.
    pub task_token: Option<Credential>,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("facts", &self.facts)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

/// A text of the field's kind.
///
/// # Errors
/// What is wrong with it: too long, a control character, nothing in it.
pub fn text(said: &str) -> Result<Box<str>, String> {
    if said.is_empty() {
        Err("is empty".to_owned())
    } else if said.chars().count() > LONGEST_TEXT {
        Err(format!("is longer than {LONGEST_TEXT} characters"))
    } else if let Some(c) = said.chars().find(|c| c.is_control()) {
        Err(format!("has a control character, {c:?}"))
    } else {
        Ok(said.into())
    }
}

/// Tags, by their names in lower case.
///
/// # Errors
/// The tag, and what is wrong with it.
pub fn tags<'a>(
    said: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<BTreeMap<Box<str>, Box<str>>, (String, String)> {
    let mut tags = BTreeMap::new();
    for (name, value) in said {
        let wrong = |why: String| Err((name.chars().take(100).collect(), why));
        if name.is_empty() {
            return wrong("has no name".to_owned());
        }
        if let Err(why) = text(name) {
            return wrong(format!("the name {why}"));
        }
        let value = match text(value) {
            Ok(value) => value,
            Err(why) => return wrong(why),
        };
        if tags.insert(name.to_lowercase().into(), value).is_some() {
            return wrong("is given twice, in different case".to_owned());
        }
        if tags.len() > MOST_TAGS {
            return wrong(format!("is one more than the {MOST_TAGS} tags that a run may have"));
        }
    }
    Ok(tags)
}

/// A task token.
///
/// # Errors
/// What is wrong with it; the token itself is not quoted.
pub fn task_token(said: &str) -> Result<Credential, String> {
    match said {
        "" => Err("is empty".to_owned()),
        _ if said.len() > LONGEST_TASK_TOKEN => Err(format!("is longer than {LONGEST_TASK_TOKEN} bytes")),
        _ if !said.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Err("holds what a task token does not: spaces, control characters".to_owned())
        }
        _ => Ok(Credential::new(said.to_owned())),
    }
}

/// A time-out in seconds, counted from `from`.
///
/// # Errors
/// What is wrong with it.
pub fn timeout(seconds: f64, from: Moment) -> Result<Until, String> {
    if !(seconds > 0.0 && seconds <= LONGEST_TIMEOUT) {
        return Err(format!("is not a number of seconds greater than 0 and at most {LONGEST_TIMEOUT}"));
    }
    // A positive number may still be less than the nanosecond that a duration can hold.
    Ok(Until::new(from, Duration::from_secs_f64(seconds).max(Duration::from_nanos(1))))
}

/// A deadline in RFC 3339.
///
/// # Errors
/// What is wrong with it; one that has passed is refused.
pub fn deadline(said: &str, now: Moment) -> Result<Until, String> {
    let wall = rfc3339(said).ok_or_else(|| {
        // It may be a token that was put there by mistake.
        let shown = if said.len() <= 40 { said } else { "…" };
        format!("{shown:?} is not a time in RFC 3339, such as \"2026-01-01T12:00:00Z\"")
    })?;
    let left = wall.saturating_sub(now.wall());
    if left.is_zero() {
        return Err(format!("the deadline {said} has passed: it is {} now", now.rfc3339()));
    }
    Ok(Until::new(now, left))
}

/// A time in RFC 3339, since the Unix epoch. humantime reads UTC alone; an offset is taken off first.
#[must_use]
pub fn rfc3339(text: &str) -> Option<Duration> {
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
