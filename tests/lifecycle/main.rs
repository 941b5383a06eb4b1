//! The life of credentials from start to end, through `Runs` and `Broker`, over the embedded Vault, in paused time.
//!
//! Every test ends with [`stage::Stage::finish`]: the audit chain is whole, no secret is in it, and no task has died.

mod door;
mod ends;
mod lambda;
mod limits;
mod nested;
mod platform;
mod readers;
mod runs;
mod schedule;
#[path = "../schema/mod.rs"]
mod schema;
mod secrets_manager;
mod stage;
mod trouble;
mod values;
mod verified;
mod watching;
