//! `tenure demo`: the main job, end to end, with nothing else installed.

use clap::Args;

use super::{Output, Session};
use crate::causes::causes;
use crate::demo::{DemoError, Look, run};

/// See it work, with nothing else installed
#[derive(Args, Debug)]
#[command(
    long_about = "See it work, with nothing else installed: brokers on an in-memory source, a workflow of two states, \
        many readers of one credential, a renewal, a rotation, a worker with a run for each execution, an outage, an \
        abort that ends a run and what it started, everything revoked, and the audit chain verified. What it shows it also checks.\n\nExit code: 0 all as it should be, 1 not.",
    after_long_help = "Example:\n  tenure demo"
)]
pub(crate) struct DemoArgs {}

/// Prints as it goes along: half of what there is to see is when it happens.
pub(crate) async fn demo(_args: &DemoArgs, session: &Session) -> Output {
    let look = Look { terminal: session.screen.out_is_terminal, colour: session.screen.colour };
    match run(&mut std::io::stdout(), look).await {
        Ok(()) => Output::default(),
        // A reader that has gone away (`| head`) wants no more.
        Err(DemoError::Io(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => Output::default(),
        Err(error) => Output::failed(1, &causes(&error)),
    }
}
