//! Endpoints that `vaultrs` lacks.

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
