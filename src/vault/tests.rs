use vaultrs::api::token::requests::{CreateRoleTokenRequest, RenewTokenSelfRequest, RevokeTokenSelfRequest};

use super::fake::{Act, FakeVault, call, token};
use super::*;
use crate::lease::upstream::Made;

async fn get(client: &VaultClient, path: &str) -> Result<Reply, Failure> {
    let (call, token) = (call(), token());
    let ask = Ask::with(&call, &token, 4096);
    client.read(ask, path, "", false).await.and_then(Reply::accepted)
}

#[tokio::test]
async fn a_refusal_is_classified_by_its_status() {
    for (status, class) in [
        (400, Class::Permanent),
        (401, Class::Permanent),
        (403, Class::Forbidden),
        (404, Class::NotFound),
        (405, Class::Permanent),
        (412, Class::Transient),
        (413, Class::Permanent),
        (429, Class::Transient),
        (472, Class::Transient),
        (473, Class::Transient),
        (500, Class::Transient),
        (502, Class::Transient),
        (503, Class::Transient),
        (301, Class::Permanent),
    ] {
        let vault = FakeVault::always(Act::refusal(status, "1 error occurred:\n\t* what is wrong\n\n")).await;
        let failure = get(&vault.client(), "secret/a").await.unwrap_err();
        assert_eq!(failure.class, class, "{status}");
        assert_eq!(failure.status, Some(status));
        let start = format!("Vault answered {status} to GET v1/secret/a at {}: what is wrong", vault.address);
        let start = start.replace("GET v1/", "GET ");
        assert!(failure.message.starts_with(&start), "{}", failure.message);
        assert!(!failure.message.contains("canary"), "{}", failure.message);
    }
}

#[tokio::test]
async fn retry_after_is_read_in_both_forms() {
    let far = "Fri, 01 Jan 2100 00:00:00 GMT";
    for (header, check) in [
        ("7", (|after| after == Some(Duration::from_secs(7))) as fn(Option<Duration>) -> bool),
        (far, |after| after > Some(Duration::from_secs(3600))),
        ("Sun, 06 Nov 1994 08:49:37 GMT", |after| after == Some(Duration::ZERO)),
        ("soon", |after| after.is_none()),
        ("-3", |after| after.is_none()),
    ] {
        let vault = FakeVault::always(Act::refusal(429, "slow down").header("Retry-After", header)).await;
        let failure = get(&vault.client(), "secret/a").await.unwrap_err();
        assert!(check(failure.retry_after), "{header}: {:?}", failure.retry_after);
    }
}

#[tokio::test]
async fn what_is_no_answer_is_transient_and_what_is_too_much_is_not() {
    let huge = Act::json(200, &"x".repeat(5000));
    for (act, class, words) in [
        (Act::Hang, Class::Transient, "within"),
        (Act::Drip, Class::Permanent, "larger than"),
        (Act::Close, Class::Transient, "closed before an answer came"),
        (Act::Cut, Class::Transient, "broke off"),
        (huge, Class::Permanent, "larger than"),
    ] {
        let vault = FakeVault::always(act.clone()).await;
        let failure = get(&vault.client(), "secret/a").await.unwrap_err();
        assert_eq!(failure.class, class, "{act:?}: {failure}");
        assert!(failure.message.contains(words), "{act:?}: {failure}");
        assert!(
            failure.message.contains("secret/a") && failure.message.contains(&vault.address),
            "{failure}"
        );
    }
}

#[tokio::test]
async fn a_slow_drip_ends_by_the_time_out() {
    let vault = FakeVault::always(Act::Drip).await;
    let client = vault.client();
    let (call, token) = (call(), token());
    let ask = Ask::with(&call, &token, READ_LIMIT);
    let failure = client.read(ask, "a", "", false).await.unwrap_err();
    assert_eq!(failure.class, Class::Transient);
    assert!(failure.message.contains("within"), "{failure}");
}

#[tokio::test]
async fn a_refused_connection_and_an_unknown_host_are_named() {
    let closed = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    for (address, words) in
        [(closed.as_str(), "nothing listens"), ("http://vault.invalid:8200", "cannot be resolved")]
    {
        let client = VaultClient::new(VaultConfig::new(address), Clock::system()).unwrap();
        let failure = get(&client, "secret/a").await.unwrap_err();
        assert_eq!(failure.class, Class::Transient);
        assert!(failure.message.contains(words), "{failure}");
        assert!(failure.message.contains(address), "{failure}");
    }
}

#[tokio::test]
async fn every_request_says_whose_it_is() {
    let vault = FakeVault::always(Act::json(200, "{\"data\":{}}")).await;
    let config = VaultConfig {
        address: format!("{}/prefix/", vault.address),
        namespace: Some("team-a/".into()),
        ..VaultConfig::new("")
    };
    let client = VaultClient::new(config, Clock::system()).unwrap();
    get(&client, "secret/data/a b/ü%41").await.unwrap();
    let seen = vault.seen();
    assert_eq!(seen[0].line, "GET /prefix/v1/secret/data/a%20b/%C3%BC%2541");
    for (name, value) in [
        ("x-vault-request", "true"),
        ("x-vault-token", "hvs.canary"),
        ("x-vault-namespace", "team-a"),
        ("x-tenure-request", "boot-1"),
        ("x-tenure-run", "run-1"),
    ] {
        assert_eq!(seen[0].headers.get(name).map(String::as_str), Some(value), "{name}");
    }
}

#[tokio::test]
async fn a_path_is_sent_as_it_was_judged_or_not_at_all() {
    let vault = FakeVault::always(Act::json(200, "{\"data\":{}}")).await;
    let client = vault.client();
    for path in ["", "/secret/a", "secret//a", "secret/../sys/raw", "secret/./a", "secret/..", ".."] {
        assert_eq!(get(&client, path).await.unwrap_err().class, Class::Permanent, "{path}");
    }
    assert!(vault.seen().is_empty());
    let (call, token) = (call(), token());
    let ask = || Ask::with(&call, &token, 4096);
    client.read(ask(), "secret/metadata/", "", true).await.unwrap();
    client.read(ask(), "secret/data/a", "version=2", false).await.unwrap();
    client.read(ask(), "secret/data/a", "x y", false).await.unwrap_err();
    let lines: Vec<_> = vault.seen().into_iter().map(|seen| seen.line).collect();
    assert_eq!(lines, ["LIST /v1/secret/metadata/", "GET /v1/secret/data/a?version=2"]);
}

#[tokio::test]
async fn endpoints_of_vaultrs_are_sent_as_they_are() {
    let vault = FakeVault::always(Act::json(200, "{}")).await;
    let client = vault.client();
    let (call, token) = (call(), token());
    let ask = || Ask::with(&call, &token, 4096);
    client.execute(ask(), &RenewTokenSelfRequest { increment: Some("60s".into()) }).await.unwrap();
    client.execute(ask(), &RevokeTokenSelfRequest {}).await.unwrap();
    let role = CreateRoleTokenRequest { role_name: "orders%2f".into(), ..CreateRoleTokenRequest::default() };
    client.execute(ask(), &role).await.unwrap();
    client.execute(ask(), &RenewLeaseRequest { lease_id: "a/b".into(), increment: 9 }).await.unwrap();
    let seen = vault.seen();
    assert_eq!(
        seen.iter().map(|seen| seen.line.as_str()).collect::<Vec<_>>(),
        [
            "POST /v1/auth/token/renew-self",
            "POST /v1/auth/token/revoke-self",
            "POST /v1/auth/token/create/orders%252f",
            "PUT /v1/sys/leases/renew"
        ]
    );
    assert_eq!(seen[0].body, r#"{"increment":"60s"}"#);
    assert_eq!(seen[3].json(), serde_json::json!({ "lease_id": "a/b", "increment": 9 }));
}

#[tokio::test]
async fn one_redirect_is_followed_on_the_same_scheme_only() {
    let active = FakeVault::always(Act::json(200, "{\"data\":{\"a\":1}}")).await;
    let there = format!("{}/v1/secret/a", active.address);
    for status in [307, 308] {
        let standby = FakeVault::always(Act::json(status, "").header("Location", &there)).await;
        get(&standby.client(), "secret/a").await.unwrap();
        assert_eq!(active.seen().last().unwrap().headers["x-vault-token"], "hvs.canary");
    }

    for (location, class, words) in [
        ("https://other:8200/v1/secret/a", Class::Permanent, "correct api_addr"),
        ("/v1/secret/a", Class::Transient, "names no host"),
        ("", Class::Transient, "not a URL"),
        ("http://pw@other:8200/v1/secret/a", Class::Permanent, "names a user"),
        ("http://sso.example.com/login", Class::Transient, "another path"),
        ("http://sso.example.com/login?next=/v1/secret/a", Class::Transient, "another path"),
        ("http://other:8200/v1/secret/b", Class::Transient, "another path"),
        ("http://other:8200/v1/secret/a?version=1", Class::Transient, "another path"),
    ] {
        let standby = FakeVault::always(Act::json(307, "").header("Location", location)).await;
        let failure = get(&standby.client(), "secret/a").await.unwrap_err();
        assert_eq!(failure.class, class, "{location}: {failure}");
        assert!(failure.message.contains(words) && !failure.message.contains("pw"), "{failure}");
        assert_eq!((failure.status, standby.seen().len()), (Some(307), 1));
    }

    let again = FakeVault::start(|seen| {
        let here = format!("http://{}/v1/secret/a", seen.headers["host"]);
        Act::json(307, "").header("Location", &here)
    })
    .await;
    let failure = get(&again.client(), "secret/a").await.unwrap_err();
    assert_eq!(failure.class, Class::Transient);
    assert!(failure.message.contains("two nodes redirect to each other"), "{failure}");
    assert_eq!(again.seen().len(), 2);
}

#[tokio::test]
async fn a_redirect_may_encode_its_path_in_its_own_way_and_keeps_the_query() {
    let active = FakeVault::always(Act::json(200, "{\"data\":{}}")).await;
    let there = format!("{}/prefix/v1/secret/data/a%20b%2B%28c%29?version=2", active.address);
    let standby = FakeVault::always(Act::json(307, "").header("Location", &there)).await;
    let (call, token) = (call(), token());
    let ask = Ask::with(&call, &token, 4096);
    let reply = standby.client().read(ask, "secret/data/a b+(c)", "version=2", false).await.unwrap();
    assert_eq!(reply.status, 200);
    assert_eq!(active.seen()[0].line, "GET /prefix/v1/secret/data/a%20b%2B%28c%29?version=2");
}

#[tokio::test]
async fn what_is_written_is_written_again_where_a_redirect_leads() {
    let active = FakeVault::always(Act::json(204, "")).await;
    let there = format!("{}/v1/sys/leases/renew", active.address);
    let standby = FakeVault::always(Act::json(308, "").header("Location", &there)).await;
    let (call, token) = (call(), token());
    let renew = RenewLeaseRequest { lease_id: "a/b".into(), increment: 9 };
    standby.client().execute(Ask::with(&call, &token, 4096), &renew).await.unwrap();
    assert_eq!(active.seen()[0].line, "PUT /v1/sys/leases/renew");
    assert_eq!(active.seen()[0].json()["lease_id"], "a/b");
}

#[tokio::test]
async fn connections_are_kept_until_they_are_forgotten() {
    let vault = FakeVault::always(Act::json(200, "{\"data\":{}}")).await;
    let client = vault.client();
    get(&client, "a").await.unwrap();
    get(&client, "a").await.unwrap();
    assert_eq!(vault.connections(), 1);
    client.forget_connections();
    get(&client, "a").await.unwrap();
    assert_eq!(vault.connections(), 2);
}

#[tokio::test]
async fn an_https_address_without_tls_behind_it_is_named() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("https://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 1024]).await;
        // What Go's server says to anything that is not HTTP.
        let _ =
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n400 Bad Request").await;
    });
    let ca = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(ca.path(), "nothing").unwrap();
    let mut config = VaultConfig::new(address);
    config.request_timeout = Duration::from_secs(2);
    let client = VaultClient::new(config.clone(), Clock::system()).unwrap();
    let failure = get(&client, "a").await.unwrap_err();
    assert_eq!(failure.class, Class::Permanent);
    assert!(
        failure.message.contains("does not speak TLS")
            || failure.message.contains("no certificate authorities"),
        "{failure}"
    );
    config.ca_file = Some(ca.path().to_owned());
    let client = VaultClient::new(config, Clock::system()).unwrap();
    let failure = get(&client, "a").await.unwrap_err();
    assert_eq!(failure.class, Class::Permanent);
    assert!(failure.message.contains("no certificate in it"), "{failure}");
}

#[test]
fn a_wrong_address_is_refused_when_the_client_is_made() {
    for address in [
        "vault:8200",
        "ftp://vault",
        "https://",
        "https://user:pw@vault",
        "https://vault/?a",
        "https://vault/v1",
        "",
    ] {
        let failure = VaultClient::new(VaultConfig::new(address), Clock::system()).unwrap_err();
        assert_eq!(failure.class, Class::Permanent, "{address}");
        assert!(!failure.message.contains("pw"), "{failure}");
    }
    for address in ["http://127.0.0.1:8200", "https://vault.example.com", "https://proxy/vault/"] {
        assert!(VaultClient::new(VaultConfig::new(address), Clock::system()).is_ok(), "{address}");
    }
}

#[tokio::test]
async fn a_token_that_cannot_be_used_as_one_is_refused_with_its_cure() {
    let auth = |more: &str| {
        format!(
            r#"{{"request_id":"r","auth":{{"client_token":"hvs.x","accessor":"a","lease_duration":60,"renewable":true{more}}}}}"#
        )
    };
    for (body, words) in [
        (auth(r#","token_type":"batch""#), "batch token"),
        (auth(r#","num_uses":3"#), "3 uses only"),
        (auth(r#","lease_duration":0"#).replace(r#""lease_duration":60,"#, ""), "never ends"),
        (auth("").replace("hvs.x", ""), "no token"),
    ] {
        let vault = FakeVault::always(Act::json(200, &body)).await;
        let reply = get(&vault.client(), "auth/aws/login").await.unwrap();
        let failure = answer::token_from(&reply, None, "THE CURE").unwrap_err();
        assert_eq!(failure.class, Class::Permanent);
        assert!(failure.message.contains(words) && failure.message.contains("THE CURE"), "{failure}");
        assert!(!failure.message.contains("hvs.x"));
    }
    let vault = FakeVault::always(Act::json(200, &auth(r#","orphan":true,"token_policies":["p"]"#))).await;
    let reply = get(&vault.client(), "auth/aws/login").await.unwrap();
    let minted = answer::token_from(&reply, None, "").unwrap();
    assert_eq!(minted.payload.policies, ["p"]);
    assert!(minted.payload.orphan);
}

/// The token that was made in the state `index`.
fn indexed() -> Token {
    let at = Clock::system().now();
    Token { made: Some(Made { at, index: Some("aW5kZXg=".into()) }), ..token() }
}

async fn get_indexed(client: &VaultClient) -> Result<Reply, Failure> {
    let (call, token) = (call(), indexed());
    client.read(Ask::with(&call, &token, 4096), "secret/a", "", false).await.and_then(Reply::accepted)
}

/// What each request said of the state that it wants and of what to do without it.
fn wanted(vault: &FakeVault) -> Vec<(bool, bool)> {
    let seen = vault.seen();
    seen.iter()
        .map(|seen| {
            let index = seen.headers.get("x-vault-index");
            assert!(index.is_none_or(|index| index == "aW5kZXg="), "{seen:?}");
            let inconsistent = seen.headers.get("x-vault-inconsistent");
            assert!(inconsistent.is_none_or(|what| what == "forward-active-node"), "{seen:?}");
            (index.is_some(), inconsistent.is_some())
        })
        .collect()
}

#[tokio::test]
async fn a_node_that_lags_behind_is_asked_to_forward() {
    let vault = FakeVault::start(|seen| match seen.headers.contains_key("x-vault-inconsistent") {
        true => Act::json(200, "{\"data\":{}}"),
        false => Act::refusal(412, "required index state not present"),
    })
    .await;
    get_indexed(&vault.client()).await.unwrap();
    assert_eq!(wanted(&vault), [(true, false), (true, true)]);
}

#[tokio::test]
async fn a_cluster_that_does_not_forward_by_header_is_waited_for() {
    let behind = Arc::new(Mutex::new(2));
    let left = Arc::clone(&behind);
    let vault = FakeVault::start(move |seen| {
        if seen.headers.contains_key("x-vault-inconsistent") {
            let why =
                "forwarding via header X-Vault-Inconsistent=forward-active-node disabled in configuration";
            return Act::refusal(400, why);
        }
        let mut left = left.lock().unwrap();
        if *left == 0 {
            return Act::json(200, "{\"data\":{}}");
        }
        *left -= 1;
        Act::refusal(412, "required index state not present")
    })
    .await;
    let client = vault.client();
    get_indexed(&client).await.unwrap();
    assert_eq!(wanted(&vault), [(true, false), (true, true), (true, false), (true, false)]);
    // It is not asked again.
    *behind.lock().unwrap() = 1;
    get_indexed(&client).await.unwrap();
    assert_eq!(wanted(&vault)[4..], [(true, false), (true, false)]);
}

#[tokio::test]
async fn a_412_is_tried_again_a_few_times_only() {
    let vault = FakeVault::always(Act::refusal(412, "required index state not present")).await;
    let failure = get_indexed(&vault.client()).await.unwrap_err();
    assert_eq!((failure.class, failure.status), (Class::Transient, Some(412)), "{failure}");
    assert_eq!(wanted(&vault), [(true, false), (true, true), (true, true)]);
    // Without a state to ask for there is nothing to forward for.
    let vault = FakeVault::always(Act::refusal(412, "")).await;
    assert_eq!(get(&vault.client(), "secret/a").await.unwrap_err().status, Some(412));
    assert_eq!(wanted(&vault), [(false, false); 3]);
}

#[tokio::test]
async fn the_state_of_another_cluster_is_not_insisted_on() {
    let vault = FakeVault::start(|seen| match seen.headers.contains_key("x-vault-index") {
        true => Act::refusal(400, "failed to decode \"X-Vault-Index\""),
        false => Act::json(200, "{\"data\":{}}"),
    })
    .await;
    get_indexed(&vault.client()).await.unwrap();
    assert_eq!(wanted(&vault), [(true, false), (false, false)]);
    // Another refusal is the answer.
    let vault = FakeVault::always(Act::refusal(400, "else")).await;
    assert_eq!(get_indexed(&vault.client()).await.unwrap_err().class, Class::Permanent);
    assert_eq!(vault.seen().len(), 1);
}
