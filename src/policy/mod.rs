//! Local policy: who may connect, and which paths can be asked for at all. Deny by default.
//!
//! The boundary is Vault's policy on the run's token; this is least privilege and attribution on top of it.

use crate::caller::Caller;

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
pub mod pattern;
pub mod rules;

/// One entry of `listen.unix.allow`: all that it names must match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allow {
    /// The peer's user id.
    pub uid: Option<u32>,
    /// The peer's group id.
    pub gid: Option<u32>,
}

/// What was decided, and by what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Allowed, by this rule.
    Allow(&'static str),
    /// Refused, by this rule, for this reason.
    Deny {
        /// The rule.
        policy: &'static str,
        /// The reason, for the caller and for the auditor.
        reason: &'static str,
    },
}

/// Who may connect.
#[derive(Clone, Debug)]
pub struct Admission {
    own_uid: u32,
    allow: Vec<Allow>,
}

impl Admission {
    /// Without an `allow` list only processes with the broker's own uid are admitted.
    #[must_use]
    pub fn new(own_uid: u32, allow: Vec<Allow>) -> Self {
        Self { own_uid, allow }
    }

    /// May this caller use the door?
    #[must_use]
    pub fn admit(&self, caller: &Caller) -> Decision {
        match caller {
            Caller::Holder => Decision::Allow("listen.tcp.token"),
            Caller::Broker => Decision::Allow("prefetch"),
            Caller::Unix { uid, .. } if self.allow.is_empty() => match *uid == self.own_uid {
                true => Decision::Allow("listen.unix.same-uid"),
                false => Decision::Deny {
                    policy: "listen.unix.same-uid",
                    reason: "this socket serves processes with the broker's own uid only; list others in listen.unix.allow",
                },
            },
            Caller::Unix { uid, gid, .. } => {
                let matches = |rule: &Allow| {
                    (rule.uid.is_some() || rule.gid.is_some())
                        && rule.uid.is_none_or(|wanted| wanted == *uid)
                        && rule.gid.is_none_or(|wanted| wanted == *gid)
                };
                match self.allow.iter().any(matches) {
                    true => Decision::Allow("listen.unix.allow"),
                    false => Decision::Deny {
                        policy: "listen.unix.allow",
                        reason: "no entry of listen.unix.allow matches this process's uid and gid",
                    },
                }
            }
        }
    }
}

/// Which paths can be asked for. What would hand out the broker's own token, or act on Vault itself, can't.
#[must_use]
pub fn readable(path: &str) -> Decision {
    const DENIED: &str = "paths";
    const LOOKUP_SELF: &str = "auth/token/lookup-self";
    let deny = |reason| Decision::Deny { policy: DENIED, reason };
    // A namespace can stand before it: the path of a child's is as good to Vault as the header.
    if path == LOOKUP_SELF || path.strip_suffix(LOOKUP_SELF).is_some_and(|before| before.ends_with('/')) {
        return deny("what looks up a token would tell the run's own, and is not served");
    }
    let first = path.split('/').next().unwrap_or_default();
    match first {
        "auth" => deny("paths below auth/ concern the broker's own tokens and are not served"),
        "sys" if path.starts_with("sys/internal/ui/mounts/") => Decision::Allow("paths.preflight"),
        "sys" => deny("paths below sys/ act on Vault itself and are not served"),
        "cubbyhole" => deny("a cubbyhole belongs to one token; the run's token is shared by all its readers"),
        _ => Decision::Allow("run"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unix(uid: u32, gid: u32) -> Caller {
        Caller::Unix { uid, gid, pid: None }
    }

    #[test]
    fn without_a_list_only_the_same_uid_is_admitted() {
        let admission = Admission::new(1000, Vec::new());
        assert!(matches!(admission.admit(&unix(1000, 5)), Decision::Allow(_)));
        assert!(matches!(admission.admit(&unix(0, 0)), Decision::Deny { .. }));
    }

    #[test]
    fn a_list_replaces_the_default_and_each_entry_must_match_whole() {
        let allow = vec![Allow { uid: Some(1), gid: Some(2) }, Allow { uid: None, gid: Some(7) }];
        let admission = Admission::new(1000, allow);
        for (uid, gid, admitted) in [(1, 2, true), (1, 3, false), (9, 7, true), (1000, 1000, false)] {
            assert_eq!(
                matches!(admission.admit(&unix(uid, gid)), Decision::Allow(_)),
                admitted,
                "{uid}:{gid}"
            );
        }
        let empty = Admission::new(1000, vec![Allow { uid: None, gid: None }]);
        assert!(matches!(empty.admit(&unix(5, 5)), Decision::Deny { .. }), "an empty entry matches nobody");
    }

    #[test]
    fn the_brokers_own_tokens_cannot_be_read() {
        for path in ["team/auth/token/lookup-self", "a/b/auth/token/lookup-self"] {
            assert!(matches!(readable(path), Decision::Deny { .. }), "{path}");
        }
        for path in ["auth/token/lookup-self", "sys/policies/acl/x", "sys", "cubbyhole/x", "sys/raw/x"] {
            assert!(matches!(readable(path), Decision::Deny { .. }), "{path}");
        }
        for path in ["database/creds/x", "secret/data/x", "sys/internal/ui/mounts/secret/x", "authors/x"] {
            assert!(matches!(readable(path), Decision::Allow(_)), "{path}");
        }
    }
}
