//! Many runs at once, and many one after the other: what they take of memory and time, and what is left of them.

use std::time::Duration;

use super::beside::Counts;
use super::client::Client;
use super::load;
use super::process::Server;
use super::report::{mib, pause, setting};
use super::{Failed, PATH, Plan};

const RUNS: usize = 10_000;

/// Runs that come and go.
const CHURNED: usize = 1_000;

/// For so long nobody asks for anything.
const QUIET: Duration = Duration::from_secs(10);

/// As long as those of Step Functions are.
const TASK_TOKEN: usize = 620;

/// Runs that are registered and do nothing; with task tokens, a heartbeat is sent for each every ten seconds.
pub(crate) fn idle(plan: &Plan) -> Result<(), Failed> {
    println!("| {RUNS} idle runs | bytes each | resident | heartbeats | CPU of {QUIET:?} |");
    println!("|---|---:|---:|---:|---:|");
    let token = "A".repeat(TASK_TOKEN);
    for (name, token) in [("without task tokens", ""), ("with task tokens", &token)] {
        let server = Server::start("broker", &plan.dir(&format!("idle-{}", token.len()))?)?;
        let mut client = Client::new(&server)?;
        // What a first registration makes, and a first read, is not theirs.
        client.read(None, PATH)?;
        for warm in 0..100 {
            let run = client.register(RUNS + warm, token)?;
            client.end(&run)?;
        }
        pause(Duration::from_millis(200));
        let before = server.memory()?;
        for number in 0..RUNS {
            client.register(number, token)?;
        }
        pause(Duration::from_secs(1));
        let after = server.memory()?;
        let (counts, spent) = (Counts::of(&server)?, server.cpu()?);
        pause(QUIET);
        let (spent, beats) = (server.cpu()? - spent, Counts::of(&server)?.beats - counts.beats);
        println!(
            "| {name} | {} | {} | {beats} | {:.0} ms, {:.2} % |",
            (after.own - before.own) / RUNS as u64,
            mib(after.resident),
            spent.as_secs_f64() * 1e3,
            100.0 * spent.as_secs_f64() / QUIET.as_secs_f64(),
        );
    }
    println!("\nA task token has {TASK_TOKEN} bytes.");
    Ok(())
}

/// Runs that are registered, read once and end, as many in a minute as `CHURNED`. `TENURE_BENCH_MINUTE` says how many
/// seconds that minute has.
pub(crate) fn churn(plan: &Plan) -> Result<(), Failed> {
    let minute = setting("TENURE_BENCH_MINUTE", 60)?;
    let server = Server::start("broker", &plan.dir("churn")?)?;
    let mut client = Client::new(&server)?;
    client.read(None, PATH)?;
    let mut one = |number: usize| -> Result<(), Failed> {
        let run = client.register(number, "")?;
        client.read(Some(&run), PATH)?;
        client.end(&run)
    };
    // What a first run makes is not theirs.
    for warm in 0..100 {
        one(CHURNED + warm)?;
    }
    settle(&server)?;
    let (before, counts, spent) = (server.memory()?, Counts::of(&server)?, server.cpu()?);
    let start = load::now();
    for number in 0..CHURNED {
        one(number)?;
        let due = Duration::from_secs(minute as u64).mul_f64((number + 1) as f64 / CHURNED as f64);
        pause(due.saturating_sub(load::now() - start));
    }
    let took = load::now() - start;
    let during = (server.memory()?, Counts::of(&server)?);
    let spent = server.cpu()? - spent;
    settle(&server)?;
    let (after, left) = (server.memory()?, Counts::of(&server)?);
    println!(
        "| {CHURNED} runs registered, read and ended in {:.0} s | before | at the end | settled |",
        took.as_secs_f64()
    );
    println!("|---|---:|---:|---:|");
    println!(
        "| resident | {} | {} | {} |",
        mib(before.resident),
        mib(during.0.resident),
        mib(after.resident)
    );
    println!("| not the program's file, bytes | {} | {} | {} |", before.own, during.0.own, after.own);
    println!("| tasks | {} | {} | {} |", counts.tasks, during.1.tasks, left.tasks);
    println!(
        "\nPer run: {:.0} µs of CPU, {:.2} tokens made, {:.2} reads and {:.2} revocations upstream; {} bytes stay: that a run is \
         over is remembered for ten minutes.",
        spent.as_secs_f64() * 1e6 / CHURNED as f64,
        (left.created - counts.created) as f64 / CHURNED as f64,
        (left.read - counts.read) as f64 / CHURNED as f64,
        (left.revoked - counts.revoked) as f64 / CHURNED as f64,
        after.own.saturating_sub(before.own) / CHURNED as u64,
    );
    Ok(())
}

/// Waits until no task ends any more: a token that was revoked is looked for before it counts as gone.
fn settle(server: &Server) -> Result<(), Failed> {
    let mut tasks = Counts::of(server)?.tasks;
    for _ in 0..60 {
        pause(Duration::from_millis(500));
        let now = Counts::of(server)?.tasks;
        if now == tasks {
            return Ok(());
        }
        tasks = now;
    }
    Err(format!("{tasks} tasks, and still some end: nothing settles").into())
}
