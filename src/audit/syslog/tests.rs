use std::path::Path;

use tempfile::TempDir;

use super::*;
use crate::audit::{Audit, AuditError, Config, Entry, Event, Format, unwrapped, verify};
use crate::clock::Clock;
use crate::lease::failure::{Class, Failure};

/// A receiver at `/dev/log`, as it were.
fn receiver() -> (TempDir, UnixDatagram, Syslog) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let socket = bind(&path);
    (dir, socket, Syslog::Unix(path))
}

fn bind(path: &Path) -> UnixDatagram {
    let _ = std::fs::remove_file(path);
    let socket = UnixDatagram::bind(path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket
}

fn open(to: &Syslog, format: Format) -> Result<Audit, AuditError> {
    Audit::open(Config::Syslog(to.clone(), format), "b1", Clock::system())
}

fn next(socket: &UnixDatagram) -> String {
    let mut buffer = vec![0; MAX_DATAGRAM + 1];
    let length = socket.recv(&mut buffer).unwrap();
    String::from_utf8(buffer[..length].to_vec()).unwrap()
}

/// All that waits now.
fn drain(socket: &UnixDatagram) -> Vec<String> {
    socket.set_nonblocking(true).unwrap();
    let mut buffer = vec![0; MAX_DATAGRAM + 1];
    let mut all = Vec::new();
    while let Ok(length) = socket.recv(&mut buffer) {
        all.push(String::from_utf8(buffer[..length].to_vec()).unwrap());
    }
    socket.set_nonblocking(false).unwrap();
    all
}

fn assert_whole(messages: &[String], lines: u64) {
    let report = verify((messages.join("\n") + "\n").as_bytes()).unwrap();
    assert!(report.is_good() && report.lines == lines, "{report}");
}

fn read(path: &str) -> Entry<'_> {
    Entry::granted(Event::Read).path(path)
}

#[tokio::test]
async fn each_line_is_one_message_with_the_time_and_the_severity_of_the_line() {
    let (_dir, socket, to) = receiver();
    let audit = open(&to, Format::Tenure).unwrap();
    let failure = Failure::new(Class::Denied, "no");
    for entry in
        [read("kv/ü \"x\""), Entry::denied(Event::Read, "policy"), Entry::failed(Event::Mint, &failure)]
    {
        let _receipt = audit.record(&entry).await.unwrap();
    }
    audit.close().await.unwrap();
    let messages = drain(&socket);
    for (message, priority) in messages.iter().zip([110, 108, 107]) {
        let fields: Vec<&str> = message.splitn(8, ' ').collect();
        let [version, time, host, app, pid, msgid, data, line] = fields[..] else { panic!("{message}") };
        assert_eq!(version, format!("<{priority}>1"));
        assert!(!host.is_empty() && host.bytes().all(|byte| byte.is_ascii_graphic()), "{host}");
        assert_eq!((app, msgid, data), ("tenure", "audit", "-"));
        assert_eq!(pid, std::process::id().to_string());
        let line: crate::audit::Line = serde_json::from_str(line).unwrap();
        assert_eq!(line.time, time);
    }
    assert_whole(&messages, 3);
}

#[tokio::test]
async fn a_receiver_that_is_started_anew_gets_the_next_line_and_one_that_is_gone_none() {
    let (dir, socket, to) = receiver();
    let audit = open(&to, Format::Tenure).unwrap();
    let _receipt = audit.record(&read("a")).await.unwrap();
    let mut messages = drain(&socket);

    drop(socket);
    assert!(matches!(audit.record(&read("b")).await, Err(AuditError::Write(_))));
    assert!(!audit.healthy());
    // The path is there, and nobody behind it; then not even that.
    std::fs::remove_file(dir.path().join("log")).unwrap();
    assert!(matches!(audit.record(&read("c")).await, Err(AuditError::Write(_))));
    audit.note(&Entry::done(Event::Renew));

    let socket = bind(&dir.path().join("log"));
    let _receipt = audit.record(&read("d")).await.unwrap();
    assert!(audit.healthy());
    messages.extend(drain(&socket));
    // Started anew between two lines: nobody notices.
    drop(socket);
    let socket = bind(&dir.path().join("log"));
    let _receipt = audit.record(&read("e")).await.unwrap();
    audit.close().await.unwrap();
    messages.extend(drain(&socket));

    let text = messages.join("\n");
    assert!(!text.contains("\"path\":\"b\"") && !text.contains("\"path\":\"c\""), "{text}");
    assert!(text.contains("\"audit.recovered\"") && text.contains("\"refused\":2"), "{text}");
    assert_whole(&messages, 5);
}

#[tokio::test]
async fn a_receiver_that_does_not_read_is_waited_for_and_then_the_line_is_not_written() {
    let (_dir, socket, to) = receiver();
    let audit = open(&to, Format::Tenure).unwrap();
    let mut written = 0;
    let error = loop {
        match audit.record(&read("kv/a")).await {
            Ok(_receipt) => written += 1,
            Err(error) => break error,
        }
    };
    let AuditError::Write(why) = error else { panic!("{error}") };
    assert_eq!(why.kind(), io::ErrorKind::TimedOut);
    let mut messages = drain(&socket);
    assert_eq!(messages.len(), written, "what was said to be written was");

    let reading = std::thread::spawn(move || [next(&socket), next(&socket)]);
    assert_eq!(audit.record(&read("kv/b")).await.unwrap().seq(), written as u64 + 2);
    messages.extend(reading.join().unwrap());
    assert_whole(&messages, written as u64 + 2);
}

#[tokio::test]
async fn what_is_missing_at_the_start_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let to = Syslog::Unix(dir.path().join("log"));
    let error = open(&to, Format::Tenure).unwrap_err();
    let said = error.to_string();
    assert!(
        said.starts_with(&format!("audit log unix://{}/log: nothing receives", dir.path().display())),
        "{said}"
    );
    assert!(
        matches!(&error, AuditError::NoReceiver { source, .. } if source.kind() == io::ErrorKind::NotFound)
    );
    assert!(Audit::check_syslog(&to).is_err());
}

#[tokio::test]
async fn a_line_that_no_datagram_holds_is_refused_and_keeps_nothing_else_up() {
    for format in [Format::Tenure, Format::Ocsf] {
        let (_dir, socket, to) = receiver();
        let audit = open(&to, format).unwrap();
        let quotes = "\"".repeat(MAX_DATAGRAM / 2);
        let long = "a".repeat(MAX_DATAGRAM);
        for path in [&quotes, &long] {
            assert!(matches!(
                audit.record(&read(path)).await,
                Err(AuditError::TooLong { limit: MAX_DATAGRAM })
            ));
            audit.note(&Entry::done(Event::Renew).path(path));
        }
        // As long as it may be.
        let (mut fits, mut not) = (0, MAX_DATAGRAM);
        while not - fits > 1 {
            let middle = usize::midpoint(fits, not);
            match audit.record(&read(&"b".repeat(middle))).await {
                Ok(_receipt) => fits = middle,
                Err(AuditError::TooLong { .. }) => not = middle,
                Err(error) => panic!("{error}"),
            }
            let _seen = drain(&socket);
        }
        assert!(fits > 15_000, "{fits}");
        let _receipt = audit.record(&read(&"c".repeat(fits))).await.unwrap();
        let message = next(&socket);
        assert!((MAX_DATAGRAM - 600..=MAX_DATAGRAM).contains(&message.len()), "{} of {fits}", message.len());
        assert_eq!(audit.counters().dropped, 2);
        assert!(audit.healthy());
    }
}

#[tokio::test]
async fn by_udp_lines_arrive_on_loopback_and_a_closed_port_fails_the_line_after_the_lost_one() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let to = Syslog::Udp(socket.local_addr().unwrap());
    let audit = open(&to, Format::Ocsf).unwrap();
    let mut messages = Vec::new();
    for path in ["kv/a", "kv/b"] {
        let _receipt = audit.record(&read(path)).await.unwrap();
        let mut buffer = vec![0; MAX_DATAGRAM];
        let length = socket.recv(&mut buffer).unwrap();
        messages.push(String::from_utf8(buffer[..length].to_vec()).unwrap());
    }
    assert_whole(&messages, 2);
    drop(socket);
    let _lost = audit.record(&read("kv/c")).await.unwrap();
    assert!(matches!(audit.record(&read("kv/d")).await, Err(AuditError::Write(_))));
}

#[tokio::test]
async fn each_boot_starts_a_chain_and_collected_messages_are_verified_as_they_are() {
    let (_dir, socket, to) = receiver();
    let mut messages = Vec::new();
    for boot in ["b1", "b2"] {
        let audit = Audit::open(Config::Syslog(to.clone(), Format::Ocsf), boot, Clock::system()).unwrap();
        for path in ["a", "b"] {
            let _receipt = audit.record(&read(path)).await.unwrap();
        }
        audit.close().await.unwrap();
        messages.extend(drain(&socket));
    }
    assert_whole(&messages, 4);
    messages.remove(2);
    let report = verify((messages.join("\n") + "\n").as_bytes()).unwrap();
    assert!(!report.is_good(), "{report}");
}

#[test]
fn a_header_is_stepped_over_if_it_is_one_of_ours() {
    for (collected, want) in [
        ("<110>1 2026-01-01T00:00:00.000Z h tenure 7 audit - {}", "{}"),
        ("1 2026-01-01T00:00:00.000Z h tenure 7 audit - {}", "{}"),
        ("<110>1 2026-01-01T00:00:00.000Z h other 7 audit - {}", ""),
        ("<110>1 2026-01-01T00:00:00.000Z h tenure 7 audit -", ""),
        ("<11x>1 - h tenure 7 audit - {}", ""),
        ("<1100>1 - h tenure 7 audit - {}", ""),
        ("<", ""),
        ("<>", ""),
        ("", ""),
    ] {
        let want = if want.is_empty() { collected } else { want };
        assert_eq!(unwrapped(collected.as_bytes()), want.as_bytes(), "{collected}");
    }
}

#[test]
fn a_name_that_a_header_cannot_say_is_left_out() {
    for (host, said) in
        [("host-1", "host-1"), ("", "-"), ("my host", "-"), ("hôte", "-"), (&"h".repeat(256), "-")]
    {
        let header = Header::of(host, 7);
        let mut out = Vec::new();
        header
            .write(
                br#"{"v":1,"time":"2026-01-01T00:00:00.000Z","boot":"b","event":"read","outcome":"granted""#,
                &mut out,
            )
            .unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            format!("<110>1 2026-01-01T00:00:00.000Z {said} tenure 7 audit - ")
        );
    }
}
