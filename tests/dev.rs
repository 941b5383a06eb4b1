//! `tenure dev`: the binary, with itself as the command that reads.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use tenure::clock::Clock;
use tenure::demo::Look;
use tenure::dev::{self, Options, PlanError, Planned, Trouble};
use tenure::lease::failure::Class;
use tenure::lease::upstream::{Login as _, ReadKey, Source as _, TokenSpec};
use tenure::run::Boot;
use tenure::source::dev::{DatabaseRole, DevConfig, DevVault, TokenRole};

mod schema;

const TENURE: &str = env!("CARGO_BIN_EXE_tenure");

/// `tenure` in `dir`, with nothing of our own environment that it would look at.
fn tenure(dir: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(TENURE);
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("VAULT_") || name.starts_with("TENURE_") {
            command.env_remove(name);
        }
    }
    command.args(words).current_dir(dir).env("TMPDIR", dir).stdin(Stdio::null());
    command
}

fn ended(dir: &Path, words: &[&str]) -> Output {
    tenure(dir, words).output().expect("it runs")
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Nothing of ours is left among the temporary files.
fn swept(dir: &Path) -> bool {
    let mut there = std::fs::read_dir(dir).expect("a folder").flatten();
    there.all(|entry| !entry.file_name().to_string_lossy().starts_with("tenure-dev-"))
}

fn signal(child: &Child, which: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).expect("a pid")).expect("a pid");
    rustix::process::kill_process(pid, which).expect("a signal");
}

/// Reads lines until one has `word` in it.
fn until(lines: &mut impl Iterator<Item = std::io::Result<String>>, word: &str) -> String {
    let mut seen = String::new();
    for line in lines.by_ref() {
        let line = line.expect("text");
        if line.contains(word) {
            return line;
        }
        seen += &line;
        seen.push('\n');
    }
    panic!("{word:?} was not said in\n{seen}");
}

#[test]
fn a_command_reads_what_is_seeded_and_everything_is_swept_up() {
    let dir = tempfile::tempdir().expect("dir");
    let read = ["dev", "--", TENURE, "get", "secret/data/app", "--field", "username"];
    let output = ended(dir.path(), &read);
    assert_eq!((out(&output).as_str(), output.status.code()), ("app", Some(0)), "{}", err(&output));
    let told = err(&output);
    assert!(told.contains("grant") && told.contains("secret/data/app"), "{told}");
    assert!(told.contains("everything is revoked"), "{told}");
    assert!(!told.contains('\x1b') && !told.contains('\r'), "control codes in a pipe");
    assert!(swept(dir.path()));
    let output = ended(dir.path(), &["dev", "-q", "--", TENURE, "get", "database/creds/orders", "--json"]);
    assert_eq!(err(&output), "");
    assert!(out(&output).contains("v-orders-"), "{}", out(&output));
}

#[test]
fn the_command_finds_the_broker_and_nothing_that_would_mislead_it() {
    let dir = tempfile::tempdir().expect("dir");
    let script = "env | grep -E '^(VAULT|TENURE)_' | sort; test -S \"$TENURE_SOCKET\"";
    let mut command = tenure(dir.path(), &["dev", "-q", "--", "sh", "-c", script]);
    command.env("VAULT_AGENT_ADDR", "http://127.0.0.1:1").env("VAULT_NAMESPACE", "else");
    let output = command.env("TENURE_TOKEN_FILE", "/else").output().expect("it runs");
    assert!(output.status.success(), "{}", err(&output));
    let text = out(&output);
    let names: Vec<_> = text.lines().filter_map(|line| line.split_once('=')).collect();
    let [("TENURE_SOCKET", _), ("VAULT_ADDR", address), ("VAULT_TOKEN", token)] = names[..] else {
        panic!("{text}");
    };
    assert!(address.starts_with("http://127.0.0.1:") && token.starts_with("tnr_"), "{text}");
    // By TCP, as a client of Vault's would come.
    let by_tcp = "unset TENURE_SOCKET; \"$0\" get secret/data/app --field username";
    let output = ended(dir.path(), &["dev", "-q", "--", "sh", "-c", by_tcp, TENURE]);
    assert_eq!(out(&output), "app", "{}", err(&output));
}

#[test]
fn it_ends_with_the_code_of_the_command() {
    let dir = tempfile::tempdir().expect("dir");
    std::fs::write(dir.path().join("plain"), "no program").expect("file");
    for (command, code) in [
        (&["sh", "-c", "exit 7"][..], 7),
        (&["sh", "-c", "kill -KILL $$"], 137),
        (&["/nowhere/at/all"], 127),
        (&["./plain"], 126),
    ] {
        let output = ended(dir.path(), &[&["dev", "-q", "--"], command].concat());
        assert_eq!(output.status.code(), Some(code), "{command:?}: {}", err(&output));
    }
    assert!(swept(dir.path()));
}

#[test]
fn signals_are_passed_on_and_without_a_command_they_end_it() {
    use rustix::process::Signal;
    let dir = tempfile::tempdir().expect("dir");
    for (which, code) in [(Signal::TERM, 31), (Signal::INT, 32)] {
        let script = "trap 'exit 31' TERM; trap 'exit 32' INT; echo up; while :; do sleep 0.05; done";
        let mut command = tenure(dir.path(), &["dev", "-q", "--", "sh", "-c", script]);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("it runs");
        until(&mut BufReader::new(child.stdout.take().expect("a pipe")).lines(), "up");
        signal(&child, which);
        assert_eq!(child.wait().expect("it ends").code(), Some(code));
    }
    let mut command = tenure(dir.path(), &["dev"]);
    let mut child = command.stdout(Stdio::piped()).spawn().expect("it runs");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    until(&mut lines, "seeded");
    signal(&child, Signal::TERM);
    until(&mut lines, "everything is revoked");
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
    assert!(swept(dir.path()));
}

#[test]
fn a_seed_is_written_once_and_is_read_by_itself() {
    let dir = tempfile::tempdir().expect("dir");
    let seed = dir.path().join("tenure-dev.toml");
    assert!(ended(dir.path(), &["dev", "--init"]).status.success());
    let written = std::fs::read_to_string(&seed).expect("a seed");
    let read = ["dev", "-q", "--", TENURE, "get", "secret/data/app", "--field", "username"];
    assert_eq!(out(&ended(dir.path(), &read)), "app", "what is written is good");
    std::fs::write(&seed, written.replace("username = \"app\"", "username = \"mine\"")).expect("edited");
    let output = ended(dir.path(), &["dev", "--init"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("left as it is"), "{}", err(&output));
    assert_eq!(out(&ended(dir.path(), &read)), "mine");
    assert!(ended(dir.path(), &["dev", "--init", "other.toml"]).status.success());
    assert!(dir.path().join("other.toml").exists());
}

#[test]
fn what_is_wrong_with_a_seed_is_named_by_its_line_and_no_value_is_quoted() {
    let dir = tempfile::tempdir().expect("dir");
    for (text, said) in [
        ("[secret.app]\nkey = hunter2", "seed.toml:2: not TOML"),
        ("\nsecret = \"hunter2\"", "seed.toml:2: secret: a table for each value"),
        ("[secret]\napp = \"hunter2\"", "seed.toml:2: secret.app: a value has fields"),
        ("[secret.\"a//b\"]", "seed.toml:1: secret.a//b: the path has an empty segment"),
        ("[secrets.app]\nkey = \"hunter2\"", "seed.toml:1: secrets: no such table"),
        ("[database.orders]\nmax_ttl = \"5m\"", "seed.toml:1: database.orders: ttl is missing"),
        ("[database.orders]\nttl = 60", "seed.toml:2: database.orders.ttl: a text such as"),
        ("[database.orders]\nttl = \"10ms\"", "seed.toml:2: database.orders.ttl: a text such as"),
        (
            "[database.orders]\nttl = \"5m\"\nmax_ttl = \"1m\"",
            "seed.toml:3: database.orders.max_ttl: 1m is less than ttl",
        ),
        ("[database.orders]\nttl = \"5m\"\nrole = 1", "seed.toml:3: database.orders.role: no such key"),
        ("[database.\"a/b\"]\nttl = \"5m\"", "seed.toml:1: database.a/b: the name of a database role"),
        ("[run]\nttl = \"1m\"", "seed.toml:2: run.ttl: secret, database and"),
        ("[run]\nrule = [{ max_ttl = \"1m\" }]", "run.rule: write each rule as a [[run.rule]] table"),
        ("[secret.a]\nx = 1\n[[run.rule]]\nmax_tll = \"1m\"", "seed.toml:4: run.rule[0].max_tll"),
    ] {
        std::fs::write(dir.path().join("seed.toml"), text).expect("a seed");
        let output = ended(dir.path(), &["dev", "--file", "seed.toml", "--", "true"]);
        let told = err(&output);
        assert!(told.contains(said) && output.status.code() == Some(1), "{text:?}: {told}");
        assert!(!told.contains("hunter2"), "{told}");
    }
    let output = ended(dir.path(), &["dev", "--file", "none.toml", "--", "true"]);
    assert!(err(&output).contains("the seed none.toml"), "{}", err(&output));
    assert!(swept(dir.path()));
}

#[test]
fn an_edit_is_a_new_version_and_a_broken_one_changes_nothing() {
    let dir = tempfile::tempdir().expect("dir");
    let seed = dir.path().join("seed.toml");
    std::fs::write(&seed, "[secret.app]\nkey = \"one\"\n[[run.rule]]\nmax_ttl = \"1m\"\n").expect("a seed");
    let mut command = tenure(dir.path(), &["dev", "--file", "seed.toml", "--env-file", "env"]);
    let mut child = command.stdout(Stdio::piped()).spawn().expect("it runs");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    until(&mut lines, "secret/data/app can be read");
    let file = dir.path().join("env");
    let mode = std::fs::metadata(&file).expect("a file").permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    std::fs::write(&seed, "[secret.app]\nkey = two\n").expect("broken");
    until(&mut lines, "seed.toml:2");
    std::fs::write(&seed, "[secret.app]\nkey = \"two\"\n[[run.rule]]\nmax_ttl = \"1m\"\n").expect("edited");
    until(&mut lines, "secret/data/app is at version 2");
    let script = ". ./env; \"$0\" get secret/data/app --field key; \
        VAULT_TOKEN=$(\"$0\" run start --timeout 30s) \"$0\" get secret/data/app --field key";
    let output =
        Command::new("sh").args(["-c", script, TENURE]).current_dir(dir.path()).output().expect("sh");
    assert_eq!(out(&output), "twotwo", "{}", err(&output));
    until(&mut lines, "run begun");
    signal(&child, rustix::process::Signal::INT);
    until(&mut lines, "run ended");
    let mut rest = String::new();
    for line in lines {
        rest += &line.expect("text");
    }
    assert!(rest.contains("everything is revoked"), "{rest}");
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
    assert!(!file.exists() && swept(dir.path()));
}

#[test]
fn a_file_that_is_not_ours_is_not_written_over() {
    let dir = tempfile::tempdir().expect("dir");
    std::fs::write(dir.path().join(".env"), "PRECIOUS=1").expect("file");
    let output = ended(dir.path(), &["dev", "--env-file", ".env", "--", "true"]);
    assert!(!output.status.success() && err(&output).contains("did not write it"), "{}", err(&output));
    assert_eq!(std::fs::read_to_string(dir.path().join(".env")).expect("file"), "PRECIOUS=1");
    assert!(swept(dir.path()));
}

#[test]
fn it_fails_as_the_script_says_and_is_revoked_all_the_same() {
    let dir = tempfile::tempdir().expect("dir");
    let script = "\"$0\" get database/creds/orders --field username >/dev/null || exit 1; sleep 0.6; \
        \"$0\" get database/creds/orders --field username >/dev/null || exit 2; \
        \"$0\" get secret/data/app --field username --min-ttl 1s 2>&1 >/dev/null; echo $?";
    let words =
        ["dev", "--fail", "outage@300ms", "--audit-file", "audit.jsonl", "--", "sh", "-c", script, TENURE];
    let output = ended(dir.path(), &words);
    let (text, told) = (out(&output), err(&output));
    assert!(output.status.success(), "what is held is served on: {text}\n{told}");
    assert!(text.trim_end().ends_with('1'), "what is not held is refused: {text}\n{told}");
    assert!(told.contains("upstream answers every call with 503") && told.contains("held already"), "{told}");
    assert!(told.contains("everything is revoked"), "{told}");
    let log = ended(dir.path(), &["audit", "verify", "audit.jsonl"]);
    assert!(log.status.success(), "{}", err(&log));
    let lines = std::fs::read_to_string(dir.path().join("audit.jsonl")).expect("the log");
    assert_eq!(schema::faults_of_lines(&lines), [""; 0], "lines that are not of the schema");
}

#[test]
fn a_script_of_failures_is_understood_or_refused() {
    let planned = |trouble, from, to: Option<u64>| {
        Ok(Planned { trouble, from: Duration::from_secs(from), to: to.map(Duration::from_secs) })
    };
    for (text, meant) in [
        ("outage@10s..20s", planned(Trouble::Outage, 10, Some(20))),
        ("slow@5s", planned(Trouble::Slow, 5, None)),
        ("database@1m..2m", planned(Trouble::Database, 60, Some(120))),
        ("revoke@15s", planned(Trouble::Revoke, 15, None)),
        ("outage", Err(PlanError::Shape)),
        ("fire@1s", Err(PlanError::Trouble)),
        ("outage@soon", Err(PlanError::Time("soon".to_owned()))),
        ("outage@2s..1s", Err(PlanError::Backwards)),
        ("revoke@1s..2s", Err(PlanError::Moment)),
    ] {
        assert_eq!(text.parse::<Planned>(), meant, "{text}");
    }
}

#[tokio::test]
async fn in_process_it_returns_the_code_and_tells_what_it_did() {
    let dir = tempfile::tempdir().expect("dir");
    let seed = dir.path().join("seed.toml");
    std::fs::write(&seed, "[database.orders]\nttl = \"1m\"\n").expect("a seed");
    let options = Options {
        file: Some(seed),
        command: [TENURE, "get", "database/creds/none"].map(Into::into).to_vec(),
        ..Options::default()
    };
    let mut told = Vec::new();
    let code = dev::run(&options, &Clock::system(), &mut told, Look::default()).await.expect("it runs");
    let told = String::from_utf8(told).expect("text");
    assert_eq!(code, 1, "{told}");
    assert!(told.contains("failed") && told.contains("unknown role: none"), "{told}");
}

#[tokio::test]
async fn a_database_that_is_down_makes_and_prolongs_no_user_and_the_rest_goes_on() {
    let minute = Duration::from_secs(60);
    let vault = DevVault::new(Clock::system(), DevConfig::default());
    vault.token_role("run", TokenRole::orphan(&[""]));
    vault.database_role("orders", DatabaseRole { ttl: minute, max_ttl: minute * 5 });
    vault.put("app", serde_json::json!({ "key": "one" }));
    let boot = Boot::new().expect("randomness");
    let call = || boot.call(&"run-1".into());
    let login = vault.login(call()).await.expect("a login").payload;
    let spec = TokenSpec {
        role: "run".into(),
        policies: Vec::new(),
        namespace: None,
        ttl: minute,
        renewable: true,
        meta: Default::default(),
    };
    let token = vault.create_token(call(), &login, &spec).await.expect("a token").payload;
    let (orders, app) = (key("database/creds/orders"), key("secret/data/app"));
    let lease = vault.read(call(), &token, &orders).await.expect("minted").payload.lease_id;
    vault.set_database_down(true);
    let down = vault.read(call(), &token, &orders).await.expect_err("down");
    assert_eq!((down.class, down.status), (Class::Transient, Some(500)));
    let down = vault.renew_lease(call(), &token, &lease, minute).await.expect_err("down");
    assert_eq!(down.class, Class::Transient);
    vault.read(call(), &token, &app).await.expect("another engine");
    vault.set_database_down(false);
    vault.renew_lease(call(), &token, &lease, minute).await.expect("up again");
    vault.remove("app");
    vault.remove_database_role("orders");
    assert_eq!(vault.read(call(), &token, &app).await.expect_err("gone").class, Class::NotFound);
    assert_eq!(vault.read(call(), &token, &orders).await.expect_err("gone").class, Class::Permanent);
    assert_eq!(vault.alive(), 1, "its users live on");
}

fn key(path: &str) -> ReadKey {
    ReadKey { path: path.into(), query: "".into(), list: false }
}
