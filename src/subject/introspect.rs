//! Whether an issuer still stands by a token: OAuth 2.0 Token Introspection, RFC 7662.
//!
//! What it answers is kept for a short time, by the token's hash. The client's secret is read from its file for each
//! question, so that a changed one is used at once.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use moka::sync::Cache;
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::fetch::Fetcher;
use super::token::numeric_date;
use crate::clock::{Moment, Until};
use crate::lease::failure::{Class, Failure};
use crate::run::subject::SubjectError;
use crate::secret::Credential;

/// How many answers are kept. What is evicted is asked for again.
const MOST: u64 = 10_000;

/// An issuer that did not answer is not asked again for so long, however many tokens come.
const PAUSE: Duration = Duration::from_secs(1);

/// The largest file of a secret that is read, in bytes.
const LARGEST_SECRET: u64 = 4096;

/// How an issuer is asked for a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Introspection {
    /// Where; `None`: where the discovery document says (`introspection_endpoint`).
    pub endpoint: Option<String>,
    /// Who asks.
    pub client_id: String,
    /// The file of that client's secret.
    pub client_secret_file: PathBuf,
    /// How long an answer is taken for true: a token that is revoked is good for so much longer.
    pub cache: Duration,
}

pub(super) struct Introspector {
    config: Introspection,
    fetcher: Arc<Fetcher>,
    kept: Cache<[u8; 32], Kept>,
    /// One token is asked for by one caller at a time, and the others wait for what that brings. Tokens share locks by
    /// their hash.
    asking: [tokio::sync::Mutex<()>; 16],
    /// When the issuer did not answer, if that was its last answer.
    failed: Mutex<Option<(Moment, Failure)>>,
}

#[derive(Clone, Copy)]
struct Kept {
    standing: Standing,
    until: Until,
}

#[derive(Clone, Copy)]
enum Standing {
    /// With the `exp` that the issuer gave, if it did.
    Active(Option<Duration>),
    Inactive,
}

impl Introspector {
    pub(super) fn new(config: Introspection, fetcher: Arc<Fetcher>) -> Self {
        // moka's own expiry reads a clock of its own: entries carry their end, and moka bounds how many there are.
        Self { config, fetcher, kept: Cache::new(MOST), asking: Default::default(), failed: Mutex::default() }
    }

    /// When the issuer says that the token ends, if it stands by it at all. `discovered` brings the endpoint that the
    /// issuer itself names.
    pub(super) async fn stands_by<F>(
        &self,
        token: &Credential,
        discovered: impl FnOnce() -> F,
        at: Moment,
    ) -> Result<Option<Duration>, SubjectError>
    where
        F: Future<Output = Result<Option<String>, Failure>>,
    {
        let hash: [u8; 32] = Sha256::digest(token.expose()).into();
        let standing = match self.known(&hash, at) {
            Some(said) => said?,
            None => {
                let _asking = self.asking[usize::from(hash[0]) % self.asking.len()].lock().await;
                match self.known(&hash, at) {
                    Some(said) => said?,
                    None => self.learnt(hash, token, discovered, at).await?,
                }
            }
        };
        match standing {
            Standing::Active(end) => Ok(end),
            Standing::Inactive => Err(SubjectError::Refused(
                "the token's issuer does not stand by it any more (introspection: not active)".to_owned(),
            )),
        }
    }

    /// What can be said without asking; `None`: the issuer is to be asked.
    fn known(&self, hash: &[u8; 32], at: Moment) -> Option<Result<Standing, SubjectError>> {
        if let Some(kept) = self.kept.get(hash).filter(|kept| !kept.until.is_over(at)) {
            return Some(Ok(kept.standing));
        }
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, failure) = failed.as_ref().filter(|(asked, _)| at.since(*asked) < PAUSE)?;
        Some(Err(SubjectError::Unavailable(failure.clone())))
    }

    async fn learnt<F>(
        &self,
        hash: [u8; 32],
        token: &Credential,
        discovered: impl FnOnce() -> F,
        at: Moment,
    ) -> Result<Standing, SubjectError>
    where
        F: Future<Output = Result<Option<String>, Failure>>,
    {
        let answer = self.asked(token, discovered).await;
        let failure = answer.as_ref().err().map(|failure| (at, failure.clone()));
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = failure;
        let standing = answer.map_err(SubjectError::Unavailable)?;
        let left = match standing {
            Standing::Active(Some(end)) => end.saturating_sub(at.wall()),
            _ => Duration::MAX,
        };
        let until = Until::new(at, self.config.cache.min(left));
        self.kept.insert(hash, Kept { standing, until });
        Ok(standing)
    }

    async fn asked<F>(&self, token: &Credential, discovered: impl FnOnce() -> F) -> Result<Standing, Failure>
    where
        F: Future<Output = Result<Option<String>, Failure>>,
    {
        let endpoint = match &self.config.endpoint {
            Some(endpoint) => endpoint.clone(),
            None => discovered().await?.ok_or_else(|| {
                let what = format!(
                    "the discovery document of {} names no introspection_endpoint: configure one",
                    self.fetcher.name()
                );
                Failure::new(Class::Permanent, what)
            })?,
        };
        let secret = self.secret().await?;
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, basic(&self.config.client_id, &secret)?);
        let form =
            Zeroizing::new(format!("token={}&token_type_hint=access_token", &*encoded(token.expose())));
        let form = Bytes::from_owner(Form(form));
        let answer =
            self.fetcher.post(&endpoint, headers, form).await.map_err(|failure| match failure.status {
                Some(401 | 403) => Failure {
                    message: format!(
                        "{}; check introspection.client_id and the secret in {}",
                        failure.message,
                        self.config.client_secret_file.display()
                    ),
                    ..failure
                },
                _ => failure,
            })?;
        let said: Said = serde_json::from_slice(&answer.body).map_err(|_| {
            Failure::new(Class::Transient, format!("the answer from {endpoint} is no introspection response"))
        })?;
        Ok(match said.active {
            true => Standing::Active(said.exp.as_ref().and_then(numeric_date)),
            false => Standing::Inactive,
        })
    }

    async fn secret(&self) -> Result<Zeroizing<String>, Failure> {
        let file = self.config.client_secret_file.clone();
        let read = tokio::task::spawn_blocking(move || secret(&file)).await;
        read.map_err(|_| Failure::new(Class::Transient, "reading the client's secret was interrupted"))?
    }
}

#[derive(Deserialize)]
struct Said {
    active: bool,
    exp: Option<Value>,
}

/// A body that is wiped when it was sent.
struct Form(Zeroizing<String>);

impl AsRef<[u8]> for Form {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

fn secret(file: &Path) -> Result<Zeroizing<String>, Failure> {
    let wrong = |why: &str| {
        Failure::new(Class::Permanent, format!("the file of the client's secret, {}: {why}", file.display()))
    };
    let mut text = Zeroizing::new(String::with_capacity(LARGEST_SECRET as usize + 1));
    std::fs::File::open(file)
        .and_then(|open| open.take(LARGEST_SECRET + 1).read_to_string(&mut text))
        .map_err(|error| wrong(&error.to_string()))?;
    if text.len() as u64 > LARGEST_SECRET {
        return Err(wrong("it is larger than 4096 bytes; this is no secret"));
    }
    let trimmed = text.trim_end_matches(['\n', '\r']);
    if trimmed.is_empty() {
        return Err(wrong("it is empty"));
    }
    Ok(Zeroizing::new(trimmed.to_owned()))
}

/// RFC 6749, section 2.3.1: both are encoded as in a form before they are joined.
fn basic(id: &str, secret: &str) -> Result<HeaderValue, Failure> {
    let pair = Zeroizing::new(format!("{}:{}", &*encoded(id), &*encoded(secret)));
    let text = Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.as_bytes())));
    let mut value = HeaderValue::from_str(&text)
        .map_err(|_| Failure::new(Class::Permanent, "the client's id and secret cannot be sent"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn encoded(text: &str) -> Zeroizing<String> {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = Zeroizing::new(String::with_capacity(text.len() * 3));
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_is_named_as_the_rfc_has_it() {
        let value = basic("my client", "a:b%ü").unwrap();
        assert!(value.is_sensitive());
        assert_eq!(
            value.to_str().unwrap(),
            format!("Basic {}", STANDARD.encode("my%20client:a%3Ab%25%C3%BC"))
        );
    }

    #[test]
    fn a_secret_is_a_line_in_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        for (text, expected) in [
            ("canary\n", Some("canary")),
            ("canary", Some("canary")),
            ("\n", None),
            (&"x".repeat(5000), None),
        ] {
            std::fs::write(&file, text).unwrap();
            let read = secret(&file);
            assert_eq!(read.as_ref().ok().map(|text| text.as_str()), expected);
            assert!(!read.is_err_and(|failure| failure.message.contains("canary")));
        }
        assert!(secret(&folder.path().join("none")).unwrap_err().message.contains("none"));
    }
}
