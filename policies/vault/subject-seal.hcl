# Beside another policy: the run token of the state that a workflow begins with may seal
# the subject, that is, sign for whom the workflow acts. Later states verify the seal.
#
# Signing only. Whoever may sign can make every later state believe in any subject: it
# stands in the token role of the entry state and nowhere else. The key never leaves Vault.

path "transit/sign/tenure-subject" {
  capabilities = ["update"]
}
