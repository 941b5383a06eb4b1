//! The Secrets Manager door, as it is configured.

use std::path::Path;

use tokio::net::TcpListener;

use crate::config::{DoorToken, SecretsManagerListen};
use crate::door::{ListenError, LocalToken, MappedSecret, SecretsManager};
use crate::secret::Credential;

/// Binds its port.
///
/// # Errors
/// The operating system's.
pub(super) async fn bind(listen: &SecretsManagerListen) -> Result<TcpListener, ListenError> {
    TcpListener::bind(listen.address).await.map_err(|source| ListenError::Io {
        what: format!("binding listen.secrets_manager.address {}", listen.address),
        source,
    })
}

/// What it serves. `session` is the token that the function itself has.
///
/// # Errors
/// No token that callers could present.
pub(super) fn door(
    listen: &SecretsManagerListen,
    session: Option<Credential>,
) -> Result<SecretsManager, ListenError> {
    let token = match &listen.token {
        DoorToken::Session => LocalToken::given(session.ok_or(ListenError::NoSessionToken)?),
        DoorToken::File(file) => LocalToken::from_file(file).map_err(|error| of_ours(error, file))?,
    };
    let secrets = listen.secrets.iter().map(|secret| MappedSecret {
        id: secret.id.clone(),
        path: secret.path.to_string(),
        field: secret.field.clone(),
    });
    Ok(SecretsManager::new(token, secrets))
}

/// The same kind of file has two keys; the error names the one that it is about.
pub(super) fn of_ours(error: ListenError, file: &Path) -> ListenError {
    match error {
        ListenError::TokenFile { source, .. } => {
            ListenError::Io { what: format!("listen.secrets_manager.token_file {}", file.display()), source }
        }
        other => other,
    }
}
