-- Each lease that a broker minted, with the run that it hangs off, and until when it could be used: by its own expiry, its
-- token's, or the confirmed revocation, whichever came first.
CREATE OR REPLACE VIEW tenure_leases AS
WITH told AS (
  SELECT lease_id, min(path) AS path,
    min(CASE WHEN event IN ('mint', 'rotate') THEN run_id END) AS run_id,
    min(CASE WHEN event IN ('mint', 'rotate') THEN moment END) AS minted,
    max(CASE WHEN event IN ('mint', 'rotate', 'renew') THEN expires END) AS expires,
    sum(CASE WHEN event IN ('mint', 'rotate', 'renew') THEN 0 ELSE 1 END) AS secret_reads
  FROM tenure_lines
  WHERE lease_id IS NOT NULL AND run_id IS NOT NULL AND outcome IN ('done', 'granted')
  GROUP BY lease_id
), with_run AS (
  SELECT told.lease_id, told.path, told.run_id, told.minted, told.secret_reads,
    least(coalesce(told.expires, runs.token_ends), coalesce(runs.token_ends, told.expires)) AS expires,
    -- Without a token of its own, what a run holds hangs off the login token.
    coalesce(runs.revoke_confirmed, CASE WHEN runs.started IS NULL THEN runs.login_revoke_confirmed END) AS confirmed
  FROM told LEFT JOIN tenure_runs runs ON runs.run_id = told.run_id
)
SELECT lease_id, path, run_id, minted, secret_reads,
  CASE WHEN confirmed >= coalesce(minted, confirmed) AND confirmed < coalesce(expires, confirmed + INTERVAL '1' SECOND)
    THEN confirmed ELSE expires END AS usable_until,
  coalesce(confirmed >= coalesce(minted, confirmed)
    AND confirmed < coalesce(expires, confirmed + INTERVAL '1' SECOND), false) AS revoked
FROM with_run
