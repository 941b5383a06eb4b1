//! Between the callers and the writer: lines that wait to be written, and callers that wait for them.
//!
//! Nothing is allocated per line: its bytes go into one buffer that the writer swaps for its own, its caller waits in a
//! slot that is used again. Nor is there a system call per line: the *pump*, a small task on the caller's runtime, wakes
//! the writer once for all the lines that the runtime's tasks had to hand over, and is woken once by the writer for all
//! the callers of a batch.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use super::chain::Head;
use super::{AuditError, Counters};

/// Lifecycle lines that are kept while lines cannot be written.
pub(super) const MAX_NOTES: usize = 10_000;
/// Lines that may wait for the writer at all: more of them mean that it hangs.
const MAX_PENDING: usize = 65_536;
/// A caller's patience is counted in so many looks at those who wait.
const LOOKS: u32 = 4;
/// The pump waits for the runtime's other tasks; with this many lines the writer is woken at once.
const ENOUGH: usize = 512;

/// A line that waits: where its bytes end, and the slot of its caller, if one waits for it.
#[derive(Clone, Copy)]
pub(super) struct Pending {
    pub(super) end: usize,
    pub(super) slot: Option<u32>,
}

enum Slot {
    Free,
    /// Its caller waits; for a line, since that look of the pump's.
    Waiting(Waker, Option<u32>),
    /// Its caller is told that it has waited long enough; the line is under way all the same.
    Overdue,
    /// Its caller went away; what it asked for is done all the same.
    Abandoned,
    Done(Result<u64, AuditError>),
}

/// What is asked of the writer besides lines.
#[derive(Default)]
pub(super) struct Requests {
    pub(super) reopen: Vec<u32>,
    pub(super) close: Vec<u32>,
}

#[derive(Default)]
pub(super) struct Queue {
    pub(super) bytes: Vec<u8>,
    pub(super) lines: Vec<Pending>,
    pub(super) requests: Requests,
    /// Lifecycle lines in `lines` and in the writer's backlog.
    pub(super) notes: usize,
    /// Lifecycle lines that were dropped and of which no line has told yet.
    pub(super) dropped: u64,
    /// Decisions that were refused for want of room, and of which no line has told yet.
    pub(super) turned_away: u64,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// How long a caller waits for its line, if that is bounded.
    patience: Option<Duration>,
    /// How often the pump has looked at who waits.
    looks: u32,
    /// The writer waits for work, and nobody has called it yet.
    pub(super) idle: bool,
    /// The pump is to call the writer.
    call: bool,
    pump: Option<Waker>,
    /// Callers to be woken by the pump.
    finished: Vec<Waker>,
    pub(super) state: State,
}

/// How the log does.
#[derive(Clone, Copy)]
pub(super) struct State {
    pub(super) head: Head,
    pub(super) healthy: bool,
    /// No handle is left: the writer finishes what it has, and ends.
    pub(super) closing: bool,
    /// The writer has ended.
    pub(super) closed: bool,
}

impl Default for State {
    fn default() -> Self {
        Self { head: Head::START, healthy: true, closing: false, closed: false }
    }
}

impl Queue {
    fn slot(&mut self, waker: Waker, since: Option<u32>) -> u32 {
        if let Some(id) = self.free.pop() {
            self.slots[id as usize] = Slot::Waiting(waker, since);
            return id;
        }
        self.slots.push(Slot::Waiting(waker, since));
        (self.slots.len() - 1) as u32
    }

    fn release(&mut self, id: u32) -> Slot {
        self.free.push(id);
        std::mem::replace(&mut self.slots[id as usize], Slot::Free)
    }

    /// Tells a caller how it went. It is woken by [`Shared::wake`].
    pub(super) fn finish(&mut self, id: u32, result: Result<u64, AuditError>) {
        match std::mem::replace(&mut self.slots[id as usize], Slot::Done(result)) {
            Slot::Waiting(waker, _) => self.finished.push(waker),
            // It was woken already, and finds a better answer than it was woken for.
            Slot::Overdue => {}
            _ => drop(self.release(id)),
        }
    }

    fn has_callers(&self) -> bool {
        self.slots.len() > self.free.len()
    }

    /// Gives up on behalf of those who have waited for long enough.
    fn look(&mut self) {
        self.looks = self.looks.wrapping_add(1);
        for slot in &mut self.slots {
            let Slot::Waiting(_, Some(since)) = slot else { continue };
            // One more than its patience has: the first may have come right after it began to wait.
            if self.looks.wrapping_sub(*since) > LOOKS
                && let Slot::Waiting(waker, _) = std::mem::replace(slot, Slot::Overdue)
            {
                self.finished.push(waker);
            }
        }
    }
}

#[derive(Default)]
pub(super) struct Shared {
    queue: Mutex<Queue>,
    work: Condvar,
    pub(super) written: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) dropped: AtomicU64,
    pub(super) failed_writes: AtomicU64,
    pub(super) batches: AtomicU64,
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, Queue> {
        // A caller that panicked cannot have left the queue half-changed in a way that matters more than the log.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn counters(&self) -> Counters {
        Counters {
            written: self.written.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
            failed_writes: self.failed_writes.load(Ordering::Relaxed),
            batches: self.batches.load(Ordering::Relaxed),
            waiting: self.lock().notes as u64,
        }
    }

    /// Hands a decision's line over.
    pub(super) fn submit(&self, line: &[u8], waker: Waker) -> Result<u32, AuditError> {
        let mut queue = self.lock();
        if queue.state.closing {
            return Err(AuditError::Closed);
        }
        if queue.lines.len() >= MAX_PENDING {
            queue.turned_away += 1;
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Err(AuditError::Overloaded);
        }
        let looks = queue.looks;
        let slot = queue.slot(waker, Some(looks));
        queue.bytes.extend_from_slice(line);
        let end = queue.bytes.len();
        queue.lines.push(Pending { end, slot: Some(slot) });
        self.call_writer(queue);
        Ok(slot)
    }

    /// Hands a lifecycle line over.
    pub(super) fn note(&self, line: &[u8]) {
        let mut queue = self.lock();
        let room = if queue.state.healthy { MAX_PENDING } else { MAX_NOTES };
        if queue.state.closing || queue.notes >= room {
            queue.dropped += 1;
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        queue.notes += 1;
        queue.bytes.extend_from_slice(line);
        let end = queue.bytes.len();
        queue.lines.push(Pending { end, slot: None });
        self.call_writer(queue);
    }

    /// Asks for something else than a line.
    pub(super) fn ask(
        &self,
        waker: Waker,
        list: impl FnOnce(&mut Requests) -> &mut Vec<u32>,
    ) -> Result<u32, AuditError> {
        let mut queue = self.lock();
        if queue.state.closing {
            return Err(AuditError::Closed);
        }
        let slot = queue.slot(waker, None);
        list(&mut queue.requests).push(slot);
        self.call_writer(queue);
        Ok(slot)
    }

    /// Bounds how long callers wait for their lines.
    pub(super) fn bound(&self, patience: Duration) {
        self.lock().patience = Some(patience);
    }

    /// Lets the writer finish what it has, and end.
    pub(super) fn shut(&self) {
        let mut queue = self.lock();
        queue.state.closing = true;
        queue.idle = false;
        drop(queue);
        self.work.notify_one();
    }

    fn call_writer(&self, mut queue: MutexGuard<'_, Queue>) {
        if !queue.idle {
            return;
        }
        let pump = if queue.lines.len() < ENOUGH { queue.pump.clone() } else { None };
        match pump {
            Some(_) if queue.call => {}
            Some(pump) => {
                queue.call = true;
                drop(queue);
                pump.wake();
            }
            None => {
                queue.idle = false;
                drop(queue);
                self.work.notify_one();
            }
        }
    }

    /// Waits for work, as the writer's thread; at most a second where `retry` says that there is something to retry.
    pub(super) fn wait_for_work(&self, retry: bool) -> MutexGuard<'_, Queue> {
        let mut queue = self.lock();
        let nothing = |queue: &mut Queue| {
            queue.lines.is_empty()
                && queue.requests.reopen.is_empty()
                && queue.requests.close.is_empty()
                && !queue.state.closing
        };
        queue.idle = true;
        if retry {
            let second = std::time::Duration::from_secs(1);
            let waited = self.work.wait_timeout_while(queue, second, nothing);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        } else {
            queue = self.work.wait_while(queue, nothing).unwrap_or_else(PoisonError::into_inner);
        }
        queue.idle = false;
        queue.call = false;
        queue
    }

    /// Wakes the callers that were finished: through the pump, if there is one.
    pub(super) fn wake(&self, mut queue: MutexGuard<'_, Queue>) {
        if queue.finished.is_empty() {
            return;
        }
        if let Some(pump) = queue.pump.clone() {
            drop(queue);
            pump.wake();
        } else {
            let finished = std::mem::take(&mut queue.finished);
            drop(queue);
            finished.into_iter().for_each(Waker::wake);
        }
    }

    /// Fails whoever still waits: the writer has ended.
    pub(super) fn end(&self) {
        let mut queue = self.lock();
        queue.state.closing = true;
        queue.state.closed = true;
        queue.state.healthy = false;
        for id in 0..queue.slots.len() {
            if matches!(queue.slots[id], Slot::Waiting(..) | Slot::Overdue | Slot::Abandoned) {
                queue.finish(id as u32, Err(AuditError::Closed));
            }
        }
        let pump = queue.pump.take();
        self.wake(queue);
        if let Some(pump) = pump {
            pump.wake();
        }
    }
}

/// A caller's wait for its slot. Dropping it leaves the line to be written all the same.
pub(super) struct Ticket<'a> {
    pub(super) shared: &'a Shared,
    pub(super) slot: Option<u32>,
}

impl Future for Ticket<'_> {
    type Output = Result<u64, AuditError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(id) = self.slot else { return Poll::Ready(Err(AuditError::Closed)) };
        let mut queue = self.shared.lock();
        match &mut queue.slots[id as usize] {
            Slot::Waiting(waker, _) => {
                waker.clone_from(context.waker());
                Poll::Pending
            }
            slot @ Slot::Overdue => {
                *slot = Slot::Abandoned;
                drop(queue);
                self.slot = None;
                Poll::Ready(Err(AuditError::NoAnswer))
            }
            _ => {
                let slot = queue.release(id);
                drop(queue);
                self.slot = None;
                Poll::Ready(if let Slot::Done(result) = slot { result } else { Err(AuditError::Closed) })
            }
        }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let Some(id) = self.slot else { return };
        let mut queue = self.shared.lock();
        match queue.slots[id as usize] {
            Slot::Waiting(..) | Slot::Overdue => queue.slots[id as usize] = Slot::Abandoned,
            _ => drop(queue.release(id)),
        }
    }
}

/// The task that wakes others: the writer once the runtime's other tasks have run, and them once it has written.
///
/// When its runtime goes away it is dropped, and callers and writer wake each other directly from then on.
pub(super) struct Pump {
    shared: Arc<Shared>,
    finished: Vec<Waker>,
    /// Until the next look at who waits: one timer for all of them, and none while nobody waits.
    look: Option<Pin<Box<Sleep>>>,
}

impl Pump {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, finished: Vec::new(), look: None }
    }
}

impl Future for Pump {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let mut queue = this.shared.lock();
        match &mut queue.pump {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
        if let Some(every) = queue.patience.map(|patience| patience / LOOKS)
            && queue.has_callers()
        {
            let look = this.look.get_or_insert_with(|| Box::pin(tokio::time::sleep(every)));
            while look.as_mut().poll(context).is_ready() {
                queue.look();
                look.as_mut().reset(Instant::now() + every);
            }
        }
        std::mem::swap(&mut queue.finished, &mut this.finished);
        let call = std::mem::take(&mut queue.call);
        if call {
            queue.idle = false;
        }
        let closed = queue.state.closed;
        drop(queue);
        if call {
            this.shared.work.notify_one();
        }
        this.finished.drain(..).for_each(Waker::wake);
        if closed { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        let mut queue = self.shared.lock();
        queue.pump = None;
        queue.call = false;
        let finished = std::mem::take(&mut queue.finished);
        drop(queue);
        self.shared.work.notify_one();
        finished.into_iter().for_each(Waker::wake);
    }
}
