//! What a chained line is wrapped in on its way out, and how it is found again: the line's own bytes stay as they are, so
//! the chain is verified from whatever carried it.

use std::borrow::Cow;
use std::io;

use memchr::memmem;
use serde::Deserialize;

use super::chain::Head;
use super::file::MAX_LINE;
use super::line::{BEGINNING, Line};
use super::{ocsf, syslog};

/// How one begins as a string in a JSON document.
const QUOTED: &[u8] = br#""{\"v\":1,\"time\":\""#;

/// What the chain adds to a line is shorter.
const SEAL: usize = 256;

/// In which form lines go to standard output and to syslog.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Our own: the line as it was chained.
    #[default]
    Tenure,
    /// An event of the Open Cybersecurity Schema Framework, with the chained line in its `raw_data`.
    Ocsf,
}

/// The wrapping of one sink.
#[derive(Clone, Debug, Default)]
pub(super) struct Framing {
    pub(super) format: Format,
    pub(super) header: Option<syslog::Header>,
}

impl Framing {
    /// Whether a line goes out as it is.
    pub(super) fn is_plain(&self) -> bool {
        self.format == Format::Tenure && self.header.is_none()
    }

    /// The most bytes that one framed line may have. Of what readers take, or of what a datagram carries.
    pub(super) fn limit(&self) -> usize {
        if self.header.is_some() { syslog::MAX_DATAGRAM } else { MAX_LINE - 1 }
    }

    /// Whether a line that is not sealed yet will not be longer than the limit. A line that never fits would otherwise be
    /// tried again for ever.
    pub(super) fn fits(&self, unsealed: &[u8]) -> bool {
        let sealed = unsealed.len() + SEAL;
        if self.is_plain() {
            return sealed <= self.limit();
        }
        // An event has the line once, with each quote escaped, and each of its strings twice at most.
        if sealed.saturating_mul(4).saturating_add(4096) <= self.limit() {
            return true;
        }
        if sealed > self.limit() {
            return false;
        }
        let (mut line, mut framed) = (unsealed.to_vec(), Vec::new());
        Head { seq: u64::MAX - 1, ..Head::START }.seal(&mut line, 0);
        line.pop();
        self.frame(&line, &mut framed).is_ok() && framed.len() <= self.limit()
    }

    /// Appends the line, without a newline, as it goes out.
    ///
    /// # Errors
    /// It is no line of ours.
    pub(super) fn frame(&self, line: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        if let Some(header) = &self.header {
            header.write(line, out)?;
        }
        match self.format {
            Format::Tenure => out.extend_from_slice(line),
            Format::Ocsf => {
                let raw = std::str::from_utf8(line).map_err(io::Error::other)?;
                let parsed: Line = serde_json::from_str(raw)?;
                serde_json::to_writer(&mut *out, &ocsf::event(&parsed, raw)?)?;
            }
        }
        Ok(())
    }
}

/// What stands before a line that was collected is no longer: a time, the name of a stream or of a container.
const PREFIX: usize = 512;

/// The members of a collector's record that may hold the line; it may have any others.
#[derive(Deserialize)]
struct Envelope<'a> {
    /// OCSF.
    #[serde(borrow)]
    raw_data: Option<Cow<'a, str>>,
    /// Docker's `json-file`, Fluent Bit.
    #[serde(borrow)]
    log: Option<Cow<'a, str>>,
    /// CloudWatch Logs' events, Vector, Logstash.
    #[serde(borrow)]
    message: Option<Cow<'a, str>>,
    /// CloudWatch Logs Insights.
    #[serde(borrow, rename = "@message")]
    at_message: Option<Cow<'a, str>>,
    /// systemd's journal, by `journalctl -o json`.
    #[serde(borrow, rename = "MESSAGE")]
    of_journal: Option<Cow<'a, str>>,
}

/// The chained line within one that was collected: what is before it is stepped over, an RFC 5424 header or a time and names
/// without a brace; of a JSON object that is an OCSF event or a collector's record the member that holds the line is taken.
/// Anything else is returned as it is.
#[must_use]
pub fn unwrapped(collected: &[u8]) -> Cow<'_, [u8]> {
    if collected.starts_with(BEGINNING) {
        return Cow::Borrowed(collected);
    }
    let message = syslog::message(collected).unwrap_or(collected);
    if message.first() == Some(&b'{') {
        return held(message).map_or(Cow::Borrowed(message), Cow::Owned);
    }
    let near = &message[..message.len().min(PREFIX + BEGINNING.len())];
    match memmem::find(near, BEGINNING) {
        Some(at) if memchr::memchr(b'{', near) == Some(at) => Cow::Borrowed(&message[at..]),
        _ => Cow::Borrowed(message),
    }
}

/// The line that a JSON object has in one of its members.
fn held(message: &[u8]) -> Option<Vec<u8>> {
    memmem::find(message, QUOTED)?;
    let Envelope { raw_data, log, message, at_message, of_journal } =
        serde_json::from_slice::<Envelope<'_>>(message).ok()?;
    let mut members = [raw_data, log, message, at_message, of_journal].into_iter().flatten();
    let line = members.find(|member| member.as_bytes().starts_with(BEGINNING))?;
    // Docker keeps the end of the line.
    Some(line.trim_end_matches(['\r', '\n']).as_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"v":1,"time":"2026-01-01T00:00:00.000Z","boot":"b1"}"#;

    #[test]
    fn a_line_is_found_in_what_collectors_make_of_it() {
        let quoted = serde_json::Value::from(LINE).to_string();
        let ended = serde_json::Value::from(format!("{LINE}\n")).to_string();
        for collected in [
            LINE.to_owned(),
            format!(r#"{{"log":{ended},"stream":"stdout","time":"2026-01-01T00:00:00.1Z"}}"#),
            format!(r#"{{"timestamp":1,"message":{quoted},"ingestionTime":2}}"#),
            format!(r#"{{"@timestamp":"x","@message":{quoted}}}"#),
            format!(r#"{{"MESSAGE":{quoted},"_PID":"7"}}"#),
            format!("2026-01-01T00:00:00.1Z {LINE}"),
            format!("2026-01-01T00:00:00.1Z stdout F {LINE}"),
            format!("tenure-1  | {LINE}"),
        ] {
            assert_eq!(unwrapped(collected.as_bytes()), LINE.as_bytes(), "{collected}");
        }
        for other in ["", "words", "{", "x{ {\"v\":1", r#"{"message":"words"}"#, r#"{"log":7}"#] {
            assert_eq!(unwrapped(other.as_bytes()), other.as_bytes());
        }
        // What looks like a line within another's words is none.
        for within in [format!(r#"{{"detail":{{"a":1}},"x":{LINE}}}"#), format!("say {{}} {LINE}")] {
            assert_eq!(unwrapped(within.as_bytes()), within.as_bytes());
        }
    }
}
