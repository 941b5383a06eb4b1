use std::sync::Mutex;
use std::time::Duration;

use serde_json::json;

use super::*;
use crate::identity::file::written;
use crate::lease::failure::Class;
use crate::lease::upstream::Life;
use crate::vault::fake::{Act, FakeVault, Seen, call};

const GRANTED: &str = r#"{"request_id":"r","auth":{"client_token":"hvs.login","accessor":"a","lease_duration":3600,"renewable":true,"token_type":"service","num_uses":0}}"#;

fn config(secret_id_file: PathBuf, wrapped: bool) -> AppRoleLoginConfig {
    AppRoleLoginConfig {
        mount: "team/approle".into(),
        role: None,
        role_id: RoleId::Is("r-1".into()),
        secret_id_file,
        wrapped,
    }
}

/// A Vault whose wrapping tokens are good for one use each.
async fn wrapping(creation_path: &'static str) -> FakeVault {
    let used = Mutex::new(Vec::new());
    FakeVault::start(move |seen: &Seen| {
        let gone = || Act::refusal(400, "wrapping token is not valid or does not exist");
        match seen.line.as_str() {
            "POST /v1/sys/wrapping/lookup" => {
                let token = seen.json()["token"].as_str().unwrap_or_default().to_owned();
                if used.lock().unwrap().contains(&token) {
                    return gone();
                }
                let data =
                    json!({ "creation_path": creation_path, "creation_ttl": 60, "creation_time": "x" });
                Act::json(200, &json!({ "request_id": "r", "data": data }).to_string())
            }
            "POST /v1/sys/wrapping/unwrap" => {
                let token = seen.headers["x-vault-token"].clone();
                let mut used = used.lock().unwrap();
                if used.contains(&token) {
                    return gone();
                }
                let data = json!({ "secret_id": format!("canary-of-{token}"), "secret_id_num_uses": 0 });
                used.push(token.clone());
                match token.as_str() {
                    "hvs.unanswered" => Act::Close,
                    _ => Act::json(200, &json!({ "request_id": "r", "data": data }).to_string()),
                }
            }
            _ => Act::json(200, GRANTED),
        }
    })
    .await
}

const GOOD: &str = "auth/team/approle/role/orders/secret-id";

fn lines(vault: &FakeVault) -> Vec<String> {
    let path = |seen: &Seen| seen.line.trim_start_matches("POST /v1/").to_owned();
    vault.seen().iter().map(path).collect()
}

#[tokio::test]
async fn a_secret_id_as_it_is_goes_from_its_file_into_the_request() {
    let dir = tempfile::tempdir().unwrap();
    let vault = FakeVault::always(Act::json(200, GRANTED)).await;
    let role_id = written(&dir, "role", "r-2\n");
    let config = AppRoleLoginConfig {
        role_id: RoleId::In(role_id),
        ..config(written(&dir, "secret", "canary-1\n"), false)
    };
    let login = AppRoleLogin::new(vault.client(), config);
    let minted = login.login(call()).await.unwrap();
    assert_eq!(minted.life, Life::Leased { ttl: Duration::from_secs(3600), renewable: true });
    let seen = &vault.seen()[0];
    assert_eq!(seen.line, "POST /v1/auth/team/approle/login");
    assert_eq!(seen.json(), json!({ "role_id": "r-2", "secret_id": "canary-1" }));
    written(&dir, "secret", "canary-2");
    login.login(call()).await.unwrap();
    assert_eq!(vault.seen()[1].json()["secret_id"], "canary-2");
    assert!(!format!("{login:?}").contains("canary"), "{login:?}");
}

#[tokio::test]
async fn a_wrapped_secret_id_is_unwrapped_once_and_a_new_one_when_it_comes() {
    let dir = tempfile::tempdir().unwrap();
    let vault = wrapping(GOOD).await;
    let file = written(&dir, "secret", "hvs.one");
    let login = AppRoleLogin::new(vault.client(), config(file.clone(), true));
    assert_eq!(login.describe(), "approle role id r-1 at auth/team/approle, secret id wrapped");
    login.login(call()).await.unwrap();
    login.login(call()).await.unwrap();
    let first =
        ["sys/wrapping/lookup", "sys/wrapping/unwrap", "auth/team/approle/login", "auth/team/approle/login"];
    assert_eq!(lines(&vault), first);
    assert_eq!(vault.seen()[3].json()["secret_id"], "canary-of-hvs.one");
    // Whoever delivers may take away what was used.
    std::fs::remove_file(&file).unwrap();
    login.login(call()).await.unwrap();
    written(&dir, "secret", "hvs.two");
    login.login(call()).await.unwrap();
    assert_eq!(vault.seen().pop().unwrap().json()["secret_id"], "canary-of-hvs.two");
    assert_eq!(lines(&vault).iter().filter(|line| line.ends_with("unwrap")).count(), 2);
    assert!(!format!("{login:?}").contains("canary"), "{login:?}");
}

#[tokio::test]
async fn a_wrapping_token_that_was_used_is_to_be_treated_as_stolen() {
    let dir = tempfile::tempdir().unwrap();
    let vault = wrapping(GOOD).await;
    let file = written(&dir, "secret", "hvs.one");
    AppRoleLogin::new(vault.client(), config(file.clone(), true)).login(call()).await.unwrap();
    let failure = AppRoleLogin::new(vault.client(), config(file, true)).login(call()).await.unwrap_err();
    assert_eq!(failure.class, Class::Permanent);
    for words in ["used up or has expired", "treat it as stolen", "secret-id-accessor/destroy", "-wrap-ttl"] {
        assert!(failure.message.contains(words), "{words}: {failure}");
    }
    assert!(!failure.message.contains("got no answer"), "{failure}");
    assert!(!failure.message.contains("hvs.one"), "{failure}");
}

#[tokio::test]
async fn what_was_wrapped_elsewhere_is_not_unwrapped() {
    let dir = tempfile::tempdir().unwrap();
    let file = written(&dir, "secret", "hvs.one");
    for (path, role) in [
        ("sys/wrapping/wrap", None),
        ("auth/approle/role/orders/secret-id", None),
        ("auth/team/approle/role/orders/custom-secret-id", None),
        (GOOD, Some("others")),
    ] {
        let vault = wrapping(path).await;
        let config = AppRoleLoginConfig { role: role.map(str::to_owned), ..config(file.clone(), true) };
        let failure = AppRoleLogin::new(vault.client(), config).login(call()).await.unwrap_err();
        assert_eq!(failure.class, Class::Permanent, "{failure}");
        assert!(failure.message.contains(path) && failure.message.contains("as stolen"), "{failure}");
        assert_eq!(lines(&vault), ["sys/wrapping/lookup"]);
    }
}

#[tokio::test]
async fn an_unwrapping_without_an_answer_is_owned_up_to() {
    let dir = tempfile::tempdir().unwrap();
    let vault = wrapping(GOOD).await;
    let login = AppRoleLogin::new(vault.client(), config(written(&dir, "secret", "hvs.unanswered"), true));
    assert_eq!(login.login(call()).await.unwrap_err().class, Class::Transient);
    let failure = login.login(call()).await.unwrap_err();
    assert_eq!(failure.class, Class::Permanent);
    assert!(failure.message.contains("This broker asked for it before and got no answer"), "{failure}");
    written(&dir, "secret", "hvs.fresh");
    login.login(call()).await.unwrap();
}

#[tokio::test]
async fn each_refusal_names_its_cure() {
    let dir = tempfile::tempdir().unwrap();
    let file = written(&dir, "secret", "canary-1");
    for (status, error, words) in [
        (400, "invalid role or secret ID", "secret_id_num_uses"),
        (400, "invalid role ID", "role-id says"),
        (400, "failed to validate credentials: invalid secret id", "set wrapped = true"),
        (400, "source address \"10.0.0.1\" unauthorized through CIDR restrictions", "secret_id_bound_cidrs"),
        (404, "no handler for route", "enable the AppRole method"),
        (403, "permission denied", "vault auth enable -path=team/approle approle"),
    ] {
        let vault = FakeVault::always(Act::refusal(status, error)).await;
        let login = AppRoleLogin::new(vault.client(), config(file.clone(), false));
        let failure = login.login(call()).await.unwrap_err();
        assert_eq!(failure.class, Class::Permanent, "{failure}");
        assert!(failure.message.contains(words), "{error}: {failure}");
        assert!(!failure.message.contains("canary"), "{failure}");
    }
    let vault = FakeVault::always(Act::json(200, GRANTED)).await;
    let login = AppRoleLogin::new(vault.client(), config(file, true));
    let failure = login.login(call()).await.unwrap_err();
    assert!(
        failure.message.contains("is no wrapping token") && !failure.message.contains("canary"),
        "{failure}"
    );
    assert!(vault.seen().is_empty());
}
