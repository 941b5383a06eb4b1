//! Doors: the protocols by which workloads reach the broker. A door talks to the broker and to nothing behind it.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixStream};
use tokio::sync::{Semaphore, watch};

use crate::broker::{Active, Asker, Broker};
use crate::caller::Caller;
use crate::lease::upstream::ReadKey;
use crate::supervise::Supervisor;

mod guard;
mod listen;
mod local;
mod response;
mod runs;
mod secrets_manager;
mod target;
mod vault;

pub use guard::LocalToken;
pub use listen::{ListenError, UnixDoor, UnixOptions};
pub use secrets_manager::{MappedSecret, SecretsManager};

/// A client that has not sent a whole request head after four of these is let go; so is an idle one. A timer for each
/// request would cost more than the look at the connection that it saves.
const LOOK_EVERY: Duration = Duration::from_secs(15);

/// The longest request head.
const MAX_HEAD: usize = 16 * 1024;

/// Connections at a time, on each listener. Those beyond wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 2048;

pub(crate) type Response = hyper::Response<Full<Bytes>>;
pub(crate) type Request = hyper::Request<Incoming>;

/// What every connection of a door shares.
pub struct Doors {
    broker: Arc<Broker>,
    /// What holders of the local token present on TCP, and may present on the Unix socket.
    token: Option<LocalToken>,
    namespace: Option<String>,
    supervisor: Supervisor,
    /// Turns true when connections are to finish what they do and close.
    closing: watch::Sender<bool>,
}

/// By which listener a connection came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Via {
    Unix,
    Tcp,
    SecretsManager,
}

impl Via {
    /// What audit lines name it.
    pub(crate) fn door(self) -> &'static str {
        match self {
            Self::Unix => "vault/unix",
            Self::Tcp => "vault/tcp",
            Self::SecretsManager => "secrets-manager",
        }
    }

    /// What audit lines name it where nothing but the head of a request was looked at.
    fn protocol(self) -> &'static str {
        match self {
            Self::Unix | Self::Tcp => "http",
            Self::SecretsManager => self.door(),
        }
    }

    /// The rule by which requests are refused that somebody else made a program send.
    fn guard(self) -> &'static str {
        match self {
            Self::Unix | Self::Tcp => "listen.tcp.guard",
            Self::SecretsManager => "listen.secrets_manager.guard",
        }
    }

    /// The rule by which requests without a token are refused.
    fn token_policy(self) -> &'static str {
        match self {
            Self::Unix | Self::Tcp => "listen.tcp.token",
            Self::SecretsManager => "listen.secrets_manager.token",
        }
    }

    /// The page for a process that can prove nothing: that we are alive, and no more.
    fn open_to_all(self) -> &'static str {
        match self {
            Self::Unix | Self::Tcp => "/tenure/health",
            Self::SecretsManager => secrets_manager::PING,
        }
    }

    /// An error, in the shape that clients of this listener read.
    fn error(self, status: StatusCode, message: &str) -> Response {
        match self {
            Self::Unix | Self::Tcp => response::error(status, message),
            Self::SecretsManager => secrets_manager::error(status, message),
        }
    }
}

/// One connection: who is at its other end, and whether it may ask.
pub(crate) struct Connection {
    pub(crate) doors: Arc<Doors>,
    pub(crate) via: Via,
    pub(crate) caller: Caller,
    /// The same, as it reads.
    pub(crate) asker: Asker,
    /// The reason why nothing is answered on it.
    pub(crate) refused: Option<&'static str>,
    /// What is served on it, where that is not Vault's API.
    secrets_manager: Option<Arc<SecretsManager>>,
    /// The last target that could be parsed, and what it is: most ask for the same again and again.
    last: Mutex<Option<(Box<str>, ReadKey)>>,
    /// The last run that a handle stood for: most present the same one again and again.
    run: Mutex<Weak<Active>>,
    /// Counts when a request comes and when its answer is there: odd in between.
    beats: AtomicU64,
}

impl Doors {
    /// Doors to `broker`. `token` is asked for on TCP; `namespace` is the only one that a request may name.
    #[must_use]
    pub fn new(
        broker: Arc<Broker>,
        token: Option<LocalToken>,
        namespace: Option<String>,
        supervisor: Supervisor,
    ) -> Arc<Self> {
        Arc::new(Self { broker, token, namespace, supervisor, closing: watch::Sender::new(false) })
    }

    /// Serves a Unix socket until [`close`](Self::close).
    pub async fn serve_unix(self: Arc<Self>, door: UnixDoor) {
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let doors = Arc::clone(&self);
        self.accept(
            slots,
            || door.accept(),
            move |stream| doors.on_unix(&stream).map(|connection| (stream, connection)),
        )
        .await;
    }

    /// Serves Vault's API on a loopback TCP listener until [`close`](Self::close).
    pub async fn serve_tcp(self: Arc<Self>, listener: TcpListener) {
        self.serve_loopback(listener, Via::Tcp, None).await;
    }

    /// Serves a loopback TCP listener as AWS's own extension and agent do, until [`close`](Self::close).
    pub async fn serve_secrets_manager(self: Arc<Self>, listener: TcpListener, what: SecretsManager) {
        self.serve_loopback(listener, Via::SecretsManager, Some(Arc::new(what))).await;
    }

    async fn serve_loopback(
        self: Arc<Self>,
        listener: TcpListener,
        via: Via,
        secrets_manager: Option<Arc<SecretsManager>>,
    ) {
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let doors = Arc::clone(&self);
        let accept = || async {
            let (stream, _): (_, SocketAddr) = listener.accept().await?;
            stream.set_nodelay(true)?;
            Ok(stream)
        };
        let asker = Asker::new(&Caller::Holder, via.door());
        self.accept(slots, accept, move |stream| {
            let connection = Connection {
                doors: Arc::clone(&doors),
                via,
                caller: Caller::Holder,
                asker: asker.clone(),
                refused: None,
                secrets_manager: secrets_manager.clone(),
                last: Mutex::default(),
                run: Mutex::default(),
                beats: AtomicU64::new(0),
            };
            Some((stream, connection))
        })
        .await;
    }

    /// Lets connections finish what they do, and takes no new ones.
    pub fn close(&self) {
        self.closing.send_replace(true);
    }

    fn on_unix(self: &Arc<Self>, stream: &UnixStream) -> Option<Connection> {
        // A peer that is gone already has no credentials, and needs no answer.
        let peer = stream.peer_cred().ok()?;
        // Another pid namespace shows as pid 0: not visible, hence unknown.
        let pid = peer.pid().filter(|pid| *pid > 0);
        let caller = Caller::Unix { uid: peer.uid(), gid: peer.gid(), pid };
        let refused = self.broker.admit(&caller, "unix").err().map(|denied| match denied {
            crate::broker::Denied::Policy(reason) => reason,
            _ => "refused",
        });
        Some(Connection {
            doors: Arc::clone(self),
            via: Via::Unix,
            asker: Asker::new(&caller, Via::Unix.door()),
            caller,
            refused,
            secrets_manager: None,
            last: Mutex::default(),
            run: Mutex::default(),
            beats: AtomicU64::new(0),
        })
    }

    async fn accept<S, F>(
        &self,
        slots: Arc<Semaphore>,
        accept: impl Fn() -> F,
        admit: impl Fn(S) -> Option<(S, Connection)>,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        F: Future<Output = std::io::Result<S>>,
    {
        let mut closing = self.closing.subscribe();
        loop {
            let slot = tokio::select! {
                slot = Arc::clone(&slots).acquire_owned() => slot,
                () = closed(&mut closing) => return,
            };
            let stream = tokio::select! {
                stream = accept() => stream,
                () = closed(&mut closing) => return,
            };
            let stream = match stream {
                Ok(stream) => stream,
                Err(error) => {
                    // Out of file descriptors, most often: those who are connected go on being served meanwhile.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let Some((stream, connection)) = admit(stream) else { continue };
            let closing = self.closing.subscribe();
            let gauge = self.broker.metrics().connections.clone();
            self.supervisor.spawn("connection", async move {
                let _slot = slot;
                gauge.inc();
                serve(stream, connection, closing).await;
                gauge.dec();
            });
        }
    }
}

/// Resolves when the doors close, or when nobody is left to close them.
async fn closed(closing: &mut watch::Receiver<bool>) {
    let _ = closing.wait_for(|closing| *closing).await;
}

async fn serve<S>(stream: S, connection: Connection, mut closing: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = Arc::new(connection);
    let service = service_fn(|request: Request| {
        let connection = Arc::clone(&connection);
        async move {
            connection.beat();
            let answer = answer(&connection, request).await;
            connection.beat();
            Ok::<_, Infallible>(answer)
        }
    });
    let mut http = http1::Builder::new();
    http.header_read_timeout(None).max_buf_size(MAX_HEAD).half_close(true);
    let mut serving = std::pin::pin!(http.serve_connection(TokioIo::new(stream), service));
    let mut silent = std::pin::pin!(connection.silent());
    let result = tokio::select! {
        biased;
        result = &mut serving => result,
        () = &mut silent => return,
        () = closed(&mut closing) => {
            serving.as_mut().graceful_shutdown();
            tokio::select! {
                result = serving => result,
                () = silent => return,
            }
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a connection ended early");
    }
}

impl Connection {
    /// What holders of a token present on it.
    fn token(&self) -> Option<&LocalToken> {
        match &self.secrets_manager {
            Some(door) => Some(&door.token),
            None => self.doors.token.as_ref(),
        }
    }

    fn beat(&self) {
        self.beats.fetch_add(1, Ordering::Relaxed);
    }

    /// Resolves when no request has come for a while, and none is being answered.
    async fn silent(&self) {
        let (mut before, mut looks) = (0, 0);
        while looks < 4 {
            tokio::time::sleep(LOOK_EVERY).await;
            let beats = self.beats.load(Ordering::Relaxed);
            looks = if beats == before && beats.is_multiple_of(2) { looks + 1 } else { 0 };
            before = beats;
        }
    }
}

async fn answer(connection: &Connection, request: Request) -> Response {
    let who = match guard::admit(connection, &request) {
        Ok(who) => who,
        Err(refusal) => return *refusal,
    };
    if let Some(door) = &connection.secrets_manager {
        return Box::pin(secrets_manager::answer(connection, door, &who, &request)).await;
    }
    let path = request.uri().path();
    if path.starts_with("/v1/") {
        vault::answer(connection, &who, &request).await
    } else if let Some(rest) = path.strip_prefix("/tenure/runs") {
        let id = rest.strip_prefix('/').map(str::to_owned);
        match (rest.is_empty(), id) {
            (true, _) => Box::pin(runs::all(connection, &who, request)).await,
            (_, Some(id)) => Box::pin(runs::one(connection, &who, &id, request)).await,
            _ => local::answer(connection, &who, &request),
        }
    } else {
        local::answer(connection, &who, &request)
    }
}
