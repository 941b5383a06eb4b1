//! Fuzzed: tokens of identity providers.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Map, Value};

use super::token::parse;
use super::{ASYMMETRIC, IssuerConfig, claims, crypto};
use crate::fuzz::{Bytes, secret};
use crate::run::subject::{Assurance, SubjectError};

const ISSUER: &str = "https://id.example.com";
const AT: Duration = Duration::from_secs(1_767_225_600);
const LEEWAY: Duration = Duration::from_secs(60);

/// A text that may be a token; and claims, signed by the issuer: who is taken for somebody has a name that fits, and a token
/// that was changed counts for nothing.
pub(crate) fn jwt(data: &[u8]) {
    crypto::install().expect("ring");
    if let Ok(text) = std::str::from_utf8(data) {
        let mark = secret(data);
        untrusted(text, &mark);
        untrusted(&format!("{text}{mark}"), &mark);
        untrusted(&format!("{mark}{text}"), &mark);
    }
    let mut bytes = Bytes(data);
    let (at, with, flags) = (bytes.below(1 << 14), bytes.byte(), bytes.byte());
    let typ = bytes.text();
    let Ok(Value::Object(more)) = serde_json::from_slice(bytes.0) else { return };
    let mut said = Map::new();
    said.insert("iss".to_owned(), ISSUER.into());
    said.insert("aud".to_owned(), "tenure".into());
    said.insert("exp".to_owned(), (AT.as_secs() + 60).into());
    said.insert("sub".to_owned(), "ada".into());
    said.extend(more);
    let header = serde_json::json!({ "alg": "EdDSA", "kid": "k", "typ": typ });
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let input = format!("{}.{}", part(&header), part(&Value::Object(said.clone())));
    let pair = Ed25519KeyPair::from_seed_unchecked(&[9; 32]).expect("a key");
    let text = format!("{input}.{}", URL_SAFE_NO_PAD.encode(pair.sign(input.as_bytes())));
    let key = DecodingKey::from_ed_components(&URL_SAFE_NO_PAD.encode(pair.public_key())).expect("a key");
    let mut config = IssuerConfig::new(ISSUER, "tenure");
    if flags & 1 != 0 {
        config.types = vec!["at+jwt".to_owned()];
    }
    if flags & 2 != 0 {
        config.mapping.groups_claim = "/realm/roles".to_owned();
    }
    let check = |text: &str| {
        let token = parse(text)?;
        let algorithm = token.algorithm(&ASYMMETRIC)?;
        assert_eq!(algorithm, Algorithm::EdDSA);
        let good = token.verified(&key, algorithm, &config, LEEWAY, AT)?;
        assert!(good.expires + LEEWAY > AT && good.claims["iss"] == ISSUER);
        claims::subject(&good.claims, ISSUER, &config.mapping, &[]).map_err(SubjectError::Refused)
    };
    match check(&text) {
        Ok(subject) => {
            let fits = |name: &str| {
                !name.is_empty()
                    && name.chars().count() <= claims::LONGEST_NAME
                    && !name.contains(char::is_control)
            };
            assert!(fits(&subject.id) && said["sub"] == subject.id && said["iss"] == ISSUER);
            assert!(subject.groups.len() <= claims::MOST_GROUPS && subject.groups.iter().all(|it| fits(it)));
            let mut groups = subject.groups.clone();
            groups.sort_unstable();
            groups.dedup();
            assert_eq!(groups.len(), subject.groups.len(), "a group is kept once");
            assert_eq!(subject.assurance, Assurance::Verified);
        }
        Err(why) => assert!(why.to_string().len() < 500, "{why}"),
    }
    let mut changed = text.into_bytes();
    let at = at % changed.len();
    if changed[at] != with
        && with.is_ascii()
        && let Ok(changed) = {
            changed[at] = with;
            String::from_utf8(changed)
        }
    {
        assert!(taken(&changed, &key, &config).is_err(), "{changed} counts");
    }
}

/// As [`jwt`]'s check, of a token whose algorithm may be any.
fn taken(text: &str, key: &DecodingKey, config: &IssuerConfig) -> Result<(), SubjectError> {
    let token = parse(text)?;
    let algorithm = token.algorithm(&ASYMMETRIC)?;
    token.verified(key, algorithm, config, LEEWAY, AT).map(drop)
}

/// What nobody has signed is told in words of ours.
fn untrusted(text: &str, mark: &str) {
    let why = match parse(text) {
        Ok(token) => {
            let _ = token.key_id();
            assert!(!token.is_by("") || text.contains('.'));
            match token.algorithm(&ASYMMETRIC) {
                Ok(algorithm) => return assert!(ASYMMETRIC.contains(&algorithm)),
                Err(why) => why,
            }
        }
        Err(why) => why,
    };
    let why = why.to_string();
    assert!(why.len() < 200 && !why.contains(mark), "{why}");
}
