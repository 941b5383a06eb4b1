//! What Vault's refusal of an AWS IAM login means: the cause, and what to change.
//!
//! The texts are those of Vault's `builtin/credential/aws/path_login.go` and, inside them, of STS, which Vault quotes
//! as `error making upstream request: received error code 403 from STS: <ErrorResponse …>`.

use crate::lease::failure::Class;

/// What was tried.
pub(super) struct Attempt<'a> {
    pub(super) mount: &'a str,
    pub(super) role: &'a str,
    pub(super) region: &'a str,
    /// An access key's id is no secret; without it nobody knows which key was refused.
    pub(super) access_key: &'a str,
}

/// What a refusal means, of a login or of a role that was to be assumed for it.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::identity::aws) struct Explained {
    pub(in crate::identity::aws) class: Class,
    /// Cause and cure, as sentences; empty where upstream's own words must do.
    pub(in crate::identity::aws) cure: String,
    /// Whether other AWS credentials may help: those at hand must not be used again.
    pub(in crate::identity::aws) credentials: bool,
}

/// Explains a refusal in Vault's words, or leaves it to the general rules.
pub(super) fn explained(attempt: &Attempt<'_>, said: &str) -> Option<Explained> {
    let Attempt { mount, role, region, access_key } = attempt;
    let has = |text: &str| said.contains(text);
    let permanent = |cure: String| Some(Explained { class: Class::Permanent, cure, credentials: false });
    let credentials = |cure: String| Some(Explained { class: Class::Permanent, cure, credentials: true });
    let transient = |cure: String| Some(Explained { class: Class::Transient, cure, credentials: false });

    // STS, through Vault. First what is not the signature's fault although STS says SignatureDoesNotMatch.
    if has("Signature expired") || has("Signature not yet current") || has("RequestExpired") {
        return permanent(
            "This machine's clock differs from AWS's by more than five minutes: set it (chrony, NTP)."
                .to_owned(),
        );
    }
    if has("Credential should be scoped to a valid region") {
        return permanent(format!(
            "The login was signed for region {region:?}, and Vault sent it to STS in another one: set the region of \
             the login to that of auth/{mount}/config/client sts_region, or set use_sts_region_from_client=true there."
        ));
    }
    if has("SignatureDoesNotMatch") {
        return credentials(format!(
            "The secret key does not belong to access key {access_key}, or the request was changed on its way."
        ));
    }
    if has("ExpiredToken") {
        // Rotation is under way: the provider is asked for new ones at the next try.
        return Some(Explained {
            class: Class::Transient,
            cure: format!(
                "The session of access key {access_key} has expired: new credentials are asked for."
            ),
            credentials: true,
        });
    }
    if has("InvalidClientTokenId") || has("UnrecognizedClientException") {
        return credentials(format!(
            "AWS does not know access key {access_key} or its session token: it was deleted or disabled, belongs to \
             another partition, or the session token is missing. A region that has to be opted into must be enabled, \
             or the session tokens be valid in all regions."
        ));
    }
    if has("from STS") && (has("Throttling") || has("code 5") || has("code 429")) {
        return transient("STS is overloaded.".to_owned());
    }
    if has("error making upstream request: error making request") {
        return transient(format!(
            "Vault cannot reach STS: check auth/{mount}/config/client sts_endpoint and Vault's own network."
        ));
    }
    if has("body of GetCallerIdentity is invalid") {
        return credentials(format!(
            "What Vault reached did not answer as STS does: check auth/{mount}/config/client sts_endpoint. (A stand-in \
             for STS may refuse the signature in this way.)"
        ));
    }
    // Vault's own words.
    if has("missing header \"X-Vault-AWS-IAM-Server-ID\"") {
        return permanent(format!(
            "Vault demands a server id: set the login's server id to auth/{mount}/config/client \
             iam_server_id_header_value."
        ));
    }
    if has("error validating X-Vault-AWS-IAM-Server-ID header") {
        return permanent(format!(
            "The login's server id is not what auth/{mount}/config/client iam_server_id_header_value says: is this the \
             Vault that is meant?"
        ));
    }
    if has("entry for role") && has("not found") {
        return permanent(format!(
            "There is no role {role:?} at auth/{mount}/role/: correct its name, or make it."
        ));
    }
    if has("auth method iam not allowed for role") {
        return permanent(format!(
            "The role is for EC2 logins: set auth_type=iam on auth/{mount}/role/{role}."
        ));
    }
    if has("does not belong to the role") || has("no longer bound to ARN") {
        return permanent(format!(
            "This AWS identity is not bound to the role: add its ARN to bound_iam_principal_arn on \
             auth/{mount}/role/{role}. An assumed role is bound by its IAM role's ARN, \
             arn:aws:iam::<account>:role/<name>."
        ));
    }
    if has("looking up full ARN of entity") || has("got empty string back when looking up full ARN") {
        return permanent(format!(
            "Vault may not look the principal up in IAM: let it (iam:GetRole, iam:GetUser), or bind without a wildcard \
             or set resolve_aws_unique_ids=false on auth/{mount}/role/{role}."
        ));
    }
    if has("request contains invalid headers") || has("invalid request header") {
        return permanent(format!(
            "Vault does not allow one of the signed headers: see auth/{mount}/config/client allowed_sts_header_values."
        ));
    }
    None
}

#[cfg(test)]
mod tests;
