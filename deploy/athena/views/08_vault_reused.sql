-- Ids of brokers' requests that came again with another path, or were served to another token: they are counted, and so
-- can be guessed. A broker tries a request again, after a new login with another token, until it is served.
CREATE OR REPLACE VIEW vault_reused AS
WITH known AS (
  SELECT boot FROM tenure_boots
  UNION
  SELECT nullif(regexp_extract(request, '^(.*)-([1-9][0-9]*)$', 1), '') FROM tenure_claims
), claimed AS (
  SELECT * FROM vault_requests
  WHERE NOT is_bookkeeping AND NOT is_unwrapping
    AND request_boot IN (SELECT boot FROM known)
    AND (request IN (SELECT request FROM tenure_claims)
      OR vault_request_id IN (SELECT vault_request_id FROM tenure_lines WHERE vault_request_id IS NOT NULL))
), first_seen AS (
  SELECT request, min_by(path, moment) AS path,
    min_by(coalesce(accessor, ''), moment) FILTER (WHERE error IS NULL) AS accessor
  FROM claimed
  GROUP BY request
)
SELECT claimed.*
FROM claimed JOIN first_seen ON first_seen.request = claimed.request
WHERE claimed.path <> first_seen.path
  OR claimed.error IS NULL AND coalesce(claimed.accessor, '') <> first_seen.accessor
