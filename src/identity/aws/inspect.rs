//! What a login would be signed with, for those who want to know it apart from the login.
//!
//! Other than a login, this asks STS itself whose credentials these are. That a machine cannot reach STS is no fault: it is
//! Vault that has to.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use aws_config::Region;
use aws_credential_types::Credentials;
use aws_credential_types::credential_feature::AwsCredentialFeature;
use aws_sdk_sts::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_sts::config::retry::RetryConfig;
use aws_sdk_sts::config::{ConfigBag, IdentityCache, Intercept, RuntimeComponents};
use aws_sdk_sts::error::{ProvideErrorMetadata as _, SdkError};
use aws_smithy_runtime_api::box_error::BoxError;

use super::{AwsLogin, refusal};
use crate::causes::causes;
use crate::clock::{Clock, Moment};
use crate::lease::failure::{Class, Failure};

/// For STS to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What was found of the credentials.
#[derive(Debug)]
pub struct Inspected {
    /// The region whose STS is signed for.
    pub region: Result<String, Failure>,
    /// The credentials of the last role that is assumed, or of the chain.
    pub credentials: Result<Found, Failure>,
    /// What STS made of them; `None` without credentials or region.
    pub caller: Option<Caller>,
}

/// Credentials, without what is secret of them.
#[derive(Debug)]
pub struct Found {
    /// Where they come from, where the SDK says it.
    pub source: Option<&'static str>,
    /// The access key's id.
    pub access_key: String,
    /// For how long they are good; `None`: until they are replaced.
    pub left: Option<Duration>,
}

/// What STS said.
#[derive(Debug)]
pub struct Caller {
    /// The ARN of whose credentials these are. [`Class::Transient`]: STS could not be asked.
    pub arn: Result<String, Failure>,
    /// The `Date` of its answer, and when that came.
    pub date: Option<(SystemTime, Moment)>,
}

impl AwsLogin {
    /// Looks for a region and for credentials as a login does, and asks STS whose they are.
    pub async fn inspect(&self) -> Inspected {
        let now = self.client.clock().now().system_time();
        let region = self.chain.region().await;
        let credentials = match &region {
            Ok(region) => self.credentials(region, now).await,
            Err(_) => self.chain.credentials(now).await,
        };
        let caller = match (&region, &credentials) {
            (Ok(region), Ok(credentials)) => Some(self.caller(region, credentials.clone()).await),
            _ => None,
        };
        let credentials = credentials.map(|credentials| Found {
            source: source(&credentials),
            access_key: credentials.access_key_id().to_owned(),
            left: credentials.expiry().map(|end| end.duration_since(now).unwrap_or_default()),
        });
        Inspected { region, credentials, caller }
    }

    async fn caller(&self, region: &str, credentials: Credentials) -> Caller {
        let sdk = self.chain.loaded().await;
        let access_key = credentials.access_key_id().to_owned();
        let heard = Heard { clock: self.client.clock().clone(), date: Arc::default() };
        let config = aws_sdk_sts::config::Builder::from(&sdk)
            .region(Region::new(region.to_owned()))
            .use_fips(self.config.fips || sdk.use_fips().unwrap_or(false))
            .identity_cache(IdentityCache::no_cache())
            .retry_config(RetryConfig::disabled())
            .interceptor(heard.clone())
            .credentials_provider(credentials)
            .build();
        let request = aws_sdk_sts::Client::from_conf(config).get_caller_identity();
        let arn = match tokio::time::timeout(PATIENCE, Box::pin(request.send())).await {
            Ok(Ok(answer)) => Ok(answer.arn().unwrap_or_default().to_owned()),
            Ok(Err(SdkError::ServiceError(refused))) => {
                let code = refused.err().code().unwrap_or_default();
                let said = format!("{code}: {}", refused.err().message().unwrap_or_default());
                // STS repeats the request that it did not find rightly signed, with the session token in it.
                let said = said.split("The Canonical String").next().unwrap_or_default().trim();
                let said: String = said.chars().take(300).collect();
                let (mount, role) = (self.config.mount.as_str(), self.config.role.as_str());
                let attempt = refusal::Attempt { mount, role, region, access_key: &access_key };
                let cure = refusal::explained(&attempt, &said).map(|it| it.cure).unwrap_or_default();
                let message =
                    format!("STS refuses the credentials: {}. {cure}", said.trim_end_matches(['.', ':']));
                Err(Failure::new(Class::Permanent, message.trim_end().to_owned()))
            }
            Ok(Err(error)) => Err(unreachable(region, &causes(&error))),
            Err(_) => Err(unreachable(region, &format!("no answer within {PATIENCE:?}"))),
        };
        let date = *heard.date.lock().unwrap_or_else(PoisonError::into_inner);
        Caller { arn, date }
    }
}

fn unreachable(region: &str, why: &str) -> Failure {
    Failure::new(Class::Transient, format!("STS in {region} cannot be asked from here: {why}"))
}

/// The provider that gave them.
fn source(credentials: &Credentials) -> Option<&'static str> {
    use AwsCredentialFeature as Feature;
    let features = credentials.get_property::<Vec<AwsCredentialFeature>>()?;
    // The first one found is what the credentials hang off in the end: a role's are listed before what assumed it.
    features.iter().find_map(|feature| {
        Some(match feature {
            Feature::CredentialsEnvVars => "the environment",
            Feature::CredentialsHttp => "the container endpoint",
            Feature::CredentialsImds => "the instance (IMDS)",
            Feature::CredentialsStsAssumeRoleWebId
            | Feature::CredentialsEnvVarsStsWebIdToken
            | Feature::CredentialsProfileStsWebIdToken => "web identity",
            Feature::CredentialsProfile | Feature::CredentialsProfileSourceProfile => "the profile",
            _ => return None,
        })
    })
}

/// Notes the `Date` of an answer.
#[derive(Clone, Debug)]
struct Heard {
    clock: Clock,
    date: Arc<Mutex<Option<(SystemTime, Moment)>>>,
}

impl Intercept for Heard {
    fn name(&self) -> &'static str {
        "the date of STS"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let date =
            context.response().headers().get("date").and_then(|date| httpdate::parse_http_date(date).ok());
        let heard = date.map(|date| (date, self.clock.now()));
        *self.date.lock().unwrap_or_else(PoisonError::into_inner) = heard;
        Ok(())
    }
}
