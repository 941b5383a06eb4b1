//! `tenure wait`: until the broker is there; then a command takes our place, if one is given.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use clap::{Args, ValueEnum};
use http::StatusCode;
use tokio::time::{Instant, sleep};

use super::client::{Broker, BrokerArgs};
use super::screen::printable;
use super::{Output, Session, block_on};
use crate::init;

/// The pause after the first try; it doubles up to the longest. A broker that starts beside us is there in a moment, and
/// to ask a local socket twice a second costs nothing.
const PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// The longest wait for one answer.
const ANSWER: Duration = Duration::from_secs(4);

/// A start that takes no longer than this needs no words; nor do reasons that change faster.
const SAY_AFTER: Duration = Duration::from_secs(1);

/// What does not change is said again so often.
const SAY_AGAIN: Duration = Duration::from_secs(10);

/// The longest that anybody means, and far from what a clock cannot hold.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// Wait for the broker, and then perhaps become a command
#[derive(Args, Debug)]
#[command(
    long_about = "Wait until the broker is there and ready: logged in, with every prefetched secret there. What it still \
        waits for is said on stderr.\n\n\
        With a command, that then takes its place: the same process, with the same environment. So an image needs no shell \
        to start in order.\n\n\
        Exit code: 0 it is there, 1 it is not in time, or refuses this caller; with a command the command's (127 not found, \
        126 not to be started).",
    after_long_help = "Examples:\n  \
        tenure wait -- ./worker                        as an entry point\n  \
        tenure wait --timeout 2m --for alive\n\n\
        In an ECS container definition:\n  \
        \"entryPoint\": [\"/usr/local/bin/tenure\", \"wait\", \"--\"], \"command\": [\"/app/worker\"]"
)]
pub(crate) struct WaitArgs {
    /// How long to wait at most, such as 90s; 0s asks once
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// What to wait for
    #[arg(long = "for", value_name = "STATE", default_value = "ready")]
    state: State,
    #[command(flatten)]
    broker: BrokerArgs,
    /// The command to become, and its arguments
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum State {
    /// It answers
    Alive,
    /// It is logged in, and every prefetched secret is there
    Ready,
}

impl State {
    fn page_and_word(self) -> (&'static str, &'static str) {
        match self {
            Self::Alive => ("/tenure/health", "alive"),
            Self::Ready => ("/tenure/ready", "ready"),
        }
    }
}

/// Says as it goes along what it waits for.
pub(crate) fn wait(args: &WaitArgs, session: &Session) -> Output {
    let output = block_on(waited(args, session, &mut io::stderr()));
    match &*args.command {
        [] => output,
        _ if output.code != 0 => output,
        [program, ..] => {
            let error = init::become_command(&args.command);
            let name = Path::new(program).display();
            Output::failed(init::code_of_failure(&error), &format!("{name} cannot be started: {error}"))
        }
    }
}

pub(super) async fn waited(args: &WaitArgs, session: &Session, said: &mut dyn Write) -> Output {
    let broker = match Broker::find(&args.broker, &session.environment) {
        Ok(broker) => broker,
        Err(failure) => return Output::failed(1, &failure.to_string()),
    };
    let (page, word) = args.state.page_and_word();
    let timeout = args.timeout.min(LONGEST);
    let began = Instant::now();
    let (mut pause, mut last) = (PAUSE, (String::new(), began));
    loop {
        let left = timeout.saturating_sub(began.elapsed());
        let why = match broker.get(page, &[], ANSWER.min(left).max(PAUSE)).await {
            Ok(answer) if answer.status.is_success() => return Output::said(format!("{word}\n")),
            Ok(answer) if answer.status == StatusCode::FORBIDDEN => {
                let why =
                    format!("the broker at {} refuses us: {}", broker.place(), printable(&answer.errors()));
                return Output::failed(1, &why);
            }
            Ok(answer) => printable(&answer.errors()),
            Err(failure) => failure.to_string(),
        };
        let passed = began.elapsed();
        if passed >= timeout {
            let timeout = humantime::format_duration(timeout);
            return Output::failed(1, &format!("not {word} after {timeout}: {why}"));
        }
        let silent = last.1.elapsed();
        if silent >= SAY_AGAIN || (silent >= SAY_AFTER && why != last.0) {
            // Who does not listen is waited for all the same.
            let _ = writeln!(said, "waiting for the broker ({}s): {why}", passed.as_secs());
            last = (why, Instant::now());
        }
        sleep(pause.min(timeout.saturating_sub(passed))).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
