//! The embedded Vault's transit engine: ed25519 keys and their versions, and data keys, which each of them wraps.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{Ed25519KeyPair, KeyPair as _};

use zeroize::Zeroizing;

use super::store::refused;
use crate::lease::failure::{Class, Failure};
use crate::lease::upstream::{DataKey, Signed, TransitKey};

/// The engines and their keys, by mount and name.
#[derive(Debug, Default)]
pub(super) struct Transit(BTreeMap<(String, String), Versions>);

#[derive(Debug, Default)]
struct Versions {
    /// The first is version 1.
    pairs: Vec<Ed25519KeyPair>,
    least: u32,
    /// What data keys are wrapped with, once one was.
    wraps: Option<LessSafeKey>,
}

impl Transit {
    pub(super) fn rotate(&mut self, mount: &str, name: &str) {
        let made = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
            .map(|document| Ed25519KeyPair::from_pkcs8(document.as_ref()));
        let Ok(Ok(pair)) = made else { unmade() };
        let versions = self.0.entry((mount.to_owned(), name.to_owned())).or_default();
        versions.least = versions.least.max(1);
        versions.pairs.push(pair);
    }

    pub(super) fn retire(&mut self, mount: &str, name: &str, least: u32) {
        if let Some(versions) = self.0.get_mut(&(mount.to_owned(), name.to_owned())) {
            versions.least = least;
        }
    }

    pub(super) fn sign(&self, key: &TransitKey, input: &[u8]) -> Result<Signed, Failure> {
        let pairs = &self.versions(key)?.pairs;
        let (pair, version) = pairs.last().zip(u32::try_from(pairs.len()).ok()).ok_or_else(no_key)?;
        let signature = pair.sign(input).as_ref().try_into().map_err(|_| no_key())?;
        Ok(Signed { version, signature })
    }

    /// The least version that counts, and the keys from there on.
    pub(super) fn public_keys(&self, key: &TransitKey) -> Result<(u32, BTreeMap<u32, [u8; 32]>), Failure> {
        let versions = self.versions(key)?;
        let public = |pair: &Ed25519KeyPair| pair.public_key().as_ref().try_into().ok();
        let keys = (1..).zip(&versions.pairs).filter(|(version, _)| *version >= versions.least);
        let keys = keys.filter_map(|(version, pair)| Some((version, public(pair)?))).collect();
        Ok((versions.least, keys))
    }

    pub(super) fn data_key(&mut self, key: &TransitKey) -> Result<DataKey, Failure> {
        let versions = self.0.get_mut(&(key.mount.clone(), key.name.clone())).ok_or_else(no_key)?;
        let mut plain = Zeroizing::new([0; 32]);
        random(&mut *plain);
        let wraps = versions.wraps.get_or_insert_with(|| {
            let mut bytes = Zeroizing::new([0; 32]);
            random(&mut *bytes);
            // The algorithm's keys have 32 bytes.
            UnboundKey::new(&AES_256_GCM, &*bytes).map_or_else(|_| unmade(), LessSafeKey::new)
        });
        let mut nonce = [0; NONCE_LEN];
        random(&mut nonce);
        let mut sealed = plain.to_vec();
        let tag =
            wraps.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut sealed);
        tag.unwrap_or_else(|_| unmade());
        let wrapped = format!("vault:v1:{}", STANDARD.encode([&nonce[..], &sealed].concat()));
        Ok(DataKey { plain, wrapped })
    }

    /// The data key that was wrapped by that key.
    pub(super) fn unwrapped(&self, key: &TransitKey, wrapped: &str) -> Option<Zeroizing<Vec<u8>>> {
        let wraps = self.versions(key).ok()?.wraps.as_ref()?;
        let bytes = STANDARD.decode(wrapped.strip_prefix("vault:v1:")?).ok()?;
        let (nonce, sealed) = bytes.split_first_chunk::<NONCE_LEN>()?;
        let mut sealed = Zeroizing::new(sealed.to_vec());
        let nonce = Nonce::assume_unique_for_key(*nonce);
        Some(Zeroizing::new(wraps.open_in_place(nonce, Aad::empty(), &mut sealed).ok()?.to_vec()))
    }

    fn versions(&self, key: &TransitKey) -> Result<&Versions, Failure> {
        self.0.get(&(key.mount.clone(), key.name.clone())).ok_or_else(no_key)
    }
}

fn random(bytes: &mut [u8]) {
    SystemRandom::new().fill(bytes).unwrap_or_else(|_| unmade());
}

fn unmade() -> ! {
    panic!("no key could be made: the system has no randomness to give")
}

fn no_key() -> Failure {
    refused(404, Class::NotFound, "no such transit key")
}
