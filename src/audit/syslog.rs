//! Syslog as RFC 5424 has it: each line is one message, and each message one datagram (RFC 5426 for UDP).
//!
//! A Unix socket takes a datagram or refuses it, so that what was sent is in the receiver's hands. Nobody confirms what is
//! sent by UDP.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::Duration;

use memchr::{memchr, memmem};

use super::line::BEGINNING;
use super::sink::Output;

/// The most bytes of one message: what UDP carries over IPv4. The same holds for Unix sockets, so that a line does not
/// depend on where it goes.
pub(super) const MAX_DATAGRAM: usize = 65_507;

/// `log audit`, <https://www.rfc-editor.org/rfc/rfc5424#section-6.2.1>.
const FACILITY: u8 = 13;

/// How long a receiver may keep us waiting before a send has failed.
const PATIENCE: Duration = Duration::from_secs(1);

/// From the host's name to the end of the header, but for the process: APP-NAME and MSGID.
const APP_NAME: &str = "tenure";
const MSGID: &str = "audit";

/// Where messages go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Syslog {
    /// A datagram socket, such as `/dev/log`.
    Unix(PathBuf),
    /// A receiver on the network, or on loopback.
    Udp(SocketAddr),
}

impl fmt::Display for Syslog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Udp(address) => write!(f, "udp://{address}"),
        }
    }
}

/// What all headers of a process have alike.
#[derive(Clone, Debug)]
pub(super) struct Header {
    /// From the space after the timestamp to the one before the message.
    after: Box<[u8]>,
}

impl Header {
    /// That of this process on this host.
    pub(super) fn new() -> Self {
        let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Self::of(&name, std::process::id())
    }

    fn of(host: &str, pid: u32) -> Self {
        let sayable = (1..=255).contains(&host.len()) && host.bytes().all(|byte| byte.is_ascii_graphic());
        let host = if sayable { host } else { "-" };
        Self { after: format!(" {host} {APP_NAME} {pid} {MSGID} - ").into_bytes().into() }
    }

    /// Appends the header of a line's message. Its time is the line's, its severity the outcome's.
    ///
    /// # Errors
    /// It is no line of ours.
    pub(super) fn write(&self, line: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        let time = line.strip_prefix(BEGINNING).and_then(|rest| rest.get(..24));
        let (Some(time), Some(severity)) = (time, severity(line)) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        out.extend_from_slice(format!("<{}>1 ", FACILITY * 8 + severity).as_bytes());
        out.extend_from_slice(time);
        out.extend_from_slice(&self.after);
        Ok(())
    }
}

/// 3 is an error, 4 a warning, 6 informational. Before the outcome stands nothing in which a quote is not escaped.
fn severity(line: &[u8]) -> Option<u8> {
    const MEMBER: &[u8] = br#","outcome":""#;
    let word = &line[memmem::find(line, MEMBER)? + MEMBER.len()..];
    Some(match word {
        _ if word.starts_with(b"failed") => 3,
        _ if word.starts_with(b"denied") => 4,
        _ => 6,
    })
}

/// The message of one of our headers, with its priority or, as some receivers store it, without. Anything else is `None`.
pub(super) fn message(collected: &[u8]) -> Option<&[u8]> {
    let mut rest = match collected.strip_prefix(b"<") {
        Some(rest) => {
            let (priority, rest) = rest.split_at(memchr(b'>', rest.get(..4).unwrap_or(rest))?);
            priority.iter().all(u8::is_ascii_digit).then_some(&rest[1..])?
        }
        None => collected,
    };
    // VERSION, TIMESTAMP, HOSTNAME, APP-NAME, PROCID, MSGID, STRUCTURED-DATA; a receiver may have put in other data.
    let wanted = [Some("1"), None, None, Some(APP_NAME), None, Some(MSGID), None];
    for wanted in wanted {
        let (field, after) = rest.split_at(memchr(b' ', rest)?);
        if wanted.is_some_and(|wanted| field != wanted.as_bytes()) {
            return None;
        }
        rest = &after[1..];
    }
    Some(rest)
}

/// Sends each line as a datagram.
pub(super) struct Sender {
    to: Syslog,
    socket: Option<Socket>,
}

enum Socket {
    Unix(UnixDatagram),
    Udp(UdpSocket),
}

impl Socket {
    fn connect(to: &Syslog) -> io::Result<Self> {
        match to {
            Syslog::Unix(path) => {
                let socket = UnixDatagram::unbound()?;
                socket.connect(path)?;
                socket.set_write_timeout(Some(PATIENCE))?;
                Ok(Self::Unix(socket))
            }
            Syslog::Udp(address) => {
                let any: SocketAddr = match address {
                    SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
                    SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
                };
                let socket = UdpSocket::bind(any)?;
                socket.connect(address)?;
                socket.set_write_timeout(Some(PATIENCE))?;
                Ok(Self::Udp(socket))
            }
        }
    }

    fn send(&self, message: &[u8]) -> io::Result<()> {
        loop {
            let sent = match self {
                Self::Unix(socket) => socket.send(message),
                Self::Udp(socket) => socket.send(message),
            };
            match sent {
                Ok(bytes) if bytes == message.len() => return Ok(()),
                Ok(_) => return Err(io::ErrorKind::WriteZero.into()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(io::Error::new(
                        io::ErrorKind::TimedOut,
                        "the receiver takes no messages: its queue is full",
                    ));
                }
                Err(error) => return Err(error),
            }
        }
    }
}

impl Sender {
    /// # Errors
    /// Nothing receives there. By UDP that is not noticed.
    pub(super) fn connect(to: Syslog) -> io::Result<Self> {
        let socket = Some(Socket::connect(&to)?);
        Ok(Self { to, socket })
    }

    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        if let Some(socket) = &self.socket {
            match (socket.send(message), &self.to) {
                (Ok(()), _) => return Ok(()),
                // It is there, and has no room: another socket has no more of it.
                (Err(error), _) if error.kind() == io::ErrorKind::TimedOut => return Err(error),
                // What the network says of a datagram comes with the next one: that one fails in the lost one's stead.
                (Err(error), Syslog::Udp(_)) => return Err(error),
                (Err(_), Syslog::Unix(_)) => self.socket = None,
            }
        }
        // The receiver was started anew, perhaps: the path leads to a new socket then.
        let socket = Socket::connect(&self.to)?;
        socket.send(message)?;
        self.socket = Some(socket);
        Ok(())
    }
}

impl Output for Sender {
    /// One line a call.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let end = memchr(b'\n', bytes).unwrap_or(bytes.len());
        self.send(&bytes[..end])?;
        Ok(bytes.len().min(end + 1))
    }

    /// A datagram is sent as a whole or not at all.
    fn take_back(&mut self, _: u64) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
