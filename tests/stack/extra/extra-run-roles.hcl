# Test only: the token roles that show edges (short ceiling, child instead of orphan,
# period). Held beside `tenure-login`, by the AWS role `orders-extra`.

path "auth/token/create/run-short" {
  capabilities = ["update"]
}

path "auth/token/create/run-child" {
  capabilities = ["update"]
}

path "auth/token/create/run-period" {
  capabilities = ["update"]
}
