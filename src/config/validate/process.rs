//! How the process itself behaves: what it says, and how it ends.

use std::time::Duration;

use tracing_subscriber::filter::{LevelFilter, Targets};

use super::{Check, HOUR, SECOND};
use crate::config::Shutdown;
use crate::config::raw::RawShutdown;

/// ECS leaves a container 120 s at most between SIGTERM and SIGKILL (`stopTimeout` on Fargate).
const LONGEST_GRACE: Duration = Duration::from_secs(115);

impl Check<'_> {
    pub(super) fn shutdown(&mut self, raw: &RawShutdown) -> Shutdown {
        let grace = self.duration("shutdown.grace", raw.grace.as_ref(), 20 * SECOND, SECOND, LONGEST_GRACE);
        let stop = raw.stop_timeout.as_ref();
        let stop_timeout =
            stop.map(|_| self.duration("shutdown.stop_timeout", stop, 30 * SECOND, 2 * SECOND, HOUR));
        if let Some(stop) = stop_timeout.filter(|stop| grace >= *stop) {
            let message = format!(
                "it is {}, and the process is killed {} after SIGTERM (shutdown.stop_timeout): make it shorter by some \
                 seconds, or the platform's time-out longer",
                humantime::format_duration(grace),
                humantime::format_duration(stop)
            );
            self.refuse::<()>("shutdown.grace", message);
        }
        Shutdown { grace, stop_timeout }
    }

    pub(super) fn filter(&mut self, text: Option<&str>) -> Targets {
        let text = text.unwrap_or("info");
        let fallback = Targets::new().with_default(LevelFilter::INFO);
        // `Targets` takes a word that is no level for a target, of which it then enables everything: a typo would be
        // loud and unnoticed.
        let bare = text
            .split(',')
            .map(str::trim)
            .find(|part| !part.contains('=') && part.parse::<LevelFilter>().is_err());
        if bare.is_none()
            && let Ok(targets) = text.parse()
        {
            return targets;
        }
        let word = bare.filter(|word| !word.is_empty()).unwrap_or(text);
        let message = format!(
            "{word:?} is not a level (off, error, warn, info, debug, trace) or a target with one, such as \
             \"info,tenure::vault=debug\""
        );
        self.refuse::<()>("log.filter", message);
        fallback
    }
}
