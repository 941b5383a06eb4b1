//! The nine invariants of a lease, each a property over random sequences of events and times.
//!
//! A small model of upstream runs beside the lease: it knows in true time what is alive. Each test walks the same kind
//! of sequences and looks at one invariant after every step.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::lease::upstream::Life;
use crate::lease::view::{Freshness, Standpoint, Verdict};

const FRESH: Duration = Duration::from_secs(60);
const STALE: Duration = Duration::from_secs(600);

/// Sequences for each invariant: 1.8 × 10^5 in a normal run.
fn config() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(20_000);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// What one grant is, in true time.
#[derive(Clone, Debug)]
struct Truth {
    dies: Duration,
    under: u64,
    is_static: bool,
    revoked: bool,
}

struct World {
    lease: Lease<u32>,
    now: Moment,
    /// True time: what upstream counts in.
    time: Duration,
    sets_clock_back: bool,
    sets_clock_forward: bool,
    call: Option<(Call<u32>, Moment, Duration)>,
    grants: BTreeMap<u32, Truth>,
    parent: Option<(ParentView, BTreeMap<u64, Duration>)>,
    ended: bool,
    /// What is held was said to be outdated, and nothing has been minted since.
    outdated: bool,
}

/// What one step did, for the checks.
struct Taken {
    before: View<u32>,
    at: Moment,
    call: Option<Call<u32>>,
    was_calling: bool,
    done: Option<Result<(), Class>>,
    kind: &'static str,
    demanded: Duration,
}

type Op = (u8, u16);

fn ops() -> impl Strategy<Value = Vec<Op>> {
    prop::collection::vec(any::<Op>(), 2..60)
}

fn roll(arg: u16) -> f64 {
    f64::from(arg) / 65_536.0
}

impl World {
    fn new(setup: Op) -> Self {
        let is_token = setup.0.is_multiple_of(3);
        let now = Moment::new(Duration::from_secs(1), Duration::from_secs(1_800_000_000));
        let terms = Terms {
            keep: is_token || setup.0 % 3 == 1,
            revocable: is_token,
            fresh: FRESH,
            stale: STALE,
            backoff: Backoff::UPSTREAM,
            until: (setup.0 & 0x40 != 0)
                .then(|| Until::new(now, Duration::from_secs(u64::from(setup.1 % 1_800)))),
        };
        let parent = (!is_token).then(|| {
            let until = Duration::from_secs(u64::from(setup.1 % 900) + 1);
            let view = ParentView {
                seq: 1,
                until: Some(Until::new(now, until)),
                extendable: true,
                ..Default::default()
            };
            (view, BTreeMap::from([(1, until)]))
        });
        let lease = Lease::new(terms, parent.as_ref().map(|(view, _)| view.clone()));
        let sets_clock_back = setup.0 & 0x80 != 0;
        let sets_clock_forward = setup.0 & 0xa0 == 0x20;
        let time = Duration::ZERO;
        let grants = BTreeMap::new();
        Self {
            lease,
            now,
            time,
            sets_clock_back,
            sets_clock_forward,
            call: None,
            grants,
            parent,
            ended: false,
            outdated: false,
        }
    }

    fn step(&mut self, kind: &'static str, event: Event<u32>, demanded: Duration) -> Taken {
        let before = self.lease.view();
        let was_calling = self.call.is_some();
        let done = match &event {
            Event::Done { outcome, .. } => Some(match outcome {
                Outcome::Minted(result) => result.as_ref().map(|_| ()).map_err(|failure| failure.class),
                Outcome::Renewed(result) => result.as_ref().map(|_| ()).map_err(|failure| failure.class),
                Outcome::Checked(result) | Outcome::Revoked(result) => {
                    result.as_ref().map(|_| ()).map_err(|failure| failure.class)
                }
            }),
            _ => None,
        };
        let call = self.lease.step(event, self.now);
        if let Some(call) = &call {
            assert!(self.call.is_none(), "a second call while one is under way");
            self.call = Some((call.clone(), self.now, self.time));
        }
        Taken { before, at: self.now, call, was_calling, done, kind, demanded }
    }

    fn advance(&mut self, by: Duration) {
        self.time += by;
        self.now = self.now.plus(by);
    }

    fn apply(&mut self, (kind, arg): Op) -> Option<Taken> {
        let none = Duration::ZERO;
        match kind % 12 {
            0 => {
                let min_left = Duration::from_secs([0, 0, 0, 5, 60, 300, 2_000][usize::from(arg % 7)]);
                Some(self.step("demand", Event::Demand { min_left }, min_left))
            }
            1 | 2 => {
                let wake = self.lease.wake_in(self.now).unwrap_or(Duration::from_secs(30));
                self.advance(if arg & 1 == 0 { wake } else { Duration::from_millis(u64::from(arg) * 8) });
                Some(self.step("tick", Event::Tick { used: arg & 2 != 0 }, none))
            }
            3 => {
                // A machine that was frozen, or a wall clock that was set: the lease hears of it with the next tick.
                let by = Duration::from_secs(u64::from(arg % 4_000));
                if self.sets_clock_forward {
                    self.now = Moment::new(self.now.mono(), self.now.wall() + by);
                } else if self.sets_clock_back {
                    self.now = Moment::new(self.now.mono(), self.now.wall().saturating_sub(by));
                } else {
                    self.time += by;
                    self.now = Moment::new(self.now.mono(), self.now.wall() + by);
                }
                Some(self.step("tick", Event::Tick { used: arg & 2 != 0 }, none))
            }
            4..=6 => self.succeed(arg),
            7 => self.fail(arg),
            8 => self.change_parent(arg),
            9 => {
                let seq = self.lease.view().seq;
                Some(self.step(
                    "suspect",
                    Event::Suspect { seq: seq.saturating_sub(u64::from(arg & 1)) },
                    none,
                ))
            }
            10 if arg % 16 == 0 => {
                self.ended = true;
                Some(self.step("end", Event::End, none))
            }
            11 if arg % 4 == 0 => Some(self.step("retry", Event::Retry, none)),
            11 if arg % 4 == 1 => {
                let until = Until::new(self.now, Duration::from_secs(u64::from(arg % 7_200)));
                Some(self.step("extend", Event::Extend { until, roll: roll(arg) }, none))
            }
            11 if arg % 4 == 2 => {
                self.outdated = true;
                Some(self.step("outdated", Event::Outdated, none))
            }
            11 if arg % 64 == 3 => self.interrupt(arg),
            _ => Some(self.step("tick", Event::Tick { used: arg & 1 == 0 }, none)),
        }
    }

    fn succeed(&mut self, arg: u16) -> Option<Taken> {
        let (call, sent, sent_true) = self.call.take()?;
        let ttl = Duration::from_secs([1, 4, 30, 300, 300, 900, 3_600][usize::from(arg % 7)]);
        let renewable = arg & 8 != 0;
        let outcome = match call {
            Call::Mint { under, .. } => {
                let payload = u32::try_from(self.grants.len() + 1).expect("few");
                let is_static = self.parent.is_some() && arg & 0x30 == 0x30;
                let life = match is_static {
                    true => Life::Static { keep: arg & 0x40 == 0 },
                    false => Life::Leased { ttl, renewable },
                };
                let dies = sent_true + ttl;
                self.grants.insert(payload, Truth { dies, under, is_static, revoked: false });
                Outcome::Minted(Ok(Minted { payload, sent, life }))
            }
            Call::Renew { payload, ask, .. } => {
                let ttl = if arg & 0x100 == 0 { ask } else { ttl.min(ask) };
                self.grants.get_mut(&payload).expect("granted").dies = sent_true + ttl;
                Outcome::Renewed(Ok(Renewed { sent, ttl, renewable: arg & 0x200 == 0 }))
            }
            Call::Check { .. } => Outcome::Checked(Ok(())),
            Call::Revoke { payload } => {
                self.grants.get_mut(&payload).expect("granted").revoked = true;
                Outcome::Revoked(Ok(()))
            }
        };
        Some(self.step("done", Event::Done { outcome, roll: roll(arg) }, Duration::ZERO))
    }

    /// The machine is frozen in the middle of a call. Upstream may have carried it out all the same.
    fn interrupt(&mut self, arg: u16) -> Option<Taken> {
        let (call, ..) = self.call.take()?;
        // What called for another calls for it still.
        self.outdated |= matches!(call, Call::Mint { rotation: true, .. });
        if let Call::Revoke { payload } = call
            && arg & 0x100 != 0
        {
            self.grants.get_mut(&payload).expect("granted").revoked = true;
        }
        Some(self.step("interrupted", Event::Interrupted, Duration::ZERO))
    }

    fn fail(&mut self, arg: u16) -> Option<Taken> {
        let (call, ..) = self.call.take()?;
        let classes = [Class::Transient, Class::Transient, Class::Denied, Class::NotFound, Class::Permanent];
        let mut class = classes[usize::from(arg % 5)];
        let lost = arg & 0x40 != 0;
        let failure = |class| {
            let mut failure = Failure::new(class, "no");
            // Upstream's own refusal, or what something in between says.
            failure.status = (class == Class::Permanent && arg & 0x400 != 0).then_some(400);
            failure.retry_after = (arg & 0x80 != 0).then(|| Duration::from_secs(u64::from(arg % 90)));
            failure
        };
        let outcome = match call {
            Call::Mint { .. } => {
                if lost && self.parent.is_some() {
                    class = Class::TokenLost;
                }
                Outcome::Minted(Err(failure(class)))
            }
            Call::Renew { payload, .. } => {
                if lost {
                    let token = self.parent.is_none();
                    class = if token || arg & 0x100 == 0 { Class::TokenLost } else { Class::LeaseGone };
                    self.grants.get_mut(&payload).expect("granted").revoked = true;
                }
                Outcome::Renewed(Err(failure(class)))
            }
            Call::Check { payload } => {
                if lost {
                    class = Class::TokenLost;
                    self.grants.get_mut(&payload).expect("granted").revoked = true;
                }
                Outcome::Checked(Err(failure(class)))
            }
            Call::Revoke { .. } => Outcome::Revoked(Err(failure(Class::Transient))),
        };
        Some(self.step("done", Event::Done { outcome, roll: roll(arg) }, Duration::ZERO))
    }

    fn change_parent(&mut self, arg: u16) -> Option<Taken> {
        let (view, ends) = self.parent.as_mut()?;
        let ttl = Duration::from_secs(u64::from(arg % 900) + 1);
        let until = Some(Until::new(self.now, ttl));
        match arg % 4 {
            0 => {
                // A renewal, or a new one after a loss.
                view.seq += u64::from(view.seq <= view.lost_through);
                view.until = until;
                view.extendable = arg & 0x10 == 0;
            }
            1 => {
                view.seq += 1;
                view.until = until;
            }
            2 => {
                view.lost_through = view.seq;
                view.until = None;
                ends.insert(view.seq, self.time);
            }
            _ => {
                view.lost_through = view.seq;
                ends.insert(view.seq, self.time);
                view.seq += 1;
                view.until = until;
            }
        }
        if view.until.is_some() {
            ends.insert(view.seq, self.time + ttl);
        }
        let view = view.clone();
        Some(self.step("parent", Event::Parent { view, roll: roll(arg) }, Duration::ZERO))
    }

    /// How much life the grant really has.
    fn true_left(&self, payload: u32) -> Duration {
        let truth = &self.grants[&payload];
        let own = if truth.revoked { Duration::ZERO } else { truth.dies.saturating_sub(self.time) };
        match &self.parent {
            Some((_, ends)) => {
                own.min(ends.get(&truth.under).map_or(Duration::ZERO, |end| end.saturating_sub(self.time)))
            }
            None => own,
        }
    }
}

/// Walks a sequence and hands every step to `look`, and the world at its end.
fn walk(ops: &[Op], mut look: impl FnMut(&mut World, &Taken)) -> World {
    let mut world = World::new(ops[0]);
    for op in &ops[1..] {
        if let Some(taken) = world.apply(*op) {
            look(&mut world, &taken);
        }
    }
    world
}

/// Whether what is held lives as long as anybody needs it, but for what whole seconds take.
fn enough(world: &World) -> bool {
    let (lease, now) = (&world.lease, world.now);
    let left = lease.view().held.map_or(Duration::ZERO, |held| held.own.left(now));
    lease.until.is_some_and(|until| until.left(now) <= left + super::WHOLE)
}

const NEEDS: [Duration; 4] =
    [Duration::ZERO, Duration::from_secs(5), Duration::from_secs(300), Duration::from_secs(2_000)];

proptest! {
    #![proptest_config(config())]

    #[test]
    fn invariant_1_never_served_past_its_expiry(ops in ops()) {
        walk(&ops, |world, _| {
            let view = world.lease.view();
            if let (Verdict::Serve(_), Some(held)) = (view.decide(Duration::ZERO, view.standpoint(), world.now), &view.held)
                && !world.grants[&held.payload].is_static
            {
                assert!(!world.true_left(held.payload).is_zero(), "served dead: {held:?}");
            }
        });
    }

    #[test]
    fn invariant_2_a_failed_renewal_mints_nothing_while_the_old_one_is_good(ops in ops()) {
        walk(&ops, |world, taken| {
            let Some(Call::Mint { rotation, under }) = &taken.call else { return };
            let outdated = std::mem::take(&mut world.outdated);
            let Some(held) = &taken.before.held else { return };
            let good = !world.true_left(held.payload).is_zero() && held.seq == taken.before.seq;
            let dead = held.left(taken.at).is_zero();
            if *rotation && good && !dead && !outdated {
                let reader_needs_more = taken.kind == "demand" && held.left(taken.at) < taken.demanded;
                let after = world.lease.view().held.expect("rotation keeps the old one");
                assert!(!after.extendable() || reader_needs_more || *under != held.under, "minted beside {held:?}");
            }
            if taken.kind == "done" && taken.done == Some(Err(Class::Transient)) && good && !dead {
                panic!("a transient failure led to a mint beside {held:?}");
            }
        });
    }

    #[test]
    fn invariant_3_one_call_at_a_time_and_one_error_for_all(ops in ops()) {
        walk(&ops, |world, taken| {
            assert!(taken.call.is_none() || !taken.was_calling || taken.done.is_some());
            let view = world.lease.view();
            // What failed under a token that is gone says nothing about the next one.
            let orphaned = taken.before.held.as_ref().is_some_and(|held| held.under <= world.lease.dead_under());
            if let Some(Err(_)) = taken.done
                && view.failures > taken.before.failures
                && view.held.is_none()
                && !view.ending
                && !(orphaned && world.parent.is_some())
            {
                let early = view.decide(Duration::ZERO, Standpoint::default(), world.now);
                let late = view.decide(Duration::ZERO, taken.before.standpoint(), world.now);
                assert_eq!(early, late);
                assert!(matches!(early, Verdict::Fail { .. }));
            }
        });
    }

    #[test]
    fn invariant_4_retries_are_delayed_honour_retry_after_and_end_at_expiry(ops in ops()) {
        walk(&ops, |world, taken| {
            let view = world.lease.view();
            if let Some(trouble) = &view.trouble {
                assert!(!trouble.retry.len().is_zero());
                assert!(trouble.retry.len() >= trouble.failure.retry_after.unwrap_or_default());
            }
            if let (Some(trouble), Some(held)) = (&view.trouble, &view.held)
                && held.due.is_some_and(|(_, due)| due == trouble.retry)
                && !held.is_static
                && taken.done.is_some()
                && taken.before.trouble.as_ref() != Some(trouble)
                && held.left(taken.at) > Duration::from_secs(1)
            {
                // However often it failed before: there is a try while it still lives, if upstream lets us.
                let asked = trouble.failure.retry_after.unwrap_or_default().mul_f64(1.25);
                let latest = held.left(taken.at).mul_f64(0.5).max(asked);
                assert!(trouble.retry.len() <= latest + Duration::from_nanos(1), "too late: {trouble:?}");
            }
            if let Some(trouble) = &taken.before.trouble
                && !trouble.retry.is_over(taken.at)
                && matches!(taken.kind, "tick" | "demand")
                && matches!(taken.call, Some(Call::Mint { .. } | Call::Renew { .. }))
            {
                panic!("called again {:?} too soon: {:?}", trouble.retry.left(taken.at), taken.call);
            }
            if let (Some(before), Some(after)) = (&taken.before.held, &view.held)
                && taken.kind == "tick"
                && before.seq == after.seq
            {
                assert!(after.due.is_none() || after.due == before.due, "a schedule moved by itself");
            }
            if let Some(held) = view.held.filter(|held| !held.is_static && held.extendable() && !held.left(world.now).is_zero())
                && let Some((Act::Renew, due)) = held.due
            {
                assert!(due.left(world.now) <= held.own.left(world.now), "a renewal is due after the end");
            }
        });
    }

    #[test]
    fn invariant_5_every_token_ends_revoked_or_expired(ops in ops()) {
        let mut world = walk(&ops, |_, _| {});
        let known: Vec<u32> = world.grants.keys().copied().collect();
        world.step("end", Event::End, Duration::ZERO);
        for _ in 0..200 {
            if world.lease.is_over() {
                break;
            }
            if world.call.is_some() {
                world.succeed(0xff);
            } else {
                world.advance(world.lease.wake_in(world.now).expect("an unfinished end wakes up"));
                world.step("tick", Event::Tick { used: false }, Duration::ZERO);
            }
        }
        prop_assert!(world.lease.is_over());
        if world.parent.is_none() {
            for payload in known {
                let truth = &world.grants[&payload];
                prop_assert!(truth.revoked || truth.dies <= world.time, "{truth:?} was forgotten");
            }
        }
    }

    #[test]
    fn invariant_6_a_shorter_renewal_leads_to_rotation_before_expiry(ops in ops()) {
        walk(&ops, |world, taken| {
            let view = world.lease.view();
            let (Some(Ok(())), Some(before), Some(held)) = (taken.done, &taken.before.held, &view.held) else { return };
            let renewed = before.seq == held.seq && held.own != before.own;
            if !renewed || held.own.len() >= held.full || held.left(world.now).is_zero() || view.ending {
                return;
            }
            let Some((act, due)) = held.due else {
                // What nobody reads, or needs any longer, is left to lapse rather than replaced.
                assert!(
                    (!world.lease.terms.keep && !world.lease.wanted) || enough(world),
                    "its rotation was forgotten"
                );
                return;
            };
            assert_eq!(act, Act::Rotate);
            assert!(due.left(world.now) < held.own.left(world.now));
        });
    }

    #[test]
    fn what_a_run_needs_longer_is_replaced_in_time(ops in ops()) {
        walk(&ops, |world, taken| {
            let view = world.lease.view();
            let Some(held) = view.held.filter(|held| taken.kind == "extend" && !held.is_static) else { return };
            if world.lease.terms.keep && world.call.is_none() && !view.ending && !held.left(world.now).is_zero() {
                assert!(held.due.is_some() || enough(world) || !world.lease.terms.revocable, "it will end too soon");
            }
        });
    }

    #[test]
    fn invariant_7_never_silently_short(ops in ops()) {
        walk(&ops, |world, _| {
            for need in NEEDS {
                let view = world.lease.view();
                let came = view.standpoint();
                match view.decide(need, came, world.now) {
                    Verdict::Serve(_) => {
                        let held = view.held.as_ref().expect("served");
                        let really = world.true_left(held.payload);
                        assert!(held.is_static || really >= need, "asked {need:?}, got {really:?}");
                    }
                    Verdict::TooLong { reach } => assert!(reach < need),
                    Verdict::Ask => {
                        // Asking leads somewhere: a call, an answer, or a wait for the parent.
                        world.step("demand", Event::Demand { min_left: need }, need);
                        let view = world.lease.view();
                        let waits = world.parent.as_ref().is_some_and(|(parent, _)| {
                            let short = parent.until.is_none_or(|until| until.left(world.now) < need.max(Duration::from_nanos(1)));
                            short || parent.seq <= parent.lost_through.max(world.lease.refused_under)
                        });
                        let decided = !matches!(view.decide(need, came, world.now), Verdict::Ask);
                        assert!(world.call.is_some() || decided || waits, "nothing happens: {view:?}");
                    }
                    Verdict::Fail { .. } | Verdict::Over => {}
                }
            }
        });
    }

    #[test]
    fn invariant_8_a_403_is_not_yet_a_lost_token(ops in ops()) {
        walk(&ops, |world, taken| {
            if taken.kind == "suspect" {
                assert!(!matches!(taken.call, Some(Call::Mint { rotation: false, .. })) || taken.before.held.is_none()
                    || taken.before.held.as_ref().is_some_and(|held| held.gone_in(taken.at).is_zero() || held.under <= world.lease.dead_under()));
            }
            let view = world.lease.view();
            if view.checks > taken.before.checks {
                assert_eq!(view.lost_through, taken.before.lost_through, "found alive, yet given up");
                assert!(view.held.is_some() || taken.before.held.as_ref().is_some_and(|held| held.left(taken.at).is_zero())
                    || world.parent.is_some() || view.ending);
            }
            if view.lost_through > taken.before.lost_through {
                assert!(taken.kind == "done", "only an answer of upstream decides");
            }
        });
    }

    #[test]
    fn invariant_9_stale_is_bounded_and_labelled(ops in ops()) {
        walk(&ops, |world, _| {
            let view = world.lease.view();
            if let Verdict::Serve(freshness) = view.decide(Duration::ZERO, view.standpoint(), world.now) {
                let held = view.held.as_ref().expect("served");
                let age = world.now.since(held.own.from);
                match freshness {
                    Freshness::Stale => {
                        assert!(held.is_static && held.full == FRESH, "only a kept value is served stale");
                        assert!(age < STALE && view.trouble.is_some());
                    }
                    _ if held.is_static => assert!(age < FRESH, "unlabelled after {age:?}"),
                    _ => {}
                }
            }
        });
    }
}
