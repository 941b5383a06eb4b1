//! What is fuzzed: everything that takes bytes from somebody else. Compiled for tests and for the fuzzer alone.
//!
//! A target is a function of bytes that panics where something does not hold; it lies beside the code that it is about
//! (`door/fuzz.rs`, …). None checks only that nothing panics: what was taken means the same when it is written down and
//! read again, what was refused is not repeated, what was changed is noticed. `fuzz/` runs them with coverage, and the
//! tests run what is in `fuzz/seeds` through them.
//!
//! What `make fuzz` finds is in `target/fuzz/<target>.found-…`; `target/debug/fuzz-<target> <file>` runs it again. Mended,
//! it becomes a seed.

use sha2::{Digest as _, Sha256};

use crate::{audit, cli, config, door, policy, run, subject, vault};

/// What is fuzzed: it panics where something does not hold.
pub type Target = fn(&[u8]);

/// Each target by its name.
pub const TARGETS: &[(&str, Target)] = &[
    ("audit_anchored", cli::audit::fuzz::anchored),
    ("audit_read", audit::fuzz::read),
    ("audit_write", audit::fuzz::write),
    ("config", config::fuzz::config),
    ("door", door::fuzz::door),
    ("jwt", subject::fuzz::jwt),
    ("path", door::fuzz::path),
    ("pattern", policy::fuzz::pattern),
    ("registration", door::fuzz::registration),
    ("reply", vault::fuzz::reply),
    ("seal", run::fuzz::seal),
    ("trace", cli::audit::fuzz::trace),
    ("words", run::fuzz::words),
];

/// Runs the target of that name.
///
/// # Panics
/// Where something does not hold, and where there is no such target.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|(known, _)| *known == name);
    let (_, target) = target.unwrap_or_else(|| panic!("no such target: {name}"));
    target(data);
}

/// What stands for a secret in what is made from `data`: derived from it, so that it cannot be in it, however well the
/// fuzzer looks at what is compared.
pub(crate) fn secret(data: &[u8]) -> String {
    let digest = Sha256::digest(data);
    digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// Whether `part` stands in `whole`.
pub(crate) fn contains(whole: &[u8], part: &[u8]) -> bool {
    whole.windows(part.len()).any(|window| window == part)
}

/// Bytes that are used up from the front: numbers that say what to do with the rest.
pub(crate) struct Bytes<'a>(pub(crate) &'a [u8]);

impl<'a> Bytes<'a> {
    /// The next byte; 0 when there is none.
    pub(crate) fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    /// A number below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (usize::from(self.byte()) << 8 | usize::from(self.byte())) % end
    }

    /// Up to the next zero byte, or all.
    pub(crate) fn piece(&mut self) -> &'a [u8] {
        let end = self.0.iter().position(|&byte| byte == 0).unwrap_or(self.0.len());
        let (piece, rest) = self.0.split_at(end);
        self.0 = rest.get(1..).unwrap_or_default();
        piece
    }

    /// The same as text; what is not UTF-8 is replaced.
    pub(crate) fn text(&mut self) -> String {
        String::from_utf8_lossy(self.piece()).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn what_was_found_once_holds() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
        for (name, target) in TARGETS {
            let seeds = root.join("seeds").join(name);
            let mut count = 0;
            for entry in std::fs::read_dir(&seeds).unwrap_or_else(|error| panic!("{name}: no seeds: {error}"))
            {
                let path = entry.expect("an entry").path();
                println!("{}", path.display());
                target(&std::fs::read(&path).expect("a seed"));
                count += 1;
            }
            assert!(count > 0, "{name} has no seeds");
            assert!(root.join("targets").join(format!("{name}.rs")).exists(), "{name} is not run by fuzz/");
        }
    }
}
