//! The auditor's own way to Vault: by the environment, as the `vault` command reads it, and with the auditor's own token.
//!
//! <https://developer.hashicorp.com/vault/docs/commands#configure-environment-variables>

use std::path::PathBuf;
use std::time::Duration;

use super::super::{Output, Session};
use crate::config::Environment;
use crate::lease::upstream::{CallId, Token};
use crate::secret::Credential;
use crate::vault::{ClientCert, VaultClient, VaultConfig};

/// Where `vault` looks if nothing is said.
const ADDRESS: &str = "https://127.0.0.1:8200";

/// Where `vault login` leaves the token, in the home folder.
const TOKEN_FILE: &str = ".vault-token";

/// A client, and the auditor's token: the caller's to use, never to revoke.
///
/// # Errors
/// What the environment lacks, or says that is not to be done, with exit code 2. The token is not quoted.
pub(super) fn client(session: &Session) -> Result<(VaultClient, Token), Output> {
    let wrong = |message: String| Output::failed(2, &message);
    let token = token(&session.environment).map_err(wrong)?;
    let config = config(&session.environment).map_err(wrong)?;
    let client = VaultClient::new(config, session.clock.clone())
        .map_err(|failure| wrong(format!("VAULT_ADDR: {}", failure.message)))?;
    let token = Token {
        credential: token,
        accessor: String::new(),
        policies: Vec::new(),
        orphan: false,
        lent: true,
        namespace: None,
        made: None,
    };
    Ok((client, token))
}

/// What an auditor's call is known by in Vault's log: no broker's line claims it, and it is of no run.
pub(super) fn call() -> CallId {
    CallId { request: "audit".into(), run: "audit".into(), chain: None }
}

fn config(environment: &Environment) -> Result<VaultConfig, String> {
    if environment.var("VAULT_SKIP_VERIFY").is_some_and(|said| !is_false(said)) {
        return Err(
            "VAULT_SKIP_VERIFY is set: a token is not sent to a server that nobody has verified; unset it, and name the \
             authority of Vault's certificate in VAULT_CACERT"
                .to_owned(),
        );
    }
    for name in ["VAULT_CAPATH", "VAULT_CACERT_BYTES"] {
        if environment.var(name).is_some() && environment.var("VAULT_CACERT").is_none() {
            return Err(format!(
                "{name} is not read here: put the authority's certificate into a file, and name that in VAULT_CACERT"
            ));
        }
    }
    let path = |name: &str| environment.var(name).map(PathBuf::from);
    let client_cert = match (path("VAULT_CLIENT_CERT"), path("VAULT_CLIENT_KEY")) {
        (Some(cert_file), Some(key_file)) => Some(ClientCert { cert_file, key_file }),
        (None, None) => None,
        (Some(_), None) => {
            return Err("VAULT_CLIENT_CERT is set without VAULT_CLIENT_KEY: set both".to_owned());
        }
        (None, Some(_)) => {
            return Err("VAULT_CLIENT_KEY is set without VAULT_CLIENT_CERT: set both".to_owned());
        }
    };
    let mut config = VaultConfig {
        namespace: environment.var("VAULT_NAMESPACE").map(str::to_owned),
        ca_file: path("VAULT_CACERT"),
        client_cert,
        tls_server_name: environment.var("VAULT_TLS_SERVER_NAME").map(str::to_owned),
        ..VaultConfig::new(environment.var("VAULT_ADDR").unwrap_or(ADDRESS))
    };
    if let Some(said) = environment.var("VAULT_CLIENT_TIMEOUT") {
        config.request_timeout = timeout(said)
            .ok_or_else(|| format!("VAULT_CLIENT_TIMEOUT {said:?}: write seconds, or a span such as 90s"))?;
    }
    Ok(config)
}

fn token(environment: &Environment) -> Result<Credential, String> {
    let token = match (environment.var("VAULT_TOKEN"), environment.var("HOME")) {
        (Some(token), _) => Credential::new(token.to_owned()),
        (None, Some(home)) => {
            let file = PathBuf::from(home).join(TOKEN_FILE);
            Credential::from_file(&file).map_err(|why| {
                format!(
                    "no token for Vault: VAULT_TOKEN is not set, and {}: {why}; set it, or run `vault login`",
                    file.display()
                )
            })?
        }
        (None, None) => return Err("no token for Vault: set VAULT_TOKEN".to_owned()),
    };
    if token.expose().starts_with("tnr_") {
        return Err("VAULT_TOKEN is the handle of a run, which a broker knows and Vault does not: give the auditor's own".to_owned());
    }
    Ok(token)
}

/// As Go reads a truth; what is none counts as one here: it was meant to say something.
fn is_false(said: &str) -> bool {
    matches!(said, "0" | "f" | "F" | "false" | "FALSE" | "False")
}

fn timeout(said: &str) -> Option<Duration> {
    let span = match said.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => humantime::parse_duration(said).ok()?,
    };
    (!span.is_zero()).then_some(span)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(vars: &[(&str, &str)]) -> Environment {
        vars.iter().copied().collect()
    }

    #[test]
    fn the_environment_is_read_as_vault_reads_it() {
        assert_eq!(config(&environment(&[])), Ok(VaultConfig::new(ADDRESS)));
        let all = environment(&[
            ("VAULT_ADDR", "https://vault.example.com:8200"),
            ("VAULT_NAMESPACE", "team-a"),
            ("VAULT_CACERT", "/ca.pem"),
            ("VAULT_CLIENT_CERT", "/c.pem"),
            ("VAULT_CLIENT_KEY", "/k.pem"),
            ("VAULT_TLS_SERVER_NAME", "vault"),
            ("VAULT_CLIENT_TIMEOUT", "7"),
            ("VAULT_SKIP_VERIFY", "false"),
        ]);
        let pair = ClientCert { cert_file: "/c.pem".into(), key_file: "/k.pem".into() };
        let expected = VaultConfig {
            namespace: Some("team-a".to_owned()),
            ca_file: Some("/ca.pem".into()),
            client_cert: Some(pair),
            tls_server_name: Some("vault".to_owned()),
            request_timeout: Duration::from_secs(7),
            ..VaultConfig::new("https://vault.example.com:8200")
        };
        assert_eq!(config(&all), Ok(expected));
    }

    #[test]
    fn what_is_not_done_is_refused_by_name() {
        for (vars, says) in [
            (&[("VAULT_SKIP_VERIFY", "1")][..], "VAULT_SKIP_VERIFY"),
            (&[("VAULT_SKIP_VERIFY", "yes")], "VAULT_CACERT"),
            (&[("VAULT_CAPATH", "/etc/ssl")], "VAULT_CAPATH"),
            (&[("VAULT_CLIENT_CERT", "/c.pem")], "VAULT_CLIENT_KEY"),
            (&[("VAULT_CLIENT_KEY", "/k.pem")], "VAULT_CLIENT_CERT"),
            (&[("VAULT_CLIENT_TIMEOUT", "soon")], "\"soon\""),
            (&[("VAULT_CLIENT_TIMEOUT", "0")], "seconds"),
        ] {
            let why = config(&environment(vars)).unwrap_err();
            assert!(why.contains(says), "{vars:?}: {why}");
        }
    }

    #[test]
    fn the_token_is_the_environments_or_that_of_the_last_login() {
        let home = tempfile::tempdir().unwrap();
        let home_is = home.path().display().to_string();
        let read = |vars: &[(&str, &str)]| token(&environment(vars));
        let why = read(&[("HOME", &home_is)]).unwrap_err();
        assert!(why.contains("VAULT_TOKEN") && why.contains(".vault-token"), "{why}");
        assert!(read(&[]).unwrap_err().contains("VAULT_TOKEN"));
        std::fs::write(home.path().join(TOKEN_FILE), "of-login\n").unwrap();
        assert!(read(&[("HOME", &home_is)]).unwrap().matches(b"of-login"));
        assert!(read(&[("HOME", &home_is), ("VAULT_TOKEN", "said")]).unwrap().matches(b"said"));
        let why = read(&[("VAULT_TOKEN", "tnr_canary")]).unwrap_err();
        assert!(why.contains("handle") && !why.contains("canary"), "{why}");
    }
}
