//! Who asks: the local process at the other end of a connection, as far as the kernel or a token says.

use std::fmt;

/// The local process that asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Caller {
    /// The other end of a Unix socket. uid and gid are the kernel's word (`SO_PEERCRED`).
    Unix {
        /// Its effective user id when it connected.
        uid: u32,
        /// Its effective group id when it connected.
        gid: u32,
        /// Its process id, where it is visible from our pid namespace.
        pid: Option<i32>,
    },
    /// Whoever holds the local token, on loopback TCP.
    Holder,
    /// The broker itself: a prefetch.
    Broker,
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix { uid, gid, pid: Some(pid) } => write!(f, "uid {uid}, gid {gid}, pid {pid}"),
            Self::Unix { uid, gid, pid: None } => write!(f, "uid {uid}, gid {gid}"),
            Self::Holder => f.write_str("the holder of the local token"),
            Self::Broker => f.write_str("the broker itself"),
        }
    }
}
