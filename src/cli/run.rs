//! `tenure run`: runs, for shell scripts and for people.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::{Args, Subcommand};
use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::client::{Answer, Broker, BrokerArgs, Failure, secret};
use super::screen::{Cell, Paint, SOON, Screen, printable, span};
use super::{Output, Session};
use crate::clock::Moment;
use crate::secret::Credential;

#[cfg(test)]
mod tests;

/// The longest wait for an answer: the broker may have to ask the platform, and waits for its own budget of calls.
const WAIT: Duration = Duration::from_secs(60);

/// Deadlines go by the broker's clock and are told to the millisecond.
const SHORT_OF: Duration = Duration::from_secs(1);

#[derive(Debug, Subcommand)]
pub(crate) enum RunCommand {
    Start(StartArgs),
    List(ListArgs),
    Extend(ExtendArgs),
    End(EndArgs),
}

/// Register a run and print its handle
#[derive(Args, Debug)]
#[command(
    long_about = "Register a run: POST /tenure/runs. Prints its handle alone, which stands for the run as a Vault token \
        does: the leases that are read with it are the run's, and end with it. A [[run.rule]] of the broker says what it \
        may have and how long. To register the same execution, state and attempt again is to be told the same handle.\n\n\
        Where VAULT_TOKEN holds a run's handle, the new run is registered by that run, and lies in its limits.\n\n\
        Exit code: 0 registered, 1 refused, 2 no broker.",
    after_long_help = "Examples:\n  \
        VAULT_TOKEN=$(tenure run start --execution-arn \"$EXECUTION\" --state Charge --timeout 5m) \\\n    \
        vault read database/creds/payments\n  \
        tenure run start --timeout 10m --tag job=nightly --json | jq -r .id"
)]
pub(crate) struct StartArgs {
    /// The Step Functions execution that it belongs to ($$.Execution.Id)
    #[arg(long, value_name = "ARN")]
    execution_arn: Option<String>,
    /// The state of that execution ($$.State.Name)
    #[arg(long, value_name = "NAME")]
    state: Option<String>,
    /// Which try of that state it is, from 0 ($$.State.RetryCount)
    #[arg(long, value_name = "N")]
    attempt: Option<u32>,
    /// The execution that started that execution
    #[arg(long, value_name = "ARN")]
    parent_execution_arn: Option<String>,
    /// When it is over at the latest, such as 5m [default: what its rule allows]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,
    /// The file of the task token ($$.Task.Token), which verifies the run and ends it with its task
    #[arg(long, value_name = "FILE")]
    task_token_file: Option<PathBuf>,
    /// The file of the OIDC token, or sealed subject, of whom it acts for
    #[arg(long, value_name = "FILE")]
    subject_token_file: Option<PathBuf>,
    /// A label for the logs, such as commit=1f3a; may be given again
    #[arg(long = "tag", value_name = "NAME=VALUE", value_parser = tag)]
    tags: Vec<(String, String)>,
    /// Print the run as JSON, its handle included
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    broker: BrokerArgs,
}

/// Show the runs that you registered
#[derive(Args, Debug)]
#[command(
    long_about = "Show the runs that you registered and that are not over: GET /tenure/runs. No handle is shown.\n\n\
        Exit code: 0 shown, 1 refused, 2 no broker.",
    after_long_help = "Examples:\n  tenure run list\n  tenure run list --json | jq -r '.runs[].id'"
)]
pub(crate) struct ListArgs {
    /// Print the broker's own JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    broker: BrokerArgs,
}

/// Let a run go on for longer
#[derive(Args, Debug)]
#[command(
    long_about = "Let a run go on: PATCH /tenure/runs/ID. Prints its deadline, which is never moved back, nor beyond what \
        its rule and its registrant's own deadline allow.\n\nExit code: 0 done, 1 refused or over, 2 no broker.",
    after_long_help = "Example:\n  tenure run extend run-0123456789abcdef --timeout 10m"
)]
pub(crate) struct ExtendArgs {
    /// The run
    id: String,
    /// How long from now on, such as 10m
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// Print the run as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    broker: BrokerArgs,
}

/// End a run: its handle is refused, its credentials are revoked
#[derive(Args, Debug)]
#[command(
    long_about = "End a run: DELETE /tenure/runs/ID. Its handle is refused from now on, its token is revoked, and all of \
        its leases with it. Prints nothing. One that is over already stays so.\n\n\
        Exit code: 0 ended, 1 refused or no such run, 2 no broker.",
    after_long_help = "Example:\n  \
        run=$(tenure run start --timeout 5m --json)\n  \
        trap 'tenure run end \"$(echo \"$run\" | jq -r .id)\"' EXIT"
)]
pub(crate) struct EndArgs {
    /// The run
    id: String,
    #[command(flatten)]
    broker: BrokerArgs,
}

pub(crate) async fn run(command: &RunCommand, session: &Session) -> Output {
    let done = match command {
        RunCommand::Start(args) => start(args, session).await,
        RunCommand::List(args) => list(args, session).await,
        RunCommand::Extend(args) => extend(args, session).await,
        RunCommand::End(args) => end(args, session).await,
    };
    done.unwrap_or_else(|failure| Output::failed(failure.code(), &failure.to_string()))
}

/// The body of a registration. It borrows, so that the tokens in it are wiped with what holds them.
#[derive(Serialize)]
struct Said<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    execution_arn: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_execution_arn: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    task_token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject_token: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    tags: BTreeMap<&'a str, &'a str>,
}

async fn start(args: &StartArgs, session: &Session) -> Result<Output, Failure> {
    let broker = Broker::find(&args.broker, &session.environment)?.for_run();
    let task_token = args.task_token_file.as_deref().map(|file| secret(file, "task token")).transpose()?;
    let subject_token =
        args.subject_token_file.as_deref().map(|file| secret(file, "subject token")).transpose()?;
    let mut tags = BTreeMap::new();
    for (name, value) in &args.tags {
        if tags.insert(name.as_str(), value.as_str()).is_some() {
            return Err(Failure::Usage(format!("--tag {name}: is given twice")));
        }
    }
    let said = Said {
        execution_arn: args.execution_arn.as_deref(),
        state: args.state.as_deref(),
        attempt: args.attempt,
        parent_execution_arn: args.parent_execution_arn.as_deref(),
        timeout_seconds: args.timeout.map(|timeout| timeout.as_secs_f64()),
        task_token: task_token.as_ref().map(Credential::expose),
        subject_token: subject_token.as_ref().map(Credential::expose),
        tags,
    };
    let answer = broker.send(Method::POST, "/tenure/runs", &[], json(&said)?, WAIT).await?;
    if !answer.status.is_success() {
        return Ok(refused(&answer, &broker));
    }
    if args.json {
        return Ok(as_it_is(&answer));
    }
    #[derive(Deserialize)]
    struct Started {
        handle: String,
    }
    let Started { handle } = understood(&answer, &broker)?;
    Ok(Output::said(format!("{}\n", printable(&handle))))
}

async fn list(args: &ListArgs, session: &Session) -> Result<Output, Failure> {
    let broker = Broker::find(&args.broker, &session.environment)?;
    let answer = broker.get("/tenure/runs", &[], WAIT).await?;
    if !answer.status.is_success() {
        return Ok(refused(&answer, &broker));
    }
    if args.json {
        return Ok(as_it_is(&answer));
    }
    #[derive(Deserialize)]
    struct Listed {
        runs: Vec<RunRow>,
    }
    let Listed { runs } = understood(&answer, &broker)?;
    Ok(Output::said(match runs.is_empty() {
        true => "No runs that you registered.\n".to_owned(),
        false => table(&runs, session.screen, session.clock.now()),
    }))
}

async fn extend(args: &ExtendArgs, session: &Session) -> Result<Output, Failure> {
    #[derive(Serialize)]
    struct To {
        timeout_seconds: f64,
    }
    let broker = Broker::find(&args.broker, &session.environment)?;
    let body = json(&To { timeout_seconds: args.timeout.as_secs_f64() })?;
    let answer = broker.send(Method::PATCH, &path_of(&args.id)?, &[], body, WAIT).await?;
    if !answer.status.is_success() {
        return Ok(refused(&answer, &broker));
    }
    let run: RunRow = understood(&answer, &broker)?;
    let left = run.left(session.clock.now());
    let err = match left.filter(|left| *left + SHORT_OF < args.timeout) {
        Some(left) => {
            let left = span(left.as_secs());
            format!("warning: {left} is all that its rule, or the deadline of who registered it, allows\n")
        }
        None => String::new(),
    };
    let output = match args.json {
        true => as_it_is(&answer),
        false => Output::said(format!("{}\n", printable(run.deadline.as_deref().unwrap_or("no deadline")))),
    };
    Ok(Output { err, ..output })
}

async fn end(args: &EndArgs, session: &Session) -> Result<Output, Failure> {
    let broker = Broker::find(&args.broker, &session.environment)?;
    let answer = broker.send(Method::DELETE, &path_of(&args.id)?, &[], Bytes::new(), WAIT).await?;
    Ok(if answer.status.is_success() { Output::default() } else { refused(&answer, &broker) })
}

/// A run, as far as it is shown; members that are not known are passed over.
#[derive(Debug, Deserialize)]
pub(super) struct RunRow {
    id: String,
    kind: String,
    phase: String,
    execution_arn: Option<String>,
    state: Option<String>,
    attempt: Option<u32>,
    deadline: Option<String>,
    subject: Option<Subject>,
    verified: String,
    leases: u64,
}

#[derive(Debug, Deserialize)]
struct Subject {
    id: String,
    assurance: String,
}

impl RunRow {
    /// The time to its deadline; `None` without one.
    fn left(&self, now: Moment) -> Option<Duration> {
        let at = humantime::parse_rfc3339_weak(self.deadline.as_deref()?).ok()?;
        Some(at.duration_since(now.system_time()).unwrap_or_default())
    }

    /// `checkout/Charge`: the state machine and the state, as far as they are named.
    fn work(&self) -> String {
        // arn:aws:states:<region>:<account>:execution:<state machine>[/<map>]:<name>
        let machine = self.execution_arn.as_deref().and_then(|arn| arn.split(':').nth(6));
        let machine = machine.map(|machine| machine.split('/').next().unwrap_or(machine));
        match (machine, self.state.as_deref()) {
            (Some(machine), Some(state)) => format!("{machine}/{state}"),
            (Some(one), None) | (None, Some(one)) => one.to_owned(),
            (None, None) => "-".to_owned(),
        }
    }
}

/// Runs in columns.
pub(super) fn table(runs: &[RunRow], screen: Screen, now: Moment) -> String {
    let titles = ["RUN", "KIND", "STATE", "ATTEMPT", "VERIFIED", "SUBJECT", "LEFT", "LEASES", "PHASE"];
    let mut rows = vec![titles.iter().map(|title| Cell::new(title, Paint::Dim)).collect()];
    for run in runs {
        let dash = || "-".to_owned();
        let left = run.left(now);
        let soon = left.is_some_and(|left| left.as_secs() < SOON);
        let verified = if run.verified == "verified" { Paint::Good } else { Paint::Plain };
        let phase = if run.phase == "open" { Paint::Good } else { Paint::Warn };
        let subject = run.subject.as_ref().map(|who| format!("{} ({})", who.id, who.assurance));
        rows.push(vec![
            Cell::from(run.id.as_str()),
            Cell::from(run.kind.as_str()),
            Cell::from(run.work()),
            Cell::from(run.attempt.map_or_else(dash, |attempt| attempt.to_string())),
            Cell::new(&run.verified, verified),
            Cell::from(subject.unwrap_or_else(dash)),
            Cell::new(
                &left.map_or_else(dash, |left| span(left.as_secs())),
                if soon { Paint::Warn } else { Paint::Plain },
            ),
            Cell::from(run.leases.to_string()),
            Cell::new(&run.phase, phase),
        ]);
    }
    screen.columns(&rows)
}

fn json(said: &impl Serialize) -> Result<Bytes, Failure> {
    let text = serde_json::to_vec(said).map_err(|error| Failure::Usage(error.to_string()))?;
    Ok(Bytes::from_owner(Zeroizing::new(text)))
}

fn as_it_is(answer: &Answer) -> Output {
    Output::said(format!("{}\n", String::from_utf8_lossy(&answer.body).trim_end()))
}

fn understood<'a, T: Deserialize<'a>>(answer: &'a Answer, broker: &Broker) -> Result<T, Failure> {
    serde_json::from_slice(&answer.body).map_err(|error| {
        // serde's message may quote what it stumbles over, and that may be a handle.
        let at = format!("line {}, column {}", error.line(), error.column());
        let reason = format!("its answer is not understood ({at}); is it of another version?");
        Failure::Broken { place: broker.place(), reason }
    })
}

fn refused(answer: &Answer, broker: &Broker) -> Output {
    let hint = match answer.status {
        StatusCode::FORBIDDEN if broker.lacks_token() => {
            "on TCP the broker wants its local token: --token-file, or TENURE_TOKEN_FILE"
        }
        StatusCode::FORBIDDEN => {
            "the first [[run.rule]] that matches says what a run may have; none is a refusal"
        }
        StatusCode::NOT_FOUND => "`tenure run list` shows those that you registered",
        StatusCode::SERVICE_UNAVAILABLE => {
            "the broker is there and cannot answer now; `tenure status` says why"
        }
        _ => "",
    };
    let said = printable(&answer.errors());
    let said = if said.is_empty() { "no reason was given".to_owned() } else { said };
    let mut output = Output::failed(1, &format!("{said} ({})", answer.status));
    if !hint.is_empty() {
        output.err += &format!("hint: {hint}\n");
    }
    output
}

fn tag(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !value.is_empty() => {
            Ok((name.to_owned(), value.to_owned()))
        }
        _ => Err("a tag is given as name=value".to_owned()),
    }
}

/// The path of a run. A handle that was given in the place of an id is not repeated.
fn path_of(id: &str) -> Result<String, Failure> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if id.starts_with("tnr_") {
        return Err(Failure::Usage("this is a handle: a run is named by its id, run-…".to_owned()));
    }
    match !id.is_empty() && id.bytes().all(plain) {
        true => Ok(format!("/tenure/runs/{id}")),
        false => Err(Failure::Usage(format!("{id:?} is not a run's id: run- and 16 hexadecimal digits"))),
    }
}
