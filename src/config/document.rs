//! What the sources said, laid over one another: one tree of values, and where each of them came from.

use std::collections::BTreeMap;
use std::path::Path;

use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use super::problem::{Origin, Problem};

/// The merged sources.
#[derive(Debug, Default)]
pub(crate) struct Document {
    pub(crate) root: Table,
    /// By dotted key; elements of arrays as `prefetch[0].path`.
    origins: BTreeMap<String, Origin>,
    /// The file as a whole, where there is one.
    file: Option<Origin>,
}

impl Document {
    /// Parses a file; problems are those of its TOML.
    pub(crate) fn parse(path: &Path, text: &str) -> Result<Self, Vec<Problem>> {
        let (table, errors) = DeTable::parse_recoverable(text);
        let lines = Lines::new(path, text);
        let mut problems: Vec<Problem> = errors
            .iter()
            .map(|error| Problem {
                origin: lines.origin(error.span().map_or(0, |span| span.start)),
                key: String::new(),
                message: format!("not TOML: {}", error.message()),
            })
            .collect();
        let mut document =
            Self { file: Some(Origin::File { path: path.to_owned(), line: 0 }), ..Self::default() };
        if problems.is_empty() {
            document.root = document.table(table.get_ref(), "", &lines, &mut problems);
        }
        if problems.is_empty() { Ok(document) } else { Err(problems) }
    }

    /// Lays `value` over whatever was said of `key`.
    pub(crate) fn set(&mut self, key: &str, value: &str, origin: Origin) {
        let mut table = &mut self.root;
        let mut names: Vec<&str> = key.split('.').collect();
        let Some(leaf) = names.pop() else { return };
        for name in names {
            let inner = table.entry(name).or_insert_with(|| Value::Table(Table::new()));
            // Something else stands where a table belongs: the shape check says so, by its line.
            let Value::Table(inner) = inner else { return };
            table = inner;
        }
        table.insert(leaf.to_owned(), Value::String(value.to_owned()));
        self.origins.insert(key.to_owned(), origin);
    }

    /// Where `key` was said; where it was not, its nearest table that was, or else the file.
    pub(crate) fn origin(&self, key: &str) -> Origin {
        let mut key = key;
        loop {
            if let Some(origin) = self.origins.get(key) {
                return origin.clone();
            }
            match key.rfind(['.', '[']) {
                Some(end) => key = &key[..end],
                None => return self.file.clone().unwrap_or(Origin::Default),
            }
        }
    }

    /// Where exactly `key` was said; [`Origin::Default`] where it was not.
    pub(crate) fn said(&self, key: &str) -> Origin {
        self.origins.get(key).cloned().unwrap_or(Origin::Default)
    }

    fn table(
        &mut self,
        table: &DeTable<'_>,
        prefix: &str,
        lines: &Lines<'_>,
        problems: &mut Vec<Problem>,
    ) -> Table {
        let mut out = Table::new();
        for (name, value) in table {
            let key = join(prefix, name.get_ref());
            self.origins.insert(key.clone(), lines.origin(name.span().start));
            if let Some(value) = self.value(value.get_ref(), &key, lines, problems) {
                out.insert(name.get_ref().to_string(), value);
            }
        }
        out
    }

    fn value(
        &mut self,
        value: &DeValue<'_>,
        key: &str,
        lines: &Lines<'_>,
        problems: &mut Vec<Problem>,
    ) -> Option<Value> {
        Some(match value {
            DeValue::String(text) => Value::String(text.to_string()),
            DeValue::Boolean(yes) => Value::Boolean(*yes),
            DeValue::Datetime(time) => Value::Datetime(*time),
            DeValue::Table(table) => Value::Table(self.table(table, key, lines, problems)),
            DeValue::Array(array) => {
                let mut out = Vec::new();
                for (i, element) in array.iter().enumerate() {
                    let key = format!("{key}[{i}]");
                    self.origins.insert(key.clone(), lines.origin(element.span().start));
                    out.extend(self.value(element.get_ref(), &key, lines, problems));
                }
                Value::Array(out)
            }
            DeValue::Float(number) => Value::Float(number.as_str().parse().ok()?),
            DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
                Ok(number) => Value::Integer(number),
                Err(_) => {
                    problems.push(self.problem(key, format!("{number} is too large a number")));
                    return None;
                }
            },
        })
    }

    fn problem(&self, key: &str, message: String) -> Problem {
        Problem { origin: self.origin(key), key: key.to_owned(), message }
    }
}

/// `prefix.name`, or `name` at the top.
pub(crate) fn join(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") }
}

/// Which line an offset is in: the file may be long, and each of its keys asks.
struct Lines<'a> {
    path: &'a Path,
    /// Where each line ends.
    ends: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn new(path: &'a Path, text: &str) -> Self {
        Self { path, ends: text.match_indices('\n').map(|(at, _)| at).collect() }
    }

    fn origin(&self, offset: usize) -> Origin {
        let line = 1 + self.ends.partition_point(|end| *end < offset);
        Origin::File { path: self.path.to_owned(), line }
    }
}
