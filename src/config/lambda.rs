//! `[lambda]`: what is particular to the extension.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::document::Document;
use super::problem::Origin;
use super::raw::RawDuration;
use super::validate::{Check, SECOND};

/// The doors of a Lambda function where nobody says which of these there are to be.
const DOORS: &[(&str, &str)] = &[
    ("listen.unix.path", "/tmp/tenure/tenure.sock"),
    ("listen.tcp.address", "127.0.0.1:8200"),
    ("listen.tcp.token_file", "/tmp/tenure/token"),
];

/// The folder of what is made there by default.
pub const FOLDER: &str = "/tmp/tenure";

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawLambda {
    /// Whose token invocations read with: "environment", one run token for the execution environment, whose leases all
    /// its invocations share; "invocation", a run token for each, which is revoked with it: every invocation then costs
    /// Vault two writes, and what it reads besides. Default: "environment". Environment: TENURE_LAMBDA_RUN.
    pub(crate) run: Option<LambdaRun>,
    /// What is done where the login or a prefetch fails while the function starts: "lazy", it is tried again when
    /// something is read; "fail", the start of the function fails. Default: "lazy". Environment: TENURE_LAMBDA_INIT.
    pub(crate) init: Option<LambdaInit>,
    /// How long the login and the prefetches may hold up the function's start; Lambda itself allows 10 s. Default: "8s".
    #[schemars(extend("default" = "8s"))]
    pub(crate) init_timeout: Option<RawDuration>,
}

/// Whose token invocations read with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum LambdaRun {
    /// The environment's.
    #[default]
    Environment,
    /// Their own.
    Invocation,
}

/// What is done where the start fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum LambdaInit {
    /// It is tried again when something is read.
    #[default]
    Lazy,
    /// The function does not start.
    Fail,
}

/// What is particular to the Lambda extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lambda {
    /// Whose token invocations read with.
    pub run: LambdaRun,
    /// What is done where the login or a prefetch fails at the start.
    pub init: LambdaInit,
    /// How long the start may take.
    pub init_timeout: Duration,
}

impl Check<'_> {
    pub(super) fn lambda(&mut self, raw: &RawLambda) -> Lambda {
        let timeout = raw.init_timeout.as_ref();
        Lambda {
            run: raw.run.unwrap_or_default(),
            init: raw.init.unwrap_or_default(),
            init_timeout: self.duration("lambda.init_timeout", timeout, 8 * SECOND, SECOND / 10, 10 * SECOND),
        }
    }
}

/// Fills in what a Lambda function needs where nothing was said of it: doors, and an audit log that goes where the
/// function's own log goes.
pub(crate) fn defaults(document: &mut Document) {
    let listen = document.root.get("listen").and_then(toml::Value::as_table);
    if !listen.is_some_and(|listen| listen.contains_key("unix") || listen.contains_key("tcp")) {
        for (key, value) in DOORS {
            document.set(key, value, Origin::Default);
        }
    }
    if !document.root.contains_key("audit") {
        let stdout = toml::Table::from_iter([("stdout".to_owned(), toml::Value::Boolean(true))]);
        document.root.insert("audit".to_owned(), toml::Value::Table(stdout));
    }
}

pub(super) fn word(config: &Lambda) -> [(&'static str, &'static str); 2] {
    let run = match config.run {
        LambdaRun::Environment => "environment",
        LambdaRun::Invocation => "invocation",
    };
    let init = match config.init {
        LambdaInit::Lazy => "lazy",
        LambdaInit::Fail => "fail",
    };
    [("lambda.run", run), ("lambda.init", init)]
}
