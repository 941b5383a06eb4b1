//! The broker under test, a process of its own.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit, setrlimit};

use crate::client::{Place, Socket};

pub(crate) const TENURE: &str = env!("CARGO_BIN_EXE_tenure");

/// Values that can be read, each with an own content.
pub(crate) const VALUES: usize = 16;

pub(crate) struct Broker {
    child: Child,
    dir: tempfile::TempDir,
    token: String,
    tcp: Option<std::net::SocketAddr>,
}

pub(crate) fn pause(millis: u64) {
    #[expect(clippy::disallowed_methods, reason = "a thread of a test may block")]
    std::thread::sleep(Duration::from_millis(millis));
}

/// Waits until it holds, at most so long.
#[track_caller]
pub(crate) fn until(what: &str, within: Duration, mut holds: impl FnMut() -> bool) {
    for _ in 0..within.as_millis() / 20 {
        if holds() {
            return;
        }
        pause(20);
    }
    panic!("not within {within:?}: {what}");
}

/// What the other tests of this process may hold open meanwhile.
const SPARE: u64 = 2000;

/// Files that tests have said to hold open, and who waits for room.
static HELD: (Mutex<u64>, Condvar) = (Mutex::new(0), Condvar::new());

/// So many files of this process may be held open until this is dropped.
#[must_use]
pub(crate) struct OpenFiles(u64);

impl Drop for OpenFiles {
    fn drop(&mut self) {
        *HELD.0.lock().unwrap_or_else(PoisonError::into_inner) -= self.0;
        HELD.1.notify_all();
    }
}

/// As many open files as this process may have; fails where they are not enough, and waits where other tests hold them.
pub(crate) fn open_files(wanted: u64) -> OpenFiles {
    static RAISED: OnceLock<Option<u64>> = OnceLock::new();
    let most = *RAISED.get_or_init(|| {
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
            .expect("the soft limit up to the hard one");
        maximum
    });
    assert!(
        most.is_none_or(|most| most >= wanted),
        "this test holds {wanted} files open, and the hard limit here is {most:?}: `ulimit -Hn`"
    );
    let held = HELD.0.lock().unwrap_or_else(PoisonError::into_inner);
    let full = |held: &mut u64| *held > 0 && most.is_some_and(|most| *held + wanted + SPARE > most);
    let mut held = HELD.1.wait_while(held, full).unwrap_or_else(PoisonError::into_inner);
    *held += wanted;
    OpenFiles(wanted)
}

/// What the value of that number holds.
pub(crate) fn content(number: usize) -> String {
    format!("content-of-{number}-only")
}

pub(crate) fn path(number: usize) -> String {
    format!("/v1/secret/data/value-{number}")
}

impl Broker {
    /// `tenure dev`, with [`VALUES`], on both listeners.
    pub(crate) fn dev() -> Self {
        Self::dev_after("true")
    }

    /// The same, after its shell has done that. What it tells is in `log`.
    pub(crate) fn dev_after(first: &str) -> Self {
        drop(open_files(0));
        let dir = tempfile::tempdir().expect("a folder");
        let mut seed = "[[run.rule]]\nmax_ttl = \"10m\"\n".to_owned();
        for number in 0..VALUES {
            let _ = write!(seed, "[secret.value-{number}]\nkey = \"{}\"\n", content(number));
        }
        std::fs::write(dir.path().join("seed.toml"), seed).expect("a seed");
        let log = std::fs::File::create(dir.path().join("log")).expect("a log");
        let mut command = Command::new("/bin/sh");
        let words = "dev --file seed.toml --socket s --env-file env --audit-file audit.jsonl";
        command
            .args(["-c", &format!("{first}; exec \"$0\" {words}"), TENURE])
            .env_clear()
            .env("TMPDIR", dir.path());
        command
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stderr(log.try_clone().expect("a log"))
            .stdout(log);
        let child = command.spawn().expect("it runs");
        let mut broker = Self { child, dir, token: String::new(), tcp: None };
        until("the broker serves", Duration::from_secs(20), || broker.path("env").exists());
        let said = std::fs::read_to_string(broker.path("env")).expect("what to export");
        let value = |name: &str| {
            let line = said.lines().find_map(|line| line.strip_prefix(&format!("export {name}='")));
            line.expect(name).trim_end_matches('\'').to_owned()
        };
        broker.token = value("VAULT_TOKEN");
        broker.tcp =
            value("VAULT_ADDR").strip_prefix("http://").map(|text| text.parse().expect("an address"));
        broker
    }

    /// `tenure serve`, with an upstream that is not there; `files` is its soft limit of open files, `more` goes to the end
    /// of its configuration. Its log is in `log`.
    pub(crate) fn serve(files: u64, more: &str) -> Self {
        Serve { first: format!("ulimit -Sn {files}"), more: more.to_owned(), ..Serve::default() }.start()
    }

    pub(crate) fn command(dir: &Path) -> Command {
        let mut command = Command::new(TENURE);
        command.current_dir(dir).env_clear().env("TMPDIR", dir).stdin(Stdio::null());
        command
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn unix(&self) -> Place {
        Place::Unix(self.path("s"))
    }

    pub(crate) fn tcp(&self) -> Place {
        Place::Tcp(self.tcp.expect("a TCP listener"), self.token.clone())
    }

    /// Both listeners, by name.
    pub(crate) fn places(&self) -> [(&'static str, Place); 2] {
        [("Unix", self.unix()), ("TCP", self.tcp())]
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a pid")).expect("a pid")
    }

    /// Its soft limit of open files, from now on.
    pub(crate) fn limit_files(&self, files: u64) {
        let hard =
            prlimit(Some(self.pid()), Resource::Nofile, Rlimit { current: Some(files), maximum: None });
        // Whoever is not root may not raise the hard one, and need not.
        if hard.is_err() {
            let maximum = getrlimit(Resource::Nofile).maximum;
            prlimit(Some(self.pid()), Resource::Nofile, Rlimit { current: Some(files), maximum })
                .expect("our child");
        }
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).expect("a log")
    }

    /// The lines of its audit log.
    pub(crate) fn audit(&self) -> String {
        std::fs::read_to_string(self.path("audit.jsonl")).expect("an audit log")
    }

    /// What holders of the local token present on TCP.
    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// Resident bytes.
    pub(crate) fn resident(&self) -> u64 {
        self.proc("status")
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .map_or(0, |text| text.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024)
    }

    /// CPU time it has used, in ticks of 10 ms.
    pub(crate) fn ticks(&self) -> u64 {
        let stat = self.proc("stat");
        let fields: Vec<_> = stat.rsplit(") ").next().expect("fields").split(' ').collect();
        fields[11].parse::<u64>().expect("utime") + fields[12].parse::<u64>().expect("stime")
    }

    pub(crate) fn proc(&self, name: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{name}", self.child.id())).expect("it lives")
    }

    /// What `/metrics` says of one, 0 where it is not there.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let text = self.unix().once("/metrics").expect("metrics").body;
        text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap_or(0)
    }

    /// Readers that ask again and again on the connections that they have.
    pub(crate) fn readers(&self, place: &Place, count: usize) -> Readers {
        Readers::new(place, count)
    }

    /// Ends it: in order, with a log that is whole.
    pub(crate) fn finish(mut self) {
        assert!(self.child.try_wait().expect("our child").is_none(), "it has died");
        kill_process(self.pid(), Signal::TERM).expect("a signal");
        let mut code = None;
        until("it ends", Duration::from_secs(30), || {
            code = self.child.try_wait().expect("our child").map(|status| status.code());
            code.is_some()
        });
        assert_eq!(code.flatten(), Some(0));
        let verified =
            Self::command(self.dir.path()).args(["audit", "verify", "audit.jsonl"]).output().expect("verify");
        assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
        assert_eq!(
            crate::schema::faults_of_lines(&self.audit()),
            [""; 0],
            "lines that are not of the schema"
        );
    }
}

/// How `tenure serve` is started.
pub(crate) struct Serve {
    /// What its shell does first.
    pub(crate) first: String,
    /// Vault's address.
    pub(crate) vault: String,
    /// More of `[vault]`.
    pub(crate) reach: String,
    /// The end of the configuration.
    pub(crate) more: String,
    /// As whom it runs, where we may say so.
    pub(crate) uid: Option<u32>,
    pub(crate) dir: tempfile::TempDir,
}

impl Default for Serve {
    fn default() -> Self {
        Self {
            first: "true".to_owned(),
            // Nobody listens there.
            vault: "http://127.0.0.1:1".to_owned(),
            reach: String::new(),
            more: String::new(),
            uid: None,
            dir: tempfile::tempdir().expect("a folder"),
        }
    }
}

impl Serve {
    /// Starts it, and waits until it serves.
    pub(crate) fn start(self) -> Broker {
        let mut broker = self.spawn();
        until("the broker serves", Duration::from_secs(20), || {
            assert!(broker.child.try_wait().expect("our child").is_none(), "it has ended: {}", broker.log());
            broker.unix().once("/tenure/health").is_ok()
        });
        broker
    }

    /// Starts it, and waits until it has refused to go on: what it said.
    pub(crate) fn refused(self) -> String {
        self.refused_leaving(|_| {})
    }

    /// The same; `look` sees what it has left behind.
    pub(crate) fn refused_leaving(self, look: impl FnOnce(&Broker)) -> String {
        let mut broker = self.spawn();
        let mut code = None;
        until("it ends", Duration::from_secs(20), || {
            code = broker.child.try_wait().expect("our child").map(|status| status.code());
            code.is_some()
        });
        let log = broker.log();
        assert_eq!(code.flatten(), Some(1), "{log}");
        look(&broker);
        log
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn spawn(self) -> Broker {
        drop(open_files(0));
        std::fs::write(self.path("token"), "hvs.login-token-of-nobody").expect("a token");
        let Self { first, vault, reach, more, uid, dir } = self;
        let config = format!(
            "[vault]\naddress = \"{vault}\"\n{reach}\n[vault.auth.token]\nfile = \"token\"\n[run]\ntoken_role = \"run\"\n\
             [listen.unix]\npath = \"s\"\nmode = \"0660\"\n[audit]\nfile = \"audit.jsonl\"\n{more}"
        );
        std::fs::write(dir.path().join("tenure.toml"), config).expect("a configuration");
        let log = std::fs::File::create(dir.path().join("log")).expect("a log");
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &format!("{first}; exec \"$0\" serve --config tenure.toml"), TENURE]);
        command
            .env_clear()
            .env("TENURE_LOG", "trace")
            .current_dir(dir.path())
            .stderr(log)
            .stdin(Stdio::null());
        if let Some(uid) = uid {
            for entry in [dir.path().to_owned(), dir.path().join("token")] {
                std::os::unix::fs::chown(entry, Some(uid), Some(uid)).expect("its owner");
            }
            std::fs::set_permissions(
                dir.path().join("token"),
                std::os::unix::fs::PermissionsExt::from_mode(0o600),
            )
            .expect("its mode");
            std::os::unix::process::CommandExt::uid(&mut command, uid);
            std::os::unix::process::CommandExt::gid(&mut command, uid);
        }
        Broker { child: command.spawn().expect("it runs"), dir, token: String::new(), tcp: None }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Threads that read, each on one connection that must not end, and each its own value.
pub(crate) struct Readers {
    threads: Vec<JoinHandle<()>>,
    done: Arc<AtomicBool>,
    answers: Arc<AtomicUsize>,
}

impl Readers {
    fn new(place: &Place, count: usize) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let answers = Arc::new(AtomicUsize::new(0));
        let threads = (0..count).map(|number| {
            let (done, answers) = (Arc::clone(&done), Arc::clone(&answers));
            let mut socket = place.connect().expect("connected");
            read(&mut socket, number);
            std::thread::spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    read(&mut socket, number);
                    answers.fetch_add(1, Ordering::Relaxed);
                    pause(5);
                }
            })
        });
        Self { threads: threads.collect(), done, answers }
    }

    /// Ends them; each answer was right, and there were some.
    pub(crate) fn finish(self) -> usize {
        let before = self.answers.load(Ordering::Relaxed);
        until("readers are still served", Duration::from_secs(10), || {
            self.answers.load(Ordering::Relaxed) > before + self.threads.len()
        });
        self.done.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("every answer was right, on one connection");
        }
        self.answers.load(Ordering::Relaxed)
    }
}

/// Reads a value, which must be the right one.
#[track_caller]
pub(crate) fn read(socket: &mut Socket, number: usize) {
    let number = number % VALUES;
    let answer = socket.ask(&path(number)).expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert!(answer.body.contains(&content(number)), "somebody else's answer: {}", answer.body);
}
