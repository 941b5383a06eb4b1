//! `tenure audit report`: what a time held, for who audits.

use std::path::PathBuf;

use clap::Args;

use super::super::{Output, Session};
use super::text;
use super::trace::{Common, Told, failed};
use crate::audit::At;
use crate::audit::trace::{Selection, html, report as sum_up};

/// Sum up what logs tell: runs, subjects, secrets, refusals, findings, coverage
#[derive(Args, Debug)]
#[command(
    long_about = "Sum up what the logs of brokers, of Vault or OpenBao tell of a time: which work ran and whether its \
        credentials are gone, on whose behalf, which secrets were read, what was refused, what is of note, and how much of \
        it the logs cover. What an auditor of access controls asks for.\n\n\
        Runs that began before the time are judged by all of their lines; reads, refusals and leases are counted within \
        it.\n\nExit code: 0 nothing of note, 1 findings of severity error, 2 wrong usage or unreadable input.",
    after_long_help = "Examples:\n  tenure audit report --since 30d /var/log/audit/\n  \
        tenure audit report --since 2026-01-01T00:00:00Z --until 2026-04-01T00:00:00Z --html q1.html logs/"
)]
pub(crate) struct ReportArgs {
    /// Logs: files, folders of them, or - for standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    common: Common,
}

pub(super) fn report(args: &ReportArgs, session: &Session) -> Output {
    let (since, until) = match args.common.times.read(session) {
        Ok(times) => times,
        Err(output) => return output,
    };
    let selection = Selection { since, until, ..Selection::default() };
    let now = At::new(session.clock.now().wall());
    let mut told = Told::new(session.screen);
    let mut stdin = std::io::stdin().lock();
    let found =
        sum_up(&args.files, &mut stdin, &selection, args.common.rules(), now, &mut |at| told.tell(at));
    drop(told);
    match found {
        Ok(report) => args.common.output(
            &report,
            &report.findings,
            || text::report(&report, session.screen),
            || html::report(&report),
        ),
        Err(error) => failed(&error),
    }
}
