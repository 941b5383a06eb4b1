use std::time::Duration;

use super::*;

#[test]
fn each_refusal_has_its_cause_and_cure() {
    let not = |action: &str| {
        format!(
            "User: arn:aws:sts::123456789012:assumed-role/orders-task/1 is not authorized to perform: {action} on \
             resource: arn:aws:iam::123456789012:role/orders-broker"
        )
    };
    let bare = Assume {
        role_arn: "arn:aws:iam::123456789012:role/orders-broker".into(),
        external_id: None,
        session_name: "run-1".into(),
        source_identity: None,
        tags: Vec::new(),
        duration: Duration::from_secs(3600),
    };
    let full = Assume {
        external_id: Some("orders".into()),
        source_identity: Some("run-1".into()),
        tags: vec![("tenure:run".into(), "run-1".into())],
        ..bare.clone()
    };
    for (assume, status, code, said, class, words, other_credentials) in [
        (&bare, 403, "AccessDenied", not("sts:AssumeRole"), Class::Permanent, "set that as external_id", false),
        (&full, 403, "AccessDenied", not("sts:AssumeRole"), Class::Permanent, "must be the external_id that is set", false),
        (&full, 403, "AccessDenied", not("sts:AssumeRole"), Class::Permanent, "must allow sts:AssumeRole, sts:TagSession, sts:SetSourceIdentity to", false),
        (&full, 403, "AccessDenied", not("sts:TagSession"), Class::Permanent, "Allow sts:TagSession", false),
        (&full, 403, "AccessDenied", not("sts:SetSourceIdentity"), Class::Permanent, "Allow sts:SetSourceIdentity", false),
        (&full, 403, "SignatureDoesNotMatch", "Signature expired: 1 is now earlier than 2".into(), Class::Permanent, "clock", false),
        (&full, 400, "RequestExpired", String::new(), Class::Permanent, "clock", false),
        (&full, 403, "SignatureDoesNotMatch", "Credential should be scoped to a valid region. ".into(), Class::Permanent, "AWS_ENDPOINT_URL_STS", false),
        (&full, 403, "SignatureDoesNotMatch", "else".into(), Class::Permanent, "access key AKIDEXAMPLE", true),
        (&full, 403, "ExpiredToken", String::new(), Class::Transient, "has expired", true),
        (&full, 403, "InvalidClientTokenId", String::new(), Class::Permanent, "does not know access key AKIDEXAMPLE", true),
        (&full, 403, "RegionDisabledException", String::new(), Class::Permanent, "not active in eu-central-1", false),
        (&full, 400, "PackedPolicyTooLarge", String::new(), Class::Permanent, "session_tags = false", false),
        (
            &full,
            400,
            "ValidationError",
            "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining.".into(),
            Class::Permanent,
            "set duration to \"1h\"",
            false,
        ),
        (
            &full,
            400,
            "ValidationError",
            "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.".into(),
            Class::Permanent,
            "maximum session duration of",
            false,
        ),
        (&full, 400, "ValidationError", "arn:x is invalid".into(), Class::Permanent, "Correct role_arn", false),
        (&full, 400, "ThrottlingException", String::new(), Class::Transient, "overloaded", false),
        (&full, 503, "ServiceUnavailable", String::new(), Class::Transient, "in trouble", false),
        (&full, 404, "", String::new(), Class::Transient, "AWS_ENDPOINT_URL_STS", false),
        (&full, 400, "NewError", "in STS's own words".into(), Class::Permanent, "", false),
    ] {
        let attempt = Attempt { assume, region: "eu-central-1", access_key: "AKIDEXAMPLE" };
        let found = explained(&attempt, status, code, &said);
        assert_eq!(found.class, class, "{code} {said}");
        assert!(found.cure.contains(words), "{code} {said}: {}", found.cure);
        assert_eq!(found.credentials, other_credentials, "{code} {said}");
    }
}
