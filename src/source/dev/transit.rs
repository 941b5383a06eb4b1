//! The embedded Vault's transit engine: ed25519 keys and their versions.

use std::collections::BTreeMap;

use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};

use super::store::refused;
use crate::lease::failure::{Class, Failure};
use crate::lease::upstream::{Signed, TransitKey};

/// The engines and their keys, by mount and name.
#[derive(Debug, Default)]
pub(super) struct Transit(BTreeMap<(String, String), Versions>);

#[derive(Debug, Default)]
struct Versions {
    /// The first is version 1.
    pairs: Vec<Ed25519KeyPair>,
    least: u32,
}

impl Transit {
    pub(super) fn rotate(&mut self, mount: &str, name: &str) {
        let made = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
            .map(|document| Ed25519KeyPair::from_pkcs8(document.as_ref()));
        let Ok(Ok(pair)) = made else { panic!("no key could be made: the system has no randomness to give") };
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

    fn versions(&self, key: &TransitKey) -> Result<&Versions, Failure> {
        self.0.get(&(key.mount.clone(), key.name.clone())).ok_or_else(no_key)
    }
}

fn no_key() -> Failure {
    refused(404, Class::NotFound, "no such transit key")
}
