//! The Unix socket: its mode, its place, its peers.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::process::Command;

use crate::broker::{Broker, Serve, TENURE};

fn mode(path: &std::path::Path) -> u32 {
    std::fs::symlink_metadata(path).expect("it is there").mode() & 0o777
}

#[test]
fn sockets_and_files_have_the_mode_that_is_asked_for_and_none_is_open_to_all() {
    let broker = Broker::dev();
    assert_eq!(mode(&broker.path("s")), 0o600);
    for file in ["audit.jsonl", "env"] {
        assert_eq!(mode(&broker.path(file)), 0o600, "{file}");
    }
    broker.finish();
    let broker = Serve::default().start();
    assert_eq!(mode(&broker.path("s")), 0o660);
    assert_eq!(mode(&broker.path("audit.jsonl")), 0o600);
    broker.finish();
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("tenure.toml");
    for open in ["0666", "0604", "0777"] {
        std::fs::write(&file, format!("[listen.unix]\npath = \"s\"\nmode = \"{open}\"\n")).expect("a file");
        let output = Command::new(TENURE).args(["config", "check"]).arg(&file).output().expect("it runs");
        let told =
            String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert!(!output.status.success() && told.contains("tenure.toml:3: listen.unix.mode"), "{told}");
    }
}

#[test]
fn what_is_in_the_sockets_place_is_left_alone() {
    let serve = Serve::default();
    std::fs::write(serve.path("s"), "precious").expect("a file");
    let log = serve.refused_leaving(|broker| {
        assert_eq!(std::fs::read(broker.path("s")).expect("the file"), b"precious");
    });
    assert!(log.contains("not a socket"), "{log}");

    let serve = Serve::default();
    let living = UnixListener::bind(serve.path("s")).expect("somebody else's socket");
    let log = serve.refused_leaving(|broker| {
        std::os::unix::net::UnixStream::connect(broker.path("s")).expect("it is still theirs");
    });
    assert!(log.contains("another process serves this socket"), "{log}");
    drop(living);

    // A link is not followed: neither to a file, nor to another's socket.
    let serve = Serve::default();
    std::os::unix::fs::symlink("/nowhere/at/all", serve.path("s")).expect("a link");
    let log = serve.refused_leaving(|broker| {
        assert!(std::fs::symlink_metadata(broker.path("s")).expect("the link").is_symlink());
    });
    assert!(log.contains("not a socket"), "{log}");
}

#[test]
fn files_that_others_may_write_or_read_are_refused() {
    for (name, open) in [("audit.jsonl", 0o644), ("audit.jsonl.orphans", 0o640)] {
        let serve = Serve::default();
        std::fs::write(serve.path(name), "").expect("a file");
        std::fs::set_permissions(serve.path(name), std::fs::Permissions::from_mode(open)).expect("its mode");
        let log = serve.refused();
        assert!(log.contains(&format!("{open:04o}")) && log.contains("chmod 0600"), "{log}");
    }
}
