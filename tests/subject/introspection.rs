//! Issuers that are asked for each token.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tenure::subject::{Introspection, Oidc};

use super::keys::Key;
use super::provider::{Fault, Provider};
use super::{NOW, at, check, oidc_with, refused, unavailable};

struct Stage {
    provider: Provider,
    oidc: Arc<Oidc>,
    token: String,
    folder: tempfile::TempDir,
}

async fn stage() -> Stage {
    let key = Key::p256("k");
    let provider = Provider::start(&[&key]).await;
    let folder = tempfile::tempdir().expect("a folder");
    write(&folder.path().join("secret"), "s:1");
    let oidc = oidc_with(&provider, |issuer| {
        issuer.introspection = Some(Introspection {
            endpoint: None,
            client_id: "tenure".to_owned(),
            client_secret_file: folder.path().join("secret"),
            cache: Duration::from_secs(60),
        });
    });
    let token = key.token(&provider.claims());
    Stage { provider, oidc, token, folder }
}

fn write(file: &Path, secret: &str) {
    std::fs::write(file, format!("{secret}\n")).expect("a file");
}

#[tokio::test]
async fn an_active_token_is_asked_for_once_a_minute() {
    let Stage { provider, oidc, token, folder } = stage().await;
    for second in 0..60 {
        check(&oidc, &token, at(second)).await.unwrap();
    }
    assert_eq!(provider.count("introspect"), 1);
    let asked = provider.last();
    assert_eq!(asked.body, format!("token={token}&token_type_hint=access_token"));
    assert_eq!(asked.authorization, "Basic dGVudXJlOnMlM0Ex", "tenure:s%3A1");
    write(&folder.path().join("secret"), "s2");
    check(&oidc, &token, at(60)).await.unwrap();
    assert_eq!(provider.last().authorization, "Basic dGVudXJlOnMy", "the changed file is read: tenure:s2");
}

#[tokio::test]
async fn a_revoked_token_is_refused_within_a_minute() {
    let Stage { provider, oidc, token, folder: _folder } = stage().await;
    check(&oidc, &token, at(0)).await.unwrap();
    provider.set_introspection(json!({"active": false}));
    check(&oidc, &token, at(59)).await.expect("what was said is taken for a minute");
    let said = refused(check(&oidc, &token, at(60)).await);
    assert!(said.contains("does not stand by it any more"), "{said}");
    refused(check(&oidc, &token, at(61)).await);
    assert_eq!(provider.count("introspect"), 2);
}

#[tokio::test]
async fn the_issuers_own_end_counts() {
    let Stage { provider, oidc, token, folder: _folder } = stage().await;
    provider.set_introspection(json!({"active": true, "exp": NOW + 30}));
    let said = check(&oidc, &token, at(0)).await.unwrap();
    assert_eq!(said.expires.as_secs(), NOW + 30);
    check(&oidc, &token, at(29)).await.unwrap();
    assert_eq!(provider.count("introspect"), 1);
    check(&oidc, &token, at(30)).await.expect("within the leeway");
    assert_eq!(provider.count("introspect"), 2, "an answer is kept no longer than the token lives");
    assert!(refused(check(&oidc, &token, at(90)).await).contains("expired"));
}

#[tokio::test]
async fn an_issuer_that_cannot_be_asked_is_no_answer() {
    let Stage { provider, oidc, token, folder } = stage().await;
    let faults = [
        (Fault::Status(503), "answered 503"),
        (Fault::Status(401), "check introspection.client_id and the secret in /"),
        (Fault::Close, "closed before"),
        (Fault::Garbage, "no introspection response"),
        (Fault::Redirect, "not followed"),
        (Fault::Huge, "larger than"),
    ];
    for (second, (fault, why)) in (0..).zip(faults) {
        provider.recover();
        provider.fail("introspect", fault);
        for _ in 0..100 {
            let said = unavailable(check(&oidc, &token, at(second)).await);
            assert!(said.contains(why) && !said.contains("s:1"), "{fault:?}: {said}");
        }
    }
    assert_eq!(provider.count("introspect"), 6, "a second's pause after each");
    provider.recover();
    provider.fail("introspect", Fault::Hang);
    tokio::time::pause();
    let said = unavailable(check(&oidc, &token, at(10)).await);
    tokio::time::resume();
    assert!(said.contains("introspect within 5s"), "{said}");
    provider.recover();
    std::fs::remove_file(folder.path().join("secret")).unwrap();
    let said = unavailable(check(&oidc, &token, at(20)).await);
    assert!(said.contains("client's secret") && said.contains("No such file"), "{said}");
}

#[tokio::test]
async fn many_who_bring_one_token_cost_one_question() {
    let Stage { provider, oidc, token, folder: _folder } = stage().await;
    provider.set_latency(Duration::from_millis(10));
    for (when, good) in [(at(0), true), (at(100), false)] {
        if !good {
            provider.fail("introspect", Fault::Status(503));
        }
        let checks: Vec<_> = (0..1_000)
            .map(|_| {
                let (oidc, token) = (Arc::clone(&oidc), token.clone());
                tokio::spawn(async move { check(&oidc, &token, when).await.is_ok() })
            })
            .collect();
        for one in checks {
            assert_eq!(one.await.unwrap(), good);
        }
    }
    assert_eq!(provider.count("introspect"), 2);
}

#[tokio::test]
async fn a_token_that_is_not_good_is_not_asked_for() {
    let Stage { provider, oidc, token, folder: _folder } = stage().await;
    refused(check(&oidc, &token, at(700)).await);
    refused(check(&oidc, &Key::p256("k").token(&provider.claims()), at(0)).await);
    assert_eq!(provider.count("introspect"), 0);
}
