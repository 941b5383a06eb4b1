//! Tenure: a Vault-aware credential broker sidecar.

pub mod backoff;
pub mod clock;
pub mod identity;
pub mod lease;
pub mod secret;
pub mod source;
pub mod vault;
