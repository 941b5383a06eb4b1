//! Whom a run acts for: OIDC tokens go to their issuers, sealed subjects are checked here by upstream's public keys.
//!
//! Upstream could check each seal itself (`transit/verify`), at the cost of a call for each. Its public keys change only
//! when an operator rotates or retires them, so they are asked for once and kept: a version that is not among them is
//! asked for at once (it was rotated), a retired one is noticed within [`FRESH`].

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Moment;
use crate::lease::failure::Failure;
use crate::lease::upstream::{BoxFuture, PublicKeys};
use crate::run::seal::{Lineage, SealError, Sealed};
use crate::run::subject::{Checked, Issuers, SubjectError};
use crate::secret::Credential;

/// Older keys are asked for again: a version that an operator retires is good for so much longer at most.
pub const FRESH: Duration = Duration::from_secs(5 * 60);

/// Older keys are not used, even if upstream cannot answer.
pub const LONGEST: Duration = Duration::from_secs(3600);

/// However many ask for a version that is not known, upstream is asked no more often.
pub const PAUSE: Duration = Duration::from_secs(10);

/// Asks upstream for the public keys, with the login token.
pub type AskKeys<'a> = &'a (dyn Fn() -> BoxFuture<'a, Result<PublicKeys, Failure>> + Send + Sync);

/// Checks whatever a subject presents.
pub struct Subjects {
    issuers: Option<Arc<dyn Issuers>>,
    leeway: Duration,
    kept: Mutex<Kept>,
    /// Held by whoever asks upstream; the others wait for what it brings.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Kept {
    keys: Option<Arc<PublicKeys>>,
    /// When upstream was asked last, and the failure if it did not answer.
    asked: Option<(Moment, Option<Failure>)>,
}

impl Subjects {
    /// With these issuers; `None`: no token is accepted. `leeway` is by how much the clocks of two machines may differ.
    #[must_use]
    pub fn new(issuers: Option<Arc<dyn Issuers>>, leeway: Duration) -> Self {
        Self { issuers, leeway, kept: Mutex::default(), asking: tokio::sync::Mutex::default() }
    }

    /// Who presents `token`, an OIDC token or a seal, in a run of the executions that `lineage` names. `ask` brings
    /// upstream's public keys; `None`: no seal is accepted.
    ///
    /// # Errors
    /// [`SubjectError::Refused`] if it is not good, [`SubjectError::Unavailable`] if that cannot be learnt now.
    pub async fn check(
        &self,
        token: &Credential,
        lineage: Lineage<'_>,
        at: Moment,
        ask: Option<AskKeys<'_>>,
    ) -> Result<Checked, SubjectError> {
        let refused = |why: &str| Err(SubjectError::Refused(why.to_owned()));
        if !Sealed::is_meant_by(token) {
            return match &self.issuers {
                Some(issuers) => issuers.check(token, at).await,
                None => refused("no issuer of tokens is configured: add a [[subject.issuer]]"),
            };
        }
        let Some(ask) = ask else {
            return refused("sealed subjects are not configured: add [subject.seal]");
        };
        let sealed = Sealed::parse(token.expose())?;
        let keys = self.keys(at, None, ask).await?;
        let check = |keys: &PublicKeys| sealed.check(lineage, at.wall(), self.leeway, keys);
        match check(&keys) {
            Err(SealError::UnknownVersion(version)) => Ok(check(&*self.keys(at, Some(version), ask).await?)?),
            said => Ok(said?),
        }
    }

    /// Keys that are young enough, and have `version` as far as asking can bring it.
    async fn keys(
        &self,
        at: Moment,
        version: Option<u32>,
        ask: AskKeys<'_>,
    ) -> Result<Arc<PublicKeys>, SubjectError> {
        if let Some(keys) = self.kept_keys(at, version) {
            return keys;
        }
        let _asking = self.asking.lock().await;
        // Somebody may have asked while we waited.
        if let Some(keys) = self.kept_keys(at, version) {
            return keys;
        }
        let answer = ask().await;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.asked = Some((at, answer.as_ref().err().cloned()));
        match answer {
            Ok(keys) => Ok(Arc::clone(kept.keys.insert(Arc::new(keys)))),
            Err(failure) => match usable(&kept.keys, at, LONGEST).filter(|_| version.is_none()) {
                Some(keys) => {
                    tracing::warn!("the keys of sealed subjects are not refreshed: {failure}");
                    Ok(keys)
                }
                None => Err(SubjectError::Unavailable(failure)),
            },
        }
    }

    /// What can be said without asking; `None`: upstream is to be asked.
    fn kept_keys(&self, at: Moment, version: Option<u32>) -> Option<Result<Arc<PublicKeys>, SubjectError>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(keys) = usable(&kept.keys, at, FRESH)
            && version.is_none_or(|version| keys.keys.contains_key(&version))
        {
            return Some(Ok(keys));
        }
        let (asked, failure) = kept.asked.as_ref()?;
        let left = PAUSE.saturating_sub(at.since(*asked));
        if left.is_zero() {
            return None;
        }
        match failure {
            // It was asked just now, and those are all that there are.
            None => usable(&kept.keys, at, FRESH).map(Ok),
            Some(failure) => {
                let keys = usable(&kept.keys, at, LONGEST).filter(|_| version.is_none());
                let wait = failure.retry_after.unwrap_or(left);
                Some(keys.ok_or_else(|| {
                    SubjectError::Unavailable(Failure { retry_after: Some(wait), ..failure.clone() })
                }))
            }
        }
    }
}

fn usable(keys: &Option<Arc<PublicKeys>>, at: Moment, age: Duration) -> Option<Arc<PublicKeys>> {
    keys.as_ref().filter(|keys| at.since(keys.sent) < age).map(Arc::clone)
}

#[cfg(test)]
mod tests;
