//! The binary as a Lambda extension, in environments that are frozen, restored and shut down.
//!
//! Lambda's side ([`aws`]) and Vault ([`vault`]) are played here; the process is the real one, and is really stopped.

mod aws;
mod ends;
mod freezes;
mod invocations;
mod restored;
mod sandbox;
#[path = "../schema/mod.rs"]
mod schema;
mod starts;
mod vault;
