//! The secret, in AWS's frames. This is where it is opened for this door: against the receipt.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::ops::Range;
use std::time::Duration;

use http::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::{Response, response};
use super::MappedSecret;
use super::asked::{Asked, Kind, VERSION_ID};
use crate::broker::Disclosed;
use crate::clock::Moment;
use crate::run::request::rfc3339;

/// What the frame takes, without the id (which is in it twice), the version and the secret.
const FRAME: usize = 512;

/// The answer, or why what Vault gave cannot be one.
///
/// A KV v2 value is its `data.data`: the metadata around it is Vault's.
pub(super) fn disclosed(
    asked: &Asked,
    secret: &MappedSecret,
    disclosed: &Disclosed,
    now: Moment,
) -> Result<Response, String> {
    let answer = &disclosed.granted.answer;
    let data = answer.data.open(&disclosed.receipt);
    let found = Found::of(data, answer.version.is_some(), secret.field.as_deref()).map_err(|unfit| match unfit {
        Unfit::NoObject => format!("what is at {} is no JSON object", secret.path),
        Unfit::NoField => format!(
            "what is at {} has not the one field that is asked for: see field of the [[listen.secrets_manager.secret]] {:?}",
            secret.path, secret.id
        ),
    })?;
    let about = About {
        asked,
        version: answer.version,
        version_id: match answer.version {
            Some(version) => format!("{VERSION_ID}{version:012}"),
            None if answer.request_id.is_empty() => disclosed.granted.request.to_string(),
            None => answer.request_id.clone(),
        },
        created: found.created.unwrap_or_else(|| now.wall().saturating_sub(disclosed.age)),
    };
    // Every byte of JSON text becomes two at most: a buffer that grew would leave the secret in the old one.
    let room = 2 * (found.value.len() + asked.id.len()) + about.version_id.len() + FRAME;
    let mut body = Vec::with_capacity(room);
    let secret = match asked.kind {
        Kind::Secret => about.secret(&mut body, &found.value),
        Kind::Parameter => about.parameter(&mut body, &found.value),
    };
    debug_assert!(body.len() <= room);
    Ok(response::labelled(response::wiped(StatusCode::OK, body, secret), disclosed))
}

/// Why there is no answer.
#[derive(Debug, PartialEq, Eq)]
enum Unfit {
    NoObject,
    NoField,
}

/// What is to become a JSON string.
#[derive(Debug, PartialEq, Eq)]
enum Value<'a> {
    /// Text that is yet to be put into quotes.
    Text(&'a str),
    /// The text of a JSON string, which is one already.
    Quoted(&'a str),
}

impl Value<'_> {
    fn len(&self) -> usize {
        let (Self::Text(text) | Self::Quoted(text)) = self;
        text.len()
    }

    fn write(&self, body: &mut Vec<u8>) -> Range<usize> {
        let start = body.len();
        match self {
            Self::Text(text) => string(body, text),
            Self::Quoted(text) => body.extend_from_slice(text.as_bytes()),
        }
        start..body.len()
    }
}

#[derive(Debug)]
struct Found<'a> {
    value: Value<'a>,
    /// When it was made, since the Unix epoch; KV v2 says so.
    created: Option<Duration>,
}

/// What a read of KV v2 brings.
#[derive(Deserialize)]
struct Versioned<'a> {
    #[serde(borrow)]
    data: &'a RawValue,
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(default)]
    created_time: String,
}

impl<'a> Found<'a> {
    /// Nothing of the secret is copied: what is found lies in `data`.
    fn of(data: &'a [u8], versioned: bool, field: Option<&str>) -> Result<Self, Unfit> {
        let text = std::str::from_utf8(data).map_err(|_| Unfit::NoObject)?;
        let (object, created) = match versioned {
            false => (text, None),
            true => {
                let read: Versioned<'a> = serde_json::from_str(text).map_err(|_| Unfit::NoObject)?;
                (read.data.get(), rfc3339(&read.metadata.created_time))
            }
        };
        let Some(field) = field else { return Ok(Self { value: Value::Text(object), created }) };
        let fields: BTreeMap<String, &'a RawValue> =
            serde_json::from_str(object).map_err(|_| Unfit::NoObject)?;
        let value = fields.get(field).ok_or(Unfit::NoField)?.get();
        let value = if value.starts_with('"') { Value::Quoted(value) } else { Value::Text(value) };
        Ok(Self { value, created })
    }
}

struct About<'a> {
    asked: &'a Asked,
    version: Option<u64>,
    version_id: String,
    created: Duration,
}

impl About<'_> {
    /// <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_GetSecretValue.html>
    fn secret(&self, body: &mut Vec<u8>, value: &Value<'_>) -> Range<usize> {
        let (arn, name) = self.names("secretsmanager", ":secret:");
        body.extend_from_slice(b"{\"ARN\":");
        string(body, &arn);
        body.extend_from_slice(b",\"Name\":");
        string(body, name);
        body.extend_from_slice(b",\"VersionId\":");
        string(body, &self.version_id);
        body.extend_from_slice(b",\"SecretString\":");
        let secret = value.write(body);
        // Of a version that was asked for by its number nobody says whether it is the current one.
        let stages = if self.asked.version.is_none() { "[\"AWSCURRENT\"]" } else { "[]" };
        let (seconds, millis) = (self.created.as_secs(), self.created.subsec_millis());
        // Writing to a Vec does not fail.
        let _ = write!(body, ",\"VersionStages\":{stages},\"CreatedDate\":{seconds}.{millis:03}}}");
        secret
    }

    /// <https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_GetParameter.html>
    fn parameter(&self, body: &mut Vec<u8>, value: &Value<'_>) -> Range<usize> {
        let (arn, name) = self.names("ssm", ":parameter");
        body.extend_from_slice(b"{\"Parameter\":{\"ARN\":");
        string(body, &arn);
        body.extend_from_slice(b",\"DataType\":\"text\",\"Name\":");
        string(body, name);
        body.extend_from_slice(b",\"Type\":\"SecureString\",\"Value\":");
        let secret = value.write(body);
        let (seconds, millis) = (self.created.as_secs(), self.created.subsec_millis());
        let version = self.version.unwrap_or(1);
        // As above.
        let _ = write!(body, ",\"Version\":{version},\"LastModifiedDate\":{seconds}.{millis:03}}}}}");
        secret
    }

    /// An ARN, and the name in it. What was asked for by its name has no ARN: one is made, of a partition and an account that
    /// nobody takes for AWS's.
    fn names(&self, service: &str, before: &str) -> (String, &str) {
        let id = self.asked.id.as_str();
        if !id.starts_with("arn:") {
            let slash = if service == "ssm" && !id.starts_with('/') { "/" } else { "" };
            return (format!("arn:tenure:{service}::{before}{slash}{id}"), id);
        }
        let name = id.split_once(before).map_or(id, |(_, name)| name);
        // Secrets Manager appends a hyphen and six random characters to the name.
        let name = match name.rsplit_once('-') {
            Some((bare, random)) if service != "ssm" && random.len() == 6 => bare,
            _ => name,
        };
        (id.to_owned(), name)
    }
}

fn string(body: &mut Vec<u8>, text: &str) {
    // A string always serializes, and a Vec always takes it.
    let _ = serde_json::to_writer(body, text);
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASED: &[u8] = br#"{"username":"v-orders","password":"a\"b\u003c","port":5432,"tls":{"on":true}}"#;
    const KV: &[u8] =
        br#"{"data":{"key":"k1"},"metadata":{"created_time":"2026-01-01T00:00:00.5Z","version":3}}"#;

    fn value(data: &[u8], versioned: bool, field: Option<&str>) -> Result<String, Unfit> {
        let found = Found::of(data, versioned, field)?;
        let mut body = Vec::with_capacity(1024);
        found.value.write(&mut body);
        Ok(serde_json::from_slice::<String>(&body).expect("a JSON string"))
    }

    #[test]
    fn all_fields_are_an_object_and_one_is_itself() {
        let all = value(LEASED, false, None).expect("all");
        assert_eq!(all.as_bytes(), LEASED, "every byte as Vault wrote it");
        for (field, wanted) in
            [("username", "v-orders"), ("password", "a\"b<"), ("port", "5432"), ("tls", "{\"on\":true}")]
        {
            assert_eq!(value(LEASED, false, Some(field)).as_deref(), Ok(wanted));
        }
        assert_eq!(value(LEASED, false, Some("nothing")), Err(Unfit::NoField));
        assert_eq!(value(b"[1]", false, Some("a")), Err(Unfit::NoObject));
        assert_eq!(value(b"\xff", false, None), Err(Unfit::NoObject));
    }

    #[test]
    fn of_kv_v2_the_value_is_taken_out_of_its_metadata() {
        assert_eq!(value(KV, true, None).as_deref(), Ok(r#"{"key":"k1"}"#));
        assert_eq!(value(KV, true, Some("key")).as_deref(), Ok("k1"));
        let created = Found::of(KV, true, None).expect("found").created;
        assert_eq!(created, Some(Duration::from_millis(1_767_225_600_500)));
    }

    fn shown(kind: Kind, id: &str, version: Option<u32>) -> serde_json::Value {
        let asked = Asked { kind, id: id.into(), version };
        let about = About {
            asked: &asked,
            version: Some(3),
            version_id: format!("{VERSION_ID}{:012}", 3),
            created: Duration::from_millis(1_569_534_789_046),
        };
        let mut body = Vec::new();
        let secret = match kind {
            Kind::Secret => about.secret(&mut body, &Value::Text("{\"a\":1}")),
            Kind::Parameter => about.parameter(&mut body, &Value::Quoted("\"plain\"")),
        };
        assert!(body[secret].starts_with(b"\""), "what is wiped is the secret");
        serde_json::from_slice(&body).expect("JSON")
    }

    #[test]
    fn the_frames_are_those_of_aws() {
        assert_eq!(
            shown(Kind::Secret, "prod/orders/db", None),
            serde_json::json!({
                "ARN": "arn:tenure:secretsmanager:::secret:prod/orders/db", "Name": "prod/orders/db",
                "VersionId": "00000000-0000-0000-0000-000000000003", "SecretString": "{\"a\":1}",
                "VersionStages": ["AWSCURRENT"], "CreatedDate": 1_569_534_789.046,
            })
        );
        let arn = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:prod/orders/db-AbCdEf";
        let by_arn = shown(Kind::Secret, arn, Some(3));
        assert_eq!((&by_arn["ARN"], &by_arn["Name"]), (&arn.into(), &"prod/orders/db".into()));
        assert_eq!(by_arn["VersionStages"], serde_json::json!([]));
        assert_eq!(
            shown(Kind::Parameter, "/prod/db", None),
            serde_json::json!({"Parameter": {
                "ARN": "arn:tenure:ssm:::parameter/prod/db", "DataType": "text", "Name": "/prod/db",
                "Type": "SecureString", "Value": "plain", "Version": 3, "LastModifiedDate": 1_569_534_789.046,
            }})
        );
    }
}
