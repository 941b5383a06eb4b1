# What an auditor's own token needs for `tenure audit trace --audit-hash file`: to be told how
# the audit device `file` shows an accessor. It discloses nothing: only who has the accessor
# can ask for it.

path "sys/audit-hash/file" {
  capabilities = ["update"]
}
