//! `[lambda]`: what is particular to the extension.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::document::Document;
use super::environment::Environment;
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
    #[schemars(extend("default" = "environment"))]
    pub(crate) run: Option<LambdaRun>,
    /// What is done where the login or a prefetch fails while the function starts: "lazy", the function starts without,
    /// and it is tried further; "fail", the start of the function fails. Default: "lazy". Environment:
    /// TENURE_LAMBDA_INIT.
    #[schemars(extend("default" = "lazy"))]
    pub(crate) init: Option<LambdaInit>,
    /// How long the login and the prefetches may hold up the function's start; Lambda itself allows 10 s. Default: "8s".
    #[schemars(extend("default" = "8s"))]
    pub(crate) init_timeout: Option<RawDuration>,
    /// Whether metrics are printed for CloudWatch, in its embedded metric format: "off", "on". Default: "off".
    /// Environment: TENURE_LAMBDA_METRICS.
    #[schemars(extend("default" = "off"))]
    pub(crate) metrics: Option<Metrics>,
    /// The namespace of those metrics. Default: "Tenure".
    #[schemars(extend("default" = "Tenure"))]
    pub(crate) namespace: Option<String>,
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
    /// The function starts without, and it is tried further.
    #[default]
    Lazy,
    /// The function does not start.
    Fail,
}

/// Whether metrics are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(crate) enum Metrics {
    #[default]
    Off,
    On,
}

/// What is particular to the Lambda extension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lambda {
    /// Whose token invocations read with.
    pub run: LambdaRun,
    /// What is done where the login or a prefetch fails at the start.
    pub init: LambdaInit,
    /// How long the start may take.
    pub init_timeout: Duration,
    /// The CloudWatch namespace of the metrics that are printed; `None`: none are.
    pub metrics: Option<String>,
}

impl Check<'_> {
    pub(super) fn lambda(&mut self, raw: &RawLambda) -> Lambda {
        let timeout = raw.init_timeout.as_ref();
        Lambda {
            run: raw.run.unwrap_or_default(),
            init: raw.init.unwrap_or_default(),
            init_timeout: self.duration("lambda.init_timeout", timeout, 8 * SECOND, SECOND / 10, 10 * SECOND),
            metrics: self
                .namespace(raw.namespace.as_deref().unwrap_or("Tenure"))
                .filter(|_| raw.metrics.unwrap_or_default() == Metrics::On),
        }
    }

    /// <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/cloudwatch_concepts.html#Namespace>
    fn namespace(&mut self, text: &str) -> Option<String> {
        let fits = |c: char| c.is_ascii_alphanumeric() || ".-_/#: ".contains(c);
        let good = (1..=255).contains(&text.len()) && text.chars().all(fits) && !text.trim().is_empty();
        if good && !text.starts_with("AWS/") {
            return Some(text.to_owned());
        }
        let message = format!(
            "{text:?} is no namespace of CloudWatch's: 1 to 255 letters, digits and . - _ / # : or blanks, not beginning \
             with \"AWS/\""
        );
        self.refuse("lambda.namespace", message)
    }
}

/// A variable of Lambda's about the log of a function, the key that it is for, and its words with ours.
type Said = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

/// <https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html>
const LOG: [Said; 2] = [
    ("AWS_LAMBDA_LOG_FORMAT", "log.format", &[("JSON", "json"), ("Text", "text")]),
    (
        "AWS_LAMBDA_LOG_LEVEL",
        "log.filter",
        &[
            ("TRACE", "trace"),
            ("DEBUG", "debug"),
            ("INFO", "info"),
            ("WARN", "warn"),
            ("ERROR", "error"),
            // What is fatal is no line of the log: Lambda itself is told, and says it.
            ("FATAL", "off"),
        ],
    ),
];

/// Fills in what a Lambda function needs where nothing was said of it: doors, a log as the function's own is, and an audit
/// log that goes to the same place.
pub(crate) fn defaults(document: &mut Document, environment: &Environment) {
    for (variable, key, words) in LOG {
        let said = environment.var(variable);
        let word = words.iter().find(|(word, _)| said.is_some_and(|said| said.eq_ignore_ascii_case(word)));
        if let Some((_, value)) = word
            && document.said(key) == Origin::Default
        {
            document.set(key, value, Origin::Environment(variable.to_owned()));
        }
    }
    let listen = document.root.get("listen").and_then(toml::Value::as_table);
    if !listen.is_some_and(|listen| listen.contains_key("unix") || listen.contains_key("tcp")) {
        for (key, value) in DOORS {
            document.set(key, value, Origin::Default);
        }
    }
    let audit = document.root.entry("audit").or_insert_with(|| toml::Value::Table(toml::Table::new()));
    if let Some(audit) = audit.as_table_mut()
        && !["file", "stdout", "syslog"].into_iter().any(|place| audit.contains_key(place))
    {
        audit.insert("stdout".to_owned(), toml::Value::Boolean(true));
    }
}

pub(super) fn word(config: &Lambda) -> [(&'static str, &'static str); 3] {
    let run = match config.run {
        LambdaRun::Environment => "environment",
        LambdaRun::Invocation => "invocation",
    };
    let init = match config.init {
        LambdaInit::Lazy => "lazy",
        LambdaInit::Fail => "fail",
    };
    let metrics = if config.metrics.is_some() { "on" } else { "off" };
    [("lambda.run", run), ("lambda.init", init), ("lambda.metrics", metrics)]
}
