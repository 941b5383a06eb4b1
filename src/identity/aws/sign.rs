//! The signed request: AWS Signature Version 4 over `sts:GetCallerIdentity`.

use std::collections::BTreeMap;
use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use zeroize::{Zeroize as _, Zeroizing};

use crate::lease::failure::{Class, Failure};

/// The form that asks STS whose signature this is.
pub(super) const BODY: &str = "Action=GetCallerIdentity&Version=2011-06-15";
const CONTENT_TYPE: &str = "application/x-www-form-urlencoded; charset=utf-8";
/// Vault compares names without regard to case and demands that it is among the signed headers.
const SERVER_ID: &str = "x-vault-aws-iam-server-id";

/// STS in one region.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct StsEndpoint {
    pub(super) url: String,
    host: String,
    signing_region: String,
}

impl StsEndpoint {
    /// The endpoint of a region in any partition, by AWS's own rules for STS.
    pub(super) fn new(region: &str, fips: bool) -> Result<Self, Failure> {
        let sound = |region: &str| {
            !region.is_empty()
                && region.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        if !sound(region) {
            return Err(Failure::new(
                Class::Permanent,
                format!("the AWS region {region:?} is not a region's name: write it as eu-central-1"),
            ));
        }
        let (host, signing_region) = if region == "aws-global" {
            ("sts.amazonaws.com".to_owned(), "us-east-1")
        } else {
            // In GovCloud the ordinary endpoint is the FIPS endpoint.
            let service = if fips && !region.starts_with("us-gov-") { "sts-fips" } else { "sts" };
            (format!("{service}.{region}.{}", dns_suffix(region)), region)
        };
        Ok(Self { url: format!("https://{host}/"), host, signing_region: signing_region.to_owned() })
    }
}

/// The partition's domain: <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference-arns.html>.
fn dns_suffix(region: &str) -> &'static str {
    const PARTITIONS: [(&str, &str); 7] = [
        ("cn-", "amazonaws.com.cn"),
        ("us-iso-", "c2s.ic.gov"),
        ("us-isob-", "sc2s.sgov.gov"),
        ("us-isof-", "csp.hci.ic.gov"),
        ("eu-isoe-", "cloud.adc-e.uk"),
        ("eusc-", "amazonaws.eu"),
        ("us-gov-", "amazonaws.com"),
    ];
    PARTITIONS
        .iter()
        .find(|(start, _)| region.starts_with(start))
        .map_or("amazonaws.com", |(_, suffix)| suffix)
}

/// The headers of the signed request as Vault wants them: a JSON object of name to list of values.
///
/// It holds the session token and a signature that is good for minutes.
pub(super) fn caller_identity(
    endpoint: &StsEndpoint,
    credentials: &Credentials,
    server_id: Option<&str>,
    time: SystemTime,
) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let broken =
        |what: &str| Failure::new(Class::Permanent, format!("the AWS login cannot be signed: {what}"));
    let mut headers: Vec<(&str, &str)> = vec![("content-type", CONTENT_TYPE), ("host", &endpoint.host)];
    if let Some(server_id) = server_id {
        if !server_id.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') {
            return Err(broken("the server id cannot be a header"));
        }
        headers.push((SERVER_ID, server_id));
    }
    let identity = credentials.clone().into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(&endpoint.signing_region)
        .name("sts")
        .time(time)
        .settings(SigningSettings::default())
        .build()
        .map_err(|_| broken("incomplete parameters"))?
        .into();
    let body = SignableBody::Bytes(BODY.as_bytes());
    let request = SignableRequest::new("POST", endpoint.url.as_str(), headers.iter().copied(), body)
        .map_err(|_| broken("the request is malformed"))?;
    // The error is not printed: it may show the request.
    let (instructions, _) = sign(request, &params).map_err(|_| broken("the signer failed"))?.into_parts();
    let (added, _) = instructions.into_parts();
    let mut all: BTreeMap<&str, [&str; 1]> = headers.iter().map(|(name, value)| (*name, [*value])).collect();
    for header in &added {
        all.insert(header.name(), [header.value()]);
    }
    let mut json = Zeroizing::new(Vec::with_capacity(4096));
    if serde_json::to_writer(&mut *json, &all).is_err() {
        json.zeroize();
        return Err(broken("the headers are not text"));
    }
    Ok(json)
}

#[cfg(test)]
mod tests;
