//! What the demo plays on: the embedded upstream, a directory, and configurations as an operator would write them.

use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{DemoError, off, random};
use crate::clock::Clock;
use crate::config::{self, Config, Environment, Overrides};
use crate::source::dev::{DatabaseRole, DevConfig, DevVault, TokenRole};

pub(super) const ORDER: &str = "arn:aws:states:eu-west-1:111122223333:execution:checkout:order-4711";
pub(super) const OTHER_ORDER: &str = "arn:aws:states:eu-west-1:111122223333:execution:checkout:order-4712";
/// The execution that the state "Charge" of [`ORDER`] starts.
pub(super) const SCREENING: &str = "arn:aws:states:eu-west-1:111122223333:execution:fraud:screen-4711";

pub(super) const ORDERS: &str = "database/creds/orders";
pub(super) const PAYMENTS: &str = "database/creds/payments";
pub(super) const REFUNDS: &str = "database/creds/refunds";
pub(super) const SCORES: &str = "database/creds/scores";
pub(super) const GATEWAY: &str = "secret/data/gateway";

/// What a database user of "orders" lives, at first and at most.
pub(super) const TTL: Duration = Duration::from_secs(3);
pub(super) const MAX_TTL: Duration = Duration::from_secs(5);

/// What both brokers have in common. Times are short: nobody wants to wait.
const COMMON: &str = r#"
[vault]
address = "https://vault.invalid"
[vault.auth.aws]
role = "demo"
[cache]
kv_fresh = "1s"
kv_stale = "1m"
read_timeout = "5s"
[shutdown]
grace = "10s"
"#;

/// `[run]` of the broker beside the task of "Reserve": the process is the run.
const RESERVE: &str = r#"
token_role = "run"
ttl = "1m"
"#;

/// `[run]` of the broker of a worker that serves many runs. The rules give more than the worker itself has: what they match is
/// verified.
const CHARGE: &str = r#"
token_role = "worker"
ttl = "1m"
[[run.rule]]
match = { state_machine = "checkout", state = "Charge", verified = true }
token_role = "charge"
max_ttl = "1m"
may_register = true
[[run.rule]]
match = { state_machine = "fraud", verified = true }
token_role = "fraud"
max_ttl = "1m"
[workflow]
heartbeat = "1s"
brokers = 1
"#;

/// The embedded Vault, with a token role for each that reads, and what it may read.
pub(super) fn upstream(clock: &Clock) -> DevVault {
    let latency = Duration::from_millis(30);
    let vault = DevVault::new(clock.clone(), DevConfig { latency, ..DevConfig::default() });
    for (role, may_read) in [
        ("run", &[ORDERS][..]),
        ("worker", &[]),
        ("charge", &[PAYMENTS, REFUNDS, GATEWAY]),
        ("fraud", &[SCORES]),
    ] {
        vault.token_role(role, TokenRole::orphan(may_read));
    }
    vault.database_role("orders", DatabaseRole { ttl: TTL, max_ttl: MAX_TTL });
    let minute = Duration::from_secs(60);
    for name in ["payments", "refunds", "scores"] {
        vault.database_role(name, DatabaseRole { ttl: minute, max_ttl: minute * 60 });
    }
    vault
}

/// A directory of ours alone, which goes with this value.
pub(crate) struct Directory(PathBuf);

impl Directory {
    /// `<name>-<8 random digits>` among the temporary files, 0700.
    pub(crate) fn new(name: &str) -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("{name}-{:.8}", random()?));
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(super) fn log(&self) -> PathBuf {
        self.join("audit.jsonl")
    }

    pub(super) fn socket(&self, state: &str) -> PathBuf {
        self.join(&format!("{}.sock", state.to_lowercase()))
    }

    pub(super) fn reserve(&self, clock: &Clock) -> Result<Config, DemoError> {
        self.config("Reserve", RESERVE, clock)
    }

    pub(super) fn charge(&self, clock: &Clock) -> Result<Config, DemoError> {
        self.config("Charge", CHARGE, clock)
    }

    fn config(&self, state: &str, text: &str, clock: &Clock) -> Result<Config, DemoError> {
        let quoted = |path: PathBuf| toml::Value::String(path.display().to_string());
        let (socket, log) = (quoted(self.socket(state)), quoted(self.log()));
        // The first broker's journal is its own until this process ends.
        let journal = quoted(self.join(&format!("{}.orphans", state.to_lowercase())));
        let text = format!(
            "{COMMON}[listen.unix]\npath = {socket}\n[audit]\nfile = {log}\n[run]\njournal = {journal}\n{text}"
        );
        // Nothing of the environment that the demo is started in may change what it shows.
        let loaded = config::parse(
            Some((&self.join("tenure.toml"), &text)),
            &Environment::default(),
            &Overrides::default(),
            clock.now(),
        );
        loaded.map(|loaded| loaded.config).or_else(|problems| off(problems.to_string()))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
