//! Leased credentials: one for many readers, good in the database, gone with the run.

use std::collections::BTreeSet;
use std::sync::Barrier;

use crate::broker::Setup;
use crate::harness::{Server, text};

against_both! {
    two_hundred_readers_share_one_mint
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
    for (path, times) in [("auth/aws/login", 1), ("auth/token/create/run", 1), ("database/creds/orders", 1)] {
        assert_eq!(server.asked(&run, path), times, "{path} in the server's audit log");
    }
    let finished = broker.finish();
    let granted: Vec<_> =
        finished.of("read").into_iter().filter(|line| line["outcome"] == "granted").collect();
    assert_eq!(granted.len(), 201, "each reader is on record");
    assert!(granted.iter().all(|line| text(&line["lease_id"]) == login.lease_id));
    assert_eq!(server.database.existing(&[login.user]), [""; 0], "the role is gone");
    assert!(!server.knows_lease(&login.lease_id));
}
