//! Five hundred clients that come at once, to a broker that holds nothing yet: one call upstream for each path, and
//! everybody is answered.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};

use super::beside::Counts;
use super::load::{self, Stream, Transport, now, whole};
use super::process::Server;
use super::report::median;
use super::{DISTANT, Failed, Plan, path};

const CLIENTS: usize = 500;

/// Brokers, each of which is met by one stampede.
const STARTS: usize = 10;

/// What one stampede showed, in milliseconds.
struct Seen {
    all: f64,
    p50: f64,
    p99: f64,
    failed: usize,
}

pub(crate) fn stampede(plan: &Plan) -> Result<(), Failed> {
    println!(
        "| {CLIENTS} clients at once | reads upstream, for each start | failed | all answered, ms | p50 ms | p99 ms |"
    );
    println!("|---|---:|---:|---:|---:|---:|");
    let dir = plan.dir("stampede-bare")?;
    let reference = Server::start("broker", &plan.dir("stampede-answer")?)?;
    let answer =
        load::ask(&mut *load::connect(&reference, Transport::Unix)?, &load::request(&path(0), None))?;
    drop(reference);
    std::fs::write(dir.join("answer"), answer)?;
    let mut seen = Vec::new();
    for _ in 0..STARTS {
        let bare = Server::start("bare", &dir)?;
        seen.push(rush(&bare, 1)?);
        drop(bare);
        std::fs::remove_file(dir.join(super::SOCKET))?;
    }
    row("bare hyper, which has the answer", None, &seen);
    for (name, paths) in [("a cold broker, one path", 1), ("a cold broker, 50 paths", 50)] {
        let (mut seen, mut most) = (Vec::new(), 0);
        for start in 0..STARTS {
            let broker = Server::start("distant", &plan.dir(&format!("stampede-{paths}-{start}"))?)?;
            let before = Counts::of(&broker)?.read;
            seen.push(rush(&broker, paths)?);
            most = most.max(Counts::of(&broker)?.read - before);
        }
        row(name, Some(most), &seen);
        let failed = seen.iter().map(|seen| seen.failed).sum::<usize>();
        if most != paths as u64 || failed > 0 {
            return Err(
                format!("{paths} paths took {most} reads upstream, and {failed} clients failed").into()
            );
        }
    }
    println!(
        "\nThe median of {STARTS} starts. Cold: the login, the run's token and the secret each take {DISTANT:?} upstream."
    );
    Ok(())
}

fn row(name: &str, reads: Option<u64>, seen: &[Seen]) {
    let of = |value: fn(&Seen) -> f64| median(seen.iter().map(value).collect());
    let reads = reads.map_or("none".to_owned(), |reads| reads.to_string());
    println!(
        "| {name} | {reads} | {} | {:.1} | {:.1} | {:.1} |",
        seen.iter().map(|seen| seen.failed).sum::<usize>(),
        of(|seen| seen.all),
        of(|seen| seen.p50),
        of(|seen| seen.p99),
    );
}

struct Client {
    stream: Box<dyn Stream>,
    began: Duration,
    answer: Vec<u8>,
    took: Option<Duration>,
    failed: bool,
}

/// Everybody connects and asks, and only then is anybody waited for. A client's time is from its own connecting on.
fn rush(server: &Server, paths: usize) -> Result<Seen, Failed> {
    let mut clients = Vec::with_capacity(CLIENTS);
    let begin = now();
    for number in 0..CLIENTS {
        let began = now();
        let mut stream = load::connect(server, Transport::Unix)?;
        stream.set_nonblocking()?;
        stream.write_all(&load::request(&path(number % paths), None))?;
        clients.push(Client { stream, began, answer: Vec::new(), took: None, failed: false });
    }
    loop {
        let mut open: Vec<&mut Client> =
            clients.iter_mut().filter(|client| client.took.is_none() && !client.failed).collect();
        if open.is_empty() {
            break;
        }
        let mut fds: Vec<_> = open
            .iter()
            .map(|client| PollFd::from_borrowed_fd(client.stream.as_fd(), PollFlags::IN))
            .collect();
        poll(&mut fds, None)?;
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(fds);
        for (client, _) in open.iter_mut().zip(ready).filter(|(_, ready)| *ready) {
            client.receive();
        }
    }
    let all = now() - begin;
    let mut took: Vec<Duration> = clients.iter().filter_map(|client| client.took).collect();
    took.sort_unstable();
    let millis = |span: Duration| span.as_secs_f64() * 1e3;
    let at = |percent: usize| took.get(took.len() * percent / 100).copied().map_or(f64::NAN, millis);
    Ok(Seen { all: millis(all), p50: at(50), p99: at(99), failed: CLIENTS - took.len() })
}

impl Client {
    fn receive(&mut self) {
        let mut buffer = [0; 4096];
        match self.stream.read(&mut buffer) {
            Ok(some) if some > 0 => self.answer.extend_from_slice(&buffer[..some]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            _ => self.failed = true,
        }
        match whole(&self.answer) {
            Ok(Some(_)) => self.took = Some(now() - self.began),
            Ok(None) => {}
            Err(_) => self.failed = true,
        }
    }
}
