//! `tenure lambda`: the broker as a Lambda extension.

use std::path::PathBuf;

use clap::Args;
use tracing_subscriber::Layer as _;

use super::check::file_of;
use super::logging;
use super::serve::{harden, open_files, outlive_limits};
use super::{Output, Session};
use crate::app::Upstream;
use crate::config::{self, Log, LogFormat, Overrides};
use crate::lambda::{AwsEnv, Events, Extension, Fatal, Lines, Setup, Start, serve};

/// Where the configuration may be in a function, beside the environment variables.
const PLACES: [&str; 2] = ["/var/task/tenure.toml", "/opt/tenure/tenure.toml"];

/// Run the broker as a Lambda extension
#[derive(Args, Debug, Default)]
#[command(
    long_about = "Run the broker as an external Lambda extension. Lambda starts it so by itself: `tenure` without a command, \
        where AWS_LAMBDA_RUNTIME_API is set.\n\nThe configuration is TENURE_CONFIG, else tenure.toml beside the function's \
        code, else /opt/tenure/tenure.toml, and the environment variables over it; VAULT_ADDR and TENURE_AUTH_ROLE are \
        enough. The function reads at unix:///tmp/tenure/tenure.sock, or at http://127.0.0.1:8200 with what \
        /tmp/tenure/token holds as VAULT_TOKEN. With a [[listen.secrets_manager.secret]] it answers at \
        http://localhost:2773 as AWS's own extension, too. Audit lines go to the function's log, and lines of our own in the form and \
        from the level that AWS_LAMBDA_LOG_FORMAT and AWS_LAMBDA_LOG_LEVEL say.\n\n\
        Exit code: 0 Lambda ended the environment, 1 not started, or ended by an error, which Lambda was told, 2 this is no \
        Lambda function.",
    after_long_help = "Example, in the environment of the function:\n  \
        VAULT_ADDR=https://vault.internal:8200 TENURE_AUTH_ROLE=orders TENURE_TOKEN_ROLE=run"
)]
pub(crate) struct LambdaArgs {}

pub(crate) fn lambda(session: &Session) -> Output {
    let began = session.clock.now();
    let Some(aws) = AwsEnv::read(&session.environment) else {
        return Output::failed(
            2,
            "AWS_LAMBDA_RUNTIME_API is not set: Lambda starts this; elsewhere there is `tenure serve`",
        );
    };
    harden();
    open_files();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Output::failed(1, &format!("the runtime cannot start: {error}")),
    };
    let result = runtime.block_on(async {
        let name = name();
        let events = match aws.start {
            Start::Concurrent => Events::Shutdown,
            Start::Ordinary | Start::Snapshot => Events::All,
        };
        let extension = Extension::register(&aws.api, &name, events).await;
        let extension = extension.map_err(|error| error.to_string())?;
        let served = start(&extension, aws, session, began).await;
        let Err(fatal) = served else { return Ok(()) };
        let told = match fatal.started {
            false => extension.init_error(fatal.kind, &fatal.message).await,
            true => extension.exit_error(fatal.kind, &fatal.message).await,
        };
        if let Err(error) = told {
            tracing::error!("Lambda could not be told: {error}");
        }
        Err(format!("{}: {}", fatal.kind, fatal.message))
    });
    match result {
        Ok(()) => Output::default(),
        Err(message) => Output::failed(1, &message),
    }
}

async fn start(
    extension: &Extension,
    aws: AwsEnv,
    session: &Session,
    began: crate::clock::Moment,
) -> Result<(), Fatal> {
    let invalid = |message| Fatal { kind: "Extension.ConfigInvalid", message, started: false };
    outlive_limits();
    let beside = PLACES.iter().map(PathBuf::from).find(|path| path.is_file());
    let file = match session.environment.var("TENURE_CONFIG") {
        Some(_) => file_of(None, &session.environment),
        None => beside,
    };
    let flags = Overrides { lambda: true, ..Overrides::default() };
    let loaded = config::load(file.as_deref(), &session.environment, &flags, session.clock.now());
    let loaded = loaded.map_err(|problems| invalid(problems.to_string()))?;
    lines_of(&loaded.config.log).map_err(invalid)?;
    let setup = Setup {
        extension: extension.clone(),
        aws,
        config: loaded.config,
        run: loaded.run,
        upstream: Box::new(Upstream::vault),
        clock: session.clock.clone(),
        began,
    };
    serve(setup).await
}

/// Log lines go to stderr, which Lambda takes as well: JSON in its own form, or text.
fn lines_of(log: &Log) -> Result<(), String> {
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match log.format {
        LogFormat::Auto | LogFormat::Json => lines.event_format(Lines).boxed(),
        LogFormat::Text => lines.with_ansi(false).boxed(),
    };
    logging::start_lines(lines, log)
}

/// The file name of the executable, by which Lambda knows the extension.
fn name() -> String {
    let path = std::env::args_os().next().map(PathBuf::from).unwrap_or_default();
    path.file_name().map_or_else(|| "tenure".to_owned(), |name| name.to_string_lossy().into_owned())
}
