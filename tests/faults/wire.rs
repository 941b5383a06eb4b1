//! What lies between the broker and its Vault: a listener that speaks HTTP/1.1, in clear or by TLS, and goes wrong at the
//! level of bytes where a row says so. Every request is on record.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustls::{ServerConnection, StreamOwned};

use crate::tls::{Certificate, Tls};
use crate::vault::{Answer, Vault};

/// What goes wrong on the wire.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Wrong {
    /// Something answers so instead of Vault.
    Says { status: u16, headers: &'static [(&'static str, &'static str)], body: &'static str },
    /// Nothing listens, and what was connected is reset.
    Refused,
    /// The connection is reset.
    Reset(Point),
    /// Vault's head and half of its body, then the end of the connection.
    Half,
    /// The head promises more, or less, than comes.
    Length(i32),
    /// An answer without end, or one that says at once how long it will be.
    Huge { announced: bool },
    /// Vault's answer, a byte at a time.
    Drip,
    /// No answer, and the connection stays.
    Hang,
    /// Vault's answer, so much later.
    Late(Duration),
    /// To the same place again.
    RedirectToItself,
    /// To the same path of a host that no resolver knows.
    RedirectToNowhere,
    /// TLS with a certificate that must not be accepted.
    Shows(Certificate),
    /// The connection ends in the middle of the TLS handshake.
    CutHandshake,
}

impl Wrong {
    /// Whether what was connected before is reset when it begins: it is with new connections that it goes wrong.
    pub(crate) fn cuts_connections(self) -> bool {
        matches!(self, Self::Refused | Self::Reset(Point::Before) | Self::Shows(_) | Self::CutHandshake)
    }
}

/// Where in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Point {
    /// When the connection was made, and before a byte of a request was read.
    Before,
    /// When half of its head has come.
    Within,
    /// When it was taken, and carried out.
    After,
}

/// No resolver asks anybody for it: a label has 63 characters at most.
const NOWHERE: &str = "vault-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.test";

/// A request, or a connection that came to none.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) at: Instant,
    /// The path of a lease, which token, or "connection".
    pub(crate) about: String,
}

/// The listener. It ends with this value.
pub(crate) struct Wire {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    listener: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    vault: Arc<Vault>,
    tls: Option<Tls>,
    /// What is wrong, and for which paths.
    wrong: Mutex<Option<(Wrong, &'static str)>>,
    calls: Mutex<Vec<Call>>,
    open: Mutex<Vec<TcpStream>>,
    closed: AtomicBool,
    over: AtomicBool,
}

impl Wire {
    /// On an address of its own, so that nobody else takes the port while nothing listens there.
    pub(crate) fn before(vault: Arc<Vault>, ip: IpAddr, tls: Option<Tls>) -> Self {
        let shared = Arc::new(Shared {
            vault,
            tls,
            wrong: Mutex::default(),
            calls: Mutex::default(),
            open: Mutex::default(),
            closed: AtomicBool::new(false),
            over: AtomicBool::new(false),
        });
        let listener = TcpListener::bind((ip, 0)).expect("a port");
        let address = listener.local_addr().expect("an address");
        let listener = Mutex::new(Some(listen(listener, Arc::clone(&shared))));
        Self { address, shared, listener }
    }

    pub(crate) fn url(&self) -> String {
        format!("{}://{}", if self.shared.tls.is_some() { "https" } else { "http" }, self.address)
    }

    /// From now on that goes wrong, for paths that begin so.
    pub(crate) fn goes_wrong(&self, wrong: Wrong, only: &'static str) {
        *lock(&self.shared.wrong) = Some((wrong, only));
        if wrong == Wrong::Refused {
            self.close();
        }
        if wrong.cuts_connections() {
            lock(&self.shared.open).drain(..).for_each(|stream| reset(&stream));
        }
    }

    /// From now on all is well.
    pub(crate) fn mend(&self) {
        *lock(&self.shared.wrong) = None;
        if self.shared.closed.swap(false, Ordering::SeqCst) {
            let listener = TcpListener::bind(self.address).expect("the same port again");
            *lock(&self.listener) = Some(listen(listener, Arc::clone(&self.shared)));
        }
    }

    /// The requests since `from`.
    pub(crate) fn calls(&self, from: Instant) -> Vec<Call> {
        lock(&self.shared.calls).iter().filter(|call| call.at >= from).cloned().collect()
    }

    fn close(&self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(listener) = lock(&self.listener).take() {
            let _ = listener.join();
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        self.close();
        lock(&self.shared.open).drain(..).for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
    }
}

fn listen(listener: TcpListener, shared: Arc<Shared>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            if shared.closed.load(Ordering::SeqCst) {
                return;
            }
            let shared = Arc::clone(&shared);
            // A connection that breaks is a connection that ends.
            std::thread::spawn(move || drop(shared.connection(&stream)));
        }
    })
}

impl Shared {
    fn wrong(&self) -> Option<Wrong> {
        lock(&self.wrong).map(|(wrong, _)| wrong)
    }

    fn note(&self, about: &str) {
        lock(&self.calls).push(Call { at: Instant::now(), about: about.to_owned() });
    }

    fn connection(&self, tcp: &TcpStream) -> io::Result<()> {
        tcp.set_nodelay(true)?;
        let wrong = self.wrong();
        match wrong {
            Some(Wrong::Reset(Point::Before)) => {
                self.note("connection");
                reset(tcp);
                return Ok(());
            }
            Some(Wrong::CutHandshake) => {
                self.note("connection");
                let mut from = tcp;
                let _ = from.read(&mut [0; 64])?;
                return tcp.shutdown(Shutdown::Both);
            }
            _ => {}
        }
        lock(&self.open).push(tcp.try_clone()?);
        let Some(tls) = &self.tls else {
            let mut stream = tcp;
            return self.serve(tcp, &mut stream);
        };
        let shown = match wrong {
            Some(Wrong::Shows(certificate)) => {
                self.note("connection");
                certificate
            }
            _ => Certificate::Good,
        };
        let session = ServerConnection::new(tls.showing(shown)).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(session, tcp.try_clone()?);
        let served = self.serve(tcp, &mut stream);
        stream.conn.send_close_notify();
        let _ = stream.flush();
        served
    }

    fn serve(&self, tcp: &TcpStream, stream: &mut (impl Read + Write)) -> io::Result<()> {
        let mut read = Vec::new();
        loop {
            let Some(head) = self.head(tcp, stream, &mut read)? else { return Ok(()) };
            let request = Request::of(&read[..head]);
            let end = head + request.length;
            while read.len() < end {
                more(stream, &mut read)?;
            }
            let body = serde_json::from_slice(&read[head..end]).unwrap_or_default();
            read.drain(..end);
            let wrong = lock(&self.wrong).filter(|(_, only)| request.path.starts_with(only)).map(|it| it.0);
            // Answered by something else than Vault, so Vault has not heard of it.
            let answer = |carried_out: bool| match carried_out {
                true => self.vault.answer(&request.path, request.token.as_deref(), &body),
                false => self.vault.about(&request.path, request.token.as_deref(), &body),
            };
            let unheard = matches!(
                wrong,
                Some(Wrong::Says { .. } | Wrong::Hang | Wrong::RedirectToItself | Wrong::RedirectToNowhere)
            );
            let answer = answer(!unheard);
            self.note(&answer.about);
            if !self.send(tcp, stream, wrong, &request, &answer)? {
                return Ok(());
            }
        }
    }

    /// The length of the next request's head; `None` where the connection ends instead.
    fn head(&self, tcp: &TcpStream, stream: &mut impl Read, read: &mut Vec<u8>) -> io::Result<Option<usize>> {
        loop {
            if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
                return Ok(Some(end + 4));
            }
            if self.wrong() == Some(Wrong::Reset(Point::Within)) {
                let mut half = [0; 40];
                let _ = stream.read(&mut half)?;
                self.note("connection");
                reset(tcp);
                return Ok(None);
            }
            if !more(stream, read)? {
                return Ok(None);
            }
        }
    }

    /// Sends the answer, or what goes wrong instead; says whether the connection is still good for another.
    fn send(
        &self,
        tcp: &TcpStream,
        stream: &mut (impl Read + Write),
        wrong: Option<Wrong>,
        request: &Request,
        answer: &Answer,
    ) -> io::Result<bool> {
        let whole = response(answer.status, &[], answer.body.len(), answer.body.as_bytes());
        match wrong {
            Some(Wrong::Says { status, headers, body }) => {
                stream.write_all(&response(status, headers, body.len(), body.as_bytes()))?;
            }
            Some(Wrong::RedirectToItself | Wrong::RedirectToNowhere) => {
                let host = match wrong {
                    Some(Wrong::RedirectToNowhere) => format!("{NOWHERE}:{}", self.port(tcp)),
                    _ => request.host.clone(),
                };
                let to = format!("http://{host}/v1/{}", request.path);
                stream.write_all(&response(307, &[("location", &to)], 0, b""))?;
            }
            Some(Wrong::Reset(_)) => {
                reset(tcp);
                return Ok(false);
            }
            Some(Wrong::Half) => {
                let half = whole.len() - answer.body.len().div_ceil(2);
                stream.write_all(&whole[..half])?;
                tcp.shutdown(Shutdown::Both)?;
                return Ok(false);
            }
            Some(Wrong::Length(by)) => {
                let length = answer.body.len().saturating_add_signed(by as isize);
                stream.write_all(&response(answer.status, &[], length, answer.body.as_bytes()))?;
                tcp.shutdown(Shutdown::Write)?;
                return Ok(false);
            }
            Some(Wrong::Huge { announced: true }) => {
                stream.write_all(&response(200, &[], 1 << 30, b"{\"data\":\""))?;
                return self.until_closed(tcp).map(|()| false);
            }
            Some(Wrong::Huge { announced: false }) => {
                stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")?;
                let chunk = [b"10000\r\n".as_slice(), &[b'a'; 0x10000], b"\r\n"].concat();
                while self.wrong().is_some() {
                    stream.write_all(&chunk)?;
                }
                return Ok(false);
            }
            Some(Wrong::Drip) => {
                for byte in &whole {
                    if self.wrong().is_none() {
                        return Ok(false);
                    }
                    stream.write_all(&[*byte])?;
                    std::thread::sleep(Duration::from_millis(50));
                }
            }
            Some(Wrong::Hang) => return self.until_closed(tcp).map(|()| false),
            Some(Wrong::Late(by)) => {
                std::thread::sleep(by);
                stream.write_all(&whole)?;
            }
            Some(Wrong::Refused | Wrong::Shows(_) | Wrong::CutHandshake) | None => {
                stream.write_all(&whole)?;
            }
        }
        stream.flush()?;
        Ok(true)
    }

    fn port(&self, tcp: &TcpStream) -> u16 {
        tcp.local_addr().map(|address| address.port()).unwrap_or_default()
    }

    /// Until the broker gives up, or the fault is over.
    fn until_closed(&self, tcp: &TcpStream) -> io::Result<()> {
        tcp.set_read_timeout(Some(Duration::from_millis(50)))?;
        while self.wrong().is_some() && !self.over.load(Ordering::SeqCst) {
            match (&mut &*tcp).read(&mut [0; 16]) {
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                }
                Ok(read) if read > 0 => {}
                _ => break,
            }
        }
        Ok(())
    }
}

fn more(stream: &mut impl Read, into: &mut Vec<u8>) -> io::Result<bool> {
    let mut buffer = [0; 4096];
    let read = stream.read(&mut buffer)?;
    into.extend_from_slice(&buffer[..read]);
    Ok(read > 0)
}

/// Ends a connection with a reset rather than in order, whatever other handles of it there are.
fn reset(stream: &TcpStream) {
    // With this, disconnecting sends RST; `shutdown` would send FIN.
    let _ = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO));
    let _ = rustix::net::connect_unspec(stream);
}

fn response(status: u16, headers: &[(&str, &str)], length: usize, body: &[u8]) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {status} Said\r\n");
    // Vault has no body with 204, and then no length either.
    if status != 204 {
        head.push_str(&format!("content-length: {length}\r\n"));
    }
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    [head.as_bytes(), body].concat()
}

struct Request {
    /// Without `/v1/` and without a query.
    path: String,
    host: String,
    token: Option<String>,
    length: usize,
}

impl Request {
    fn of(head: &[u8]) -> Self {
        let text = String::from_utf8_lossy(head);
        let mut lines = text.lines();
        let target = lines.next().and_then(|line| line.split(' ').nth(1)).unwrap_or_default();
        let path = target.split('?').next().unwrap_or_default().trim_start_matches("/v1/").to_owned();
        let mut request = Self { path, host: String::new(), token: None, length: 0 };
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "host" => request.host = value.to_owned(),
                "x-vault-token" => request.token = Some(value.to_owned()),
                "content-length" => request.length = value.parse().unwrap_or_default(),
                _ => {}
            }
        }
        request
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
