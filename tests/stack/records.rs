//! Two logs that tell the same story: Vault's own audit log names our run, our lines join with its.

use serde_json::Value;

use crate::broker::Setup;
use crate::harness::{Server, text};

against_both! {
    vaults_audit_log_names_our_run_and_joins_with_ours
}

const EXECUTION: &str = "arn:aws:states:eu-west-1:123456789012:execution:orders:0f1e";

fn vaults_audit_log_names_our_run_and_joins_with_ours(server: &Server) {
    let broker = Setup::new(server)
        .env("TENURE_EXECUTION_ARN", EXECUTION)
        .env("TENURE_STATE_NAME", "ChargeCard")
        .env("TENURE_TAG_TEAM", "orders")
        .start();
    let status = broker.status();
    broker.credential("orders");
    broker.get("/v1/secret/data/orders/config").ok();
    broker.get("/v1/secret/data/orders/config").ok();
    assert_eq!(broker.get("/v1/secret/data/orders/nothing").status, 404);
    assert_eq!(broker.get("/v1/secret/data/others").status, 403);
    let run = broker.run.clone();
    let finished = broker.finish();
    let theirs = server.audited(&run);

    let reads: Vec<&Value> = theirs
        .iter()
        .filter(|line| {
            ["database/creds/orders", "secret/data/orders/config"].contains(&text(&line["request"]["path"]))
        })
        .collect();
    assert_eq!(reads.len(), 2);
    for line in reads {
        let named = &line["auth"]["metadata"];
        assert_eq!(named["run"], run.as_str());
        assert_eq!(named["kind"], "state");
        assert_eq!(named["execution_arn"], EXECUTION);
        assert_eq!(named["state"], "ChargeCard");
        assert_eq!(named["tag_team"], "orders");
        assert_eq!(named["boot"], status["boot"]);
        // The head of our chain, as it was when the run began: nobody can rewrite what is before it unseen.
        let seq: usize = text(&named["audit_seq"]).parse().expect("a number");
        let anchored = finished.audit.iter().find(|line| line["seq"] == seq).expect("a line of that number");
        assert_eq!(named["audit_head"], anchored["hash"]);
    }

    // What we say of a request, Vault says too.
    for ours in finished.audit.iter().filter(|line| line["request"].is_string()) {
        let same =
            theirs.iter().find(|line| line["request"]["headers"]["x-tenure-request"][0] == ours["request"]);
        let same = same.unwrap_or_else(|| panic!("Vault has no {ours}"));
        if let Some(id) = ours["vault_request_id"].as_str() {
            assert_eq!(text(&same["request"]["id"]), id);
        }
        if let Some(lease_id) = ours["lease_id"].as_str()
            && ours["event"] == "mint"
        {
            assert_eq!(text(&same["response"]["secret"]["lease_id"]), lease_id);
        }
    }
    // What Vault did for us that changes or discloses anything, we say too.
    for line in &theirs {
        let path = text(&line["request"]["path"]);
        // Questions about tokens, leases and mounts change and disclose nothing.
        if path.contains("lookup") || path.starts_with("sys/internal/") {
            continue;
        }
        let id = &line["request"]["headers"]["x-tenure-request"][0];
        let told = finished.audit.iter().any(|ours| ours["request"] == *id);
        assert!(told, "no line of ours tells of {path} ({id})");
    }
    let denied: Vec<_> = finished.of("read").into_iter().filter(|line| line["outcome"] == "failed").collect();
    let classes: Vec<_> = denied.iter().map(|line| text(&line["class"])).collect();
    assert_eq!(classes, ["not-found", "denied"], "{denied:?}");
}
