//! One run at a time: what it takes to start it, what its first read takes, and what each later one does.

use std::path::Path;
use std::time::Duration;

use super::beside::Counts;
use super::client::{Client, path, registration};
use super::load::{self, Load, NUMBER, Round, Transport};
use super::process::Server;
use super::report::median;
use super::{DISTANT, Failed, PATH, Plan};

/// First reads that are timed, of each kind.
const FIRST: usize = 300;

/// Registrations, beside bare hyper that receives the same and answers the same bytes.
pub(crate) fn start(plan: &Plan) -> Result<(), Failed> {
    println!("| starting a run | connections | CPU µs | × bare | a second | p50 µs | p99 µs |");
    println!("|---|---:|---:|---:|---:|---:|---:|");
    let broker = Server::start("broker", &plan.dir("start")?)?;
    let mut client = Client::new(&broker)?;
    // The login and the token of the process's own run are there then, and are not counted.
    client.read(None, PATH)?;
    let answer = client.answer(&registration(NUMBER, ""))?;
    let dir = plan.dir("start-bare")?;
    std::fs::write(dir.join("answer"), &answer)?;
    let bare = Server::start("bare", &dir)?;
    let before = Counts::of(&broker)?;
    for connections in [32, 1] {
        let request = registration(NUMBER, "");
        let mut of_bare = Load::new(&bare, Transport::Unix, connections, request.clone())?;
        // Each load has numbers of its own: what is registered already would only be looked up.
        let request = registration(&format!("{connections:02}{}", &NUMBER[2..]), "");
        let mut of_broker = Load::new(&broker, Transport::Unix, connections, request)?;
        let mut rounds = [Vec::new(), Vec::new()];
        // Shorter rounds than for reads: what is registered stays, and is to fit into memory.
        let span = plan.span / 5;
        for _ in 0..plan.rounds {
            rounds[0].push(of_bare.round(&bare, span)?);
            rounds[1].push(of_broker.round(&broker, span)?);
            cut(&broker.dir)?;
        }
        let best = rounds.map(best);
        for (name, round) in ["bare hyper", "Tenure, audited"].into_iter().zip(&best) {
            row(name, connections, round, &best[0]);
        }
    }
    let after = Counts::of(&broker)?;
    println!(
        "\n{} calls to upstream for all of them; the request has {} bytes, the answer {}.",
        after.upstream - before.upstream,
        registration(NUMBER, "").len(),
        answer.len()
    );
    Ok(())
}

/// First reads: of another path by the process's own run, which has a token, and by runs that have none yet.
pub(crate) fn first(plan: &Plan) -> Result<(), Failed> {
    println!("| first read | upstream's latency | calls to upstream | p50 µs | p99 µs |");
    println!("|---|---:|---:|---:|---:|");
    for (what, latency) in [("broker", Duration::ZERO), ("distant", DISTANT)] {
        let server = Server::start(what, &plan.dir(&format!("first-{what}"))?)?;
        let mut client = Client::new(&server)?;
        client.read(None, PATH)?;
        let (mut of_own, mut of_run, mut calls) = (Vec::new(), Vec::new(), [0, 0]);
        for number in 0..FIRST {
            let run = client.register(number, "")?;
            for run in [None, Some(&run)] {
                let before = Counts::of(&server)?.upstream;
                let start = load::now();
                client.read(run, &path(number))?;
                let took = (load::now() - start).as_secs_f64() * 1e6;
                calls[usize::from(run.is_some())] += Counts::of(&server)?.upstream - before;
                if run.is_some() { &mut of_run } else { &mut of_own }.push(took);
            }
        }
        for (name, took, calls) in
            [("the process's own run", of_own, calls[0]), ("a new run", of_run, calls[1])]
        {
            let calls = calls as f64 / FIRST as f64;
            println!(
                "| {name} | {latency:?} | {calls:.2} | {:.0} | {:.0} |",
                median(took.clone()),
                late(took)
            );
        }
    }
    Ok(())
}

/// Cached reads of the same broker: as the process's own run, as it with the local token, and as runs by their handles.
/// A header has to be read in any case: the second is what the others are to be compared with.
pub(crate) fn cached(plan: &Plan) -> Result<(), Failed> {
    println!("| cached read | connections | CPU µs | × own | a second | p50 µs | p99 µs |");
    println!("|---|---:|---:|---:|---:|---:|---:|");
    let server = Server::start("broker", &plan.dir("cached")?)?;
    let mut client = Client::new(&server)?;
    // The audit line of the first is as long as those of the process's own run, the second's names an execution.
    let (plain, run) = (client.register_plain()?, client.register(0, "")?);
    // Others are there too.
    for number in 1..1000 {
        client.register(number, "")?;
    }
    let token = std::fs::read_to_string(server.dir.join("token"))?;
    let ways = [
        ("own run", None),
        ("own run, local token", Some(token.trim_end())),
        ("run, its handle", Some(&*plain.handle)),
        ("run of an execution, its handle", Some(&*run.handle)),
    ];
    for (transport, connections) in [(Transport::Unix, 32), (Transport::Unix, 1), (Transport::Tcp, 32)] {
        // By TCP nobody reads without a token.
        let ways = ways.iter().filter(|(_, token)| transport == Transport::Unix || token.is_some());
        let mut loads = Vec::new();
        for (name, token) in ways {
            let load = Load::new(&server, transport, connections, load::request(PATH, *token))?;
            loads.push((*name, load, Vec::new()));
        }
        for round in 0..=plan.rounds {
            for (_, load, rounds) in &mut loads {
                let one = load.round(&server, plan.span)?;
                // The first round warms up.
                if round > 0 {
                    rounds.push(one);
                }
                cut(&server.dir)?;
            }
        }
        let mut own = None;
        for (name, _, rounds) in loads {
            let round = best(rounds);
            row(&format!("{transport:?}, {name}"), connections, &round, own.get_or_insert(round));
        }
    }
    Ok(())
}

fn row(name: &str, connections: usize, round: &Round, beside: &Round) {
    let Round { per_second, cpu, p50, p99 } = *round;
    let times = cpu / beside.cpu;
    println!("| {name} | {connections} | {cpu:.2} | {times:.3} | {per_second:.0} | {p50:.0} | {p99:.0} |");
}

fn best(rounds: Vec<Round>) -> Round {
    rounds.into_iter().min_by(|one, two| one.cpu.total_cmp(&two.cpu)).unwrap_or_default()
}

fn late(mut took: Vec<f64>) -> f64 {
    took.sort_by(f64::total_cmp);
    took.get(took.len() * 99 / 100).copied().unwrap_or(f64::NAN)
}

/// The chain is not looked at, and the disk is not ours alone.
fn cut(dir: &Path) -> Result<(), Failed> {
    Ok(std::fs::File::options().write(true).open(dir.join("audit.jsonl"))?.set_len(0)?)
}
