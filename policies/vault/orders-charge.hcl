# Policy of a run token of the state `Charge` of the example workflow `orders`.
#
# The token role `run-charge` allows it. It stands by itself, without `orders`: a run token
# that is narrowed to one policy must still be able to end itself. `run-worker` allows it, too.

# --- what the state reads, and the other states do not ------------------------

path "database/creds/orders-charge" {
  capabilities = ["read"]
}

path "secret/data/orders/states/charge" {
  capabilities = ["read"]
}

path "secret/metadata/orders/states/charge" {
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
