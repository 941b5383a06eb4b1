//! Loopback TCP: only who holds the local token or a handle, and only programs on this host.

use std::io::Write as _;

use crate::broker::{Broker, content, path};
use crate::client::Place;

const STRANGER: &str = "hvs.CAESIJstrangerstrangerstranger";

#[test]
fn only_holders_of_the_token_on_this_host_are_served() {
    let broker = Broker::dev();
    let Place::Tcp(address, token) = broker.tcp() else { panic!("TCP") };
    let (host, ours) = (format!("host: {address}\r\n"), format!("x-vault-token: {token}\r\n"));
    let secret = path(1);
    let good = format!("{host}{ours}");
    for (what, target, headers, status, words) in [
        ("the token", secret.clone(), good.clone(), 200, ""),
        (
            "the token as a bearer",
            secret.clone(),
            format!("{host}authorization: Bearer {token}\r\n"),
            200,
            "",
        ),
        ("no token", secret.clone(), host.clone(), 403, "local token"),
        ("an empty token", secret.clone(), format!("{host}x-vault-token:\r\n"), 403, "local token"),
        (
            "a real Vault token",
            secret.clone(),
            format!("{host}x-vault-token: {STRANGER}\r\n"),
            403,
            "not one of this broker's",
        ),
        (
            "half the token",
            secret.clone(),
            format!("{host}x-vault-token: {}\r\n", &token[..30]),
            403,
            "not one of",
        ),
        ("the token twice", secret.clone(), format!("{good}{ours}"), 400, "more than once"),
        ("two tokens", secret.clone(), format!("{good}x-vault-token: {STRANGER}\r\n"), 400, "more than once"),
        ("no host", secret.clone(), ours.clone(), 403, "Host"),
        ("a foreign host", secret.clone(), format!("host: vault.internal:8200\r\n{ours}"), 403, "Host"),
        ("a rebound host", secret.clone(), format!("host: 127.0.0.1.evil.example\r\n{ours}"), 403, "Host"),
        ("two hosts", secret.clone(), format!("{good}host: evil.example\r\n"), 400, "more than once"),
        ("an origin", secret.clone(), format!("{good}origin: http://evil.example\r\n"), 403, "browsers"),
        ("a null origin", secret.clone(), format!("{good}origin: null\r\n"), 403, "browsers"),
        ("a browser", secret.clone(), format!("{good}sec-fetch-site: same-origin\r\n"), 403, "browsers"),
        (
            "another sign of one",
            secret.clone(),
            format!("{good}Sec-Fetch-Mode: navigate\r\n"),
            403,
            "browsers",
        ),
        ("a proxy", secret.clone(), format!("{good}x-forwarded-for: 10.0.0.1\r\n"), 403, "forwarded"),
        ("a newer proxy", secret.clone(), format!("{good}forwarded: for=10.0.0.1\r\n"), 403, "forwarded"),
        ("an absolute target", format!("http://{address}{secret}"), good.clone(), 400, "not a proxy"),
        ("another's target", format!("http://evil.example{secret}"), good.clone(), 400, "not a proxy"),
        ("what tells of leases", "/tenure/leases".to_owned(), host.clone(), 403, "local token"),
        ("metrics", "/metrics".to_owned(), host.clone(), 403, "local token"),
        ("readiness", "/tenure/ready".to_owned(), host.clone(), 403, "local token"),
        ("runs", "/tenure/runs".to_owned(), host.clone(), 403, "local token"),
        ("life, which tells nothing", "/tenure/health".to_owned(), host.clone(), 200, "alive"),
    ] {
        let mut socket = broker.tcp().connect().expect("connected");
        socket.write_all(format!("GET {target} HTTP/1.1\r\n{headers}\r\n").as_bytes()).expect("written");
        let answer = socket.answer().expect(what);
        assert_eq!(answer.status, status, "{what}: {}", answer.body);
        assert!(answer.body.contains(words), "{what}: {}", answer.body);
        assert_eq!(
            answer.body.contains(&content(1)),
            target == secret && status == 200,
            "{what}: {}",
            answer.body
        );
        assert!(!answer.body.contains(STRANGER) && !answer.body.contains(&token), "{what}: {}", answer.body);
    }
    let tunnel = format!("CONNECT evil.example:443 HTTP/1.1\r\n{good}connection: close\r\n\r\n");
    let mut socket = broker.tcp().connect().expect("connected");
    socket.write_all(tunnel.as_bytes()).expect("written");
    assert_eq!(socket.answer().expect("an answer").status, 400);
    for output in [broker.audit(), broker.log()] {
        assert!(!output.contains(STRANGER) && !output.contains(&token), "a token is in an output");
    }
    broker.finish();
}

/// Whoever presents none of our tokens gets nothing on the Unix socket either, although he would without one.
#[test]
fn a_token_that_is_none_of_ours_is_refused_on_the_unix_socket_too() {
    let broker = Broker::dev();
    let place = broker.unix();
    let ask = |header: &str| {
        let mut socket = place.connect().expect("connected");
        socket.write_all(place.request("GET", &path(1), header, "").as_bytes()).expect("written");
        socket.answer().expect("an answer")
    };
    assert_eq!(ask("").status, 200);
    assert_eq!(ask(&format!("x-vault-token: {}\r\n", broker.token())).status, 200);
    for header in [format!("x-vault-token: {STRANGER}\r\n"), format!("authorization: Bearer {STRANGER}\r\n")]
    {
        let refused = ask(&header);
        assert_eq!(refused.status, 403, "{}", refused.body);
        assert!(!refused.body.contains(STRANGER));
    }
    broker.finish();
}
