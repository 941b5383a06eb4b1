//! From the first signal that is listened to, to the last line of the log: serving, and ending in order.

use std::time::Duration;

use rustix::process::Signal;

use super::{App, AppError, Process, Upstream};
use crate::audit::{Entry, Event};
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::init::Told;

/// The least that closing the audit log is given.
const LOG_LEAST: Duration = Duration::from_millis(100);

/// How the process ended that was told to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// In order: everybody was answered, and everything revoked, and seen to be.
    Revoked,
    /// The grace was over before that; what is left ends by itself, or is revoked at the next start.
    Left,
    /// A second signal came before that.
    Forced(Signal),
}

/// Runs a broker until SIGTERM or SIGINT, or until a task falls. SIGHUP reopens the audit log.
///
/// # Errors
/// What stands in the way, or that upstream refuses us for good at the start, or that a task panicked.
pub async fn serve(
    config: &Config,
    run: Process,
    upstream: Upstream,
    clock: Clock,
) -> Result<Ended, AppError> {
    let mut signals = Listeners::new()?;
    if run.env.ecs_metadata.is_some() {
        look_at_grace(&config.shutdown);
    }
    let grace = config.shutdown.grace;
    let mut start = std::pin::pin!(App::start(config, run, upstream, clock));
    let signal = tokio::select! {
        app = &mut start => return Box::pin(app?.until_told(&mut signals)).await,
        signal = signals.told.next() => signal,
    };
    // A login may be under way, or made: it is ended in order, in what is left of the grace.
    tracing::info!("{} while starting: what has begun is ended", name_of(signal));
    let began = tokio::time::Instant::now();
    tokio::select! {
        app = tokio::time::timeout(grace.mul_f64(0.5), start) => match app {
            Ok(app) => {
                let app = app?;
                let grace = grace.saturating_sub(began.elapsed());
                Ok(App { grace, ..app }.end(signals.told.next()).await)
            }
            Err(_) => {
                tracing::error!("the start did not end in time: a login that was made is left to its expiry, or to the next start");
                Ok(Ended::Left)
            }
        },
        signal = signals.told.next() => Ok(Ended::Forced(signal)),
    }
}

/// What a broker listens to.
struct Listeners {
    /// It is to end.
    told: Told,
    /// The audit log is to be opened anew.
    reopen: Told,
}

impl Listeners {
    fn new() -> Result<Self, AppError> {
        let listen = |signals: &[Signal]| {
            Told::listen(signals)
                .map_err(|source| AppError::System { what: "signals cannot be listened to", source })
        };
        Ok(Self { told: listen(&[Signal::TERM, Signal::INT])?, reopen: listen(&[Signal::HUP])? })
    }
}

impl App {
    /// [`serve`], for a broker that was started before.
    ///
    /// # Errors
    /// Upstream refuses us for good at the start, or a task panicked.
    pub async fn serve(self) -> Result<Ended, AppError> {
        let mut signals = Listeners::new()?;
        self.until_told(&mut signals).await
    }

    /// Serves until it is told to end, or until a task falls; then drains, revokes and closes the log.
    async fn until_told(mut self, signals: &mut Listeners) -> Result<Ended, AppError> {
        let Listeners { told, reopen } = signals;
        let supervisor = self.supervisor.clone();
        let mut established = false;
        let result = loop {
            tokio::select! {
                signal = told.next() => break Ok(signal),
                _ = reopen.next() => match self.audit.reopen().await {
                    Ok(()) => tracing::info!("SIGHUP: the audit log was reopened"),
                    Err(error) => tracing::error!(%error, "SIGHUP: the audit log was not reopened; the old file is still the log"),
                },
                name = supervisor.fallen() => break Err(AppError::Fallen(name)),
                result = self.established(), if !established => match result {
                    Ok(()) => {
                        established = true;
                        self.announce();
                    }
                    Err(error) => break Err(error),
                },
            }
        };
        if let Ok(signal) = result {
            tracing::info!(grace = %humantime::format_duration(self.grace), "{}: draining, then revoking", name_of(signal));
        }
        let ended = self.end(told.next()).await;
        result.map(|_| ended)
    }

    fn announce(&self) {
        let runs = self.broker.runs();
        let leases = match &runs.own_work().token {
            Some((grant, _)) => format!("a run token of role {}", grant.role),
            None => {
                "the login token itself: set run.token_role, so that the login needs no access to secrets"
                    .to_owned()
            }
        };
        tracing::info!(
            login = runs.method,
            run = %runs.own().run.id,
            socket = self.socket.as_ref().map(|path| path.display().to_string()),
            tcp = self.tcp.map(|address| address.to_string()),
            secrets_manager = self.secrets_manager.map(|address| address.to_string()),
            "serving; leases hang off {leases}"
        );
    }

    /// Drains, revokes and confirms, within the configured grace, and closes the log. Returns whether all of it was
    /// done in time; what was not is left to its own expiry and to the journal.
    pub async fn stop(self) -> bool {
        self.end(std::future::pending()).await == Ended::Revoked
    }

    /// [`stop`](Self::stop), in no more time than that.
    pub async fn stop_within(mut self, grace: Duration) -> bool {
        self.grace = self.grace.min(grace);
        self.stop().await
    }

    /// [Stops](Self::stop), unless `hurry` comes first: then it is over at once.
    pub async fn end(self, hurry: impl Future<Output = Signal>) -> Ended {
        // Whoever asks from now on is to go elsewhere; who has asked gets an answer.
        self.broker.stopping();
        self.doors.close();
        let outstanding = self.broker.runs().outstanding();
        let orderly = async {
            let drained = tokio::time::timeout(self.grace.mul_f64(0.2), async {
                while self.broker.metrics().connections.get() > 0 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            });
            let drained = drained.await.is_ok();
            if !drained {
                tracing::warn!("not every request could be answered in time");
            }
            let revoked = self.broker.runs().end(self.grace.mul_f64(0.7)).await;
            (drained, revoked)
        };
        let (ended, left) = tokio::select! {
            biased;
            signal = hurry => {
                tracing::warn!("{}: ending at once", name_of(signal));
                (Ended::Forced(signal), "ended by a second signal, before everything was revoked")
            }
            (drained, revoked) = orderly => match (drained, revoked) {
                (true, true) => (Ended::Revoked, "everything was revoked"),
                (false, true) => (Ended::Left, "everything was revoked"),
                (_, false) => (Ended::Left, "not everything could be revoked in time"),
            },
        };
        for token in outstanding.iter().filter(|token| !token.is_gone()) {
            tracing::error!("not everything could be revoked in time: {token}");
        }
        self.audit.note(&Entry::done(Event::Shutdown).detail(left));
        // A disk that hangs does not keep us: what is left of the grace is for the log.
        let close = self.audit.clone().close();
        match tokio::time::timeout(self.grace.mul_f64(0.1).max(LOG_LEAST), close).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the audit log was not closed cleanly"),
            Err(_) => tracing::error!("the audit log was not closed in time"),
        }
        ended
    }
}

/// Between SIGTERM and SIGKILL ECS leaves a container so long, where its definition has no `stopTimeout`. Nothing in a
/// container tells it.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

fn look_at_grace(shutdown: &config::Shutdown) {
    if shutdown.stop_timeout.is_none() && shutdown.grace >= STOP_TIMEOUT {
        tracing::warn!(
            "shutdown.grace is {}, and ECS kills a container 30 s after SIGTERM unless its stopTimeout says otherwise: set \
             stopTimeout (120 s at most) above the grace, and shutdown.stop_timeout to the same",
            humantime::format_duration(shutdown.grace)
        );
    }
}

fn name_of(signal: Signal) -> &'static str {
    match signal {
        Signal::TERM => "SIGTERM",
        Signal::INT => "SIGINT",
        _ => "a signal",
    }
}
