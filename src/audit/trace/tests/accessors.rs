//! What belongs together by the accessor of a token.

use super::*;

fn by(accessors: &[&str]) -> Selection {
    Selection { accessors: accessors.iter().map(ToString::to_string).collect(), ..Selection::default() }
}

/// Somebody ends a run's token by its accessor.
fn ends(world: &mut World, millis: u64, accessor: &str) {
    world.vault.push((millis, json!({
        "auth": { "accessor": "of-operator", "display_name": "root" },
        "request": {
            "operation": "update", "path": "auth/token/revoke-accessor", "client_token_accessor": "of-operator",
            "data": { "accessor": accessor, "password": "canary" }, "remote_address": "10.0.0.9",
            "headers": { "x-tenure-run": ["run-99"] },
        },
    })));
}

#[test]
fn a_run_is_found_by_its_tokens_accessor() {
    let mut world = World::new();
    ends(&mut world, 4_000, "of-\"run-01\"");
    let ids = |trace: &Trace| trace.runs.iter().map(|run| run.id.clone()).collect::<Vec<_>>();
    // The log shows one form or the other.
    let trace = world.select(&by(&["hmac-sha256:other", "of-\"run-01\""]));
    assert_eq!(ids(&trace), ["run-01"]);
    assert_eq!(trace.selection["accessor"], "hmac-sha256:other");
    let events =
        |trace: &Trace| trace.timeline.iter().map(|item| (item.at, item.event.clone())).collect::<Vec<_>>();
    let by_run = Selection { run: Some("run-01".to_owned()), ..Selection::default() };
    assert_eq!(events(&trace), events(&world.select(&by_run)));
    // Vault's line of the token's making is of the login token, and is shown for the accessor of the one that was made.
    let start = trace.timeline.iter().find(|item| item.event == "run.start").unwrap();
    assert_eq!(start.vault_lines.len(), 1);
    // A login token is no run's: its own lines are shown.
    let trace = world.select(&by(&["login-1"]));
    assert_eq!(ids(&trace), [""; 0]);
    let paths: Vec<_> = trace.timeline.iter().filter_map(|item| item.path.as_deref()).collect();
    assert_eq!(paths, ["auth/aws/login", "auth/token/create/run", "auth/token/create/run"]);
    assert!(world.select(&by(&["nobody"])).timeline.is_empty());
}

#[test]
fn who_ends_a_runs_token_is_shown_with_the_run() {
    let mut world = World::new();
    ends(&mut world, 4_000, "of-\"run-01\"");
    ends(&mut world, 4_100, "of-somebody");
    // A line from which a filter has taken what tells of the token.
    let mut bare = json!({
        "request": { "operation": "read", "path": "auth/token/renew-self", "client_token_accessor": "of-\"run-01\"" },
        "response": {},
    });
    bare["request"]["headers"] = json!({});
    world.vault.push((4_200, bare));
    let trace = world.select(&execution(EXECUTION));
    let of_vault: Vec<_> = trace
        .timeline
        .iter()
        .filter(|item| item.source == output::Source::Vault)
        .map(|item| (item.path.as_deref().unwrap(), item.run.as_deref(), item.detail.as_deref()))
        .collect();
    let run = Some("run-01");
    let about = Some("about a token, by its accessor");
    assert_eq!(of_vault, [("auth/token/revoke-accessor", run, about), ("auth/token/renew-self", run, None)]);
    assert_eq!(kinds(&trace), []);
    assert!(!serde_json::to_string(&trace).unwrap().contains("canary"));
}
