//! A reader of JSON schemas that shares nothing with what makes ours: what an editor or a pipeline would say of a document.
//!
//! It knows the keywords that our schemas have, and no others.

use std::cell::RefCell;
use std::collections::HashMap;

use serde_json::Value;

/// Where `value` is not what `schema` says.
#[allow(dead_code, reason = "suites have lines of the log, and one has other documents")]
pub(crate) fn faults(value: &Value, schema: &Value) -> Vec<String> {
    let mut found = Vec::new();
    Reader { root: schema, patterns: RefCell::default() }.read(value, schema, "", &mut found);
    found
}

/// Where lines of the audit log are not what `tenure audit schema` prints, each with its number.
pub(crate) fn faults_of_lines(lines: &str) -> Vec<String> {
    let schema = tenure::audit::schema();
    let reader = Reader { root: &schema, patterns: RefCell::default() };
    let mut found = Vec::new();
    for (number, line) in (1..).zip(lines.lines()) {
        match serde_json::from_str(line) {
            Ok(value) => reader.read(&value, &schema, &format!("line {number}: "), &mut found),
            Err(error) => found.push(format!("line {number} is no JSON: {error}")),
        }
    }
    found
}

struct Reader<'a> {
    root: &'a Value,
    patterns: RefCell<HashMap<String, regex_lite::Regex>>,
}

impl Reader<'_> {
    fn fits(&self, value: &Value, schema: &Value) -> bool {
        // Without a message for each of many words that it is not.
        if let Some(word) = schema.get("const") {
            return word == value;
        }
        let mut found = Vec::new();
        self.read(value, schema, "", &mut found);
        found.is_empty()
    }

    fn read(&self, value: &Value, schema: &Value, at: &str, found: &mut Vec<String>) {
        let kind = match value {
            Value::Object(_) => "object",
            Value::Array(_) => "array",
            Value::String(_) => "string",
            Value::Bool(_) => "boolean",
            Value::Number(number) if number.is_f64() => "number",
            Value::Number(_) => "integer",
            Value::Null => "null",
        };
        let count = |rule: &Value| {
            rule.as_array().expect("schemas").iter().filter(|schema| self.fits(value, schema)).count()
        };
        for (keyword, rule) in schema.as_object().expect("a schema") {
            let good = match keyword.as_str() {
                "$schema" | "$defs" | "title" | "description" | "default" | "format" => true,
                "items" | "properties" | "additionalProperties" => true,
                "type" => rule == kind || rule.as_array().is_some_and(|all| all.iter().any(|it| it == kind)),
                "const" => rule == value,
                "enum" => rule.as_array().is_some_and(|all| all.contains(value)),
                "minimum" => value.as_f64().is_none_or(|value| Some(value) >= rule.as_f64()),
                "maximum" => value.as_f64().is_none_or(|value| Some(value) <= rule.as_f64()),
                "pattern" => value.as_str().is_none_or(|text| self.matches(text, rule)),
                "oneOf" => count(rule) == 1,
                "anyOf" => count(rule) > 0,
                "required" => {
                    let names = rule.as_array().expect("names").iter().filter_map(Value::as_str);
                    let lacking = |name: &&str| value.is_object() && value.get(name).is_none();
                    found.extend(names.filter(lacking).map(|name| format!("{at}.{name} is missing")));
                    true
                }
                "$ref" => {
                    let place = rule.as_str().and_then(|rule| rule.strip_prefix('#')).expect("a place here");
                    self.read(value, self.root.pointer(place).expect("it is there"), at, found);
                    true
                }
                other => panic!("{at}: the keyword {other} is not known here"),
            };
            if !good {
                found.push(format!("{at}: {value} is not of {keyword} {rule}"));
            }
        }
        for (number, item) in value.as_array().into_iter().flatten().enumerate() {
            if let Some(schema) = schema.get("items") {
                self.read(item, schema, &format!("{at}[{number}]"), found);
            }
        }
        // What has no properties is described elsewhere in the same schema: by a reference, or by one of several.
        let described = schema.get("properties").is_some() || schema.get("additionalProperties").is_some();
        for (name, of) in value.as_object().into_iter().flatten().filter(|_| described) {
            let at = format!("{at}.{name}");
            match (&schema["properties"][name], &schema["additionalProperties"]) {
                (Value::Null, rest @ Value::Object(_)) => self.read(of, rest, &at, found),
                (Value::Null, _) => found.push(format!("{at} is not known")),
                (schema, _) => self.read(of, schema, &at, found),
            }
        }
    }

    fn matches(&self, text: &str, pattern: &Value) -> bool {
        let pattern = pattern.as_str().expect("a pattern");
        let mut patterns = self.patterns.borrow_mut();
        let known = patterns.entry(pattern.to_owned());
        known.or_insert_with(|| regex_lite::Regex::new(pattern).expect("a pattern")).is_match(text)
    }
}
