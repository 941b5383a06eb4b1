//! No file descriptor is left: those who are connected are served, and when there are some again everybody is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::broker::{Broker, Serve, open_files, pause, read, until};

#[test]
fn without_file_descriptors_readers_with_a_connection_are_served_and_nobody_wrongly() {
    let broker = Broker::dev();
    for (name, place) in broker.places() {
        let readers = broker.readers(&place, 8);
        let done = Arc::new(AtomicBool::new(false));
        let (right, refused) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        // Others come and go all the time, each with a connection of its own.
        let comers: Vec<_> = (0..4)
            .map(|number| {
                let (place, done, right, refused) =
                    (place.clone(), Arc::clone(&done), Arc::clone(&right), Arc::clone(&refused));
                std::thread::spawn(move || {
                    while !done.load(Ordering::Relaxed) {
                        let Ok(mut socket) = place.connect() else { continue };
                        socket.wait_at_most(Duration::from_secs(1)).expect("a bound");
                        match socket.ask(&crate::broker::path(number)) {
                            Ok(answer) => {
                                assert_eq!(answer.status, 200, "{}", answer.body);
                                assert!(
                                    answer.body.contains(&crate::broker::content(number)),
                                    "{}",
                                    answer.body
                                );
                                right.fetch_add(1, Ordering::Relaxed)
                            }
                            Err(_) => refused.fetch_add(1, Ordering::Relaxed),
                        };
                    }
                })
            })
            .collect();
        pause(300);
        // Fewer than it has open.
        broker.limit_files(10);
        pause(3000);
        let during = right.load(Ordering::Relaxed);
        broker.limit_files(1024);
        until("somebody new gets in at once", Duration::from_secs(1), || {
            right.load(Ordering::Relaxed) > during + 4
        });
        done.store(true, Ordering::Relaxed);
        for comer in comers {
            comer.join().expect("every answer was right");
        }
        println!(
            "{name}: {} answers on the connections there were; new ones: {} right, {} none",
            readers.finish(),
            right.load(Ordering::Relaxed),
            refused.load(Ordering::Relaxed)
        );
    }
    assert!(broker.metric("tenure_accept_failures_total") > 0);
    broker.finish();
}

#[test]
fn waiting_for_file_descriptors_is_no_busy_loop_and_is_told_once() {
    let broker = Broker::serve(256, "");
    let _files = open_files(500);
    // It has raised its soft limit itself.
    let limits =
        std::fs::read_to_string(format!("/proc/{}/limits", broker.pid().as_raw_nonzero())).expect("limits");
    let files: Vec<_> = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .expect("a line")
        .split_whitespace()
        .collect();
    assert_eq!(files[3], files[4], "{files:?}");
    let place = broker.unix();
    let mut kept = place.connect().expect("connected");
    let health = |socket: &mut crate::client::Socket| socket.ask("/tenure/health").expect("an answer").status;
    assert_eq!(health(&mut kept), 200);
    broker.limit_files(8);
    let before = broker.ticks();
    let waiting: Vec<_> = (0..50).map(|_| place.connect().expect("in the kernel's queue")).collect();
    for _ in 0..40 {
        // Whoever asks is not idle longest, but he may be the only one.
        let _ = kept.ask("/tenure/health");
        pause(50);
    }
    let ticks = broker.ticks() - before;
    assert!(ticks < 50, "{ticks} ticks of CPU in two seconds");
    broker.limit_files(1024);
    let mut waiting = waiting;
    assert_eq!(health(waiting.last_mut().expect("the last")), 200);
    assert!(broker.metric("tenure_accept_failures_total") > 10);
    let log = broker.log();
    assert_eq!(log.matches("connections cannot be accepted").count(), 1, "{log}");
    assert!(log.contains("Too many open files") && log.contains("RLIMIT_NOFILE"), "{log}");
    broker.finish();
}

#[test]
fn few_file_descriptors_are_few_connections_and_that_is_said() {
    // The hard limit too: `serve` raises the soft one up to it.
    let broker = Serve { first: "ulimit -n 128".to_owned(), ..Serve::default() }.start();
    let log = broker.log();
    assert!(log.contains("few connections can be served"), "{log}");
    let place = broker.unix();
    let mut many: Vec<_> = (0..300).map(|_| place.connect().expect("connected")).collect();
    let answer = many.last_mut().expect("the last").ask("/tenure/health").expect("an answer");
    assert_eq!(answer.status, 200);
    assert_eq!(broker.metric("tenure_accept_failures_total"), 0, "its own limit comes first");
    broker.finish();
}

#[test]
fn a_reader_is_served_right_after_the_flood() {
    let broker = Broker::dev();
    let _files = open_files(3000);
    let place = broker.unix();
    for _ in 0..3 {
        let flood: Vec<_> = (0..2000).map(|_| place.connect().expect("connected")).collect();
        drop(flood);
        read(&mut place.connect().expect("connected"), 1);
    }
    broker.finish();
}
