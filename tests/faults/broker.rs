//! The broker under test: the binary, or, where its clock is to jump, the same parts in a thread of this process.

use std::fs::OpenOptions;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use tenure::app::{App, Upstream, process_run};
use tenure::clock::Clock;
use tenure::config::{Environment, Overrides, parse};
use tokio::sync::oneshot;

use crate::stage::Address;

/// How long a reader waits at most; what the broker asks of Vault takes a second at most.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

/// A value is asked for again when it is older.
pub(crate) const FRESH: Duration = Duration::from_millis(200);

/// Up to this age it is served, labelled.
pub(crate) const STALE: Duration = Duration::from_secs(60);

/// How long it may take to end: everything is revoked, and seen to be gone.
const END: Duration = Duration::from_secs(20);

/// Where it is, and what it leaves behind.
pub(crate) struct Broker {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) tcp: SocketAddr,
    body: Body,
}

enum Body {
    Process(Mutex<Child>),
    Thread { clock: Clock, end: oneshot::Sender<()>, thread: JoinHandle<Result<(), String>> },
}

impl Broker {
    /// Starts it, and does not wait for its login.
    pub(crate) fn start(vault: &Address, in_process: bool) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let port = TcpListener::bind((vault.ip, 0)).and_then(|it| it.local_addr()).expect("a port");
        let config = config(dir.path(), vault, port);
        std::fs::write(dir.path().join("jwt"), "header.claims.signature").expect("a file");
        let path = dir.path().join("tenure.toml");
        std::fs::write(&path, &config).expect("the configuration");
        let body = match in_process {
            true => thread(path, config),
            false => Body::Process(Mutex::new(process(dir.path(), &path))),
        };
        Self { dir, tcp: port, body }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn pid(&self) -> Pid {
        let Body::Process(child) = &self.body else { panic!("only a process has a pid of its own") };
        Pid::from_child(&child.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("our own child");
    }

    /// No file of it may grow by more than `more` bytes beyond what the audit log has; the kernel says so as of a full
    /// disk.
    pub(crate) fn limit_files(&self, more: Option<u64>) {
        let has = std::fs::metadata(self.path("audit.jsonl")).map(|log| log.len()).unwrap_or_default();
        let limit = Rlimit { current: more.map(|more| has + more), maximum: None };
        prlimit(Some(self.pid()), Resource::Fsize, limit).expect("our own child's limits");
    }

    /// Lets the wall clock jump by so many milliseconds.
    pub(crate) fn jump(&self, millis: i64) {
        let Body::Thread { clock, .. } = &self.body else { panic!("the machine's clock is not ours to set") };
        clock.jump(millis);
    }

    /// What it said on stderr.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Ends it in order, and says what was wrong with that. What it wrote stays.
    pub(crate) fn end(&mut self) -> Result<(), String> {
        match std::mem::replace(&mut self.body, Body::Process(Mutex::new(gone()))) {
            Body::Process(child) => {
                let mut child = child.into_inner().unwrap_or_else(PoisonError::into_inner);
                let ended = child.try_wait().map_err(|error| error.to_string())?;
                if let Some(status) = ended {
                    return Err(format!("the broker had ended before it was told to: {status}"));
                }
                kill_process(Pid::from_child(&child), Signal::TERM).expect("our own child");
                let until = Instant::now() + END;
                let status = loop {
                    match child.try_wait().map_err(|error| error.to_string())? {
                        Some(status) => break status,
                        None if Instant::now() < until => std::thread::sleep(Duration::from_millis(10)),
                        None => {
                            let _ = child.kill();
                            let _ = child.wait();
                            return Err(format!("the broker does not end within {END:?}"));
                        }
                    }
                };
                if status.success() { Ok(()) } else { Err(format!("the broker ended with {status}")) }
            }
            Body::Thread { end, thread, .. } => {
                let _ = end.send(());
                thread.join().unwrap_or_else(|_| Err("the broker panicked".to_owned()))
            }
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Body::Process(child) = &self.body {
            let mut child = child.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What takes the place of a broker that was ended.
fn gone() -> Child {
    Command::new("true").spawn().expect("a process")
}

fn config(dir: &Path, vault: &Address, tcp: SocketAddr) -> String {
    let (url, at) = (&vault.url, dir.display());
    let tls = match &vault.authority {
        None => String::new(),
        Some(pem) => {
            std::fs::write(dir.join("ca.pem"), pem).expect("a file");
            format!("ca_file = \"{at}/ca.pem\"\ntls_server_name = \"{}\"\n", crate::tls::NAME)
        }
    };
    format!(
        r#"
[vault]
address = "{url}"
connect_timeout = "1s"
request_timeout = "1s"
{tls}
[vault.auth.jwt]
role = "orders"
token_file = "{at}/jwt"
[run]
token_role = "run"
ttl = "1h"
[cache]
kv_fresh = "{}ms"
kv_stale = "{}s"
read_timeout = "{}s"
[listen.unix]
path = "{at}/tenure.sock"
[listen.tcp]
address = "{tcp}"
token_file = "{at}/token"
[audit]
file = "{at}/audit.jsonl"
[shutdown]
grace = "15s"
"#,
        FRESH.as_millis(),
        STALE.as_secs(),
        PATIENCE.as_secs()
    )
}

fn process(dir: &Path, config: &Path) -> Child {
    let log = OpenOptions::new().create(true).append(true).open(dir.join("log")).expect("the log");
    Command::new(env!("CARGO_BIN_EXE_tenure"))
        .args(["serve", "--log-format", "text", "--config"])
        .arg(config)
        .env_clear()
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("the broker")
}

fn thread(path: PathBuf, text: String) -> Body {
    let (end, ended) = oneshot::channel();
    let (sender, receiver) = std::sync::mpsc::channel();
    let thread = std::thread::Builder::new().name("broker".to_owned()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(|error| error.to_string())?.block_on(async {
            let clock = Clock::simulated();
            let _ = sender.send(clock.clone());
            let loaded =
                parse(Some((&path, &text)), &Environment::default(), &Overrides::default(), clock.now())
                    .map_err(|problems| problems.to_string())?;
            let said = |error: tenure::app::AppError| error.to_string();
            let run = process_run(loaded.run).map_err(said)?;
            let upstream = Upstream::vault(&loaded.config, &run, &clock).map_err(said)?;
            let mut app = App::start(&loaded.config, run, upstream, clock).await.map_err(said)?;
            app.established().await.map_err(said)?;
            let fallen = tokio::select! {
                name = app.fallen() => Some(name),
                _ = ended => None,
            };
            match (app.stop().await, fallen) {
                (_, Some(name)) => Err(format!("the task {name:?} panicked")),
                (false, None) => Err("not everything was revoked".to_owned()),
                (true, None) => Ok(()),
            }
        })
    });
    let thread = thread.expect("a thread");
    Body::Thread { clock: receiver.recv().expect("its clock"), end, thread }
}
