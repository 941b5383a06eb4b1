use super::*;
use crate::lease::failure::Class;
use crate::vault::fake::{Act, FakeVault, call};

const GRANTED: &str = r#"{"request_id":"r","auth":{"client_token":"hvs.login","accessor":"a","lease_duration":3600,"renewable":true,"token_type":"service"}}"#;

fn login(vault: &FakeVault, role: Option<&str>) -> CertLogin {
    let config = CertLoginConfig { mount: "cert".into(), role: role.map(str::to_owned) };
    CertLogin::new(vault.client(), config)
}

#[tokio::test]
async fn the_role_is_named_where_it_is_known() {
    let vault = FakeVault::always(Act::json(200, GRANTED)).await;
    for (role, body, words) in [
        (Some("orders"), serde_json::json!({ "name": "orders" }), "cert role orders at auth/cert"),
        (None, serde_json::Value::Null, "cert at auth/cert"),
    ] {
        let login = login(&vault, role);
        assert_eq!(login.describe(), words);
        login.login(call()).await.unwrap();
        let seen = vault.seen().pop().unwrap();
        assert_eq!((seen.line.as_str(), seen.json()), ("POST /v1/auth/cert/login", body));
    }
}

#[tokio::test]
async fn each_refusal_names_its_cure() {
    for (error, words) in [
        ("tls connection required", "ends TLS"),
        ("client certificate must be supplied", "tls_disable_client_certs"),
        (
            "no chain matching all constraints could be found for this login certificate",
            "allowed_common_names",
        ),
        ("invalid certificate or no client certificate supplied", "no certificate"),
        ("missing client token", "vault auth enable -path=cert cert"),
    ] {
        let vault = FakeVault::always(Act::refusal(400, error)).await;
        let failure = login(&vault, None).login(call()).await.unwrap_err();
        assert_eq!(failure.class, Class::Permanent, "{failure}");
        assert!(failure.message.contains(words), "{error}: {failure}");
    }
}
