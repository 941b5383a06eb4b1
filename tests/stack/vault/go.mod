// HashiCorp Vault and the two plugins the stack uses, built from their Go modules.
// A test dependency only: never linked into Tenure, never shipped (Vault is BUSL-licensed).
//
// Vault's own go.mod replaces its sdk by a directory, which a dependent does not
// inherit; so the sdk that belongs to this Vault is pinned here.
module tenure.test/stack/vault

go 1.25.3

require (
	github.com/hashicorp/vault v1.21.0
	github.com/hashicorp/vault/sdk v0.20.0
)
