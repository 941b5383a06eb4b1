//! Which login it is: the configured one, or of several the first whose means are at hand.
//!
//! `VAULT_TOKEN` is not among the means. What is in the environment is inherited by every child and shown by whatever
//! shows a container's settings, it cannot be replaced while the process runs, and where it is set it is a person's, with
//! a person's rights: it would become the broker's without anybody having said so. A token is given by a file.

use std::sync::Arc;

use super::{AppError, Process};
use crate::config::{self, AutoLogin, Method};
use crate::identity::approle::{AppRoleLogin, AppRoleLoginConfig, RoleId};
use crate::identity::aws::{Assume, AwsLogin, AwsLoginConfig, Session, Work};
use crate::identity::cert::{CertLogin, CertLoginConfig};
use crate::identity::jwt::{Checked, JwtLogin, JwtLoginConfig};
use crate::identity::token::{TokenLogin, TokenLoginConfig};
use crate::lease::failure::{Class, Failure};
use crate::lease::upstream::{BoxFuture, CallId, Login, Minted, Token};
use crate::run::arn::ExecutionArn;
use crate::vault::VaultClient;

/// The login that `said` means.
pub(super) fn of(
    said: &config::Login,
    client: &Arc<VaultClient>,
    run: &Process,
) -> Result<Arc<dyn Login>, AppError> {
    match said {
        config::Login::By(said) => Ok(method(said, client, run)),
        config::Login::Auto(auto) => {
            let (said, why) = choice(auto).map_err(AppError::Upstream)?;
            let login = Chosen { login: method(said, client, run), why };
            tracing::info!(login = login.describe(), "the login was chosen by what is at hand");
            Ok(Arc::new(login))
        }
    }
}

/// The method that `said` means, and why it is that one where there was a choice.
pub(super) fn meant(said: &config::Login) -> Result<(&Method, Option<String>), Failure> {
    match said {
        config::Login::By(method) => Ok((method, None)),
        config::Login::Auto(auto) => choice(auto).map(|(method, why)| (method, Some(why))),
    }
}

/// The login by AWS IAM.
pub(super) fn aws(said: &config::AwsLogin, client: Arc<VaultClient>, run: &Process) -> AwsLogin {
    let config = AwsLoginConfig {
        mount: said.mount.clone(),
        role: said.role.clone(),
        region: said.region.clone(),
        fips: said.fips,
        server_id: said.server_id.clone(),
        assume: assumed(&said.assume, run),
    };
    AwsLogin::new(client, config)
}

pub(super) fn method(said: &Method, client: &Arc<VaultClient>, run: &Process) -> Arc<dyn Login> {
    let client = Arc::clone(client);
    let jwt = |client, said: &config::JwtLogin, checked| {
        let config = JwtLoginConfig {
            checked,
            mount: said.mount.clone(),
            role: said.role.clone(),
            token_file: said.token_file.clone(),
        };
        Arc::new(JwtLogin::new(client, config))
    };
    match said {
        Method::Aws(said) => Arc::new(aws(said, client, run)),
        Method::Kubernetes(said) => jwt(client, said, Checked::ByCluster),
        Method::Jwt(said) => jwt(client, said, Checked::ByKeys),
        Method::Cert(cert) => {
            let config = CertLoginConfig { mount: cert.mount.clone(), role: cert.role.clone() };
            Arc::new(CertLogin::new(client, config))
        }
        Method::AppRole(approle) => Arc::new(AppRoleLogin::new(
            client,
            AppRoleLoginConfig {
                mount: approle.mount.clone(),
                role: approle.role.clone(),
                role_id: match &approle.role_id {
                    config::RoleId::Is(id) => RoleId::Is(id.clone()),
                    config::RoleId::In(file) => RoleId::In(file.clone()),
                },
                secret_id_file: approle.secret_id_file.clone(),
                wrapped: approle.wrapped,
            },
        )),
        Method::Token(token) => {
            let config = TokenLoginConfig { file: token.file.clone(), revoke: token.revoke };
            Arc::new(TokenLogin::new(client, config))
        }
    }
}

/// The first method whose means are at hand, and what these are. An instance's role shows nowhere but in a request, so
/// AWS is also what is left where nothing is at hand.
fn choice(auto: &AutoLogin) -> Result<(&Method, String), Failure> {
    let mut looked_at = Vec::new();
    for method in &auto.candidates {
        match (method.file(), auto.aws) {
            (Some(file), _) if file.exists() => return Ok((method, format!("{} is there", file.display()))),
            (Some(file), _) => looked_at.push(format!("{} for {}", file.display(), method.word())),
            (None, Some(variable)) => return Ok((method, format!("{variable} is set"))),
            (None, None) => {}
        }
    }
    let aws = auto.candidates.iter().find(|method| matches!(method, Method::Aws(_)));
    let aws = aws.map(|aws| (aws, "nothing else is at hand; an instance may have a role".to_owned()));
    aws.ok_or_else(|| {
        Failure::new(
            Class::Permanent,
            format!(
                "vault.auth.method is \"auto\", and there is none of the files by which the configured methods log in: \
                 {}. Put one there, or configure the method that is meant here (VAULT_TOKEN is not looked at: a token \
                 is given by [vault.auth.token] file)",
                looked_at.join(", ")
            ),
        )
    })
}

/// A login that was chosen, and why.
struct Chosen {
    login: Arc<dyn Login>,
    why: String,
}

impl Login for Chosen {
    fn login(&self, call: CallId) -> BoxFuture<'_, Result<Minted<Token>, Failure>> {
        self.login.login(call)
    }

    fn describe(&self) -> String {
        format!("{} (auto: {})", self.login.describe(), self.why)
    }

    fn is_outdated(&self) -> bool {
        self.login.is_outdated()
    }
}

/// The roles that are assumed before the login, their sessions named after the run.
fn assumed(roles: &[config::Assume], Process { id, env, .. }: &Process) -> Vec<Assume> {
    let facts = &env.facts;
    let commit = facts.tags.get("git_commit").or_else(|| facts.tags.get("commit"));
    let session = Session::of(&Work {
        run: id,
        execution_arn: facts.execution.as_ref().map(ExecutionArn::as_str),
        state_machine: facts.execution.as_ref().map(ExecutionArn::state_machine),
        state: facts.state.as_deref(),
        // Whoever the run acts for is not verified yet.
        subject: None,
        git_commit: commit.map(|commit| &**commit),
    });
    let assume = |role: &config::Assume| Assume {
        role_arn: role.role_arn.clone(),
        external_id: role.external_id.clone(),
        session_name: role.session_name.clone().unwrap_or_else(|| session.name.clone()),
        source_identity: role.source_identity.then(|| session.source_identity.clone()),
        tags: if role.session_tags { session.tags.clone() } else { Vec::new() },
        duration: role.duration,
    };
    roles.iter().map(assume).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn auto(dir: &tempfile::TempDir, aws: Option<&'static str>, with_aws: bool) -> AutoLogin {
        let pod = config::JwtLogin {
            role: "orders".into(),
            mount: "kubernetes".into(),
            token_file: dir.path().join("pod"),
        };
        let token = config::TokenLogin { file: dir.path().join("token"), revoke: false };
        let role = config::AwsLogin {
            role: "orders".into(),
            mount: "aws".into(),
            server_id: None,
            region: None,
            fips: false,
            assume: Vec::new(),
        };
        let mut candidates = vec![Method::Kubernetes(pod), Method::Token(token)];
        if with_aws {
            candidates.insert(0, Method::Aws(role));
        }
        AutoLogin { candidates, aws }
    }

    #[test]
    fn the_first_whose_means_are_at_hand_is_chosen_and_says_why() {
        let dir = tempfile::tempdir().expect("a directory");
        let chosen = |aws, with_aws| {
            let auto = auto(&dir, aws, with_aws);
            choice(&auto).map(|(method, why)| (method.word(), why)).map_err(|failure| failure.message)
        };
        let (word, why) = chosen(None, true).expect("what is left");
        assert_eq!((word, why.as_str()), ("aws", "nothing else is at hand; an instance may have a role"));
        let none = chosen(None, false).expect_err("nothing");
        assert!(none.contains("pod for kubernetes") && none.contains("token for token"), "{none}");
        assert!(none.contains("VAULT_TOKEN is not looked at"), "{none}");

        std::fs::write(dir.path().join("token"), "x").expect("a file");
        assert_eq!(chosen(None, true).expect("a token").0, "token");
        std::fs::write(dir.path().join("pod"), "x").expect("a file");
        let (word, why) = chosen(None, true).expect("a pod");
        assert!(word == "kubernetes" && why.ends_with("/pod is there"), "{why}");
        let (word, why) = chosen(Some("AWS_ACCESS_KEY_ID"), true).expect("AWS");
        assert_eq!((word, why.as_str()), ("aws", "AWS_ACCESS_KEY_ID is set"));
        assert_eq!(chosen(Some("AWS_ACCESS_KEY_ID"), false).expect("a pod").0, "kubernetes");
    }
}
