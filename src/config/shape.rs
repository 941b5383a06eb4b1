//! The shape of a document, checked against the schema of what may be said: unknown keys, wrong types, numbers out of
//! range. What is wrong is taken out, so that the rest can still be checked.

use std::collections::BTreeSet;

use serde_json::{Map, Value as Json};
use toml::Value;

use super::document::{Document, join};
use super::nearest::nearest;
use super::problem::Problem;
use super::raw::RawConfig;

/// The JSON schema of a configuration file (draft 2020-12).
#[must_use]
pub fn schema() -> Json {
    let settings = schemars::generate::SchemaSettings::draft2020_12().with(|it| it.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<RawConfig>().to_value();
    without_null(&mut schema);
    schema
}

/// Checks and cleans `document`. Returns the keys that were taken out, or that a mistyped one was meant to be: it would
/// be misleading to call those missing.
pub(crate) fn check(document: &mut Document, problems: &mut Vec<Problem>) -> BTreeSet<String> {
    let mut root = Value::Table(std::mem::take(&mut document.root));
    let mut found = Found { problems: Vec::new(), spoiled: BTreeSet::new() };
    found.value(&mut root, &schema(), "");
    if let Value::Table(root) = root {
        document.root = root;
    }
    for (key, message) in found.problems {
        problems.push(Problem { origin: document.origin(&key), key, message });
    }
    found.spoiled
}

struct Found {
    problems: Vec<(String, String)>,
    spoiled: BTreeSet<String>,
}

impl Found {
    /// Whether the value is fit to stay.
    fn value(&mut self, value: &mut Value, schema: &Json, key: &str) -> bool {
        let allowed = types(schema);
        let kind = match value {
            Value::String(_) | Value::Datetime(_) => "string",
            Value::Integer(_) => "integer",
            Value::Float(_) => "number",
            Value::Boolean(_) => "boolean",
            Value::Array(_) => "array",
            Value::Table(_) => "object",
        };
        if !allowed.contains(&kind) || matches!(value, Value::Datetime(_)) {
            let wanted: Vec<_> = allowed.iter().map(|kind| in_toml(kind)).collect();
            let example = schema.get("default").filter(|value| !value.is_boolean());
            let example = example.map(|value| format!(", such as {value}")).unwrap_or_default();
            return self
                .refuse(key, format!("must be {}{example}, not {}", wanted.join(" or "), said(value)));
        }
        match value {
            Value::Table(table) => {
                let none = Map::new();
                let properties = schema.get("properties").and_then(Json::as_object).unwrap_or(&none);
                let names: Vec<String> = table.keys().cloned().collect();
                for name in names {
                    let inner = join(key, &name);
                    // A table whose keys are the reader's own says only what its values are.
                    let schema = properties
                        .get(&name)
                        .or_else(|| schema.get("additionalProperties").filter(|any| any.is_object()));
                    let keep = match (schema, table.get_mut(&name)) {
                        (Some(schema), Some(value)) => self.value(value, schema, &inner),
                        _ => self.unknown(key, &name, properties),
                    };
                    if !keep {
                        table.remove(&name);
                    }
                }
                true
            }
            Value::Array(elements) => {
                let items = schema.get("items").unwrap_or(&Json::Null);
                let mut fit = true;
                for (i, element) in elements.iter_mut().enumerate() {
                    fit &= self.value(element, items, &format!("{key}[{i}]"));
                }
                fit
            }
            Value::Integer(number) => {
                let bound = |name| schema.get(name).and_then(Json::as_f64);
                let (least, most) = (bound("minimum"), bound("maximum"));
                let exact = *number as f64;
                if least.is_some_and(|least| exact < least) || most.is_some_and(|most| exact > most) {
                    let most = most.map(|most| format!(" and at most {most}")).unwrap_or_default();
                    let message = format!("must be at least {}{most}, not {number}", least.unwrap_or(0.0));
                    return self.refuse(key, message);
                }
                true
            }
            Value::String(text) => {
                let words = words(schema);
                if words.is_empty() || words.contains(&text.as_str()) {
                    return true;
                }
                let message = format!(
                    "{text:?} is not known{}; it is one of {}",
                    meant(nearest(text, words.iter().copied())),
                    listed(&words)
                );
                self.refuse(key, message)
            }
            _ => true,
        }
    }

    fn unknown(&mut self, table: &str, name: &str, properties: &Map<String, Json>) -> bool {
        let known: Vec<&str> = properties.keys().map(String::as_str).collect();
        let near = nearest(name, known.iter().copied());
        if let Some(near) = near {
            self.spoiled.insert(join(table, near));
        }
        let place = if table.is_empty() { "the file".to_owned() } else { format!("[{table}]") };
        let message = format!("no such key{}; {place} has {}", meant(near), listed(&known));
        self.refuse(&join(table, name), message)
    }

    fn refuse(&mut self, key: &str, message: String) -> bool {
        self.problems.push((key.to_owned(), message));
        self.spoiled.insert(key.to_owned());
        false
    }
}

/// `; did you mean …?`, or nothing.
pub(crate) fn meant(near: Option<&str>) -> String {
    near.map(|near| format!(" (did you mean {near:?}?)")).unwrap_or_default()
}

fn listed(words: &[&str]) -> String {
    words.join(", ")
}

/// A TOML file has no null: an optional key is left out.
fn without_null(schema: &mut Json) {
    match schema {
        Json::Object(object) => {
            if let Some(Json::Array(kinds)) = object.get_mut("type") {
                kinds.retain(|kind| kind != "null");
                if let [only] = kinds.as_slice() {
                    let only = only.clone();
                    object.insert("type".to_owned(), only);
                }
            }
            if let Some(Json::Array(variants)) = object.get_mut("anyOf") {
                variants.retain(|variant| variant.get("type").is_none_or(|kind| kind != "null"));
                if let [Json::Object(only)] = variants.as_slice() {
                    let only = only.clone();
                    object.remove("anyOf");
                    for (name, value) in only {
                        object.entry(name).or_insert(value);
                    }
                }
            }
            if object.get("default").is_some_and(Json::is_null) {
                object.remove("default");
            }
            object.values_mut().for_each(without_null);
        }
        Json::Array(values) => values.iter_mut().for_each(without_null),
        _ => {}
    }
}

fn types(schema: &Json) -> Vec<&str> {
    match schema.get("type") {
        Some(Json::String(kind)) => vec![kind],
        Some(Json::Array(kinds)) => kinds.iter().filter_map(Json::as_str).collect(),
        _ if !words(schema).is_empty() => vec!["string"],
        _ => vec!["string", "integer", "number", "boolean", "array", "object"],
    }
}

/// The words that an enumeration allows.
fn words(schema: &Json) -> Vec<&str> {
    let plain = schema.get("enum").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str);
    let described = schema.get("oneOf").and_then(Json::as_array).into_iter().flatten();
    plain.chain(described.filter_map(|variant| variant.get("const")?.as_str())).collect()
}

fn in_toml(kind: &str) -> &'static str {
    match kind {
        "string" => "a string in quotes",
        "integer" => "a whole number",
        "number" => "a number",
        "boolean" => "true or false",
        "array" => "an array",
        _ => "a table",
    }
}

fn said(value: &Value) -> String {
    match value {
        Value::Integer(number) => format!("the number {number}"),
        Value::Float(number) => format!("the number {number}"),
        Value::Boolean(yes) => yes.to_string(),
        Value::String(_) => "a string".to_owned(),
        Value::Datetime(_) => "a date".to_owned(),
        Value::Array(_) => "an array".to_owned(),
        Value::Table(_) => "a table".to_owned(),
    }
}
