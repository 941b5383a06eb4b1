//! Cures: what to change, with the commands and policies to paste.

use super::report::Cure;
use crate::config::Method;

/// A policy that lacks a capability on a path.
pub(super) fn policy(text: &str, path: &str, capability: &str) -> Cure {
    Cure::new(
        format!("{text}: add this to the policy."),
        format!("path \"{path}\" {{\n  capabilities = [\"{capability}\"]\n}}"),
    )
}

/// What to do about AWS credentials that are missing or refused.
pub(super) fn credentials() -> Cure {
    Cure::new(
        "Give the task, function or instance an IAM role; on a person's machine, log in to AWS. Then see whose the \
         credentials are:",
        "aws sts get-caller-identity",
    )
}

/// What to do about a login that was refused, by what the refusal says. `arn`: who STS says we are.
pub(super) fn login(method: &Method, arn: Option<&str>, said: &str) -> Cure {
    let Method::Aws(aws) = method else {
        return Cure::new(
            "Compare the role with what is configured here:",
            format!("vault auth list\nvault list auth/{}/role", mount(method)),
        );
    };
    let (mount, role) = (&aws.mount, &aws.role);
    let bound = arn.and_then(role_of).unwrap_or_else(|| "arn:aws:iam::<account>:role/<name>".to_owned());
    let has = |text: &str| said.contains(text);
    let write = |path: String, settings: &str| format!("vault write auth/{mount}/{path} {settings}");
    if has("server id") {
        return Cure::new(
            "Set vault.auth.aws.server_id to what Vault says here:",
            format!("vault read -field=iam_server_id_header_value auth/{mount}/config/client"),
        );
    }
    if has("There is no role") {
        return Cure::new(
            "Correct vault.auth.aws.role, or make the role:",
            write(
                format!("role/{role}"),
                &format!(
                    "auth_type=iam bound_iam_principal_arn={bound} resolve_aws_unique_ids=false token_type=service \
                     token_policies=tenure-login token_no_default_policy=true token_ttl=15m"
                ),
            ),
        );
    }
    if has("is not bound to the role") {
        return Cure::new(
            "Run with the credentials that are meant; or, if these may log in, bind the role to them (this replaces what it \
             is bound to now):",
            write(format!("role/{role}"), &format!("bound_iam_principal_arn={bound}")),
        );
    }
    if has("signed for region") {
        return Cure::new(
            "Set vault.auth.aws.region to Vault's sts_region, or have Vault follow the client's region:",
            format!(
                "vault read -field=sts_region auth/{mount}/config/client\n{}",
                write("config/client".to_owned(), "use_sts_region_from_client=true")
            ),
        );
    }
    if has("batch token") || has("uses only") {
        return Cure::new(
            "The login token must be a service token without a limit of uses:",
            write(format!("role/{role}"), "token_type=service token_num_uses=0"),
        );
    }
    if has("othing answers at auth/") {
        return Cure::new(
            "Correct vault.auth.aws.mount, or enable the method:",
            format!("vault auth enable -path={mount} aws"),
        );
    }
    Cure::new(
        "Compare the configuration with what Vault has:",
        format!("vault read auth/{mount}/config/client\nvault read auth/{mount}/role/{role}"),
    )
}

fn mount(method: &Method) -> &str {
    match method {
        Method::Aws(aws) => &aws.mount,
        Method::Kubernetes(jwt) | Method::Jwt(jwt) => &jwt.mount,
        Method::Cert(cert) => &cert.mount,
        Method::AppRole(approle) => &approle.mount,
        Method::Token(_) => "token",
    }
}

/// The ARN that Vault binds: an assumed role's is its IAM role's. STS does not say the path that the role may have.
fn role_of(arn: &str) -> Option<String> {
    let Some((head, rest)) = arn.split_once(":assumed-role/") else { return Some(arn.to_owned()) };
    let name = rest.split('/').next()?;
    Some(format!("{}:role/{name}", head.replace(":sts:", ":iam:")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assumed_role_is_bound_by_its_iam_role() {
        let role = role_of("arn:aws:sts::123456789012:assumed-role/orders-task/7f3a");
        assert_eq!(role.as_deref(), Some("arn:aws:iam::123456789012:role/orders-task"));
        let user = "arn:aws:iam::123456789012:user/ada";
        assert_eq!(role_of(user).as_deref(), Some(user));
    }

    #[test]
    fn a_policy_can_be_pasted() {
        let cure = policy("The login may not look itself up", "auth/token/lookup-self", "read");
        assert_eq!(cure.paste, "path \"auth/token/lookup-self\" {\n  capabilities = [\"read\"]\n}");
    }
}
