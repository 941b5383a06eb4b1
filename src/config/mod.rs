//! The configuration: a TOML file, then the environment, then flags, checked as a whole before anything starts.
//!
//! What was said ([`raw`]) is kept apart from what it means ([`Config`]). Every setting remembers where it came from
//! ([`Origin`]), so that a problem names the file and line, the variable or the flag. All problems are reported, not
//! only the first. No secret is ever a setting: files that hold one are named, never quoted.

mod audit;
mod context;
mod document;
mod environment;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod lambda;
mod load;
mod login;
mod nearest;
mod path;
mod problem;
mod raw;
mod rules;
mod secrets_manager;
mod settings;
mod shape;
mod subject;
#[cfg(test)]
mod tests;
mod validate;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tracing_subscriber::filter::Targets;

use crate::policy::rules::{Rule, Verification};

pub use audit::AuditHmac;
pub use context::RunEnv;
pub use environment::{Environment, Overrides};
pub use lambda::{FOLDER as LAMBDA_FOLDER, Lambda, LambdaInit, LambdaRun};
pub use load::{Loaded, load, parse};
pub use login::{AppRoleLogin, AutoLogin, CertLogin, JwtLogin, Login, Method, RoleId, TokenLogin};
pub use path::{PathError, SecretPath};
pub use problem::{Origin, Problem, Problems};
pub use rules::Workflow;
pub use secrets_manager::{DoorToken, MappedSecret, SecretsManagerListen};
pub use settings::Setting;
pub use shape::schema;
pub use subject::{Expiry, Introspection, Issuer, Seal, Subject};

/// Everything that `tenure serve` needs to know, checked. Paths are as given: relative ones start at the working
/// directory.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// How Vault is reached.
    pub vault: Vault,
    /// How the process logs in to it.
    pub login: Login,
    /// The process's own run, and what other runs may have.
    pub run: Run,
    /// How the platform is asked about runs.
    pub workflow: Workflow,
    /// On whose behalf runs act.
    pub subject: Subject,
    /// Where workloads reach the broker; at least one of them.
    pub listen: Listen,
    /// Where audit lines go.
    pub audit: AuditSink,
    /// How often the head of their chain is put into Vault's own log; `None`: with run tokens and at the end alone.
    pub audit_anchor: Option<Duration>,
    /// What wraps the keys that disclosed values are hashed with; `None`: their lines have no hashes.
    pub audit_hmac: Option<AuditHmac>,
    /// What is kept in memory, and for how long.
    pub cache: Cache,
    /// What the process says of itself, on stderr.
    pub log: Log,
    /// How it ends.
    pub shutdown: Shutdown,
    /// What is particular to the Lambda extension.
    pub lambda: Lambda,
    /// What must be there before the broker is ready; each path once.
    pub prefetch: Vec<SecretPath>,
}

/// How Vault (or OpenBao) is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vault {
    /// `http(s)://host[:port][/prefix]`, without a trailing slash and without `/v1`.
    pub address: String,
    /// Sent as `X-Vault-Namespace`; without slashes at its ends.
    pub namespace: Option<String>,
    /// PEM certificates that are trusted instead of the platform's roots.
    pub ca_file: Option<PathBuf>,
    /// PEM files of the client's certificate chain and its key.
    pub client: Option<ClientCertificate>,
    /// The name that Vault's certificate must carry, where it is not the address's host.
    pub tls_server_name: Option<String>,
    /// For the TCP and TLS handshakes together.
    pub connect_timeout: Duration,
    /// For a whole request.
    pub request_timeout: Duration,
}

/// A client certificate and its key, which only make sense together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The certificate chain, PEM.
    pub cert: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
}

/// The AWS IAM login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AwsLogin {
    /// The role of Vault's AWS auth method.
    pub role: String,
    /// Where the method is mounted, below `auth/`.
    pub mount: String,
    /// Signed as `X-Vault-AWS-IAM-Server-ID`.
    pub server_id: Option<String>,
    /// The region whose STS is signed for; `None` leaves it to the AWS chain.
    pub region: Option<String>,
    /// Whether STS's FIPS endpoint is signed for.
    pub fips: bool,
    /// The roles that are assumed before it, in order; two at most.
    pub assume: Vec<Assume>,
}

/// An IAM role that is assumed before the login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assume {
    /// `arn:<partition>:iam::<account>:role/<path and name>`.
    pub role_arn: String,
    /// What its trust policy demands as `sts:ExternalId`.
    pub external_id: Option<String>,
    /// The name of the session; `None`: made from the run.
    pub session_name: Option<String>,
    /// Whether the source identity is set from the run.
    pub source_identity: bool,
    /// Whether session tags are set from the run.
    pub session_tags: bool,
    /// How long the session lasts, whole seconds.
    pub duration: Duration,
}

/// The run that the process itself is, and what other runs may have.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// The token role that run tokens are made from; `None`: leases hang off the login token.
    pub token_role: Option<String>,
    /// The life of a run token where the run has no deadline; at least a second, whole seconds.
    pub ttl: Duration,
    /// The write-ahead journal of token accessors; `None`: what a crash leaves is not revoked at the next start.
    pub journal: Option<PathBuf>,
    /// Whether the platform is asked about the process's own run.
    pub verification: Verification,
    /// How many runs may be registered at a time.
    pub max_runs: usize,
    /// What runs may have that are registered, in their order.
    pub rules: Vec<Rule>,
}

/// Where workloads reach the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// The Unix socket.
    pub unix: Option<UnixListen>,
    /// The loopback TCP port.
    pub tcp: Option<TcpListen>,
    /// The door of AWS's own extension and agent.
    pub secrets_manager: Option<SecretsManagerListen>,
}

/// A Unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnixListen {
    /// Where it is made; at most 107 bytes.
    pub path: PathBuf,
    /// Its permission bits; nothing for others, at least read and write for the owner.
    pub mode: u32,
    /// Who is to own it; `None`: the process's user.
    pub owner: Option<u32>,
    /// Its group; `None`: the process's group.
    pub group: Option<u32>,
    /// Which peers may speak.
    pub allow: Allow,
}

/// Which peers of a Unix socket may speak.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allow {
    /// Those with the uid that the process itself has.
    SameUser,
    /// Those that one of the entries matches; never empty.
    Listed(Vec<Peer>),
}

/// A peer that may speak: each id that is given must match, and at least one is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The effective uid of the peer.
    pub uid: Option<u32>,
    /// The effective gid of the peer.
    pub gid: Option<u32>,
}

/// A loopback TCP port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpListen {
    /// A loopback address; port 0 lets the system choose.
    pub address: SocketAddr,
    /// Holds the local token that callers send as their Vault token; made at start where absent.
    pub token_file: PathBuf,
}

/// Where audit lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuditSink {
    /// Appended to a file, whose chain is continued.
    File(PathBuf),
    /// Printed.
    Stdout(AuditFormat),
    /// Sent as syslog messages.
    Syslog(Receiver, AuditFormat),
}

/// The form of audit lines that are printed or sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum AuditFormat {
    /// Our own lines.
    #[default]
    Tenure,
    /// Events of the Open Cybersecurity Schema Framework, each with our line in it.
    Ocsf,
}

/// What syslog messages are sent to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Receiver {
    /// A datagram socket: `unix:///dev/log`.
    Unix(PathBuf),
    /// An address: `udp://127.0.0.1:514`.
    Udp(SocketAddr),
}

impl std::fmt::Display for Receiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Udp(address) => write!(f, "udp://{address}"),
        }
    }
}

/// What is kept in memory, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cache {
    /// How many leases may live at once; one more is refused before it is minted.
    pub max_leases: usize,
    /// A KV value older than this is asked for again.
    pub kv_fresh: Duration,
    /// Up to this age a KV value is served, labelled, while Vault cannot answer; zero: never.
    pub kv_stale: Duration,
    /// Bytes that KV values may take before they are evicted.
    pub kv_bytes: u64,
    /// How long a reader waits at most.
    pub read_timeout: Duration,
}

/// What the process says of itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// What is said, by target.
    pub filter: Targets,
    /// In which form.
    pub format: LogFormat,
}

/// The form of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shutdown {
    /// How long draining and revoking may take together.
    pub grace: Duration,
    /// When the platform kills a process that was told to end, where that is said.
    pub stop_timeout: Option<Duration>,
}
