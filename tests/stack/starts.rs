//! What keeps the broker from starting: files, sockets and settings, each said by name, with nothing left behind.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::Path;

use crate::broker::Setup;
use crate::harness::{Flavor, Server};

/// Which server it would have talked to does not matter here.
fn server() -> &'static Server {
    Flavor::Vault.shared()
}

fn chmod(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("its mode");
}

#[track_caller]
fn refused(what: &str, setup: &Setup<'_>, words: &[&str]) {
    let (code, log) = setup.refused();
    assert_eq!(code, 1, "{what}: {log}");
    for word in words {
        assert!(log.contains(word), "{what}: {word:?} is not in:\n{log}");
    }
}

#[test]
fn files_that_others_may_read_are_refused() {
    let new = || Setup::new(server());
    for (name, mode, words) in [
        ("audit.jsonl", 0o644, &["audit log", "0644", "chmod 0600"][..]),
        ("audit.jsonl.orphans", 0o640, &["orphan journal", "0640", "chmod 0600"]),
        ("token", 0o644, &["listen.tcp.token_file", "0644", "chmod"]),
    ] {
        let setup = new();
        let file = setup.dir().join(name);
        std::fs::write(&file, "").expect("the file");
        chmod(&file, mode);
        refused(name, &setup, words);
    }
    let setup = new();
    let token = setup.dir().join("token");
    std::fs::write(&token, "hvs.something-that-is-not-ours").expect("the file");
    chmod(&token, 0o600);
    refused("another token", &setup, &["token_file", "does not hold a token of ours"]);

    let setup = new();
    let audit = setup.dir().join("audit.jsonl");
    std::os::unix::fs::symlink(setup.dir().join("elsewhere"), &audit).expect("a link");
    refused("a link", &setup, &["audit log", "symbolic link"]);
    let setup = new();
    std::fs::write(setup.dir().join("audit.jsonl"), "somebody's notes\n").expect("the file");
    chmod(&setup.dir().join("audit.jsonl"), 0o600);
    refused("somebody's file", &setup, &["audit log"]);
    let kept = std::fs::read_to_string(setup.dir().join("audit.jsonl")).expect("the file");
    assert_eq!(kept, "somebody's notes\n", "it is left alone");
}

#[test]
fn directories_that_are_missing_are_named() {
    for (table, key, words) in [
        ("audit", "file", &["audit log", "/nowhere/at/all", "directory does not exist"][..]),
        ("listen.unix", "path", &["/nowhere/at/all"]),
        ("listen.tcp", "token_file", &["token_file", "/nowhere/at/all"]),
        ("run", "journal", &["journal", "/nowhere/at/all"]),
    ] {
        refused(key, &Setup::new(server()).set(table, key, "/nowhere/at/all"), words);
    }
}

#[test]
fn settings_that_are_not_meant_are_named_with_their_place() {
    let new = || Setup::new(server());
    refused(
        "an unknown key",
        &new().set("vault", "adress", "x"),
        &["tenure.toml", "vault.adress", "address"],
    );
    refused("an unknown table", &new().set("bananas", "x", "y"), &["tenure.toml", "bananas"]);
    refused("no audit", &new().without("audit"), &["audit.file", "audit.stdout"]);
    refused("no address", &new().unset("vault", "address"), &["vault.address", "VAULT_ADDR"]);
    refused("no door", &new().without("listen.unix").without("listen.tcp"), &["listen.unix"]);
    refused(
        "a door to all",
        &new().set("listen.tcp", "address", "0.0.0.0:0"),
        &["listen.tcp.address", "loopback"],
    );
    refused("a loose socket", &new().set("listen.unix", "mode", "0666"), &["listen.unix.mode", "0666"]);
    refused(
        "an unknown variable",
        &new().env("TENURE_TOKENROLE", "x"),
        &["TENURE_TOKENROLE", "TENURE_TOKEN_ROLE"],
    );
    refused(
        "a deadline gone by",
        &new().env("TENURE_DEADLINE", "2020-01-01T00:00:00Z"),
        &["TENURE_DEADLINE", "passed"],
    );
    refused("no such file", &new().and("[[prefetch]]\npath = \"../x\"\n"), &["prefetch", "../x"]);
    refused(
        "two values",
        &new().and("[vault]\naddress = \"http://127.0.0.1:1\"\n"),
        &["tenure.toml:", "duplicate key"],
    );
}

#[test]
fn a_living_process_keeps_its_socket_and_its_audit_log() {
    let first = Setup::new(server());
    let broker = first.start();
    let socket = first.dir().join("tenure.sock");
    let inode = std::fs::metadata(&socket).expect("the socket").ino();

    let second = Setup::new(server()).set("listen.unix", "path", &socket.display().to_string());
    refused("its socket", &second, &["tenure.sock", "another process serves this socket"]);
    let audit = first.dir().join("audit.jsonl").display().to_string();
    let second = Setup::new(server()).set("audit", "file", &audit);
    refused("its audit log", &second, &["audit log", "another process writes to it"]);
    let journal = first.dir().join("audit.jsonl.orphans").display().to_string();
    refused(
        "its journal",
        &Setup::new(server()).set("run", "journal", &journal),
        &["journal", "another process"],
    );
    let crate::http::Place::Tcp(address) = broker.tcp() else { panic!("a TCP door") };
    let second = Setup::new(server()).set("listen.tcp", "address", &address.to_string());
    refused("its port", &second, &["listen.tcp.address", &address.to_string(), "in use"]);

    assert_eq!(std::fs::metadata(&socket).expect("the socket").ino(), inode, "nobody touched it");
    broker.credential("orders");
    broker.finish();
    assert!(!socket.exists(), "it goes with the process");
}

#[test]
fn a_dead_socket_is_replaced_and_a_file_is_not() {
    let setup = Setup::new(server());
    let socket = setup.dir().join("tenure.sock");
    drop(UnixListener::bind(&socket).expect("a socket"));
    assert!(socket.exists(), "left behind");
    let broker = setup.start();
    assert_eq!(std::fs::metadata(&socket).expect("the socket").mode() & 0o777, 0o600);
    broker.finish();

    std::fs::write(&socket, "precious").expect("a file");
    refused("a file", &setup, &["tenure.sock", "not a socket"]);
    assert_eq!(std::fs::read_to_string(&socket).expect("the file"), "precious");
}
