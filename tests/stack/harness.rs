//! The stack that tests share, stacks of their own for those that break things, and Vault as its operator sees it.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::process::Pid;
use serde_json::Value;

use crate::database::Database;
use crate::http::{Answer, Place, request};

/// Waits until `found` finds something, and says what was missing if it does not within the bound.
#[track_caller]
pub(crate) fn wait_for<T>(what: &str, bound: Duration, mut found: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + bound;
    loop {
        if let Some(value) = found() {
            return value;
        }
        assert!(Instant::now() < end, "not within {bound:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The same, for what is either so or not.
#[track_caller]
pub(crate) fn wait_until(what: &str, bound: Duration, mut is_so: impl FnMut() -> bool) {
    wait_for(what, bound, || is_so().then_some(()));
}

/// A string of a JSON document that is known to be there.
#[track_caller]
pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("not a string: {value}"))
}

/// One test for each server: `against_both!(a b)` makes `vault::a`, `openbao::a` and so on of `fn a(server: &Server)`.
macro_rules! against_both {
    ($($name:ident)+) => {
        mod vault {
            $(#[test] fn $name() { super::$name($crate::harness::Flavor::Vault.shared()); })+
        }
        mod openbao {
            $(#[test] fn $name() { super::$name($crate::harness::Flavor::OpenBao.shared()); })+
        }
    };
}

/// The two servers that speak Vault's API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flavor {
    Vault,
    OpenBao,
}

impl Flavor {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Vault => "vault",
            Self::OpenBao => "openbao",
        }
    }

    /// The server that all tests share: nobody may stop, seal or overload it.
    #[track_caller]
    pub(crate) fn shared(self) -> &'static Server {
        static SHARED: OnceLock<Result<Stack, String>> = OnceLock::new();
        match SHARED.get_or_init(|| Stack::up(None, &["stepfunctions"])) {
            Ok(stack) => stack.server(self),
            Err(why) => panic!("{why}"),
        }
    }
}

/// Everything that one launcher started. It ends when the launcher's stdin does: with this value, or with the process.
pub(crate) struct Stack {
    launcher: Child,
    stdin: Option<ChildStdin>,
    servers: Vec<Server>,
}

impl Stack {
    /// A stack with one server, to be broken by one test.
    #[track_caller]
    pub(crate) fn own(flavor: Flavor) -> Self {
        Self::up(Some(flavor), &[]).unwrap_or_else(|why| panic!("{why}"))
    }

    #[track_caller]
    pub(crate) fn server(&self, flavor: Flavor) -> &Server {
        self.servers.iter().find(|server| server.flavor == flavor).expect("a server that was started")
    }

    fn up(only: Option<Flavor>, with: &[&str]) -> Result<Self, String> {
        const SETUP: &str = "the real test stack did not start; `make test` sets it up (Python >= 3.11, Go >= 1.25.3, \
                             PostgreSQL: see tests/stack/README.md), and so does `python3 tests/stack/stack.py setup`";
        let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/stack/stack.py");
        let mut command = Command::new("python3");
        command.args([program, "up", "--json"]);
        if let Some(flavor) = only {
            command.args(["--only", flavor.name()]);
        }
        for extra in with {
            command.args(["--with", extra]);
        }
        let mut launcher = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{SETUP}\npython3: {error}"))?;
        let stdin = launcher.stdin.take();
        let mut line = String::new();
        let stdout = launcher.stdout.take().expect("a pipe");
        let read = BufReader::new(stdout).read_line(&mut line);
        let described: Value = match read.map(|_| serde_json::from_str(&line)) {
            Ok(Ok(described)) => described,
            _ => {
                drop(stdin);
                let ended = launcher.wait_with_output().map(|output| output.stderr).unwrap_or_default();
                return Err(format!("{SETUP}\n{}", String::from_utf8_lossy(&ended)));
            }
        };
        // Nothing more of note is said; but a full pipe must not stop the launcher.
        let stderr = launcher.stderr.take().expect("a pipe");
        std::thread::spawn(move || {
            BufReader::new(stderr).lines().map_while(Result::ok).for_each(drop);
        });
        let servers = [Flavor::Vault, Flavor::OpenBao]
            .into_iter()
            .filter(|flavor| only.is_none_or(|only| only == *flavor))
            .map(|flavor| Server { flavor, stack: described.clone(), database: Database::of(&described) })
            .collect();
        Ok(Self { launcher, stdin, servers })
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.launcher.wait();
    }
}

/// One Vault or OpenBao, with the database and the STS behind it.
pub(crate) struct Server {
    pub(crate) flavor: Flavor,
    /// All that `stack.py up --json` says.
    pub(crate) stack: Value,
    pub(crate) database: Database,
}

impl Server {
    /// What `stack.py` says of this server.
    #[track_caller]
    pub(crate) fn says(&self, name: &str) -> &str {
        text(&self.stack[self.flavor.name()][name])
    }

    /// What `stack.py` says of the STS.
    pub(crate) fn sts(&self) -> &Value {
        &self.stack["sts"]
    }

    pub(crate) fn place(&self) -> Place {
        let address = self.says("address").trim_start_matches("http://");
        Place::Tcp(address.parse().expect("an address"))
    }

    /// Its process, for those who may stop it.
    pub(crate) fn pid(&self) -> Pid {
        let pid = self.stack[self.flavor.name()]["pid"].as_i64().and_then(|pid| pid.try_into().ok());
        pid.and_then(Pid::from_raw).expect("a process id")
    }

    /// A request of the operator, with the root token.
    #[track_caller]
    pub(crate) fn admin(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let token = [("x-vault-token", self.says("root_token"))];
        request(&self.place(), method, &format!("/v1/{path}"), &token, body).expect("the server answers")
    }

    /// Whether the server still knows this lease.
    #[track_caller]
    pub(crate) fn knows_lease(&self, id: &str) -> bool {
        let answer = self.admin("PUT", "sys/leases/lookup", Some(&serde_json::json!({ "lease_id": id })));
        match answer.status {
            200 => true,
            400 => false,
            status => panic!("a look-up of a lease was answered {status}: {}", answer.text()),
        }
    }

    /// Those of `ids` that the server still lists below `prefix`, such as `database/creds/orders`.
    #[track_caller]
    pub(crate) fn listed_leases(&self, prefix: &str, ids: &[String]) -> Vec<String> {
        let listed = self.admin("LIST", &format!("sys/leases/lookup/{prefix}"), None).json();
        let listed: Vec<String> = listed["data"]["keys"]
            .as_array()
            .map(|keys| keys.iter().map(|key| format!("{prefix}/{}", text(key))).collect())
            .unwrap_or_default();
        ids.iter().filter(|id| listed.contains(id)).cloned().collect()
    }

    /// What the server's own audit log says of requests that carry `run` as their `X-Tenure-Run`: its answers.
    #[track_caller]
    pub(crate) fn audited(&self, run: &str) -> Vec<Value> {
        let log = std::fs::read_to_string(self.says("audit_log")).expect("the server's audit log");
        log.lines()
            .filter(|line| line.contains(run))
            .map(|line| serde_json::from_str::<Value>(line).expect("a line of JSON"))
            .filter(|line| line["type"] == "response")
            .filter(|line| line["request"]["headers"]["x-tenure-run"][0] == run)
            .collect()
    }

    /// How many of those were to `path`.
    #[track_caller]
    pub(crate) fn asked(&self, run: &str, path: &str) -> usize {
        self.audited(run).iter().filter(|line| line["request"]["path"] == path).count()
    }

    /// What must never be seen outside: the stack's own secrets.
    pub(crate) fn canaries(&self) -> Vec<String> {
        let mut canaries = vec!["canary-kv2-7f3a".to_owned(), "canary-kv1-91bc".to_owned()];
        collect(&self.stack, &mut canaries);
        canaries
    }
}

/// Every value of the stack's description whose name says that it is secret.
fn collect(value: &Value, into: &mut Vec<String>) {
    let Value::Object(members) = value else { return };
    for (name, value) in members {
        match value {
            Value::String(secret)
                if ["password", "secret", "token", "unseal"].iter().any(|word| name.contains(word))
                    && !name.ends_with("_file")
                    && !secret.is_empty() =>
            {
                into.push(secret.clone());
            }
            other => collect(other, into),
        }
    }
}
