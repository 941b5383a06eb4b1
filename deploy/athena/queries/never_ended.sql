-- Runs whose end no line tells of, though their broker stopped in order or their deadline passed a minute before its last
-- line. A run that is open where its log ends is none.
SELECT 'error' AS severity, 'never_ended' AS kind, runs.began AS moment, runs.run_id, runs.execution, runs.state,
  runs.subject, runs.deadline, runs.token_ends, boots.boot, boots.last_line, boots.stopped
FROM tenure_runs runs JOIN tenure_boots boots ON boots.boot = runs.boot
WHERE runs.ended IS NULL AND (runs.registered IS NOT NULL OR runs.started IS NOT NULL)
  AND (boots.stopped OR boots.last_line > runs.deadline + INTERVAL '60' SECOND)
ORDER BY runs.began, runs.run_id
