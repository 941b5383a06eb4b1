//! The process's own log lines: in which form, and how much of whom.

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer, Registry};

use super::Session;
use crate::config::{Log, LogFormat};

/// What our own targets begin with.
const OURS: &str = "tenure";

/// The most that other crates say. Below it are requests as they are sent: today's crates leave most secrets out of them, and
/// the AWS SDK only until `LOG_SIGNABLE_BODY` is set.
const OTHERS: LevelFilter = LevelFilter::INFO;

/// Crates that say no more than this, whatever is asked for: spans that a request was built, and errors, with its body
/// perhaps, that are ours to tell of.
const QUIET: &[(&str, LevelFilter)] = &[
    ("rustify", LevelFilter::OFF),
    ("vaultrs", LevelFilter::OFF),
    ("aws_smithy_runtime", LevelFilter::WARN),
];

/// Log lines go to stderr: stdout is the audit log's, where it is asked for.
pub(super) fn start(log: &Log, session: &Session) -> Result<(), String> {
    let terminal = session.screen.err_is_terminal;
    let colour = terminal && session.environment.var("NO_COLOR").is_none();
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match log.format {
        LogFormat::Auto if terminal => lines.with_ansi(colour).boxed(),
        LogFormat::Text => lines.with_ansi(colour).boxed(),
        // All spans are in the list, the current one among them.
        LogFormat::Auto | LogFormat::Json => {
            lines.json().flatten_event(true).with_current_span(false).boxed()
        }
    };
    start_lines(lines, log)
}

/// Sends what the filter lets through to `lines`.
pub(super) fn start_lines(lines: Box<dyn Layer<Registry> + Send + Sync>, log: &Log) -> Result<(), String> {
    let subscriber = tracing_subscriber::registry().with(lines.with_filter(capped(&log.filter)));
    subscriber.try_init().map_err(|error| format!("logging cannot start: {error}"))
}

/// The filter, as far as it lets no secret through.
fn capped(filter: &Targets) -> Targets {
    let asked = filter.default_level().unwrap_or(LevelFilter::OFF);
    let mut capped = Targets::new().with_default(asked.min(OTHERS)).with_target(OURS, asked);
    for (target, level) in filter {
        // A prefix of our name, such as `ten`, is not ours alone.
        let ours = target == OURS || target.starts_with("tenure::");
        capped = capped.with_target(target, if ours { level } else { level.min(OTHERS) });
    }
    for (target, most) in QUIET {
        let level = level_of(filter, target).min(*most);
        capped = capped.with_target(*target, level);
    }
    capped
}

fn level_of(filter: &Targets, target: &str) -> LevelFilter {
    let levels =
        [LevelFilter::TRACE, LevelFilter::DEBUG, LevelFilter::INFO, LevelFilter::WARN, LevelFilter::ERROR];
    let enabled =
        |level: &LevelFilter| level.into_level().is_some_and(|level| filter.would_enable(target, &level));
    levels.into_iter().find(enabled).unwrap_or(LevelFilter::OFF)
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn others_say_no_more_than_that_something_happened() {
        for (filter, target, level, shown) in [
            ("info", "tenure::vault", Level::INFO, true),
            ("info", "tenure::vault", Level::DEBUG, false),
            ("trace", "tenure::vault", Level::TRACE, true),
            ("trace", "hyper::proto", Level::INFO, true),
            ("trace", "hyper::proto", Level::DEBUG, false),
            ("warn,hyper=trace", "hyper::proto", Level::INFO, true),
            ("warn,hyper=trace", "hyper::proto", Level::DEBUG, false),
            ("warn,tenure::vault=debug", "tenure::vault::connect", Level::DEBUG, true),
            ("warn,tenure::vault=debug", "tenure::door", Level::INFO, false),
            ("trace,tenure=off", "tenure::door", Level::ERROR, false),
            ("trace", "aws_sigv4::http_request::sign", Level::TRACE, false),
            ("trace", "aws_smithy_runtime::client", Level::INFO, false),
            ("trace,aws_smithy_runtime::client=trace", "aws_smithy_runtime::client", Level::DEBUG, false),
            ("trace", "aws_smithy_runtime::client", Level::WARN, true),
            ("trace,rustify=trace", "rustify::endpoint", Level::ERROR, false),
            ("off", "tenure::door", Level::ERROR, false),
            ("off", "rustls", Level::ERROR, false),
        ] {
            let capped = capped(&filter.parse().expect("a filter"));
            assert_eq!(capped.would_enable(target, &level), shown, "{filter}: {target} {level}");
        }
    }
}
