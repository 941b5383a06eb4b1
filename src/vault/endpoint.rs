//! Endpoints that `vaultrs` lacks, or spells otherwise than Vault does.

use rustify_derive::Endpoint;

/// `sys/leases/lookup`: <https://developer.hashicorp.com/vault/api-docs/system/leases#read-lease>.
#[derive(Endpoint)]
#[endpoint(path = "/sys/leases/lookup", method = "PUT")]
pub(crate) struct LookupLeaseRequest {
    pub(crate) lease_id: String,
}

/// `sys/leases/renew`: <https://developer.hashicorp.com/vault/api-docs/system/leases#renew-lease>.
#[derive(Endpoint)]
#[endpoint(path = "/sys/leases/renew", method = "PUT")]
pub(crate) struct RenewLeaseRequest {
    pub(crate) lease_id: String,
    /// In seconds.
    pub(crate) increment: u64,
}

/// `sys/capabilities-self`: <https://developer.hashicorp.com/vault/api-docs/system/capabilities-self>.
#[derive(Endpoint)]
#[endpoint(path = "/sys/capabilities-self", method = "POST")]
pub(crate) struct CapabilitiesRequest {
    pub(crate) paths: Vec<String>,
}

/// `sys/audit-hash/<device>`: <https://developer.hashicorp.com/vault/api-docs/system/audit-hash>.
#[derive(Endpoint)]
#[endpoint(path = "/sys/audit-hash/{self.device}", method = "POST")]
pub(crate) struct AuditHashRequest {
    #[endpoint(skip)]
    pub(crate) device: String,
    pub(crate) input: String,
}

/// `auth/<mount>/login` of the certificate method, which calls the role `name`:
/// <https://developer.hashicorp.com/vault/api-docs/auth/cert#login-with-tls-certificate-method>.
#[derive(Endpoint)]
#[endpoint(path = "/auth/{self.mount}/login", method = "POST")]
pub(crate) struct CertLoginRequest {
    #[endpoint(skip)]
    pub(crate) mount: String,
    /// `None`: the first role that the certificate fits.
    pub(crate) name: Option<String>,
}

/// `<mount>/decrypt/<key>`, of several at once:
/// <https://developer.hashicorp.com/vault/api-docs/secret/transit#decrypt-data>.
#[derive(Endpoint)]
#[endpoint(path = "/{self.mount}/decrypt/{self.name}", method = "POST")]
pub(crate) struct DecryptRequest {
    #[endpoint(skip)]
    pub(crate) mount: String,
    #[endpoint(skip)]
    pub(crate) name: String,
    pub(crate) batch_input: Vec<Ciphertext>,
    /// The status of an answer that some could not be decrypted for; without it, that of a refusal of all.
    pub(crate) partial_failure_response_code: u16,
}

/// One of several.
#[derive(serde::Serialize)]
pub(crate) struct Ciphertext {
    pub(crate) ciphertext: String,
}
