//! Vault's answers, read leniently: OpenBao's and older Vaults' lack members, and none of that may break us.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Reply, consistency};
use crate::lease::failure::{Class, Failure};
use crate::lease::upstream::{Life, Made, Minted, Token};
use crate::secret::Credential;

/// The frame around every answer. `data` and the rest borrow from the body: nothing secret is copied.
#[derive(Deserialize)]
pub(crate) struct Envelope<'a> {
    pub(crate) request_id: Option<String>,
    pub(crate) lease_id: Option<String>,
    pub(crate) lease_duration: Option<u64>,
    pub(crate) renewable: Option<bool>,
    #[serde(borrow)]
    pub(crate) data: Option<&'a RawValue>,
    pub(crate) warnings: Option<Vec<String>>,
    #[serde(borrow)]
    pub(crate) wrap_info: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(crate) auth: Option<&'a RawValue>,
    pub(crate) mount_type: Option<String>,
}

impl<'a> Envelope<'a> {
    /// Takes the frame off an accepted answer.
    ///
    /// # Errors
    /// [`Class::Permanent`] if it is none: an API that answers without a frame. [`Class::Transient`] if it is a web page,
    /// or JSON that broke off or was garbled: something between Vault and us spoke, which says nothing of what is held.
    pub(crate) fn of(reply: &'a Reply) -> Result<Self, Failure> {
        let envelope: Self = serde_json::from_slice(&reply.body).map_err(|_| not_vault(reply))?;
        if envelope.request_id.is_none() && envelope.data.is_none() && envelope.auth.is_none() {
            return Err(not_vault(reply));
        }
        Ok(envelope)
    }
}

fn not_vault(reply: &Reply) -> Failure {
    let first = reply.body.iter().find(|byte| !byte.is_ascii_whitespace());
    let garbled = match first {
        Some(b'<') => true,
        Some(b'{') => serde_json::from_slice::<serde::de::IgnoredAny>(&reply.body).is_err(),
        _ => false,
    };
    reply.broken(
        if garbled { Class::Transient } else { Class::Permanent },
        format!(
            "the answer to {} is not a Vault JSON answer: does the address lead to Vault's API, and is the path one \
             that can be read?",
            reply.subject()
        ),
    )
}

/// The member `auth`.
#[derive(Deserialize)]
pub(crate) struct Auth {
    #[serde(default, deserialize_with = "credential")]
    pub(crate) client_token: Option<Credential>,
    #[serde(default)]
    accessor: Option<String>,
    #[serde(default)]
    policies: Option<Vec<String>>,
    #[serde(default)]
    token_policies: Option<Vec<String>>,
    #[serde(default)]
    pub(crate) lease_duration: Option<u64>,
    #[serde(default)]
    pub(crate) renewable: Option<bool>,
    #[serde(default)]
    pub(crate) token_type: Option<String>,
    #[serde(default)]
    pub(crate) num_uses: Option<i64>,
    #[serde(default)]
    orphan: Option<bool>,
}

fn credential<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Credential>, D::Error> {
    Ok(Option::<String>::deserialize(from)?.filter(|text| !text.is_empty()).map(Credential::new))
}

impl Auth {
    /// The member `auth` of an accepted answer.
    pub(crate) fn of(reply: &Reply) -> Result<Self, Failure> {
        let envelope = Envelope::of(reply)?;
        let auth = envelope.auth.ok_or_else(|| not_vault(reply))?;
        serde_json::from_str(auth.get()).map_err(|_| not_vault(reply))
    }
}

/// See [`super::VaultClient::token`].
pub(super) fn token_from(
    reply: &Reply,
    namespace: Option<&Arc<str>>,
    cure: &str,
) -> Result<Minted<Token>, Failure> {
    // No token can be had where that is the answer, so that a wrong address ends the process at its start.
    let auth = Auth::of(reply).map_err(|failure| failure.decided(Class::Permanent))?;
    let mut minted = fit(auth, reply, &format!("{} brought", reply.subject()), &format!("set {cure}"))?;
    minted.payload.namespace = namespace.cloned();
    minted.payload.made = Some(Made { at: reply.received, index: consistency::index(&reply.headers) });
    Ok(minted)
}

/// The token that `reply`, to its `auth/token/lookup-self`, is about: made by somebody else, and with what is left of its
/// life. It is [`Token::lent`] until its user says otherwise. `what` is what it is called in a message, and `cure` a
/// sentence's rest that says how to get one that fits.
///
/// # Errors
/// [`Class::Permanent`] if it is not a service token that can be used without limit and ends by itself.
pub(crate) fn looked_up(
    reply: &Reply,
    credential: Credential,
    what: &str,
    cure: &str,
) -> Result<Minted<Token>, Failure> {
    /// The member `data`: the same facts under other names than in a login's answer.
    #[derive(Deserialize)]
    struct Facts {
        accessor: Option<String>,
        policies: Option<Vec<String>>,
        ttl: Option<u64>,
        renewable: Option<bool>,
        r#type: Option<String>,
        num_uses: Option<i64>,
        orphan: Option<bool>,
    }
    let data = Envelope::of(reply)?.data.ok_or_else(|| not_vault(reply))?;
    let facts: Facts = serde_json::from_str(data.get()).map_err(|_| not_vault(reply))?;
    let auth = Auth {
        client_token: Some(credential),
        accessor: facts.accessor,
        policies: facts.policies,
        token_policies: None,
        lease_duration: facts.ttl,
        renewable: facts.renewable,
        token_type: facts.r#type,
        num_uses: facts.num_uses,
        orphan: facts.orphan,
    };
    let mut minted = fit(auth, reply, &format!("{what} is"), cure)?;
    minted.payload.lent = true;
    Ok(minted)
}

/// The token, if it is fit to make others and to be revoked.
fn fit(auth: Auth, reply: &Reply, begin: &str, cure: &str) -> Result<Minted<Token>, Failure> {
    let unfit = |what: &str| Err(reply.broken(Class::Permanent, format!("{begin} {what}: {cure}")));
    let batch = auth.token_type.as_deref() == Some("batch");
    if batch {
        return unfit("a batch token, which can make no other tokens and cannot be revoked");
    }
    let uses = auth.num_uses.unwrap_or(0);
    if uses > 0 {
        return unfit(&format!("a token for {uses} uses only, which can make no other tokens"));
    }
    let (Some(credential), Some(accessor)) = (auth.client_token, auth.accessor.filter(|a| !a.is_empty()))
    else {
        return unfit("no token (an MFA requirement, or a wrapped answer)");
    };
    let ttl = Duration::from_secs(auth.lease_duration.unwrap_or(0));
    if ttl.is_zero() {
        return unfit("a token that never ends");
    }
    let token = Token {
        credential,
        accessor,
        policies: auth.token_policies.or(auth.policies).unwrap_or_default(),
        orphan: auth.orphan.unwrap_or(false),
        lent: false,
        namespace: None,
        made: None,
    };
    let life = Life::Leased { ttl, renewable: auth.renewable.unwrap_or(false) };
    Ok(Minted { payload: token, sent: reply.sent, life })
}
