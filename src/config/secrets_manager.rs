//! `[listen.secrets_manager]`: the door of AWS's own extension and agent, and which of its secrets are which of Vault's.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use super::environment::Environment;
use super::path::SecretPath;
use super::settings::List;
use super::validate::Check;

/// The port of AWS's extension and of its agent.
const PORT: u16 = 2773;

/// Says on which port a function looks for AWS's extension.
const PORT_VARIABLE: &str = "PARAMETERS_SECRETS_EXTENSION_HTTP_PORT";

/// The longest id of a secret: that of a parameter's ARN.
const LONGEST_ID: usize = 2048;

const TABLE: &str = "listen.secrets_manager";

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawSecretsManager {
    /// A loopback address and port. Default: "127.0.0.1:2773", as AWS's extension and agent; another port where
    /// PARAMETERS_SECRETS_EXTENSION_HTTP_PORT says one.
    #[schemars(extend("default" = "127.0.0.1:2773"))]
    pub(crate) address: Option<String>,
    /// What callers send as X-Aws-Parameters-Secrets-Token: "session", the AWS_SESSION_TOKEN that a Lambda function has
    /// (with SnapStart, AWS_CONTAINER_AUTHORIZATION_TOKEN). Default: "session", unless there is a token_file.
    #[schemars(extend("default" = "session"))]
    pub(crate) token: Option<RawDoorToken>,
    /// Holds the token that callers send, where it is not the session's; made at start, 0600, where absent.
    pub(crate) token_file: Option<String>,
    /// What can be read, by the id that callers ask for; at least one.
    pub(crate) secret: Vec<RawMappedSecret>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(crate) enum RawDoorToken {
    Session,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawMappedSecret {
    /// The name or ARN that callers ask for, in the form that they do: "prod/orders/db". Required.
    pub(crate) id: Option<String>,
    /// The path below /v1/ that it stands for: "database/creds/orders". Required.
    pub(crate) path: Option<String>,
    /// The one field of the secret that is the answer. Default: all of them, as a JSON object.
    pub(crate) field: Option<String>,
}

/// The door of AWS's own extension and agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretsManagerListen {
    /// A loopback address; port 0 lets the system choose.
    pub address: SocketAddr,
    /// What callers present.
    pub token: DoorToken,
    /// What can be read; never empty, each id once.
    pub secrets: Vec<MappedSecret>,
}

/// What callers of that door present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DoorToken {
    /// The session token that the function itself has.
    Session,
    /// What the file holds; made at start where absent.
    File(PathBuf),
}

/// A secret of that door, and the one of Vault that it stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappedSecret {
    /// A name or an ARN.
    pub id: String,
    /// Where it is.
    pub path: SecretPath,
    /// The one field that is the answer; `None`: all of them.
    pub field: Option<String>,
}

impl Check<'_> {
    pub(super) fn secrets_manager(
        &mut self,
        raw: &RawSecretsManager,
        environment: &Environment,
    ) -> Option<SecretsManagerListen> {
        let address = match &raw.address {
            Some(text) => self.loopback(&format!("{TABLE}.address"), text, "127.0.0.1:2773"),
            None => self.usual(environment),
        };
        let token = match (&raw.token, &raw.token_file) {
            (None | Some(RawDoorToken::Session), None) => Some(DoorToken::Session),
            (None, Some(file)) => self.path(&format!("{TABLE}.token_file"), file).map(DoorToken::File),
            (Some(RawDoorToken::Session), Some(_)) => {
                let message = format!(
                    "conflicts with {TABLE}.token = \"session\" ({}): callers send one token; keep one of the two",
                    self.document.origin(&format!("{TABLE}.token"))
                );
                self.refuse(&format!("{TABLE}.token_file"), message)
            }
        };
        let secrets = self.mapped(&raw.secret);
        Some(SecretsManagerListen { address: address?, token: token?, secrets })
    }

    /// Where AWS's extension listens.
    fn usual(&mut self, environment: &Environment) -> Option<SocketAddr> {
        let port = match environment.var(PORT_VARIABLE).map(str::parse::<u16>) {
            None => PORT,
            Some(Ok(port)) => port,
            Some(Err(_)) => {
                let message = format!("{PORT_VARIABLE} in the environment is not a port: set it to a number");
                return self.refuse(&format!("{TABLE}.address"), message);
            }
        };
        Some((Ipv4Addr::LOCALHOST, port).into())
    }

    fn mapped(&mut self, raw: &[RawMappedSecret]) -> Vec<MappedSecret> {
        if raw.is_empty() && !self.is_spoiled(&format!("{TABLE}.secret")) {
            let message = format!(
                "nothing could be read there: add a [[{TABLE}.secret]] with the id that callers ask for and its path \
                 in Vault"
            );
            self.refuse::<()>(TABLE, message);
        }
        let mut seen = BTreeSet::new();
        let mut secrets = Vec::new();
        for (i, entry) in raw.iter().enumerate() {
            let key = |name: &str| format!("{TABLE}.secret[{i}].{name}");
            let id = self.required(&key("id"), entry.id.as_deref(), "the name or ARN that callers ask for");
            let id = id.and_then(|id| self.secret_id(&key("id"), id));
            if let Some(id) = id
                && !seen.insert(id)
            {
                self.refuse::<()>(&key("id"), format!("{id:?} is already listed"));
            }
            let what = "the path of the secret that it stands for";
            let path = self.required(&key("path"), entry.path.as_deref(), what);
            let path = path.and_then(|text| match text.parse::<SecretPath>() {
                Ok(path) => Some(path),
                Err(error) => self.refuse(&key("path"), format!("{text:?}: {error}")),
            });
            if entry.field.as_deref() == Some("") {
                self.refuse::<()>(&key("field"), "is empty: leave it out for all fields".to_owned());
            }
            if let (Some(id), Some(path)) = (id, path) {
                secrets.push(MappedSecret { id: id.to_owned(), path, field: entry.field.clone() });
            }
        }
        secrets
    }

    fn secret_id<'r>(&mut self, key: &str, id: &'r str) -> Option<&'r str> {
        if id.is_empty() {
            return self.refuse(key, "is empty".to_owned());
        }
        if id.len() > LONGEST_ID {
            return self
                .refuse(key, format!("has {} bytes, and at most {LONGEST_ID} can be asked for", id.len()));
        }
        match id.chars().find(|c| !c.is_ascii_alphanumeric() && !"/_+=.@-:!".contains(*c)) {
            None => Some(id),
            Some(c) => self.refuse(key, format!("{id:?}: {c:?} is in no name and no ARN of a secret")),
        }
    }
}

pub(super) fn settings(listen: &SecretsManagerListen, list: &mut List<'_>) {
    list.text(&format!("{TABLE}.address"), Some(&listen.address.to_string()));
    match &listen.token {
        DoorToken::Session => list.text(&format!("{TABLE}.token"), Some(&"session".to_owned())),
        DoorToken::File(file) => list.path(&format!("{TABLE}.token_file"), Some(file)),
    }
    for (i, secret) in listen.secrets.iter().enumerate() {
        let key = |name: &str| format!("{TABLE}.secret[{i}].{name}");
        list.text(&key("id"), Some(&secret.id));
        list.text(&key("path"), Some(&secret.path.to_string()));
        list.text(&key("field"), secret.field.as_ref());
    }
}
