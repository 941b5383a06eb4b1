//! The line below all others on a terminal: the keys, what they have done, and what is held.

use crate::demo::{Timeline, Tone};
use crate::source::dev::DevVault;

use super::trouble::{Trouble, Troubles};

/// Each key, what it does, and the words for it.
const KEYS: [(u8, Trouble, &str); 4] = [
    (b'o', Trouble::Outage, "outage"),
    (b's', Trouble::Slow, "slow"),
    (b'd', Trouble::Database, "database down"),
    (b'r', Trouble::Revoke, "revoke all"),
];

/// What a key stands for, in lower case.
pub(super) fn meant(key: u8) -> Option<Trouble> {
    KEYS.iter().find(|(named, ..)| *named == key).map(|(_, trouble, _)| *trouble)
}

/// The line. What is on stands out.
pub(super) fn text(line: &Timeline<'_>, vault: Option<&DevVault>, troubles: &Troubles) -> String {
    let mut parts = Vec::new();
    if vault.is_some() {
        for (key, trouble, words) in KEYS {
            let key = char::from(key).to_string();
            parts.push(match troubles.is_on(trouble) {
                true => line.paint(&format!("{key} {words} ON"), Tone::Bad),
                false => format!("{} {}", line.paint(&key, Tone::Bold), line.paint(words, Tone::Dim)),
            });
        }
    }
    parts.push(format!("{} {}", line.paint("q", Tone::Bold), line.paint("quit", Tone::Dim)));
    let held = vault.map(|vault| match vault.alive() {
        1 => "1 user".to_owned(),
        users => format!("{users} users"),
    });
    parts.extend(held.map(|held| line.paint(&held, Tone::Good)));
    format!(" {}", parts.join("  "))
}
