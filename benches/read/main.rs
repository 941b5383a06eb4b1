//! A cached read, recorded in an audit file, beside a bare hyper server that answers the same bytes: the server's CPU
//! time per request, latency, throughput, memory, and how long a start takes.
//!
//! `cargo bench --bench read` takes about a minute. The servers are pinned to core 0 and the load to core 1. Short
//! rounds of the two alternate, and the one with the least CPU time per request is shown of each: a busy machine spoils
//! rounds, and no round is better than the truth.
//! `TENURE_BENCH_ROUNDS` and `TENURE_BENCH_MILLIS` set how many rounds there are, and how long each is.

use std::path::Path;
use std::time::Duration;

mod load;
mod process;
mod report;
mod server;
mod upstream;

use load::{Load, Round, Transport};
use process::Server;
use report::{machine, median, mib, pause, setting};
use upstream::Instant;

/// What can go wrong: it is printed, and that is all.
type Failed = Box<dyn std::error::Error + Send + Sync>;

const SOCKET: &str = "s";
const PATH: &str = "database/creds/orders";
const LEASES: usize = 10_000;
const STARTS: usize = 10;

fn main() -> std::process::ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match words[..] {
        ["broker", dir] => {
            server::broker(Path::new(dir), "", |clock| Instant::new(clock).as_upstream(), |_| Ok(()))
        }
        ["bare", dir] => server::bare(Path::new(dir)),
        _ => measure(),
    };
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}

/// The two servers, side by side.
struct Pair {
    bare: Server,
    broker: Server,
}

fn measure() -> Result<(), Failed> {
    let rounds = setting("TENURE_BENCH_ROUNDS", 20)?;
    let span = Duration::from_millis(setting("TENURE_BENCH_MILLIS", 250)? as u64);
    process::pin(1)?;
    let place = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let dir = |name: &str| -> Result<_, Failed> {
        let dir = place.path().join(name);
        std::fs::create_dir_all(&dir)?;
        Ok(dir)
    };

    let starts = starts(&dir("starts")?)?;
    let broker = Server::start("broker", &dir("broker")?)?;
    pause(Duration::from_millis(200));
    let idle = broker.memory()?;
    let answer = load::ask(&mut *load::connect(&broker, Transport::Unix)?, &load::request(PATH, None))?;
    let bare_dir = dir("bare")?;
    std::fs::write(bare_dir.join("answer"), &answer)?;
    let bare = Server::start("bare", &bare_dir)?;
    let bare_idle = bare.memory()?;
    let pair = Pair { bare, broker };

    println!("| transport | connections | server | CPU µs/request | × bare | requests/s | p50 µs | p99 µs |");
    println!("|---|---:|---|---:|---:|---:|---:|---:|");
    for transport in [Transport::Unix, Transport::Tcp] {
        for connections in [32, 1] {
            compare(&pair, transport, connections, rounds, span)?;
        }
    }
    let busy = pair.broker.memory()?;
    drop(pair);
    let leases = leases(&dir("leases")?)?;

    println!("\n| memory and start | |\n|---|---:|");
    println!("| resident, idle | {} ({} of it not the program's file) |", mib(idle.resident), mib(idle.own));
    println!("| a bare hyper server, idle | {} ({}) |", mib(bare_idle.resident), mib(bare_idle.own));
    println!("| resident, after the load | {} ({}) |", mib(busy.resident), mib(busy.own));
    println!("| each of {LEASES} leases | {} bytes, beside {} of its own |", leases.0, leases.1);
    println!("| process start to first secret | {:.1} ms (least of {STARTS}: {:.1}) |", starts.1, starts.0);
    println!(
        "\n{}; answer of {} bytes; {rounds} rounds of {} ms.",
        machine(),
        answer.len(),
        span.as_millis()
    );
    Ok(())
}

fn compare(
    pair: &Pair,
    transport: Transport,
    connections: usize,
    rounds: usize,
    span: Duration,
) -> Result<(), Failed> {
    let token = std::fs::read_to_string(pair.broker.dir.join("token"))?;
    let request = load::request(PATH, (transport == Transport::Tcp).then_some(&token));
    let mut of_bare = Load::new(&pair.bare, transport, connections, request.clone())?;
    let mut of_broker = Load::new(&pair.broker, transport, connections, request)?;
    let log = std::fs::File::options().write(true).open(pair.broker.dir.join("audit.jsonl"))?;
    let (mut bare, mut broker) = (Vec::new(), Vec::new());
    for round in 0..=rounds {
        let one = of_bare.round(&pair.bare, span)?;
        let two = of_broker.round(&pair.broker, span)?;
        // The chain is not looked at, and the disk is not ours alone.
        log.set_len(0)?;
        // The first round warms up.
        if round > 0 {
            bare.push(one);
            broker.push(two);
        }
    }
    let best = |rounds: Vec<Round>| rounds.into_iter().min_by(|one, two| one.cpu.total_cmp(&two.cpu));
    let (bare, broker) = best(bare).zip(best(broker)).ok_or("at least one round is needed")?;
    for (name, round) in [("bare hyper", bare), ("tenure, audited", broker)] {
        println!(
            "| {transport:?} | {connections} | {name} | {:.2} | {:.2} | {:.0} | {:.0} | {:.0} |",
            round.cpu,
            round.cpu / bare.cpu,
            round.per_second,
            round.p50,
            round.p99,
        );
    }
    Ok(())
}

/// Starts the broker again and again, each time up to its first secret: the least and the median, in milliseconds.
fn starts(dir: &Path) -> Result<(f64, f64), Failed> {
    let mut took = Vec::new();
    for number in 0..STARTS {
        let dir = dir.join(number.to_string());
        std::fs::create_dir_all(&dir)?;
        let start = load::now();
        let server = Server::start("broker", &dir)?;
        load::ask(&mut *load::connect(&server, Transport::Unix)?, &load::request(PATH, None))?;
        took.push((load::now() - start).as_secs_f64() * 1e3);
    }
    Ok((took.iter().copied().fold(f64::INFINITY, f64::min), median(took)))
}

/// What each further lease takes, and what of that are the bytes of its answer.
fn leases(dir: &Path) -> Result<(u64, usize), Failed> {
    let server = Server::start("broker", dir)?;
    let mut stream = load::connect(&server, Transport::Unix)?;
    let path = |number: usize| format!("database/creds/orders-{number:05}");
    for warm in 0..100 {
        load::ask(&mut *stream, &load::request(&path(LEASES + warm), None))?;
    }
    let before = server.memory()?;
    for number in 0..LEASES {
        load::ask(&mut *stream, &load::request(&path(number), None))?;
    }
    let taken = server.memory()?.own.saturating_sub(before.own) / LEASES as u64;
    let answer = upstream::answer(&path(0));
    let bytes = path(0).len()
        + [answer.request_id.len(), answer.lease_id.len(), answer.data.len(), answer.mount_type.len()]
            .iter()
            .sum::<usize>();
    Ok((taken.saturating_sub(bytes as u64), bytes))
}
