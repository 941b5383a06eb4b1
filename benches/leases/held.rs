//! Leases that are held, and read: what each takes of memory, what it takes of CPU to hold them while nobody asks, and
//! whether a cached read costs more among many of them.

use std::time::Duration;

use super::load::{self, Load, Round, Transport};
use super::process::{Memory, Server};
use super::report::{mib, pause};
use super::{Failed, Plan, path};

/// Leases, and how many connections ask for them.
const LEASES: [usize; 3] = [1, 100, 10_000];
const CONNECTIONS: usize = 32;

/// For so long nobody asks for anything.
const QUIET: Duration = Duration::from_secs(10);

struct Holder {
    leases: usize,
    server: Server,
    /// With one lease, and with all of them.
    one: Memory,
    all: Memory,
    /// The CPU time of the quiet.
    quiet: Duration,
    /// The same lease each time, and another each time.
    loads: [(Load, Vec<Round>); 2],
}

pub(crate) fn held(plan: &Plan) -> Result<(), Failed> {
    let mut holders = Vec::new();
    let mut answer = Vec::new();
    for leases in LEASES {
        let server = Server::start("broker", &plan.dir(&format!("held-{leases}"))?)?;
        let mut stream = load::connect(&server, Transport::Unix)?;
        answer = load::ask(&mut *stream, &load::request(&path(0), None))?;
        pause(Duration::from_millis(200));
        let one = server.memory()?;
        for number in 1..leases {
            load::ask(&mut *stream, &load::request(&path(number), None))?;
        }
        let all = server.memory()?;
        let load = |among: usize| -> Result<_, Failed> {
            let request = load::request(&path(0), None);
            Ok((Load::new(&server, Transport::Unix, CONNECTIONS, request)?.among(among), Vec::new()))
        };
        let loads = [load(1)?, load(leases)?];
        holders.push(Holder { leases, one, all, quiet: Duration::ZERO, loads, server });
    }
    let dir = plan.dir("held-bare")?;
    std::fs::write(dir.join("answer"), &answer)?;
    let bare = Server::start("bare", &dir)?;

    pause(Duration::from_secs(1));
    for holder in &mut holders {
        holder.quiet = holder.server.cpu()?;
    }
    pause(QUIET);
    for holder in &mut holders {
        holder.quiet = holder.server.cpu()? - holder.quiet;
    }

    let request = load::request(&path(0), None);
    let mut of_bare = (Load::new(&bare, Transport::Unix, CONNECTIONS, request)?.among(1), Vec::new());
    for round in 0..=plan.rounds {
        let keep = |load: &mut Load, rounds: &mut Vec<Round>, server: &Server| -> Result<(), Failed> {
            let one = load.round(server, plan.span)?;
            // The first round warms up.
            if round > 0 {
                rounds.push(one);
            }
            Ok(())
        };
        keep(&mut of_bare.0, &mut of_bare.1, &bare)?;
        for holder in &mut holders {
            for (load, rounds) in &mut holder.loads {
                keep(load, rounds, &holder.server)?;
            }
            // The chain is not looked at, and the disk is not ours alone.
            let log = std::fs::File::options().write(true).open(holder.server.dir.join("audit.jsonl"))?;
            log.set_len(0)?;
        }
    }
    tell(holders, best(of_bare.1))
}

fn tell(holders: Vec<Holder>, bare: Round) -> Result<(), Failed> {
    println!(
        "| leases held | resident | each, bytes | each, read again and again | CPU of {QUIET:?} in which nobody asks |"
    );
    println!("|---:|---:|---:|---:|---:|");
    // What a broker takes for the load's connections, the one with a single lease shows.
    let mut connections = None;
    for holder in &holders {
        let after = holder.server.memory()?;
        let grown = after.own.saturating_sub(holder.one.own);
        let connections = *connections.get_or_insert(grown);
        let each = |grown: u64| match holder.leases {
            1 => "".to_owned(),
            leases => (grown / (leases - 1) as u64).to_string(),
        };
        println!(
            "| {} | {} | {} | {} | {:.1} ms |",
            holder.leases,
            mib(after.resident),
            each(holder.all.own.saturating_sub(holder.one.own)),
            each(grown.saturating_sub(connections)),
            holder.quiet.as_secs_f64() * 1e3,
        );
    }
    println!("\n| cached read | CPU µs | × bare | a second | p50 µs | p99 µs |");
    println!("|---|---:|---:|---:|---:|---:|");
    let row = |name: &str, round: Round| {
        let Round { per_second, cpu, p50, p99 } = round;
        println!("| {name} | {cpu:.2} | {:.2} | {per_second:.0} | {p50:.0} | {p99:.0} |", cpu / bare.cpu);
    };
    row("bare hyper", bare);
    for holder in holders {
        let [(_, same), (_, other)] = holder.loads;
        row(&format!("of {} leases, the same each time", holder.leases), best(same));
        row(&format!("of {} leases, another each time", holder.leases), best(other));
    }
    Ok(())
}

fn best(rounds: Vec<Round>) -> Round {
    rounds.into_iter().min_by(|one, two| one.cpu.total_cmp(&two.cpu)).unwrap_or_default()
}
