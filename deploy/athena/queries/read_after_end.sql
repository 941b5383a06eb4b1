-- Secrets that were disclosed after their run's end: by the broker's own lines, or, five seconds later (two clocks), by
-- Vault to the run's token.
WITH in_vault AS (
  SELECT run_id, max(moment) AS moment
  FROM vault_requests
  WHERE run_id IS NOT NULL AND error IS NULL AND NOT is_bookkeeping AND NOT is_end
  GROUP BY run_id
), late AS (
  SELECT run_id, 'tenure' AS source, last_read AS moment FROM tenure_runs WHERE last_read > ended
  UNION ALL
  SELECT runs.run_id, 'vault', in_vault.moment
  FROM tenure_runs runs JOIN in_vault ON in_vault.run_id = runs.run_id
  WHERE in_vault.moment > runs.ended + INTERVAL '5' SECOND
)
SELECT 'error' AS severity, 'read_after_end' AS kind, late.moment, late.run_id, late.source, runs.ended, runs.execution,
  runs.state, runs.subject
FROM late JOIN tenure_runs runs ON runs.run_id = late.run_id
ORDER BY late.moment, late.run_id
