//! What the auditor's commands cost at size: a gigabyte of logs that is made here, half of it a broker's and half of it
//! Vault's, traced for one execution, searched for a value and summed up. The commands run as processes of their own, and their CPU time and their
//! greatest resident memory are the kernel's word.
//!
//! `cargo bench --bench trace` takes a few minutes, most of them to make the logs; `TENURE_BENCH_MIB` sets their size.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufWriter, Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tenure::audit::{Audit, Config, Entry, Event, Head, Peer, Run, RunStamp, Source, ValueKey, WrappedKey};
use tenure::clock::Clock;
use tenure::secret::Secret;

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// What values are hashed with.
const KEY: [u8; 32] = [7; 32];

/// Cached reads of each run, beside its other lines.
const READS: u64 = 8;

fn main() -> Result<(), Failed> {
    let mebibytes: u64 =
        std::env::var("TENURE_BENCH_MIB").ok().and_then(|text| text.parse().ok()).unwrap_or(1024);
    let dir = tempfile::tempdir()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Of all of Vault's lines: none is after the end of a run.
    let time = Clock::system().now().rfc3339();
    let heads = runtime.block_on(broker(&dir.path().join("broker.jsonl"), mebibytes << 19))?;
    vault(&dir.path().join("vault.log"), mebibytes << 19, &heads, &time)?;
    let runs = heads.len() as u64;
    let size = |name: &str| std::fs::metadata(dir.path().join(name)).map_or(0, |meta| meta.len());
    let (ours, theirs) = (size("broker.jsonl"), size("vault.log"));
    println!("{} MiB of a broker's log ({runs} runs), {} MiB of Vault's", ours >> 20, theirs >> 20);
    let arn = execution(runs / 2);
    let value = dir.path().with_extension("value").display().to_string();
    std::fs::write(&value, format!("password-{}", runs / 2))?;
    let unwraps = unwraps()?;
    for (name, words) in [
        ("trace of one execution", &["trace", "--execution", &arn][..]),
        (
            "trace of no execution that there is",
            &["trace", "--execution", "arn:aws:states:x:1:execution:none:0"],
        ),
        ("match", &["match", "--value-file", &value]),
        ("report", &["report"]),
    ] {
        measure(name, words, dir.path(), ours + theirs, &unwraps)?;
    }
    std::fs::remove_file(value)?;
    Ok(())
}

fn execution(run: u64) -> String {
    format!("arn:aws:states:eu-west-1:123456789012:execution:nightly:{run:08x}-5d5c-4f60-9c52-aa00bb11cc22")
}

/// Writes runs by the log's own writer until the file has that size; returns the head of the chain as each began.
async fn broker(path: &Path, bytes: u64) -> Result<Vec<Head>, Failed> {
    let audit = Audit::open(Config::File(path.to_owned()), "00000000000000b1", Clock::system())?;
    let clock = Clock::system();
    let peer = Peer::unix(1000, 1000, Some(4_242));
    let (mut heads, mut request) = (Vec::new(), 0);
    let wrapped = WrappedKey {
        mount: "transit".into(),
        name: "tenure-audit".into(),
        wrapped: "vault:v1:of-a-bench".into(),
    };
    let key = ValueKey::new(&KEY, &wrapped);
    audit.note(&Entry::done(Event::AuditKey).key(&wrapped));
    while std::fs::metadata(path).map_or(0, |meta| meta.len()) < bytes {
        for _ in 0..500 {
            let runs = heads.len() as u64;
            let run = Run {
                id: format!("run-{runs:016x}"),
                kind: "state".into(),
                execution_arn: Some(execution(runs)),
                state: Some("LoadOrders".into()),
                attempt: Some(0),
                standing: Some("verified".into()),
                tags: [("commit".into(), "9f17cce".into())].into(),
                ..Run::default()
            };
            let stamp = RunStamp::new(&run)?;
            let ends = clock.now().plus(Duration::from_secs(300));
            let _receipt = audit
                .record(&Entry::granted(Event::RunRegister).run(&stamp).caller(&peer).expires(ends))
                .await?;
            heads.push(audit.head());
            let mut next = || {
                request += 1;
                format!("00000000000000b1-{request}")
            };
            let (started, minted, revoked) = (next(), next(), next());
            audit.note(
                &Entry::done(Event::RunStart).run(&stamp).request(&started).expires(ends).detail("run"),
            );
            let lease = format!("database/creds/orders/{runs:024x}");
            let path = "database/creds/orders";
            audit.note(
                &Entry::done(Event::Mint)
                    .run(&stamp)
                    .path(path)
                    .request(&minted)
                    .lease_id(&lease)
                    .expires(ends),
            );
            let data = format!(r#"{{"username":"v-orders-{runs}","password":"password-{runs}"}}"#);
            let values = Secret::new(data.into_bytes()).hashed(&key).ok_or("no values")?;
            for number in 0..READS {
                let source = if number == 0 { Source::Vault } else { Source::Cache };
                let read =
                    Entry::granted(Event::Read).run(&stamp).caller(&peer).door("vault/unix").path(path);
                let read =
                    read.source(source).request(&minted).lease_id(&lease).expires(ends).policy("orders-read");
                let read = read.values(&values);
                let _receipt = audit.record(&read).await?;
            }
            audit.note(&Entry::done(Event::RunEnd).run(&stamp).detail("it was ended"));
            audit
                .note(&Entry::done(Event::RevokeRequested).run(&stamp).request(&revoked).detail("run token"));
            let _receipt = audit
                .record(&Entry::done(Event::RevokeConfirmed).run(&stamp).detail("run token and 1 leases"))
                .await?;
        }
    }
    audit.close().await?;
    Ok(heads)
}

/// Writes what Vault would have logged: a request and an answer for each call of these runs, and of others to fill it up.
fn vault(path: &Path, bytes: u64, heads: &[Head], time: &str) -> Result<(), Failed> {
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let (mut written, mut run) = (0, 0);
    let mut line = String::new();
    while written < bytes {
        let mine = usize::try_from(run).ok().and_then(|run| heads.get(run));
        for (number, path, operation) in [
            (1, "auth/token/create/run", "update"),
            (2, "database/creds/orders", "read"),
            (3, "auth/token/revoke-self", "update"),
        ] {
            for kind in ["request", "response"] {
                line.clear();
                let request = run * 3 + number;
                let id = if mine.is_some() { format!("run-{run:016x}") } else { format!("run-f{run:015x}") };
                let boot = if mine.is_some() { "00000000000000b1" } else { "00000000000000b9" };
                let hmac = "hmac-sha256:af9206514b183484264ad6ac8d8e909c199c7b95f7d06b57617a5f34a5fea191";
                let made = format!("hmac-sha256:{run:064x}");
                // The login makes the run's token.
                let accessor = if number == 1 { hmac } else { &made };
                write!(
                    line,
                    r#"{{"auth":{{"accessor":"{accessor}","client_token":"{hmac}","display_name":"token","metadata":{{"attempt":"0","boot":"{boot}","execution_arn":"{}","kind":"state","run":"{id}","state":"LoadOrders","verified":"verified"}},"policies":["orders"],"policy_results":{{"allowed":true,"granting_policies":[{{"type":""}},{{"name":"orders","namespace_id":"root","type":"acl"}}]}},"token_policies":["orders"],"token_issue_time":"2026-11-21T16:26:00Z","token_ttl":119,"token_type":"service"}},"request":{{"client_id":"WS5+Hb6qD2zAvqMqcUuH9iPtsAJpGrV","client_token":"{hmac}","client_token_accessor":"{accessor}","headers":{{"user-agent":["tenure"],"x-tenure-request":["{boot}-{request}"],"x-tenure-run":["{id}"]}},"id":"d1faaa88-b9e2-3e2c-{:04x}-{request:012x}","mount_class":"secret","mount_type":"database","namespace":{{"id":"root"}},"operation":"{operation}","path":"{path}","remote_address":"127.0.0.1","remote_port":47328}},"time":"{time}","type":"{kind}""#,
                    execution(run),
                    number,
                )?;
                if let (1, "response", Some(head)) = (number, kind, mine) {
                    let zeros = "0".repeat(64);
                    write!(
                        line,
                        r#","response":{{"auth":{{"accessor":"{made}","client_token":"{hmac}","metadata":{{"audit_began":"0:{zeros}","audit_head":"{}","audit_seq":"{}","boot":"{boot}","run":"{id}"}}}}}}"#,
                        head.hash, head.seq,
                    )?;
                }
                line.push('}');
                line.push('\n');
                file.write_all(line.as_bytes())?;
                written += line.len() as u64;
            }
        }
        run += 1;
    }
    file.flush()?;
    Ok(())
}

/// The address of what unwraps one key, as Vault does.
fn unwraps() -> Result<String, Failed> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = format!("http://{}", listener.local_addr()?);
    let body = format!(r#"{{"data":{{"batch_results":[{{"plaintext":"{}"}}]}}}}"#, STANDARD.encode(KEY));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream = stream;
            let mut asked = [0; 8192];
            let read = stream.read(&mut asked);
            let head =
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length";
            if read.is_ok() {
                let _ = write!(stream, "{head}: {}\r\n\r\n{body}", body.len());
            }
        }
    });
    Ok(address)
}

fn measure(name: &str, words: &[&str], logs: &Path, bytes: u64, vault: &str) -> Result<(), Failed> {
    let clock = Clock::system();
    let began = clock.now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_tenure"))
        .arg("audit")
        .args(words)
        .arg(logs)
        .env("VAULT_ADDR", vault)
        .env("VAULT_TOKEN", "of-an-auditor")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut cpu, mut peak) = (Duration::ZERO, 0);
    let status = loop {
        // Read before it is reaped: afterwards it is gone.
        (cpu, peak) = used(child.id()).unwrap_or((cpu, peak));
        if let Some(status) = child.try_wait()? {
            break status;
        }
        runtime.block_on(async { tokio::time::sleep(Duration::from_millis(5)).await });
    };
    let wall = clock.now().since(began);
    let rate = |time: Duration| bytes as f64 / 1_048_576.0 / time.as_secs_f64().max(0.001);
    println!(
        "{name}: {:.2} s of CPU ({:.0} MiB/s), {:.2} s ({:.0} MiB/s), {} MiB resident at most, exit code {}",
        cpu.as_secs_f64(),
        rate(cpu),
        wall.as_secs_f64(),
        rate(wall),
        peak >> 10,
        status.code().unwrap_or(-1),
    );
    Ok(())
}

/// A process's CPU time so far, and its greatest resident memory in KiB.
fn used(process: u32) -> Option<(Duration, u64)> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // After the name, which may hold anything: user and system time are the twelfth and thirteenth, in hundredths.
    let (_, rest) = stat.rsplit_once(')')?;
    let ticks: u64 =
        rest.split_whitespace().skip(11).take(2).filter_map(|text| text.parse::<u64>().ok()).sum();
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some((Duration::from_millis(ticks * 10), peak.trim().trim_end_matches(" kB").parse().ok()?))
}
