//! Signatures and data keys by Vault's transit engine.
//!
//! Reference: <https://developer.hashicorp.com/vault/api-docs/secret/transit>.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use vaultrs::api::transit::requests::{DataKeyType, GenerateDataKeyRequest, ReadKeyRequest, SignDataRequest};
use zeroize::Zeroizing;

use super::VaultSource;
use crate::lease::failure::{Class, Failure};
use crate::lease::upstream::{CallId, DataKey, Life, Minted, PublicKeys, Signed, Token, TransitKey};
use crate::vault::{Envelope, Reply, advised};

impl VaultSource {
    pub(super) async fn signed(
        &self,
        call: CallId,
        login: &Token,
        key: &TransitKey,
        input: &[u8],
    ) -> Result<Signed, Failure> {
        let request = SignDataRequest {
            mount: key.mount.clone(),
            name: key.name.clone(),
            input: STANDARD.encode(input),
            ..SignDataRequest::default()
        };
        let reply = self.control(&call, login, &request).await?;
        let reply = accepted(reply, key, ED25519, ("update", "sign"))?;
        let wire: Signature = data(&reply).ok_or_else(|| foreign(&reply, key))?;
        parse_signature(&wire.signature).ok_or_else(|| foreign(&reply, key))
    }

    pub(super) async fn keys(
        &self,
        call: CallId,
        login: &Token,
        key: &TransitKey,
    ) -> Result<PublicKeys, Failure> {
        let request = ReadKeyRequest { mount: key.mount.clone(), name: key.name.clone() };
        let reply = self.control(&call, login, &request).await?;
        let reply = accepted(reply, key, ED25519, ("read", "keys"))?;
        let wire: Keys = data(&reply).ok_or_else(|| foreign(&reply, key))?;
        if wire.kind != "ed25519" || wire.derived {
            return Err(foreign(&reply, key));
        }
        let keys: Option<BTreeMap<u32, [u8; 32]>> = wire
            .keys
            .iter()
            .map(|(version, entry)| {
                let key = STANDARD.decode(&entry.public_key).ok()?.try_into().ok()?;
                Some((version.parse().ok()?, key))
            })
            .collect();
        let keys = keys.ok_or_else(|| foreign(&reply, key))?;
        Ok(PublicKeys { least: wire.min_decryption_version, keys, sent: reply.sent })
    }

    pub(super) async fn wrapped_key(
        &self,
        call: CallId,
        login: &Token,
        key: &TransitKey,
    ) -> Result<Minted<DataKey>, Failure> {
        let request = GenerateDataKeyRequest {
            mount: key.mount.clone(),
            name: key.name.clone(),
            key_type: DataKeyType::Plaintext,
            context: None,
            nonce: None,
            bits: Some(256),
        };
        let reply = self.control(&call, login, &request).await?;
        let reply = accepted(reply, key, AES, ("update", "datakey/plaintext"))?;
        let read = || {
            let wire: Wrapped<'_> = serde_json::from_str(Envelope::of(&reply).ok()?.data?.get()).ok()?;
            let bytes = Zeroizing::new(STANDARD.decode(wire.plaintext).ok()?);
            let plain = Zeroizing::new(bytes.as_slice().try_into().ok()?);
            Some(DataKey { plain, wrapped: wire.ciphertext.to_owned() })
        };
        let payload = read().ok_or_else(|| {
            let message = format!("{} is not answered with a key of 256 bits", reply.subject());
            reply.broken(Class::Permanent, message)
        })?;
        Ok(Minted { payload, sent: reply.sent, life: Life::Static { keep: true } })
    }
}

const ED25519: &str = "ed25519";

const AES: &str = "aes256-gcm96";

/// Neither has anything that JSON escapes.
#[derive(Deserialize)]
struct Wrapped<'r> {
    plaintext: &'r str,
    ciphertext: &'r str,
}

#[derive(Deserialize)]
struct Signature {
    signature: String,
}

#[derive(Deserialize)]
struct Keys {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    derived: bool,
    min_decryption_version: u32,
    keys: BTreeMap<String, Key>,
}

#[derive(Deserialize)]
struct Key {
    public_key: String,
}

fn data<T: for<'de> Deserialize<'de>>(reply: &Reply) -> Option<T> {
    serde_json::from_str(Envelope::of(reply).ok()?.data?.get()).ok()
}

/// `vault:v3:<base64>`.
fn parse_signature(text: &str) -> Option<Signed> {
    let (version, signature) = text.strip_prefix("vault:v")?.split_once(':')?;
    let signature = STANDARD.decode(signature).ok()?.try_into().ok()?;
    Some(Signed { version: version.parse().ok().filter(|version| *version > 0)?, signature })
}

/// `lacks`: the capability that the call needs, and on what; `kind`: the type of key that it needs.
fn accepted(reply: Reply, key: &TransitKey, kind: &str, lacks: (&str, &str)) -> Result<Reply, Failure> {
    if reply.status.is_success() {
        return Ok(reply);
    }
    let TransitKey { mount, name } = key;
    let failure = reply.failure();
    let (capability, verb) = lacks;
    let make = format!("make the key: vault write -f {mount}/keys/{name} type={kind}");
    let cure = match failure.class {
        Class::Forbidden => {
            format!("if the login token lives, its policy lacks {capability} on {mount}/{verb}/{name}")
        }
        Class::NotFound => make,
        Class::Permanent
            if reply
                .refuses_with(400, &["signing key not found", "encryption key not found", "not found"]) =>
        {
            make
        }
        _ => return Err(failure),
    };
    Err(advised(failure, &cure))
}

/// An answer that no Ed25519 key gives.
fn foreign(reply: &Reply, key: &TransitKey) -> Failure {
    let TransitKey { mount, name } = key;
    reply.broken(
        Class::Permanent,
        format!("{} is not answered as for an ed25519 key: is {mount}/keys/{name} one?", reply.subject()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_names_its_version() {
        let bytes = [7_u8; 64];
        let text = STANDARD.encode(bytes);
        assert_eq!(
            parse_signature(&format!("vault:v12:{text}")),
            Some(Signed { version: 12, signature: bytes })
        );
        for wrong in
            ["", "vault:v1:", "vault:v0:AAAA", "vault:v-1:AAAA", "bao:v1:AAAA", &format!("v1:{text}")]
        {
            assert_eq!(parse_signature(wrong), None, "{wrong}");
        }
    }
}
