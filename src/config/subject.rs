//! `[subject]`: whose tokens are believed, and who seals what they say.

use std::path::PathBuf;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

use super::raw::RawDuration;
use super::settings::List;
use super::validate::{Check, is_loopback};
use crate::run::subject::SubjectKind;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// The signature algorithms that may be listed, by their names in JWTs (RFC 7518, RFC 8037): the asymmetric ones.
const ALGORITHMS: [&str; 9] =
    ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"];

/// On whose behalf runs act, and how far that is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// What a run does about the end of what proves its subject.
    pub expiry: Expiry,
    /// By how much the clocks of two machines may differ; at most five minutes.
    pub leeway: Duration,
    /// The groups that matter to policy: kept before all others, and alone put into seals.
    pub groups: Vec<String>,
    /// Whose tokens are believed; no two with one URL.
    pub issuers: Vec<Issuer>,
    /// Who seals subjects; `None`: no seal is made or accepted.
    pub seal: Option<Seal>,
}

impl Default for Subject {
    fn default() -> Self {
        let (issuers, groups) = (Vec::new(), Vec::new());
        Self { expiry: Expiry::default(), leeway: MINUTE, groups, issuers, seal: None }
    }
}

/// What a run does about the end of what proves its subject.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub enum Expiry {
    /// It ends by then; a seal ends with the token that it stands for.
    #[default]
    Cap,
    /// Nothing: that the subject was good at the start is enough. A seal lives as long as `seal.max_age` says.
    AtStart,
}

impl Expiry {
    /// The word in the configuration.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Cap => "cap",
            Self::AtStart => "at-start",
        }
    }
}

/// An issuer of tokens, and what they must look like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuer {
    /// Exactly as it stands in `iss`.
    pub url: String,
    /// A token must be for one of them; never empty.
    pub audiences: Vec<String>,
    /// The claim that says whom a token is for.
    pub audience_claim: String,
    /// The signature algorithms that are taken, by their names in JWTs; never empty, never a symmetric one.
    pub algorithms: Vec<String>,
    /// What the header's `typ` may be; empty: anything.
    pub types: Vec<String>,
    /// The claim of the subject's id.
    pub subject_claim: String,
    /// The claim of its groups.
    pub groups_claim: String,
    /// What its subjects are.
    pub kind: SubjectKind,
    /// What they are by the value of a claim: the claim, and each value with what it means.
    pub kinds: Option<(String, Vec<(String, SubjectKind)>)>,
    /// Whether the issuer is asked for each token.
    pub introspection: Option<Introspection>,
    /// PEM certificates that are trusted instead of the platform's roots.
    pub ca_file: Option<PathBuf>,
    /// Whether http to this machine is spoken.
    pub allow_loopback_http: bool,
    /// For a request to the issuer, as a whole.
    pub timeout: Duration,
}

/// How an issuer is asked for a token (RFC 7662).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Introspection {
    /// Where; `None`: where its discovery document says.
    pub endpoint: Option<String>,
    /// Who asks.
    pub client_id: String,
    /// The file of that client's secret.
    pub client_secret_file: PathBuf,
    /// How long an answer is taken for true.
    pub cache: Duration,
}

/// Who seals subjects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seal {
    /// Where Vault's transit engine is mounted.
    pub mount: String,
    /// Its key, of type ed25519.
    pub key: String,
    /// The longest life of a seal.
    pub max_age: Duration,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawSubject {
    /// What a run does about the end of what proves its subject: "cap", it ends by then; "at-start", nothing. Default:
    /// "cap".
    #[schemars(extend("default" = "cap"))]
    expiry: Option<Expiry>,
    /// By how much an issuer's clock and ours may differ, at most "5m". Default: "60s".
    #[schemars(extend("default" = "60s"))]
    leeway: Option<RawDuration>,
    /// The groups that matter to policy: kept before all others, and alone put into seals. Default: none.
    groups: Option<Vec<String>>,
    /// Whose tokens are believed. Default: nobody's.
    issuer: Vec<RawIssuer>,
    /// Who seals subjects. Default: nobody; no seal is made or accepted.
    seal: Option<RawSeal>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct RawIssuer {
    /// Exactly as it stands in a token's iss, a slash at its end included: `https://id.example.com`. Required.
    url: Option<String>,
    /// A token must be for one of them. Required.
    audiences: Option<Vec<String>>,
    /// The claim that says whom a token is for: "client_id" for Cognito's access tokens. Default: "aud".
    #[schemars(extend("default" = "aud"))]
    audience_claim: Option<String>,
    /// The signature algorithms that are taken. Default: all of these.
    algorithms: Option<Vec<RawAlgorithm>>,
    /// What the header's typ may be: ["at+jwt"]. Default: anything.
    types: Option<Vec<String>>,
    /// The claim of the subject's id; a name that begins with a slash is a JSON pointer. Default: "sub".
    #[schemars(extend("default" = "sub"))]
    subject_claim: Option<String>,
    /// The claim of its groups, a list or one string with spaces: "cognito:groups", "/realm_access/roles". Default:
    /// "groups".
    #[schemars(extend("default" = "groups"))]
    groups_claim: Option<String>,
    /// What its subjects are. Default: "person".
    #[schemars(extend("default" = "person"))]
    kind: Option<RawKind>,
    /// What they are by the value of a claim.
    kinds: Option<RawKinds>,
    /// Asks the issuer for each token (RFC 7662). Default: it is not asked.
    introspection: Option<RawIntrospection>,
    /// PEM certificates that are trusted instead of the platform's roots.
    ca_file: Option<String>,
    /// Whether http to this machine is spoken: for development. Default: false.
    #[schemars(extend("default" = false))]
    allow_loopback_http: Option<bool>,
    /// For a request to the issuer, as a whole. Default: "5s".
    #[schemars(extend("default" = "5s"))]
    timeout: Option<RawDuration>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct RawKinds {
    /// The claim, a string or a list of which any counts: "azp". Required.
    claim: Option<String>,
    /// Its values that mean a schedule.
    scheduler: Vec<String>,
    /// Its values that mean an agent.
    agent: Vec<String>,
    /// Its values that mean a service.
    service: Vec<String>,
    /// Its values that mean a person.
    person: Vec<String>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct RawIntrospection {
    /// Where. Default: as the issuer's discovery document says.
    endpoint: Option<String>,
    /// Who asks. Required.
    client_id: Option<String>,
    /// The file of that client's secret, read for each question. Required.
    client_secret_file: Option<String>,
    /// How long an answer is taken for true; a revoked token is good for so much longer. Default: "60s".
    #[schemars(extend("default" = "60s"))]
    cache: Option<RawDuration>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawSeal {
    /// Where Vault's transit engine is mounted. Default: "transit".
    #[schemars(extend("default" = "transit"))]
    mount: Option<String>,
    /// Its key, of type ed25519. Default: "tenure-subject".
    #[schemars(extend("default" = "tenure-subject"))]
    key: Option<String>,
    /// The longest life of a seal. Default: "12h".
    #[schemars(extend("default" = "12h"))]
    max_age: Option<RawDuration>,
}

#[derive(Debug, Deserialize)]
#[serde(transparent)]
struct RawAlgorithm(String);

impl JsonSchema for RawAlgorithm {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Algorithm".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "enum": ALGORITHMS})
    }
}

#[derive(Debug, Deserialize)]
#[serde(transparent)]
struct RawKind(SubjectKind);

impl JsonSchema for RawKind {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Kind".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "enum": SubjectKind::ALL.map(SubjectKind::word)})
    }
}

impl Check<'_> {
    /// Checks `[subject]`.
    pub(super) fn subject(&mut self, raw: &RawSubject) -> Subject {
        let leeway = self.duration("subject.leeway", raw.leeway.as_ref(), MINUTE, Duration::ZERO, 5 * MINUTE);
        let mut issuers: Vec<Issuer> = Vec::new();
        for (i, entry) in raw.issuer.iter().enumerate() {
            let key = format!("subject.issuer[{i}]");
            let Some(issuer) = self.issuer(entry, &key) else { continue };
            if issuers.iter().any(|other| other.url == issuer.url) {
                self.refuse::<()>(&format!("{key}.url"), format!("{:?} is already listed", issuer.url));
            }
            issuers.push(issuer);
        }
        Subject {
            expiry: raw.expiry.unwrap_or_default(),
            leeway,
            groups: self.words("subject.groups", raw.groups.as_deref().unwrap_or_default()),
            issuers,
            seal: raw.seal.as_ref().and_then(|raw| self.seal(raw)),
        }
    }

    fn seal(&mut self, raw: &RawSeal) -> Option<Seal> {
        let transit = self.transit("subject.seal", raw.mount.as_ref(), raw.key.as_ref(), "tenure-subject");
        let max_age =
            self.duration("subject.seal.max_age", raw.max_age.as_ref(), 12 * HOUR, MINUTE, 30 * DAY);
        let (mount, key) = transit?;
        Some(Seal { mount, key, max_age })
    }

    fn issuer(&mut self, raw: &RawIssuer, key: &str) -> Option<Issuer> {
        let at = |name: &str| format!("{key}.{name}");
        let loopback = raw.allow_loopback_http.unwrap_or(false);
        let url = self.required(&at("url"), raw.url.as_deref(), "the issuer, as it stands in a token's iss");
        let url = url.and_then(|url| self.issuer_url(&at("url"), url, loopback));
        let audiences = match raw.audiences.as_deref() {
            None if self.is_spoiled(&at("audiences")) => None,
            None | Some([]) => {
                let message = "missing: whom a token must be for, such as [\"tenure\"]; without it, tokens for any other \
                               program would do";
                self.refuse(&at("audiences"), message.to_owned())
            }
            Some(list) => Some(self.words(&at("audiences"), list)),
        };
        let algorithms = match raw.algorithms.as_deref() {
            None => ALGORITHMS.map(str::to_owned).to_vec(),
            Some([]) => {
                self.refuse::<()>(
                    &at("algorithms"),
                    "an empty list takes no token; leave it out to take all that are known".to_owned(),
                );
                Vec::new()
            }
            Some(list) => list.iter().map(|RawAlgorithm(name)| name.clone()).collect(),
        };
        let mut claim = |name: &str, said: Option<&String>, default: &str| {
            let said = said.map_or(default, String::as_str);
            self.claimed(&at(name), said).unwrap_or_default()
        };
        let audience_claim = claim("audience_claim", raw.audience_claim.as_ref(), "aud");
        let subject_claim = claim("subject_claim", raw.subject_claim.as_ref(), "sub");
        let groups_claim = claim("groups_claim", raw.groups_claim.as_ref(), "groups");
        let types = self.words(&at("types"), raw.types.as_deref().unwrap_or_default());
        let kinds = raw.kinds.as_ref().and_then(|raw| self.kinds(raw, &at("kinds")));
        let asked = raw.introspection.as_ref();
        let introspection = asked.and_then(|raw| self.introspection(raw, &at("introspection"), loopback));
        let ca_file = raw.ca_file.as_deref().and_then(|path| self.path(&at("ca_file"), path));
        let timeout = self.duration(&at("timeout"), raw.timeout.as_ref(), 5 * SECOND, SECOND / 10, MINUTE);
        Some(Issuer {
            url: url?,
            audiences: audiences?,
            audience_claim,
            algorithms,
            types,
            subject_claim,
            groups_claim,
            kind: raw.kind.as_ref().map_or(SubjectKind::Person, |RawKind(kind)| *kind),
            kinds,
            introspection,
            ca_file,
            allow_loopback_http: loopback,
            timeout,
        })
    }

    fn kinds(&mut self, raw: &RawKinds, key: &str) -> Option<(String, Vec<(String, SubjectKind)>)> {
        let claim_key = format!("{key}.claim");
        let claim =
            self.required(&claim_key, raw.claim.as_deref(), "the claim that is looked at, such as \"azp\"");
        let claim = claim.and_then(|claim| self.claimed(&claim_key, claim));
        let lists = [
            (SubjectKind::Scheduler, &raw.scheduler),
            (SubjectKind::Agent, &raw.agent),
            (SubjectKind::Service, &raw.service),
            (SubjectKind::Person, &raw.person),
        ];
        let mut values: Vec<(String, SubjectKind)> = Vec::new();
        for (kind, list) in lists {
            let key = format!("{key}.{}", kind.word());
            for value in self.words(&key, list) {
                if let Some((_, other)) = values.iter().find(|(known, _)| *known == value) {
                    self.refuse::<()>(&key, format!("{value:?} means {} already", other.word()));
                }
                values.push((value, kind));
            }
        }
        if values.is_empty() {
            return self.refuse(
                key,
                "names no values: list those that mean an agent, a scheduler, a service or a person"
                    .to_owned(),
            );
        }
        Some((claim?, values))
    }

    fn introspection(&mut self, raw: &RawIntrospection, key: &str, loopback: bool) -> Option<Introspection> {
        let at = |name: &str| format!("{key}.{name}");
        let endpoint = raw.endpoint.as_deref().map(|url| self.issuer_url(&at("endpoint"), url, loopback));
        let id = self.required(&at("client_id"), raw.client_id.as_deref(), "the client that asks");
        let client_id = id.and_then(|id| self.claimed(&at("client_id"), id));
        let what = "the file of that client's secret";
        let file = self.required(&at("client_secret_file"), raw.client_secret_file.as_deref(), what);
        let file = file.and_then(|file| self.path(&at("client_secret_file"), file));
        let cache = self.duration(&at("cache"), raw.cache.as_ref(), MINUTE, Duration::ZERO, HOUR);
        if endpoint == Some(None) {
            return None;
        }
        Some(Introspection {
            endpoint: endpoint.flatten(),
            client_id: client_id?,
            client_secret_file: file?,
            cache,
        })
    }

    fn issuer_url(&mut self, key: &str, text: &str, loopback: bool) -> Option<String> {
        if text.contains('@') {
            // Not quoted: what stands before it may be a password.
            return self.refuse(key, "has a user before its host; leave it out".to_owned());
        }
        let message = match text.parse::<http::Uri>() {
            Ok(uri) if uri.authority().is_none_or(|authority| authority.host().is_empty()) => {
                format!("{text:?} is not a whole URL, such as \"https://id.example.com\"")
            }
            Ok(uri) if uri.query().is_some() || text.contains('#') => {
                format!("{text:?} has more than an issuer's URL; leave out what begins with ? or #")
            }
            Ok(uri) => match (uri.scheme_str(), uri.host().is_some_and(is_loopback)) {
                (Some("https"), _) => return Some(text.to_owned()),
                (Some("http"), true) if loopback => return Some(text.to_owned()),
                (Some("http"), true) => format!(
                    "{text:?} is plain http; use https://, or for development say allow_loopback_http = true"
                ),
                (Some("http"), false) => {
                    format!("{text:?} is plain http: whoever is on the way could make tokens; use https://")
                }
                _ => format!("{text:?} is not reached by https"),
            },
            Err(_) => format!("{text:?} is not a URL, such as \"https://id.example.com\""),
        };
        self.refuse(key, message)
    }

    fn words(&mut self, key: &str, list: &[String]) -> Vec<String> {
        list.iter().enumerate().filter_map(|(i, text)| self.claimed(&format!("{key}[{i}]"), text)).collect()
    }

    /// Text that is compared with what a token says.
    fn claimed(&mut self, key: &str, text: &str) -> Option<String> {
        if text.is_empty() || text.contains(char::is_control) {
            return self.refuse(key, format!("{text:?} is empty, or has control characters"));
        }
        Some(text.to_owned())
    }
}

/// Adds what is in effect of `[subject]`.
pub(super) fn settings(subject: &Subject, list: &mut List<'_>) {
    list.text("subject.expiry", Some(&subject.expiry.word().to_owned()));
    list.duration("subject.leeway", subject.leeway);
    if !subject.groups.is_empty() {
        list.texts("subject.groups", &subject.groups);
    }
    for (i, issuer) in subject.issuers.iter().enumerate() {
        let at = |name: &str| format!("subject.issuer[{i}].{name}");
        list.text(&at("url"), Some(&issuer.url));
        list.texts(&at("audiences"), &issuer.audiences);
        list.text(&at("audience_claim"), Some(&issuer.audience_claim));
        list.texts(&at("algorithms"), &issuer.algorithms);
        if !issuer.types.is_empty() {
            list.texts(&at("types"), &issuer.types);
        }
        list.text(&at("subject_claim"), Some(&issuer.subject_claim));
        list.text(&at("groups_claim"), Some(&issuer.groups_claim));
        list.text(&at("kind"), Some(&issuer.kind.word().to_owned()));
        if let Some((claim, values)) = &issuer.kinds {
            list.text(&at("kinds.claim"), Some(claim));
            for kind in SubjectKind::ALL {
                let own = values.iter().filter(|(_, of)| *of == kind).map(|(value, _)| value.clone());
                let own: Vec<String> = own.collect();
                if !own.is_empty() {
                    list.texts(&at(&format!("kinds.{}", kind.word())), &own);
                }
            }
        }
        if let Some(asked) = &issuer.introspection {
            list.text(&at("introspection.endpoint"), asked.endpoint.as_ref());
            list.text(&at("introspection.client_id"), Some(&asked.client_id));
            list.path(&at("introspection.client_secret_file"), Some(&asked.client_secret_file));
            list.duration(&at("introspection.cache"), asked.cache);
        }
        list.path(&at("ca_file"), issuer.ca_file.as_deref());
        list.plain(&at("allow_loopback_http"), &issuer.allow_loopback_http);
        list.duration(&at("timeout"), issuer.timeout);
    }
    if let Some(seal) = &subject.seal {
        list.text("subject.seal.mount", Some(&seal.mount));
        list.text("subject.seal.key", Some(&seal.key));
        list.duration("subject.seal.max_age", seal.max_age);
    }
}
