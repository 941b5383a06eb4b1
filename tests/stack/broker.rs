//! The broker's binary, as it is shipped: started with a file and an environment, asked over its doors, ended by signals.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{Server, text, wait_for, wait_until};
use crate::http::{Answer, Place, request};

/// Longer than a start, an end or an answer may take.
pub(crate) const SOON: Duration = Duration::from_secs(30);

const TENURE: &str = env!("CARGO_BIN_EXE_tenure");

/// What a broker is started with. It can be used again: the next start has the same directory and files.
#[derive(Clone)]
pub(crate) struct Setup<'a> {
    pub(crate) server: &'a Server,
    dir: Arc<TempDir>,
    /// The members of `[vault]`, `[vault.auth.aws]` and so on, as TOML values.
    settings: BTreeMap<&'static str, BTreeMap<&'static str, String>>,
    /// Appended to the file as it is.
    more: String,
    environment: BTreeMap<String, String>,
    /// A command that the binary's command line is given to: `sh -c '… exec "$@"' sh`.
    wrapped: Vec<String>,
}

impl<'a> Setup<'a> {
    /// A broker on both doors, logged in as the stack's task, with a token role.
    pub(crate) fn new(server: &'a Server) -> Self {
        let dir = Arc::new(tempfile::tempdir().expect("a directory"));
        let path = |name: &str| quoted(&dir.path().join(name).display().to_string());
        let aws = BTreeMap::from([
            ("role", quoted("orders")),
            ("server_id", quoted(server.says("server_id"))),
            ("region", quoted(text(&server.sts()["region"]))),
        ]);
        let settings = BTreeMap::from([
            ("vault", BTreeMap::from([("address", quoted(server.says("address")))])),
            ("vault.auth.aws", aws),
            ("run", BTreeMap::from([("token_role", quoted("run"))])),
            ("listen.unix", BTreeMap::from([("path", path("tenure.sock"))])),
            (
                "listen.tcp",
                BTreeMap::from([("address", quoted("127.0.0.1:0")), ("token_file", path("token"))]),
            ),
            ("audit", BTreeMap::from([("file", path("audit.jsonl"))])),
        ]);
        let setup = Self {
            server,
            dir,
            settings,
            more: String::new(),
            environment: BTreeMap::new(),
            wrapped: Vec::new(),
        };
        setup.env("AWS_EC2_METADATA_DISABLED", "true").aws(server.sts())
    }

    /// With these AWS credentials in the environment: an object of the stack's description.
    pub(crate) fn aws(self, session: &Value) -> Self {
        self.env("AWS_ACCESS_KEY_ID", text(&session["access_key_id"]))
            .env("AWS_SECRET_ACCESS_KEY", text(&session["secret_access_key"]))
            .env("AWS_SESSION_TOKEN", text(&session["session_token"]))
    }

    /// Without AWS credentials in the environment.
    pub(crate) fn without_aws(mut self) -> Self {
        for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"] {
            self.environment.remove(name);
        }
        self
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Sets a string of the file: `set("vault.auth.aws", "role", "orders-short")`.
    pub(crate) fn set(mut self, table: &'static str, key: &'static str, value: &str) -> Self {
        self.settings.entry(table).or_default().insert(key, quoted(value));
        self
    }

    /// Takes a key out of the file.
    pub(crate) fn unset(mut self, table: &'static str, key: &'static str) -> Self {
        self.settings.entry(table).or_default().remove(key);
        self
    }

    /// Takes a whole table out of the file.
    pub(crate) fn without(mut self, table: &'static str) -> Self {
        self.settings.remove(table);
        self
    }

    /// Adds to the end of the file: `[[prefetch]]` and the like.
    pub(crate) fn and(mut self, toml: &str) -> Self {
        self.more.push_str(toml);
        self
    }

    /// Runs the binary through a shell that first does `what`: a limit of the process, most often.
    pub(crate) fn after(mut self, what: &str) -> Self {
        self.wrapped =
            ["/bin/sh".into(), "-c".into(), format!("{what}; exec \"$0\" \"$@\"")].into_iter().collect();
        self
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Starts it and waits until it is ready.
    #[track_caller]
    pub(crate) fn start(&self) -> Broker<'a> {
        let mut broker = self.spawn();
        broker.wait_ready();
        broker
    }

    /// Starts it, and does not wait.
    #[track_caller]
    pub(crate) fn spawn(&self) -> Broker<'a> {
        let config = self.dir().join("tenure.toml");
        std::fs::write(&config, self.file()).expect("the configuration");
        let log = self.dir().join("log");
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&log).expect("the log");
        let told = file.metadata().map(|log| log.len()).unwrap_or_default();
        let mut words = self.wrapped.clone();
        words.push(TENURE.to_owned());
        let child = Command::new(&words[0])
            .args(&words[1..])
            .args(["serve", "--config"])
            .arg(&config)
            .env_clear()
            .envs(&self.environment)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .expect("the broker's binary");
        Broker {
            setup: self.clone(),
            child,
            run: String::new(),
            told,
            seen: Mutex::new(Vec::new()),
            refusals: Mutex::new(String::new()),
        }
    }

    /// The command by which Lambda, whose API is at `api`, starts it as an extension.
    #[track_caller]
    pub(crate) fn extension(&self, api: &str) -> Command {
        let config = self.dir().join("tenure.toml");
        std::fs::write(&config, self.file()).expect("the configuration");
        let mut command = Command::new(TENURE);
        command
            .env_clear()
            .envs(&self.environment)
            .env("TENURE_CONFIG", config)
            .env("AWS_LAMBDA_RUNTIME_API", api)
            .env("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand")
            .env("AWS_LAMBDA_FUNCTION_NAME", "orders")
            .env("AWS_LAMBDA_FUNCTION_VERSION", "7")
            .env("AWS_LAMBDA_LOG_STREAM_NAME", "2026/11/21/[7]f0e1d2c3")
            .stdin(Stdio::null());
        command
    }

    /// Runs another of the binary's commands with the same file and environment, to its end.
    #[track_caller]
    pub(crate) fn command(&self, words: &[&str]) -> Output {
        let config = self.dir().join("tenure.toml");
        std::fs::write(&config, self.file()).expect("the configuration");
        Command::new(TENURE)
            .args(words)
            .arg("--config")
            .arg(&config)
            .env_clear()
            .envs(&self.environment)
            .stdin(Stdio::null())
            .output()
            .expect("the binary")
    }

    /// Starts it where it must not come up: its exit code and what it said.
    #[track_caller]
    pub(crate) fn refused(&self) -> (i32, String) {
        let mut broker = self.spawn();
        let status = broker.wait_exit(Duration::from_secs(15));
        let log = broker.log();
        broker.check_silence(&log, "the log");
        (status.code().unwrap_or(-1), log)
    }

    fn file(&self) -> String {
        let mut file = String::new();
        for (table, members) in &self.settings {
            file.push_str(&format!("[{table}]\n"));
            for (key, value) in members {
                file.push_str(&format!("{key} = {value}\n"));
            }
        }
        file + &self.more
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A leased database credential, as a workload takes it from an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Login {
    pub(crate) user: String,
    pub(crate) password: String,
    pub(crate) lease_id: String,
}

/// A process that serves. It is killed when it is dropped; a test that ends in order ends it with [`finish`](Self::finish).
pub(crate) struct Broker<'a> {
    pub(crate) setup: Setup<'a>,
    child: Child,
    /// The id of its run, once it is ready.
    pub(crate) run: String,
    /// How long the log was before this start.
    told: u64,
    /// Passwords that were handed out.
    seen: Mutex<Vec<String>>,
    /// What was answered to requests that were refused.
    refusals: Mutex<String>,
}

impl Broker<'_> {
    #[track_caller]
    pub(crate) fn wait_ready(&mut self) {
        wait_until("ready", SOON, || {
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!("the broker ended ({status}):\n{}", self.log());
            }
            self.try_get("/tenure/ready").is_ok_and(|answer| answer.status == 200)
        });
        // It says so right after it is.
        wait_until("the line that says so", SOON, || self.log().contains("serving; leases hang off"));
        self.run = text(&self.status()["run"]["id"]).to_owned();
    }

    pub(crate) fn unix(&self) -> Place {
        Place::Unix(self.path("tenure.sock"))
    }

    /// Where the TCP door is: the log says it.
    #[track_caller]
    pub(crate) fn tcp(&self) -> Place {
        let line = self.lines().into_iter().find(|line| line["tcp"].is_string());
        let line = line.expect("a line that names the TCP door");
        Place::Tcp(text(&line["tcp"]).parse().expect("an address"))
    }

    /// What callers on TCP send as their token.
    pub(crate) fn token(&self) -> String {
        std::fs::read_to_string(self.path("token")).expect("the token file")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.setup.dir().join(name)
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Whether the process has not ended.
    pub(crate) fn runs(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|ended| ended.is_none())
    }

    /// A GET on the Unix socket, where there may be none.
    pub(crate) fn try_get(&self, path: &str) -> std::io::Result<Answer> {
        request(&self.unix(), "GET", path, &[], None)
    }

    /// A GET on the Unix socket.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.ask(&self.unix(), "GET", path, &[])
    }

    /// A GET on TCP, with the local token.
    #[track_caller]
    pub(crate) fn get_tcp(&self, path: &str) -> Answer {
        self.ask(&self.tcp(), "GET", path, &[("x-vault-token", &self.token())])
    }

    /// Any request without a body.
    #[track_caller]
    pub(crate) fn ask(&self, place: &Place, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        let answer = request(place, method, path, headers, None).expect("the broker answers");
        self.keep(&answer);
        answer
    }

    /// Remembers what of an answer must not be seen elsewhere, and what was said in refusals.
    pub(crate) fn keep(&self, answer: &Answer) {
        if answer.status == 200 {
            if let Some(password) = answer.json()["data"]["password"].as_str() {
                let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
                if !seen.iter().any(|known| known == password) {
                    seen.push(password.to_owned());
                }
            }
        } else {
            let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
            refusals.push_str(&answer.text());
            refusals.push('\n');
        }
    }

    /// A leased database credential, from `database/creds/<role>`.
    #[track_caller]
    pub(crate) fn credential(&self, role: &str) -> Login {
        let answer = self.get(&format!("/v1/database/creds/{role}")).ok();
        Login {
            user: text(&answer["data"]["username"]).to_owned(),
            password: text(&answer["data"]["password"]).to_owned(),
            lease_id: text(&answer["lease_id"]).to_owned(),
        }
    }

    /// `/tenure/leases`: the state of everything.
    #[track_caller]
    pub(crate) fn status(&self) -> Value {
        self.get("/tenure/leases").ok()
    }

    /// What this start logged.
    pub(crate) fn log(&self) -> String {
        let log = std::fs::read(self.path("log")).unwrap_or_default();
        let from = usize::try_from(self.told).unwrap_or_default().min(log.len());
        String::from_utf8_lossy(&log[from..]).into_owned()
    }

    fn lines(&self) -> Vec<Value> {
        self.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The lines of the audit file, with those of earlier starts; without one that is just being written.
    pub(crate) fn audit(&self) -> Vec<Value> {
        let file = std::fs::read_to_string(self.path("audit.jsonl")).unwrap_or_default();
        let whole = file.rfind('\n').map_or("", |end| &file[..end]);
        whole.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
    }

    /// How many audit lines tell of `event`.
    pub(crate) fn audited(&self, event: &str) -> usize {
        self.audit().iter().filter(|line| line["event"] == event).count()
    }

    /// A command of `tenure` beside the running one: exit code, stdout, stderr.
    #[track_caller]
    pub(crate) fn tenure(&self, words: &[&str]) -> (i32, String, String) {
        self.tenure_with(words, &[])
    }

    /// The same, with more variables.
    pub(crate) fn tenure_with(&self, words: &[&str], vars: &[(&str, &str)]) -> (i32, String, String) {
        let output = Command::new(TENURE)
            .args(words)
            .env_clear()
            .env("TENURE_SOCKET", self.path("tenure.sock"))
            .envs(vars.iter().copied())
            .stdin(Stdio::null())
            .output()
            .expect("the binary");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("the process is there");
    }

    #[track_caller]
    pub(crate) fn wait_exit(&mut self, bound: Duration) -> ExitStatus {
        wait_for("the end of the broker", bound, || self.child.try_wait().expect("our own child"))
    }

    /// SIGTERM, and the end: it must be orderly.
    #[track_caller]
    pub(crate) fn terminate(&mut self) {
        self.signal(Signal::TERM);
        let status = self.wait_exit(SOON);
        assert!(status.success(), "{status}:\n{}", self.log());
    }

    /// SIGKILL: nothing can be done in order.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Ends the broker, and sees that its audit log is whole and that nothing secret got out on any way but in answers.
    #[track_caller]
    pub(crate) fn finish(mut self) -> Finished {
        for page in ["/metrics", "/tenure/leases", "/tenure/ready"] {
            let answer = self.get(page);
            self.check_silence(&answer.text(), page);
        }
        self.terminate();
        self.check_outputs();
        Finished { audit: self.audit(), log: self.log() }
    }

    /// The audit log verifies, and no output has a secret in it.
    #[track_caller]
    pub(crate) fn check_outputs(&self) {
        let audit = self.path("audit.jsonl");
        let (code, out, err) = self.tenure(&["audit", "verify", &audit.display().to_string()]);
        assert_eq!(code, 0, "tenure audit verify: {out}{err}");
        let read = |name: &str| std::fs::read_to_string(self.path(name)).unwrap_or_default();
        let faults = crate::schema::faults_of_lines(&read("audit.jsonl"));
        assert_eq!(faults, [""; 0], "lines that are not of the schema");
        self.check_silence(&read("audit.jsonl"), "the audit file");
        self.check_silence(&read("log"), "the log");
        self.check_silence(&read("audit.jsonl.orphans"), "the journal");
        let refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.check_silence(&refusals, "the answers to refused requests");
    }

    #[track_caller]
    pub(crate) fn check_silence(&self, output: &str, what: &str) {
        let mut canaries = self.setup.server.canaries();
        canaries.extend(self.seen.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned());
        canaries.extend(std::fs::read_to_string(self.path("token")));
        for canary in canaries.iter().filter(|canary| !canary.is_empty()) {
            assert!(!output.contains(canary), "{what} has a secret in it ({canary}):\n{output}");
        }
        if let Some(token) = vault_token(output) {
            panic!("{what} has a Vault token in it ({token}):\n{output}");
        }
    }
}

impl Drop for Broker<'_> {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- the broker's log\n{}", self.log());
        }
    }
}

/// What an orderly end leaves.
pub(crate) struct Finished {
    pub(crate) audit: Vec<Value>,
    pub(crate) log: String,
}

impl Finished {
    /// The audit lines of `event`.
    pub(crate) fn of(&self, event: &str) -> Vec<&Value> {
        self.audit.iter().filter(|line| line["event"] == event).collect()
    }
}

/// Anything that looks like a token of Vault (`hvs.…`, `hvb.…`) or OpenBao (`s.…`, `b.…`).
fn vault_token(output: &str) -> Option<&str> {
    output.split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))).find(|word| {
        word.split_once('.').is_some_and(|(kind, rest)| {
            matches!(kind, "hvs" | "hvb" | "hvr" | "s" | "b" | "r") && rest.len() >= 20
        })
    })
}
