//! The chain: every line carries the hash of the one before it, and its own.

use std::fmt;
use std::io::Write as _;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// What stands before a line's own hash.
const HASH_KEY: &[u8] = b",\"hash\":\"";

/// From [`HASH_KEY`] to the closing brace: the part of a line that its hash does not cover.
const HASH_MEMBER: usize = HASH_KEY.len() + 64 + 2;

/// A SHA-256, written as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hash([u8; 64]);

impl Hash {
    /// What the first line of a chain names as its predecessor: 64 zeros.
    pub const NONE: Self = Self([b'0'; 64]);

    /// The hash of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut hex = [0; 64];
        for (pair, byte) in hex.as_chunks_mut::<2>().0.iter_mut().zip(Sha256::digest(bytes)) {
            *pair = [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]];
        }
        Self(hex)
    }

    /// Reads 64 lower-case hexadecimal digits; anything else is `None`.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let hex: [u8; 64] = text.try_into().ok()?;
        hex.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')).then_some(Self(hex))
    }

    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Both constructors let nothing but hexadecimal digits in.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Hash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(text.as_bytes())
            .ok_or_else(|| serde::de::Error::custom("a hash is 64 lower-case hexadecimal digits"))
    }
}

impl schemars::JsonSchema for Hash {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Hash".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "A SHA-256 in lower-case hexadecimal digits.",
            "pattern": "^[0-9a-f]{64}$",
        })
    }
}

/// Where a chain ends: what an anchor pins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// The number of the last line; 0 before the first.
    pub seq: u64,
    /// The hash of the last line; 64 zeros before the first.
    pub hash: Hash,
}

/// From an anchor's `<seq>:<hash>`.
impl std::str::FromStr for Head {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (seq, hash) = text.split_once(':').ok_or(())?;
        Ok(Self { seq: seq.parse().map_err(drop)?, hash: Hash::parse(hash.as_bytes()).ok_or(())? })
    }
}

impl Head {
    /// As anchors have it: `<seq>:<hash>`.
    #[must_use]
    pub fn pin(&self) -> String {
        format!("{}:{}", self.seq, self.hash)
    }

    /// The head of a chain without lines.
    pub const START: Self = Self { seq: 0, hash: Hash::NONE };

    /// Ends the line that `out` holds from `start` on: its number, the hash before, its own hash. Moves the head to it.
    ///
    /// What stands at `start` is a JSON object without its closing brace.
    pub(super) fn seal(&mut self, out: &mut Vec<u8>, start: usize) {
        let seq = self.seq + 1;
        out.extend_from_slice(b",\"seq\":");
        // Writing to a Vec cannot fail.
        let _ = write!(out, "{seq}");
        out.extend_from_slice(b",\"prev\":\"");
        out.extend_from_slice(&self.hash.0);
        out.push(b'"');
        let hash = Hash::of(&out[start..]);
        out.extend_from_slice(HASH_KEY);
        out.extend_from_slice(&hash.0);
        out.extend_from_slice(b"\"}\n");
        *self = Self { seq, hash };
    }
}

/// `<seq>:<hash>`, as it goes into a token's metadata and into headers.
impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.seq, self.hash)
    }
}

/// Takes a line (without its newline) apart: the bytes that are hashed, and the hash it states.
pub(super) fn split(line: &[u8]) -> Option<(&[u8], Hash)> {
    let (content, member) = line.split_at_checked(line.len().checked_sub(HASH_MEMBER)?)?;
    let digits = member.strip_prefix(HASH_KEY)?.strip_suffix(b"\"}")?;
    Some((content, Hash::parse(digits)?))
}

/// The number, the hash before and the own hash that a line's end states, whatever is before it.
pub(super) fn stated(line: &[u8]) -> Option<(u64, Hash, Hash)> {
    let (content, hash) = split(line)?;
    let (rest, prev) = content.strip_suffix(b"\"")?.split_last_chunk::<64>()?;
    let rest = rest.strip_suffix(br#","prev":""#)?;
    let digits = rest.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let (rest, seq) = rest.split_at(rest.len() - digits);
    rest.strip_suffix(br#","seq":"#)?;
    let seq = std::str::from_utf8(seq).ok()?.parse().ok()?;
    Some((seq, Hash::parse(prev)?, hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_line_splits_into_what_is_hashed_and_its_hash() {
        let mut out = b"{\"v\":1".to_vec();
        let mut head = Head::START;
        head.seal(&mut out, 0);
        let line = out.strip_suffix(b"\n").unwrap();
        let (content, hash) = split(line).unwrap();
        assert_eq!(content, format!("{{\"v\":1,\"seq\":1,\"prev\":\"{}\"", Hash::NONE).as_bytes());
        assert_eq!((hash, head.hash), (Hash::of(content), hash));
        assert_eq!(head.seq, 1);
        assert_eq!(split(b"{}"), None);
    }

    #[test]
    fn a_hash_is_that_of_the_standard() {
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Hash::of(b"abc").as_str(), abc);
        assert_eq!(Hash::parse(abc.as_bytes()), Some(Hash::of(b"abc")));
        assert_eq!(Hash::parse(abc.to_uppercase().as_bytes()), None);
    }
}
