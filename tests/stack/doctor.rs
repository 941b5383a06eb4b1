//! `tenure doctor`: a good set-up is found good and left as it was, and each broken one is named by its step, with a cure.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};

use crate::broker::Setup;
use crate::harness::{Server, Stack, text};
use crate::proxy::{Fault, Proxy};

against_both! {
    a_good_setup_is_good_and_nothing_is_left_behind
    what_keeps_from_logging_in_is_named
    what_the_login_may_not_do_is_named
    what_the_run_may_not_read_is_named
    what_is_wrong_with_this_machine_is_named
    what_another_broker_holds_is_named
    the_roles_of_rules_and_the_key_of_seals_are_tried
    a_sealed_server_is_named
}

/// What a login token needs, as `tenure-login` has it.
const RIGHTS: [(&str, &str); 6] = [
    ("auth/token/revoke-accessor", "update"),
    ("auth/token/lookup-accessor", "update"),
    ("sys/leases/lookup", "update"),
    ("auth/token/lookup-self", "read"),
    ("auth/token/renew-self", "update"),
    ("auth/token/revoke-self", "update"),
];

fn usual(server: &Server) -> Setup<'_> {
    Setup::new(server).env("AWS_ENDPOINT_URL_STS", text(&server.sts()["url"]))
}

/// The exit code and the findings; nothing secret may be in them.
#[track_caller]
fn examined(setup: &Setup<'_>) -> (i32, Value) {
    let output = setup.command(&["doctor", "--json"]);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    for canary in setup.server.canaries() {
        assert!(!out.contains(&canary) && !err.contains(&canary), "{canary}: {out}{err}");
    }
    assert!(!out.contains("hvs.") && !err.contains("hvs."), "{out}{err}");
    let found = serde_json::from_str(&out).unwrap_or_else(|_| panic!("no JSON: {out}{err}"));
    (output.status.code().unwrap_or(-1), found)
}

fn of<'v>(found: &'v Value, verdict: &str) -> Vec<&'v Value> {
    let steps = found["steps"].as_array().expect("steps");
    steps.iter().filter(|step| step["verdict"] == verdict).collect()
}

/// Only `steps` are wrong, and what is said of the first of them has all `words`.
#[track_caller]
fn wrong(what: &str, setup: &Setup<'_>, steps: &[&str], words: &[&str]) {
    let (code, found) = examined(setup);
    assert_eq!(code, 1, "{what}: {found:#}");
    let named: Vec<&Value> = of(&found, "wrong");
    for finding in &named {
        assert!(steps.contains(&text(&finding["step"])), "{what}: {finding:#} is wrong, too");
    }
    let said: String = named
        .iter()
        .filter(|it| it["step"] == steps[0])
        .map(|it| format!("{} {}\n", it["text"], it["cure"]))
        .collect();
    for word in words {
        assert!(said.contains(word), "{what}: {word:?} is not in:\n{said}{found:#}");
    }
}

fn policy(server: &Server, name: &str, paths: &[(&str, &str)]) {
    let rule = |(path, right): &(&str, &str)| format!("path \"{path}\" {{ capabilities = [\"{right}\"] }}\n");
    let text: String = paths.iter().map(rule).collect();
    server.admin("PUT", &format!("sys/policies/acl/{name}"), Some(&json!({ "policy": text })));
}

/// A role of the AWS method with these rights, bound as the stack's `orders` is.
fn login_role(server: &Server, name: &str, paths: &[(&str, &str)]) {
    policy(server, name, paths);
    let orders = server.admin("GET", "auth/aws/role/orders", None).json();
    let role = json!({
        "auth_type": "iam",
        "bound_iam_principal_arn": orders["data"]["bound_iam_principal_arn"],
        "resolve_aws_unique_ids": false,
        "token_policies": [name],
        "token_no_default_policy": true,
        "token_ttl": "5m",
    });
    let answer = server.admin("PUT", &format!("auth/aws/role/{name}"), Some(&role));
    assert!(answer.status < 300, "{}", answer.text());
}

/// A token role whose runs may read `paths`, and ask what they may.
fn token_role(server: &Server, name: &str, paths: &[(&str, &str)]) {
    let mut all = RIGHTS[3..].to_vec();
    all.extend([("sys/leases/renew", "update"), ("sys/capabilities-self", "update")]);
    all.extend(paths);
    let held = format!("{name}-run");
    policy(server, &held, &all);
    let role = json!({
        "allowed_policies": [held], "orphan": true, "renewable": true, "token_type": "service",
        "token_no_default_policy": true,
    });
    server.admin("PUT", &format!("auth/token/roles/{name}"), Some(&role));
}

/// A set-up with an AWS role and a token role of its own, both called `name`.
fn own<'a>(server: &'a Server, name: &str, rights: &[(&str, &str)], reads: &[(&str, &str)]) -> Setup<'a> {
    let create = format!("auth/token/create/{name}");
    let mut all = vec![(create.as_str(), "update")];
    all.extend(rights);
    login_role(server, name, &all);
    token_role(server, name, reads);
    usual(server).set("vault.auth.aws", "role", name).set("run", "token_role", name)
}

fn a_good_setup_is_good_and_nothing_is_left_behind(server: &Server) {
    let reads = [
        ("database/creds/orders", "read"),
        ("secret/data/orders/*", "read"),
        ("secret/metadata/orders/*", "read"),
    ];
    let mut rights = RIGHTS.to_vec();
    rights.push(("sys/config/auditing/request-headers/*", "sudo\", \"read"));
    let setup = own(server, "doctor-good", &rights, &reads)
        .and("[[prefetch]]\npath = \"database/creds/orders\"\n[[prefetch]]\npath = \"secret/data/orders/config\"\n");
    let (code, found) = examined(&setup);
    assert_eq!((code, &found["good"]), (0, &json!(true)), "{found:#}");
    assert!(of(&found, "unknown").is_empty() && of(&found, "skipped").is_empty(), "{found:#}");
    let steps: Vec<_> = of(&found, "good").into_iter().map(|step| text(&step["step"])).collect();
    for step in ["credentials", "region", "identity", "clock", "vault", "login", "login policy", "run token"]
    {
        assert!(steps.contains(&step), "{step}: {found:#}");
    }
    for step in ["audited headers", "prefetch", "listeners", "audit log", "journal", "left behind"] {
        assert!(steps.contains(&step), "{step}: {found:#}");
    }
    let said = found.to_string();
    assert!(said.contains("assumed-role/orders-task/") && said.contains("from the environment"), "{found:#}");

    // Of files there is the configuration alone; of tokens as many were revoked as were made.
    let files = std::fs::read_dir(setup.dir()).expect("the folder").count();
    assert_eq!(files, 1, "only tenure.toml");
    let log = std::fs::read_to_string(server.says("audit_log")).expect("the server's audit log");
    let made = log.lines().find(|line| line.contains("auth/token/create/doctor-good")).expect("a run token");
    let made: Value = serde_json::from_str(made).expect("JSON");
    let lines = server.audited(text(&made["request"]["headers"]["x-tenure-run"][0]));
    let count = |path: &str| {
        lines.iter().filter(|line| line["request"]["path"] == path && line["error"].is_null()).count()
    };
    assert_eq!(count("auth/aws/login") + count("auth/token/create/doctor-good"), 2);
    assert_eq!(count("auth/token/revoke-self"), 2);
    assert_eq!(count("database/creds/orders") + count("secret/data/orders/config"), 0, "nothing was read");

    // The shipped policies are good, too; what they do not let it ask is unknown, not wrong.
    let (code, found) = examined(&usual(server).and("[[prefetch]]\npath = \"database/creds/orders\"\n"));
    assert_eq!(code, 0, "{found:#}");
    let unknown: Vec<_> = of(&found, "unknown").into_iter().map(|step| text(&step["step"])).collect();
    assert_eq!(unknown, ["audited headers", "audited headers", "audited headers", "prefetch"], "{found:#}");
}

fn what_keeps_from_logging_in_is_named(server: &Server) {
    let new = || usual(server);
    let aws = |key, value| new().set("vault.auth.aws", key, value);
    wrong(
        "an address",
        &new().set("vault", "address", "http://127.0.0.1:1"),
        &["vault"],
        &["connection refused", "vault.address"],
    );
    let tls = new().set("vault", "address", server.says("tls_address")).set(
        "vault",
        "tls_server_name",
        server.says("server_name"),
    );
    wrong("an authority", &tls, &["vault"], &["unknown authority", "vault.ca_file", "openssl s_client"]);
    wrong(
        "a role",
        &aws("role", "nobody"),
        &["login"],
        &["no role", "vault write auth/aws/role/nobody", "role/orders-task"],
    );
    wrong(
        "a server id",
        &aws("server_id", "another.test"),
        &["login"],
        &["vault.auth.aws.server_id", "vault read -field=iam_server_id"],
    );
    wrong(
        "a region",
        &aws("region", "us-east-1"),
        &["login", "identity"],
        &["us-east-1", "use_sts_region_from_client=true"],
    );
    wrong(
        "no credentials",
        &new().without_aws(),
        &["credentials"],
        &["no AWS credentials", "aws sts get-caller-identity"],
    );
    wrong(
        "a session that AWS does not know",
        &new().env("AWS_SESSION_TOKEN", "gone"),
        &["identity", "login"],
        &["InvalidClientTokenId", "session token"],
    );
    wrong(
        "another's role",
        &new().aws(&server.sts()["other"]),
        &["login"],
        &["not bound to the role", "bound_iam_principal_arn="],
    );
    wrong(
        "a batch token",
        &aws("role", "orders-batch"),
        &["login"],
        &["batch", "token_type=service token_num_uses=0"],
    );
    wrong("a limited token", &aws("role", "orders-uses"), &["login"], &["uses only", "token_num_uses=0"]);
    wrong("a mount", &aws("mount", "elsewhere"), &["login"], &["vault auth enable -path=elsewhere aws"]);
}

fn what_the_login_may_not_do_is_named(server: &Server) {
    for (i, (path, _)) in RIGHTS.iter().take(5).enumerate() {
        let rights: Vec<_> = RIGHTS.iter().copied().filter(|(right, _)| right != path).collect();
        let setup = own(server, &format!("doctor-lacks-{i}"), &rights, &[]);
        wrong(path, &setup, &["login policy"], &[path, "capabilities = "]);
    }
    let setup = own(server, "doctor-create", &RIGHTS, &[]);
    wrong(
        "a role that it may not use",
        &setup.clone().set("run", "token_role", "run"),
        &["run token"],
        &["auth/token/create/run", "capabilities = "],
    );
    server.admin("DELETE", "auth/token/roles/doctor-create", None);
    wrong("no role", &setup, &["run token"], &["vault write auth/token/roles/doctor-create orphan=true"]);
    let child =
        usual(server).set("vault.auth.aws", "role", "orders-extra").set("run", "token_role", "run-child");
    wrong(
        "no orphans",
        &child,
        &["run token"],
        &["no orphans", "vault write auth/token/roles/run-child orphan=true"],
    );
}

fn what_the_run_may_not_read_is_named(server: &Server) {
    let reads = [("secret/data/orders/*", "read"), ("secret/metadata/orders/*", "read")];
    let setup = |path: &str| {
        own(server, "doctor-reads", &RIGHTS, &reads).and(&format!("[[prefetch]]\npath = {path:?}\n"))
    };
    wrong(
        "denied",
        &setup("secret/data/others"),
        &["prefetch"],
        &["may not read it", "path \\\"secret/data/others\\\""],
    );
    wrong("no such mount", &setup("nowhere/creds/orders"), &["prefetch"], &["nothing is mounted there"]);
    wrong(
        "no such value",
        &setup("secret/data/orders/nothing"),
        &["prefetch"],
        &["there is nothing", "vault kv put secret/orders/nothing"],
    );
}

fn what_is_wrong_with_this_machine_is_named(server: &Server) {
    let new = || usual(server);
    wrong(
        "a folder",
        &new().set("listen.unix", "path", "/nowhere/t.sock"),
        &["listeners"],
        &["/nowhere", "install -d -m 0700"],
    );
    let loose = |name: &str| {
        let setup = new();
        let file = setup.dir().join(name);
        std::fs::write(&file, "").expect("the file");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).expect("its mode");
        setup
    };
    wrong("a loose token", &loose("token"), &["listeners"], &["0644", "chmod 0600"]);
    wrong("a loose log", &loose("audit.jsonl"), &["audit log"], &["0644", "chmod 0600"]);
    wrong(
        "no folder of the log",
        &new().set("audit", "file", "/nowhere/a.jsonl"),
        &["audit log", "journal"],
        &["/nowhere/a.jsonl", "install -d"],
    );
    let proxy = Proxy::before(server.says("address"));
    proxy.answer(Some(Fault::Dated("Thu, 01 Jan 2026 00:00:00 GMT")));
    wrong(
        "a clock",
        &new().set("vault", "address", &proxy.address()),
        &["clock"],
        &["Vault", "ahead of", "chronyc"],
    );
    wrong(
        "a key",
        &new().set("vault", "adress", "x"),
        &["configuration"],
        &["vault.adress", "tenure config check"],
    );
}

fn what_another_broker_holds_is_named(server: &Server) {
    let first = usual(server);
    let broker = first.start();
    let path = |name: &str| first.dir().join(name).display().to_string();
    wrong(
        "its log",
        &usual(server).set("audit", "file", &path("audit.jsonl")),
        &["audit log", "journal"],
        &["another process writes to it", "fuser"],
    );
    wrong(
        "its journal",
        &usual(server).set("run", "journal", &path("audit.jsonl.orphans")),
        &["journal"],
        &["another process"],
    );
    wrong(
        "its socket",
        &usual(server).set("listen.unix", "path", &path("tenure.sock")),
        &["listeners"],
        &["another process serves this socket"],
    );
    broker.credential("orders");
    broker.finish();
}

fn the_roles_of_rules_and_the_key_of_seals_are_tried(server: &Server) {
    let worker = |policies: &str, role: &str| {
        usual(server).set("run", "token_role", "run-worker").set("vault.auth.aws", "role", role).and(&format!(
            "[[run.rule]]\nmatch = {{ state = \"Charge\" }}\npolicies = [{policies:?}]\n[subject.seal]\nkey = \"tenure-subject\"\n"
        ))
    };
    let (code, found) = examined(&worker("orders-charge", "orders-subject"));
    assert_eq!(code, 0, "{found:#}");
    let said = of(&found, "good").into_iter().map(|step| text(&step["text"])).collect::<Vec<_>>().join("\n");
    assert!(said.contains("role run-worker: made, an orphan, with the policies orders-charge"), "{said}");
    assert!(said.contains("transit/keys/tenure-subject: ed25519"), "{said}");
    wrong(
        "a policy beyond the role's",
        &worker("tenure-login", "orders-subject"),
        &["run token"],
        &["auth/token/create/run-worker", "vault read auth/token/roles/run-worker"],
    );
    wrong(
        "no right to the key",
        &worker("orders-charge", "orders"),
        &["seal key"],
        &["transit/keys/tenure-subject", "capabilities = "],
    );
}

fn a_sealed_server_is_named(server: &Server) {
    let stack = Stack::own(server.flavor);
    let server = stack.server(server.flavor);
    server.admin("PUT", "sys/seal", None);
    wrong("sealed", &usual(server), &["vault"], &["is sealed", "vault operator unseal"]);
}
