//! The key that disclosed values are hashed with: upstream makes it at the start, and another one each day.
//!
//! A value is not minted before there is a key, so that none is disclosed without its hash. A new key takes nothing from the
//! old one: what was hashed with that is compared with that, whose line stands before it in the log.

use std::sync::Arc;
use std::time::Duration;

use tracing::Instrument as _;

use super::tokens::{Context, refused, span, with_login};
use crate::audit::{Event, ValueKey, WrappedKey};
use crate::backoff::Backoff;
use crate::clock::Clock;
use crate::lease::failure::{Class, Failure};
use crate::lease::keeper::{Keeper, Performer, TokenKeeper};
use crate::lease::state::{Call, Outcome, Terms};
use crate::lease::upstream::{BoxFuture, Minted, TransitKey};
use crate::supervise::Supervisor;

/// How long a key is used, about. A log that is rotated daily has the wrapped key of its lines beside them.
const USED_FOR: Duration = Duration::from_secs(24 * 3600);

/// How long it is used while there is no other to be had: always.
const GOOD_FOR: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// The keeper of the key.
#[derive(Clone, Debug)]
pub(super) struct ValueKeys(Keeper<Arc<ValueKey>>);

impl ValueKeys {
    /// Gets the first key as soon as there is a login.
    pub(super) fn start(
        key: TransitKey,
        login: TokenKeeper,
        context: Arc<Context>,
        clock: Clock,
        supervisor: &Supervisor,
    ) -> Self {
        let terms = Terms {
            keep: true,
            revocable: false,
            fresh: USED_FOR,
            stale: GOOD_FOR,
            backoff: Backoff::UPSTREAM,
            until: None,
        };
        let performer = Arc::new(KeyPerformer { key: Arc::new(key), login, context });
        Self(Keeper::start("value key", Arc::new(terms), None, performer, clock, supervisor))
    }

    /// The key to hash with now.
    ///
    /// # Errors
    /// Why there is none, at the latest after `patience`.
    pub(super) async fn get(&self, patience: Duration) -> Result<Arc<ValueKey>, Failure> {
        let taken = self.0.get(Duration::ZERO, patience).await;
        let taken = taken.map_err(|refusal| refused("key for the values of the audit log", refusal))?;
        Ok(Arc::clone(&taken.held.payload))
    }

    pub(super) fn keeper(&self) -> &Keeper<Arc<ValueKey>> {
        &self.0
    }
}

struct KeyPerformer {
    key: Arc<TransitKey>,
    login: TokenKeeper,
    context: Arc<Context>,
}

impl Performer<Arc<ValueKey>> for KeyPerformer {
    fn perform(&self, call: Call<Arc<ValueKey>>) -> BoxFuture<'static, Outcome<Arc<ValueKey>>> {
        let (key, login, context) = (Arc::clone(&self.key), self.login.clone(), Arc::clone(&self.context));
        let span = span(&context, &call, "value key");
        let performed = async move {
            let _call = context.busy.begin();
            match call {
                Call::Mint { .. } => Outcome::Minted(made(&key, &login, &context).await),
                // It has no lease, and ends with the process.
                Call::Renew { .. } => {
                    Outcome::Renewed(Err(Failure::new(Class::Permanent, "a key is not renewed")))
                }
                Call::Check { .. } => Outcome::Checked(Ok(())),
                Call::Revoke { .. } => Outcome::Revoked(Ok(())),
            }
        };
        Box::pin(performed.instrument(span))
    }
}

async fn made(
    key: &TransitKey,
    login: &TokenKeeper,
    context: &Context,
) -> Result<Minted<Arc<ValueKey>>, Failure> {
    let call = context.call();
    let asked = with_login(login, context.patience, |login| {
        let call = call.clone();
        async move { context.source.data_key(call, &login, key).await }
    });
    let result = asked.await;
    let path = format!("{}/datakey/plaintext/{}", key.mount, key.name);
    let wrapped = result.as_ref().map(|minted| minted.payload.wrapped.clone()).unwrap_or_default();
    let line = WrappedKey { mount: key.mount.clone(), name: key.name.clone(), wrapped };
    context.note(Event::AuditKey, &call, &result, |entry, _| entry.path(&path).key(&line));
    let Minted { payload, sent, life } = result?;
    Ok(Minted { payload: Arc::new(ValueKey::new(&payload.plain, &line)), sent, life })
}
