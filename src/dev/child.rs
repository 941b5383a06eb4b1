//! The command that the broker is there for: what it finds in its environment, and how it ends.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitStatus};

use rustix::process::Signal;

use super::keys;
use crate::init::Child;
use crate::secret::Credential;

/// Variables of whoever started us that would lead the command to another broker, or past this one: Vault's own CLI
/// prefers an agent's address to `VAULT_ADDR`.
const MISLEADING: &[&str] = &[
    "TENURE_TCP",
    "TENURE_TOKEN_FILE",
    "VAULT_AGENT_ADDR",
    "VAULT_PROXY_ADDR",
    "VAULT_NAMESPACE",
    "VAULT_CACERT",
    "VAULT_CLIENT_CERT",
    "VAULT_CLIENT_KEY",
    "VAULT_TLS_SERVER_NAME",
];

/// What a client must know to reach the broker.
#[derive(Clone, Debug)]
pub(super) struct Reach {
    pub(super) address: String,
    pub(super) token: Credential,
    pub(super) socket: String,
}

impl Reach {
    fn variables(&self) -> [(&'static str, &str); 3] {
        [("VAULT_ADDR", &self.address), ("VAULT_TOKEN", self.token.expose()), ("TENURE_SOCKET", &self.socket)]
    }

    /// Lines for a shell. They hold the local token, which is good for this broker alone.
    pub(super) fn exports(&self) -> Vec<String> {
        let quoted = |text: &str| format!("'{}'", text.replace('\'', "'\\''"));
        self.variables().map(|(name, value)| format!("export {name}={}", quoted(value))).to_vec()
    }
}

/// A command that runs. It does not outlive this value.
#[derive(Debug)]
pub(super) struct Running(Child);

impl Running {
    /// Starts the command, in our own process group: on a terminal it is in the foreground as we are.
    ///
    /// # Errors
    /// The operating system's, such as that there is no such command.
    pub(super) fn start(command: &[OsString], reach: &Reach) -> io::Result<Self> {
        let [program, arguments @ ..] = command else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no command was given"));
        };
        let mut child = Command::new(program);
        child.args(arguments).envs(reach.variables());
        for name in MISLEADING {
            child.env_remove(name);
        }
        Child::start(&mut child).map(Self)
    }

    /// Waits for its end, and returns the code that a shell would give.
    pub(super) async fn ended(&mut self) -> io::Result<u8> {
        self.0.ended().await.map(code)
    }

    /// Passes a signal on. What a terminal sends to its foreground has reached the command already.
    pub(super) fn forward(&mut self, signal: Signal) {
        if matches!(signal, Signal::INT | Signal::QUIT) && keys::is_ours() {
            return;
        }
        self.0.signal(signal);
    }
}

/// The code that a shell would give: the command's own, or 128 and the signal that ended it.
fn code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}
