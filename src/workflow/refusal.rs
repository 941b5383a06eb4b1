//! What a call to Step Functions that failed means: the class, the cause, and what to change.
//!
//! Reference: <https://docs.aws.amazon.com/step-functions/latest/apireference/CommonErrors.html>.

use std::error::Error;
use std::time::Duration;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_sfn::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_sfn::operation::RequestId as _;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use crate::causes::causes;
use crate::lease::failure::{Class, Failure};
use crate::secret::Credential;

/// As much as is quoted of what was said.
const QUOTE: usize = 300;

/// What was asked.
pub(super) struct Asked<'a> {
    /// `DescribeExecution`.
    pub(super) action: &'static str,
    /// What an IAM policy has to allow it on.
    pub(super) resource: &'a str,
    /// The token that was sent, which no message may repeat.
    pub(super) token: Option<&'a Credential>,
    /// Who must be allowed to.
    pub(super) whose: &'static str,
}

/// What AWS calls the error, if it was Step Functions that answered.
pub(super) fn code<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> Option<&str> {
    // `com.amazonaws.states#TaskTimedOut`, from some.
    let code = error.as_service_error()?.code()?;
    Some(code.rsplit('#').next().unwrap_or(code))
}

/// Whether it was for want of AWS credentials: what the SDK has read of the environment and the files is stale then.
pub(super) fn is_for_credentials(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.is::<CredentialsError>() {
            return true;
        }
        next = error.source();
    }
    false
}

/// Classifies what is not an answer.
pub(super) fn failure<E>(asked: &Asked<'_>, error: &SdkError<E, HttpResponse>) -> Failure
where
    E: Error + ProvideErrorMetadata + 'static,
{
    let (class, cause) = match error {
        SdkError::ServiceError(_) => refused(asked, error),
        SdkError::TimeoutError(_) => (Class::Transient, "no answer in time".to_owned()),
        SdkError::ResponseError(_) => unexplained(error),
        SdkError::ConstructionFailure(_) | SdkError::DispatchFailure(_) if is_for_credentials(error) => {
            (Class::Transient, format!("AWS gave no credentials: {}", causes(error)))
        }
        SdkError::DispatchFailure(_) => (
            Class::Transient,
            format!(
                "it cannot be reached: {}. Check the route to it (a VPC endpoint for states) and AWS_ENDPOINT_URL_SFN",
                causes(error)
            ),
        ),
        _ => (Class::Permanent, format!("the request cannot be made: {}", causes(error))),
    };
    let hides = asked.token.is_none_or(|token| !cause.contains(token.expose()));
    let cause = if hides { cause } else { "it was refused, in words that repeat the task token".to_owned() };
    Failure {
        status: error.raw_response().map(|raw| raw.status().as_u16()),
        retry_after: error.raw_response().and_then(retry_after),
        request_id: error.request_id().map(str::to_owned),
        ..Failure::new(class, format!("Step Functions, {}: {cause}", asked.action))
    }
}

/// Step Functions, or what stands in for it, said no.
fn refused<E: ProvideErrorMetadata>(asked: &Asked<'_>, error: &SdkError<E, HttpResponse>) -> (Class, String) {
    let Asked { action, resource, whose, .. } = asked;
    let Some(code) = code(error) else { return unexplained(error) };
    let said = said(error);
    let with = |what: &str| {
        if said.is_empty() { format!("{code}. {what}") } else { format!("{said} ({code}). {what}") }
    };
    match code {
        "AccessDeniedException" | "AccessDenied" | "NotAuthorized" => (
            Class::Denied,
            with(&format!(
                "Allow states:{action} on {resource} in the IAM policy of {whose}, and in that of the VPC endpoint, if \
                 there is one"
            )),
        ),
        "KmsAccessDeniedException" => (
            Class::Denied,
            with(&format!(
                "The state machine is encrypted with a key of yours: allow kms:Decrypt on it to {whose}"
            )),
        ),
        "KmsInvalidStateException" => (
            Class::Permanent,
            with("The state machine's KMS key is disabled, or waits for its deletion: enable it"),
        ),
        "ExpiredTokenException" | "ExpiredToken" => (Class::Transient, with("New credentials are asked for")),
        "InvalidSignatureException" | "RequestExpired" | "SignatureDoesNotMatch" => (
            Class::Permanent,
            with("This machine's clock differs from AWS's, or the secret key is not that of the access key"),
        ),
        "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "IncompleteSignature"
        | "OptInRequired" => (
            Class::Permanent,
            with("AWS does not know these credentials there: check the role, and that the region is enabled"),
        ),
        // A page's token ran out while the pages were read: the next try begins anew.
        "InvalidToken" => (Class::Transient, with("The next try begins with the first page")),
        "InvalidArn" => (Class::Permanent, with("Correct the execution's ARN")),
        _ if code.contains("Throttl")
            || matches!(
                code,
                "TooManyRequestsException"
                    | "RequestLimitExceeded"
                    | "SlowDown"
                    | "PriorRequestNotComplete"
                    | "ServiceUnavailable"
                    | "ServiceUnavailableException"
                    | "InternalFailure"
                    | "InternalServerError"
                    | "InternalServerException"
            ) =>
        {
            (Class::Transient, with("Asked again later"))
        }
        _ => by_status(error, with("Nothing is known of that refusal")),
    }
}

/// Somebody answered with a status and nothing that explains it.
fn unexplained<E>(error: &SdkError<E, HttpResponse>) -> (Class, String) {
    let status = error.raw_response().map_or(0, |raw| raw.status().as_u16());
    if (200..300).contains(&status) {
        return (Class::Transient, "what answered is not Step Functions, or was cut short".to_owned());
    }
    by_status(
        error,
        format!(
            "it was answered with status {status} and no reason; if it stays so, check AWS_ENDPOINT_URL_SFN"
        ),
    )
}

fn by_status<E>(error: &SdkError<E, HttpResponse>, cause: String) -> (Class, String) {
    let status = error.raw_response().map_or(0, |raw| raw.status().as_u16());
    let passes = status >= 500 || matches!(status, 0 | 408 | 425 | 429);
    (if passes { Class::Transient } else { Class::Permanent }, cause)
}

/// What AWS said: one line, and not a page.
fn said<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> String {
    let said = error.as_service_error().and_then(ProvideErrorMetadata::message).unwrap_or_default();
    let line = said.trim_end_matches('.').chars().map(|c| if c.is_control() { ' ' } else { c });
    line.take(QUOTE).collect()
}

/// `Retry-After` in seconds, or `x-amz-retry-after` in milliseconds.
fn retry_after(raw: &HttpResponse) -> Option<Duration> {
    let header = |name| raw.headers().get(name)?.trim().parse::<u64>().ok();
    header("retry-after")
        .map(Duration::from_secs)
        .or_else(|| header("x-amz-retry-after").map(Duration::from_millis))
}
