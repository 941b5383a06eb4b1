-- What Vault did under the brokers' roles, or with the token of a run, that no broker's line tells of.
--
-- A request is explained by a line with its X-Tenure-Request or its request id. Questions have no lines and are passed
-- over where they carry an id of a broker whose log is here. `kind`: `bypass`, or `unknown_broker` for what carries an id
-- of a broker whose log is not here: there may be such a broker, and whoever goes round ours can say so, too.
-- What a token does that a bypass made is a bypass as well, to the fourth generation of such tokens (`tenure audit
-- trace` follows them to the end).
CREATE OR REPLACE VIEW vault_unexplained AS
WITH audited AS (
  SELECT count(request) > 0 AS headers FROM vault_requests
), known AS (
  SELECT boot FROM tenure_boots
  UNION
  SELECT nullif(regexp_extract(request, '^(.*)-([1-9][0-9]*)$', 1), '') FROM tenure_claims
), unclaimed AS (
  SELECT answers.*,
    identities.identity IS NOT NULL AS is_ours,
    known.boot IS NOT NULL AS is_known_boot,
    runs.run_id IS NOT NULL AS is_known_run
  FROM vault_requests answers
  CROSS JOIN audited
  LEFT JOIN tenure_identities identities ON identities.identity = answers.identity
  LEFT JOIN known ON known.boot = answers.request_boot
  LEFT JOIN tenure_runs runs ON runs.run_id = answers.run_id
  WHERE NOT EXISTS (SELECT 1 FROM tenure_claims claims WHERE claims.request = answers.request)
    AND NOT EXISTS (SELECT 1 FROM tenure_lines lines WHERE lines.vault_request_id = answers.vault_request_id)
    -- Without headers a broker's own logins and renewals are told from others' by nothing.
    AND (audited.headers OR answers.run_id IS NOT NULL AND answers.error IS NULL AND NOT answers.is_management)
), candidates AS (
  SELECT *, CASE WHEN request_boot IS NOT NULL AND NOT is_known_boot AND NOT is_known_run
    THEN 'unknown_broker' ELSE 'bypass' END AS finding
  FROM unclaimed
  WHERE NOT (is_known_boot AND is_bookkeeping)
), direct AS (
  SELECT * FROM candidates WHERE is_ours OR run_id IS NOT NULL
), made_1 AS (
  SELECT made_accessor AS accessor FROM direct WHERE finding = 'bypass' AND made_accessor IS NOT NULL
), made_2 AS (
  SELECT accessor FROM made_1
  UNION
  SELECT made_accessor FROM candidates
  WHERE finding = 'bypass' AND made_accessor IS NOT NULL AND accessor IN (SELECT accessor FROM made_1)
), made_3 AS (
  SELECT accessor FROM made_2
  UNION
  SELECT made_accessor FROM candidates
  WHERE finding = 'bypass' AND made_accessor IS NOT NULL AND accessor IN (SELECT accessor FROM made_2)
)
SELECT * FROM candidates
WHERE is_ours OR run_id IS NOT NULL OR accessor IN (SELECT accessor FROM made_3)
