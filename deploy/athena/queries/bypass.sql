-- What Vault did under the brokers' roles, or with runs' tokens, that no broker's line explains; and ids of brokers' requests
-- that came again for something else.
--
-- A warning did nothing: it was refused, or asked a question. `unknown_broker` is told in ../views/07_vault_unexplained.sql.
SELECT CASE WHEN finding = 'bypass' AND error IS NULL AND NOT is_bookkeeping THEN 'error' ELSE 'warning' END AS severity,
  finding AS kind, moment, cluster, run_id, identity, display_name, remote, accessor, operation, path, lease_id, error,
  request, vault_request_id
FROM vault_unexplained
UNION ALL
SELECT 'error', 'bypass', moment, cluster, run_id, identity, display_name, remote, accessor, operation, path, lease_id,
  error, request, vault_request_id
FROM vault_reused
ORDER BY moment, vault_request_id
