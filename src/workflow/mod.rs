//! What AWS knows of a run: Step Functions, asked with the task's own role, and the ECS task metadata endpoint.
//!
//! Nothing is looked up or connected to before the first call. A call is tried once: whoever asks knows when to ask
//! again, and keeps to a budget ([`crate::run::budget`]). An auditor's command, which asks for whole histories ([`past`]), has
//! nobody to ask again for it: it waits as AWS's tools do.

pub mod ecs;
mod evidence;
mod history;
pub mod past;
mod refusal;

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_config::{BehaviorVersion, SdkConfig};
use aws_sdk_sfn::Client;
use aws_sdk_sfn::config::Region;
use aws_sdk_sfn::config::retry::RetryConfig;
use aws_sdk_sfn::config::timeout::TimeoutConfig;
use aws_sdk_sfn::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_sfn::types::{ExecutionStatus as Status, IncludedData};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use tokio::sync::OnceCell;

use self::evidence::evidence;
use self::refusal::Asked;
use crate::aws::LazyTls;
use crate::lease::failure::{Class, Failure};
use crate::lease::upstream::BoxFuture;
use crate::run::arn::{ExecutionArn, Flow};
use crate::run::workflow::{Beat, Claim, Evidence, ExecutionStatus, Workflow};
use crate::secret::Credential;

/// For a connection to stand.
const CONNECT: Duration = Duration::from_secs(5);

/// For one call, with everything that it takes: the region, credentials, the connection.
const PATIENCE: Duration = Duration::from_secs(10);

/// The most events that one page may have, as documented.
const PAGE: i32 = 1_000;

/// As many pages are read of a history, the newest first. One has at most 25,000 events.
const PAGES: usize = 10;

/// Step Functions. Cheap to clone.
///
/// The calls need `states:SendTaskHeartbeat` on `*` (for the tokens of one state machine, on its ARN), and
/// `states:DescribeExecution` and `states:GetExecutionHistory` on
/// `arn:aws:states:<region>:<account>:execution:<state machine>:*`; where the state machine has a KMS key of its own, the
/// last also needs `kms:Decrypt`.
#[derive(Clone)]
pub struct StepFunctions(Arc<Inner>);

struct Inner {
    /// The region of heartbeats. `None`: as the chain finds it.
    region: Option<Region>,
    /// Loaded at the first call, and anew when there were no credentials, or they had expired: the SDK reads files and the environment but once.
    loaded: Mutex<Arc<OnceCell<SdkConfig>>>,
    /// One for each region that executions are in; `None`: the heartbeats'.
    clients: Mutex<HashMap<Option<String>, Client>>,
    patience: Duration,
    /// How often a call is tried, with pauses as AWS's tools make them.
    tries: u32,
    /// Who needs the permissions, for messages.
    whose: &'static str,
}

impl fmt::Debug for StepFunctions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StepFunctions").field("region", &self.0.region).finish_non_exhaustive()
    }
}

impl StepFunctions {
    /// With the standard AWS credential chain: in a task, its own role. Nothing is looked up before the first call.
    ///
    /// `region` is that of heartbeats, `None` as the AWS SDKs find it; an execution is asked for in the region that its
    /// ARN names. `AWS_ENDPOINT_URL_SFN` and `AWS_ENDPOINT_URL` name another endpoint, for every region.
    #[must_use]
    pub fn new(region: Option<String>) -> Self {
        Self::made(region.map(Region::new), OnceCell::new(), PATIENCE, 1)
    }

    fn made(region: Option<Region>, loaded: OnceCell<SdkConfig>, patience: Duration, tries: u32) -> Self {
        Self(Arc::new(Inner {
            region,
            loaded: Mutex::new(Arc::new(loaded)),
            clients: Mutex::default(),
            patience,
            tries,
            whose: if tries > 1 { "whoever runs this" } else { "the task's role" },
        }))
    }

    /// The client for a region.
    async fn client(&self, region: Option<&str>) -> Result<Client, Failure> {
        let key = region.map(str::to_owned);
        let clients = || self.0.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients().get(&key) {
            return Ok(client.clone());
        }
        let loaded = self.loaded().await;
        let region = key.clone().map(Region::new).or_else(|| loaded.region().cloned()).ok_or_else(|| {
            self.forget();
            Failure::new(
                Class::Permanent,
                "no AWS region to send heartbeats to: set it as AWS_REGION (looked at AWS_REGION, AWS_DEFAULT_REGION, \
                 the profile and the instance)",
            )
        })?;
        let config = aws_sdk_sfn::config::Builder::from(&loaded)
            .region(region)
            .retry_config(match self.0.tries {
                0 | 1 => RetryConfig::disabled(),
                tries => RetryConfig::standard().with_max_attempts(tries),
            })
            .timeout_config(TimeoutConfig::builder().connect_timeout(CONNECT).build())
            .build();
        let client = Client::from_conf(config);
        // Two that came at once made one each: the later one stays.
        clients().insert(key, client.clone());
        Ok(client)
    }

    async fn loaded(&self) -> SdkConfig {
        let cell = Arc::clone(&self.0.loaded.lock().unwrap_or_else(PoisonError::into_inner));
        let load = || {
            let loader = aws_config::defaults(BehaviorVersion::latest())
                .http_client(SharedHttpClient::new(LazyTls::default()));
            // Large: boxed, so that every call's future is not as large.
            Box::pin(match &self.0.region {
                Some(region) => loader.region(region.clone()).load(),
                None => loader.load(),
            })
        };
        cell.get_or_init(load).await.clone()
    }

    fn forget(&self) {
        *self.0.loaded.lock().unwrap_or_else(PoisonError::into_inner) = Arc::default();
        self.0.clients.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// One call, within its time.
    async fn within<T>(
        &self,
        asked: &Asked<'_>,
        call: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        tokio::time::timeout(self.0.patience, call).await.unwrap_or_else(|_| {
            let waited = self.0.patience.as_secs_f64();
            Err(Failure::new(
                Class::Transient,
                format!("Step Functions, {}: no answer within {waited} s", asked.action),
            ))
        })
    }

    fn failed<E>(&self, asked: &Asked<'_>, error: &SdkError<E, HttpResponse>) -> Failure
    where
        E: Error + ProvideErrorMetadata + 'static,
    {
        if refusal::is_for_credentials(error)
            || refusal::code(error).is_some_and(|code| code.starts_with("Expired"))
        {
            self.forget();
        }
        refusal::failure(asked, error)
    }

    async fn beat(&self, task_token: &Credential) -> Result<Beat, Failure> {
        let asked = Asked {
            action: "SendTaskHeartbeat",
            resource: "\"*\" (or, for the tokens of one state machine, on its ARN)",
            token: Some(task_token),
            whose: self.0.whose,
        };
        let call = async {
            let client = self.client(None).await?;
            let sent = client.send_task_heartbeat().task_token(task_token.expose()).send().await;
            let Err(error) = sent else { return Ok(Beat::Alive) };
            match refusal::code(&error) {
                Some("TaskTimedOut") => Ok(Beat::TimedOut),
                Some("TaskDoesNotExist") => Ok(Beat::Gone),
                // The token is all that a heartbeat says: one that is too long to be one is no token either.
                Some("InvalidToken" | "ValidationException") => Ok(Beat::Invalid),
                _ => Err(self.failed(&asked, &error)),
            }
        };
        self.within(&asked, call).await
    }

    async fn status(&self, execution: &ExecutionArn) -> Result<Option<ExecutionStatus>, Failure> {
        let resource = all_of(execution);
        let whose = self.0.whose;
        let asked = Asked { action: "DescribeExecution", resource: &resource, token: None, whose };
        let call = async {
            let client = self.client(Some(execution.region())).await?;
            // Its input and output are no business of ours, and to decrypt them would take a permission.
            let described = client
                .describe_execution()
                .execution_arn(execution.as_str())
                .included_data(IncludedData::MetadataOnly)
                .send()
                .await;
            match described {
                Ok(described) => status(&asked, described.status()).map(Some),
                Err(error) if refusal::code(&error) == Some("ExecutionDoesNotExist") => Ok(None),
                Err(error) => Err(self.failed(&asked, &error)),
            }
        };
        self.within(&asked, call).await
    }

    async fn judged(&self, execution: &ExecutionArn, claim: Claim<'_>) -> Result<Evidence, Failure> {
        let resource = all_of(execution);
        let token = claim.task_token;
        let asked = Asked { action: "GetExecutionHistory", resource: &resource, token, whose: self.0.whose };
        let mut events = Vec::new();
        let mut next = None;
        for _ in 0..PAGES {
            let call = async {
                let client = self.client(Some(execution.region())).await?;
                let page = client
                    .get_execution_history()
                    .execution_arn(execution.as_str())
                    .reverse_order(true)
                    .max_results(PAGE)
                    .include_execution_data(true)
                    .set_next_token(next.take())
                    .send()
                    .await;
                match page {
                    Ok(page) => Ok(Some(page)),
                    Err(error) if refusal::code(&error) == Some("ExecutionDoesNotExist") => Ok(None),
                    Err(error) => Err(self.failed(&asked, &error)),
                }
            };
            let Some(page) = self.within(&asked, call).await? else { return Ok(Evidence::default()) };
            events.extend(page.events.into_iter().map(history::event));
            let found = evidence(&events, &claim);
            next = page.next_token;
            if next.is_none() || answers(found, &claim) {
                return Ok(found);
            }
        }
        tracing::warn!(
            %execution,
            events = events.len(),
            "the execution's history is longer than is read of it: what older events say is not counted"
        );
        Ok(evidence(&events, &claim))
    }
}

impl Workflow for StepFunctions {
    fn heartbeat<'a>(&'a self, task_token: &'a Credential) -> BoxFuture<'a, Result<Beat, Failure>> {
        Box::pin(self.beat(task_token))
    }

    fn describe<'a>(
        &'a self,
        execution: &'a ExecutionArn,
    ) -> BoxFuture<'a, Result<Option<ExecutionStatus>, Failure>> {
        match execution.flow() {
            Flow::Express => Box::pin(std::future::ready(Ok(None))),
            Flow::Standard => Box::pin(self.status(execution)),
        }
    }

    fn history<'a>(
        &'a self,
        execution: &'a ExecutionArn,
        claim: Claim<'a>,
    ) -> BoxFuture<'a, Result<Evidence, Failure>> {
        match execution.flow() {
            Flow::Express => Box::pin(std::future::ready(Ok(Evidence::default()))),
            Flow::Standard => Box::pin(self.judged(execution, claim)),
        }
    }
}

/// Whether there is nothing more that older events could add.
fn answers(found: Evidence, claim: &Claim<'_>) -> bool {
    found.in_progress
        && (found.names_task || claim.task_arn.is_none())
        && (found.names_token || claim.task_token.is_none())
}

/// What an IAM policy names: all executions of the state machine.
fn all_of(execution: &ExecutionArn) -> String {
    let machine = execution.as_str().rsplit_once(':').map_or(execution.as_str(), |(machine, _)| machine);
    format!("{machine}:*")
}

fn status(asked: &Asked<'_>, status: &Status) -> Result<ExecutionStatus, Failure> {
    Ok(match status {
        Status::Running => ExecutionStatus::Running,
        Status::PendingRedrive => ExecutionStatus::PendingRedrive,
        Status::Succeeded => ExecutionStatus::Succeeded,
        Status::Failed => ExecutionStatus::Failed,
        Status::TimedOut => ExecutionStatus::TimedOut,
        Status::Aborted => ExecutionStatus::Aborted,
        other => {
            return Err(Failure::new(
                Class::Transient,
                format!(
                    "Step Functions, {}: the execution's status is {:?}, of which nothing is known",
                    asked.action,
                    other.as_str()
                ),
            ));
        }
    })
}

#[cfg(test)]
mod tests;
