//! What can be made to fail, and when.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::lease::failure::Class;
use crate::source::dev::DevVault;

/// How long a call takes while upstream is slow.
const SLOW: Duration = Duration::from_secs(2);

/// Something that goes wrong upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Every call is answered with 503.
    Outage,
    /// Every call takes two seconds.
    Slow,
    /// No database user is made or prolonged.
    Database,
    /// Everything that was issued is revoked, at one moment.
    Revoke,
}

impl Trouble {
    const ALL: [Self; 4] = [Self::Outage, Self::Slow, Self::Database, Self::Revoke];

    /// The word for it on the command line.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Outage => "outage",
            Self::Slow => "slow",
            Self::Database => "database",
            Self::Revoke => "revoke",
        }
    }
}

/// A trouble of a script: `outage@10s..20s`, `slow@5s`, `revoke@15s`. Times count from when the broker serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planned {
    /// What goes wrong.
    pub trouble: Trouble,
    /// From when on.
    pub from: Duration,
    /// Until when; `None`: to the end.
    pub to: Option<Duration>,
}

impl FromStr for Planned {
    type Err = PlanError;

    fn from_str(text: &str) -> Result<Self, PlanError> {
        let (word, span) = text.split_once('@').ok_or(PlanError::Shape)?;
        let trouble = Trouble::ALL.into_iter().find(|trouble| trouble.word() == word);
        let trouble = trouble.ok_or(PlanError::Trouble)?;
        let time = |text: &str| humantime::parse_duration(text).map_err(|_| PlanError::Time(text.to_owned()));
        let (from, to) = match span.split_once("..") {
            Some((from, to)) => (time(from)?, Some(time(to)?)),
            None => (time(span)?, None),
        };
        match to {
            Some(_) if trouble == Trouble::Revoke => Err(PlanError::Moment),
            Some(to) if to <= from => Err(PlanError::Backwards),
            to => Ok(Self { trouble, from, to }),
        }
    }
}

/// Why a text is not a trouble of a script.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// It has no `@`.
    #[error("write what fails, @ and when: outage@10s..20s, or outage@10s for one that does not end")]
    Shape,
    /// An unknown word before the `@`.
    #[error("what can fail is outage, slow, database or revoke")]
    Trouble,
    /// Not a time.
    #[error("{0:?} is not a time such as 10s or 1m 30s")]
    Time(String),
    /// A revocation that lasts.
    #[error("revoke happens at one moment: revoke@15s")]
    Moment,
    /// It ends before it begins.
    #[error("it ends before it begins")]
    Backwards,
}

/// What is wrong with the embedded Vault now.
#[derive(Debug, Default)]
pub(super) struct Troubles {
    pub(super) outage: bool,
    pub(super) slow: bool,
    pub(super) database: bool,
}

impl Troubles {
    pub(super) fn is_on(&self, trouble: Trouble) -> bool {
        match trouble {
            Trouble::Outage => self.outage,
            Trouble::Slow => self.slow,
            Trouble::Database => self.database,
            Trouble::Revoke => false,
        }
    }

    /// Lets it begin or end, and says so.
    pub(super) fn set(&mut self, trouble: Trouble, on: bool, vault: &DevVault) -> Said {
        match trouble {
            Trouble::Outage => {
                self.outage = on;
                if on { vault.fail(Class::Transient) } else { vault.recover() }
            }
            Trouble::Slow => {
                self.slow = on;
                vault.set_latency(if on { SLOW } else { Duration::ZERO });
            }
            Trouble::Database => {
                self.database = on;
                vault.set_database_down(on);
            }
            Trouble::Revoke => {
                vault.revoke_leases();
                vault.revoke_runs();
                vault.revoke_logins();
            }
        }
        Said { trouble, on }
    }

    /// Ends all of them, so that what was issued can be revoked.
    pub(super) fn end(&mut self, vault: &DevVault) {
        for trouble in [Trouble::Outage, Trouble::Slow, Trouble::Database] {
            if self.is_on(trouble) {
                self.set(trouble, false, vault);
            }
        }
    }
}

/// A trouble that began or ended, in words.
#[derive(Clone, Copy, Debug)]
pub(super) struct Said {
    trouble: Trouble,
    on: bool,
}

impl Said {
    pub(super) fn bad(self) -> bool {
        self.on
    }

    pub(super) fn word(self) -> &'static str {
        match self.trouble {
            Trouble::Database => "database",
            Trouble::Revoke => "revoked",
            _ if self.on => self.trouble.word(),
            _ => "recovered",
        }
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.trouble, self.on) {
            (Trouble::Outage, true) => "upstream answers every call with 503, sealed",
            (Trouble::Outage, false) => "upstream answers again",
            (Trouble::Slow, true) => "every call upstream takes 2 s",
            (Trouble::Slow, false) => "calls upstream take no time again",
            (Trouble::Database, true) => "it is down: no user is made or prolonged, values are still read",
            (Trouble::Database, false) => "it is up again",
            (Trouble::Revoke, _) => "every lease, run token and login token, upstream, by an operator",
        })
    }
}
