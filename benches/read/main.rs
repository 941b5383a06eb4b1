//! A cached read, recorded in an audit file, beside a bare hyper server that answers the same bytes, and beside Vault
//! Proxy, which has the same secret of the same Vault in its cache: the server's CPU time per request, latency,
//! throughput, memory, and how long a start takes.
//!
//! `cargo bench --bench read` takes about a minute and a half. The servers are pinned to core 0; the load, and the real Vault
//! with what it needs, to core 1. Short rounds of the servers alternate, and the one with the least CPU time per request
//! is shown of each: a busy machine spoils rounds, and no round is better than the truth.
//! `TENURE_BENCH_ROUNDS` and `TENURE_BENCH_MILLIS` set how many rounds there are, and how long each is.
//!
//! Without the stack of `tests/stack` there is no Vault, hence no Vault Proxy: Tenure has an upstream in memory then.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[allow(dead_code, reason = "another bench uses more of it")]
mod load;
mod process;
mod report;
mod server;
mod stack;
mod upstream;

use load::{Load, Round, Transport};
use process::Server;
use report::{machine, median, mib, pause, setting};
use stack::{Stack, Started};
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
        ["become", program, ref words @ ..] => {
            process::pin(0).and_then(|()| Err(std::process::Command::new(program).args(words).exec().into()))
        }
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

/// One of the servers that stand side by side.
struct Contender {
    name: &'static str,
    server: Server,
    /// What it wants to see on TCP.
    token: Option<String>,
}

fn measure() -> Result<(), Failed> {
    let rounds = setting("TENURE_BENCH_ROUNDS", 60)?;
    let span = Duration::from_millis(setting("TENURE_BENCH_MILLIS", 120)? as u64);
    process::pin(1)?;
    let place = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let dir = |name: &str| -> Result<_, Failed> {
        let dir = place.path().join(name);
        std::fs::create_dir_all(&dir)?;
        Ok(dir)
    };

    let starts = starts(&dir("starts")?)?;
    let leases = leases(&dir("leases")?)?;
    let broker = Server::start("broker", &dir("broker")?)?;
    pause(Duration::from_millis(200));
    let idle = broker.memory()?;

    let stack =
        Stack::up().map_err(|why| println!("Without Vault, and so without Vault Proxy: {why}\n")).ok();
    let (broker, answer, proxy) = match &stack {
        Some(stack) => {
            let Started { server, answer, .. } = stack.tenure(&dir("tenure")?)?;
            (server, answer, Some(stack.proxy(&dir("proxy")?)?.server))
        }
        None => {
            let answer =
                load::ask(&mut *load::connect(&broker, Transport::Unix)?, &load::request(PATH, None))?;
            (broker, answer, None)
        }
    };
    let bare_dir = dir("bare")?;
    std::fs::write(bare_dir.join("answer"), &answer)?;
    let token = Some(std::fs::read_to_string(broker.dir.join("token"))?);
    let mut contenders = vec![
        Contender { name: "bare hyper", server: Server::start("bare", &bare_dir)?, token: token.clone() },
        Contender { name: "Tenure, audited", server: broker, token },
    ];
    contenders.extend(proxy.map(|server| Contender { name: "Vault Proxy", server, token: None }));
    let before = contenders.iter().map(|one| one.server.memory()).collect::<Result<Vec<_>, _>>()?;

    println!("| transport | connections | server | CPU µs/request | × bare | requests/s | p50 µs | p99 µs |");
    println!("|---|---:|---|---:|---:|---:|---:|---:|");
    for transport in [Transport::Unix, Transport::Tcp] {
        for connections in [32, 1] {
            compare(&contenders, transport, connections, rounds, span)?;
        }
    }

    println!("\n| resident | with one secret | after the load |\n|---|---:|---:|");
    for (one, before) in contenders.iter().zip(before) {
        let after = one.server.memory()?;
        let shown = |memory: process::Memory| {
            format!("{} ({} of it not the program's file)", mib(memory.resident), mib(memory.own))
        };
        println!("| {} | {} | {} |", one.name, shown(before), shown(after));
    }
    drop(contenders);
    println!("\n| memory and start | |\n|---|---:|");
    println!("| resident, idle | {} ({} of it not the program's file) |", mib(idle.resident), mib(idle.own));
    println!("| each of {LEASES} leases | {} bytes, beside {} of its own |", leases.0, leases.1);
    println!("| process start to first secret | {:.1} ms (least of {STARTS}: {:.1}) |", starts.1, starts.0);
    if let Some(stack) = &stack {
        real_starts(stack, &dir)?;
    }
    println!(
        "\n{}; answer of {} bytes; {rounds} rounds of {} ms; upstream {}.",
        machine(),
        answer.len(),
        span.as_millis(),
        match &stack {
            Some(stack) => format!("Vault {}", stack.says("/vault/version")?),
            None => "in memory".to_owned(),
        },
    );
    Ok(())
}

fn compare(
    contenders: &[Contender],
    transport: Transport,
    connections: usize,
    rounds: usize,
    span: Duration,
) -> Result<(), Failed> {
    let mut loads = Vec::new();
    for one in contenders {
        let token = one.token.as_deref().filter(|_| transport == Transport::Tcp);
        loads.push(Load::new(&one.server, transport, connections, load::request(PATH, token))?);
    }
    let mut measured = vec![Vec::new(); contenders.len()];
    for round in 0..=rounds {
        for ((one, load), measured) in contenders.iter().zip(&mut loads).zip(&mut measured) {
            let result = load.round(&one.server, span)?;
            // The first round warms up.
            if round > 0 {
                measured.push(result);
            }
            // The chain is not looked at, and the disk is not ours alone.
            if let Ok(log) = std::fs::File::options().write(true).open(one.server.dir.join("audit.jsonl")) {
                log.set_len(0)?;
            }
        }
    }
    let best = |rounds: Vec<Round>| rounds.into_iter().min_by(|one, two| one.cpu.total_cmp(&two.cpu));
    let best: Option<Vec<Round>> = measured.into_iter().map(best).collect();
    let best = best.ok_or("at least one round is needed")?;
    for (one, round) in contenders.iter().zip(&best) {
        println!(
            "| {transport:?} | {connections} | {} | {:.2} | {:.2} | {:.0} | {:.0} | {:.0} |",
            one.name,
            round.cpu,
            round.cpu / best[0].cpu,
            round.per_second,
            round.p50,
            round.p99,
        );
    }
    Ok(())
}

/// Starts on the real Vault, each up to its first secret: a login by AWS IAM, a run token, a user of the database.
/// Beside it the second and the third of these, asked by hand; and Vault Proxy, which has a token from the start.
fn real_starts(stack: &Stack, dir: &impl Fn(&str) -> Result<PathBuf, Failed>) -> Result<(), Failed> {
    let (mut tenure, mut proxy, mut upstream) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..STARTS {
        tenure.push(stack.tenure(&dir(&format!("start-tenure-{number}"))?)?.took);
        proxy.push(stack.proxy(&dir(&format!("start-proxy-{number}"))?)?.took);
        upstream.push(stack.upstream()?);
    }
    for (what, took) in [
        ("the same, with a real Vault, AWS login and database", tenure),
        ("of that, upstream for a run token and a user", upstream),
        ("Vault Proxy, given a token: start to first secret", proxy),
    ] {
        let least = took.iter().copied().fold(f64::INFINITY, f64::min);
        println!("| {what} | {:.1} ms (least of {STARTS}: {least:.1}) |", median(took));
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
