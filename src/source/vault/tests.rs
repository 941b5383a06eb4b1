use std::fmt::Write as _;

use super::*;
use crate::vault::fake::{Act, FakeVault, call, token};

fn key(path: &str) -> ReadKey {
    ReadKey { path: path.into(), query: "".into(), list: false }
}

async fn source(vault: &FakeVault) -> VaultSource {
    VaultSource::new(vault.client())
}

async fn read(vault: &FakeVault, path: &str) -> Result<Minted<Answer>, Failure> {
    source(vault).await.read(call(), &token(), &key(path)).await
}

#[tokio::test]
async fn an_answer_is_taken_apart_and_its_data_stays_as_it_is() {
    let data = "{ \"password\":\"a\\u0062\",  \"n\": 1.0e3, \"data\":null}";
    let body = format!(
        r#"{{"request_id":"r1","lease_id":"database/creds/o/x","lease_duration":300,"renewable":true,"data":{data},"warnings":["w"],"mount_type":"database","new_member":[1]}}"#
    );
    let vault = FakeVault::always(Act::json(200, &body)).await;
    let minted = read(&vault, "database/creds/o").await.unwrap();
    assert_eq!(minted.life, Life::Leased { ttl: Duration::from_secs(300), renewable: true });
    let answer = minted.payload;
    assert!(answer.data.same_as(&Secret::new(data.into())), "byte for byte");
    assert_eq!((&*answer.request_id, &*answer.lease_id), ("r1", "database/creds/o/x"));
    assert_eq!(answer.warnings, ["w"]);
    assert_eq!(answer.mount_type, "database");
    assert_eq!(answer.version, None);
    assert_eq!(vault.seen().len(), 1);
}

#[tokio::test]
async fn only_key_values_are_kept() {
    let v2 = r#"{"data":{"a":1},"metadata":{"version":7}}"#;
    for (kind, data, keep, version) in [
        ("kv", v2, true, Some(7)),
        ("kv", r#"{"a":1}"#, true, None),
        ("kv", r#"{"data":1,"metadata":2}"#, true, None),
        ("cubbyhole", "{}", false, None),
        ("totp", v2, false, None),
    ] {
        let body = format!(r#"{{"request_id":"r","lease_id":"","data":{data},"mount_type":"{kind}"}}"#);
        let vault = FakeVault::always(Act::json(200, &body)).await;
        let minted = read(&vault, "m/data/x").await.unwrap();
        assert_eq!(minted.life, Life::Static { keep }, "{kind} {data}");
        assert_eq!(minted.payload.version, version, "{kind} {data}");
    }
}

#[tokio::test]
async fn a_mount_type_that_is_not_said_is_asked_for_once() {
    let vault = FakeVault::start(|seen| match seen.line.as_str() {
        line if line.contains("ui/mounts/team/kv/") => {
            Act::json(200, r#"{"request_id":"m","data":{"path":"team/kv/","type":"kv"}}"#)
        }
        line if line.contains("ui/mounts/closed/") => {
            Act::refusal(403, "preflight capability check returned 403")
        }
        line if line.contains("ui/mounts/ill/") => Act::refusal(503, "Vault is sealed"),
        _ => Act::json(200, r#"{"request_id":"r","data":{"data":{},"metadata":{"version":3}}}"#),
    })
    .await;
    let source = source(&vault).await;
    for (path, keep) in [
        ("team/kv/data/a", true),
        ("team/kv/data/b", true),
        ("closed/a", false),
        ("closed/a", false),
        ("ill/a", false),
        ("ill/a", false),
    ] {
        let minted = source.read(call(), &token(), &key(path)).await.unwrap();
        assert_eq!(minted.life, Life::Static { keep }, "{path}");
        assert_eq!(minted.payload.version, keep.then_some(3));
    }
    let mut asked = String::new();
    for seen in vault.seen().iter().filter(|seen| seen.line.contains("ui/mounts")) {
        writeln!(asked, "{}", seen.line.trim_start_matches("GET /v1/sys/internal/ui/mounts/")).unwrap();
    }
    assert_eq!(
        asked, "team/kv/data/a\nclosed/a\nill/a\nill/a\n",
        "a trouble that may pass is not remembered"
    );
}

#[tokio::test]
async fn what_is_no_shareable_secret_is_refused_by_name() {
    for (body, words) in [
        (r#"{"request_id":"r","wrap_info":{"token":"hvs.canary"},"data":null}"#, "wrap_info"),
        (r#"{"request_id":"r","auth":{"client_token":"hvs.canary"},"data":null}"#, "auth"),
        ("{}", "not a Vault JSON answer"),
        (r#"{"initialized":true,"sealed":false}"#, "not a Vault JSON answer"),
        ("[]", "not a Vault JSON answer"),
        ("", "not a Vault JSON answer"),
    ] {
        let vault = FakeVault::always(Act::json(200, body)).await;
        let failure = read(&vault, "a/b").await.unwrap_err();
        assert_eq!(failure.class, Class::Permanent, "{body}");
        assert!(failure.message.contains(words) && failure.message.contains("a/b"), "{failure}");
        assert!(!format!("{failure:?}").contains("canary"), "{failure:?}");
    }
}

#[tokio::test]
async fn what_another_answered_in_vaults_place_says_nothing_of_the_secret() {
    for (status, body) in [
        (200, "<html>down for maintenance</html>"),
        (200, "  <?xml version='1.0'?>"),
        (200, r#"{"request_id":"r","data":"#),
        (200, r#"{"request_id":"r",,}"#),
        (401, "<html>log in</html>"),
        (403, "<html>blocked by a firewall</html>"),
        (403, r#"{"message":"Forbidden"}"#),
        (403, ""),
        (404, "no such route"),
        (404, "default backend - 404"),
        (407, ""),
    ] {
        let vault = FakeVault::always(Act::json(status, body)).await;
        let failure = read(&vault, "a/b").await.unwrap_err();
        assert_eq!(failure.class, Class::Transient, "{status} {body}");
        assert!(failure.message.contains("Vault's API") && failure.message.contains("a/b"), "{failure}");
        let looked_up = source(&vault).await.lookup_token(call(), &token()).await.unwrap_err();
        assert_eq!(looked_up.class, Class::Transient, "{status} {body}: the token is neither good nor lost");
    }
    // What Vault says of a deleted version is its own answer.
    let deleted = r#"{"request_id":"r","data":{"data":null,"metadata":{"version":1}}}"#;
    let vault = FakeVault::always(Act::json(404, deleted)).await;
    assert_eq!(read(&vault, "a/b").await.unwrap_err().class, Class::NotFound);
}

#[tokio::test]
async fn a_run_token_is_made_as_specified() {
    let vault = FakeVault::always(Act::json(
        200,
        r#"{"request_id":"r","auth":{"client_token":"hvs.run","accessor":"acc","token_policies":["orders"],"lease_duration":42,"renewable":false,"token_type":"service","orphan":true,"num_uses":0}}"#,
    ))
    .await;
    let source = source(&vault).await;
    let spec = TokenSpec {
        role: "run".into(),
        policies: Vec::new(),
        namespace: None,
        ttl: Duration::from_millis(90_900),
        renewable: false,
        meta: [("execution_arn".to_owned(), "arn".to_owned())].into(),
    };
    let minted = source.create_token(call(), &token(), &spec).await.unwrap();
    assert_eq!(
        minted.life,
        Life::Leased { ttl: Duration::from_secs(42), renewable: false },
        "what was granted"
    );
    assert!(minted.payload.credential.matches(b"hvs.run"));
    assert_eq!(vault.seen()[0].line, "POST /v1/auth/token/create/run");
    assert_eq!(
        vault.seen()[0].json(),
        serde_json::json!({ "ttl": "90s", "renewable": false, "meta": { "execution_arn": "arn" } })
    );
    let spec = TokenSpec { ttl: Duration::from_millis(900), ..spec };
    assert_eq!(source.create_token(call(), &token(), &spec).await.unwrap_err().class, Class::Permanent);
    assert_eq!(vault.seen().len(), 1, "a ttl of 0 would ask for a month");
}

#[tokio::test]
async fn a_refused_run_token_names_the_role_and_the_cure() {
    for (status, error, class, words) in [
        (400, "unknown role run", Class::Permanent, "make the token role"),
        (403, "permission denied", Class::Forbidden, "lacks update on auth/token/create/run"),
        (503, "Vault is sealed", Class::Transient, "unseal"),
    ] {
        let vault = FakeVault::always(Act::refusal(status, error)).await;
        let spec = TokenSpec {
            role: "run".into(),
            policies: Vec::new(),
            namespace: None,
            ttl: Duration::from_secs(9),
            renewable: true,
            meta: BTreeMap::new(),
        };
        let failure = source(&vault).await.create_token(call(), &token(), &spec).await.unwrap_err();
        assert_eq!(failure.class, class, "{failure}");
        assert!(failure.message.contains(words), "{failure}");
    }
}

/// How Vault, OpenBao and a policy without lookup-self answer.
fn lookup(this: &'static str, mounts: u16) -> impl Fn(&crate::vault::fake::Seen) -> Act {
    move |seen| match seen.line.as_str() {
        line if line.ends_with("ui/mounts") && mounts == 200 => {
            Act::json(200, r#"{"request_id":"r","data":{}}"#)
        }
        line if line.ends_with("ui/mounts") => Act::refusal(mounts, "permission denied"),
        _ => Act::refusal(403, this),
    }
}

#[tokio::test]
async fn a_403_is_a_lost_token_only_if_upstream_does_not_know_it() {
    for (error, mounts, class, calls) in [
        ("2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n", 200, Some(Class::TokenLost), 1),
        ("permission denied", 403, Some(Class::TokenLost), 2),
        ("1 error occurred:\n\t* permission denied\n\n", 200, None, 2),
        ("permission denied", 503, Some(Class::Transient), 2),
    ] {
        let vault = FakeVault::start(lookup(error, mounts)).await;
        let found = source(&vault).await.lookup_token(call(), &token()).await;
        assert_eq!(found.err().map(|failure| failure.class), class, "{error}");
        assert_eq!(vault.seen().len(), calls);
    }
}

#[tokio::test]
async fn a_token_that_is_gone_counts_as_revoked() {
    for (error, mounts, class) in [
        ("invalid token", 403, None),
        ("permission denied", 403, None),
        ("permission denied", 200, Some(Class::Forbidden)),
        ("permission denied", 503, Some(Class::Transient)),
    ] {
        let vault = FakeVault::start(lookup(error, mounts)).await;
        let revoked = source(&vault).await.revoke_token(call(), &token()).await;
        assert_eq!(revoked.err().map(|failure| failure.class), class, "{error}");
    }
    let vault = FakeVault::always(Act::json(204, "")).await;
    source(&vault).await.revoke_token(call(), &token()).await.unwrap();
}

#[tokio::test]
async fn what_upstream_no_longer_knows_is_confirmed_as_gone() {
    let known = Act::json(200, r#"{"request_id":"r","data":{"ttl":1}}"#);
    for (act, lives) in [
        (known, Some(true)),
        (Act::refusal(400, "1 error occurred:\n\t* invalid accessor\n\n"), Some(false)),
        (Act::refusal(403, "permission denied"), None),
        (Act::refusal(500, "internal error"), None),
    ] {
        let vault = FakeVault::always(act).await;
        let source = source(&vault).await;
        assert_eq!(source.accessor_lives(call(), &token(), None, "a").await.ok(), lives);
        assert_eq!(source.revoke_accessor(call(), &token(), None, "a").await.is_ok(), lives.is_some());
    }
    for (act, lives) in [
        (Act::json(200, r#"{"request_id":"r","data":{}}"#), Some(true)),
        (Act::refusal(400, "invalid lease"), Some(false)),
        (Act::refusal(403, "permission denied"), None),
    ] {
        let vault = FakeVault::always(act).await;
        assert_eq!(source(&vault).await.lease_lives(call(), &token(), None, "l").await.ok(), lives);
    }
}

#[tokio::test]
async fn a_renewal_tells_a_lease_that_is_gone_from_one_that_cannot_be_renewed() {
    for (status, error, class) in [
        (400, "lease not found", Class::LeaseGone),
        (400, "lease expired", Class::LeaseGone),
        (400, "lease is not renewable", Class::Permanent),
        (403, "permission denied", Class::Forbidden),
        (500, "internal error", Class::Transient),
    ] {
        let vault = FakeVault::always(Act::refusal(status, error)).await;
        let renewed = source(&vault).await.renew_lease(call(), &token(), "l", Duration::from_secs(9)).await;
        assert_eq!(renewed.unwrap_err().class, class, "{error}");
    }
    let vault = FakeVault::always(Act::json(
        200,
        r#"{"request_id":"r","lease_id":"l","lease_duration":7,"renewable":true}"#,
    ))
    .await;
    let renewed = source(&vault).await.renew_lease(call(), &token(), "l", Duration::ZERO).await.unwrap();
    assert_eq!((renewed.ttl, renewed.renewable), (Duration::from_secs(7), true));
    assert_eq!(vault.seen()[0].json()["increment"], 1, "zero would ask for the default");
}

#[tokio::test]
async fn a_token_renews_itself_by_what_was_asked_or_its_own_period() {
    let vault = FakeVault::always(Act::json(
        200,
        r#"{"request_id":"r","auth":{"client_token":"hvs.x","lease_duration":60,"renewable":true}}"#,
    ))
    .await;
    let source = source(&vault).await;
    let renewed = source.renew_token(call(), &token(), Some(Duration::from_secs(90))).await.unwrap();
    assert_eq!(renewed.ttl, Duration::from_secs(60));
    source.renew_token(call(), &token(), None).await.unwrap();
    let bodies: Vec<_> = vault.seen().into_iter().map(|seen| seen.body).collect();
    assert_eq!(bodies, [r#"{"increment":"90s"}"#, ""]);
}

#[tokio::test]
async fn a_token_that_is_of_no_use_is_not_left_behind() {
    let vault = FakeVault::start(|seen| match seen.line.as_str() {
        line if line.ends_with("revoke-self") => Act::json(204, ""),
        _ => Act::json(
            200,
            r#"{"request_id":"r","auth":{"client_token":"hvs.uses","accessor":"a","lease_duration":9,"num_uses":2}}"#,
        ),
    })
    .await;
    let spec = TokenSpec {
        role: "run".into(),
        policies: Vec::new(),
        namespace: None,
        ttl: Duration::from_secs(9),
        renewable: true,
        meta: BTreeMap::new(),
    };
    let failure = source(&vault).await.create_token(call(), &token(), &spec).await.unwrap_err();
    assert_eq!(failure.class, Class::Permanent);
    assert!(failure.message.contains("auth/token/roles/run"), "{failure}");
    let seen = vault.seen();
    assert_eq!(seen[1].line, "POST /v1/auth/token/revoke-self");
    assert_eq!(seen[1].headers["x-vault-token"], "hvs.uses");
}

/// What every request of a test says of its namespace, in order.
fn namespaces(vault: &FakeVault) -> Vec<Option<String>> {
    vault.seen().iter().map(|seen| seen.headers.get("x-vault-namespace").cloned()).collect()
}

#[tokio::test]
async fn a_token_is_used_and_asked_about_in_its_own_namespace() {
    let vault = FakeVault::start(|seen| match seen.line.as_str() {
        line if line.contains("auth/token/create") => Act::json(
            200,
            r#"{"request_id":"r","auth":{"client_token":"hvs.run","accessor":"acc","lease_duration":42}}"#,
        )
        .header("X-Vault-Index", "aW5kZXg="),
        line if line.contains("renew-self") => {
            Act::json(200, r#"{"request_id":"r","auth":{"client_token":"hvs.run","lease_duration":60}}"#)
        }
        line if line.contains("lookup-self") => Act::refusal(403, "permission denied"),
        line if line.contains("ui/mounts/") => {
            Act::json(200, r#"{"request_id":"m","data":{"path":"kv/","type":"kv"}}"#)
        }
        _ => Act::json(200, r#"{"request_id":"r","lease_id":"","data":{}}"#),
    })
    .await;
    let config = crate::vault::VaultConfig {
        namespace: Some("team-a".into()),
        ..crate::vault::VaultConfig::new(&*vault.address)
    };
    let source = VaultSource::new(Arc::new(VaultClient::new(config, crate::clock::Clock::system()).unwrap()));
    let login = token();
    for (namespace, sent) in
        [(None, Some("team-a")), (Some("team-a/orders"), Some("team-a/orders")), (Some(""), None)]
    {
        let before = vault.seen().len();
        let spec = TokenSpec {
            policies: Vec::new(),
            role: "run".into(),
            ttl: Duration::from_secs(42),
            renewable: true,
            meta: BTreeMap::new(),
            namespace: namespace.map(Into::into),
        };
        let run = source.create_token(call(), &login, &spec).await.unwrap().payload;
        assert_eq!(run.namespace, spec.namespace);
        source.renew_token(call(), &run, None).await.unwrap();
        source.lookup_token(call(), &run).await.unwrap();
        source.read(call(), &run, &key("kv/a")).await.unwrap();
        source.renew_lease(call(), &run, "l", Duration::from_secs(9)).await.unwrap();
        source.revoke_token(call(), &run).await.unwrap();
        source.accessor_lives(call(), &login, run.namespace.as_deref(), "acc").await.unwrap();
        source.lease_lives(call(), &login, run.namespace.as_deref(), "l").await.unwrap();
        source.revoke_accessor(call(), &login, run.namespace.as_deref(), "acc").await.unwrap();
        let said = namespaces(&vault).split_off(before);
        assert_eq!(said.len(), 11, "the mount of one namespace says nothing of another's");
        assert!(said.iter().all(|said| said.as_deref() == sent), "{namespace:?}: {said:?}");
    }
}

#[tokio::test]
async fn a_namespace_that_cannot_be_is_named() {
    for (namespace, act, class, words) in [
        (
            "team-b",
            Act::refusal(403, "permission denied"),
            Class::Forbidden,
            "update and sudo on team-b/auth/token/create/run",
        ),
        (
            "team-b",
            Act::refusal(
                400,
                "root or sudo privileges required to directly generate a token in a child namespace",
            ),
            Class::Permanent,
            "needs update and sudo on team-b/auth/token/create/run",
        ),
        ("team-b", Act::refusal(404, "namespace not found"), Class::NotFound, "is there a namespace team-b?"),
        ("team\nb", Act::Hang, Class::Permanent, "the token's namespace cannot be a header"),
    ] {
        let vault = FakeVault::always(act).await;
        let spec = TokenSpec {
            policies: Vec::new(),
            role: "run".into(),
            ttl: Duration::from_secs(9),
            renewable: true,
            meta: BTreeMap::new(),
            namespace: Some(namespace.into()),
        };
        let failure = source(&vault).await.create_token(call(), &token(), &spec).await.unwrap_err();
        assert_eq!(failure.class, class, "{failure}");
        assert!(failure.message.contains(words), "{failure}");
    }
}

/// An answer to a token's creation.
fn made() -> Act {
    let auth = r#"{"client_token":"hvs.run","accessor":"acc","lease_duration":42}"#;
    Act::json(200, &format!(r#"{{"request_id":"r","auth":{auth}}}"#))
}

fn spec() -> TokenSpec {
    TokenSpec {
        policies: Vec::new(),
        role: "run".into(),
        ttl: Duration::from_secs(42),
        renewable: true,
        meta: BTreeMap::new(),
        namespace: None,
    }
}

#[tokio::test]
async fn the_state_after_a_tokens_creation_is_asked_for_with_each_call_of_it() {
    let vault = FakeVault::start(|seen| match seen.line.as_str() {
        line if line.contains("auth/token/create") => made().header("X-Vault-Index", "aW5kZXg="),
        _ => Act::json(200, r#"{"request_id":"r","lease_id":"","data":{},"mount_type":"kv"}"#)
            .header("X-Vault-Index", "bGF0ZXI="),
    })
    .await;
    let source = source(&vault).await;
    let run = source.create_token(call(), &token(), &spec()).await.unwrap().payload;
    source.read(call(), &run, &key("kv/a")).await.unwrap();
    source.lookup_token(call(), &run).await.unwrap();
    source.accessor_lives(call(), &token(), None, "acc").await.unwrap();
    let sent: Vec<_> = vault.seen().iter().map(|seen| seen.headers.get("x-vault-index").cloned()).collect();
    let index = || Some("aW5kZXg=".to_owned());
    assert_eq!(sent, [None, index(), index(), None], "of that token, and of no read");
}

/// A token that was made just now, or some time ago; with an index, or without.
fn aged(vault: &VaultSource, age: Duration, index: bool) -> Token {
    let now = vault.client.clock().now();
    let at = crate::clock::Moment::new(now.mono().saturating_sub(age), now.wall().saturating_sub(age));
    let made = crate::lease::upstream::Made { at, index: index.then(|| "aW5kZXg=".into()) };
    Token { made: Some(made), ..token() }
}

/// A cluster of which the first `behind` requests reach a node that has not heard of the token.
async fn lagging(behind: usize, refusal: &'static str) -> FakeVault {
    let asked = Mutex::new(0);
    FakeVault::start(move |_| {
        let mut asked = asked.lock().unwrap();
        *asked += 1;
        match *asked <= behind {
            true => Act::refusal(403, refusal),
            false => Act::json(200, r#"{"request_id":"r","lease_id":"","data":{},"mount_type":"kv"}"#),
        }
    })
    .await
}

const UNKNOWN: &str = "2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n";
const DENIED: &str = "1 error occurred:\n\t* permission denied\n\n";

#[tokio::test]
async fn a_token_that_was_just_made_is_tried_again_where_a_node_does_not_know_it() {
    let (just_now, long_ago) = (Duration::ZERO, Duration::from_secs(60));
    for (age, index, refusal, behind, tries, class) in [
        (just_now, false, DENIED, 2, 3, None),
        (just_now, false, UNKNOWN, 2, 3, None),
        // It goes on being refused.
        (just_now, false, DENIED, 9, 3, Some(Class::Forbidden)),
        // A node that has not caught up with the index would have said so.
        (just_now, true, DENIED, 9, 1, Some(Class::Forbidden)),
        (just_now, true, UNKNOWN, 9, 1, Some(Class::Forbidden)),
        (long_ago, false, UNKNOWN, 9, 1, Some(Class::Forbidden)),
    ] {
        let vault = lagging(behind, refusal).await;
        let source = source(&vault).await;
        let token = aged(&source, age, index);
        let read = source.read(call(), &token, &key("kv/a")).await;
        assert_eq!(read.err().map(|failure| failure.class), class, "{age:?} {index} {refusal}");
        assert_eq!(vault.seen().len(), tries, "{age:?} {index} {refusal}");
    }
    // The login token, with which the run token is made at once.
    let vault = lagging(1, DENIED).await;
    let source = source(&vault).await;
    let login = aged(&source, just_now, false);
    assert!(source.accessor_lives(call(), &login, None, "acc").await.unwrap());
}

#[tokio::test]
async fn a_token_that_was_just_made_is_not_lost_for_not_being_known_yet() {
    for (age, index, class) in [
        (Duration::ZERO, false, Class::Transient),
        (Duration::ZERO, true, Class::TokenLost),
        (Duration::from_secs(60), false, Class::TokenLost),
    ] {
        for refusal in [UNKNOWN, DENIED] {
            let vault = lagging(99, refusal).await;
            let source = source(&vault).await;
            let token = aged(&source, age, index);
            let failure = source.lookup_token(call(), &token).await.unwrap_err();
            assert_eq!(failure.class, class, "{age:?} {failure}");
            // Nor is it revoked for that.
            let revoked = source.revoke_token(call(), &token).await;
            assert_eq!(revoked.is_ok(), class == Class::TokenLost, "{age:?} {refusal}");
        }
    }
}

#[tokio::test]
async fn a_token_that_we_revoked_is_gone_however_young_it_was() {
    let vault = FakeVault::start(|seen| match seen.line.as_str() {
        line if line.ends_with("revoke-self") => Act::json(204, ""),
        _ => Act::refusal(403, UNKNOWN),
    })
    .await;
    let source = source(&vault).await;
    let token = aged(&source, Duration::ZERO, false);
    source.revoke_token(call(), &token).await.unwrap();
    assert_eq!(source.lookup_token(call(), &token).await.unwrap_err().class, Class::TokenLost);
    assert_eq!(vault.seen().len(), 2, "there is nothing to wait for");
}
