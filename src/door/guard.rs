//! What is refused before it is looked at: requests that a browser or a proxy was made to send, and tokens that are not
//! ours.

use std::io::{self, Read as _, Write as _};
use std::net::Ipv4Addr;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::{Arc, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{HeaderMap, HeaderValue};
use http::{Method, StatusCode};

use super::listen::{ListenError, writable_folder};
use super::{Connection, Request, Response, Via};
use crate::broker::{Active, Broker, Found, Registrant};
use crate::caller::Caller;
use crate::secret::Credential;

/// What a caller on TCP presents as its token: `tnr_` and 256 random bits, or what the platform gave to all of its processes.
#[derive(Clone, Debug)]
pub struct LocalToken(pub(super) Credential);

impl LocalToken {
    /// One that somebody else made, such as `AWS_SESSION_TOKEN`: hard to guess, and known to those who may ask.
    #[must_use]
    pub fn given(token: Credential) -> Self {
        Self(token)
    }

    /// Reads the token from its file, or makes one there, 0600.
    ///
    /// # Errors
    /// A file that others may write, that everybody may read, or that holds something else.
    pub fn from_file(path: &Path) -> Result<Self, ListenError> {
        let refused = |source| ListenError::TokenFile { path: path.to_owned(), source };
        let mut made = std::fs::OpenOptions::new();
        made.write(true).create_new(true).mode(0o600);
        match made.open(path) {
            Ok(mut file) => {
                let mut bits = [0; 32];
                getrandom::fill(&mut bits).map_err(|error| refused(io::Error::other(error)))?;
                let text = format!("tnr_{}", URL_SAFE_NO_PAD.encode(bits));
                file.write_all(text.as_bytes()).map_err(refused)?;
                return Ok(Self(Credential::new(text)));
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(refused(error)),
        }
        Self::read(path)
    }

    /// Whether [`Self::from_file`] would find a token there, or could make one; nothing is made.
    ///
    /// # Errors
    /// See [`ListenError`].
    pub fn check(path: &Path) -> Result<(), ListenError> {
        if std::fs::symlink_metadata(path).is_ok() {
            return Self::read(path).map(drop);
        }
        writable_folder(path).map_err(|source| ListenError::TokenFile { path: path.to_owned(), source })
    }

    fn read(path: &Path) -> Result<Self, ListenError> {
        let refused = |source| ListenError::TokenFile { path: path.to_owned(), source };
        let wrong = |why: String| refused(io::Error::other(why));
        let file = std::fs::OpenOptions::new()
            .read(true)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
            .open(path)
            .map_err(refused)?;
        let mode = file.metadata().map_err(refused)?.mode() & 0o777;
        if mode & 0o027 != 0 {
            return Err(wrong(format!(
                "its mode is {mode:04o}; chmod it to 0600, or 0640 for a group of readers"
            )));
        }
        let mut text = String::new();
        file.take(4096).read_to_string(&mut text).map_err(refused)?;
        let token = Credential::new(text.trim_end().to_owned());
        let usable = token.expose().strip_prefix("tnr_").is_some_and(|rest| {
            rest.len() >= 43
                && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        });
        match usable {
            true => Ok(Self(token)),
            false => Err(wrong(
                "it does not hold a token of ours; delete it, and one is made at the next start".into(),
            )),
        }
    }
}

/// On whose behalf a request is made that may be looked at.
#[derive(Clone, Debug)]
pub(super) enum Who {
    /// Everybody's: nothing is asked that needs a name.
    Anybody,
    /// Whoever may register runs: a peer of the Unix socket, a holder of the local token. It reads as the process's run.
    Registrant,
    /// The holder of a run's handle.
    Run(Arc<Active>),
}

impl Who {
    /// The run that it is made for.
    pub(super) fn run<'a>(&'a self, broker: &'a Broker) -> &'a Arc<Active> {
        match self {
            Self::Run(run) => run,
            Self::Anybody | Self::Registrant => broker.runs().own(),
        }
    }
}

/// On whose behalf the request is made, or the answer to one that may not be looked at.
pub(super) fn admit(connection: &Connection, request: &Request) -> Result<Who, Box<Response>> {
    let (head, via) = (Head::of(request.headers()), connection.via);
    let refuse = |status, policy, reason: &str| {
        connection.doors.broker.refuse(&connection.caller, via.protocol(), policy, reason);
        Err(Box::new(via.error(status, reason)))
    };
    if let Some(reason) = connection.refused {
        return Err(Box::new(via.error(StatusCode::FORBIDDEN, reason)));
    }
    if request.uri().authority().is_some() || *request.method() == Method::CONNECT {
        return refuse(StatusCode::BAD_REQUEST, "http", "this is not a proxy: send the path alone");
    }
    if let Some(name) = head.repeated {
        return refuse(
            StatusCode::BAD_REQUEST,
            "http",
            &format!("the header {name} is there more than once, and it is not known which is meant"),
        );
    }
    if via != Via::Unix {
        if let Some(reason) = head.sent_by_another() {
            return refuse(StatusCode::FORBIDDEN, via.guard(), reason);
        }
        if !head.host.is_some_and(|host| is_loopback(host.as_bytes())) {
            return refuse(
                StatusCode::FORBIDDEN,
                via.guard(),
                "the Host header must name a loopback address",
            );
        }
    }
    if head.has_body() && matches!(*request.method(), Method::GET | Method::HEAD) {
        return refuse(StatusCode::PAYLOAD_TOO_LARGE, "http", "a request that reads has no body");
    }
    if request.uri().path() == via.open_to_all() {
        return Ok(Who::Anybody);
    }
    let who = match head.presented(via) {
        None if via == Via::Unix => Who::Registrant,
        None => {
            let reason = match via {
                Via::SecretsManager => {
                    "this listener needs its token: send AWS_SESSION_TOKEN, or what listen.secrets_manager.token_file holds, \
                     as X-Aws-Parameters-Secrets-Token"
                }
                _ => {
                    "this listener needs the local token, or a run's handle: send what listen.tcp.token_file holds as \
                     X-Vault-Token"
                }
            };
            return refuse(StatusCode::FORBIDDEN, via.token_policy(), reason);
        }
        Some(token) if connection.token().is_some_and(|ours| ours.0.matches(token)) => Who::Registrant,
        Some(token) => match connection.run_of(token) {
            Some(Found::Active(run)) => match (run.registrant, &connection.caller) {
                (Registrant::Uid(registrant), Caller::Unix { uid, .. }) if registrant != *uid => {
                    return refuse(
                        StatusCode::FORBIDDEN,
                        "handle",
                        "this handle is of a run that another user registered: it is good for that user alone",
                    );
                }
                _ => Who::Run(run),
            },
            Some(Found::Gone(gone)) => {
                let reason =
                    format!("the run {} is over: {}; its credentials are revoked", gone.id, gone.cause);
                return refuse(StatusCode::GONE, "handle", &reason);
            }
            None => {
                // Perhaps a real Vault token: not looked at any further, not forwarded, not logged.
                let reason = match via {
                    Via::SecretsManager => {
                        "the token is not this listener's: it is AWS_SESSION_TOKEN as the broker has it, or what \
                         listen.secrets_manager.token_file holds"
                    }
                    _ => {
                        "the token is not one of this broker's; a Vault token has no use here: unset VAULT_TOKEN, or set \
                         it to a run's handle, or to what listen.tcp.token_file holds"
                    }
                };
                return refuse(StatusCode::FORBIDDEN, "token", reason);
            }
        },
    };
    if head.wraps {
        return refuse(
            StatusCode::BAD_REQUEST,
            "http",
            "response wrapping is not served: the broker holds the answer",
        );
    }
    if let Some(namespace) = head.namespace {
        // A run whose rule has a namespace of its own is there, and nowhere else.
        let runs = match &who {
            Who::Run(run) => run.rule.as_ref().and_then(|rule| rule.namespace.as_deref()),
            Who::Anybody | Who::Registrant => None,
        };
        let ours = runs.or(connection.doors.namespace.as_deref()).unwrap_or_default().trim_matches('/');
        if namespace.to_str().ok().map(|name| name.trim_matches('/')) != Some(ours) {
            return refuse(
                StatusCode::FORBIDDEN,
                "namespace",
                "only the run's own namespace is served: that of its rule, or vault.namespace",
            );
        }
    }
    Ok(who)
}

impl Connection {
    /// The run that a handle stands for. One comparison tells whether it is the one of the last request; to find it among
    /// all takes a hash of what was presented. A run that is over is asked for anew, and so is told apart from none.
    fn run_of(&self, presented: &[u8]) -> Option<Found> {
        let mut last = self.run.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(run) = last.upgrade().filter(|run| run.answers_to(presented)) {
            return Some(Found::Active(run));
        }
        let found = self.doors.broker.runs().by_handle(presented);
        if let Some(Found::Active(run)) = &found {
            *last = Arc::downgrade(run);
        }
        found
    }
}

/// What is looked for in a request's head, found in one pass over it.
#[derive(Default)]
struct Head<'a> {
    forwarded: bool,
    browser: bool,
    wraps: bool,
    chunked: bool,
    length: Option<&'a HeaderValue>,
    host: Option<&'a HeaderValue>,
    vault_token: Option<&'a HeaderValue>,
    aws_token: Option<&'a HeaderValue>,
    authorization: Option<&'a HeaderValue>,
    namespace: Option<&'a HeaderValue>,
    /// What is there twice, although it decides on whose behalf the request is: whoever else read it may have gone by the
    /// other one.
    repeated: Option<&'static str>,
}

impl<'a> Head<'a> {
    fn of(headers: &'a HeaderMap) -> Self {
        let mut head = Self::default();
        for (name, value) in headers {
            let known = match name.as_str() {
                "x-vault-token" => Some(("X-Vault-Token", &mut head.vault_token)),
                "x-aws-parameters-secrets-token" => {
                    Some(("X-Aws-Parameters-Secrets-Token", &mut head.aws_token))
                }
                "authorization" => Some(("Authorization", &mut head.authorization)),
                "x-vault-namespace" => Some(("X-Vault-Namespace", &mut head.namespace)),
                "host" => Some(("Host", &mut head.host)),
                name => {
                    match name {
                        "x-vault-wrap-ttl" => head.wraps = true,
                        "content-length" => head.length = Some(value),
                        "transfer-encoding" => head.chunked = true,
                        "x-forwarded-for" | "forwarded" => head.forwarded = true,
                        "origin" => head.browser = true,
                        name => head.browser |= name.starts_with("sec-fetch-"),
                    }
                    None
                }
            };
            if let Some((shown, known)) = known
                && known.replace(value).is_some()
            {
                head.repeated = Some(shown);
            }
        }
        head
    }

    /// Signs that somebody else's program sent this on a foreign page's or client's behalf.
    fn sent_by_another(&self) -> Option<&'static str> {
        if self.forwarded {
            return Some("forwarded requests are refused: only processes on this host are served");
        }
        self.browser.then_some("requests from browsers are refused")
    }

    fn has_body(&self) -> bool {
        self.chunked || self.length.is_some_and(|length| length != "0")
    }

    /// What the caller presents as its token: Vault clients send either header, AWS's their own, and its agent takes Vault's
    /// as well.
    fn presented(&self, via: Via) -> Option<&'a [u8]> {
        if via == Via::SecretsManager {
            let mut either =
                [self.aws_token, self.vault_token].into_iter().flatten().map(HeaderValue::as_bytes);
            return either.find(|token| !token.is_empty());
        }
        let vault = self.vault_token.map(HeaderValue::as_bytes);
        vault.filter(|token| !token.is_empty()).or_else(|| {
            let value = self.authorization?.as_bytes();
            Some(value.strip_prefix(b"Bearer ").unwrap_or(value))
        })
    }
}

/// `127.0.0.1:8200`, `localhost`, `[::1]:8200`: a name that a foreign page cannot be served under.
fn is_loopback(host: &[u8]) -> bool {
    let Ok(host) = std::str::from_utf8(host) else { return false };
    let name = match host.strip_prefix('[') {
        Some(rest) => return matches!(rest.split_once(']'), Some(("::1", port)) if is_port(port)),
        None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    let port = host.get(name.len()..).unwrap_or_default();
    let local =
        name.eq_ignore_ascii_case("localhost") || name.parse::<Ipv4Addr>().is_ok_and(|ip| ip.is_loopback());
    local && is_port(port)
}

fn is_port(text: &str) -> bool {
    text.is_empty() || text.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn only_loopback_names_are_hosts() {
        for host in [
            "127.0.0.1",
            "127.0.0.1:8200",
            "127.9.9.9:1",
            "localhost:8200",
            "LOCALHOST",
            "[::1]:8200",
            "[::1]",
        ] {
            assert!(is_loopback(host.as_bytes()), "{host}");
        }
        for host in [
            "evil.example",
            "127.0.0.1.evil.example",
            "10.0.0.1",
            "localhost.evil",
            "[::2]",
            "127.0.0.1:x",
            "",
        ] {
            assert!(!is_loopback(host.as_bytes()), "{host}");
        }
    }

    #[test]
    fn the_token_is_made_once_and_only_taken_from_a_file_of_ours() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("token");
        let made = LocalToken::from_file(&path).expect("made");
        let text = std::fs::read_to_string(&path).expect("file");
        assert!(text.starts_with("tnr_") && text.len() == 47);
        assert_eq!(std::fs::metadata(&path).expect("file").mode() & 0o777, 0o600);
        assert!(LocalToken::from_file(&path).expect("again").0.matches(text.as_bytes()));
        assert!(!format!("{made:?}").contains("tnr_"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("mode");
        assert!(LocalToken::from_file(&path).expect_err("loose").to_string().contains("0644"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("mode");
        std::fs::write(&path, "hvs.real").expect("file");
        let error = LocalToken::from_file(&path).expect_err("foreign").to_string();
        assert!(!error.contains("hvs.real"), "{error}");
    }
}
