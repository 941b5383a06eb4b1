//! Which tokens are taken, and why the others are not.

use ring::hmac;
use serde_json::{Value, json};
use tenure::run::subject::{Assurance, SubjectKind};
use tenure::subject::{Algorithm, KindRule, Mapping};

use super::keys::{Key, encoded};
use super::provider::Provider;
use super::{NOW, at, check, oidc, oidc_with, refused};

#[tokio::test]
async fn good_tokens_of_every_kind_are_taken() {
    let keys = [Key::rsa("rsa", 0), Key::p256("p256"), Key::p384("p384"), Key::ed25519("ed")];
    let provider = Provider::start(&keys.each_ref()).await;
    let oidc = oidc(&provider);
    for key in &keys {
        let said = check(&oidc, &key.token(&provider.claims()), at(0)).await.unwrap();
        let subject = said.subject;
        assert_eq!((subject.id.as_str(), subject.kind), ("ada", SubjectKind::Person));
        assert_eq!((subject.assurance, subject.groups), (Assurance::Verified, vec!["staff".to_owned()]));
        assert_eq!(subject.issuer.as_ref(), Some(&provider.issuer));
        assert_eq!(said.expires.as_secs(), NOW + 600);
    }
    for alg in ["RS384", "RS512", "PS256", "PS384", "PS512"] {
        let token = keys[0].token_with(&json!({"alg": alg, "kid": "rsa"}), &provider.claims());
        check(&oidc, &token, at(0)).await.expect(alg);
    }
    assert_eq!((provider.count("jwks"), provider.count("openid-configuration")), (1, 1));
}

#[tokio::test]
async fn claims_that_do_not_fit_are_refused() {
    let key = Key::p256("k");
    let provider = Provider::start(&[&key]).await;
    let oidc = oidc(&provider);
    for (name, value, why) in [
        ("exp", json!(NOW - 60), "has expired"),
        ("exp", Value::Null, "no exp"),
        ("exp", json!("soon"), "exp is no time"),
        ("nbf", json!(NOW + 61), "not valid yet"),
        ("iat", json!(NOW + 61), "in the future"),
        ("aud", json!("evil"), "for somebody else: its aud is to be tenure"),
        ("aud", json!(["evil", "third"]), "for somebody else"),
        ("aud", Value::Null, "does not say whom it is for"),
        ("iss", json!("https://evil.example.com"), "none of those that are configured: http://127.0.0.1"),
        ("iss", json!(format!("{}/", provider.issuer)), "none of those"),
        ("iss", Value::Null, "names no issuer"),
        ("sub", Value::Null, "whom it stands for (sub)"),
        ("sub", json!("a\nb"), "is no name"),
    ] {
        let said = refused(check(&oidc, &key.token(&provider.claims_with(name, value.clone())), at(0)).await);
        assert!(said.contains(why), "{name} {value}: {said}");
        assert!(!said.contains("evil"), "{said}");
    }
    check(&oidc, &key.token(&provider.claims_with("aud", json!(["x", "tenure"]))), at(0))
        .await
        .expect("a list");
    let token = key.token(&provider.claims());
    check(&oidc, &token, at(659)).await.expect("within the leeway");
    assert!(refused(check(&oidc, &token, at(660)).await).contains("expired"));
}

#[tokio::test]
async fn no_key_is_taken_for_another_and_no_token_without_one() {
    let (rsa, ec, ed) = (Key::rsa("rsa", 0), Key::p256("ec"), Key::ed25519("ed"));
    let provider = Provider::start(&[&rsa, &ec, &ed]).await;
    let oidc = oidc(&provider);
    let claims = provider.claims();
    let unsigned = |header: Value, signature: &str| {
        format!("{}.{}.{signature}", encoded(header.to_string()), encoded(claims.to_string()))
    };
    let hs = |secret: &[u8]| {
        let text = unsigned(json!({"alg": "HS256", "kid": "rsa"}), "");
        let message = text.trim_end_matches('.');
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        format!("{message}.{}", encoded(hmac::sign(&key, message.as_bytes())))
    };
    let good = ec.token(&claims);
    let (head, tail) = good.rsplit_once('.').unwrap();
    let other = Key::p256("ec").token(&claims);
    for (token, why) in [
        (unsigned(json!({"alg": "none"}), ""), "not signed"),
        (unsigned(json!({"alg": "None", "kid": "rsa"}), ""), "not signed"),
        (hs(&rsa.public()), "symmetric"),
        (hs(rsa.jwk()["n"].as_str().unwrap().as_bytes()), "symmetric"),
        (hs(rsa.jwk().to_string().as_bytes()), "symmetric"),
        (ec.token_with(&json!({"alg": "RS256", "kid": "ec"}), &claims), "not for its algorithm"),
        (rsa.token_with(&json!({"alg": "ES256", "kid": "rsa"}), &claims), "not for its algorithm"),
        (ed.token_with(&json!({"alg": "ES384", "kid": "ed"}), &claims), "not for its algorithm"),
        (ec.token_with(&json!({"alg": "RS256", "kid": "rsa"}), &claims), "signature does not fit"),
        (other, "signature does not fit"),
        (format!("{head}.{}", tail.to_lowercase()), ""),
        (format!("{head}."), "signature does not fit"),
        (format!("{good}."), "no JWT"),
        (ec.token_with(&json!({"alg": "ES256", "kid": "ec", "crit": ["exp"], "exp": 1}), &claims), "crit"),
        (
            ec.token_with(&json!({"alg": "ES256", "kid": "ec", "b64": false, "crit": ["b64"]}), &claims),
            "crit",
        ),
        // A key that the token brings along is not looked at.
        (
            Key::p256("x")
                .token_with(&json!({"alg": "ES256", "kid": "x", "jwk": Key::p256("x").jwk()}), &claims),
            "is none of the 3",
        ),
    ] {
        let said = refused(check(&oidc, &token, at(0)).await);
        assert!(said.contains(why), "{token}: {said}");
    }
    check(&oidc, &good, at(0)).await.expect("the good one");
    let bare = ec.token_with(&json!({"alg": "ES256"}), &claims);
    check(&oidc, &bare, at(0)).await.expect("the only key that fits");
}

#[tokio::test]
async fn a_key_is_only_for_what_its_issuer_says() {
    let (key, strict) = (Key::rsa("a", 0), Key::rsa("b", 1));
    let provider = Provider::start(&[]).await;
    let (mut encryption, mut single) = (key.jwk(), strict.jwk());
    encryption["use"] = json!("enc");
    single["alg"] = json!("PS256");
    provider.set_jwks(vec![encryption, single]);
    let oidc = oidc(&provider);
    assert!(refused(check(&oidc, &key.token(&provider.claims()), at(0)).await).contains("none of the 1"));
    assert!(
        refused(check(&oidc, &strict.token(&provider.claims()), at(0)).await)
            .contains("not for its algorithm")
    );
    let token = strict.token_with(&json!({"alg": "PS256", "kid": "b"}), &provider.claims());
    check(&oidc, &token, at(0)).await.expect("the algorithm that it is for");
}

#[tokio::test]
async fn what_is_configured_counts() {
    let key = Key::p256("k");
    let provider = Provider::start(&[&key]).await;
    let oidc = oidc_with(&provider, |issuer| {
        issuer.algorithms = vec![Algorithm::ES256];
        issuer.types = vec!["at+jwt".to_owned()];
        issuer.audiences = vec!["client-1".to_owned(), "client-2".to_owned()];
        issuer.audience_claim = "client_id".to_owned();
        issuer.mapping = Mapping {
            subject_claim: "username".to_owned(),
            groups_claim: "cognito:groups".to_owned(),
            kind: SubjectKind::Service,
            kinds: Some(KindRule {
                claim: "token_use".to_owned(),
                values: vec![("assistant".to_owned(), SubjectKind::Agent)],
            }),
        };
    });
    let mut claims = provider.claims_with("aud", Value::Null);
    for (name, value) in [
        ("client_id", json!("client-2")),
        ("username", json!("grace")),
        ("cognito:groups", json!("a b")),
        ("token_use", json!("assistant")),
    ] {
        claims[name] = value;
    }
    let typed = |typ: &str| key.token_with(&json!({"alg": "ES256", "kid": "k", "typ": typ}), &claims);
    let subject = check(&oidc, &typed("at+jwt"), at(0)).await.expect("an access token").subject;
    assert_eq!((subject.id.as_str(), subject.kind), ("grace", SubjectKind::Agent));
    assert_eq!(subject.groups, ["a", "b"]);
    assert!(refused(check(&oidc, &typed("JWT"), at(0)).await).contains("are to have: at+jwt"));
    let other = Key::rsa("k", 0).token(&claims);
    assert!(refused(check(&oidc, &other, at(0)).await).contains("allowed for its issuer: ES256"));
}

#[tokio::test]
async fn a_key_that_is_too_short_is_no_key() {
    let provider = Provider::start(&[]).await;
    provider.set_jwks(vec![json!({"kty": "RSA", "kid": "k", "n": encoded([0xff_u8; 128]), "e": "AQAB"})]);
    let token = Key::rsa("k", 0).token(&provider.claims());
    assert!(refused(check(&oidc(&provider), &token, at(0)).await).contains("signature does not fit"));
}
