//! The roles that are assumed before the login. The bounds are those of
//! <https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html>.

use std::time::Duration;

use super::{Check, HOUR, SECOND};
use crate::config::Assume;
use crate::config::raw::RawAssume;

/// How many roles a chain may have: with each more, it is harder to say whose session it is.
const HOPS: usize = 2;

const KEY: &str = "vault.auth.aws.assume";

impl Check<'_> {
    pub(super) fn assume(&mut self, raw: &[RawAssume]) -> Vec<Assume> {
        if raw.len() > HOPS {
            let message =
                format!("lists {} roles; {HOPS} at most can be assumed one after the other", raw.len());
            self.refuse::<()>(&format!("{KEY}[{HOPS}]"), message);
        }
        raw.iter().enumerate().filter_map(|(i, hop)| self.hop(i, hop)).collect()
    }

    fn hop(&mut self, i: usize, raw: &RawAssume) -> Option<Assume> {
        let key = |name: &str| format!("{KEY}[{i}].{name}");
        let role = self.required(&key("role_arn"), raw.role_arn.as_deref(), "the IAM role to assume");
        let role = role.and_then(|arn| match is_role(arn) {
            true => Some(arn.to_owned()),
            false => {
                let message = format!(
                    "{arn:?} is not the ARN of a role, such as \"arn:aws:iam::123456789012:role/orders-broker\""
                );
                self.refuse(&key("role_arn"), message)
            }
        });
        let external_id = self.word(&key("external_id"), raw.external_id.as_deref(), 1224, "_+=,.@:/-");
        let session_name = self.word(&key("session_name"), raw.session_name.as_deref(), 64, "_+=,.@-");
        let duration = key("duration");
        let length = self.duration(&duration, raw.duration.as_ref(), HOUR, 15 * 60 * SECOND, 12 * HOUR);
        if i > 0 && length > HOUR {
            let message =
                "the role before it assumes this one, and then AWS lets a session last an hour at most";
            self.refuse::<()>(&duration, message.to_owned());
        }
        if length.subsec_nanos() != 0 {
            self.refuse::<()>(&duration, "must be whole seconds: STS counts in them".to_owned());
        }
        Some(Assume {
            role_arn: role?,
            external_id,
            session_name,
            source_identity: raw.source_identity.unwrap_or(false),
            session_tags: raw.session_tags.unwrap_or(false),
            duration: Duration::from_secs(length.as_secs()),
        })
    }

    /// Letters, digits and `marks`, two of them at least.
    fn word(&mut self, key: &str, text: Option<&str>, most: usize, marks: &str) -> Option<String> {
        let text = text?;
        if let Some(c) = text.chars().find(|c| !c.is_ascii_alphanumeric() && !marks.contains(*c)) {
            return self.refuse(key, format!("{c:?} cannot be in it: letters, digits and {marks}"));
        }
        if !(2..=most).contains(&text.len()) {
            return self.refuse(key, format!("must have 2 to {most} characters, not {}", text.len()));
        }
        Some(text.to_owned())
    }
}

/// `arn:<partition>:iam::<account>:role/<path and name>`.
fn is_role(arn: &str) -> bool {
    let mut parts = arn.splitn(6, ':');
    let mut next = || parts.next().unwrap_or_default();
    let partition =
        |text: &str| text.starts_with("aws") && text.chars().all(|c| c.is_ascii_lowercase() || c == '-');
    let account = |text: &str| text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit());
    let named = |text: &str| {
        let path = text.strip_prefix("role/").unwrap_or_default();
        let sound = |segment: &str| {
            !segment.is_empty()
                && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_+=,.@-".contains(&byte))
        };
        path.len() <= 576
            && path.split('/').all(sound)
            && path.rsplit('/').next().is_some_and(|name| name.len() <= 64)
    };
    next() == "arn"
        && partition(next())
        && next() == "iam"
        && next().is_empty()
        && account(next())
        && named(next())
}
