//! Leases: a token is one, a secret is one.

pub mod failure;
pub mod keeper;
pub mod state;
pub mod upstream;
pub mod view;
