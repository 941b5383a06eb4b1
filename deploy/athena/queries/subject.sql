-- What was used on behalf of a subject, and until when.
--
-- It takes one word: the subject's id at its issuer. Two issuers may have the same one: subject_issuer is in tenure_runs.
WITH used AS (
  SELECT run_id, path, lease_id, min(moment) AS first_used, max(moment) AS last_used,
    sum(CASE WHEN event IN ('read', 'deliver', 'session.open') AND outcome IN ('granted', 'done') THEN 1 ELSE 0 END)
      AS secret_reads,
    sum(CASE WHEN (outcome = 'denied' OR class = 'denied') AND event <> 'mint' THEN 1 ELSE 0 END) AS denials
  FROM tenure_lines
  WHERE run_id IS NOT NULL AND path IS NOT NULL
  GROUP BY run_id, path, lease_id
)
SELECT runs.account, runs.region, runs.execution, runs.state, runs.attempt, runs.standing, runs.run_id, runs.kind,
  runs.subject, runs.subject_issuer, runs.subject_assurance, runs.began, runs.ended, runs.revoke_confirmed,
  used.path, used.lease_id, used.first_used, used.last_used, used.secret_reads, used.denials,
  leases.usable_until, leases.revoked
FROM tenure_runs runs
LEFT JOIN used ON used.run_id = runs.run_id
LEFT JOIN tenure_leases leases ON leases.lease_id = used.lease_id
WHERE runs.subject = ?
ORDER BY runs.began, runs.run_id, used.first_used, used.path
