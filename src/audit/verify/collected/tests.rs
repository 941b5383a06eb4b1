use proptest::prelude::*;
use proptest::sample::Index;

use crate::audit::verify::tests::{forged, log_of};
use crate::audit::verify::{ChainSeen, Kind, Report, verify, verify_collected};

/// So many chains, each of one boot or more; `chain-0-0` is the first boot of the first one.
fn chains(of: &[Vec<usize>]) -> Vec<Vec<String>> {
    of.iter().enumerate().map(|(number, boots)| log_of(&format!("chain-{number}"), boots)).collect()
}

/// Which chain that boot is of.
fn number(boot: &str) -> usize {
    boot.split('-').nth(1).unwrap().parse().unwrap()
}

/// All lines, each chain's in its order, and each beside the chain that it is of.
fn interleaved(chains: &[Vec<String>], picks: &[Index]) -> Vec<(usize, String)> {
    let mut left: Vec<_> = chains.iter().enumerate().map(|(number, lines)| (number, lines.iter())).collect();
    let mut all = Vec::new();
    let mut picks = picks.iter().cycle();
    while !left.is_empty() {
        let at = picks.next().map_or(0, |pick| pick.index(left.len()));
        match left[at].1.next() {
            Some(line) => all.push((left[at].0, line.clone())),
            None => drop(left.swap_remove(at)),
        }
    }
    all
}

fn report<'a>(lines: impl IntoIterator<Item = &'a String>) -> Report {
    let text: String = lines.into_iter().map(|line| format!("{line}\n")).collect();
    verify_collected([text.as_bytes()], &mut |_| {}).unwrap()
}

fn text(lines: &[String]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// Each chain is judged as if it were alone.
fn check_each(report: &Report, chains: &[Vec<String>]) -> Result<(), TestCaseError> {
    prop_assert!(report.is_good(), "{}", report);
    prop_assert_eq!(report.chains, chains.len() as u64);
    for chain in &report.by_chain {
        let alone = verify(text(&chains[number(&chain.boot)]).as_bytes()).unwrap();
        let ChainSeen { boots, lines, head, .. } = chain;
        prop_assert_eq!((*lines, *boots, *head), (alone.lines, alone.boots, alone.head));
    }
    Ok(())
}

fn several() -> impl Strategy<Value = Vec<Vec<usize>>> {
    prop::collection::vec(prop::collection::vec(1..6usize, 1..4), 1..6)
}

fn picks() -> impl Strategy<Value = Vec<Index>> {
    prop::collection::vec(any::<Index>(), 1..60)
}

proptest! {
    #[test]
    fn chains_between_each_other_are_each_verified_as_if_alone(of in several(), picks in picks()) {
        let chains = chains(&of);
        let all = interleaved(&chains, &picks);
        let report = report(all.iter().map(|(_, line)| line));
        prop_assert_eq!((report.repeated, report.late), (0, 0));
        check_each(&report, &chains)?;
    }

    #[test]
    fn copies_and_any_order_say_nothing_else(
        of in several(), order in prop::collection::vec(any::<u32>(), 120), copies in prop::collection::vec(any::<Index>(), 0..6),
    ) {
        let chains = chains(&of);
        let mut all: Vec<&String> = chains.iter().flatten().collect();
        let many = all.len() as u64;
        all.extend(copies.iter().map(|at| all[at.index(all.len())]).collect::<Vec<_>>());
        let mut all: Vec<_> = all.into_iter().zip(order.into_iter().cycle()).collect();
        all.sort_by_key(|(_, order)| *order);
        let mut heads = Vec::new();
        let text: String = all.iter().map(|(line, _)| format!("{line}\n")).collect();
        let report = verify_collected([text.as_bytes()], &mut |line| heads.push((line.chain, line.head.seq))).unwrap();
        prop_assert_eq!(report.repeated, copies.len() as u64);
        check_each(&report, &chains)?;
        // They are shown once each, in the order of their chain.
        prop_assert_eq!(heads.len() as u64, many);
        heads.sort_by_key(|(chain, _)| *chain);
        prop_assert!(heads.windows(2).all(|two| two[0].0 != two[1].0 || two[0].1 + 1 == two[1].1));
    }

    #[test]
    fn what_is_done_to_one_chain_is_named_of_that_one_alone(
        of in several(), picks in picks(), line: Index, byte: Index, change in 1..128u8, what in 0..5,
    ) {
        let chains = chains(&of);
        let mut all = interleaved(&chains, &picks);
        // Of the last line of a chain only the anchor tells.
        let inner: Vec<usize> = (0..all.len()).filter(|&at| all[at + 1..].iter().any(|(of, _)| *of == all[at].0)).collect();
        prop_assume!(!inner.is_empty());
        let at = inner[line.index(inner.len())];
        let (victim, whole) = all[at].clone();
        let mut culprit = at as u64 + 1;
        let expected = match what {
            0 => {
                let mut bytes = whole.into_bytes();
                let byte = byte.index(bytes.len());
                bytes[byte] = (bytes[byte] ^ change) & 127;
                prop_assume!(bytes[byte] != b'\n');
                all[at].1 = String::from_utf8(bytes).unwrap();
                &[Kind::Edited, Kind::NotALine, Kind::Missing][..]
            }
            1 => {
                all.remove(at);
                &[Kind::Missing]
            }
            2 => {
                all[at].1 = forged(&whole);
                // The last line of a boot that another goes on from: what that one names is not there any more.
                &[Kind::Edited, Kind::Missing]
            }
            3 => {
                all.insert(at, (victim, forged(&whole)));
                &[Kind::Inserted]
            }
            _ => {
                all.insert(at + 1, (victim, forged(&whole)));
                culprit += 1;
                &[Kind::Inserted]
            }
        };
        let report = report(all.iter().map(|(_, line)| line));
        prop_assert!(!report.is_good());
        for problem in &report.problems {
            prop_assert!(expected.contains(&problem.kind), "{}", report);
            prop_assert!(problem.boot.as_deref().is_none_or(|boot| number(boot) == victim), "{}", report);
        }
        let missed = what == 2 && report.problems.iter().all(|problem| problem.kind == Kind::Missing);
        if what != 1 && !missed {
            prop_assert!(report.problems.iter().any(|problem| problem.line == culprit), "{}", report);
        }
        for chain in &report.by_chain {
            prop_assert!(number(&chain.boot) == victim || chain.problems == 0, "{}", report);
        }
        // A boot whose first line is gone cannot be told to go on with the chain of the one before.
        prop_assert!(report.chains == chains.len() as u64 || (what <= 2 && report.chains == chains.len() as u64 + 1), "{}", report);
    }

    #[test]
    fn no_lines_make_it_panic(lines in prop::collection::vec((0..9usize, 0..3u8, any::<u64>()), 0..30)) {
        let whole = log_of("a", &[3, 3, 3]);
        let picked: Vec<String> = lines
            .iter()
            .map(|&(at, what, seq)| match what {
                0 => whole[at].clone(),
                1 => forged(&whole[at]),
                _ => whole[at].replacen("\"seq\":", &format!("\"seq\":{}", seq % 3), 1),
            })
            .collect();
        let report = report(&picked);
        prop_assert!(report.problems.iter().all(|problem| problem.line <= picked.len() as u64));
    }
}

#[test]
fn the_end_of_a_file_and_its_beginning_may_be_cut_off_by_a_rotation() {
    let lines = log_of("a", &[4, 3]);
    let found = report(&lines[2..]);
    let kinds: Vec<_> = found.problems.iter().map(|problem| (problem.kind, &*problem.message)).collect();
    assert_eq!(kinds, [(Kind::Missing, "seq 1–2 are missing before its first line")]);
    assert_eq!((found.chains, found.by_chain[0].lines), (1, 5));
}

#[test]
fn what_is_no_line_is_named_and_the_chains_are_whole_without_it() {
    let mut chains = chains(&[vec![4], vec![4]]).concat();
    chains.insert(3, "plain text".to_owned());
    let found = report(&chains);
    assert_eq!(found.problems.len(), 1, "{found}");
    assert_eq!((found.problems[0].line, found.problems[0].kind), (4, Kind::NotALine));
    assert!(found.by_chain.iter().all(|chain| chain.problems == 0));
}

#[test]
fn of_two_last_lines_neither_is_believed() {
    let mut lines = log_of("a", &[4]);
    lines.push(forged(&lines[3]));
    let found = report(&lines);
    assert_eq!((found.problems.len(), found.problems[0].kind), (1, Kind::Inserted), "{found}");
    assert!(found.problems[0].message.contains("no line after them tells"), "{found}");
}

#[test]
fn more_chains_than_are_listed_are_counted_and_those_with_problems_come_first() {
    let mut all: Vec<String> = (0..1_050).flat_map(|number| log_of(&format!("c-{number}"), &[2])).collect();
    all[2_098] = forged(&all[2_098]);
    let found = report(&all);
    assert_eq!((found.chains, found.by_chain.len(), found.more_chains), (1_050, 1_000, 50));
    assert_eq!((found.by_chain[0].problems, &*found.by_chain[0].boot), (1, "c-1049-0"), "{found}");
}
