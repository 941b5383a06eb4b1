//! A small Vault in memory, behind the same seams as the real one: for the demo, for tests, for a first try.
//!
//! It keeps Vault's rules where the broker depends on them: tokens and leases have TTLs and maximum TTLs, a renewal
//! gives no more than is left to the maximum, what hangs off a token ends with it, an unknown token gets a 403 and an
//! unknown lease a 400. Its switches make it slow, failing, silent, or let its answers get lost on the way.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use zeroize::Zeroizing;

use crate::clock::{Clock, Moment};
use crate::lease::failure::{Class, Failure};
use crate::lease::upstream::{
    Answer, BoxFuture, CallId, DataKey, Life, Login, Minted, PublicKeys, ReadKey, Renewed, Signed, Source,
    Token, TokenSpec, TransitKey,
};

mod store;
#[cfg(test)]
mod tests;
mod transit;

pub use store::{DatabaseRole, LeaseInfo, TokenInfo, TokenRole};

use store::{Store, refused};

/// What the embedded Vault starts with.
#[derive(Clone, Debug)]
pub struct DevConfig {
    /// What a login token lives at first.
    pub login_ttl: Duration,
    /// What it lives at most.
    pub login_max_ttl: Duration,
    /// What a login token may read by itself, as prefixes of paths. Making run tokens needs none.
    pub login_allow: Vec<String>,
    /// How long a call takes.
    pub latency: Duration,
    /// How long a client waits for an answer that does not come.
    pub time_out: Duration,
    /// How long after its token a lease is still there.
    pub revocation_lag: Duration,
}

impl Default for DevConfig {
    fn default() -> Self {
        Self {
            login_ttl: Duration::from_secs(3600),
            login_max_ttl: Duration::from_secs(24 * 3600),
            login_allow: Vec::new(),
            latency: Duration::ZERO,
            time_out: Duration::from_secs(10),
            revocation_lag: Duration::ZERO,
        }
    }
}

/// The calls that it knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// A login.
    Login,
    /// A run token is made.
    CreateToken,
    /// `renew-self`.
    RenewToken,
    /// `lookup-self`.
    LookupToken,
    /// `revoke-self`.
    RevokeToken,
    /// A revocation by accessor.
    RevokeAccessor,
    /// A look-up by accessor.
    LookupAccessor,
    /// A look-up of a lease.
    LookupLease,
    /// GET or LIST.
    Read,
    /// A lease is renewed.
    RenewLease,
    /// A signature by a transit key.
    Sign,
    /// The public keys of a transit key.
    PublicKeys,
    /// A data key that a transit key wraps.
    DataKey,
}

/// One call, as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    /// What was asked.
    pub operation: Operation,
    /// Of what: a path, a token role, a lease id; empty where it is the token itself.
    pub subject: String,
    /// When it came.
    pub at: Moment,
    /// Its `X-Tenure-Request` and its run.
    pub call: CallId,
    /// How it ended: `None` while it is under way.
    pub outcome: Option<Result<(), Class>>,
}

/// What is wrong with it now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// It refuses with this class, so many times more; `None`: until it recovers.
    Fails { class: Class, left: Option<usize> },
    /// It carries out what it is asked and the answer gets lost, so many times more.
    LosesAnswers { left: usize },
}

/// The embedded Vault. Cheap to clone: all clones are one.
#[derive(Clone)]
pub struct DevVault(Arc<Inner>);

struct Inner {
    clock: Clock,
    config: DevConfig,
    state: Mutex<State>,
    silent: watch::Sender<bool>,
}

struct State {
    store: Store,
    latency: Duration,
    fault: Option<Fault>,
    log: Vec<Logged>,
}

impl fmt::Debug for DevVault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DevVault").finish_non_exhaustive()
    }
}

impl DevVault {
    /// An empty Vault.
    #[must_use]
    pub fn new(clock: Clock, config: DevConfig) -> Self {
        let state = State {
            store: Store::new(config.revocation_lag),
            latency: config.latency,
            fault: None,
            log: Vec::new(),
        };
        let silent = watch::Sender::new(false);
        Self(Arc::new(Inner { clock, config, state: Mutex::new(state), silent }))
    }

    /// Makes or changes a token role.
    pub fn token_role(&self, name: &str, role: TokenRole) {
        self.state().store.token_roles.insert(name.to_owned(), role);
    }

    /// Makes or changes a role below `database/creds/`.
    pub fn database_role(&self, name: &str, role: DatabaseRole) {
        self.state().store.database_roles.insert(name.to_owned(), role);
    }

    /// Writes the next version of a value below `secret/data/` and returns its number.
    pub fn put(&self, name: &str, data: serde_json::Value) -> u64 {
        let now = self.0.clock.now();
        self.state().store.put(name, data, now)
    }

    /// Takes a value below `secret/data/` away, with all of its versions.
    pub fn remove(&self, name: &str) {
        self.state().store.remove(name);
    }

    /// Takes a role below `database/creds/` away. Its users live on until their leases end.
    pub fn remove_database_role(&self, name: &str) {
        self.state().store.database_roles.remove(name);
    }

    /// Whether the database is down: then no user of it is made and none is prolonged, and everything else goes on.
    pub fn set_database_down(&self, down: bool) {
        self.state().store.database_down = down;
    }

    /// Makes an ed25519 key of a transit engine, or its next version.
    ///
    /// # Panics
    /// When the system has no randomness to give.
    pub fn rotate_transit_key(&self, mount: &str, name: &str) {
        self.state().store.transit.rotate(mount, name);
    }

    /// Retires the versions of a transit key below `least` (`min_decryption_version`).
    pub fn retire_transit_key(&self, mount: &str, name: &str, least: u32) {
        self.state().store.transit.retire(mount, name, least);
    }

    /// What `transit/decrypt` gives for a data key that was wrapped; `None` where it was not wrapped here.
    #[must_use]
    pub fn unwrapped(&self, key: &TransitKey, wrapped: &str) -> Option<Zeroizing<Vec<u8>>> {
        self.state().store.transit.unwrapped(key, wrapped)
    }

    /// How long a call takes from now on.
    pub fn set_latency(&self, latency: Duration) {
        self.state().latency = latency;
    }

    /// Fails every call with this class until it [recovers](Self::recover).
    pub fn fail(&self, class: Class) {
        self.state().fault = Some(Fault::Fails { class, left: None });
    }

    /// Fails so many calls with this class.
    pub fn fail_next(&self, calls: usize, class: Class) {
        self.state().fault = Some(Fault::Fails { class, left: Some(calls) });
    }

    /// Carries out so many calls, whose answers get lost on the way.
    pub fn lose_answers(&self, calls: usize) {
        self.state().fault = Some(Fault::LosesAnswers { left: calls });
    }

    /// Answers nothing, until it [recovers](Self::recover) or the client's time is out.
    pub fn hang(&self) {
        self.0.silent.send_replace(true);
    }

    /// Ends a failure or a silence. The latency stays.
    pub fn recover(&self) {
        self.state().fault = None;
        self.0.silent.send_replace(false);
    }

    /// Whether a database user exists: until its lease ends or is revoked.
    #[must_use]
    pub fn is_alive(&self, username: &str) -> bool {
        self.leases().iter().any(|lease| lease.username == username)
    }

    /// How many database users exist.
    #[must_use]
    pub fn alive(&self) -> usize {
        self.leases().len()
    }

    /// All leases that have not ended, oldest first.
    #[must_use]
    pub fn leases(&self) -> Vec<LeaseInfo> {
        let now = self.0.clock.now();
        self.settled(now).store.leases(now)
    }

    /// All tokens that have not ended, oldest first.
    #[must_use]
    pub fn tokens(&self) -> Vec<TokenInfo> {
        let now = self.0.clock.now();
        self.settled(now).store.tokens(now)
    }

    /// Revokes all login tokens, as an operator might.
    pub fn revoke_logins(&self) {
        self.revoke_where(|token| token.role.is_none());
    }

    /// Revokes all run tokens, as an operator might.
    pub fn revoke_runs(&self) {
        self.revoke_where(|token| token.role.is_some());
    }

    fn revoke_where(&self, which: impl Fn(&TokenInfo) -> bool) {
        let now = self.0.clock.now();
        let mut state = self.settled(now);
        for token in state.store.tokens(now).iter().filter(|token| which(token)) {
            state.store.end_token(&token.accessor, now);
        }
    }

    /// Revokes all leases, as an operator might.
    pub fn revoke_leases(&self) {
        let now = self.0.clock.now();
        let mut state = self.settled(now);
        for lease in state.store.leases(now) {
            state.store.end_lease(&lease.lease_id);
        }
    }

    /// All calls since the start, or since the log was cleared.
    #[must_use]
    pub fn calls(&self) -> Vec<Logged> {
        self.state().log.clone()
    }

    /// How many of them were of this kind.
    #[must_use]
    pub fn count(&self, operation: Operation) -> usize {
        self.state().log.iter().filter(|call| call.operation == operation).count()
    }

    /// Forgets the calls so far.
    pub fn clear_calls(&self) {
        self.state().log.clear();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn settled(&self, now: Moment) -> MutexGuard<'_, State> {
        let mut state = self.state();
        state.store.settle(now);
        state
    }

    /// One call: it takes its time, is logged, and may meet a fault. Returns when it was sent, and how it went.
    async fn call<T>(
        &self,
        call: CallId,
        operation: Operation,
        subject: &str,
        act: impl FnOnce(&mut Store, Moment) -> Result<T, Failure> + Send,
    ) -> (Moment, Result<T, Failure>) {
        let sent = self.0.clock.now();
        let logged = call.request.clone();
        self.state().log.push(Logged {
            operation,
            subject: subject.to_owned(),
            at: sent,
            call,
            outcome: None,
        });
        let result = match tokio::time::timeout(self.0.config.time_out, self.answered(act)).await {
            Ok(result) => result,
            Err(_) => Err(Failure::new(Class::Transient, "the embedded source did not answer in time")),
        };
        let mut state = self.state();
        // The log may have been cleared meanwhile.
        if let Some(entry) =
            state.log.iter_mut().rev().find(|entry| entry.call.request == logged && entry.outcome.is_none())
        {
            entry.outcome = Some(result.as_ref().map(drop).map_err(|failure| failure.class));
        }
        (sent, result)
    }

    async fn answered<T>(
        &self,
        act: impl FnOnce(&mut Store, Moment) -> Result<T, Failure> + Send,
    ) -> Result<T, Failure> {
        let latency = self.state().latency;
        pause(latency / 2).await;
        let mut silent = self.0.silent.subscribe();
        // The sender lives as long as we do.
        let _ = silent.wait_for(|silent| !silent).await;
        let result = self.carried_out(act);
        pause(latency / 2).await;
        result
    }

    fn carried_out<T>(
        &self,
        act: impl FnOnce(&mut Store, Moment) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let now = self.0.clock.now();
        let mut state = self.settled(now);
        let fault = state.fault;
        state.fault = match fault {
            Some(Fault::Fails { left: Some(0 | 1), .. } | Fault::LosesAnswers { left: 0 | 1 }) => None,
            Some(Fault::Fails { class, left }) => {
                Some(Fault::Fails { class, left: left.map(|left| left - 1) })
            }
            Some(Fault::LosesAnswers { left }) => Some(Fault::LosesAnswers { left: left - 1 }),
            None => None,
        };
        match fault {
            Some(Fault::Fails { class, .. }) => Err(switched(class)),
            Some(Fault::LosesAnswers { .. }) => {
                // Whoever asked can't know that it happened.
                let _ = act(&mut state.store, now);
                Err(Failure::new(Class::Transient, "the connection broke before the answer came"))
            }
            None => act(&mut state.store, now),
        }
    }

    async fn looked_up(&self, call: CallId, token: &Token) -> Result<(), Failure> {
        let (_, result) =
            self.call(call, Operation::LookupToken, "", |store, _| store.token(token).map(drop)).await;
        result.map_err(|failure| match failure.class {
            Class::Forbidden => failure.decided(Class::TokenLost),
            _ => failure,
        })
    }
}

/// What a failure that was switched on looks like.
fn switched(class: Class) -> Failure {
    match class {
        Class::Transient => refused(503, class, "Vault is sealed (a failure that was switched on)"),
        Class::Forbidden | Class::TokenLost | Class::Denied => refused(403, class, "permission denied"),
        Class::NotFound => refused(404, class, "nothing at this path"),
        Class::LeaseGone => refused(400, class, "lease not found"),
        Class::Permanent => refused(400, class, "a failure that was switched on"),
    }
}

async fn pause(span: Duration) {
    if !span.is_zero() {
        tokio::time::sleep(span).await;
    }
}

impl Login for DevVault {
    fn login(&self, call: CallId) -> BoxFuture<'_, Result<Minted<Token>, Failure>> {
        Box::pin(async move {
            let DevConfig { login_ttl, login_max_ttl, login_allow, .. } = &self.0.config;
            let lives = (*login_ttl, *login_max_ttl);
            let (sent, result) = self
                .call(call, Operation::Login, "", |store, now| store.log_in(login_allow, lives, now))
                .await;
            result.map(|(payload, life)| Minted { payload, sent, life })
        })
    }

    fn describe(&self) -> String {
        "the embedded source (in memory)".to_owned()
    }
}

impl Source for DevVault {
    fn create_token<'a>(
        &'a self,
        call: CallId,
        login: &'a Token,
        spec: &'a TokenSpec,
    ) -> BoxFuture<'a, Result<Minted<Token>, Failure>> {
        Box::pin(async move {
            let (sent, result) = self
                .call(call, Operation::CreateToken, &spec.role, |store, now| {
                    store.create_token(login, spec, now)
                })
                .await;
            result.map(|(payload, life)| Minted { payload, sent, life })
        })
    }

    fn renew_token<'a>(
        &'a self,
        call: CallId,
        token: &'a Token,
        increment: Option<Duration>,
    ) -> BoxFuture<'a, Result<Renewed, Failure>> {
        Box::pin(async move {
            let (sent, result) = self
                .call(call, Operation::RenewToken, "", |store, now| store.renew_token(token, increment, now))
                .await;
            result.map(|renewed| Renewed { sent, ..renewed })
        })
    }

    fn lookup_token<'a>(&'a self, call: CallId, token: &'a Token) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(self.looked_up(call, token))
    }

    fn revoke_token<'a>(&'a self, call: CallId, token: &'a Token) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move {
            let revoke = |store: &mut Store, now| {
                // One that is not known counts as revoked.
                if let Ok(accessor) = store.token(token).map(|token| token.accessor.clone()) {
                    store.end_token(&accessor, now);
                }
                Ok(())
            };
            self.call(call, Operation::RevokeToken, "", revoke).await.1
        })
    }

    fn revoke_accessor<'a>(
        &'a self,
        call: CallId,
        login: &'a Token,
        _: Option<&'a str>,
        accessor: &'a str,
    ) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move {
            let revoke = |store: &mut Store, now| {
                store.token(login)?;
                store.end_token(accessor, now);
                Ok(())
            };
            self.call(call, Operation::RevokeAccessor, accessor, revoke).await.1
        })
    }

    fn accessor_lives<'a>(
        &'a self,
        call: CallId,
        login: &'a Token,
        _: Option<&'a str>,
        accessor: &'a str,
    ) -> BoxFuture<'a, Result<bool, Failure>> {
        Box::pin(async move {
            let look = |store: &mut Store, _| store.token(login).map(|_| store.knows_accessor(accessor));
            self.call(call, Operation::LookupAccessor, accessor, look).await.1
        })
    }

    fn lease_lives<'a>(
        &'a self,
        call: CallId,
        login: &'a Token,
        _: Option<&'a str>,
        lease_id: &'a str,
    ) -> BoxFuture<'a, Result<bool, Failure>> {
        Box::pin(async move {
            let look = |store: &mut Store, _| store.token(login).map(|_| store.knows_lease(lease_id));
            self.call(call, Operation::LookupLease, lease_id, look).await.1
        })
    }

    fn read<'a>(
        &'a self,
        call: CallId,
        token: &'a Token,
        key: &'a ReadKey,
    ) -> BoxFuture<'a, Result<Minted<Answer>, Failure>> {
        Box::pin(async move {
            let (sent, result) =
                self.call(call, Operation::Read, &key.path, |store, now| store.read(token, key, now)).await;
            result.map(|(payload, life)| Minted { payload, sent, life })
        })
    }

    fn renew_lease<'a>(
        &'a self,
        call: CallId,
        token: &'a Token,
        lease_id: &'a str,
        increment: Duration,
    ) -> BoxFuture<'a, Result<Renewed, Failure>> {
        Box::pin(async move {
            let (sent, result) = self
                .call(call, Operation::RenewLease, lease_id, |store, now| {
                    store.renew_lease(token, lease_id, increment, now)
                })
                .await;
            result.map(|renewed| Renewed { sent, ..renewed })
        })
    }

    fn sign<'a>(
        &'a self,
        call: CallId,
        login: &'a Token,
        key: &'a TransitKey,
        input: &'a [u8],
    ) -> BoxFuture<'a, Result<Signed, Failure>> {
        Box::pin(async move {
            let sign = |store: &mut Store, _| {
                store.token(login)?;
                store.transit.sign(key, input)
            };
            self.call(call, Operation::Sign, &key.name, sign).await.1
        })
    }

    fn public_keys<'a>(
        &'a self,
        call: CallId,
        login: &'a Token,
        key: &'a TransitKey,
    ) -> BoxFuture<'a, Result<PublicKeys, Failure>> {
        Box::pin(async move {
            let look = |store: &mut Store, _| {
                store.token(login)?;
                store.transit.public_keys(key)
            };
            let (sent, result) = self.call(call, Operation::PublicKeys, &key.name, look).await;
            result.map(|(least, keys)| PublicKeys { least, keys, sent })
        })
    }

    fn data_key<'a>(
        &'a self,
        call: CallId,
        login: &'a Token,
        key: &'a TransitKey,
    ) -> BoxFuture<'a, Result<Minted<DataKey>, Failure>> {
        Box::pin(async move {
            let wrap = |store: &mut Store, _| {
                store.token(login)?;
                store.transit.data_key(key)
            };
            let (sent, result) = self.call(call, Operation::DataKey, &key.name, wrap).await;
            result.map(|payload| Minted { payload, sent, life: Life::Static { keep: true } })
        })
    }

    fn forget_connections(&self) {}
}
