//! What the login is made with, and this machine's clock.

use std::time::{Duration, SystemTime};

use super::cure;
use super::report::{Cure, Report, Step};
use crate::clock::Moment;
use crate::config::Method;
use crate::identity::aws::AwsLogin;
use crate::lease::failure::Class;

/// Clocks that differ by more make deadlines come early or late; AWS refuses signatures from five minutes on.
const APART: Duration = Duration::from_secs(30);

/// What there is to log in with.
pub(super) struct Seen {
    /// Whom STS takes us for.
    pub(super) arn: Option<String>,
    /// Whether there are credentials and a region.
    pub(super) ready: bool,
}

/// The AWS credentials, the region, and what STS says of them.
pub(super) async fn aws(login: &AwsLogin, report: &mut Report) -> Seen {
    let found = login.inspect().await;
    let ready = found.region.is_ok() && found.credentials.is_ok();
    match &found.credentials {
        Ok(credentials) => {
            let source = credentials.source.unwrap_or("a provider that does not say which");
            let left = match credentials.left {
                Some(left) => {
                    format!("good for {}", humantime::format_duration(Duration::from_secs(left.as_secs())))
                }
                None => "without an end that is known here".to_owned(),
            };
            report.good(
                Step::Credentials,
                format!("access key {} from {source}, {left}", credentials.access_key),
            );
        }
        Err(failure) => report.wrong(Step::Credentials, &*failure.message, cure::credentials()),
    }
    match &found.region {
        Ok(region) => report.good(Step::Region, format!("the login is signed for STS in {region}")),
        Err(failure) => report.wrong(
            Step::Region,
            &*failure.message,
            Cure::new("Set the region that Vault's sts_region names:", "export AWS_REGION=eu-west-1"),
        ),
    }
    let Some(caller) = found.caller else {
        let why = "there is nothing to ask STS with";
        report.skipped(Step::Identity, why);
        report.skipped(Step::Clock, format!("STS: {why}"));
        return Seen { arn: None, ready };
    };
    match &caller.arn {
        Ok(arn) => report.good(Step::Identity, arn.as_str()),
        Err(failure) if failure.class == Class::Transient => report.unknown(
            Step::Identity,
            &*failure.message,
            Cure::new("No fault by itself: it is Vault that asks STS at a login.", ""),
        ),
        Err(failure) => report.wrong(Step::Identity, &*failure.message, cure::credentials()),
    }
    match caller.date {
        Some((theirs, ours)) => skew("STS", theirs, ours, report),
        None => report.unknown(Step::Clock, "STS: it gave no date", Cure::default()),
    }
    Seen { arn: caller.arn.ok(), ready }
}

/// The file of another method.
pub(super) fn file(method: &Method, why: Option<&str>, report: &mut Report) -> bool {
    let (word, why) = (method.word(), why.map(|why| format!(" (auto: {why})")).unwrap_or_default());
    let Some(file) = method.file() else { return true };
    // A file is enough to begin with: what is in it the login itself judges, and names.
    match std::fs::File::open(file).and_then(|open| open.metadata()) {
        Ok(meta) if meta.is_file() && meta.len() > 0 => {
            report.good(Step::Credentials, format!("{word}: {} can be read{why}", file.display()));
            true
        }
        found => {
            let what = match found {
                Err(error) => error.to_string(),
                Ok(meta) if !meta.is_file() => "it is not a file".to_owned(),
                Ok(_) => "it is empty".to_owned(),
            };
            report.wrong(
                Step::Credentials,
                format!("the {word} login needs {}: {what}{why}", file.display()),
                Cure::new(
                    "Put the file there, so that this user can read it:",
                    format!("ls -l {}", file.display()),
                ),
            );
            false
        }
    }
}

/// This machine's clock beside `theirs`, which came at `ours`.
pub(super) fn skew(whose: &str, theirs: SystemTime, ours: Moment, report: &mut Report) {
    let ours = ours.system_time();
    let (apart, direction) = match ours.duration_since(theirs) {
        Ok(ahead) => (ahead, "ahead of"),
        Err(behind) => (behind.duration(), "behind"),
    };
    // A date has whole seconds, and was written a moment before it was read.
    let whole = humantime::format_duration(Duration::from_secs(apart.as_secs()));
    if apart <= Duration::from_secs(2) {
        report.good(Step::Clock, format!("{whose}: no more than 2s apart"));
    } else if apart <= APART {
        report.good(Step::Clock, format!("{whose}: this machine is {whole} {direction} it"));
    } else {
        report.wrong(
            Step::Clock,
            format!("{whose}: this machine's clock is {whole} {direction} it; AWS refuses signatures from 5m on, and \
                     deadlines are off by as much"),
            Cure::new("Set this machine's clock, or that of the other side:", "chronyc tracking\nchronyc makestep"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::Verdict;
    use super::*;

    #[test]
    fn the_skew_is_named_with_its_direction() {
        let at = |seconds| Moment::new(Duration::ZERO, Duration::from_secs(seconds));
        for (ours, theirs, words) in [
            (1_001, 1_000, "no more than 2s apart"),
            (1_010, 1_000, "10s ahead of"),
            (1_000, 1_600, "10m behind"),
        ] {
            let mut report = Report::default();
            skew("Vault", at(theirs).system_time(), at(ours), &mut report);
            let (Verdict::Good(text) | Verdict::Wrong(text, _)) = &report.findings[0].verdict else {
                panic!("{report:?}")
            };
            assert!(text.contains(words), "{text}");
            assert_eq!(report.is_good(), words != "10m behind");
        }
    }
}
