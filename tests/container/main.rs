//! Living in a container: the real binary as the first process of a pid namespace, on a root that is read-only and has
//! nothing else, told to end at every moment; and what its log lines say, and never say.
//!
//! Namespaces are made with `unshare` (util-linux 2.38 or later) as an unprivileged user may; a test that cannot have them
//! fails with the reason.

mod bare;
mod broker;
mod drain;
mod pid1;
mod secrets;
mod spans;
mod vault;
mod wait;
