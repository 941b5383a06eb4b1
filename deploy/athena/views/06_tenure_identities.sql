-- Who the brokers are to Vault: from logins that a broker's line tells of, and from the making of tokens for runs that a
-- broker's line tells of. All brokers of a service have one role, and whoever else has it is as good as they.
CREATE OR REPLACE VIEW tenure_identities AS
SELECT made_identity AS identity
FROM vault_requests JOIN tenure_claims ON tenure_claims.request = vault_requests.request AND tenure_claims.is_login
WHERE vault_requests.is_login AND vault_requests.error IS NULL AND vault_requests.made_identity IS NOT NULL
UNION
SELECT vault_requests.identity
FROM vault_requests JOIN tenure_runs ON tenure_runs.run_id = vault_requests.made_run
WHERE NOT vault_requests.is_login AND vault_requests.error IS NULL AND vault_requests.identity IS NOT NULL
