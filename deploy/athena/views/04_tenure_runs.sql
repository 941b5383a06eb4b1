-- Each run that a broker's line tells of: what it is, how long it lasted, when its token was gone.
--
-- `token_ends` is when the last of its tokens ends by itself. What is said of a run is the same on all of its lines; where
-- it is not, contradictions.sql says so.
CREATE OR REPLACE VIEW tenure_runs AS
WITH told AS (
  SELECT *, outcome IN ('done', 'granted') AS happened, coalesce(detail, '') LIKE 'login token%' AS of_login
  FROM tenure_lines
  WHERE run_id IS NOT NULL
)
SELECT run_id, max(boot) AS boot, max(account) AS account, max(region) AS region,
  max(kind) AS kind, max(execution) AS execution, max(state) AS state, max(attempt) AS attempt,
  max(standing) AS standing, max(parents) AS parents, max(parent_run) AS parent_run, max(subject) AS subject,
  max(subject_kind) AS subject_kind, max(subject_issuer) AS subject_issuer,
  max(subject_assurance) AS subject_assurance, max(shared_by) AS shared_by,
  min(moment) AS began, max(moment) AS last_line,
  min(CASE WHEN event = 'run.register' AND happened THEN moment END) AS registered,
  min(CASE WHEN event = 'run.start' AND happened THEN moment END) AS started,
  max(CASE WHEN event IN ('run.register', 'run.extend') AND happened THEN expires END) AS deadline,
  max(CASE WHEN happened AND (event = 'run.start' OR event = 'renew' AND lease_id IS NULL AND NOT of_login)
    THEN expires END) AS token_ends,
  min(CASE WHEN event = 'run.end' AND outcome = 'done' THEN moment END) AS ended,
  max(CASE WHEN event = 'revoke.requested' AND NOT of_login THEN moment END) AS revoke_requested,
  max(CASE WHEN event = 'revoke.confirmed' AND happened AND NOT of_login THEN moment END) AS revoke_confirmed,
  max(CASE WHEN event = 'revoke.requested' AND of_login THEN moment END) AS login_revoke_requested,
  max(CASE WHEN event = 'revoke.confirmed' AND happened AND of_login THEN moment END) AS login_revoke_confirmed,
  max(CASE WHEN event IN ('read', 'deliver', 'session.open') AND happened THEN moment END) AS last_read,
  sum(CASE WHEN event IN ('read', 'deliver', 'session.open') AND happened THEN 1 ELSE 0 END) AS secret_reads,
  sum(CASE WHEN (outcome = 'denied' OR class = 'denied') AND event <> 'mint' THEN 1 ELSE 0 END) AS denials
FROM told
GROUP BY run_id
