//! Who may hold a connection, how long, and whose ends when there is no room.
//!
//! A connection takes a *seat*. There are as many as the process has file descriptors for, beside what upstream, the audit
//! log and the journal need, and never more than memory should go into. Seats are shared by *parties*, each uid on the
//! Unix socket and all of TCP: a party may take another seat while it holds less than twice what is free. That is the
//! dynamic threshold of switches that share a buffer (Choudhury and Hahne, 1998): one party alone gets two thirds, a part
//! is always left for whoever comes next, and nobody's connection ever ends for the sake of another party. A party at its
//! limit lets go of its own: of those that never asked for anything the oldest, then the one that is idle longest.
//!
//! How long a connection may take is judged for all of them together, once a second: a request costs no timer.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use tokio::sync::Notify;

/// How often connections are looked at; the times below are counted in looks.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A connection on which nothing comes.
const IDLE: u32 = 60;
/// From the first byte of a request's head to its last.
const HEAD: u32 = 10;
/// From the moment that the client's side is full to the last byte of the answer.
const ANSWER: u32 = 15;
/// A connection that is idle so long gives its buffers back, and stays open.
const PARK: u32 = 2;

/// Who is idle so long may have to make room where not only seats are missing.
const QUIET: u32 = 2;

/// The most connections, whatever the process may open: each may cost two buffers.
const MOST: usize = 4096;
/// File descriptors that are never a connection's: the log, the journal, the listeners, and the first calls upstream.
const RESERVE: usize = 64;
/// A party may take another seat while it holds less than so many times what is free.
const SHARE: usize = 2;
/// Connections of strangers, all together: each is told that it is not admitted, and no more.
const STRANGERS: usize = 16;
/// Bodies of one party that are being read at a time, each up to its own limit.
const BODIES: usize = 128;

/// In [`Seat::beat`]: a request is being answered.
const BUSY: u64 = 1;
/// In [`Seat::beat`]: at least one request has come.
const ASKED: u64 = 2;
/// The first bit of the number in [`Seat::beat`].
const BEAT: u32 = 2;

/// Whom a connection counts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Party {
    /// All of TCP: the kernel does not say who it is.
    Tcp,
    /// A peer of the Unix socket.
    Uid(u32),
    /// All peers of the Unix socket that are not admitted.
    Stranger,
}

/// What a connection is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Order {
    /// Nothing.
    Stay = 0,
    /// To give its buffers back, if it is idle.
    Park = 1,
    /// To finish what it does, and to close.
    Finish = 2,
    /// To close at once.
    Leave = 3,
}

impl Order {
    fn of(number: u8) -> Self {
        match number {
            0 => Self::Stay,
            1 => Self::Park,
            2 => Self::Finish,
            _ => Self::Leave,
        }
    }
}

/// A connection, as far as others may see and end it. Its own task is the only one that writes what is seen.
#[derive(Debug, Default)]
pub(super) struct Seat {
    /// A number that is the higher the later the last answer was given, of all connections, with [`ASKED`] and [`BUSY`].
    beat: AtomicU64,
    /// Bytes have come since the last answer: a head that is not whole yet.
    heard: AtomicBool,
    /// An answer waits until the client takes what came before.
    stuck: AtomicBool,
    order: AtomicU8,
    told: Notify,
}

impl Seat {
    /// Bytes have come.
    pub(super) fn hear(&self) {
        self.heard.store(true, Ordering::Relaxed);
    }

    /// Whether the client has still to take what was written.
    pub(super) fn set_stuck(&self, stuck: bool) {
        self.stuck.store(stuck, Ordering::Relaxed);
    }

    /// Whether the answer to a request is not there yet.
    pub(super) fn is_answering(&self) -> bool {
        self.beat.load(Ordering::Relaxed) & BUSY != 0
    }

    /// Whether a request is being answered, or its answer being taken.
    pub(super) fn is_busy(&self) -> bool {
        self.is_answering() || self.stuck.load(Ordering::Relaxed)
    }

    /// Whether it is neither busy nor in the middle of a head.
    pub(super) fn is_idle(&self) -> bool {
        !self.is_busy() && !self.heard.load(Ordering::Relaxed)
    }

    /// Waits for an order.
    pub(super) async fn told(&self) -> Order {
        loop {
            // Orders but the first only rise; to park is an order for once.
            let order = Order::of(self.order.load(Ordering::Relaxed));
            if order == Order::Park {
                let _ = self.order.compare_exchange(
                    order as u8,
                    Order::Stay as u8,
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                );
            }
            if order != Order::Stay {
                return order;
            }
            self.told.notified().await;
        }
    }

    fn tell(&self, order: Order) {
        self.order.fetch_max(order as u8, Ordering::Relaxed);
        self.told.notify_one();
    }
}

/// All seats of the doors.
#[derive(Debug)]
pub(super) struct Seats {
    capacity: usize,
    /// Counts answers, over all connections.
    answers: AtomicU64,
    hall: Mutex<Hall>,
}

#[derive(Debug, Default)]
struct Hall {
    /// Each connection that is not told to go.
    taken: Vec<Option<Taken>>,
    /// The empty ones among them.
    free: Vec<usize>,
    parties: BTreeMap<Party, Held>,
    /// How often was looked.
    looks: u32,
}

#[derive(Debug)]
struct Taken {
    seat: Arc<Seat>,
    party: Party,
    /// What was seen, and at which look first.
    seen: (u64, bool, bool),
    since: u32,
}

/// What a party holds.
#[derive(Debug, Default)]
struct Held {
    seats: usize,
    bodies: usize,
    /// Its connections that were idle longest when it was last asked who, the longest first, and as they were then. Who has
    /// done nothing since is still idle longer than all that are not here.
    idlest: VecDeque<(usize, u64)>,
}

/// Why a connection was told to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// Nothing came for a while.
    Idle,
    /// Its request did not become whole.
    Slow,
    /// It did not take its answer.
    Unread,
    /// Another one of its party took its place.
    Room,
}

impl Why {
    /// As metrics have it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Slow => "slow",
            Self::Unread => "unread",
            Self::Room => "room",
        }
    }
}

impl Seats {
    /// As many as the process may open files for, now.
    pub(super) fn of_process() -> Arc<Self> {
        let files = getrlimit(Resource::Nofile).current.map_or(usize::MAX, |most| most as usize);
        Self::new(capacity(files))
    }

    fn new(capacity: usize) -> Arc<Self> {
        Arc::new(Self { capacity, answers: AtomicU64::new(0), hall: Mutex::default() })
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// A seat for a connection of that party, and whether another one of its own has to go for that; `None` where all
    /// that it may hold are busy.
    pub(super) fn take(self: &Arc<Self>, party: Party) -> Option<(Place, bool)> {
        let mut hall = self.hall();
        let in_place_of = !hall.has_room_for(party, self.capacity);
        if in_place_of && !hall.let_go_of(party, 0) {
            return None;
        }
        let seat = Arc::new(Seat::default());
        // Among those that have not asked the order is that in which they came.
        seat.beat.store(self.next(), Ordering::Relaxed);
        let since = hall.looks;
        let taken = Taken { seen: seen(&seat), seat: Arc::clone(&seat), party, since };
        let number = match hall.free.pop() {
            Some(number) => {
                hall.taken[number] = Some(taken);
                number
            }
            None => {
                hall.taken.push(Some(taken));
                hall.taken.len() - 1
            }
        };
        hall.parties.entry(party).or_default().seats += 1;
        drop(hall);
        Some((Place { seats: Arc::clone(self), seat, number, party }, in_place_of))
    }

    /// The system has no file descriptor to give: whoever holds most lets go of one that is idle for a while. Returns
    /// whether there was one.
    pub(super) fn make_room(&self) -> bool {
        let mut hall = self.hall();
        let mut parties: Vec<_> = hall.parties.iter().map(|(party, held)| (held.seats, *party)).collect();
        parties.sort_unstable();
        parties.into_iter().rev().any(|(_, party)| hall.let_go_of(party, QUIET))
    }

    /// Looks at all connections, and tells those to go that take too long: how many of them, and why.
    pub(super) fn look(&self) -> [(Why, u64); 3] {
        let mut gone = [(Why::Idle, 0), (Why::Slow, 0), (Why::Unread, 0)];
        let mut hall = self.hall();
        hall.looks = hall.looks.wrapping_add(1);
        let now = hall.looks;
        for number in 0..hall.taken.len() {
            let Some(taken) = hall.taken[number].as_mut() else { continue };
            let seen = seen(&taken.seat);
            if seen != taken.seen {
                (taken.seen, taken.since) = (seen, now);
                continue;
            }
            let (beat, heard, stuck) = seen;
            let age = now.wrapping_sub(taken.since);
            let idle = !stuck && !heard && beat & BUSY == 0;
            let over = match (stuck, beat & BUSY != 0, heard) {
                (true, ..) => (age >= ANSWER).then_some(2),
                // What it asks for has a limit of its own.
                (false, true, _) => None,
                (false, false, true) => (age >= HEAD).then_some(1),
                (false, false, false) => (age >= IDLE).then_some(0),
            };
            match over {
                Some(why) => {
                    taken.seat.tell(Order::Leave);
                    gone[why].1 += 1;
                    hall.forget(number);
                }
                None if idle && age == PARK && beat & ASKED != 0 => taken.seat.tell(Order::Park),
                None => {}
            }
        }
        gone
    }

    /// Tells all to finish what they do and to close.
    pub(super) fn finish(&self) {
        for taken in self.hall().taken.iter().flatten() {
            taken.seat.tell(Order::Finish);
        }
    }

    fn next(&self) -> u64 {
        self.answers.fetch_add(1, Ordering::Relaxed) << BEAT
    }

    fn hall(&self) -> MutexGuard<'_, Hall> {
        self.hall.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hall {
    fn count(&self) -> usize {
        self.taken.len() - self.free.len()
    }

    fn has_room_for(&self, party: Party, capacity: usize) -> bool {
        let held = self.parties.get(&party).map_or(0, |held| held.seats);
        let most = if party == Party::Stranger { STRANGERS } else { usize::MAX };
        held < capacity.saturating_sub(self.count()).saturating_mul(SHARE).min(most)
    }

    /// Tells the connection of that party to go that is idle longest; none is where all are busy, or have been during the
    /// last `quiet` looks.
    fn let_go_of(&mut self, party: Party, quiet: u32) -> bool {
        // What was found the last time goes first; then, once, all are looked at anew.
        for anew in [false, true] {
            if anew {
                self.find_idlest(party);
            }
            while let Some((number, beat)) =
                self.parties.get_mut(&party).and_then(|held| held.idlest.pop_front())
            {
                let Some(Some(taken)) = self.taken.get(number) else { continue };
                let unchanged = taken.party == party && taken.seat.beat.load(Ordering::Relaxed) == beat;
                if !unchanged || taken.seat.is_busy() {
                    continue;
                }
                let looks = self.looks.wrapping_sub(taken.since);
                if quiet > 0 && beat & ASKED != 0 && (taken.seen.0 != beat || looks < quiet) {
                    // The others are not idle for so long either.
                    return false;
                }
                // A request that has just arrived is answered first.
                taken.seat.tell(Order::Finish);
                self.forget(number);
                return true;
            }
        }
        false
    }

    /// An eighth of what is idle at a time: one look at all serves many that come.
    fn find_idlest(&mut self, party: Party) {
        let mut idle: Vec<_> = (0..)
            .zip(&self.taken)
            .filter_map(|(number, taken)| taken.as_ref().map(|taken| (number, taken)))
            .filter(|(_, taken)| taken.party == party && !taken.seat.is_busy())
            .map(|(number, taken)| {
                let beat = taken.seat.beat.load(Ordering::Relaxed);
                (beat & ASKED, beat, number)
            })
            .collect();
        let few = idle.len().div_ceil(8);
        if few < idle.len() {
            idle.select_nth_unstable(few);
            idle.truncate(few);
        }
        idle.sort_unstable();
        if let Some(held) = self.parties.get_mut(&party) {
            held.idlest = idle.into_iter().map(|(_, beat, number)| (number, beat)).collect();
        }
    }

    /// The seat is free again, if it was not before.
    fn forget(&mut self, number: usize) {
        if let Some(taken) = self.taken.get_mut(number).and_then(Option::take) {
            self.free.push(number);
            if let Some(held) = self.parties.get_mut(&taken.party) {
                held.seats -= 1;
                if held.seats == 0 && held.bodies == 0 {
                    self.parties.remove(&taken.party);
                }
            }
        }
    }
}

fn seen(seat: &Seat) -> (u64, bool, bool) {
    (
        seat.beat.load(Ordering::Relaxed),
        seat.heard.load(Ordering::Relaxed),
        seat.stuck.load(Ordering::Relaxed),
    )
}

/// Of that many file descriptors a quarter is upstream's, beside the reserve.
fn capacity(files: usize) -> usize {
    (files.saturating_sub(RESERVE) / 4 * 3).clamp(1, MOST)
}

/// A connection's hold on its seat.
#[derive(Debug)]
pub(super) struct Place {
    seats: Arc<Seats>,
    seat: Arc<Seat>,
    number: usize,
    party: Party,
}

impl Place {
    pub(super) fn seat(&self) -> &Arc<Seat> {
        &self.seat
    }

    /// A request has come.
    pub(super) fn begin(&self) {
        let beat = self.seat.beat.load(Ordering::Relaxed);
        self.seat.beat.store(beat | ASKED | BUSY, Ordering::Relaxed);
    }

    /// Its answer is there.
    pub(super) fn end(&self) {
        self.seat.beat.store(self.seats.next() | ASKED, Ordering::Relaxed);
        self.seat.heard.store(false, Ordering::Relaxed);
    }

    /// The right to read a body; `None`: the party reads as many as it may.
    pub(super) fn body(&self) -> Option<Body<'_>> {
        let mut hall = self.seats.hall();
        let held = hall.parties.entry(self.party).or_default();
        if held.bodies >= BODIES {
            return None;
        }
        held.bodies += 1;
        Some(Body(self))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut hall = self.seats.hall();
        // Who was told to go has no seat any more, and somebody else may have it.
        let ours =
            matches!(hall.taken.get(self.number), Some(Some(taken)) if Arc::ptr_eq(&taken.seat, &self.seat));
        if ours {
            hall.forget(self.number);
        }
    }
}

/// A body that is being read.
#[derive(Debug)]
pub(super) struct Body<'a>(&'a Place);

impl Drop for Body<'_> {
    fn drop(&mut self) {
        let mut hall = self.0.seats.hall();
        if let Some(held) = hall.parties.get_mut(&self.0.party) {
            held.bodies -= 1;
            if held.seats == 0 && held.bodies == 0 {
                hall.parties.remove(&self.0.party);
            }
        }
    }
}

#[cfg(test)]
mod tests;
