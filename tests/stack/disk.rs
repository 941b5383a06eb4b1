//! A full disk: what cannot be written down is not disclosed; what cannot be logged does no harm.

use std::fs::OpenOptions;

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::broker::{SOON, Setup};
use crate::harness::{Server, wait_until};

against_both! {
    nothing_is_disclosed_that_cannot_be_written_down
    a_log_that_cannot_be_written_does_no_harm
}

/// No file of the process may grow beyond this; the kernel then says so as it does of a full disk.
fn limit(pid: Pid, bytes: Option<u64>) {
    let maximum = prlimit(Some(pid), Resource::Fsize, Rlimit { current: bytes, maximum: None });
    maximum.expect("our own child's limits");
}

fn nothing_is_disclosed_that_cannot_be_written_down(server: &Server) {
    let broker = Setup::new(server).start();
    let secret = "/v1/secret/data/orders/config";
    assert_eq!(broker.get(secret).status, 200);
    let room = || std::fs::metadata(broker.path("audit.jsonl")).expect("the audit file").len();

    // Room for half a line, then for none.
    for more in [100, 0] {
        limit(broker.pid(), Some(room() + more));
        for path in [secret, "/v1/database/creds/orders"] {
            let answer = broker.get(path);
            assert_eq!(answer.status, 503, "{path}: {}", answer.text());
            assert!(answer.text().contains("audit"), "{path}: {}", answer.text());
            assert!(!answer.text().contains("canary"), "{path}: {}", answer.text());
        }
        let ready = broker.get("/tenure/ready");
        assert_eq!(ready.status, 503);
        assert!(ready.text().contains("audit"), "{}", ready.text());
        assert_eq!(broker.status()["audit"]["healthy"], false);
        assert_eq!(broker.get("/tenure/health").status, 200, "it lives");
    }

    limit(broker.pid(), None);
    wait_until("reads again", SOON, || broker.get(secret).status == 200);
    let login = broker.credential("orders");
    server.database.use_as(&login.user, &login.password).expect("good");
    assert_eq!(broker.get("/tenure/ready").status, 200);
    assert_eq!(server.asked(&broker.run, "database/creds/orders"), 1, "no storm");
    let finished = broker.finish();
    let recovered = finished.of("audit.recovered");
    assert!(!recovered.is_empty(), "it tells of the gap");
    let refused: u64 = recovered.iter().filter_map(|line| line["recovered"]["refused"].as_u64()).sum();
    assert!(refused >= 4, "and how many were refused: {recovered:?}");
}

fn a_log_that_cannot_be_written_does_no_harm(server: &Server) {
    assert!(OpenOptions::new().write(true).open("/dev/full").is_ok(), "this system has /dev/full");
    let setup = Setup::new(server).env("TENURE_LOG", "debug").after("exec 2>/dev/full");
    let mut broker = setup.spawn();
    wait_until("a credential", SOON, || {
        assert!(broker.runs(), "the broker ended");
        broker.try_get("/v1/database/creds/orders").is_ok_and(|answer| answer.status == 200)
    });
    broker.terminate();
    broker.check_outputs();
    assert_eq!(broker.audited("shutdown"), 1);
}
