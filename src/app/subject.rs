//! Subjects: the issuers that a configuration names, and what `tenure subject` does with them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OnceCell;

use super::Upstream;
use crate::clock::Clock;
use crate::config::{self, Expiry};
use crate::lease::failure::{Class, Failure};
use crate::lease::upstream::{CallId, PublicKeys, Token, TransitKey};
use crate::run::arn::ExecutionArn;
use crate::run::seal::{Lineage, SealError, Sealed, Terms, Unsealed};
use crate::run::subject::{Checked, Issuers, Subject, SubjectError};
use crate::run::{Boot, Run};
use crate::runs::subjects::Subjects;
use crate::secret::Credential;
use crate::subject::{Introspection, IssuerConfig, KindRule, Mapping, Oidc, OidcConfig};

/// The issuers whose tokens are believed; `None` where there are none.
///
/// # Errors
/// [`Class::Permanent`]: an issuer that cannot be asked as it is configured.
pub fn issuers(config: &config::Subject) -> Result<Option<Arc<dyn Issuers>>, Failure> {
    if config.issuers.is_empty() {
        return Ok(None);
    }
    let oidc = Oidc::new(OidcConfig {
        issuers: config.issuers.iter().map(issuer).collect(),
        leeway: config.leeway,
        groups: config.groups.clone(),
    })?;
    Ok(Some(Arc::new(oidc)))
}

/// Everything that checks what a subject presents.
///
/// # Errors
/// As [`issuers`].
pub fn subjects(config: &config::Subject) -> Result<Subjects, Failure> {
    Ok(Subjects::new(issuers(config)?, config.leeway))
}

/// The key of Vault's transit engine that seals; `None` where none does.
#[must_use]
pub fn seal_key(config: &config::Subject) -> Option<TransitKey> {
    config.seal.as_ref().map(|seal| TransitKey { mount: seal.mount.clone(), name: seal.key.clone() })
}

fn issuer(said: &config::Issuer) -> IssuerConfig {
    IssuerConfig {
        url: said.url.clone(),
        audiences: said.audiences.clone(),
        audience_claim: said.audience_claim.clone(),
        // The configuration knows no names but those of the library.
        algorithms: said.algorithms.iter().filter_map(|name| name.parse().ok()).collect(),
        types: said.types.clone(),
        mapping: Mapping {
            subject_claim: said.subject_claim.clone(),
            groups_claim: said.groups_claim.clone(),
            kind: said.kind,
            kinds: said
                .kinds
                .as_ref()
                .map(|(claim, values)| KindRule { claim: claim.clone(), values: values.clone() }),
        },
        introspection: said.introspection.as_ref().map(|said| Introspection {
            endpoint: said.endpoint.clone(),
            client_id: said.client_id.clone(),
            client_secret_file: said.client_secret_file.clone(),
            cache: said.cache,
        }),
        ca_file: said.ca_file.clone(),
        allow_loopback_http: said.allow_loopback_http,
        timeout: said.timeout,
    }
}

/// A subject that was sealed.
#[derive(Debug)]
pub struct Sealing {
    /// The seal. It is no secret, and of no use outside its execution.
    pub text: String,
    /// Whom it is for.
    pub subject: Subject,
    /// When it expires, since the Unix epoch.
    pub expires: Duration,
}

/// Why nothing was sealed, or a seal was not found good.
#[derive(Debug)]
pub enum SubjectFailure {
    /// It is not good, or not configured: the reason. To try again changes nothing.
    Refused(String),
    /// That cannot be learnt now.
    Unavailable(Failure),
}

impl fmt::Display for SubjectFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(why) => f.write_str(why),
            Self::Unavailable(failure) => write!(f, "{failure}"),
        }
    }
}

impl From<SubjectError> for SubjectFailure {
    fn from(error: SubjectError) -> Self {
        match error {
            SubjectError::Refused(why) => Self::Refused(why),
            SubjectError::Unavailable(failure) => failure.into(),
        }
    }
}

impl From<Failure> for SubjectFailure {
    fn from(failure: Failure) -> Self {
        match failure.class {
            Class::Transient => Self::Unavailable(failure),
            _ => Self::Refused(failure.message),
        }
    }
}

impl From<SealError> for SubjectFailure {
    fn from(error: SealError) -> Self {
        Self::Refused(error.to_string())
    }
}

/// Checks a token and has what it says sealed for one execution. The login that this needs is revoked at the end.
///
/// # Errors
/// The token is refused, upstream refuses, or one of the two cannot be asked.
pub async fn seal(
    config: &config::Subject,
    upstream: &Upstream,
    clock: &Clock,
    token: &Credential,
    execution: &ExecutionArn,
) -> Result<Sealing, SubjectFailure> {
    let (Some(seal), Some(key)) = (&config.seal, seal_key(config)) else {
        return Err(SubjectFailure::Refused("nothing says who seals: add [subject.seal]".to_owned()));
    };
    if Sealed::is_meant_by(token) {
        return Err(SubjectFailure::Refused("this is a seal already; a token is needed".to_owned()));
    }
    let checked = subjects(config)?.check(token, Lineage::default(), clock.now(), None).await?;
    let terms = Terms {
        max_age: seal.max_age,
        ends_with_token: config.expiry == Expiry::Cap,
        groups: &config.groups,
    };
    let unsealed = Unsealed::new(&checked, execution, clock.now().wall(), terms)?;
    let session = Session::new(upstream)?;
    let signed = match session.login().await {
        Ok(login) => upstream.source.sign(session.call(), login, &key, unsealed.input()).await,
        Err(failure) => Err(failure),
    };
    session.close().await;
    let groups = checked.subject.groups.into_iter().filter(|group| config.groups.contains(group));
    let subject = Subject { groups: groups.collect(), ..checked.subject };
    Ok(Sealing { text: unsealed.sealed(&signed?), subject, expires: unsealed.expires })
}

/// Checks a token or a seal, as a run of the executions that `lineage` names would have it checked. A login that this
/// needs is revoked at the end.
///
/// # Errors
/// It is refused, or whoever is to be asked does not answer.
pub async fn verify(
    config: &config::Subject,
    upstream: &Upstream,
    clock: &Clock,
    token: &Credential,
    lineage: Lineage<'_>,
) -> Result<Checked, SubjectFailure> {
    let session = Session::new(upstream)?;
    let checked = match seal_key(config) {
        None => subjects(config)?.check(token, lineage, clock.now(), None).await,
        Some(key) => {
            let ask = || session.public_keys(&key);
            subjects(config)?.check(token, lineage, clock.now(), Some(&ask)).await
        }
    };
    session.close().await;
    Ok(checked?)
}

/// A login for one command.
struct Session<'a> {
    upstream: &'a Upstream,
    boot: Boot,
    run: Arc<str>,
    login: OnceCell<Token>,
}

impl<'a> Session<'a> {
    fn new(upstream: &'a Upstream) -> Result<Self, SubjectFailure> {
        let random = |error: getrandom::Error| {
            SubjectFailure::Refused(format!("the system has no randomness to give: {error}"))
        };
        let (boot, run) = (Boot::new().map_err(random)?, Run::new_id().map_err(random)?);
        Ok(Self { upstream, boot, run, login: OnceCell::new() })
    }

    fn call(&self) -> CallId {
        self.boot.call(&self.run)
    }

    async fn login(&self) -> Result<&Token, Failure> {
        let log_in = || async { Ok(self.upstream.login.login(self.call()).await?.payload) };
        self.login.get_or_try_init(log_in).await
    }

    fn public_keys<'b>(
        &'b self,
        key: &'b TransitKey,
    ) -> crate::lease::upstream::BoxFuture<'b, Result<PublicKeys, Failure>> {
        Box::pin(async move { self.upstream.source.public_keys(self.call(), self.login().await?, key).await })
    }

    async fn close(&self) {
        if let Some(login) = self.login.get()
            && let Err(failure) = self.upstream.source.revoke_token(self.call(), login).await
        {
            tracing::warn!("the login is left to its own expiry: {failure}");
        }
    }
}
