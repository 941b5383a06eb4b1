//! The closed words of lines.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A closed set of words: the enum, its spelling on the wire, and the list of all of them.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
        pub enum $name {
            $($(#[$doc])* #[serde(rename = $word)] $variant,)+
        }

        impl $name {
            /// All of them, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The word in a line.
            #[must_use]
            pub fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.word())
            }
        }
    };
}

words! {
    /// What was asked, or what happened. How it ended is the [`Outcome`]'s to say: a refused read is `read`, `denied`.
    Event {
        /// The broker started.
        Boot = "boot",
        /// The broker is stopping.
        Shutdown = "shutdown",
        /// The login token was obtained.
        Login = "login",
        /// The login token was renewed.
        LoginRenew = "login.renew",
        /// The login token was revoked or given up.
        LoginEnd = "login.end",
        /// A run was registered: from now on its handle is good.
        RunRegister = "run.register",
        /// A run's token was made.
        RunStart = "run.start",
        /// A run's deadline was moved.
        RunExtend = "run.extend",
        /// A run was looked at.
        RunInspect = "run.inspect",
        /// A run ended, or is to end: its token is to be revoked.
        RunEnd = "run.end",
        /// A request that was refused before it was known what it asked for.
        Request = "request",
        /// A secret was asked for.
        Read = "read",
        /// A list of names was asked for.
        List = "list",
        /// Any other request that is streamed to upstream and back.
        Forward = "forward",
        /// A secret was written to a file, a template or a child's environment.
        Deliver = "deliver",
        /// A connection was opened with a leased credential on a workload's behalf.
        SessionOpen = "session.open",
        /// Such a connection was closed.
        SessionClose = "session.close",
        /// A new lease or token was obtained.
        Mint = "mint",
        /// A lease or a token was prolonged.
        Renew = "renew",
        /// A lease was replaced before it ended.
        Rotate = "rotate",
        /// Upstream was asked to revoke.
        RevokeRequested = "revoke.requested",
        /// Upstream no longer knows what was to be revoked.
        RevokeConfirmed = "revoke.confirmed",
        /// It could not be learnt whether the revocation was carried out.
        RevokeUnconfirmed = "revoke.unconfirmed",
        /// Upstream no longer knows a token of ours that had not ended.
        TokenLost = "token.lost",
        /// A token that an earlier process left behind was revoked.
        OrphanRevoked = "orphan.revoked",
        /// The policies were read: at start, or anew.
        PolicyLoad = "policy.load",
        /// The wall clock and the monotonic clock moved apart: a frozen machine, a clock that was set.
        ClockJump = "clock.jump",
        /// From now on values are hashed with this key.
        AuditKey = "audit.key",
        /// The head of this chain was put where we cannot change it: into upstream's own audit log.
        AuditAnchor = "audit.anchor",
        /// Lines can be written again. Written by the writer.
        AuditRecovered = "audit.recovered",
        /// The chain goes on in a new file. Written by the writer.
        AuditReopened = "audit.reopened",
    }
}

words! {
    /// How it ended.
    Outcome {
        /// Allowed, and about to be disclosed: a read's line precedes its answer.
        Granted = "granted",
        /// Refused by us, by policy or by the protocol's rules.
        Denied = "denied",
        /// It was tried and did not work; `class` and `reason` say why.
        Failed = "failed",
        /// It happened.
        Done = "done",
    }
}

words! {
    /// Where an answer came from.
    Source {
        /// From a lease that was held already.
        Cache = "cache",
        /// From upstream, for this request.
        Vault = "vault",
        /// From a value past its revalidation period, because upstream was down.
        Stale = "stale",
    }
}

words! {
    /// By which way a caller came.
    Via {
        /// A Unix socket: uid and gid are the kernel's word.
        Unix = "unix",
        /// Loopback TCP: the holder of a run handle.
        Tcp = "tcp",
        /// The broker itself.
        Own = "self",
    }
}
