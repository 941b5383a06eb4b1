//! A configuration means what it says, or is refused.

use std::process::Command;

use crate::broker::TENURE;

fn check(text: &str) -> (bool, String) {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("tenure.toml");
    std::fs::write(&file, text).expect("a file");
    let output =
        Command::new(TENURE).env_clear().args(["config", "check"]).arg(&file).output().expect("it runs");
    let told =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    (output.status.success(), told)
}

const GOOD: &str = "[vault]\naddress = \"https://vault.internal:8200\"\n[vault.auth.aws]\nrole = \"orders\"\n\
    [listen.unix]\npath = \"/run/tenure/tenure.sock\"\n[audit]\nfile = \"/var/log/tenure/audit.jsonl\"\n";

#[test]
fn an_unknown_key_is_an_error_that_names_its_line() {
    assert!(check(GOOD).0, "{}", check(GOOD).1);
    for (text, said) in [
        (format!("{GOOD}fil = \"x\"\n"), "tenure.toml:9: audit.fil"),
        (format!("{GOOD}[audits]\nfile = \"x\"\n"), "tenure.toml:9: audits"),
        (format!("{GOOD}[[run.rule]]\nmax_tll = \"1m\"\n"), "tenure.toml:10: run.rule[0].max_tll"),
        (format!("{GOOD}[[listen.unix.allow]]\nuid = 1\ngdi = 2\n"), "tenure.toml:11: listen.unix.allow"),
    ] {
        let (good, told) = check(&text);
        assert!(!good && told.contains(said), "{said} is not in {told}");
    }
}

#[test]
fn there_is_no_switch_that_turns_checks_off() {
    let output = Command::new(TENURE).args(["config", "schema"]).output().expect("it runs");
    let schema = String::from_utf8_lossy(&output.stdout).to_lowercase();
    assert!(schema.contains("allow_plain_http"), "{schema}");
    for word in [
        "insecure",
        "skip_verify",
        "skip_tls",
        "tls_skip",
        "no_verify",
        "disable_tls",
        "verify_tls",
        "danger",
    ] {
        assert!(!schema.contains(word), "{word}");
        let (good, told) = check(&GOOD.replacen("[vault]\n", &format!("[vault]\n{word} = true\n"), 1));
        assert!(!good && told.contains(&format!("tenure.toml:2: vault.{word}")), "{told}");
    }
}

#[test]
fn credentials_do_not_cross_the_network_in_clear_unless_that_is_said() {
    let with = |address: &str, more: &str| {
        check(&GOOD.replacen(
            "address = \"https://vault.internal:8200\"",
            &format!("address = \"{address}\"\n{more}"),
            1,
        ))
    };
    let (good, told) = with("http://vault.internal:8200", "");
    assert!(!good && told.contains("in clear") && told.contains("tenure.toml:2"), "{told}");
    assert!(with("http://vault.internal:8200", "allow_plain_http = true").0);
    assert!(with("http://127.0.0.1:8200", "").0, "this machine");
    assert!(!with("http://127.0.0.1.evil.example:8200", "").0, "a name that looks like this machine");
}

#[test]
fn the_tcp_listener_is_on_loopback_or_nowhere() {
    for address in ["0.0.0.0:8200", "[::]:8200", "10.0.0.1:8200", "192.168.1.1:8200"] {
        let (good, told) = check(&format!(
            "{GOOD}[listen.tcp]\naddress = \"{address}\"\ntoken_file = \"/run/tenure/token\"\n"
        ));
        assert!(!good && told.contains("not a loopback address"), "{told}");
    }
    let (good, told) = check(&format!("{GOOD}[listen.tcp]\naddress = \"127.0.0.1:8200\"\n"));
    assert!(!good && told.contains("token_file"), "a port without a token: {told}");
}
