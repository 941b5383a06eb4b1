//! `tenure status`: what the broker holds, for how long, and what troubles it.

use std::io::Write as _;
use std::time::Duration;

use clap::Args;
use rustix::process::Signal;
use serde::Deserialize;

use super::client::{Broker, BrokerArgs, Failure};
use super::run::{RunRow, table};
use super::screen::{Cell, Paint, SOON, Screen, printable, span};
use super::{Output, Session};
use crate::clock::Moment;
use crate::init::Told;

const WAIT: Duration = Duration::from_secs(10);

/// Show what the broker holds
#[derive(Args, Debug)]
#[command(
    long_about = "Show what the broker holds: its login, the run's token, and each lease with its state and the time \
        left, and the other runs that are open. No secret is shown, and reading this discloses none.\n\nExit code: 0 shown, 1 refused, 2 no broker.",
    after_long_help = "Examples:\n  tenure status\n  tenure status --watch\n  \
        tenure status --json | jq '.leases[] | {path, left_seconds}'"
)]
pub(crate) struct StatusArgs {
    /// Show it again every second, until Ctrl-C
    #[arg(long)]
    watch: bool,
    /// Print the broker's own JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    broker: BrokerArgs,
}

pub(crate) async fn status(args: &StatusArgs, session: &Session) -> Output {
    let broker = match Broker::find(&args.broker, &session.environment) {
        Ok(broker) => broker,
        Err(failure) => return Output::failed(failure.code(), &failure.to_string()),
    };
    if args.watch {
        watch(&broker, args.json, session).await
    } else {
        once(&broker, args.json, session).await
    }
}

async fn once(broker: &Broker, json: bool, session: &Session) -> Output {
    let answer = match broker.get("/tenure/leases", &[], WAIT).await {
        Ok(answer) => answer,
        Err(failure) => return Output::failed(failure.code(), &failure.to_string()),
    };
    if !answer.status.is_success() {
        let mut output = Output::failed(1, &format!("{} ({})", printable(&answer.errors()), answer.status));
        if broker.lacks_token() {
            output.err +=
                "hint: on TCP the broker wants its local token: --token-file, or TENURE_TOKEN_FILE\n";
        }
        return output;
    }
    if json {
        return Output::said(format!("{}\n", String::from_utf8_lossy(&answer.body).trim_end()));
    }
    match serde_json::from_slice::<Status>(&answer.body) {
        Ok(status) => Output::said(render(&status, session.screen, session.clock.now())),
        Err(error) => {
            let reason = format!("its status is not understood ({error}); is it of another version?");
            let failure = Failure::Broken { place: broker.place(), reason };
            Output::failed(1, &failure.to_string())
        }
    }
}

/// A broker that is away for a while is what one watches for, so a failure is shown and asked again.
async fn watch(broker: &Broker, json: bool, session: &Session) -> Output {
    let mut every = tokio::time::interval(Duration::from_secs(1));
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut told = match Told::listen(&[Signal::INT]) {
        Ok(told) => told,
        Err(error) => return Output::failed(1, &format!("signals cannot be listened to: {error}")),
    };
    loop {
        tokio::select! {
            _ = told.next() => return Output::default(),
            _ = every.tick() => {}
        }
        let shown = tokio::select! {
            _ = told.next() => return Output::default(),
            shown = once(broker, json, session) => shown,
        };
        let text = shown.out + &shown.err;
        let frame = if session.screen.out_is_terminal && !json {
            // Home, each line cleared to its end, the rest cleared: nothing flickers.
            format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n"))
        } else if json {
            text
        } else {
            text + "\n"
        };
        let mut out = std::io::stdout().lock();
        if out.write_all(frame.as_bytes()).and_then(|()| out.flush()).is_err() {
            return Output::default();
        }
    }
}

/// `GET /tenure/leases`, as far as it is shown; members that are not known are passed over.
#[derive(Debug, Deserialize)]
struct Status {
    version: String,
    boot: String,
    ready: bool,
    login: Login,
    run: Run,
    /// The other runs, as many as are shown.
    #[serde(default)]
    runs: Vec<RunRow>,
    /// All that are open, the process's own among them.
    #[serde(default)]
    runs_open: usize,
    audit: Audit,
    leases: Vec<Lease>,
}

#[derive(Debug, Deserialize)]
struct Login {
    method: String,
    state: String,
    left_seconds: Option<u64>,
    trouble: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Run {
    id: String,
    kind: String,
    execution_arn: Option<String>,
    state: Option<String>,
    deadline: Option<String>,
    token: Option<Token>,
}

#[derive(Debug, Deserialize)]
struct Token {
    role: String,
    state: String,
    left_seconds: Option<u64>,
    #[serde(default)]
    policies: Vec<String>,
    trouble: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Audit {
    healthy: bool,
    seq: u64,
    head: String,
}

#[derive(Debug, Deserialize)]
struct Lease {
    path: String,
    operation: String,
    state: String,
    kind: String,
    left_seconds: Option<u64>,
    version: Option<u64>,
    grants: u64,
    reads: u64,
    trouble: Option<String>,
}

fn render(status: &Status, screen: Screen, now: Moment) -> String {
    let ready = if status.ready { ("ready", Paint::Good) } else { ("not ready", Paint::Bad) };
    let mut out = format!(
        "{} {}, {}, boot {}\n",
        screen.paint("tenure", Paint::Bold),
        printable(&status.version),
        screen.paint(ready.0, ready.1),
        printable(&status.boot)
    );
    out += &screen.columns(&head(status));
    out += &run_line(&status.run, screen);
    out.push('\n');
    out += &leases(status, screen);
    if !status.runs.is_empty() {
        out.push('\n');
        out += &table(&status.runs, screen, now);
        let more = status.runs_open.saturating_sub(status.runs.len() + 1);
        match more {
            0 => {}
            1 => out += "and one more run\n",
            _ => out += &format!("and {more} more runs\n"),
        }
    }
    out
}

/// The leases of the process's own run.
fn leases(status: &Status, screen: Screen) -> String {
    if status.leases.is_empty() {
        return match status.runs.is_empty() {
            true => "No leases: nobody has read a secret yet.\n".to_owned(),
            false => "No leases of the process's own run.\n".to_owned(),
        };
    }
    let titles = ["PATH", "STATE", "LEFT", "KIND", "VERSION", "GRANTS", "READS", "TROUBLE"];
    let troubled = status.leases.iter().any(|lease| lease.trouble.is_some());
    let shown = if troubled { titles.len() } else { titles.len() - 1 };
    let mut rows = vec![titles[..shown].iter().map(|title| Cell::new(title, Paint::Dim)).collect()];
    for lease in &status.leases {
        let path = match lease.operation.as_str() {
            "read" => lease.path.clone(),
            operation => format!("{} ({operation})", lease.path),
        };
        let paint = judged(&lease.state, lease.left_seconds, &lease.kind);
        let left = lease.left_seconds.map_or_else(|| "-".to_owned(), span);
        rows.push(vec![
            Cell::from(path),
            Cell::new(&lease.state, paint),
            Cell::new(&left, paint),
            Cell::from(lease.kind.as_str()),
            Cell::from(lease.version.map_or_else(|| "-".to_owned(), |version| version.to_string())),
            Cell::from(lease.grants.to_string()),
            Cell::from(lease.reads.to_string()),
            Cell::new(lease.trouble.as_deref().unwrap_or_default(), Paint::Warn),
        ]);
    }
    screen.columns(&rows)
}

/// The lines above the leases: login, the run's token, audit.
fn head(status: &Status) -> Vec<Vec<Cell>> {
    let line = |name: &str, what: String, state: &str, left: Option<u64>, trouble: Option<&String>| {
        let paint = judged(state, left, "token");
        vec![
            Cell::new(name, Paint::Dim),
            Cell::from(what),
            Cell::new(state, paint),
            Cell::new(&left.map(|left| format!("{} left", span(left))).unwrap_or_default(), paint),
            Cell::new(trouble.map_or("", String::as_str), Paint::Warn),
        ]
    };
    let (login, run) = (&status.login, &status.run);
    let mut rows =
        vec![line("login", login.method.clone(), &login.state, login.left_seconds, login.trouble.as_ref())];
    rows.push(match &run.token {
        Some(token) => {
            let mut what = format!("role {}", token.role);
            if !token.policies.is_empty() {
                what += &format!(", policies {}", token.policies.join(" "));
            }
            line("token", what, &token.state, token.left_seconds, token.trouble.as_ref())
        }
        None => vec![Cell::new("token", Paint::Dim), "none: leases hang off the login token".into()],
    });
    let audit = &status.audit;
    let (line, head) = (format!("line {}", audit.seq), audit.head.chars().take(16).collect::<String>());
    let (health, paint) = if audit.healthy { ("healthy", Paint::Good) } else { ("failing", Paint::Bad) };
    rows.push(vec![
        Cell::new("audit", Paint::Dim),
        Cell::from(if head.is_empty() { line } else { format!("{line}, head {head}") }),
        Cell::new(health, paint),
    ]);
    rows
}

/// Beside the columns, since an execution ARN is long.
fn run_line(run: &Run, screen: Screen) -> String {
    let mut about = vec![format!("{} {}", run.kind, run.id)];
    about.extend(run.execution_arn.as_ref().map(|arn| format!("execution {arn}")));
    about.extend(run.state.as_ref().map(|name| format!("state {name}")));
    about.push(run.deadline.as_ref().map_or_else(|| "no deadline".to_owned(), |at| format!("deadline {at}")));
    format!("{}    {}\n", screen.paint("run", Paint::Dim), printable(&about.join(", ")))
}

fn judged(state: &str, left: Option<u64>, kind: &str) -> Paint {
    match (state, left) {
        ("held", Some(left)) if left < SOON && kind != "static" => Paint::Warn,
        ("held", _) => Paint::Good,
        ("failed" | "lost" | "dead" | "expired", _) | (_, Some(0)) => Paint::Bad,
        _ => Paint::Warn,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-01-01T00:00:00Z
    const NOW: Moment = Moment::new(Duration::ZERO, Duration::from_secs(1_767_225_600));

    const FULL: &str = r#"{"version":"0.1.0","boot":"b1","ready":true,
        "login":{"method":"aws role orders at auth/aws","state":"held","left_seconds":1234,"expires":"…","trouble":null},
        "run":{"id":"r1","kind":"process","execution_arn":"arn:aws:states:eu-west-1:1:execution:o:1","state":"Charge",
            "deadline":"2026-01-01T00:10:00.000Z","token":{"role":"run","state":"held","left_seconds":20,"expires":"…",
            "policies":["orders"],"trouble":"Vault is sealed"}},
        "audit":{"healthy":true,"seq":123,"head":"0123456789abcdef0123"},
        "runs_open":4,"runs":[
            {"id":"run-1","kind":"state","phase":"open","state":"Charge","attempt":1,"parents":[],"verified":"verified",
             "execution_arn":"arn:aws:states:eu-west-1:1:execution:checkout/Each:4711","deadline":"2026-01-01T00:05:00.000Z",
             "subject":{"id":"ada","kind":"person","assurance":"verified"},"policies":["orders"],"leases":2,"tags":{}},
            {"id":"run-2","kind":"api","phase":"closing","execution_arn":null,"state":null,"attempt":null,"deadline":null,
             "subject":null,"verified":"asserted","leases":0}],
        "leases":[
            {"path":"database/creds/orders","operation":"read","state":"held","kind":"leased","lease_id":"x","left_seconds":200,
             "expires":"…","renewable":true,"version":null,"grants":1,"reads":42,"trouble":null},
            {"path":"secret/metadata","operation":"list","state":"waiting","kind":"static","lease_id":null,"left_seconds":null,
             "expires":null,"renewable":false,"version":3,"grants":0,"reads":0,"trouble":"permission\u001b[31m denied"}]}"#;

    const LEAST: &str = r#"{"version":"0.1.0","boot":"b1","ready":false,
        "login":{"method":"aws role orders at auth/aws","state":"minting","left_seconds":null,"expires":null,"trouble":null},
        "run":{"id":"r1","kind":"process","execution_arn":null,"state":null,"deadline":null,"token":null},
        "audit":{"healthy":false,"seq":0,"head":""},"leases":[]}"#;

    #[test]
    fn a_status_is_a_page_of_plain_columns() {
        for (json, expected) in [
            (
                FULL,
                "\
tenure 0.1.0, ready, boot b1
login  aws role orders at auth/aws      held     20m 34s left
token  role run, policies orders        held     20s left      Vault is sealed
audit  line 123, head 0123456789abcdef  healthy
run    process r1, execution arn:aws:states:eu-west-1:1:execution:o:1, state Charge, deadline 2026-01-01T00:10:00.000Z

PATH                    STATE    LEFT    KIND    VERSION  GRANTS  READS  TROUBLE
database/creds/orders   held     3m 20s  leased  -        1       42
secret/metadata (list)  waiting  -       static  3        0       0      permission\\u{1b}[31m denied

RUN    KIND   STATE            ATTEMPT  VERIFIED  SUBJECT         LEFT  LEASES  PHASE
run-1  state  checkout/Charge  1        verified  ada (verified)  5m    2       open
run-2  api    -                -        asserted  -               -     0       closing
and one more run
",
            ),
            (
                LEAST,
                "\
tenure 0.1.0, not ready, boot b1
login  aws role orders at auth/aws            minting
token  none: leases hang off the login token
audit  line 0                                 failing
run    process r1, no deadline

No leases: nobody has read a secret yet.
",
            ),
        ] {
            let status: Status = serde_json::from_str(json).unwrap();
            assert_eq!(render(&status, Screen::default(), NOW), expected);
        }
    }

    #[test]
    fn colours_tell_what_needs_attention() {
        let status: Status = serde_json::from_str(FULL).unwrap();
        let text = render(&status, Screen { colour: true, ..Screen::default() }, NOW);
        assert!(text.contains("\x1b[32mheld\x1b[0m"), "{text:?}");
        assert!(text.contains("\x1b[33m20s left\x1b[0m"), "soon over: {text:?}");
        assert!(text.contains("\x1b[33mclosing\x1b[0m"), "{text:?}");
        assert!(text.contains("\x1b[33mpermission\\u{1b}[31m denied\x1b[0m"), "escaped: {text:?}");
    }
}
