//! The one HTTP client to Vault: connections, time-outs, headers, limits, and what a failure means.
//!
//! It runs `vaultrs`' typed endpoints but not `vaultrs`' client, which loses response headers (so `Retry-After`) and
//! prints tokens. One pool of HTTP/1 connections; TLS 1.2 and 1.3 by rustls with ring, set up at the first connection
//! and only where the address asks for it.
//!
//! A failure is classified in one place, `refusal`; what a particular call makes of a refusal (a role is missing, a
//! lease is gone) is its caller's business, with [`Reply::refuses_with`].
//!
//! Buffers of ours that hold a request or an answer are wiped when dropped. What hyper and rustls buffer is not.

mod answer;
mod connect;
mod consistency;
mod endpoint;
#[cfg(test)]
pub(crate) mod fake;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod redirect;
mod refusal;
mod reply;
mod unwrap;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderValue, USER_AGENT};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Uri};
use http_body_util::Full;
use rustify::endpoint::Endpoint;
use tokio::sync::OnceCell;
use tracing::Instrument as _;
use vaultrs::api::token::requests::RevokeTokenSelfRequest;
use zeroize::Zeroizing;

pub(crate) use self::answer::{Auth, Envelope, looked_up};
use self::consistency::Consistency;
pub(crate) use self::endpoint::{
    AuditHashRequest, CapabilitiesRequest, CertLoginRequest, LookupLeaseRequest, RenewLeaseRequest,
};
pub use self::reply::Reply;
pub(crate) use self::reply::advised;
use self::reply::{Raw, collect};
use crate::clock::Clock;
use crate::lease::failure::{Class, Failure};
use crate::lease::upstream::{CallId, Minted, Token};
use crate::secret::Credential;

/// The largest answer taken to a read.
pub const READ_LIMIT: usize = 32 * 1024 * 1024;
/// The largest answer taken to anything else: a login, a token, a renewal.
pub const CONTROL_LIMIT: usize = 1024 * 1024;

const CALL_HEADER: &str = "x-tenure-request";
const RUN_HEADER: &str = "x-tenure-run";
const CHAIN_HEADER: &str = "x-tenure-chain";

/// Where Vault is and how it is reached. Holds nothing secret: the client key is named by its file.
///
/// `HTTPS_PROXY` and its like are not looked at: Vault is reached directly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VaultConfig {
    /// `https://vault.example.com:8200`, perhaps with a path prefix. `http` is taken too: a sidecar mesh or a test.
    pub address: String,
    /// `X-Vault-Namespace`, for Vault Enterprise, HCP and OpenBao 2.3 and later.
    pub namespace: Option<String>,
    /// A PEM file of certificate authorities. Where it is given, the platform's are not consulted.
    pub ca_file: Option<PathBuf>,
    /// Our certificate, where Vault (or what stands before it) asks for one.
    pub client_cert: Option<ClientCert>,
    /// The name that Vault's certificate must carry, where it is not the address's host.
    pub tls_server_name: Option<String>,
    /// For the TCP connection to be made.
    pub connect_timeout: Duration,
    /// For the whole of one request: connection, TLS, and the last byte of the answer.
    pub request_timeout: Duration,
}

/// A client certificate and its key, as PEM files. They are read when a connection pool is made, so a rotated pair is
/// picked up by [`VaultClient::forget_connections`] and after a failed handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCert {
    /// The certificate, with intermediates.
    pub cert_file: PathBuf,
    /// The private key, PKCS#8, PKCS#1 or SEC1.
    pub key_file: PathBuf,
}

impl VaultConfig {
    /// An address with the defaults: 5 s to connect, 30 s for a request, the platform's certificate authorities.
    pub fn new(address: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            namespace: None,
            ca_file: None,
            client_cert: None,
            tls_server_name: None,
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
        }
    }
}

/// The client. Share it by `Arc`: it owns the pool.
pub struct VaultClient {
    config: VaultConfig,
    scheme: Scheme,
    authority: Authority,
    /// Without a trailing slash; empty most often.
    prefix: String,
    namespace: Option<HeaderValue>,
    clock: Clock,
    consistency: Consistency,
    /// Made at the first request, replaced whole by `forget_connections`.
    pool: Mutex<Arc<OnceCell<connect::Pool>>>,
}

/// One request, as far as the callers differ.
pub struct Ask<'a> {
    /// What it is known by in both logs.
    pub call: &'a CallId,
    /// Whose it is; none for a login.
    pub token: Option<&'a Credential>,
    /// The namespace that it is made in, a whole path without slashes at its ends; `None`: the client's own.
    pub namespace: Option<&'a str>,
    /// The state that the answer must not be older than: [`crate::lease::upstream::Made::index`].
    pub index: Option<&'a str>,
    /// The largest answer that is taken.
    pub limit: usize,
}

impl<'a> Ask<'a> {
    /// A request with that token, in its namespace, by a node that knows of it.
    #[must_use]
    pub fn with(call: &'a CallId, token: &'a Token, limit: usize) -> Self {
        let index = token.made.as_ref().and_then(|made| made.index.as_deref());
        Self { call, token: Some(&token.credential), namespace: token.namespace.as_deref(), index, limit }
    }
}

impl VaultClient {
    /// A client for that Vault. Nothing is read or connected yet.
    ///
    /// # Errors
    /// [`Class::Permanent`] if the address is not an `http` or `https` URL, or the namespace cannot be a header.
    pub fn new(config: VaultConfig, clock: Clock) -> Result<Self, Failure> {
        let wrong = |why: &str| {
            Failure::new(Class::Permanent, format!("the Vault address {:?} {why}", redacted(&config.address)))
        };
        let uri: Uri = config.address.parse().map_err(|_| wrong("is not a URL: write https://host:port"))?;
        let parts = uri.into_parts();
        let scheme = parts.scheme.ok_or_else(|| wrong("has no scheme: write https://host:port"))?;
        if scheme != Scheme::HTTP && scheme != Scheme::HTTPS {
            return Err(wrong("is neither http nor https"));
        }
        let authority = parts.authority.ok_or_else(|| wrong("has no host"))?;
        if authority.host().is_empty() || authority.as_str().contains('@') {
            return Err(wrong("must be a host and perhaps a port, without a user"));
        }
        let path = parts.path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/"));
        if path.query().is_some() {
            return Err(wrong("has a query"));
        }
        let prefix = path.path().trim_end_matches('/');
        if prefix == "/v1" || prefix.ends_with("/v1") {
            return Err(wrong("ends in /v1: leave that out"));
        }
        let namespace = match config.namespace.as_deref().map(|name| name.trim_matches('/')) {
            None | Some("") => None,
            Some(name) => Some(HeaderValue::from_str(name).map_err(|_| {
                Failure::new(Class::Permanent, format!("the Vault namespace {name:?} cannot be a header"))
            })?),
        };
        let prefix = prefix.to_owned();
        let (consistency, pool) = (Consistency::default(), Mutex::default());
        Ok(Self { config, scheme, authority, prefix, namespace, clock, consistency, pool })
    }

    /// The address, for messages and the log.
    #[must_use]
    pub fn address(&self) -> String {
        format!("{}://{}{}", self.scheme, self.authority, self.prefix)
    }

    /// The clock that the client tells `sent` by.
    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Drops idle connections, and what was read from certificate files. Requests under way go on.
    pub fn forget_connections(&self) {
        *self.pool.lock().unwrap_or_else(PoisonError::into_inner) = Arc::default();
    }

    /// Runs one of `vaultrs`' endpoints (or of ours): the request is the endpoint's, everything else is this client's.
    ///
    /// # Errors
    /// Only where there was no answer. An answer of any status is a [`Reply`].
    pub async fn execute<E: Endpoint>(&self, ask: Ask<'_>, endpoint: &E) -> Result<Reply, Failure> {
        // The base is a placeholder: rustify logs it, and its path is replaced below.
        let request = endpoint.request("http://vault/").map_err(|_| {
            // rustify's errors may carry the body.
            Failure::new(Class::Permanent, format!("the request to {} could not be built", endpoint.path()))
        })?;
        let (parts, body) = request.into_parts();
        let path = parts.uri.path_and_query().map_or("/", PathAndQuery::as_str);
        self.send(ask, parts.method, path, Zeroizing::new(body)).await
    }

    /// The token in an accepted answer to a login or a token's creation in `namespace`. One that cannot be used is
    /// revoked.
    ///
    /// # Errors
    /// [`Class::Permanent`] if it is not a service token that can be used without limit and ends by itself. `cure`
    /// says what to set where: `token_type=service and token_num_uses=0 on auth/aws/role/orders`.
    pub(crate) async fn token(
        &self,
        call: &CallId,
        reply: &Reply,
        namespace: Option<&Arc<str>>,
        cure: &str,
    ) -> Result<Minted<Token>, Failure> {
        let minted = answer::token_from(reply, namespace, cure);
        if minted.is_err()
            && let Some(token) = Auth::of(reply).ok().and_then(|auth| auth.client_token)
        {
            let namespace = namespace.map(|namespace| &**namespace);
            let index = consistency::index(&reply.headers);
            let index = index.as_deref();
            let ask = Ask { call, token: Some(&token), namespace, index, limit: CONTROL_LIMIT };
            // A batch token cannot be revoked, and nothing hangs off the others: they expire.
            let _ = self.execute(ask, &RevokeTokenSelfRequest {}).await;
        }
        minted
    }

    /// GET or LIST of a path as it is known to policy: not percent-encoded, below `/v1/`.
    ///
    /// # Errors
    /// As [`Self::execute`]; [`Class::Permanent`] also for a path with empty, `.` or `..` segments, which Vault would
    /// read as another path than the one that was judged.
    pub async fn read(&self, ask: Ask<'_>, path: &str, query: &str, list: bool) -> Result<Reply, Failure> {
        let method = if list { Method::from_bytes(b"LIST").unwrap_or(Method::GET) } else { Method::GET };
        let path = encoded(path, query)?;
        self.send(ask, method, &path, Zeroizing::default()).await
    }

    async fn send(
        &self,
        ask: Ask<'_>,
        method: Method,
        path: &str,
        body: Zeroizing<Vec<u8>>,
    ) -> Result<Reply, Failure> {
        let shown = path.split('?').next().unwrap_or(path).trim_start_matches('/');
        let subject = format!("{method} {shown} at {}", self.address());
        let mut headers = self
            .headers(&ask, !body.is_empty())
            .map_err(|why| Failure::new(Class::Permanent, format!("cannot send {subject}: {why}")))?;
        let body = Bytes::from_owner(body);
        let path = format!("/v1{path}");
        let target = Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(format!("{}{path}", self.prefix))
            .build()
            .map_err(|_| {
                Failure::new(Class::Permanent, format!("cannot send {subject}: not a valid path"))
            })?;

        let (request, run) = (&*ask.call.request, &*ask.call.run);
        let span = tracing::debug_span!("vault", request, run, %method, path = shown);
        let limit = self.config.request_timeout;
        let whole = async {
            let began = self.clock.now();
            let mut tries = self.consistency.tries();
            loop {
                let sent = self.clock.now();
                let mut reply =
                    self.attempt(&method, target.clone(), &headers, &body, ask.limit, &subject).await?;
                if redirect::is(reply.status) {
                    let path = path.split('?').next().unwrap_or_default();
                    let next = redirect::followed(&reply, &self.address(), &target, path)?;
                    reply = self.attempt(&method, next, &headers, &body, ask.limit, &subject).await?;
                }
                match tries.again(&reply, &mut headers) {
                    // What Vault said says more than that there was no time left to hear it once more.
                    Some(delay) if self.clock.now().since(began) + delay < limit => {
                        tokio::time::sleep(delay).await;
                    }
                    _ => return Ok((sent, reply)),
                }
            }
        };
        let (sent, raw) = match tokio::time::timeout(limit, whole.instrument(span.clone())).await {
            Ok(answer) => answer?,
            Err(_) => {
                return Err(Failure::new(
                    Class::Transient,
                    format!("no complete answer to {subject} within {limit:?}"),
                ));
            }
        };
        let Raw { status, headers, body } = raw;
        let received = self.clock.now();
        tracing::debug!(parent: &span, status = status.as_u16(), ms = received.since(sent).as_millis() as u64, "answered");
        Ok(Reply { status, headers, body, sent, received, subject })
    }

    async fn attempt(
        &self,
        method: &Method,
        target: Uri,
        headers: &HeaderMap,
        body: &Bytes,
        limit: usize,
        subject: &str,
    ) -> Result<Raw, Failure> {
        let cell = Arc::clone(&self.pool.lock().unwrap_or_else(PoisonError::into_inner));
        let pool = cell.get_or_try_init(|| connect::pool(&self.config, self.scheme == Scheme::HTTPS)).await?;
        let mut request = http::Request::new(Full::new(body.clone()));
        *request.method_mut() = method.clone();
        *request.uri_mut() = target;
        *request.headers_mut() = headers.clone();
        let response = match pool.request(request).await {
            Ok(response) => response,
            Err(error) => {
                let trouble = connect::trouble(&error);
                if trouble.tls {
                    // A CA file or a client certificate may be put right on disk: read them again next time.
                    self.forget_connections();
                }
                return Err(Failure::new(trouble.class, format!("cannot {subject}: {}", trouble.message)));
            }
        };
        let (parts, body) = response.into_parts();
        let body = collect(body, &parts, limit, subject).await?;
        Ok(Raw { status: parts.status, headers: parts.headers, body })
    }

    fn headers(&self, ask: &Ask<'_>, has_body: bool) -> Result<HeaderMap, &'static str> {
        let mut headers = HeaderMap::with_capacity(8);
        headers.insert("x-vault-request", HeaderValue::from_static("true"));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("tenure/", env!("CARGO_PKG_VERSION"))));
        let id = |text: &str| HeaderValue::from_str(text).map_err(|_| "the call's id cannot be a header");
        headers.insert(CALL_HEADER, id(&ask.call.request)?);
        headers.insert(RUN_HEADER, id(&ask.call.run)?);
        if let Some(chain) = &ask.call.chain {
            headers.insert(CHAIN_HEADER, id(chain)?);
        }
        let namespace = match ask.namespace {
            None => self.namespace.clone(),
            // The root has no name.
            Some("") => None,
            Some(name) => {
                Some(HeaderValue::from_str(name).map_err(|_| "the token's namespace cannot be a header")?)
            }
        };
        if let Some(namespace) = namespace {
            headers.insert("x-vault-namespace", namespace);
        }
        if let Some(token) = ask.token {
            let mut token =
                HeaderValue::from_str(token.expose()).map_err(|_| "the token cannot be a header")?;
            token.set_sensitive(true);
            headers.insert("x-vault-token", token);
        }
        if let Some(index) = ask.index {
            consistency::ask(&mut headers, index);
        }
        if has_body {
            headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        Ok(headers)
    }
}

impl fmt::Debug for VaultClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VaultClient").field("address", &self.address()).finish_non_exhaustive()
    }
}

/// `/a/b%20c?query` from a decoded path: everything but unreserved characters and slashes is percent-encoded, so that
/// Vault decodes exactly the path that was judged.
fn encoded(path: &str, query: &str) -> Result<String, Failure> {
    use fmt::Write as _;
    let wrong = |why: &str| Failure::new(Class::Permanent, format!("the path {path:?} {why}"));
    // LIST paths may end in a slash.
    let trimmed = path.strip_suffix('/').unwrap_or(path);
    if trimmed.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
        return Err(wrong("has an empty, '.' or '..' segment"));
    }
    if !query.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
        return Err(wrong("has a query that is not percent-encoded"));
    }
    let mut text = String::with_capacity(path.len() + query.len() + 2);
    text.push('/');
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/!$&'()*+,;=:@".contains(&byte) {
            text.push(char::from(byte));
        } else {
            write!(text, "%{byte:02X}").map_err(|_| wrong("cannot be encoded"))?;
        }
    }
    if !query.is_empty() {
        text.push('?');
        text.push_str(query);
    }
    Ok(text)
}

/// A URL without what stands before an `@`.
fn redacted(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(start), Some(end)) if start < end => format!("{}://…{}", &url[..start], &url[end..]),
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests;
