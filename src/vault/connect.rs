//! How Vault in particular is reached.

use std::error::Error;

use super::VaultConfig;
use crate::https::{self, Reach, Trouble};
pub(super) use crate::https::{Pool, innermost};
use crate::lease::failure::Failure;

/// A new pool; see [`https::pool`].
pub(super) async fn pool(config: &VaultConfig, https: bool) -> Result<Pool, Failure> {
    let client_cert = config.client_cert.as_ref();
    let reach = Reach {
        ca_file: config.ca_file.clone(),
        client_cert: client_cert.map(|pair| (pair.cert_file.clone(), pair.key_file.clone())),
        tls_server_name: config.tls_server_name.clone(),
        connect_timeout: config.connect_timeout,
    };
    https::pool(&reach, https).await
}

/// What a failed request without an answer means.
pub(super) fn trouble(error: &(dyn Error + 'static)) -> Trouble {
    https::trouble(error, "Vault")
}
