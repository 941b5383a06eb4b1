-- The requests that brokers' lines tell of, by what was sent as X-Tenure-Request.
CREATE OR REPLACE VIEW tenure_claims AS
SELECT request, max(CASE WHEN event = 'login' THEN 1 ELSE 0 END) = 1 AS is_login
FROM tenure_lines
WHERE request IS NOT NULL
GROUP BY request
