use super::*;

fn sts(code: u16, error: &str, message: &str) -> String {
    format!(
        "error making upstream request: received error code {code} from STS: <ErrorResponse \
         xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\n  <Error>\n    <Type>Sender</Type>\n    \
         <Code>{error}</Code>\n    <Message>{message}</Message>\n  </Error>\n  \
         <RequestId>7d2f7d0c-0000-0000-0000-000000000000</RequestId>\n</ErrorResponse>\n"
    )
}

#[test]
fn each_refusal_has_its_cause_and_cure() {
    let mismatch = "The request signature we calculated does not match the signature you provided. Check your AWS \
                    Secret Access Key and signing method.";
    let expired = "Signature expired: 20260102T030405Z is now earlier than 20260102T031905Z (20260102T032405Z - 5 min.)";
    let early = "Signature not yet current: 20260102T040405Z is still later than 20260102T030905Z";
    for (error, class, words, other_credentials) in [
        (sts(403, "SignatureDoesNotMatch", mismatch), Class::Permanent, "secret key does not belong", true),
        (sts(403, "SignatureDoesNotMatch", expired), Class::Permanent, "clock", false),
        (sts(403, "SignatureDoesNotMatch", early), Class::Permanent, "clock", false),
        (
            sts(403, "SignatureDoesNotMatch", "Credential should be scoped to a valid region, not 'eu-central-1'."),
            Class::Permanent,
            "sts_region",
            false,
        ),
        (
            sts(403, "InvalidClientTokenId", "The security token included in the request is invalid."),
            Class::Permanent,
            "does not know access key AKIDEXAMPLE",
            true,
        ),
        (
            sts(403, "ExpiredToken", "The security token included in the request is expired"),
            Class::Transient,
            "has expired",
            true,
        ),
        (sts(400, "Throttling", "Rate exceeded"), Class::Transient, "overloaded", false),
        (
            "error making upstream request: error making request: Post \"https://sts.amazonaws.com//\": dial tcp: \
             i/o timeout"
                .to_owned(),
            Class::Transient,
            "cannot reach STS",
            false,
        ),
        (
            "error making upstream request: body of GetCallerIdentity is invalid".to_owned(),
            Class::Permanent,
            "did not answer as STS",
            true,
        ),
        (
            "error validating X-Vault-AWS-IAM-Server-ID header: missing header \"X-Vault-AWS-IAM-Server-ID\""
                .to_owned(),
            Class::Permanent,
            "demands a server id",
            false,
        ),
        (
            "error validating X-Vault-AWS-IAM-Server-ID header: expected \"vault.a\" but got \"vault.b\"".to_owned(),
            Class::Permanent,
            "iam_server_id_header_value",
            false,
        ),
        ("entry for role \"orders\" not found".to_owned(), Class::Permanent, "There is no role", false),
        ("entry for role orders not found".to_owned(), Class::Permanent, "There is no role", false),
        ("auth method iam not allowed for role orders".to_owned(), Class::Permanent, "auth_type=iam", false),
        (
            "IAM Principal \"arn:aws:sts::1:assumed-role/x/y\" does not belong to the role \"orders\"".to_owned(),
            Class::Permanent,
            "bound_iam_principal_arn",
            false,
        ),
        ("invalid request header: X-Amz-Foo".to_owned(), Class::Permanent, "allowed_sts_header_values", false),
    ] {
        let attempt = Attempt { mount: "aws", role: "orders", region: "eu-central-1", access_key: "AKIDEXAMPLE" };
        let found = explained(&attempt, &error).unwrap_or_else(|| panic!("{error}"));
        assert_eq!(found.class, class, "{error}");
        assert!(found.cure.contains(words), "{error}: {}", found.cure);
        assert_eq!(found.credentials, other_credentials, "{error}");
    }
}

#[test]
fn what_is_not_the_logins_fault_is_left_to_the_general_rules() {
    let attempt = Attempt { mount: "aws", role: "orders", region: "eu-central-1", access_key: "AKIDEXAMPLE" };
    for error in ["", "else", "permission denied", "missing client token", "namespace not found"] {
        assert_eq!(explained(&attempt, error), None, "{error}");
    }
}
