-- Who asked for a path: by brokers' lines, what was granted and what was refused; and what Vault did for it that no broker's
-- line tells of.
--
-- It takes one word: the path, without /v1/ and without a query; a * at its end stands for whatever follows.
WITH told AS (
  SELECT 'tenure' AS source, moment, event, outcome, path, lease_id, run_id, execution, state, standing, subject,
    subject_assurance, request, vault_request_id, reason, CAST(NULL AS varchar) AS remote
  FROM tenure_lines
  WHERE run_id IS NOT NULL AND path IS NOT NULL
  UNION ALL
  SELECT 'vault', moment, operation, finding, path, lease_id, run_id, execution, state, standing, subject,
    subject_assurance, request, vault_request_id, display_name, remote
  FROM vault_unexplained
)
SELECT * FROM told
-- chr(63) begins a query; the line's end, chr(10), keeps a path from being the beginning of another.
WHERE strpos(split_part(path, chr(63), 1) || chr(10), replace(CAST(? AS varchar) || chr(10), '*' || chr(10), '')) = 1
ORDER BY moment
