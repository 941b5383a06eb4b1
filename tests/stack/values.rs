//! Keyed hashes of what is served, by real transit engines: who may have the keys unwrapped finds a value, and nobody else.

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::broker::{Broker, Setup};
use crate::harness::{Server, text};

against_both! {
    a_value_is_found_by_who_may_unwrap_the_keys
}

/// A token with that policy.
fn token(server: &Server, policy: &str) -> String {
    let asked = json!({ "policies": [policy], "no_parent": true, "ttl": "10m" });
    text(&server.admin("POST", "auth/token/create", Some(&asked)).json()["auth"]["client_token"]).to_owned()
}

/// `tenure audit match` as an auditor with that token runs it: exit code, stdout, stderr.
fn matched(broker: &Broker<'_>, token: &str, words: &[&str], value: &str) -> (i32, String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tenure"))
        .args([&["audit", "match"], words].concat())
        .env_clear()
        .env("VAULT_ADDR", broker.setup.server.says("address"))
        .env("VAULT_TOKEN", token)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary");
    // One that refuses its command line ends without reading.
    let _ = child.stdin.take().expect("stdin").write_all(value.as_bytes());
    let output = child.wait_with_output().expect("it ends");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    for said in [&out, &err] {
        assert!(value.len() < 8 || !said.contains(value.trim()), "the value is in the output: {said}");
        assert!(!said.contains(token), "the token is in the output: {said}");
    }
    (output.status.code().unwrap_or(-1), out, err)
}

fn a_value_is_found_by_who_may_unwrap_the_keys(server: &Server) {
    let hashing = |role: &str, key: &str| {
        let more = format!("[audit.hmac]\nkey = \"{key}\"\n");
        Setup::new(server).set("vault.auth.aws", "role", role).and(&more)
    };
    // Without the right to it, it does not start, and says what is missing; doctor says it too.
    let poor = hashing("orders", "tenure-audit");
    let (code, log) = poor.refused();
    assert!(code != 0 && log.contains("lacks update on transit/datakey/plaintext/tenure-audit"), "{log}");
    let said = poor.command(&["doctor"]);
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains("transit/datakey/plaintext/tenure-audit"), "{said}");
    let said = hashing("orders-hmac", "tenure-audit").command(&["doctor"]);
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains("transit/keys/tenure-audit: it wraps a key"), "{said}");

    let mut broker = hashing("orders-hmac", "tenure-audit").start();
    let database = broker.credential("orders");
    broker.get("/v1/secret/data/orders/config").ok();
    broker.get("/v1/secret/data/orders/config").ok();
    broker.terminate();
    let log = broker.path("audit.jsonl").display().to_string();
    let reads: Vec<Value> = broker
        .audit()
        .into_iter()
        .filter(|line| line["event"] == "read" && line["outcome"] == "granted")
        .collect();
    assert!(reads.len() >= 3 && reads.iter().all(|line| line["values"].is_object()), "{reads:#?}");
    broker.check_outputs();

    let auditor = token(server, "tenure-match");
    let found = |value: &str| {
        let (code, out, err) = matched(&broker, &auditor, &[&log, "--json"], value);
        assert_eq!(err, "");
        let found: Value = serde_json::from_str(&out).expect("JSON");
        (code, found)
    };
    // As it is typed, with a newline, or read from a file without one.
    for value in [database.password.clone(), format!("{}\n", database.password)] {
        let (code, found) = found(&value);
        assert_eq!((code, found["served"].as_array().map(Vec::len)), (1, Some(1)), "{found:#}");
        let served = &found["served"][0];
        assert_eq!(served["path"], "database/creds/orders");
        assert_eq!(served["pointer"], "/password");
        assert_eq!(served["lease_id"], database.lease_id.as_str());
        assert_eq!(served["run"], broker.run.as_str());
        assert_eq!(found["coverage"]["compared"], found["coverage"]["disclosures"]);
    }
    let (code, found) = found("canary-kv2-7f3a");
    assert_eq!((code, &found["served"][0]["times"]), (1, &json!(2)), "{found:#}");
    assert_eq!(found["served"][0]["pointer"], "/data/password");
    let (code, out, _) = matched(&broker, &auditor, &[&log], "canary-kv2-7f3a");
    assert!(code == 1 && out.contains("The value was served: 2 times."), "{out}");
    let (code, out, _) = matched(&broker, &auditor, &[&log], "canary-of-nobody");
    assert!(code == 0 && out.contains("The value was not found."), "{code} {out}");

    let (code, out, _) =
        matched(&broker, &auditor, &[&log, "--each-line"], &format!("nobody\n{}\n\n", database.user));
    assert!(code == 1 && out.contains("1 of 3 were served") && out.contains("#2"), "{code} {out}");
    for (words, value, says) in [
        (&["-"][..], "x", "--value-file"),
        (&[log.as_str()], "\n", "the value is empty"),
        (&["/nowhere"], "x", "/nowhere"),
        (&[log.as_str(), "--value-file", "/nowhere"], "x", "/nowhere"),
    ] {
        let (code, _, err) = matched(&broker, &auditor, words, value);
        assert!(code == 2 && err.contains(says), "{words:?}: {code} {err}");
    }

    // A broker cannot compare, not even what it wrote itself.
    let theirs = token(server, "tenure-hmac");
    let (code, out, err) = matched(&broker, &theirs, &[&log], "canary-kv2-7f3a");
    assert!(code == 2 && out.is_empty(), "{code} {out}");
    assert!(err.contains("lack update on transit/decrypt/tenure-audit"), "{err}");

    // Turned over: what was wrapped by the old version is still unwrapped. Retired: it is noise, for anybody.
    let operate = |path: &str, body: &Value| {
        let answer = server.admin("PUT", path, Some(body));
        assert!((200..300).contains(&answer.status), "{path}: {}", answer.text());
    };
    operate("transit/keys/tenure-audit/rotate", &json!({}));
    assert_eq!(matched(&broker, &auditor, &[&log], "canary-kv2-7f3a").0, 1, "rotated");
    operate("transit/keys/tenure-audit/config", &json!({ "min_decryption_version": 2 }));
    let (code, out, err) = matched(&broker, &auditor, &[&log], "canary-kv2-7f3a");
    assert_eq!(code, 3, "{out} {err}");
    assert!(out.contains("was not unwrapped") && out.contains("Compared: 0 of"), "{out}");
}
