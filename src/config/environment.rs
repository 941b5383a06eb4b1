//! The sources beside the file: the environment and the flags, both given as values.

use std::collections::BTreeMap;
use std::ffi::OsString;

use super::document::Document;
use super::nearest::nearest;
use super::problem::{Origin, Problem};
use super::raw::VARIABLES;
use super::shape::meant;

/// The variables that say something of the run, beside [`TAG`].
const RUN_VARIABLES: &[&str] = &[
    "TENURE_DEADLINE",
    "TENURE_TIMEOUT_SECONDS",
    "TENURE_EXECUTION_ARN",
    "TENURE_STATE_NAME",
    "TENURE_STATE_ENTERED",
    "TENURE_STATE_ATTEMPT",
    "TENURE_PARENT_EXECUTION_ARN",
    "TENURE_ROOT_EXECUTION_ARN",
    "TENURE_TASK_TOKEN",
    "TENURE_SUBJECT",
    "TENURE_SUBJECT_KIND",
    "TENURE_SUBJECT_FILE",
];

/// What the names of variables that carry a tag begin with.
pub(crate) const TAG: &str = "TENURE_TAG_";

/// The environment of a process, as a value. A variable that is set to nothing counts as not set.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    vars: BTreeMap<String, String>,
    /// Names of variables of ours whose value is not UTF-8.
    broken: Vec<String>,
}

impl Environment {
    /// Takes over what the system knows, such as [`std::env::vars_os`].
    pub fn from_os(vars: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let mut environment = Self::default();
        for (name, value) in vars {
            let Ok(name) = name.into_string() else { continue };
            match value.into_string() {
                Ok(value) => drop(environment.vars.insert(name, value)),
                Err(_) if is_ours(&name) => environment.broken.push(name),
                Err(_) => {}
            }
        }
        environment
    }

    /// The value of a variable that is set to something.
    #[must_use]
    pub fn var(&self, name: &str) -> Option<&str> {
        self.vars.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Those that begin with `prefix`, with the rest of their name.
    pub(crate) fn beginning<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.vars
            .iter()
            .filter_map(move |(name, value)| Some((name.strip_prefix(prefix)?, value.as_str())))
            .filter(|(_, value)| !value.is_empty())
    }

    /// Lays the variables that stand for settings over `document`, and notices those of ours that stand for nothing.
    pub(crate) fn apply(&self, document: &mut Document, problems: &mut Vec<Problem>) {
        for (name, key) in VARIABLES {
            if let Some(value) = self.var(name) {
                document.set(key, value, Origin::Environment((*name).to_owned()));
            }
        }
        let known: Vec<&str> = VARIABLES
            .iter()
            .map(|(name, _)| *name)
            .chain(RUN_VARIABLES.iter().copied())
            .chain(["TENURE_CONFIG", "TENURE_STACK_DIR"])
            .filter(|name| name.starts_with("TENURE_"))
            .collect();
        for name in self.vars.keys().filter(|name| name.starts_with("TENURE_")) {
            if known.contains(&name.as_str()) || name.starts_with(TAG) {
                continue;
            }
            problems.push(problem(
                name,
                format!("no such variable{}", meant(nearest(name, known.iter().copied()))),
            ));
        }
        for name in &self.broken {
            problems.push(problem(name, "its value is not UTF-8".to_owned()));
        }
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(vars: I) -> Self {
        let vars = vars.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        Self { vars, broken: Vec::new() }
    }
}

/// What the flags of the command line say; `None`: not said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--vault-address`
    pub vault_address: Option<String>,
    /// `--vault-namespace`
    pub vault_namespace: Option<String>,
    /// `--auth-role`
    pub auth_role: Option<String>,
    /// `--token-role`
    pub token_role: Option<String>,
    /// `--socket`
    pub socket: Option<String>,
    /// `--tcp`
    pub tcp: Option<String>,
    /// `--token-file`
    pub token_file: Option<String>,
    /// `--audit-file`
    pub audit_file: Option<String>,
    /// `--log`
    pub log: Option<String>,
    /// `--log-format`
    pub log_format: Option<String>,
    /// It is for a Lambda function: doors and audit log are where such a one expects them, unless something else is said.
    pub lambda: bool,
}

impl Overrides {
    pub(crate) fn apply(&self, document: &mut Document) {
        for (flag, key, value) in [
            ("--vault-address", "vault.address", &self.vault_address),
            ("--vault-namespace", "vault.namespace", &self.vault_namespace),
            ("--auth-role", "vault.auth.aws.role", &self.auth_role),
            ("--token-role", "run.token_role", &self.token_role),
            ("--socket", "listen.unix.path", &self.socket),
            ("--tcp", "listen.tcp.address", &self.tcp),
            ("--token-file", "listen.tcp.token_file", &self.token_file),
            ("--audit-file", "audit.file", &self.audit_file),
            ("--log", "log.filter", &self.log),
            ("--log-format", "log.format", &self.log_format),
        ] {
            if let Some(value) = value {
                document.set(key, value, Origin::Flag(flag.to_owned()));
            }
        }
    }
}

/// A problem of a variable that stands for no key.
pub(crate) fn problem(name: &str, message: String) -> Problem {
    Problem { origin: Origin::Environment(name.to_owned()), key: String::new(), message }
}

fn is_ours(name: &str) -> bool {
    name.starts_with("TENURE_") || name.starts_with("VAULT_")
}
