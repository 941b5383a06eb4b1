//! The AWS IAM login: a `sts:GetCallerIdentity` request is signed here and sent to Vault, which has STS tell it whose
//! signature that is. The signed request itself is never sent to AWS by us.
//!
//! Reference: <https://developer.hashicorp.com/vault/docs/auth/aws#iam-auth-method>.

mod chain;
mod refusal;
mod sign;

use std::sync::Arc;

use aws_credential_types::provider::SharedCredentialsProvider;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use vaultrs::api::auth::aws::requests::IamLoginRequest;
use zeroize::Zeroize as _;

use self::chain::Chain;
use crate::lease::failure::{Class, Failure};
use crate::lease::upstream::{BoxFuture, CallId, Login, Minted, Token};
use crate::vault::{Ask, CONTROL_LIMIT, VaultClient, advised};

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
}

impl AwsLoginConfig {
    /// A role at the mount `aws`, everything else as the environment says.
    pub fn new(role: impl Into<String>) -> Self {
        Self { mount: "aws".to_owned(), role: role.into(), region: None, fips: false, server_id: None }
    }
}

/// The login by AWS IAM. AWS credentials are asked for when a login needs them: that they rotate causes none.
#[derive(Debug)]
pub struct AwsLogin {
    client: Arc<VaultClient>,
    config: AwsLoginConfig,
    chain: Chain,
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
        Self { client, config, chain }
    }

    /// With another provider: a role assumed beforehand, or a test's.
    #[must_use]
    pub fn with_credentials(
        client: Arc<VaultClient>,
        config: AwsLoginConfig,
        credentials: SharedCredentialsProvider,
    ) -> Self {
        let chain = Chain::of(credentials, config.region.clone());
        Self { client, config, chain }
    }

    async fn once(&self, call: CallId) -> Result<Minted<Token>, Failure> {
        let AwsLoginConfig { mount, role, .. } = &self.config;
        let wall = self.client.clock().now().system_time();
        let region = self.chain.region().await?;
        let credentials = self.chain.credentials(wall).await?;
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
        let ask = Ask { call: &call, token: None, limit: CONTROL_LIMIT };
        let sent = self.client.execute(ask, &request).await;
        request.iam_request_headers.zeroize();
        let reply = sent?;
        if reply.status.is_success() {
            let cure = format!("token_type=service and token_num_uses=0 on auth/{mount}/role/{role}");
            return self.client.token(&call, &reply, &cure).await;
        }
        let failure = reply.failure();
        let login =
            refusal::Attempt { mount, role, region: &region, access_key: credentials.access_key_id() };
        Err(match refusal::explained(&login, failure.status.unwrap_or(0), &reply.errors()) {
            Some(refusal::Explained { class, cure, credentials }) => {
                if credentials {
                    self.chain.forget();
                }
                advised(failure, &cure).decided(class)
            }
            // A login has no token that could be lost or lack a capability. What is not Vault's answer, but a proxy's, is
            // a wrong address most often: that ends the process at its start.
            None if matches!(failure.class, Class::Forbidden | Class::NotFound)
                || matches!(failure.status, Some(401 | 407)) =>
            {
                failure.decided(Class::Permanent)
            }
            None => failure,
        })
    }
}

impl Login for AwsLogin {
    fn login(&self, call: CallId) -> BoxFuture<'_, Result<Minted<Token>, Failure>> {
        Box::pin(self.once(call))
    }

    fn describe(&self) -> String {
        format!("aws role {} at auth/{}", self.config.role, self.config.mount)
    }
}

#[cfg(test)]
mod tests;
