//! How the process logs in: which methods are configured, and which of them is used.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;

use super::environment::Environment;
use super::raw::{RawAuth, RawVault};
use super::settings::List;
use super::validate::Check;
use super::{AwsLogin, Vault};

/// The token of a pod's service account, where Kubernetes puts it.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// Variables that say that AWS has given, or is to give, this process credentials: keys (a function's, too), web
/// identity, a task's or a pod's endpoint, a profile.
const AWS_VARIABLES: &[&str] = &[
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_PROFILE",
];

/// Which of the configured methods is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(crate) enum Named {
    Auto,
    Aws,
    Kubernetes,
    Jwt,
    Cert,
    AppRole,
    Token,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawAppRole {
    /// The role id; or role_id_file. It is no secret.
    pub(crate) role_id: Option<String>,
    /// Holds the role id; or role_id.
    pub(crate) role_id_file: Option<String>,
    /// The role's name: a wrapped secret id must then be of that role. Default: of any role of the mount.
    pub(crate) role: Option<String>,
    /// Holds the secret id, or the token that it is wrapped in. Required.
    pub(crate) secret_id_file: Option<String>,
    /// Whether the secret id is wrapped: it is unwrapped once, and noticed if somebody else was faster. Default: false.
    #[schemars(extend("default" = false))]
    pub(crate) wrapped: Option<bool>,
    /// Where the method is mounted, below auth/. Default: "approle".
    #[schemars(extend("default" = "approle"))]
    pub(crate) mount: Option<String>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawJwt {
    /// The role of Vault's JWT auth method. Required.
    pub(crate) role: Option<String>,
    /// Holds the JWT; read at each login. Required.
    pub(crate) token_file: Option<String>,
    /// Where the method is mounted, below auth/. Default: "jwt".
    #[schemars(extend("default" = "jwt"))]
    pub(crate) mount: Option<String>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawKubernetes {
    /// The role of Vault's Kubernetes auth method. Required.
    pub(crate) role: Option<String>,
    /// Holds the service account's token; read at each login. Default: where Kubernetes puts it.
    #[schemars(extend("default" = SERVICE_ACCOUNT))]
    pub(crate) token_file: Option<String>,
    /// Where the method is mounted, below auth/. Default: "kubernetes".
    #[schemars(extend("default" = "kubernetes"))]
    pub(crate) mount: Option<String>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawCert {
    /// The role of Vault's certificate auth method. Default: the first that the certificate fits.
    pub(crate) role: Option<String>,
    /// Where the method is mounted, below auth/. Default: "cert".
    #[schemars(extend("default" = "cert"))]
    pub(crate) mount: Option<String>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawToken {
    /// Holds the token; read when it is needed, and when it changes. Required.
    pub(crate) file: Option<String>,
    /// Whether the token is revoked at the end; without it, it is its owner's. Default: false.
    #[schemars(extend("default" = false))]
    pub(crate) revoke: Option<bool>,
}

/// How the process logs in to Vault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Login {
    /// By this method.
    By(Method),
    /// By the first of several whose means are at hand when the process starts.
    Auto(AutoLogin),
}

/// A method of logging in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Method {
    /// By AWS IAM: a signed `sts:GetCallerIdentity`.
    Aws(AwsLogin),
    /// By the token of a Kubernetes service account.
    Kubernetes(JwtLogin),
    /// By a JWT in a file.
    Jwt(JwtLogin),
    /// By the certificate of [`Vault::client`].
    Cert(CertLogin),
    /// By a role id and a secret id.
    AppRole(AppRoleLogin),
    /// By a token that somebody else made.
    Token(TokenLogin),
}

/// The choice among several methods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AutoLogin {
    /// In the order in which they are tried.
    pub candidates: Vec<Method>,
    /// A variable of the environment that speaks for AWS.
    pub aws: Option<&'static str>,
}

/// The login by a JWT in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtLogin {
    /// The role of Vault's auth method.
    pub role: String,
    /// Where the method is mounted, below `auth/`.
    pub mount: String,
    /// Holds the token.
    pub token_file: PathBuf,
}

/// The login by the client's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertLogin {
    /// The role of Vault's auth method; `None`: the first that fits.
    pub role: Option<String>,
    /// Where the method is mounted, below `auth/`.
    pub mount: String,
    /// The file of the certificate, which is [`Vault::client`]'s.
    pub cert: PathBuf,
}

/// The login by AppRole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppRoleLogin {
    /// The role's id.
    pub role_id: RoleId,
    /// The role's name, where it was said.
    pub role: Option<String>,
    /// Holds the secret id, or the token that it is wrapped in.
    pub secret_id_file: PathBuf,
    /// Whether it is wrapped.
    pub wrapped: bool,
    /// Where the method is mounted, below `auth/`.
    pub mount: String,
}

/// Where the role id is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoleId {
    /// It was said.
    Is(String),
    /// It is in a file.
    In(PathBuf),
}

/// The "login" by a token that somebody else made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenLogin {
    /// Holds the token.
    pub file: PathBuf,
    /// Whether it is revoked at the end.
    pub revoke: bool,
}

impl Login {
    /// The AWS login, where it is the one, or may be.
    #[must_use]
    pub fn aws(&self) -> Option<&AwsLogin> {
        let candidates = match self {
            Self::By(method) => std::slice::from_ref(method),
            Self::Auto(auto) => &auto.candidates,
        };
        candidates.iter().find_map(|method| match method {
            Method::Aws(aws) => Some(aws),
            _ => None,
        })
    }
}

impl Method {
    /// The word for it in `vault.auth.method`, which is also its table's.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Aws(_) => "aws",
            Self::Kubernetes(_) => "kubernetes",
            Self::Jwt(_) => "jwt",
            Self::Cert(_) => "cert",
            Self::AppRole(_) => "approle",
            Self::Token(_) => "token",
        }
    }

    /// The file without which it cannot be done; none for AWS, whose credentials come in many ways.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::Aws(_) => None,
            Self::Kubernetes(jwt) | Self::Jwt(jwt) => Some(&jwt.token_file),
            Self::Cert(cert) => Some(&cert.cert),
            Self::AppRole(approle) => Some(&approle.secret_id_file),
            Self::Token(token) => Some(&token.file),
        }
    }
}

/// The first variable that is set and speaks for AWS.
fn speaks_for_aws(environment: &Environment) -> Option<&'static str> {
    AWS_VARIABLES.iter().copied().find(|name| environment.var(name).is_some())
}

impl Check<'_> {
    /// The method that is used: the only one that is configured, or the one that `vault.auth.method` names.
    pub(super) fn login(
        &mut self,
        raw: &RawVault,
        vault: Option<&Vault>,
        token_role: bool,
        environment: &Environment,
    ) -> Option<Login> {
        const KEY: &str = "vault.auth.method";
        let auth = &raw.auth;
        // What the platform vouches for comes before what somebody put there, and that before a token, which says least
        // of who uses it.
        let said: Vec<Named> = [
            (Named::Aws, auth.aws.is_some()),
            (Named::Kubernetes, auth.kubernetes.is_some()),
            (Named::Jwt, auth.jwt.is_some()),
            (Named::Cert, auth.cert.is_some()),
            (Named::AppRole, auth.approle.is_some()),
            (Named::Token, auth.token.is_some()),
        ]
        .into_iter()
        .filter_map(|(method, said)| said.then_some(method))
        .collect();
        // All that was said is checked, used or not.
        let mut methods: Vec<(Named, Option<Method>)> =
            said.iter().map(|name| (*name, self.method(*name, auth, vault, token_role))).collect();
        let used = match (auth.method, said.as_slice()) {
            (Some(Named::Auto), []) => {
                let message = "\"auto\" chooses among the methods that have a table, and none has: add \
                               [vault.auth.aws], [vault.auth.kubernetes], [vault.auth.token] or others";
                return self.refuse(KEY, message.to_owned());
            }
            (Some(Named::Auto), _) => {
                let candidates = methods.into_iter().map(|(_, method)| method).collect::<Option<_>>()?;
                return Some(Login::Auto(AutoLogin { candidates, aws: speaks_for_aws(environment) }));
            }
            (Some(name), _) => name,
            // What was mistyped may have been the method, or its name.
            (None, _) if self.is_spoiled(KEY) => return None,
            (None, []) if self.spoiled.iter().any(|key| key.starts_with("vault.auth.")) => return None,
            (None, []) => Named::Aws,
            (None, [only]) => *only,
            (None, several) => {
                let places: Vec<String> = several
                    .iter()
                    .map(|name| {
                        let key = format!("vault.auth.{}", table(*name));
                        let origin = self.document.origin(&key);
                        format!("{key} ({origin})")
                    })
                    .collect();
                let message = format!(
                    "missing, and there are {}: say which one is used, or \"auto\" for the first whose means are at \
                     hand; set it in the file, or TENURE_AUTH_METHOD in the environment",
                    places.join(" and ")
                );
                return self.refuse(KEY, message);
            }
        };
        if !said.contains(&used) {
            methods.push((used, self.method(used, auth, vault, token_role)));
        }
        let whole = methods.iter().all(|(_, method)| method.is_some());
        let method = methods.into_iter().find_map(|(name, method)| method.filter(|_| name == used))?;
        whole.then_some(Login::By(method))
    }

    fn method(
        &mut self,
        name: Named,
        auth: &RawAuth,
        vault: Option<&Vault>,
        token_role: bool,
    ) -> Option<Method> {
        match name {
            Named::Aws => self.aws(auth.aws.as_ref()).map(Method::Aws),
            Named::Kubernetes => {
                let none = RawKubernetes::default();
                let raw = auth.kubernetes.as_ref().unwrap_or(&none);
                let file = raw.token_file.as_deref().unwrap_or(SERVICE_ACCOUNT);
                let mount = raw.mount.as_deref();
                self.jwt("kubernetes", raw.role.as_deref(), Some(file), mount).map(Method::Kubernetes)
            }
            Named::Jwt => {
                let none = RawJwt::default();
                let raw = auth.jwt.as_ref().unwrap_or(&none);
                let (role, mount) = (raw.role.as_deref(), raw.mount.as_deref());
                self.jwt("jwt", role, raw.token_file.as_deref(), mount).map(Method::Jwt)
            }
            Named::Cert => self.cert(auth.cert.as_ref(), vault).map(Method::Cert),
            Named::AppRole => self.approle(auth.approle.as_ref()).map(Method::AppRole),
            Named::Token => self.token(auth.token.as_ref(), token_role).map(Method::Token),
            Named::Auto => None,
        }
    }

    fn jwt(
        &mut self,
        method: &str,
        role: Option<&str>,
        file: Option<&str>,
        mount: Option<&str>,
    ) -> Option<JwtLogin> {
        let key = |name: &str| format!("vault.auth.{method}.{name}");
        let role = self.required(&key("role"), role, "the role of Vault's auth method to log in to");
        let role = role.and_then(|role| self.name(&key("role"), role, "/"));
        let file = self.required(&key("token_file"), file, "the file of the JWT");
        let token_file = file.and_then(|file| self.path(&key("token_file"), file));
        let mount = self.mount(&key("mount"), mount, method);
        Some(JwtLogin { role: role?, mount: mount?, token_file: token_file? })
    }

    fn cert(&mut self, raw: Option<&RawCert>, vault: Option<&Vault>) -> Option<CertLogin> {
        let none = RawCert::default();
        let raw = raw.unwrap_or(&none);
        let role = raw.role.as_deref().map(|role| self.name("vault.auth.cert.role", role, "/"));
        let mount = self.mount("vault.auth.cert.mount", raw.mount.as_deref(), "cert");
        // Where Vault itself is not well described, that was said.
        let vault = vault?;
        if !vault.address.starts_with("https://") {
            let message = "a certificate is shown over TLS only, and vault.address is http://";
            return self.refuse("vault.auth.cert", message.to_owned());
        }
        let Some(client) = &vault.client else {
            if self.is_spoiled("vault.client_cert") || self.is_spoiled("vault.client_key") {
                return None;
            }
            let message = "logs in with vault.client_cert and vault.client_key (VAULT_CLIENT_CERT, VAULT_CLIENT_KEY): \
                           set both";
            return self.refuse("vault.auth.cert", message.to_owned());
        };
        Some(CertLogin { role: transposed(role)?, mount: mount?, cert: client.cert.clone() })
    }

    fn approle(&mut self, raw: Option<&RawAppRole>) -> Option<AppRoleLogin> {
        const ID: &str = "vault.auth.approle.role_id";
        const FILE: &str = "vault.auth.approle.role_id_file";
        let none = RawAppRole::default();
        let raw = raw.unwrap_or(&none);
        let role_id = match (&raw.role_id, &raw.role_id_file) {
            (Some(id), None) => self.name(ID, id, "").map(RoleId::Is),
            (None, Some(file)) => self.path(FILE, file).map(RoleId::In),
            (Some(_), Some(_)) => {
                let other = self.document.origin(ID);
                self.refuse(FILE, format!("conflicts with {ID} ({other}): keep one of the two"))
            }
            (None, None) if self.is_spoiled(ID) || self.is_spoiled(FILE) => None,
            (None, None) => self.refuse(
                ID,
                "missing: the role's id (vault read auth/approle/role/<role>/role-id); set it in the file, or \
                 role_id_file"
                    .to_owned(),
            ),
        };
        let role = raw.role.as_deref().map(|role| self.name("vault.auth.approle.role", role, "/"));
        let key = "vault.auth.approle.secret_id_file";
        let file = self.required(key, raw.secret_id_file.as_deref(), "the file of the secret id");
        let secret_id_file = file.and_then(|file| self.path(key, file));
        let mount = self.mount("vault.auth.approle.mount", raw.mount.as_deref(), "approle");
        Some(AppRoleLogin {
            role_id: role_id?,
            role: transposed(role)?,
            secret_id_file: secret_id_file?,
            wrapped: raw.wrapped.unwrap_or(false),
            mount: mount?,
        })
    }

    fn token(&mut self, raw: Option<&RawToken>, token_role: bool) -> Option<TokenLogin> {
        let none = RawToken::default();
        let raw = raw.unwrap_or(&none);
        let key = "vault.auth.token.file";
        let file = self.required(key, raw.file.as_deref(), "the file of the token");
        let file = file.and_then(|file| self.path(key, file));
        let revoke = raw.revoke.unwrap_or(false);
        if !revoke && !token_role && !self.is_spoiled("run.token_role") {
            let message = "without run.token_role leases hang off this token, and would outlive the run, as it is not \
                           revoked at the end: set run.token_role (or TENURE_TOKEN_ROLE), or vault.auth.token.revoke = \
                           true";
            return self.refuse("vault.auth.token", message.to_owned());
        }
        Some(TokenLogin { file: file?, revoke })
    }

    /// Where a method is mounted, below `auth/`.
    pub(super) fn mount(&mut self, key: &str, said: Option<&str>, default: &str) -> Option<String> {
        let mount = said.unwrap_or(default).trim_matches('/');
        match mount.strip_prefix("auth/") {
            Some(rest) => self.refuse(key, format!("leave \"auth/\" out: {rest:?}")),
            None => self.mountlike(key, mount),
        }
    }
}

/// `None` where something was said that is not good.
fn transposed<T>(said: Option<Option<T>>) -> Option<Option<T>> {
    match said {
        Some(None) => None,
        Some(good) => Some(good),
        None => Some(None),
    }
}

fn table(method: Named) -> &'static str {
    match method {
        Named::Auto => "auto",
        Named::Aws => "aws",
        Named::Kubernetes => "kubernetes",
        Named::Jwt => "jwt",
        Named::Cert => "cert",
        Named::AppRole => "approle",
        Named::Token => "token",
    }
}

/// What is in effect.
pub(super) fn settings(login: &Login, list: &mut List<'_>) {
    match login {
        Login::By(method) => {
            list.text("vault.auth.method", Some(&method.word().to_owned()));
            of_method(method, list);
        }
        Login::Auto(auto) => {
            list.text("vault.auth.method", Some(&"auto".to_owned()));
            auto.candidates.iter().for_each(|method| of_method(method, list));
        }
    }
}

fn of_method(method: &Method, list: &mut List<'_>) {
    let key = |name: &str| format!("vault.auth.{}.{name}", method.word());
    match method {
        Method::Aws(aws) => {
            list.text("vault.auth.aws.role", Some(&aws.role));
            list.text("vault.auth.aws.mount", Some(&aws.mount));
            list.text("vault.auth.aws.server_id", aws.server_id.as_ref());
            list.text("vault.auth.aws.region", aws.region.as_ref());
            list.plain("vault.auth.aws.fips", &aws.fips);
            for (i, hop) in aws.assume.iter().enumerate() {
                let key = |name: &str| format!("vault.auth.aws.assume[{i}].{name}");
                list.text(&key("role_arn"), Some(&hop.role_arn));
                list.text(&key("external_id"), hop.external_id.as_ref());
                list.text(&key("session_name"), hop.session_name.as_ref());
                list.plain(&key("source_identity"), &hop.source_identity);
                list.plain(&key("session_tags"), &hop.session_tags);
                list.duration(&key("duration"), hop.duration);
            }
        }
        Method::Kubernetes(jwt) | Method::Jwt(jwt) => {
            list.text(&key("role"), Some(&jwt.role));
            list.path(&key("token_file"), Some(&jwt.token_file));
            list.text(&key("mount"), Some(&jwt.mount));
        }
        Method::Cert(cert) => {
            list.text(&key("role"), cert.role.as_ref());
            list.text(&key("mount"), Some(&cert.mount));
        }
        Method::AppRole(approle) => {
            match &approle.role_id {
                RoleId::Is(id) => list.text(&key("role_id"), Some(id)),
                RoleId::In(file) => list.path(&key("role_id_file"), Some(file)),
            }
            list.text(&key("role"), approle.role.as_ref());
            list.path(&key("secret_id_file"), Some(&approle.secret_id_file));
            list.plain(&key("wrapped"), &approle.wrapped);
            list.text(&key("mount"), Some(&approle.mount));
        }
        Method::Token(token) => {
            list.path(&key("file"), Some(&token.file));
            list.plain(&key("revoke"), &token.revoke);
        }
    }
}
