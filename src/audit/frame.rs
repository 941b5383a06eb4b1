//! What a chained line is wrapped in on its way out, and how it is found again: the line's own bytes stay as they are, so
//! the chain is verified from whatever carried it.

use std::borrow::Cow;
use std::io;

use memchr::memmem;
use serde::Deserialize;

use super::chain::Head;
use super::file::MAX_LINE;
use super::line::Line;
use super::{ocsf, syslog};

/// How a line of ours begins.
pub(super) const BEGINNING: &[u8] = br#"{"v":1,"time":""#;

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

/// The member of an event that holds the line; pipelines may have added or renamed others.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    raw_data: Cow<'a, str>,
}

/// The chained line within one that was collected: an RFC 5424 header before it is stepped over, and of an OCSF event
/// `raw_data` is taken. Anything else is returned as it is.
#[must_use]
pub fn unwrapped(collected: &[u8]) -> Cow<'_, [u8]> {
    if collected.starts_with(BEGINNING) {
        return Cow::Borrowed(collected);
    }
    let message = syslog::message(collected).unwrap_or(collected);
    if message.first() == Some(&b'{')
        && memmem::find(message, QUOTED).is_some()
        && let Ok(envelope) = serde_json::from_slice::<Envelope<'_>>(message)
        && envelope.raw_data.as_bytes().starts_with(BEGINNING)
    {
        return Cow::Owned(envelope.raw_data.into_owned().into_bytes());
    }
    Cow::Borrowed(message)
}
