//! Tenure: a Vault-aware credential broker sidecar.

pub mod backoff;
pub mod cli;
pub mod clock;
pub mod config;
pub mod lease;
pub mod secret;
pub mod supervise;
