//! Metrics as CloudWatch takes them out of the log: the embedded metric format.
//!
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>
//!
//! What happens in an invocation is told when the next one begins, or when the environment ends: by the end of the
//! invocation itself the process may be frozen already. The line bears the time at which the invocation began.

use std::io::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::broker::Counts;
use crate::clock::Moment;
use crate::run::lambda::Lambda;

/// Tells what has happened since it told of it last.
#[derive(Debug)]
pub(super) struct Meter {
    namespace: String,
    function: Box<str>,
    version: Box<str>,
    told: Mutex<Told>,
}

#[derive(Debug)]
struct Told {
    /// What was told already.
    counts: Counts,
    /// When what is counted now began.
    since: Moment,
    /// The invocation that it belongs to; `None` before the first.
    request: Option<Box<str>>,
    /// How long the start took, until that is told.
    cold: Option<Duration>,
}

impl Meter {
    /// For that function, from now on.
    pub(super) fn new(namespace: &str, function: &Lambda, now: Moment) -> Self {
        Self {
            namespace: namespace.to_owned(),
            function: function.function.clone(),
            version: function.version.clone(),
            told: Mutex::new(Told { counts: Counts::default(), since: now, request: None, cold: None }),
        }
    }

    /// The broker has started, and it took so long.
    pub(super) fn started(&self, took: Duration) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).cold = Some(took);
    }

    /// The line of what has happened until now, if anything has; what comes belongs to the invocation that begins. `None`:
    /// the environment ends.
    pub(super) fn turn(&self, request: Option<&str>, now: Moment, counts: Counts) -> Option<String> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut told.counts, counts);
        let since = std::mem::replace(&mut told.since, now);
        let of = std::mem::replace(&mut told.request, request.map(Into::into));
        let cold = told.cold.take();
        drop(told);
        let happened = [
            ("ReadsFromCache", counts.cache - before.cache),
            ("ReadsFromVault", counts.vault - before.vault),
            ("ReadsStale", counts.stale - before.stale),
            ("Rotations", counts.rotations - before.rotations),
            ("Denials", counts.denied - before.denied),
            ("Failures", counts.failed - before.failed),
        ];
        if cold.is_none() && happened.iter().all(|(_, count)| *count == 0) {
            return None;
        }
        let cold = cold.map(|took| ("ColdStart", "Milliseconds", saturated(took)));
        let values = cold.into_iter().chain(happened.map(|(name, count)| (name, "Count", count)));
        Some(self.line(since, of.as_deref(), values))
    }

    fn line(
        &self,
        at: Moment,
        request: Option<&str>,
        values: impl Iterator<Item = (&'static str, &'static str, u64)>,
    ) -> String {
        let (mut metrics, mut line) = (Vec::new(), Map::new());
        for (name, unit, value) in values {
            metrics.push(json!({ "Name": name, "Unit": unit }));
            line.insert(name.to_owned(), value.into());
        }
        // CloudWatch takes no dimension without a value.
        let dimensions: &[&str] = if self.function.is_empty() { &[] } else { &["FunctionName"] };
        let directive =
            json!({ "Namespace": self.namespace, "Dimensions": [dimensions], "Metrics": metrics });
        line.insert(
            "_aws".to_owned(),
            json!({ "Timestamp": saturated(at.wall()), "CloudWatchMetrics": [directive] }),
        );
        line.insert("FunctionName".to_owned(), (*self.function).into());
        line.insert("Version".to_owned(), (*self.version).into());
        if let Some(request) = request {
            line.insert("requestId".to_owned(), request.into());
        }
        Value::Object(line).to_string()
    }
}

fn saturated(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Prints a line in one piece: audit lines may go the same way.
pub(super) fn print(line: &str) {
    let mut out = std::io::stdout().lock();
    // Nobody to tell: the log is what cannot be written.
    let _ = out.write_all(format!("{line}\n").as_bytes()).and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Moment = Moment::new(Duration::ZERO, Duration::from_millis(1_767_225_600_000));

    fn meter(function: &str) -> Meter {
        let function = Lambda {
            function: function.into(),
            version: "$LATEST".into(),
            log_stream: "stream".into(),
            invocation: None,
            trace: None,
        };
        Meter::new("Tenure", &function, START)
    }

    fn counts(cache: u64, vault: u64, denied: u64) -> Counts {
        Counts { cache, vault, denied, ..Counts::default() }
    }

    /// What the specification and the JSON schema in it demand of a line.
    #[track_caller]
    fn conforms(line: &str) -> Value {
        assert!(!line.contains('\n') && line.len() < 256 * 1024, "one event");
        let root: Value = serde_json::from_str(line).expect("JSON");
        let about = root["_aws"].as_object().expect("_aws is an object");
        assert!(about["Timestamp"].is_u64(), "an integer");
        let text = |value: &Value| {
            value
                .as_str()
                .filter(|text| (1..=255).contains(&text.len()))
                .expect("1 to 255 characters")
                .to_owned()
        };
        for directive in about["CloudWatchMetrics"].as_array().expect("an array") {
            let members: Vec<_> = directive.as_object().expect("an object").keys().collect();
            assert_eq!(members, ["Dimensions", "Metrics", "Namespace"], "and no others");
            text(&directive["Namespace"]);
            let sets = directive["Dimensions"].as_array().expect("an array");
            assert!(!sets.is_empty());
            for set in sets {
                let set = set.as_array().expect("an array of names");
                assert!(set.len() <= 9);
                set.iter().for_each(|name| drop(text(&root[text(name)])));
            }
            let metrics = directive["Metrics"].as_array().expect("an array");
            assert!(!metrics.is_empty() && metrics.len() <= 100);
            for metric in metrics {
                assert!(metric.as_object().expect("an object").len() == 2);
                assert!(matches!(metric["Unit"].as_str(), Some("Milliseconds" | "Count")));
                assert!(root[text(&metric["Name"])].is_u64(), "{metric} has a value");
            }
        }
        root
    }

    #[test]
    fn lines_are_what_cloudwatch_takes() {
        let meter = meter("orders");
        meter.started(Duration::from_millis(412));
        let begin = START.plus(Duration::from_secs(1));
        let line = conforms(&meter.turn(Some("6d68"), begin, counts(0, 1, 0)).expect("a line"));
        assert_eq!(line["_aws"]["Timestamp"], 1_767_225_600_000_u64);
        assert_eq!((&line["ColdStart"], &line["ReadsFromVault"]), (&412.into(), &1.into()));
        assert_eq!((&line["FunctionName"], &line["Version"]), (&"orders".into(), &"$LATEST".into()));
        assert_eq!(line["requestId"], Value::Null, "the start belongs to no invocation");
        // What the invocation did is told when it is over, under its id and its time.
        let end = begin.plus(Duration::from_secs(900));
        let line = conforms(&meter.turn(None, end, counts(5, 1, 2)).expect("a line"));
        assert_eq!(line["_aws"]["Timestamp"], 1_767_225_601_000_u64);
        assert_eq!((&line["requestId"], &line["ReadsFromCache"]), (&"6d68".into(), &5.into()));
        assert_eq!((&line["ReadsFromVault"], &line["Denials"]), (&0.into(), &2.into()));
        assert_eq!(line["ColdStart"], Value::Null, "there is one start");
    }

    #[test]
    fn an_invocation_that_needs_nothing_says_nothing() {
        let meter = meter("orders");
        assert_eq!(meter.turn(Some("a"), START, Counts::default()), None);
        assert!(meter.turn(Some("b"), START, counts(1, 0, 0)).is_some());
        assert_eq!(meter.turn(Some("c"), START, counts(1, 0, 0)), None, "it was told");
        assert_eq!(meter.turn(None, START, counts(1, 0, 0)), None);
    }

    #[test]
    fn a_function_without_a_name_is_no_dimension() {
        let meter = meter("");
        let line = conforms(&meter.turn(None, START, counts(1, 0, 0)).expect("a line"));
        assert_eq!(line["_aws"]["CloudWatchMetrics"][0]["Dimensions"], json!([[]]));
    }
}
