//! Requests of all sizes, and many on one connection.

use std::io::Write as _;

use crate::broker::{Broker, VALUES, content, path, pause, read};

#[test]
fn what_is_too_large_is_refused_and_takes_no_memory() {
    let broker = Broker::dev();
    let long = "a".repeat(20_000);
    for (name, place) in broker.places() {
        let with = |more: &str| place.request("GET", &path(0), more, "");
        let post = |more: &str, body: &str| place.request("POST", "/tenure/runs", more, body);
        for (what, text, statuses) in [
            ("a target", place.get(&format!("/v1/{long}")), &[400, 414, 431][..]),
            ("a query", place.get(&format!("{}?{long}", path(0))), &[400, 414, 431]),
            ("a header", with(&format!("x: {long}\r\n")), &[431]),
            ("a header's name", with(&format!("{long}: x\r\n")), &[400, 431]),
            ("many headers", with(&"x: y\r\n".repeat(200)), &[431]),
            ("a body", post("content-length: 70000\r\n", &" ".repeat(70_000)), &[413]),
            ("a body that is announced", post("content-length: 99999999999\r\n", ""), &[408, 413]),
            (
                "a chunk",
                post("transfer-encoding: chunked\r\n", &format!("11170\r\n{}", " ".repeat(70_000))),
                &[413],
            ),
        ] {
            let mut socket = place.connect().expect("connected");
            // Whoever is refused early may find the other end closed.
            let _ = socket.write_all(text.as_bytes());
            match socket.answer() {
                Ok(answer) => assert!(
                    statuses.contains(&answer.status),
                    "{name}, {what}: {} {}",
                    answer.status,
                    answer.body
                ),
                Err(error) => println!("{name}, {what}: closed without an answer, {error}"),
            }
        }
        let before = broker.resident();
        for text in ["GET / HTTP/1.1\r\n", "GET /v1/"] {
            let mut socket = place.connect().expect("connected");
            socket.write_all(text.as_bytes()).expect("a beginning");
            let endless = "x: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n"
                .replace("\r\n", if text.ends_with('\n') { "\r\n" } else { "" })
                .repeat(100);
            let mut written = 0;
            while written < 32 << 20 && socket.write_all(endless.as_bytes()).is_ok() {
                written += endless.len();
            }
            assert!(written < 8 << 20, "{name}: {written} bytes of a head were taken");
        }
        let taken = broker.resident().saturating_sub(before);
        assert!(taken < 4 << 20, "{name}: {taken} bytes");
        read(&mut place.connect().expect("connected"), 1);
    }
    broker.finish();
}

#[test]
fn many_requests_in_one_write_are_answered_in_their_order() {
    let broker = Broker::dev();
    for (name, place) in broker.places() {
        let mut socket = place.connect().expect("connected");
        let numbers: Vec<usize> = (0..2000).map(|number| number * 7 % VALUES).collect();
        let text: String = numbers.iter().map(|number| place.get(&path(*number))).collect();
        let mut writer = socket.try_clone().expect("a second hand");
        let writing = std::thread::spawn(move || writer.write_all(text.as_bytes()));
        for number in numbers {
            let answer = socket.answer().expect("an answer");
            assert!(
                answer.status == 200 && answer.body.contains(&content(number)),
                "{name}: {}",
                answer.body
            );
        }
        writing.join().expect("a thread").expect("written");
        assert!(!socket.is_closed());
    }
    broker.finish();
}

#[test]
fn a_refused_request_does_not_spoil_the_next_one() {
    let broker = Broker::dev();
    for (name, place) in broker.places() {
        let mut socket = place.connect().expect("connected");
        let text = [
            place.get(&path(1)),
            place.get("/v1/secret/data/%2e%2e/x"),
            place.request("PUT", &path(1), "content-length: 2\r\n", "{}"),
            place.get(&path(2)),
            place.request("POST", "/tenure/runs", "content-length: 9\r\n", "not JSON!"),
            place.get(&path(3)),
        ]
        .concat();
        socket.write_all(text.as_bytes()).expect("written");
        let answers: Vec<_> = (0..6).map(|_| socket.answer().expect("an answer")).collect();
        let statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
        assert_eq!(statuses, [200, 400, 405, 200, 400, 200], "{name}");
        for (at, number) in [(0, 1), (3, 2), (5, 3)] {
            assert!(answers[at].body.contains(&content(number)), "{name}: {}", answers[at].body);
        }
    }
    broker.finish();
}

#[test]
fn one_connection_is_good_for_many_requests_with_pauses_between() {
    let broker = Broker::dev();
    for (_, place) in broker.places() {
        let mut socket = place.connect().expect("connected");
        for round in 0..3 {
            for number in 0..200 {
                read(&mut socket, number + round);
            }
            pause(3500);
        }
        read(&mut socket, 0);
    }
    assert_eq!(broker.metric("tenure_connections_let_go_total{why=\"idle\"}"), 0);
    broker.finish();
}
