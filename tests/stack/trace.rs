//! The auditor's trace of a real workflow: its nested execution, its subject, and a client that goes round the broker with
//! the very role of the task.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::athena::{Logs, finds_the_same};
use crate::broker::{Broker, SOON, Setup};
use crate::ends::accessors;
use crate::harness::{Server, text, wait_until};
use crate::http::request;
use crate::runs::{CHARGED, RESERVED, STATES};
use crate::subjects::Issuer;
use crate::workflow::{Execution, Workflow};

against_both! {
    an_execution_is_traced_and_a_bypass_found
}

/// Another client in the same task: Vault's own Python library, and the task's credentials.
const BYPASS: &str = "
import hvac, json, os, sys
said = json.loads(os.environ['SAID'])
client = hvac.Client(url=said['address'])
client.auth.aws.iam_login(said['key'], said['secret'], said['session'], header_value=said['server_id'], role='orders',
                          region=said['region'])
run = client.auth.token.create(role_name='run-reserve', ttl='60s')
client.token = run['auth']['client_token']
print(client.read('database/creds/orders-reserve')['lease_id'])
client.auth.token.revoke_self()
";

/// Goes round the broker, and says which lease it had.
#[track_caller]
fn go_round(server: &Server) -> String {
    let sts = server.sts();
    let said = json!({
        "address": server.says("address"), "server_id": server.says("server_id"), "region": sts["region"],
        "key": sts["access_key_id"], "secret": sts["secret_access_key"], "session": sts["session_token"],
    });
    let output = Command::new(text(&server.stack["python"]))
        .args(["-c", BYPASS])
        .env_clear()
        .env("SAID", said.to_string())
        .stdin(Stdio::null())
        .output()
        .expect("the stack's Python");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Registers the run of a task, on behalf of a subject.
#[track_caller]
fn register(broker: &Broker<'_>, token: &str, input: &Value, subject: &str) -> Value {
    let mut run = input["run"].clone();
    run["task_token"] = json!(token);
    run["subject_token"] = json!(subject);
    let answer = request(&broker.unix(), "POST", "/tenure/runs", &[], Some(&run)).expect("an answer");
    broker.keep(&answer);
    answer.ok()
}

fn write_history(execution: &Execution<'_>, to: &Path) {
    // As `aws stepfunctions get-execution-history` prints it.
    std::fs::write(to, format!("{:#}\n", json!({ "events": execution.history() }))).expect("a history");
}

fn an_execution_is_traced_and_a_bypass_found(server: &Server) {
    let issuer = Issuer::start();
    let rules = format!(
        "{STATES}\n[subject]\n[[subject.issuer]]\nurl = \"{}\"\naudiences = [\"tenure\"]\nallow_loopback_http = true\n",
        issuer.url()
    );
    let broker = Setup::new(server)
        .env("AWS_ENDPOINT_URL_SFN", text(&server.stack["stepfunctions"]["endpoint"]))
        .and(&rules)
        .start();
    let ask = |run: &Value, method: &str, path: &str| {
        broker.ask(&broker.unix(), method, path, &[("x-vault-token", text(&run["handle"]))])
    };
    let workflow = Workflow::new(server);
    let execution = workflow.start(1);
    let (token, input) = workflow.poll(&workflow.reserve);
    let reserve = register(&broker, &token, &input, &issuer.token());
    ask(&reserve, "GET", RESERVED).ok();
    assert_eq!(ask(&reserve, "GET", CHARGED).status, 403);
    let reserved = ask(&reserve, "GET", "/v1/database/creds/orders-reserve").ok();
    // The run's token is the last that was made.
    let accessor = accessors(&broker, "run").pop().expect("an accessor");
    let stolen = go_round(server);
    workflow.succeed(&token, &json!({ "item": "first order" }));
    let (token, input) = workflow.poll(&workflow.charge);
    let charge = register(&broker, &token, &input, &issuer.token());
    ask(&charge, "GET", CHARGED).ok();
    let charged = ask(&charge, "GET", "/v1/database/creds/orders-charge").ok();
    workflow.succeed(&token, &json!({ "charged": "first order" }));
    execution.output();
    for run in [&reserve, &charge] {
        let path = format!("/tenure/runs/{}", text(&run["id"]));
        broker.ask(&broker.unix(), "DELETE", &path, &[]);
    }
    wait_until("both are confirmed", SOON, || broker.audited("revoke.confirmed") >= 2);

    // Somebody asks for the end of a run's token, after it: Vault's log has the accessor of the request as an HMAC.
    server.admin("POST", "auth/token/revoke-accessor", Some(&json!({ "accessor": accessor })));

    let logs = tempfile::tempdir().expect("a folder");
    let to = |name: &str| logs.path().join(name);
    let nested = execution.nested().remove(0);
    write_history(&execution, &to("a"));
    write_history(&nested, &to("b"));
    std::fs::copy(broker.path("audit.jsonl"), to("c")).expect("the broker's log");
    // Other tests write to it meanwhile: its last line may be cut off.
    std::fs::copy(server.says("audit_log"), to("d")).expect("Vault's log");
    let page = to("page.html").display().to_string();
    let folder = logs.path().display().to_string();
    let audit = |words: &[&str]| {
        let (code, out, err) = broker.tenure(&[&["audit"], words, &[folder.as_str()]].concat());
        assert!(code < 2, "{code}: {err}");
        (code, out)
    };

    let (code, out) = audit(&["trace", "--execution", &execution.arn, "--json"]);
    let trace: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(code, 1, "a bypass was found");
    let runs = trace["runs"].as_array().expect("runs");
    let ids: Vec<_> = runs.iter().map(|run| &run["id"]).collect();
    assert_eq!(ids, [&reserve["id"], &charge["id"]]);
    for run in runs {
        assert_eq!(
            (&run["subject"]["id"], &run["subject"]["assurance"]),
            (&json!("ada"), &json!("verified"))
        );
        assert_eq!(run["standing"], "verified");
        assert!(run["ended"].is_string() && run["revoked"].is_string(), "{run}");
    }
    let leases: Vec<_> = trace["leases"].as_array().into_iter().flatten().map(|lease| &lease["id"]).collect();
    assert_eq!(leases, [&reserved["lease_id"], &charged["lease_id"]]);
    let states: Vec<_> =
        trace["states"].as_array().into_iter().flatten().map(|state| text(&state["name"])).collect();
    assert_eq!(states, ["Reserve", "Payment", "Charge"]);
    // Each call of the broker's stands beside Vault's own line of it.
    let timeline = trace["timeline"].as_array().expect("a timeline");
    for item in timeline.iter().filter(|item| item["event"] == "mint" || item["event"] == "run.start") {
        assert!(item["vault_lines"][0]["line"].is_u64(), "{item}");
    }
    // The lines of Vault's that no broker explains: the login, the token, the read, its end. Of other tests at the same
    // time, which log in with the same role, there may be others.
    let mine = timeline.iter().find(|item| item["lease_id"] == stolen.as_str()).expect("what was stolen");
    let proves =
        mine["findings"][0].as_u64().and_then(|number| usize::try_from(number).ok()).expect("a finding");
    let finding = &trace["findings"][proves];
    assert_eq!((&finding["kind"], &finding["severity"]), (&json!("bypass"), &json!("error")), "{finding}");
    let own: Vec<_> = trace["findings"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|finding| finding["severity"] == "error" && finding["kind"] != "bypass")
        .collect();
    assert!(own.is_empty(), "{own:#?}");
    let explained =
        |path: &str| timeline.iter().any(|item| item["path"] == path && item["source"] == "vault");
    assert!(explained("auth/aws/login") && explained("auth/token/create/run-reserve"), "{timeline:#?}");

    let (_, by_subject) = audit(&["trace", "--subject", "ada", "--run", text(&charge["id"]), "--json"]);
    let by_subject: Value = serde_json::from_str(&by_subject).expect("JSON");
    assert_eq!(by_subject["runs"].as_array().map(Vec::len), Some(1));
    let (_, shown) = audit(&["trace", "--execution", &execution.arn, "--html", &page]);
    let (_, report) = audit(&["report", "--since", "1h"]);
    let page = std::fs::read_to_string(page).expect("the page");
    for (what, output) in [("trace", &out), ("text", &shown), ("page", &page), ("report", &report)] {
        assert!(!output.contains("canary"), "{what}");
        assert!(!output.contains("first order"), "{what}: what states were given and gave");
        for secret in [&reserved, &charged] {
            assert!(!output.contains(text(&secret["data"]["password"])), "{what}");
        }
        broker.check_silence(output, what);
    }
    fetched_is_as_given(&broker, server, &execution, &trace, &to);
    by_accessor(&broker, server, &accessor, text(&reserve["id"]), &folder);
    let python = text(&server.stack["python"]);
    finds_the_same(&broker, python, &Logs::read(&to("c"), &to("d")), &execution.arn, &stolen);
    leave_for_the_browser(server, logs.path(), &execution.arn);
    broker.finish();
}

/// Histories that Step Functions is asked for tell what those that were saved do.
fn fetched_is_as_given(
    broker: &Broker<'_>,
    server: &Server,
    execution: &Execution<'_>,
    given: &Value,
    to: &impl Fn(&str) -> PathBuf,
) {
    let says = |name: &str| text(&server.stack["stepfunctions"][name]);
    let variables = [
        ("AWS_ENDPOINT_URL_SFN", says("endpoint")),
        ("AWS_ACCESS_KEY_ID", says("access_key_id")),
        ("AWS_SECRET_ACCESS_KEY", says("secret_access_key")),
    ];
    let (ours, vaults) = (to("c").display().to_string(), to("d").display().to_string());
    let words =
        ["audit", "trace", "--fetch-histories", "--json", "--execution", &execution.arn, &ours, &vaults];
    let (code, out, err) = broker.tenure_with(&words, &variables);
    assert_eq!(code, 1, "{err}");
    assert!(!out.contains("first order"), "what states were given and gave");
    let fetched: Value = serde_json::from_str(&out).expect("JSON");
    let comparable = |trace: &Value| {
        let mut items = trace["timeline"].clone();
        for item in items.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
            // Where a line stands differs: the files do.
            item.retain(|name, _| name != "line" && name != "vault_lines");
        }
        json!([trace["runs"], trace["leases"], trace["states"], items])
    };
    assert_eq!(comparable(&fetched), comparable(given));
    let names: Vec<_> =
        fetched["files"].as_array().into_iter().flatten().map(|file| text(&file["name"])).collect();
    assert_eq!(
        names.iter().filter(|name| name.starts_with("(fetched) arn:aws:states:")).count(),
        2,
        "{names:?}"
    );

    // One that nobody knows is named, and the trace made; without credentials there is none.
    let gone = format!("{}-gone", execution.arn);
    let words = ["audit", "trace", "--fetch-histories", "--execution", &gone, &ours];
    let (code, out, err) = broker.tenure_with(&words, &variables);
    assert!(code == 0 && out.contains("never was, or ended more than 90 days ago"), "{code}: {out}{err}");
    let nobody = [variables[0], ("AWS_EC2_METADATA_DISABLED", "true")];
    let (code, _, err) = broker.tenure_with(&words, &nobody);
    assert!(
        code == 2 && err.contains("no credentials") && err.contains("--fetch-histories"),
        "{code}: {err}"
    );
}

/// With an accessor in plain, and Vault's own word for how its log shows it.
fn by_accessor(broker: &Broker<'_>, server: &Server, accessor: &str, run: &str, folder: &str) {
    let made = |policy: &str| {
        let body = json!({ "policies": [policy], "ttl": "5m", "no_default_policy": true });
        let answer = server.admin("POST", "auth/token/create", Some(&body)).ok();
        text(&answer["auth"]["client_token"]).to_owned()
    };
    let audit = |token: &str, device: &str| {
        let variables = [
            ("VAULT_ADDR", server.says("tls_address")),
            ("VAULT_CACERT", server.says("ca_file")),
            ("VAULT_TLS_SERVER_NAME", server.says("server_name")),
            ("VAULT_TOKEN", token),
        ];
        let words = ["audit", "trace", "--accessor", accessor, "--audit-hash", device, "--json", folder];
        broker.tenure_with(&words, &variables)
    };
    let token = made("tenure-auditor");
    let (code, out, err) = audit(&token, "file");
    assert!(code < 2, "{code}: {err}");
    assert!(!out.contains(accessor), "it is shown as Vault's log shows it");
    let trace: Value = serde_json::from_str(&out).expect("JSON");
    assert!(text(&trace["selection"]["accessor"]).starts_with("hmac-sha256:"));
    let runs: Vec<_> = trace["runs"].as_array().into_iter().flatten().map(|run| text(&run["id"])).collect();
    assert_eq!(runs, [run]);
    let by_operator = trace["timeline"].as_array().into_iter().flatten().find(|item| {
        item["path"] == "auth/token/revoke-accessor"
            && item["caller"].as_str().is_some_and(|who| who.starts_with("root"))
    });
    assert_eq!(by_operator.expect("the operator's request")["run"], run);

    for (token, device, says) in [
        (made("orders"), "file", "tenure-auditor.hcl"),
        (made("tenure-auditor"), "other", "sys/audit-hash/other"),
    ] {
        let (code, _, err) = audit(&token, device);
        assert!(code == 2 && err.contains(says), "{code}: {err}");
        assert!(!err.contains(&token), "{err}");
    }
}

/// What `make browser` has pages made of.
fn leave_for_the_browser(server: &Server, logs: &Path, execution: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/browser/real").join(server.flavor.name());
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(folder.join("logs")).expect("a folder");
    for (name, told) in
        [("a", "history.json"), ("b", "nested.json"), ("c", "audit.jsonl"), ("d", "vault.log")]
    {
        std::fs::copy(logs.join(name), folder.join("logs").join(told)).expect("a copy");
    }
    // Last: it says that the rest is there.
    std::fs::write(folder.join("execution"), execution).expect("a name");
}
