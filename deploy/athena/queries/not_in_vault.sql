-- What brokers say to have had from Vault, and Vault's log, which covers that time, does not have: a part of
-- Vault's log may be missing, such as that of one node.
WITH covers AS (
  SELECT min(moment) + INTERVAL '5' SECOND AS since, max(moment) - INTERVAL '5' SECOND AS until
  FROM vault_requests
  HAVING count(request) > 0
)
SELECT 'warning' AS severity, 'not_in_vault' AS kind, lines.moment, lines.run_id, lines.boot, lines.event, lines.path,
  lines.request, lines.vault_request_id
FROM tenure_lines lines CROSS JOIN covers
WHERE lines.outcome IN ('done', 'granted') AND coalesce(lines.source, 'vault') = 'vault'
  AND lines.request IS NOT NULL AND lines.run_id IS NOT NULL
  AND lines.moment >= covers.since AND lines.moment <= covers.until
  AND NOT EXISTS (SELECT 1 FROM vault_requests answers WHERE answers.request = lines.request)
ORDER BY lines.moment, lines.seq
