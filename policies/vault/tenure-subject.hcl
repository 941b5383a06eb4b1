# For every login that is to accept sealed subjects, beside `tenure-login`: the public keys
# by which seals are checked. The private ones never leave Vault.
path "transit/keys/tenure-subject" {
  capabilities = ["read"]
}
