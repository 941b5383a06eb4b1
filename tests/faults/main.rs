//! Faults, systematically: each row of [`table`] is a broker under a steady load, one thing that goes wrong, and what must
//! hold meanwhile.
//!
//! The broker is the binary, with its own sockets, its own client to Vault and its own files; where its clock is to jump,
//! it is the same parts in a thread. Vault is a server that remembers what it issued ([`vault`]), behind a wire that goes
//! wrong at the level of bytes ([`wire`]). After each row it is checked ([`check`]) that
//!
//! - no dead, foreign or outdated secret was handed out, by Vault's own clock;
//! - each answer has exactly one audit line, and the chain verifies;
//! - nothing panicked, and at the end everything was revoked;
//! - upstream was asked within bounds, by its own log;
//! - readers were refused by the names that the fault has, with `Retry-After` where it may pass;
//! - after the fault everything is served again, soon.
//!
//! `cargo test --test faults -- --nocapture` prints the table; with `FAULTS="reset,TLS"` in the environment only rows
//! whose names contain one of these are played.
#![allow(
    clippy::disallowed_methods,
    reason = "real processes live in real time: there is no clock to pass to them"
)]

mod broker;
mod check;
mod readers;
#[path = "../schema/mod.rs"]
mod schema;
mod stage;
mod table;
mod tls;
mod vault;
mod wire;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use check::Outcome;
use table::{Fault, Row, TABLE};
use wire::Wrong;

/// Rows that are played at a time: they wait for most of their time.
const AT_ONCE: usize = 10;

#[test]
fn every_fault_is_survived_within_its_bounds() {
    let wanted = std::env::var("FAULTS").unwrap_or_default();
    let is_wanted =
        |row: &&Row| wanted.is_empty() || wanted.split(',').any(|part| row.name.contains(part.trim()));
    let rows: Vec<&Row> = TABLE.iter().filter(is_wanted).collect();
    assert!(!rows.is_empty(), "no fault's name contains one of {wanted:?}");
    let (next, outcomes) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some((number, row)) = {
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    rows.get(number).map(|row| (number, row))
                } {
                    let played = catch_unwind(AssertUnwindSafe(|| stage::play(row, number)));
                    let outcome = played.unwrap_or_else(|_| Outcome::broken("the test panicked".to_owned()));
                    outcomes.lock().expect("no panic").push((number, outcome));
                }
            });
        }
    });
    let mut outcomes = outcomes.into_inner().expect("no panic");
    outcomes.sort_by_key(|(number, _)| *number);
    println!("| fault | reads | served | refused | calls/s | per lease | good again |");
    println!("|---|---:|---:|---|---:|---:|---:|");
    for (number, outcome) in &outcomes {
        println!("{}", line(rows[*number], outcome));
    }
    let mut failed = Vec::new();
    for (number, outcome) in outcomes.iter().filter(|(_, outcome)| !outcome.problems.is_empty()) {
        let name = rows[*number].name;
        failed.push(name);
        println!("\n{name}:");
        outcome.problems.iter().for_each(|problem| println!("  - {problem}"));
        outcome
            .log
            .lines()
            .rev()
            .take(12)
            .collect::<Vec<_>>()
            .iter()
            .rev()
            .for_each(|line| println!("  | {line}"));
    }
    assert!(failed.is_empty(), "out of bounds: {failed:?}");
}

/// The outcome as a line of the table.
fn line(row: &Row, outcome: &Outcome) -> String {
    let errors: Vec<String> =
        outcome.errors.iter().map(|(name, times)| format!("{times} × {name}")).collect();
    // Where nothing listens, nobody counts.
    let calls = match row.fault {
        Fault::Wire(Wrong::Refused) => "– | –".to_owned(),
        _ => format!("{:.1} | {}", outcome.calls, outcome.per_lease),
    };
    format!(
        "| {} | {} | {:.0} % | {} | {calls} | {} ms |",
        row.name,
        outcome.reads,
        outcome.served,
        if errors.is_empty() { "none".to_owned() } else { errors.join(", ") },
        outcome.recovery.as_millis()
    )
}
