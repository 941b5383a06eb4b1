//! `tenure get`: one secret, as a workload would read it.

use std::time::Duration;

use clap::Args;
use http::StatusCode;
use http::header::{HeaderName, HeaderValue};
use serde_json::{Map, Value};

use super::client::{Answer, Broker, BrokerArgs, Failure};
use super::screen::{Cell, Paint, printable, span};
use super::{Output, Session};
use crate::config::SecretPath;

/// The longest wait for an answer: the door's own limit (`cache.read_timeout`) comes first.
const WAIT: Duration = Duration::from_secs(3605);

/// Read a secret from the broker
#[derive(Args, Debug)]
#[command(
    long_about = "Read a secret from the broker, as a workload would: GET /v1/PATH on its socket.\n\n\
        Where VAULT_TOKEN holds a run's handle, it is read for that run.\n\n\
        Prints the secret's fields; of a KV version 2 secret those of its data. How long it lasts is said on stderr, \
        where that is a terminal.\n\nExit code: 0 read, 1 refused or not there, 2 no broker.",
    after_long_help = "Examples:\n  \
        tenure get database/creds/orders\n  \
        PGPASSWORD=$(tenure get database/creds/orders --field password) psql ...\n  \
        tenure get secret/data/app --json | jq .data.data"
)]
pub(crate) struct GetArgs {
    /// Below /v1/, such as database/creds/orders; a leading / or /v1/ is taken off
    #[arg(value_parser = secret_path)]
    path: SecretPath,
    /// Print this field's value alone, as it is
    #[arg(long, value_name = "FIELD", conflicts_with = "json")]
    field: Option<String>,
    /// Print the answer as it is, in Vault's shape
    #[arg(long)]
    json: bool,
    /// Ask for a credential with at least this much of its life left, such as 5m
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    min_ttl: Option<Duration>,
    #[command(flatten)]
    broker: BrokerArgs,
}

pub(crate) async fn get(args: &GetArgs, session: &Session) -> Output {
    match read(args, session).await {
        Ok(output) => output,
        Err(failure) => Output::failed(failure.code(), &failure.to_string()),
    }
}

async fn read(args: &GetArgs, session: &Session) -> Result<Output, Failure> {
    let broker = Broker::find(&args.broker, &session.environment)?.for_run();
    let mut headers = Vec::new();
    if let Some(least) = args.min_ttl {
        let seconds = least.as_secs() + u64::from(least.subsec_nanos() > 0);
        if let Ok(value) = HeaderValue::from_str(&format!("{seconds}s")) {
            headers.push((HeaderName::from_static("x-tenure-min-ttl"), value));
        }
    }
    let answer = broker.get(&format!("/v1/{}", encoded(args.path.as_str())), &headers, WAIT).await?;
    if !answer.status.is_success() {
        return Ok(refused(&answer, args.path.as_str(), &broker));
    }
    if args.json {
        let mut out = String::from_utf8_lossy(&answer.body).into_owned();
        if !out.ends_with('\n') {
            out.push('\n');
        }
        return Ok(Output { err: about(&answer, &Value::Null, session), ..Output::said(out) });
    }
    let broken = |reason: &str| Failure::Broken { place: broker.place(), reason: reason.to_owned() };
    let body: Value = serde_json::from_slice(&answer.body).map_err(|_| broken("the answer is not JSON"))?;
    let data = body.get("data").and_then(Value::as_object).ok_or_else(|| broken("the answer has no data"))?;
    let Some(fields) = fields(data) else {
        return Ok(Output::failed(1, &format!("{}: this version is deleted", args.path)));
    };
    let out = match &args.field {
        None => {
            let rows: Vec<Vec<Cell>> = fields
                .iter()
                .map(|(name, value)| vec![Cell::new(name, Paint::Bold), Cell::from(text(value))])
                .collect();
            session.screen.columns(&rows)
        }
        Some(field) => match fields.get(field) {
            Some(value) if session.screen.out_is_terminal => text(value) + "\n",
            Some(value) => text(value),
            None => {
                let names: Vec<_> = fields.keys().map(|name| printable(name)).collect();
                let message = format!("{} has no field {field:?}; it has {}", args.path, names.join(", "));
                return Ok(Output::failed(1, &message));
            }
        },
    };
    Ok(Output { err: about(&answer, &body, session), ..Output::said(out) })
}

/// The members to show: of a KV version 2 answer those of the secret itself; `None` where its version is deleted.
fn fields(data: &Map<String, Value>) -> Option<&Map<String, Value>> {
    let versioned = data.len() == 2 && data.get("metadata").is_some_and(|it| it.get("version").is_some());
    match data.get("data") {
        Some(Value::Object(inner)) if versioned => Some(inner),
        Some(Value::Null) if versioned => None,
        _ => Some(data),
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// What is to be said beside the secret: its warnings, and to a person how long it lasts.
fn about(answer: &Answer, body: &Value, session: &Session) -> String {
    let mut out = String::new();
    for warning in body.get("warnings").and_then(Value::as_array).into_iter().flatten() {
        out += &format!("warning: {}\n", printable(&text(warning)));
    }
    if !session.screen.err_is_terminal {
        return out;
    }
    let mut parts = Vec::new();
    if let Some(expires) = answer.header("x-tenure-expires") {
        let now = session.clock.now();
        let at = humantime::parse_rfc3339_weak(expires).ok();
        let left = at.and_then(|at| at.duration_since(now.system_time()).ok());
        parts.push(match (at, left) {
            (Some(_), Some(left)) => format!("expires in {}", span(left.as_secs())),
            (Some(_), None) => "expired".to_owned(),
            (None, _) => format!("expires {}", printable(expires)),
        });
    }
    if let Some(source) = answer.header("x-tenure-source") {
        parts.push(match source {
            "stale" => "source stale (Vault cannot answer; this is the last known value)".to_owned(),
            other => format!("source {}", printable(other)),
        });
    }
    if !parts.is_empty() {
        out += &format!("{}\n", parts.join(", "));
    }
    out
}

fn refused(answer: &Answer, path: &str, broker: &Broker) -> Output {
    let hint = match answer.status {
        StatusCode::FORBIDDEN if broker.lacks_token() => {
            "on TCP the broker wants its local token: --token-file, or TENURE_TOKEN_FILE"
        }
        StatusCode::FORBIDDEN => {
            "either this caller may not ask, or the run's token lacks `read` on this path in Vault; the audit line \
             says which"
        }
        StatusCode::NOT_FOUND => {
            "check the mount and the spelling; a KV version 2 secret is read at MOUNT/data/NAME"
        }
        StatusCode::TOO_MANY_REQUESTS => {
            "the broker holds as many leases as it may (cache.max_leases), or Vault is busy"
        }
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => {
            "the broker is there and cannot answer now; `tenure status` says why"
        }
        _ => "",
    };
    let said = printable(&answer.errors());
    let said = if said.is_empty() { "no reason was given".to_owned() } else { said };
    let mut output = Output::failed(1, &format!("{path}: {said} ({})", answer.status));
    if !hint.is_empty() {
        output.err += &format!("hint: {hint}\n");
    }
    output
}

fn secret_path(text: &str) -> Result<SecretPath, crate::config::PathError> {
    let text = text.strip_prefix('/').unwrap_or(text);
    text.strip_prefix("v1/").unwrap_or(text).parse()
}

/// Percent-encodes what a URI's path cannot hold (RFC 3986, `pchar` and the slash).
fn encoded(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out += &format!("%{byte:02X}");
        }
    }
    out
}
