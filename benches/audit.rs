//! What a line costs: wall time and CPU time of the whole process per recorded line, with 1, 32 and 256 recorders on one
//! `current_thread` runtime. `taskset -c 0 cargo bench --bench audit` shows it on one core.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tenure::audit::{Audit, Config, Entry, Event, Peer, Run, RunStamp, Source};
use tenure::clock::Clock;

/// CPU time of all threads, since the process began.
fn cpu() -> Duration {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(spent.tv_sec.unsigned_abs(), u32::try_from(spent.tv_nsec).unwrap_or_default())
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let Ok(dir) = tempfile::tempdir() else { return eprintln!("no temporary directory") };
    let clock = Clock::system();
    for recorders in [1, 32, 256] {
        let path = dir.path().join(format!("audit-{recorders}.log"));
        let audit = match Audit::open(Config::File(path.clone()), "b-4f1c9a", clock.clone()) {
            Ok(audit) => audit,
            Err(error) => return eprintln!("{error}"),
        };
        let total = if recorders == 1 { 50_000 } else { 1_000_000 };
        round(&audit, recorders, total / 10).await;
        let (wall, spent, before) = (clock.now(), cpu(), audit.counters());
        round(&audit, recorders, total).await;
        let (wall, spent, after) = (clock.now().since(wall), cpu() - spent, audit.counters());
        let lines = after.written - before.written;
        let per_line = |time: Duration| time.as_nanos() / u128::from(lines);
        let bytes = std::fs::metadata(&path).map_or(0, |meta| meta.len()) / after.written;
        println!(
            "{recorders:>3} recorders: {:>6} ns/line wall, {:>6} ns/line CPU, {} lines/write, {bytes} bytes/line",
            per_line(wall),
            per_line(spent),
            lines / (after.batches - before.batches).max(1),
        );
        if let Err(error) = audit.close().await {
            eprintln!("{error}");
        }
    }
}

async fn round(audit: &Audit, recorders: u64, total: u64) {
    let tasks: Vec<_> = (0..recorders)
        .map(|_| {
            let audit = audit.clone();
            tokio::spawn(async move {
                let run = Run {
                    id: "r-01j9zv5k3e".into(),
                    kind: "step-functions".into(),
                    execution_arn: Some(
                        "arn:aws:states:eu-west-1:123456789012:execution:nightly:0b6a2b0e-5d5c".into(),
                    ),
                    state: Some("LoadOrders".into()),
                    tags: [("commit".into(), "9f17cce".into())].into(),
                    ..Run::default()
                };
                let Ok(run) = RunStamp::new(&run) else { return };
                let peer = Peer::unix(1000, 1000, Some(4_242));
                let expires = Clock::system().now();
                for _ in 0..total / recorders {
                    let entry = Entry::granted(Event::Read)
                        .run(&run)
                        .caller(&peer)
                        .door("vault")
                        .path("database/creds/orders")
                        .source(Source::Cache)
                        .lease_id("database/creds/orders/hvJ6rZ0mV1cQ5u7d")
                        .expires(expires)
                        .policy("orders-read");
                    if let Err(error) = audit.record(&entry).await {
                        return eprintln!("{error}");
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        let _ = task.await;
    }
}
