//! What an accessor looks like in Vault's log.

use serde::Deserialize;

use super::super::{Output, Session};
use super::vault;
use crate::lease::failure::{Class, Failure};
use crate::lease::upstream::Token;
use crate::vault::{Ask, AuditHashRequest, CONTROL_LIMIT, Envelope, VaultClient};

/// How an HMAC begins.
const HMAC: &str = "hmac-sha256:";

/// The forms in which logs show the accessor: its HMAC by each of the devices, and itself.
///
/// # Errors
/// What cannot be asked of Vault, with exit code 2.
pub(super) fn forms(accessor: &str, devices: &[String], session: &Session) -> Result<Vec<String>, Output> {
    let wrong = |message: &str| Err(Output::failed(2, message));
    if accessor.is_empty() {
        return wrong("--accessor is empty: give an accessor, such as `vault token lookup` shows");
    }
    if ["hvs.", "hvb.", "s.", "b.", "tnr_"].iter().any(|start| accessor.starts_with(start)) {
        return wrong(
            "--accessor: that looks like a token or a handle, not like an accessor; it is not looked for. If it is one, \
            it is in your shell's history now: revoke it",
        );
    }
    if devices.is_empty() {
        return Ok(vec![accessor.to_owned()]);
    }
    if accessor.starts_with(HMAC) {
        return wrong("--audit-hash is for an accessor in plain: this one is an HMAC, give it alone");
    }
    let (client, token) = vault::client(session)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime =
        runtime.map_err(|error| Output::failed(2, &format!("the runtime cannot start: {error}")))?;
    let mut forms = Vec::new();
    for device in devices {
        let hashed = runtime.block_on(hash(&client, &token, device.trim_matches('/'), accessor));
        forms.push(hashed.map_err(|failure| Output::failed(2, &failure.message))?);
    }
    forms.push(accessor.to_owned());
    Ok(forms)
}

async fn hash(client: &VaultClient, token: &Token, device: &str, input: &str) -> Result<String, Failure> {
    #[derive(Deserialize)]
    struct Hashed {
        hash: String,
    }
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    if device.is_empty() || !device.chars().all(is_plain) || device.contains("..") {
        let why =
            format!("--audit-hash {device:?} is no name of an audit device: `vault audit list` has them");
        return Err(Failure::new(Class::Permanent, why));
    }
    let call = vault::call();
    let request = AuditHashRequest { device: device.to_owned(), input: input.to_owned() };
    let reply = client.execute(Ask::with(&call, token, CONTROL_LIMIT), &request).await?;
    let cure = match reply.status.as_u16() {
        403 => format!(
            "The token's policies must allow update on sys/audit-hash/{device}, in the root namespace; see \
             policies/vault/tenure-auditor.hcl"
        ),
        400 | 404 => format!("Is {device} an audit device? `vault audit list` has them"),
        _ => "Without --audit-hash, give the HMAC itself".to_owned(),
    };
    let reply = reply.accepted().map_err(|failure| crate::vault::advised(failure, &cure))?;
    let hashed = Envelope::of(&reply)?.data.and_then(|data| serde_json::from_str(data.get()).ok());
    let hashed = hashed.filter(|Hashed { hash }| hash.starts_with(HMAC)).map(|Hashed { hash }| hash);
    hashed.ok_or_else(|| {
        reply.broken(Class::Permanent, format!("the answer to {} has no hash", reply.subject()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::config::Environment;
    use crate::vault::fake::{Act, FakeVault, Seen};

    fn session(vars: &[(&str, &str)]) -> Session {
        let environment: Environment = vars.iter().copied().collect();
        let screen = crate::cli::screen::Screen::new(&environment, false, false);
        Session { environment, screen, clock: Clock::system() }
    }

    /// The answer to one question of the auditor's, by a server that does so.
    async fn asked(act: Act) -> (Result<String, Failure>, Vec<Seen>) {
        let server = FakeVault::always(act).await;
        let session = session(&[("VAULT_ADDR", &server.address), ("VAULT_TOKEN", "auditors-canary")]);
        let (client, token) = vault::client(&session).unwrap();
        (hash(&client, &token, "file", "acc").await, server.seen())
    }

    #[tokio::test]
    async fn vault_is_asked_for_the_hmac() {
        let answer = Act::json(200, r#"{"request_id":"r","data":{"hash":"hmac-sha256:ab"}}"#);
        let (hash, seen) = asked(answer).await;
        assert_eq!(hash, Ok("hmac-sha256:ab".to_owned()));
        assert_eq!(seen[0].line, "POST /v1/sys/audit-hash/file");
        assert_eq!(seen[0].json(), serde_json::json!({ "input": "acc" }));
        assert_eq!(seen[0].headers.get("x-vault-token").map(String::as_str), Some("auditors-canary"));
    }

    #[tokio::test]
    async fn what_cannot_be_asked_is_named_with_what_to_do() {
        for (act, says) in [
            (Act::json(403, r#"{"errors":["permission denied"]}"#), "update on sys/audit-hash/file"),
            (Act::json(400, r#"{"errors":["unknown audit backend"]}"#), "vault audit list"),
            (Act::json(200, r#"{"request_id":"r","data":{"hash":"plain"}}"#), "no hash"),
            (Act::json(200, "<html>"), "Vault"),
        ] {
            let failure = asked(act).await.0.unwrap_err();
            assert!(failure.message.contains(says) && !failure.message.contains("canary"), "{failure}");
        }
    }

    #[test]
    fn nothing_is_asked_for_what_can_be_looked_for_or_must_not() {
        let none = session(&[]);
        let file = ["file".to_owned()];
        assert_eq!(forms("acc", &[], &none), Ok(vec!["acc".to_owned()]));
        assert_eq!(forms("hmac-sha256:ab", &[], &none), Ok(vec!["hmac-sha256:ab".to_owned()]));
        for (accessor, devices, says) in [
            ("hmac-sha256:ab", &file[..], "HMAC"),
            ("acc", &file, "VAULT_TOKEN"),
            ("hvs.canary", &[], "revoke"),
            ("", &[], "empty"),
        ] {
            let output = forms(accessor, devices, &none).unwrap_err();
            assert!(output.err.contains(says) && !output.err.contains("canary"), "{output:?}");
        }
    }
}
