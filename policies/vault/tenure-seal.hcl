# For the login of an execution's entry step alone, beside `tenure-login`: seal subjects.
#
# Whoever holds this can say that anybody asked for an execution. Give it to a role of its
# own, which runs nothing but `tenure subject seal`, and never to the tasks that the
# execution starts: they only check (`tenure-subject`).
path "transit/sign/tenure-subject" {
  capabilities = ["update"]
}
