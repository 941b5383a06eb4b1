//! The run that the process is started for, as its environment tells it.

use std::path::PathBuf;

use super::environment::{Environment, TAG, problem};
use super::problem::Problem;
use crate::clock::{Moment, Until};
use crate::run::request::{self, Facts};
use crate::run::subject::SubjectKind;
use crate::secret::Credential;

/// What the environment says of the run: asserted, not verified.
#[derive(Clone, Debug, Default)]
pub struct RunEnv {
    /// When the run must have ended: the earlier of `TENURE_DEADLINE`, and `TENURE_TIMEOUT_SECONDS` from
    /// `TENURE_STATE_ENTERED` (or the start) on.
    pub deadline: Option<Until>,
    /// `TENURE_EXECUTION_ARN`, `TENURE_STATE_NAME`, `TENURE_STATE_ATTEMPT`, `TENURE_PARENT_EXECUTION_ARN`,
    /// `TENURE_ROOT_EXECUTION_ARN`, `TENURE_SUBJECT` with `TENURE_SUBJECT_KIND`, and `TENURE_TAG_<NAME>` by the name in
    /// lower case.
    pub facts: Facts,
    /// `TENURE_TASK_TOKEN`
    pub task_token: Option<Credential>,
    /// `TENURE_SUBJECT_FILE`: holds an OIDC token, or a sealed subject.
    pub subject_file: Option<PathBuf>,
    /// `ECS_CONTAINER_METADATA_URI_V4`: set by ECS.
    pub ecs_metadata: Option<String>,
    /// `AWS_SESSION_TOKEN`; with SnapStart, which has none of its own, `AWS_CONTAINER_AUTHORIZATION_TOKEN`: what callers of
    /// AWS's own extension present.
    pub session_token: Option<Credential>,
}

impl RunEnv {
    pub(crate) fn read(environment: &Environment, now: Moment, problems: &mut Vec<Problem>) -> Self {
        let mut reader = Reader { environment, problems };
        let deadline = reader.read("TENURE_DEADLINE", |text| request::deadline(text, now));
        let entered = reader.read("TENURE_STATE_ENTERED", |text| {
            request::rfc3339(text)
                .map(|wall| Moment::new(now.mono().saturating_sub(now.wall().saturating_sub(wall)), wall))
                .ok_or_else(|| format!("{text:?} is not a time in RFC 3339: pass $$.State.EnteredTime"))
        });
        let timeout = reader.read("TENURE_TIMEOUT_SECONDS", |text| {
            let seconds = text.trim().parse().unwrap_or(f64::NAN);
            // A clock that is ahead of ours does not make the run longer.
            let from = entered.filter(|entered| entered.wall() <= now.wall()).unwrap_or(now);
            let until = request::timeout(seconds, from).map_err(|why| format!("{text:?} {why}"))?;
            match until.left(now) {
                left if left.is_zero() => Err(format!(
                    "the time-out of {text} s has passed: TENURE_STATE_ENTERED was {}, and it is {} now",
                    from.rfc3339(),
                    now.rfc3339()
                )),
                left => Ok(Until::new(now, left)),
            }
        });
        let arn = |text: &str| text.parse().map_err(|error: crate::run::arn::ArnError| error.to_string());
        let words = |text: &str| request::text(text);
        let subject = reader.read("TENURE_SUBJECT", words);
        let kind = reader.read("TENURE_SUBJECT_KIND", |text| {
            let kind = SubjectKind::ALL.into_iter().find(|kind| kind.word() == text);
            kind.ok_or_else(|| format!("{text:?} is none of person, service, agent, scheduler"))
        });
        let facts = Facts {
            execution: reader.read("TENURE_EXECUTION_ARN", arn),
            state: reader.read("TENURE_STATE_NAME", words),
            attempt: reader.read("TENURE_STATE_ATTEMPT", |text| {
                text.parse().map_err(|_| format!("{text:?} is not a whole number: pass $$.State.RetryCount"))
            }),
            parent: reader.read("TENURE_PARENT_EXECUTION_ARN", arn),
            root: reader.read("TENURE_ROOT_EXECUTION_ARN", arn),
            subject: subject.map(|subject| (subject, kind.unwrap_or_default())),
            tags: match request::tags(environment.beginning(TAG)) {
                Ok(tags) => tags,
                Err((name, why)) => {
                    problems.push(problem(&format!("{TAG}{name}"), format!("the tag {why}")));
                    Default::default()
                }
            },
        };
        let mut reader = Reader { environment, problems };
        Self {
            deadline: deadline.into_iter().chain(timeout).min_by_key(|until| until.len()),
            facts,
            // The token itself is not quoted.
            task_token: reader.read("TENURE_TASK_TOKEN", request::task_token),
            subject_file: environment.var("TENURE_SUBJECT_FILE").map(PathBuf::from),
            ecs_metadata: environment.var("ECS_CONTAINER_METADATA_URI_V4").map(str::to_owned),
            session_token: environment
                .var("AWS_SESSION_TOKEN")
                .or_else(|| environment.var("AWS_CONTAINER_AUTHORIZATION_TOKEN"))
                .map(|token| Credential::new(token.to_owned())),
        }
    }
}

struct Reader<'a, 'p> {
    environment: &'a Environment,
    problems: &'p mut Vec<Problem>,
}

impl Reader<'_, '_> {
    fn read<T>(&mut self, name: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        match parse(self.environment.var(name)?) {
            Ok(value) => Some(value),
            Err(message) => {
                self.problems.push(problem(name, message));
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// 2026-01-01T00:00:00Z.
    const NOW: Moment = Moment::new(Duration::from_secs(5000), Duration::from_secs(1_767_225_600));

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
            (&[("TENURE_TIMEOUT_SECONDS", "90"), ("TENURE_STATE_ENTERED", "2025-12-31T23:59:30Z")], Some(60)),
            (&[("TENURE_TIMEOUT_SECONDS", "90"), ("TENURE_STATE_ENTERED", "2026-01-01T01:00:00Z")], Some(90)),
            (&[("TENURE_TIMEOUT_SECONDS", "")], None),
        ] {
            let (run, problems) = read(vars);
            assert_eq!(problems, [""; 0], "{vars:?}");
            assert_eq!(run.deadline, seconds.map(|s| Until::new(NOW, Duration::from_secs(s))), "{vars:?}");
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
            ("TENURE_STATE_ENTERED", "just now", "is not a time in RFC 3339"),
            ("TENURE_TIMEOUT_SECONDS", "0", "is not a number of seconds"),
            ("TENURE_TIMEOUT_SECONDS", "-5", "is not a number of seconds"),
            ("TENURE_TIMEOUT_SECONDS", "NaN", "is not a number of seconds"),
            ("TENURE_TIMEOUT_SECONDS", "inf", "is not a number of seconds"),
            ("TENURE_TIMEOUT_SECONDS", "5m", "is not a number of seconds"),
            ("TENURE_EXECUTION_ARN", long.as_str(), "is not the ARN of an execution"),
            ("TENURE_PARENT_EXECUTION_ARN", "orders", "is not the ARN of an execution"),
            ("TENURE_STATE_NAME", long.as_str(), "longer than 1024 characters"),
            ("TENURE_STATE_NAME", "a\nb", "has a control character, '\\n'"),
            ("TENURE_STATE_ATTEMPT", "first", "is not a whole number"),
            ("TENURE_SUBJECT_KIND", "robot", "is none of person"),
            ("TENURE_TASK_TOKEN", "a b", "holds what a task token does not"),
            ("TENURE_TAG_COMMIT", "a\tb", "has a control character"),
            ("TENURE_TAG_", "x", "has no name"),
        ] {
            let (_, problems) = read(&[(name, value)]);
            assert_eq!(problems.len(), 1, "{name}={value}: {problems:?}");
            assert!(problems[0].starts_with(&format!("environment {name}: ")), "{}", problems[0]);
            assert!(problems[0].contains(expected), "{}", problems[0]);
        }
        let (_, problems) =
            read(&[("TENURE_TIMEOUT_SECONDS", "90"), ("TENURE_STATE_ENTERED", "2025-12-31T23:00:00Z")]);
        assert!(problems[0].contains("the time-out of 90 s has passed"), "{problems:?}");
    }

    #[test]
    fn tags_are_named_in_lower_case() {
        let (run, problems) = read(&[
            ("TENURE_TAG_GIT_COMMIT", "abc"),
            ("TENURE_TAG_Team", "orders"),
            ("TENURE_STATE_NAME", "Charge the card"),
            ("TENURE_SUBJECT", "nightly"),
            ("TENURE_SUBJECT_KIND", "scheduler"),
        ]);
        assert_eq!(problems, [""; 0]);
        let tags: Vec<_> = run.facts.tags.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(tags, [("git_commit", "abc"), ("team", "orders")]);
        assert_eq!(run.facts.state.as_deref(), Some("Charge the card"));
        assert_eq!(run.facts.subject, Some(("nightly".into(), SubjectKind::Scheduler)));
    }
}
