//! How many calls to upstream are under way, for who must not let the machine be frozen in the middle of one.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Counts calls. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Busy(Arc<Calls>);

#[derive(Debug, Default)]
struct Calls {
    count: AtomicUsize,
    none: Notify,
}

/// A call that is under way, until it is dropped.
#[derive(Debug)]
pub(super) struct Underway(Busy);

impl Busy {
    /// A call begins.
    pub(super) fn begin(&self) -> Underway {
        self.0.count.fetch_add(1, Ordering::Relaxed);
        Underway(self.clone())
    }

    /// How many are under way.
    pub(super) fn count(&self) -> usize {
        self.0.count.load(Ordering::Relaxed)
    }

    /// Waits until none is.
    pub(super) async fn none(&self) {
        loop {
            let mut none = pin!(self.0.none.notified());
            none.as_mut().enable();
            if self.count() == 0 {
                return;
            }
            none.await;
        }
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        if self.0.0.count.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.0.none.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_quiet_waits_for_the_last_call() {
        let busy = Busy::default();
        busy.none().await;
        let (one, other) = (busy.begin(), busy.begin());
        assert_eq!(busy.count(), 2);
        let waits = tokio::spawn({
            let busy = busy.clone();
            async move { busy.none().await }
        });
        drop(one);
        tokio::task::yield_now().await;
        assert!(!waits.is_finished());
        drop(other);
        waits.await.expect("it is quiet");
    }
}
