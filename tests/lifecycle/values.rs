//! The hashes of what is disclosed: never a line without them, and a value is found by them.

use tenure::audit::trace::served::{Logs, Matches, Wanted};
use tenure::audit::{At, Event, Outcome, ValueKey, WrappedKey};
use tenure::broker::{Asker, Denied, ReadRequest};
use tenure::caller::Caller;
use tenure::lease::failure::Class;
use tenure::lease::upstream::{ReadKey, TransitKey};
use tenure::source::dev::{DatabaseRole, Operation};

use crate::stage::{APP, ORDERS, Plan, Stage, secs, sleep};

fn key() -> TransitKey {
    TransitKey { mount: "transit".to_owned(), name: "tenure-audit".to_owned() }
}

fn with_key() -> Plan {
    Plan { value_key: Some(key()), ..Plan::default() }
}

/// What an auditor finds, who may have the keys unwrapped.
fn matched(stage: &Stage, values: &[&str]) -> Matches {
    matched_in(stage, &stage.memory.text(), values)
}

fn matched_in(stage: &Stage, text: &str, values: &[&str]) -> Matches {
    let dir = tempfile::tempdir().expect("a directory");
    let log = dir.path().join("audit.jsonl");
    std::fs::write(&log, text).expect("a file");
    let logs = Logs::open(&[log], &mut std::io::empty(), &mut |_| ()).expect("read");
    let unwrapped = |wrapped: &WrappedKey| {
        let bytes = stage.vault.unwrapped(&key(), &wrapped.wrapped).ok_or("not wrapped here")?;
        Ok(ValueKey::new(bytes.as_slice().try_into().map_err(|_| "too short")?, wrapped))
    };
    let keys: Vec<_> = logs.keys().map(unwrapped).collect();
    let wanted: Vec<_> = values.iter().map(|value| Wanted::new(value.as_bytes().to_vec().into())).collect();
    let now = At::new(stage.clock.now().wall());
    logs.find(&keys, &wanted, (None, None), now, &mut |_| ()).expect("read")
}

#[tokio::test(start_paused = true)]
async fn a_value_is_found_in_the_lines_of_those_who_had_it() {
    let stage = Stage::new(with_key()).await;
    let first = stage.alive(ORDERS).await;
    stage.alive(ORDERS).await;
    stage.read(APP).await.expect("served");
    let keys = stage.lines(Event::AuditKey);
    assert_eq!(keys.len(), 1, "{keys:?}");
    let reads = stage.lines(Event::Read);
    assert!(reads.iter().all(|line| !line.values.is_empty() && keys[0].seq < line.seq), "{reads:?}");
    let places: Vec<_> = reads[0].values.keys().map(String::as_str).collect();
    assert_eq!(places, ["/password", "/username"]);
    assert_eq!(reads[0].values, reads[1].values, "of the same lease");

    let found = matched(&stage, &[&first.value, "canary-one\n", "canary-two"]);
    assert!(found.coverage.is_complete() && found.coverage.disclosures == 3, "{found:?}");
    let [user, app] = &found.served[..] else { panic!("{found:?}") };
    assert_eq!((user.value, &*user.path, &*user.pointer, user.times), (1, ORDERS, "/username", 2));
    assert_eq!(user.lease_id, reads[0].lease_id);
    assert_eq!((app.value, &*app.path, &*app.pointer, app.kv_version), (2, APP, "/data/key", Some(1)));
    assert_eq!(app.run.as_ref(), reads[2].run.as_ref().map(|run| &run.id));
    stage.finish().await;
}

#[tokio::test(start_paused = true)]
async fn without_the_key_nothing_is_minted() {
    let stage = Stage::start(with_key()).await;
    stage.vault.fail(Class::Transient);
    sleep(secs(1)).await;
    let denied = stage.read(ORDERS).await.expect_err("there is no key");
    assert!(matches!(denied, Denied::Upstream { .. } | Denied::TimedOut { .. }), "{denied}");
    assert_eq!(stage.vault.count(Operation::Read), 0);
    stage.vault.recover();
    stage
        .until(secs(60), "there is a key", |stage| {
            stage.lines(Event::AuditKey).iter().any(|line| line.key.is_some())
        })
        .await;
    // The lease was refused for want of the key, and tries again by its own schedule.
    sleep(secs(10)).await;
    stage.alive(ORDERS).await;
    let reads = stage.lines(Event::Read);
    assert!(
        reads.iter().all(|line| line.outcome != Outcome::Granted || !line.values.is_empty()),
        "{reads:?}"
    );
    stage.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_key_that_cannot_be_had_is_said_at_the_start() {
    let wrong = TransitKey { mount: "transit".to_owned(), name: "none".to_owned() };
    let plan = Plan { value_key: Some(wrong), ..Plan::default() };
    let stage = Stage::start_without_transit(plan).await;
    let failure = stage.broker.runs().established().await.expect_err("there is no such key");
    assert!(failure.message.contains("no such transit key"), "{failure}");
    let denied = stage.read(ORDERS).await.expect_err("there is no key");
    assert!(denied.to_string().contains("no such transit key"), "{denied}");
    assert_eq!(stage.vault.count(Operation::Read), 0);
    stage.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_new_key_is_made_each_day_and_an_outage_takes_none_away() {
    let stage = Stage::new(with_key()).await;
    sleep(secs(24 * 3600)).await;
    let made = stage.lines(Event::AuditKey).len();
    assert_eq!(made, 2, "keys in a day");
    stage.vault.fail(Class::Transient);
    sleep(secs(3 * 24 * 3600)).await;
    stage.vault.recover();
    sleep(secs(60)).await;
    stage.alive(ORDERS).await;
    let got = stage.alive(ORDERS).await;
    let found = matched(&stage, &[&got.value]);
    assert_eq!((found.served.len(), found.coverage.is_complete()), (1, true), "{found:?}");
    let keys: Vec<_> =
        stage.lines(Event::AuditKey).into_iter().filter_map(|line| Some(line.key?.wrapped)).collect();
    let mut different = keys.clone();
    different.dedup();
    assert_eq!(different, keys);
    stage.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_lease_of_yesterday_has_the_hashes_of_yesterdays_key() {
    let days = secs(3 * 24 * 3600);
    let orders = DatabaseRole { ttl: days, max_ttl: days };
    let stage = Stage::new(Plan { orders, token_ttl: days, ..with_key() }).await;
    let first = stage.alive(ORDERS).await;
    sleep(secs(24 * 3600)).await;
    assert_eq!(stage.lines(Event::AuditKey).len(), 2);
    assert_eq!(stage.alive(ORDERS).await.value, first.value, "the lease goes on");
    let found = matched(&stage, &[&first.value]);
    assert_eq!((found.served[0].times, found.coverage.is_complete()), (2, true), "{found:?}");
    // In today's file alone there is today's key alone, which is not that of the lease.
    let text = stage.memory.text();
    let today = text.rfind(r#""event":"audit.key""#).expect("a line");
    let today = &text[text[..today].rfind('\n').expect("a line before") + 1..];
    let found = matched_in(&stage, today, &[&first.value]);
    assert_eq!((found.served.len(), found.coverage.is_complete()), (0, false), "{found:?}");
    assert_eq!((found.coverage.disclosures, found.coverage.without_key), (1, 1));
    stage.finish().await;
}

#[tokio::test(start_paused = true)]
async fn lists_have_no_values_and_a_broker_without_a_key_says_what_could_not_be_compared() {
    let stage = Stage::new(with_key()).await;
    let caller = Caller::Unix { uid: 1000, gid: 1000, pid: None };
    let key = ReadKey { path: "secret/metadata".into(), query: "".into(), list: true };
    let request = ReadRequest { key, min_left: secs(0) };
    let own = stage.broker.runs().own();
    stage.broker.read(&Asker::new(&caller, "test"), own, &request).await.expect("listed");
    assert!(stage.lines(Event::List).iter().all(|line| line.values.is_empty()));
    stage.finish().await;

    let stage = Stage::new(Plan::default()).await;
    stage.read(APP).await.expect("served");
    let found = matched(&stage, &["canary-one"]);
    assert_eq!((found.served.len(), found.coverage.is_complete()), (0, false));
    assert_eq!((found.coverage.disclosures, found.coverage.without_hashes), (1, 1));
    stage.finish().await;
}
