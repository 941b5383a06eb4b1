//! What the login token may do, and the run tokens that it makes. Where trying is the only way to know, and does no harm, it
//! is tried: a look-up of a lease that there never was, a revocation of a token that is gone.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::report::{Cure, Report, Step};
use super::{Bench, SHORT, cure, prefetch};
use crate::app::subject;
use crate::config::Method;
use crate::lease::failure::{Class, Failure};
use crate::lease::upstream::{Life, Source as _, Token, TokenSpec};
use crate::vault::Reply;

/// No lease has this name.
const NO_LEASE: &str = "tenure/doctor/no-such-lease";

/// What a token is made from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    namespace: Option<Arc<str>>,
    role: Arc<str>,
    policies: Vec<String>,
}

/// All that hangs off the login token.
pub(super) async fn examined(bench: &Bench<'_>, method: &Method, login: &Token, report: &mut Report) {
    own_life(bench, method, login, report).await;
    let config = &bench.doctor.config;
    let own = config.run.token_role.as_deref().map(|role| Kind {
        namespace: None,
        role: role.into(),
        policies: Vec::new(),
    });
    let mut kinds: Vec<Kind> = own.clone().into_iter().collect();
    for rule in &config.run.rules {
        let mut policies = rule.policies.clone();
        policies.sort();
        kinds.push(Kind { namespace: rule.namespace.clone(), role: Arc::clone(&rule.token_role), policies });
    }
    let mut seen = BTreeSet::new();
    kinds.retain(|kind| seen.insert(kind.clone()));
    let mut work = None;
    for kind in &kinds {
        let Some(token) = made(bench, login, kind, own.as_ref() == Some(kind), report).await else {
            continue;
        };
        if own.as_ref() == Some(kind) {
            prefetch::examined(bench, &token, report).await;
            work = Some(());
        }
        ended(bench, login, kind, &token, report).await;
    }
    match (&own, work) {
        (Some(kind), None) => {
            report.skipped(Step::Prefetch, format!("there is no run token of {}", kind.role));
        }
        (None, _) => {
            report
                .skipped(Step::RunToken, "run.token_role is not set: leases hang off the login token itself");
            prefetch::examined(bench, login, report).await;
        }
        _ => {}
    }
    confirmations(bench, login, &kinds, report).await;
    headers(bench, login, report).await;
    seal_key(bench, login, report).await;
    value_key(bench, login, report).await;
}

/// Whether the login token can look itself up and be renewed.
async fn own_life(bench: &Bench<'_>, method: &Method, login: &Token, report: &mut Report) {
    match bench.read(login, "auth/token/lookup-self").await {
        Ok(reply) if reply.status.is_success() => {
            report.good(Step::LoginPolicy, "auth/token/lookup-self: allowed");
        }
        other => refused(Step::LoginPolicy, "auth/token/lookup-self", "read", &failure_of(other), report),
    }
    // Somebody else's token is not made to live longer by being looked at.
    if matches!(method, Method::Token(_)) {
        return;
    }
    match bench.source.renew_token(bench.call(), login, None).await {
        Ok(_) => report.good(Step::LoginPolicy, "auth/token/renew-self: allowed"),
        Err(failure) => refused(Step::LoginPolicy, "auth/token/renew-self", "update", &failure, report),
    }
}

async fn made(
    bench: &Bench<'_>,
    login: &Token,
    kind: &Kind,
    is_own: bool,
    report: &mut Report,
) -> Option<Token> {
    let Kind { namespace, role, policies } = kind;
    // Registered runs have deadlines.
    let renewable = is_own && bench.doctor.run.env.deadline.is_none();
    let spec = TokenSpec {
        role: role.to_string(),
        policies: policies.clone(),
        ttl: SHORT,
        renewable,
        meta: [("run".to_owned(), bench.doctor.run.id.to_string()), ("kind".to_owned(), "doctor".to_owned())]
            .into(),
        namespace: namespace.clone(),
    };
    let minted = match bench.source.create_token(bench.call(), login, &spec).await {
        Ok(minted) => minted,
        Err(failure) => {
            let cure = not_made(kind, &failure);
            report.wrong(Step::RunToken, format!("role {role}: {}", failure.message), cure);
            return None;
        }
    };
    let token = minted.payload;
    bench.doctor.remember(&token);
    let had = token.policies.join(", ");
    if token.orphan {
        report.good(Step::RunToken, format!("role {role}: made, an orphan, with the policies {had}"));
    } else {
        report.wrong(
            Step::RunToken,
            format!(
                "role {role}: its tokens are no orphans: they die with the login token, and carry its entity"
            ),
            Cure::new(
                "Have the role make orphans:",
                format!("vault write auth/token/roles/{role} orphan=true"),
            ),
        );
    }
    if let Life::Leased { renewable: true, .. } = minted.life
        && let Err(failure) = bench.source.renew_token(bench.call(), &token, None).await
    {
        of_run(role, "auth/token/renew-self", &failure, report);
    }
    match bench.source.renew_lease(bench.call(), &token, NO_LEASE, SHORT).await {
        Err(failure) if failure.class == Class::Forbidden => {
            of_run(role, "sys/leases/renew", &failure, report);
        }
        _ => {}
    }
    Some(token)
}

fn not_made(kind: &Kind, failure: &Failure) -> Cure {
    let Kind { role, policies, .. } = kind;
    if failure.message.contains("make the token role") {
        return Cure::new(
            "Correct the name, or make the role:",
            format!(
                "vault write auth/token/roles/{role} orphan=true token_type=service token_no_default_policy=true \
                 allowed_policies=<what runs may read>"
            ),
        );
    }
    if failure.class == Class::Forbidden {
        return cure::policy(
            "The login token may not make it",
            &format!("auth/token/create/{role}"),
            "update",
        );
    }
    let paste = format!("vault read auth/token/roles/{role}");
    if policies.is_empty() {
        return Cure::new("Look at the role:", paste);
    }
    // To write the role's list would replace it, and give runs more than its operator meant.
    let text = format!(
        "Take out of the rule's policies ({}) what the role does not allow, or allow it there:",
        policies.join(", ")
    );
    Cure::new(text, paste)
}

/// Ends a run token in both ways in which a broker does, and sees that it is gone.
async fn ended(bench: &Bench<'_>, login: &Token, kind: &Kind, token: &Token, report: &mut Report) {
    let role = &kind.role;
    let by_itself = bench.source.revoke_token(bench.call(), token).await;
    let namespace = token.namespace.as_deref();
    let by_accessor = bench.source.revoke_accessor(bench.call(), login, namespace, &token.accessor).await;
    if by_itself.is_ok() || by_accessor.is_ok() {
        bench.doctor.forget(token);
        report.good(Step::RunToken, format!("role {role}: revoked"));
    }
    if let Err(failure) = by_itself {
        of_run(role, "auth/token/revoke-self", &failure, report);
    }
    let login = |path: &str| match namespace {
        Some(namespace) => format!("{namespace}/{path}"),
        None => path.to_owned(),
    };
    let path = login("auth/token/revoke-accessor");
    match by_accessor {
        Ok(()) => once(report, format!("{path}: allowed")),
        Err(failure) => refused(Step::LoginPolicy, &path, "update", &failure, report),
    }
}

/// Whether the login token can confirm that tokens and leases are gone.
async fn confirmations(bench: &Bench<'_>, login: &Token, kinds: &[Kind], report: &mut Report) {
    let spaces: BTreeSet<_> = kinds.iter().map(|kind| kind.namespace.clone()).collect();
    for space in spaces {
        let space = space.as_deref();
        let path = |path: &str| space.map_or_else(|| path.to_owned(), |space| format!("{space}/{path}"));
        let token = bench.source.accessor_lives(bench.call(), login, space, "no-such-accessor").await;
        let lease = bench.source.lease_lives(bench.call(), login, space, NO_LEASE).await;
        for (path, found) in [(path("auth/token/lookup-accessor"), token), (path("sys/leases/lookup"), lease)]
        {
            match found {
                Ok(_) => once(report, format!("{path}: allowed")),
                Err(failure) => refused(Step::LoginPolicy, &path, "update", &failure, report),
            }
        }
    }
}

/// Two roles show the same right.
fn once(report: &mut Report, seen: String) {
    let verdict = super::report::Verdict::Good(seen.clone());
    if !report.findings.iter().any(|finding| finding.verdict == verdict) {
        report.good(Step::LoginPolicy, seen);
    }
}

async fn headers(bench: &Bench<'_>, login: &Token, report: &mut Report) {
    const SHOW: &str = "vault write sys/config/auditing/request-headers/X-Tenure-Request hmac=false\n\
                        vault write sys/config/auditing/request-headers/X-Tenure-Run hmac=false\n\
                        vault write sys/config/auditing/request-headers/X-Tenure-Chain hmac=false";
    for header in ["X-Tenure-Request", "X-Tenure-Run", "X-Tenure-Chain"] {
        let path = format!("sys/config/auditing/request-headers/{}", header.to_ascii_lowercase());
        match bench.read(login, &path).await {
            Ok(reply) if reply.status.is_success() => {
                report.good(Step::AuditedHeaders, format!("{header} is in Vault's audit log"));
            }
            Ok(reply) if reply.status == 403 => report.unknown(
                Step::AuditedHeaders,
                format!("{header}: the login token may not ask, and need not; an operator can"),
                Cure::new(
                    "See, with an operator's token, that this lists it:",
                    "vault read sys/config/auditing/request-headers",
                ),
            ),
            Ok(_) => report.wrong(
                Step::AuditedHeaders,
                format!("{header} is not in Vault's audit log, which then does not join with ours"),
                Cure::new("Have Vault log both, in clear:", SHOW),
            ),
            Err(failure) => report.unknown(Step::AuditedHeaders, failure.message, Cure::default()),
        }
    }
}

async fn seal_key(bench: &Bench<'_>, login: &Token, report: &mut Report) {
    let Some(key) = subject::seal_key(&bench.doctor.config.subject) else { return };
    let place = format!("{}/keys/{}", key.mount, key.name);
    match bench.source.public_keys(bench.call(), login, &key).await {
        Ok(found) => report.good(Step::SealKey, format!("{place}: ed25519, {} version(s)", found.keys.len())),
        Err(failure) if failure.class == Class::Forbidden => {
            let cure = cure::policy("The login token may not read the public key of seals", &place, "read");
            report.wrong(Step::SealKey, failure.message, cure);
        }
        Err(failure) => {
            let cure = Cure::new(
                "Correct subject.seal, or make the key:",
                format!("vault write -f {place} type=ed25519"),
            );
            report.wrong(Step::SealKey, failure.message, cure);
        }
    }
}

async fn value_key(bench: &Bench<'_>, login: &Token, report: &mut Report) {
    let Some(key) = crate::app::value_key(&bench.doctor.config) else { return };
    let place = format!("{}/datakey/plaintext/{}", key.mount, key.name);
    match bench.source.data_key(bench.call(), login, &key).await {
        Ok(_) => {
            report.good(Step::ValueKey, format!("{}/keys/{}: it wraps a key", key.mount, key.name));
        }
        Err(failure) if failure.class == Class::Forbidden => {
            let cure = cure::policy("The login token may not have a data key made", &place, "update");
            report.wrong(Step::ValueKey, failure.message, cure);
        }
        Err(failure) => {
            let cure = Cure::new(
                "Correct audit.hmac, or make the key:",
                format!("vault write -f {}/keys/{} type=aes256-gcm96", key.mount, key.name),
            );
            report.wrong(Step::ValueKey, failure.message, cure);
        }
    }
}

fn failure_of(found: Result<Reply, Failure>) -> Failure {
    match found.map(|reply| reply.failure()) {
        Ok(failure) | Err(failure) => failure,
    }
}

fn of_run(role: &str, path: &str, failure: &Failure, report: &mut Report) {
    let cause = format!("role {role}: {}", failure.message);
    let cure = match failure.class {
        Class::Forbidden => cure::policy("None of the policies of its run tokens allows it", path, "update"),
        _ => Cure::new("Ask again once Vault answers.", ""),
    };
    report.wrong(Step::RunToken, cause, cure);
}

fn refused(step: Step, path: &str, capability: &str, failure: &Failure, report: &mut Report) {
    let cure = match failure.class {
        Class::Forbidden => cure::policy("The login token's policies lack it", path, capability),
        _ => Cure::new("Ask again once Vault answers.", ""),
    };
    report.wrong(step, format!("{path}: {}", failure.message), cure);
}
