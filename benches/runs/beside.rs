//! The broker of this bench: rules for runs, a platform that always says yes, and a page beside the broker's own that
//! tells what was asked of both, and how many tasks are alive.

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tenure::lease::failure::Failure;
use tenure::lease::upstream::BoxFuture;
use tenure::run::arn::ExecutionArn;
use tenure::run::workflow::{Beat, Claim, Evidence, ExecutionStatus, Workflow};
use tenure::secret::Credential;
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixListener;

use super::process::Server;
use super::upstream::{Calls, Instant};
use super::{Failed, server};

/// The socket of the page, beside the broker's.
const COUNTS: &str = "counts";

/// A broker over an upstream whose answers take so long.
pub(crate) fn broker(dir: &Path, latency: Duration) -> Result<(), Failed> {
    let (platform, calls) = (Arc::new(Platform::default()), Arc::<Calls>::default());
    let (asked, beats) = (Arc::clone(&calls), Arc::clone(&platform));
    server::broker(
        dir,
        "max_runs = 1_000_000\n[[run.rule]]\nmax_ttl = \"1h\"\n",
        |clock| {
            let upstream = Instant { latency, calls, ..Instant::new(clock) };
            tenure::app::Upstream { workflow: Some(platform), ..upstream.as_upstream() }
        },
        |_| {
            let page = UnixListener::bind(dir.join(COUNTS))?;
            tokio::spawn(async move { tell(&page, &asked, &beats).await });
            Ok(())
        },
    )
}

async fn tell(page: &UnixListener, calls: &Calls, platform: &Platform) {
    while let Ok((mut stream, _)) = page.accept().await {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let text = format!(
            "{} {} {} {} {} {}",
            of(&calls.created),
            of(&calls.read),
            of(&calls.revoked),
            of(&calls.other) + of(&calls.renewed),
            of(&platform.beats),
            tokio::runtime::Handle::current().metrics().num_alive_tasks(),
        );
        let _ = stream.write_all(text.as_bytes()).await;
    }
}

/// What a broker has asked so far, and what it keeps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counts {
    pub(crate) created: u64,
    pub(crate) read: u64,
    pub(crate) revoked: u64,
    /// Of upstream, all in all.
    pub(crate) upstream: u64,
    /// Heartbeats.
    pub(crate) beats: u64,
    pub(crate) tasks: u64,
}

impl Counts {
    pub(crate) fn of(server: &Server) -> Result<Self, Failed> {
        let mut text = String::new();
        std::os::unix::net::UnixStream::connect(server.dir.join(COUNTS))?.read_to_string(&mut text)?;
        let numbers: Result<Vec<u64>, _> = text.split(' ').map(str::parse).collect();
        let [created, read, revoked, other, beats, tasks] = numbers?[..] else {
            return Err(format!("these are no counts: {text:?}").into());
        };
        Ok(Self { created, read, revoked, upstream: created + read + revoked + other, beats, tasks })
    }
}

/// Every task is under way and every execution runs.
#[derive(Default)]
struct Platform {
    beats: AtomicU64,
}

impl Workflow for Platform {
    fn heartbeat<'a>(&'a self, _: &'a Credential) -> BoxFuture<'a, Result<Beat, Failure>> {
        self.beats.fetch_add(1, Ordering::Relaxed);
        Box::pin(std::future::ready(Ok(Beat::Alive)))
    }

    fn describe<'a>(
        &'a self,
        _: &'a ExecutionArn,
    ) -> BoxFuture<'a, Result<Option<ExecutionStatus>, Failure>> {
        Box::pin(std::future::ready(Ok(Some(ExecutionStatus::Running))))
    }

    fn history<'a>(&'a self, _: &'a ExecutionArn, _: Claim<'a>) -> BoxFuture<'a, Result<Evidence, Failure>> {
        Box::pin(std::future::ready(Ok(Evidence::default())))
    }
}
