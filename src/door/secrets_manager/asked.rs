//! What a request of this door asks for.

use super::super::target;

/// In whose shape the answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `GetSecretValue`.
    Secret,
    /// `GetParameter`.
    Parameter,
}

/// A request that makes sense.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) kind: Kind,
    /// The name or ARN, as the caller wrote it.
    pub(super) id: String,
    /// The version of a KV v2 value; `None`: the current one.
    pub(super) version: Option<u32>,
}

/// What is wrong with one.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// There is nothing at that path.
    Page,
    /// A parameter of the query.
    Parameter(String),
    /// A version that nobody has.
    Version(String),
}

/// What a version id of ours begins with; the number of the KV v2 version follows. AWS's have the form of a UUID, and some
/// programs insist on it.
pub(super) const VERSION_ID: &str = "00000000-0000-0000-0000-";

impl Asked {
    /// Reads the path and the query, neither of them decoded yet.
    pub(super) fn of(path: &str, query: &str) -> Result<Self, Wrong> {
        match path {
            "/secretsmanager/get" => Self::secret(None, query),
            "/systemsmanager/parameters/get" => Self::parameter(query),
            path => match path.strip_prefix("/v1/") {
                Some(id) => Self::secret(Some(decoded(id)?), query),
                None => Err(Wrong::Page),
            },
        }
    }

    fn secret(mut id: Option<String>, query: &str) -> Result<Self, Wrong> {
        let by_path = id.is_some();
        let (mut version, mut stage, mut refresh) = (None, None, None);
        for (name, value) in pairs(query) {
            match name {
                "secretId" if !by_path => once(&mut id, name, value)?,
                "versionId" => once(&mut version, name, value)?,
                "versionStage" => once(&mut stage, name, value)?,
                "refreshNow" => once(&mut refresh, name, value)?,
                _ => return Err(unknown(name, "secretId, versionId, versionStage and refreshNow")),
            }
        }
        said(refresh.as_deref(), "refreshNow")?;
        match stage.as_deref() {
            None => {}
            Some("AWSCURRENT") if version.is_none() => {}
            Some("AWSCURRENT") => {
                return Err(Wrong::Parameter("give a versionId or a versionStage, not both".to_owned()));
            }
            Some(stage) => {
                return Err(Wrong::Version(format!(
                    "no version has the stage {stage:?}: Vault knows AWSCURRENT, and the versions of KV v2 by versionId"
                )));
            }
        }
        let version = version.map(|text| {
            let number = text.strip_prefix(VERSION_ID).unwrap_or(&text).parse().ok();
            number.filter(|number| *number > 0).ok_or_else(|| {
                Wrong::Version(format!(
                    "there is no version {text:?}: it is the number of a KV v2 version, or a VersionId that was answered \
                     for one"
                ))
            })
        });
        Ok(Self { kind: Kind::Secret, id: needed(id, "secretId")?, version: version.transpose()? })
    }

    fn parameter(query: &str) -> Result<Self, Wrong> {
        let (mut id, mut version, mut plain) = (None, None, None);
        for (name, value) in pairs(query) {
            match name {
                "name" => once(&mut id, name, value)?,
                "version" => once(&mut version, name, value)?,
                "withDecryption" => once(&mut plain, name, value)?,
                "label" => {
                    return Err(Wrong::Version("no version has a label: leave label out".to_owned()));
                }
                _ => return Err(unknown(name, "name, version and withDecryption")),
            }
        }
        said(plain.as_deref(), "withDecryption")?;
        let version = version.map(|text| {
            let number = text.parse().ok().filter(|number| *number > 0);
            number.ok_or_else(|| Wrong::Parameter(format!("version={text:?} is not the number of a version")))
        });
        Ok(Self { kind: Kind::Parameter, id: needed(id, "name")?, version: version.transpose()? })
    }
}

fn pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

/// Of two values of one name it would be left to chance which of them counts.
fn once(known: &mut Option<String>, name: &str, value: &str) -> Result<(), Wrong> {
    match known.replace(decoded(value)?) {
        None => Ok(()),
        Some(_) => Err(Wrong::Parameter(format!("{name} is given twice"))),
    }
}

fn needed(id: Option<String>, name: &str) -> Result<String, Wrong> {
    let id = id.filter(|id| !id.is_empty());
    id.ok_or_else(|| Wrong::Parameter(format!("{name} is missing: the name or ARN of what is asked for")))
}

fn unknown(name: &str, known: &str) -> Wrong {
    Wrong::Parameter(format!("the query has an unknown parameter {name:?}; there are {known}"))
}

fn said(text: Option<&str>, name: &str) -> Result<(), Wrong> {
    let known = ["true", "false", "1", "0"];
    match text.is_none_or(|text| known.iter().any(|word| text.eq_ignore_ascii_case(word))) {
        true => Ok(()),
        false => Err(Wrong::Parameter(format!("{name} is true or false"))),
    }
}

/// A `+` stays one: names may have it, and none has a blank.
fn decoded(text: &str) -> Result<String, Wrong> {
    target::value(text).map_err(Wrong::Parameter)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn asked(target: &str) -> Result<Asked, Wrong> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        Asked::of(path, query)
    }

    #[test]
    fn both_forms_ask_for_the_same() {
        let wanted = Asked { kind: Kind::Secret, id: "prod/orders/db".into(), version: None };
        for target in [
            "/secretsmanager/get?secretId=prod/orders/db",
            "/secretsmanager/get?secretId=prod%2Forders%2fdb",
            "/secretsmanager/get?secretId=prod/orders/db&versionStage=AWSCURRENT",
            "/secretsmanager/get?secretId=prod/orders/db&refreshNow=true",
            "/secretsmanager/get?refreshNow=0&&secretId=prod/orders/db",
            "/v1/prod/orders/db",
            "/v1/prod%2Forders%2Fdb?versionStage=AWSCURRENT&refreshNow=FALSE",
        ] {
            assert_eq!(asked(target).as_ref(), Ok(&wanted), "{target}");
        }
        let arn = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:prod/orders/db-AbCdEf";
        for target in [
            format!("/v1/{arn}"),
            format!("/secretsmanager/get?secretId={arn}"),
            format!("/secretsmanager/get?secretId={}", arn.replace(':', "%3A")),
        ] {
            assert_eq!(asked(&target).expect("asked").id, arn, "{target}");
        }
        assert_eq!(asked("/v1/a+b=c@d").expect("asked").id, "a+b=c@d");
        let parameter =
            asked("/systemsmanager/parameters/get?name=%2Fprod%2Fdb&withDecryption=true&version=3");
        let wanted = Asked { kind: Kind::Parameter, id: "/prod/db".into(), version: Some(3) };
        assert_eq!(parameter, Ok(wanted));
    }

    #[test]
    fn a_version_is_a_number_or_what_was_answered_for_one() {
        for (text, wanted) in [("3", 3), ("00000000-0000-0000-0000-000000000012", 12)] {
            let asked = asked(&format!("/v1/a?versionId={text}")).expect("asked");
            assert_eq!(asked.version, Some(wanted));
        }
        for target in [
            "/v1/a?versionId=0",
            "/v1/a?versionId=5767290c-d089-49ed-b97c-17086f8c9d79",
            "/v1/a?versionStage=AWSPREVIOUS",
            "/systemsmanager/parameters/get?name=a&label=prod",
        ] {
            assert!(matches!(asked(target), Err(Wrong::Version(_))), "{target}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_said() {
        for target in [
            "/secretsmanager/get",
            "/secretsmanager/get?secretId=",
            "/secretsmanager/get?secretId",
            "/secretsmanager/get?secretId=a&secretId=b",
            "/secretsmanager/get?secretId=a&x=1",
            "/secretsmanager/get?secretId=a%0d%0ab",
            "/secretsmanager/get?secretId=a%",
            "/secretsmanager/get?secretId=%ff",
            "/secretsmanager/get?secretId=a&refreshNow=now",
            "/secretsmanager/get?secretId=a&versionId=1&versionStage=AWSCURRENT",
            "/v1/",
            "/v1/a?secretId=b",
            "/systemsmanager/parameters/get?secretId=a",
            "/systemsmanager/parameters/get?name=a&version=x",
        ] {
            assert!(matches!(asked(target), Err(Wrong::Parameter(_))), "{target}");
        }
        for target in ["/", "/metrics", "/tenure/leases", "/secretsmanager/get/", "/v1"] {
            assert_eq!(asked(target), Err(Wrong::Page), "{target}");
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_is_taken_or_refused_without_a_panic(path in ".*", query in ".*") {
            let _ = Asked::of(&path, &query);
            let _ = Asked::of("/secretsmanager/get", &query);
            let _ = Asked::of("/systemsmanager/parameters/get", &query);
        }
    }
}
