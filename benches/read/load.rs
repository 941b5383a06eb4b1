//! The load: connections that are kept, each with one request under way. It allocates nothing per request and parses
//! no more than it must, because it shares the machine with what it measures.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::event::epoll;
use rustix::time::{ClockId, clock_gettime};

use super::Failed;
use super::process::Server;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Unix,
    Tcp,
}

pub(crate) trait Stream: Read + Write + AsFd {
    fn set_nonblocking(&self) -> std::io::Result<()>;
}

impl Stream for UnixStream {
    fn set_nonblocking(&self) -> std::io::Result<()> {
        UnixStream::set_nonblocking(self, true)
    }
}

impl Stream for TcpStream {
    fn set_nonblocking(&self) -> std::io::Result<()> {
        TcpStream::set_nonblocking(self, true)
    }
}

pub(crate) fn connect(server: &Server, transport: Transport) -> std::io::Result<Box<dyn Stream>> {
    match transport {
        Transport::Unix => Ok(Box::new(UnixStream::connect(server.socket())?)),
        Transport::Tcp => {
            let stream = TcpStream::connect(server.tcp)?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream))
        }
    }
}

/// A request as Vault's own clients send it.
pub(crate) fn request(path: &str, token: Option<&str>) -> Vec<u8> {
    let token = token.map(|token| format!("X-Vault-Token: {token}\r\n")).unwrap_or_default();
    format!(
        "GET /v1/{path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: bench\r\nX-Vault-Request: true\r\n{token}\r\n"
    )
    .into_bytes()
}

/// One request, waited for. Returns the whole response, which must be one of success.
pub(crate) fn ask(stream: &mut dyn Stream, request: &[u8]) -> Result<Vec<u8>, Failed> {
    stream.write_all(request)?;
    let mut response = vec![0; 16 * 1024];
    let mut filled = 0;
    loop {
        filled += match stream.read(&mut response[filled..])? {
            0 => return Err("the connection was closed".into()),
            some => some,
        };
        if let Some(len) = whole(&response[..filled])? {
            response.truncate(len);
            return Ok(response);
        }
    }
}

/// The response's length, if all of it is there.
pub(crate) fn whole(bytes: &[u8]) -> Result<Option<usize>, Failed> {
    // `content-length` and `Content-Length`: servers write either, and no other header's name ends like that.
    const LENGTH: &[u8] = b"ontent-length: ";
    const TITLED: &[u8] = b"ontent-Length: ";
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    if !bytes.starts_with(b"HTTP/1.1 2") {
        return Err(String::from_utf8_lossy(bytes).into());
    }
    // Nothing follows it, and nothing says so.
    if bytes.starts_with(b"HTTP/1.1 204 ") {
        return Ok(Some(end + 4));
    }
    let at = bytes[..end].windows(LENGTH.len()).position(|name| name == LENGTH || name == TITLED);
    let digits = &bytes[at.ok_or("a response without a length")? + LENGTH.len()..];
    let length = digits
        .iter()
        .take_while(|digit| digit.is_ascii_digit())
        .fold(0, |number, digit| number * 10 + usize::from(digit - b'0'));
    Ok((bytes.len() >= end + 4 + length).then_some(end + 4 + length))
}

/// What a round showed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Round {
    pub(crate) per_second: f64,
    /// The server's time per request, in microseconds.
    pub(crate) cpu: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

struct Wire {
    stream: Box<dyn Stream>,
    sent: Duration,
    filled: usize,
    buffer: [u8; 4096],
}

/// What stands in a request for a number that is another each time.
pub(crate) const NUMBER: &str = "000000000000";

/// That number: where it is, the one that is sent next, and how many there are before it begins again.
struct Number {
    at: Range<usize>,
    next: usize,
    of: usize,
}

/// The connections of a load, connected once and used for all its rounds.
pub(crate) struct Load {
    wires: Vec<Wire>,
    epoll: rustix::fd::OwnedFd,
    request: Vec<u8>,
    /// What is another in each request, if anything is.
    number: Option<Number>,
    took: Vec<Duration>,
}

impl Load {
    pub(crate) fn new(
        server: &Server,
        transport: Transport,
        connections: usize,
        request: Vec<u8>,
    ) -> Result<Self, Failed> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut wires = Vec::new();
        for number in 0..connections as u64 {
            let mut stream = connect(server, transport)?;
            ask(&mut *stream, &request)?;
            stream.set_nonblocking()?;
            epoll::add(&epoll, &*stream, epoll::EventData::new_u64(number), epoll::EventFlags::IN)?;
            wires.push(Wire { stream, sent: Duration::ZERO, filled: 0, buffer: [0; 4096] });
        }
        let at = request.windows(NUMBER.len()).position(|part| part == NUMBER.as_bytes());
        let number = at.map(|at| Number { at: at..at + NUMBER.len(), next: 0, of: usize::MAX });
        Ok(Self { wires, epoll, request, number, took: Vec::with_capacity(1 << 20) })
    }

    /// Its requests take turns among so many numbers, from 0 on.
    pub(crate) fn among(mut self, numbers: usize) -> Self {
        if let Some(number) = &mut self.number {
            number.of = numbers;
        }
        self
    }

    /// Asks for so long, and sees what it took.
    pub(crate) fn round(&mut self, server: &Server, span: Duration) -> Result<Round, Failed> {
        self.took.clear();
        let (start, spent) = (now(), server.cpu()?);
        for wire in &mut self.wires {
            wire.send(next(&mut self.request, &mut self.number))?;
        }
        let mut events = Vec::with_capacity(self.wires.len());
        let mut under_way = self.wires.len();
        while under_way > 0 {
            events.clear();
            epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), None)?;
            let time = now();
            let more = time - start < span;
            for event in &events {
                let wire = &mut self.wires[usize::try_from(event.data.u64())?];
                if !wire.receive()? {
                    continue;
                }
                self.took.push(time - wire.sent);
                match more {
                    true => wire.send(next(&mut self.request, &mut self.number))?,
                    false => under_way -= 1,
                }
            }
        }
        let (took, spent) = (now() - start, server.cpu()? - spent);
        self.took.sort_unstable();
        let count = self.took.len();
        let micros = |span: Duration| span.as_secs_f64() * 1e6;
        Ok(Round {
            per_second: count as f64 / took.as_secs_f64(),
            cpu: micros(spent) / count as f64,
            p50: micros(self.took[count / 2]),
            p99: micros(self.took[count * 99 / 100]),
        })
    }
}

/// The request with the next number.
fn next<'a>(request: &'a mut [u8], number: &mut Option<Number>) -> &'a [u8] {
    let Some(number) = number else { return request };
    let digits = &mut request[number.at.clone()];
    number.next += 1;
    if number.next >= number.of {
        number.next = 0;
        digits.fill(b'0');
        return request;
    }
    for digit in digits.iter_mut().rev() {
        if *digit < b'9' {
            *digit += 1;
            break;
        }
        *digit = b'0';
    }
    request
}

impl Wire {
    fn send(&mut self, request: &[u8]) -> Result<(), Failed> {
        self.sent = now();
        // A request is shorter than any socket's buffer, which is empty.
        Ok(self.stream.write_all(request)?)
    }

    /// Whether the response is whole.
    fn receive(&mut self) -> Result<bool, Failed> {
        match self.stream.read(&mut self.buffer[self.filled..]) {
            Ok(0) => return Err("the connection was closed".into()),
            Ok(some) => self.filled += some,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        let is_whole = whole(&self.buffer[..self.filled])?.is_some();
        if is_whole {
            self.filled = 0;
        }
        Ok(is_whole)
    }
}

pub(crate) fn now() -> Duration {
    let time = clock_gettime(ClockId::Monotonic);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}
