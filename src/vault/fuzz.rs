//! Fuzzed: what Vault answers, or what stands before it.

use std::time::Duration;

use http::StatusCode;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use zeroize::Zeroizing;

use super::answer::{self, Auth, Envelope};
use super::reply::Reply;
use crate::clock::Moment;
use crate::fuzz::{Bytes, contains};
use crate::lease::failure::{Class, Failure};
use crate::lease::upstream::Life;
use crate::secret::Credential;

/// What stands for a token in an answer, as long as one of Vault's.
const TOKEN: &str = "hvs.CANARY0123456789abcdef0123456789";

const NOW: Moment = Moment::new(Duration::ZERO, Duration::from_secs(1_767_225_600));

/// A status, `Retry-After`, Vault's index, a body: what is read of it is usable, and no message repeats a token.
pub(crate) fn reply(data: &[u8]) {
    let mut bytes = Bytes(data);
    let status = 200 + u16::from(bytes.byte()) * 2;
    let mut headers = HeaderMap::new();
    for name in ["retry-after", "x-vault-index"] {
        if let Ok(value) = HeaderValue::from_bytes(bytes.piece()) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    let reply = Reply {
        status: StatusCode::from_u16(status).expect("three digits"),
        headers,
        body: Zeroizing::new(bytes.0.to_vec()),
        sent: NOW,
        received: NOW,
        subject: "GET secret/data/app at https://vault:8200".to_owned(),
    };
    told(&reply.failure());
    assert!(!format!("{reply:?}").contains(TOKEN));
    for error in [Envelope::of(&reply).err(), Auth::of(&reply).err()].into_iter().flatten() {
        assert!(matches!(error.class, Class::Permanent | Class::Transient));
        told(&error);
    }
    let lookup = answer::looked_up(&reply, Credential::new(TOKEN.to_owned()), "the token", "give another");
    for made in [answer::token_from(&reply, None, "token_type=service"), lookup] {
        match made {
            Ok(made) => {
                assert!(!made.payload.accessor.is_empty());
                assert!(matches!(made.life, Life::Leased { ttl, .. } if !ttl.is_zero()));
                assert!(!format!("{:?}", made.payload).contains(TOKEN), "{:?}", made.payload);
            }
            Err(failure) => {
                assert!(matches!(failure.class, Class::Permanent | Class::Transient));
                told(&failure);
            }
        }
    }
}

/// On one line, short, and without what may be a token.
fn told(failure: &Failure) {
    let message = &failure.message;
    assert!(message.chars().count() < 1200, "{message}");
    assert!(!contains(message.as_bytes(), TOKEN.as_bytes()), "{message}");
    assert!(failure.request_id.as_ref().is_none_or(|id| id.len() <= 64));
}
