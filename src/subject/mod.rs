//! Identity tokens: OIDC and OAuth 2.0 access tokens in JWT form, checked against their issuers' keys.
//!
//! A token says whom a run acts for; it is no credential of ours and is passed on to nobody but its own issuer, where
//! introspection is configured. What is checked, in this order: its size and form, its algorithm, its issuer, its
//! signature, its type, its audience, its times ([`token`]), whether its issuer still stands by it ([`introspect`]); then
//! its claims are read as a subject ([`claims`]). A refusal names what was expected and never what the token says.
//!
//! A provider's keys are fetched once, however many ask, and kept while it is down ([`provider`]). Opaque tokens are not
//! taken. Sealed subjects are not checked here but by the core ([`crate::run::seal`]).
//!
//! What to configure for the providers that are most used stands in `docs/subjects.md`.

pub mod claims;
mod crypto;
mod fetch;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod introspect;
mod keys;
mod provider;
mod token;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use jsonwebtoken::Algorithm;

pub use claims::{KindRule, Mapping};
pub use introspect::Introspection;
pub use token::LONGEST;

use crate::clock::Moment;
use crate::https::Reach;
use crate::lease::failure::{Class, Failure};
use crate::lease::upstream::BoxFuture;
use crate::run::subject::{Checked, Issuers, SubjectError};
use crate::secret::Credential;
use fetch::Fetcher;
use introspect::Introspector;
use provider::Provider;

/// The signature algorithms that are taken where nothing else is said: all that the library checks but the symmetric
/// ones. With `HS256` whoever checks a token could make one.
pub const ASYMMETRIC: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// Whose tokens are taken.
#[derive(Clone, Debug)]
pub struct OidcConfig {
    /// At least one, no two with the same URL.
    pub issuers: Vec<IssuerConfig>,
    /// By how much an issuer's clock and ours may differ.
    pub leeway: Duration,
    /// The groups that matter to policy: they are kept before all others.
    pub groups: Vec<String>,
}

/// An issuer, and what its tokens must look like.
#[derive(Clone, Debug)]
pub struct IssuerConfig {
    /// Exactly as it stands in `iss`, a slash at its end included.
    pub url: String,
    /// A token must be for one of them.
    pub audiences: Vec<String>,
    /// Where a token says whom it is for: `aud`.
    pub audience_claim: String,
    /// Of [`ASYMMETRIC`].
    pub algorithms: Vec<Algorithm>,
    /// What the header's `typ` may be, `at+jwt` for access tokens by RFC 9068; empty: anything.
    pub types: Vec<String>,
    /// Who a token stands for.
    pub mapping: Mapping,
    /// Whether the issuer is asked for each token.
    pub introspection: Option<Introspection>,
    /// PEM certificates that are trusted instead of the platform's roots.
    pub ca_file: Option<PathBuf>,
    /// Whether `http` to this machine is spoken: for development.
    pub allow_loopback_http: bool,
    /// For one request to the issuer, as a whole.
    pub timeout: Duration,
}

impl IssuerConfig {
    /// An issuer with the defaults: any asymmetric algorithm, any type, claims as OIDC names them, 5 s for a request.
    pub fn new(url: impl Into<String>, audience: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            audiences: vec![audience.into()],
            audience_claim: "aud".to_owned(),
            algorithms: ASYMMETRIC.to_vec(),
            types: Vec::new(),
            mapping: Mapping::default(),
            introspection: None,
            ca_file: None,
            allow_loopback_http: false,
            timeout: Duration::from_secs(5),
        }
    }
}

/// Checks tokens. Share it by `Arc`: it keeps the issuers' keys.
pub struct Oidc {
    issuers: Vec<Issuer>,
    leeway: Duration,
    groups: Vec<String>,
}

struct Issuer {
    config: IssuerConfig,
    provider: Arc<Provider>,
    introspector: Option<Introspector>,
}

impl Oidc {
    /// Nothing is fetched yet.
    ///
    /// # Errors
    /// [`Class::Permanent`]: an issuer's URL that may not be asked, or another cryptography that was installed for the JWT
    /// library in this process.
    pub fn new(config: OidcConfig) -> Result<Self, Failure> {
        crypto::install()?;
        let issuers = config.issuers.into_iter().map(|config| {
            let reach = Reach {
                ca_file: config.ca_file.clone(),
                connect_timeout: config.timeout,
                ..Reach::default()
            };
            let fetcher = Fetcher::new(&config.url, reach, config.allow_loopback_http, config.timeout)?;
            let fetcher = Arc::new(fetcher);
            let introspector = config.introspection.clone().map(|it| Introspector::new(it, fetcher.clone()));
            let provider = Arc::new(Provider::new(config.url.clone(), fetcher));
            Ok(Issuer { config, provider, introspector })
        });
        let issuers = issuers.collect::<Result<Vec<_>, Failure>>()?;
        if issuers.is_empty() {
            return Err(Failure::new(Class::Permanent, "no issuer of tokens is configured"));
        }
        Ok(Self { issuers, leeway: config.leeway, groups: config.groups })
    }

    async fn checked(&self, credential: &Credential, at: Moment) -> Result<Checked, SubjectError> {
        let unverified = token::parse(credential.expose())?;
        let issuer = self.issuers.iter().find(|issuer| unverified.is_by(&issuer.config.url));
        let Some(Issuer { config, provider, introspector }) = issuer else {
            let known: Vec<&str> = self.issuers.iter().map(|issuer| issuer.config.url.as_str()).collect();
            return Err(SubjectError::Refused(format!(
                "the token's issuer is none of those that are configured: {}",
                known.join(", ")
            )));
        };
        let algorithm = unverified.algorithm(&config.algorithms)?;
        let key = provider.key(unverified.key_id(), algorithm, at).await?;
        let good = unverified.verified(&key, algorithm, config, self.leeway, at.wall())?;
        let subject = claims::subject(&good.claims, &config.url, &config.mapping, &self.groups)
            .map_err(SubjectError::Refused)?;
        let mut expires = good.expires;
        if let Some(introspector) = introspector {
            let endpoint = || provider.introspection_endpoint(at);
            let until = introspector.stands_by(credential, endpoint, at).await?;
            expires = until.map_or(expires, |until| until.min(expires));
            if expires.saturating_add(self.leeway) <= at.wall() {
                return Err(token::expired());
            }
        }
        Ok(Checked { subject, expires })
    }
}

impl Issuers for Oidc {
    fn check<'a>(
        &'a self,
        token: &'a Credential,
        at: Moment,
    ) -> BoxFuture<'a, Result<Checked, SubjectError>> {
        Box::pin(self.checked(token, at))
    }
}
