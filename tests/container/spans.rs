//! What log lines are said in, and what that costs where nobody reads them.

use std::io::{Read as _, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tenure::app::{App, Upstream, process_run};
use tenure::clock::Clock;
use tenure::config::{self, Environment, Overrides};
use tenure::source::dev::{DevConfig, DevVault, TokenRole};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, SubscriberExt as _};

/// Log lines as the binary writes them, and the names of all spans that were made.
#[derive(Clone, Default)]
struct Seen {
    lines: Arc<Mutex<Vec<u8>>>,
    spans: Arc<Mutex<Vec<&'static str>>>,
}

impl Seen {
    fn lines(&self) -> Vec<Value> {
        let text = String::from_utf8(self.lines.lock().expect("lines").clone()).expect("text");
        text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
    }

    fn spans(&self) -> Vec<&'static str> {
        std::mem::take(&mut *self.spans.lock().expect("spans"))
    }

    fn subscriber(&self, filter: &str) -> impl tracing::Subscriber + use<> {
        let filter: Targets = filter.parse().expect("a filter");
        let writer = self.clone();
        let lines = tracing_subscriber::fmt::layer().json().flatten_event(true).with_current_span(false);
        let lines = lines.with_writer(move || writer.clone()).with_filter(filter.clone());
        tracing_subscriber::registry().with(lines).with(self.clone().with_filter(filter))
    }
}

impl Write for Seen {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.lines.lock().expect("lines").write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<S: tracing::Subscriber> Layer<S> for Seen {
    fn on_new_span(&self, span: &tracing::span::Attributes<'_>, _: &tracing::span::Id, _: Context<'_, S>) {
        self.spans.lock().expect("spans").push(span.metadata().name());
    }
}

/// A broker over the embedded Vault, on this thread.
pub(crate) async fn broker(folder: &Path) -> (App, DevVault) {
    let clock = Clock::system();
    let vault = DevVault::new(clock.clone(), DevConfig::default());
    vault.token_role("run", TokenRole::orphan(&["secret/"]));
    vault.put("app", serde_json::json!({ "key": "k" }));
    let text = format!(
        "vault.address = \"http://127.0.0.1:1\"\nvault.auth.aws.role = \"r\"\nrun.token_role = \"run\"\n\
         audit.file = \"{0}/audit.jsonl\"\nlisten.unix.path = \"{0}/s\"\n[[run.rule]]\nmax_ttl = \"10m\"\n",
        folder.display()
    );
    let file = Some((Path::new("t.toml"), text.as_str()));
    let loaded =
        config::parse(file, &Environment::default(), &Overrides::default(), clock.now()).expect("good");
    let upstream = Upstream::new(Arc::new(vault.clone()), Arc::new(vault.clone()));
    let run = process_run(loaded.run).expect("a run");
    let mut app = App::start(&loaded.config, run, upstream, clock).await.expect("a start");
    app.established().await.expect("a login");
    (app, vault)
}

/// Several requests on one connection; the status of the last.
pub(crate) async fn get(folder: &Path, path: &str, times: usize) -> String {
    let (socket, path) = (folder.join("s"), path.to_owned());
    let asked = move || {
        let mut stream = UnixStream::connect(socket)?;
        let mut answer = String::new();
        for left in (0..times).rev() {
            let close = if left == 0 { "Connection: close\r\n" } else { "" };
            write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n{close}\r\n")?;
        }
        stream.read_to_string(&mut answer)?;
        Ok::<_, std::io::Error>(
            answer.rsplit("HTTP/1.1 ").next().unwrap_or_default().chars().take(3).collect(),
        )
    };
    tokio::task::spawn_blocking(asked).await.expect("no panic").expect("an answer")
}

#[tokio::test]
async fn a_cached_read_makes_no_span_and_no_line_unless_it_is_asked_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let seen = Seen::default();
    let _subscriber = tracing::subscriber::set_default(seen.subscriber("info"));
    let (app, _vault) = broker(folder.path()).await;
    assert_eq!(get(folder.path(), "/v1/secret/data/app", 1).await, "200");
    assert_eq!(seen.spans(), ["upstream"; 3], "the login, the run's token, the value");
    let lines = seen.lines().len();
    assert_eq!(get(folder.path(), "/v1/secret/data/app", 100).await, "200");
    assert_eq!((seen.spans().len(), seen.lines().len()), (0, lines));
    assert!(app.stop().await);
}

#[tokio::test]
async fn a_line_on_a_failure_of_upstream_says_for_which_run_and_path() {
    let folder = tempfile::tempdir().expect("a folder");
    let seen = Seen::default();
    let _subscriber = tracing::subscriber::set_default(seen.subscriber("info"));
    let (app, vault) = broker(folder.path()).await;
    let run = app.broker().runs().own().run.id.to_string();
    vault.fail(tenure::lease::failure::Class::Transient);
    assert_eq!(get(folder.path(), "/v1/secret/data/app", 1).await, "503");
    vault.recover();
    let lines = seen.lines();
    let line = lines.iter().find(|line| line["level"] == "WARN").expect("a warning");
    let span = &line["spans"][0];
    assert_eq!(
        [&span["name"], &span["call"], &span["of"], &span["run"]],
        ["upstream", "mint", "secret/data/app", &*run],
        "{line}"
    );
    assert!(line["request"].as_str().is_some_and(|request| request.contains('-')), "{line}");
    assert!(app.stop().await);
}

#[tokio::test]
async fn a_request_is_told_of_where_that_is_asked_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let seen = Seen::default();
    let _subscriber = tracing::subscriber::set_default(seen.subscriber("info,tenure::door=debug"));
    let (app, _vault) = broker(folder.path()).await;
    let run = app.broker().runs().own().run.id.to_string();
    for (path, status) in
        [("/v1/secret/data/app", "200"), ("/v1/secret/data/none", "404"), ("/tenure/ready", "200")]
    {
        assert_eq!(get(folder.path(), path, 1).await, status);
        let lines = seen.lines();
        let line = lines.iter().rev().find(|line| line["message"] == "answered").expect("a line");
        let span = &line["spans"][0];
        assert_eq!(line["status"].to_string(), status);
        assert_eq!(
            [&span["name"], &span["door"], &span["run"], &span["path"]],
            ["request", "vault/unix", &*run, path]
        );
        assert!(span["request"].is_u64(), "{line}");
    }
    assert!(app.stop().await);
}
