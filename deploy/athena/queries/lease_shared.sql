-- Credentials that more than one run used, though no rule says that its runs share.
SELECT 'error' AS severity, 'lease_shared' AS kind, min(lines.moment) AS moment, leases.run_id, lines.lease_id,
  min(lines.path) AS path, count(DISTINCT lines.run_id) AS runs
FROM tenure_lines lines
JOIN tenure_leases leases ON leases.lease_id = lines.lease_id
LEFT JOIN tenure_runs owners ON owners.run_id = leases.run_id
WHERE lines.run_id IS NOT NULL AND lines.outcome IN ('done', 'granted') AND owners.shared_by IS NULL
GROUP BY lines.lease_id, leases.run_id
HAVING count(DISTINCT lines.run_id) > 1
ORDER BY moment, lines.lease_id
