use std::path::Path;

use super::*;
use crate::audit::verify::{Kind, verify_all, verify_collected};
use crate::audit::{self, Audit, Entry, Event};
use crate::clock::Clock;

/// A log of two boots in one file, the anchors that upstream has of it, and the log as it was when the first had ended.
struct Written {
    log: String,
    old: String,
    anchors: Vec<Anchor>,
}

async fn boot(path: &Path, id: &str, lines: u64, anchors: &mut Vec<Anchor>) {
    let clock = Clock::simulated();
    let audit = Audit::open(audit::Config::File(path.to_owned()), id, clock.clone()).expect("a log");
    let began = audit.began();
    for number in 1..=lines {
        let path = format!("secret/data/{number}");
        let _receipt = audit.record(&Entry::granted(Event::Read).path(&path)).await.expect("a line");
        if number % 3 == 0 {
            anchors.push(Anchor {
                boot: id.to_owned(),
                head: audit.head(),
                began: Some(began),
                by: Some("role/orders".to_owned()),
                time: clock.now().rfc3339(),
                place: format!("vault.log:{}", anchors.len() + 1),
            });
        }
    }
    audit.close().await.expect("it closes");
}

async fn written() -> Written {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("audit.jsonl");
    let mut anchors = Vec::new();
    boot(&path, "b1", 7, &mut anchors).await;
    let old = std::fs::read_to_string(&path).expect("the log");
    boot(&path, "b2", 8, &mut anchors).await;
    let log = std::fs::read_to_string(&path).expect("the log");
    Written { log, old, anchors }
}

fn known(anchors: &[Anchor]) -> Anchors {
    let mut known = Anchors::default();
    for anchor in anchors {
        known.login(&anchor.boot, "role/orders".to_owned(), "2026-01-01T00:00:00Z".to_owned());
        known.take(anchor.clone());
    }
    known
}

fn compared(log: &str, anchors: &Anchors) -> (Vec<Kind>, Anchored) {
    let mut comparison = anchors.compare();
    let report = verify_all([log.as_bytes()], &mut |line| comparison.see(line)).expect("it is read");
    (report.problems.iter().map(|problem| problem.kind).collect(), comparison.finish(&[]))
}

fn findings(anchored: &Anchored) -> BTreeSet<Finding> {
    anchored.problems.iter().map(|problem| problem.kind).collect()
}

/// A chain that is whole, of the same boots and numbers, with other content.
async fn made_anew(ids: &[(&str, u64)]) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("audit.jsonl");
    for (id, lines) in ids {
        let config = audit::Config::File(path.clone());
        let audit = Audit::open(config, id, Clock::simulated()).expect("a log");
        for _ in 0..*lines {
            let entry = Entry::granted(Event::Read).path("secret/data/harmless");
            let _receipt = audit.record(&entry).await.expect("a line");
        }
        audit.close().await.expect("it closes");
    }
    std::fs::read_to_string(&path).expect("the log")
}

#[tokio::test]
async fn a_log_that_is_as_it_was_written_is_confirmed_up_to_its_last_anchor() {
    let written = written().await;
    let (chain, anchored) = compared(&written.log, &known(&written.anchors));
    assert_eq!((chain, findings(&anchored)), (vec![], BTreeSet::new()));
    assert_eq!(anchored.anchors, 4);
    assert_eq!(anchored.covered, Some(written.anchors[3].head), "two lines of the second boot came after it");
    assert_eq!(anchored.uncovered, 2);
    assert!(anchored.to_string().contains("not covered yet: 2 lines from "), "{anchored}");
}

#[tokio::test]
async fn eight_ways_of_tampering_are_each_named() {
    let written = written().await;
    let anchors = known(&written.anchors);
    let lines: Vec<&str> = written.log.lines().collect();
    let with = |change: &dyn Fn(&mut Vec<String>)| {
        let mut lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        change(&mut lines);
        lines.iter().map(|line| line.clone() + "\n").collect::<String>()
    };
    let by_chain: [(&str, String, Kind); 4] = [
        ("edit", with(&|lines| lines[4] = lines[4].replace("secret", "public")), Kind::Edited),
        ("deletion", with(&|lines| drop(lines.remove(4))), Kind::Missing),
        ("reordering", with(&|lines| lines.swap(4, 6)), Kind::Reordered),
        (
            "insertion",
            with(&|lines| {
                let copy = lines[2].clone();
                lines.insert(5, copy);
            }),
            Kind::Inserted,
        ),
    ];
    for (what, log, kind) in by_chain {
        let (chain, _) = compared(&log, &anchors);
        assert!(chain.contains(&kind), "{what}: {chain:?}");
    }
    let by_anchor = [
        ("a cut tail", with(&|lines| lines.truncate(9)), Finding::CutTail),
        ("a chain made anew", made_anew(&[("b1", 7), ("b2", 8)]).await, Finding::Rewritten),
        ("another file", made_anew(&[("b7", 15)]).await, Finding::Swapped),
        ("an old file", written.old.clone(), Finding::Replayed),
    ];
    for (what, log, finding) in by_anchor {
        let (chain, anchored) = compared(&log, &anchors);
        assert_eq!(chain, vec![], "{what}: the chain by itself is whole");
        assert_eq!(findings(&anchored), BTreeSet::from([finding]), "{what}: {anchored}");
    }
}

#[tokio::test]
async fn an_anchor_counts_only_if_the_boots_own_login_made_it() {
    let written = written().await;
    let mut anchors = known(&written.anchors);
    // Somebody else wants the log to seem made anew.
    let mut forged = written.anchors[0].clone();
    forged.head.hash = audit::Hash::of(b"something else");
    forged.by = Some("role/reports".to_owned());
    forged.place = "vault.log:9".to_owned();
    anchors.take(forged.clone());
    let (_, anchored) = compared(&written.log, &anchors);
    assert_eq!(findings(&anchored), BTreeSet::from([Finding::Foreign]));
    assert_eq!(anchored.covered, Some(written.anchors[3].head));
    // With the broker's own role they contradict each other.
    anchors.take(Anchor { by: Some("role/orders".to_owned()), ..forged });
    let (_, anchored) = compared(&written.log, &anchors);
    assert!(findings(&anchored).contains(&Finding::Conflict), "{anchored}");
}

#[tokio::test]
async fn a_boot_whose_login_is_not_known_is_told_of() {
    let written = written().await;
    let mut anchors = Anchors::default();
    written.anchors.iter().for_each(|anchor| anchors.take(anchor.clone()));
    let (_, anchored) = compared(&written.log, &anchors);
    assert_eq!(anchored.unproved, ["b1", "b2"]);
    assert_eq!((anchored.anchors, anchored.problems.len()), (4, 0));
}

#[tokio::test]
async fn anchors_of_other_brokers_are_nothing_to_this_log() {
    let written = written().await;
    let mut anchors = known(&written.anchors);
    anchors.take(Anchor { boot: "other".to_owned(), began: None, ..written.anchors[0].clone() });
    let mut other = written.anchors[1].clone();
    (other.boot, other.began, other.head.hash) = ("other".to_owned(), None, audit::Hash::of(b"their own"));
    anchors.take(other);
    let (_, anchored) = compared(&written.log, &anchors);
    assert_eq!((anchored.problems.len(), anchored.others), (0, 1), "{anchored}");
}

/// After a rotation: what was anchored before is in the file before.
#[tokio::test]
async fn anchors_of_lines_before_a_files_first_are_no_findings() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, moved) = (folder.path().join("audit.jsonl"), folder.path().join("audit.jsonl.1"));
    let clock = Clock::simulated();
    let audit = Audit::open(audit::Config::File(path.clone()), "b1", clock.clone()).expect("a log");
    let mut anchors = Anchors::default();
    for number in 0..6 {
        if number == 3 {
            std::fs::rename(&path, &moved).expect("it is moved");
            audit.reopen().await.expect("it is opened anew");
        }
        let _receipt =
            audit.record(&Entry::granted(Event::Read).path("secret/data/a")).await.expect("a line");
        anchors.take(Anchor {
            boot: "b1".to_owned(),
            head: audit.head(),
            began: Some(audit.began()),
            by: None,
            time: clock.now().rfc3339(),
            place: format!("vault.log:{number}"),
        });
    }
    audit.close().await.expect("it closes");
    let read = |path| std::fs::read_to_string(path).expect("a log");
    let (_, anchored) = compared(&read(&path), &anchors);
    assert_eq!((anchored.anchors, anchored.earlier, anchored.problems.len()), (3, 3, 0), "{anchored}");
    let (_, anchored) = compared(&(read(&moved) + &read(&path)), &anchors);
    assert_eq!((anchored.anchors, anchored.earlier, anchored.uncovered), (6, 0, 0), "{anchored}");
    let (_, anchored) = compared(&read(&moved), &anchors);
    assert_eq!(findings(&anchored), BTreeSet::from([Finding::CutTail]), "{anchored}");
}

/// Of what was collected each chain is confirmed by its own anchors, and no other's.
#[tokio::test]
async fn of_several_chains_each_is_confirmed_by_itself() {
    let written = written().await;
    let unknown = made_anew(&[("b7", 12)]).await;
    let mut lines: Vec<&str> = written.log.lines().collect();
    for (number, line) in unknown.lines().enumerate() {
        lines.insert(number * 2, line);
    }
    let collected = |lines: &[&str], wanted: &[String]| {
        let anchors = known(&written.anchors);
        let mut comparison = anchors.compare();
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let report =
            verify_collected([text.as_bytes()], &mut |line| comparison.see(line)).expect("it is read");
        assert!(report.is_good(), "{report}");
        (report, comparison.finish(wanted))
    };
    let (report, anchored) = collected(&lines, &["b1".to_owned(), "b2".to_owned()]);
    assert_eq!((anchored.problems.len(), anchored.unconfirmed, anchored.covered), (0, 1, None), "{anchored}");
    let of = |boot: &str| report.by_chain.iter().find(|chain| chain.boot == boot).expect("a chain").number;
    let cover = |number| anchored.by_chain.iter().find(|cover| cover.number == number).expect("a chain");
    assert_eq!(cover(of("b1")).covered, Some(written.anchors[3].head));
    assert_eq!(
        (cover(of("b1")).uncovered, cover(of("b7")).covered, cover(of("b7")).uncovered),
        (2, None, 12)
    );
    assert_eq!(anchored.uncovered, 14, "what follows in another chain covers nothing here");
    // One of them ends early, and the other is what it was.
    let at = lines.iter().rposition(|line| line.contains(r#""boot":"b2""#)).expect("a line");
    let cut: Vec<&str> = lines.iter().copied().take(at - 2).chain(unknown.lines()).collect();
    let (_, anchored) = collected(&cut, &[]);
    assert_eq!(findings(&anchored), BTreeSet::from([Finding::CutTail]), "{anchored}");
    assert!(anchored.problems.iter().all(|problem| problem.message.contains("boot b2")), "{anchored}");
    let (_, anchored) = collected(&lines, &["b9".to_owned()]);
    assert_eq!(findings(&anchored), BTreeSet::from([Finding::Swapped]), "{anchored}");
}
