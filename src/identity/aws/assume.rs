//! Roles that are assumed before the login, each with the credentials of the one before it (role chaining).
//!
//! Reference: <https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html>.

mod refusal;

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use aws_config::{Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_sdk_sts::config::IdentityCache;
use aws_sdk_sts::error::{ProvideErrorMetadata as _, SdkError};
use aws_sdk_sts::operation::assume_role::AssumeRoleError;
use aws_sdk_sts::types::Tag;

use super::chain::{PATIENCE, SPARE};
use super::refusal::Explained;
use crate::causes::causes;
use crate::lease::failure::{Class, Failure};

/// A role to assume, and what its session is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assume {
    /// The role: `arn:aws:iam::123456789012:role/orders-broker`.
    pub role_arn: String,
    /// What the role's trust policy may demand as `sts:ExternalId`. AWS does not take it for a secret.
    pub external_id: Option<String>,
    /// `RoleSessionName`, such as [`super::Session::name`].
    pub session_name: String,
    /// `SourceIdentity`; `None`: the one that the caller has, if any.
    pub source_identity: Option<String>,
    /// Session tags.
    pub tags: Vec<(String, String)>,
    /// How long the session lasts, in whole seconds: 15 minutes to 12 hours, an hour at most where the caller is a role
    /// itself.
    pub duration: Duration,
}

/// A role of the chain, with the session that is good now.
#[derive(Debug)]
pub(super) struct Hop {
    assume: Assume,
    kept: Mutex<Option<Credentials>>,
}

/// Where STS is asked.
pub(super) struct Sts<'a> {
    /// The endpoint (`AWS_ENDPOINT_URL_STS`), the HTTP client and the retries, as the standard chain found them.
    pub(super) sdk: &'a SdkConfig,
    pub(super) region: &'a str,
    pub(super) fips: bool,
}

/// Why a role was not assumed.
pub(super) struct Refused {
    pub(super) failure: Failure,
    /// Whether the caller's credentials must not be used again.
    pub(super) credentials: bool,
}

impl Hop {
    pub(super) fn new(assume: Assume) -> Self {
        Self { assume, kept: Mutex::default() }
    }

    pub(super) fn role_arn(&self) -> &str {
        &self.assume.role_arn
    }

    /// The session that was made last, while it is good for some time after `now`.
    pub(super) fn kept(&self, now: SystemTime) -> Option<Credentials> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone();
        kept.filter(|credentials| credentials.expiry().is_some_and(|end| end > now + SPARE))
    }

    pub(super) fn forget(&self) {
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Assumes the role with the `caller`'s credentials.
    pub(super) async fn session(&self, sts: &Sts<'_>, caller: Credentials) -> Result<Credentials, Refused> {
        let Assume { role_arn, external_id, session_name, source_identity, tags, duration } = &self.assume;
        let lost = |class, why: String| {
            let failure = Failure::new(class, format!("the role {role_arn} could not be assumed: {why}"));
            Err(Refused { failure, credentials: false })
        };
        let tagged: Result<Vec<Tag>, _> =
            tags.iter().map(|(key, value)| Tag::builder().key(key).value(value).build()).collect();
        let Ok(tagged) = tagged else {
            return lost(Class::Permanent, "its session tags cannot be built".to_owned());
        };
        let access_key = caller.access_key_id().to_owned();
        // A client for one call: the SDK would keep the caller's credentials for longer than we do.
        let config = aws_sdk_sts::config::Builder::from(sts.sdk)
            .region(Region::new(sts.region.to_owned()))
            .use_fips(sts.fips || sts.sdk.use_fips().unwrap_or(false))
            .identity_cache(IdentityCache::no_cache())
            .credentials_provider(caller)
            .build();
        let request = aws_sdk_sts::Client::from_conf(config)
            .assume_role()
            .role_arn(role_arn)
            .role_session_name(session_name)
            .set_external_id(external_id.clone())
            .set_source_identity(source_identity.clone())
            .set_tags((!tagged.is_empty()).then_some(tagged))
            .duration_seconds(i32::try_from(duration.as_secs()).unwrap_or(i32::MAX));
        let answer = match tokio::time::timeout(PATIENCE, Box::pin(request.send())).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(self.refused(&error, sts.region, &access_key)),
            Err(_) => return lost(Class::Transient, format!("STS did not answer within {PATIENCE:?}")),
        };
        let Some(ours) = answer.credentials() else {
            return lost(Class::Transient, "STS answered without credentials".to_owned());
        };
        let Ok(end) = SystemTime::try_from(*ours.expiration()) else {
            return lost(Class::Transient, "STS answered with an end that is no time".to_owned());
        };
        let session = Credentials::new(
            ours.access_key_id(),
            ours.secret_access_key(),
            Some(ours.session_token().to_owned()),
            Some(end),
            "an assumed role",
        );
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(session.clone());
        Ok(session)
    }

    fn refused(&self, error: &SdkError<AssumeRoleError>, region: &str, access_key: &str) -> Refused {
        let role_arn = &self.assume.role_arn;
        let SdkError::ServiceError(refusal) = error else {
            let class = match error {
                SdkError::ConstructionFailure(_) => Class::Permanent,
                _ => Class::Transient,
            };
            let why = causes(error);
            let message =
                format!("the role {role_arn} could not be assumed: cannot ask STS in {region}: {why}");
            return Refused { failure: Failure::new(class, message), credentials: false };
        };
        let status = refusal.raw().status().as_u16();
        let code = refusal.err().code().unwrap_or_default();
        // STS repeats the request that it did not find rightly signed, with the session token in it.
        let said = refusal.err().message().unwrap_or_default();
        let said = said.split("The Canonical String").next().unwrap_or_default().trim();
        let said: String = said.chars().take(600).collect();
        let attempt = refusal::Attempt { assume: &self.assume, region, access_key };
        let Explained { class, cure, credentials } = refusal::explained(&attempt, status, code, &said);
        let quoted = [code, &said].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(": ");
        let message = format!("STS answered {status} to sts:AssumeRole of {role_arn}: {quoted}");
        let message = format!("{}. {cure}", message.trim_end_matches(['.', ':', ' ']));
        let failure = Failure { status: Some(status), ..Failure::new(class, message.trim_end().to_owned()) };
        Refused { failure, credentials }
    }
}

#[cfg(test)]
mod tests;
