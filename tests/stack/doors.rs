//! Bad input at the doors, byte by byte: each is refused in words, and the process goes on serving.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::broker::{Broker, Setup};
use crate::harness::Server;
use crate::http::{Place, connect, raw};

against_both! {
    malformed_requests_are_refused_and_the_process_serves_on
    on_tcp_only_holders_of_the_token_on_this_host_are_served
    requests_that_dawdle_hold_nobody_up
}

const SECRET: &str = "/v1/secret/data/orders/config";

fn malformed_requests_are_refused_and_the_process_serves_on(server: &Server) {
    let broker = Setup::new(server).start();
    let long = "a".repeat(20_000);
    let deep = "a/".repeat(600);
    let get = |path: &str, more: &str| format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{more}\r\n");
    let with = |method: &str| format!("{method} {SECRET} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let cases: Vec<(&str, Vec<u8>, &[u16], &str)> = vec![
        ("no HTTP", b"hello\r\n\r\n".to_vec(), &[400], ""),
        ("another version", b"GET / HTTP/9.9\r\n\r\n".to_vec(), &[400, 505], ""),
        ("bytes", vec![0xff, 0x00, 0x16, 0x03, 0x01, b'\r', b'\n', b'\r', b'\n'], &[400], ""),
        ("a header without a name", get(SECRET, ": x\r\n").into_bytes(), &[400], ""),
        ("a control character in a header", get(SECRET, "x: a\x01b\r\n").into_bytes(), &[400], ""),
        ("two lengths", get(SECRET, "content-length: 1\r\ncontent-length: 2\r\n").into_bytes(), &[400], ""),
        (
            "a length and chunks",
            get(SECRET, "content-length: 5\r\ntransfer-encoding: chunked\r\n").into_bytes(),
            &[400, 413],
            "",
        ),
        ("a long header", get(SECRET, &format!("x: {long}\r\n")).into_bytes(), &[431], ""),
        ("many headers", get(SECRET, &"x: y\r\n".repeat(200)).into_bytes(), &[431], ""),
        ("a long path", get(&format!("/v1/{long}"), "").into_bytes(), &[400, 414, 431], ""),
        ("a deep path", get(&format!("/v1/{deep}a"), "").into_bytes(), &[400], "longer than"),
        ("another's address", get("http://localhost/v1/x", "").into_bytes(), &[400], "not a proxy"),
        (
            "a tunnel",
            b"CONNECT localhost:1 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".to_vec(),
            &[400],
            "not a proxy",
        ),
        ("dots", get("/v1/secret/data/../orders", "").into_bytes(), &[400], "'..'"),
        ("encoded dots", get("/v1/secret/data/%2e%2e/orders", "").into_bytes(), &[400], "'..'"),
        ("an empty segment", get("/v1/secret//orders", "").into_bytes(), &[400], "empty"),
        (
            "an encoded slash",
            get("/v1/secret/data/orders%2Fconfig", "").into_bytes(),
            &[400],
            "encoded slash",
        ),
        ("an encoded backslash", get("/v1/secret/data%5cconfig", "").into_bytes(), &[400], "encoded slash"),
        ("an encoded newline", get("/v1/secret/data/a%0d%0ab", "").into_bytes(), &[400], "control character"),
        ("a broken escape", get("/v1/secret/%zz", "").into_bytes(), &[400], "percent escape"),
        ("no path", get("/v1/", "").into_bytes(), &[400], "no path"),
        ("another page", get("/v2/secret", "").into_bytes(), &[404], "/v1/"),
        ("a query", get(&format!("{SECRET}?x=1"), "").into_bytes(), &[400], "query"),
        ("a body", format!("{}{{}}", get(SECRET, "content-length: 2\r\n")).into_bytes(), &[413], "no body"),
        (
            "chunks",
            format!("{}2\r\n{{}}\r\n0\r\n\r\n", get(SECRET, "transfer-encoding: chunked\r\n")).into_bytes(),
            &[413],
            "no body",
        ),
        ("a write", with("PUT").into_bytes(), &[405], "serves reads"),
        ("a deletion", with("DELETE").into_bytes(), &[405], "serves reads"),
        ("a method nobody knows", with("FROB").into_bytes(), &[405], "serves reads"),
        ("a wrapped answer", get(SECRET, "x-vault-wrap-ttl: 60s\r\n").into_bytes(), &[400], "wrapping"),
        ("another namespace", get(SECRET, "x-vault-namespace: team\r\n").into_bytes(), &[403], "namespace"),
        ("a life of nonsense", get(SECRET, "x-tenure-min-ttl: soon\r\n").into_bytes(), &[400], "Min-Ttl"),
        ("its own token", get("/v1/auth/token/lookup", "").into_bytes(), &[403], "auth/"),
        ("Vault itself", get("/v1/sys/raw/core", "").into_bytes(), &[403], "sys/"),
    ];
    for (what, bytes, statuses, words) in cases {
        let answer = refusal(&broker, what, &bytes);
        assert!(statuses.contains(&answer.0), "{what} was answered {}: {}", answer.0, answer.1);
        assert!(answer.1.contains(words), "{what}: {words:?} is not in {}", answer.1);
        assert!(!answer.1.contains("canary"), "{what}: {}", answer.1);
    }
    assert_eq!(broker.get(SECRET).status, 200, "it serves on");
    let finished = broker.finish();
    assert!(finished.of("request").len() > 15, "refusals are on record");
}

/// Status and body of the answer to these bytes.
fn refusal(broker: &Broker<'_>, what: &str, bytes: &[u8]) -> (u16, String) {
    // The client reads until the connection ends, so one that would stay open is asked to be closed.
    let closing = String::from_utf8_lossy(bytes).replacen(
        "\r\nhost: localhost\r\n",
        "\r\nhost: localhost\r\nconnection: close\r\n",
        1,
    );
    let bytes = if bytes.is_ascii() { closing.as_bytes() } else { bytes };
    let answer = raw(&broker.unix(), bytes).unwrap_or_else(|error| panic!("{what}: {error}"));
    broker.keep(&answer);
    (answer.status, answer.text())
}

fn on_tcp_only_holders_of_the_token_on_this_host_are_served(server: &Server) {
    let broker = Setup::new(server).start();
    let token = broker.token();
    let place = broker.tcp();
    let Place::Tcp(address) = &place else { panic!("a TCP door") };
    let host = address.to_string();
    let stranger = "hvs.CAESIJstrangerstrangerstranger";
    let ours = format!("x-vault-token: {token}\r\n");
    for (what, host, headers, status, words) in [
        ("the token", host.as_str(), ours.clone(), 200, ""),
        ("the token as a bearer", "localhost", format!("authorization: Bearer {token}\r\n"), 200, ""),
        ("no token", &host, String::new(), 403, "local token"),
        ("an empty token", &host, "x-vault-token: \r\n".to_owned(), 403, "local token"),
        (
            "an unknown token",
            &host,
            format!("x-vault-token: {stranger}\r\n"),
            403,
            "not one of this broker's",
        ),
        ("almost the token", &host, format!("x-vault-token: {}\r\n", &token[..46]), 403, "not one of"),
        ("a foreign host", "vault.internal:8200", ours.clone(), 403, "Host header"),
        ("a rebound host", "127.0.0.1.evil.example", ours.clone(), 403, "Host header"),
        ("an origin", &host, format!("{ours}origin: http://evil.example\r\n"), 403, "browsers"),
        ("a null origin", &host, format!("{ours}origin: null\r\n"), 403, "browsers"),
        ("a browser", &host, format!("{ours}sec-fetch-site: same-origin\r\n"), 403, "browsers"),
        ("a proxy", &host, format!("{ours}x-forwarded-for: 10.0.0.1\r\n"), 403, "forwarded"),
        ("a newer proxy", &host, format!("{ours}forwarded: for=10.0.0.1\r\n"), 403, "forwarded"),
    ] {
        let bytes = format!("GET {SECRET} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{headers}\r\n");
        let answer = raw(&place, bytes.as_bytes()).expect(what);
        broker.keep(&answer);
        assert_eq!(answer.status, status, "{what}: {}", answer.text());
        assert!(answer.text().contains(words), "{what}: {}", answer.text());
        assert!(!answer.text().contains(stranger));
    }
    // What tells nothing needs no token, and what tells anything does.
    for (page, status) in
        [("/tenure/health", 200), ("/tenure/ready", 403), ("/tenure/leases", 403), ("/metrics", 403)]
    {
        assert_eq!(broker.ask(&place, "GET", page, &[]).status, status, "{page}");
    }
    // On the socket the kernel says who it is; a token that is none of ours is refused there too.
    assert_eq!(broker.ask(&broker.unix(), "GET", SECRET, &[("x-vault-token", stranger)]).status, 403);
    assert_eq!(broker.get_tcp(SECRET).status, 200);
    let finished = broker.finish();
    for output in [serde_json::to_string(&finished.audit).expect("lines"), finished.log] {
        assert!(!output.contains(stranger), "a token of somebody else is in an output");
    }
}

fn requests_that_dawdle_hold_nobody_up(server: &Server) {
    let broker = Setup::new(server).start();
    let Place::Unix(path) = broker.unix() else { panic!("a Unix door") };
    let mut slow: Vec<UnixStream> = (0..300)
        .map(|_| {
            let mut stream = UnixStream::connect(&path).expect("a connection");
            stream
                .write_all(b"GET /v1/secret/data/orders/config HTTP/1.1\r\nhost: loc")
                .expect("half a head");
            stream
        })
        .collect();
    assert_eq!(broker.get(SECRET).status, 200, "others are served meanwhile");
    // One that goes on is served, one that stops in the middle is forgotten.
    let mut late = slow.pop().expect("a connection");
    late.write_all(b"alhost\r\nconnection: close\r\n\r\n").expect("the other half");
    let mut answer = String::new();
    late.set_read_timeout(Some(Duration::from_secs(10))).expect("a bound");
    late.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    for stream in slow.drain(..150) {
        stream.shutdown(Shutdown::Both).expect("shut");
    }
    // A client that never reads its answer.
    let mut deaf = connect(&broker.unix()).expect("a connection");
    let request = format!("GET {SECRET} HTTP/1.1\r\nhost: localhost\r\n\r\n").repeat(50);
    deaf.write_all(request.as_bytes()).expect("many requests");
    assert_eq!(broker.get(SECRET).status, 200);
    // 150 halves and the deaf one are still open: they do not keep the process from its end.
    broker.finish();
}
