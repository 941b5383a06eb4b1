//! `tenure doctor`: will a broker with this configuration work here, and if not, why?

use std::path::PathBuf;

use clap::Args;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::check::file_of;
use super::screen::{Paint, Screen, printable};
use super::{Output, Session, serve};
use crate::app::doctor::Doctor;
use crate::app::doctor::report::{Cure, Finding, Report, Step, Verdict};
use crate::app::process_run;
use crate::causes::causes;
use crate::config::{self, Overrides};
use crate::init::Told;

/// Try every step from the configuration to a credential
#[derive(Args, Debug)]
#[command(
    long_about = "Try every step from the configuration to a credential, as `tenure serve` would take it: AWS credentials, \
        the clock, Vault, the login and its policies, a run token of each token role, the paths to prefetch, sockets, \
        files. Each is good, or is shown with the cause and with what to do, to be pasted. What cannot be judged because \
        of an earlier step is skipped; what this login may not ask is unknown, which is not wrong.\n\nIt is to be run where \
        the broker will run, as the same user and with the same environment. It reads no secret and prints none. The \
        login and the run tokens (60 s) that it makes are revoked. A broker that runs already holds its socket and its \
        files; they are shown as in use.\n\nExit code: 0 nothing is wrong, 1 something is.",
    after_long_help = "Examples:\n  tenure doctor --config tenure.toml\n  tenure doctor --json | jq '.steps[] | \
        select(.verdict == \"wrong\")'"
)]
pub(crate) struct DoctorArgs {
    /// The configuration file [env: TENURE_CONFIG] [default: /etc/tenure/tenure.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn doctor(args: &DoctorArgs, session: &Session) -> Output {
    serve::harden();
    let file = file_of(args.config.as_deref(), &session.environment);
    let now = session.clock.now();
    let report = match config::load(file.as_deref(), &session.environment, &Overrides::default(), now) {
        Err(problems) => unusable(problems.list().iter().map(ToString::to_string)),
        Ok(loaded) => {
            let doctor = process_run(loaded.run)
                .and_then(|run| Doctor::new(loaded.config, run, session.clock.clone()));
            let doctor = match doctor {
                Ok(doctor) => doctor,
                Err(error) => return Output::failed(1, &causes(&error)),
            };
            let mut told = match Told::listen(&[Signal::INT, Signal::TERM]) {
                Ok(told) => told,
                Err(error) => return Output::failed(1, &format!("signals cannot be listened to: {error}")),
            };
            tokio::select! {
                report = Box::pin(doctor.examine()) => report,
                _ = told.next() => {
                    let left = tokio::select! {
                        left = doctor.leave() => left.err().map(|failure| format!(": {failure}")),
                        _ = told.next() => Some(": what was made is left to its expiry".to_owned()),
                    };
                    return Output::failed(1, &format!("broken off{}", left.unwrap_or_default()));
                }
            }
        }
    };
    let out = if args.json { format!("{:#}\n", as_json(&report)) } else { shown(&report, session.screen) };
    Output { out, code: u8::from(!report.is_good()), ..Output::default() }
}

fn unusable(problems: impl Iterator<Item = String>) -> Report {
    let mut report = Report::default();
    for problem in problems {
        let cure = Cure::new("Correct it, and see what is in effect:", "tenure config check");
        report.wrong(Step::Configuration, problem, cure);
    }
    for step in [Step::Credentials, Step::Vault, Step::Login, Step::Listeners, Step::AuditLog] {
        report.skipped(step, "the configuration cannot be used");
    }
    report
}

/// One line for each step, below it what to do.
fn shown(report: &Report, screen: Screen) -> String {
    let width = report.findings.iter().map(|it| it.step.word().len()).max().unwrap_or(0);
    let indent = " ".repeat(width + 4);
    let mut out = String::new();
    for Finding { step, verdict } in &report.findings {
        let (mark, paint, text, cure) = match verdict {
            Verdict::Good(text) => ("✓", Paint::Good, text, None),
            Verdict::Unknown(text, cure) => ("?", Paint::Warn, text, Some(cure)),
            Verdict::Wrong(text, cure) => ("✗", Paint::Bad, text, Some(cure)),
            Verdict::Skipped(text) => ("-", Paint::Dim, text, None),
        };
        let name = format!("{:width$}", step.word());
        let name = screen.paint(&name, if mark == "-" { Paint::Dim } else { Paint::Bold });
        let said = if mark == "-" { format!("skipped: {text}") } else { text.clone() };
        let said = screen.paint(&printable(&said), if mark == "-" { Paint::Dim } else { Paint::Plain });
        out += &format!("{} {name}  {said}\n", screen.paint(mark, paint));
        let Some(Cure { text, paste }) = cure else { continue };
        if !text.is_empty() {
            out += &format!("{indent}{}\n", printable(text));
        }
        for line in paste.lines() {
            out += &format!("{indent}  {}\n", screen.paint(&printable(line), Paint::Bold));
        }
    }
    let count = |is: fn(&Verdict) -> bool| report.findings.iter().filter(|it| is(&it.verdict)).count();
    let wrong = count(|it| matches!(it, Verdict::Wrong(..)));
    let unknown = count(|it| matches!(it, Verdict::Unknown(..)));
    let skipped = count(|it| matches!(it, Verdict::Skipped(_)));
    let sum = match wrong {
        0 => screen.paint("nothing is wrong", Paint::Good),
        count => screen.paint(&format!("{count} wrong"), Paint::Bad),
    };
    out + &format!("\n{sum}, {unknown} unknown, {skipped} skipped\n")
}

fn as_json(report: &Report) -> Value {
    let steps: Vec<Value> = report
        .findings
        .iter()
        .map(|Finding { step, verdict }| {
            let (word, text, cure) = match verdict {
                Verdict::Good(text) => ("good", text, None),
                Verdict::Unknown(text, cure) => ("unknown", text, Some(cure)),
                Verdict::Wrong(text, cure) => ("wrong", text, Some(cure)),
                Verdict::Skipped(text) => ("skipped", text, None),
            };
            let mut said = json!({ "step": step.word(), "verdict": word, "text": text });
            if let Some(cure) = cure {
                said["cure"] = json!({ "text": cure.text, "paste": cure.paste });
            }
            said
        })
        .collect();
    json!({ "good": report.is_good(), "steps": steps })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut report = Report::default();
        report.good(Step::Vault, "unsealed");
        report.unknown(Step::Prefetch, "may not ask", Cure::default());
        report.wrong(Step::Login, "no role\u{1b}[1m", Cure::new("Make it:", "vault write a\nvault read a"));
        report.skipped(Step::RunToken, "there is no login");
        report
    }

    #[test]
    fn each_step_has_a_line_and_what_is_wrong_a_cure() {
        let plain = shown(&report(), Screen::default());
        assert_eq!(
            plain,
            "✓ vault      unsealed\n\
             ? prefetch   may not ask\n\
             ✗ login      no role\\u{1b}[1m\n             Make it:\n               vault write a\n               vault read a\n\
             - run token  skipped: there is no login\n\n\
             1 wrong, 1 unknown, 1 skipped\n"
        );
        let colour = shown(&report(), Screen { colour: true, ..Screen::default() });
        assert!(colour.contains("\u{1b}[31m✗\u{1b}[0m \u{1b}[1mlogin    \u{1b}[0m  no role\\u"), "{colour}");
    }

    #[test]
    fn json_says_the_same() {
        let json = as_json(&report());
        assert_eq!((&json["good"], &json["steps"][2]["verdict"]), (&json!(false), &json!("wrong")));
        assert_eq!(json["steps"][2]["cure"]["paste"], "vault write a\nvault read a");
        assert!(json["steps"][0].get("cure").is_none());
    }

    #[test]
    fn a_configuration_that_cannot_be_used_has_the_rest_skipped() {
        let report = unusable(["vault.address: missing".to_owned()].into_iter());
        assert!(
            !report.is_good() && shown(&report, Screen::default()).contains("skipped: the configuration")
        );
    }
}
