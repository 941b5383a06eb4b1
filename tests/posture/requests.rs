//! Requests that mean one thing to us and another to somebody else.

use std::io::Write as _;

use crate::broker::{Broker, content, path, read};

#[test]
fn a_path_means_one_thing_or_is_refused() {
    let broker = Broker::dev();
    let long = format!("/v1/secret/{}", "a/".repeat(600));
    for (name, place) in broker.places() {
        for (target, status) in [
            ("/v1/secret/data/../value-1", 400),
            ("/v1/secret/data/./value-1", 400),
            ("/v1/secret/data//value-1", 400),
            ("/v1//secret/data/value-1", 400),
            ("/v1/secret/data/%2e%2e/value-1", 400),
            ("/v1/secret/data/%2E%2e/value-1", 400),
            ("/v1/secret/data/.%2e/value-1", 400),
            ("/v1/secret%2fdata%2fvalue-1", 400),
            ("/v1/secret/data%5cvalue-1", 400),
            ("/v1/secret/data/value-1%00", 400),
            ("/v1/secret/data/value-1%0d%0aX-Vault-Token:x", 400),
            ("/v1/secret/data/value-1%", 400),
            ("/v1/secret/data/%c0%ae%c0%ae/value-1", 400),
            ("/v1/secret/data/value-1?list=true&x=1", 400),
            ("/v1/secret/data/value-1?version=1%26list=true", 400),
            (long.as_str(), 400),
            ("/v1/", 400),
            ("/v1", 404),
            ("/V1/secret/data/value-1", 404),
            ("//v1/secret/data/value-1", 404),
            ("/tenure/../v1/secret/data/value-1", 404),
            ("/tenure/runs/../../v1/secret/data/value-1", 404),
            // The broker's own tokens, also by way of a child's namespace.
            ("/v1/auth/token/lookup", 403),
            ("/v1/auth/token/accessors", 403),
            ("/v1/team/auth/token/lookup-self", 403),
            ("/v1/team/a/auth/token/lookup-self", 403),
            ("/v1/team/%61uth/token/lookup-self", 403),
            ("/v1/sys/raw/core/keyring", 403),
            ("/v1/cubbyhole/x", 403),
        ] {
            let answer = place.once(target).expect(target);
            assert_eq!(answer.status, status, "{name}, {target}: {}", answer.body);
            assert!(!answer.body.contains("content-of"), "{name}, {target}: {}", answer.body);
        }
        // Nothing of ours is told of the token that a run has.
        let looked_up = place.once("/v1/auth/token/lookup-self").expect("an answer");
        assert_eq!(looked_up.status, 200);
        assert!(
            looked_up.body.contains("\"id\":\"\"") && looked_up.body.contains("\"accessor\":\"\""),
            "{}",
            looked_up.body
        );
        let mut socket = place.connect().expect("connected");
        let with = place.request("GET", &path(1), "x-vault-namespace: team\r\n", "");
        socket.write_all(with.as_bytes()).expect("written");
        assert_eq!(socket.answer().expect("an answer").status, 403, "another namespace");
    }
    broker.finish();
}

/// Where one message ends and the next one begins is not open to two readings; else the connection closes.
#[test]
fn nothing_is_smuggled_between_two_requests() {
    let broker = Broker::dev();
    for (name, place) in broker.places() {
        let smuggled = place.get(&path(1));
        let post = |headers: &str, body: &str| place.request("POST", "/tenure/runs", headers, body);
        let get = |headers: &str| place.request("GET", &path(2), headers, "");
        for (what, text, statuses) in [
            (
                "a length and chunks",
                post("content-length: 5\r\ntransfer-encoding: chunked\r\n", "0\r\n\r\n"),
                &[200, 201, 400][..],
            ),
            (
                "chunks and a length",
                post("transfer-encoding: chunked\r\ncontent-length: 5\r\n", "0\r\n\r\n"),
                &[200, 201, 400],
            ),
            ("two lengths", post("content-length: 0\r\ncontent-length: 10\r\n", ""), &[400]),
            ("a list of lengths", post("content-length: 0, 10\r\n", ""), &[400]),
            ("a signed length", post("content-length: +0\r\n", ""), &[400]),
            ("a length in hex", post("content-length: 0x0\r\n", ""), &[400]),
            (
                "chunks, then something else",
                post("transfer-encoding: chunked, identity\r\n", "0\r\n\r\n"),
                &[400],
            ),
            ("no chunks", post("transfer-encoding: gzip\r\n", ""), &[400]),
            (
                "a length that is none of a chunk's",
                post("transfer-encoding: chunked\r\n", "zz\r\n\r\n"),
                &[400],
            ),
            ("a folded header", get("x: a\r\n b\r\n"), &[400]),
            ("a blank before the colon", get("x-vault-namespace : team\r\n"), &[400]),
            ("a blank before the name", get(" x: y\r\n"), &[400]),
            ("a NUL in a header", get("x: a\0b\r\n"), &[400]),
            ("a carriage return in a header", get("x: a\rb\r\n"), &[400]),
            ("no colon", get("nonsense\r\n"), &[400]),
            ("a body where there is none", format!("{}{{}}", get("content-length: 2\r\n")), &[413]),
        ] {
            let mut socket = place.connect().expect("connected");
            socket.write_all(format!("{text}{smuggled}").as_bytes()).expect("written");
            let answer = socket.answer().expect(what);
            assert!(statuses.contains(&answer.status), "{name}, {what}: {} {}", answer.status, answer.body);
            assert!(!answer.body.contains(&content(2)), "{name}, {what}: {}", answer.body);
            // Nothing more is answered, but what stands whole behind a body that was read to its end.
            let rest = socket.answer();
            let harmless = what == "a body where there is none";
            assert!(rest.is_err() || harmless, "{name}, {what}: {rest:?}");
        }
        let old = format!(
            "POST /tenure/runs HTTP/1.0\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"
        );
        let mut socket = place.connect().expect("connected");
        socket.write_all(old.as_bytes()).expect("written");
        assert_eq!(socket.answer().expect("an answer").status, 400, "{name}: chunks in HTTP/1.0");
        assert!(socket.answer().is_err());
        read(&mut place.connect().expect("connected"), 1);
    }
    broker.finish();
}

#[test]
fn no_answer_may_be_stored() {
    let broker = Broker::dev();
    for (name, place) in broker.places() {
        let run = {
            let mut socket = place.connect().expect("connected");
            let text = place.request("POST", "/tenure/runs", "content-length: 2\r\n", "{}");
            socket.write_all(text.as_bytes()).expect("written");
            let answer = socket.answer().expect("an answer");
            let body: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
            body["id"].as_str().expect("an id").to_owned()
        };
        for (method, target, status) in [
            ("GET", path(1), 200),
            ("GET", "/v1/secret/data/none".to_owned(), 404),
            ("GET", "/v1/auth/token/lookup-self".to_owned(), 200),
            ("GET", "/v1/auth/x".to_owned(), 403),
            ("GET", "/v1/a//b".to_owned(), 400),
            ("PUT", path(1), 405),
            ("GET", "/tenure/runs".to_owned(), 200),
            ("DELETE", format!("/tenure/runs/{run}"), 204),
            ("GET", format!("/tenure/runs/{run}"), 410),
            ("GET", "/tenure/leases".to_owned(), 200),
            ("GET", "/tenure/ready".to_owned(), 200),
            ("GET", "/metrics".to_owned(), 200),
            ("GET", "/nothing".to_owned(), 404),
        ] {
            let mut socket = place.connect().expect("connected");
            socket.write_all(place.request(method, &target, "", "").as_bytes()).expect("written");
            let answer = socket.answer().expect("an answer");
            assert_eq!(answer.status, status, "{name}, {method} {target}: {}", answer.body);
            assert!(
                answer.head.to_ascii_lowercase().contains("cache-control: no-store"),
                "{name}, {target}: {}",
                answer.head
            );
        }
    }
    broker.finish();
}
