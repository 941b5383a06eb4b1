//! What an auditor does, afterwards.

use super::reserve::READERS;
use super::stage::PAYMENTS;
use super::timeline::Tone;
use super::{DemoError, Show, ensure, off};
use crate::audit::{self, Event, Outcome};

impl Show<'_> {
    /// The auditor's part: the chain is whole, holds no secret, and a change in a copy is found.
    pub(super) fn audit(&mut self) -> Result<(), DemoError> {
        self.line.heading("Audit", "what an auditor does, afterwards")?;
        let text = std::fs::read_to_string(self.dir.log())?;
        let lines = self.lines()?;
        let report = audit::verify(text.as_bytes())?;
        ensure(report.is_good(), format!("the audit chain is broken:\n{report}"))?;
        ensure(report.boots == 2 && report.chains == 1, "it is not one chain over both brokers")?;
        let granted =
            lines.iter().filter(|line| line.event == Event::Read && line.outcome == Outcome::Granted).count();
        ensure(granted > READERS, "disclosures are missing in the audit log")?;
        let head = report.head.map(|head| head.hash.to_string()).unwrap_or_default();
        let whole = self.line.paint("the chain is whole", Tone::Bold);
        self.line.event(
            Tone::Good,
            "verified",
            &format!("{} lines, {granted} disclosures, 2 brokers, {whole}; head {:.12}…", report.lines, head),
        )?;
        let secrets = self.secrets.iter().filter(|secret| !secret.is_empty());
        let leaked = secrets.clone().filter(|secret| text.contains(secret.as_str())).count();
        ensure(leaked == 0, format!("{leaked} secrets are in the audit log"))?;
        let count = secrets.count();
        ensure(count >= 12, format!("only {count} secrets were looked for"))?;
        self.line.event(
            Tone::Good,
            "searched",
            &format!("none of the {count} passwords, handles and task tokens of this demo is in it"),
        )?;
        let Some(at) = lines
            .iter()
            .rposition(|line| line.outcome == Outcome::Granted && line.path.as_deref() == Some(PAYMENTS))
        else {
            return off("there is no read to tamper with".to_owned());
        };
        let tampered: Vec<_> = text
            .lines()
            .enumerate()
            .map(
                |(number, line)| {
                    if number == at { line.replace("payments", "harmless") } else { line.to_owned() }
                },
            )
            .collect();
        let copy = self.dir.join("tampered.jsonl");
        std::fs::write(&copy, tampered.join("\n") + "\n")?;
        let report = audit::verify(std::fs::read(&copy)?.as_slice())?;
        let Some(found) = report.problems.first() else {
            return off("a tampered copy was not noticed".to_owned());
        };
        let wanted = at as u64 + 1;
        ensure(
            report.problems.len() == 1 && found.line == wanted,
            format!("line {wanted} was changed and line {} was named", found.line),
        )?;
        self.line.event(Tone::Bad, "tampered", "in a copy, one word of one line is changed")?;
        let caught = self.line.paint(&format!("line {}", found.line), Tone::Bold);
        self.line.event(Tone::Good, "caught", &format!("{caught}: {}", found.message))?;
        Ok(())
    }
}
