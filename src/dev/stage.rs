//! What the broker is started with: a folder of our own, a configuration as an operator would write it, and the embedded
//! Vault with what the seed says.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::child::Reach;
use super::seed::{self, Seed};
use super::{DevError, Options, SEED, file_error};
use crate::app::App;
use crate::clock::Clock;
use crate::config::{self, AuditSink, Config, Environment, Origin, Overrides, Problem, RunEnv};
use crate::demo::Directory;
use crate::secret::Credential;
use crate::source::dev::{DevConfig, DevVault, TokenRole};

/// The largest seed that is read, in bytes.
const LARGEST: usize = 1 << 20;

/// The token role of the embedded Vault.
const ROLE: &str = "dev";

/// What counts beside the options. A change of the seed is seen after a second.
const COMMON: &str = r#"
[cache]
kv_fresh = "1s"
read_timeout = "10s"
[shutdown]
grace = "5s"
"#;

/// What registered runs may have where the seed has no rule.
const ANY_RUN: &str = r#"
[[run.rule]]
max_ttl = "24h"
may_register = true
"#;

/// The seed, and where it came from.
#[derive(Clone, Debug)]
pub(super) struct Seeded {
    /// `None`: the built-in one.
    path: Option<PathBuf>,
    text: String,
    pub(super) seed: Seed,
}

impl Seeded {
    fn load(named: Option<&Path>) -> Result<Self, DevError> {
        let usual = Path::new(SEED);
        let path = named.or_else(|| usual.exists().then_some(usual));
        let text = match path {
            Some(path) => read(path)?,
            None => seed::BUILT_IN.to_owned(),
        };
        let seed = Seed::parse(path.unwrap_or(usual), &text).map_err(DevError::Seed)?;
        Ok(Self { path: path.map(Path::to_owned), text, seed })
    }

    /// Takes over what was changed in the file since the last time, and says what that is.
    ///
    /// # Errors
    /// Everything that is wrong with it, once for each change; then what was there counts.
    pub(super) fn again(&mut self, vault: &DevVault) -> Result<Vec<String>, Vec<Problem>> {
        let Some(path) = &self.path else { return Ok(Vec::new()) };
        // An editor may be about to put it there anew.
        let Ok(text) = read(path) else { return Ok(Vec::new()) };
        if text == self.text || text.trim().is_empty() {
            return Ok(Vec::new());
        }
        let ruled = seed::rules_alone(&self.text).trim() != seed::rules_alone(&text).trim();
        self.text = text;
        let seed = Seed::parse(path, &self.text)?;
        let mut changes = seed.apply(&self.seed, vault);
        if ruled {
            changes.push("the rules of runs have changed: they count from the next start on".to_owned());
        }
        self.seed = seed;
        Ok(changes)
    }
}

fn read(path: &Path) -> Result<String, DevError> {
    let text = std::fs::read_to_string(path).map_err(file_error(format!("the seed {}", path.display())))?;
    match text.len() <= LARGEST {
        true => Ok(text),
        false => Err(DevError::Seed(vec![Problem {
            origin: Origin::File { path: path.to_owned(), line: 0 },
            key: String::new(),
            message: format!("larger than {LARGEST} bytes; this is no seed"),
        }])),
    }
}

/// Everything that the broker is started with.
pub(super) struct Stage {
    dir: Directory,
    pub(super) config: Config,
    pub(super) run: RunEnv,
    pub(super) seeded: Seeded,
    /// `None`: upstream is somebody else's.
    pub(super) vault: Option<DevVault>,
}

impl Stage {
    pub(super) fn new(options: &Options, clock: &Clock) -> Result<Self, DevError> {
        let seeded = Seeded::load(options.file.as_deref())?;
        let dir = Directory::new("tenure-dev").map_err(file_error("making a temporary folder".to_owned()))?;
        let (config, run) = configuration(options, &seeded, &dir, clock)?;
        let vault = options.vault.is_none().then(|| {
            let vault = DevVault::new(clock.clone(), DevConfig::default());
            let named = config.run.rules.iter().map(|rule| rule.token_role.to_string());
            for role in named.chain([ROLE.to_owned()]) {
                // Every path begins with nothing: there are no policies here.
                vault.token_role(&role, TokenRole::orphan(&[""]));
            }
            seeded.seed.apply(&Seed::default(), &vault);
            vault
        });
        Ok(Self { dir, config, run, seeded, vault })
    }

    /// The audit log.
    pub(super) fn log(&self) -> &Path {
        match &self.config.audit {
            AuditSink::File(path) => path,
            AuditSink::Stdout(_) | AuditSink::Syslog(..) => self.dir.path(),
        }
    }

    /// What this is, in a line.
    pub(super) fn about(&self) -> String {
        let mut about = match (&self.vault, &self.seeded.path) {
            (None, _) => format!("beside {}", self.config.vault.address),
            (Some(_), Some(path)) => format!("a Vault in memory, seeded from {}", path.display()),
            (Some(_), None) => "a Vault in memory; `tenure dev --init` writes a seed of your own".to_owned(),
        };
        if !self.log().starts_with(self.dir.path()) {
            let _ = write!(about, "; audited in {}", self.log().display());
        }
        about
    }

    /// How clients reach the broker.
    pub(super) fn reach(&self, app: &App) -> Result<Reach, DevError> {
        let file = self.token_file();
        let token = std::fs::read_to_string(&file)
            .map_err(file_error(format!("reading the local token {}", file.display())))?;
        let socket = self.config.listen.unix.as_ref().map(|unix| unix.path.clone()).unwrap_or_default();
        let socket = std::path::absolute(&socket).unwrap_or(socket);
        let address = app.tcp().map(|address| format!("http://{address}")).unwrap_or_default();
        Ok(Reach { address, token: Credential::new(token), socket: socket.display().to_string() })
    }

    fn token_file(&self) -> PathBuf {
        self.dir.join("token")
    }
}

fn configuration(
    options: &Options,
    seeded: &Seeded,
    dir: &Directory,
    clock: &Clock,
) -> Result<(Config, RunEnv), DevError> {
    let quoted = |path: &Path| toml::Value::String(path.display().to_string());
    let mut text = seed::rules_alone(&seeded.text);
    if seeded.seed.rules == 0 {
        text += ANY_RUN;
    }
    text += COMMON;
    let (environment, role) = match &options.vault {
        Some(vault) => {
            let (address, file) = (toml::Value::String(vault.address.clone()), quoted(&vault.token_file));
            let _ = write!(text, "[vault]\naddress = {address}\n[vault.auth.token]\nfile = {file}\n");
            (vault.environment.clone(), vault.token_role.clone())
        }
        None => {
            // What a broken start of this Vault leaves behind is gone with it.
            let journal = quoted(&dir.join("orphans"));
            text += "[vault]\naddress = \"https://vault.invalid\"\n[vault.auth.aws]\nrole = \"dev\"\n";
            let _ = write!(text, "[run]\njournal = {journal}\n");
            // Nothing of the environment that we are started in may change what is there.
            (Environment::default(), ROLE.to_owned())
        }
    };
    let given = |path: Option<&PathBuf>| path.map(|path| path.display().to_string());
    let flags = Overrides {
        token_role: Some(role),
        socket: given(options.socket.as_ref()).or_else(|| given(Some(&dir.join("tenure.sock")))),
        tcp: options.tcp.clone().or_else(|| Some("127.0.0.1:0".to_owned())),
        token_file: given(Some(&dir.join("token"))),
        audit_file: given(options.audit_file.as_ref()).or_else(|| given(Some(&dir.join("audit.jsonl")))),
        ..Overrides::default()
    };
    let path = seeded.path.as_deref().unwrap_or(Path::new(SEED));
    let loaded = config::parse(Some((path, &text)), &environment, &flags, clock.now())?;
    Ok((loaded.config, loaded.run))
}
