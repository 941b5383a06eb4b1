//! Each kind of finding: what brings it about, and the lines that prove it.

use FindingKind::{
    Bypass, ChainBroken, ChainContinues, Coverage, DenialBurst, LeaseOutlivedRun, LeaseShared, NeverEnded,
    NotInVault, ReadAfterEnd, RevocationUnconfirmed, RunConflict, SubjectUnverified, UnknownBroker,
};
use Severity::{Error, Notice, Warning};

use super::*;

/// The world after a change, and what is found in it.
fn after(change: impl FnOnce(&mut World)) -> Trace {
    let mut world = World::new();
    change(&mut world);
    world.trace()
}

fn without(world: &mut World, run: &str, event: &str) {
    world.broker.retain(|(_, line)| !(line["event"] == event && line["run"]["id"] == run));
}

fn text<'a>(line: &'a Value, member: &str) -> &'a str {
    line["request"][member].as_str().unwrap_or_default()
}

fn first() -> Value {
    run("run-01", EXECUTION, "Reserve")
}

#[test]
fn a_login_beside_the_broker_and_all_that_comes_of_it() {
    let change = |world: &mut World| {
        world.login(2_000, None, "login-2");
        let made = json!({ "accessor": "made-2", "metadata": null });
        world.ask_by_login(2_010, "login-2", None, "auth/token/create/run", Some(made));
        let mut line = json!({
            "auth": { "accessor": "made-2", "display_name": "token" },
            "request": { "operation": "read", "path": "database/creds/reserve", "client_token_accessor": "made-2" },
        });
        line["response"] = json!({ "secret": { "lease_id": "database/creds/reserve/stolen" } });
        world.vault.push((2_020, line));
    };
    for selection in [Selection::default(), execution(EXECUTION)] {
        let mut world = World::new();
        change(&mut world);
        let trace = world.select(&selection);
        assert_eq!(kinds(&trace), [(Error, Bypass); 2], "{:#?}", trace.findings);
        let lines: usize = trace.findings.iter().map(|finding| finding.lines.len()).sum();
        assert_eq!(lines, 3, "the login, the making of a token, the read with it");
        assert!(trace.findings.iter().any(|finding| finding.message.contains("database/creds/reserve")));
        let shown = trace.timeline.iter().filter(|item| item.source == output::Source::Vault).count();
        assert_eq!(shown, 3);
    }
    // In a namespace it is one, too.
    for path in ["team/auth/aws/login", "auth/aws/login"] {
        let mut world = World::new();
        world.login(2_000, None, "login-2");
        let (_, line) = world.vault.last_mut().unwrap();
        line["request"]["path"] = path.into();
        line["request"]["namespace"] = json!({ "id": "x", "path": "team/" });
        let trace = world.trace();
        assert_eq!(kinds(&trace), [(Error, Bypass)]);
        assert!(of(Bypass, &trace).message.contains("team/auth/aws/login"));
    }
    // Long after the execution it is none of its trace.
    let mut world = World::new();
    world.login(9_000_000, None, "login-2");
    assert_eq!(kinds(&world.select(&execution(NESTED))), []);
    assert_eq!(kinds(&world.trace()), [(Error, Bypass)]);
}

#[test]
fn a_runs_token_in_other_hands() {
    let trace = after(|world| world.ask(2_000, &first(), None, "database/creds/reserve", Some("stolen")));
    assert_eq!(kinds(&trace), [(Error, Bypass)]);
    assert_eq!(of(Bypass, &trace).run.as_deref(), Some("run-01"));
    // With an id that no line has, or one that is another request's.
    let trace = after(|world| world.ask(2_000, &first(), Some("b1-77"), "database/creds/reserve", None));
    assert_eq!(kinds(&trace), [(Error, Bypass)]);
    let trace = after(|world| world.ask(2_000, &first(), Some("b1-3"), "database/creds/charge", None));
    assert_eq!(kinds(&trace), [(Error, Bypass)]);
    assert_eq!(of(Bypass, &trace).lines.len(), 2);
    // An id that was refused to the broker before, now with another path.
    let trace = after(|world| {
        world.say(1_500, "mint", "failed", json!({ "run": first(), "request": "b1-5", "class": "denied" }));
        world.ask(1_499, &first(), Some("b1-5"), "secret/data/x", None);
        world.vault.last_mut().unwrap().1["error"] = "permission denied".into();
        world.ask(2_000, &first(), Some("b1-5"), "database/creds/reserve", None);
    });
    assert_eq!(kinds(&trace), [(Error, Bypass)]);
    for forged in ["b1-+3", "b1-03", "b1-3 ", "x"] {
        let trace = after(|world| world.ask(2_000, &first(), Some(forged), "database/creds/reserve", None));
        assert_eq!(kinds(&trace), [(Error, Bypass)], "{forged}");
    }
    // A question of the broker's has no line of its own.
    let trace = after(|world| world.ask(2_000, &first(), Some("b1-77"), "auth/token/lookup-self", None));
    assert_eq!(kinds(&trace), []);
    let trace = after(|world| {
        world.ask_by_login(2_000, "login-1", Some("b1-77"), "transit/keys/tenure-subject", None);
        let (_, line) = world.vault.last_mut().unwrap();
        line["request"]["mount_type"] = "transit".into();
        line["request"]["operation"] = "read".into();
    });
    assert_eq!(kinds(&trace), [], "public keys");
    for path in ["secret/data/lookup", "secret/data/lookup-self", "secret/data/sys/internal/x"] {
        let trace = after(|world| world.ask(2_000, &first(), Some("b1-77"), path, None));
        assert_eq!(kinds(&trace), [(Error, Bypass)], "{path}");
    }
    // A tag does not explain it.
    let trace = after(|world| {
        let mut run = run("run-04", EXECUTION, "Reserve");
        run["tags"] = json!({ "request": "b1-78" });
        world.say(1_500, "run.inspect", "done", json!({ "run": run }));
        world.ask(2_000, &first(), Some("b1-78"), "database/creds/reserve", None);
    });
    assert_eq!(kinds(&trace), [(Error, Bypass)]);
}

#[test]
fn another_broker_is_told_apart() {
    let trace = after(|world| {
        world.login(2_000, Some("b9-1"), "login-9");
        world.ask_by_login(2_010, "login-9", Some("b9-2"), "auth/token/create/run", None);
    });
    assert_eq!(kinds(&trace), [(Warning, UnknownBroker)]);
    assert!(of(UnknownBroker, &trace).message.contains("b9"), "{:?}", trace.findings);
    // So is its doctor, whose run tokens name runs that no log has.
    let trace = after(|world| {
        world.ask(2_000, &run("run-77", EXECUTION, "Reserve"), Some("b9-4"), "database/creds/reserve", None);
    });
    assert_eq!(kinds(&trace), [(Warning, UnknownBroker)]);
    // The token of a run that a given log tells of is no other broker's to use.
    let trace = after(|world| world.ask(2_000, &first(), Some("b9-4"), "database/creds/reserve", None));
    assert_eq!(kinds(&trace), [(Error, Bypass)]);
    // Somebody else's role is none of our business.
    let trace = after(|world| {
        world.login(2_000, None, "login-9");
        let (_, line) = world.vault.last_mut().unwrap();
        for member in ["auth", "response"] {
            let auth = if member == "auth" { &mut line["auth"] } else { &mut line["response"]["auth"] };
            auth["metadata"] = json!({ "canonical_arn": "arn:aws:iam::123456789012:role/other" });
        }
    });
    assert_eq!(kinds(&trace), []);
}

#[test]
fn what_vault_does_not_have() {
    let trace = after(|world| {
        world.vault.retain(|(_, line)| line["request"]["headers"]["x-tenure-request"][0] != "b1-11");
        // Vault's log goes on.
        world.vault.push((40_000, json!({ "request": { "operation": "read", "path": "sys/mounts" } })));
    });
    assert_eq!(kinds(&trace), [(Warning, NotInVault)]);
    assert!(of(NotInVault, &trace).message.contains("b1-11"));
}

#[test]
fn a_lease_that_outlived_its_run() {
    let trace = after(|world| {
        without(world, "run-01", "revoke.requested");
        without(world, "run-01", "revoke.confirmed");
        world.vault.retain(|(_, line)| line["request"]["headers"]["x-tenure-request"][0] != "b1-4");
    });
    // The token of 120 s began a moment after the run, which ended after 5 s.
    assert_eq!(kinds(&trace), [(Error, LeaseOutlivedRun)]);
    let finding = of(LeaseOutlivedRun, &trace);
    assert!(finding.message.contains("L2") && finding.message.contains("1m 55s"), "{}", finding.message);
    assert!(!trace.leases[0].revoked);
}

#[test]
fn a_revocation_that_was_never_confirmed() {
    let trace = after(|world| without(world, "run-01", "revoke.confirmed"));
    assert_eq!(of(RevocationUnconfirmed, &trace).severity, Error);
    assert_eq!(kinds(&trace).len(), 2, "and the lease may have lived on: {:?}", trace.findings);
    assert_eq!(of(LeaseOutlivedRun, &trace).run, of(RevocationUnconfirmed, &trace).run);
    let trace = after(|world| {
        without(world, "run-02", "revoke.confirmed");
        world.broker.retain(|(_, line)| line["event"] != "shutdown");
        world.say(30_000, "policy.load", "done", json!({}));
    });
    let finding = of(RevocationUnconfirmed, &trace);
    assert_eq!(finding.severity, Warning, "it may be in the next line");
}

#[test]
fn a_read_after_the_end() {
    let trace = after(|world| {
        let late =
            json!({ "run": first(), "path": "database/creds/reserve", "source": "cache", "request": "b1-3" });
        world.say(7_000, "read", "granted", late);
    });
    assert_eq!(kinds(&trace), [(Error, ReadAfterEnd)]);
    assert_eq!(of(ReadAfterEnd, &trace).lines.len(), 2);
    let trace = after(|world| {
        world.say(19_000, "forward", "done", json!({ "run": first(), "request": "b1-7" }));
        world.ask(19_000, &first(), Some("b1-7"), "secret/data/x", None);
    });
    assert_eq!(kinds(&trace), [(Error, ReadAfterEnd)]);
}

#[test]
fn a_run_that_was_never_ended() {
    let end = |world: &mut World| {
        for event in ["run.end", "revoke.requested", "revoke.confirmed"] {
            without(world, "run-02", event);
        }
        world.vault.retain(|(_, line)| line["request"]["headers"]["x-tenure-request"][0] != "b1-12");
    };
    let trace = after(end);
    assert_eq!(kinds(&trace), [(Error, NeverEnded)], "its broker stopped in order");
    let stop = |world: &mut World| world.broker.retain(|(_, line)| line["event"] != "shutdown");
    let trace = after(|world| {
        end(world);
        stop(world);
    });
    assert_eq!(kinds(&trace), [(Notice, NeverEnded)], "it is open where the log ends");
    let trace = after(|world| {
        end(world);
        stop(world);
        world.say(300_000, "policy.load", "done", json!({}));
    });
    assert_eq!(kinds(&trace), [(Error, NeverEnded)], "its deadline passed");
    let trace = after(|world| {
        end(world);
        stop(world);
        world.say(50_000, "boot", "done", json!({ "boot": "b2" }));
    });
    assert_eq!(kinds(&trace), [(Warning, NeverEnded)], "its broker died");
}

#[test]
fn subjects_bursts_sharing_and_contradictions() {
    let mut asserted = run("run-05", EXECUTION, "Reserve");
    asserted["subject"] = json!({ "id": "ada", "kind": "person", "assurance": "asserted" });
    let mut world = World::new();
    world.work(30_000, &asserted, 30, "reserve");
    let files = Files::of(&[("b", &world.broker_log()), ("v", &world.vault_log())]);
    let named = [files.path().to_owned()];
    let ruled = |verified_subjects| {
        let rules = Rules { verified_subjects };
        let all = Selection::default();
        let trace = trace(&named, &mut std::io::empty(), &all, rules, At::default(), &mut |_| {}).unwrap();
        kinds(&trace)
    };
    // Vault's log does not have the subject that the broker tells of.
    assert_eq!(ruled(false), [(Error, RunConflict)]);
    assert_eq!(ruled(true), [(Error, SubjectUnverified), (Error, RunConflict)]);

    let trace = after(|world| {
        for number in 0..12 {
            let denied = json!({ "run": first(), "path": "secret/data/x", "policy": "p", "reason": "no" });
            world.say(2_000 + number * 100, "read", "denied", denied);
        }
    });
    assert_eq!(kinds(&trace), [(Warning, DenialBurst)]);
    assert_eq!(of(DenialBurst, &trace).lines.len(), 12);

    let taken = json!({ "run": run("run-02", NESTED, "Charge"), "path": "database/creds/reserve", "lease_id": "database/creds/reserve/L2", "source": "cache" });
    let mut taken = taken;
    taken["run"]["parents"] = json!([EXECUTION]);
    let trace = after(|world| world.say(21_000, "read", "granted", taken.clone()));
    assert_eq!(kinds(&trace), [(Error, LeaseShared)]);
    let trace = after(|world| {
        world.say(21_000, "read", "granted", taken);
        for (_, line) in &mut world.broker {
            if line["run"]["id"] == "run-01" {
                line["run"]["tags"] = json!({ "shared_by": "run.rule[0]" });
            }
        }
    });
    assert_eq!(kinds(&trace), [], "it is declared");

    let trace = after(|world| {
        let mut other = first();
        other["execution_arn"] = NESTED.into();
        world.say(2_000, "renew", "done", json!({ "run": other }));
    });
    assert_eq!(kinds(&trace), [(Error, RunConflict)]);
}

#[test]
fn a_broken_chain_is_named_with_its_line() {
    let world = World::new();
    let log = world.broker_log().replacen("database/creds/charge/L10", "database/creds/charge/L11", 1);
    let files = Files::of(&[("broker.jsonl", &format!("noise\n{log}")), ("vault.log", &world.vault_log())]);
    let trace = files.trace(&execution(EXECUTION));
    let finding = of(ChainBroken, &trace);
    assert_eq!((finding.severity, finding.lines[0].line), (Error, 14), "{finding:?}");
    assert_eq!(trace.skipped.len(), 1);
    // A line that is taken out.
    let mut lines: Vec<_> = world.broker_log().lines().map(str::to_owned).collect();
    lines.remove(4);
    let files = Files::of(&[("broker.jsonl", &(lines.join("\n") + "\n")), ("vault.log", &world.vault_log())]);
    assert!(of(ChainBroken, &files.trace(&Selection::default())).message.contains("missing"));
    // Two brokers whose output was collected are two chains.
    let other = World {
        broker: vec![(0, json!({ "event": "boot", "outcome": "done", "boot": "b2" }))],
        ..world.clone()
    };
    let mixed = world.broker_log() + &other.broker_log();
    let files = Files::of(&[("broker.jsonl", &mixed), ("vault.log", &world.vault_log())]);
    assert_eq!(kinds(&files.trace(&Selection::default())), [(Notice, ChainContinues)]);
}

#[test]
fn what_could_not_be_judged_is_said() {
    let world = World::new();
    let files = Files::of(&[("broker.jsonl", &world.broker_log())]);
    assert_eq!(kinds(&files.trace(&Selection::default())), [(Notice, Coverage)]);
    let mut blind = world.clone();
    for (_, line) in &mut blind.vault {
        line["request"]["headers"] = Value::Null;
    }
    // What brokers read is known by Vault's own ids, which are not in these lines.
    blind.vault.retain(|(_, line)| !text(line, "path").starts_with("database/"));
    let trace = blind.trace();
    assert_eq!(kinds(&trace), [(Notice, Coverage)], "{:?}", trace.findings);
    assert!(of(Coverage, &trace).message.contains("X-Tenure-Request"), "{:?}", trace.findings);
    let files = Files::of(&[("vault.log", &world.vault_log())]);
    let trace = files.trace(&execution(EXECUTION));
    assert_eq!(trace.runs.len(), 2, "Vault's log alone tells of the runs");
    assert!(trace.findings.iter().any(|finding| finding.kind == Coverage));
}
