//! A token that somebody else made and put into a file. It is theirs: they made it, they may renew or replace it, and
//! unless told otherwise its end is theirs to see to.
//!
//! At a "login" the token is looked up (`auth/token/lookup-self`): how long it lives, and whether it is fit to make others.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use vaultrs::api::token::requests::LookupTokenSelfRequest;

use super::exchange::decided;
use super::file::{self, Stamp};
use crate::clock::Until;
use crate::lease::failure::{Class, Failure};
use crate::lease::upstream::{BoxFuture, CallId, Life, Login, Minted, Token};
use crate::secret::Credential;
use crate::vault::{Ask, CONTROL_LIMIT, VaultClient, advised, looked_up};

/// A token that has less than this share of its life left is due to be replaced: the keeper asks for another then.
const NEAR_ITS_END: f64 = 0.35;

/// By how much a look-up may seem to say that a token was renewed: Vault counts in seconds.
const WHOLE: Duration = Duration::from_secs(2);

/// How to log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenLoginConfig {
    /// Holds the token.
    pub file: PathBuf,
    /// Whether it is revoked at the end all the same, and with it all that hangs off it.
    pub revoke: bool,
}

/// The "login" by a token in a file.
#[derive(Debug)]
pub struct TokenLogin {
    client: Arc<VaultClient>,
    config: TokenLoginConfig,
    /// The file as it was at the last try; `None` before the first.
    read: Mutex<Option<Stamp>>,
    given: Mutex<Option<Given>>,
}

/// The token that was given out last.
#[derive(Debug)]
struct Given {
    credential: Credential,
    /// Its end, and what it had to live when it was first seen or was renewed.
    until: Until,
}

impl TokenLogin {
    /// Nothing is read before the first login.
    #[must_use]
    pub fn new(client: Arc<VaultClient>, config: TokenLoginConfig) -> Self {
        Self { client, config, read: Mutex::default(), given: Mutex::default() }
    }

    async fn once(&self, call: CallId) -> Result<Minted<Token>, Failure> {
        let TokenLoginConfig { file, revoke } = &self.config;
        // First: what is written after this moment is news.
        let before = lock(&self.read).replace(Stamp::of(file));
        let credential = file::read(file, "the token to work with").await?;
        let ask =
            Ask { call: &call, token: Some(&credential), namespace: None, index: None, limit: CONTROL_LIMIT };
        let reply = match self.client.execute(ask, &LookupTokenSelfRequest {}).await {
            Ok(reply) if reply.status.is_success() || reply.failure().class != Class::Transient => reply,
            unanswered => {
                // What is in the file is as new as before.
                *lock(&self.read) = before;
                return Err(unanswered.map_or_else(|failure| failure, |reply| decided(reply.failure())));
            }
        };
        if !reply.status.is_success() {
            let failure = reply.failure();
            return Err(match failure.class {
                Class::Forbidden => {
                    let cure = format!(
                        "The token in {} is not one that Vault knows: it has ended, was revoked, or is another \
                         cluster's or namespace's. Put another there. (Or its policies lack read on \
                         auth/token/lookup-self.)",
                        file.display()
                    );
                    advised(failure, &cure).decided(Class::Permanent)
                }
                _ => decided(failure),
            });
        }
        let what = format!("the token in {}", file.display());
        let cure = "put a service token there that ends and may be used without limit (vault token create -orphan \
                    -policy=tenure-login -ttl=8h)";
        let mut minted = looked_up(&reply, credential, &what, cure)?;
        minted.payload.lent = !revoke;
        self.news(&minted)?;
        Ok(minted)
    }

    /// Remembers what is given out. The token that was given out before and is near its end is not given out once more:
    /// what is asked for is its successor, and that there is none is to be known while there is time.
    fn news(&self, minted: &Minted<Token>) -> Result<(), Failure> {
        let Life::Leased { ttl, .. } = minted.life else { return Ok(()) };
        let until = Until::new(minted.sent, ttl);
        let mut given = lock(&self.given);
        if let Some(before) = &*given
            && before.credential.matches(minted.payload.credential.expose().as_bytes())
            && !before.until.is_over(minted.sent)
            && ttl <= before.until.left(minted.sent) + WHOLE
        {
            if ttl < before.until.len().mul_f64(NEAR_ITS_END) {
                return Err(Failure::new(
                    Class::Transient,
                    format!(
                        "the token in {} ends in {}, and nobody has renewed or replaced it: put another there",
                        self.config.file.display(),
                        humantime::format_duration(ttl)
                    ),
                ));
            }
            return Ok(());
        }
        *given = Some(Given { credential: minted.payload.credential.clone(), until });
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Login for TokenLogin {
    fn login(&self, call: CallId) -> BoxFuture<'_, Result<Minted<Token>, Failure>> {
        Box::pin(self.once(call))
    }

    fn describe(&self) -> String {
        let end = if self.config.revoke { ", revoked at the end" } else { "" };
        format!("token of {}{end}", self.config.file.display())
    }

    fn is_outdated(&self) -> bool {
        // A file that is gone is not another one: what was read from it may be good for long.
        let now = Stamp::of(&self.config.file);
        now.is_there() && lock(&self.read).as_ref().is_some_and(|read| *read != now)
    }
}

#[cfg(test)]
mod tests;
