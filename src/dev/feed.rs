//! What happens, as the audit log tells it: the file is followed, and each line that matters here is said in a few words.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::time::Duration;

use crate::audit::{Event, Line, Outcome};
use crate::demo::Tone;

/// The end of an audit log, from a place on.
#[derive(Debug)]
pub(super) struct Feed {
    file: File,
    /// What was read of a line that is not whole yet.
    rest: Vec<u8>,
}

impl Feed {
    /// Follows a file from `from` bytes on.
    pub(super) fn follow(path: &Path, from: u64) -> io::Result<Self> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(from))?;
        Ok(Self { file, rest: Vec::new() })
    }

    /// The whole lines since the last time. One that is not understood is passed over: the verifier is there for that.
    pub(super) fn lines(&mut self) -> io::Result<Vec<Line>> {
        self.file.read_to_end(&mut self.rest)?;
        let whole = self.rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let lines = self.rest[..whole].split(|byte| *byte == b'\n');
        let lines = lines.filter_map(|line| serde_json::from_slice(line).ok()).collect();
        self.rest.drain(..whole);
        Ok(lines)
    }
}

/// A line in a few words; `None` where it is of no interest to who tries something out.
pub(super) fn told(line: &Line) -> Option<(Tone, &'static str, String)> {
    let reason = || line.reason.as_deref().unwrap_or("no reason is given");
    let detail = || line.detail.as_deref().unwrap_or_default();
    let what = || line.path.as_deref().or(line.detail.as_deref()).unwrap_or(line.event.word());
    if line.outcome == Outcome::Denied {
        return Some((Tone::Bad, "denied", format!("{}{}: {}", what(), of(line), reason())));
    }
    if line.outcome == Outcome::Failed {
        let what = match (line.event, &line.path) {
            (_, Some(path)) => path.as_str(),
            (Event::Login, _) => "login",
            (Event::TokenLost, _) => "a token",
            _ => what(),
        };
        let word = if line.event == Event::TokenLost { "lost" } else { "failed" };
        return Some((Tone::Bad, word, format!("{what}{}: {}", of(line), reason())));
    }
    let (tone, word, text) = match line.event {
        Event::Read | Event::List => {
            let source = line.source.map_or("", |source| match source {
                crate::audit::Source::Cache => ", held already",
                crate::audit::Source::Vault => ", new",
                crate::audit::Source::Stale => ", stale: upstream cannot answer",
            });
            let stale = line.source == Some(crate::audit::Source::Stale);
            let version = line.version.map(|version| format!(", version {version}")).unwrap_or_default();
            let tone = if stale { Tone::Warn } else { Tone::Good };
            (tone, "grant", format!("{}{source}{version}{}{}", what(), left(line), of(line)))
        }
        Event::Mint => (Tone::Plain, "mint", format!("{}{}{}", what(), left(line), of(line))),
        Event::Renew | Event::LoginRenew => {
            (Tone::Plain, "renew", format!("{}{}{}", what(), left(line), of(line)))
        }
        Event::Rotate => (Tone::Plain, "rotate", format!("{}{}{}", what(), left(line), of(line))),
        Event::Login => (Tone::Plain, "login", format!("a login token{}", left(line))),
        Event::RunRegister => (Tone::Bold, "run begun", name(line)),
        Event::RunStart => {
            (Tone::Plain, "run token", format!("of role {}{}{}", detail(), left(line), of(line)))
        }
        Event::RunExtend => (Tone::Plain, "extended", format!("{}{}", name(line), left(line))),
        Event::RunEnd => (Tone::Bold, "run ended", format!("{}, {}", name(line), detail())),
        Event::RevokeConfirmed | Event::OrphanRevoked => {
            (Tone::Plain, "revoke", format!("{}{}", what(), of(line)))
        }
        Event::TokenLost => (Tone::Bad, "lost", format!("{}{}", what(), of(line))),
        Event::AuditRecovered => (Tone::Warn, "audit", "lines can be written again".to_owned()),
        Event::ClockJump => (Tone::Warn, "clock", detail().to_owned()),
        _ => return None,
    };
    Some((tone, word, text))
}

/// Whose it is, where it is not the process's own run.
fn of(line: &Line) -> String {
    match &line.run {
        Some(run) if run.kind != "process" => format!(" · {}", name(line)),
        _ => String::new(),
    }
}

/// The run: its id, and its state where it has one.
fn name(line: &Line) -> String {
    let Some(run) = &line.run else { return "a run".to_owned() };
    match &run.state {
        Some(state) => format!("{} ({state})", run.id),
        None => run.id.clone(),
    }
}

/// What is left of a life when the line was written.
fn left(line: &Line) -> String {
    let time = |text: &str| humantime::parse_rfc3339_weak(text).ok();
    let left = line.expires.as_deref().and_then(time).zip(time(&line.time));
    match left.and_then(|(end, now)| end.duration_since(now).ok()) {
        Some(left) => format!(", {} left", humantime::format_duration(rounded(left))),
        None => String::new(),
    }
}

/// In whole seconds: nobody wants to read the milliseconds of an hour.
fn rounded(left: Duration) -> Duration {
    Duration::from_secs(left.as_secs() + u64::from(left.subsec_millis() >= 500))
}
