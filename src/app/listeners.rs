//! The listeners, as they are configured.

use tokio::net::TcpListener;

use super::{AppError, secrets_manager};
use crate::config;
use crate::door::{ListenError, UnixDoor, UnixOptions};

/// What callers connect to. Nothing of it is a secret: they may wait there for a broker that has yet to begin.
#[derive(Debug)]
pub struct Listeners {
    pub(super) unix: Option<UnixDoor>,
    pub(super) tcp: Option<TcpListener>,
    pub(super) secrets_manager: Option<TcpListener>,
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
