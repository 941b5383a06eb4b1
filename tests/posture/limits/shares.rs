//! One user of the Unix socket, or all of TCP, cannot crowd out another.

use std::io::Write as _;
use std::thread::JoinHandle;

use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_gid, set_thread_groups, set_thread_res_uid};

use crate::broker::{Broker, Serve, open_files, path, pause};
use crate::client::{Place, Socket};

const NOBODY: u32 = 65534;
const SOMEBODY: u32 = 65533;

/// As many connections of that user; the kernel keeps credentials for each thread.
fn connect_as(uid: u32, place: &Place, count: usize) -> JoinHandle<Vec<Socket>> {
    let place = place.clone();
    std::thread::spawn(move || {
        set_thread_groups(&[]).expect("no groups");
        set_thread_gid(Gid::from_raw(rustix::process::getegid().as_raw())).expect("the group");
        let uid = Uid::from_raw(uid);
        set_thread_res_uid(uid, uid, uid).expect("the user");
        (0..count).map(|_| place.connect().expect("connected")).collect()
    })
}

fn healthy(socket: &mut Socket) {
    let answer = socket.ask("/tenure/health").expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.body);
}

/// Needs another user to be, and so root: elsewhere there is none.
#[test]
fn one_user_cannot_crowd_out_another() {
    if !rustix::process::geteuid().is_root() {
        println!("not root: there is no other user to be");
        return;
    }
    let _files = open_files(15_000);
    let allow = "[[listen.unix.allow]]\nuid = 0\n[[listen.unix.allow]]\nuid = 65534\n";
    let broker = Broker::serve(1024, allow);
    std::fs::set_permissions(broker.path(""), std::os::unix::fs::PermissionsExt::from_mode(0o711))
        .expect("so that the folder does not keep them out");
    let place = broker.unix();
    let mut ours: Vec<Socket> = (0..100).map(|_| place.connect().expect("connected")).collect();
    let mut theirs = connect_as(NOBODY, &place, 6000).join().expect("they connect");
    for socket in &mut ours {
        healthy(socket);
    }
    let mut more: Vec<Socket> = (0..100).map(|_| place.connect().expect("connected")).collect();
    for socket in ours.iter_mut().chain(&mut more) {
        healthy(socket);
    }
    healthy(theirs.last_mut().expect("the last"));
    // Whoever is not admitted is told so, once, and holds nothing.
    let mut strangers = connect_as(SOMEBODY, &place, 16).join().expect("they connect");
    for socket in &mut strangers {
        let refused = socket.ask("/tenure/health").expect("an answer");
        assert_eq!(refused.status, 403, "{}", refused.body);
        assert!(refused.head.to_ascii_lowercase().contains("connection: close"), "{}", refused.head);
        assert!(socket.is_closed());
    }
    let mut strangers = connect_as(SOMEBODY, &place, 3000).join().expect("they connect");
    assert!(strangers[0].is_closed() && !strangers[2999].is_closed(), "they hold few");
    for socket in ours.iter_mut().chain(&mut more) {
        healthy(socket);
    }
    broker.finish();
}

/// Nobody's request is given up for somebody new: where all that a party may have are being answered, the new one is closed.
#[test]
fn who_finds_all_seats_of_his_busy_is_turned_away_and_others_get_in() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address");
    let more = format!("[listen.tcp]\naddress = \"{port}\"\ntoken_file = \"local\"\n");
    // A Vault that takes connections and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let vault = format!("http://{}", silent.local_addr().expect("its address"));
    let broker = Serve { first: "ulimit -n 128".to_owned(), vault, more, ..Serve::default() }.start();
    let (unix, tcp) = (broker.unix(), {
        let token = std::fs::read_to_string(broker.path("local")).expect("the local token");
        Place::Tcp(port, token)
    });
    // Two thirds of three quarters of 64; each waits for a login that does not come.
    let mut waiting: Vec<Socket> = (0..32)
        .map(|_| {
            let mut socket = unix.connect().expect("connected");
            socket.write_all(unix.get(&path(1)).as_bytes()).expect("a request");
            socket
        })
        .collect();
    pause(500);
    for _ in 0..20 {
        let mut turned_away = unix.connect().expect("in the kernel's queue");
        assert!(turned_away.ask("/tenure/health").is_err(), "an answer to somebody who has no seat");
    }
    for _ in 0..20 {
        healthy(&mut tcp.connect().expect("connected"));
    }
    let metrics = tcp.once("/metrics").expect("metrics").body;
    assert!(metrics.contains("tenure_connections_turned_away_total 20"), "{metrics}");
    assert_eq!(broker.log().matches("connections are turned away").count(), 1, "{}", broker.log());
    assert!(waiting.iter_mut().all(Socket::is_waiting), "a request was given up");
    drop(waiting);
    broker.finish();
}
