//! Log lines in Lambda's form, so that they are filtered and found as those of the function itself.
//!
//! <https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-logformat.html>: JSON with `timestamp`
//! (RFC 3339), `level` and `message`, and with `requestId` where it is known.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serializer as _;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Which invocation lines are about. A process has one log, and an environment that serves several invocations at a time
/// says of none that it is the one.
static SERVED: Mutex<Option<Arc<str>>> = Mutex::new(None);

/// From now on lines are about this invocation.
pub(super) fn about(request: &str) {
    *SERVED.lock().unwrap_or_else(PoisonError::into_inner) = Some(request.into());
}

/// Lines are not about this invocation any more, if they were.
pub(super) fn about_no_more(request: &str) {
    let mut served = SERVED.lock().unwrap_or_else(PoisonError::into_inner);
    served.take_if(|served| **served == *request);
}

/// Writes an event as a JSON object, one line.
#[derive(Clone, Copy, Debug)]
pub struct Lines;

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let served = SERVED.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut fields = Fields::default();
        event.record(&mut fields);
        let about = event.metadata();
        let message = fields.0.remove("message").unwrap_or_default();
        // What Lambda looks at comes first, and is not for an event to say.
        let first = [
            ("timestamp", Some(time.into())),
            ("level", Some(about.level().as_str().into())),
            ("requestId", served.as_deref().map(Value::from)),
            ("message", Some(message)),
            ("target", Some(about.target().into())),
        ];
        let said = fields.0.iter().filter(|(name, _)| !first.iter().any(|(known, _)| known == name));
        let said = said.map(|(name, value)| (name.as_str(), value));
        let mut line = Vec::new();
        serde_json::Serializer::new(&mut line)
            .collect_map(first.iter().filter_map(|(name, value)| Some((*name, value.as_ref()?))).chain(said))
            .map_err(|_| fmt::Error)?;
        writeln!(writer, "{}", String::from_utf8_lossy(&line))
    }
}

#[derive(Default)]
struct Fields(Map<String, Value>);

impl Fields {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    /// A duration's milliseconds come as these.
    fn record_u128(&mut self, field: &Field, value: u128) {
        self.put(field, u64::try_from(value).unwrap_or(u64::MAX));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_has_what_lambda_looks_at_and_names_the_invocation() {
        let kept = Kept::default();
        let writer = kept.clone();
        let layer = tracing_subscriber::fmt::layer().event_format(Lines).with_writer(move || writer.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::warn!(millis = 7_u128, level = "mine", ok = true, path = %"a/b", "one \"word\"\n{}", 1);
            about("6d68");
            tracing::info!("within");
            about_no_more("another");
            tracing::info!("still");
            about_no_more("6d68");
            tracing::error!("after");
        });
        let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 4, "one line each: {text}");
        assert!(text.starts_with("{\"timestamp\":\""), "{text}");
        let first = &lines[0];
        assert_eq!((&first["level"], &first["message"]), (&"WARN".into(), &"one \"word\"\n1".into()));
        assert_eq!(
            (&first["millis"], &first["ok"], &first["path"]),
            (&7.into(), &true.into(), &"a/b".into())
        );
        let time = first["timestamp"].as_str().unwrap();
        assert!(crate::run::request::rfc3339(time).is_some(), "{time}");
        let requests: Vec<_> = lines.iter().map(|line| line["requestId"].as_str()).collect();
        assert_eq!(requests, [None, Some("6d68"), Some("6d68"), None]);
    }
}
