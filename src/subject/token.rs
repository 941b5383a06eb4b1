//! A token, taken apart and checked. Nothing here waits or reads a clock.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::IssuerConfig;
use super::claims::claim;
use crate::run::subject::SubjectError;

/// The longest token that is looked at, in bytes: 16 KiB.
pub const LONGEST: usize = 16 * 1024;

/// The last second of the year 9999: no token means a later one.
const LAST: f64 = 253_402_300_799.0;

/// A token whose signature was not checked yet.
pub(super) struct Unverified<'a> {
    text: &'a str,
    header: Header,
    issuer: String,
}

/// A token that is good.
pub(super) struct Verified {
    pub(super) claims: Map<String, Value>,
    /// Its `exp`, since the Unix epoch.
    pub(super) expires: Duration,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    crit: Option<serde::de::IgnoredAny>,
}

/// Takes a token apart, as far as that needs no key.
pub(super) fn parse(text: &str) -> Result<Unverified<'_>, SubjectError> {
    if text.len() > LONGEST {
        return refused(format!("the token is longer than {} KiB", LONGEST / 1024));
    }
    let parts: Vec<&str> = text.split('.').collect();
    let (header, payload) = match parts.as_slice() {
        [header, payload, _] => (header, payload),
        [_, _, _, _, _] => return refused("the token is encrypted (JWE); a signed one (JWS) is needed"),
        _ => {
            return refused(
                "this is no JWT: three parts in base64url, joined by dots; opaque tokens are not taken",
            );
        }
    };
    let Some(header) = part::<Header>(header) else {
        return refused("the token's header cannot be read");
    };
    if header.crit.is_some() {
        // RFC 7515, section 4.1.11: whoever does not understand an extension must refuse.
        return refused("the token's header has critical extensions (crit), none of which is known here");
    }
    #[derive(Deserialize)]
    struct Issued {
        iss: Option<String>,
    }
    let Some(Issued { iss }) = part::<Issued>(payload) else {
        return refused("the token's payload cannot be read");
    };
    let Some(issuer) = iss else { return refused("the token names no issuer (iss)") };
    Ok(Unverified { text, header, issuer })
}

impl Unverified<'_> {
    /// Whether it says that it is by this issuer.
    pub(super) fn is_by(&self, issuer: &str) -> bool {
        self.issuer == issuer
    }

    /// The key that it says it is signed by.
    pub(super) fn key_id(&self) -> Option<&str> {
        self.header.kid.as_deref()
    }

    /// Its algorithm, if that is one of those allowed.
    pub(super) fn algorithm(&self, allowed: &[Algorithm]) -> Result<Algorithm, SubjectError> {
        let alg = self.header.alg.as_str();
        if alg.eq_ignore_ascii_case("none") {
            return refused("the token is not signed (alg none)");
        }
        match alg.parse().ok().filter(|alg| allowed.contains(alg)) {
            Some(algorithm) => Ok(algorithm),
            None => {
                let allowed: Vec<String> = allowed.iter().map(|it| format!("{it:?}")).collect();
                let symmetric = if alg.starts_with("HS") { ", which is symmetric" } else { "" };
                refused(format!(
                    "the token's algorithm{symmetric} is none of those allowed for its issuer: {}",
                    allowed.join(", ")
                ))
            }
        }
    }

    /// Checks the signature and all that does not depend on who the subject is. `at` is now, since the Unix epoch.
    pub(super) fn verified(
        &self,
        key: &DecodingKey,
        algorithm: Algorithm,
        config: &IssuerConfig,
        leeway: Duration,
        at: Duration,
    ) -> Result<Verified, SubjectError> {
        let mut validation = Validation::new(algorithm);
        // The library would read a clock of its own, and does not know all that is asked here.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        let claims = match decode::<Map<String, Value>>(self.text, key, &validation) {
            Ok(token) => token.claims,
            Err(error) => {
                return refused(match error.kind() {
                    ErrorKind::InvalidSignature => {
                        "the token's signature does not fit: it was changed, or its issuer signed it with another key"
                    }
                    ErrorKind::InvalidKeyFormat | ErrorKind::InvalidAlgorithm => {
                        "the key that the token names is not for its algorithm"
                    }
                    _ => "the token cannot be read",
                });
            }
        };
        if claims.get("iss").and_then(Value::as_str) != Some(config.url.as_str()) {
            return refused(format!("the token is not by its issuer {}", config.url));
        }
        self.type_fits(&config.types)?;
        audience_fits(&claims, config)?;
        let expires = in_time(&claims, leeway, at)?;
        Ok(Verified { claims, expires })
    }

    /// RFC 7515, section 4.1.9: compared without regard to case, and `application/` may be left out.
    fn type_fits(&self, types: &[String]) -> Result<(), SubjectError> {
        let short = |text: &str| {
            let text = text.to_ascii_lowercase();
            text.strip_prefix("application/").map(str::to_owned).unwrap_or(text)
        };
        let own = self.header.typ.as_deref().map(short);
        if types.is_empty() || own.is_some_and(|own| types.iter().any(|it| short(it) == own)) {
            return Ok(());
        }
        refused(format!(
            "the token's type (typ) is none of those that its issuer's are to have: {}",
            types.join(", ")
        ))
    }
}

/// For one of the audiences: a string, or one of a list.
fn audience_fits(claims: &Map<String, Value>, config: &IssuerConfig) -> Result<(), SubjectError> {
    let name = &config.audience_claim;
    let ours =
        |value: &Value| value.as_str().is_some_and(|text| config.audiences.iter().any(|it| it == text));
    let fits = match claim(claims, name) {
        None => {
            return refused(format!(
                "the token does not say whom it is for ({name}); set audience_claim if another claim does"
            ));
        }
        Some(Value::Array(all)) => all.iter().any(ours),
        Some(value) => ours(value),
    };
    if fits {
        Ok(())
    } else {
        refused(format!(
            "the token is for somebody else: its {name} is to be {}",
            config.audiences.join(" or ")
        ))
    }
}

/// When it ends, if it is its time now.
fn in_time(claims: &Map<String, Value>, leeway: Duration, at: Duration) -> Result<Duration, SubjectError> {
    let [exp, nbf, iat] =
        ["exp", "nbf", "iat"].map(|name| claims.get(name).map(|value| (name, numeric_date(value))));
    for (name, date) in [exp, nbf, iat].into_iter().flatten() {
        if date.is_none() {
            return refused(format!("the token's {name} is no time"));
        }
    }
    let Some((_, Some(expires))) = exp else {
        return refused("the token never expires: it has no exp");
    };
    if at >= expires.saturating_add(leeway) {
        return Err(expired());
    }
    let latest = at.saturating_add(leeway);
    if nbf.and_then(|(_, date)| date).is_some_and(|begin| begin > latest) {
        return refused("the token is not valid yet (nbf)");
    }
    if iat.and_then(|(_, date)| date).is_some_and(|issued| issued > latest) {
        return refused("the token was issued in the future (iat): is this machine's clock right?");
    }
    Ok(expires)
}

/// A NumericDate (RFC 7519, section 2): seconds since the Unix epoch, perhaps with a fraction.
pub(super) fn numeric_date(value: &Value) -> Option<Duration> {
    let seconds = value.as_f64().filter(|seconds| (0.0..=LAST).contains(seconds))?;
    Some(value.as_u64().map_or_else(|| Duration::from_secs_f64(seconds), Duration::from_secs))
}

pub(super) fn expired() -> SubjectError {
    SubjectError::Refused("the token has expired: have its issuer give a new one".to_owned())
}

fn refused<T>(why: impl Into<String>) -> Result<T, SubjectError> {
    Err(SubjectError::Refused(why.into()))
}

fn part<T: for<'de> Deserialize<'de>>(text: &str) -> Option<T> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn text(header: &Value, payload: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        format!("{}.{}.AAAA", part(header), part(payload))
    }

    fn why<T>(result: Result<T, SubjectError>) -> String {
        result.err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn what_is_no_token_is_named_and_not_repeated() {
        let issued = json!({"iss": "https://id.example.com"});
        for (token, expected) in [
            (String::new(), "no JWT"),
            ("canary".to_owned(), "no JWT"),
            ("a.b.c.d.e".to_owned(), "encrypted"),
            ("canary.canary.canary".to_owned(), "header cannot be read"),
            ("x".repeat(LONGEST + 1), "16 KiB"),
            (text(&json!({}), &issued), "header cannot be read"),
            (text(&json!({"alg": 5}), &issued), "header cannot be read"),
            (text(&json!({"alg": "RS256", "crit": ["canary"]}), &issued), "crit"),
            (text(&json!({"alg": "RS256", "crit": []}), &issued), "crit"),
            (text(&json!({"alg": "RS256"}), &json!("canary")), "payload cannot be read"),
            (text(&json!({"alg": "RS256"}), &json!({"iss": 5})), "payload cannot be read"),
            (text(&json!({"alg": "RS256"}), &json!({})), "names no issuer"),
        ] {
            let said = why(parse(&token));
            assert!(said.contains(expected) && !said.contains("canary"), "{token}: {said}");
        }
    }

    #[test]
    fn only_the_algorithms_that_are_allowed_are_taken() {
        let allowed = [Algorithm::RS256, Algorithm::ES256];
        for (alg, expected) in [
            ("RS256", ""),
            ("ES256", ""),
            ("none", "not signed"),
            ("nOnE", "not signed"),
            ("HS256", "which is symmetric is none of those allowed for its issuer: RS256, ES256"),
            ("RS512", "none of those allowed for its issuer: RS256, ES256"),
            ("rs256", "none of those allowed"),
            ("", "none of those allowed"),
        ] {
            let token = text(&json!({"alg": alg}), &json!({"iss": "i"}));
            let said = why(parse(&token).unwrap().algorithm(&allowed));
            assert!(said.contains(expected) && said.is_empty() == expected.is_empty(), "{alg}: {said}");
        }
    }

    #[test]
    fn times_are_judged_with_leeway() {
        let leeway = Duration::from_secs(60);
        let at = Duration::from_secs(1_000_000);
        for (claims, expected) in [
            (json!({"exp": 1_000_001}), ""),
            (json!({"exp": 999_941}), ""),
            (json!({"exp": 999_940}), "expired"),
            (json!({"exp": 999_940.5}), ""),
            (json!({}), "no exp"),
            (json!({"exp": null}), "exp is no time"),
            (json!({"exp": "1000001"}), "exp is no time"),
            (json!({"exp": -1}), "exp is no time"),
            (json!({"exp": 1e300}), "exp is no time"),
            (json!({"exp": 1_000_001, "nbf": 1_000_060}), ""),
            (json!({"exp": 1_000_001, "nbf": 1_000_061}), "not valid yet"),
            (json!({"exp": 1_000_001, "nbf": "0"}), "nbf is no time"),
            (json!({"exp": 1_000_001, "iat": 1_000_060}), ""),
            (json!({"exp": 1_000_001, "iat": 1_000_061}), "in the future"),
            (json!({"exp": 1_000_001, "iat": [0]}), "iat is no time"),
        ] {
            let said = why(in_time(claims.as_object().unwrap(), leeway, at));
            assert!(said.contains(expected) && said.is_empty() == expected.is_empty(), "{claims}: {said}");
        }
    }

    #[test]
    fn an_audience_is_one_or_several() {
        let mut config = IssuerConfig::new("https://id.example.com", "tenure");
        let fits =
            |config: &IssuerConfig, claims: Value| audience_fits(claims.as_object().unwrap(), config).is_ok();
        for (aud, good) in [
            (json!("tenure"), true),
            (json!(["x", "tenure"]), true),
            (json!("tenure2"), false),
            (json!("Tenure"), false),
            (json!([]), false),
            (json!([["tenure"]]), false),
            (json!({"tenure": 1}), false),
            (json!(5), false),
        ] {
            assert_eq!(fits(&config, json!({ "aud": aud })), good, "{aud}");
        }
        assert!(!fits(&config, json!({})));
        config.audience_claim = "client_id".to_owned();
        assert!(fits(&config, json!({"client_id": "tenure", "aud": "x"})));
        assert!(!fits(&config, json!({"aud": "tenure"})));
    }

    #[test]
    fn types_are_compared_as_media_types() {
        let types = ["at+jwt".to_owned()];
        for (typ, good) in [
            (json!("at+jwt"), true),
            (json!("application/AT+JWT"), true),
            (json!("JWT"), false),
            (Value::Null, false),
        ] {
            let token = text(&json!({"alg": "RS256", "typ": typ}), &json!({"iss": "i"}));
            assert_eq!(parse(&token).unwrap().type_fits(&types).is_ok(), good, "{typ}");
            assert!(parse(&token).unwrap().type_fits(&[]).is_ok());
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(token in "[A-Za-z0-9_.{}\":é-]{0,200}", claims in "\\{(\"(exp|nbf|iat)\":-?[0-9]{0,30}(e[0-9]{1,3})?,?){0,3}\\}") {
            let _ = parse(&token);
            if let Ok(Value::Object(claims)) = serde_json::from_str(&claims) {
                let _ = in_time(&claims, Duration::MAX, Duration::MAX);
                let _ = in_time(&claims, Duration::ZERO, Duration::ZERO);
            }
        }
    }
}
