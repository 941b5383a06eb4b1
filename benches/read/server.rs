//! The two servers that are compared, each a process of its own: the broker, and hyper alone with the same answer.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tenure::app::{App, Upstream, process_run};
use tenure::clock::Clock;
use tenure::config::{self, Environment, Overrides};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tracing_subscriber::Layer as _;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::{Failed, SOCKET, process};

/// As `tenure serve` does it, up to the upstream. `run` goes into the configuration's `[run]`; `beside` begins what is to
/// go on beside the broker.
pub(crate) fn broker(
    dir: &Path,
    run: &str,
    upstream: impl FnOnce(&Clock) -> Upstream,
    beside: impl FnOnce(&App) -> Result<(), Failed>,
) -> Result<(), Failed> {
    process::pin(0)?;
    let clock = Clock::system();
    runtime()?.block_on(async {
        let upstream = upstream(&clock);
        let app = app(dir, run, upstream, clock).await?;
        beside(&app)?;
        ready(app.tcp().map_or(0, |address| address.port()))?;
        app.serve().await?;
        Ok(())
    })
}

/// The same, begun, by a clock that is given.
pub(crate) async fn app(dir: &Path, run: &str, upstream: Upstream, clock: Clock) -> Result<App, Failed> {
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    let text = format!(
        "[vault]\naddress = \"http://127.0.0.1:1\"\n[vault.auth.aws]\nrole = \"bench\"\n\
         [run]\ntoken_role = \"run\"\njournal = \"{dir}/orphans\"\n{run}\
         [listen.unix]\npath = \"{dir}/{SOCKET}\"\n\
         [listen.tcp]\naddress = \"127.0.0.1:0\"\ntoken_file = \"{dir}/token\"\n\
         [audit]\nfile = \"{dir}/audit.jsonl\"\n[cache]\nmax_leases = 20000\n",
        dir = dir.display()
    );
    let file = (Path::new("bench.toml"), text.as_str());
    let loaded = config::parse(Some(file), &Environment::default(), &Overrides::default(), clock.now())?;
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).json().flatten_event(true);
    let filter = tracing_subscriber::filter::Targets::new().with_default(tracing::Level::WARN);
    tracing_subscriber::registry().with(lines.with_filter(filter)).try_init()?;
    Ok(App::start(&loaded.config, process_run(loaded.run)?, upstream, clock).await?)
}

/// hyper with its own defaults, and an answer that is ready: the least that a server of these bytes can do. What is sent
/// to it is received and not looked at.
pub(crate) fn bare(dir: &Path) -> Result<(), Failed> {
    process::pin(0)?;
    let answer = std::fs::read(dir.join("answer"))?;
    let answer = Arc::new(Answer::parse(&answer).ok_or("the answer to give is not one")?);
    runtime()?.block_on(async {
        let unix = UnixListener::bind(dir.join(SOCKET))?;
        let tcp = TcpListener::bind("127.0.0.1:0").await?;
        ready(tcp.local_addr()?.port())?;
        loop {
            tokio::select! {
                stream = unix.accept() => serve(stream?.0, Arc::clone(&answer)),
                stream = tcp.accept() => {
                    let (stream, _) = stream?;
                    stream.set_nodelay(true)?;
                    serve(stream, Arc::clone(&answer));
                }
            }
        }
    })
}

fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, answer: Arc<Answer>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = Arc::clone(&answer);
        async move {
            let body = request.into_body();
            if !body.is_end_stream() {
                body.collect().await?;
            }
            let mut response = Response::new(Full::new(answer.body.clone()));
            *response.status_mut() = answer.status;
            for (name, value) in &answer.headers {
                response.headers_mut().insert(name, value.clone());
            }
            Ok::<_, hyper::Error>(response)
        }
    });
    tokio::spawn(async move {
        let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    });
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    /// Takes a response apart as it was received. What hyper adds by itself is left to it.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
        let mut headers = HeaderMap::new();
        let mut lines = std::str::from_utf8(&bytes[..end]).ok()?.split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        for line in lines {
            let (name, value) = line.split_once(": ")?;
            if !matches!(name, "date" | "content-length") {
                headers.insert(name.parse::<HeaderName>().ok()?, value.parse::<HeaderValue>().ok()?);
            }
        }
        Some(Self { status, headers, body: Bytes::copy_from_slice(&bytes[end + 4..]) })
    }
}

pub(crate) fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

fn ready(port: u16) -> std::io::Result<()> {
    println!("{port}");
    std::io::stdout().flush()
}
