//! The chain: every line carries the hash of the one before it, and its own.

use std::fmt;
use std::io::Write as _;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::clock::Moment;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// The number of the last line; 0 before the first.
    pub seq: u64,
    /// The hash of the last line; 64 zeros before the first.
    pub hash: Hash,
}

impl Head {
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

/// `YYYY-MM-DDThh:mm:ss.mmmZ`.
///
/// A formatter of our own, because it is on every line: a tenth of the general one's time, and no allocation.
pub(super) struct Timestamp([u8; 24]);

impl Timestamp {
    pub(super) fn of(moment: Moment) -> Self {
        // The last second of the year 9999: four digits hold no more.
        let seconds = moment.wall.as_secs().min(253_402_300_799);
        let (days, second) = (seconds / 86_400, seconds % 86_400);
        // Days since 0000-03-01 in eras of 400 years (H. Hinnant, "chrono-compatible low-level date algorithms").
        let shifted = days + 719_468;
        let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        let year = era * 400 + year_of_era + u64::from(month <= 2);

        let mut text = *b"0000-00-00T00:00:00.000Z";
        let mut put = |at: usize, width: usize, mut value: u64| {
            for digit in text[at..at + width].iter_mut().rev() {
                *digit = b'0' + (value % 10) as u8;
                value /= 10;
            }
        };
        put(0, 4, year);
        put(5, 2, month);
        put(8, 2, day);
        put(11, 2, second / 3_600);
        put(14, 2, second / 60 % 60);
        put(17, 2, second % 60);
        put(20, 3, u64::from(moment.wall.subsec_millis()));
        Self(text)
    }

    pub(super) fn as_str(&self) -> &str {
        // Digits and punctuation only.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

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

    proptest! {
        #[test]
        fn a_timestamp_says_what_the_general_formatter_says(millis in 0..253_402_300_800_000u64) {
            let wall = Duration::from_millis(millis);
            let moment = Moment { mono: Duration::ZERO, wall };
            let text = Timestamp::of(moment);
            prop_assert_eq!(text.as_str(), moment.rfc3339());
        }
    }
}
