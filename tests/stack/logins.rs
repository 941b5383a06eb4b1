//! The other logins: AppRole, JWT, TLS certificate, a token in a file, and the choice among them.
//!
//! Each test mounts its own method, so that they can run beside one another. The Kubernetes method
//! needs a cluster to ask, and is not part of the Vault that is built here: what it shares with JWT is proven by that.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};

use crate::broker::{Broker, SOON, Setup};
use crate::harness::{Flavor, Server, text, wait_until};
use crate::http::request;

against_both! {
    approle_with_a_secret_id_as_it_is
    a_wrapped_secret_id_is_used_once_and_kept_for_the_next_login
    a_wrapping_token_that_somebody_used_before_is_stolen
    a_secret_id_that_was_wrapped_elsewhere_is_not_unwrapped
    a_jwt_that_is_renewed_in_its_file
    each_refusal_of_a_jwt_names_its_cause
    a_client_certificate
    a_token_that_is_renewed_and_is_not_ours_to_revoke
    a_token_that_is_replaced_while_it_is_used
    a_token_that_ends_is_told_of_before_it_does
    a_token_that_is_not_fit_is_named
    a_token_that_is_to_be_revoked_is
    auto_takes_what_is_at_hand_and_says_so
}

/// A broker without any login yet.
fn bare(server: &Server) -> Setup<'_> {
    Setup::new(server).without_aws().without("vault.auth.aws")
}

/// A method at a mount of its own, with what its role says.
#[track_caller]
fn mounted(server: &Server, method: &str, mount: &str) {
    server.admin("PUT", &format!("sys/auth/{mount}"), Some(&json!({ "type": method }))).ok();
}

/// The role that is shipped for that login, but for what a test must have otherwise.
fn role(method: &str, more: &Value) -> Value {
    let shipped = format!("{}/policies/vault/{method}-role-orders.json", env!("CARGO_MANIFEST_DIR"));
    let shipped = std::fs::read_to_string(shipped).expect("a shipped role");
    let mut role: Value = serde_json::from_str(&shipped).expect("JSON");
    for (name, value) in more.as_object().expect("members") {
        role[name] = value.clone();
    }
    role
}

/// Hands out a credential that is good, and ends in order.
#[track_caller]
fn serves(broker: Broker<'_>) {
    let server = broker.setup.server;
    let login = broker.credential("orders");
    server.database.use_as(&login.user, &login.password).expect("a good credential");
    broker.finish();
    assert_eq!(server.database.existing(&[login.user]), [""; 0]);
}

/// What the process said as it ended at its start, for good.
#[track_caller]
fn refusal(setup: &Setup<'_>, words: &[&str]) {
    let (code, log) = setup.refused();
    assert_eq!(code, 1, "{log}");
    let message = log.lines().rev().find(|line| line.starts_with("error: ")).unwrap_or_default();
    for word in words {
        assert!(message.contains(word), "its message lacks {word:?}:\n{log}");
    }
}

/// Replaces a file as a whole.
fn put(path: &Path, content: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, content).expect("a file");
    std::fs::rename(new, path).expect("in its place");
}

/// Ends the login token, as an operator may, and sees another login.
#[track_caller]
fn lose_login(broker: &Broker<'_>, path: &str, logins: usize) {
    let server = broker.setup.server;
    let journal = std::fs::read_to_string(broker.path("audit.jsonl.orphans")).expect("the journal");
    let mut lines = journal.lines().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let last = lines.find(|line| line["token"]["kind"] == "login").expect("a login");
    let accessor = json!({ "accessor": last["token"]["accessor"] });
    server.admin("PUT", "auth/token/revoke-accessor", Some(&accessor)).ok();
    // The next run token needs it: the loss is noticed by the renewal at the latest.
    wait_until("another login", SOON, || server.asked(&broker.run, path) >= logins);
    wait_until("ready", SOON, || broker.get("/tenure/ready").status == 200);
}

struct AppRole<'a> {
    server: &'a Server,
    mount: String,
    id: String,
}

impl<'a> AppRole<'a> {
    #[track_caller]
    fn new(server: &'a Server, mount: &str, more: &Value) -> Self {
        mounted(server, "approle", mount);
        let path = format!("auth/{mount}/role/orders");
        server.admin("PUT", &path, Some(&role("approle", more))).ok();
        let id = server.admin("GET", &format!("{path}/role-id"), None).ok();
        Self { server, mount: mount.to_owned(), id: text(&id["data"]["role_id"]).to_owned() }
    }

    fn secret_id(&self) -> String {
        let path = format!("auth/{}/role/orders/secret-id", self.mount);
        text(&self.server.admin("PUT", &path, None).ok()["data"]["secret_id"]).to_owned()
    }

    fn wrapped(&self) -> String {
        wrapped(self.server, &format!("auth/{}/role/orders/secret-id", self.mount), &json!({}))
    }

    fn setup(&self, content: &str, wrapped: bool) -> Setup<'a> {
        let setup = bare(self.server);
        let file = setup.dir().join("secret-id");
        put(&file, content);
        setup.and(&format!(
            "[vault.auth.approle]\nrole_id = {:?}\nsecret_id_file = {:?}\nmount = {:?}\nwrapped = {wrapped}\n",
            self.id,
            file.display().to_string(),
            self.mount
        ))
    }
}

/// The token that the answer to a request is wrapped in.
#[track_caller]
fn wrapped(server: &Server, path: &str, body: &Value) -> String {
    let headers = [("x-vault-token", server.says("root_token")), ("x-vault-wrap-ttl", "120s")];
    let answer = request(&server.place(), "PUT", &format!("/v1/{path}"), &headers, Some(body));
    text(&answer.expect("an answer").ok()["wrap_info"]["token"]).to_owned()
}

fn approle_with_a_secret_id_as_it_is(server: &Server) {
    let approle = AppRole::new(server, "approle-plain", &json!({}));
    let secret_id = approle.secret_id();
    let broker = approle.setup(&secret_id, false).start();
    assert!(broker.tenure(&["status"]).1.contains(&format!("role id {} at auth/approle-plain", approle.id)));
    assert!(!broker.log().contains(&secret_id));
    serves(broker);
    let wrong = "00000000-0000-0000-0000-000000000000";
    refusal(&approle.setup(wrong, false), &["Vault does not say which", "secret_id_num_uses"]);
    refusal(&approle.setup(wrong, true), &["no wrapping token", "wrapped = false"]);
    let nowhere = AppRole { server, mount: "nowhere".to_owned(), id: "x".to_owned() };
    refusal(&nowhere.setup(wrong, false), &["vault auth enable -path=nowhere approle"]);
}

fn a_wrapped_secret_id_is_used_once_and_kept_for_the_next_login(server: &Server) {
    let approle =
        AppRole::new(server, "approle-wrapped", &json!({ "token_ttl": "6s", "token_max_ttl": "20s" }));
    let setup = approle.setup(&approle.wrapped(), true);
    let broker = setup.start();
    let asked = |path: &str| server.asked(&broker.run, path);
    assert_eq!((asked("sys/wrapping/lookup"), asked("sys/wrapping/unwrap")), (1, 1));
    lose_login(&broker, "auth/approle-wrapped/login", 2);
    assert_eq!((asked("sys/wrapping/lookup"), asked("sys/wrapping/unwrap")), (1, 1), "it was kept");
    // A fresh one is taken when the next login needs it.
    put(&broker.path("secret-id"), &approle.wrapped());
    lose_login(&broker, "auth/approle-wrapped/login", 3);
    assert_eq!((asked("sys/wrapping/lookup"), asked("sys/wrapping/unwrap")), (2, 2));
    serves(broker);
}

fn a_wrapping_token_that_somebody_used_before_is_stolen(server: &Server) {
    let approle = AppRole::new(server, "approle-stolen", &json!({}));
    let wrapping = approle.wrapped();
    let thief = [("x-vault-token", wrapping.as_str())];
    let taken =
        request(&server.place(), "PUT", "/v1/sys/wrapping/unwrap", &thief, None).expect("an answer").ok();
    assert!(taken["data"]["secret_id"].is_string());
    let setup = approle.setup(&wrapping, true);
    refusal(&setup, &["used up or has expired", "treat it as stolen", "secret-id-accessor/destroy"]);
}

fn a_secret_id_that_was_wrapped_elsewhere_is_not_unwrapped(server: &Server) {
    let approle = AppRole::new(server, "approle-elsewhere", &json!({}));
    // What somebody who took the secret id out puts in its place: the same, wrapped by their own hands.
    let body = json!({ "secret_id": approle.secret_id() });
    let wrapping = wrapped(server, "sys/wrapping/wrap", &body);
    let setup = approle.setup(&wrapping, true);
    refusal(&setup, &["sys/wrapping/wrap", "not unwrapped", "stolen"]);
    let still = server.admin("PUT", "sys/wrapping/lookup", Some(&json!({ "token": wrapping }))).ok();
    assert_eq!(still["data"]["creation_path"], "sys/wrapping/wrap", "it was left as it is");
    let custom = json!({ "secret_id": "00000000-0000-0000-0000-00000000beef" });
    let custom = wrapped(server, "auth/approle-elsewhere/role/orders/custom-secret-id", &custom);
    refusal(&approle.setup(&custom, true), &["custom-secret-id", "not unwrapped"]);
}

/// HashiCorp has namespaces in Vault Enterprise only. The login is good, as it is the token role that is missed.
#[test]
fn a_secret_id_is_unwrapped_in_its_namespace() {
    let server = Flavor::OpenBao.shared();
    server.admin("PUT", "sys/namespaces/team-approle", Some(&json!({}))).ok();
    let at = |path: &str| format!("team-approle/{path}");
    server.admin("PUT", &at("sys/auth/approle"), Some(&json!({ "type": "approle" }))).ok();
    let orders = json!({ "token_policies": ["default"], "token_ttl": "1h" });
    server.admin("PUT", &at("auth/approle/role/orders"), Some(&orders)).ok();
    let id = server.admin("GET", &at("auth/approle/role/orders/role-id"), None).ok();
    let id = text(&id["data"]["role_id"]).to_owned();
    let approle = AppRole { server, mount: "approle".to_owned(), id };
    let wrapping = wrapped(server, &at("auth/approle/role/orders/secret-id"), &json!({}));
    let setup = approle.setup(&wrapping, true).set("vault", "namespace", "team-approle");
    refusal(&setup, &["auth/token/create/run"]);
}

/// An issuer of tokens that Vault knows by its public key.
struct Issuer(Ed25519KeyPair);

impl Issuer {
    fn new() -> Self {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("a key");
        Self(Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).expect("a key"))
    }

    /// The public key as `SubjectPublicKeyInfo` (RFC 8410), PEM.
    fn pem(&self) -> String {
        let mut der = vec![0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
        der.extend_from_slice(self.0.public_key().as_ref());
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der))
    }

    fn token(&self, audience: &str, seconds: i64) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs().cast_signed();
        let claims = json!({
            "iss": "https://ci.test", "aud": audience, "sub": "pipeline", "iat": now - 4000, "nbf": now - 4000,
            "exp": now + seconds,
        });
        let encoded = |text: String| URL_SAFE_NO_PAD.encode(text);
        let head = encoded(json!({ "alg": "EdDSA", "typ": "JWT" }).to_string());
        let message = format!("{head}.{}", encoded(claims.to_string()));
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(self.0.sign(message.as_bytes())))
    }

    /// Vault takes its tokens, and nobody else's.
    fn known(&self, server: &Server, mount: &str) {
        let config = json!({ "jwt_validation_pubkeys": [self.pem()], "jwt_supported_algs": ["EdDSA"] });
        server.admin("PUT", &format!("auth/{mount}/config"), Some(&config)).ok();
    }

    #[track_caller]
    fn trusted(&self, server: &Server, mount: &str) {
        mounted(server, "jwt", mount);
        self.known(server, mount);
        let short = json!({
            "bound_claims": { "sub": ["pipeline"] }, "token_ttl": "6s", "token_max_ttl": "20s",
        });
        let role = role("jwt", &short);
        server.admin("PUT", &format!("auth/{mount}/role/orders"), Some(&role)).ok();
    }
}

fn with_jwt<'a>(server: &'a Server, mount: &str, role: &str, token: &str) -> Setup<'a> {
    let setup = bare(server);
    let file = setup.dir().join("jwt");
    put(&file, token);
    let file = file.display().to_string();
    setup.and(&format!("[vault.auth.jwt]\nrole = {role:?}\ntoken_file = {file:?}\nmount = {mount:?}\n"))
}

fn a_jwt_that_is_renewed_in_its_file(server: &Server) {
    let issuer = Issuer::new();
    issuer.trusted(server, "jwt-file");
    let first = issuer.token("vault", 600);
    let broker = with_jwt(server, "jwt-file", "orders", &first).start();
    assert!(broker.tenure(&["status"]).1.contains("jwt role orders at auth/jwt-file"));
    // The issuer has changed its key, and what it signed before is of no use any more.
    let issuer = Issuer::new();
    issuer.known(server, "jwt-file");
    put(&broker.path("jwt"), &issuer.token("vault", 600));
    lose_login(&broker, "auth/jwt-file/login", 2);
    assert!(!broker.log().contains(&first));
    serves(broker);
}

fn each_refusal_of_a_jwt_names_its_cause(server: &Server) {
    let issuer = Issuer::new();
    issuer.trusted(server, "jwt-refused");
    let jwt = |role: &str, token: &str| with_jwt(server, "jwt-refused", role, token);
    refusal(&jwt("nobody", &issuer.token("vault", 600)), &["There is no role \"nobody\""]);
    refusal(&jwt("orders", &issuer.token("vault", -1000)), &["has expired"]);
    refusal(&jwt("orders", &issuer.token("else", 600)), &["for another audience", "bound_audiences"]);
    refusal(
        &jwt("orders", &Issuer::new().token("vault", 600)),
        &["not signed by a key", "jwt_validation_pubkeys"],
    );
    refusal(&jwt("orders", "nonsense"), &["is no JWT"]);
}

fn a_client_certificate(server: &Server) {
    mounted(server, "cert", "cert-orders");
    let authority = std::fs::read_to_string(server.says("ca_file")).expect("the authority");
    let orders = role("cert", &json!({ "certificate": authority, "allowed_dns_sans": ["tenure.test"] }));
    server.admin("PUT", "auth/cert-orders/certs/orders", Some(&orders)).ok();
    let others = role("cert", &json!({ "certificate": authority, "allowed_dns_sans": ["others.test"] }));
    server.admin("PUT", "auth/cert-orders/certs/others", Some(&others)).ok();
    let tls = |address: &str, toml: &str| {
        bare(server)
            .set("vault", "address", server.says(address))
            .set("vault", "ca_file", server.says("ca_file"))
            .set("vault", "tls_server_name", server.says("server_name"))
            .set("vault", "client_cert", server.says("client_cert"))
            .set("vault", "client_key", server.says("client_key"))
            .and(&format!("[vault.auth.cert]\nmount = \"cert-orders\"\n{toml}"))
    };
    let broker = tls("mtls_address", "role = \"orders\"\n").start();
    assert!(broker.tenure(&["status"]).1.contains("cert role orders at auth/cert-orders"));
    serves(broker);
    // Vault asks for a certificate where it does not demand one, too; and it finds the role itself.
    serves(tls("tls_address", "").start());
    refusal(
        &tls("mtls_address", "role = \"others\"\n"),
        &["auth/cert-orders/certs/others", "allowed_dns_sans"],
    );
}

/// A token for the broker, as somebody else makes it: itself and its accessor.
#[track_caller]
fn made(server: &Server, more: &Value) -> (String, String) {
    let mut body =
        json!({ "policies": ["tenure-login"], "no_default_policy": true, "no_parent": true, "ttl": "1h" });
    for (name, value) in more.as_object().expect("members") {
        body[name] = value.clone();
    }
    let auth = server.admin("PUT", "auth/token/create", Some(&body)).ok()["auth"].clone();
    (text(&auth["client_token"]).to_owned(), auth["accessor"].as_str().unwrap_or_default().to_owned())
}

fn with_token<'a>(server: &'a Server, token: &str, more: &str) -> Setup<'a> {
    let setup = bare(server);
    let file = setup.dir().join("vault-token");
    put(&file, token);
    setup.and(&format!("[vault.auth.token]\nfile = {:?}\n{more}", file.display().to_string()))
}

fn lives(server: &Server, accessor: &str) -> bool {
    let body = json!({ "accessor": accessor });
    server.admin("PUT", "auth/token/lookup-accessor", Some(&body)).status == 200
}

fn a_token_that_is_renewed_and_is_not_ours_to_revoke(server: &Server) {
    let (token, accessor) = made(server, &json!({ "ttl": "12s", "explicit_max_ttl": "5m" }));
    let broker = with_token(server, &token, "").start();
    let (_, status, _) = broker.tenure(&["status"]);
    assert!(status.contains("token of ") && status.contains("vault-token"), "{status}");
    wait_until("two renewals", SOON, || server.asked(&broker.run, "auth/token/renew-self") >= 2);
    let journal = std::fs::read_to_string(broker.path("audit.jsonl.orphans")).expect("the journal");
    assert!(!journal.contains(&accessor), "not for the next start to revoke: {journal}");
    let login = broker.credential("orders");
    let finished = broker.finish();
    assert!(lives(server, &accessor), "it is somebody else's");
    assert_eq!(server.database.existing(&[login.user]), [""; 0]);
    assert!(text(&finished.of("login.end")[0]["detail"]).contains("somebody else's"));
    // A crash leaves it alone, too.
    let (token, accessor) = made(server, &json!({}));
    let setup = with_token(server, &token, "");
    let mut crashed = setup.start();
    crashed.kill();
    setup.start().finish();
    assert!(lives(server, &accessor), "it is somebody else's");
}

fn a_token_that_is_replaced_while_it_is_used(server: &Server) {
    let (first, accessor) = made(server, &json!({}));
    let broker = with_token(server, &first, "").start();
    let credential = broker.credential("orders");
    let (second, _) = made(server, &json!({}));
    put(&broker.path("vault-token"), &second);
    wait_until("the second in use", SOON, || broker.audited("login") == 2);
    // Whoever replaced the first may end it: nothing is lost by that.
    server.admin("PUT", "auth/token/revoke-accessor", Some(&json!({ "accessor": accessor }))).ok();
    assert_eq!(broker.credential("orders"), credential, "the run does not notice");
    assert_eq!(broker.get("/tenure/ready").status, 200);
    // One that is no good is told of, and what is held goes on.
    put(&broker.path("vault-token"), "hvs.0000");
    wait_until("the trouble told", SOON, || broker.log().contains("is not one that Vault knows"));
    assert_eq!(broker.get("/tenure/ready").status, 200);
    let (third, _) = made(server, &json!({}));
    put(&broker.path("vault-token"), &third);
    wait_until("the third in use", SOON, || {
        broker.status()["login"]["trouble"].is_null() && broker.audited("login") > 3
    });
    let finished = broker.finish();
    assert_eq!(finished.of("token.lost").len(), 0);
}

fn a_token_that_ends_is_told_of_before_it_does(server: &Server) {
    let (token, _) = made(server, &json!({ "ttl": "20s", "renewable": false }));
    let broker = with_token(server, &token, "").start();
    let began = Instant::now();
    let why = "nobody has renewed or replaced it";
    wait_until("the end told of", SOON, || broker.log().contains(why));
    assert!(began.elapsed() < Duration::from_secs(19), "only after {:?}", began.elapsed());
    assert_eq!(broker.get("/tenure/ready").status, 200, "it is still good");
    assert_eq!(server.asked(&broker.run, "auth/token/renew-self"), 0);
    let (next, _) = made(server, &json!({}));
    put(&broker.path("vault-token"), &next);
    wait_until("the next in use", SOON, || broker.status()["login"]["trouble"].is_null());
    assert!(broker.status()["login"]["left_seconds"].as_i64() > Some(60));
    serves(broker);
}

fn a_token_that_is_not_fit_is_named(server: &Server) {
    let (batch, _) = made(server, &json!({ "type": "batch" }));
    refusal(&with_token(server, &batch, ""), &["is a batch token", "vault token create"]);
    let (uses, _) = made(server, &json!({ "num_uses": 5 }));
    refusal(&with_token(server, &uses, ""), &["uses only"]);
    refusal(&with_token(server, server.says("root_token"), ""), &["never ends"]);
    let (ended, accessor) = made(server, &json!({}));
    server.admin("PUT", "auth/token/revoke-accessor", Some(&json!({ "accessor": accessor }))).ok();
    refusal(&with_token(server, &ended, ""), &["is not one that Vault knows", "Put another there"]);
}

fn a_token_that_is_to_be_revoked_is(server: &Server) {
    let (token, accessor) = made(server, &json!({}));
    let broker = with_token(server, &token, "revoke = true\n").start();
    assert!(broker.tenure(&["status"]).1.contains("revoked at the end"));
    serves(broker);
    assert!(!lives(server, &accessor));
}

fn auto_takes_what_is_at_hand_and_says_so(server: &Server) {
    let auto = "[vault.auth]\nmethod = \"auto\"\n[vault.auth.kubernetes]\nrole = \"orders\"\n\
                token_file = \"/nowhere/serviceaccount/token\"\n";
    let (token, accessor) = made(server, &json!({}));
    let setup = with_token(server, &token, auto).env("VAULT_TOKEN", server.says("root_token"));
    let broker = setup.start();
    let (_, status, _) = broker.tenure(&["status"]);
    assert!(status.contains("(auto: ") && status.contains("vault-token is there)"), "{status}");
    assert!(broker.log().contains("the login was chosen by what is at hand"), "{}", broker.log());
    serves(broker);
    assert!(lives(server, &accessor));
    // With the AWS credentials of a task in the environment it is AWS; the token is left alone.
    let aws = format!(
        "{auto}[vault.auth.aws]\nrole = \"orders\"\nserver_id = {:?}\nregion = {:?}\n",
        server.says("server_id"),
        text(&server.sts()["region"])
    );
    let broker = with_token(server, &token, &aws).aws(server.sts()).start();
    let (_, status, _) = broker.tenure(&["status"]);
    assert!(status.contains("aws role orders at auth/aws (auto: AWS_ACCESS_KEY_ID is set)"), "{status}");
    serves(broker);
    // A token in the environment is not a means.
    let nothing = bare(server).and(auto).env("VAULT_TOKEN", server.says("root_token"));
    refusal(&nothing, &["/nowhere/serviceaccount/token for kubernetes", "VAULT_TOKEN is not looked at"]);
}
