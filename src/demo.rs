//! `tenure demo`: the main job from end to end, shown as it happens, with nothing else installed.
//!
//! Real are the broker as [`App`] composes it from a configuration, its Unix socket, its audit file and its HTTP clients.
//! Upstream is the embedded source, and the platform is a fake. The first state is the run of a process, with a broker of
//! its own; the second one is served by a worker that registers a run for each execution. What is shown is checked
//! first: [`run`] fails with what was off.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use crate::app::{App, AppError, Upstream, process_run};
use crate::audit::{Event, Line};
use crate::clock::Clock;
use crate::config::{Config, RunEnv};
use crate::run::hex;
use crate::source::dev::{DevVault, TokenInfo};

mod abort;
mod auditor;
mod charge;
mod outage;
mod platform;
mod reader;
mod reserve;
mod stage;
mod timeline;

use platform::FakePlatform;
use reader::Reader;
use stage::GATEWAY;

pub(crate) use stage::Directory;
pub use timeline::Look;
pub(crate) use timeline::{Timeline, Tone};

/// Why the demo did not end well.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// Something was not as it should be.
    #[error("the demo found something off: {0}")]
    Off(String),
    /// The broker did not start.
    #[error("the demo's broker did not start")]
    App(#[from] AppError),
    /// A file or the terminal.
    #[error("the demo's files or its output")]
    Io(#[from] io::Error),
}

/// Runs the demo, in about thirteen seconds, and prints it as it happens.
///
/// # Errors
/// [`DemoError::Off`] names what was not as it should be; the others say what stood in the way.
pub async fn run(out: &mut (dyn Write + Send), look: Look) -> Result<(), DemoError> {
    let dir = Directory::new("tenure-demo")?;
    let clock = Clock::system();
    let mut show = Show {
        upstream: stage::upstream(&clock),
        platform: FakePlatform::default(),
        clock,
        dir,
        line: Timeline::new(out, look),
        secrets: BTreeSet::new(),
    };
    let about = "a workflow of two states, an upstream and a fake platform in memory, about 13 seconds";
    show.line.heading("Tenure demo", about)?;
    let (accessor, username) = show.reserve().await?;
    show.charge(&accessor, &username).await?;
    show.audit()?;
    let (seconds, done) = (show.line.elapsed().as_secs_f64(), show.line.paint("as it should be", Tone::Good));
    show.line.heading("Done", &format!("everything was {done} · {seconds:.1} s"))?;
    Ok(())
}

struct Show<'a> {
    upstream: DevVault,
    platform: FakePlatform,
    clock: Clock,
    dir: Directory,
    line: Timeline<'a>,
    /// Every secret that was handed out, every handle and task token: none may be in the audit log.
    secrets: BTreeSet<String>,
}

impl Show<'_> {
    /// Starts a broker for one state and waits until it can mint.
    async fn start(&mut self, state: &str, config: &Config, run: RunEnv) -> Result<App, DemoError> {
        let upstream = Upstream {
            workflow: Some(Arc::new(self.platform.clone())),
            ..Upstream::new(Arc::new(self.upstream.clone()), Arc::new(self.upstream.clone()))
        };
        let socket = self.dir.socket(state);
        let mut app = App::start(config, process_run(run)?, upstream, self.clock.clone()).await?;
        app.established().await?;
        let mode = |path: &Path| std::fs::metadata(path).map(|file| file.permissions().mode() & 0o777);
        ensure(mode(&socket)? == 0o600, "the socket can be reached by others")?;
        ensure(mode(&self.dir.log())? == 0o600, "the audit log can be read by others")?;
        ensure(mode(self.dir.path())? == 0o700, "the directory can be entered by others")?;
        self.line.event(Tone::Good, "serving", &format!("{} (0600)", socket.display()))?;
        Ok(app)
    }

    /// Ends a state's broker: everything that it held is revoked, and seen to be gone.
    async fn end(&mut self, app: App, state: &str) -> Result<(), DemoError> {
        let users = self.upstream.alive();
        ensure(app.stop().await, format!("{state} could not revoke everything in time"))?;
        ensure(self.upstream.alive() == 0, format!("a database user outlived {state}"))?;
        ensure(self.upstream.tokens().is_empty(), format!("a token outlived {state}"))?;
        ensure(!self.dir.socket(state).exists(), "the socket is still there")?;
        let lines = self.lines()?;
        let boot = lines.last().map(|line| line.boot.clone()).unwrap_or_default();
        let confirmed: Vec<_> = lines
            .into_iter()
            .filter(|line| line.event == Event::RevokeConfirmed && line.boot == boot)
            .filter_map(|line| line.detail)
            .collect();
        let seen = |what: &str| confirmed.iter().any(|detail| detail.starts_with(what));
        ensure(
            seen("run token") && seen("login token"),
            format!("{state}'s end was not confirmed: {confirmed:?}"),
        )?;
        let text =
            format!("its tokens are revoked, and what hung off them (database users: {users}); confirmed");
        self.line.event(Tone::Good, "ended", &text)?;
        let none = self.line.paint("0 tokens, 0 database users", Tone::Bold);
        self.line.more(&format!("upstream knows {none}"))?;
        Ok(())
    }

    /// The only token of this role that upstream knows.
    fn token(&self, role: &str) -> Result<TokenInfo, DemoError> {
        let tokens = self.tokens(role);
        let [token] = &tokens[..] else {
            return off(format!("{} tokens of the role {role} instead of one", tokens.len()));
        };
        Ok(token.clone())
    }

    /// The tokens of this role that upstream knows.
    fn tokens(&self, role: &str) -> Vec<TokenInfo> {
        let all = self.upstream.tokens().into_iter();
        all.filter(|token| token.role.as_deref() == Some(role)).collect()
    }

    async fn reader(&self, state: &str, handle: Option<&str>) -> Result<Reader, DemoError> {
        Reader::connect(&self.dir.socket(state), handle).await.or_else(off)
    }

    /// A read that must be answered with a secret.
    async fn granted(&mut self, reader: &mut Reader, path: &str) -> Result<Granted, DemoError> {
        let got = reader.read(path).await.or_else(off)?;
        ensure(got.status == 200, format!("{path} was answered with {}: {}", got.status, got.error()))?;
        let secret = if path == GATEWAY { got.text("/data/data/key") } else { got.text("/data/password") };
        ensure(!secret.is_empty(), format!("{path} was answered without a secret"))?;
        self.secrets.insert(secret.to_owned());
        Ok(Granted {
            value: got.text("/data/username").to_owned(),
            version: got.number("/data/metadata/version"),
            source: got.header("x-tenure-source").to_owned(),
            age: got.header("age").to_owned(),
            warned: !got.text("/warnings/0").is_empty(),
        })
    }

    fn lines(&self) -> Result<Vec<Line>, DemoError> {
        let text = std::fs::read_to_string(self.dir.log())?;
        let lines: Result<_, _> = text.lines().map(serde_json::from_str).collect();
        lines.or_else(|error| off(format!("the audit log cannot be read: {error}")))
    }
}

/// What a reader looks at in an answer.
struct Granted {
    value: String,
    version: Option<u64>,
    source: String,
    age: String,
    warned: bool,
}

fn ensure(holds: bool, what: impl Into<String>) -> Result<(), DemoError> {
    if holds { Ok(()) } else { off(what.into()) }
}

fn off<T>(what: String) -> Result<T, DemoError> {
    Err(DemoError::Off(what))
}

fn random() -> io::Result<String> {
    let mut bytes = [0; 12];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(hex(&bytes))
}
