//! The runs that are open, found by what they are asked for by; and, for a while, those that were.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::active::{Active, Registrant};
use super::life::Cause;
use crate::clock::{Moment, Until};
use crate::run::Run;
use crate::run::arn::ExecutionArn;

/// How long it is remembered that a run is over, so that those who still use its handle are told.
const REMEMBERED: Duration = Duration::from_secs(600);

/// How many of those are remembered at most.
const MOST_REMEMBERED: usize = 4096;

/// What a run is told apart by: to register the same twice is to register it once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    registrant: Registrant,
    parent: Option<Arc<str>>,
    execution: ExecutionArn,
    state: Option<Box<str>>,
    attempt: Option<u32>,
}

impl Key {
    /// `None` for a run that names no execution: each of those is another.
    pub(super) fn of(run: &Run, registrant: Registrant) -> Option<Self> {
        Some(Self {
            registrant,
            parent: run.parent.clone(),
            execution: run.execution.clone()?,
            state: run.state.clone(),
            attempt: run.attempt,
        })
    }
}

/// A run that is over.
#[derive(Clone, Debug)]
pub struct Gone {
    /// Its id.
    pub id: Arc<str>,
    /// Why.
    pub cause: Cause,
    /// Who had registered it.
    pub registrant: Registrant,
}

/// What is known by a handle or an id.
#[derive(Clone, Debug)]
pub enum Found {
    /// A run that is open, or closing.
    Active(Arc<Active>),
    /// A run that was open not long ago.
    Gone(Gone),
}

type Digest = [u8; 32];

/// The maps. Whoever holds its lock does nothing else.
#[derive(Default)]
pub(super) struct Registry {
    by_id: HashMap<Arc<str>, Arc<Active>>,
    by_handle: HashMap<Digest, Arc<Active>>,
    by_key: HashMap<Key, Arc<Active>>,
    by_execution: HashMap<ExecutionArn, Vec<Arc<Active>>>,
    /// The runs that a run registered.
    children: HashMap<Arc<str>, Vec<Arc<Active>>>,
    /// When each must be looked at, in nanoseconds of the monotonic clock.
    timers: BTreeMap<(u64, u64), Arc<Active>>,
    gone: HashMap<Arc<str>, Gone>,
    gone_handles: HashMap<Digest, Arc<str>>,
    remembered: VecDeque<(Until, Arc<str>, Option<Digest>)>,
}

/// What stands for a handle in a map: whoever can look at the map's order or timing learns nothing of handles.
fn digest(handle: &[u8]) -> Digest {
    Sha256::digest(handle).into()
}

impl Registry {
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn all(&self) -> Vec<Arc<Active>> {
        self.by_id.values().cloned().collect()
    }

    pub(super) fn by_handle(&self, presented: &[u8]) -> Option<Found> {
        let digest = digest(presented);
        if let Some(active) = self.by_handle.get(&digest) {
            return Some(Found::Active(Arc::clone(active)));
        }
        let id = self.gone_handles.get(&digest)?;
        self.gone.get(id).cloned().map(Found::Gone)
    }

    pub(super) fn by_id(&self, id: &str) -> Option<Found> {
        let active = self.by_id.get(id).cloned().map(Found::Active);
        active.or_else(|| self.gone.get(id).cloned().map(Found::Gone))
    }

    pub(super) fn by_key(&self, key: &Key) -> Option<&Arc<Active>> {
        self.by_key.get(key)
    }

    /// The runs of an execution.
    pub(super) fn of(&self, execution: &ExecutionArn) -> &[Arc<Active>] {
        self.by_execution.get(execution).map_or(&[], Vec::as_slice)
    }

    /// The runs that `run` registered.
    pub(super) fn children(&self, run: &str) -> Vec<Arc<Active>> {
        self.children.get(run).cloned().unwrap_or_default()
    }

    /// The runs that were registered in the name of the process's own.
    pub(super) fn of_own(&self) -> Vec<Arc<Active>> {
        let of_own =
            |active: &&Arc<Active>| active.registrant != Registrant::Own && active.run.parent.is_none();
        self.by_id.values().filter(of_own).cloned().collect()
    }

    /// The runs whose execution was started by `execution`.
    pub(super) fn started_by(&self, execution: &ExecutionArn) -> Vec<Arc<Active>> {
        self.by_id.values().filter(|active| active.run.parents.contains(execution)).cloned().collect()
    }

    pub(super) fn insert(&mut self, active: &Arc<Active>) {
        let run = &active.run;
        self.by_id.insert(Arc::clone(&run.id), Arc::clone(active));
        if let Some(handle) = &active.handle {
            self.by_handle.insert(digest(handle.expose().as_bytes()), Arc::clone(active));
        }
        if let Some(key) = Key::of(run, active.registrant) {
            self.by_key.insert(key, Arc::clone(active));
        }
        if let Some(execution) = &run.execution {
            self.by_execution.entry(execution.clone()).or_default().push(Arc::clone(active));
        }
        if let Some(parent) = &run.parent {
            self.children.entry(Arc::clone(parent)).or_default().push(Arc::clone(active));
        }
    }

    /// Nothing is kept of a run.
    pub(super) fn forget(&mut self, active: &Arc<Active>) -> Option<Digest> {
        let run = &active.run;
        self.unregister(active);
        self.look_at(active, None);
        self.by_id.remove(&run.id);
        if let Some(execution) = &run.execution {
            remove(&mut self.by_execution, execution, active);
        }
        if let Some(parent) = &run.parent {
            remove(&mut self.children, parent, active);
        }
        let handle = active.handle.as_ref().map(|handle| digest(handle.expose().as_bytes()))?;
        self.by_handle.remove(&handle);
        Some(handle)
    }

    /// Nothing but that it is over is kept of a run.
    pub(super) fn retire(&mut self, active: &Arc<Active>, cause: Cause, now: Moment) {
        let run = &active.run;
        let handle = self.forget(active);
        if let Some(digest) = handle {
            self.gone_handles.insert(digest, Arc::clone(&run.id));
        }
        let gone = Gone { id: Arc::clone(&run.id), cause, registrant: active.registrant };
        self.gone.insert(Arc::clone(&run.id), gone);
        self.remembered.push_back((Until::new(now, REMEMBERED), Arc::clone(&run.id), handle));
        while self
            .remembered
            .front()
            .is_some_and(|(until, ..)| until.is_over(now) || self.remembered.len() > MOST_REMEMBERED)
        {
            let Some((_, id, handle)) = self.remembered.pop_front() else { break };
            self.gone.remove(&id);
            if let Some(digest) = handle {
                self.gone_handles.remove(&digest);
            }
        }
        // The process's own run is always there, and has no handle.
        if self.by_handle.is_empty() {
            self.shrink();
        }
    }

    /// To register the same run again makes another: this one is over.
    pub(super) fn unregister(&mut self, active: &Arc<Active>) {
        if let Some(key) = Key::of(&active.run, active.registrant)
            && self.by_key.get(&key).is_some_and(|known| Arc::ptr_eq(known, active))
        {
            self.by_key.remove(&key);
        }
    }

    /// Looks at `active` again at `at`, and not before.
    pub(super) fn look_at(&mut self, active: &Arc<Active>, at: Option<Duration>) {
        let at = at.map_or(0, |at| u64::try_from(at.as_nanos()).unwrap_or(u64::MAX).max(1));
        let before = active.look.swap(at, Ordering::Relaxed);
        if before == at {
            return;
        }
        if before != 0 {
            self.timers.remove(&(before, active.number));
        }
        if at != 0 {
            self.timers.insert((at, active.number), Arc::clone(active));
        }
    }

    /// Those that must be looked at by now.
    pub(super) fn due(&mut self, now: Duration) -> Vec<Arc<Active>> {
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let later = self.timers.split_off(&(now.saturating_add(1), 0));
        let due: Vec<_> = std::mem::replace(&mut self.timers, later).into_values().collect();
        for active in &due {
            active.look.store(0, Ordering::Relaxed);
        }
        due
    }

    /// When the next one must be looked at.
    pub(super) fn next_look(&self) -> Option<Duration> {
        self.timers.first_key_value().map(|((at, _), _)| Duration::from_nanos(*at))
    }

    fn shrink(&mut self) {
        self.by_id.shrink_to_fit();
        self.by_handle.shrink_to_fit();
        self.by_key.shrink_to_fit();
        self.by_execution.shrink_to_fit();
        self.children.shrink_to_fit();
    }
}

fn remove<K: std::hash::Hash + Eq>(map: &mut HashMap<K, Vec<Arc<Active>>>, key: &K, active: &Arc<Active>) {
    let Some(runs) = map.get_mut(key) else { return };
    runs.retain(|known| !Arc::ptr_eq(known, active));
    if runs.is_empty() {
        map.remove(key);
    }
}
