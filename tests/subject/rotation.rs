//! Keys come and go.

use std::sync::Arc;

use super::keys::Key;
use super::provider::Provider;
use super::{at, check, oidc, refused};

#[tokio::test]
async fn an_unknown_key_is_asked_for_once() {
    let key = Key::p256("k");
    let provider = Provider::start(&[&key]).await;
    let oidc = oidc(&provider);
    let (good, unknown) = (key.token(&provider.claims()), Key::p256("u").token(&provider.claims()));
    check(&oidc, &good, at(0)).await.unwrap();
    for second in 10..20 {
        let said = refused(check(&oidc, &unknown, at(second)).await);
        assert!(said.contains("none of the 1 that http://127.0.0.1"), "{said}");
    }
    assert_eq!(provider.count("jwks"), 2, "once more, and then not for ten seconds");
    refused(check(&oidc, &unknown, at(20)).await);
    assert_eq!(provider.count("jwks"), 3);
    check(&oidc, &good, at(20)).await.unwrap();
}

#[tokio::test]
async fn a_rotation_is_followed() {
    let (old, new) = (Key::rsa("old", 0), Key::rsa("new", 1));
    let provider = Provider::start(&[&old]).await;
    let oidc = oidc(&provider);
    let (by_old, by_new) = (old.token(&provider.claims()), new.token(&provider.claims()));
    check(&oidc, &by_old, at(0)).await.unwrap();
    provider.set_keys(&[&old, &new]);
    check(&oidc, &by_new, at(30)).await.unwrap();
    check(&oidc, &by_old, at(30)).await.unwrap();
    provider.set_keys(&[&new]);
    check(&oidc, &by_old, at(60)).await.expect("the keys are fresh");
    // Whoever comes with a key that is not known has the removal noticed.
    refused(check(&oidc, &Key::p256("x").token(&provider.claims()), at(60)).await);
    refused(check(&oidc, &by_old, at(61)).await);
    check(&oidc, &by_new, at(61)).await.unwrap();
    assert_eq!((provider.count("jwks"), provider.count("openid-configuration")), (3, 1));
}

#[tokio::test]
async fn a_removal_is_noticed_when_the_keys_are_no_longer_fresh() {
    let (old, new) = (Key::p256("old"), Key::p256("new"));
    let provider = Provider::start(&[&old]).await;
    provider.set_cache_control("public, max-age=120");
    let oidc = oidc(&provider);
    let token = old.token(&provider.claims());
    check(&oidc, &token, at(0)).await.unwrap();
    provider.set_keys(&[&new]);
    check(&oidc, &token, at(119)).await.unwrap();
    refused(check(&oidc, &token, at(120)).await);
    assert_eq!(provider.count("jwks"), 2);
}

#[tokio::test]
async fn ten_thousand_checks_cost_one_question() {
    let key = Key::ed25519("k");
    let provider = Provider::start(&[&key]).await;
    provider.set_latency(std::time::Duration::from_millis(20));
    let oidc = oidc(&provider);
    let (good, unknown) = (key.token(&provider.claims()), Key::ed25519("u").token(&provider.claims()));
    let checks: Vec<_> = (0..10_000)
        .map(|i| {
            let (oidc, token) = (Arc::clone(&oidc), if i % 2 == 0 { &good } else { &unknown }.clone());
            tokio::spawn(async move { check(&oidc, &token, at(0)).await.is_ok() })
        })
        .collect();
    let mut taken = 0;
    for one in checks {
        taken += usize::from(one.await.unwrap());
    }
    assert_eq!(taken, 5_000);
    assert_eq!((provider.count("jwks"), provider.count("openid-configuration")), (1, 1));
}

#[tokio::test]
async fn whoever_goes_away_costs_the_others_nothing() {
    let key = Key::ed25519("k");
    let provider = Provider::start(&[&key]).await;
    provider.set_latency(std::time::Duration::from_millis(20));
    let oidc = oidc(&provider);
    let token = key.token(&provider.claims());
    let leader = {
        let (oidc, token) = (Arc::clone(&oidc), token.clone());
        tokio::spawn(async move { check(&oidc, &token, at(0)).await })
    };
    while provider.count("openid-configuration") == 0 {
        tokio::task::yield_now().await;
    }
    leader.abort();
    check(&oidc, &token, at(0)).await.unwrap();
    assert_eq!((provider.count("jwks"), provider.count("openid-configuration")), (1, 1));
}
