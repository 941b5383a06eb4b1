-- What one execution used, with those that it started, and until when.
--
-- It takes one word: the execution's ARN.
--
-- A run names the executions above its own as far as they are known, up to the root; those below are looked for twice, so
-- that one whose own line names only its parent is found as well.
WITH named AS (
  SELECT run_id, execution
  FROM tenure_runs
  WHERE strpos(' ' || coalesce(execution, '') || ' ' || parents || ' ', ' ' || CAST(? AS varchar) || ' ') > 0
), below AS (
  SELECT DISTINCT execution FROM named WHERE execution IS NOT NULL
), chosen AS (
  SELECT run_id FROM named
  UNION
  SELECT runs.run_id
  FROM tenure_runs runs CROSS JOIN below
  WHERE strpos(' ' || coalesce(runs.execution, '') || ' ' || runs.parents || ' ', ' ' || below.execution || ' ') > 0
), used AS (
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
FROM chosen JOIN tenure_runs runs ON runs.run_id = chosen.run_id
LEFT JOIN used ON used.run_id = runs.run_id
LEFT JOIN tenure_leases leases ON leases.lease_id = used.lease_id
ORDER BY runs.began, runs.run_id, used.first_used, used.path
