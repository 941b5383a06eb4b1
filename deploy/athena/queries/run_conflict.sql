-- Runs of which Vault's log, by the metadata of their tokens, and the brokers' lines say different things.
WITH told AS (
  SELECT run_id, kind, execution, state, attempt, standing, parents, parent_run, subject, subject_assurance, moment
  FROM tenure_lines
  WHERE run_id IS NOT NULL
  UNION ALL
  SELECT run_id, kind, execution, state, attempt, standing, parents, parent_run, subject, subject_assurance, moment
  FROM vault_requests
  WHERE run_id IS NOT NULL
)
SELECT 'error' AS severity, 'run_conflict' AS kind, min(told.moment) AS moment, told.run_id,
  count(DISTINCT coalesce(told.kind, '')) > 1 AS other_kind,
  count(DISTINCT coalesce(told.execution, '')) > 1 AS other_execution,
  count(DISTINCT coalesce(told.state, '')) > 1 OR count(DISTINCT coalesce(told.attempt, -1)) > 1 AS other_state,
  count(DISTINCT coalesce(told.standing, '')) > 1 AS other_standing,
  count(DISTINCT told.parents) > 1 OR count(DISTINCT coalesce(told.parent_run, '')) > 1 AS other_parents,
  count(DISTINCT coalesce(told.subject, '')) > 1
    OR count(DISTINCT coalesce(told.subject_assurance, '')) > 1 AS other_subject
FROM told
WHERE told.run_id IN (SELECT run_id FROM tenure_runs)
GROUP BY told.run_id
HAVING count(DISTINCT coalesce(told.kind, '')) > 1 OR count(DISTINCT coalesce(told.execution, '')) > 1
  OR count(DISTINCT coalesce(told.state, '')) > 1 OR count(DISTINCT coalesce(told.attempt, -1)) > 1
  OR count(DISTINCT coalesce(told.standing, '')) > 1 OR count(DISTINCT told.parents) > 1
  OR count(DISTINCT coalesce(told.parent_run, '')) > 1 OR count(DISTINCT coalesce(told.subject, '')) > 1
  OR count(DISTINCT coalesce(told.subject_assurance, '')) > 1
ORDER BY moment, told.run_id
