//! The seed: a small file that says what the embedded Vault holds.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value};
use toml::de::{DeTable, DeValue};

use crate::config::{Origin, Problem, SecretPath};
use crate::source::dev::{DatabaseRole, DevVault};

/// A commented seed: what `--init` writes, and what counts where there is no file.
pub(super) const BUILT_IN: &str = include_str!("seed.toml");

/// What may stand in it.
const TABLES: &str = "secret, database and [[run.rule]] are all that a seed may have";

/// What the embedded Vault is to hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Seed {
    /// By their names below `secret/data/`.
    values: BTreeMap<String, Value>,
    /// By their names below `database/creds/`.
    roles: BTreeMap<String, DatabaseRole>,
    /// How many `[[run.rule]]` it has.
    pub(super) rules: usize,
}

impl Seed {
    /// Understands the text of the file `path`.
    ///
    /// # Errors
    /// Everything that is wrong, by line. No value is quoted.
    pub(super) fn parse(path: &Path, text: &str) -> Result<Self, Vec<Problem>> {
        let (table, errors) = DeTable::parse_recoverable(text);
        let mut reader = Reader { path, text, problems: Vec::new() };
        for error in &errors {
            let at = error.span().map_or(0, |span| span.start);
            reader.refuse(at, "", format!("not TOML: {}", error.message()));
        }
        let mut seed = Self::default();
        if errors.is_empty() {
            for (name, value) in table.get_ref() {
                let at = name.span().start;
                match name.get_ref().as_ref() {
                    "secret" => seed.values = reader.values(at, value.get_ref()),
                    "database" => seed.roles = reader.roles(at, value.get_ref()),
                    "run" => seed.rules = reader.rules(at, value.get_ref()),
                    other => reader.refuse(at, other, format!("no such table; {TABLES}")),
                }
            }
        }
        match reader.problems.is_empty() {
            true => Ok(seed),
            false => Err(reader.problems),
        }
    }

    /// Makes `vault` hold this instead of what `before` said, and says what that changes, one line each.
    pub(super) fn apply(&self, before: &Self, vault: &DevVault) -> Vec<String> {
        let mut changes = Vec::new();
        for (name, value) in &self.values {
            if before.values.get(name) != Some(value) {
                let version = vault.put(name, value.clone());
                changes.push(format!("secret/data/{name} is at version {version}"));
            }
        }
        for name in before.values.keys().filter(|name| !self.values.contains_key(*name)) {
            vault.remove(name);
            changes.push(format!("secret/data/{name} is gone"));
        }
        for (name, role) in &self.roles {
            if before.roles.get(name) != Some(role) {
                vault.database_role(name, *role);
                let [ttl, max_ttl] = [role.ttl, role.max_ttl].map(humantime::format_duration);
                changes.push(format!("database/creds/{name}: ttl {ttl}, max_ttl {max_ttl}"));
            }
        }
        for name in before.roles.keys().filter(|name| !self.roles.contains_key(*name)) {
            vault.remove_database_role(name);
            changes.push(format!("database/creds/{name} is gone; its users live on until their leases end"));
        }
        changes
    }

    /// The paths that can be read, those of values first.
    pub(super) fn paths(&self) -> Vec<String> {
        let values = self.values.keys().map(|name| format!("secret/data/{name}"));
        values.chain(self.roles.keys().map(|name| format!("database/creds/{name}"))).collect()
    }
}

/// Writes a commented seed; never over a file.
///
/// # Errors
/// The operating system's; [`io::ErrorKind::AlreadyExists`] where something is there already.
pub fn init(path: &Path) -> io::Result<()> {
    // Somebody may put a real value into it all the same.
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(BUILT_IN.as_bytes())
}

/// The text with everything blanked but its `[[run.rule]]` tables, which stay in their lines: what the configuration
/// finds wrong with them, it finds in the line of the seed.
pub(super) fn rules_alone(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut inside = false;
    for line in text.lines() {
        let header: String = line.chars().filter(|c| !c.is_whitespace()).collect();
        if header.starts_with('[') {
            inside = header.starts_with("[[run.rule]]") || header.starts_with("[run.rule.");
        }
        if inside {
            kept.push_str(line);
        }
        kept.push('\n');
    }
    kept
}

struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn refuse(&mut self, at: usize, key: &str, message: String) {
        let before = &self.text.as_bytes()[..at.min(self.text.len())];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        let origin = Origin::File { path: self.path.to_owned(), line };
        self.problems.push(Problem { origin, key: key.to_owned(), message });
    }

    fn values(&mut self, at: usize, value: &DeValue<'_>) -> BTreeMap<String, Value> {
        let mut values = BTreeMap::new();
        let DeValue::Table(table) = value else {
            self.refuse(at, "secret", "a table for each value is wanted, such as [secret.app]".to_owned());
            return values;
        };
        for (name, value) in table {
            let (at, name) = (name.span().start, name.get_ref().to_string());
            let key = format!("secret.{name}");
            if let Err(error) = format!("secret/data/{name}").parse::<SecretPath>() {
                self.refuse(at, &key, error.to_string());
            }
            match value.get_ref() {
                DeValue::Table(fields) => {
                    values.insert(name, object(fields));
                }
                _ => self.refuse(
                    at,
                    &key,
                    format!("a value has fields: write [{key}] and below it password = \"…\""),
                ),
            }
        }
        values
    }

    fn roles(&mut self, at: usize, value: &DeValue<'_>) -> BTreeMap<String, DatabaseRole> {
        let mut roles = BTreeMap::new();
        let DeValue::Table(table) = value else {
            self.refuse(
                at,
                "database",
                "a table for each role is wanted, such as [database.orders]".to_owned(),
            );
            return roles;
        };
        for (name, value) in table {
            let (at, name) = (name.span().start, name.get_ref().to_string());
            let key = format!("database.{name}");
            match format!("database/creds/{name}").parse::<SecretPath>() {
                Err(error) => self.refuse(at, &key, error.to_string()),
                Ok(_) if name.contains('/') => {
                    self.refuse(at, &key, "the name of a database role has no slash".to_owned());
                }
                Ok(_) => {}
            }
            let DeValue::Table(fields) = value.get_ref() else {
                self.refuse(at, &key, format!("a role is a table: write [{key}] and below it ttl = \"1m\""));
                continue;
            };
            let (mut ttl, mut max_ttl) = (None, None);
            let mut wrong = false;
            for (field, value) in fields {
                let at = field.span().start;
                let key = format!("{key}.{}", field.get_ref());
                let into = match field.get_ref().as_ref() {
                    "ttl" => &mut ttl,
                    "max_ttl" => &mut max_ttl,
                    _ => {
                        self.refuse(at, &key, "no such key; a role has ttl and max_ttl".to_owned());
                        continue;
                    }
                };
                let span = match value.get_ref() {
                    DeValue::String(text) => humantime::parse_duration(text).ok(),
                    _ => None,
                };
                // Vault counts in whole seconds, and a lease of none would be over before it is read.
                match span.filter(|span| *span >= Duration::from_secs(1)) {
                    Some(span) => *into = Some((at, span)),
                    None => {
                        wrong = true;
                        self.refuse(
                            at,
                            &key,
                            "a text such as \"1m\" is wanted, of a second or more".to_owned(),
                        );
                    }
                }
            }
            match (ttl, max_ttl) {
                _ if wrong => {}
                (None, _) => self.refuse(at, &key, "ttl is missing, such as ttl = \"1m\"".to_owned()),
                (Some((_, ttl)), Some((at, max_ttl))) if max_ttl < ttl => {
                    let [ttl, max_ttl] = [ttl, max_ttl].map(humantime::format_duration);
                    let message =
                        format!("{max_ttl} is less than ttl, {ttl}; no lease lives longer than this");
                    self.refuse(at, &format!("{key}.max_ttl"), message);
                }
                (Some((_, ttl)), max_ttl) => {
                    let max_ttl = max_ttl.map_or(ttl, |(_, max_ttl)| max_ttl);
                    roles.insert(name, DatabaseRole { ttl, max_ttl });
                }
            }
        }
        roles
    }

    /// How many rules there are. What they say is the configuration's to understand.
    fn rules(&mut self, at: usize, value: &DeValue<'_>) -> usize {
        let DeValue::Table(table) = value else {
            self.refuse(at, "run", TABLES.to_owned());
            return 0;
        };
        let mut count = 0;
        for (name, value) in table {
            match (name.get_ref().as_ref(), value.get_ref()) {
                ("rule", DeValue::Array(rules)) => count = rules.len(),
                (other, _) => self.refuse(name.span().start, &format!("run.{other}"), TABLES.to_owned()),
            }
        }
        let headers =
            rules_alone(self.text).lines().filter(|line| line.trim_start().starts_with("[[")).count();
        if count != headers {
            self.refuse(at, "run.rule", "write each rule as a [[run.rule]] table of its own".to_owned());
        }
        count
    }
}

fn object(table: &DeTable<'_>) -> Value {
    let fields = table.iter().map(|(name, value)| (name.get_ref().to_string(), json(value.get_ref())));
    Value::Object(fields.collect::<Map<_, _>>())
}

/// A value of TOML in JSON. What JSON has no number for is a text, as a time is.
fn json(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Boolean(yes) => Value::Bool(*yes),
        DeValue::Datetime(time) => Value::String(time.to_string()),
        DeValue::Array(array) => Value::Array(array.iter().map(|value| json(value.get_ref())).collect()),
        DeValue::Table(table) => object(table),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or_else(|_| Value::String(number.to_string()), Value::from),
        DeValue::Float(number) => {
            let parsed = number.as_str().parse::<f64>().ok().and_then(serde_json::Number::from_f64);
            parsed.map_or_else(|| Value::String(number.to_string()), Value::Number)
        }
    }
}
