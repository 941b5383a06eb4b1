//! Whole commands, from their words to their output, against a broker that is played here.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use clap::{CommandFactory as _, Parser as _};
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::UnixListener;

use super::*;

mod documents;

/// What the played broker answers to a path, and what it was asked.
struct Played {
    socket: PathBuf,
    asked: Arc<Mutex<Vec<String>>>,
    _folder: tempfile::TempDir,
}

type Script = &'static [(&'static str, u16, &'static [(&'static str, &'static str)], &'static str)];

impl Played {
    /// Answers by a table of path, status, headers and body; anything else is a 404.
    fn start(script: Script) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("s");
        let listener = UnixListener::bind(&socket).unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let log = Arc::clone(&log);
                let service = service_fn(move |request: Request<Incoming>| {
                    let answer = answer(script, &request, &log);
                    async move { Ok::<_, std::convert::Infallible>(answer) }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Self { socket, asked, _folder: folder }
    }

    async fn run(&self, words: &[&str], screen: Screen) -> Output {
        let session = session(&[("TENURE_SOCKET", self.socket.to_str().unwrap())], screen);
        run_async(words, &session).await
    }
}

fn answer(script: Script, request: &Request<Incoming>, log: &Mutex<Vec<String>>) -> Response<Full<Bytes>> {
    let method = match *request.method() {
        http::Method::GET => String::new(),
        ref other => format!("{other} "),
    };
    let presented =
        request.headers().get("x-vault-token").map(|value| format!(" as {}", value.to_str().unwrap()));
    let least =
        request.headers().get("x-tenure-min-ttl").map(|value| format!(" min {}", value.to_str().unwrap()));
    let (least, presented) = (least.unwrap_or_default(), presented.unwrap_or_default());
    log.lock().unwrap().push(format!("{method}{}{least}{presented}", request.uri()));
    let asked = format!("{method}{}", request.uri());
    let found = script.iter().find(|(path, ..)| asked == *path);
    let (_, status, headers, body) = found.copied().unwrap_or(("", 404, &[], r#"{"errors":[]}"#));
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(Full::new(Bytes::from_static(body.as_bytes()))).unwrap()
}

fn session(vars: &[(&str, &str)], screen: Screen) -> Session {
    Session { environment: vars.iter().copied().collect(), screen, clock: Clock::simulated() }
}

async fn run_async(words: &[&str], session: &Session) -> Output {
    match Cli::try_parse_from([&["tenure"], words].concat()).unwrap().command {
        Command::Get(args) => get::get(&args, session).await,
        Command::Status(args) => status::status(&args, session).await,
        Command::Run(command) => run::run(&command, session).await,
        Command::Health(args) => probe::health(&args, session).await,
        Command::Ready(args) => probe::ready(&args, session).await,
        Command::Wait(args) => wait::waited(&args, session, &mut std::io::sink()).await,
        other => run(other, session),
    }
}

const PIPE: Screen = Screen { out_is_terminal: false, err_is_terminal: false, colour: false };
const TERMINAL: Screen = Screen { out_is_terminal: true, err_is_terminal: true, colour: false };

const BROKER: Script = &[
    (
        "/v1/database/creds/orders",
        200,
        &[("x-tenure-expires", "2026-01-01T00:58:10.000Z"), ("x-tenure-source", "cache")],
        r#"{"lease_id":"l","data":{"username":"v-1","password":"p\nq"},"warnings":["short"]}"#,
    ),
    (
        "/v1/secret/data/app",
        200,
        &[("x-tenure-source", "stale")],
        r#"{"data":{"data":{"key":"k","port":5432,"tags":["a"]},"metadata":{"version":3}},"warnings":null}"#,
    ),
    (
        "/v1/secret/data/gone",
        200,
        &[],
        r#"{"data":{"data":null,"metadata":{"version":3,"deletion_time":"2026-01-01T00:00:00Z"}}}"#,
    ),
    ("/v1/kv/two%20words", 200, &[], r#"{"data":{"data":"plain","metadata":{"a":1}}}"#),
    ("/v1/denied", 403, &[], r#"{"errors":["permission denied"]}"#),
    ("/v1/busy", 429, &[], r#"{"errors":["too many leases"]}"#),
    ("/v1/down", 503, &[], r#"{"errors":["Vault is sealed","retry in 3s"]}"#),
    ("/v1/page", 200, &[], "<html>"),
    ("/tenure/health", 200, &[], "{}"),
    ("/tenure/ready", 503, &[], r#"{"errors":["not logged in"]}"#),
    ("/tenure/leases", 500, &[], "on\x1bfire"),
];

#[tokio::test]
async fn get_prints_the_secret_and_nothing_else() {
    let broker = Played::start(BROKER);
    for (words, out) in [
        (&["get", "database/creds/orders"][..], "password  p\\nq\nusername  v-1\n"),
        (&["get", "/v1/database/creds/orders", "--field", "password"], "p\nq"),
        (&["get", "/secret/data/app"], "key   k\nport  5432\ntags  [\"a\"]\n"),
        (&["get", "secret/data/app", "--field", "port"], "5432"),
        (&["get", "kv/two words"], "data      plain\nmetadata  {\"a\":1}\n"),
        (&["get", "kv/two words", "--json"], "{\"data\":{\"data\":\"plain\",\"metadata\":{\"a\":1}}}\n"),
    ] {
        let output = broker.run(words, PIPE).await;
        assert_eq!((output.out.as_str(), output.code), (out, 0), "{words:?}: {}", output.err);
    }
    let output = broker.run(&["get", "database/creds/orders", "--field", "username"], TERMINAL).await;
    assert_eq!(output.out, "v-1\n", "a person's prompt begins on a line of its own");
}

#[tokio::test]
async fn get_tells_a_person_how_long_it_lasts() {
    let broker = Played::start(BROKER);
    for (words, screen, err) in [
        (&["get", "database/creds/orders"][..], PIPE, "warning: short\n"),
        (&["get", "database/creds/orders"], TERMINAL, "warning: short\nexpires in 58m 10s, source cache\n"),
        (
            &["get", "secret/data/app"],
            TERMINAL,
            "source stale (Vault cannot answer; this is the last known value)\n",
        ),
        (&["get", "kv/two words"], TERMINAL, ""),
    ] {
        let told = broker.run(words, screen).await.err;
        // The simulated clock runs on while the test does.
        assert_eq!(told.replace("58m 9s", "58m 10s"), err, "{words:?}");
    }
}

#[tokio::test]
async fn get_asks_for_what_it_was_told_to() {
    let broker = Played::start(BROKER);
    for words in [
        &["get", "database/creds/orders", "--min-ttl", "5m"][..],
        &["get", "kv/ä b", "--min-ttl", "1ms"],
        &["status"],
    ] {
        broker.run(words, PIPE).await;
    }
    let asked = broker.asked.lock().unwrap();
    assert_eq!(*asked, ["/v1/database/creds/orders min 300s", "/v1/kv/%C3%A4%20b min 1s", "/tenure/leases"]);
}

#[tokio::test]
async fn what_get_is_refused_it_explains() {
    let broker = Played::start(BROKER);
    for (path, code, err) in [
        (
            "denied",
            1,
            "error: denied: permission denied (403 Forbidden)\nhint: either this caller may not ask",
        ),
        ("nothing", 1, "error: nothing: no reason was given (404 Not Found)\nhint: check the mount"),
        ("busy", 1, "error: busy: too many leases (429 Too Many Requests)\nhint: the broker holds"),
        (
            "down",
            1,
            "error: down: Vault is sealed; retry in 3s (503 Service Unavailable)\nhint: the broker is there",
        ),
        ("secret/data/gone", 1, "error: secret/data/gone: this version is deleted\n"),
        ("page", 1, "error: the broker at "),
    ] {
        let output = broker.run(&["get", path], PIPE).await;
        assert_eq!((output.out.as_str(), output.code), ("", code), "{path}");
        assert!(output.err.starts_with(err), "{path}: {}", output.err);
    }
    let output = broker.run(&["get", "database/creds/orders", "--field", "user"], PIPE).await;
    assert_eq!(output.err, "error: database/creds/orders has no field \"user\"; it has password, username\n");
}

#[tokio::test]
async fn no_broker_is_named_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    let dead = folder.path().join("dead");
    drop(UnixListener::bind(&dead).unwrap());
    for (path, reason) in [(&missing, "there is no such socket"), (&dead, "nobody listens there")] {
        let session = session(&[("TENURE_SOCKET", path.to_str().unwrap())], PIPE);
        let expected = format!(
            "error: cannot reach the broker at {}: {reason}. Is `tenure serve` running?\n",
            path.display()
        );
        for words in [&["get", "x"][..], &["status"]] {
            let output = run_async(words, &session).await;
            assert_eq!((output.err.as_str(), output.code), (expected.as_str(), 2), "{words:?}");
        }
        let output = run_async(&["health"], &session).await;
        assert_eq!(
            (output.err.as_str(), output.code),
            (expected.as_str(), 1),
            "a health check knows 0 and 1"
        );
    }
}

#[tokio::test]
async fn probes_say_one_line() {
    let broker = Played::start(BROKER);
    assert_eq!(broker.run(&["health"], PIPE).await, Output::said("alive\n".into()));
    let output = broker.run(&["ready"], PIPE).await;
    assert_eq!(output, Output::failed(1, "not ready: not logged in (503 Service Unavailable)"));
}

#[tokio::test]
async fn waiting_ends_with_the_broker_or_with_the_reason() {
    let broker = Played::start(BROKER);
    let output = broker.run(&["wait", "--for", "alive"], PIPE).await;
    assert_eq!(output, Output::said("alive\n".into()));
    for (timeout, shown) in [("0s", "0s"), ("100ms", "100ms")] {
        let output = broker.run(&["wait", "--timeout", timeout], PIPE).await;
        assert_eq!(output, Output::failed(1, &format!("not ready after {shown}: not logged in")));
    }
    let asked = broker.asked.lock().unwrap().len();
    assert!((4..10).contains(&asked), "it waits between its questions: {asked}");

    const MISSING: Script = &[(
        "/tenure/ready",
        503,
        &[],
        r#"{"ready":false,"missing":["login: no route","prefetch a/b: idle"]}"#,
    )];
    let output = Played::start(MISSING).run(&["wait", "--timeout", "0s"], PIPE).await;
    assert_eq!(output.err, "error: not ready after 0s: login: no route; prefetch a/b: idle\n");

    const CLOSED: Script = &[("/tenure/ready", 403, &[], r#"{"errors":["not for this user"]}"#)];
    let output = Played::start(CLOSED).run(&["wait"], PIPE).await;
    assert!(output.err.ends_with("refuses us: not for this user\n") && output.code == 1, "{}", output.err);
}

#[tokio::test]
async fn what_is_waited_for_is_said_now_and_then() {
    tokio::time::pause();
    let session = session(&[("TENURE_SOCKET", "/nonexistent/s")], PIPE);
    let words = ["tenure", "wait", "--timeout", "25s"];
    let Command::Wait(args) = Cli::try_parse_from(words).unwrap().command else { panic!("not wait") };
    let mut said = Vec::new();
    let output = wait::waited(&args, &session, &mut said).await;
    assert!(output.err.starts_with("error: not ready after 25s: cannot reach the broker at /nonexistent/s"));
    let said = String::from_utf8(said).unwrap();
    assert_eq!(said.lines().count(), 3, "after a second, and every ten: {said}");
    assert!(
        said.starts_with(
            "waiting for the broker (1s): cannot reach the broker at /nonexistent/s: there is no"
        )
    );
}

#[tokio::test]
async fn a_status_that_cannot_be_shown_says_why() {
    let broker = Played::start(BROKER);
    let output = broker.run(&["status"], PIPE).await;
    assert_eq!(output, Output::failed(1, "on\\u{1b}fire (500 Internal Server Error)"));
}

#[tokio::test]
async fn on_tcp_the_token_is_sent_and_missed_where_it_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "tnr_canary\n").unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(|request: Request<Incoming>| async move {
                let held = request.headers().get("x-vault-token").is_some_and(|token| token == "tnr_canary");
                let (status, body) = if held {
                    (200, r#"{"data":{"a":"b"}}"#)
                } else {
                    (403, r#"{"errors":["missing client token"]}"#)
                };
                Response::builder().status(status).body(Full::new(Bytes::from(body)))
            });
            let connection = hyper::server::conn::http1::Builder::new();
            tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
        }
    });
    let session = session(&[], PIPE);
    let token_file = file.to_str().unwrap();
    let output = run_async(&["get", "x", "--addr", &address, "--token-file", token_file], &session).await;
    assert_eq!(output, Output::said("a  b\n".into()));
    let output = run_async(&["get", "x", "--addr", &address], &session).await;
    assert!(output.err.contains("hint: on TCP the broker wants its local token"), "{}", output.err);
    let output =
        run_async(&["get", "x", "--addr", &address, "--token-file", "/nonexistent/t"], &session).await;
    assert!(output.err.starts_with("error: token file /nonexistent/t: No such file"), "{}", output.err);
}

#[test]
fn config_check_shows_what_is_in_effect_or_every_problem() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/config");
    let good = folder.join("full_good.toml");
    let words = |file: &Path| ["config", "check", file.to_str().unwrap()].map(str::to_owned);
    let check = |file: &Path, screen| {
        let words = words(file);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        run(Cli::try_parse_from([&["tenure"], &words[..]].concat()).unwrap().command, &session(&[], screen))
    };
    let output = check(&good, PIPE);
    assert_eq!(output.code, 0, "{}", output.err);
    let settings = output.out.strip_suffix("\nok\n").expect("ok at the end");
    let (key, value) = settings.lines().next().and_then(|line| line.split_once(" = ")).expect("a setting");
    assert_eq!((key.trim_end(), value), ("vault.address", "\"https://vault.internal:8200/prefix\""));
    // One column, as wide as the longest key.
    assert!(settings.lines().all(|line| line.find(" = ") == Some(key.len())), "{settings}");
    assert!(settings.contains("\nvault.auth.aws.assume[1].duration "), "{settings}");
    let output = check(&good, TERMINAL);
    assert!(output.out.contains("full_good.toml:2\n"), "{}", output.out);
    let output = check(&folder.join("many.toml"), PIPE);
    assert_eq!((output.out.as_str(), output.code), ("", 1));
    assert!(output.err.ends_with("\nerror: 5 problems\n"), "{}", output.err);
}

#[test]
fn the_schema_is_one_that_editors_take() {
    let Output { out, code, .. } =
        run(Cli::try_parse_from(["tenure", "config", "schema"]).unwrap().command, &session(&[], PIPE));
    let schema: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &schema["$schema"]), (0, &"https://json-schema.org/draft/2020-12/schema".into()));
    assert_eq!(schema["properties"]["listen"]["properties"]["unix"]["properties"]["mode"]["default"], "0600");
}

#[test]
fn words_that_make_no_sense_are_refused_when_they_are_read() {
    Cli::command().debug_assert();
    for (words, expected) in [
        (&["get"][..], "required"),
        (&["get", ""], "the path is empty"),
        (&["get", "a/../b"], "no segment of a path"),
        (&["get", "a?b"], "cannot be in a path"),
        (&["get", "a", "--field", "x", "--json"], "cannot be used with"),
        (&["get", "a", "--min-ttl", "5"], "invalid value"),
        (&["run"], "Usage"),
        (&["run", "start", "--tag", "commit"], "a tag is given as name=value"),
        (&["run", "extend", "run-1"], "--timeout"),
        (&["status", "--socket", "/a", "--addr", "127.0.0.1:1"], "cannot be used with"),
        (&["completions", "csh"], "possible values"),
        (&["statsu"], "similar subcommand exists: 'status'"),
    ] {
        let error = Cli::try_parse_from([&["tenure"], words].concat()).unwrap_err().to_string();
        assert!(error.contains(expected), "{words:?}: {error}");
    }
}

#[test]
fn each_command_explains_itself_with_an_example() {
    fn walk(command: &mut clap::Command, name: &str) {
        let leaf = command.get_subcommands().next().is_none();
        assert!(command.get_about().is_some(), "{name} says nothing of itself");
        let help = command.render_long_help().to_string();
        assert!(help.contains("Example"), "{name} has no example:\n{help}");
        assert!(!leaf || help.contains("Exit code: "), "{name} does not say how it ends:\n{help}");
        let names: Vec<String> = command.get_subcommands().map(|inner| inner.get_name().to_owned()).collect();
        for inner in names.iter().filter(|inner| *inner != "help") {
            walk(command.find_subcommand_mut(inner).unwrap(), &format!("{name} {inner}"));
        }
    }
    walk(&mut Cli::command(), "tenure");
}

#[test]
fn completions_are_printed_for_each_shell() {
    for shell in ["bash", "zsh", "fish"] {
        let command = Cli::try_parse_from(["tenure", "completions", shell]).unwrap().command;
        let output = run(command, &session(&[], PIPE));
        assert!(output.out.contains("min-ttl"), "{shell}");
    }
}

#[test]
fn the_manual_has_a_page_for_each_command() {
    let folder = tempfile::tempdir().unwrap();
    let said = |words: &[&str]| {
        run(Cli::try_parse_from([&["tenure"], words].concat()).unwrap().command, &session(&[], PIPE))
    };
    let page = said(&["man", "run", "start"]);
    assert!(page.code == 0 && page.out.contains(".TH tenure-run-start 1"), "{page:?}");
    assert!(page.out.contains("execution\\-arn") && page.out.contains("Exit code"), "{}", page.out);
    assert_eq!(said(&["man", "--dir", folder.path().to_str().unwrap()]), Output::default());
    let pages = std::fs::read_dir(folder.path()).unwrap().count();
    assert!(pages > 20 && folder.path().join("tenure-audit-verify.1").exists(), "{pages} pages");
    assert!(said(&["man", "run", "stop"]).err.contains("it has start, list, extend, end"));
    assert!(said(&["man", "--dir", "/nowhere/at/all"]).err.contains("/nowhere/at/all/tenure.1"));
}
