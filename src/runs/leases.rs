//! The leases of a run: an owned map with a hard limit. What may be forgotten (KV values) sits in a cache beside it.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::Instrument as _;

use super::tokens::{Context, LeaseIds, ends, refused, span};
use super::values::ValueKeys;
use crate::audit::{Event, Fragment, Values};
use crate::backoff::Backoff;
use crate::clock::{Moment, Until};
use crate::lease::failure::{Class, Failure};
use crate::lease::keeper::{Keeper, Performer, TokenKeeper};
use crate::lease::state::{Call, Outcome, Terms};
use crate::lease::upstream::{Answer, BoxFuture, Life, Minted, ReadKey, Renewed, Token};
use crate::lease::view::Held;
use crate::supervise::Supervisor;

/// How long nobody needs to ask for a KV value before it is forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(3600);

/// What one entry of the cache takes beside its value, about.
const ENTRY_BYTES: usize = 2048;

/// An answer as it is held: what upstream said, and by which call.
#[derive(Debug)]
pub struct Granted {
    /// Upstream's answer.
    pub answer: Answer,
    /// The `X-Tenure-Request` of the call that brought it.
    pub request: Arc<str>,
    /// The hashes of its values, where the log is to have them.
    pub values: Option<Values>,
    /// What is said of it with each read, once it was read from the cache.
    pub shown: Mutex<Option<Arc<Shown>>>,
}

/// What is said of a grant with each read, rendered once; a renewal moves its end, and it is rendered anew.
#[derive(Debug)]
pub struct Shown {
    /// When the grant ends.
    pub ends: Moment,
    /// Its part of an audit line.
    pub line: Fragment,
}

impl Granted {
    /// What is said of the grant while it ends at `ends`; made by `render`, if need be.
    pub fn shown(&self, ends: Moment, render: impl FnOnce() -> Option<Fragment>) -> Option<Arc<Shown>> {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if shown.as_ref().is_none_or(|shown| shown.ends != ends) {
            *shown = render().map(|line| Arc::new(Shown { ends, line }));
        }
        shown.clone()
    }
}

/// The keeper of a secret.
pub type SecretKeeper = Keeper<Arc<Granted>>;

/// A lease in the registry.
#[derive(Debug)]
pub struct Entry {
    /// What is read.
    pub key: ReadKey,
    /// Its keeper.
    pub keeper: SecretKeeper,
    /// Held without being asked for.
    pub prefetched: bool,
    /// How often it was disclosed.
    pub reads: AtomicU64,
    /// How often it had been when that was last asked.
    asked: AtomicU64,
}

/// The map is full, and everything in it is alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full {
    /// The limit.
    pub limit: usize,
}

/// What the registry is made with.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// No more leases than this.
    pub max_leases: usize,
    /// A KV value is revalidated when it is older.
    pub kv_fresh: Duration,
    /// While upstream cannot answer, a KV value is served up to this age, labelled.
    pub kv_stale: Duration,
    /// What KV values may take, in bytes, before the least used are forgotten.
    pub kv_bytes: u64,
}

/// What the leases of all runs have in common: how many there may be, and the cache of what may be forgotten.
pub(super) struct Pool {
    limits: Limits,
    live: AtomicUsize,
    /// By the number of the run, and what is read.
    values: moka::sync::Cache<(u64, ReadKey), Arc<Entry>>,
}

impl Pool {
    pub(super) fn new(limits: Limits) -> Self {
        let values = moka::sync::Cache::builder()
            .max_capacity(limits.kv_bytes)
            .weigher(|_: &(u64, ReadKey), entry: &Arc<Entry>| {
                let held = entry.keeper.view().held.as_ref().map_or(0, |held| held.payload.answer.data.len());
                u32::try_from(held + ENTRY_BYTES).unwrap_or(u32::MAX)
            })
            .time_to_idle(FORGET_AFTER)
            .eviction_listener(|_, entry: Arc<Entry>, _| entry.keeper.request_end())
            .build();
        Self { limits, live: AtomicUsize::new(0), values }
    }

    /// How many leases count towards the limit.
    fn live(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }

    /// How many leases and values there are.
    pub(super) fn held(&self) -> usize {
        self.live() + usize::try_from(self.values.entry_count()).unwrap_or(usize::MAX)
    }

    /// Lets the cache do what it has put off.
    pub(super) fn sweep(&self) {
        self.values.run_pending_tasks();
    }
}

/// The leases of one run.
pub struct Leases {
    number: u64,
    pool: Arc<Pool>,
    live: Mutex<HashMap<ReadKey, Arc<Entry>>>,
    /// What of it was moved to the cache, and may have been forgotten there.
    settled: Mutex<HashSet<ReadKey>>,
    terms: Mutex<Both>,
    token: TokenKeeper,
    minted: Arc<LeaseIds>,
    values: Option<ValueKeys>,
    context: Arc<Context>,
    supervisor: Supervisor,
}

/// The terms of what is held in any case, and of what is held while it is read.
struct Both {
    kept: Arc<Terms>,
    asked_for: Arc<Terms>,
}

impl Both {
    fn new(limits: Limits, until: Option<Until>) -> Self {
        let asked_for = Terms {
            keep: false,
            revocable: false,
            fresh: limits.kv_fresh,
            stale: limits.kv_stale,
            backoff: Backoff::UPSTREAM,
            until,
        };
        Self { kept: Arc::new(Terms { keep: true, ..asked_for.clone() }), asked_for: Arc::new(asked_for) }
    }
}

impl Leases {
    /// The leases of the run with that number, which no other run has.
    pub(super) fn new(
        number: u64,
        pool: Arc<Pool>,
        token: TokenKeeper,
        minted: Arc<LeaseIds>,
        values: Option<ValueKeys>,
        context: Arc<Context>,
        supervisor: Supervisor,
    ) -> Self {
        let terms = Mutex::new(Both::new(pool.limits, context.deadline()));
        Self {
            number,
            pool,
            live: Mutex::default(),
            settled: Mutex::default(),
            terms,
            token,
            minted,
            values,
            context,
            supervisor,
        }
    }

    /// The lease of what is to be read; a new one, which holds nothing yet, if need be.
    ///
    /// # Errors
    /// [`Full`], before anything is asked of upstream.
    pub fn entry(&self, key: &ReadKey, prefetched: bool) -> Result<Arc<Entry>, Full> {
        let mut live = self.live();
        if let Some(entry) = live.get(key) {
            return Ok(Arc::clone(entry));
        }
        if let Some(entry) = self.cached(key) {
            return Ok(entry);
        }
        let limit = self.pool.limits.max_leases;
        if self.pool.live() >= limit {
            self.let_go_of_idle(&mut live);
        }
        if self.pool.live() >= limit {
            return Err(Full { limit });
        }
        let entry = Arc::new(self.start(key.clone(), prefetched));
        live.insert(key.clone(), Arc::clone(&entry));
        self.pool.live.fetch_add(1, Ordering::Relaxed);
        Ok(entry)
    }

    /// Begins to hold a secret in any case, if there is room for it.
    pub fn prefetch(&self, key: &ReadKey) {
        if let Err(Full { limit }) = self.entry(key, true) {
            tracing::error!(path = %key, limit, "not prefetched: more prefetches than cache.max_leases");
        }
    }

    /// Moves a KV value to where it may be forgotten. `held` is what was just read from the entry.
    pub fn settle(&self, entry: &Arc<Entry>, held: &Held<Arc<Granted>>) {
        if held.is_static && !held.full.is_zero() && !entry.prefetched && self.take(&entry.key).is_some() {
            self.settled().insert(entry.key.clone());
            self.pool.values.insert((self.number, entry.key.clone()), Arc::clone(entry));
        }
    }

    /// An entry whose lease is over is of no use: the next reader starts a new one.
    pub fn forget(&self, entry: &Arc<Entry>) {
        let known = self.live().get(&entry.key).is_some_and(|known| Arc::ptr_eq(known, entry));
        if known {
            self.take(&entry.key);
        }
        if self.cached(&entry.key).is_some_and(|known| Arc::ptr_eq(&known, entry)) {
            self.pool.values.invalidate(&(self.number, entry.key.clone()));
        }
    }

    /// Lets go of entries that hold nothing and that nobody waits for.
    pub fn sweep(&self) {
        self.let_go_of_idle(&mut self.live());
        let mut settled = self.settled();
        settled.retain(|key| self.pool.values.contains_key(&(self.number, key.clone())));
    }

    /// All entries, in the order of their paths.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Entry>> {
        let mut all: Vec<_> = self.live().values().cloned().collect();
        all.extend(self.settled().iter().filter_map(|key| self.cached(key)));
        all.sort_by(|one, other| one.key.cmp(&other.key));
        all
    }

    /// How many entries there are.
    #[must_use]
    pub fn count(&self) -> usize {
        let cached = |key: &&ReadKey| self.pool.values.contains_key(&(self.number, ReadKey::clone(key)));
        self.live().len() + self.settled().iter().filter(cached).count()
    }

    /// The run goes on until then.
    pub(super) fn extend(&self, until: Until) {
        let both = Both::new(self.pool.limits, Some(until));
        *self.terms.lock().unwrap_or_else(PoisonError::into_inner) = both;
        for entry in self.all() {
            entry.keeper.extend(until);
        }
    }

    /// The run is over: nothing is held any longer.
    pub(super) fn end(&self) {
        for entry in self.all() {
            entry.keeper.request_end();
        }
        let ended = std::mem::take(&mut *self.live()).len();
        self.pool.live.fetch_sub(ended, Ordering::Relaxed);
        for key in std::mem::take(&mut *self.settled()) {
            self.pool.values.invalidate(&(self.number, key));
        }
    }

    fn cached(&self, key: &ReadKey) -> Option<Arc<Entry>> {
        self.pool.values.get(&(self.number, key.clone()))
    }

    fn take(&self, key: &ReadKey) -> Option<Arc<Entry>> {
        let entry = self.live().remove(key)?;
        self.pool.live.fetch_sub(1, Ordering::Relaxed);
        Some(entry)
    }

    fn let_go_of_idle(&self, live: &mut HashMap<ReadKey, Arc<Entry>>) {
        let before = live.len();
        sweep(live);
        self.pool.live.fetch_sub(before - live.len(), Ordering::Relaxed);
    }

    fn live(&self) -> MutexGuard<'_, HashMap<ReadKey, Arc<Entry>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn settled(&self) -> MutexGuard<'_, HashSet<ReadKey>> {
        self.settled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(&self, key: ReadKey, prefetched: bool) -> Entry {
        let terms = {
            let both = self.terms.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(if prefetched { &both.kept } else { &both.asked_for })
        };
        let performer = Arc::new(SecretPerformer {
            key: key.clone(),
            token: self.token.clone(),
            minted: Arc::clone(&self.minted),
            values: self.values.clone(),
            context: Arc::clone(&self.context),
        });
        let clock = self.context.clock.clone();
        let keeper =
            Keeper::start("lease", terms, Some(self.token.clone()), performer, clock, &self.supervisor);
        Entry { key, keeper, prefetched, reads: AtomicU64::new(0), asked: AtomicU64::new(0) }
    }
}

impl Drop for Leases {
    fn drop(&mut self) {
        // A reader may have come while the run ended.
        self.end();
    }
}

impl Entry {
    /// Whether it was disclosed since that was last asked, or is held in any case.
    pub(super) fn was_read(&self) -> bool {
        let reads = self.reads.load(Ordering::Relaxed);
        self.asked.swap(reads, Ordering::Relaxed) != reads || self.prefetched
    }

    /// Counts a disclosure.
    pub fn count_read(&self) {
        self.reads.fetch_add(1, Ordering::Relaxed);
    }
}

fn sweep(live: &mut HashMap<ReadKey, Arc<Entry>>) {
    live.retain(|_, entry| {
        let view = entry.keeper.view();
        let idle =
            view.held.is_none() && matches!(view.phase, "idle" | "failed" | "ended") && !entry.prefetched;
        // Whoever looks it up holds it: an entry that only the map holds has no reader.
        let unread = Arc::strong_count(entry) == 1;
        if idle && unread {
            entry.keeper.request_end();
        }
        !(idle && unread)
    });
}

#[derive(Clone)]
struct SecretPerformer {
    key: ReadKey,
    token: TokenKeeper,
    minted: Arc<LeaseIds>,
    values: Option<ValueKeys>,
    context: Arc<Context>,
}

impl Performer<Arc<Granted>> for SecretPerformer {
    fn perform(&self, call: Call<Arc<Granted>>) -> BoxFuture<'static, Outcome<Arc<Granted>>> {
        let secret = self.clone();
        let span = span(&secret.context, &call, &secret.key.path);
        let performed = async move {
            let _call = secret.context.busy.begin();
            match call {
                Call::Mint { under, rotation } => Outcome::Minted(secret.read(under, rotation).await),
                Call::Renew { payload, under, ask } => {
                    Outcome::Renewed(secret.renew(&payload, under, ask).await)
                }
                // Secrets are neither looked up nor revoked by themselves: they hang off the run's token.
                Call::Check { .. } => Outcome::Checked(Ok(())),
                Call::Revoke { .. } => Outcome::Revoked(Ok(())),
            }
        };
        Box::pin(performed.instrument(span))
    }
}

impl SecretPerformer {
    async fn read(&self, under: u64, rotation: bool) -> Result<Minted<Arc<Granted>>, Failure> {
        let context = &self.context;
        let token = self.token_of(under).await?;
        // What cannot be hashed cannot be disclosed: then it is not to be minted either.
        let hashes = match &self.values {
            Some(values) if !self.key.list => Some(values.get(context.patience).await?),
            _ => None,
        };
        let call = context.call();
        let mut result = context.source.read(call.clone(), &token, &self.key).await;
        if let Err(failure) = result {
            result = Err(self.token.decide(under, failure, context.patience).await);
        }
        let event = if rotation { Event::Rotate } else { Event::Mint };
        context.note(event, &call, &result, |entry, minted| {
            let answer = &minted.payload;
            let mut entry = entry.path(&self.key.path).vault_request_id(&answer.request_id);
            if !answer.lease_id.is_empty() {
                entry = entry.lease_id(&answer.lease_id);
            }
            if let Some(version) = answer.version {
                entry = entry.version(version);
            }
            entry.expires(ends(minted))
        });
        let minted = result?;
        if let Life::Leased { ttl, .. } = minted.life {
            if rotation {
                context.rotations.fetch_add(1, Ordering::Relaxed);
            }
            let until = Until::new(minted.sent, ttl);
            self.minted.add(&minted.payload.lease_id, &token, until, context.clock.now());
        }
        let Minted { payload, sent, life } = minted;
        let values = hashes.and_then(|key| payload.data.hashed(&*key));
        let granted = Granted { answer: payload, request: call.request, values, shown: Mutex::default() };
        Ok(Minted { payload: Arc::new(granted), sent, life })
    }

    async fn renew(&self, granted: &Granted, under: u64, ask: Duration) -> Result<Renewed, Failure> {
        let context = &self.context;
        let token = self.token_of(under).await?;
        let lease_id = &granted.answer.lease_id;
        let call = context.call();
        let mut result = context.source.renew_lease(call.clone(), &token, lease_id, ask).await;
        if let Err(failure) = result {
            result = Err(self.token.decide(under, failure, context.patience).await);
        }
        context.note(Event::Renew, &call, &result, |entry, renewed| {
            entry.path(&self.key.path).lease_id(lease_id).expires(renewed.sent.plus(renewed.ttl))
        });
        let renewed = result?;
        self.minted.extend(lease_id, Until::new(renewed.sent, renewed.ttl));
        Ok(renewed)
    }

    /// The token with that number. A newer one won't do: what is made under it would be believed to hang off the older.
    async fn token_of(&self, under: u64) -> Result<Arc<Token>, Failure> {
        let token = self.token.get(Duration::ZERO, self.context.patience).await;
        let held = token.map_err(|refusal| refused("run token", refusal))?.held;
        match held.seq == under {
            true => Ok(Arc::clone(&held.payload)),
            false => Err(Failure::new(Class::TokenLost, "the run's token was replaced meanwhile")),
        }
    }
}
