//! `tenure audit trace`: who used what, for which execution, until when.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::super::screen::Screen;
use super::super::{Output, Session};
use super::accessors;
use super::histories::Histories;
use super::text;
use crate::audit::At;
use crate::audit::trace::output::{Finding, Severity};
use crate::audit::trace::{Fetch, Progress, Rules, Selection, TraceError, html, trace_and_fetch};
use crate::run::arn::ExecutionArn;

/// Trace runs through the logs of brokers, Vault and Step Functions
#[derive(Args, Debug)]
#[command(
    long_about = "Trace runs through the logs of brokers, of Vault or OpenBao, and through histories of Step Functions: one \
        timeline, joined by the ids that they share, and what they do not explain. Files may be plain or gzip, in any order, \
        and mixed: what a line is, is told from the line. A history is what `aws stepfunctions get-execution-history` \
        prints, all of it; with --fetch-histories those that are not among the files are asked of Step Functions: of the \
        execution that is selected and those that it started, else of those of the selected runs, 500 at most. It is asked \
        with the AWS credentials of the environment, in the region that the ARN names, and must allow \
        states:GetExecutionHistory. What cannot be had of an execution (express ones keep no history, others none after 90 \
        days; access may be denied) is a finding, and the trace is made without; where Step Functions cannot be asked at \
        all there is no trace.\n\n\
        Options that select are combined: a run is shown if all of them are true of it. Executions are shown with those that \
        they started, runs with those that they registered; without any option, everything is.\n\n\
        Vault's log shows accessors as HMACs: for one that is held in plain, from a list of them, an alert or a broker's journal \
        of orphans, --audit-hash asks sys/audit-hash of that device, with VAULT_ADDR, VAULT_TOKEN (or what `vault login` left), \
        VAULT_NAMESPACE and the certificates that `vault` reads. A device with hmac_accessor=false needs none.\n\n\
        No secret is shown: no data of requests and answers, no input or output of a state.\n\n\
        Exit code: 0 nothing of note, 1 findings of severity error, 2 wrong usage, unreadable input, or nobody to ask.",
    after_long_help = "Examples:\n  \
        tenure audit trace --execution arn:aws:states:eu-west-1:123456789012:execution:orders:0f1e /var/log/audit/\n  \
        tenure audit trace --fetch-histories --run run-0123456789abcdef /var/log/audit/\n  \
        tenure audit trace --subject ada --since 7d --json tenure/*.jsonl vault/*.log.gz | jq .findings\n  \
        tenure audit trace --accessor hHn3sIvVbC1yNrMdcUUXy5pM --audit-hash file vault/*.log.gz /var/log/audit/\n  \
        tenure audit trace --path database/creds/orders --html trace.html logs/"
)]
pub(crate) struct TraceArgs {
    /// Logs and histories: files, folders of them, or - for standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    selected: Selected,
    /// Ask Step Functions for the histories that are not among the files
    #[arg(long)]
    fetch_histories: bool,
    #[command(flatten)]
    common: Common,
}

/// What is traced.
#[derive(Args, Debug)]
struct Selected {
    /// An execution, with those that it started
    #[arg(long, value_name = "ARN")]
    execution: Option<String>,
    /// On whose behalf runs acted
    #[arg(long, value_name = "ID")]
    subject: Option<String>,
    /// A lease of Vault's
    #[arg(long, value_name = "ID")]
    lease: Option<String>,
    /// What was read, without /v1/; a * at its end stands for anything
    #[arg(long)]
    path: Option<String>,
    /// A run, with those that it registered
    #[arg(long, value_name = "ID")]
    run: Option<String>,
    /// A token's accessor, with the run whose token it is; hmac-sha256:… as Vault's log shows it
    #[arg(long, value_name = "ACCESSOR")]
    accessor: Option<String>,
    /// The audit device whose log is given: Vault is asked for the accessor's HMAC; several times for several
    #[arg(long, value_name = "DEVICE", requires = "accessor")]
    audit_hash: Vec<String>,
}

/// From when until when.
#[derive(Args, Debug)]
pub(super) struct Times {
    /// Nothing before: RFC 3339, or so long ago, such as 30d or 2h
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Nothing after: RFC 3339, or so long ago
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
}

/// What a trace and a report have alike.
#[derive(Args, Debug)]
pub(super) struct Common {
    #[command(flatten)]
    pub(super) times: Times,
    /// A secret that was read on behalf of an unverified subject is an error
    #[arg(long)]
    pub(super) require_verified_subject: bool,
    /// Print JSON: `tenure audit schema` has its schema
    #[arg(long)]
    pub(super) json: bool,
    /// Also write a page: one file, without scripts, for a browser or a printer
    #[arg(long, value_name = "FILE")]
    pub(super) html: Option<PathBuf>,
}

impl Times {
    /// The times, from words.
    pub(super) fn read(&self, session: &Session) -> Result<(Option<At>, Option<At>), Output> {
        let now = session.clock.now();
        let read = |option: &str, said: &Option<String>| {
            match said {
            None => Ok(None),
            Some(said) => At::parse_typed(said, now).map(Some).ok_or_else(|| {
                let message = format!(
                    "{option} {said:?}: it is neither a time in RFC 3339, such as 2026-01-01T12:00:00Z, nor a span such as 30d"
                );
                Output::failed(2, &message)
            }),
        }
        };
        let (since, until) = (read("--since", &self.since)?, read("--until", &self.until)?);
        if since.zip(until).is_some_and(|(since, until)| until < since) {
            return Err(Output::failed(2, "--until is before --since: nothing can be between them"));
        }
        Ok((since, until))
    }
}

impl Common {
    pub(super) fn rules(&self) -> Rules {
        Rules { verified_subjects: self.require_verified_subject }
    }

    /// Prints what was found, in the form that was asked for.
    pub(super) fn output(
        &self,
        found: &impl Serialize,
        findings: &[Finding],
        text: impl FnOnce() -> String,
        page: impl FnOnce() -> String,
    ) -> Output {
        let code = u8::from(findings.iter().any(|finding| finding.severity == Severity::Error));
        if let Some(path) = &self.html
            && let Err(error) = write(path, &page())
        {
            return Output::failed(2, &format!("{}: the page cannot be written ({error})", path.display()));
        }
        let out = match self.json {
            true => serde_json::to_string_pretty(found).map(|text| text + "\n").unwrap_or_default(),
            false => text(),
        };
        Output { out, code, ..Output::default() }
    }
}

/// What is written tells who did what: it is the auditor's own to pass on.
fn write(path: &Path, page: &str) -> std::io::Result<()> {
    let mut options = std::fs::File::options();
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.write(true).create(true).truncate(true).open(path)?.write_all(page.as_bytes())
}

pub(super) fn failed(error: &TraceError) -> Output {
    Output::failed(2, &error.to_string())
}

/// Says how far it is, on a terminal: a line that is overwritten, and cleared at the end.
pub(super) struct Told {
    shown: bool,
    last: Option<(u64, u64)>,
}

impl Told {
    pub(super) fn new(screen: Screen) -> Self {
        Self { shown: screen.err_is_terminal, last: None }
    }

    pub(super) fn tell(&mut self, progress: Progress) {
        let percent = progress.bytes.saturating_mul(100) / progress.of.max(1);
        if self.shown && self.last != Some((progress.pass, percent)) {
            self.last = Some((progress.pass, percent));
            let mebibytes = progress.of >> 20;
            let _ = write!(
                std::io::stderr(),
                "\r\x1b[Kreading {mebibytes} MiB, pass {}: {percent} %",
                progress.pass
            );
        }
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        if self.last.is_some() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

pub(super) fn trace(args: &TraceArgs, session: &Session) -> Output {
    let (since, until) = match args.common.times.read(session) {
        Ok(times) => times,
        Err(output) => return output,
    };
    let Selected { execution, subject, lease, path, run, accessor, audit_hash } = &args.selected;
    let accessors = match accessor.as_deref().map(|it| accessors::forms(it, audit_hash, session)).transpose()
    {
        Ok(forms) => forms.unwrap_or_default(),
        Err(output) => return output,
    };
    let selection = Selection {
        execution: execution.clone(),
        subject: subject.clone(),
        lease: lease.clone(),
        path: path.as_deref().map(|path| path.trim_start_matches('/').trim_start_matches("v1/").to_owned()),
        run: run.clone(),
        accessors,
        since,
        until,
    };
    if args.files.iter().any(|file| file == Path::new("-")) && std::io::stdin().is_terminal() {
        return Output::failed(2, "-: standard input is a terminal; give files, or redirect a log to it");
    }
    let now = At::new(session.clock.now().wall());
    if let Some(Err(error)) =
        execution.as_deref().filter(|_| args.fetch_histories).map(str::parse::<ExecutionArn>)
    {
        return Output::failed(2, &format!("--execution: {error}"));
    }
    let mut told = Told::new(session.screen);
    let mut stdin = std::io::stdin().lock();
    let mut histories = match args.fetch_histories.then(|| Histories::new(session)).transpose() {
        Ok(histories) => histories,
        Err(output) => return output,
    };
    let mut ask = histories.as_mut().map(|histories| |arn: &str| histories.fetch(arn));
    let fetch = ask.as_mut().map(|ask| ask as &mut Fetch<'_>);
    let mut tell = |at| told.tell(at);
    let rules = args.common.rules();
    let found = trace_and_fetch(&args.files, &mut stdin, &selection, rules, now, &mut tell, fetch);
    drop(told);
    match found {
        Ok(trace) => args.common.output(
            &trace,
            &trace.findings,
            || text::trace(&trace, session.screen),
            || html::trace(&trace),
        ),
        Err(error) => failed(&error),
    }
}
