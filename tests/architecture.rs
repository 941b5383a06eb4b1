//! Which module may use which: each only what stands before it in the list. A module that is not listed fails.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Each module, and what it may use beside the values.
const MAY_USE: &[(&str, &[&str])] = &[
    ("supervise", &[]),
    ("init", &[]),
    ("lease", &["supervise"]),
    ("run", &["lease"]),
    ("policy", &["lease", "run"]),
    ("audit", &["lease", "run"]),
    ("metrics", &["lease", "audit"]),
    ("runs", &["lease", "run", "supervise", "policy", "audit"]),
    ("broker", &["lease", "run", "supervise", "policy", "audit", "metrics", "runs"]),
    ("door", &["lease", "run", "supervise", "broker"]),
    // Adapters implement what the inner modules own, and name nothing else.
    ("https", &["lease"]),
    ("aws", &[]),
    ("vault", &["lease", "https"]),
    ("identity", &["lease", "aws", "vault"]),
    ("source", &["lease", "vault"]),
    ("workflow", &["lease", "run", "aws"]),
    ("subject", &["lease", "run", "https"]),
    ("config", &["lease", "run", "policy"]),
    (
        "app",
        &[
            "lease",
            "run",
            "supervise",
            "init",
            "policy",
            "audit",
            "metrics",
            "runs",
            "broker",
            "door",
            "vault",
            "identity",
            "source",
            "subject",
            "workflow",
            "config",
        ],
    ),
    (
        "demo",
        &[
            "app",
            "audit",
            "broker",
            "config",
            "door",
            "lease",
            "policy",
            "run",
            "runs",
            "source",
            "supervise",
        ],
    ),
    ("dev", &["app", "audit", "config", "demo", "init", "lease", "source"]),
    ("lambda", &["app", "broker", "config", "lease", "run", "runs", "supervise"]),
    // What an auditor asks of Vault and of Step Functions is asked without a broker.
    (
        "cli",
        &["lambda", "app", "audit", "config", "demo", "dev", "init", "lease", "run", "vault", "workflow"],
    ),
    ("main", &["cli"]),
    ("bin", &["cli"]),
    // Compiled for tests and the fuzzer alone.
    ("fuzz", &[]),
];

/// What everything may use: values without a module of ours behind them.
const VALUES: &[&str] = &["secret", "clock", "backoff", "caller", "causes"];

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// What stands after each `prefix` in code.
fn used(text: &str, prefix: &str) -> BTreeSet<String> {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let mut names = BTreeSet::new();
    for line in code {
        for (at, _) in line.match_indices(prefix) {
            let rest = &line[at + prefix.len()..];
            let parts = match rest.strip_prefix('{') {
                Some(group) => group.split('}').next().unwrap_or_default().split(", ").collect(),
                None => vec![rest],
            };
            for part in parts {
                names.insert(
                    part.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect::<String>(),
                );
            }
        }
    }
    names.remove("");
    names
}

#[test]
fn modules_use_only_what_stands_before_them() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let rules: BTreeMap<_, _> = MAY_USE.iter().copied().collect();
    let mut found = Vec::new();
    sources(&root, &mut found);
    assert!(found.len() > 20, "the sources are not where they are looked for");
    let mut wrong = Vec::new();
    for path in found {
        let inner = path.strip_prefix(&root).expect("below src");
        let module =
            inner.components().next().expect("a name").as_os_str().to_string_lossy().replace(".rs", "");
        if module == "lib" || VALUES.contains(&&*module) {
            continue;
        }
        let Some(allowed) = rules.get(&*module) else {
            wrong.push(format!("{module}: a new module; say in tests/architecture.rs what it may use"));
            continue;
        };
        let text = std::fs::read_to_string(&path).expect("text");
        // Tests may reach wherever they need to.
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let is_test = ["tests", "invariants", "fuzz"].iter().any(|it| inner.to_string_lossy().contains(it));
        for name in used(code, if matches!(&*module, "main" | "bin") { "tenure::" } else { "crate::" }) {
            let fine = name == module || VALUES.contains(&&*name) || allowed.contains(&&*name) || is_test;
            if !fine && rules.contains_key(&*name) {
                wrong.push(format!("{} uses {name}", inner.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "edges that the design does not have:\n{}", wrong.join("\n"));
}

#[test]
fn the_life_cycle_is_pure() {
    let state =
        [include_str!("../src/lease/state.rs"), include_str!("../src/lease/state/outcome.rs")].concat();
    for word in
        ["tokio", "tracing", "std::time::Instant", "SystemTime", "async ", ".await", "std::fs", "std::net"]
    {
        let code: Vec<_> = state.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        assert!(!code.iter().any(|line| line.contains(word)), "lease::state names {word}");
    }
}

#[test]
fn values_name_no_module_but_values() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for module in VALUES {
        let text = std::fs::read_to_string(root.join(format!("{module}.rs"))).expect("text");
        for name in used(&text, "crate::") {
            assert!(VALUES.contains(&&*name), "{module} uses {name}");
        }
    }
}
