//! `tenure dev`: a broker for whoever writes or tries out what reads from one, with nothing else installed.
//!
//! Real are the broker as [`App`] composes it from a configuration, its doors, its audit log, and the TTLs. Upstream is the
//! embedded source, which holds what a [`seed`] says and refuses no path, or a development Vault. What happens is told as
//! the audit log has it, and upstream can be made to fail by a key or a script.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};

use crate::app::{App, AppError, Ended, Upstream, process_run};
use crate::audit::Event;
use crate::clock::Clock;
use crate::config::{Environment, Problem, Problems};
use crate::demo::{Look, Timeline, Tone};
use crate::init::{Told, code_of_failure, exit_code};
use crate::source::dev::DevVault;

mod child;
mod environment;
mod feed;
mod footer;
mod keys;
mod seed;
mod stage;
mod trouble;

pub use seed::init;
pub use trouble::{PlanError, Planned, Trouble};

use child::{Reach, Running};
use environment::EnvFile;
use feed::Feed;
use keys::Keys;
use stage::{Seeded, Stage};
use trouble::Troubles;

/// The seed that counts where none is named, if it is there.
pub const SEED: &str = "tenure-dev.toml";

/// How often the audit log, the script and the seed are looked at.
const TICK: Duration = Duration::from_millis(100);

/// The seed is looked at every so many ticks.
const SEED_EVERY: u32 = 5;

/// What was asked for on the command line.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The seed; `None`: [`SEED`] if it is there, otherwise the built-in one.
    pub file: Option<PathBuf>,
    /// The socket; `None`: one in a folder of our own.
    pub socket: Option<PathBuf>,
    /// The loopback address; `None`: a port that the system chooses.
    pub tcp: Option<String>,
    /// The audit log; `None`: one in a folder of our own, which goes with us.
    pub audit_file: Option<PathBuf>,
    /// Where lines for a shell are put, as long as we serve.
    pub env_file: Option<PathBuf>,
    /// The Vault that is upstream; `None`: the embedded one.
    pub vault: Option<RealVault>,
    /// What is to fail, and when.
    pub failures: Vec<Planned>,
    /// Whether nothing is said of what happens.
    pub quiet: bool,
    /// Whether keys are listened to, where there is a terminal.
    pub keys: bool,
    /// The command that the broker is there for; empty: it serves until it is told to end.
    pub command: Vec<OsString>,
}

/// A Vault to develop against.
#[derive(Clone, Debug)]
pub struct RealVault {
    /// Its address.
    pub address: String,
    /// The file of the token to log in with. The token is renewed, and not revoked.
    pub token_file: PathBuf,
    /// The token role of run tokens.
    pub token_role: String,
    /// What the environment says of the way to it: `VAULT_CACERT` and the like.
    pub environment: Environment,
}

/// Why `tenure dev` cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum DevError {
    /// The seed.
    #[error("{}", lines(.0))]
    Seed(Vec<Problem>),
    /// An option, or a rule of the seed.
    #[error(transparent)]
    Config(#[from] Problems),
    /// The broker.
    #[error(transparent)]
    App(#[from] AppError),
    /// A file.
    #[error("{what}")]
    File {
        /// What was tried.
        what: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The command cannot be started.
    #[error("{} cannot be started", name.display())]
    Command {
        /// Its name.
        name: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl DevError {
    /// The exit code: for a command that cannot be started the one that a shell would give, otherwise 1.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::Command { source, .. } => code_of_failure(source),
            _ => 1,
        }
    }
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn file_error(what: String) -> impl FnOnce(io::Error) -> DevError {
    move |source| DevError::File { what, source }
}

/// Serves until a signal or the key `q`, or until the command ends; then everything is revoked, and the folder of our own
/// is removed. Returns the exit code: the command's, where there is one.
///
/// # Errors
/// What stands in the way, or that a task of the broker panicked.
pub async fn run(
    options: &Options,
    clock: &Clock,
    out: &mut (dyn Write + Send),
    look: Look,
) -> Result<u8, DevError> {
    // From now on no signal ends us before everything was revoked.
    let mut told = Told::listen(&[Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT])
        .map_err(file_error("signals cannot be listened to".to_owned()))?;
    let stage = Stage::new(options, clock)?;
    let written = std::fs::metadata(stage.log()).map_or(0, |log| log.len());
    let upstream = match &stage.vault {
        Some(vault) => Upstream::new(std::sync::Arc::new(vault.clone()), std::sync::Arc::new(vault.clone())),
        None => Upstream::vault(&stage.config, &process_run(stage.run.clone())?, clock)?,
    };
    let mut app = App::start(&stage.config, process_run(stage.run.clone())?, upstream, clock.clone()).await?;
    let follow = || Feed::follow(stage.log(), written);
    let feed = follow().map_err(file_error(format!("following {}", stage.log().display())))?;
    let mut show = Show {
        line: Timeline::new(out, look),
        quiet: options.quiet,
        alone: options.command.is_empty(),
        deaf: false,
        feed,
        vault: stage.vault.clone(),
        troubles: Troubles::default(),
        seeded: stage.seeded.clone(),
        footer: String::new(),
    };
    // A Vault that does not answer is waited for, and that it does not is told.
    let established = loop {
        tokio::select! {
            result = app.established() => break result.map(|()| None),
            signal = told.next() => break Ok(Some(signal)),
            () = tokio::time::sleep(TICK) => show.tell(),
        }
    };
    let served = match established {
        Ok(None) => show.serve(options, &stage, &app, &mut told).await,
        Ok(Some(_)) if options.command.is_empty() => Ok(0),
        Ok(Some(signal)) => Ok(exit_code(signal)),
        Err(error) => Err(error.into()),
    };
    show.end(app, &mut told).await;
    served
}

/// What is told, and what it is told of.
struct Show<'a> {
    line: Timeline<'a>,
    quiet: bool,
    /// There is no command: we serve until we are told to end.
    alone: bool,
    /// Whoever listened has gone away.
    deaf: bool,
    feed: Feed,
    vault: Option<DevVault>,
    troubles: Troubles,
    seeded: Seeded,
    footer: String,
}

impl Show<'_> {
    async fn serve(
        &mut self,
        options: &Options,
        stage: &Stage,
        app: &App,
        told: &mut Told,
    ) -> Result<u8, DevError> {
        let reach = stage.reach(app)?;
        let env_file = options.env_file.as_deref().map(|path| EnvFile::write(path, &reach)).transpose()?;
        let mut keys = if options.keys && self.alone { Keys::open() } else { None };
        let mut resumed =
            signal(SignalKind::from_raw(Signal::CONT.as_raw())).map_err(file_error("signals".to_owned()))?;
        self.welcome(&reach, stage, env_file.as_ref());
        let mut child = match options.command.first() {
            Some(name) => Some(
                Running::start(&options.command, &reach)
                    .map_err(|source| DevError::Command { name: PathBuf::from(name), source })?,
            ),
            None => None,
        };
        let began = self.line.elapsed();
        let mut script = Script::new(&options.failures);
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut ticks = 0u32;
        loop {
            self.foot(keys.is_some());
            tokio::select! {
                code = ended(&mut child) => return code,
                name = app.fallen() => return Err(AppError::Fallen(name).into()),
                signal = told.next() => match &mut child {
                    Some(child) => child.forward(signal),
                    None => return Ok(0),
                },
                _ = resumed.recv() => {
                    self.footer.clear();
                    if let Some(keys) = &keys {
                        keys.take();
                    }
                }
                key = pressed(&mut keys) => if self.press(key) {
                    return Ok(0);
                },
                _ = tick.tick() => {
                    for (trouble, on) in script.due(self.line.elapsed().saturating_sub(began)) {
                        self.trouble(trouble, on);
                    }
                    ticks = ticks.wrapping_add(1);
                    if ticks.is_multiple_of(SEED_EVERY) {
                        self.reseed();
                    }
                    self.tell();
                    if self.deaf && self.alone {
                        return Ok(0);
                    }
                }
            }
        }
    }

    /// How the broker is reached, for a person or a shell. A command finds it in its environment.
    fn welcome(&mut self, reach: &Reach, stage: &Stage, env_file: Option<&EnvFile>) {
        if !self.alone {
            return;
        }
        let heading = self.line.heading("Tenure dev", &stage.about());
        self.heard(&heading);
        let how = match env_file {
            Some(file) => vec![format!(". {}", file.quoted())],
            None => reach.exports(),
        };
        for line in how {
            let said = self.line.plain(&line);
            self.heard(&said);
        }
        let said = self.line.plain("");
        self.heard(&said);
        if !self.quiet
            && let Some(vault) = &stage.vault
        {
            let paths = self.seeded.seed.paths();
            let first = paths.first().cloned().unwrap_or_default();
            let text = format!("{} can be read, such as `tenure get {first}`", paths.join(", "));
            let text = if paths.is_empty() { "nothing: the seed is empty".to_owned() } else { text };
            debug_assert_eq!(vault.alive(), 0, "a new one has issued nothing");
            self.say(Tone::Good, "seeded", &text);
        }
    }

    /// What happened since the last time.
    fn tell(&mut self) {
        let Ok(lines) = self.feed.lines() else { return };
        for line in lines {
            if line.event == Event::Boot {
                continue;
            }
            if let Some((tone, word, text)) = feed::told(&line) {
                self.say(tone, word, &text);
            }
        }
    }

    fn say(&mut self, tone: Tone, word: &str, text: &str) {
        if self.quiet || self.deaf {
            return;
        }
        self.footer.clear();
        let said = self.line.event(tone, word, text);
        self.heard(&said);
    }

    fn heard(&mut self, said: &io::Result<()>) {
        self.deaf |= said.is_err();
    }

    /// Returns whether that was the end.
    fn press(&mut self, key: u8) -> bool {
        match key.to_ascii_lowercase() {
            // Ctrl-D ends whatever reads from a terminal.
            b'q' | 4 => return true,
            key => {
                if let Some(trouble) = footer::meant(key) {
                    let on = trouble == Trouble::Revoke || !self.troubles.is_on(trouble);
                    self.trouble(trouble, on);
                }
            }
        }
        false
    }

    fn trouble(&mut self, trouble: Trouble, on: bool) {
        // Somebody else's Vault is not ours to break.
        let Some(vault) = &self.vault else { return };
        if trouble != Trouble::Revoke && self.troubles.is_on(trouble) == on {
            return;
        }
        let said = self.troubles.set(trouble, on, vault);
        self.say(if said.bad() { Tone::Bad } else { Tone::Good }, said.word(), &said.to_string());
    }

    fn reseed(&mut self) {
        let Some(vault) = self.vault.clone() else { return };
        match self.seeded.again(&vault) {
            Ok(changes) => {
                for change in changes {
                    self.say(Tone::Good, "seeded", &change);
                }
            }
            Err(problems) => {
                for problem in problems {
                    self.say(Tone::Bad, "seed", &format!("{problem}; what was there stays"));
                }
            }
        }
    }

    /// On a terminal of ours, which keys there are and what is held; drawn anew when that changes.
    fn foot(&mut self, keys: bool) {
        if !keys || self.deaf {
            return;
        }
        let text = footer::text(&self.line, self.vault.as_ref(), &self.troubles);
        if text != self.footer {
            let said = self.line.footer(&text);
            self.heard(&said);
            self.footer = text;
        }
    }

    /// Revokes everything, and says what is left. A signal cuts that short.
    async fn end(&mut self, app: App, told: &mut Told) {
        if let Some(vault) = &self.vault {
            self.troubles.end(vault);
        }
        let revoked = app.end(told.next()).await == Ended::Revoked;
        self.tell();
        let left = self.vault.as_ref().map_or(0, |vault| vault.alive() + vault.tokens().len());
        match revoked && left == 0 {
            true => self.say(Tone::Good, "ended", "everything is revoked"),
            false => self.say(Tone::Bad, "ended", "not everything could be revoked in time"),
        }
        let ended = self.line.end();
        self.heard(&ended);
    }
}

/// The code of the command, once it has ended; never where there is none.
async fn ended(child: &mut Option<Running>) -> Result<u8, DevError> {
    match child {
        Some(child) => child.ended().await.map_err(file_error("waiting for the command".to_owned())),
        None => std::future::pending().await,
    }
}

async fn pressed(keys: &mut Option<Keys>) -> u8 {
    match keys {
        Some(keys) => keys.pressed().await,
        None => std::future::pending().await,
    }
}

/// What is to fail, in the order of its times.
struct Script(std::collections::VecDeque<(Duration, Trouble, bool)>);

impl Script {
    fn new(planned: &[Planned]) -> Self {
        let begins = planned.iter().map(|plan| (plan.from, plan.trouble, true));
        let ends = planned.iter().filter_map(|plan| Some((plan.to?, plan.trouble, false)));
        let mut steps: Vec<_> = begins.chain(ends).collect();
        steps.sort_by_key(|(at, ..)| *at);
        Self(steps.into())
    }

    /// What begins or ends by `now`, each once.
    fn due(&mut self, now: Duration) -> Vec<(Trouble, bool)> {
        let mut due = Vec::new();
        while let Some((_, trouble, on)) = self.0.pop_front_if(|(at, ..)| *at <= now) {
            due.push((trouble, on));
        }
        due
    }
}

/// `path` in quotes, as a shell reads it.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', "'\\''"))
}
