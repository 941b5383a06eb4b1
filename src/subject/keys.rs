//! An issuer's keys (a JWK Set, RFC 7517), and which of them fits a token.

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;

/// More keys than any issuer has.
const MOST: usize = 100;

/// The keys that can check signatures.
#[derive(Debug, Default)]
pub(super) struct KeySet(Vec<Key>);

#[derive(Debug)]
struct Key {
    id: Option<String>,
    fits: Vec<Algorithm>,
    key: DecodingKey,
}

/// What a set has for a token.
#[derive(Debug)]
pub(super) enum Found {
    /// The one.
    Key(DecodingKey),
    /// None with that id; a newer set may have it.
    Unknown,
    /// One with that id, which is for something else.
    Unfit,
    /// The token names none, and several would fit.
    Several,
}

impl KeySet {
    /// Reads a JWK Set. Keys that are of no use here (for encryption, symmetric, of an unknown kind) are left out, as RFC
    /// 7517, section 5, has it.
    pub(super) fn parse(json: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<serde_json::Value>,
        }
        let set: Set = serde_json::from_slice(json).map_err(|_| "is not a JWK Set".to_owned())?;
        if set.keys.len() > MOST {
            return Err(format!("has {} keys, and {MOST} is the most that are taken", set.keys.len()));
        }
        Ok(Self(set.keys.into_iter().filter_map(key).collect()))
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The key for a token with this `kid` and `alg`.
    pub(super) fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Found {
        let fits = |key: &&Key| key.fits.contains(&algorithm);
        let Some(id) = id else {
            let mut fitting = self.0.iter().filter(fits);
            return match (fitting.next(), fitting.next()) {
                (Some(key), None) => Found::Key(key.key.clone()),
                (None, _) => Found::Unknown,
                _ => Found::Several,
            };
        };
        let mut named = self.0.iter().filter(|key| key.id.as_deref() == Some(id)).peekable();
        if named.peek().is_none() {
            return Found::Unknown;
        }
        named.find(fits).map_or(Found::Unfit, |key| Found::Key(key.key.clone()))
    }
}

fn key(value: serde_json::Value) -> Option<Key> {
    let jwk: Jwk = serde_json::from_value(value).ok()?;
    let common = &jwk.common;
    let for_signatures = common.public_key_use.as_ref().is_none_or(|it| *it == PublicKeyUse::Signature)
        && common.key_operations.as_ref().is_none_or(|it| it.contains(&KeyOperations::Verify));
    let kind: &[Algorithm] = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => &[
            Algorithm::RS256,
            Algorithm::RS384,
            Algorithm::RS512,
            Algorithm::PS256,
            Algorithm::PS384,
            Algorithm::PS512,
        ],
        AlgorithmParameters::EllipticCurve(key) => match key.curve {
            EllipticCurve::P256 => &[Algorithm::ES256],
            EllipticCurve::P384 => &[Algorithm::ES384],
            _ => &[],
        },
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => &[Algorithm::EdDSA],
        _ => &[],
    };
    let is_for =
        |algorithm: &Algorithm| common.key_algorithm.is_none_or(|own| own == KeyAlgorithm::from(*algorithm));
    let fits: Vec<Algorithm> = kind.iter().copied().filter(is_for).collect();
    if fits.is_empty() || !for_signatures {
        return None;
    }
    Some(Key { id: jwk.common.key_id.clone(), fits, key: DecodingKey::from_jwk(&jwk).ok()? })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn set(keys: &serde_json::Value) -> KeySet {
        KeySet::parse(json!({ "keys": keys }).to_string().as_bytes()).unwrap()
    }

    #[test]
    fn a_key_is_found_by_its_id_and_only_for_what_it_is() {
        let rsa = json!({"kty": "RSA", "kid": "r", "n": "AQAB", "e": "AQAB", "use": "sig"});
        let ec = json!({"kty": "EC", "kid": "e", "crv": "P-256", "x": "AQAB", "y": "AQAB", "alg": "ES256"});
        let set = set(&json!([
            rsa,
            ec,
            {"kty": "RSA", "kid": "enc", "n": "AQAB", "e": "AQAB", "use": "enc"},
            {"kty": "RSA", "kid": "ops", "n": "AQAB", "e": "AQAB", "key_ops": ["encrypt"]},
            {"kty": "RSA", "kid": "oaep", "n": "AQAB", "e": "AQAB", "alg": "RSA-OAEP"},
            {"kty": "oct", "kid": "secret", "k": "AQAB"},
            {"kty": "EC", "kid": "p521", "crv": "P-521", "x": "AQAB", "y": "AQAB"},
            {"kty": "new", "kid": "new"},
            {"kty": "RSA", "kid": 7, "n": "AQAB", "e": "AQAB"},
            "nonsense",
        ]));
        assert_eq!(set.len(), 2);
        assert!(matches!(set.find(Some("r"), Algorithm::PS512), Found::Key(_)));
        assert!(matches!(set.find(Some("e"), Algorithm::ES256), Found::Key(_)));
        assert!(matches!(set.find(Some("e"), Algorithm::RS256), Found::Unfit));
        assert!(matches!(set.find(Some("e"), Algorithm::ES384), Found::Unfit));
        assert!(matches!(set.find(Some("r"), Algorithm::HS256), Found::Unfit));
        for id in ["enc", "ops", "oaep", "secret", "p521", "new", "R", ""] {
            assert!(matches!(set.find(Some(id), Algorithm::RS256), Found::Unknown), "{id}");
        }
        assert!(matches!(set.find(None, Algorithm::RS256), Found::Key(_)));
        assert!(matches!(set.find(None, Algorithm::EdDSA), Found::Unknown));
    }

    #[test]
    fn without_an_id_only_a_single_key_will_do() {
        let rsa = |id: &str| json!({"kty": "RSA", "kid": id, "n": "AQAB", "e": "AQAB"});
        assert!(matches!(set(&json!([rsa("a"), rsa("b")])).find(None, Algorithm::RS256), Found::Several));
    }

    #[test]
    fn what_is_no_set_is_said() {
        for text in ["", "[]", "{}", r#"{"keys":{}}"#, "\u{0}"] {
            assert!(KeySet::parse(text.as_bytes()).is_err(), "{text}");
        }
        let many = json!({ "keys": vec![json!({}); 101] }).to_string();
        assert!(KeySet::parse(many.as_bytes()).unwrap_err().contains("101 keys"));
    }
}
