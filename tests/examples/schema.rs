//! The configuration's JSON schema, as an editor reads it.

use serde_json::Value;

/// Where a value is not what the schema says. Knows the keywords that the schema has, and no others.
fn faults(value: &Value, schema: &Value, at: &str, found: &mut Vec<String>) {
    let kind = match value {
        Value::Object(_) => "object",
        Value::Array(_) => "array",
        Value::String(_) => "string",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::Null => "null",
    };
    let mut wrong = |what: &str, rule: &Value| found.push(format!("{at}: {value} is not of {what} {rule}"));
    for (keyword, rule) in schema.as_object().expect("a schema") {
        match keyword.as_str() {
            "$schema" | "title" | "description" | "default" | "format" => {}
            "type" if rule == kind || rule.as_array().is_some_and(|all| all.iter().any(|it| it == kind)) => {}
            "const" if rule == value => {}
            "enum" if rule.as_array().is_some_and(|all| all.contains(value)) => {}
            "minimum" | "maximum" => {
                let (value, bound) = (value.as_f64(), rule.as_f64());
                let (least, most) = if keyword == "minimum" { (bound, value) } else { (value, bound) };
                if value.is_some() && least > most {
                    wrong(keyword, rule);
                }
            }
            "pattern" => {
                let pattern = regex_lite::Regex::new(rule.as_str().expect("a pattern")).expect("a pattern");
                if value.as_str().is_some_and(|text| !pattern.is_match(text)) {
                    wrong(keyword, rule);
                }
            }
            "oneOf" => {
                let fits = |schema: &&Value| {
                    let mut found = Vec::new();
                    faults(value, schema, at, &mut found);
                    found.is_empty()
                };
                if rule.as_array().expect("schemas").iter().filter(fits).count() != 1 {
                    wrong(keyword, rule);
                }
            }
            "type" | "const" | "enum" => wrong(keyword, rule),
            "items" | "properties" | "additionalProperties" => {}
            other => panic!("{at}: the keyword {other} is not known here"),
        }
    }
    for (number, item) in value.as_array().into_iter().flatten().enumerate() {
        faults(item, &schema["items"], &format!("{at}[{number}]"), found);
    }
    for (name, of) in value.as_object().into_iter().flatten() {
        let at = format!("{at}.{name}");
        match (&schema["properties"][name], &schema["additionalProperties"]) {
            (Value::Null, Value::Object(_)) => faults(of, &schema["additionalProperties"], &at, found),
            (Value::Null, _) => found.push(format!("{at} is not known")),
            (schema, _) => faults(of, schema, &at, found),
        }
    }
}

pub(crate) fn faults_of(toml: &str) -> Vec<String> {
    let value: Value = toml::from_str(toml).expect("TOML");
    let mut found = Vec::new();
    faults(&value, &tenure::config::schema(), "", &mut found);
    found
}
