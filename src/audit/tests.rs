use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use serde_json::value::RawValue;
use tempfile::TempDir;

use super::*;
use crate::lease::failure::{Class, Failure};
use crate::secret::Secret;

fn open(path: &Path) -> Result<Audit, AuditError> {
    Audit::open(Config::File(path.to_owned()), "b1", Clock::system())
}

fn place() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.log");
    (dir, path)
}

fn lines(path: &Path) -> Vec<Line> {
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn assert_whole(path: &Path) -> verify::Report {
    let report = verify(io::BufReader::new(File::open(path).unwrap())).unwrap();
    assert!(report.is_good(), "{report}");
    report
}

fn read(path: &str) -> Entry<'_> {
    Entry::granted(Event::Read).path(path)
}

fn refusal(path: &Path) -> String {
    open(path).unwrap_err().to_string()
}

#[tokio::test]
async fn a_composed_line_is_the_whole_entrys() {
    let clock = Clock::simulated();
    let at = clock.now();
    let run = RunStamp::new(&Run { id: "r\"1".into(), kind: "process".into(), ..Run::default() }).unwrap();
    for (peer, source, version) in
        [(Peer::unix(7, 8, Some(9)), Source::Cache, None), (Peer::TCP, Source::Stale, Some(3))]
    {
        for event in [Event::Read, Event::List] {
            let granted = |entry: Entry<'static>| {
                let entry = entry.path("a/\"b\n").request("b1-7").vault_request_id("v1").policy("paths");
                match version {
                    Some(version) => entry.version(version),
                    None => entry.lease_id("a/b/x").expires(at),
                }
            };
            let new = || Entry::granted(event);
            let whole = granted(new()).at(at).run(&run).caller(&peer).door("vault/unix").source(source);
            let composed = Composed {
                at,
                lead: &new().run(&run).lead().unwrap(),
                asker: &new().caller(&peer).door("vault/unix").fragment().unwrap(),
                grant: &granted(new()).fragment().unwrap(),
                source,
            };
            let stamper = Stamper::new("b1", clock.clone()).unwrap();
            let (mut one, mut other) = (Vec::new(), Vec::new());
            stamper.stamp(&whole, &mut one).unwrap();
            stamper.stamp(&composed, &mut other).unwrap();
            assert_eq!(String::from_utf8(one).unwrap(), String::from_utf8(other).unwrap());
        }
    }
}

#[tokio::test]
async fn a_full_line_is_of_the_documented_schema() {
    let (audit, memory) = Audit::in_memory("b\"1", Clock::simulated()).unwrap();
    let run = Run {
        id: "r1".into(),
        kind: "step-functions".into(),
        execution_arn: Some("arn:aws:states:eu-west-1:1:execution:m:e".into()),
        state: Some("Load".into()),
        parent: Some("r0".into()),
        subject: Some(Subject {
            id: "alice".into(),
            kind: "person".into(),
            issuer: Some("https://id.example".into()),
            assurance: "verified".into(),
            groups: vec!["admins".into()],
        }),
        attempt: Some(1),
        standing: Some("verified".into()),
        parents: vec!["arn:aws:states:eu-west-1:1:execution:m:root".into()],
        task_arn: Some("arn:aws:ecs:eu-west-1:1:task/c/t".into()),
        function: Some("arn:aws:lambda:eu-west-1:1:function:orders:live".into()),
        function_version: Some("7".into()),
        log_stream: Some("2026/01/01/[7]abc".into()),
        invocation: Some("8476a536".into()),
        trace: Some("Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=1".into()),
        tags: [("commit".into(), "abc".into())].into(),
    };
    let stamp = RunStamp::new(&run).unwrap();
    let peer = Peer::unix(1000, 1000, Some(42));
    let failure = Failure { request_id: Some("v1".into()), ..Failure::new(Class::Denied, "no\nread") };
    let key = WrappedKey { mount: "transit".into(), name: "k".into(), wrapped: "vault:v1:x".into() };
    let values = Values {
        key: "0123456789abcdef".into(),
        hashes: RawValue::from_string(r#"{"/password":"00"}"#.into()).unwrap(),
        omitted: 2,
    };
    let entry = Entry::failed(Event::Read, &failure)
        .key(&key)
        .values(&values)
        .run(&stamp)
        .caller(&peer)
        .door("vault")
        .path("database/creds/orders")
        .source(Source::Vault)
        .request("b1-7")
        .lease_id("database/creds/orders/x")
        .expires(Clock::simulated().now())
        .version(3)
        .policy("orders")
        .detail("and more");
    assert_eq!(audit.record(&entry).await.unwrap().seq(), 1);

    let line = memory.lines().unwrap().remove(0);
    assert_eq!(line.run, Some(run));
    assert_eq!(line.caller, Some(peer));
    assert_eq!((line.boot.as_str(), line.class.as_deref()), ("b\"1", Some("denied")));
    assert_eq!(line.reason.as_deref(), Some("no\nread"));
    assert_eq!((line.key, line.values_omitted), (Some(key), Some(2)));
    assert_eq!(line.values_key.as_deref(), Some("0123456789abcdef"));
    assert_eq!(line.values, BTreeMap::from([("/password".to_owned(), "00".to_owned())]));
    assert_eq!(line.expires.as_deref(), Some("2026-01-01T00:00:00.000Z"));
    assert_eq!(audit.head(), Head { seq: 1, hash: line.hash });

    let schema = schema();
    assert_eq!(schema["additionalProperties"], false);
    let written: serde_json::Value = serde_json::from_str(memory.text().trim()).unwrap();
    let documented = schema["properties"].as_object().unwrap();
    for member in written.as_object().unwrap().keys() {
        assert!(documented.contains_key(member), "{member} is not documented");
    }
    for member in documented.keys().filter(|name| !["recovered", "previous"].contains(&name.as_str())) {
        assert!(written.get(member).is_some(), "{member} is documented and never written");
    }
}

#[test]
fn every_event_has_one_word() {
    let words: std::collections::BTreeSet<_> = Event::ALL.iter().map(|event| event.word()).collect();
    assert_eq!(words.len(), Event::ALL.len());
    for event in Event::ALL {
        assert_eq!(serde_json::to_value(event).unwrap(), event.word());
    }
}

#[tokio::test]
async fn a_receipt_opens_a_secret() {
    let (audit, _memory) = Audit::in_memory("b1", Clock::simulated()).unwrap();
    let receipt = audit.record(&read("kv/a")).await.unwrap();
    assert_eq!(Secret::new(b"canary".to_vec()).open(&receipt), b"canary");
}

#[tokio::test]
async fn the_chain_goes_on_in_the_next_process() {
    let (_dir, path) = place();
    for round in 1..=3 {
        let audit = open(&path).unwrap();
        assert_eq!(audit.head().seq, (round - 1) * 2);
        audit.note(&Entry::done(Event::Boot));
        assert_eq!(audit.record(&read("kv/a")).await.unwrap().seq(), round * 2);
        let head = audit.head();
        audit.close().await.unwrap();
        assert_eq!(assert_whole(&path).head, Some(head));
    }
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn a_long_file_is_continued_from_its_tail() {
    let (_dir, path) = place();
    let audit = open(&path).unwrap();
    let long = "x".repeat(100_000);
    for _ in 0..5 {
        let _receipt = audit.record(&read(&long)).await.unwrap();
    }
    audit.close().await.unwrap();
    let audit = open(&path).unwrap();
    assert_eq!(audit.record(&read("kv/a")).await.unwrap().seq(), 6);
    assert!(matches!(audit.record(&read(&"x".repeat(2 << 20))).await, Err(AuditError::TooLong { .. })));
    audit.close().await.unwrap();
    assert_whole(&path);
}

#[tokio::test]
async fn a_torn_end_is_kept_aside_and_told_of() {
    for (tail, seq) in [("{\"v\":1,\"ti", 3), ("{\"v\":1}\n", 3), ("\0\0\0\0", 3)] {
        let (_dir, path) = place();
        let audit = open(&path).unwrap();
        for _ in 0..2 {
            let _receipt = audit.record(&read("kv/a")).await.unwrap();
        }
        audit.close().await.unwrap();
        OpenOptions::new().append(true).open(&path).unwrap().write_all(tail.as_bytes()).unwrap();

        let audit = open(&path).unwrap();
        assert_eq!(audit.record(&read("kv/b")).await.unwrap().seq(), seq + 1);
        audit.close().await.unwrap();
        assert_whole(&path);
        let told = lines(&path)[2].clone();
        assert_eq!(told.event, Event::AuditRecovered);
        let told = told.recovered.unwrap();
        assert_eq!(told.torn_bytes, Some(tail.len() as u64));
        let side = PathBuf::from(told.torn_file.unwrap());
        assert_eq!(side, path.with_file_name("audit.log.torn-3"));
        assert_eq!(fs::read_to_string(&side).unwrap(), tail);
        assert_eq!(fs::metadata(&side).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[tokio::test]
async fn a_file_that_is_not_a_log_is_left_alone() {
    for text in ["hello\n", "hello", "a\nb\nc\n"] {
        let (_dir, path) = place();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(refusal(&path).contains("does not end in a line of a chain"));
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
}

#[tokio::test]
async fn a_file_has_one_writer() {
    let (_dir, path) = place();
    let first = open(&path).unwrap();
    let message = refusal(&path);
    assert!(message.contains("another process writes to it"), "{message}");
    assert!(message.contains("audit.log"), "{message}");
    first.close().await.unwrap();
    open(&path).unwrap();
}

#[tokio::test]
async fn a_place_that_is_not_safe_is_refused() {
    let (dir, path) = place();
    assert!(refusal(&dir.path().join("no/audit.log")).contains("its directory does not exist"));
    assert!(refusal(dir.path()).contains("not a regular file"));
    fs::write(&path, "").unwrap();
    for mode in [0o640, 0o604, 0o620, 0o602] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let message = refusal(&path);
        assert!(
            message.contains(&format!("mode is {mode:04o}")) && message.contains("chmod 0600"),
            "{message}"
        );
    }
    let link = dir.path().join("link");
    symlink(&path, &link).unwrap();
    assert!(refusal(&link).contains("symbolic link"));
    assert!(refusal(Path::new("/dev/full")).contains("not a regular file"));
}

async fn until(mut holds: impl FnMut() -> bool) {
    let bound = Duration::from_secs(20);
    tokio::time::timeout(bound, async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("it never came about");
}

#[tokio::test]
async fn a_full_disk_refuses_every_decision() {
    let shared = Arc::new(Shared::default());
    let stamper = Stamper::new("b1", Clock::system()).unwrap();
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let writer = Writer::new(Arc::clone(&shared), stamper.clone(), Sink::new(sink::LogFile(full)));
    let audit = Audit::start(shared, stamper, writer).unwrap();
    for _ in 0..3 {
        let error = audit.record(&read("kv/a")).await.unwrap_err();
        let AuditError::Write(source) = &error else { panic!("{error}") };
        assert_eq!(source.kind(), io::ErrorKind::StorageFull);
        assert!(!audit.healthy());
    }
    assert_eq!((audit.head(), audit.counters().refused), (Head::START, 3));
    audit.note(&Entry::done(Event::Mint));
    assert!(matches!(audit.close().await, Err(AuditError::NotFlushed)));
}

#[tokio::test]
async fn notes_outlive_a_failure_in_order_and_refused_decisions_are_counted() {
    let (audit, memory) = Audit::in_memory("b1", Clock::simulated()).unwrap();
    let _receipt = audit.record(&read("kv/a")).await.unwrap();
    memory.fail(true);
    for lease in ["l1", "l2", "l3"] {
        audit.note(&Entry::done(Event::Mint).lease_id(lease));
        assert!(audit.record(&read("kv/b")).await.is_err());
    }
    assert_eq!((audit.healthy(), audit.head().seq, audit.counters().waiting), (false, 1, 3));
    memory.fail(false);
    let _receipt = audit.record(&read("kv/c")).await.unwrap();
    assert!(audit.healthy());

    let lines = memory.lines().unwrap();
    let told: Vec<_> = lines.iter().map(|line| line.lease_id.as_deref().or(line.path.as_deref())).collect();
    assert_eq!(told, [Some("kv/a"), None, Some("l1"), Some("l2"), Some("l3"), Some("kv/c")]);
    assert_eq!(lines[1].recovered.as_ref().unwrap().refused, 3);
    assert!(verify(memory.text().as_bytes()).unwrap().is_good());
    assert_eq!(audit.counters().waiting, 0);
}

#[tokio::test]
async fn a_write_that_fails_half_way_leaves_whole_lines_and_a_true_head() {
    for keeps_torn in [false, true] {
        for room in (1..1_500).step_by(53) {
            let (audit, memory) = Audit::in_memory("b1", Clock::simulated()).unwrap();
            memory.fail(true);
            (0..4).for_each(|_| audit.note(&Entry::done(Event::Renew)));
            memory.fail(false);
            memory.limit(Some(room));
            memory.keep_torn(keeps_torn);
            let refused = audit.record(&read("kv/a")).await.is_err();
            let so_far = memory.text();
            let whole = &so_far[..so_far.rfind('\n').map_or(0, |at| at + 1)];
            let report = verify(whole.as_bytes()).unwrap();
            assert!(report.is_good(), "{report}");
            assert_eq!(report.head.unwrap_or(Head::START), audit.head());
            assert!(keeps_torn || whole.len() == so_far.len(), "a torn line was left behind");

            memory.limit(None);
            memory.keep_torn(false);
            let _receipt = audit.record(&read("kv/b")).await.unwrap();
            let report = verify(memory.text().as_bytes()).unwrap();
            assert!(report.is_good(), "{report}");
            let lines = memory.lines().unwrap();
            assert_eq!(lines.iter().filter(|line| line.event == Event::Renew).count(), 4);
            let written = lines.iter().any(|line| line.path.as_deref() == Some("kv/a"));
            assert_eq!(written, !refused, "a line is written if and only if its caller was told so");
        }
    }
}

#[tokio::test]
async fn too_many_notes_are_dropped_counted_and_told_of() {
    let (audit, memory) = Audit::in_memory("b1", Clock::simulated()).unwrap();
    memory.fail(true);
    (0..queue::MAX_NOTES + 7).for_each(|_| audit.note(&Entry::done(Event::Renew)));
    assert_eq!(audit.counters().dropped, 7);
    memory.fail(false);
    audit.note(&Entry::done(Event::Renew));
    audit.note(&Entry::done(Event::Shutdown));
    let lines = memory.lines().unwrap();
    assert_eq!(lines.iter().filter(|line| line.event == Event::Renew).count(), queue::MAX_NOTES);
    let dropped: u64 = lines.iter().filter_map(|line| Some(line.recovered.as_ref()?.dropped)).sum();
    assert_eq!(dropped, 8);
    assert!(verify(memory.text().as_bytes()).unwrap().is_good());
}

#[tokio::test]
async fn a_rotated_log_goes_on_in_the_new_file() {
    let (dir, path) = place();
    let audit = open(&path).unwrap();
    let _receipt = audit.record(&read("kv/a")).await.unwrap();
    audit.reopen().await.unwrap();
    assert_eq!(audit.head().seq, 1, "nothing was rotated");
    let head = audit.head();
    let old = dir.path().join("audit.log.1");
    fs::rename(&path, &old).unwrap();
    audit.reopen().await.unwrap();
    assert_eq!(audit.record(&read("kv/b")).await.unwrap().seq(), 3);
    audit.close().await.unwrap();

    assert_eq!(assert_whole(&old).head, Some(head));
    let report = assert_whole(&path);
    assert_eq!(report.continues, Some(head));
    let first = lines(&path).remove(0);
    assert_eq!((first.event, first.previous, first.seq), (Event::AuditReopened, Some(head), 2));
}

#[tokio::test]
async fn a_reopening_that_fails_leaves_the_log_as_it_was() {
    let (dir, path) = place();
    let audit = open(&path).unwrap();
    let old = dir.path().join("audit.log.1");
    fs::rename(&path, &old).unwrap();
    fs::write(&path, "").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(audit.reopen().await, Err(AuditError::LooseMode { .. })));
    let _receipt = audit.record(&read("kv/a")).await.unwrap();
    assert_eq!(lines(&old).len(), 1);
}

#[tokio::test]
async fn a_thousand_at_once_are_all_written_in_few_writes() {
    let (_dir, path) = place();
    let audit = open(&path).unwrap();
    let tasks: Vec<_> = (0..1_000)
        .map(|task| {
            let audit = audit.clone();
            tokio::spawn(async move { audit.record(&read(&format!("kv/{task}"))).await.unwrap().seq() })
        })
        .collect();
    let mut seqs = Vec::new();
    for task in tasks {
        seqs.push(task.await.unwrap());
    }
    let counters = audit.counters();
    assert_eq!(counters.written, 1_000);
    assert!(counters.batches < 500, "{counters:?}");
    audit.close().await.unwrap();
    assert_eq!(assert_whole(&path).lines, 1_000);
    let lines = lines(&path);
    for (task, seq) in seqs.into_iter().enumerate() {
        assert_eq!(lines[seq as usize - 1].path, Some(format!("kv/{task}")));
    }
}

#[tokio::test]
async fn a_caller_that_goes_away_hurts_nobody() {
    let (_dir, path) = place();
    let audit = open(&path).unwrap();
    for _ in 0..100 {
        let entry = read("kv/gone");
        let mut record = Box::pin(audit.record(&entry));
        assert!(futures_poll_once(record.as_mut()).await.is_none_or(|result| result.is_ok()));
        drop(record);
        let _receipt = audit.record(&read("kv/here")).await.unwrap();
    }
    audit.close().await.unwrap();
    assert_eq!(assert_whole(&path).lines, 200);
}

async fn futures_poll_once<F: Future>(mut future: std::pin::Pin<&mut F>) -> Option<F::Output> {
    std::future::poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

#[test]
fn a_log_outlives_the_runtime_it_was_opened_on() {
    let (_dir, path) = place();
    let first = runtime();
    let audit = first.block_on(async { open(&path).unwrap() });
    drop(first);
    assert_eq!(runtime().block_on(audit.record(&read("kv/a"))).unwrap().seq(), 1);
    runtime().block_on(audit.clone().close()).unwrap();
    assert!(matches!(runtime().block_on(audit.record(&read("kv/a"))), Err(AuditError::Closed)));
}

#[tokio::test]
async fn what_was_noted_is_written_when_the_last_handle_goes() {
    let (_dir, path) = place();
    let audit = open(&path).unwrap();
    audit.note(&Entry::done(Event::Shutdown));
    drop(audit);
    until(|| lines(&path).len() == 1).await;
}

#[test]
fn threads_with_runtimes_of_their_own_share_a_log() {
    let (_dir, path) = place();
    let audit = runtime().block_on(async { open(&path).unwrap() });
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                runtime().block_on(async {
                    for _ in 0..250 {
                        let _receipt = audit.record(&read("kv/a")).await.unwrap();
                        audit.note(&Entry::done(Event::Renew));
                    }
                });
            });
        }
    });
    runtime().block_on(audit.close()).unwrap();
    assert_eq!(assert_whole(&path).lines, 2_000);
}

#[tokio::test]
async fn callers_of_another_runtime_are_woken_by_the_first_ones_pump() {
    let (_dir, path) = place();
    let audit = open(&path).unwrap();
    let elsewhere = tokio::task::spawn_blocking({
        let audit = audit.clone();
        move || {
            runtime().block_on(async {
                for _ in 0..250 {
                    let _receipt = audit.record(&read("kv/a")).await.unwrap();
                }
            });
        }
    });
    for _ in 0..250 {
        let _receipt = audit.record(&read("kv/b")).await.unwrap();
    }
    elsewhere.await.unwrap();
    audit.close().await.unwrap();
    assert_eq!(assert_whole(&path).lines, 500);
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// An output whose writes take as long as the test likes.
struct Stuck(std::sync::mpsc::Receiver<()>);

impl sink::Output for Stuck {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.0.recv();
        Ok(bytes.len())
    }

    fn take_back(&mut self, _: u64) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_log_that_does_not_answer_keeps_nobody_longer_than_its_patience() {
    let (go_on, waits) = std::sync::mpsc::channel();
    let shared = Arc::new(Shared::default());
    let stamper = Stamper::new("b1", Clock::system()).unwrap();
    let writer = Writer::new(Arc::clone(&shared), stamper.clone(), Sink::new(Stuck(waits)));
    let audit = Audit::start(shared, stamper, writer).unwrap();
    audit.bound(Duration::from_millis(40));
    for _ in 0..3 {
        let (one, two) = (read("a"), read("b"));
        let (one, two) = tokio::join!(audit.record(&one), audit.record(&two));
        assert!(matches!(one, Err(AuditError::NoAnswer)) && matches!(two, Err(AuditError::NoAnswer)));
    }
    // What was handed over is written all the same, and who comes then is answered.
    drop(go_on);
    assert_eq!(audit.record(&read("c")).await.unwrap().seq(), 7);
    assert_eq!(audit.head().seq, 7);
}
