//! What leases cost: a stampede on a broker that holds none, ten thousand of them held and read, and an hour of renewals.
//!
//! `cargo bench --bench leases` takes about a minute. As in the bench of reads, servers are pinned to core 0 and the
//! load to core 1, what is measured and what it is compared with alternate in short rounds, and of each the round with
//! the least CPU time per request is shown.
//! `TENURE_BENCH_ROUNDS` and `TENURE_BENCH_MILLIS` set how many rounds there are, and how long each is;
//! `TENURE_BENCH_PART` names the only part to be measured: `stampede`, `held` or `hour`.

use std::path::{Path, PathBuf};
use std::time::Duration;

#[allow(dead_code, reason = "another bench uses more of it")]
#[path = "../runs/beside.rs"]
mod beside;
#[allow(dead_code, reason = "another bench uses more of it")]
#[path = "../read/load.rs"]
mod load;
#[path = "../read/process.rs"]
mod process;
#[path = "../read/report.rs"]
mod report;
#[path = "../read/server.rs"]
mod server;
#[path = "../read/upstream.rs"]
mod upstream;

mod held;
mod hour;
mod stampede;

use report::{machine, setting};

/// What can go wrong: it is printed, and that is all.
type Failed = Box<dyn std::error::Error + Send + Sync>;

const SOCKET: &str = "s";

/// How long each answer takes of the upstream that is called distant.
const DISTANT: Duration = Duration::from_millis(5);

fn main() -> std::process::ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match words[..] {
        ["broker", dir] => beside::broker(Path::new(dir), Duration::ZERO),
        ["distant", dir] => beside::broker(Path::new(dir), DISTANT),
        ["bare", dir] => server::bare(Path::new(dir)),
        ["hour", leases, dir] => hour::simulate(leases, Path::new(dir)),
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

/// Where the servers have their files, and how long is measured.
struct Plan {
    place: tempfile::TempDir,
    rounds: usize,
    span: Duration,
}

impl Plan {
    /// A directory of its own for a server.
    fn dir(&self, name: &str) -> Result<PathBuf, Failed> {
        let dir = self.place.path().join(name);
        std::fs::create_dir_all(&dir)?;
        Ok(dir)
    }
}

/// The name of a part, and what measures it.
type Part = (&'static str, fn(&Plan) -> Result<(), Failed>);

const PARTS: [Part; 3] = [("stampede", stampede::stampede), ("held", held::held), ("hour", hour::hour)];

fn measure() -> Result<(), Failed> {
    let plan = Plan {
        place: tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?,
        rounds: setting("TENURE_BENCH_ROUNDS", 20)?,
        span: Duration::from_millis(setting("TENURE_BENCH_MILLIS", 250)? as u64),
    };
    let only = std::env::var("TENURE_BENCH_PART").ok();
    let wanted = |name: &str| only.as_deref().is_none_or(|only| only == name);
    if !PARTS.iter().any(|(name, _)| wanted(name)) {
        let names: Vec<_> = PARTS.iter().map(|(name, _)| *name).collect();
        return Err(format!("TENURE_BENCH_PART is one of {}", names.join(", ")).into());
    }
    process::pin(1)?;
    for (_, part) in PARTS.iter().filter(|(name, _)| wanted(name)) {
        part(&plan)?;
        println!();
    }
    println!("{}; {} rounds of {} ms.", machine(), plan.rounds, plan.span.as_millis());
    Ok(())
}

/// The path of one lease of many; where the number stands, the load puts others.
fn path(number: usize) -> String {
    format!("database/creds/orders-{number:0width$}", width = load::NUMBER.len())
}
