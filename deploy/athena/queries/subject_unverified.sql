-- Runs that read secrets on behalf of a subject that is only asserted.
SELECT 'error' AS severity, 'subject_unverified' AS kind, last_read AS moment, run_id, account, region, execution, state,
  subject, subject_kind, subject_issuer, subject_assurance, secret_reads
FROM tenure_runs
WHERE secret_reads > 0 AND subject IS NOT NULL AND coalesce(subject_assurance, '') <> 'verified'
ORDER BY last_read, run_id
