//! Clients that take their time: with a head, with a body, with taking their answer.

use std::io::Write as _;
use std::time::Duration;

use tenure::clock::Clock;

use crate::broker::{Broker, content, path, pause, read, until};
use crate::client::{Place, Socket};

/// Seconds since then, by the system's clock.
struct Watch(Clock, Duration);

impl Watch {
    fn new() -> Self {
        let clock = Clock::system();
        let now = clock.now().mono();
        Self(clock, now)
    }

    fn seconds(&self) -> u64 {
        (self.0.now().mono() - self.1).as_secs()
    }
}

/// Sends byte by byte until the other side closes, and says after how many seconds that was.
fn drip(socket: &mut Socket, text: &str) -> u64 {
    let watch = Watch::new();
    for byte in text.bytes() {
        if socket.write_all(&[byte]).is_err() || socket.is_closed() {
            return watch.seconds();
        }
        pause(150);
        assert!(watch.seconds() < 40, "it is still open");
    }
    panic!("all of it was taken");
}

/// On each listener at once.
fn on_both(broker: &Broker, test: fn(Place)) {
    let threads = broker.places().map(|(_, place)| std::thread::spawn(move || test(place)));
    for thread in threads {
        thread.join().expect("it holds");
    }
}

#[test]
fn a_head_that_comes_byte_by_byte_is_not_waited_for() {
    let broker = Broker::dev();
    on_both(&broker, |place| {
        // Empty lines before a request are no progress either.
        let head = place.request("GET", &path(0), &"x: y\r\n".repeat(90), "");
        let slow = [head, "\r\n".repeat(200)].map(|text| {
            let mut slow = place.connect().expect("connected");
            std::thread::spawn(move || drip(&mut slow, &text))
        });
        for slow in slow {
            let took = slow.join().expect("it is let go");
            assert!((8..=14).contains(&took), "after {took} s");
        }
    });
    broker.finish();
}

#[test]
fn a_head_behind_a_whole_request_is_not_waited_for_and_the_request_is_answered() {
    let broker = Broker::dev();
    on_both(&broker, |place| {
        let mut slow = place.connect().expect("connected");
        let half = place.get(&path(1));
        let (half, other) = half.split_at(half.len() / 2);
        slow.write_all(format!("{}{half}", place.get(&path(0))).as_bytes()).expect("written");
        let answer = slow.answer().expect("the answer to the whole one");
        assert!(answer.body.contains(&content(0)), "{}", answer.body);
        // Its connection gives its buffers back meanwhile.
        pause(5000);
        slow.write_all(other.as_bytes()).expect("written");
        let answer = slow.answer().expect("the answer to the other");
        assert!(answer.status == 200 && answer.body.contains(&content(1)), "{}", answer.body);
        slow.write_all(format!("{}{half}", place.get(&path(2))).as_bytes()).expect("written");
        assert!(slow.answer().expect("an answer").body.contains(&content(2)));
        let watch = Watch::new();
        until("it is let go", Duration::from_secs(20), || slow.is_closed());
        assert!(watch.seconds() >= 8, "after {} s", watch.seconds());
    });
    broker.finish();
}

#[test]
fn a_body_that_comes_byte_by_byte_is_refused_in_time() {
    let broker = Broker::dev();
    on_both(&broker, |place| {
        let slow = ["content-length: 5000\r\n", "transfer-encoding: chunked\r\n"].map(|headers| {
            let mut slow = place.connect().expect("connected");
            slow.write_all(place.request("POST", "/tenure/runs", headers, "").as_bytes()).expect("a head");
            std::thread::spawn(move || {
                let watch = Watch::new();
                for byte in "1\r\n \r\n".bytes().cycle() {
                    if slow.write_all(&[byte]).is_err() || watch.seconds() > 12 {
                        break;
                    }
                    pause(150);
                }
                slow.answer().expect("an answer")
            })
        });
        for slow in slow {
            let answer = slow.join().expect("it is answered");
            assert_eq!(answer.status, 408, "{}", answer.body);
            assert!(answer.body.contains("the body was not there within 10 s"), "{}", answer.body);
        }
    });
    broker.finish();
}

/// Many bodies at a time keep nobody else from registering, and take a bounded part of memory.
#[test]
fn one_party_has_so_many_bodies_on_their_way_and_no_more() {
    let broker = Broker::dev();
    let (unix, tcp) = (broker.unix(), broker.tcp());
    let head = unix.request("POST", "/tenure/runs", "content-length: 60000\r\n", &" ".repeat(50_000));
    let mut slow: Vec<Socket> = (0..200)
        .map(|_| {
            let mut socket = unix.connect().expect("connected");
            socket.write_all(head.as_bytes()).expect("most of a body");
            socket
        })
        .collect();
    pause(1000);
    let body = "{}";
    let more = format!("content-length: {}\r\n", body.len());
    let register = |place: &Place| {
        let mut socket = place.connect().expect("connected");
        socket.write_all(place.request("POST", "/tenure/runs", &more, body).as_bytes()).expect("written");
        socket.answer().expect("an answer")
    };
    let refused = register(&unix);
    assert_eq!(refused.status, 429, "{}", refused.body);
    assert!(refused.head.to_ascii_lowercase().contains("retry-after: 1"), "{}", refused.head);
    assert_eq!(register(&tcp).status, 201, "another party");
    read(&mut unix.connect().expect("connected"), 1);
    let refused = slow.iter_mut().skip(128).filter_map(|socket| (!socket.is_waiting()).then_some(())).count();
    assert!(refused >= 60, "{refused} were told at once");
    drop(slow);
    until("they are forgotten", Duration::from_secs(15), || register(&unix).status == 201);
    broker.finish();
}

#[test]
fn who_does_not_take_his_answers_is_let_go() {
    let broker = Broker::dev();
    on_both(&broker, |place| {
        let mut deaf = place.connect().expect("connected");
        deaf.wait_at_most(Duration::from_secs(1)).expect("a bound");
        let many = place.get(&path(0)).repeat(100);
        // Until neither side can take more.
        let mut written = 0;
        while written < 64 << 20 {
            match deaf.write(many.as_bytes()) {
                Ok(count) => written += count,
                Err(_) => break,
            }
        }
        assert!(written < 64 << 20, "it takes requests without an end");
        deaf.wait_at_most(Duration::from_secs(60)).expect("a bound");
        pause(25_000);
        let mut answers = 0;
        // What is in the kernel's buffers is still there, whole and right; then it ends.
        while let Ok(answer) = deaf.answer() {
            assert!(answer.status == 200 && answer.body.contains(&content(0)), "{}", answer.body);
            answers += 1;
        }
        assert!(answers < written / place.get(&path(0)).len(), "all of it was answered");
    });
    assert!(broker.metric("tenure_connections_let_go_total{why=\"unread\"}") >= 2);
    broker.finish();
}
