-- Leases that could still be used a minute after their run had ended.
SELECT 'error' AS severity, 'lease_outlived_run' AS kind, runs.ended AS moment, runs.run_id, runs.execution, runs.state,
  runs.subject, leases.lease_id, leases.path, leases.minted, leases.usable_until, leases.revoked
FROM tenure_leases leases JOIN tenure_runs runs ON runs.run_id = leases.run_id
WHERE leases.usable_until > runs.ended + INTERVAL '60' SECOND
ORDER BY runs.ended, runs.run_id, leases.lease_id
