-- The columns that the queries ask for, from tenure_audit; in Athena's SQL. ../duckdb has the same ones.
--
-- It looks back 31 days: another span is another line at the end, for this view and for vault_answers alike.
-- Athena's views have no times with a zone, so these are without, and in UTC.
CREATE OR REPLACE VIEW tenure_lines AS
SELECT
  account,
  region,
  replace(day, '/', '-') AS day,
  CAST(from_iso8601_timestamp("time") AT TIME ZONE 'UTC' AS timestamp) AS moment,
  boot,
  event,
  outcome,
  run.id AS run_id,
  run.kind AS kind,
  run.execution_arn AS execution,
  run.state AS state,
  run.attempt AS attempt,
  run.standing AS standing,
  coalesce(array_join(run.parents, ' '), '') AS parents,
  run.parent AS parent_run,
  run.subject.id AS subject,
  run.subject.kind AS subject_kind,
  run.subject.issuer AS subject_issuer,
  run.subject.assurance AS subject_assurance,
  element_at(run.tags, 'shared_by') AS shared_by,
  caller.uid AS caller_uid,
  door,
  path,
  source,
  request,
  vault_request_id,
  lease_id,
  CAST(from_iso8601_timestamp(expires) AT TIME ZONE 'UTC' AS timestamp) AS expires,
  policy,
  reason,
  class,
  detail,
  recovered.refused AS lost_requests,
  recovered.dropped AS lost_lines,
  seq,
  prev,
  hash
FROM tenure_audit
WHERE v = 1 AND hash IS NOT NULL
  AND day >= date_format(current_date - INTERVAL '31' DAY, '%Y/%m/%d')
