//! What a broker's line says, read from its bytes: every line is looked at, and few are parsed.
//!
//! The writer puts the members in one order, so the first ones stand at known places. A line whose members stand otherwise
//! was not written by a broker: the chain says so.

use memchr::memmem::Finder;

/// A time as lines state it, to the byte: it sorts as text.
pub(in super::super) type Stamp = [u8; 24];

/// The first members of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Head<'a> {
    pub(in super::super) time: Stamp,
    pub(in super::super) boot: &'a [u8],
    pub(in super::super) event: &'a [u8],
}

impl<'a> Head<'a> {
    pub(in super::super) fn of(line: &'a [u8]) -> Option<Self> {
        let rest = line.strip_prefix(br#"{"v":1,"time":""#)?;
        let (time, rest) = rest.split_first_chunk::<24>()?;
        let rest = rest.strip_prefix(br#"","boot":""#)?;
        let (boot, rest) = rest.split_at(memchr::memchr(b'"', rest)?);
        let rest = rest.strip_prefix(br#"","event":""#)?;
        let event = &rest[..memchr::memchr(b'"', rest)?];
        Some(Self { time: *time, boot, event })
    }
}

/// Finds the id that a line says it sent to Vault.
#[derive(Clone, Debug)]
pub(in super::super) struct Requests {
    tags: Finder<'static>,
    member: Finder<'static>,
}

impl Default for Requests {
    fn default() -> Self {
        Self { tags: Finder::new(br#","tags":{"#), member: Finder::new(br#","request":""#) }
    }
}

impl Requests {
    /// The line's `request`. A tag may have that name, and any value: tags are stepped over. Everything else that others
    /// choose is the value of a member, where quotes are escaped.
    pub(in super::super) fn of<'a>(&self, line: &'a [u8]) -> Option<&'a [u8]> {
        let from = match self.tags.find(line) {
            Some(at) => at + 9 + end_of_strings(&line[at + 9..])?,
            None => 0,
        };
        let at = from + self.member.find(&line[from..])? + 12;
        let end = memchr::memchr(b'"', &line[at..])?;
        Some(&line[at..at + end])
    }
}

/// Where an object ends that holds nothing but strings.
fn end_of_strings(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += memchr::memchr2(b'"', b'}', &bytes[at..])?;
        if bytes[at] == b'}' {
            return Some(at);
        }
        at += 1;
        loop {
            at += memchr::memchr2(b'"', b'\\', &bytes[at..])?;
            if bytes[at] == b'"' {
                break;
            }
            at += 2;
            if at >= bytes.len() {
                return None;
            }
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_from_its_places() {
        let line =
            br#"{"v":1,"time":"2026-01-01T00:00:00.000Z","boot":"b1","event":"run.end","outcome":"done"}"#;
        let head = Head::of(line).unwrap();
        assert_eq!(
            (&head.time, head.boot, head.event),
            (b"2026-01-01T00:00:00.000Z", &b"b1"[..], &b"run.end"[..])
        );
        for cut in 0..line.len() - 20 {
            assert!(Head::of(&line[..cut]).is_none() || cut > 60);
        }
    }

    #[test]
    fn a_tag_is_no_request() {
        let requests = Requests::default();
        for (line, want) in [
            (r#"{"run":{"id":"r","tags":{"request":"x-1"}},"detail":"d"}"#, None),
            (r#"{"run":{"id":"r","tags":{"a":"}","request":"x-1"}},"request":"b-2"}"#, Some("b-2")),
            (
                r#"{"run":{"id":"r","tags":{"a":"\"},\\","b":"\\\""}},"request":"b-2","lease_id":"l"}"#,
                Some("b-2"),
            ),
            (r#"{"run":{"id":"r"},"request":"b-2"}"#, Some("b-2")),
            (r#"{"run":{"id":"r","tags":{"a":"x"#, None),
            (r#"{"run":{"id":"r","tags":{"a":"x\"#, None),
            (r#"{"run":{"id":"r"},"request":"b-2"#, None),
        ] {
            assert_eq!(requests.of(line.as_bytes()), want.map(str::as_bytes), "{line}");
        }
    }
}
