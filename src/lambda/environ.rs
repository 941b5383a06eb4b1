//! What Lambda says of the function in the environment of its processes.
//!
//! <https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html>

use crate::config::Environment;
use crate::run::lambda::Lambda;

/// What Lambda says.
#[derive(Clone, Debug)]
pub struct AwsEnv {
    /// `AWS_LAMBDA_RUNTIME_API`: host and port of the Runtime, Extensions and Telemetry APIs.
    pub api: String,
    /// How the environment came to be.
    pub start: Start,
    /// The function, as its runs name it.
    pub function: Lambda,
}

/// `AWS_LAMBDA_INITIALIZATION_TYPE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// For an invocation that waits, or ahead of any (provisioned concurrency): what is made now is used by this
    /// environment and no other.
    Ordinary,
    /// A snapshot is made after the start, and any number of environments begin from it, perhaps days later.
    Snapshot,
    /// Managed instances: one environment serves many invocations at a time, and is never frozen. Extensions are not told
    /// of invocations; telemetry is.
    Concurrent,
}

impl AwsEnv {
    /// Reads it; `None` where the process was not started by Lambda.
    #[must_use]
    pub fn read(environment: &Environment) -> Option<Self> {
        let var = |name| environment.var(name).unwrap_or_default().into();
        Some(Self {
            api: environment.var("AWS_LAMBDA_RUNTIME_API")?.to_owned(),
            start: match environment.var("AWS_LAMBDA_INITIALIZATION_TYPE") {
                Some("snap-start") => Start::Snapshot,
                Some("lambda-managed-instances") => Start::Concurrent,
                _ => Start::Ordinary,
            },
            function: Lambda {
                function: var("AWS_LAMBDA_FUNCTION_NAME"),
                version: var("AWS_LAMBDA_FUNCTION_VERSION"),
                log_stream: var("AWS_LAMBDA_LOG_STREAM_NAME"),
                invocation: None,
                trace: None,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_snap_start_is_a_snapshot_and_provisioned_concurrency_is_none() {
        let start = |kind: &str| {
            let vars =
                [("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9001"), ("AWS_LAMBDA_INITIALIZATION_TYPE", kind)];
            AwsEnv::read(&vars.into_iter().collect()).expect("it is Lambda").start
        };
        assert_eq!(start("snap-start"), Start::Snapshot);
        assert_eq!(start("provisioned-concurrency"), Start::Ordinary);
        assert_eq!(start("on-demand"), Start::Ordinary);
        assert_eq!(start("lambda-managed-instances"), Start::Concurrent);
        assert_eq!(start("what comes next"), Start::Ordinary);
        assert!(AwsEnv::read(&Environment::default()).is_none());
    }
}
