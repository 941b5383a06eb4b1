//! The path of a secret in Vault.

use std::fmt;
use std::str::FromStr;

/// A path below `/v1/`, such as `database/creds/orders`: relative, without `.`, `..` or empty segments, and without
/// anything that could end a request's path early.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretPath(String);

impl SecretPath {
    /// The path, as it is written after `/v1/`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SecretPath {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        if text.is_empty() {
            return Err(PathError::Empty);
        }
        if text.starts_with('/') {
            return Err(PathError::Absolute);
        }
        if text == "v1" || text.starts_with("v1/") {
            return Err(PathError::Versioned);
        }
        if let Some(c) = text.chars().find(|c| c.is_control() || matches!(c, '?' | '#' | '%' | '\\')) {
            return Err(PathError::Character(c));
        }
        match text.split('/').find(|segment| matches!(*segment, "" | "." | "..")) {
            Some("") => Err(PathError::EmptySegment),
            Some(dots) => Err(PathError::Dots(dots.len())),
            None => Ok(Self(text.to_owned())),
        }
    }
}

impl fmt::Display for SecretPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is not the path of a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Nothing was given.
    #[error("the path is empty; give one such as \"database/creds/orders\"")]
    Empty,
    /// It starts with a slash.
    #[error("a path has no leading slash: write \"database/creds/orders\"")]
    Absolute,
    /// It starts with `v1/`.
    #[error("leave \"v1/\" out: a path starts with its mount, such as \"database/creds/orders\"")]
    Versioned,
    /// `//`, or a slash at the end.
    #[error("the path has an empty segment (\"//\", or a slash at its end)")]
    EmptySegment,
    /// `.` or `..`.
    #[error("\"{}\" is no segment of a path", &".."[..*.0])]
    Dots(usize),
    /// A control character, or one of `?`, `#`, `%`, `\`.
    #[error("{0:?} cannot be in a path")]
    Character(char),
}
