//! The one request that all methods but the token file make: what proves an identity, to `auth/<mount>/login`, for a
//! token.

use rustify::endpoint::Endpoint;

use crate::lease::failure::{Class, Failure};
use crate::lease::upstream::{CallId, Minted, Token};
use crate::vault::{Ask, CONTROL_LIMIT, VaultClient, advised};

/// Where a login is tried.
pub(super) struct Place<'a> {
    /// Vault's name of the method, as in `vault auth enable`: `approle`.
    pub(super) method: &'a str,
    /// Where it is mounted, below `auth/`.
    pub(super) mount: &'a str,
    /// The path of the role, for a cure: `auth/approle/role/orders`.
    pub(super) role: &'a str,
}

/// What a refusal means.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Explained {
    pub(super) class: Class,
    /// Cause and cure, as sentences.
    pub(super) cure: String,
}

impl Explained {
    pub(super) fn permanent(cure: String) -> Option<Self> {
        Some(Self { class: Class::Permanent, cure })
    }
}

/// Asks for a token. A refusal is explained by the method (`explain`, of the status and Vault's words), else by the rules
/// that hold for all, else by those of the client.
///
/// # Errors
/// Never [`Class::Forbidden`] or [`Class::NotFound`]: a login has no token that could be lost or lack a capability.
pub(super) async fn login<E: Endpoint>(
    client: &VaultClient,
    call: &CallId,
    place: &Place<'_>,
    request: &E,
    explain: impl FnOnce(u16, &str) -> Option<Explained>,
) -> Result<Minted<Token>, Failure> {
    let ask = Ask { call, token: None, namespace: None, index: None, limit: CONTROL_LIMIT };
    let reply = client.execute(ask, request).await?;
    if reply.status.is_success() {
        let cure = format!("token_type=service and token_num_uses=0 on {}", place.role);
        return client.token(call, &reply, None, &cure).await;
    }
    let (failure, said) = (reply.failure(), reply.errors().join("\n"));
    let status = failure.status.unwrap_or(0);
    let explained = match is_refusal(status) {
        true => explain(status, &said).or_else(|| nowhere(place, status, &said)),
        false => None,
    };
    Err(match explained {
        Some(Explained { class, cure }) => advised(failure, &cure).decided(class),
        None => decided(failure),
    })
}

/// Whether a status says something of what was asked, and not of the moment at which it was.
pub(super) fn is_refusal(status: u16) -> bool {
    (400..500).contains(&status) && !matches!(status, 408 | 412 | 425 | 429 | 472 | 473)
}

/// A failure that nobody has explained. What is not Vault's answer, but a proxy's, is a wrong address most often: that
/// ends the process at its start.
pub(super) fn decided(failure: Failure) -> Failure {
    match failure.class {
        Class::Forbidden | Class::NotFound => failure.decided(Class::Permanent),
        _ if matches!(failure.status, Some(401 | 407)) => failure.decided(Class::Permanent),
        _ => failure,
    }
}

/// There is no such method at that place, most likely.
fn nowhere(place: &Place<'_>, status: u16, said: &str) -> Option<Explained> {
    let Place { method, mount, .. } = place;
    if said.contains("namespace not found") {
        return Explained::permanent("Correct the Vault namespace.".to_owned());
    }
    let title = match *method {
        "aws" => "AWS auth",
        "approle" => "AppRole",
        "jwt" => "JWT",
        "kubernetes" => "Kubernetes",
        _ => "certificate",
    };
    let missing = format!(
        "othing answers at auth/{mount}/login: enable the {title} method there (vault auth enable -path={mount} \
         {method}), or correct the mount or the namespace."
    );
    if status == 404 || said.contains("missing client token") {
        return Explained::permanent(format!("N{missing}"));
    }
    if status == 403 {
        return Explained::permanent(format!(
            "Most likely n{missing} If there is one, the namespace or the role refuses this machine (bound CIDRs, a \
             login rule)."
        ));
    }
    None
}
