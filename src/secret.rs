//! Two types for two trusts: what is ours towards upstream, and what is the workload's.
//!
//! Neither prints, compares or serializes itself, and both wipe their bytes when dropped.

use std::fmt;
use std::io::Read as _;
use std::path::Path;

use zeroize::Zeroizing;

pub(crate) mod sealed {
    /// Implemented by the audit module's receipt and by nothing else.
    pub trait Sealed {}

    /// Implemented by the audit module's key of values and by nothing else.
    pub trait Hashes {
        /// What is made of the bytes: nothing that they can be read from without the key.
        type Hashed;

        /// Hashes them.
        fn hash(&self, bytes: &[u8]) -> Self::Hashed;
    }
}

/// Proof that a disclosure was recorded. Only the audit module can produce one.
pub trait Disclosure: sealed::Sealed {}

/// A value that belongs to a workload: the bytes of an answer that contain a secret.
///
/// It opens only against a [`Disclosure`], so code that has not written its audit line cannot read it.
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes ownership of the bytes; they are wiped on drop.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes, for a reader whose disclosure has been recorded.
    pub fn open(&self, _proof: &impl Disclosure) -> &[u8] {
        &self.0
    }

    /// What a keyed hash makes of the bytes: it goes into the line that must be written before they are opened.
    #[must_use]
    pub fn hashed<K: sealed::Hashes>(&self, key: &K) -> K::Hashed {
        key.hash(&self.0)
    }

    /// Bytes held, for the memory gauge. A length is not a secret's content.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether two answers are the same, in time that depends on their lengths only.
    #[must_use]
    pub fn same_as(&self, other: &Self) -> bool {
        use subtle::ConstantTimeEq as _;
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A value of ours towards upstream: a Vault token. Opened by identity and source only.
#[derive(Clone)]
pub struct Credential(Zeroizing<String>);

impl Credential {
    /// Takes ownership of the text; it is wiped on drop.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// What a file holds that a person or a program put a token into, without the blanks around it.
    ///
    /// # Errors
    /// Why it cannot be used, for a message that names the file: it cannot be read, is empty, is no text, or is larger
    /// than any token. What it holds is not quoted.
    pub fn from_file(path: &Path) -> Result<Self, String> {
        /// An OIDC token with many groups has a few kilobytes.
        const LARGEST: u64 = 16 * 1024;
        let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
        // Room for all of it: growing would leave copies behind that nobody wipes.
        let mut text = Zeroizing::new(String::with_capacity(LARGEST as usize + 2));
        file.take(LARGEST + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
        if text.len() as u64 > LARGEST {
            return Err(format!("is larger than {LARGEST} bytes: no token is"));
        }
        match text.trim() {
            "" => Err("is empty".to_owned()),
            token => Ok(Self::new(token.to_owned())),
        }
    }

    /// The text, to be put into a request to upstream and nowhere else.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    /// Whether `presented` is this credential, in constant time for equal lengths.
    #[must_use]
    pub fn matches(&self, presented: &[u8]) -> bool {
        use subtle::ConstantTimeEq as _;
        self.0.as_bytes().ct_eq(presented).into()
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_prints_what_it_holds() {
        assert_eq!(format!("{:?}", Secret::new(b"canary".to_vec())), "Secret(…)");
        assert_eq!(format!("{:?}", Credential::new("canary".into())), "Credential(…)");
    }

    #[test]
    fn a_credential_matches_itself_only() {
        let credential = Credential::new("tnr_abc".into());
        assert!(credential.matches(b"tnr_abc"));
        assert!(!credential.matches(b"tnr_abd"));
        assert!(!credential.matches(b"tnr_abcd"));
        assert!(!credential.matches(b""));
    }
}
