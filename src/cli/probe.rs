//! `tenure health` and `tenure ready`: one line and an exit code, for container health checks.

use std::time::Duration;

use clap::Args;

use super::client::{Broker, BrokerArgs};
use super::screen::printable;
use super::{Output, Session};

/// Shorter than the five seconds after which ECS gives a health check up, by default.
const WAIT: Duration = Duration::from_secs(4);

/// Ask whether the broker is alive
#[derive(Args, Debug)]
#[command(
    long_about = "Ask whether the broker is alive: GET /tenure/health. Prints one line.\n\nExit code: 0 alive, 1 not.",
    after_long_help = "Example, in an ECS container definition:\n  \
        \"healthCheck\": { \"command\": [\"CMD\", \"tenure\", \"health\"] }"
)]
pub(crate) struct HealthArgs {
    #[command(flatten)]
    broker: BrokerArgs,
}

/// Ask whether the broker is ready
#[derive(Args, Debug)]
#[command(
    long_about = "Ask whether the broker is ready: logged in, with every prefetched secret there. GET /tenure/ready. \
        Prints one line.\n\nExit code: 0 ready, 1 not.",
    after_long_help = "Example, in an ECS container definition:\n  \
        \"healthCheck\": { \"command\": [\"CMD\", \"tenure\", \"ready\"] }\n\n\
        `tenure wait` waits for it."
)]
pub(crate) struct ReadyArgs {
    #[command(flatten)]
    broker: BrokerArgs,
}

pub(crate) async fn health(args: &HealthArgs, session: &Session) -> Output {
    probe(&args.broker, session, "/tenure/health", "alive").await
}

pub(crate) async fn ready(args: &ReadyArgs, session: &Session) -> Output {
    probe(&args.broker, session, "/tenure/ready", "ready").await
}

async fn probe(args: &BrokerArgs, session: &Session, path: &str, word: &str) -> Output {
    let asked = match Broker::find(args, &session.environment) {
        Ok(broker) => broker.get(path, &[], WAIT).await,
        Err(failure) => Err(failure),
    };
    match asked {
        Ok(answer) if answer.status.is_success() => Output::said(format!("{word}\n")),
        Ok(answer) => {
            let said = printable(&answer.errors());
            let colon = if said.is_empty() { "" } else { ": " };
            Output::failed(1, &format!("not {word}{colon}{said} ({})", answer.status))
        }
        // A health check knows two answers.
        Err(failure) => Output::failed(1, &failure.to_string()),
    }
}
