//! What was said → what it means. Every check reports and goes on, so that one run of `config check` shows everything.

mod assume;
mod process;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::document::Document;
use super::environment::Environment;
use super::path::SecretPath;
use super::problem::Problem;
use super::raw::{
    RawAws, RawCache, RawConfig, RawDuration, RawId, RawListen, RawPrefetch, RawTcp, RawUnix, RawVault,
    variable_of,
};
use super::{
    Allow, AuditSink, AwsLogin, Cache, ClientCertificate, Config, DoorToken, Listen, Log, Peer, Run,
    TcpListen, UnixListen, Vault,
};

const MILLISECOND: Duration = Duration::from_millis(1);
pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const HOUR: Duration = Duration::from_secs(3600);
pub(super) const DAY: Duration = Duration::from_secs(24 * 3600);

/// The longest path of a Unix socket, in bytes: `sun_path` holds 108 with its terminator (`unix(7)`).
const SUN_PATH: usize = 107;

/// The configuration, unless something that it cannot be without is missing. It is only good if `problems` stays empty.
pub(crate) fn config(
    raw: &RawConfig,
    document: &Document,
    spoiled: &BTreeSet<String>,
    environment: &Environment,
    problems: &mut Vec<Problem>,
) -> Option<Config> {
    let mut check = Check { document, spoiled, problems };
    let vault = check.vault(&raw.vault);
    let token_role = raw.run.token_role.is_some();
    let login = check.login(&raw.vault, vault.as_ref(), token_role, environment);
    let audit = check.audit(&raw.audit);
    let listen = check.listen(&raw.listen, environment);
    let anchor = check.duration("audit.anchor", raw.audit.anchor.as_ref(), 300 * SECOND, Duration::ZERO, DAY);
    let hmac = check.hmac(raw.audit.hmac.as_ref());
    let run = check.run(raw, audit.as_ref());
    let cache = check.cache(&raw.cache);
    let subject = check.subject(&raw.subject);
    let filter = check.filter(raw.log.filter.as_deref());
    let shutdown = check.shutdown(&raw.shutdown);
    let lambda = check.lambda(&raw.lambda);
    let prefetch = check.prefetch(&raw.prefetch);
    check.distinct(&listen, audit.as_ref(), &run);
    let log = Log { filter, format: raw.log.format.unwrap_or_default() };
    let workflow = check.workflow(&raw.workflow);
    Some(Config {
        vault: vault?,
        login: login?,
        run,
        workflow,
        subject,
        listen,
        audit: audit?,
        audit_anchor: Some(anchor).filter(|anchor| !anchor.is_zero()),
        audit_hmac: hmac,
        cache,
        log,
        shutdown,
        lambda,
        prefetch,
    })
}

pub(super) struct Check<'a> {
    pub(super) document: &'a Document,
    pub(super) spoiled: &'a BTreeSet<String>,
    problems: &'a mut Vec<Problem>,
}

impl Check<'_> {
    fn vault(&mut self, raw: &RawVault) -> Option<Vault> {
        let plain = raw.allow_plain_http.unwrap_or(false);
        let address = self.required("vault.address", raw.address.as_deref(), "where Vault is");
        let address = address.and_then(|text| match address_of(text, plain) {
            Ok(address) => Some(address),
            Err(message) => self.refuse("vault.address", message),
        });
        let client = match (&raw.client_cert, &raw.client_key) {
            (None, None) => None,
            (Some(cert), Some(key)) => {
                let cert = self.path("vault.client_cert", cert);
                cert.zip(self.path("vault.client_key", key))
                    .map(|(cert, key)| ClientCertificate { cert, key })
            }
            (Some(_), None) => self.alone("vault.client_cert", "vault.client_key"),
            (None, Some(_)) => self.alone("vault.client_key", "vault.client_cert"),
        };
        let namespace = raw.namespace.as_deref().map(|text| text.trim_matches('/'));
        let connect = raw.connect_timeout.as_ref();
        let request = raw.request_timeout.as_ref();
        Some(Vault {
            namespace: namespace.and_then(|text| self.mountlike("vault.namespace", text)),
            ca_file: raw.ca_file.as_deref().and_then(|path| self.path("vault.ca_file", path)),
            client,
            tls_server_name: raw
                .tls_server_name
                .as_deref()
                .and_then(|name| self.name("vault.tls_server_name", name, "[]:")),
            connect_timeout: self.duration("vault.connect_timeout", connect, 5 * SECOND, MILLISECOND, HOUR),
            request_timeout: self.duration("vault.request_timeout", request, 10 * SECOND, MILLISECOND, HOUR),
            address: address?,
        })
    }

    pub(super) fn aws(&mut self, raw: Option<&RawAws>) -> Option<AwsLogin> {
        const KEY: &str = "vault.auth.aws.role";
        let none = RawAws::default();
        let raw = raw.unwrap_or(&none);
        let role =
            self.required(KEY, raw.role.as_deref(), "the role of Vault's AWS auth method to log in to");
        let role = role.and_then(|role| self.name(KEY, role, "/"));
        let mount = self.mount("vault.auth.aws.mount", raw.mount.as_deref(), "aws");
        let server_id = raw.server_id.as_deref();
        let region = raw.region.as_deref().and_then(|region| {
            let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            if region.contains('-') && region.chars().all(fits) {
                Some(region.to_owned())
            } else {
                let message = format!("{region:?} is not a region, such as \"eu-west-1\"");
                self.refuse("vault.auth.aws.region", message)
            }
        });
        let server_id = server_id.and_then(|id| self.name("vault.auth.aws.server_id", id, ""));
        let assume = self.assume(&raw.assume);
        Some(AwsLogin {
            role: role?,
            mount: mount?,
            server_id,
            region,
            fips: raw.fips.unwrap_or(false),
            assume,
        })
    }

    fn run(&mut self, raw: &RawConfig, audit: Option<&AuditSink>) -> Run {
        let ttl = self.duration("run.ttl", raw.run.ttl.as_ref(), 15 * 60 * SECOND, SECOND, 32 * DAY);
        if ttl.subsec_nanos() != 0 {
            self.refuse::<()>("run.ttl", "must be whole seconds: Vault counts in them".to_owned());
        }
        let journal = match (&raw.run.journal, audit) {
            (Some(path), _) => self.path("run.journal", path),
            (None, Some(AuditSink::File(file))) => {
                let mut name = file.clone().into_os_string();
                name.push(".orphans");
                Some(PathBuf::from(name))
            }
            (None, _) => None,
        };
        let role = raw.run.token_role.as_deref();
        let token_role = role.and_then(|role| self.name("run.token_role", role, "/"));
        Run {
            rules: self.rules(&raw.run.rule, role),
            token_role,
            ttl,
            journal,
            verification: raw.run.verification.unwrap_or_default(),
            max_runs: raw.run.max_runs.map_or(10_000, |count| count as usize),
        }
    }

    fn listen(&mut self, raw: &RawListen, environment: &Environment) -> Listen {
        let listen = Listen {
            unix: raw.unix.as_ref().and_then(|raw| self.unix(raw)),
            tcp: raw.tcp.as_ref().and_then(|raw| self.tcp(raw)),
            secrets_manager: raw
                .secrets_manager
                .as_ref()
                .and_then(|raw| self.secrets_manager(raw, environment)),
        };
        let none = raw.unix.is_none() && raw.tcp.is_none() && raw.secrets_manager.is_none();
        if none && !self.is_spoiled("listen") {
            let message = "nobody could reach the broker: set listen.unix.path (or TENURE_SOCKET), or \
                           listen.tcp.address and listen.tcp.token_file (or TENURE_TCP and TENURE_TOKEN_FILE)";
            self.refuse::<()>("listen", message.to_owned());
        }
        listen
    }

    fn unix(&mut self, raw: &RawUnix) -> Option<UnixListen> {
        let path = self.required("listen.unix.path", raw.path.as_deref(), "where the socket is made");
        let path = path.and_then(|path| self.path("listen.unix.path", path)).and_then(|path| {
            let length = path.as_os_str().len();
            if length <= SUN_PATH {
                return Some(path);
            }
            let message =
                format!("the path of a socket has at most {SUN_PATH} bytes, and this one has {length}");
            self.refuse("listen.unix.path", message)
        });
        let mode = raw.mode.as_deref().map_or(Some(0o600), |text| match mode_of(text) {
            Ok(mode) => Some(mode),
            Err(message) => self.refuse("listen.unix.mode", message),
        });
        let owner = self.id("listen.unix.owner", raw.owner.as_ref());
        let group = self.id("listen.unix.group", raw.group.as_ref());
        let allow = match raw.allow.as_deref() {
            None => Allow::SameUser,
            Some([]) => {
                let message = "an empty list lets nobody speak; leave it out to let the process's own user speak, or \
                               list peers: [{ uid = 1000 }, { gid = 1000 }]";
                self.refuse::<()>("listen.unix.allow", message.to_owned());
                Allow::SameUser
            }
            Some(peers) => {
                for (i, _) in
                    peers.iter().enumerate().filter(|(_, peer)| peer.uid.is_none() && peer.gid.is_none())
                {
                    let key = format!("listen.unix.allow[{i}]");
                    if !self.is_spoiled(&format!("{key}.uid")) && !self.is_spoiled(&format!("{key}.gid")) {
                        self.refuse::<()>(&key, "needs a uid, a gid or both".to_owned());
                    }
                }
                Allow::Listed(peers.iter().map(|peer| Peer { uid: peer.uid, gid: peer.gid }).collect())
            }
        };
        Some(UnixListen { path: path?, mode: mode?, owner, group, allow })
    }

    fn tcp(&mut self, raw: &RawTcp) -> Option<TcpListen> {
        if let (None, Some(_)) = (&raw.address, &raw.token_file)
            && !self.is_spoiled("listen.tcp.address")
        {
            let message = "needs listen.tcp.address (TENURE_TCP): the token is for callers by TCP".to_owned();
            return self.refuse("listen.tcp.token_file", message);
        }
        let address =
            self.required("listen.tcp.address", raw.address.as_deref(), "a loopback address and a port");
        let address = address.and_then(|text| self.loopback("listen.tcp.address", text, "127.0.0.1:8200"));
        let what = "the file of the local token that callers send";
        let file = self.required("listen.tcp.token_file", raw.token_file.as_deref(), what);
        let token_file = file.and_then(|file| self.path("listen.tcp.token_file", file));
        Some(TcpListen { address: address?, token_file: token_file? })
    }

    pub(super) fn loopback(&mut self, key: &str, text: &str, example: &str) -> Option<SocketAddr> {
        match text.parse::<SocketAddr>() {
            Ok(address) if address.ip().is_loopback() => Some(address),
            Ok(address) => {
                let message = format!(
                    "{} is not a loopback address: the port is for this machine alone; use 127.0.0.1 or [::1]",
                    address.ip()
                );
                self.refuse(key, message)
            }
            Err(_) => {
                let message = format!("{text:?} is not a numeric address with a port, such as {example:?}");
                self.refuse(key, message)
            }
        }
    }

    fn cache(&mut self, raw: &RawCache) -> Cache {
        let kv_fresh = self.duration("cache.kv_fresh", raw.kv_fresh.as_ref(), 60 * SECOND, MILLISECOND, DAY);
        let kv_stale = match raw.kv_stale.as_ref() {
            None => kv_fresh.max(600 * SECOND),
            said => self.duration("cache.kv_stale", said, kv_fresh, Duration::ZERO, 32 * DAY),
        };
        if !kv_stale.is_zero() && kv_stale < kv_fresh {
            let message = format!(
                "is the age up to which a value is served while Vault cannot answer: \"0s\" (never), or at least \
                 cache.kv_fresh, {}",
                humantime::format_duration(kv_fresh)
            );
            self.refuse::<()>("cache.kv_stale", message);
        }
        let read_timeout = raw.read_timeout.as_ref();
        Cache {
            max_leases: raw.max_leases.map_or(10_000, |count| count as usize),
            kv_fresh,
            kv_stale,
            kv_bytes: raw.kv_bytes.unwrap_or(16 << 20),
            read_timeout: self.duration("cache.read_timeout", read_timeout, 30 * SECOND, MILLISECOND, HOUR),
        }
    }

    fn prefetch(&mut self, raw: &[RawPrefetch]) -> Vec<SecretPath> {
        let mut paths: Vec<SecretPath> = Vec::new();
        for (i, entry) in raw.iter().enumerate() {
            let key = format!("prefetch[{i}].path");
            let Some(text) = self.required(&key, entry.path.as_deref(), "the path of a secret") else {
                continue;
            };
            match text.parse() {
                Ok(path) if paths.contains(&path) => {
                    self.refuse::<()>(&key, format!("{text:?} is already listed"));
                }
                Ok(path) => paths.push(path),
                Err(error) => drop(self.refuse::<()>(&key, format!("{text:?}: {error}"))),
            }
        }
        paths
    }

    /// No two of the files that the process writes may be one.
    fn distinct(&mut self, listen: &Listen, audit: Option<&AuditSink>, run: &Run) {
        let audit = audit.and_then(|sink| match sink {
            AuditSink::File(path) => Some(path.as_path()),
            AuditSink::Stdout(_) | AuditSink::Syslog(..) => None,
        });
        let aws = listen.secrets_manager.as_ref().and_then(|listen| match &listen.token {
            DoorToken::File(file) => Some(file.as_path()),
            DoorToken::Session => None,
        });
        let files: Vec<(&str, &Path)> = [
            ("audit.file", audit),
            ("run.journal", run.journal.as_deref()),
            ("listen.unix.path", listen.unix.as_ref().map(|unix| unix.path.as_path())),
            ("listen.tcp.token_file", listen.tcp.as_ref().map(|tcp| tcp.token_file.as_path())),
            ("listen.secrets_manager.token_file", aws),
        ]
        .into_iter()
        .filter_map(|(key, path)| Some((key, path?)))
        .collect();
        for (i, (key, path)) in files.iter().enumerate() {
            if let Some((other, _)) = files[..i].iter().find(|(_, other)| other == path) {
                self.refuse::<()>(key, format!("is the same file as {other}, {}", path.display()));
            }
        }
    }

    pub(super) fn refuse<T>(&mut self, key: &str, message: String) -> Option<T> {
        self.problems.push(Problem { origin: self.document.origin(key), key: key.to_owned(), message });
        None
    }

    pub(super) fn required<'r>(&mut self, key: &str, value: Option<&'r str>, what: &str) -> Option<&'r str> {
        if value.is_none() && !self.is_spoiled(key) {
            let or =
                variable_of(key).map(|name| format!(", or {name} in the environment")).unwrap_or_default();
            self.refuse::<()>(key, format!("missing: {what}; set it in the file{or}"));
        }
        value
    }

    /// Whether something was already said of `key`, or of a table that it is in.
    pub(super) fn is_spoiled(&self, key: &str) -> bool {
        self.spoiled.iter().any(|said| {
            key.strip_prefix(said.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        })
    }

    fn alone<T>(&mut self, key: &str, needs: &str) -> Option<T> {
        if self.is_spoiled(needs) {
            return None;
        }
        let or = variable_of(needs).map(|name| format!(" ({name})")).unwrap_or_default();
        self.refuse(key, format!("needs {needs}{or}: a client certificate has both"))
    }

    pub(super) fn path(&mut self, key: &str, text: &str) -> Option<PathBuf> {
        if text.is_empty() {
            return self.refuse(key, "is empty: give the path of a file".to_owned());
        }
        if text.contains('\0') || text.ends_with('/') {
            return self.refuse(key, format!("{text:?} cannot be the path of a file"));
        }
        Some(PathBuf::from(text))
    }

    /// Text that goes into a header or a path as it is: printable ASCII, none of `but`.
    pub(super) fn name(&mut self, key: &str, text: &str, but: &str) -> Option<String> {
        if text.is_empty() {
            return self.refuse(key, "is empty".to_owned());
        }
        match text.chars().find(|c| !c.is_ascii_graphic() || but.contains(*c) || matches!(c, '?' | '#' | '%'))
        {
            None => Some(text.to_owned()),
            Some(c) => self.refuse(key, format!("{text:?}: {c:?} cannot be in it")),
        }
    }

    /// A name of several segments.
    pub(super) fn mountlike(&mut self, key: &str, text: &str) -> Option<String> {
        let name = self.name(key, text, "")?;
        if name.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
            return self.refuse(key, format!("{text:?} has an empty segment, or one of dots"));
        }
        Some(name)
    }

    /// A key of Vault's transit engine, by the members `mount` and `key` of a table: both are checked, whichever is wrong.
    pub(super) fn transit(
        &mut self,
        table: &str,
        mount: Option<&String>,
        key: Option<&String>,
        default: &str,
    ) -> Option<(String, String)> {
        let mount = mount.map_or("transit", String::as_str).trim_matches('/');
        let mount = self.mountlike(&format!("{table}.mount"), mount);
        let key = self.name(&format!("{table}.key"), key.map_or(default, String::as_str), "/");
        mount.zip(key)
    }

    fn id(&mut self, key: &str, raw: Option<&RawId>) -> Option<u32> {
        match raw? {
            RawId::Number(id) => Some(*id),
            RawId::Text(text) => match text.parse() {
                Ok(id) => Some(id),
                Err(_) => self.refuse(
                    key,
                    format!("{text:?} is not a numeric id, such as 1000 (names are not looked up)"),
                ),
            },
        }
    }

    pub(super) fn duration(
        &mut self,
        key: &str,
        raw: Option<&RawDuration>,
        default: Duration,
        least: Duration,
        most: Duration,
    ) -> Duration {
        let Some(RawDuration(text)) = raw else { return default };
        let message = match humantime::parse_duration(text) {
            Ok(length) if (least..=most).contains(&length) => return length,
            Ok(_) => format!(
                "must be at least {} and at most {}, not {text:?}",
                humantime::format_duration(least),
                humantime::format_duration(most)
            ),
            Err(_) => {
                format!("{text:?} is not a duration: a number with its unit, such as \"90s\" or \"15m\"")
            }
        };
        self.refuse::<()>(key, message);
        default
    }
}

/// The address without its trailing slash, or what is wrong with it.
fn address_of(text: &str, plain: bool) -> Result<String, String> {
    let example = "such as \"https://vault.internal:8200\"";
    if text.contains('@') {
        // Not quoted, here or below: what stands before it may be a password.
        return Err("has a user before its host; leave it out".to_owned());
    }
    if text.starts_with("unix:") {
        return Err(format!("{text:?} is a socket; Vault itself is reached by https://, {example}"));
    }
    let uri: http::Uri =
        text.parse().map_err(|_| format!("{text:?} is not an address; give a URL, {example}"))?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(format!("{text:?} has no scheme; give a URL, {example}"));
    };
    let (host, path) = (authority.host(), uri.path());
    if host.is_empty() {
        return Err(format!("{text:?} has no host; give a URL, {example}"));
    }
    if uri.query().is_some() || text.contains('#') {
        return Err(format!("{text:?} has more than an address; leave out what begins with ? or #"));
    }
    let path = path.trim_end_matches('/');
    if path.split('/').skip(1).any(|segment| matches!(segment, "" | "." | "..")) {
        return Err(format!("{text:?}: its path has an empty segment, or one of dots"));
    }
    if path == "/v1" || path.ends_with("/v1") {
        return Err(format!("{text:?}: leave \"/v1\" out, it is added to every request"));
    }
    match scheme {
        "https" => {}
        "http" if plain || is_loopback(host) => {}
        "http" => {
            return Err(format!(
                "{text:?} would send credentials over the network in clear; use https://, or say \
                 vault.allow_plain_http = true"
            ));
        }
        other => return Err(format!("{other:?} is not a scheme for it: https, or http to this machine")),
    }
    Ok(format!("{scheme}://{authority}{path}"))
}

pub(super) fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn mode_of(text: &str) -> Result<u32, String> {
    let mode =
        u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777 && (3..=4).contains(&text.len()));
    let mode =
        mode.ok_or_else(|| format!("{text:?} is not a mode of three octal digits, such as \"0660\""))?;
    if mode & 0o007 != 0 {
        return Err(format!("{text:?} lets every user of the machine in; end it in 0, such as \"0660\""));
    }
    if mode & 0o600 != 0o600 {
        return Err(format!("{text:?} keeps the process itself out; begin it with 6, such as \"0600\""));
    }
    Ok(mode)
}
