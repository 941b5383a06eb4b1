//! The listeners, as they are configured.

use tokio::net::TcpListener;

use super::{AppError, secrets_manager};
use crate::config;
use crate::door::{ListenError, LocalToken, SecretsManager, UnixDoor, UnixOptions};
use crate::secret::Credential;

/// What callers connect to. Nothing of it is a secret: they may wait there for a broker that has yet to begin.
#[derive(Debug)]
pub struct Listeners {
    pub(super) unix: Option<UnixDoor>,
    pub(super) tcp: Option<TcpListener>,
    pub(super) secrets_manager: Option<TcpListener>,
}

/// What callers present on each, and on the Secrets Manager door what they can ask for.
pub(super) struct Tokens {
    pub(super) tcp: Option<LocalToken>,
    pub(super) secrets_manager: Option<SecretsManager>,
}

impl Tokens {
    /// Reads the tokens from their files, or makes them there. `session` is the token that the function itself has.
    ///
    /// # Errors
    /// A file that cannot be used, or no token that callers could present.
    pub(super) fn of(listen: &config::Listen, session: Option<Credential>) -> Result<Self, ListenError> {
        let tcp = listen.tcp.as_ref().map(|tcp| LocalToken::from_file(&tcp.token_file));
        let aws = listen.secrets_manager.as_ref().map(|aws| secrets_manager::door(aws, session));
        Ok(Self { tcp: tcp.transpose()?, secrets_manager: aws.transpose()? })
    }
}

impl Listeners {
    /// Binds what is configured.
    ///
    /// # Errors
    /// What stands in the way.
    pub async fn bind(listen: &config::Listen) -> Result<Self, AppError> {
        let unix = listen.unix.as_ref().map(|unix| {
            UnixDoor::bind(&UnixOptions {
                path: unix.path.clone(),
                mode: unix.mode,
                owner: unix.owner,
                group: unix.group,
            })
        });
        let unix = unix.transpose()?;
        let tcp = match &listen.tcp {
            Some(tcp) => Some(TcpListener::bind(tcp.address).await.map_err(|source| ListenError::Io {
                what: format!("binding listen.tcp.address {}", tcp.address),
                source,
            })?),
            None => None,
        };
        let secrets_manager = match &listen.secrets_manager {
            Some(listen) => Some(secrets_manager::bind(listen).await?),
            None => None,
        };
        Ok(Self { unix, tcp, secrets_manager })
    }
}
