use std::time::{Duration, UNIX_EPOCH};

use super::*;

fn headers(region: &str, session: Option<&str>, server_id: Option<&str>) -> BTreeMap<String, Vec<String>> {
    let endpoint = StsEndpoint::new(region, false).unwrap();
    let credentials = Credentials::new(
        "AKIDEXAMPLE",
        "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
        session.map(str::to_owned),
        None,
        "test",
    );
    // 2026-01-02T03:04:05Z
    let time = UNIX_EPOCH + Duration::from_secs(1_767_323_045);
    serde_json::from_slice(&caller_identity(&endpoint, &credentials, server_id, time).unwrap()).unwrap()
}

/// The signatures were made by an independent implementation of Signature Version 4 (Python's hmac).
#[test]
fn the_signature_is_the_known_one() {
    let signed = headers("eu-central-1", Some("session/token=="), Some("vault.example.com"));
    assert_eq!(
        signed["authorization"],
        ["AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260102/eu-central-1/sts/aws4_request, \
          SignedHeaders=content-type;host;x-amz-date;x-amz-security-token;x-vault-aws-iam-server-id, \
          Signature=22e6af6fc8a49dd04ec845db362472082abd3edb74896ee377ef71a53ec9e08b"]
    );
    assert_eq!(signed["x-amz-date"], ["20260102T030405Z"]);
    assert_eq!(signed["host"], ["sts.eu-central-1.amazonaws.com"]);
    assert_eq!(signed["x-amz-security-token"], ["session/token=="]);
    assert_eq!(signed["x-vault-aws-iam-server-id"], ["vault.example.com"]);
    assert_eq!(signed["content-type"], [CONTENT_TYPE]);
    assert_eq!(signed.len(), 6);

    let signed = headers("aws-global", None, None);
    assert_eq!(
        signed["authorization"],
        ["AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260102/us-east-1/sts/aws4_request, \
          SignedHeaders=content-type;host;x-amz-date, \
          Signature=654c2f9b8e336b65ff3b2f7fc0c1c88d14f6f0efb2ec02ee24d0ea9a1cbd1a40"]
    );
}

#[test]
fn every_partition_has_its_endpoint() {
    for (region, fips, host) in [
        ("eu-central-1", false, "sts.eu-central-1.amazonaws.com"),
        ("us-east-1", false, "sts.us-east-1.amazonaws.com"),
        ("us-east-1", true, "sts-fips.us-east-1.amazonaws.com"),
        ("cn-north-1", false, "sts.cn-north-1.amazonaws.com.cn"),
        ("us-gov-west-1", false, "sts.us-gov-west-1.amazonaws.com"),
        ("us-gov-west-1", true, "sts.us-gov-west-1.amazonaws.com"),
        ("us-iso-east-1", false, "sts.us-iso-east-1.c2s.ic.gov"),
        ("us-isob-east-1", false, "sts.us-isob-east-1.sc2s.sgov.gov"),
        ("eusc-de-east-1", false, "sts.eusc-de-east-1.amazonaws.eu"),
        ("aws-global", false, "sts.amazonaws.com"),
    ] {
        let endpoint = StsEndpoint::new(region, fips).unwrap();
        assert_eq!(endpoint.url, format!("https://{host}/"), "{region} {fips}");
    }
    for region in ["", "eu central", "evil.example.com/", "EU-CENTRAL-1"] {
        assert_eq!(StsEndpoint::new(region, false).unwrap_err().class, Class::Permanent, "{region}");
    }
}

#[test]
fn a_server_id_that_cannot_be_a_header_is_refused() {
    let endpoint = StsEndpoint::new("eu-central-1", false).unwrap();
    let credentials = Credentials::new("AKIDEXAMPLE", "canary", None, None, "test");
    let failure = caller_identity(&endpoint, &credentials, Some("a\nb"), UNIX_EPOCH).unwrap_err();
    assert_eq!(failure.class, Class::Permanent);
    assert!(!failure.message.contains("canary"));
}
