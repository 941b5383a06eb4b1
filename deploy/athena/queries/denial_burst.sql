-- Runs to which ten requests or more were refused within a minute.
WITH denied AS (
  SELECT run_id, moment, lag(moment, 9) OVER (PARTITION BY run_id ORDER BY moment, seq) AS nine_before
  FROM tenure_lines
  WHERE run_id IS NOT NULL AND (outcome = 'denied' OR class = 'denied') AND event <> 'mint'
), bursts AS (
  SELECT run_id, min(nine_before) AS moment
  FROM denied
  WHERE moment <= nine_before + INTERVAL '60' SECOND
  GROUP BY run_id
)
SELECT 'warning' AS severity, 'denial_burst' AS kind, bursts.moment, runs.run_id, runs.account, runs.region,
  runs.execution, runs.state, runs.subject, runs.denials
FROM bursts JOIN tenure_runs runs ON runs.run_id = bursts.run_id
ORDER BY bursts.moment, runs.run_id
