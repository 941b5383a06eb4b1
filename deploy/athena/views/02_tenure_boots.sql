-- Each start of a broker whose log is here, its last line, and whether it stopped in order.
CREATE OR REPLACE VIEW tenure_boots AS
SELECT boot, min(account) AS account, min(region) AS region, min(moment) AS first_line, max(moment) AS last_line,
  max(CASE WHEN event = 'shutdown' THEN 1 ELSE 0 END) = 1 AS stopped, min(seq) AS first_seq, max(seq) AS last_seq,
  count(*) AS broker_lines, coalesce(sum(lost_lines), 0) AS lost_lines, coalesce(sum(lost_requests), 0) AS lost_requests
FROM tenure_lines
GROUP BY boot
