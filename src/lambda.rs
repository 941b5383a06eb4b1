//! The broker as a Lambda extension: the same engine, doors, policy and audit, in the life cycle of a function.
//!
//! ```text
//!   register ─ log in, prefetch ─ next ═(frozen)═ INVOKE ─ refresh ─ next ═(frozen)═ INVOKE … SHUTDOWN ─ revoke
//!              └ the function waits for it         └ while the function runs
//! ```
//!
//! To ask for the next event is to say that the process may be frozen, for seconds or for days. So it is asked for only
//! when no call to upstream is under way. Where something will have to be done before or when the invocation ends (a token
//! or a lease to renew, a run of its own or one that the function registers to revoke), the question waits until that is
//! done, which telemetry tells; otherwise it is asked as soon as everything is refreshed, and costs the function nothing.
//! What hangs then keeps the environment for a moment and no longer; it is asked for again after the freeze.
//!
//! No timer is trusted across a freeze: what is held is judged by the wall clock before it is served, as everywhere
//! ([`crate::clock`]), and what would not live until the invocation's deadline is renewed or replaced as it begins.
//!
//! With SnapStart nothing secret is made before the snapshot: neither handle, nor key, nor the boot id that the log's chain
//! begins with. The listeners are bound, so that the function's first read waits for the broker instead of failing.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};

use crate::app::{App, AppError, Listeners, Process, Upstream, process_run};
use crate::causes::causes;
use crate::clock::{Clock, Moment, Until};
use crate::config::{Config, DoorToken, LAMBDA_FOLDER, LambdaInit, LambdaRun, RunEnv};
use crate::lease::keeper::Refusal;
use crate::lease::upstream::ReadKey;
use crate::run::lambda::Invocation;
use crate::runs::{Active, Runs};
use crate::supervise::Supervisor;

mod api;
mod emf;
mod environ;
mod lines;
mod telemetry;

pub use api::{ApiError, Events, Extension, Happened};
use emf::Meter;
pub use environ::{AwsEnv, Start};
pub use lines::Lines;
use telemetry::{Telemetry, Told};

/// A process that was away for longer was frozen, and its connections may be gone.
const FROZEN: Duration = Duration::from_secs(2);

/// What is spared of the time that Lambda gives, to be done before it is up.
const SPARE: Duration = Duration::from_millis(150);

/// What is left to do when the function is done may take this long: the invocation lasts as long as that does. What is not
/// done by then goes on when the process does.
const AFTERWARDS: Duration = Duration::from_secs(2);

/// How long an invocation may last where nobody says: the longest time-out of a function.
const LONGEST_INVOCATION: Duration = Duration::from_secs(900);

/// Why the extension ends before its time: what Lambda is told, and what the log says.
#[derive(Debug)]
pub struct Fatal {
    /// The kind of error, in Lambda's form: `Extension.ConfigInvalid`.
    pub kind: &'static str,
    /// What is wrong.
    pub message: String,
    /// Whether the function had started.
    pub started: bool,
}

impl Fatal {
    fn init(kind: &'static str, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), started: false }
    }

    fn exit(kind: &'static str, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), started: true }
    }
}

/// Makes the way to upstream for a process.
pub type MakeUpstream = Box<dyn Fn(&Config, &Process, &Clock) -> Result<Upstream, AppError> + Send>;

/// The extension, before it serves.
pub struct Setup {
    /// Registered already: it is the first thing that is done.
    pub extension: Extension,
    /// What Lambda says of the function.
    pub aws: AwsEnv,
    /// The configuration.
    pub config: Config,
    /// What the environment says of the run.
    pub run: RunEnv,
    /// Makes the way to upstream: [`Upstream::vault`].
    pub upstream: MakeUpstream,
    /// Time.
    pub clock: Clock,
    /// When the process began.
    pub began: Moment,
}

/// Serves until Lambda shuts the environment down.
///
/// # Errors
/// [`Fatal`]: Lambda is yet to be told.
pub async fn serve(setup: Setup) -> Result<(), Fatal> {
    let Setup { extension, aws, mut config, run, upstream, clock, began } = setup;
    let supervisor = Supervisor::default();
    let over = Arc::new(Notify::new());
    folder(&config).map_err(|why| Fatal::init("Extension.ListenFailed", why))?;
    let listeners = Listeners::bind(&config.listen).await;
    let listeners = listeners.map_err(|error| Fatal::init("Extension.ListenFailed", causes(&error)))?;
    // What every environment of a snapshot would share is no secret, so it does without.
    let word = match aws.start {
        Start::Snapshot => "snapshot".to_owned(),
        _ => getrandom::u64().map(|bits| format!("{bits:016x}")).unwrap_or_default(),
    };
    let (tell, told) = mpsc::unbounded_channel();
    let telemetry = match Telemetry::listen(&word).await {
        Ok(telemetry) => extension
            .subscribe(&telemetry.destination())
            .await
            .map(|()| drop(supervisor.spawn("telemetry", telemetry.serve(tell, supervisor.clone()))))
            .map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    let hears = telemetry.is_ok();
    if let Err(why) = telemetry {
        tracing::warn!("the end of invocations is not known before the next one: {why}");
        if aws.start == Start::Concurrent {
            return Err(Fatal::init("Extension.TelemetryFailed", why));
        }
    }
    let prefetch = match config.lambda.run {
        LambdaRun::Environment => Vec::new(),
        LambdaRun::Invocation => std::mem::take(&mut config.prefetch),
    };
    let metrics = config.lambda.metrics.as_deref();
    let meter = metrics.map(|namespace| Arc::new(Meter::new(namespace, &aws.function, began)));
    let start = Begin { config, run, aws, upstream, listeners: Some(listeners) };
    let mut stage = Stage {
        extension,
        start,
        keys: prefetch.iter().map(|path| ReadKey::secret(path.as_str())).collect(),
        app: None,
        told: Some(told),
        over,
        hears,
        meter,
        supervisor,
        clock,
        asked: began,
    };
    let result = stage.run(began).await;
    if let (Err(_), Some(app)) = (&result, stage.app.take()) {
        app.stop_within(Duration::from_secs(1)).await;
    }
    result
}

/// What the broker is started with, once.
struct Begin {
    config: Config,
    run: RunEnv,
    aws: AwsEnv,
    upstream: MakeUpstream,
    listeners: Option<Listeners>,
}

impl Begin {
    async fn app(&mut self, clock: &Clock) -> Result<App, AppError> {
        let listeners = match self.listeners.take() {
            Some(listeners) => listeners,
            None => Listeners::bind(&self.config.listen).await?,
        };
        let mut process = process_run(std::mem::take(&mut self.run))?;
        process.lambda = Some(self.aws.function.clone());
        let upstream = (self.upstream)(&self.config, &process, clock)?;
        App::start_on(listeners, &self.config, process, upstream, clock.clone()).await
    }
}

struct Stage {
    extension: Extension,
    start: Begin,
    /// What invocations with a token of their own are given at once.
    keys: Vec<ReadKey>,
    app: Option<App>,
    /// What telemetry tells, until the broker has begun that wants to know.
    told: Option<mpsc::UnboundedReceiver<Told>>,
    /// An invocation is over.
    over: Arc<Notify>,
    /// Whether telemetry is heard.
    hears: bool,
    /// Tells CloudWatch what has happened, where that is wanted.
    meter: Option<Arc<Meter>>,
    supervisor: Supervisor,
    clock: Clock,
    /// When the last event was asked for.
    asked: Moment,
}

impl Stage {
    async fn run(&mut self, began: Moment) -> Result<(), Fatal> {
        if self.start.aws.start != Start::Snapshot {
            self.begin().await?;
            self.ready(began).await?;
        }
        self.live().await
    }

    /// Starts the broker: callers may come from now on, and wait for its login.
    async fn begin(&mut self) -> Result<(), Fatal> {
        let app = self.start.app(&self.clock).await;
        let app = app.map_err(|error| Fatal::init("Extension.StartFailed", causes(&error)))?;
        let runs = Arc::clone(app.broker().runs());
        let mut told = self.told.take();
        let (listening, over) = (Arc::clone(&runs), Arc::clone(&self.over));
        let concurrent = self.start.aws.start == Start::Concurrent;
        let keys = self.own_keys().map(<[ReadKey]>::to_vec);
        let clock = self.clock.clone();
        // Where invocations are not told of, their ends are.
        let meter = self.meter.clone().filter(|_| concurrent).map(|meter| (meter, Arc::clone(app.broker())));
        self.supervisor.spawn("invocations", async move {
            while let Some(event) = hear(&mut told).await {
                match event {
                    Told::Started { request, trace } if concurrent => {
                        let until = Until::new(clock.now(), LONGEST_INVOCATION);
                        let invocation = Invocation {
                            request: request.into(),
                            function_arn: None,
                            trace: trace.map(Into::into),
                        };
                        if let Err(error) = listening.invoke(&invocation, Some(until), keys.as_deref()) {
                            tracing::error!("an invocation is not served as one: {}", causes(&error));
                        }
                    }
                    Told::Started { .. } => {}
                    Told::Done { request, status } => {
                        tracing::debug!(request, status, "the invocation is over");
                        listening.invoked(&request);
                        lines::about_no_more(&request);
                        if let Some((meter, broker)) = &meter {
                            let line = meter.turn(None, clock.now(), broker.counts());
                            line.iter().for_each(|line| emf::print(line));
                        }
                        over.notify_one();
                    }
                }
            }
        });
        self.app = Some(app);
        Ok(())
    }

    /// Waits for the login and what is to be fetched, as long as the function may be held up.
    async fn ready(&self, began: Moment) -> Result<(), Fatal> {
        let Some(app) = &self.app else { return Ok(()) };
        let runs = app.broker().runs();
        let spent = self.clock.now().since(began);
        let left = self.start.config.lambda.init_timeout.saturating_sub(spent);
        let ready = ready(runs, left).await;
        if let Some(meter) = &self.meter {
            meter.started(self.clock.now().since(began));
        }
        match (ready, self.start.config.lambda.init) {
            (Ok(()), _) => {
                let spent = self.clock.now().since(began);
                tracing::info!(login = runs.method, run = %runs.own().run.id, millis = spent.as_millis(), "serving");
                Ok(())
            }
            (Err(fatal), LambdaInit::Fail) => Err(fatal),
            (Err(fatal), LambdaInit::Lazy) => {
                tracing::error!("the function starts without: {}; it is tried further", fatal.message);
                Ok(())
            }
        }
    }

    /// What an invocation with a token of its own is given; `None`: it reads with the environment's.
    fn own_keys(&self) -> Option<&[ReadKey]> {
        (self.start.config.lambda.run == LambdaRun::Invocation).then_some(&*self.keys)
    }

    async fn live(&mut self) -> Result<(), Fatal> {
        loop {
            self.asked = self.clock.now();
            let extension = self.extension.clone();
            let next = extension.next();
            let event = match &self.app {
                None => next.await,
                Some(app) => tokio::select! {
                    event = next => event,
                    name = app.fallen() => return Err(Fatal::exit("Extension.Crash", AppError::Fallen(name).to_string())),
                },
            };
            match event.map_err(|error| Fatal::exit("Extension.ApiFailed", causes(&error)))? {
                Happened::Invoke { request, deadline, function_arn, trace } => {
                    let invocation = Invocation {
                        request: request.into(),
                        function_arn: Some(function_arn.into()),
                        trace: trace.map(Into::into),
                    };
                    self.invoked(&invocation, deadline).await?;
                }
                Happened::Shutdown { reason, deadline } => {
                    self.shut_down(&reason, deadline).await;
                    return Ok(());
                }
            }
        }
    }

    /// An invocation begins: everything is judged anew, and what would not outlive it is refreshed while the function runs.
    async fn invoked(&mut self, invocation: &Invocation, deadline: Duration) -> Result<(), Fatal> {
        let now = self.clock.now();
        lines::about(&invocation.request);
        let until = Until::new(now, deadline.saturating_sub(now.wall()));
        let late = |fatal| Fatal { started: true, ..fatal };
        let first = self.app.is_none();
        if first {
            self.begin().await.map_err(late)?;
        }
        let Some(app) = &self.app else { return Ok(()) };
        self.turn(app, Some(&invocation.request), now);
        let runs = Arc::clone(app.broker().runs());
        if now.since(self.asked) > FROZEN {
            runs.thawed();
        }
        runs.look_at_login();
        // Whatever was open is over: only one is served at a time, and its end was told while nobody could listen.
        for before in runs.invocations() {
            if before.invocation() != Some(&invocation.request) {
                runs.finish(&before, crate::runs::Cause::Ended);
            }
        }
        let active = runs.invoke(invocation, Some(until), self.own_keys());
        let active = active.map_err(|error| Fatal::exit("Extension.RunFailed", causes(&error)))?;
        if first {
            // What the function reads meanwhile is the invocation's already. Who does not wait for it, wants nothing.
            tokio::select! {
                ready = self.ready(now) => ready.map_err(late)?,
                () = self.ended(&active, until.left(now)) => {}
            }
        }
        self.until_it_may_freeze(&runs, &active, until).await;
        Ok(())
    }

    /// Waits until the process may be frozen: nothing is under way, and nothing will be before the invocation is over.
    async fn until_it_may_freeze(&self, runs: &Arc<Runs>, active: &Arc<Active>, until: Until) {
        let left = || until.left(self.clock.now()).saturating_sub(SPARE);
        let refreshed = async {
            if active.borrows() {
                runs.refresh(until, left()).await;
            }
            runs.quiet().await;
        };
        if !self.hears {
            // Perhaps nobody but we keeps the invocation from its end.
            let _ = tokio::time::timeout(left().min(AFTERWARDS), refreshed).await;
            return;
        }
        let quiet = tokio::select! {
            () = refreshed => true,
            () = self.ended(active, left()) => false,
        };
        // What the function registers, or reads with a token of its own, ends with the invocation: there is work then.
        if quiet && (!active.borrows() || runs.registers() || runs.is_due_before(until)) {
            self.ended(active, left()).await;
        } else if quiet {
            return;
        }
        let tidied = async {
            runs.tidied().await;
            runs.quiet().await;
        };
        let _ = tokio::time::timeout(left().min(AFTERWARDS), tidied).await;
    }

    /// Waits until the invocation is over; at the latest for `patience`.
    async fn ended(&self, active: &Active, patience: Duration) {
        let over = async {
            while active.over(|| self.clock.now()).is_none() {
                self.over.notified().await;
            }
        };
        let _ = tokio::time::timeout(patience, over).await;
    }

    async fn shut_down(&mut self, reason: &str, deadline: Duration) {
        let Some(app) = self.app.take() else { return };
        let now = self.clock.now();
        let left = deadline.saturating_sub(now.wall()).saturating_sub(SPARE).max(SPARE);
        if now.since(self.asked) > FROZEN {
            app.broker().runs().thawed();
        }
        tracing::info!(reason, "the environment ends: revoking");
        self.turn(&app, None, now);
        app.stop_within(left).await;
    }

    /// Tells what has happened so far: an invocation begins, or the environment ends.
    fn turn(&self, app: &App, request: Option<&str>, now: Moment) {
        let line = self.meter.as_ref().and_then(|meter| meter.turn(request, now, app.broker().counts()));
        line.iter().for_each(|line| emf::print(line));
    }
}

async fn hear(told: &mut Option<mpsc::UnboundedReceiver<Told>>) -> Option<Told> {
    told.as_mut()?.recv().await
}

/// Waits for the login, the run token and the prefetches.
async fn ready(runs: &Arc<Runs>, patience: Duration) -> Result<(), Fatal> {
    let until = tokio::time::Instant::now() + patience;
    match tokio::time::timeout(patience, runs.established()).await {
        Ok(Ok(())) => {}
        Ok(Err(failure)) => return Err(Fatal::init("Extension.LoginFailed", failure.to_string())),
        Err(_) => {
            let why = runs.login.view().trouble.as_ref().map_or_else(
                || "Vault did not answer in time".to_owned(),
                |trouble| trouble.failure.to_string(),
            );
            let patience = humantime::format_duration(patience);
            return Err(Fatal::init(
                "Extension.LoginTimedOut",
                format!("there is no login after {patience}: {why}"),
            ));
        }
    }
    let left = until.saturating_duration_since(tokio::time::Instant::now());
    runs.prefetched(runs.own(), left).await.map_err(|(key, refusal)| {
        let why = match refusal {
            Refusal::Failed { failure, .. } => failure.to_string(),
            Refusal::TimedOut { phase } => format!("it did not come in time (its state: {phase})"),
            Refusal::TooLong { .. } | Refusal::Over => "the broker stops".to_owned(),
        };
        Fatal::init("Extension.PrefetchFailed", format!("{key}: {why}"))
    })
}

/// The folder that is used where nobody named another: nobody makes it but we.
fn folder(config: &Config) -> Result<(), String> {
    use std::os::unix::fs::DirBuilderExt as _;
    let ours = std::path::Path::new(LAMBDA_FOLDER);
    let wanted = [
        config.listen.unix.as_ref().map(|unix| unix.path.as_path()),
        config.listen.tcp.as_ref().map(|tcp| tcp.token_file.as_path()),
        config.listen.secrets_manager.as_ref().and_then(|listen| match &listen.token {
            DoorToken::File(file) => Some(file.as_path()),
            DoorToken::Session => None,
        }),
    ];
    if !wanted.into_iter().flatten().any(|path| path.parent() == Some(ours)) {
        return Ok(());
    }
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(ours);
    made.map_err(|error| format!("{LAMBDA_FOLDER} cannot be made: {error}"))
}
