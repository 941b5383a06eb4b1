//! What the process has given up, and what a command that it starts has not.

use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use crate::broker::{Broker, Serve, open_files};

const NOBODY: u32 = 65534;

/// Whom the tests run a broker as: root sees everything, so another where we are root.
fn whom() -> Option<u32> {
    rustix::process::geteuid().is_root().then_some(NOBODY)
}

/// Whether a process of that user, or ours, can read the file.
fn can_read(path: &str) -> bool {
    let mut head = Command::new("head");
    head.args(["-c", "1", path]).stdout(Stdio::null()).stderr(Stdio::null());
    if let Some(uid) = whom() {
        head.uid(uid).gid(uid);
    }
    head.status().expect("head").success()
}

#[test]
fn its_own_user_can_neither_trace_it_nor_read_its_memory() {
    let broker = Serve { uid: whom(), ..Serve::default() }.start();
    let pid = broker.pid().as_raw_nonzero();
    for file in ["environ", "maps", "auxv", "io"] {
        assert!(!can_read(&format!("/proc/{pid}/{file}")), "{file}");
    }
    let mem = std::fs::metadata(format!("/proc/{pid}/mem")).expect("it lives");
    let owner = broker
        .proc("status")
        .lines()
        .find_map(|line| line.strip_prefix("Uid:\t")?.split('\t').next()?.parse().ok());
    // Of what cannot be dumped the kernel makes root the owner.
    assert_eq!((mem.uid(), owner), (0, Some(whom().unwrap_or(rustix::process::geteuid().as_raw()))));
    // It is the process, not this machine: another one of the same user can be read.
    let mut other = Command::new("sleep");
    other.arg("60");
    if let Some(uid) = whom() {
        other.uid(uid).gid(uid);
    }
    let mut other = other.spawn().expect("sleep");
    let readable = can_read(&format!("/proc/{}/maps", other.id()));
    other.kill().expect("our child");
    other.wait().expect("our child");
    assert!(readable, "nothing can be read here");
    broker.finish();
}

#[test]
fn it_dumps_no_core_and_gains_no_privileges() {
    let broker = Serve { first: "ulimit -Sc unlimited".to_owned(), ..Serve::default() }.start();
    let limits = broker.proc("limits");
    let core: Vec<_> = limits
        .lines()
        .find(|line| line.starts_with("Max core"))
        .expect("a line")
        .split_whitespace()
        .collect();
    assert_eq!(core[4..6], ["0", "0"], "{core:?}");
    assert!(broker.proc("status").contains("NoNewPrivs:\t1"));
    broker.finish();
}

/// The command that `tenure dev` is there for is its user's own: it has the limits and the rights that it would have.
#[test]
fn a_command_inherits_none_of_it() {
    drop(open_files(0));
    let dir = tempfile::tempdir().expect("a folder");
    let script = "ulimit -Sn; ulimit -Hn; ulimit -Sc; umask; grep NoNewPrivs /proc/self/status";
    let ours = Command::new("sh").args(["-c", script]).output().expect("sh");
    let mut dev = Broker::command(dir.path());
    let path = std::env::var_os("PATH").unwrap_or_default();
    let theirs =
        dev.env("PATH", path).args(["dev", "-q", "--", "sh", "-c", script]).output().expect("it runs");
    assert!(theirs.status.success() && !theirs.stdout.is_empty());
    assert_eq!(String::from_utf8_lossy(&theirs.stdout), String::from_utf8_lossy(&ours.stdout));
}
