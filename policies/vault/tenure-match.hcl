# For an auditor who asks whether a value was served (`tenure audit match`): unwrap the keys
# of the hashes. With these and the log, guessable values can be guessed: give it to those
# who may know what was served, and to no broker.
path "transit/decrypt/tenure-audit" {
  capabilities = ["update"]
}
