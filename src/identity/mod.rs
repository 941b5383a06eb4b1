//! Logins to Vault: adapters to [`crate::lease::upstream::Login`].
//!
//! One file for each method. A method makes the payload of its login request and says what its refusals mean; the
//! request, and what makes a token fit to be a login token, are common ([`crate::vault`]).

pub mod aws;
