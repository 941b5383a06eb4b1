//! Logins to Vault: adapters to [`crate::lease::upstream::Login`].
//!
//! One file for each method. A method makes the payload of its login request and says what its refusals mean; the
//! request ([`exchange`]), what is read from files ([`mod@file`]), and what makes a token fit to be a login token
//! ([`crate::vault`]) are common. A secret that a login needs is in a file, never in a setting: files can be replaced
//! while the process runs, and no listing of settings shows them.

pub mod approle;
pub mod aws;
pub mod cert;
mod exchange;
mod file;
pub mod jwt;
pub mod token;
