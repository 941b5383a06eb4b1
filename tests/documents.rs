//! The documents hold together: what a link leads to is there, and a key of the configuration that is named exists.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

mod markdown;

use markdown::documents;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn each(mut see: impl FnMut(&Path, &str)) {
    let mut files = Vec::new();
    documents(root(), &mut files);
    assert!(files.len() > 8, "the documents are not where they are looked for: {files:?}");
    for file in files {
        see(&file, &std::fs::read_to_string(&file).expect("text"));
    }
}

/// The text without its blocks of code, in which nothing is a link or a heading.
fn prose(text: &str) -> String {
    text.split("```").step_by(2).collect()
}

/// Where the links lead to, but for those to other hosts.
fn links(text: &str) -> Vec<String> {
    let prose = prose(text);
    let targets = prose.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.filter(|target| !target.contains("://")).map(str::to_owned).collect()
}

/// The anchors of the headings, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let slug = |heading: &str| {
        let kept = heading.to_lowercase();
        let kept = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect::<String>()
    };
    let prose = prose(text);
    let headings = prose.lines().filter(|line| line.starts_with('#'));
    headings.map(|line| slug(line.trim_start_matches('#').trim())).collect()
}

#[test]
fn links_lead_somewhere() {
    let (mut count, mut wrong) = (0, Vec::new());
    each(|file, text| {
        for link in links(text) {
            count += 1;
            let (path, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if path.is_empty() { file.to_owned() } else { file.with_file_name("").join(path) };
            let there = match anchor {
                "" => target.exists(),
                anchor => std::fs::read_to_string(&target).is_ok_and(|text| anchors(&text).contains(anchor)),
            };
            if !there {
                wrong.push(format!("{}: {link}", file.display()));
            }
        }
    });
    assert!(count > 40, "the documents have only {count} links");
    assert!(wrong.is_empty(), "links that lead nowhere:\n{}", wrong.join("\n"));
}

#[test]
fn every_page_is_linked_from_the_readme() {
    let readme = std::fs::read_to_string(root().join("README.md")).expect("text");
    let linked = links(&readme);
    for page in std::fs::read_dir(root().join("docs")).expect("pages") {
        let name = format!("docs/{}", page.expect("a page").file_name().to_string_lossy());
        assert!(linked.contains(&name), "nothing leads to {name}");
    }
}

/// What stands in backticks and names a key: `cache.kv_stale`, `[run]`, `[[subject.issuer]]`, `audit.stdout = true`.
fn keys(text: &str, tables: &[String]) -> Vec<String> {
    let prose = prose(text);
    let quoted = prose.split('`').skip(1).step_by(2);
    let mut found = Vec::new();
    for part in quoted {
        let key = part.split(" = ").next().unwrap_or_default();
        let key = key.trim_start_matches('[').trim_end_matches(']');
        let plain = key.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c == '.');
        let first = key.split('.').next().unwrap_or_default();
        let is_table = part.starts_with('[') && !key.is_empty();
        let is_file = [".toml", ".json", ".rs", ".py", ".md", ".hcl"].iter().any(|end| key.ends_with(end));
        if plain && !is_file && (is_table || (key.contains('.') && tables.iter().any(|it| it == first))) {
            found.push(key.to_owned());
        }
    }
    found
}

fn known(schema: &Value, key: &str) -> bool {
    let mut at = schema;
    for name in key.split('.') {
        let of = if at["items"].is_object() { &at["items"] } else { at };
        at = &of["properties"][name];
        if at.is_null() {
            return false;
        }
    }
    true
}

#[test]
fn keys_that_are_named_exist() {
    let schema = tenure::config::schema();
    let tables: Vec<String> = schema["properties"].as_object().expect("tables").keys().cloned().collect();
    let (mut count, mut wrong) = (0, Vec::new());
    each(|file, text| {
        for key in keys(text, &tables) {
            count += 1;
            if !known(&schema, &key) {
                wrong.push(format!("{}: {key}", file.display()));
            }
        }
    });
    assert!(count > 30, "the documents name only {count} keys");
    assert!(wrong.is_empty(), "no such keys:\n{}", wrong.join("\n"));
}

/// Editors show the description and the default of each key.
#[test]
fn the_schema_describes_every_key() {
    fn walk(schema: &Value, name: &str, wrong: &mut Vec<String>) {
        for (key, of) in schema["properties"].as_object().into_iter().flatten() {
            let key = format!("{name}.{key}");
            let described = of["description"].as_str().unwrap_or_default();
            // A default that is a value, and not the value of another key or the like.
            let value = described.split("Default: ").nth(1).is_some_and(|value| {
                value.starts_with(|c: char| c == '"' || c.is_ascii_digit())
                    || value.starts_with("true")
                    || value.starts_with("false")
            });
            if value && of["default"].is_null() {
                wrong.push(format!("{key} has no default: {described}"));
            }
            walk(of, &key, wrong);
            walk(&of["items"], &key, wrong);
        }
    }
    let mut wrong = Vec::new();
    walk(&tenure::config::schema(), "", &mut wrong);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
