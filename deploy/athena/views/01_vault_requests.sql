-- Each answer of Vault's with who asked, as Vault knows them, and what kind of request it was.
--
-- `identity` is what a login token says of who logged in: for AWS the role behind the session, for others the role of the
-- auth method, and where a method says nothing, the display name up to its first `/`. Tokens of runs have none.
-- `is_bookkeeping` are questions about tokens, leases and the server: they disclose nothing, and brokers write no line of
-- them.
CREATE OR REPLACE VIEW vault_requests AS
WITH bare AS (
  SELECT *,
    CASE WHEN namespace <> '' AND strpos(asked_path, namespace) = 1
      THEN substr(asked_path, length(namespace) + 1) ELSE asked_path END AS bare_path,
    CASE WHEN run_id IS NOT NULL THEN NULL ELSE coalesce(
      nullif(by_canonical_arn, ''), nullif(by_role_name, ''), nullif(by_role, ''), nullif(by_cert_name, ''),
      CASE WHEN strpos(by_client_arn, '/') > 0
        THEN split_part(by_client_arn, '/', 1) || '/' || split_part(by_client_arn, '/', 2) ELSE by_client_arn END,
      nullif(nullif(nullif(split_part(display_name, '/', 1), ''), 'token'), 'root')
    ) END AS identity,
    CASE WHEN NOT made OR made_run IS NOT NULL THEN NULL ELSE coalesce(
      nullif(made_canonical_arn, ''), nullif(made_role_name, ''), nullif(made_role, ''), nullif(made_cert_name, ''),
      CASE WHEN strpos(made_client_arn, '/') > 0
        THEN split_part(made_client_arn, '/', 1) || '/' || split_part(made_client_arn, '/', 2) ELSE made_client_arn END,
      nullif(nullif(nullif(split_part(display_name, '/', 1), ''), 'token'), 'root')
    ) END AS made_identity
  FROM vault_answers
)
SELECT cluster, day, moment, vault_request_id, operation, namespace || bare_path AS path, error, display_name, accessor,
  remote, request, nullif(regexp_extract(request, '^(.*)-([1-9][0-9]*)$', 1), '') AS request_boot,
  header_run, header_chain, lease_id, made, made_accessor, made_identity, made_run, made_boot, made_seq, made_head,
  identity, run_id, kind, execution, state, attempt, standing,
  coalesce(execution_chain, parent_execution, '') AS parents, parent_run,
  subject, subject_kind, subject_issuer, subject_assurance, shared_by,
  bare_path LIKE 'auth/%' AND strpos(bare_path, '/login') > 0 AS is_login,
  (mount_type = 'transit' AND operation = 'read' AND strpos(bare_path, '/keys/') > 0)
    OR bare_path LIKE 'auth/token/lookup%' OR bare_path LIKE 'sys/leases/lookup%'
    OR bare_path LIKE 'sys/internal/ui/mounts%' OR bare_path = 'sys/health' AS is_bookkeeping,
  bare_path LIKE 'auth/%' OR bare_path LIKE 'sys/%' AS is_management,
  bare_path LIKE 'sys/wrapping/%' AS is_unwrapping,
  bare_path LIKE 'auth/token/revoke%' OR bare_path LIKE 'sys/leases/revoke%' AS is_end
FROM bare
