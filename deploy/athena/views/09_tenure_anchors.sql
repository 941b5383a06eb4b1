-- The heads of brokers' chains that Vault's log has, where no broker can change them: in the metadata of run tokens as
-- they were made (audit_head), and in the header X-Tenure-Chain; with who put them there.
--
-- Whoever has the brokers' role can write one: those of a boot count that were made by who made its first login; where that
-- is not in the log, by who made the first of them.
CREATE OR REPLACE VIEW tenure_anchors AS
WITH told AS (
  SELECT moment, vault_request_id, identity, made_boot AS boot, made_seq AS seq, made_head AS hash
  FROM vault_requests
  WHERE error IS NULL AND NOT is_login AND header_chain IS NULL AND made_head IS NOT NULL
  UNION ALL
  SELECT moment, vault_request_id, identity, split_part(header_chain, ':', 1),
    TRY_CAST(split_part(header_chain, ':', 2) AS bigint), split_part(header_chain, ':', 3)
  FROM vault_requests
  WHERE error IS NULL AND NOT is_login AND header_chain IS NOT NULL
), logins AS (
  SELECT request_boot AS boot, min_by(made_identity, moment) AS identity
  FROM vault_requests
  WHERE is_login AND error IS NULL AND made_identity IS NOT NULL AND request_boot IS NOT NULL
  GROUP BY request_boot
), firsts AS (
  SELECT boot, min_by(coalesce(identity, ''), moment) AS identity FROM told GROUP BY boot
)
SELECT told.moment, told.vault_request_id, told.identity, told.boot, told.seq, told.hash,
  coalesce(logins.identity, firsts.identity) AS login_identity,
  coalesce(told.identity, '') = coalesce(logins.identity, firsts.identity) AS counts
FROM told JOIN firsts ON firsts.boot = told.boot LEFT JOIN logins ON logins.boot = told.boot
WHERE told.seq IS NOT NULL AND length(told.hash) = 64
