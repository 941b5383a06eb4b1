//! The security posture, one test for each point; `SECURITY.md` says which stands for what.
//!
//! The broker is the binary, a process of its own: `tenure dev`, which needs nothing else to serve real reads, and `tenure
//! serve` where its own process, its limits and its log are looked at.

mod broker;
mod client;
mod limits;
mod process;
mod requests;
#[path = "../schema/mod.rs"]
mod schema;
mod secrets;
mod settings;
mod sockets;
mod tcp;
mod upstream;

/// What `SECURITY.md` names is there.
#[test]
fn each_claim_has_its_test() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("SECURITY.md")).expect("SECURITY.md");
    let mut count = 0;
    for name in text.split('`').skip(1).step_by(2).filter(|name| name.contains("::") && !name.contains('/')) {
        let (module, test) = name.rsplit_once("::").expect("a module and a test");
        let path = module.replace("::", "/");
        // Tests of units stand in `src`, in the file or beside it.
        let places = [format!("tests/{path}.rs"), format!("src/{path}.rs"), format!("src/{path}/tests.rs")];
        let found = places.iter().any(|place| {
            let source = std::fs::read_to_string(root.join(place)).unwrap_or_default();
            source.contains(&format!("fn {test}("))
        });
        assert!(found, "{name} is in none of {places:?}");
        count += 1;
    }
    assert!(count > 35, "{count} tests are named");
}
