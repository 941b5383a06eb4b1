//! A Vault that is played: it logs in whoever comes, gives what is asked for, and forgets what is revoked. It can be told
//! to hang, and remembers what it was asked.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

/// What begins every secret that it gives.
pub(crate) const CANARY: &str = "canary-";

pub(crate) struct Vault {
    pub(crate) address: String,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    hangs: AtomicBool,
    numbers: AtomicU64,
    alive: Mutex<BTreeSet<String>>,
    asked: Mutex<Vec<String>>,
}

struct Request {
    line: String,
    token: String,
    body: Value,
}

impl Vault {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("its address"));
        let shared = Arc::<Shared>::default();
        let of_all = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&of_all);
                std::thread::spawn(move || shared.serve(&stream));
            }
        });
        Self { address, shared }
    }

    /// From now on nothing is answered any more, or everything is again.
    pub(crate) fn hang(&self, hangs: bool) {
        self.shared.hangs.store(hangs, Ordering::SeqCst);
    }

    /// The requests so far, such as `POST /v1/auth/approle/login`.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.shared.asked.lock().expect("requests").clone()
    }

    /// How many of its tokens are alive.
    pub(crate) fn tokens(&self) -> usize {
        self.shared.alive.lock().expect("tokens").len()
    }
}

impl Shared {
    fn serve(&self, stream: &TcpStream) {
        let mut reader = BufReader::new(stream);
        while let Some(request) = read(&mut reader) {
            self.asked.lock().expect("requests").push(request.line.clone());
            while self.hangs.load(Ordering::SeqCst) {
                // As a host that drops packets: nothing comes, and nothing ends.
                std::thread::park_timeout(std::time::Duration::from_millis(20));
            }
            let (status, body) = self.answer(&request);
            let body = body.to_string();
            let head = format!("HTTP/1.1 {status} x\r\nContent-Length: {}\r\n\r\n", body.len());
            let mut out = stream;
            if out.write_all(head.as_bytes()).and_then(|()| out.write_all(body.as_bytes())).is_err() {
                return;
            }
        }
    }

    fn answer(&self, request: &Request) -> (u16, Value) {
        let number = self.numbers.fetch_add(1, Ordering::SeqCst);
        let mut alive = self.alive.lock().expect("tokens");
        let issue = |alive: &mut BTreeSet<String>, kind: &str| {
            let token = format!("hvs.{CANARY}{kind}-{number}");
            alive.insert(token.clone());
            json!({ "request_id": "r", "auth": {
                "client_token": token, "accessor": format!("accessor-of-{kind}-{number}"), "token_policies": [kind],
                "lease_duration": 900, "renewable": true, "token_type": "service", "orphan": kind == "run",
            }})
        };
        let refused = |status: u16, why: &str| (status, json!({ "errors": [why] }));
        let path = request.line.split(' ').nth(1).unwrap_or_default();
        if path.starts_with("/v1/auth/") && path.ends_with("/login") {
            return (200, issue(&mut alive, "login"));
        }
        if !alive.contains(&request.token) {
            return refused(403, "permission denied: invalid token");
        }
        match path {
            "/v1/auth/token/create/run" => (200, issue(&mut alive, "run")),
            "/v1/auth/token/lookup-self" => (200, json!({ "request_id": "r", "data": { "ttl": 900 } })),
            "/v1/auth/token/revoke-self" => {
                alive.remove(&request.token);
                (200, json!({}))
            }
            "/v1/auth/token/lookup-accessor" | "/v1/auth/token/revoke-accessor" => {
                let number = request.body["accessor"].as_str().and_then(|text| text.rsplit('-').next());
                let number = format!("-{}", number.unwrap_or_default());
                let Some(found) = alive.iter().find(|token| token.ends_with(&number)).cloned() else {
                    return refused(403, "invalid accessor");
                };
                if path.ends_with("revoke-accessor") {
                    alive.remove(&found);
                }
                (200, json!({ "request_id": "r", "data": {} }))
            }
            "/v1/sys/leases/lookup" => refused(400, "invalid lease"),
            "/v1/database/creds/orders" => (
                200,
                json!({ "request_id": "r", "lease_id": format!("database/creds/orders/{number}"),
                    "lease_duration": 300, "renewable": true, "mount_type": "database",
                    "data": { "username": "v-orders", "password": format!("{CANARY}password") } }),
            ),
            "/v1/secret/data/app" => (
                200,
                json!({ "request_id": "r", "mount_type": "kv", "data": {
                    "data": { "key": format!("{CANARY}value") }, "metadata": { "version": 1 } } }),
            ),
            _ => refused(403, "1 error occurred:\n\t* permission denied\n\n"),
        }
    }
}

fn read(reader: &mut BufReader<&TcpStream>) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
    let (mut token, mut length) = (String::new(), 0);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok().filter(|count| *count > 0)?;
        let Some((name, value)) = header.trim_end().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "x-vault-token" => token = value.to_owned(),
            "content-length" => length = value.parse().ok()?,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let line = line.trim_end().trim_end_matches(" HTTP/1.1").to_owned();
    Some(Request { line, token, body: serde_json::from_slice(&body).unwrap_or_default() })
}
