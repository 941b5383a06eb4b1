//! Connections that send exactly what they are told to.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

/// Longer than any answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where a broker listens, and what is to be presented there.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    Unix(PathBuf),
    Tcp(SocketAddr, String),
}

/// A connection of either kind, and what came on it that was not asked for yet.
pub(crate) struct Socket {
    place: Place,
    stream: Stream,
    rest: Vec<u8>,
}

enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Place {
    pub(crate) fn connect(&self) -> io::Result<Socket> {
        let stream = match self {
            Self::Unix(path) => Stream::Unix(UnixStream::connect(path)?),
            Self::Tcp(address, _) => Stream::Tcp(TcpStream::connect(address)?),
        };
        let socket = Socket { place: self.clone(), stream, rest: Vec::new() };
        socket.wait_at_most(PATIENCE)?;
        Ok(socket)
    }

    /// A whole request.
    pub(crate) fn request(&self, method: &str, path: &str, more: &str, body: &str) -> String {
        let host_and_token = match self {
            Self::Unix(_) => "host: localhost\r\n".to_owned(),
            Self::Tcp(address, token) => format!("host: {address}\r\nx-vault-token: {token}\r\n"),
        };
        format!("{method} {path} HTTP/1.1\r\n{host_and_token}{more}\r\n{body}")
    }

    pub(crate) fn get(&self, path: &str) -> String {
        self.request("GET", path, "", "")
    }

    /// One request on a connection of its own.
    pub(crate) fn once(&self, path: &str) -> io::Result<Answer> {
        self.connect()?.ask(path)
    }
}

impl Socket {
    pub(crate) fn wait_at_most(&self, span: Duration) -> io::Result<()> {
        match &self.stream {
            Stream::Unix(stream) => {
                stream.set_read_timeout(Some(span)).and(stream.set_write_timeout(Some(span)))
            }
            Stream::Tcp(stream) => {
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(span)).and(stream.set_write_timeout(Some(span)))
            }
        }
    }

    pub(crate) fn ask(&mut self, path: &str) -> io::Result<Answer> {
        let request = self.place.get(path);
        self.write_all(request.as_bytes())?;
        self.answer()
    }

    /// The next answer; `UnexpectedEof` where the other side closed before there was one.
    pub(crate) fn answer(&mut self) -> io::Result<Answer> {
        let broken = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
        let end = loop {
            if let Some(at) = self.rest.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            self.more()?;
        };
        let head = String::from_utf8(self.rest[..end].to_vec()).map_err(|_| broken("no text"))?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| broken("no status"))?;
        let lower = head.to_ascii_lowercase();
        let length = lower.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        let length: usize = length.unwrap_or(0);
        while self.rest.len() < end + length {
            self.more()?;
        }
        let body = String::from_utf8(self.rest[end..end + length].to_vec()).map_err(|_| broken("no text"))?;
        self.rest.drain(..end + length);
        Ok(Answer { status, head, body })
    }

    fn more(&mut self) -> io::Result<()> {
        let mut chunk = [0; 16 * 1024];
        match self.read(&mut chunk)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                self.rest.extend_from_slice(&chunk[..count]);
                Ok(())
            }
        }
    }

    /// The same connection, to be written to from elsewhere.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        let stream = match &self.stream {
            Stream::Unix(stream) => Stream::Unix(stream.try_clone()?),
            Stream::Tcp(stream) => Stream::Tcp(stream.try_clone()?),
        };
        Ok(Self { place: self.place.clone(), stream, rest: Vec::new() })
    }

    /// Whether nothing has come, and it is open.
    pub(crate) fn is_waiting(&mut self) -> bool {
        self.wait_at_most(Duration::from_millis(1)).expect("a bound");
        let waiting = matches!(
            self.read(&mut [0; 1]),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
        );
        self.wait_at_most(PATIENCE).expect("a bound");
        waiting
    }

    /// Whether the other side has closed, and has said nothing before.
    pub(crate) fn is_closed(&mut self) -> bool {
        self.wait_at_most(Duration::from_millis(1)).expect("a bound");
        let closed = match self.read(&mut [0; 1]) {
            Ok(count) => count == 0,
            Err(error) => !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut),
        };
        self.wait_at_most(PATIENCE).expect("a bound");
        closed
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.stream {
            Stream::Unix(stream) => stream.read(buffer),
            Stream::Tcp(stream) => stream.read(buffer),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.stream {
            Stream::Unix(stream) => stream.write(bytes),
            Stream::Tcp(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
