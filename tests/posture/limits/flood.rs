//! Ten thousand connections on which nothing comes.

use std::time::Duration;

use crate::broker::{Broker, open_files, pause, read, until};
use crate::client::{Place, Socket};

const IDLE: usize = 10_000;

/// What an idle connection may take of the broker's memory, buffers of the kernel not counted.
const MOST_BYTES: u64 = 6 * 1024;

fn flood(name: &str, broker: &Broker, place: &Place) {
    let _files = open_files(IDLE as u64 + 500);
    let mut first = place.connect().expect("connected");
    read(&mut first, 0);
    let readers = broker.readers(place, 8);
    let before = broker.resident();
    let mut idle = Vec::with_capacity(IDLE);
    for number in 0..IDLE {
        idle.push(place.connect().expect("connected"));
        if number % 250 == 0 {
            // Somebody new comes in between.
            read(&mut place.connect().expect("connected"), number);
        }
    }
    let held = broker.metric("tenure_connections ");
    let each = broker.resident().saturating_sub(before) / held.max(1);
    println!("{name}: {IDLE} idle connections, {held} of them held, {each} bytes resident for each");
    assert!((1000..4096).contains(&held), "{held} are held");
    assert!(each < MOST_BYTES, "{each} bytes for each idle connection");
    read(&mut place.connect().expect("connected"), 3);
    let answers = readers.finish();
    println!("{name}: {answers} answers meanwhile, all right");
    assert!(broker.metric("tenure_connections_let_go_total{why=\"room\"}") as usize >= IDLE - 4096);
    let closed = idle.iter_mut().take(100).filter_map(|socket| socket.is_closed().then_some(())).count();
    assert_eq!(closed, 100, "those that came first went first");
    assert!(!idle.last_mut().expect("the last").is_closed());
    drop(idle);
    until("they are forgotten", Duration::from_secs(5), || broker.metric("tenure_connections ") < 20);
}

#[test]
fn ten_thousand_idle_connections_on_the_unix_socket() {
    let broker = Broker::dev();
    flood("Unix", &broker, &broker.unix());
    broker.finish();
}

#[test]
fn ten_thousand_idle_connections_on_tcp() {
    let broker = Broker::dev();
    flood("TCP", &broker, &broker.tcp());
    broker.finish();
}

#[test]
fn a_flood_on_one_listener_costs_the_other_none() {
    let broker = Broker::dev();
    let _files = open_files(IDLE as u64 + 500);
    for ((_, flooded), (_, other)) in broker.places().iter().zip(broker.places().iter().rev()) {
        let mut kept: Vec<Socket> = (0..500).map(|_| other.connect().expect("connected")).collect();
        let _idle: Vec<Socket> = (0..6000).map(|_| flooded.connect().expect("connected")).collect();
        read(&mut other.connect().expect("connected"), 1);
        for (number, socket) in kept.iter_mut().enumerate() {
            read(socket, number);
        }
    }
    broker.finish();
}

/// The buffers of a connection that was used go back when it is idle; it stays, and what comes on it next is answered.
#[test]
fn connections_that_were_used_are_cheap_again_when_they_are_idle() {
    const USED: usize = 1600;
    let broker = Broker::dev();
    let _files = open_files(USED as u64 + 500);
    for (name, place) in broker.places() {
        read(&mut place.connect().expect("connected"), 0);
        let before = broker.resident();
        let mut used: Vec<Socket> = (0..USED).map(|_| place.connect().expect("connected")).collect();
        for (number, socket) in used.iter_mut().enumerate() {
            read(socket, number);
        }
        let busy = broker.resident().saturating_sub(before) / USED as u64;
        pause(5000);
        let mut more: Vec<Socket> = (0..USED / 2).map(|_| place.connect().expect("connected")).collect();
        for (number, socket) in more.iter_mut().enumerate() {
            read(socket, number);
        }
        let with_more = broker.resident().saturating_sub(before) / USED as u64;
        println!(
            "{name}: {busy} bytes for each that was just used; with half as many again, after a pause: {with_more}"
        );
        // What went back is used again: half as many again take next to nothing.
        assert!(with_more <= busy + busy / 4 + 1024, "{busy} bytes, then {with_more}");
        for (number, socket) in used.iter_mut().enumerate() {
            read(socket, number);
        }
    }
    broker.finish();
}
