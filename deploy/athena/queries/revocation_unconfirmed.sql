-- Revocations that were asked for, and that never were confirmed.
--
-- A warning may be confirmed in the next line: it was asked for within a minute of the last line of its broker, which has
-- not stopped.
WITH asked AS (
  SELECT run_id, 'run token' AS what, revoke_requested AS moment, revoke_confirmed AS confirmed FROM tenure_runs
  UNION ALL
  SELECT run_id, 'login token', login_revoke_requested, login_revoke_confirmed FROM tenure_runs
)
SELECT CASE WHEN boots.last_line < asked.moment + INTERVAL '60' SECOND AND NOT boots.stopped
    THEN 'warning' ELSE 'error' END AS severity,
  'revocation_unconfirmed' AS kind, asked.moment, runs.run_id, asked.what, runs.execution, runs.state, runs.subject,
  runs.token_ends, boots.boot, boots.last_line
FROM asked JOIN tenure_runs runs ON runs.run_id = asked.run_id JOIN tenure_boots boots ON boots.boot = runs.boot
WHERE asked.moment IS NOT NULL AND (asked.confirmed IS NULL OR asked.confirmed < asked.moment)
ORDER BY asked.moment, runs.run_id, asked.what
