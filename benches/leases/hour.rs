//! An hour of renewals, in simulated time: the whole broker with its real schedules and its audit log, over an upstream
//! in memory. What is not in it is the HTTP of the calls.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tenure::clock::Clock;

use super::upstream::{Calls, Instant};
use super::{Failed, Plan, path, process, report, server};

const HOUR: u64 = 3600;
const TTL: Duration = Duration::from_secs(300);

/// Audit lines that may wait: simulated time does not wait for the writer by itself, which works in real time.
const WAITING: u64 = 1000;

pub(crate) fn hour(plan: &Plan) -> Result<(), Failed> {
    println!(
        "| leases of {} s, for an hour | renewals | minted anew | most calls in a second | CPU of the hour | a renewal |",
        TTL.as_secs()
    );
    println!("|---:|---:|---:|---:|---:|---:|");
    for leases in [1, 100, 10_000] {
        let output = Command::new(std::env::current_exe()?)
            .arg("hour")
            .arg(leases.to_string())
            .arg(plan.dir(&format!("hour-{leases}"))?)
            .stderr(Stdio::inherit())
            .output()?;
        if !output.status.success() {
            return Err("the hour was not simulated".into());
        }
        print!("{}", String::from_utf8_lossy(&output.stdout));
    }
    println!("\nAll of them are made at once, as by prefetching.");
    Ok(())
}

/// What is to be a process of its own, so that its CPU time is nobody else's. Prints a row.
pub(crate) fn simulate(leases: &str, dir: &Path) -> Result<(), Failed> {
    process::pin(0)?;
    let leases: u64 = leases.parse()?;
    let calls = Arc::<Calls>::default();
    let prefetch: String =
        (0..leases).map(|number| format!("[[prefetch]]\npath = \"{}\"\n", path(number as usize))).collect();
    server::runtime()?.block_on(async {
        let clock = Clock::simulated();
        let upstream = Instant { calls: Arc::clone(&calls), ttl: TTL, ..Instant::new(&clock) };
        let mut app = server::app(dir, &prefetch, upstream.as_upstream(), clock).await?;
        app.established().await?;
        while calls.read.load(Ordering::Relaxed) < leases {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        tokio::time::pause();

        let count = || [&calls.read, &calls.renewed, &calls.other].map(|calls| calls.load(Ordering::Relaxed));
        let (before, spent) = (count(), spent());
        let (mut last, mut most) = (before.iter().sum::<u64>(), 0);
        for _ in 0..HOUR {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let all = count().iter().sum::<u64>();
            (most, last) = (most.max(all - last), all);
            while app.audit().counters().waiting > WAITING {
                report::pause(Duration::from_millis(1));
            }
        }
        let (after, spent) = (count(), self::spent() - spent);
        let renewed = after[1] - before[1];
        println!(
            "| {leases} | {renewed} | {} | {most} | {:.3} s | {:.1} µs |",
            after[0] - before[0],
            spent.as_secs_f64(),
            spent.as_secs_f64() * 1e6 / renewed.max(1) as f64,
        );
        Ok(())
    })
}

/// CPU time of all threads, since the process began.
fn spent() -> Duration {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(spent.tv_sec.unsigned_abs(), spent.tv_nsec as u32)
}
