//! At the loudest level, over a whole life, no line has a secret in it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use rustix::process::Signal;
use serde_json::Value;

use crate::broker::{Place, Process, command};
use crate::vault::{CANARY, Vault};

/// The beginnings of what must not be said: plain, in base64 wherever it may begin, and as a list of bytes.
const SECRET: &[&str] =
    &[CANARY, "Y2FuYXJ5L", "NhbmFyeS", "jYW5hcnkt", "99, 97, 110, 97, 114, 121, 45", "tnr_"];

#[test]
fn at_the_loudest_level_no_line_has_a_secret_in_it() {
    let vault = Vault::start();
    let rules = "[listen.tcp]\naddress = \"127.0.0.1:0\"\ntoken_file = \"TOKEN\"\n\
                 [[run.rule]]\nverification = \"warn\"\nmay_register = true\n\
                 [[prefetch]]\npath = \"database/creds/orders\"\n[shutdown]\ngrace = \"5s\"\n";
    for (aws, format) in [(false, "json"), (false, "text"), (true, "json")] {
        let place = Place::new(&vault, "");
        let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let port = free.expect("a port").port();
        let rules = rules.replace("TOKEN", place.path("token").to_str().expect("text"));
        let rules = rules.replace(":0\"", &format!(":{port}\""));
        place.configure(&vault, place.path("").as_path(), &rules);
        if aws {
            let config = std::fs::read_to_string(place.path("tenure.toml")).expect("the file");
            let (head, tail) = config.split_once("[vault.auth.approle]").expect("a login");
            let rest = tail.split_once("[listen.tcp]").expect("a listener").1;
            let login =
                "[vault.auth.aws]\nrole = \"orders\"\nserver_id = \"vault\"\nregion = \"eu-west-1\"\n";
            std::fs::write(place.path("tenure.toml"), format!("{head}{login}[listen.tcp]{rest}"))
                .expect("a file");
        }
        let config = place.path("tenure.toml");
        let filter = "trace,hyper=trace,rustify=trace,vaultrs=trace,aws_sigv4=trace,aws_config=trace,aws_smithy_runtime=trace";
        let mut serve = command(
            &[],
            &["serve", "--config", config.to_str().expect("text"), "--log", filter, "--log-format", format],
        );
        serve
            .env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
            .env("AWS_SECRET_ACCESS_KEY", format!("{CANARY}aws-secret"))
            .env("AWS_SESSION_TOKEN", format!("{CANARY}aws-session"))
            .env("AWS_REGION", "eu-west-1")
            .env("AWS_ENDPOINT_URL_SFN", &vault.address)
            // With this in the environment the AWS SDK shows the bodies that it signs, task tokens and all.
            .env("LOG_SIGNABLE_BODY", "true")
            .env("NO_COLOR", "1");
        let mut broker = Process::start(serve);
        broker.until("it is ready", |_| place.get("/tenure/ready", "").0 == 200);
        live(&place, &broker, port);
        broker.signal(Signal::TERM);
        assert_eq!(broker.ended().code(), Some(0), "{}", broker.said());
        let said = broker.said();
        for secret in SECRET {
            let line = said.lines().find(|line| line.contains(secret));
            assert_eq!(line, None, "{secret} was said");
        }
        // That it was as loud as it gets: the requests and the calls to Vault are there, and Step Functions' refusal.
        for told in
            ["answered", "database/creds/orders", "request", "upstream", "vault/tcp", "could not be learnt"]
        {
            assert!(said.contains(told), "{told}: {said}");
        }
        assert!(!said.contains("panicked"), "{said}");
    }
}

/// All that callers may do, right and wrong.
fn live(place: &Place, broker: &Process, port: u16) {
    for (path, status) in
        [("/v1/database/creds/orders", 200), ("/v1/secret/data/app", 200), ("/v1/secret/data/denied", 403)]
    {
        assert_eq!(place.get(path, "").0, status, "{path}: {}", broker.said());
    }
    // What is presented is no token of ours.
    let foreign = format!("X-Vault-Token: hvs.{CANARY}foreign\r\n");
    assert_eq!(place.get("/v1/secret/data/app", &foreign).0, 403);
    let bearer = format!("Authorization: Bearer {CANARY}bearer\r\n");
    assert_eq!(place.get("/v1/secret/data/app", &bearer).0, 403);
    // Step Functions cannot be asked, and the rule only warns.
    let body = format!(
        "{{\"execution_arn\":\"arn:aws:states:eu-west-1:123456789012:execution:orders:1\",\"state\":\"Charge\",\
         \"timeout_seconds\":60,\"task_token\":\"{CANARY}task\"}}"
    );
    let (status, run) = place.send("POST", "/tenure/runs", "", &body);
    assert_eq!(status, 201, "{run}");
    let run: Value = serde_json::from_str(&run).expect("JSON");
    let (id, handle) = (run["id"].as_str().expect("an id"), run["handle"].as_str().expect("a handle"));
    assert!(handle.starts_with("tnr_"));
    let presented = format!("X-Vault-Token: {handle}\r\n");
    for path in ["/v1/secret/data/app", "/v1/auth/token/lookup-self", "/v1/secret/data/denied"] {
        place.get(path, &presented);
    }
    // A subject that nobody vouches for.
    let body =
        format!("{{\"timeout_seconds\":60,\"subject_token\":\"{CANARY}head.{CANARY}body.{CANARY}sign\"}}");
    assert_eq!(place.send("POST", "/tenure/runs", "", &body).0, 403);
    assert_eq!(place.send("POST", "/tenure/runs", "", &format!("{{\"{CANARY}member\":1}}")).0, 400);
    // On TCP, with the local token.
    let token = std::fs::read_to_string(place.path("token")).expect("the local token");
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the listener");
    write!(
        stream,
        "GET /v1/database/creds/orders HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nX-Vault-Token: {token}\r\n\r\n"
    )
    .expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(place.send("DELETE", &format!("/tenure/runs/{id}"), "", "").0, 204);
}
