//! The whole way from text to configuration: one fixture for each bad file, its messages beside it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;
use crate::clock::Moment;

/// 2026-01-01T00:00:00Z.
const NOW: Moment = Moment::new(Duration::from_secs(5), Duration::from_secs(1_767_225_600));

const LEAST: &str = r#"
[vault]
address = "https://vault.internal:8200/"
[vault.auth.aws]
role = "orders"
[listen.unix]
path = "/run/tenure/tenure.sock"
[audit]
file = "/var/log/tenure/audit.jsonl"
"#;

fn loaded(text: &str, vars: &[(&str, &str)]) -> Result<Loaded, Problems> {
    let environment = vars.iter().copied().collect();
    parse(Some((Path::new("tenure.toml"), text)), &environment, &Overrides::default(), NOW)
}

/// Each `tests/fixtures/config/*.toml` is refused with exactly what stands in the `.expected` beside it, or taken where
/// there is none.
#[test]
fn each_fixture_says_what_is_expected_of_it() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/config");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    assert!(files.len() > 20, "the fixtures were found");
    let mut failures = String::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let name = Path::new(file.file_name().unwrap());
        let expected = std::fs::read_to_string(file.with_extension("expected")).unwrap_or_default();
        let said = parse(Some((name, &text)), &Environment::default(), &Overrides::default(), NOW)
            .map_or_else(|problems| format!("{problems}\n"), |_| String::new());
        if said != expected {
            failures += &format!("== {}\n-- expected\n{expected}-- said\n{said}", name.display());
        }
    }
    assert!(failures.is_empty(), "\n{failures}");
}

#[test]
fn what_is_left_out_has_its_default() {
    let Loaded { config, run, .. } = loaded(LEAST, &[]).unwrap();
    assert_eq!(config.vault.address, "https://vault.internal:8200");
    assert_eq!(config.vault.request_timeout, Duration::from_secs(10));
    let aws = config.login.aws().unwrap();
    assert_eq!((aws.mount.as_str(), aws.fips, &aws.region), ("aws", false, &None));
    assert_eq!(config.run.journal.as_deref(), Some(Path::new("/var/log/tenure/audit.jsonl.orphans")));
    let unix = config.listen.unix.unwrap();
    assert_eq!((unix.mode, unix.allow), (0o600, Allow::SameUser));
    assert_eq!(config.cache.max_leases, 10_000);
    assert_eq!(config.cache.kv_bytes, 16_777_216);
    assert_eq!((run.deadline, run.facts), (None, Default::default()));
}

#[test]
fn the_environment_alone_is_enough() {
    let environment = [
        ("VAULT_ADDR", "http://127.0.0.1:8200"),
        ("TENURE_AUTH_ROLE", "orders"),
        ("TENURE_TCP", "127.0.0.1:0"),
        ("TENURE_TOKEN_FILE", "/run/tenure/token"),
        ("TENURE_AUDIT_FILE", "/tmp/audit.jsonl"),
        ("TENURE_STACK_DIR", "/tmp/stack"),
        ("TENURE_TAG_COMMIT", "abc"),
        ("TENURE_TIMEOUT_SECONDS", "60"),
        ("VAULT_NAMESPACE", ""),
        ("HOME", "/root"),
    ];
    let loaded = parse(None, &environment.into_iter().collect(), &Overrides::default(), NOW).unwrap();
    assert_eq!(loaded.config.vault.address, "http://127.0.0.1:8200");
    assert_eq!(loaded.config.vault.namespace, None, "set to nothing is not set");
    assert_eq!(loaded.config.listen.unix, None);
    assert_eq!(loaded.run.deadline.unwrap().len(), Duration::from_secs(60));
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let environment: Environment =
        [("VAULT_ADDR", "https://env:8200"), ("TENURE_SOCKET", "/run/env.sock")].into_iter().collect();
    let flags = Overrides { socket: Some("/run/flag.sock".into()), ..Overrides::default() };
    let loaded = parse(Some((Path::new("tenure.toml"), LEAST)), &environment, &flags, NOW).unwrap();
    let of = |key: &str| {
        let setting = loaded.settings.iter().find(|setting| setting.key == key).unwrap();
        format!("{} ({})", setting.value, setting.origin)
    };
    assert_eq!(of("vault.address"), "\"https://env:8200\" (environment VAULT_ADDR)");
    assert_eq!(of("listen.unix.path"), "\"/run/flag.sock\" (flag --socket)");
    assert_eq!(of("audit.file"), "\"/var/log/tenure/audit.jsonl\" (tenure.toml:9)");
    assert_eq!(of("run.ttl"), "\"15m\" (default)");
}

#[test]
fn a_problem_names_the_variable_or_the_flag_that_made_it() {
    for (name, value, expected) in [
        (
            "TENURE_TOKEN_ROL",
            "x",
            "environment TENURE_TOKEN_ROL: no such variable (did you mean \"TENURE_TOKEN_ROLE\"?)",
        ),
        ("TENURE_WHATEVER_IT_IS", "x", "environment TENURE_WHATEVER_IT_IS: no such variable"),
        ("VAULT_ADDR", "vault:8200", "environment VAULT_ADDR: vault.address: \"vault:8200\" has no scheme"),
        (
            "VAULT_ADDR",
            "unix:///run/x",
            "environment VAULT_ADDR: vault.address: \"unix:///run/x\" is a socket",
        ),
        (
            "VAULT_CLIENT_CERT",
            "/c",
            "environment VAULT_CLIENT_CERT: vault.client_cert: needs vault.client_key (VAULT_CLIENT_KEY)",
        ),
        ("TENURE_TCP", "0.0.0.0:80", "environment TENURE_TCP: listen.tcp.address: 0.0.0.0 is not a loopback"),
        ("TENURE_TOKEN_FILE", "/t", "environment TENURE_TOKEN_FILE"),
        ("TENURE_LOG", "inof", "environment TENURE_LOG: log.filter: \"inof\" is not a level"),
        ("RUST_LOG", "tenure=loud", "environment RUST_LOG: log.filter: \"tenure=loud\" is not a level"),
        ("TENURE_LOG_FORMAT", "xml", "environment TENURE_LOG_FORMAT: log.format: \"xml\" is not known"),
        (
            "TENURE_STOP_TIMEOUT",
            "30",
            "environment TENURE_STOP_TIMEOUT: shutdown.stop_timeout: \"30\" is not a duration",
        ),
        (
            "TENURE_STOP_TIMEOUT",
            "20s",
            "shutdown.grace: it is 20s, and the process is killed 20s after SIGTERM",
        ),
        ("TENURE_DEADLINE", "2025-01-01T00:00:00Z", "environment TENURE_DEADLINE: the deadline"),
    ] {
        let said =
            loaded(LEAST, &[(name, value)]).err().map(|problems| problems.to_string()).unwrap_or_default();
        assert!(said.contains(expected), "{name}={value}: {said}");
    }
    let flags = Overrides { log_format: Some("jsn".into()), ..Overrides::default() };
    let said =
        parse(Some((Path::new("tenure.toml"), LEAST)), &Environment::default(), &flags, NOW).unwrap_err();
    assert_eq!(
        said.to_string(),
        "flag --log-format: log.format: \"jsn\" is not known (did you mean \"json\"?); it is one of auto, json, text"
    );
}

#[test]
fn a_subject_is_configured_by_issuer() {
    let good = include_str!("../../tests/fixtures/config/subject_good.toml");
    let Loaded { config, settings, .. } = loaded(good, &[]).unwrap();
    let Subject { expiry, leeway, groups, issuers, seal } = config.subject;
    assert_eq!((expiry, leeway), (Expiry::AtStart, Duration::from_secs(300)));
    assert_eq!(groups, ["admins", "on call"]);
    assert_eq!(seal.unwrap().mount, "transit/eu");
    assert_eq!(issuers[0].algorithms, ["RS256", "EdDSA"]);
    let (claim, values) = issuers[0].kinds.as_ref().unwrap();
    let values: Vec<_> = values.iter().map(|(value, kind)| (value.as_str(), kind.word())).collect();
    assert_eq!((claim.as_str(), values), ("azp", vec![("nightly", "scheduler"), ("assistant", "agent")]));
    assert_eq!(issuers[1].algorithms.len(), 9);
    assert_eq!((issuers[1].subject_claim.as_str(), issuers[1].kind.word()), ("sub", "person"));
    let of = |key: &str| {
        let setting = settings.iter().find(|setting| setting.key == key).unwrap();
        format!("{} ({})", setting.value, setting.origin)
    };
    assert_eq!(of("subject.issuer[0].kinds.agent"), "[\"assistant\"] (tenure.toml:25)");
    assert_eq!(of("subject.issuer[1].timeout"), "\"5s\" (default)");
    assert_eq!(loaded(LEAST, &[]).unwrap().config.subject, Subject::default());
}

#[test]
fn a_login_is_the_one_that_is_configured_or_named() {
    let good = include_str!("../../tests/fixtures/config/logins_good.toml");
    let Loaded { config, settings, .. } = loaded(good, &[]).unwrap();
    assert_eq!(config.login.aws().and_then(|aws| aws.region.as_deref()), Some("eu-west-1"));
    let Login::Auto(auto) = config.login else { panic!("not auto") };
    let order: Vec<_> = auto.candidates.iter().map(Method::word).collect();
    assert_eq!(order, ["aws", "kubernetes", "jwt", "cert", "approle", "token"]);
    let files: Vec<_> = auto.candidates.iter().map(Method::file).collect();
    assert_eq!(files[1], Some(Path::new("/var/run/secrets/kubernetes.io/serviceaccount/token")));
    assert_eq!(files[3], Some(Path::new("/run/tls/client.pem")));
    assert_eq!(auto.aws, None);
    let of = |key: &str| {
        let setting = settings.iter().find(|setting| setting.key == key).unwrap();
        format!("{} ({})", setting.value, setting.origin)
    };
    assert_eq!(of("vault.auth.approle.wrapped"), "true (tenure.toml:13)");
    assert_eq!(of("vault.auth.cert.mount"), "\"cert\" (default)");

    // On ECS, on a function, in a pod: what is in the environment there.
    for name in ["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE"]
    {
        let Login::Auto(auto) = loaded(good, &[(name, "x")]).unwrap().config.login else {
            panic!("not auto")
        };
        assert_eq!(auto.aws, Some(name));
    }
    for word in ["aws", "kubernetes", "jwt", "cert", "approle", "token"] {
        let Loaded { config, settings, .. } = loaded(good, &[("TENURE_AUTH_METHOD", word)]).unwrap();
        let Login::By(method) = config.login else { panic!("not {word}") };
        assert_eq!(method.word(), word);
        let others = settings.iter().filter(|setting| {
            let rest = setting.key.strip_prefix("vault.auth.");
            rest.is_some_and(|rest| rest != "method" && !rest.starts_with(word))
        });
        assert_eq!(others.count(), 0, "what is not used is not in effect");
    }
    // A token that is revoked at the end may carry the leases itself.
    let revoked = good.replace("vault-token\"", "vault-token\"\nrevoke = true");
    let revoked = revoked.replace("[run]\ntoken_role = \"run\"", "");
    assert_eq!(loaded(&revoked, &[]).unwrap().config.run.token_role, None);
}

#[test]
fn nothing_at_all_says_what_is_needed() {
    let said = parse(None, &Environment::default(), &Overrides::default(), NOW).unwrap_err().to_string();
    let keys: Vec<_> = said.lines().map(|line| line.split(": ").next().unwrap()).collect();
    assert_eq!(keys, ["audit", "listen", "vault.address", "vault.auth.aws.role"], "{said}");
}

#[test]
fn serde_refuses_what_the_shape_check_would_have_taken_out() {
    for text in ["x = 1", "[vault]\nx = 1", "[listen.unix]\nx = 1", "[[prefetch]]\nx = 1"] {
        assert!(toml::from_str::<raw::RawConfig>(text).is_err(), "{text}");
    }
}

#[test]
fn each_key_has_a_description_in_the_schema() {
    fn walk(schema: &serde_json::Value, key: &str) {
        for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
            assert!(inner["description"].is_string(), "{key}.{name} has no description");
            assert!(inner.get("anyOf").is_none(), "{key}.{name} may be null, and TOML has no null");
            let free = inner["additionalProperties"].is_object();
            assert_eq!(
                inner.get("properties").is_some(),
                inner.get("additionalProperties").is_some() && !free,
                "{name}"
            );
            walk(inner, &format!("{key}.{name}"));
            walk(&inner["items"], &format!("{key}.{name}[]"));
        }
    }
    walk(&schema(), "");
}

#[test]
fn a_file_is_read_with_care() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tenure.toml");
    let said = |path: &Path| {
        let result = load(Some(path), &Environment::default(), &Overrides::default(), NOW);
        result.map_or_else(|problems| problems.to_string(), |_| "taken".to_owned())
    };
    assert!(said(&file).ends_with("tenure.toml: cannot be opened: No such file or directory (os error 2)"));
    assert!(said(folder.path()).ends_with("is a directory; give the file itself"));
    std::fs::write(&file, LEAST).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(said(&file), "taken");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o666)).unwrap();
    assert!(said(&file).ends_with("anybody may write to it; run chmod o-w on it"));
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(&file, b"\xff").unwrap();
    assert!(said(&file).contains("cannot be read: "));
}

mod hostile {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// A damaged file, and variables that hold anything, are refused in words or taken; nothing panics.
        #[test]
        fn input_never_panics(
            cut in 0..1200_usize,
            length in 0..12_usize,
            insert in "[\\[\\]{}=\"'.,#\n\\-0-9a-zé\u{0}]{0,12}",
            value in ".{0,40}",
        ) {
            let good = include_str!("../../tests/fixtures/config/full_good.toml");
            let chars: Vec<char> = good.chars().collect();
            let cut = cut.min(chars.len());
            let rest = (cut + length).min(chars.len());
            let text: String = chars[..cut].iter().copied().chain(insert.chars()).chain(chars[rest..].iter().copied()).collect();
            let names = ["VAULT_ADDR", "TENURE_SOCKET", "TENURE_TCP", "TENURE_LOG", "TENURE_DEADLINE", "TENURE_TIMEOUT_SECONDS",
                "TENURE_TAG_A", "TENURE_TOKEN_ROLE"];
            for name in names {
                if let Err(problems) = loaded(&text, &[(name, &value)]) {
                    prop_assert!(problems.list().iter().all(|problem| !problem.message.is_empty()));
                }
            }
        }
    }
}

/// AWS's own clients look where this variable says; who configures an address says otherwise.
#[test]
fn the_door_of_aws_is_where_its_clients_look() {
    const DOOR: &str =
        "[[listen.secrets_manager.secret]]\nid = \"prod/db\"\npath = \"database/creds/orders\"\n";
    let door = |text: &str, vars: &[(&str, &str)]| {
        let loaded = loaded(&format!("{LEAST}{text}"), vars).unwrap();
        loaded.config.listen.secrets_manager.unwrap()
    };
    let usual = door(DOOR, &[]);
    assert_eq!((usual.address.to_string().as_str(), &usual.token), ("127.0.0.1:2773", &DoorToken::Session));
    let moved = [("PARAMETERS_SECRETS_EXTENSION_HTTP_PORT", "4444")];
    assert_eq!(door(DOOR, &moved).address.port(), 4444);
    let said = format!("[listen.secrets_manager]\naddress = \"127.0.0.1:5555\"\n{DOOR}");
    assert_eq!(door(&said, &moved).address.port(), 5555);
    let problems = loaded(&format!("{LEAST}{DOOR}"), &[("PARAMETERS_SECRETS_EXTENSION_HTTP_PORT", "x")]);
    assert!(problems.unwrap_err().to_string().contains("PARAMETERS_SECRETS_EXTENSION_HTTP_PORT"));
}

/// In a Lambda function it stands beside the doors that are there anyway, and only with something to read.
#[test]
fn in_a_function_a_door_of_aws_takes_none_of_the_others_away() {
    let lambda = |text: &str| {
        let vars = [("VAULT_ADDR", "https://vault.internal:8200"), ("TENURE_AUTH_ROLE", "orders")];
        let flags = Overrides { lambda: true, ..Overrides::default() };
        let file = Some((Path::new("tenure.toml"), text));
        parse(file, &vars.into_iter().collect(), &flags, NOW).unwrap().config.listen
    };
    let bare = lambda("");
    assert!(bare.unix.is_some() && bare.tcp.is_some() && bare.secrets_manager.is_none());
    let with =
        lambda("[[listen.secrets_manager.secret]]\nid = \"prod/db\"\npath = \"database/creds/orders\"\n");
    assert_eq!((with.unix, with.tcp), (bare.unix, bare.tcp));
    assert_eq!(with.secrets_manager.unwrap().address.port(), 2773);
    let chosen = lambda("[listen.unix]\npath = \"/tmp/tenure/own.sock\"\n");
    assert!(chosen.tcp.is_none());
}

/// The log of a function is as Lambda is told that it is to be, unless we are told otherwise.
#[test]
fn in_a_function_the_log_is_as_lambda_says() {
    let log = |text: &str, vars: &[(&str, &str)]| {
        let vars = [("VAULT_ADDR", "https://vault.internal:8200"), ("TENURE_AUTH_ROLE", "orders")]
            .into_iter()
            .chain(vars.iter().copied())
            .collect();
        let flags = Overrides { lambda: true, ..Overrides::default() };
        let loaded = parse(Some((Path::new("tenure.toml"), text)), &vars, &flags, NOW).unwrap();
        (loaded.config.log.filter.to_string(), loaded.config.log.format)
    };
    assert_eq!(log("", &[]), ("info".to_owned(), LogFormat::Auto));
    let said = [("AWS_LAMBDA_LOG_LEVEL", "WARN"), ("AWS_LAMBDA_LOG_FORMAT", "Text")];
    assert_eq!(log("", &said), ("warn".to_owned(), LogFormat::Text));
    for (level, filter) in [("TRACE", "trace"), ("debug", "debug"), ("FATAL", "off"), ("what", "info")] {
        assert_eq!(log("", &[("AWS_LAMBDA_LOG_LEVEL", level)]).0, filter);
    }
    assert_eq!(log("[log]\nfilter = \"debug\"\n", &said), ("debug".to_owned(), LogFormat::Text));
    assert_eq!(log("", &[said[0], ("TENURE_LOG", "error")]).0, "error");
    assert_eq!(loaded(LEAST, &said).unwrap().config.log.format, LogFormat::Auto, "elsewhere it says nothing");
}
