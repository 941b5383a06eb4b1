//! What may stand between the broker and its server: it counts what passes, and answers badly where a test says so.

use std::io::{self, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How the proxy answers instead of its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Takes the request and never answers.
    Hang,
    /// Takes the request and resets the connection.
    Reset,
    /// Answers this by itself.
    Answer { status: u16, retry_after: Option<u64>, content_type: &'static str, body: &'static str },
    /// The server's answer, a byte in each tenth of a second.
    Drip,
    /// The server's answer, with this for its date.
    Dated(&'static str),
    /// The server's head, half of its body, and the end of the connection.
    Half,
}

/// A request that came by.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) at: Instant,
    /// Without `/v1/` and without the query.
    pub(crate) path: String,
    /// What was answered; `None` where nothing was, or not all of it.
    pub(crate) status: Option<u16>,
}

/// A proxy of HTTP/1.1. It ends with this value.
pub(crate) struct Proxy {
    address: SocketAddr,
    state: Arc<State>,
}

struct State {
    upstream: SocketAddr,
    fault: Mutex<Option<Fault>>,
    seen: Mutex<Vec<Seen>>,
    over: AtomicBool,
}

impl Proxy {
    /// Before the server at `http://address:port`.
    pub(crate) fn before(upstream: &str) -> Self {
        let upstream = upstream.trim_start_matches("http://").parse().expect("an address");
        let state =
            State { upstream, fault: Mutex::default(), seen: Mutex::default(), over: AtomicBool::new(false) };
        let state = Arc::new(state);
        let shared = Arc::clone(&state);
        let address = listen(move |client| {
            let state = Arc::clone(&shared);
            if state.is_over() {
                return false;
            }
            // A connection that breaks is a connection that ends.
            thread::spawn(move || drop(state.serve(&client)));
            true
        });
        Self { address, state }
    }

    pub(crate) fn address(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on all requests are answered like that; `None`: as the server does.
    pub(crate) fn answer(&self, fault: Option<Fault>) {
        *lock(&self.state.fault) = fault;
    }

    /// The requests since `from`, of paths that begin so.
    pub(crate) fn seen(&self, from: Instant, path: &str) -> Vec<Seen> {
        let seen = lock(&self.state.seen);
        seen.iter().filter(|seen| seen.at >= from && seen.path.starts_with(path)).cloned().collect()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.over.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

impl State {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn serve(&self, client: &TcpStream) -> io::Result<()> {
        client.set_nodelay(true)?;
        let mut requests = BufReader::new(client);
        let mut server: Option<BufReader<TcpStream>> = None;
        while let Some(request) = Message::read(&mut requests)? {
            let first = request.first();
            let path = first.split(' ').nth(1).unwrap_or_default();
            let path = path.split('?').next().unwrap_or_default().trim_start_matches("/v1/").to_owned();
            let number = {
                let mut seen = lock(&self.seen);
                seen.push(Seen { at: Instant::now(), path, status: None });
                seen.len() - 1
            };
            let fault = *lock(&self.fault);
            match fault {
                Some(Fault::Hang) => return self.hang(client),
                Some(Fault::Reset) => return reset(client),
                Some(Fault::Answer { status, retry_after, content_type, body }) => {
                    let after =
                        retry_after.map(|after| format!("retry-after: {after}\r\n")).unwrap_or_default();
                    let length = body.len();
                    let answer = format!(
                        "HTTP/1.1 {status} Fault\r\ncontent-type: {content_type}\r\n{after}content-length: {length}\r\n\r\n{body}"
                    );
                    (&mut &*client).write_all(answer.as_bytes())?;
                    lock(&self.seen)[number].status = Some(status);
                    continue;
                }
                Some(Fault::Drip | Fault::Half | Fault::Dated(_)) | None => {}
            }
            let server = match &mut server {
                Some(server) => server,
                None => server.insert(BufReader::new(TcpStream::connect(self.upstream)?)),
            };
            server.get_ref().set_nodelay(true)?;
            server.get_mut().write_all(&request.bytes)?;
            let Some(answer) = Message::read(server)? else { return Ok(()) };
            match fault {
                Some(Fault::Drip) => return self.drip(client, &answer.bytes),
                Some(Fault::Half) => {
                    let half = answer.head + (answer.bytes.len() - answer.head) / 2;
                    (&mut &*client).write_all(&answer.bytes[..half])?;
                    return client.shutdown(Shutdown::Both);
                }
                Some(Fault::Dated(date)) => (&mut &*client).write_all(&answer.dated(date))?,
                _ => (&mut &*client).write_all(&answer.bytes)?,
            }
            lock(&self.seen)[number].status =
                answer.first().split(' ').nth(1).and_then(|status| status.parse().ok());
        }
        Ok(())
    }

    /// Until the client gives up.
    fn hang(&self, client: &TcpStream) -> io::Result<()> {
        client.set_read_timeout(Some(Duration::from_millis(100)))?;
        while !self.is_over() {
            match (&mut &*client).read(&mut [0]) {
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                }
                _ => break,
            }
        }
        Ok(())
    }

    fn drip(&self, client: &TcpStream, answer: &[u8]) -> io::Result<()> {
        for byte in answer {
            if self.is_over() {
                break;
            }
            (&mut &*client).write_all(&[*byte])?;
            thread::sleep(Duration::from_millis(100));
        }
        client.shutdown(Shutdown::Both)
    }
}

/// Ends a connection with a reset rather than in order.
fn reset(client: &TcpStream) -> io::Result<()> {
    rustix::net::sockopt::set_socket_linger(client, Some(Duration::ZERO))?;
    Ok(())
}

/// One request or answer, as it was sent.
struct Message {
    bytes: Vec<u8>,
    /// How long its head is.
    head: usize,
}

impl Message {
    /// The next one; `None` where the connection ended.
    fn read(from: &mut impl io::BufRead) -> io::Result<Option<Self>> {
        let mut bytes = Vec::new();
        let (mut length, mut chunked) = (0, false);
        loop {
            let begin = bytes.len();
            if from.read_until(b'\n', &mut bytes)? == 0 {
                return Ok(None);
            }
            let line = String::from_utf8_lossy(&bytes[begin..]).trim().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().map_err(io::Error::other)?;
            }
            chunked |= line.starts_with("transfer-encoding:") && line.ends_with("chunked");
        }
        let head = bytes.len();
        if chunked {
            loop {
                let begin = bytes.len();
                from.read_until(b'\n', &mut bytes)?;
                let size = String::from_utf8_lossy(&bytes[begin..]).trim().to_owned();
                let size = usize::from_str_radix(&size, 16).map_err(io::Error::other)?;
                take(from, &mut bytes, size + 2)?;
                if size == 0 {
                    break;
                }
            }
        } else {
            take(from, &mut bytes, length)?;
        }
        Ok(Some(Self { bytes, head }))
    }

    /// Its bytes, with another date in the head.
    fn dated(&self, date: &str) -> Vec<u8> {
        let head = String::from_utf8_lossy(&self.bytes[..self.head]);
        let lines =
            head.split_inclusive("\r\n").map(|line| match line.to_ascii_lowercase().starts_with("date:") {
                true => format!("Date: {date}\r\n"),
                false => line.to_owned(),
            });
        let mut bytes = lines.collect::<String>().into_bytes();
        bytes.extend(&self.bytes[self.head..]);
        bytes
    }

    fn first(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(self.bytes.split(|byte| *byte == b'\r').next().unwrap_or_default())
    }
}

fn take(from: &mut impl io::BufRead, into: &mut Vec<u8>, length: usize) -> io::Result<()> {
    let begin = into.len();
    into.resize(begin + length, 0);
    from.read_exact(&mut into[begin..])
}

/// A wire before any TCP server, which can be cut and mended.
pub(crate) struct Wire {
    address: SocketAddr,
    state: Arc<WireState>,
}

#[derive(Default)]
struct WireState {
    cut: AtomicBool,
    over: AtomicBool,
    ends: Mutex<Vec<TcpStream>>,
}

impl Wire {
    pub(crate) fn before(upstream: SocketAddr) -> Self {
        let state = Arc::new(WireState::default());
        let shared = Arc::clone(&state);
        let address = listen(move |client| {
            if shared.over.load(Ordering::Relaxed) {
                return false;
            }
            if !shared.cut.load(Ordering::Relaxed)
                && let Ok(server) = TcpStream::connect(upstream)
            {
                for (mut from, mut to) in [(copy(&client), copy(&server)), (copy(&server), copy(&client))] {
                    thread::spawn(move || {
                        let _ = io::copy(&mut from, &mut to);
                        let _ = to.shutdown(Shutdown::Both);
                    });
                }
                lock(&shared.ends).extend([client, server]);
            }
            true
        });
        Self { address, state }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends all connections, and lets none be made.
    pub(crate) fn cut(&self) {
        self.state.cut.store(true, Ordering::Relaxed);
        for end in lock(&self.state.ends).drain(..) {
            let _ = end.shutdown(Shutdown::Both);
        }
    }

    pub(crate) fn mend(&self) {
        self.state.cut.store(false, Ordering::Relaxed);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.state.over.store(true, Ordering::Relaxed);
        self.cut();
        let _ = TcpStream::connect(self.address);
    }
}

fn copy(stream: &TcpStream) -> TcpStream {
    stream.try_clone().expect("another handle of a socket")
}

/// Hands each connection over, until it is told that there is no need any more.
fn listen(mut take: impl FnMut(TcpStream) -> bool + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || listener.incoming().map_while(Result::ok).all(&mut take));
    address
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
