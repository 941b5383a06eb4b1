//! Identity tokens against an OIDC provider that is played here, with real keys, over a real socket.
//!
//! The provider ([`provider`]) and the keys ([`keys`]) are for other tests too. Time is passed in: nothing sleeps.

mod introspection;
mod keys;
mod outages;
mod provider;
mod rotation;
mod sealing;
mod tokens;

use std::sync::Arc;
use std::time::Duration;

use tenure::clock::{Clock, Moment};
use tenure::run::subject::{Checked, Issuers as _, SubjectError};
use tenure::secret::Credential;
use tenure::subject::{IssuerConfig, Oidc, OidcConfig};

use provider::Provider;

/// Now, as far as tokens are concerned: 2026-01-01T00:00:00Z.
pub(crate) const NOW: u64 = 1_767_225_600;

/// So many seconds after [`NOW`].
pub(crate) fn at(seconds: u64) -> Moment {
    Moment::new(Duration::from_secs(seconds), Duration::from_secs(NOW + seconds))
}

/// Checks tokens of `provider` for the audience `tenure`.
pub(crate) fn oidc(provider: &Provider) -> Arc<Oidc> {
    oidc_with(provider, |_| {})
}

pub(crate) fn oidc_with(provider: &Provider, change: impl FnOnce(&mut IssuerConfig)) -> Arc<Oidc> {
    let mut issuer = IssuerConfig::new(&provider.issuer, "tenure");
    issuer.allow_loopback_http = true;
    change(&mut issuer);
    let config = OidcConfig { issuers: vec![issuer], leeway: Duration::from_secs(60), groups: Vec::new() };
    Arc::new(Oidc::new(config).expect("an issuer"))
}

pub(crate) async fn check(oidc: &Oidc, token: &str, at: Moment) -> Result<Checked, SubjectError> {
    oidc.check(&Credential::new(token.to_owned()), at).await
}

/// Why it was refused.
pub(crate) fn refused(said: Result<Checked, SubjectError>) -> String {
    match said {
        Err(SubjectError::Refused(why)) => why,
        other => panic!("not refused: {other:?}"),
    }
}

/// Why it is not known.
pub(crate) fn unavailable(said: Result<Checked, SubjectError>) -> String {
    match said {
        Err(SubjectError::Unavailable(failure)) => failure.message,
        other => panic!("not unavailable: {other:?}"),
    }
}

/// A clock that reads [`NOW`].
pub(crate) fn clock() -> Clock {
    let clock = Clock::simulated();
    assert_eq!(clock.now().wall().as_secs(), NOW);
    clock
}
