//! Doors: the protocols by which workloads reach the broker. A door talks to the broker and to nothing behind it.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tracing::{Instrument as _, Level};

use crate::broker::{Asker, Broker};
use crate::caller::Caller;
use crate::supervise::Supervisor;

mod connection;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod guard;
mod listen;
mod local;
mod named;
mod response;
mod runs;
mod seats;
mod secrets_manager;
mod target;
mod vault;
mod wire;

use guard::Who;

pub use guard::LocalToken;
pub use listen::{ListenError, UnixDoor, UnixOptions};
pub use secrets_manager::{MappedSecret, SecretsManager};

use connection::Connection;
use seats::{Party, Seats};
use wire::Stream;

/// When the system has no file descriptor to give, it is asked again after so long: those who are connected go on being
/// served meanwhile.
const EXHAUSTED: Duration = Duration::from_millis(20);

/// What goes on is told again after so long without it.
const TELL_AGAIN: Duration = Duration::from_secs(60);

/// With fewer connections than these somebody has forgotten a limit.
const FEW: usize = 64;

pub(crate) type Response = hyper::Response<Full<Bytes>>;
pub(crate) type Request = hyper::Request<Incoming>;

/// What every connection of a door shares.
pub struct Doors {
    broker: Arc<Broker>,
    /// What holders of the local token present on TCP, and may present on the Unix socket.
    token: Option<LocalToken>,
    namespace: Option<String>,
    supervisor: Supervisor,
    seats: Arc<Seats>,
    /// Turns true when no more connections are taken.
    closing: watch::Sender<bool>,
    /// The number of the next request that a log line is about.
    requests: AtomicU64,
    exhausted: Episode,
    turning_away: Episode,
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

/// Something that is told of once, however often it happens meanwhile.
#[derive(Debug, Default)]
struct Episode(Mutex<Option<Duration>>);

impl Episode {
    /// Whether it is news that it happens, `now` on the monotonic clock.
    fn begins(&self, now: Duration) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.replace(now).is_none_or(|last| now.saturating_sub(last) > TELL_AGAIN)
    }
}

/// Whoever has connected.
struct Visitor {
    via: Via,
    caller: Caller,
    asker: Asker,
    refused: Option<&'static str>,
    secrets_manager: Option<Arc<SecretsManager>>,
}

impl Visitor {
    fn party(&self) -> Party {
        match self.caller {
            _ if self.refused.is_some() => Party::Stranger,
            Caller::Unix { uid, .. } => Party::Uid(uid),
            Caller::Holder | Caller::Broker => Party::Tcp,
        }
    }
}

impl Doors {
    /// Doors to `broker`. `token` is asked for on TCP; `namespace` is the only one that a request may name. How many
    /// connections they take follows from how many files the process may open (`RLIMIT_NOFILE`) now.
    ///
    /// # Panics
    /// Outside of a runtime.
    #[must_use]
    pub fn new(
        broker: Arc<Broker>,
        token: Option<LocalToken>,
        namespace: Option<String>,
        supervisor: Supervisor,
    ) -> Arc<Self> {
        let seats = Seats::of_process();
        let most = seats.capacity();
        if most < FEW {
            tracing::warn!(
                most,
                "few connections can be served: raise the process's limit of open files (RLIMIT_NOFILE)"
            );
        }
        let doors = Arc::new(Self {
            broker,
            token,
            namespace,
            supervisor,
            seats,
            closing: watch::Sender::new(false),
            exhausted: Episode::default(),
            turning_away: Episode::default(),
            requests: AtomicU64::new(1),
        });
        doors.supervisor.spawn("connections", look(Arc::downgrade(&doors)));
        doors
    }

    /// Serves a Unix socket until [`close`](Self::close).
    pub async fn serve_unix(self: Arc<Self>, door: UnixDoor) {
        self.accept(|| door.accept(), |stream| self.on_unix(stream)).await;
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
        let accept = || async {
            let (stream, _): (TcpStream, SocketAddr) = listener.accept().await?;
            Ok(stream)
        };
        let asker = Asker::new(&Caller::Holder, via.door());
        self.accept(accept, |stream| {
            // Who is gone already needs no answer.
            stream.set_nodelay(true).ok()?;
            Some(Visitor {
                via,
                caller: Caller::Holder,
                asker: asker.clone(),
                refused: None,
                secrets_manager: secrets_manager.clone(),
            })
        })
        .await;
    }

    /// Lets connections finish what they do, and takes no new ones.
    pub fn close(&self) {
        self.closing.send_replace(true);
        self.seats.finish();
    }

    fn on_unix(&self, stream: &UnixStream) -> Option<Visitor> {
        // A peer that is gone already has no credentials, and needs no answer.
        let peer = stream.peer_cred().ok()?;
        // Another pid namespace shows as pid 0: not visible, hence unknown.
        let pid = peer.pid().filter(|pid| *pid > 0);
        let caller = Caller::Unix { uid: peer.uid(), gid: peer.gid(), pid };
        let refused = self.broker.admit(&caller, "unix").err().map(|denied| match denied {
            crate::broker::Denied::Policy(reason) => reason,
            _ => "refused",
        });
        Some(Visitor {
            via: Via::Unix,
            asker: Asker::new(&caller, Via::Unix.door()),
            caller,
            refused,
            secrets_manager: None,
        })
    }

    async fn accept<S, F>(self: &Arc<Self>, accept: impl Fn() -> F, admit: impl Fn(&S) -> Option<Visitor>)
    where
        S: Stream,
        F: Future<Output = std::io::Result<S>>,
    {
        let mut closing = self.closing.subscribe();
        loop {
            // Whoever came after the others were told to close would be told nothing.
            let stream = tokio::select! {
                biased;
                () = closed(&mut closing) => return,
                stream = accept() => stream,
            };
            match stream {
                Ok(stream) => {
                    let in_place_of = admit(&stream).is_some_and(|visitor| self.seat(stream, visitor));
                    if in_place_of {
                        // Who was told to go does so before the next one comes.
                        tokio::task::yield_now().await;
                    }
                }
                Err(error) => self.refused(&error).await,
            }
        }
    }

    /// Gives a connection a task of its own; returns whether another one has to go for that. Where its party has no seat
    /// left, and none to give up, it is closed: an answer to a request that has not come would be taken for that of another
    /// one.
    fn seat<S: Stream>(self: &Arc<Self>, stream: S, visitor: Visitor) -> bool {
        let party = visitor.party();
        let metrics = self.broker.metrics();
        let Some((place, in_place_of)) = self.seats.take(party) else {
            metrics.turned_away.inc();
            if self.turning_away.begins(self.broker.now().mono()) {
                tracing::warn!(
                    ?party,
                    most = self.seats.capacity(),
                    "connections are turned away: as many as one party may have are being answered"
                );
            }
            return false;
        };
        if in_place_of {
            metrics.let_go(seats::Why::Room.word(), 1);
        }
        let Visitor { via, caller, asker, refused, secrets_manager } = visitor;
        let connection = Connection {
            doors: Arc::clone(self),
            via,
            caller,
            asker,
            refused,
            secrets_manager,
            last: Mutex::default(),
            run: Mutex::default(),
            place,
        };
        let gauge = metrics.connections.clone();
        self.supervisor.spawn("connection", async move {
            gauge.inc();
            connection::serve(stream, connection).await;
            gauge.dec();
        });
        in_place_of
    }

    /// A connection could not be accepted.
    async fn refused(&self, error: &std::io::Error) {
        use std::io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
        // It was gone before its turn came: that says nothing of the next one.
        if matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted) {
            return;
        }
        self.broker.metrics().accept_failures.inc();
        let freed = self.seats.make_room();
        if freed {
            self.broker.metrics().let_go(seats::Why::Room.word(), 1);
        }
        if self.exhausted.begins(self.broker.now().mono()) {
            tracing::warn!(
                %error,
                "connections cannot be accepted; idle ones make room, the others are served on; if files are what is \
                 missing, raise the process's limit of open ones (RLIMIT_NOFILE)"
            );
        }
        tokio::time::sleep(EXHAUSTED).await;
    }
}

/// Looks at all connections again and again, as long as there are doors.
async fn look(doors: Weak<Doors>) {
    loop {
        tokio::time::sleep(seats::LOOK_EVERY).await;
        let Some(doors) = doors.upgrade() else { return };
        for (why, count) in doors.seats.look() {
            doors.broker.metrics().let_go(why.word(), count);
        }
    }
}

/// Resolves when the doors close, or when nobody is left to close them.
async fn closed(closing: &mut watch::Receiver<bool>) {
    let _ = closing.wait_for(|closing| *closing).await;
}

/// What the log lines of a request are said in.
macro_rules! span {
    ($level:expr, $connection:ident, $who:ident, $request:ident) => {
        tracing::span!(
            $level,
            "request",
            request = $connection.doors.requests.fetch_add(1, Ordering::Relaxed),
            door = $connection.via.door(),
            run = %$who.run(&$connection.doors.broker).run.id,
            path = $request.uri().path(),
        )
    };
}

async fn answer(connection: &Connection, request: Request) -> Response {
    let who = match guard::admit(connection, &request) {
        Ok(who) => who,
        Err(refusal) => return *refusal,
    };
    // Of a read nothing is said but where that is asked for: then a span costs it no more than a look at a number.
    let read = request.uri().path().starts_with("/v1/");
    let span = match read {
        true => span!(Level::DEBUG, connection, who, request),
        false => span!(Level::INFO, connection, who, request),
    };
    let answered = async {
        let answer = route(connection, &who, request).await;
        tracing::debug!(status = answer.status().as_u16(), "answered");
        answer
    };
    answered.instrument(span).await
}

async fn route(connection: &Connection, who: &Who, request: Request) -> Response {
    if let Some(door) = &connection.secrets_manager {
        return Box::pin(secrets_manager::answer(connection, door, who, &request)).await;
    }
    let path = request.uri().path();
    if path.starts_with("/v1/") {
        vault::answer(connection, who, &request).await
    } else if let Some(rest) = path.strip_prefix("/tenure/runs") {
        let id = rest.strip_prefix('/').map(str::to_owned);
        match (rest.is_empty(), id) {
            (true, _) => Box::pin(runs::all(connection, who, request)).await,
            (_, Some(id)) => Box::pin(runs::one(connection, who, &id, request)).await,
            _ => local::answer(connection, who, &request),
        }
    } else {
        local::answer(connection, who, &request)
    }
}
