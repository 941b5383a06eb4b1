//! What the extension costs a Lambda function: at its start, at each invocation, at each read, in memory. Lambda's side and
//! Vault are those of the tests, at no distance; beside them three bare requests to the same Vault, one after the other.
#![allow(clippy::disallowed_methods, missing_docs, reason = "measured is real time, of a real process")]

#[path = "../../tests/lambda/aws.rs"]
#[allow(dead_code, reason = "it is the tests'; this tries less")]
mod aws;
#[path = "../../tests/lambda/sandbox.rs"]
#[allow(dead_code, reason = "it is the tests'; this tries less")]
mod sandbox;
#[path = "../../tests/schema/mod.rs"]
#[allow(dead_code, reason = "it is the tests'; this tries less")]
mod schema;
#[path = "../../tests/lambda/vault.rs"]
#[allow(dead_code, reason = "it is the tests'; this tries less")]
mod vault;

use std::time::Duration;

use sandbox::{ORDERS, Plan, Sandbox, TIME_OUT};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::Instant;

const STARTS: usize = 20;
const INVOCATIONS: usize = 500;

/// The login, the run's token, the secret.
const ROUND_TRIPS: usize = 3;

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let (mut starts, mut trips) = (Vec::new(), Vec::new());
        let prefetched = || Plan {
            config: "token_role = \"run\"\n[[prefetch]]\npath = \"database/creds/orders\"\n",
            ..Plan::default()
        };
        for _ in 0..STARTS {
            let began = Instant::now();
            let sandbox = Sandbox::start(prefetched()).await;
            sandbox.until_waiting().await;
            starts.push(*sandbox.lambda.asked().first().expect("it asked") - began);
            assert_eq!(sandbox.vault.log().len(), ROUND_TRIPS, "{:?}", sandbox.vault.log());
            trips.push(round_trips(&sandbox.vault.address).await);
            sandbox.finish().await;
        }
        let (start, trips) = (at(&mut starts, 0.5), at(&mut trips, 0.5));
        println!("| extension | |\n|---|---:|");
        println!("| start of the process to the question for the first event | {} |", millis(start));
        println!("| of that, {ROUND_TRIPS} bare requests to the same Vault | {} |", millis(trips));
        println!("| the rest | {} |", millis(start.saturating_sub(trips)));

        let sandbox = Sandbox::ready(prefetched()).await;
        sandbox.invoke(async |_| sandbox.user(ORDERS).await).await;
        let (mut held_up, mut reads) = (Vec::new(), Vec::new());
        let worked = sandbox.worked();
        for _ in 0..INVOCATIONS {
            sandbox.until_waiting().await;
            let request = sandbox.lambda.request_id();
            let told = Instant::now();
            sandbox.lambda.invoke(&request, TIME_OUT);
            sandbox.until_waiting().await;
            held_up.push(*sandbox.lambda.asked().last().expect("it asked") - told);
            let answer = sandbox.serve(&request, async |_| sandbox.get(ORDERS).await).await;
            assert_eq!(answer.status, 200, "{}", answer.body);
            reads.push(answer.took);
        }
        let worked = (sandbox.worked() - worked) / u32::try_from(INVOCATIONS).expect("few");
        println!(
            "| an invocation, until the next event is asked for: median | {} |",
            millis(at(&mut held_up, 0.5))
        );
        println!("| the same: 99 of 100 | {} |", millis(at(&mut held_up, 0.99)));
        println!(
            "| a warm read over the socket, connection included: median | {} |",
            millis(at(&mut reads, 0.5))
        );
        println!("| the same: 99 of 100 | {} |", millis(at(&mut reads, 0.99)));
        println!("| CPU of an invocation with a read and its telemetry | {} |", millis(worked));
        println!("| resident memory after {INVOCATIONS} invocations | {:.1} MiB |", resident(&sandbox));
        sandbox.finish().await;
    });
}

/// As many requests as the start takes, on one connection, by hand.
async fn round_trips(vault: &str) -> Duration {
    let address = vault.trim_start_matches("http://");
    let began = Instant::now();
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("it listens");
    let mut buffer = [0; 4096];
    for _ in 0..ROUND_TRIPS {
        stream.write_all(b"GET /v1/sys/health HTTP/1.1\r\nhost: vault\r\n\r\n").await.expect("it is sent");
        assert!(stream.read(&mut buffer).await.expect("an answer") > 0);
    }
    began.elapsed()
}

fn at(times: &mut [Duration], share: f64) -> Duration {
    times.sort();
    times[((times.len() - 1) as f64 * share).round() as usize]
}

fn millis(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1000.0)
}

/// In MiB.
fn resident(sandbox: &Sandbox) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", sandbox.pid.as_raw_nonzero()));
    let status = status.expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its size");
    line.trim().trim_end_matches(" kB").parse::<f64>().expect("a number") / 1024.0
}
