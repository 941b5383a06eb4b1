# Policy of a run token of the example workload `orders`.
#
# A run gets exactly this (and not `default`): it is named in the token role's
# `allowed_policies`. Change the paths, keep the second half.

# --- what the workload reads -------------------------------------------------

path "database/creds/orders" {
  capabilities = ["read"]
}

path "database/creds/orders-short" {
  capabilities = ["read"]
}

# KV version 2: values under data/, names and versions under metadata/.
path "secret/data/orders/*" {
  capabilities = ["read"]
}

path "secret/metadata/orders/*" {
  capabilities = ["read", "list"]
}

# KV version 1.
path "kv1/orders/*" {
  capabilities = ["read", "list"]
}

# --- what every run token needs ----------------------------------------------

# Renew the run's own leases. Vault checks the path only, not whose lease it is: a lease
# id is unguessable, and renewing a foreign one discloses nothing and cannot pass its
# max_ttl. (There is no `sys/leases/revoke` here on purpose: a run's leases end with its
# token, by one revoke.)
path "sys/leases/renew" {
  capabilities = ["update"]
}

# The token's own life: these are in `default`, which a run token does not carry.
path "auth/token/lookup-self" {
  capabilities = ["read"]
}

path "auth/token/renew-self" {
  capabilities = ["update"]
}

path "auth/token/revoke-self" {
  capabilities = ["update"]
}
