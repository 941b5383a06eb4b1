//! One execution environment: the real binary between Lambda's side and a Vault, and the function, which is the test.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};
use tokio::net::{TcpStream, UnixStream};
use tokio::process::{Child, Command};
use tokio::time::Instant;

use super::aws::Lambda;
use super::vault::{Lives, Vault};

pub(crate) const ORDERS: &str = "database/creds/orders";

/// How long a function may take, if nothing else is said.
pub(crate) const TIME_OUT: Duration = Duration::from_secs(30);

/// What Lambda allows an extension to end.
pub(crate) const GRACE: Duration = Duration::from_secs(2);

/// How long anything may take that is about to happen. The machine may be busy.
pub(crate) const SOON: Duration = Duration::from_secs(15);

pub(crate) const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(crate) const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// What a test may want to be different.
pub(crate) struct Plan {
    pub(crate) lives: Lives,
    /// `AWS_LAMBDA_INITIALIZATION_TYPE`
    pub(crate) start: &'static str,
    /// The login, where not the usual one: a table of `[vault.auth]`.
    pub(crate) login: Option<String>,
    /// The rest of the configuration, from the table `[run]` on.
    pub(crate) config: &'static str,
    /// More variables.
    pub(crate) vars: Vec<(&'static str, String)>,
    /// How the executable is called, where not by its own name.
    pub(crate) name: Option<&'static str>,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            lives: Lives::default(),
            start: "on-demand",
            login: None,
            config: "token_role = \"run\"\n",
            vars: Vec::new(),
            name: None,
        }
    }
}

/// What a door answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Value,
    /// When it was asked.
    pub(crate) sent: Instant,
    /// How long it took.
    pub(crate) took: Duration,
}

impl Answer {
    /// The database user in it.
    pub(crate) fn user(&self) -> String {
        assert_eq!(self.status, 200, "{}", self.body);
        self.body["data"]["username"].as_str().expect("a user").to_owned()
    }
}

/// The process is killed when it is dropped.
pub(crate) struct Sandbox {
    pub(crate) vault: Vault,
    pub(crate) lambda: Lambda,
    _dir: TempDir,
    pub(crate) socket: PathBuf,
    pub(crate) token_file: PathBuf,
    child: Child,
    pub(crate) pid: Pid,
    out: Arc<Mutex<String>>,
    err: Arc<Mutex<String>>,
}

/// What is configured in `dir`.
pub(crate) fn config(dir: &TempDir, login: Option<&str>, audit: &str, rest: &str) -> String {
    let dir = dir.path().display();
    std::fs::write(format!("{dir}/secret-id"), "secret-id-1").expect("a file");
    let usual = format!("[vault.auth.approle]\nrole_id = \"role\"\nsecret_id_file = \"{dir}/secret-id\"");
    let login = login.unwrap_or(&usual);
    format!(
        "{login}\n\
         [listen.unix]\npath = \"{dir}/tenure.sock\"\n\
         [listen.tcp]\naddress = \"127.0.0.1:0\"\ntoken_file = \"{dir}/token\"\n\
         [audit]\n{audit}\n[run]\n{rest}"
    )
}

/// The command that Lambda starts, with nothing of our own environment that it would look at.
pub(crate) fn extension(lambda: &Lambda, vault: &Vault, start: &str, executable: &str) -> Command {
    let mut command = Command::new(executable);
    command
        .env_clear()
        .env("AWS_LAMBDA_RUNTIME_API", &lambda.address)
        .env("AWS_LAMBDA_INITIALIZATION_TYPE", start)
        .env("AWS_LAMBDA_FUNCTION_NAME", "orders")
        .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
        .env("AWS_LAMBDA_LOG_STREAM_NAME", "2026/11/21/[$LATEST]f0e1d2c3")
        .env("VAULT_ADDR", &vault.address)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

impl Sandbox {
    /// Starts the process, which then begins to log in; see [`Self::ready`].
    pub(crate) async fn start(plan: Plan) -> Self {
        Self::start_with(plan, |_, _| ()).await
    }

    /// [`start`](Self::start), with faults that are there from the beginning.
    pub(crate) async fn start_with(plan: Plan, prepare: impl FnOnce(&Vault, &Lambda)) -> Self {
        let vault = Vault::start(plan.lives).await;
        let lambda = Lambda::start().await;
        prepare(&vault, &lambda);
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("tenure.toml");
        let text = config(&dir, plan.login.as_deref(), "stdout = true", plan.config);
        std::fs::write(&file, text).expect("a file");
        let mut executable = env!("CARGO_BIN_EXE_tenure").to_owned();
        if let Some(name) = plan.name {
            let link = dir.path().join(name);
            std::os::unix::fs::symlink(&executable, &link).expect("a link");
            executable = link.display().to_string();
        }
        let mut command = extension(&lambda, &vault, plan.start, &executable);
        command.env("TENURE_CONFIG", &file).envs(plan.vars.iter().map(|(name, value)| (name, value)));
        Self::of(command, vault, lambda, dir)
    }

    pub(crate) fn of(mut command: Command, vault: Vault, lambda: Lambda, dir: TempDir) -> Self {
        let mut child = command.spawn().expect("it starts");
        let pid = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed())).expect("a pid");
        let out = kept(child.stdout.take().expect("piped"));
        let err = kept(child.stderr.take().expect("piped"));
        let (socket, token_file) = (dir.path().join("tenure.sock"), dir.path().join("token"));
        Self { vault, lambda, _dir: dir, socket, token_file, child, pid, out, err }
    }

    /// Started, and asking for the first event: the function may begin.
    pub(crate) async fn ready(plan: Plan) -> Self {
        let sandbox = Self::start(plan).await;
        sandbox.until_waiting().await;
        sandbox
    }

    /// What it wrote to its stdout: the audit log.
    pub(crate) fn audit(&self) -> String {
        self.out.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The audit lines of that event.
    pub(crate) fn lines(&self, event: &str) -> Vec<Value> {
        let audit = self.audit();
        let whole = audit.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let lines = whole.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line"));
        lines.filter(|line| line["event"] == event).collect()
    }

    /// The last audit line of that event, once there are so many.
    pub(crate) async fn line(&self, event: &str, number: usize) -> Value {
        let what = format!("there are {number} lines of {event}");
        self.until(&what, SOON, |it| it.lines(event).len() >= number).await;
        self.lines(event).swap_remove(number - 1)
    }

    /// What it wrote to its stderr: the log.
    pub(crate) fn said(&self) -> String {
        self.err.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until something holds.
    pub(crate) async fn until(&self, what: &str, within: Duration, holds: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        while !holds(self) {
            assert!(
                began.elapsed() < within,
                "not within {within:?}: {what}\nasked of Vault: {:#?}\nsaid to Lambda: {:#?}\nlog: {}",
                self.vault.log(),
                self.lambda.log(),
                self.said()
            );
            tokio::time::sleep(millis(2)).await;
        }
    }

    /// Waits until the next event is asked for.
    pub(crate) async fn until_waiting(&self) {
        self.until("the next event is asked for", SOON, |it| it.lambda.is_waited_for()).await;
    }

    /// A whole invocation, from the event to the question for the next.
    pub(crate) async fn invoke<T>(&self, function: impl AsyncFnOnce(&str) -> T) -> T {
        self.until_waiting().await;
        let request = self.lambda.request_id();
        self.lambda.invoke(&request, TIME_OUT);
        let result = self.serve(&request, function).await;
        self.until_waiting().await;
        result
    }

    /// The function serves an invocation that was told of.
    pub(crate) async fn serve<T>(&self, request: &str, function: impl AsyncFnOnce(&str) -> T) -> T {
        self.lambda.started(request);
        let result = function(request).await;
        self.lambda.done(request, "success");
        result
    }

    /// Freezes the process, which must have nothing to do.
    pub(crate) async fn freeze(&self) {
        assert!(self.lambda.is_waited_for(), "it is frozen only when it says that it may be");
        kill_process(self.pid, Signal::STOP).expect("a signal");
        let state = || std::fs::read_to_string(format!("/proc/{}/stat", self.pid.as_raw_nonzero()));
        self.until("it stands still", SOON, |_| state().is_ok_and(|stat| stat.contains(") T "))).await;
    }

    pub(crate) fn thaw(&self) {
        kill_process(self.pid, Signal::CONT).expect("a signal");
    }

    /// Frozen for that long.
    pub(crate) async fn frozen(&self, span: Duration) {
        self.freeze().await;
        tokio::time::sleep(span).await;
        self.thaw();
    }

    /// The time that it has spent on a processor.
    pub(crate) fn worked(&self) -> Duration {
        let spent = std::fs::read_to_string(format!("/proc/{}/schedstat", self.pid.as_raw_nonzero()));
        let spent = spent.expect("a process");
        Duration::from_nanos(spent.split(' ').next().expect("a number").parse().expect("a number"))
    }

    /// Reads over the Unix socket.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask("GET", &format!("/v1/{path}"), &[], None).await
    }

    /// Reads a database user that was alive when it was asked for.
    pub(crate) async fn user(&self, path: &str) -> String {
        let answer = self.get(path).await;
        let user = answer.user();
        assert!(self.vault.lived(&user, answer.sent), "{user} was dead when it was served: {answer:?}");
        user
    }

    /// A request over the Unix socket.
    pub(crate) async fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<Value>,
    ) -> Answer {
        let sent = Instant::now();
        let stream = UnixStream::connect(&self.socket).await.expect("the socket");
        exchange(stream, sent, method, path, headers, body).await
    }

    /// Ends the environment as Lambda does. Everything is revoked, and both logs are clean.
    pub(crate) async fn finish(mut self) {
        self.until_waiting().await;
        self.lambda.shut_down("spindown", GRACE);
        let status = self.ended(GRACE).await;
        assert!(status.success(), "{status}: {}", self.said());
        assert_eq!((self.vault.tokens().len(), self.vault.users()), (0, 0), "{:?}", self.vault.tokens());
        self.check();
    }

    /// How the process ended, within that time.
    pub(crate) async fn ended(&mut self, within: Duration) -> ExitStatus {
        let status = tokio::time::timeout(within, self.child.wait()).await;
        let status = status.unwrap_or_else(|_| {
            let log = self.err.lock().unwrap_or_else(PoisonError::into_inner).clone();
            panic!("it does not end within {within:?}: {log}")
        });
        // What it wrote last is read by a task of its own.
        tokio::time::sleep(millis(50)).await;
        status.expect("it ended")
    }

    /// The chain of the audit log is whole, and nothing secret was written.
    pub(crate) fn check(&self) {
        let audit = self.audit();
        if !audit.is_empty() {
            let report = tenure::audit::verify(audit.as_bytes()).expect("it is read");
            assert!(report.is_good(), "{report}\n{audit}");
            assert_eq!(crate::schema::faults_of_lines(&audit), [""; 0], "lines that are not of the schema");
        }
        for text in [audit, self.said()] {
            assert!(!text.contains("canary") && !text.contains("tnr_"), "a secret was written: {text}");
            assert!(!text.contains("secret-id-1"), "a secret was written: {text}");
        }
    }
}

/// A request over a connection of its own.
pub(crate) async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    sent: Instant,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Option<Value>,
) -> Answer {
    let body = body.map(|body| body.to_string()).unwrap_or_default();
    let mut text = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n");
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    if !body.is_empty() {
        text += &format!("content-length: {}\r\n", body.len());
    }
    stream.write_all((text + "\r\n" + &body).as_bytes()).await.expect("a request");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("an answer");
    let took = sent.elapsed();
    let answer = String::from_utf8(answer).expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status");
    let headers = lines.filter_map(|line| line.split_once(": "));
    Answer {
        status: status.parse().expect("a status"),
        headers: headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect(),
        body: serde_json::from_str(body).unwrap_or_default(),
        sent,
        took,
    }
}

/// A request over loopback TCP.
pub(crate) async fn over_tcp(port: u16, path: &str, token: &str) -> Answer {
    let sent = Instant::now();
    let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("the port");
    exchange(stream, sent, "GET", path, &[("x-vault-token", token)], None).await
}

/// Everything that is written, as it comes.
fn kept(from: impl AsyncRead + Unpin + Send + 'static) -> Arc<Mutex<String>> {
    let text = Arc::<Mutex<String>>::default();
    let kept = Arc::clone(&text);
    tokio::spawn(async move {
        let mut lines = BufReader::new(from).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let mut text = kept.lock().unwrap_or_else(PoisonError::into_inner);
            text.push_str(&line);
            text.push('\n');
        }
    });
    text
}
