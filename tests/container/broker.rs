//! A place for a broker, the processes that run in it, and what they may be put into.

use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::vault::{CANARY, Vault};

pub(crate) const TENURE: &str = env!("CARGO_BIN_EXE_tenure");

/// The longest that anything takes that is not waited for on purpose.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// A folder with a configuration for a broker before `vault`.
pub(crate) struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    /// `more` is added to the configuration.
    pub(crate) fn new(vault: &Vault, more: &str) -> Self {
        let place = Self { folder: tempfile::tempdir().expect("a folder") };
        std::fs::write(place.path("secret-id"), format!("{CANARY}secret-id")).expect("a file");
        place.configure(vault, place.folder.path(), more);
        place
    }

    /// As seen from within, everything is below `root`.
    pub(crate) fn configure(&self, vault: &Vault, root: &Path, more: &str) {
        let root = root.display();
        let text = format!(
            "vault.address = \"{}\"\nrun.token_role = \"run\"\naudit.file = \"{root}/audit.jsonl\"\n\
             listen.unix.path = \"{root}/s\"\n\
             [vault.auth.approle]\nrole_id = \"orders\"\nsecret_id_file = \"{root}/secret-id\"\n{more}",
            vault.address
        );
        std::fs::write(self.path("tenure.toml"), text).expect("a file");
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `tenure serve`, with `flags`, perhaps within what `within` makes.
    pub(crate) fn serve(&self, within: &[&str], flags: &[&str]) -> Process {
        let config = self.path("tenure.toml");
        let words = ["serve", "--config", config.to_str().expect("text")];
        Process::start(command(within, &[&words, flags].concat()))
    }

    /// A broker that is ready.
    pub(crate) fn ready(&self, within: &[&str]) -> Process {
        let mut process = self.serve(within, &[]);
        process.until("it is ready", |_| self.get("/tenure/ready", "").0 == 200);
        process
    }

    /// The status and the body of a GET on the socket; 0 where nobody is there. `headers` end each with a line break.
    pub(crate) fn get(&self, path: &str, headers: &str) -> (u16, String) {
        self.send("GET", path, headers, "")
    }

    pub(crate) fn send(&self, method: &str, path: &str, headers: &str, body: &str) -> (u16, String) {
        let answer = UnixStream::connect(self.path("s")).and_then(|mut stream| {
            let length = body.len();
            write!(
                stream,
                "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n\
                 Content-Length: {length}\r\n{headers}\r\n{body}"
            )?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        });
        let answer = answer.unwrap_or_default();
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        (status, answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
    }

    pub(crate) fn audit(&self) -> String {
        std::fs::read_to_string(self.path("audit.jsonl")).unwrap_or_default()
    }
}

/// `tenure` with `words`, with an empty environment, perhaps as the last words of another command.
pub(crate) fn command(within: &[&str], words: &[&str]) -> Command {
    let all: Vec<OsString> = within.iter().chain([&TENURE]).chain(words).map(OsString::from).collect();
    let mut command = Command::new(&all[0]);
    command.args(&all[1..]).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command
}

/// What makes a namespace of processes of its own for what follows, as any user may.
pub(crate) const PID_NAMESPACE: &[&str] =
    &["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc"];

/// Says why, where this machine does not let us have what the test is about.
#[track_caller]
pub(crate) fn must_have(within: &[&str]) {
    let output = Command::new(within[0]).args(&within[1..]).arg("true").output();
    match output {
        Ok(output) if output.status.success() => {}
        Ok(output) => panic!(
            "this machine does not let this user make the namespaces that the test needs ({}): {}",
            within.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        ),
        Err(error) => panic!("the test needs util-linux' unshare: {error}"),
    }
}

/// A process whose stderr goes to a file, and that does not outlive the test.
pub(crate) struct Process {
    child: Child,
    stderr: tempfile::NamedTempFile,
}

impl Process {
    pub(crate) fn start(mut command: Command) -> Self {
        let stderr = tempfile::NamedTempFile::new().expect("a file");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr.reopen().expect("the file"));
        Self { child: command.spawn().expect("it starts"), stderr }
    }

    pub(crate) fn said(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.stderr.path()).expect("the file")).into_owned()
    }

    /// Waits until it is so.
    #[track_caller]
    pub(crate) fn until(&mut self, what: &str, so: impl Fn(&Self) -> bool) {
        let began = now();
        while !so(self) {
            let ended = self.child.try_wait().expect("our child");
            assert!(ended.is_none(), "{ended:?} before {what}:\n{}", self.said());
            assert!(began.elapsed() < SOON, "{what}: not within {SOON:?}:\n{}", self.said());
            pause();
        }
    }

    /// The process itself, or, where it only makes a namespace for it, the first process of that.
    pub(crate) fn pid(&self) -> Pid {
        let own = self.child.id().to_string();
        let inner = children_of(&own).first().cloned().unwrap_or(own);
        Pid::from_raw(inner.parse().expect("a number")).expect("a pid")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("it is there");
    }

    #[track_caller]
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let began = now();
        loop {
            if let Some(status) = self.child.try_wait().expect("our child") {
                return status;
            }
            assert!(began.elapsed() < SOON, "it did not end:\n{}", self.said());
            pause();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The process ids of the children of `pid`.
pub(crate) fn children_of(pid: &str) -> Vec<String> {
    let listed = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    listed.split_whitespace().map(str::to_owned).collect()
}

#[expect(clippy::disallowed_methods, reason = "real processes run in real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "real processes run in real time")]
pub(crate) fn pause() {
    std::thread::sleep(Duration::from_millis(10));
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs a command to its end.
pub(crate) fn run(mut command: Command) -> Output {
    command.stdin(Stdio::null()).output().expect("it starts")
}
