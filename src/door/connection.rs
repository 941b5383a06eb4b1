//! One connection: its requests, one after the other, until it is told to go.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

use super::guard::LocalToken;
use super::seats::{Order, Place, Seat};
use super::wire::{Stream, Wire};
use super::{Doors, Request, SecretsManager, Via};
use crate::broker::{Active, Asker};
use crate::caller::Caller;
use crate::lease::upstream::ReadKey;

/// The longest request head.
const MAX_HEAD: usize = 16 * 1024;

/// How long the last answer of a connection that is to close may take to be read.
const LAST_ANSWER: Duration = Duration::from_secs(15);

/// Who is at the other end of a connection, and whether it may ask.
pub(crate) struct Connection {
    pub(crate) doors: Arc<Doors>,
    pub(crate) via: Via,
    pub(crate) caller: Caller,
    /// The same, as it reads.
    pub(crate) asker: Asker,
    /// The reason why nothing is answered on it.
    pub(crate) refused: Option<&'static str>,
    /// What is served on it, where that is not Vault's API.
    pub(super) secrets_manager: Option<Arc<SecretsManager>>,
    /// The last target that could be parsed, and what it is: most ask for the same again and again.
    pub(super) last: Mutex<Option<(Box<str>, ReadKey)>>,
    /// The last run that a handle stood for: most present the same one again and again.
    pub(super) run: Mutex<Weak<Active>>,
    pub(super) place: Place,
}

impl Connection {
    /// What holders of a token present on it.
    pub(super) fn token(&self) -> Option<&LocalToken> {
        match &self.secrets_manager {
            Some(door) => Some(&door.token),
            None => self.doors.token.as_ref(),
        }
    }
}

/// Serves a connection to its end.
///
/// While nothing comes it has no buffers: hyper's two take more than all else together.
pub(super) async fn serve<S: Stream>(stream: S, connection: Connection) {
    let seat = Arc::clone(connection.place.seat());
    let connection = Arc::new(connection);
    let mut wire = Wire::new(stream, Arc::clone(&seat));
    loop {
        tokio::select! {
            biased;
            readable = wire.readable() => if readable.is_err() { return },
            order = seat.told() => match order {
                Order::Stay | Order::Park => continue,
                Order::Finish | Order::Leave => return,
            },
        }
        match exchange(wire, &connection, &seat).await {
            Some(parked) => wire = parked,
            None => return,
        }
    }
}

/// Answers what comes; returns the stream if the connection goes on and is idle.
async fn exchange<S: Stream>(wire: Wire<S>, connection: &Arc<Connection>, seat: &Seat) -> Option<Wire<S>> {
    let service = service_fn(|request: Request| {
        let connection = Arc::clone(connection);
        async move {
            connection.place.begin();
            let answer = super::answer(&connection, request).await;
            connection.place.end();
            Ok::<_, Infallible>(answer)
        }
    });
    let mut http = http1::Builder::new();
    http.header_read_timeout(None).max_buf_size(MAX_HEAD).half_close(true);
    // Who is not admitted is told so, once.
    http.keep_alive(connection.refused.is_none());
    let mut serving = Box::new(http.serve_connection(TokioIo::new(wire), service));
    let result = loop {
        // What has come is looked at before an order is: nobody is sent away who has just asked.
        let order = tokio::select! {
            biased;
            result = &mut *serving => break result,
            order = seat.told() => order,
        };
        match order {
            Order::Park if seat.is_idle() => {
                let parts = serving.into_parts();
                let mut wire = parts.io.into_inner();
                wire.put_back(parts.read_buf);
                return Some(wire);
            }
            Order::Stay | Order::Park => {}
            Order::Finish if seat.is_busy() => {
                Pin::new(&mut *serving).graceful_shutdown();
                tokio::select! {
                    biased;
                    result = &mut *serving => break result,
                    () = gone(seat) => return None,
                }
            }
            Order::Finish | Order::Leave => return None,
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a connection ended early");
    }
    None
}

/// Resolves when the last answer was there for long enough.
async fn gone(seat: &Seat) {
    while seat.is_answering() {
        tokio::time::sleep(super::seats::LOOK_EVERY).await;
    }
    tokio::time::sleep(LAST_ANSWER).await;
}
