//! `tenure subject`: on whose behalf an execution runs, sealed for all of its states.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;

use super::check::file_of;
use super::screen::{Cell, Paint, printable};
use super::{Output, Session, serve};
use crate::app::subject::{self, Sealing, SubjectFailure};
use crate::app::{AppError, Upstream, process_run};
use crate::causes::causes;
use crate::clock::Moment;
use crate::config::{self, Overrides};
use crate::run::arn::ExecutionArn;
use crate::run::seal::Lineage;
use crate::run::subject::{Checked, Subject};
use crate::secret::Credential;

#[derive(Debug, Subcommand)]
pub(crate) enum SubjectCommand {
    /// Check a token and seal whom it stands for
    #[command(
        long_about = "Check an OIDC token and have Vault sign whom it stands for, for one execution alone: what an \
            execution's entry step does, so that no token gets into state input. Logs in to Vault as `tenure serve` \
            does, and revokes that login.\n\nPrints the seal and nothing else. It is no secret, and of no use outside \
            the execution.\n\nExit code: 0 sealed, 1 refused or not configured, 2 the issuer or Vault cannot answer.",
        after_long_help = "Example:\n  tenure subject seal --token-file /run/id-token --execution-arn \\\n    \
            arn:aws:states:eu-west-1:123456789012:execution:orders:7f3a"
    )]
    Seal {
        /// The file of the token
        #[arg(long, value_name = "FILE")]
        token_file: PathBuf,
        #[command(flatten)]
        common: Common,
    },
    /// Check a seal or a token, and print whom it stands for
    #[command(
        long_about = "Check a seal or a token as the broker would for a run of that execution, and print whom it \
            stands for. For a seal it logs in to Vault as `tenure serve` does, and revokes that login.\n\n\
            Exit code: 0 good, 1 refused or not configured, 2 the issuer or Vault cannot answer.",
        after_long_help = "Example:\n  tenure subject verify --file seal.txt --execution-arn \\\n    \
            arn:aws:states:eu-west-1:123456789012:execution:orders:7f3a"
    )]
    Verify {
        /// The file of the seal, or of the token
        #[arg(long, value_name = "FILE")]
        file: PathBuf,
        /// An execution above that one; may be given several times
        #[arg(long, value_name = "ARN")]
        parent_execution_arn: Vec<ExecutionArn>,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Args, Debug)]
pub(crate) struct Common {
    /// The execution that it is for
    #[arg(long, value_name = "ARN")]
    execution_arn: ExecutionArn,
    /// The configuration file [env: TENURE_CONFIG] [default: /etc/tenure/tenure.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(command: &SubjectCommand, session: &Session) -> Output {
    serve::harden();
    let (common, file) = match command {
        SubjectCommand::Seal { token_file, common } => (common, token_file),
        SubjectCommand::Verify { file, common, .. } => (common, file),
    };
    let (config, upstream) = match prepared(common, session) {
        Ok(prepared) => prepared,
        Err(output) => return output,
    };
    let token = match token(file) {
        Ok(token) => token,
        Err(message) => return Output::failed(1, &message),
    };
    match command {
        SubjectCommand::Seal { .. } => {
            let execution = &common.execution_arn;
            sealed(subject::seal(&config, &upstream, &session.clock, &token, execution).await, common.json)
        }
        SubjectCommand::Verify { parent_execution_arn, .. } => {
            let lineage = Lineage { execution: Some(&common.execution_arn), ancestors: parent_execution_arn };
            let said = subject::verify(&config, &upstream, &session.clock, &token, lineage).await;
            verified(said, common.json, session)
        }
    }
}

fn prepared(common: &Common, session: &Session) -> Result<(config::Subject, Upstream), Output> {
    let file = file_of(common.config.as_deref(), &session.environment);
    let now = session.clock.now();
    let loaded = config::load(file.as_deref(), &session.environment, &Overrides::default(), now);
    let loaded = loaded.map_err(|problems| Output {
        err: format!("{problems}\nerror: the configuration cannot be used\n"),
        code: 1,
        ..Output::default()
    })?;
    let failed = |error: AppError| Output::failed(1, &causes(&error));
    let config::Loaded { config, run, .. } = loaded;
    let run = process_run(run).map_err(failed)?;
    let upstream = Upstream::vault(&config, &run, &session.clock).map_err(failed)?;
    Ok((config.subject, upstream))
}

fn token(file: &Path) -> Result<Credential, String> {
    Credential::from_file(file).map_err(|why| format!("{}: {why}", file.display()))
}

fn sealed(said: Result<Sealing, SubjectFailure>, json: bool) -> Output {
    match said {
        Ok(Sealing { text, .. }) if !json => Output::said(text + "\n"),
        Ok(Sealing { text, subject, expires }) => {
            let json = json!({"sealed": text, "subject": about(&subject), "expires": time(expires)});
            Output::said(format!("{json:#}\n"))
        }
        Err(failure) => failed(&failure),
    }
}

fn verified(said: Result<Checked, SubjectFailure>, json: bool, session: &Session) -> Output {
    let Checked { subject, expires } = match said {
        Ok(checked) => checked,
        Err(failure) => return failed(&failure),
    };
    if json {
        let json = json!({"subject": about(&subject), "expires": time(expires)});
        return Output::said(format!("{json:#}\n"));
    }
    let row = |name: &str, value: String| vec![Cell::new(name, Paint::Bold), Cell::from(value)];
    let groups: Vec<_> = subject.groups.iter().map(|group| printable(group)).collect();
    Output::said(session.screen.columns(&[
        row("subject", printable(&subject.id)),
        row("kind", subject.kind.word().to_owned()),
        row("issuer", printable(subject.issuer.as_deref().unwrap_or_default())),
        row("groups", groups.join(", ")),
        row("expires", time(expires)),
    ]))
}

fn failed(failure: &SubjectFailure) -> Output {
    let code = match failure {
        SubjectFailure::Refused(_) => 1,
        SubjectFailure::Unavailable(_) => 2,
    };
    Output::failed(code, &printable(&failure.to_string()))
}

fn about(subject: &Subject) -> serde_json::Value {
    json!({
        "id": subject.id,
        "kind": subject.kind.word(),
        "issuer": subject.issuer,
        "assurance": subject.assurance.word(),
        "groups": subject.groups,
    })
}

fn time(since_epoch: Duration) -> String {
    Moment::new(Duration::ZERO, since_epoch).rfc3339()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::subject::{Assurance, SubjectKind};

    fn subject() -> Subject {
        Subject {
            id: "ada\u{1b}[1m".to_owned(),
            kind: SubjectKind::Person,
            issuer: Some("https://id.example.com".to_owned()),
            assurance: Assurance::Verified,
            groups: vec!["admins".to_owned()],
        }
    }

    #[test]
    fn a_seal_is_printed_alone_or_as_json() {
        let expires = Duration::from_secs(1_767_225_600);
        let sealing = || Ok(Sealing { text: "tns1.a.1.b".to_owned(), subject: subject(), expires });
        assert_eq!(sealed(sealing(), false), Output::said("tns1.a.1.b\n".to_owned()));
        let json: serde_json::Value = serde_json::from_str(&sealed(sealing(), true).out).unwrap();
        assert_eq!(json["sealed"], "tns1.a.1.b");
        assert_eq!(json["expires"], "2026-01-01T00:00:00.000Z");
        assert_eq!(json["subject"]["assurance"], "verified");
        let refused = sealed(Err(SubjectFailure::Refused("no".to_owned())), false);
        assert_eq!((refused.err.as_str(), refused.out.as_str(), refused.code), ("error: no\n", "", 1));
    }

    #[test]
    fn a_token_is_read_with_care() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        assert!(token(&file).unwrap_err().contains("No such file"));
        for (text, good) in [("canary\n", true), (" \n", false), (&*"x".repeat(70_000), false)] {
            std::fs::write(&file, text).unwrap();
            let read = token(&file);
            assert_eq!(read.is_ok(), good);
            assert!(read.map_or_else(|why| !why.contains("canary"), |it| it.matches(b"canary")));
        }
    }
}
