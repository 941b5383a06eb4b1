//! One broker's schedules: the leases of its login, of its run token and of one secret, as `runs` ties them together.

use std::time::Duration;

use tenure::backoff::Backoff;
use tenure::clock::Moment;
use tenure::lease::failure::{Class, Failure};
use tenure::lease::state::{Call, Event, Lease, Outcome, Terms};
use tenure::lease::upstream::{Life, Minted, Renewed};
use tenure::lease::view::{ParentView, Standpoint, Verdict};

/// How long the making of a run token waits for the login.
const PATIENCE: Duration = Duration::from_secs(10);

/// Which of a broker's leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    Login,
    Run,
    Secret,
}

impl Which {
    pub(crate) const ALL: [Self; 3] = [Self::Login, Self::Run, Self::Secret];

    /// What upstream grants: at first and with each renewal, and in all.
    fn grants(self) -> (Duration, Duration) {
        let (ttl, most) = match self {
            Self::Login => (3_600, 24 * 3_600),
            Self::Run => (900, 12 * 3_600),
            Self::Secret => (300, 3_600),
        };
        (Duration::from_secs(ttl), Duration::from_secs(most))
    }
}

/// A lease, and the call that it has under way.
struct Line {
    lease: Lease<u32>,
    call: Option<Call<u32>>,
    sent: Moment,
    /// When the grant that is held was minted, in upstream's time: its maximum counts from there.
    minted: Moment,
    /// Only the newest alarm counts.
    alarm: u64,
}

/// What the world has to do for a broker.
#[derive(Clone, Copy)]
pub(crate) enum Wish {
    /// Send the call of this lease to upstream.
    Send(Which),
    /// Wake this lease after that time, unless it says otherwise before.
    Wake(Which, Duration, u64),
    /// Look after that time whether the run token still waits for a login.
    LosePatience(Duration, u64),
}

/// One broker.
pub(crate) struct Broker {
    lines: [Line; 3],
    /// The run token is to be made and waits for the login: where that stood when the wait began. Waits are counted.
    waiting: Option<Standpoint>,
    waits: u64,
    logins: u64,
    /// What the secret was last told of the run token.
    parent: ParentView,
    /// Requests that came to nothing, until everything was there for the first time.
    pub(crate) retries: u32,
    /// When everything was there for the first time.
    pub(crate) complete: Option<Duration>,
}

impl Broker {
    pub(crate) fn new(now: Moment) -> Self {
        let token = Terms {
            keep: true,
            revocable: true,
            fresh: Duration::ZERO,
            stale: Duration::ZERO,
            backoff: Backoff::UPSTREAM,
            until: None,
        };
        let secret = Terms { revocable: false, ..token.clone() };
        let line = |terms: Terms, parent| Line {
            lease: Lease::new(terms, parent),
            call: None,
            sent: now,
            minted: now,
            alarm: 0,
        };
        let parent = ParentView::default();
        Self {
            lines: [line(token.clone(), None), line(token, None), line(secret, Some(parent.clone()))],
            waiting: None,
            waits: 0,
            logins: 0,
            parent,
            retries: 0,
            complete: None,
        }
    }

    /// Whether it holds everything, none of it past its end.
    pub(crate) fn holds_everything(&self, now: Moment) -> bool {
        let alive = |line: &Line| line.lease.view().held.is_some_and(|held| !held.left(now).is_zero());
        self.lines.iter().all(alive)
    }

    /// The process starts.
    pub(crate) fn start(&mut self, now: Moment, rolls: &mut impl FnMut() -> f64, wishes: &mut Vec<Wish>) {
        for which in Which::ALL {
            self.step(which, Event::Tick { used: false }, now, rolls, wishes);
        }
    }

    /// An alarm rings.
    pub(crate) fn wake(
        &mut self,
        which: Which,
        alarm: u64,
        now: Moment,
        rolls: &mut impl FnMut() -> f64,
        wishes: &mut Vec<Wish>,
    ) {
        if self.lines[which as usize].alarm == alarm {
            self.step(which, Event::Tick { used: false }, now, rolls, wishes);
        }
    }

    /// Whether the call of this lease extends what is held.
    pub(crate) fn is_renewal(&self, which: Which) -> bool {
        matches!(self.lines[which as usize].call, Some(Call::Renew { .. }))
    }

    /// The call was sent, and did what it asked for where `Ok`; this is when the answer, or the time-out, is here.
    pub(crate) fn answered(
        &mut self,
        which: Which,
        result: Result<(), Failure>,
        now: Moment,
        rolls: &mut impl FnMut() -> f64,
        wishes: &mut Vec<Wish>,
    ) {
        if result.is_err() && self.complete.is_none() {
            self.retries += 1;
        }
        let line = &mut self.lines[which as usize];
        let (ttl, most) = which.grants();
        let sent = line.sent;
        let outcome = match line.call.take().expect("an answer to a call") {
            Call::Mint { .. } => Outcome::Minted(result.map(|()| {
                line.minted = sent;
                Minted { payload: 0, sent, life: Life::Leased { ttl, renewable: true } }
            })),
            Call::Renew { ask, .. } => Outcome::Renewed(result.map(|()| {
                let left = most.saturating_sub(sent.since(line.minted));
                Renewed { sent, ttl: ask.min(ttl).min(left), renewable: true }
            })),
            Call::Check { .. } => Outcome::Checked(result),
            Call::Revoke { .. } => Outcome::Revoked(result),
        };
        let roll = rolls();
        self.step(which, Event::Done { outcome, roll }, now, rolls, wishes);
        if self.complete.is_none() && self.holds_everything(now) {
            self.complete = Some(now.mono());
        }
    }

    /// The run token has waited long enough for the login.
    pub(crate) fn lose_patience(
        &mut self,
        wait: u64,
        now: Moment,
        rolls: &mut impl FnMut() -> f64,
        wishes: &mut Vec<Wish>,
    ) {
        if self.waiting.is_some() && self.waits == wait {
            let none = Failure::new(Class::Transient, "there is no login token yet");
            self.make_no_run_token(none, now, rolls, wishes);
        }
    }

    /// One step of one lease, as its keeper does it: the event, the call, who else is told, the alarm.
    fn step(
        &mut self,
        which: Which,
        event: Event<u32>,
        now: Moment,
        rolls: &mut impl FnMut() -> f64,
        wishes: &mut Vec<Wish>,
    ) {
        let line = &mut self.lines[which as usize];
        if let Some(call) = line.lease.step(event, now) {
            assert!(line.call.is_none(), "two calls of one lease at a time");
            line.sent = now;
            let makes_run = which == Which::Run && matches!(call, Call::Mint { .. });
            line.call = Some(call);
            if makes_run {
                self.waits += 1;
                self.waiting = Some(self.lines[Which::Login as usize].lease.view().standpoint());
                wishes.push(Wish::LosePatience(PATIENCE, self.waits));
                self.look_for_login(now, rolls, wishes);
            } else {
                wishes.push(Wish::Send(which));
            }
        }
        match which {
            Which::Login => self.login_changed(now, rolls, wishes),
            Which::Run => {
                let parent = self.lines[Which::Run as usize].lease.view().as_parent();
                if parent != self.parent {
                    self.parent = parent.clone();
                    let roll = rolls();
                    self.step(Which::Secret, Event::Parent { view: parent, roll }, now, rolls, wishes);
                }
            }
            Which::Secret => {}
        }
        let line = &mut self.lines[which as usize];
        line.alarm += 1;
        if let Some(wake) = line.lease.wake_in(now) {
            wishes.push(Wish::Wake(which, wake + Duration::from_millis(1), line.alarm));
        }
    }

    /// Who waits for the login looks again, and with each new one the run token is tried again at once.
    fn login_changed(&mut self, now: Moment, rolls: &mut impl FnMut() -> f64, wishes: &mut Vec<Wish>) {
        self.look_for_login(now, rolls, wishes);
        let logins = self.lines[Which::Login as usize].lease.view().seq;
        if logins > self.logins {
            self.logins = logins;
            self.step(Which::Run, Event::Retry, now, rolls, wishes);
        }
    }

    /// The run token's request is sent once there is a login token; its failure is the run token's.
    fn look_for_login(&mut self, now: Moment, rolls: &mut impl FnMut() -> f64, wishes: &mut Vec<Wish>) {
        let Some(came) = self.waiting else { return };
        match self.lines[Which::Login as usize].lease.view().decide(Duration::ZERO, came, now) {
            Verdict::Serve(_) => {
                self.waiting = None;
                self.lines[Which::Run as usize].sent = now;
                wishes.push(Wish::Send(Which::Run));
            }
            Verdict::Fail { failure, retry_in } => {
                let mut failure = Failure::clone(&failure);
                failure.retry_after = failure.retry_after.or(Some(retry_in));
                self.make_no_run_token(failure, now, rolls, wishes);
            }
            // The login is held in any case: it needs no asking.
            _ => {}
        }
    }

    fn make_no_run_token(
        &mut self,
        why: Failure,
        now: Moment,
        rolls: &mut impl FnMut() -> f64,
        wishes: &mut Vec<Wish>,
    ) {
        self.waiting = None;
        self.lines[Which::Run as usize].call = None;
        let outcome = Outcome::Minted(Err(why));
        let roll = rolls();
        self.step(Which::Run, Event::Done { outcome, roll }, now, rolls, wishes);
    }
}
