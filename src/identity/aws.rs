//! The AWS IAM login: a `sts:GetCallerIdentity` request is signed here and sent to Vault, which has STS tell it whose
//! signature that is. The signed request itself is never sent to AWS by us.
//!
//! Reference: <https://developer.hashicorp.com/vault/docs/auth/aws#iam-auth-method>.

mod assume;
mod chain;
mod inspect;
mod refusal;
mod session;
mod sign;

use std::sync::Arc;
use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use vaultrs::api::auth::aws::requests::IamLoginRequest;
use zeroize::Zeroize as _;

pub use self::assume::Assume;
use self::assume::{Hop, Sts};
use self::chain::Chain;
pub use self::inspect::{Caller, Found, Inspected};
pub use self::session::{Session, Work};
use super::exchange::{self, Explained, Place};
use crate::lease::failure::Failure;
use crate::lease::upstream::{BoxFuture, CallId, Login, Minted, Token};
use crate::vault::VaultClient;

/// How to log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AwsLoginConfig {
    /// The path of Vault's AWS auth method, below `auth/`: `aws`.
    pub mount: String,
    /// The role there: `auth/<mount>/role/<role>`.
    pub role: String,
    /// The region whose STS is signed for. `None`: as the AWS SDKs find it (`AWS_REGION`, `AWS_DEFAULT_REGION`, the
    /// profile, the instance). `aws-global` is the legacy global endpoint.
    pub region: Option<String>,
    /// Sign for the region's FIPS endpoint of STS.
    pub fips: bool,
    /// `X-Vault-AWS-IAM-Server-ID`, where the auth method demands one: it keeps a login for one Vault from being
    /// replayed to another.
    pub server_id: Option<String>,
    /// Roles that are assumed before the login, in this order: the first with the credentials of the standard chain,
    /// each other with those of the one before it.
    pub assume: Vec<Assume>,
}

impl AwsLoginConfig {
    /// A role at the mount `aws`, everything else as the environment says.
    pub fn new(role: impl Into<String>) -> Self {
        Self {
            mount: "aws".to_owned(),
            role: role.into(),
            region: None,
            fips: false,
            server_id: None,
            assume: Vec::new(),
        }
    }
}

/// The login by AWS IAM. AWS credentials are asked for when a login needs them: that they rotate causes none.
#[derive(Debug)]
pub struct AwsLogin {
    client: Arc<VaultClient>,
    config: AwsLoginConfig,
    chain: Chain,
    hops: Vec<Hop>,
}

impl AwsLogin {
    /// With the standard AWS credential chain: the environment, a profile, web identity, the ECS (and EKS) container
    /// endpoint, the instance (IMDSv2). Nothing is looked up before the first login.
    ///
    /// Of profiles, static keys, `role_arn` with `source_profile` or `credential_source`, and web identity work;
    /// `sso_*`, `login_session` and `credential_process` are left out: they are for people's machines, and the last
    /// one runs programs. AWS's own `AWS_ENDPOINT_URL_STS` works for the calls that the chain itself makes to STS.
    #[must_use]
    pub fn new(client: Arc<VaultClient>, config: AwsLoginConfig) -> Self {
        let chain = Chain::standard(config.region.clone());
        Self::over(client, config, chain)
    }

    /// With another provider than the standard chain: a test's.
    #[must_use]
    pub fn with_credentials(
        client: Arc<VaultClient>,
        config: AwsLoginConfig,
        credentials: SharedCredentialsProvider,
    ) -> Self {
        let chain = Chain::of(credentials, config.region.clone());
        Self::over(client, config, chain)
    }

    fn over(client: Arc<VaultClient>, config: AwsLoginConfig, chain: Chain) -> Self {
        let hops = config.assume.iter().cloned().map(Hop::new).collect();
        Self { client, config, chain, hops }
    }

    /// The credentials that the login is signed with: those of the last role, or of the chain where there is none.
    async fn credentials(&self, region: &str, now: SystemTime) -> Result<Credentials, Failure> {
        let good = self.hops.iter().enumerate().rev().find_map(|(i, hop)| Some((i + 1, hop.kept(now)?)));
        let (from, mut credentials) = match good {
            Some(good) => good,
            None => (0, self.chain.credentials(now).await?),
        };
        for hop in &self.hops[from..] {
            let sdk = self.chain.loaded().await;
            let sts = Sts { sdk: &sdk, region, fips: self.config.fips };
            credentials = hop.session(&sts, credentials).await.map_err(|refused| {
                if refused.credentials {
                    self.forget();
                }
                refused.failure
            })?;
        }
        Ok(credentials)
    }

    /// The credentials that were used last were refused: all are asked for anew next time.
    fn forget(&self) {
        self.chain.forget();
        self.hops.iter().for_each(Hop::forget);
    }

    async fn once(&self, call: CallId) -> Result<Minted<Token>, Failure> {
        let AwsLoginConfig { mount, role, .. } = &self.config;
        let wall = self.client.clock().now().system_time();
        let region = self.chain.region().await?;
        let credentials = self.credentials(&region, wall).await?;
        // The provider may have taken its time: the signature's date is read after it.
        let time = self.client.clock().now().system_time();
        let endpoint = sign::StsEndpoint::new(&region, self.config.fips)?;
        let signed = sign::caller_identity(&endpoint, &credentials, self.config.server_id.as_deref(), time)?;
        let mut request = IamLoginRequest {
            mount: mount.clone(),
            role: Some(role.clone()),
            iam_http_request_method: "POST".to_owned(),
            iam_request_url: STANDARD.encode(&endpoint.url),
            iam_request_body: STANDARD.encode(sign::BODY),
            iam_request_headers: STANDARD.encode(&*signed),
        };
        let path = format!("auth/{mount}/role/{role}");
        let place = Place { method: "aws", mount, role: &path };
        let attempt =
            refusal::Attempt { mount, role, region: &region, access_key: credentials.access_key_id() };
        let explain = |_, said: &str| {
            let refusal::Explained { class, cure, credentials } = refusal::explained(&attempt, said)?;
            if credentials {
                self.forget();
            }
            Some(Explained { class, cure })
        };
        let result = exchange::login(&self.client, &call, &place, &request, explain).await;
        request.iam_request_headers.zeroize();
        result
    }
}

impl Login for AwsLogin {
    fn login(&self, call: CallId) -> BoxFuture<'_, Result<Minted<Token>, Failure>> {
        Box::pin(self.once(call))
    }

    fn describe(&self) -> String {
        let mut text = format!("aws role {} at auth/{}", self.config.role, self.config.mount);
        let mut roles = self.hops.iter().rev().map(Hop::role_arn);
        if let Some(last) = roles.next() {
            text.push_str(" as ");
            text.push_str(last);
        }
        for before in roles {
            text.push_str(" through ");
            text.push_str(before);
        }
        text
    }
}

#[cfg(test)]
mod tests;
