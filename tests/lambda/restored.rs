//! Environments that go on days later. Here the broker is in this process, with a clock that can be told to jump.

use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;
use tenure::app::Upstream;
use tenure::clock::Clock;
use tenure::config::{self, Environment, Overrides};
use tenure::lambda::{AwsEnv, Events, Extension, Fatal, Setup, serve};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::aws::Lambda;
use super::sandbox::{GRACE, SOON, TIME_OUT, config, exchange, millis, secs};
use super::vault::{Lives, Vault};

const DAYS: i64 = 3 * 24 * 3_600_000;

struct Restored {
    vault: Vault,
    lambda: Lambda,
    clock: Clock,
    dir: TempDir,
    serving: JoinHandle<Result<(), Fatal>>,
}

impl Restored {
    async fn start(kind: &str) -> Self {
        let clock = Clock::simulated();
        let (vault, lambda) = (Vault::start(Lives::default()).await, Lambda::start_at(clock.clone()).await);
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("tenure.toml");
        let audit = format!("file = \"{}/audit.jsonl\"", dir.path().display());
        let text = config(&dir, None, &audit, "token_role = \"run\"\n");
        std::fs::write(&file, text).expect("a file");
        let environment: Environment = [
            ("AWS_LAMBDA_RUNTIME_API", lambda.address.as_str()),
            ("AWS_LAMBDA_INITIALIZATION_TYPE", kind),
            ("VAULT_ADDR", vault.address.as_str()),
        ]
        .into_iter()
        .collect();
        let flags = Overrides { lambda: true, ..Overrides::default() };
        let loaded = config::load(Some(&file), &environment, &flags, clock.now()).expect("a configuration");
        let aws = AwsEnv::read(&environment).expect("it is Lambda");
        // On a thread of its own, as the process would be.
        let (api, time) = (lambda.address.clone(), clock.clone());
        let serving = tokio::task::spawn_blocking(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let extension = Extension::register(&api, "tenure", Events::All).await.expect("registered");
                serve(Setup {
                    extension,
                    aws,
                    config: loaded.config,
                    run: loaded.run,
                    upstream: Box::new(Upstream::vault),
                    began: time.now(),
                    clock: time,
                })
                .await
            })
        });
        let restored = Self { vault, lambda, clock, dir, serving };
        restored.until_waiting().await;
        restored
    }

    async fn until_waiting(&self) {
        let began = Instant::now();
        while !self.lambda.is_waited_for() {
            assert!(began.elapsed() < SOON, "the next event is not asked for: {:?}", self.lambda.log());
            tokio::time::sleep(millis(2)).await;
        }
    }

    /// Reads a database user in an invocation.
    async fn invoked(&self) -> String {
        self.until_waiting().await;
        let request = self.lambda.request_id();
        self.lambda.invoke(&request, TIME_OUT);
        self.lambda.started(&request);
        let socket: PathBuf = self.dir.path().join("tenure.sock");
        let stream = UnixStream::connect(&socket).await.expect("the socket");
        let read = exchange(stream, Instant::now(), "GET", "/v1/database/creds/orders", &[], None).await;
        self.lambda.done(&request, "success");
        self.until_waiting().await;
        read.user()
    }

    /// Time passes for the wall clock alone, as for a machine that was kept as a snapshot.
    fn days_later(&self) {
        self.clock.jump(DAYS);
    }

    async fn finish(self) {
        self.until_waiting().await;
        self.lambda.shut_down("spindown", GRACE);
        let ended = tokio::time::timeout(GRACE, self.serving).await.expect("in time");
        ended.expect("no panic").unwrap_or_else(|fatal| panic!("{fatal:?}"));
    }
}

#[tokio::test]
async fn nothing_of_days_ago_is_served() {
    let restored = Restored::start("on-demand").await;
    let before = restored.invoked().await;
    assert_eq!(restored.invoked().await, before);
    for _ in 0..2 {
        let logins = restored.vault.count("POST auth/approle");
        restored.days_later();
        let began = Instant::now();
        assert_ne!(restored.invoked().await, before);
        assert_eq!(restored.vault.count("POST auth/approle"), logins + 1, "the login is of days ago, too");
        assert!(began.elapsed() < secs(5), "{:?}", began.elapsed());
    }
    restored.finish().await;
}

#[tokio::test]
async fn a_snapshot_of_days_ago_begins_when_it_is_restored() {
    let restored = Restored::start("snap-start").await;
    assert!(restored.vault.log().is_empty());
    restored.days_later();
    restored.invoked().await;
    assert_eq!(restored.vault.count("POST auth/approle"), 1);
    let audit = std::fs::read_to_string(restored.dir.path().join("audit.jsonl")).expect("a log");
    let first: serde_json::Value = serde_json::from_str(audit.lines().next().expect("a line")).expect("JSON");
    let day = Duration::from_millis(DAYS.unsigned_abs()) + secs(1_767_225_600);
    let day = humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + day).to_string();
    assert_eq!(
        (&first["event"], &first["time"].as_str().expect("a time")[..10]),
        (&"boot".into(), &day[..10])
    );
    restored.finish().await;
}
