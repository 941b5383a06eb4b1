# Policy of the login token: what the broker itself may do.
#
# It reads no secret. It can make run tokens from the token roles named here, end them,
# and see that they and their leases have ended. Everything a run may read is decided by
# the token role's `allowed_policies`, which the login token does not hold.

# Make run tokens, from exactly these roles: `run` for a workload as a whole, `run-worker`
# for a worker that serves several states and narrows each run's token to one, the others
# for one state of the workflow each. Keep the lines that you use. No wildcard: whoever
# may make a role named to fit could hand out its policies. (`auth/token/create` itself is
# absent: with it the broker could make children that carry its own policies.)
path "auth/token/create/run" {
  capabilities = ["update"]
}

path "auth/token/create/run-worker" {
  capabilities = ["update"]
}

path "auth/token/create/run-reserve" {
  capabilities = ["update"]
}

path "auth/token/create/run-charge" {
  capabilities = ["update"]
}

# End a run by its token's accessor. The accessor is recorded before the token is first
# used, so this works even where the token itself was lost (crash, lost response).
path "auth/token/revoke-accessor" {
  capabilities = ["update"]
}

# Tell whether a run token has ended: 400 "invalid accessor" once it is gone.
path "auth/token/lookup-accessor" {
  capabilities = ["update"]
}

# Confirm a revocation: Vault revokes leases asynchronously, so "requested" and
# "confirmed" are two facts. A lease that is gone answers 400 "invalid lease".
# The reply carries times only, never the secret.
path "sys/leases/lookup" {
  capabilities = ["update"]
}

# The token's own life. These stand here because the login role sets
# `token_no_default_policy`, and without `default` even revoke-self is refused.
path "auth/token/lookup-self" {
  capabilities = ["read"]
}

path "auth/token/renew-self" {
  capabilities = ["update"]
}

path "auth/token/revoke-self" {
  capabilities = ["update"]
}
