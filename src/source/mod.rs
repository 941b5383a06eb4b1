//! Sources of secrets: adapters to [`crate::lease::upstream::Source`].

pub mod dev;
pub mod vault;
