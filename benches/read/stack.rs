//! The real parts, as `tests/stack` starts them: a Vault with its database, an STS that checks signatures, and before
//! that Vault either `tenure serve`, logged in by AWS IAM, or Vault Proxy, out of the same Vault's binary.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::load::{self, Transport};
use super::process::Server;
use super::report::pause;
use super::{Failed, PATH, SOCKET};

const SETUP: &str = "the stack did not start; `make setup` builds it (see tests/stack/README.md)";

/// No start takes longer.
const SOON: Duration = Duration::from_secs(60);

/// What one launcher started. It ends when the launcher's stdin does: with this value, or with the process.
pub(crate) struct Stack {
    launcher: Child,
    stdin: Option<ChildStdin>,
    described: Value,
}

/// A server that has answered once: with what, and how long after its start, in milliseconds.
pub(crate) struct Started {
    pub(crate) server: Server,
    pub(crate) answer: Vec<u8>,
    pub(crate) took: f64,
}

impl Stack {
    pub(crate) fn up() -> Result<Self, Failed> {
        let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/stack/stack.py");
        let mut launcher = Command::new("python3")
            .args([program, "up", "--json", "--only", "vault"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("{SETUP}: python3: {error}"))?;
        let stdin = launcher.stdin.take();
        let mut line = String::new();
        BufReader::new(launcher.stdout.take().ok_or("no output")?).read_line(&mut line)?;
        match serde_json::from_str(&line) {
            Ok(described) => Ok(Self { launcher, stdin, described }),
            Err(_) => {
                drop(stdin);
                launcher.wait()?;
                Err(SETUP.into())
            }
        }
    }

    /// A string of what the launcher says.
    pub(crate) fn says(&self, pointer: &str) -> Result<&str, Failed> {
        let found = self.described.pointer(pointer).and_then(Value::as_str);
        found.ok_or_else(|| format!("the stack says nothing of {pointer}").into())
    }

    /// `tenure serve` as it is released, on both doors.
    pub(crate) fn tenure(&self, dir: &Path) -> Result<Started, Failed> {
        let tcp = free()?;
        let config = format!(
            "[vault]\naddress = \"{address}\"\n\
             [vault.auth.aws]\nrole = \"orders\"\nserver_id = \"{server_id}\"\nregion = \"{region}\"\n\
             [run]\ntoken_role = \"run\"\n\
             [listen.unix]\npath = \"{dir}/{SOCKET}\"\n\
             [listen.tcp]\naddress = \"{tcp}\"\ntoken_file = \"{dir}/token\"\n\
             [audit]\nfile = \"{dir}/audit.jsonl\"\n",
            address = self.says("/vault/address")?,
            server_id = self.says("/vault/server_id")?,
            region = self.says("/sts/region")?,
            dir = dir.display(),
        );
        let file = dir.join("tenure.toml");
        std::fs::write(&file, config)?;
        let mut command = pinned(env!("CARGO_BIN_EXE_tenure"))?;
        command.arg("serve").arg("--config").arg(file).env("AWS_EC2_METADATA_DISABLED", "true");
        for (variable, name) in [
            ("AWS_ACCESS_KEY_ID", "/sts/access_key_id"),
            ("AWS_SECRET_ACCESS_KEY", "/sts/secret_access_key"),
            ("AWS_SESSION_TOKEN", "/sts/session_token"),
        ] {
            command.env(variable, self.says(name)?);
        }
        started(command, dir, tcp)
    }

    /// Vault Proxy with its cache, on the same two doors. It is given a token, where Tenure logs in; and it says nothing
    /// of single requests, where Tenure writes its audit log.
    pub(crate) fn proxy(&self, dir: &Path) -> Result<Started, Failed> {
        let tcp = free()?;
        let file = dir.join("proxy.hcl");
        let token = self.operate("auth/token/create", &json!({ "policies": ["orders"], "ttl": "4h" }))?;
        let token = token.pointer("/auth/client_token").and_then(Value::as_str).ok_or("no token was made")?;
        std::fs::write(dir.join("token"), token)?;
        let config = format!(
            "vault {{\n address = \"{address}\"\n}}\n\
             auto_auth {{\n method {{\n type = \"token_file\"\n config = {{ token_file_path = \"{dir}/token\" }}\n }}\n}}\n\
             api_proxy {{\n use_auto_auth_token = true\n}}\ncache {{}}\nlog_level = \"error\"\n\
             listener \"unix\" {{\n address = \"{dir}/{SOCKET}\"\n tls_disable = true\n}}\n\
             listener \"tcp\" {{\n address = \"{tcp}\"\n tls_disable = true\n}}\n",
            address = self.says("/vault/address")?,
            dir = dir.display(),
        );
        std::fs::write(&file, config)?;
        let mut command = pinned(self.says("/vault/bin")?)?;
        command.arg("proxy").arg(format!("-config={}", file.display())).env("HOME", dir);
        started(command, dir, tcp)
    }

    /// What upstream alone takes for a run token and a database user, in milliseconds: asked by the operator, on one
    /// connection.
    pub(crate) fn upstream(&self) -> Result<f64, Failed> {
        let begin = load::now();
        self.operate("auth/token/create/run", &json!({ "ttl": "15m" }))?;
        let mut stream = self.connect()?;
        load::ask(&mut stream, &load::request(PATH, Some(self.says("/vault/root_token")?)))?;
        Ok((load::now() - begin).as_secs_f64() * 1e3)
    }

    fn operate(&self, path: &str, body: &Value) -> Result<Value, Failed> {
        let (token, body) = (self.says("/vault/root_token")?, body.to_string());
        let request = format!(
            "POST /v1/{path} HTTP/1.1\r\nHost: vault\r\nX-Vault-Token: {token}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = load::ask(&mut self.connect()?, request.as_bytes())?;
        let start =
            answer.windows(4).position(|four| four == b"\r\n\r\n").ok_or("an answer without an end")?;
        Ok(serde_json::from_slice(&answer[start + 4..])?)
    }

    fn connect(&self) -> Result<TcpStream, Failed> {
        let stream = TcpStream::connect(self.says("/vault/address")?.trim_start_matches("http://"))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.launcher.wait();
    }
}

/// An address that nobody listens on.
fn free() -> Result<SocketAddr, Failed> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// This very program, which pins itself to the core of the servers and becomes the other one.
fn pinned(program: &str) -> Result<Command, Failed> {
    let mut command = Command::new(std::env::current_exe()?);
    command.env_clear().arg("become").arg(program);
    Ok(command)
}

/// Starts it, and waits until a secret was read from it.
fn started(mut command: Command, dir: &Path, tcp: SocketAddr) -> Result<Started, Failed> {
    let log = File::create(dir.join("log"))?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let begin = load::now();
    let mut server = Server { child: command.spawn()?, dir: dir.to_owned(), tcp };
    loop {
        let answer = match load::connect(&server, Transport::Unix) {
            Ok(mut stream) => load::ask(&mut *stream, &load::request(PATH, None)),
            Err(error) => Err(error.into()),
        };
        match answer {
            Ok(answer) => {
                let took = (load::now() - begin).as_secs_f64() * 1e3;
                return Ok(Started { server, answer, took });
            }
            Err(error) if server.child.try_wait()?.is_some() || load::now() - begin > SOON => {
                let log = std::fs::read_to_string(dir.join("log"))?;
                return Err(format!("no secret came: {error}\n{log}").into());
            }
            Err(_) => pause(Duration::from_micros(500)),
        }
    }
}
