//! Tenure: a Vault-aware credential broker sidecar.

pub mod app;
pub mod audit;
pub mod backoff;
pub mod broker;
pub mod caller;
pub mod cli;
pub mod clock;
pub mod config;
pub mod door;
pub mod identity;
pub mod lease;
pub mod metrics;
pub mod policy;
pub mod run;
pub mod runs;
pub mod secret;
pub mod source;
pub mod supervise;
pub mod vault;
