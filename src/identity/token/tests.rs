use serde_json::json;

use super::*;
use crate::identity::file::written;
use crate::vault::fake::{Act, FakeVault, Seen, call};

fn facts(more: &serde_json::Value) -> Act {
    let mut data = json!({
        "accessor": "acc", "ttl": 3600, "renewable": true, "type": "service", "num_uses": 0, "orphan": true,
        "policies": ["tenure-login"], "id": "hvs.echo",
    });
    for (name, value) in more.as_object().unwrap() {
        data[name] = value.clone();
    }
    Act::json(200, &json!({ "request_id": "r", "data": data }).to_string())
}

fn login(vault: &FakeVault, file: PathBuf, revoke: bool) -> TokenLogin {
    TokenLogin::new(vault.client(), TokenLoginConfig { file, revoke })
}

#[tokio::test]
async fn a_token_is_looked_up_and_lent() {
    let dir = tempfile::tempdir().unwrap();
    let file = written(&dir, "token", "hvs.canary\n");
    let vault = FakeVault::always(facts(&json!({}))).await;
    for revoke in [false, true] {
        let login = login(&vault, file.clone(), revoke);
        let minted = login.login(call()).await.unwrap();
        assert_eq!(minted.life, Life::Leased { ttl: Duration::from_secs(3600), renewable: true });
        assert!(minted.payload.credential.matches(b"hvs.canary"));
        assert_eq!((minted.payload.accessor.as_str(), minted.payload.lent), ("acc", !revoke));
        let seen = vault.seen().pop().unwrap();
        assert_eq!(seen.line, "GET /v1/auth/token/lookup-self");
        assert_eq!(seen.headers["x-vault-token"], "hvs.canary");
        assert!(!format!("{login:?}").contains("canary"), "{login:?}");
    }
}

#[tokio::test]
async fn a_token_that_is_not_fit_is_named_with_its_cure() {
    let dir = tempfile::tempdir().unwrap();
    let file = written(&dir, "token", "hvs.canary");
    for (act, words) in [
        (facts(&json!({ "type": "batch" })), "is a batch token"),
        (facts(&json!({ "num_uses": 3 })), "for 3 uses only"),
        (facts(&json!({ "ttl": 0 })), "never ends"),
        (Act::refusal(403, "permission denied"), "is not one that Vault knows"),
        (Act::refusal(404, "no handler for route"), "nothing is mounted"),
    ] {
        let vault = FakeVault::always(act).await;
        let failure = login(&vault, file.clone(), false).login(call()).await.unwrap_err();
        assert_eq!(failure.class, Class::Permanent, "{failure}");
        assert!(failure.message.contains(words), "{failure}");
        assert!(!failure.message.contains("canary"), "{failure}");
    }
    let vault = FakeVault::always(Act::refusal(503, "Vault is sealed")).await;
    let failure = login(&vault, file, false).login(call()).await.unwrap_err();
    assert_eq!(failure.class, Class::Transient, "{failure}");
}

/// The token `hvs.<n>` has `n` seconds left.
fn by_its_name(seen: &Seen) -> Act {
    if seen.headers["x-vault-token"] == "hvs.sealed" {
        return Act::refusal(503, "Vault is sealed");
    }
    let left = seen.headers["x-vault-token"].rsplit('.').next().unwrap_or_default();
    facts(&json!({ "ttl": left.parse::<u64>().unwrap_or_default(), "renewable": false }))
}

#[tokio::test]
async fn a_token_near_its_end_is_not_given_out_again_until_it_is_renewed_or_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let file = written(&dir, "token", "hvs.100");
    let left = Arc::new(Mutex::new(100_u64));
    let told = Arc::clone(&left);
    let vault = FakeVault::start(move |seen| match seen.headers["x-vault-token"].as_str() {
        "hvs.100" => facts(&json!({ "ttl": *told.lock().unwrap(), "renewable": false })),
        _ => by_its_name(seen),
    })
    .await;
    let login = login(&vault, file, false);
    login.login(call()).await.unwrap();
    // Half of it is left: it may have been put back.
    *left.lock().unwrap() = 50;
    login.login(call()).await.unwrap();
    *left.lock().unwrap() = 30;
    let failure = login.login(call()).await.unwrap_err();
    assert_eq!(failure.class, Class::Transient);
    assert!(failure.message.contains("ends in 30s, and nobody has renewed or replaced it"), "{failure}");
    // Its owner renewed it.
    *left.lock().unwrap() = 200;
    login.login(call()).await.unwrap();
    *left.lock().unwrap() = 30;
    login.login(call()).await.unwrap_err();
    written(&dir, "token", "hvs.60");
    let minted = login.login(call()).await.unwrap();
    assert_eq!(minted.life, Life::Leased { ttl: Duration::from_secs(60), renewable: false });
}

#[tokio::test]
async fn another_file_in_its_place_is_noticed_and_tried_once() {
    let dir = tempfile::tempdir().unwrap();
    let file = written(&dir, "token", "hvs.100");
    let vault = FakeVault::start(by_its_name).await;
    let login = login(&vault, file.clone(), false);
    assert!(!login.is_outdated(), "nothing was read yet");
    login.login(call()).await.unwrap();
    assert!(!login.is_outdated());
    std::fs::remove_file(&file).unwrap();
    assert!(!login.is_outdated(), "gone is not replaced");
    std::fs::rename(written(&dir, "new", "hvs.0"), &file).unwrap();
    assert!(login.is_outdated());
    login.login(call()).await.unwrap_err();
    assert!(!login.is_outdated(), "what is no good is retried with a delay, not because the file is new");
    std::fs::rename(written(&dir, "new", "hvs.sealed"), &file).unwrap();
    assert!(login.is_outdated());
    login.login(call()).await.unwrap_err();
    assert!(login.is_outdated(), "Vault has not said anything of it");
}
