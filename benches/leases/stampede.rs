//! Five hundred clients that come at once, to a broker that holds nothing yet: one call upstream for each path, and
//! everybody is answered.

use std::io::{ErrorKind, Read as _, Write as _};
use std::time::Duration;

use rustix::event::epoll;

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
        seen.push(rush(&bare, CLIENTS, 1)?);
        drop(bare);
        std::fs::remove_file(dir.join(super::SOCKET))?;
    }
    row("bare hyper, which has the answer", None, &seen);
    for (name, clients, paths) in [
        ("a cold broker, one client alone", 1, 1),
        ("a cold broker, one path", CLIENTS, 1),
        ("a cold broker, 50 paths", CLIENTS, 50),
    ] {
        let (mut seen, mut most) = (Vec::new(), 0);
        for start in 0..STARTS {
            let broker =
                Server::start("distant", &plan.dir(&format!("stampede-{clients}-{paths}-{start}"))?)?;
            let before = Counts::of(&broker)?.read;
            seen.push(rush(&broker, clients, paths)?);
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
    /// How long it took to be answered with success, if it was.
    took: Option<Duration>,
}

/// Everybody connects and asks, and only then is anybody waited for. A client's time is from its own connecting on.
fn rush(server: &Server, number: usize, paths: usize) -> Result<Seen, Failed> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut clients = Vec::with_capacity(number);
    let begin = now();
    for number in 0..number {
        let began = now();
        let mut stream = load::connect(server, Transport::Unix)?;
        stream.set_nonblocking()?;
        stream.write_all(&load::request(&path(number % paths), None))?;
        let data = epoll::EventData::new_u64(number as u64);
        epoll::add(&epoll, &*stream, data, epoll::EventFlags::IN)?;
        clients.push(Client { stream, began, answer: Vec::new(), took: None });
    }
    let mut events = Vec::with_capacity(number);
    let mut under_way = number;
    while under_way > 0 {
        events.clear();
        epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), None)?;
        for event in &events {
            let client = &mut clients[usize::try_from(event.data.u64())?];
            if client.is_done() {
                epoll::delete(&epoll, &*client.stream)?;
                under_way -= 1;
            }
        }
    }
    let all = now() - begin;
    let mut took: Vec<Duration> = clients.iter().filter_map(|client| client.took).collect();
    took.sort_unstable();
    let millis = |span: Duration| span.as_secs_f64() * 1e3;
    let at = |percent: usize| took.get(took.len() * percent / 100).copied().map_or(f64::NAN, millis);
    Ok(Seen { all: millis(all), p50: at(50), p99: at(99), failed: number - took.len() })
}

impl Client {
    /// Reads what there is. Whether no more is to come: the answer is whole, or none will be.
    fn is_done(&mut self) -> bool {
        let mut buffer = [0; 4096];
        match self.stream.read(&mut buffer) {
            Ok(some) if some > 0 => self.answer.extend_from_slice(&buffer[..some]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            _ => return true,
        }
        match whole(&self.answer) {
            Ok(Some(_)) => self.took = Some(now() - self.began),
            Ok(None) => return false,
            Err(_) => {}
        }
        true
    }
}
