//! Data keys, unwrapped again: what an auditor asks of the transit engine.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::endpoint::{Ciphertext, DecryptRequest};
use super::{Ask, Envelope, READ_LIMIT, VaultClient, advised};
use crate::lease::failure::{Class, Failure};
use crate::lease::upstream::{CallId, Token, TransitKey};

impl VaultClient {
    /// The keys that `key` wrapped (`<mount>/decrypt/<key>`), or why one is not unwrapped: with the token of an auditor,
    /// who alone may do that.
    ///
    /// # Errors
    /// Why none of them is.
    pub async fn unwrapped_keys(
        &self,
        call: &CallId,
        token: &Token,
        key: &TransitKey,
        wrapped: &[&str],
    ) -> Result<Vec<Result<Zeroizing<[u8; 32]>, String>>, Failure> {
        let request = DecryptRequest {
            mount: key.mount.clone(),
            name: key.name.clone(),
            batch_input: wrapped.iter().map(|text| Ciphertext { ciphertext: (*text).to_owned() }).collect(),
            partial_failure_response_code: 200,
        };
        let reply = self.execute(Ask::with(call, token, READ_LIMIT), &request).await?;
        let results = || {
            let wire: Unwrapped<'_> = serde_json::from_str(Envelope::of(&reply).ok()?.data?.get()).ok()?;
            (wire.batch_results.len() == wrapped.len())
                .then(|| wire.batch_results.iter().map(UnwrappedOne::key).collect())
        };
        // Where none could be decrypted the answer is a refusal, with the same results.
        if let Some(results) = results() {
            return Ok(results);
        }
        let TransitKey { mount, name } = key;
        match reply.status.is_success() {
            true => {
                let message = format!("{} is not answered with one result for each key", reply.subject());
                Err(reply.broken(Class::Permanent, message))
            }
            false => Err(match reply.failure() {
                failure if failure.class == Class::Forbidden => {
                    advised(failure, &format!("the token's policies lack update on {mount}/decrypt/{name}"))
                }
                failure => failure,
            }),
        }
    }
}

#[derive(Deserialize)]
struct Unwrapped<'r> {
    #[serde(borrow)]
    batch_results: Vec<UnwrappedOne<'r>>,
}

#[derive(Deserialize)]
struct UnwrappedOne<'r> {
    #[serde(default)]
    plaintext: &'r str,
    #[serde(default)]
    error: String,
}

impl UnwrappedOne<'_> {
    fn key(&self) -> Result<Zeroizing<[u8; 32]>, String> {
        if !self.error.is_empty() {
            return Err(self.error.clone());
        }
        let bytes = Zeroizing::new(STANDARD.decode(self.plaintext).map_err(|error| error.to_string())?);
        let key = bytes.as_slice().try_into().map_err(|_| "it is no key of 256 bits".to_owned())?;
        Ok(Zeroizing::new(key))
    }
}
