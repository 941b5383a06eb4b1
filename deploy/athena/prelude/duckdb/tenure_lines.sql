-- The columns that the queries ask for, from files that lie as in the bucket, below the working directory; in DuckDB's
-- SQL. ../athena has the same ones.
CREATE OR REPLACE VIEW tenure_lines AS
SELECT
  split_part(filename, '/', 2) AS account,
  split_part(filename, '/', 3) AS region,
  split_part(filename, '/', 4) || '-' || split_part(filename, '/', 5) || '-' || split_part(filename, '/', 6) AS day,
  CAST("time" AS TIMESTAMP) AS moment,
  boot,
  event,
  outcome,
  run.id AS run_id,
  run.kind AS kind,
  run.execution_arn AS execution,
  run.state AS state,
  run.attempt AS attempt,
  run.standing AS standing,
  coalesce(array_to_string(run.parents, ' '), '') AS parents,
  run.parent AS parent_run,
  run.subject.id AS subject,
  run.subject.kind AS subject_kind,
  run.subject.issuer AS subject_issuer,
  run.subject.assurance AS subject_assurance,
  run.tags['shared_by'] AS shared_by,
  caller.uid AS caller_uid,
  door,
  path,
  source,
  request,
  vault_request_id,
  lease_id,
  CAST(expires AS TIMESTAMP) AS expires,
  policy,
  reason,
  class,
  detail,
  recovered.refused AS lost_requests,
  recovered.dropped AS lost_lines,
  seq,
  prev,
  hash
FROM read_json(
  'tenure/**', format = 'newline_delimited', filename = true, ignore_errors = true, columns = {
    v: 'INTEGER', "time": 'VARCHAR', boot: 'VARCHAR', event: 'VARCHAR', outcome: 'VARCHAR',
    run: 'STRUCT(id VARCHAR, kind VARCHAR, execution_arn VARCHAR, state VARCHAR, attempt INTEGER, standing VARCHAR,
          parents VARCHAR[], parent VARCHAR, subject STRUCT(id VARCHAR, kind VARCHAR, issuer VARCHAR, assurance VARCHAR),
          tags MAP(VARCHAR, VARCHAR))',
    caller: 'STRUCT(uid BIGINT)', door: 'VARCHAR', path: 'VARCHAR', source: 'VARCHAR', request: 'VARCHAR',
    vault_request_id: 'VARCHAR', lease_id: 'VARCHAR', expires: 'VARCHAR', policy: 'VARCHAR', reason: 'VARCHAR',
    class: 'VARCHAR', detail: 'VARCHAR', recovered: 'STRUCT(refused BIGINT, dropped BIGINT)', seq: 'BIGINT',
    prev: 'VARCHAR', hash: 'VARCHAR'
  }
)
WHERE v = 1 AND hash IS NOT NULL
