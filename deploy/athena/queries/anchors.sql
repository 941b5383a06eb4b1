-- Anchors of brokers' chains, in Vault's log, that contradict the brokers' lines or each other.
--
-- `cut_tail`: the boot had come further than its lines here do (or they are not delivered yet). `rewritten`: its line of
-- that number has another hash. `conflict`: two anchors of one boot and number differ. `foreign`: it was made by somebody
-- else than who made the boot's first login, and does not count.
--
-- What SQL cannot tell: whether a line's hash is that of its own bytes, and whether an older state of a whole file was put
-- back. `tenure audit verify --vault-log` does.
WITH held AS (
  SELECT seq, hash FROM tenure_lines
  UNION
  -- What the first line that is here goes on from.
  SELECT seq - 1, prev FROM tenure_lines
), judged AS (
  SELECT anchors.moment, anchors.boot, anchors.seq, anchors.hash, anchors.identity, anchors.login_identity,
    anchors.vault_request_id, anchors.counts, boots.first_seq, boots.last_seq,
    held.hash IS NOT NULL AS is_held
  FROM tenure_anchors anchors
  LEFT JOIN tenure_boots boots ON boots.boot = anchors.boot
  LEFT JOIN held ON held.seq = anchors.seq AND held.hash = anchors.hash
), conflicting AS (
  SELECT boot, seq FROM tenure_anchors WHERE counts GROUP BY boot, seq HAVING count(DISTINCT hash) > 1
)
SELECT 'error' AS severity, CASE WHEN seq > last_seq THEN 'cut_tail' ELSE 'rewritten' END AS kind, moment, boot, seq, hash,
  last_seq, identity, login_identity, vault_request_id
FROM judged
-- Before the first line that is here, there is nothing to compare with.
WHERE counts AND NOT is_held AND last_seq IS NOT NULL AND seq >= first_seq - 1
UNION ALL
SELECT 'error', 'conflict', judged.moment, judged.boot, judged.seq, judged.hash, judged.last_seq, judged.identity,
  judged.login_identity, judged.vault_request_id
FROM judged JOIN conflicting ON conflicting.boot = judged.boot AND conflicting.seq = judged.seq
WHERE judged.counts
UNION ALL
SELECT 'error', 'foreign', moment, boot, seq, hash, last_seq, identity, login_identity, vault_request_id
FROM judged
WHERE NOT counts
ORDER BY moment, seq
