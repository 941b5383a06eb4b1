//! The commands against a broker that is real but for its upstream.

use std::path::Path;
use std::sync::Arc;

use clap::Parser as _;

use super::*;
use crate::app::{App, Upstream};
use crate::cli::{Cli, Command, get, status};
use crate::clock::Clock;
use crate::config::{self, Environment, Overrides, RunEnv};
use crate::source::dev::{DatabaseRole, DevConfig, DevVault, TokenRole};

const RULES: &str = r#"
[vault]
address = "https://vault.invalid"
[vault.auth.aws]
role = "r"
[run]
token_role = "run"
[[run.rule]]
match = { kind = "state" }
max_ttl = "10m"
may_register = true
[[run.rule]]
match = { kind = "api", tag.job = "nightly" }
max_ttl = "1m"
"#;

struct Stage {
    app: App,
    upstream: DevVault,
    folder: tempfile::TempDir,
}

impl Stage {
    async fn start() -> Self {
        let clock = Clock::system();
        let upstream = DevVault::new(clock.clone(), DevConfig::default());
        upstream.token_role("run", TokenRole::orphan(&["database/creds/"]));
        let minute = Duration::from_secs(60);
        upstream.database_role("orders", DatabaseRole { ttl: minute, max_ttl: minute });
        let folder = tempfile::tempdir().unwrap();
        let (socket, log) = (folder.path().join("s"), folder.path().join("audit"));
        let text = format!("{RULES}[listen.unix]\npath = {socket:?}\n[audit]\nfile = {log:?}\n");
        let file = Some((Path::new("t.toml"), text.as_str()));
        let now = clock.now();
        let loaded = config::parse(file, &Environment::default(), &Overrides::default(), now).unwrap();
        let source = Upstream::new(Arc::new(upstream.clone()), Arc::new(upstream.clone()));
        let mut app =
            App::start(&loaded.config, crate::app::process_run(RunEnv::default()).unwrap(), source, clock)
                .await
                .unwrap();
        app.established().await.unwrap();
        Self { app, upstream, folder }
    }

    /// What a command prints, with this `VAULT_TOKEN`.
    async fn run(&self, words: &[&str], token: Option<&str>) -> Output {
        let socket = self.folder.path().join("s");
        let vars = [Some(("TENURE_SOCKET", socket.to_str().unwrap())), token.map(|it| ("VAULT_TOKEN", it))];
        let environment = vars.into_iter().flatten().collect();
        let session = Session { environment, screen: Screen::default(), clock: Clock::system() };
        match Cli::try_parse_from([&["tenure"], words].concat()).unwrap().command {
            Command::Run(command) => run(&command, &session).await,
            Command::Get(args) => get::get(&args, &session).await,
            Command::Status(args) => status::status(&args, &session).await,
            _ => unreachable!("not of these tests"),
        }
    }

    async fn said(&self, words: &[&str], token: Option<&str>) -> String {
        let output = self.run(words, token).await;
        assert_eq!((output.code, output.err.as_str()), (0, ""), "{words:?}: {output:?}");
        output.out
    }
}

const EXECUTION: &str = "arn:aws:states:eu-west-1:123456789012:execution:checkout:4711";
const START: &[&str] =
    &["run", "start", "--execution-arn", EXECUTION, "--state", "Charge", "--timeout", "5m"];

#[tokio::test]
async fn a_script_starts_a_run_reads_for_it_and_ends_it() {
    let stage = Stage::start().await;
    let printed = stage.said(START, None).await;
    let handle = printed.trim_end();
    assert!(handle.starts_with("tnr_") && printed.lines().count() == 1, "{printed:?}");
    assert_eq!(stage.said(START, None).await, printed, "the same run once more is the same run");

    let of = async |token| stage.said(&["get", "database/creds/orders", "--field", "username"], token).await;
    let (own, ours) = (of(None).await, of(Some(handle)).await);
    assert_ne!(own, ours, "the handle says whose credential it is");
    assert_eq!(of(Some("hvs.real")).await, own, "a real Vault token is not shown to the broker");

    let listed = stage.said(&["run", "list"], None).await;
    let row: Vec<_> = listed.lines().nth(1).expect("a row").split_whitespace().collect();
    let [id, kind, work, "-", "asserted", "-", _, _, "1", "open"] = row[..] else { panic!("{listed}") };
    assert_eq!((kind, work), ("state", "checkout/Charge"));
    assert!(!listed.contains("tnr_"), "{listed}");
    assert!(stage.said(&["status"], None).await.contains(id));

    let extended = stage.run(&["run", "extend", id, "--timeout", "8m"], None).await;
    assert!(extended.out.ends_with("Z\n") && extended.err.is_empty(), "{extended:?}");
    let capped = stage.run(&["run", "extend", id, "--timeout", "1h", "--json"], None).await;
    assert!(capped.out.starts_with('{') && capped.err.starts_with("warning: 9m 5"), "{capped:?}");

    assert_eq!(stage.run(&["run", "end", id], None).await, Output::default());
    assert_eq!(stage.run(&["run", "end", id], None).await, Output::default(), "over is over");
    let refused = stage.run(&["get", "database/creds/orders"], Some(handle)).await;
    assert!(refused.code == 1 && refused.err.contains("is over: it was ended"), "{refused:?}");
    let late = stage.run(&["run", "extend", id, "--timeout", "8m"], None).await;
    assert!(late.code == 1 && late.err.contains("is over: it was ended (410 Gone)"), "{late:?}");
    for _ in 0..500 {
        if !stage.upstream.is_alive(&ours) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!stage.upstream.is_alive(&ours), "its database user is gone");
    assert!(stage.upstream.is_alive(&own));
    assert!(stage.app.stop().await);
}

#[tokio::test]
async fn a_run_registers_others_in_its_own_name_where_its_handle_is_the_token() {
    let stage = Stage::start().await;
    let json = stage.said(&[START, &["--json"]].concat(), None).await;
    let parent: serde_json::Value = serde_json::from_str(&json).unwrap();
    let handle = parent["handle"].as_str().unwrap();
    let words = [
        "run",
        "start",
        "--execution-arn",
        "arn:aws:states:eu-west-1:123456789012:execution:fraud:1",
        "--attempt",
        "2",
        "--tag",
        "commit=1f3a",
        "--json",
    ];
    let child: serde_json::Value = serde_json::from_str(&stage.said(&words, Some(handle)).await).unwrap();
    assert_eq!(child["parent"], parent["id"]);
    assert_eq!((&child["attempt"], &child["tags"]["commit"]), (&2.into(), &"1f3a".into()));
    assert_eq!(child["parents"][0], EXECUTION);
    assert!(stage.app.stop().await);
}

#[tokio::test]
async fn what_is_refused_is_named() {
    let stage = Stage::start().await;
    let empty = stage.folder.path().join("empty");
    std::fs::write(&empty, "\n").unwrap();
    let (empty, file) = (empty.to_str().unwrap(), stage.folder.path().join("token"));
    std::fs::write(&file, "canary-token\n").unwrap();
    let file = file.to_str().unwrap();
    for (words, err) in [
        (&["run", "start"][..], "no [[run.rule]] matches a run with"),
        (&["run", "start", "--execution-arn", "x"], "execution_arn: \"x\" is not the ARN of an execution"),
        (&["run", "start", "--timeout", "0s"], "timeout_seconds: "),
        (&["run", "start", "--tag", "a=1", "--tag", "a=2"], "--tag a: is given twice"),
        (&["run", "start", "--task-token-file", "/nonexistent/t"], "task token file /nonexistent/t: No such"),
        (&["run", "start", "--subject-token-file", empty], "is empty"),
        (
            &["run", "start", "--tag", "job=nightly", "--subject-token-file", file],
            "no issuer of tokens is configured",
        ),
        (&["run", "end", "run-0"], "there is no such run, or it is not yours (404 Not Found)\nhint: "),
        (&["run", "end", "tnr_canary"], "this is a handle"),
        (&["run", "end", "../leases"], "is not a run's id"),
    ] {
        let output = stage.run(words, None).await;
        assert!(output.code == 1 && output.out.is_empty(), "{words:?}: {output:?}");
        assert!(output.err.starts_with("error: ") && output.err.contains(err), "{words:?}: {}", output.err);
        assert!(!output.err.contains("canary"), "{}", output.err);
    }
    assert_eq!(stage.said(&["run", "list"], None).await, "No runs that you registered.\n");
    let socket = ["run", "list", "--socket", "/nonexistent/s"];
    assert_eq!(stage.run(&socket, None).await.code, 2);
    assert!(stage.app.stop().await);
}
