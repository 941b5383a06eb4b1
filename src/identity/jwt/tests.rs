use std::time::Duration;

use super::*;
use crate::identity::file::written;
use crate::lease::failure::Class;
use crate::lease::upstream::Life;
use crate::vault::fake::{Act, FakeVault, call};

const GRANTED: &str = r#"{"request_id":"r","auth":{"client_token":"hvs.login","accessor":"a","lease_duration":3600,"renewable":true,"token_type":"service","num_uses":0}}"#;

fn login(vault: &FakeVault, checked: Checked, token_file: PathBuf) -> JwtLogin {
    let config = JwtLoginConfig { checked, mount: "team/k8s".into(), role: "orders".into(), token_file };
    JwtLogin::new(vault.client(), config)
}

#[tokio::test]
async fn the_request_is_what_vault_wants_and_the_file_is_read_each_time() {
    let dir = tempfile::tempdir().unwrap();
    let vault = FakeVault::always(Act::json(200, GRANTED)).await;
    for (checked, word) in [(Checked::ByKeys, "jwt"), (Checked::ByCluster, "kubernetes")] {
        let file = written(&dir, "token", "canary.first.sig\n");
        let login = login(&vault, checked, file);
        assert_eq!(login.describe(), format!("{word} role orders at auth/team/k8s"));
        let minted = login.login(call()).await.unwrap();
        assert_eq!(minted.life, Life::Leased { ttl: Duration::from_secs(3600), renewable: true });
        assert!(!minted.payload.lent);
        let seen = vault.seen().pop().unwrap();
        assert_eq!(seen.line, "POST /v1/auth/team/k8s/login");
        assert!(!seen.headers.contains_key("x-vault-token"));
        assert_eq!(seen.json(), serde_json::json!({ "jwt": "canary.first.sig", "role": "orders" }));
        written(&dir, "token", "canary.second.sig");
        login.login(call()).await.unwrap();
        assert_eq!(vault.seen().pop().unwrap().json()["jwt"], "canary.second.sig");
        assert!(!format!("{login:?}").contains("canary"), "{login:?}");
    }
}

#[tokio::test]
async fn each_refusal_names_its_cure_and_never_the_token() {
    let dir = tempfile::tempdir().unwrap();
    let file = written(&dir, "token", "canary.token.sig");
    use Checked::{ByCluster, ByKeys};
    for (checked, status, error, words) in [
        (ByKeys, 400, "role \"orders\" could not be found", "There is no role"),
        (ByKeys, 400, "error validating token: validation failed, token is expired (exp)", "has expired"),
        (
            ByKeys,
            400,
            "error validating token: invalid audience (aud) claim: audience claim does not match any bound audience",
            "bound_audiences on auth/team/k8s/role/orders",
        ),
        (ByKeys, 400, "error validating token: invalid issuer (iss) claim", "bound_issuer"),
        (
            ByKeys,
            400,
            "error validating token: no known key successfully validated the token signature",
            "jwks_url",
        ),
        (
            ByKeys,
            400,
            "error verifying token signature: compact JWS format must have three parts",
            "is no JWT",
        ),
        (ByKeys, 400, "error validating claims: claim \"sub\" does not match", "bound_claims"),
        (ByKeys, 404, "no handler for route", "vault auth enable -path=team/k8s jwt"),
        (ByCluster, 400, "invalid role name \"orders\"", "There is no role"),
        (ByCluster, 403, "service account name not authorized", "bound_service_account_names"),
        (ByCluster, 403, "namespace not authorized", "bound_service_account_namespaces"),
        (ByCluster, 400, "invalid audience (aud) claim", "serviceAccountToken.audience"),
        (ByCluster, 403, "lookup failed: service account unauthorized", "deleted or made anew"),
        (ByCluster, 403, "permission denied", "system:auth-delegator"),
        (ByCluster, 404, "no handler for route", "vault auth enable -path=team/k8s kubernetes"),
    ] {
        let vault = FakeVault::always(Act::refusal(status, error)).await;
        let failure = login(&vault, checked, file.clone()).login(call()).await.unwrap_err();
        assert_eq!(failure.class, Class::Permanent, "{failure}");
        assert!(failure.message.contains(words), "{error}: {failure}");
        assert!(!failure.message.contains("canary"), "{failure}");
    }
    for act in [Act::refusal(500, "token is expired"), Act::refusal(429, "quota"), Act::Close] {
        let vault = FakeVault::always(act).await;
        let failure = login(&vault, ByKeys, file.clone()).login(call()).await.unwrap_err();
        assert_eq!(failure.class, Class::Transient, "{failure}");
    }
}

#[tokio::test]
async fn a_file_that_may_come_is_waited_for_and_one_that_is_wrong_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let vault = FakeVault::always(Act::json(200, GRANTED)).await;
    let long = "x".repeat(70_000);
    for (name, text, class, words) in [
        ("empty", Some(" \n"), Class::Transient, "is empty"),
        ("absent", None, Class::Transient, "not there yet"),
        ("two", Some("canary canary"), Class::Permanent, "more than one word"),
        ("long", Some(long.as_str()), Class::Permanent, "larger than"),
        (".", None, Class::Permanent, "is a directory"),
    ] {
        let file = text.map_or_else(|| dir.path().join(name), |text| written(&dir, name, text));
        let failure = login(&vault, Checked::ByKeys, file).login(call()).await.unwrap_err();
        assert_eq!(failure.class, class, "{failure}");
        assert!(failure.message.contains(words), "{failure}");
        assert!(!failure.message.contains("canary"), "{failure}");
    }
    assert!(vault.seen().is_empty());
}
