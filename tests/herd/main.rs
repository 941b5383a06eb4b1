//! The herd: ten thousand brokers that one Distributed Map starts, against one Vault with a rate limit.
//!
//! The brokers are the real state machine ([`tenure::lease::state::Lease`]) with the real schedules and delays, three
//! leases each, tied together as `runs` does it. Time, the network and Vault are simulated, so that an hour takes a
//! second or two and the same seed gives the same hour. `cargo test --test herd -- --nocapture` shows the figures.

mod broker;
mod upstream;
mod world;

use std::ops::Range;
use std::time::Duration;

use upstream::{Character, count, peak};
use world::World;

const BROKERS: u32 = 10_000;

/// Within this time all of them are started: 1,000 in a second, twice what Vault takes.
const START: Duration = s(10);

/// What Vault takes in a second, and at once. 429 beyond that.
const LIMIT: u32 = 500;
const BURST: u32 = 50;

/// The least time in which so many can get in: a login, a run token and a secret each.
const LEAST: Duration = s((3 * BROKERS / LIMIT) as u64);

/// The longest delay after a 429: what Vault asks for, and the cap of the step.
const LONGEST: Duration = s(31);

const OUTAGE: Duration = s(60);
const NEVER: Range<Duration> = s(0)..s(0);

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn vault() -> Character {
    Character { limit: LIMIT, burst: BURST, says_when: true, outage: NEVER, lost: 0.01 }
}

fn times_limit(times: f64) -> usize {
    (f64::from(LIMIT) * times) as usize
}

/// How the brokers got in.
#[derive(Debug)]
struct Entry {
    /// Until half, 99 % and all of them hold everything.
    took: [Duration; 3],
    /// Requests of one broker until then that came to nothing: half have at most so many, 99 %, all.
    retries: [u32; 3],
}

fn entry(name: &str, world: &World, span: Range<Duration>) -> Entry {
    let mut took: Vec<Duration> = world.brokers.iter().filter_map(|broker| broker.complete).collect();
    assert_eq!(took.len(), world.brokers.len(), "{name}: some never got everything");
    let mut retries: Vec<u32> = world.brokers.iter().map(|broker| broker.retries).collect();
    took.sort_unstable();
    retries.sort_unstable();
    let at = |percent: usize| (world.brokers.len() - 1) * percent / 100;
    let entry =
        Entry { took: [50, 99, 100].map(|p| took[at(p)]), retries: [50, 99, 100].map(|p| retries[at(p)]) };
    let [half, most, all] = entry.took.map(|took| took.as_secs());
    println!("{name}: all in after {all} s (p50 {half} s, p99 {most} s; at least {} s)", LEAST.as_secs());
    println!(
        "  retries of a broker: p50 {}, p99 {}, max {}",
        entry.retries[0], entry.retries[1], entry.retries[2]
    );
    rates(&span, world);
    entry
}

/// Prints what came, and returns the most that was offered within a second.
fn rates(span: &Range<Duration>, world: &World) -> usize {
    let (offered, admitted) = (&world.upstream.offered, &world.upstream.admitted);
    let most = peak(offered, span);
    println!(
        "  {} to {} s: {} requests, {} admitted; in a second at most {most} offered, {} admitted",
        span.start.as_secs(),
        span.end.as_secs(),
        count(offered, span),
        count(admitted, span),
        peak(admitted, span),
    );
    assert!(peak(admitted, span) <= (LIMIT + BURST) as usize, "more than the limit was admitted");
    most
}

/// What must hold of a start, whatever Vault says with its 429.
fn starts(name: &str, vault: Character, seed: u64) {
    let mut world = World::new(BROKERS, START, vault, seed);
    world.run_until(s(200));
    let Entry { took, retries } = entry(name, &world, s(0)..s(200));
    assert_eq!(world.complete(), world.brokers.len());

    // Nearly all are in when half as long again has passed as it takes at least. The last ones wait out the longest
    // delay, once for each of their three leases at worst.
    assert!(took[1] <= LEAST.mul_f64(1.5), "99 % took {took:?}");
    assert!(took[2] <= LEAST + 3 * LONGEST, "the last took {took:?}");

    // After refusals in a row a lease waits for 2, 3, 5 and 9 seconds on average: 19 s, so that three leases, one after
    // the other, are refused four times each in the least time. Chance and lost answers add half as much at most.
    let expected = 3 * 4;
    assert!(retries[1] <= expected, "99 % tried {retries:?} times again");
    assert!(retries[2] <= expected * 3 / 2, "one tried {retries:?} times again");

    // Twice the limit comes by itself. Each newcomer that is refused comes back after 2, 3 and 5 seconds, so three times
    // while others still arrive; and whoever got in goes on to its next request.
    assert!(rates(&(s(0)..s(30)), &world) <= times_limit(9.0), "too many at once");
    assert!(rates(&(s(30)..s(200)), &world) <= times_limit(2.5), "it does not settle");
}

#[test]
fn ten_thousand_brokers_get_in_at_a_vault_that_says_when() {
    starts("429 with Retry-After", vault(), 1);
}

#[test]
fn ten_thousand_brokers_get_in_at_a_vault_that_does_not() {
    starts("429 without Retry-After", Character { says_when: false, ..vault() }, 2);
}

#[test]
fn an_outage_during_the_start_makes_no_second_stampede() {
    let outage = s(5)..s(5) + OUTAGE;
    let mut world = World::new(BROKERS, START, Character { outage: outage.clone(), ..vault() }, 3);
    world.run_until(s(300));
    let name = "an outage from 5 s to 65 s";
    let Entry { took, retries } = entry(name, &world, s(0)..s(300));
    assert_eq!(world.complete(), world.brokers.len());
    // Without a 429 the steps double from half a second on: eight tries in a minute, and then as at any other start.
    assert!(retries[1] <= 8 + 12, "99 % tried {retries:?} times again");
    assert!(took[2] <= outage.end + LEAST + 3 * LONGEST, "the last took {took:?}");
    rates(&outage, &world);
    // All ten thousand wait for it, and none of them knows of the others.
    assert!(rates(&(outage.end..s(300)), &world) <= times_limit(3.0), "a second stampede");
}

#[test]
fn renewals_stay_spread_for_an_hour_and_an_outage_costs_nobody_anything() {
    let outage = s(1_800)..s(1_800) + OUTAGE;
    let mut world = World::new(BROKERS, START, Character { outage: outage.clone(), ..vault() }, 4);
    world.run_until(outage.end);
    println!("an hour, with an outage from 1800 s to 1860 s");
    rates(&outage, &world);
    // A third of a life is left when a renewal is due: 100 s of a secret's 300.
    assert_eq!(world.complete(), world.brokers.len(), "somebody lost something in the outage");

    // Over an hour: each secret reaches its maximum and is replaced.
    world.run_until(s(4_200));
    assert_eq!(world.complete(), world.brokers.len());
    assert!(rates(&(outage.end..s(2_000)), &world) <= times_limit(2.0), "a second stampede");
    for span in [s(200)..s(600), s(600)..s(1_800), s(2_000)..s(3_500), s(3_500)..s(4_200)] {
        let mean = count(&world.renewals, &span) / (span.end - span.start).as_secs() as usize;
        let most = peak(&world.renewals, &span);
        let (from, to) = (span.start.as_secs(), span.end.as_secs());
        println!("  {from} to {to} s: {mean} renewals a second, {most} at most");
        assert!(most <= 3 * mean, "renewals come in step");
        assert!(rates(&span, &world) <= LIMIT as usize / 2, "quiet hours are not quiet");
    }
}
