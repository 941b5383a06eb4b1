# For the login of brokers with [audit.hmac], beside `tenure-login`: have keys made, which the
# key below wraps. It does not unwrap any: a broker cannot compare what another one wrote,
# nor what it wrote itself before its start.
path "transit/datakey/plaintext/tenure-audit" {
  capabilities = ["update"]
}
