//! A steady load: readers who ask again and again, keep their connection, and write down what they get.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::broker::{Broker, PATIENCE};

/// Between an answer and the next question of a reader.
const PAUSE: Duration = Duration::from_millis(20);

/// Nobody waits longer for the broker's own answer, be it frozen.
const GIVES_UP: Duration = Duration::from_secs(15);

/// A user that lives for longer than any row.
pub(crate) const LONG: &str = "database/creds/long";
/// A user that lives for two seconds, renewed for as long as that can be done.
pub(crate) const SHORT: &str = "database/creds/short";
/// A value that is asked for again five times a second.
pub(crate) const VALUE: &str = "secret/data/config";
/// A user that nobody has asked for before the fault begins.
pub(crate) const FIRST: &str = "database/creds/first";

pub(crate) const PATHS: [&str; 4] = [LONG, SHORT, VALUE, FIRST];

/// What a reader saw.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    pub(crate) path: &'static str,
    pub(crate) asked: Instant,
    pub(crate) answered: Instant,
    pub(crate) status: u16,
    /// `X-Tenure-Source`.
    pub(crate) source: Option<String>,
    pub(crate) retry_after: bool,
    /// The password, or the value.
    pub(crate) secret: Option<String>,
    /// `lease_duration`: what the answer says is left.
    pub(crate) left: Duration,
    /// The name of an error, and what it says.
    pub(crate) error: Option<(String, String)>,
}

impl Reading {
    pub(crate) fn is_served(&self) -> bool {
        self.status == 200
    }

    /// It brought what Vault holds for good.
    pub(crate) fn is_good(&self) -> bool {
        self.is_served() && self.source.as_deref() != Some("stale")
    }
}

/// Readers at work: each path by the Unix socket, and two of them by TCP too.
pub(crate) struct Readers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    over: AtomicBool,
    /// From now on [`FIRST`] is asked for.
    faulty: AtomicBool,
    seen: Mutex<Vec<Reading>>,
    /// What no broker may do: not answer.
    unanswered: Mutex<Vec<String>>,
}

#[derive(Clone)]
enum Door {
    Unix(PathBuf),
    Tcp(SocketAddr, String),
}

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

impl Readers {
    /// They begin at once; the broker's doors are open.
    pub(crate) fn of(broker: &Broker) -> Self {
        let token = std::fs::read_to_string(broker.path("token")).expect("the local token");
        let unix = Door::Unix(broker.path("tenure.sock"));
        let tcp = Door::Tcp(broker.tcp, token.trim().to_owned());
        let shared = Arc::<Shared>::default();
        let readers = [(LONG, &unix), (SHORT, &unix), (SHORT, &tcp), (VALUE, &tcp), (FIRST, &unix)];
        let threads = readers.map(|(path, door)| {
            let (door, shared) = (door.clone(), Arc::clone(&shared));
            std::thread::spawn(move || shared.read(path, &door))
        });
        Self { shared, threads: threads.into() }
    }

    /// From now on [`FIRST`] is asked for, too.
    pub(crate) fn ask_for_first(&self) {
        self.shared.faulty.store(true, Ordering::SeqCst);
    }

    /// What was seen and asked for since `from`, so far.
    pub(crate) fn since(&self, from: Instant) -> Vec<Reading> {
        self.shared.seen().iter().filter(|seen| seen.asked >= from).cloned().collect()
    }

    /// All readings, in the order of the answers, and what was not answered.
    pub(crate) fn finish(mut self) -> (Vec<Reading>, Vec<String>) {
        self.shared.over.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            thread.join().expect("a reader");
        }
        let unanswered = self.shared.unanswered.lock().unwrap_or_else(PoisonError::into_inner).clone();
        (std::mem::take(&mut *self.shared.seen()), unanswered)
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
    }
}

impl Shared {
    fn seen(&self) -> MutexGuard<'_, Vec<Reading>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, path: &'static str, door: &Door) {
        let mut stream: Option<Box<dyn Stream>> = None;
        while !self.over.load(Ordering::SeqCst) {
            if path != FIRST || self.faulty.load(Ordering::SeqCst) {
                let asked = Instant::now();
                match ask(path, door, &mut stream, asked) {
                    Ok(reading) => self.seen().push(reading),
                    Err(error) => {
                        stream = None;
                        let after = asked.elapsed();
                        let mut unanswered = self.unanswered.lock().unwrap_or_else(PoisonError::into_inner);
                        unanswered.push(format!("{path} got no answer after {after:?}: {error}"));
                    }
                }
            }
            std::thread::sleep(PAUSE);
        }
    }
}

fn connect(door: &Door) -> io::Result<Box<dyn Stream>> {
    Ok(match door {
        Door::Unix(path) => {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(PATIENCE + GIVES_UP))?;
            Box::new(stream)
        }
        Door::Tcp(address, _) => {
            let stream = TcpStream::connect(address)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE + GIVES_UP))?;
            Box::new(stream)
        }
    })
}

fn ask(
    path: &'static str,
    door: &Door,
    stream: &mut Option<Box<dyn Stream>>,
    asked: Instant,
) -> io::Result<Reading> {
    let stream = match stream {
        Some(stream) => stream,
        none => none.insert(connect(door)?),
    };
    let token = match door {
        Door::Unix(_) => String::new(),
        Door::Tcp(_, token) => format!("X-Vault-Token: {token}\r\n"),
    };
    let request = format!("GET /v1/{path} HTTP/1.1\r\nHost: localhost\r\n{token}\r\n");
    stream.write_all(request.as_bytes())?;
    let mut read = Vec::new();
    let head = loop {
        if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        more(stream, &mut read)?;
    };
    let text = String::from_utf8_lossy(&read[..head]).into_owned();
    let header = |name: &str| {
        text.lines().filter_map(|line| line.split_once(": ")).find(|(is, _)| is.eq_ignore_ascii_case(name))
    };
    let length: usize = header("content-length").and_then(|(_, length)| length.parse().ok()).unwrap_or(0);
    while read.len() < head + length {
        more(stream, &mut read)?;
    }
    let answered = Instant::now();
    let body: Value = serde_json::from_slice(&read[head..]).map_err(io::Error::other)?;
    let said = |value: &Value| value.as_str().map(str::to_owned);
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Ok(Reading {
        path,
        asked,
        answered,
        status,
        source: header("x-tenure-source").map(|(_, source)| source.to_owned()),
        retry_after: header("retry-after").is_some(),
        secret: said(&body["data"]["password"]).or_else(|| said(&body["data"]["data"]["value"])),
        left: Duration::from_secs(body["lease_duration"].as_u64().unwrap_or(0)),
        error: said(&body["error"]).map(|name| (name, said(&body["errors"][0]).unwrap_or_default())),
    })
}

fn more(stream: &mut Box<dyn Stream>, into: &mut Vec<u8>) -> io::Result<()> {
    let mut buffer = [0; 8192];
    match stream.read(&mut buffer)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        read => {
            into.extend_from_slice(&buffer[..read]);
            Ok(())
        }
    }
}
