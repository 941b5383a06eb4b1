//! The way to Vault, its state, and the login.

use serde::Deserialize;

use super::report::{Cure, Report, Step};
use super::{Bench, credentials, cure};
use crate::app::login;
use crate::config::Method;
use crate::lease::failure::Failure;
use crate::lease::upstream::{Life, Token};
use crate::vault::{Ask, CONTROL_LIMIT};

/// `sys/health`: <https://developer.hashicorp.com/vault/api-docs/system/health>.
#[derive(Deserialize)]
struct Health {
    initialized: bool,
    sealed: bool,
    #[serde(default)]
    standby: bool,
    #[serde(default)]
    version: String,
}

/// States that are no failure of the question.
const ANY_STATE: &str = "drsecondarycode=200&perfstandbyok=true&sealedcode=200&standbyok=true&uninitcode=200";

/// Whether Vault can be reached and used.
pub(super) async fn reached(bench: &Bench<'_>, report: &mut Report) -> bool {
    let call = bench.call();
    // The page is the root namespace's.
    let ask = Ask { call: &call, token: None, namespace: Some(""), index: None, limit: CONTROL_LIMIT };
    let address = bench.client.address();
    let reply = match bench.client.read(ask, "sys/health", ANY_STATE, false).await {
        Ok(reply) => reply,
        Err(failure) => {
            report.wrong(Step::Vault, failure.message.as_str(), unreached(&failure, &address));
            return false;
        }
    };
    let date = reply.headers.get(http::header::DATE).and_then(|date| date.to_str().ok());
    if let Some(date) = date.and_then(|date| httpdate::parse_http_date(date).ok()) {
        credentials::skew("Vault", date, bench.doctor.clock.now(), report);
    } else {
        report.unknown(Step::Clock, "Vault: it gave no date", Cure::default());
    }
    let Ok(health) = serde_json::from_slice::<Health>(&reply.body) else {
        let cause = match reply.accepted() {
            Ok(_) => format!("what answers at {address} is not Vault's API"),
            Err(failure) => failure.message,
        };
        let paste = format!("curl -sS {address}/v1/sys/health");
        report.wrong(
            Step::Vault,
            cause,
            Cure::new("Correct vault.address; this must answer with JSON:", paste),
        );
        return false;
    };
    let command = |what: &str| format!("VAULT_ADDR={address} vault {what}");
    if !health.initialized {
        let cure = Cure::new("Initialise it:", command("operator init"));
        report.wrong(Step::Vault, format!("the Vault at {address} is not initialised"), cure);
        return false;
    }
    if health.sealed {
        let cure = Cure::new("Unseal it:", command("operator unseal"));
        report.wrong(Step::Vault, format!("the Vault at {address} is sealed"), cure);
        return false;
    }
    let role = if health.standby { "a standby, which passes requests on" } else { "active" };
    let tls = if address.starts_with("https") { "its certificate is good" } else { "without TLS" };
    report.good(Step::Vault, format!("{address}: version {}, unsealed, {role}; {tls}", health.version));
    true
}

fn unreached(failure: &Failure, address: &str) -> Cure {
    let host = address.split("://").nth(1).unwrap_or(address).split('/').next().unwrap_or_default();
    let said = &failure.message;
    if said.contains("certificate") || said.contains("CA file") {
        return Cure::new(
            "Set vault.ca_file to the authority that signed this certificate:",
            format!("openssl s_client -connect {host} -showcerts </dev/null"),
        );
    }
    Cure::new(
        "Correct vault.address, or let this machine reach it:",
        format!("curl -v {address}/v1/sys/health"),
    )
}

/// The login, really made.
pub(super) async fn login(
    bench: &Bench<'_>,
    method: &Method,
    arn: Option<&str>,
    report: &mut Report,
) -> Option<Token> {
    if matches!(method, Method::AppRole(approle) if approle.wrapped) {
        report.unknown(
            Step::Login,
            "not tried: the wrapping token is good for one use, and that is the broker's",
            Cure::new(
                "Start the broker with it, or give the file a secret id that is not wrapped for this.",
                "",
            ),
        );
        return None;
    }
    let login = login::method(method, &bench.client, &bench.doctor.run);
    let how = login.describe();
    match login.login(bench.call()).await {
        Ok(minted) => {
            let token = minted.payload;
            // A token that was put into a file is its owner's, whatever becomes of it when a broker ends.
            if !matches!(method, Method::Token(_)) {
                bench.doctor.remember(&token);
            }
            let life = match minted.life {
                Life::Leased { ttl, renewable: true } => {
                    format!("{}, renewable", humantime::format_duration(ttl))
                }
                Life::Leased { ttl, .. } => format!("{}, not renewable", humantime::format_duration(ttl)),
                Life::Static { .. } => "no end".to_owned(),
            };
            let policies = token.policies.join(", ");
            report.good(
                Step::Login,
                format!("{how}: a service token for {life}, with the policies {policies}"),
            );
            Some(token)
        }
        Err(failure) => {
            let cure = cure::login(method, arn, &failure.message);
            report.wrong(Step::Login, format!("{how}: {}", failure.message), cure);
            None
        }
    }
}
