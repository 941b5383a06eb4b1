//! Tenure: a Vault-aware credential broker sidecar.

pub mod backoff;
pub mod caller;
pub mod clock;
pub mod identity;
pub mod lease;
pub mod policy;
pub mod run;
pub mod secret;
pub mod source;
pub mod supervise;
pub mod vault;
