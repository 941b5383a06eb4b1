//! Tenure: a Vault-aware credential broker sidecar.

pub mod audit;
pub mod backoff;
pub mod clock;
pub mod lease;
pub mod secret;
