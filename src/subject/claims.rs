//! Who a token stands for: its claims, read as a subject.

use serde_json::{Map, Value};

use crate::run::subject::{Assurance, Subject, SubjectKind};

/// The most groups of a subject that are kept.
pub const MOST_GROUPS: usize = 64;

/// The longest id of a subject and the longest name of a group, in characters.
pub const LONGEST_NAME: usize = 256;

/// How an issuer's claims are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Where the subject's id stands: `sub`.
    pub subject_claim: String,
    /// Where its groups stand, as a list or in one string with spaces between them: `groups`.
    pub groups_claim: String,
    /// What a subject is where no rule says otherwise.
    pub kind: SubjectKind,
    /// What else it may be.
    pub kinds: Option<KindRule>,
}

impl Default for Mapping {
    fn default() -> Self {
        Self {
            subject_claim: "sub".to_owned(),
            groups_claim: "groups".to_owned(),
            kind: SubjectKind::Person,
            kinds: None,
        }
    }
}

/// A claim whose value says what a subject is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KindRule {
    /// The claim, such as `azp`: a string, or a list of which any counts.
    pub claim: String,
    /// Its values, each with what it means.
    pub values: Vec<(String, SubjectKind)>,
}

/// The member of this name, or what a JSON pointer (a name that begins with a slash) leads to.
pub(super) fn claim<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    let Some(pointer) = name.strip_prefix('/') else { return claims.get(name) };
    // Of the payload as a whole, which is a map already.
    let (first, rest) = pointer.split_once('/').map_or((pointer, None), |(first, rest)| (first, Some(rest)));
    let first = claims.get(&first.replace("~1", "/").replace("~0", "~"))?;
    rest.map_or(Some(first), |rest| first.pointer(&format!("/{rest}")))
}

/// The subject, or why there is none. Of its groups those in `matter` are kept before all others.
pub(super) fn subject(
    claims: &Map<String, Value>,
    issuer: &str,
    mapping: &Mapping,
    matter: &[String],
) -> Result<Subject, String> {
    let name = &mapping.subject_claim;
    let id = match claim(claims, name) {
        None => {
            return Err(format!(
                "the token does not say whom it stands for ({name}); set subject_claim if another claim does"
            ));
        }
        Some(Value::String(id)) if is_name(id) => id.clone(),
        Some(_) => {
            return Err(format!(
                "the token's {name} is no name: 1 to {LONGEST_NAME} characters, no control characters"
            ));
        }
    };
    Ok(Subject {
        id,
        kind: kind(claims, mapping),
        issuer: Some(issuer.to_owned()),
        assurance: Assurance::Verified,
        groups: claim(claims, &mapping.groups_claim).map(|value| groups(value, matter)).unwrap_or_default(),
    })
}

fn kind(claims: &Map<String, Value>, mapping: &Mapping) -> SubjectKind {
    let Some(rule) = &mapping.kinds else { return mapping.kind };
    let said = words(claim(claims, &rule.claim));
    rule.values
        .iter()
        .find(|(value, _)| said.contains(&value.as_str()))
        .map_or(mapping.kind, |(_, kind)| *kind)
}

/// What is too long or not printable is no group: nobody can have named it in a policy.
fn groups(value: &Value, matter: &[String]) -> Vec<String> {
    let all = match value {
        Value::String(text) => text.split(' ').collect(),
        other => words(Some(other)),
    };
    let mut kept: Vec<&str> = matter.iter().map(String::as_str).filter(|name| all.contains(name)).collect();
    for name in all {
        if kept.len() >= MOST_GROUPS {
            break;
        }
        if is_name(name) && !kept.contains(&name) {
            kept.push(name);
        }
    }
    kept.truncate(MOST_GROUPS);
    kept.into_iter().map(str::to_owned).collect()
}

fn words(value: Option<&Value>) -> Vec<&str> {
    match value {
        Some(Value::String(text)) => vec![text],
        Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().count() <= LONGEST_NAME && !text.contains(char::is_control)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(claims: &Value, mapping: &Mapping, matter: &[&str]) -> Result<Subject, String> {
        let matter: Vec<String> = matter.iter().map(|&name| name.to_owned()).collect();
        subject(claims.as_object().unwrap(), "https://id.example.com", mapping, &matter)
    }

    #[test]
    fn the_usual_claims_make_a_person() {
        let said =
            read(&json!({"sub": "ada", "groups": ["staff", 5, ""]}), &Mapping::default(), &[]).unwrap();
        assert_eq!((said.id.as_str(), said.kind), ("ada", SubjectKind::Person));
        assert_eq!(said.assurance, Assurance::Verified);
        assert_eq!(said.issuer.as_deref(), Some("https://id.example.com"));
        assert_eq!(said.groups, ["staff"]);
    }

    #[test]
    fn an_id_is_a_name() {
        for sub in [json!(null), json!(5), json!(""), json!("a\nb"), json!("x".repeat(257)), json!(["ada"])] {
            let said = read(&json!({ "sub": sub }), &Mapping::default(), &[]).unwrap_err();
            assert!(said.contains("sub is no name"), "{said}");
        }
        assert!(read(&json!({}), &Mapping::default(), &[]).unwrap_err().contains("subject_claim"));
    }

    #[test]
    fn claims_are_members_or_pointers() {
        let claims = json!({
            "oid": "1", "https://x/groups": "a b", "realm_access": {"roles": ["r"]}, "a/b": {"c": ["d"]},
        });
        for (name, expected) in [
            ("https://x/groups", &["a", "b"][..]),
            ("/realm_access/roles", &["r"]),
            ("/a~1b/c", &["d"]),
            ("/realm_access/none", &[]),
            ("/", &[]),
            ("none", &[]),
        ] {
            let mapping =
                Mapping { subject_claim: "oid".into(), groups_claim: name.into(), ..Mapping::default() };
            assert_eq!(read(&claims, &mapping, &[]).unwrap().groups, expected, "{name}");
        }
    }

    #[test]
    fn groups_that_matter_are_kept() {
        let many: Vec<String> = (0..200).map(|i| format!("g{i}")).collect();
        let long = "x".repeat(257);
        let said =
            read(&json!({"sub": "a", "groups": many}), &Mapping::default(), &["g150", "other", "g199"])
                .unwrap();
        assert_eq!(said.groups.len(), 64);
        assert_eq!(said.groups[..3], ["g150", "g199", "g0"]);
        let said = read(&json!({"sub": "a", "groups": ["b", "b", long, "c\u{7}"]}), &Mapping::default(), &[])
            .unwrap();
        assert_eq!(said.groups, ["b"]);
    }

    #[test]
    fn a_claim_says_what_a_subject_is() {
        let mapping = Mapping {
            kind: SubjectKind::Service,
            kinds: Some(KindRule {
                claim: "azp".to_owned(),
                values: vec![
                    ("nightly".to_owned(), SubjectKind::Scheduler),
                    ("assistant".to_owned(), SubjectKind::Agent),
                ],
            }),
            ..Mapping::default()
        };
        for (azp, kind) in [
            (json!("assistant"), SubjectKind::Agent),
            (json!("nightly"), SubjectKind::Scheduler),
            (json!(["x", "assistant"]), SubjectKind::Agent),
            (json!("else"), SubjectKind::Service),
            (json!(null), SubjectKind::Service),
        ] {
            assert_eq!(read(&json!({"sub": "a", "azp": azp}), &mapping, &[]).unwrap().kind, kind);
        }
    }
}
