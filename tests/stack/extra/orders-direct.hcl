# Test only: a login token that may read the example's secrets itself, for running the
# broker without a token role (everything then hangs off the login token).

path "database/creds/*" {
  capabilities = ["read"]
}

path "secret/data/orders/*" {
  capabilities = ["read"]
}

path "secret/metadata/orders/*" {
  capabilities = ["read", "list"]
}

path "kv1/orders/*" {
  capabilities = ["read", "list"]
}

path "sys/leases/renew" {
  capabilities = ["update"]
}

path "sys/leases/revoke" {
  capabilities = ["update"]
}

path "sys/leases/lookup" {
  capabilities = ["update"]
}

# Child tokens of its own: the declared fallback where there is no token role.
path "auth/token/create" {
  capabilities = ["update"]
}

path "auth/token/revoke-accessor" {
  capabilities = ["update"]
}

path "auth/token/lookup-accessor" {
  capabilities = ["update"]
}

path "auth/token/lookup-self" {
  capabilities = ["read"]
}

path "auth/token/renew-self" {
  capabilities = ["update"]
}

path "auth/token/revoke-self" {
  capabilities = ["update"]
}
