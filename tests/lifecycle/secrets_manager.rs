//! The door of AWS's own extension and agent, over real loopback TCP: as raw requests, and as a function's own code asks.

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::{Value, json};
use tenure::audit::{Event, Line, Outcome};
use tenure::door::{Doors, LocalToken, MappedSecret, SecretsManager};
use tenure::lease::failure::Class;
use tenure::policy::rules::Rule;
use tenure::secret::Credential;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::platform::{execution, rule};
use crate::stage::{APP, ORDERS, Plan, Stage, secs};

/// As long as a session token is, and as full of characters that mean something elsewhere.
const TOKEN: &str = "IQoJb3JpZ2luX2VjEBE+canary/session==";
const ARN: &str = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:prod/app-AbCdEf";

struct House {
    stage: Stage,
    doors: Arc<Doors>,
    address: SocketAddr,
    /// The door that speaks Vault's API, where runs are registered.
    vault: SocketAddr,
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.body))
    }

    /// The secret, which is a JSON text in itself.
    #[track_caller]
    fn secret(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.body);
        let answer = self.json();
        serde_json::from_str(answer["SecretString"].as_str().expect("a SecretString")).expect("an object")
    }

    /// It is refused in AWS's shape.
    #[track_caller]
    fn refused(&self, status: u16, kind: &str) -> String {
        assert_eq!(self.status, status, "{}", self.body);
        let answer = self.json();
        assert_eq!(answer["__type"], kind);
        answer["message"].as_str().expect("a message").to_owned()
    }
}

impl House {
    async fn new(rules: Vec<Rule>) -> Self {
        let stage = Stage::new(Plan { rules, ..Plan::default() }).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let token = LocalToken::given(Credential::new(TOKEN.into()));
        let doors =
            Doors::new(Arc::clone(&stage.broker), Some(token.clone()), None, stage.supervisor.clone());
        let other = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let vault = other.local_addr().expect("its address");
        stage.supervisor.spawn("tcp door", Arc::clone(&doors).serve_tcp(other));
        let secret = |id: &str, path: &str, field: Option<&str>| MappedSecret {
            id: id.into(),
            path: path.into(),
            field: field.map(str::to_owned),
        };
        let door = SecretsManager::new(
            token,
            [
                secret("prod/orders/db", ORDERS, None),
                secret("prod/orders/password", ORDERS, Some("password")),
                secret("prod/orders/nothing", ORDERS, Some("nothing")),
                secret(ARN, APP, None),
                secret("/prod/key", APP, Some("key")),
                secret("prod/absent", "secret/data/absent", None),
                secret("prod/tokens", "auth/token/create", None),
            ],
        );
        stage.supervisor.spawn("aws door", Arc::clone(&doors).serve_secrets_manager(listener, door));
        Self { stage, doors, address, vault }
    }

    async fn send(&self, method: &str, target: &str, headers: &[(&str, &str)]) -> Answer {
        self.exchange(self.address, method, target, headers, "").await
    }

    async fn exchange(
        &self,
        address: SocketAddr,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let mut text = format!("{method} {target} HTTP/1.1\r\nconnection: close\r\n");
        if !headers.iter().any(|(name, _)| *name == "host") {
            text += &format!("host: {address}\r\n");
        }
        for (name, value) in headers {
            text += &format!("{name}: {value}\r\n");
        }
        let mut stream = TcpStream::connect(address).await.expect("connected");
        // Who is refused early may find the other end closed.
        let _ = stream.write_all(format!("{text}\r\n{body}").as_bytes()).await;
        let mut raw = String::new();
        let read = tokio::time::timeout(secs(20), stream.read_to_string(&mut raw)).await;
        let _ = read.expect("an answer in time");
        let (head, body) = raw.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {raw:?}"));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        Answer { status, head: head.to_lowercase(), body: body.to_owned() }
    }

    /// With the token, as AWS documents it.
    async fn get(&self, target: &str) -> Answer {
        self.send("GET", target, &[("X-Aws-Parameters-Secrets-Token", TOKEN)]).await
    }

    fn last(&self, event: Event) -> Line {
        self.stage.lines(event).pop().expect("an audit line")
    }

    async fn close(self) {
        self.doors.close();
        assert!(!self.stage.memory.text().contains("canary/session"), "the token is in the log");
        self.stage.finish().await;
    }
}

#[tokio::test]
async fn a_secret_is_read_by_its_name_in_both_forms() {
    let house = House::new(Vec::new()).await;
    let first = house.get("/secretsmanager/get?secretId=prod/orders/db").await;
    let secret = first.secret();
    let user = secret["username"].as_str().expect("a user").to_owned();
    assert!(house.stage.vault.is_alive(&user));
    let about = first.json();
    assert_eq!(about["Name"], "prod/orders/db");
    assert_eq!(about["VersionStages"], json!(["AWSCURRENT"]));
    assert!(about["CreatedDate"].is_number() && about["VersionId"].is_string() && about["ARN"].is_string());
    assert!(first.head.contains("x-tenure-source: vault") && first.head.contains("cache-control: no-store"));
    let line = house.last(Event::Read);
    assert_eq!((line.outcome, line.path.as_deref()), (Outcome::Granted, Some(ORDERS)));
    assert_eq!(line.door.as_deref(), Some("secrets-manager"));
    assert!(!house.stage.memory.text().contains(secret["password"].as_str().expect("a password")));
    for target in [
        "/secretsmanager/get?secretId=prod%2Forders%2Fdb",
        "/secretsmanager/get?secretId=prod/orders/db&versionStage=AWSCURRENT&refreshNow=true",
        "/v1/prod/orders/db",
    ] {
        let again = house.get(target).await;
        assert_eq!(again.secret(), secret, "{target}");
        assert_eq!(again.json()["VersionId"], about["VersionId"], "a grant is a version");
    }
    let one = house.get("/v1/prod/orders/password").await;
    assert_eq!(one.json()["SecretString"], secret["password"], "one field is a plain string");
    // The agent takes Vault's header as well.
    let by_vault =
        house.send("GET", "/v1/prod/orders/db", &[("x-vault-token", TOKEN), ("x-tenure-min-ttl", "1s")]);
    assert_eq!(by_vault.await.secret(), secret);
    house.close().await;
}

#[tokio::test]
async fn of_kv_v2_the_value_is_the_secret_and_its_versions_can_be_asked_for() {
    let house = House::new(Vec::new()).await;
    let current = house.get(&format!("/secretsmanager/get?secretId={ARN}")).await;
    assert_eq!(current.secret(), json!({ "key": "canary-one" }));
    let about = current.json();
    assert_eq!((&about["ARN"], &about["Name"]), (&ARN.into(), &"prod/app".into()));
    let version = about["VersionId"].as_str().expect("a version").to_owned();
    house.stage.vault.put("app", json!({ "key": "canary-two" }));
    for version in ["1", &version] {
        let old = house.get(&format!("/v1/{ARN}?versionId={version}")).await;
        assert_eq!(old.secret(), json!({ "key": "canary-one" }));
        assert_eq!(old.json()["VersionStages"], json!([]));
    }
    let new = house.get(&format!("/v1/{ARN}?versionId=2")).await;
    assert_eq!(new.secret(), json!({ "key": "canary-two" }));
    let gone = house.get(&format!("/v1/{ARN}?versionId=9")).await;
    gone.refused(400, "ResourceNotFoundException");
    let parameter = house.get("/systemsmanager/parameters/get?name=%2Fprod%2Fkey&withDecryption=true").await;
    let parameter = &parameter.json()["Parameter"];
    assert_eq!((&parameter["Name"], &parameter["Value"]), (&"/prod/key".into(), &"canary-one".into()));
    house.close().await;
}

#[tokio::test]
async fn what_cannot_be_had_is_refused_as_aws_refuses_it() {
    let house = House::new(Vec::new()).await;
    let why =
        house.get("/secretsmanager/get?secretId=prod/else").await.refused(400, "ResourceNotFoundException");
    assert!(why.contains("prod/else") && why.contains("[[listen.secrets_manager.secret]]"), "{why}");
    let line = house.last(Event::Request);
    assert_eq!(line.policy.as_deref(), Some("listen.secrets_manager.secret"));
    assert_eq!((line.outcome, line.door.as_deref()), (Outcome::Denied, Some("secrets-manager")));
    house.get("/systemsmanager/parameters/get?name=else").await.refused(400, "ParameterNotFound");
    // A path of Vault's is no id, however it is written.
    for target in
        ["/v1/database/creds/orders", "/v1/secret/data/app", "/secretsmanager/get?secretId=secret/data/app"]
    {
        house.get(target).await.refused(400, "ResourceNotFoundException");
    }
    for (target, status, kind) in [
        ("/v1/prod/absent", 400, "ResourceNotFoundException"),
        ("/v1/prod/tokens", 400, "AccessDeniedException"),
        ("/v1/prod/orders/nothing", 400, "InvalidRequestException"),
        ("/v1/prod/orders/db?versionId=1", 400, "ResourceNotFoundException"),
        ("/v1/prod/orders/db?versionStage=AWSPREVIOUS", 400, "ResourceNotFoundException"),
        ("/secretsmanager/get", 400, "InvalidParameterException"),
        ("/secretsmanager/get?secretId=prod/orders/db&x=1", 400, "InvalidParameterException"),
        ("/tenure/leases", 404, "ResourceNotFoundException"),
        ("/metrics", 404, "ResourceNotFoundException"),
    ] {
        house.get(target).await.refused(status, kind);
    }
    let token = ("x-aws-parameters-secrets-token", TOKEN);
    let long = house.send("GET", "/v1/prod/orders/db", &[token, ("x-tenure-min-ttl", "9000h")]).await;
    long.refused(400, "InvalidParameterException");
    house.send("POST", "/v1/prod/orders/db", &[token]).await.refused(405, "InvalidRequestException");
    house.stage.vault.fail(Class::Transient);
    let down = house.get("/v1/prod/orders/password?refreshNow=1").await;
    assert_eq!(down.status, 200, "what is held is served");
    let none = house.get(&format!("/v1/{ARN}")).await;
    none.refused(503, "ServiceUnavailable");
    assert!(none.head.contains("retry-after: "), "{}", none.head);
    house.stage.vault.recover();
    house.close().await;
}

#[tokio::test]
async fn only_who_has_the_token_and_asks_for_himself_is_served() {
    let house = House::new(vec![rule()]).await;
    let target = "/secretsmanager/get?secretId=prod/orders/db";
    let (name, token) = ("X-Aws-Parameters-Secrets-Token", TOKEN);
    for (what, headers) in [
        ("no token", vec![]),
        ("an empty one", vec![(name, "")]),
        ("another", vec![(name, "IQoJb3JpZ2luX2VjEBE+canary/session=!")]),
        ("its beginning", vec![(name, &token[..20])]),
        ("by another name", vec![("authorization", token)]),
        ("forwarded", vec![(name, token), ("X-Forwarded-For", "203.0.113.9")]),
        ("from a page", vec![(name, token), ("Origin", "http://evil.example")]),
        ("under another name", vec![(name, token), ("host", "evil.example:2773")]),
    ] {
        let refused = house.send("GET", target, &headers).await;
        let why = refused.refused(403, "AccessDeniedException");
        assert!(!refused.body.contains("canary"), "{what}: {why}");
        assert_eq!(house.last(Event::Request).door.as_deref(), Some("secrets-manager"), "{what}");
    }
    assert_eq!(house.stage.lines(Event::Read).len(), 0, "nothing was disclosed");
    let alive = house.send("GET", "/ping", &[]).await;
    assert_eq!((alive.status, alive.body.as_str()), (200, "healthy"), "to anybody");
    // A run's handle is good here as well, and its reads are its own.
    let body = json!({ "state": "Charge", "execution_arn": execution("a").as_str() }).to_string();
    let length = body.len().to_string();
    let headers = [("x-vault-token", TOKEN), ("content-length", &length)];
    let run = house.exchange(house.vault, "POST", "/tenure/runs", &headers, &body).await;
    assert_eq!(run.status, 201, "{}", run.body);
    let (id, handle) = (&run.json()["id"], &run.json()["handle"]);
    let read = house.send("GET", target, &[(name, handle.as_str().expect("a handle"))]).await;
    assert!(read.secret()["username"].is_string());
    let line = house.last(Event::Read);
    assert_eq!(line.run.map(|run| run.id).as_deref(), id.as_str());
    // What is presented there is not taken here for more than it is.
    let by_name = house.exchange(house.vault, "GET", "/v1/secret/data/app", &[(name, TOKEN)], "").await;
    assert_eq!(by_name.status, 403, "Vault's door does not know that header");
    house.close().await;
}

/// The program of AWS's documentation, but for the port.
const PROGRAM: &str = r#"
import json, os, urllib.error, urllib.parse, urllib.request

endpoint = "http://localhost:" + os.environ["PARAMETERS_SECRETS_EXTENSION_HTTP_PORT"]

def get(path, **query):
    request = urllib.request.Request(endpoint + path + "?" + urllib.parse.urlencode(query))
    request.add_header("X-Aws-Parameters-Secrets-Token", os.environ["AWS_SESSION_TOKEN"])
    return json.loads(urllib.request.urlopen(request).read())

secret = json.loads(get("/secretsmanager/get", secretId="prod/orders/db")["SecretString"])
parameter = get("/systemsmanager/parameters/get", name="/prod/key", withDecryption="true")["Parameter"]["Value"]
try:
    get("/secretsmanager/get", secretId="prod/else")
    refused = None
except urllib.error.HTTPError as error:
    refused = [error.code, json.load(error)["__type"]]
print(json.dumps([secret["username"], parameter, refused]))
"#;

#[tokio::test]
async fn the_program_of_the_documentation_works_unchanged() {
    let house = House::new(Vec::new()).await;
    let output = tokio::process::Command::new("python3")
        .args(["-c", PROGRAM])
        .env_clear()
        .env("AWS_SESSION_TOKEN", TOKEN)
        .env("PARAMETERS_SECRETS_EXTENSION_HTTP_PORT", house.address.port().to_string())
        .output();
    let output = output.await.expect("python3");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(house.stage.vault.is_alive(said[0].as_str().expect("a user")), "{said}");
    assert_eq!(said[1], "canary-one");
    assert_eq!(said[2], json!([400, "ResourceNotFoundException"]));
    house.close().await;
}
