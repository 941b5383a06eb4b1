//! What is answered: how long it lasts, how old it is, where it came from, and when there is none.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::broker::{Broker, SOON, Setup};
use crate::harness::{Server, wait_until};

against_both! {
    an_answer_says_what_is_really_left
    a_value_is_revalidated_and_its_version_told
    there_is_a_limit_and_nothing_is_minted_beyond_it
    ready_means_that_every_prefetch_is_there
    the_tools_own_commands_ask_the_broker
    the_audit_log_is_reopened_where_it_was_moved_away
    peers_are_told_apart_by_the_kernel
}

const CREDENTIAL: &str = "/v1/database/creds/orders";

fn an_answer_says_what_is_really_left(server: &Server) {
    let broker = Setup::new(server).start();
    let first = broker.get(CREDENTIAL);
    assert_eq!(first.header("x-tenure-source"), Some("vault"));
    assert_eq!(first.header("cache-control"), Some("no-store"));
    let shape = server.admin("GET", "database/creds/orders", None).ok();
    let ours = first.ok();
    let names =
        |value: &Value| -> Vec<String> { value.as_object().expect("an object").keys().cloned().collect() };
    for name in names(&shape) {
        assert!(ours.get(&name).is_some(), "Vault's own answer has {name:?}, ours has {:?}", names(&ours));
    }
    server.admin("PUT", "sys/leases/revoke", Some(&json!({ "lease_id": shape["lease_id"] }))).ok();
    let left = |answer: &Value| answer["lease_duration"].as_u64().expect("seconds");
    assert!((295..=300).contains(&left(&ours)), "{}", left(&ours));
    wait_until("a second less", SOON, || left(&broker.get(CREDENTIAL).ok()) < left(&ours));
    let later = broker.get(CREDENTIAL);
    assert_eq!(later.header("x-tenure-source"), Some("cache"));
    assert!(later.header("age").is_some_and(|age| age.parse::<u64>().is_ok_and(|age| age >= 1)));
    assert_eq!(later.header("x-tenure-expires"), first.header("x-tenure-expires"));
    assert!(later.header("x-tenure-expires").is_some_and(|at| at.starts_with("20") && at.ends_with('Z')));

    // A longer life is asked for: the same credential is prolonged, up to what its role allows.
    let ask = |life: &str| broker.ask(&broker.unix(), "GET", CREDENTIAL, &[("x-tenure-min-ttl", life)]);
    let longer = ask("10m").ok();
    assert!(left(&longer) >= 600, "{}", left(&longer));
    assert_eq!(longer["data"], ours["data"], "prolonged, not replaced");
    let too_long = ask("5h");
    assert_eq!(too_long.status, 400, "{}", too_long.text());
    assert!(too_long.text().contains("5h"), "{}", too_long.text());
    assert_eq!(broker.get(CREDENTIAL).status, 200, "which harms nobody else");
    assert!(server.asked(&broker.run, "sys/leases/renew") <= 5, "and is not asked for again and again");
    broker.finish();
}

fn a_value_is_revalidated_and_its_version_told(server: &Server) {
    let broker = Setup::new(server).and("[cache]\nkv_fresh = \"1s\"\n").start();
    // A secret of this test's own.
    let path = format!("secret/data/orders/{}", broker.run);
    let write = |value: &str| {
        let body = json!({ "data": { "password": value } });
        server.admin("POST", &path, Some(&body)).ok();
    };
    write("first-canary-58d1");
    let read = || broker.get(&format!("/v1/{path}")).ok()["data"].clone();
    let one = read();
    assert_eq!(
        (&one["data"]["password"], &one["metadata"]["version"]),
        (&json!("first-canary-58d1"), &json!(1))
    );
    write("second-canary-58d2");
    wait_until("the second version", SOON, || read()["metadata"]["version"] == 2);
    assert_eq!(read()["data"]["password"], "second-canary-58d2");
    let lease = broker.status()["leases"][0].clone();
    assert_eq!((&lease["version"], &lease["kind"]), (&json!(2), &json!("static")));
    server.admin("DELETE", &path, None);
    wait_until("its end", SOON, || broker.get(&format!("/v1/{path}")).status == 404);
    let finished = broker.finish();
    let all = serde_json::to_string(&finished.audit).expect("lines") + &finished.log;
    assert!(!all.contains("-canary-58d"), "a value is in an output");
    let versions: Vec<_> = finished.of("read").iter().filter_map(|line| line["version"].as_u64()).collect();
    assert!(
        versions.is_sorted() && versions.first() == Some(&1) && versions.last() == Some(&2),
        "{versions:?}"
    );
}

fn there_is_a_limit_and_nothing_is_minted_beyond_it(server: &Server) {
    let broker = Setup::new(server).and("[cache]\nmax_leases = 1\n").start();
    broker.credential("orders");
    let full = broker.get("/v1/database/creds/orders-short");
    assert_eq!(full.status, 429, "{}", full.text());
    assert!(full.text().contains("cache.max_leases"), "{}", full.text());
    assert!(full.header("retry-after").is_some());
    broker.credential("orders");
    assert_eq!(server.asked(&broker.run, "database/creds/orders-short"), 0);
    let finished = broker.finish();
    assert!(finished.of("read").iter().any(|line| line["outcome"] == "denied"));
}

fn ready_means_that_every_prefetch_is_there(server: &Server) {
    let good = "[[prefetch]]\npath = \"database/creds/orders\"\n[[prefetch]]\npath = \"secret/data/orders/config\"\n";
    let broker = Setup::new(server).and(good).start();
    assert_eq!(server.asked(&broker.run, "database/creds/orders"), 1, "before anybody asked");
    assert_eq!(broker.get(CREDENTIAL).header("x-tenure-source"), Some("cache"));
    broker.finish();

    let broker = Setup::new(server).and("[[prefetch]]\npath = \"secret/data/others\"\n").spawn();
    wait_until("what is missing", SOON, || {
        broker.try_get("/tenure/ready").is_ok_and(|answer| {
            answer.status == 503
                && answer.text().contains("prefetch secret/data/others")
                && answer.text().contains("403")
        })
    });
    // The others are served all the same.
    assert_eq!(broker.get(CREDENTIAL).status, 200);
    assert_eq!(broker.tenure(&["ready"]).0, 1);
    broker.finish();
}

fn the_tools_own_commands_ask_the_broker(server: &Server) {
    let broker = Setup::new(server).start();
    let login = broker.credential("orders");
    let good = |words: &[&str]| {
        let (code, out, err) = broker.tenure(words);
        assert_eq!(code, 0, "{words:?}: {err}");
        out
    };
    assert_eq!(good(&["get", "database/creds/orders", "--field", "password"]), login.password);
    let whole: Value =
        serde_json::from_str(&good(&["get", "secret/data/orders/config", "--json"])).expect("JSON");
    assert_eq!(whole["data"]["data"]["user"], "svc");
    let fields = good(&["get", "/v1/secret/data/orders/config"]);
    assert!(fields.contains("user") && fields.contains("svc") && !fields.contains("metadata"), "{fields}");
    let status = good(&["status"]);
    for word in
        ["ready", "aws role orders at auth/aws", "role run", &broker.run, "database/creds/orders", "held"]
    {
        assert!(status.contains(word), "{word:?} is not in:\n{status}");
    }
    assert!(!status.contains(&login.password));
    let status: Value = serde_json::from_str(&good(&["status", "--json"])).expect("JSON");
    assert_eq!(status["run"]["id"], broker.run.as_str());
    assert_eq!((good(&["health"]), good(&["ready"])), ("alive\n".to_owned(), "ready\n".to_owned()));
    for (words, code, said) in [
        (&["get", "secret/data/orders/nothing"][..], 1, "nothing"),
        (&["get", "secret/data/others"], 1, "permission denied"),
        (&["get", "database/creds/orders", "--field", "passwort"], 1, "passwort"),
        (&["get", "x", "--socket", "/nowhere/tenure.sock"], 2, "/nowhere/tenure.sock"),
    ] {
        let (got, out, err) = broker.tenure(words);
        assert_eq!((got, out.as_str()), (code, ""), "{words:?}: {err}");
        assert!(err.contains(said), "{words:?}: {said:?} is not in {err}");
    }
    broker.finish();
}

fn the_audit_log_is_reopened_where_it_was_moved_away(server: &Server) {
    let broker = Setup::new(server).start();
    broker.credential("orders");
    let moved = broker.path("audit.jsonl.1");
    std::fs::rename(broker.path("audit.jsonl"), &moved).expect("moved");
    broker.signal(Signal::HUP);
    wait_until("the new file", SOON, || broker.audited("audit.reopened") == 1);
    broker.credential("orders");
    let last = std::fs::read_to_string(&moved).expect("the old file");
    let last: Value = serde_json::from_str(last.lines().last().expect("a line")).expect("JSON");
    let (code, out, err) = broker.tenure(&["audit", "verify", &moved.display().to_string()]);
    assert_eq!(code, 0, "{out}{err}");
    let finished = broker.finish();
    assert_eq!(finished.audit[0]["event"], "audit.reopened");
    assert_eq!(finished.audit[0]["previous"]["hash"], last["hash"], "the chain goes on");
}

/// Needs another uid, and so root: elsewhere there is nobody else to be.
fn peers_are_told_apart_by_the_kernel(server: &Server) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    const NOBODY: u32 = 65534;
    let read_as_nobody = |broker: &Broker<'_>| -> String {
        const PROGRAM: &str = "
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
s.sendall(b'GET /v1/secret/data/orders/config HTTP/1.1\\r\\nhost: x\\r\\nconnection: close\\r\\n\\r\\n')
while chunk := s.recv(65536): sys.stdout.write(chunk.decode())
";
        let output = Command::new("/usr/bin/env")
            .args(["python3", "-c", PROGRAM])
            .arg(broker.path("tenure.sock"))
            .current_dir("/")
            .uid(NOBODY)
            .gid(NOBODY)
            .output()
            .expect("python3");
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    };
    let new = || {
        let setup =
            Setup::new(server).set("listen.unix", "mode", "0660").set("listen.unix", "group", "65534");
        // So that the directory is not what keeps them out.
        std::fs::set_permissions(setup.dir(), std::fs::Permissions::from_mode(0o711)).expect("its mode");
        setup
    };
    let broker = new().set("listen.unix", "mode", "0600").start();
    assert!(read_as_nobody(&broker).contains("PermissionError"), "the mode keeps them out");
    broker.finish();

    let broker = new().start();
    let refused = read_as_nobody(&broker);
    assert!(refused.starts_with("HTTP/1.1 403") && refused.contains("listen.unix.allow"), "{refused}");
    let finished = broker.finish();
    let line = finished.of("request").into_iter().find(|line| line["caller"]["uid"] == NOBODY);
    assert!(line.is_some_and(|line| line["outcome"] == "denied"), "on record, by the kernel's word");

    let broker = new()
        .and("[[listen.unix.allow]]\nuid = 0\n[[listen.unix.allow]]\nuid = 65534\ngid = 65534\n")
        .start();
    assert!(read_as_nobody(&broker).starts_with("HTTP/1.1 200"));
    broker.finish();
}
