//! An issuer's discovery document and keys: fetched once however many ask, and kept while the issuer is down.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::header::{CACHE_CONTROL, HeaderMap};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;

use super::fetch::Fetcher;
use super::keys::{Found, KeySet};
use crate::clock::Moment;
use crate::lease::failure::{Class, Failure};
use crate::run::subject::SubjectError;

/// However many ask for a key that is not known, or while the issuer is down, it is asked no more often.
const PAUSE: Duration = Duration::from_secs(10);

/// Keys are asked for again after as long as the issuer says (`Cache-Control: max-age`), within these bounds: a key that
/// it took back is good for at most a day, and it is not asked every second.
const FRESH: std::ops::RangeInclusive<Duration> = Duration::from_secs(60)..=DAY;

/// The same, where it says nothing.
const FRESH_UNSAID: Duration = Duration::from_secs(3600);

/// Keys of this age are not used, even if the issuer cannot be asked.
const LONGEST: Duration = DAY;

/// A discovery document of this age is asked for again.
const DISCOVERED: Duration = DAY;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// An issuer.
pub(super) struct Provider {
    issuer: String,
    fetcher: Arc<Fetcher>,
    state: Mutex<State>,
    /// Held while the issuer is asked; the others wait for what that brings.
    asking: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Default)]
struct State {
    discovery: Option<(Arc<Discovery>, Moment)>,
    /// Its keys were not where it says: they may have moved, so it is asked for anew before they are.
    moved: bool,
    keys: Option<Kept>,
    /// When the issuer was asked for keys last, and the failure if that did not work.
    asked: Option<(Moment, Option<Failure>)>,
}

#[derive(Clone)]
struct Kept {
    set: Arc<KeySet>,
    fetched: Moment,
    fresh_for: Duration,
}

/// What is read of a discovery document (OpenID Connect Discovery 1.0, section 3; RFC 8414, section 2).
#[derive(Debug, Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: Option<String>,
    introspection_endpoint: Option<String>,
}

impl Provider {
    pub(super) fn new(issuer: String, fetcher: Arc<Fetcher>) -> Self {
        Self { issuer, fetcher, state: Mutex::default(), asking: Arc::default() }
    }

    /// The key of a token with this `kid` and `alg`.
    pub(super) async fn key(
        self: &Arc<Self>,
        id: Option<&str>,
        algorithm: Algorithm,
        at: Moment,
    ) -> Result<DecodingKey, SubjectError> {
        if let Some(said) = self.known(id, algorithm, at) {
            return said;
        }
        let asking = Arc::clone(&self.asking).lock_owned().await;
        // Somebody may have asked while we waited: what that brought is the answer for all who waited.
        if let Some(said) = self.known(id, algorithm, at) {
            return said;
        }
        // A task of its own: that a caller goes away costs the others nothing.
        let own = Arc::clone(self);
        let task = tokio::spawn(async move {
            let _asking = asking;
            own.refresh(at).await;
        });
        if task.await.is_err() {
            let what = format!("the keys of {} were not read to the end", self.issuer);
            return Err(SubjectError::Unavailable(Failure::new(Class::Transient, what)));
        }
        self.known(id, algorithm, at).unwrap_or_else(|| {
            Err(SubjectError::Unavailable(Failure::new(Class::Transient, "the keys expired as they came")))
        })
    }

    /// Where tokens are introspected, as the issuer says; `None`: it does not say.
    pub(super) async fn introspection_endpoint(&self, at: Moment) -> Result<Option<String>, Failure> {
        Ok(self.discovery(at, false).await?.introspection_endpoint.clone())
    }

    /// What can be said without asking the issuer; `None`: it is to be asked.
    fn known(
        &self,
        id: Option<&str>,
        algorithm: Algorithm,
        at: Moment,
    ) -> Option<Result<DecodingKey, SubjectError>> {
        let state = self.state();
        let refused = |why: String| Some(Err(SubjectError::Refused(why)));
        // Asked just now: there is nothing newer to be had.
        let recent = state.asked.as_ref().filter(|(asked, _)| at.since(*asked) < PAUSE);
        let age = |kept: &Kept| at.since(kept.fetched);
        let kept = state
            .keys
            .as_ref()
            .filter(|kept| age(kept) < kept.fresh_for || (recent.is_some() && age(kept) < LONGEST));
        let Some(kept) = kept else {
            return recent.map(|(asked, failure)| Err(self.unavailable(failure.as_ref(), *asked, at)));
        };
        match kept.set.find(id, algorithm) {
            Found::Key(key) => Some(Ok(key)),
            Found::Unfit => refused("the key that the token names is not for its algorithm".to_owned()),
            Found::Several => {
                refused("the token names no key (kid), and its issuer has several that would fit".to_owned())
            }
            Found::Unknown => match recent? {
                (_, None) => refused(format!(
                    "the token's key is none of the {} that {} has",
                    kept.set.len(),
                    self.issuer
                )),
                // Perhaps it is a new one.
                (asked, failure) => Some(Err(self.unavailable(failure.as_ref(), *asked, at))),
            },
        }
    }

    fn unavailable(&self, failure: Option<&Failure>, asked: Moment, at: Moment) -> SubjectError {
        let own = || Failure::new(Class::Transient, format!("the keys of {} are too old", self.issuer));
        let failure = failure.cloned().unwrap_or_else(own);
        let left = PAUSE.saturating_sub(at.since(asked));
        SubjectError::Unavailable(Failure { retry_after: failure.retry_after.or(Some(left)), ..failure })
    }

    async fn refresh(&self, at: Moment) {
        let fetched = self.fetch(at).await;
        let mut state = self.state();
        match fetched {
            Ok((set, fresh_for)) => {
                tracing::debug!(issuer = self.issuer, keys = set.len(), "fetched the issuer's keys");
                state.keys = Some(Kept { set: Arc::new(set), fetched: at, fresh_for });
                state.asked = Some((at, None));
                state.moved = false;
            }
            Err(failure) => {
                tracing::warn!(issuer = self.issuer, class = failure.class.word(), "no keys: {failure}");
                state.moved = true;
                state.asked = Some((at, Some(failure)));
            }
        }
    }

    async fn fetch(&self, at: Moment) -> Result<(KeySet, Duration), Failure> {
        let moved = self.state().moved;
        let discovery = self.discovery(at, moved).await?;
        let url = discovery.jwks_uri.as_deref().ok_or_else(|| {
            Failure::new(
                Class::Permanent,
                format!("the discovery document of {} names no keys (jwks_uri)", self.issuer),
            )
        })?;
        let answer = self.fetcher.get(url).await?;
        let set = KeySet::parse(&answer.body)
            .map_err(|why| Failure::new(Class::Transient, format!("the answer from {url} {why}")))?;
        Ok((set, fresh_for(&answer.headers)))
    }

    async fn discovery(&self, at: Moment, anew: bool) -> Result<Arc<Discovery>, Failure> {
        if let Some((document, fetched)) = &self.state().discovery
            && at.since(*fetched) < DISCOVERED
            && !anew
        {
            return Ok(Arc::clone(document));
        }
        // A slash at the end of the issuer is taken off before the path is added (OpenID Connect Discovery 1.0, section 4.1).
        let url = format!("{}/.well-known/openid-configuration", self.issuer.trim_end_matches('/'));
        let answer = self.fetcher.get(&url).await?;
        let document: Discovery = serde_json::from_slice(&answer.body).map_err(|_| {
            Failure::new(Class::Transient, format!("the answer from {url} is no discovery document"))
        })?;
        if document.issuer != self.issuer {
            let said: String = document.issuer.chars().take(200).collect();
            return Err(Failure::new(
                Class::Permanent,
                format!(
                    "{url} is the document of another issuer, {said:?}: write the issuer's url exactly so, if that is meant"
                ),
            ));
        }
        let document = Arc::new(document);
        self.state().discovery = Some((Arc::clone(&document), at));
        Ok(document)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// By `Cache-Control` (RFC 9111, section 5.2.2), within bounds.
fn fresh_for(headers: &HeaderMap) -> Duration {
    let said: Vec<&str> = headers
        .get_all(CACHE_CONTROL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .collect();
    if said.iter().any(|word| word.eq_ignore_ascii_case("no-store") || word.eq_ignore_ascii_case("no-cache"))
    {
        return *FRESH.start();
    }
    let age = said.iter().find_map(|word| {
        let (name, value) = word.split_once('=')?;
        name.eq_ignore_ascii_case("max-age").then(|| value.trim_matches('"').parse().ok())?
    });
    age.map_or(FRESH_UNSAID, |age| Duration::from_secs(age).clamp(*FRESH.start(), *FRESH.end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_issuer_says_how_long_within_bounds() {
        for (said, seconds) in [
            ("", 3600),
            ("public", 3600),
            ("public, max-age=600, must-revalidate", 600),
            ("Max-Age=\"7200\"", 7200),
            ("max-age=0", 60),
            ("max-age=99999999", 86_400),
            ("max-age=99999999999999999999999", 3600),
            ("max-age=x", 3600),
            ("no-store, max-age=600", 60),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CACHE_CONTROL, said.parse().unwrap());
            assert_eq!(fresh_for(&headers).as_secs(), seconds, "{said}");
        }
    }
}
