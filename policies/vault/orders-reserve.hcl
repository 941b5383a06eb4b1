# Policy of a run token of the state `Reserve` of the example workflow `orders`.
#
# The token role `run-reserve` allows it. It stands by itself, without `orders`: a run token
# that is narrowed to one policy must still be able to end itself. `run-worker` allows it, too.

# --- what the state reads, and the other states do not ------------------------

path "database/creds/orders-reserve" {
  capabilities = ["read"]
}

path "secret/data/orders/states/reserve" {
  capabilities = ["read"]
}

path "secret/metadata/orders/states/reserve" {
  capabilities = ["read"]
}

# --- what every run token needs (see orders.hcl for why) ----------------------

path "sys/leases/renew" {
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
