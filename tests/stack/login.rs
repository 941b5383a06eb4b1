//! The login by AWS IAM: from each source of credentials, and what each refusal says.

use std::time::Instant;

use serde_json::Value;

use crate::broker::{Broker, SOON, Setup};
use crate::harness::{Server, text};

against_both! {
    from_the_environment
    from_the_container_endpoint
    by_web_identity
    by_an_assumed_role
    each_refusal_names_its_cause_and_its_cure
    without_a_token_role_leases_hang_off_the_login
}

fn from_the_environment(server: &Server) {
    serves(&Setup::new(server));
}

fn from_the_container_endpoint(server: &Server) {
    let ecs = &server.sts()["ecs"];
    let setup = Setup::new(server)
        .without_aws()
        .env("AWS_CONTAINER_CREDENTIALS_FULL_URI", text(&ecs["url"]))
        .env("AWS_CONTAINER_AUTHORIZATION_TOKEN", text(&ecs["token"]));
    serves(&setup);
}

fn by_web_identity(server: &Server) {
    let identity = &server.sts()["web_identity"];
    let setup = Setup::new(server)
        .without_aws()
        .env("AWS_WEB_IDENTITY_TOKEN_FILE", text(&identity["token_file"]))
        .env("AWS_ROLE_ARN", text(&identity["role_arn"]))
        .env("AWS_ENDPOINT_URL_STS", text(&server.sts()["url"]));
    serves(&setup);
}

fn by_an_assumed_role(server: &Server) {
    let role = text(&server.sts()["chained"]["role_arn"]);
    let setup = chained(server, text(&server.sts()["chained"]["external_id"]))
        .and("source_identity = true\nsession_tags = true\nduration = \"15m\"\n")
        .env("TENURE_EXECUTION_ARN", "arn:aws:states:eu-west-1:123456789012:execution:fulfil:one")
        .env("TENURE_STATE_NAME", "Charge");
    let broker = setup.start();
    let (code, status, _) = broker.tenure(&["status"]);
    assert_eq!(code, 0);
    assert!(status.contains(&format!("aws role orders-chained at auth/aws as {role}")), "{status}");
    // Vault's own log names the session, and so the run.
    let named = format!("{}@fulfil.Charge", broker.run);
    let logins = server.audited(&broker.run);
    let login = logins.iter().find(|line| line["request"]["path"] == "auth/aws/login").expect("a login");
    let caller = text(&login["auth"]["metadata"]["client_arn"]);
    assert!(caller.ends_with(&format!(":assumed-role/orders-broker/{named}")), "{caller}");
    serves_by(broker);
}

/// With the role of the stack that needs an external id: this one.
fn chained<'a>(server: &'a Server, external_id: &str) -> Setup<'a> {
    let role = text(&server.sts()["chained"]["role_arn"]);
    Setup::new(server)
        .set("vault.auth.aws", "role", "orders-chained")
        .env("AWS_ENDPOINT_URL_STS", text(&server.sts()["url"]))
        .and(&format!("[[vault.auth.aws.assume]]\nrole_arn = {role:?}\nexternal_id = {external_id:?}\n"))
}

/// Logs in once and hands out a credential that is good.
#[track_caller]
fn serves(setup: &Setup<'_>) {
    serves_by(setup.start());
}

#[track_caller]
fn serves_by(broker: Broker<'_>) {
    let server = broker.setup.server;
    let login = broker.credential("orders");
    server.database.use_as(&login.user, &login.password).expect("a good credential");
    assert_eq!(server.asked(&broker.run, "auth/aws/login"), 1);
    let finished = broker.finish();
    assert_eq!(finished.of("login").len(), 1);
    assert_eq!(server.database.existing(&[login.user]), [""; 0]);
}

fn each_refusal_names_its_cause_and_its_cure(server: &Server) {
    let new = || Setup::new(server);
    let cases = [
        (
            "a wrong secret key",
            new().env("AWS_SECRET_ACCESS_KEY", "wrong"),
            &["secret key", "access key"][..],
        ),
        (
            "a wrong server id",
            new().set("vault.auth.aws", "server_id", "another.test"),
            &["server id", "iam_server_id_header_value"],
        ),
        (
            "no server id",
            new().unset("vault.auth.aws", "server_id"),
            &["demands a server id", "iam_server_id_header_value"],
        ),
        (
            "an unknown role",
            new().set("vault.auth.aws", "role", "nobody"),
            &["no role \\\"nobody\\\"", "auth/aws/role/"],
        ),
        (
            "a role of others",
            new().aws(&server.sts()["other"]),
            &["not bound to the role", "bound_iam_principal_arn"],
        ),
        ("a wrong region", new().set("vault.auth.aws", "region", "us-east-1"), &["us-east-1", "sts_region"]),
        (
            "a batch token",
            new().set("vault.auth.aws", "role", "orders-batch"),
            &["batch", "token_type=service"],
        ),
        (
            "a use-limited token",
            new().set("vault.auth.aws", "role", "orders-uses"),
            &["use", "token_num_uses=0"],
        ),
        (
            "a wrong external id",
            chained(server, "another"),
            &[
                "AccessDenied",
                "role/orders-broker must allow sts:AssumeRole",
                "the external_id that is set here",
            ],
        ),
        (
            "a token role that is not there",
            new().set("run", "token_role", "nobody"),
            &["nobody", "auth/token/create/nobody"],
        ),
    ];
    let mut messages = Vec::new();
    for (what, setup, words) in cases {
        let began = Instant::now();
        let (code, log) = setup.refused();
        assert!(began.elapsed() < SOON / 3, "{what}: only after {:?}", began.elapsed());
        assert_eq!(code, 1, "{what}: {log}");
        let message = log.lines().rev().find(|line| line.starts_with("error: ")).unwrap_or_default();
        for word in words {
            let word = word.replace('\\', "");
            assert!(message.contains(&word), "{what}: its message lacks {word:?}:\n{log}");
        }
        messages.push(message.to_owned());
    }
    messages.sort_unstable();
    messages.dedup();
    assert_eq!(messages.len(), 10, "each has a message of its own: {messages:#?}");
}

fn without_a_token_role_leases_hang_off_the_login(server: &Server) {
    let setup = Setup::new(server).without("run").set("vault.auth.aws", "role", "orders-direct");
    let broker = setup.start();
    assert!(broker.log().contains("leases hang off the login token itself: set run.token_role"));
    let login = broker.credential("orders");
    server.database.use_as(&login.user, &login.password).expect("a good credential");
    assert_eq!(broker.get("/v1/secret/data/orders/config").ok()["data"]["data"]["user"], "svc");
    let (code, status, _) = broker.tenure(&["status"]);
    assert_eq!(code, 0);
    assert!(status.contains("leases hang off the login token"), "{status}");
    assert_eq!(broker.status()["run"]["token"], Value::Null);
    let run = broker.run.clone();
    let finished = broker.finish();
    assert_eq!(server.asked(&run, "auth/token/create"), 0);
    assert!(finished.of("revoke.confirmed").iter().any(|line| text(&line["detail"]).contains("login token")));
    assert_eq!(server.database.existing(&[login.user]), [""; 0]);
    assert!(!server.knows_lease(&login.lease_id));
}
