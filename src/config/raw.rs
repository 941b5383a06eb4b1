//! What a configuration file may say, as it is said. The JSON schema is made from this, and [`super::shape`] checks a
//! document against that schema, so this is the only list of keys.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

use super::lambda::RawLambda;
use super::login::{Named, RawAppRole, RawCert, RawJwt, RawKubernetes, RawToken};
use super::rules::{RawRule, RawWorkflow};
use super::secrets_manager::RawSecretsManager;
use super::subject::RawSubject;
use super::{AuditFormat, LogFormat};
use crate::policy::rules::Verification;

/// The configuration of `tenure serve`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(title = "tenure.toml")]
pub(crate) struct RawConfig {
    /// How Vault (or OpenBao) is reached.
    pub(crate) vault: RawVault,
    /// The run that the process itself is, and what other runs may have.
    pub(crate) run: RawRun,
    /// How Step Functions is asked about runs.
    pub(crate) workflow: RawWorkflow,
    /// On whose behalf runs act.
    pub(crate) subject: RawSubject,
    /// Where workloads reach the broker; at least one of them.
    pub(crate) listen: RawListen,
    /// Where audit lines go: a file, stdout or syslog, exactly one of them.
    pub(crate) audit: RawAudit,
    /// What is kept in memory, and for how long.
    pub(crate) cache: RawCache,
    /// What the process says of itself, on stderr.
    pub(crate) log: RawLog,
    /// How it ends.
    pub(crate) shutdown: RawShutdown,
    /// What is particular to the Lambda extension.
    pub(crate) lambda: RawLambda,
    /// What must be there before the broker is ready.
    pub(crate) prefetch: Vec<RawPrefetch>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawVault {
    /// Vault's address, a path prefix allowed: `https://vault.internal:8200`. Required. Environment: VAULT_ADDR.
    pub(crate) address: Option<String>,
    /// The namespace of every request. Environment: VAULT_NAMESPACE.
    pub(crate) namespace: Option<String>,
    /// PEM certificates that are trusted instead of the platform's roots. Environment: VAULT_CACERT.
    pub(crate) ca_file: Option<String>,
    /// PEM file of a client certificate chain; needs client_key. Environment: VAULT_CLIENT_CERT.
    pub(crate) client_cert: Option<String>,
    /// PEM file of the client certificate's key; needs client_cert. Environment: VAULT_CLIENT_KEY.
    pub(crate) client_key: Option<String>,
    /// The name that Vault's certificate must carry, where it is not the address's host. Environment:
    /// VAULT_TLS_SERVER_NAME.
    pub(crate) tls_server_name: Option<String>,
    /// Whether http:// may leave the machine; credentials would cross the network in clear. Default: false.
    #[schemars(extend("default" = false))]
    pub(crate) allow_plain_http: Option<bool>,
    /// For the TCP and TLS handshakes together. Default: "5s".
    #[schemars(extend("default" = "5s"))]
    pub(crate) connect_timeout: Option<RawDuration>,
    /// For a whole request. Default: "10s".
    #[schemars(extend("default" = "10s"))]
    pub(crate) request_timeout: Option<RawDuration>,
    /// How the process logs in; one method.
    pub(crate) auth: RawAuth,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawAuth {
    /// Which method is used: the name of its table, or "auto" for the first of those that have a table whose means are at
    /// hand when the process starts, in the order aws, kubernetes, jwt, cert, approle, token. Default: the only one that
    /// has a table. Environment: TENURE_AUTH_METHOD.
    pub(crate) method: Option<Named>,
    /// By AWS IAM: a signed sts:GetCallerIdentity.
    pub(crate) aws: Option<RawAws>,
    /// By the token of a Kubernetes service account.
    pub(crate) kubernetes: Option<RawKubernetes>,
    /// By a JWT in a file.
    pub(crate) jwt: Option<RawJwt>,
    /// By the TLS client certificate: vault.client_cert.
    pub(crate) cert: Option<RawCert>,
    /// By a role id and a secret id.
    pub(crate) approle: Option<RawAppRole>,
    /// By a token that somebody else made, in a file.
    pub(crate) token: Option<RawToken>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawAws {
    /// The role of Vault's AWS auth method. Required. Environment: TENURE_AUTH_ROLE.
    pub(crate) role: Option<String>,
    /// Where the method is mounted, below auth/. Default: "aws".
    #[schemars(extend("default" = "aws"))]
    pub(crate) mount: Option<String>,
    /// Signed as X-Vault-AWS-IAM-Server-ID, where Vault asks for it.
    pub(crate) server_id: Option<String>,
    /// The region whose STS is signed for. Default: that of the AWS chain.
    pub(crate) region: Option<String>,
    /// Whether STS's FIPS endpoint is signed for. Default: false.
    #[schemars(extend("default" = false))]
    pub(crate) fips: Option<bool>,
    /// Roles that are assumed before the login, in this order: the first with the credentials of the AWS chain, the
    /// second with those of the first. Two at most. Default: none.
    pub(crate) assume: Vec<RawAssume>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawAssume {
    /// The IAM role: "arn:aws:iam::123456789012:role/orders-broker". Required.
    pub(crate) role_arn: Option<String>,
    /// What the role's trust policy demands as sts:ExternalId.
    pub(crate) external_id: Option<String>,
    /// The name of the session. Default: made from the run.
    pub(crate) session_name: Option<String>,
    /// Whether the run is the session's source identity; needs sts:SetSourceIdentity. Default: false.
    #[schemars(extend("default" = false))]
    pub(crate) source_identity: Option<bool>,
    /// Whether the session is tagged with the run, its execution, state machine, state, subject and git commit; needs
    /// sts:TagSession. Default: false.
    #[schemars(extend("default" = false))]
    pub(crate) session_tags: Option<bool>,
    /// How long the session lasts, 15 minutes to 12 hours; an hour at most where a role assumes it, as a task's or a
    /// function's own does. Default: "1h".
    #[schemars(extend("default" = "1h"))]
    pub(crate) duration: Option<RawDuration>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawRun {
    /// The token role that run tokens are made from. Default: none, leases hang off the login token. Environment:
    /// TENURE_TOKEN_ROLE.
    pub(crate) token_role: Option<String>,
    /// The life of a run token where the run has no deadline, whole seconds; with a deadline it is the time left.
    /// Default: "15m".
    #[schemars(extend("default" = "15m"))]
    pub(crate) ttl: Option<RawDuration>,
    /// The write-ahead journal of token accessors, by which the next start revokes what a crash left. Default: audit.file
    /// with ".orphans" appended; none where audit lines go elsewhere.
    pub(crate) journal: Option<String>,
    /// Whether the platform is asked about the process's own run: "off", "warn", "require". Default: "off".
    #[schemars(extend("default" = "off"))]
    pub(crate) verification: Option<Verification>,
    /// How many runs may be registered at a time; one more is refused (429). Default: 10000.
    #[schemars(range(min = 1, max = 1_000_000), extend("default" = 10_000))]
    pub(crate) max_runs: Option<u32>,
    /// What runs may have that are registered: the first rule that matches counts, and none is a refusal.
    pub(crate) rule: Vec<RawRule>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawListen {
    /// A Unix socket that speaks Vault's API.
    pub(crate) unix: Option<RawUnix>,
    /// A loopback TCP port that speaks Vault's API.
    pub(crate) tcp: Option<RawTcp>,
    /// A loopback TCP port that speaks as AWS's Secrets Manager extension and agent do.
    pub(crate) secrets_manager: Option<RawSecretsManager>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawUnix {
    /// Where the socket is made: "/run/tenure/tenure.sock". Required. Environment: TENURE_SOCKET.
    pub(crate) path: Option<String>,
    /// Its permission bits, octal, never open to others. Default: "0600".
    #[schemars(extend("default" = "0600", "pattern" = "^0?[0-7]{3}$"))]
    pub(crate) mode: Option<String>,
    /// The numeric uid that is to own it. Default: the process's.
    pub(crate) owner: Option<RawId>,
    /// Its numeric gid. Default: the process's.
    pub(crate) group: Option<RawId>,
    /// Which peers may speak: one entry must match, each id of it. Default: those with the process's own uid.
    pub(crate) allow: Option<Vec<RawPeer>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawPeer {
    /// The peer's uid.
    #[schemars(range(max = 4_294_967_295_u32))]
    pub(crate) uid: Option<u32>,
    /// The peer's gid.
    #[schemars(range(max = 4_294_967_295_u32))]
    pub(crate) gid: Option<u32>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawTcp {
    /// A loopback address and port: "127.0.0.1:8200"; port 0 lets the system choose. Required. Environment: TENURE_TCP.
    pub(crate) address: Option<String>,
    /// Holds the local token that callers send as their Vault token; made at start, 0600, where absent. Required.
    /// Environment: TENURE_TOKEN_FILE.
    pub(crate) token_file: Option<String>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawAudit {
    /// The file that lines are appended to. Environment: TENURE_AUDIT_FILE.
    pub(crate) file: Option<String>,
    /// Whether lines are printed instead. Default: false.
    #[schemars(extend("default" = false))]
    pub(crate) stdout: Option<bool>,
    /// Where lines are sent instead, as RFC 5424 messages of one datagram each: "unix:///dev/log", or "udp://127.0.0.1:514".
    /// By UDP nobody confirms a line: one that is lost on the way is not noticed, and what it was about has happened. A line
    /// that is longer than a datagram (65507 bytes) is refused, and what it is about does not happen.
    pub(crate) syslog: Option<String>,
    /// The form of lines on stdout and to syslog: "tenure", or "ocsf" for events of OCSF 1.5.0, each with our line in its
    /// raw_data. A file is always "tenure". Default: "tenure".
    #[schemars(extend("default" = "tenure"))]
    pub(crate) format: Option<AuditFormat>,
    /// How often the head of the log's chain is put into Vault's audit log, by a header of a look-up; "0s": never, beside
    /// what each run token's metadata says. Default: "5m".
    #[schemars(extend("default" = "5m"))]
    pub(crate) anchor: Option<RawDuration>,
    /// Has keyed hashes of the values that are disclosed in the lines, by which `tenure audit match` finds a value. Without
    /// the key nothing is disclosed. Default: none.
    pub(crate) hmac: Option<RawHmac>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawHmac {
    /// Where Vault's transit engine is mounted. Default: "transit".
    #[schemars(extend("default" = "transit"))]
    pub(crate) mount: Option<String>,
    /// Its key, of a type that encrypts, such as aes256-gcm96: it wraps the keys of the hashes. Default: "tenure-audit".
    #[schemars(extend("default" = "tenure-audit"))]
    pub(crate) key: Option<String>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawCache {
    /// How many leases may live at once; one more is refused (429) before it is minted. Default: 10000.
    #[schemars(range(min = 1, max = 1_000_000), extend("default" = 10_000))]
    pub(crate) max_leases: Option<u32>,
    /// A KV value older than this is asked for again. Default: "60s".
    #[schemars(extend("default" = "60s"))]
    pub(crate) kv_fresh: Option<RawDuration>,
    /// Up to this age a KV value is served, labelled, while Vault cannot answer; "0s": never. Default: "10m", or
    /// kv_fresh where that is longer.
    #[schemars(extend("default" = "10m"))]
    pub(crate) kv_stale: Option<RawDuration>,
    /// Bytes that KV values may take before they are evicted. Default: 16777216.
    #[schemars(range(min = 1, max = 1_099_511_627_776_u64), extend("default" = 16_777_216))]
    pub(crate) kv_bytes: Option<u64>,
    /// How long a reader waits at most. Default: "30s".
    #[schemars(extend("default" = "30s"))]
    pub(crate) read_timeout: Option<RawDuration>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawLog {
    /// What is said: a level, and levels of targets: "info,tenure::vault=debug". What other crates say below info is never
    /// shown: it can hold what they send. Default: "info". Environment: TENURE_LOG, or else RUST_LOG.
    #[schemars(extend("default" = "info"))]
    pub(crate) filter: Option<String>,
    /// The form of its lines; "auto" is text on a terminal and JSON elsewhere. Default: "auto". Environment:
    /// TENURE_LOG_FORMAT.
    #[schemars(extend("default" = "auto"))]
    pub(crate) format: Option<LogFormat>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawShutdown {
    /// How long draining and revoking may take together, from SIGTERM on; at most "115s". It must end before the platform
    /// kills the process: after stopTimeout on ECS (30 s by default, 120 s at most), after terminationGracePeriodSeconds on
    /// Kubernetes (30 s by default). Default: "20s".
    #[schemars(extend("default" = "20s"))]
    pub(crate) grace: Option<RawDuration>,
    /// When the platform kills a process that was told to end, as its own configuration says: ECS's stopTimeout. It only
    /// serves to check the grace. Default: not known. Environment: TENURE_STOP_TIMEOUT.
    pub(crate) stop_timeout: Option<RawDuration>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawPrefetch {
    /// A path below /v1/: "database/creds/orders". Required.
    pub(crate) path: Option<String>,
}

/// A number with its unit: "90s", "15m", "1h 30m".
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub(crate) struct RawDuration(pub(crate) String);

impl JsonSchema for RawDuration {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": r"^\s*([0-9]+\s*(ms|msec|s|sec|secs|seconds?|m|min|mins|minutes?|h|hr|hrs|hours?|d|days?)\s*)+$",
        })
    }
}

/// A numeric uid or gid, as a number or in quotes.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum RawId {
    Number(u32),
    Text(String),
}

impl JsonSchema for RawId {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Id".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": ["integer", "string"], "minimum": 0, "maximum": u32::MAX, "pattern": "^[0-9]+$"})
    }
}

/// The variables that stand for a setting, each with its key.
pub(crate) const VARIABLES: &[(&str, &str)] = &[
    ("VAULT_ADDR", "vault.address"),
    ("VAULT_NAMESPACE", "vault.namespace"),
    ("VAULT_CACERT", "vault.ca_file"),
    ("VAULT_CLIENT_CERT", "vault.client_cert"),
    ("VAULT_CLIENT_KEY", "vault.client_key"),
    ("VAULT_TLS_SERVER_NAME", "vault.tls_server_name"),
    ("TENURE_AUTH_METHOD", "vault.auth.method"),
    ("TENURE_AUTH_ROLE", "vault.auth.aws.role"),
    ("TENURE_TOKEN_ROLE", "run.token_role"),
    ("TENURE_SOCKET", "listen.unix.path"),
    ("TENURE_TCP", "listen.tcp.address"),
    ("TENURE_TOKEN_FILE", "listen.tcp.token_file"),
    ("TENURE_AUDIT_FILE", "audit.file"),
    ("RUST_LOG", "log.filter"),
    ("TENURE_LOG", "log.filter"),
    ("TENURE_LOG_FORMAT", "log.format"),
    ("TENURE_STOP_TIMEOUT", "shutdown.stop_timeout"),
    ("TENURE_LAMBDA_RUN", "lambda.run"),
    ("TENURE_LAMBDA_INIT", "lambda.init"),
    ("TENURE_LAMBDA_METRICS", "lambda.metrics"),
];

/// The variable that sets `key`, for a message on what is missing.
pub(crate) fn variable_of(key: &str) -> Option<&'static str> {
    VARIABLES.iter().find(|(_, sets)| *sets == key).map(|(name, _)| *name)
}
