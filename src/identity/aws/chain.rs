//! AWS credentials and the region, as every AWS SDK finds them; looked up at the first login.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials as _, SharedCredentialsProvider};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use tokio::sync::OnceCell;

use crate::aws::LazyTls;
use crate::causes::causes;
use crate::lease::failure::{Class, Failure};

/// Credentials are asked for anew when less than this is left of them: Vault, STS and our clock may disagree.
pub(super) const SPARE: Duration = Duration::from_secs(60);

/// For one look-up along the whole chain, with the SDK's own retries: an endpoint that hangs must not hang the login.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

const LOOKED_AT: &str = "looked at the environment (AWS_ACCESS_KEY_ID), the profile (AWS_PROFILE), web identity \
     (AWS_WEB_IDENTITY_TOKEN_FILE), the container endpoint (AWS_CONTAINER_CREDENTIALS_RELATIVE_URI or _FULL_URI) and \
     the instance (IMDSv2)";

/// Where the credentials come from.
#[derive(Debug)]
pub(super) struct Chain {
    /// `None`: the standard chain.
    given: Option<SharedCredentialsProvider>,
    /// Where it is configured, the chain is not asked for it: on an instance that would be a request.
    region: Option<String>,
    /// Loaded at the first login, and anew after a failure: the SDK reads files and the environment but once.
    standard: Mutex<Arc<OnceCell<SdkConfig>>>,
    /// What expires is kept until shortly before: the container endpoint answers 429 to bursts, and a login that is
    /// retried should not ask again. What does not expire is not kept: a file may be replaced.
    kept: Mutex<Option<Credentials>>,
    succeeded: AtomicBool,
    /// One for all calls to AWS that are ours.
    http: SharedHttpClient,
}

impl Chain {
    pub(super) fn standard(region: Option<String>) -> Self {
        Self {
            given: None,
            region,
            standard: Mutex::default(),
            kept: Mutex::default(),
            succeeded: AtomicBool::new(false),
            http: SharedHttpClient::new(LazyTls::default()),
        }
    }

    pub(super) fn of(credentials: SharedCredentialsProvider, region: Option<String>) -> Self {
        Self { given: Some(credentials), ..Self::standard(region) }
    }

    /// With another HTTP client: a test's.
    #[cfg(test)]
    pub(super) fn over(self, http: SharedHttpClient) -> Self {
        Self { http, ..self }
    }

    /// The region: the configured one, or what the standard chain finds.
    pub(super) async fn region(&self) -> Result<String, Failure> {
        if let Some(region) = &self.region {
            return Ok(region.clone());
        }
        self.loaded().await.region().map(ToString::to_string).ok_or_else(|| {
            self.reload();
            Failure::new(
                Class::Permanent,
                "no AWS region: set it in the configuration or as AWS_REGION (looked at AWS_REGION, \
                 AWS_DEFAULT_REGION, the profile and the instance)",
            )
        })
    }

    /// Credentials that are good at `now`.
    pub(super) async fn credentials(&self, now: SystemTime) -> Result<Credentials, Failure> {
        let fresh = |credentials: &Credentials| credentials.expiry().is_some_and(|end| end > now + SPARE);
        if let Some(kept) = self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone().filter(fresh) {
            return Ok(kept);
        }
        let provider = match &self.given {
            Some(provider) => provider.clone(),
            None => self.loaded().await.credentials_provider().ok_or_else(none_found)?,
        };
        let asked = tokio::time::timeout(PATIENCE, provider.provide_credentials()).await;
        match asked.unwrap_or_else(|_| Err(CredentialsError::provider_timed_out(PATIENCE))) {
            Ok(credentials) => {
                self.succeeded.store(true, Ordering::Relaxed);
                *self.kept.lock().unwrap_or_else(PoisonError::into_inner) =
                    Some(credentials.clone()).filter(|credentials| fresh(credentials));
                Ok(credentials)
            }
            Err(error) => {
                self.reload();
                Err(self.failure(&error))
            }
        }
    }

    /// The credentials that were last given out were refused: ask the provider next time.
    pub(super) fn forget(&self) {
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// What the standard chain found beside credentials: endpoints, retries, the HTTP client.
    pub(super) async fn loaded(&self) -> SdkConfig {
        let cell = Arc::clone(&self.standard.lock().unwrap_or_else(PoisonError::into_inner));
        let load = || {
            // Large: boxed, so that every login's future is not as large.
            let loader = aws_config::defaults(BehaviorVersion::latest()).http_client(self.http.clone());
            Box::pin(match &self.region {
                Some(region) => loader.region(Region::new(region.clone())).load(),
                None => loader.load(),
            })
        };
        cell.get_or_init(load).await.clone()
    }

    fn reload(&self) {
        *self.standard.lock().unwrap_or_else(PoisonError::into_inner) = Arc::default();
    }

    fn failure(&self, error: &CredentialsError) -> Failure {
        let said = causes(error);
        match error {
            // Once there were some, that there are none now will pass: an endpoint that does not answer in time looks
            // like one that is not there.
            CredentialsError::CredentialsNotLoaded(_) if !self.succeeded.load(Ordering::Relaxed) => {
                none_found()
            }
            // The SDK's words about a feature are meant for who builds it.
            CredentialsError::InvalidConfiguration(_) if said.contains("cargo feature") => Failure::new(
                Class::Permanent,
                "the AWS profile asks for sso, login_session or credential_process, which Tenure leaves out: give it \
                 static keys, role_arn or web_identity_token_file, or set the credentials in the environment",
            ),
            CredentialsError::InvalidConfiguration(_) => Failure::new(
                Class::Permanent,
                format!("the AWS credentials are not configured correctly: {said}"),
            ),
            _ if said.contains("No such file") => Failure::new(
                Class::Transient,
                format!(
                    "AWS gave no credentials yet: {said} (the file named by AWS_WEB_IDENTITY_TOKEN_FILE, \
                     AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE or the profile)"
                ),
            ),
            // STS on web identity: the trust policy or the token's issuer is wrong.
            CredentialsError::ProviderError(_)
                if said.contains("AccessDenied") || said.contains("InvalidIdentityToken") =>
            {
                Failure::new(
                    Class::Permanent,
                    format!("AWS refused to give credentials: {said}. Check the role's trust policy"),
                )
            }
            _ => Failure::new(Class::Transient, format!("AWS gave no credentials yet: {said}")),
        }
    }
}

fn none_found() -> Failure {
    Failure::new(
        Class::Permanent,
        format!("no AWS credentials: {LOOKED_AT}. Give the task, function or instance an IAM role"),
    )
}
