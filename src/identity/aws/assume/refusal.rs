//! What STS's refusal to let a role be assumed means: the cause, and what to change.
//!
//! The codes are those of <https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html#API_AssumeRole_Errors>
//! and <https://docs.aws.amazon.com/STS/latest/APIReference/CommonErrors.html>.

use super::super::refusal::Explained;
use super::Assume;
use crate::lease::failure::Class;

/// What was tried.
pub(super) struct Attempt<'a> {
    pub(super) assume: &'a Assume,
    pub(super) region: &'a str,
    /// The caller's.
    pub(super) access_key: &'a str,
}

/// Explains a refusal.
pub(super) fn explained(attempt: &Attempt<'_>, status: u16, code: &str, said: &str) -> Explained {
    let Attempt { assume, region, access_key } = attempt;
    let role = &assume.role_arn;
    let permanent = |cure: String| Explained { class: Class::Permanent, cure, credentials: false };
    let transient =
        |cure: &str| Explained { class: Class::Transient, cure: cure.to_owned(), credentials: false };
    let credentials = |class, cure: String| Explained { class, cure, credentials: true };
    let clock = ["Signature expired", "Signature not yet current"].iter().any(|text| said.contains(text));

    match code {
        "AccessDenied" | "AccessDeniedException" => permanent(denied(assume, said)),
        "RequestExpired" | "SignatureDoesNotMatch" if clock || code == "RequestExpired" => permanent(
            "This machine's clock differs from AWS's by more than five minutes: set it (chrony, NTP).".to_owned(),
        ),
        "SignatureDoesNotMatch" if said.contains("scoped to a valid region") => permanent(format!(
            "The request was signed for region {region:?}, and the STS that it was sent to is in another one: set the \
             region of the login to that of AWS_ENDPOINT_URL_STS."
        )),
        "SignatureDoesNotMatch" | "IncompleteSignature" => credentials(
            Class::Permanent,
            format!("The secret key does not belong to access key {access_key}, or the request was changed on its way."),
        ),
        // Rotation is under way: the caller's provider is asked for new ones at the next try.
        "ExpiredToken" | "ExpiredTokenException" => credentials(
            Class::Transient,
            format!("The session of access key {access_key} has expired: new credentials are asked for."),
        ),
        "InvalidClientTokenId" | "UnrecognizedClientException" | "MissingAuthenticationToken" => credentials(
            Class::Permanent,
            format!(
                "AWS does not know access key {access_key} or its session token: it was deleted or disabled, belongs \
                 to another partition, or the session token is missing."
            ),
        ),
        "RegionDisabledException" => permanent(format!(
            "STS is not active in {region}: activate it in the account settings of IAM, or set the region of the login \
             to one in which it is."
        )),
        "PackedPolicyTooLarge" | "PackedPolicyTooLargeException" => permanent(
            "The session tags take more room than STS has for them: set session_tags = false for this role, or let \
             fewer tags come with the caller's session."
                .to_owned(),
        ),
        "ValidationError" | "ValidationException" if said.contains("role chaining") => permanent(
            "The caller is a role itself, and then a session lasts an hour at most: set duration to \"1h\" or less."
                .to_owned(),
        ),
        "ValidationError" | "ValidationException" if said.contains("DurationSeconds") => permanent(format!(
            "Set duration to at most the maximum session duration of {role}, or raise that."
        )),
        "ValidationError" | "ValidationException" if said.contains("is invalid") || said.contains("roleArn") => {
            permanent("Correct role_arn: arn:aws:iam::<account>:role/<path and name>.".to_owned())
        }
        _ if code.contains("Throttl") || code == "RequestLimitExceeded" || status == 429 => {
            transient("STS is overloaded.")
        }
        _ if status >= 500 => transient("STS is in trouble."),
        "" => transient("That is not STS's own answer: does AWS_ENDPOINT_URL_STS lead to STS?"),
        _ => permanent(String::new()),
    }
}

/// STS does not say which condition was not met, so each that may be is named.
fn denied(assume: &Assume, said: &str) -> String {
    let role = &assume.role_arn;
    if said.contains("sts:TagSession") {
        return format!(
            "Allow sts:TagSession beside sts:AssumeRole, in the trust policy of {role} and in the caller's own policy, \
             or set session_tags = false."
        );
    }
    if said.contains("sts:SetSourceIdentity") {
        return format!(
            "Allow sts:SetSourceIdentity beside sts:AssumeRole, in the trust policy of {role} and in the caller's own \
             policy, or set source_identity = false. A source identity that the caller has already cannot be changed."
        );
    }
    let external_id = match assume.external_id {
        Some(_) => "sts:ExternalId there must be the external_id that is set here",
        None => "where it demands sts:ExternalId, set that as external_id",
    };
    let asked = [
        ("sts:TagSession", !assume.tags.is_empty()),
        ("sts:SetSourceIdentity", assume.source_identity.is_some()),
    ];
    let also: String = asked.iter().filter(|(_, is)| *is).map(|(action, _)| format!(", {action}")).collect();
    format!(
        "The trust policy of {role} must allow sts:AssumeRole{also} to the caller; {external_id}. From another account \
         the caller's own policy must allow it, too. A role that is not there is answered in the same way."
    )
}

#[cfg(test)]
mod tests;
