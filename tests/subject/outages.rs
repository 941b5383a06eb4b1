//! Providers that are down, slow, or say nonsense.

use serde_json::{Value, json};
use tenure::lease::failure::Class;
use tenure::run::subject::SubjectError;

use super::keys::Key;
use super::provider::{Fault, Provider};
use super::{at, check, oidc, unavailable};

#[tokio::test]
async fn known_keys_go_on_for_a_day_while_the_provider_is_down() {
    let key = Key::p256("k");
    let provider = Provider::start(&[&key]).await;
    let oidc = oidc(&provider);
    let mut claims = provider.claims_with("exp", json!(super::NOW + 7 * 86_400));
    claims["sub"] = json!("ada");
    let (good, unknown) = (key.token(&claims), Key::p256("u").token(&claims));
    check(&oidc, &good, at(0)).await.unwrap();
    provider.down();
    check(&oidc, &good, at(100)).await.expect("fresh");
    let said = unavailable(check(&oidc, &unknown, at(100)).await);
    assert!(said.contains("cannot ask http://127.0.0.1"), "{said}");
    check(&oidc, &good, at(3600)).await.expect("no longer fresh, and still there");
    check(&oidc, &good, at(86_399)).await.expect("almost a day");
    unavailable(check(&oidc, &good, at(86_400)).await);
    let asked = provider.count("");
    for _ in 0..100 {
        match check(&oidc, &good, at(86_405)).await {
            Err(SubjectError::Unavailable(failure)) => {
                assert_eq!(failure.retry_after.map(|wait| wait.as_secs()), Some(4));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(provider.count(""), asked, "a provider that is down is not asked all the time");
    provider.recover();
    check(&oidc, &good, at(86_410)).await.expect("it is back");
}

#[tokio::test]
async fn a_slow_provider_is_named() {
    let key = Key::p256("k");
    let provider = Provider::start(&[&key]).await;
    let oidc = oidc(&provider);
    let token = key.token(&provider.claims());
    for path in ["openid-configuration", "jwks"] {
        provider.recover();
        provider.fail(path, Fault::Hang);
        tokio::time::pause();
        let second = if path == "jwks" { 100 } else { 0 };
        let said = unavailable(check(&oidc, &token, at(second)).await);
        tokio::time::resume();
        assert!(said.contains(path) && said.contains("within 5s"), "{said}");
    }
    provider.recover();
    check(&oidc, &token, at(200)).await.unwrap();
}

#[tokio::test]
async fn nonsense_is_named_and_does_not_replace_what_is_known() {
    let key = Key::p256("k");
    for path in ["openid-configuration", "jwks"] {
        for (fault, why, class) in [
            (Fault::Status(500), "answered 500", Class::Transient),
            (Fault::Status(404), "answered 404: there is nothing", Class::Permanent),
            (Fault::Close, "closed before an answer came", Class::Transient),
            (Fault::Huge, "larger than 256 KiB", Class::Transient),
            (
                Fault::Garbage,
                if path == "jwks" { "is not a JWK Set" } else { "is no discovery document" },
                Class::Transient,
            ),
            (Fault::Redirect, "answered 302 with a redirect, which is not followed", Class::Permanent),
        ] {
            let provider = Provider::start(&[&key]).await;
            let oidc = oidc(&provider);
            let token = key.token(&provider.claims());
            provider.fail(path, fault);
            match check(&oidc, &token, at(0)).await {
                Err(SubjectError::Unavailable(failure)) => {
                    assert!(failure.message.contains(why), "{path} {fault:?}: {}", failure.message);
                    assert!(failure.message.contains(path), "{}", failure.message);
                    assert_eq!(failure.class, class, "{path} {fault:?}");
                }
                other => panic!("{path} {fault:?}: {other:?}"),
            }
            assert_eq!(provider.count("elsewhere"), 0);
            provider.recover();
            check(&oidc, &token, at(10)).await.unwrap();
            provider.fail(path, fault);
            check(&oidc, &token, at(600)).await.expect("what is known goes on");
        }
    }
}

#[tokio::test]
async fn a_discovery_document_must_be_the_issuers_own() {
    let key = Key::p256("k");
    for (name, value, why) in [
        (
            "issuer",
            json!("https://evil.example.com"),
            "document of another issuer, \"https://evil.example.com\"",
        ),
        ("issuer", Value::Null, "is no discovery document"),
        ("jwks_uri", json!("http://169.254.169.254/latest"), "plain http, which may not leave the machine"),
        ("jwks_uri", json!("https://127.0.0.1/jwks"), "not reached as its issuer is"),
        ("jwks_uri", json!("file:///etc/passwd"), "is not"),
        ("jwks_uri", Value::Null, "names no keys"),
    ] {
        let provider = Provider::start(&[&key]).await;
        provider.set_discovery(name, value.clone());
        let said = unavailable(check(&oidc(&provider), &key.token(&provider.claims()), at(0)).await);
        assert!(said.contains(why), "{name} {value}: {said}");
    }
    let provider = Provider::start(&[&key]).await;
    provider.set_discovery("issuer", json!(format!("{}/", provider.issuer)));
    unavailable(check(&oidc(&provider), &key.token(&provider.claims()), at(0)).await);
}

#[tokio::test]
async fn too_many_keys_are_too_many() {
    let key = Key::p256("k");
    let provider = Provider::start(&[]).await;
    provider.set_jwks(vec![key.jwk(); 101]);
    let said = unavailable(check(&oidc(&provider), &key.token(&provider.claims()), at(0)).await);
    assert!(said.contains("has 101 keys"), "{said}");
}
