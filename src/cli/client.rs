//! HTTP/1.1 to the broker, over its socket or loopback port.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use http::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use zeroize::Zeroizing;

use crate::config::Environment;
use crate::secret::Credential;

/// Where the broker's socket is when nobody says otherwise.
const SOCKET: &str = "/run/tenure/tenure.sock";

/// What the handles of runs begin with.
const HANDLE: &str = "tnr_";

/// The largest answer that is read, in bytes: Vault's own limit for a request is 32 MiB (`max_request_size`).
const LARGEST: usize = 64 << 20;

/// The longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// Where the broker is.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "The broker")]
pub(crate) struct BrokerArgs {
    /// Its Unix socket [env: TENURE_SOCKET] [default: /run/tenure/tenure.sock]
    #[arg(long, value_name = "PATH", conflicts_with = "addr")]
    pub(crate) socket: Option<PathBuf>,
    /// Its loopback address, such as http://127.0.0.1:8200 [env: TENURE_TCP, or a local VAULT_ADDR]
    #[arg(long, value_name = "URL")]
    pub(crate) addr: Option<String>,
    /// The file of its local token, needed on TCP [env: TENURE_TOKEN_FILE]
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
}

/// A broker to talk to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Broker {
    place: Place,
    token_file: Option<PathBuf>,
    /// `VAULT_TOKEN`, where it is a run's handle.
    handle: Option<HeaderValue>,
    for_run: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

/// What the broker answered, with whatever status.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Zeroizing<Vec<u8>>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// What was said of the broker's place makes no sense.
    #[error("{0}")]
    Usage(String),
    /// Nobody is there.
    #[error("cannot reach the broker at {place}: {reason}. Is `tenure serve` running?")]
    Unreachable { place: String, reason: String },
    /// Somebody is there, and gives no answer.
    #[error("the broker at {place} gave no answer: {reason}")]
    Broken { place: String, reason: String },
}

impl Failure {
    /// The exit code: 2 where nobody is there, 1 otherwise.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Unreachable { .. } => 2,
            Self::Usage(_) | Self::Broken { .. } => 1,
        }
    }
}

impl Broker {
    /// By flags, then `TENURE_SOCKET`, `TENURE_TCP`, a `VAULT_ADDR` that is local, and last the default socket.
    pub(crate) fn find(args: &BrokerArgs, environment: &Environment) -> Result<Self, Failure> {
        let local = |name| environment.var(name).and_then(|text| place(text).ok());
        let place = match (&args.socket, &args.addr) {
            (Some(path), _) => Place::Unix(path.clone()),
            (None, Some(addr)) => place(addr).map_err(|reason| {
                Failure::Usage(format!("--addr {addr}: {reason}, such as http://127.0.0.1:8200"))
            })?,
            (None, None) => environment
                .var("TENURE_SOCKET")
                .map(|path| Place::Unix(path.into()))
                .or_else(|| local("TENURE_TCP"))
                .or_else(|| local("VAULT_ADDR"))
                .unwrap_or_else(|| Place::Unix(SOCKET.into())),
        };
        let file =
            args.token_file.clone().or_else(|| environment.var("TENURE_TOKEN_FILE").map(PathBuf::from));
        let token_file = file.filter(|_| matches!(place, Place::Tcp(_)));
        // A real Vault token has no use at the broker, and is not shown to it. A token that is named counts before it.
        let handle = environment.var("VAULT_TOKEN").filter(|token| token.starts_with(HANDLE));
        let handle = handle.filter(|_| args.token_file.is_none()).map(sensitive).transpose()?;
        Ok(Self { place, token_file, handle, for_run: false })
    }

    /// Asks as the run whose handle `VAULT_TOKEN` holds, if it holds one.
    pub(crate) fn for_run(self) -> Self {
        Self { for_run: true, ..self }
    }

    /// Where it is, in words.
    pub(crate) fn place(&self) -> String {
        match &self.place {
            Place::Unix(path) => path.display().to_string(),
            Place::Tcp(address) => address.to_string(),
        }
    }

    /// Whether it is asked by TCP, without a token.
    pub(crate) fn lacks_token(&self) -> bool {
        matches!(self.place, Place::Tcp(_)) && self.token_file.is_none() && self.handle.is_none()
    }

    /// One GET of `path` (from its slash on), within `wait`.
    pub(crate) async fn get(
        &self,
        path: &str,
        headers: &[(HeaderName, HeaderValue)],
        wait: Duration,
    ) -> Result<Answer, Failure> {
        self.send(Method::GET, path, headers, Bytes::new(), wait).await
    }

    /// One request with a body, in JSON where it is not empty.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(HeaderName, HeaderValue)],
        body: Bytes,
        wait: Duration,
    ) -> Result<Answer, Failure> {
        let has_body = !body.is_empty();
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() =
            path.parse().map_err(|_| Failure::Usage(format!("{path:?} cannot be asked for")))?;
        let all = request.headers_mut();
        let host = match &self.place {
            Place::Unix(_) => HeaderValue::from_static("localhost"),
            Place::Tcp(address) => header(&address.to_string())?,
        };
        all.insert(HOST, host);
        all.insert(USER_AGENT, HeaderValue::from_static(concat!("tenure/", env!("CARGO_PKG_VERSION"))));
        all.insert("x-vault-request", HeaderValue::from_static("true"));
        if has_body {
            all.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        if let Some(token) = self.token()? {
            all.insert("x-vault-token", token);
        }
        for (name, value) in headers {
            all.insert(name, value.clone());
        }
        let connected = tokio::time::timeout(CONNECT.min(wait), self.connect()).await;
        let stream = connected.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
        let stream = stream.map_err(|error| self.unreachable(&error))?;
        match tokio::time::timeout(wait, exchange(stream, request)).await {
            Ok(answer) => answer.map_err(|reason| Failure::Broken { place: self.place(), reason }),
            Err(_) => {
                let reason = format!("nothing for {}", humantime::format_duration(wait));
                Err(Failure::Broken { place: self.place(), reason })
            }
        }
    }

    /// What is presented: on TCP somebody must be named, on the socket the kernel names who asks.
    fn token(&self) -> Result<Option<HeaderValue>, Failure> {
        let needed = matches!(self.place, Place::Tcp(_)) && self.token_file.is_none();
        match &self.handle {
            Some(handle) if self.for_run || needed => Ok(Some(handle.clone())),
            _ => self.token_file.as_deref().map(token).transpose(),
        }
    }

    async fn connect(&self) -> std::io::Result<Box<dyn Stream>> {
        Ok(match &self.place {
            Place::Unix(path) => Box::new(UnixStream::connect(path).await?),
            Place::Tcp(address) => Box::new(TcpStream::connect(address).await?),
        })
    }

    fn unreachable(&self, error: &std::io::Error) -> Failure {
        use std::io::ErrorKind;
        let reason = match (error.kind(), &self.place) {
            (ErrorKind::NotFound, Place::Unix(_)) => "there is no such socket".to_owned(),
            (ErrorKind::ConnectionRefused, _) => "nobody listens there".to_owned(),
            (ErrorKind::PermissionDenied, Place::Unix(_)) => {
                "this user may not open it (see listen.unix.mode, owner and group)".to_owned()
            }
            _ => error.to_string(),
        };
        Failure::Unreachable { place: self.place(), reason }
    }
}

impl Answer {
    /// What is wrong, as a door says it: the `errors` of the body, or what is `missing`, or its text.
    pub(crate) fn errors(&self) -> String {
        #[derive(serde::Deserialize)]
        struct Errors {
            #[serde(alias = "missing")]
            errors: Vec<String>,
        }
        if let Ok(Errors { errors }) = serde_json::from_slice(&self.body) {
            return errors.join("; ");
        }
        let text = String::from_utf8_lossy(&self.body);
        text.trim().chars().take(500).collect()
    }

    /// A header's text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

async fn exchange(stream: Box<dyn Stream>, request: Request<Full<Bytes>>) -> Result<Answer, String> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, LARGEST).collect().await.map_err(|error| error.to_string())?;
        let body = Zeroizing::new(body.to_bytes().to_vec());
        Ok(Answer { status: head.status, headers: head.headers, body })
    };
    tokio::pin!(answer, connection);
    // The connection moves the bytes; when it ends first, the answer says how.
    tokio::select! {
        answer = &mut answer => answer,
        _ = &mut connection => answer.await,
    }
}

fn place(text: &str) -> Result<Place, String> {
    if let Some(path) = text.strip_prefix("unix://") {
        let named = path.starts_with('/').then(|| Place::Unix(path.into()));
        return named.ok_or_else(|| "a socket is given as unix:///path".to_owned());
    }
    let bare = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
    let bare = match bare.strip_prefix("localhost") {
        Some(rest) => format!("127.0.0.1{rest}"),
        None => bare.to_owned(),
    };
    let address: SocketAddr = match bare.parse::<IpAddr>() {
        Ok(ip) => (ip, 8200).into(),
        Err(_) => bare.parse().map_err(|_| "it is not a local address with a port".to_owned())?,
    };
    if !address.ip().is_loopback() {
        return Err("the broker listens on this machine's loopback alone".to_owned());
    }
    if address.port() == 0 {
        return Err("port 0 is no port to connect to".to_owned());
    }
    Ok(Place::Tcp(address))
}

fn token(file: &Path) -> Result<HeaderValue, Failure> {
    let text = secret(file, "token")?;
    HeaderValue::from_str(text.expose())
        .map(|mut value| {
            value.set_sensitive(true);
            value
        })
        .map_err(|_| Failure::Usage(format!("token file {}: holds no token", file.display())))
}

fn sensitive(handle: &str) -> Result<HeaderValue, Failure> {
    let mut value = HeaderValue::from_str(handle)
        .map_err(|_| Failure::Usage("VAULT_TOKEN begins like a run's handle and is none".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// What a file holds, without the blanks around it. `what` names it in errors, which never quote it.
pub(crate) fn secret(file: &Path, what: &str) -> Result<Credential, Failure> {
    Credential::from_file(file)
        .map_err(|why| Failure::Usage(format!("{what} file {}: {why}", file.display())))
}

fn header(text: &str) -> Result<HeaderValue, Failure> {
    HeaderValue::from_str(text).map_err(|_| Failure::Usage(format!("{text:?} cannot be sent")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_broker_is_where_the_nearest_word_says() {
        let unix = |path: &str| Some(Place::Unix(path.into()));
        let tcp = |text: &str| Some(Place::Tcp(text.parse().unwrap()));
        for (socket, addr, vars, expected) in [
            (None, None, &[][..], unix("/run/tenure/tenure.sock")),
            (Some("/a"), None, &[("TENURE_SOCKET", "/b")], unix("/a")),
            (None, None, &[("TENURE_SOCKET", "/b"), ("VAULT_ADDR", "http://127.0.0.1:1")], unix("/b")),
            (None, Some("http://127.0.0.1:8200"), &[("TENURE_SOCKET", "/b")], tcp("127.0.0.1:8200")),
            (None, Some("localhost:9"), &[], tcp("127.0.0.1:9")),
            (None, Some("http://[::1]:8200/"), &[], tcp("[::1]:8200")),
            (None, Some("unix:///x.sock"), &[], unix("/x.sock")),
            (None, None, &[("TENURE_TCP", "127.0.0.1:7"), ("VAULT_ADDR", "unix:///v")], tcp("127.0.0.1:7")),
            (None, None, &[("TENURE_TCP", "127.0.0.1:0")], unix("/run/tenure/tenure.sock")),
            (None, None, &[("VAULT_ADDR", "unix:///v")], unix("/v")),
            (None, None, &[("VAULT_ADDR", "http://localhost:8200")], tcp("127.0.0.1:8200")),
            (None, None, &[("VAULT_ADDR", "https://vault.internal:8200")], unix("/run/tenure/tenure.sock")),
            (None, Some("http://10.0.0.1:8200"), &[], None),
            (None, Some("https://127.0.0.1:8200"), &[], None),
            (None, Some("127.0.0.1:0"), &[], None),
            (None, Some("unix://x"), &[], None),
        ] {
            let args =
                BrokerArgs { socket: socket.map(Into::into), addr: addr.map(Into::into), token_file: None };
            let found = Broker::find(&args, &vars.iter().copied().collect()).ok();
            assert_eq!(found.map(|broker| broker.place), expected, "{socket:?} {addr:?} {vars:?}");
        }
    }

    #[test]
    fn a_handle_is_presented_where_it_says_who_asks() {
        let environment = |token: &str| [("VAULT_TOKEN", token)].into_iter().collect::<Environment>();
        let of = |addr: &str, token: &str, named: Option<&str>| {
            let (addr, token_file) = (Some(addr.into()), named.map(Into::into));
            let args = BrokerArgs { addr, token_file, ..BrokerArgs::default() };
            Broker::find(&args, &environment(token)).unwrap()
        };
        let presented =
            |broker: Broker| broker.token().ok().flatten().map(|token| token.to_str().unwrap().to_owned());
        let handle = Some("tnr_a".to_owned());
        for (addr, token, plain, for_run) in [
            ("unix:///x", "tnr_a", None, handle.clone()),
            ("127.0.0.1:1", "tnr_a", handle.clone(), handle.clone()),
            ("unix:///x", "hvs.real", None, None),
            ("127.0.0.1:1", "hvs.real", None, None),
        ] {
            assert_eq!(presented(of(addr, token, None)), plain, "{addr} {token}");
            assert_eq!(presented(of(addr, token, None).for_run()), for_run, "{addr} {token}");
        }
        let named = of("127.0.0.1:1", "tnr_a", Some("/nonexistent/t")).for_run();
        assert!(named.token().is_err(), "the file that was named counts");
        assert!(!format!("{:?}", of("unix:///x", "tnr_a", None)).contains("tnr_a"));
    }

    #[test]
    fn a_token_is_for_tcp_alone() {
        let environment = [("TENURE_TOKEN_FILE", "/t")].into_iter().collect();
        let of = |addr: &str| {
            let args = BrokerArgs { addr: Some(addr.into()), ..BrokerArgs::default() };
            Broker::find(&args, &environment).unwrap().token_file
        };
        assert_eq!(of("unix:///x"), None);
        assert_eq!(of("127.0.0.1:1"), Some("/t".into()));
    }
}
