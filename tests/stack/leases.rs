//! Leased credentials: one for many readers, good in the database at any time, gone with the run.

use std::collections::BTreeSet;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use crate::broker::{Login, Setup};
use crate::harness::{Server, text};

against_both! {
    two_hundred_readers_share_one_mint
    a_short_lease_is_renewed_then_rotated_and_never_dead
}

fn two_hundred_readers_share_one_mint(server: &Server) {
    let broker = Setup::new(server).start();
    let run = broker.run.clone();
    let barrier = Barrier::new(200);
    let users: BTreeSet<(String, String)> = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..200)
            .map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    let login = broker.credential("orders");
                    (login.user, login.lease_id)
                })
            })
            .collect();
        readers.into_iter().map(|reader| reader.join().expect("a reader")).collect()
    });
    assert_eq!(users.len(), 1, "one credential for all: {users:?}");
    let login = broker.credential("orders");
    server.database.use_as(&login.user, &login.password).expect("it is good in the database");
    assert_eq!(server.database.existing(std::slice::from_ref(&login.user)).len(), 1);
    for path in ["auth/aws/login", "auth/token/create/run", "database/creds/orders"] {
        assert_eq!(server.asked(&run, path), 1, "{path} in the server's audit log");
    }
    let finished = broker.finish();
    let granted = finished.of("read").into_iter().filter(|line| line["outcome"] == "granted");
    let granted: Vec<_> = granted.map(|line| text(&line["lease_id"])).collect();
    assert_eq!(granted.len(), 201, "each reader is on record");
    assert!(granted.iter().all(|lease_id| *lease_id == login.lease_id));
    assert_eq!(server.database.existing(&[login.user]), [""; 0], "the role is gone");
    assert!(!server.knows_lease(&login.lease_id));
}

/// `orders-short` lives for 4 s and, renewed, for 12 s at most.
fn a_short_lease_is_renewed_then_rotated_and_never_dead(server: &Server) {
    let broker = Setup::new(server).start();
    let run = broker.run.clone();
    let began = Instant::now();
    // Each credential, and when it was first and last handed out.
    let mut served: Vec<(Login, Duration, Duration)> = Vec::new();
    let mut overlapped = 0;
    let mut reads = 0;
    while began.elapsed() < Duration::from_secs(30) {
        let login = broker.credential("orders-short");
        let at = began.elapsed();
        match served.last_mut() {
            Some((last, _, until)) if *last == login => *until = at,
            _ => {
                if let Some((before, _, _)) = served.last() {
                    // Whoever has just read it must have time to use it.
                    overlapped += usize::from(server.database.use_as(&before.user, &before.password).is_ok());
                }
                served.push((login.clone(), at, at));
            }
        }
        if reads % 5 == 0 {
            let used = server.database.use_as(&login.user, &login.password);
            used.unwrap_or_else(|why| panic!("a dead credential after {:?}: {why}", began.elapsed()));
        }
        reads += 1;
        std::thread::sleep(Duration::from_millis(80));
    }
    assert!(reads > 100, "only {reads} reads");
    assert!(served.len() >= 3, "rotated: {served:?}");
    assert!(served.len() <= 6, "not more often than needed: {served:?}");
    assert_eq!(overlapped, served.len() - 1, "the one before is still good when the next is handed out");
    let mut users: Vec<String> = served.iter().map(|(login, ..)| login.user.clone()).collect();
    users.dedup();
    assert_eq!(users.len(), served.len(), "each is a user of its own, and none comes back");
    let longest = served.iter().map(|(_, from, until)| *until - *from).max().unwrap_or_default();
    assert!(longest > Duration::from_secs(5), "renewed past its first 4 s: {served:?}");
    // Vault reckons in whole seconds: a lease of 12 s may live for almost 13.
    assert!(longest < Duration::from_secs(13), "given up before its last: {served:?}");
    assert!(server.asked(&run, "sys/leases/renew") >= served.len() - 1);
    assert_eq!(server.asked(&run, "database/creds/orders-short"), served.len());

    let finished = broker.finish();
    assert_eq!(finished.of("mint").len(), 1);
    assert_eq!(finished.of("rotate").len(), served.len() - 1);
    assert!(finished.of("renew").iter().any(|line| line["outcome"] == "done"));
    let confirmed: Vec<_> =
        finished.of("revoke.confirmed").iter().map(|line| text(&line["detail"]).to_owned()).collect();
    assert!(confirmed.iter().any(|what| what.starts_with("run token and")), "{confirmed:?}");
    assert!(confirmed.iter().any(|what| what == "login token"), "{confirmed:?}");
    let leases: Vec<String> = served.iter().map(|(login, ..)| login.lease_id.clone()).collect();
    assert_eq!(server.database.existing(&users), [""; 0], "none is left");
    assert_eq!(server.listed_leases("database/creds/orders-short", &leases), [""; 0]);
}
