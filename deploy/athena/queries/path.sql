-- Who asked for a path: by brokers' lines, what was granted and what was refused; and what Vault did for it that no broker's
-- line tells of.
--
-- ?: the path, without /v1/; a * at its end stands for whatever follows.
WITH asked AS (
  SELECT CAST(? AS varchar) AS word
), wanted AS (
  SELECT CASE WHEN word LIKE '%*' THEN substr(word, 1, length(word) - 1) ELSE word END AS word,
    word LIKE '%*' AS is_prefix
  FROM asked
)
SELECT 'tenure' AS source, lines.moment, lines.event, lines.outcome, lines.path, lines.lease_id, lines.run_id,
  lines.execution, lines.state, lines.standing, lines.subject, lines.subject_assurance, lines.request,
  lines.vault_request_id, lines.reason, CAST(NULL AS varchar) AS remote
FROM tenure_lines lines CROSS JOIN wanted
WHERE lines.run_id IS NOT NULL
  -- A read with a query is one of the path.
  AND (lines.path = wanted.word OR strpos(lines.path, wanted.word || '?') = 1
    OR wanted.is_prefix AND strpos(lines.path, wanted.word) = 1)
UNION ALL
SELECT 'vault', others.moment, others.operation, others.finding, others.path, others.lease_id, others.run_id,
  others.execution, others.state, others.standing, others.subject, others.subject_assurance, others.request,
  others.vault_request_id, others.display_name, others.remote
FROM vault_unexplained others CROSS JOIN wanted
WHERE others.path = wanted.word OR wanted.is_prefix AND strpos(others.path, wanted.word) = 1
ORDER BY moment
