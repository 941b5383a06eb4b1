-- What the logs cover: what to know before the other answers are believed. One row.
--
-- `chain_breaks` are numbers of lines between the first and the last of a boot that are missing or there twice, and lines
-- that do not have the hash of the one before. No Vault lines, no headers or no identities: a bypass cannot be seen.
WITH lines AS (
  SELECT boot, seq, prev, lag(seq) OVER (PARTITION BY boot ORDER BY seq) AS seq_before,
    lag(hash) OVER (PARTITION BY boot ORDER BY seq) AS hash_before
  FROM tenure_lines
), breaks AS (
  SELECT count(*) AS breaks FROM lines WHERE seq_before <> seq - 1 OR hash_before <> prev
), brokers AS (
  SELECT coalesce(sum(broker_lines), 0) AS broker_lines, count(*) AS brokers, min(first_line) AS first_line,
    max(last_line) AS last_line, coalesce(sum(lost_lines), 0) AS lost_lines,
    coalesce(sum(lost_requests), 0) AS lost_requests,
    count(DISTINCT account) AS accounts
  FROM tenure_boots
), vaults AS (
  SELECT count(*) AS answers, min(moment) AS first_answer, max(moment) AS last_answer, count(request) > 0 AS headers,
    count(DISTINCT cluster) AS clusters
  FROM vault_requests
), identities AS (
  SELECT count(*) AS identities FROM tenure_identities
), runs AS (
  SELECT count(*) AS runs, count(ended) AS ended,
    -- Without a token of its own, what a run holds hangs off the login token.
    count(coalesce(revoke_confirmed, CASE WHEN started IS NULL THEN login_revoke_confirmed END)) AS revoked,
    count(execution) AS of_executions,
    count(CASE WHEN execution IS NOT NULL AND standing = 'verified' THEN 1 END) AS verified,
    count(subject) AS with_subject,
    count(CASE WHEN subject IS NOT NULL AND subject_assurance = 'verified' THEN 1 END) AS with_verified_subject,
    coalesce(sum(secret_reads), 0) AS secret_reads, coalesce(sum(denials), 0) AS denials
  FROM tenure_runs
), leases AS (
  SELECT count(minted) AS leases FROM tenure_leases
)
SELECT brokers.broker_lines, brokers.brokers, brokers.accounts, brokers.first_line AS broker_first,
  brokers.last_line AS broker_last, breaks.breaks AS chain_breaks, brokers.lost_lines, brokers.lost_requests,
  vaults.answers AS vault_answers, vaults.clusters AS vault_clusters, vaults.first_answer AS vault_first,
  vaults.last_answer AS vault_last, vaults.headers AS headers_audited, identities.identities > 0 AS roles_known,
  runs.runs, runs.ended AS runs_ended, runs.revoked AS runs_revoked, runs.of_executions AS runs_of_executions,
  runs.verified AS runs_verified, runs.with_subject AS runs_with_subject,
  runs.with_verified_subject AS runs_with_verified_subject, runs.secret_reads, runs.denials, leases.leases
FROM brokers CROSS JOIN breaks CROSS JOIN vaults CROSS JOIN identities CROSS JOIN runs CROSS JOIN leases
