use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::audit::{Audit, Entry, Event};
use crate::clock::Clock;

/// Lines of one file, written by a process after another: each continues where the one before ended.
fn log(boots: &[usize]) -> Vec<String> {
    log_of("boot", boots)
}

/// The same, of boots that are called so, with a number.
pub(super) fn log_of(name: &str, boots: &[usize]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut head = Head::START;
    for (boot, &count) in boots.iter().enumerate() {
        let (audit, memory) = Audit::in_memory(&format!("{name}-{boot}"), Clock::simulated()).unwrap();
        for line in 0..count {
            audit.note(&Entry::done(Event::Mint).path(&format!("database/creds/{line}")));
        }
        for line in memory.lines().unwrap() {
            lines.push(again(&serde_json::to_string(&line).unwrap(), &mut head));
        }
    }
    lines
}

/// The line with a good hash, in the place after `head`.
fn again(line: &str, head: &mut Head) -> String {
    let body = &line[..line.find(",\"seq\":").unwrap()];
    let mut out = body.as_bytes().to_vec();
    head.seal(&mut out, 0);
    String::from_utf8(out).unwrap().trim_end().to_owned()
}

/// The line changed and hashed anew, its number and predecessor as they were.
pub(super) fn forged(line: &str) -> String {
    let parsed: Line = serde_json::from_str(line).unwrap();
    let mut head = Head { seq: parsed.seq - 1, hash: parsed.prev };
    again(&line.replace("database", "elsewhere"), &mut head)
}

fn report(lines: &[String]) -> Report {
    verify(lines.iter().map(|line| format!("{line}\n")).collect::<String>().as_bytes()).unwrap()
}

fn findings(report: &Report) -> Vec<(u64, Kind)> {
    report.problems.iter().map(|problem| (problem.line, problem.kind)).collect()
}

fn check(lines: &[String], expected: &[(u64, Kind)]) {
    let report = report(lines);
    assert_eq!(findings(&report), expected, "{report}");
}

#[test]
fn an_empty_log_is_whole() {
    check(&[], &[]);
}

#[test]
fn a_whole_log_says_what_it_holds() {
    let lines = log(&[3, 2]);
    let report = report(&lines);
    assert!(report.is_good(), "{report}");
    assert_eq!((report.lines, report.boots, report.chains), (5, 2, 1));
    assert_eq!(report.head.unwrap().seq, 5);
    assert!(report.to_string().contains("the head is seq 5 hash "), "{report}");
    assert!(report.to_string().ends_with(CAVEAT));
}

#[test]
fn missing_lines_are_named_with_their_neighbours() {
    let mut lines = log(&[9]);
    lines.drain(4..6);
    let report = report(&lines);
    assert_eq!(findings(&report), [(5, Kind::Missing)]);
    assert_eq!(report.problems[0].message, "seq 5–6 are missing between line 4 and 5");
    lines.remove(0);
    check(&lines, &[(1, Kind::Missing), (4, Kind::Missing)]);
}

#[test]
fn a_cut_tail_is_not_seen_and_the_report_says_so() {
    let mut lines = log(&[9]);
    lines.truncate(6);
    let report = report(&lines);
    assert!(report.is_good());
    assert_eq!(report.head.unwrap().seq, 6);
    assert!(report.to_string().contains("compare the head with the last anchor"));
}

#[test]
fn a_torn_end_is_named() {
    let text = log(&[3]).join("\n");
    let report = verify(&text.as_bytes()[..text.len() - 10]).unwrap();
    assert_eq!(findings(&report), [(3, Kind::Torn)]);
    assert_eq!(report.head.unwrap().seq, 2);
}

#[test]
fn what_is_not_a_line_is_named_wherever_it_stands() {
    let lines = log(&[4]);
    for at in 0..4 {
        let mut replaced = lines.clone();
        replaced[at] = "hello".into();
        check(&replaced, &[(at as u64 + 1, Kind::NotALine)]);
        let mut inserted = lines.clone();
        inserted.insert(at, "{}".into());
        check(&inserted, &[(at as u64 + 1, Kind::NotALine)]);
    }
    let long = format!("{}\n{}\n", "x".repeat(MAX_LINE * 2), lines[0]);
    assert_eq!(findings(&verify(long.as_bytes()).unwrap()), [(1, Kind::NotALine)]);
}

#[test]
fn a_chain_that_begins_again_is_named_in_a_file_and_expected_on_standard_output() {
    let mut lines = log(&[3]);
    let (audit, memory) = Audit::in_memory("another", Clock::simulated()).unwrap();
    audit.note(&Entry::done(Event::Boot));
    audit.note(&Entry::done(Event::Shutdown));
    lines.extend(memory.text().lines().map(str::to_owned));
    check(&lines, &[(4, Kind::Restarted)]);
    let text = lines.join("\n") + "\n";
    let report = verify_collected([text.as_bytes()], &mut |_| {}).unwrap();
    assert!(report.is_good(), "{report}");
    assert_eq!((report.chains, report.boots, report.head), (2, 2, None));
    assert_eq!(report.by_chain.iter().map(|chain| chain.head.unwrap().seq).collect::<Vec<_>>(), [3, 2]);
}

#[test]
fn a_forged_number_is_named() {
    let mut lines = log(&[5]);
    let parsed: Line = serde_json::from_str(&lines[2]).unwrap();
    for seq in [0, 1, 70, u64::MAX - 1] {
        lines[2] = again(&lines[2], &mut Head { seq, hash: parsed.prev });
        check(&lines, &[(3, Kind::Edited)]);
    }
}

proptest! {
    #[test]
    fn no_log_that_was_left_alone_has_problems(boots in prop::collection::vec(1..6usize, 1..6)) {
        let report = report(&log(&boots));
        prop_assert!(report.is_good(), "{}", report);
        prop_assert_eq!(report.boots, boots.len() as u64);
    }

    #[test]
    fn a_changed_line_is_named(
        boots in prop::collection::vec(1..6usize, 1..4), line: Index, byte: Index, change in 1..128u8,
    ) {
        let mut lines = log(&boots);
        let at = line.index(lines.len());
        let mut bytes = lines[at].clone().into_bytes();
        let byte = byte.index(bytes.len());
        bytes[byte] = (bytes[byte] ^ change) & 127;
        prop_assume!(bytes[byte] != b'\n');
        lines[at] = String::from_utf8(bytes).unwrap();
        let report = report(&lines);
        let found = findings(&report);
        prop_assert!(matches!(found[..], [(n, Kind::Edited | Kind::NotALine)] if n == at as u64 + 1), "{}", report);
    }

    #[test]
    fn a_line_changed_and_hashed_anew_is_named(boots in prop::collection::vec(1..6usize, 2..4), line: Index) {
        let mut lines = log(&boots);
        // Of the last line only the anchor tells.
        let at = line.index(lines.len() - 1);
        lines[at] = forged(&lines[at]);
        check(&lines, &[(at as u64 + 1, Kind::Edited)]);
    }

    #[test]
    fn a_line_taken_out_is_named(boots in prop::collection::vec(1..6usize, 2..4), line: Index) {
        let mut lines = log(&boots);
        let at = line.index(lines.len() - 1);
        lines.remove(at);
        check(&lines, &[(at as u64 + 1, Kind::Missing)]);
    }

    #[test]
    fn a_copied_line_is_named(boots in prop::collection::vec(1..6usize, 2..4), from: Index, to: Index) {
        let mut lines = log(&boots);
        let (from, to) = (from.index(lines.len()), to.index(lines.len() + 1));
        lines.insert(to, lines[from].clone());
        // Of two equal lines one after the other the second is one too many.
        let expected = if to == from { to + 2 } else { to + 1 };
        check(&lines, &[(expected as u64, Kind::Inserted)]);
    }

    #[test]
    fn a_forged_line_put_in_is_named(boots in prop::collection::vec(1..6usize, 2..4), line: Index) {
        let mut lines = log(&boots);
        let at = line.index(lines.len() - 1);
        lines.insert(at, forged(&lines[at]));
        check(&lines, &[(at as u64 + 1, Kind::Inserted)]);
    }

    #[test]
    fn two_lines_that_changed_places_are_named(boots in prop::collection::vec(1..6usize, 2..4), a: Index, b: Index) {
        let mut lines = log(&boots);
        let (a, b) = (a.index(lines.len()), b.index(lines.len()));
        prop_assume!(a != b);
        lines.swap(a, b);
        let report = report(&lines);
        let places = [a as u64 + 1, b as u64 + 1];
        prop_assert!(!report.problems.is_empty());
        for (line, kind) in findings(&report) {
            prop_assert!(kind == Kind::Reordered, "{}", report);
            // Of two neighbours either can be said to have moved; so can a line between two that are one apart.
            prop_assert!(places.contains(&line) || a.abs_diff(b) == 2, "{}", report);
        }
        prop_assert_eq!(report.head.unwrap().seq, lines.len() as u64);
    }

    #[test]
    fn a_moved_line_is_named(boots in prop::collection::vec(1..6usize, 2..4), from: Index, to: Index) {
        let mut lines = log(&boots);
        let (from, to) = (from.index(lines.len()), to.index(lines.len()));
        prop_assume!(from != to);
        let line = lines.remove(from);
        lines.insert(to, line);
        let report = report(&lines);
        prop_assert!(!report.problems.is_empty());
        prop_assert!(findings(&report).iter().all(|&(_, kind)| kind == Kind::Reordered), "{}", report);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes: Vec<u8>, lines in prop::collection::vec(0..8usize, 0..12)) {
        let _ = verify(&bytes[..]).unwrap();
        let whole = log(&[8]);
        let picked: Vec<String> = lines.iter().map(|&at| whole[at].clone()).collect();
        let _ = report(&picked);
    }
}

/// Lines that were collected as events, with the headers of syslog or without: they are judged as their lines are.
#[test]
fn what_is_wrapped_is_verified_as_it_is_within() {
    use crate::audit::frame::{Format, Framing};
    use crate::audit::syslog::Header;

    for (format, header) in
        [(Format::Ocsf, None), (Format::Ocsf, Some(Header::new())), (Format::Tenure, Some(Header::new()))]
    {
        let framing = Framing { format, header };
        let wrapped = |line: &String| {
            let mut out = Vec::new();
            framing.frame(line.as_bytes(), &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        let lines = log(&[4]);
        let whole: Vec<String> = lines.iter().map(wrapped).collect();
        check(&whole, &[]);
        // Part of it may have been collected otherwise.
        check(&[lines[0].clone(), whole[1].clone(), lines[2].clone(), whole[3].clone()], &[]);
        let mut missing = whole.clone();
        missing.remove(1);
        check(&missing, &[(2, Kind::Missing)]);
        let mut edited = whole.clone();
        edited[2] = edited[2].replace("database/creds/2", "database/creds/9");
        check(&edited, &[(3, Kind::Edited)]);
        let mut remade = whole.clone();
        remade[1] = wrapped(&forged(&lines[1]));
        check(&remade, &[(2, Kind::Edited)]);
        let mut cut = whole;
        cut[3].pop();
        cut[3].pop();
        check(&cut, &[(4, Kind::NotALine)]);
    }
}
