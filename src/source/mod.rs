//! Sources of secrets: adapters to [`crate::lease::upstream::Source`].

pub mod vault;
